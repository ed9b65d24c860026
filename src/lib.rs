//! Tidegate is a write-behind persistence daemon: it drains Redis queues, coalesces events per
//! entity, and bulk-writes them to MongoDB exactly once.

pub mod app;
pub mod backoff;
pub mod batch;
pub mod buffer;
pub mod change;
pub mod cli;
pub mod coalesce;
pub mod commit;
pub mod config;
pub mod dead_letter;
pub mod event;
pub mod http;
pub mod lane;
pub mod log;
pub mod metrics;
pub mod queue;
pub mod raw;
pub mod settle;
pub mod sink;
pub mod source;
pub mod status;
pub mod tail_clock;

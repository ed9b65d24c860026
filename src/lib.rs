//! Tidegate is a write-behind persistence daemon: it drains Redis queues, coalesces events per
//! entity, and bulk-writes them to MongoDB exactly once.

pub mod cli;
pub mod config;
pub mod dead_letter;

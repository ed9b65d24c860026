//! Tidegate is a write-behind persistence daemon between Redis queues and MongoDB.
//! It drains the queues, coalesces events per entity, and bulk-writes them exactly once.
//!
//! # On the event's way
//!
//! 1. [`source`] reads windows of events from Redis. They stay there until they are committed.
//! 2. [`decode`] makes a [`change`] of an event's bytes: an entity, and what is to happen to it. [`raw`] is the encoded
//!    BSON that changes are made of. An event that can never be applied becomes a [`dead_letter`].
//! 3. [`queue`] hands changes to lanes by their entities' hashes.
//! 4. [`lane`] folds changes into pending updates, and has a batch written when [`batch`] says so.
//! 5. [`coalesce`] has the rules of folding.
//! 6. [`sink`] writes the batch to MongoDB, and answers a verdict for every write. The lane does what it asks for.
//! 7. [`commit`] tracks how far everything is settled. [`queue`] has [`source`] commit up to there.
//!
//! # What serves it
//!
//! | Modules | Job |
//! | --- | --- |
//! | [`ownership`], [`peers`], [`epoch`] | whose a queue is; what its reader, lanes and committer share |
//! | [`ledger`], [`buffer`] | whoever holds events has to settle them, and there is a bound on all that are held |
//! | [`mapping`], [`live_settings`] | what events mean, and what else can change while an instance runs |
//! | [`retry`], [`health`] | which errors are tried again, and whether the servers answer |
//! | [`history`], [`hot_state`], [`yjs`] | events kept as they came; documents kept in Redis; binary documents |
//! | `tls` | what encrypted connections are made with, and why one is not made |
//! | [`trace`], [`tail_clock`] | which traces events belong to; how old they are |
//! | [`status`], [`metrics`], [`receipts`] | what people, Prometheus and producers are told |
//! | [`http`], [`log`], [`format`](mod@format) | how they are told |
//! | [`app`], [`config`], [`cli`], [`reload`] | starting and ending it, and what it is to do |
//! | [`sample`] | what sample events become, for whoever writes routes |
//! | [`dead`] | looking after dead letters |
//! | [`remote`] | what a running instance says, asked from outside |
//! | [`preflight`], `finding` | what the servers are like, before anything is drained |
//!
//! `docs/architecture.md` has the protocol and its reasons. Its code map says of every module what must hold, and what it
//! may import. Its walk follows one event file by file.

#[macro_use]
mod labelled;

pub mod app;
pub mod batch;
mod beat;
pub mod buffer;
pub mod caused;
pub mod change;
pub mod cli;
pub mod coalesce;
pub mod commit;
pub mod config;
pub mod dead;
pub mod dead_letter;
pub mod decode;
pub mod epoch;
mod finding;
pub mod format;
pub mod health;
pub mod history;
pub mod hot_state;
pub mod http;
pub mod lane;
pub mod ledger;
pub mod live_settings;
pub mod log;
pub mod mapping;
pub mod metrics;
pub mod ownership;
pub mod pausing;
pub mod peers;
pub mod preflight;
pub mod queue;
pub mod raw;
pub mod receipts;
pub mod reload;
pub mod remote;
pub mod retry;
pub mod sample;
pub mod sink;
pub mod source;
pub mod status;
pub mod tail_clock;
mod tls;
pub mod trace;
pub mod yjs;

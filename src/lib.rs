//! Tidegate is a write-behind persistence daemon: it drains Redis queues, coalesces events per
//! entity, and bulk-writes them to MongoDB exactly once.
//!
//! # One event's way
//!
//! 1. [`source`] reads a window of events from a Redis list. They stay there.
//! 2. [`event`] decodes each event to a [`change`]: an entity, and what is to happen to it. [`raw`]
//!    is the encoded BSON that changes are made of.
//! 3. What can never be applied becomes a [`dead_letter`], recorded before anything later is written.
//! 4. [`queue`] hands the changes to lanes by their entities' hashes. [`buffer`] bounds how far this
//!    runs ahead of MongoDB.
//! 5. [`lane`] folds a change into its entity's pending update by the rules of [`coalesce`], and sends
//!    a batch when [`batch`] says so.
//! 6. [`sink`] writes the batch, guarded by the documents' watermarks, and answers a verdict for each
//!    write. The lane does what the verdict asks for, with a [`backoff`] where it is to try again
//!    ([`class`]). A [`write`](mod@write) is what they pass to each other.
//! 7. [`settle`] keeps the account: whoever holds events has to say what became of them.
//! 8. [`commit`] tracks how far everything is settled, and [`queue`] has [`source`] trim the list up to
//!    there.
//!
//! # Around it
//!
//! [`app`] starts and ends an instance, and [`queue`] takes queues over and gives them up. [`cli`] and
//! [`config`] say what is to be done, [`sample`] shows it on sample events. [`status`], [`metrics`], [`http`] and [`log`] tell what is being
//! done, [`reload`] changes what is [`live`]; [`receipts`] tell producers what is durable; [`history`] keeps events as they came;
//! [`hot_state`] keeps documents fresh in Redis; [`tail_clock`] estimates how old events are.
//! A [`trace`] goes along with the events that belong to one. [`words`] writes numbers and times as people say them.
//!
//! The protocol, its invariants and the reasons are in `docs/architecture.md`.

pub mod app;
pub mod batch;
pub mod buffer;
pub mod change;
pub mod cli;
pub mod coalesce;
pub mod commit;
pub mod config;
pub mod dead_letter;
pub mod decode;
pub mod epoch;
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
pub mod peers;
pub mod queue;
pub mod raw;
pub mod receipts;
pub mod reload;
pub mod retry;
pub mod sample;
pub mod sink;
pub mod source;
pub mod status;
pub mod tail_clock;
pub mod trace;
pub mod yjs;

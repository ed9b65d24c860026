//! The daemon as its users see it: the real binary against real servers. One binary, so that it links once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop there")]

mod alerts;
mod bad_input;
mod collab;
mod command_line;
mod connections;
mod crash_loop;
mod dashboards;
mod deaths;
mod delivery;
mod ending;
mod exposition;
mod held_back;
mod history;
mod hostile;
mod hot_state;
mod image;
mod indexes;
mod main_path;
mod new_documents;
mod node;
mod numbering;
mod odd_events;
mod other_stream;
mod outages;
mod overload;
mod ownership;
mod page;
mod patches;
mod producers;
mod reaching_mongodb;
mod receipts;
mod reload;
mod sentinel;
mod shard_key;
mod sharing;
mod stage;
mod streams;
mod support;
mod tombstones;
mod traces;
mod yjs;

mod support_forge;
mod support_proxy;
mod support_smoke;

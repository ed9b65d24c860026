//! Runs a queue: takeover, reading ahead, dispatch to lanes, commits, hand-over.

mod committer;
mod death_mark;
mod dispatcher;
mod drain;
mod look_pause;
mod overflow;
mod paused;
mod reader;
mod recovery;
mod takeover;
mod tasks;

pub(crate) use self::drain::drain;

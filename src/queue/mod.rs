//! Runs a queue: takeover, reading ahead, dispatch to lanes, commits, hand-over.

mod committer;
mod death_mark;
mod dispatcher;
mod drain;
mod overflow;
mod pause;
mod reader;
mod recovery;
mod takeover;

pub(crate) use self::drain::drain;

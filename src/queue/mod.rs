//! Running a queue: taking over, reading ahead, dispatching to lanes, committing, handing over.

mod committer;
mod death_mark;
mod dispatcher;
mod drain;
mod pause;
mod reader;
mod recovery;
mod takeover;

pub use self::drain::drain;

//! Running a queue: taking over, reading ahead, dispatching to lanes, committing, handing over.

mod committer;
mod dispatcher;
mod drain;
mod mark;
mod pause;
mod reader;
mod recovery;
mod takeover;

pub use self::drain::drain;

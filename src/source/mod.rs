//! The source: Redis. Reading events, keeping what is unsettled, committing what is settled.

mod connect;
mod error;
mod fate;
mod keys;
mod list;
mod members;
mod pop;
mod script;
mod sentinel;
mod tries;
mod waiter;

use std::sync::Arc;

pub use self::connect::{Redis, version};
pub use self::error::SourceError;
pub use self::fate::{Fate, Fates};
pub use self::keys::Keys;
pub use self::list::{List, State, epoch_of, sha1, state};
pub use self::members::{Members, Roster};
pub use self::pop::Pop;
pub use self::tries::Tries;
pub use self::waiter::Waiter;
use crate::commit::Checkpoint;

/// The most events that are read at once: windows of this size move as many events a second as larger ones, and
/// cost less memory.
pub const MAX_WINDOW: usize = 2000;

/// Events read at once: elements at consecutive offsets.
#[derive(Debug, Clone, Default)]
pub struct Window {
    first: i64,
    events: Arc<Vec<Vec<u8>>>,
    ahead: usize,
}

impl Window {
    /// Events at consecutive offsets from `first` on.
    #[must_use]
    pub fn new(first: i64, events: Vec<Vec<u8>>) -> Self {
        Window { first, events: Arc::new(events), ahead: 0 }
    }

    /// The same window, behind which an element of so many bytes was seen.
    #[must_use]
    fn with_ahead(self, ahead: usize) -> Self {
        Window { ahead, ..self }
    }

    /// Bytes of the largest event among it and what was seen behind it.
    #[must_use]
    pub fn largest(&self) -> usize {
        self.events.iter().map(Vec::len).max().unwrap_or(0).max(self.ahead)
    }

    /// The number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The offset behind the last event.
    #[must_use]
    pub fn end(&self) -> i64 {
        self.first + i64::try_from(self.events.len()).unwrap_or(0)
    }

    /// Offsets and events.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &[u8])> {
        (self.first..).zip(self.events.iter().map(Vec::as_slice))
    }

    /// Bytes of all events.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.events.iter().map(|event| event.len() + size_of::<Vec<u8>>()).sum()
    }

    /// Where the queue may be trimmed once the window is settled. None if it is empty.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        Some(Checkpoint { end: self.end(), sha1: sha1(self.events.last()?) })
    }
}

/// How much is in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Elements, settled or not.
    pub elements: u64,
    /// The offset that the next element pushed will have.
    pub tail: i64,
}

/// A dead letter, as it is kept.
#[derive(Debug, Clone)]
pub struct Letter {
    /// The event's offset.
    pub offset: i64,
    /// The JSON object for the dead-letter list.
    pub json: String,
}

/// A queue, read in the way that its delivery asks for.
#[derive(Debug)]
pub enum Source {
    /// Read without removal, trimmed once settled.
    List(List),
    /// Popped.
    Pop(Pop),
}

impl Source {
    /// Reads new events from `cursor` on: `count`, which are known to be there. With no count, only looks how
    /// much there is. A popped list has no cursor; it waits for events, and answers up to `count` of them.
    ///
    /// # Errors
    /// The ownership has ended.
    pub async fn read(&self, cursor: i64, count: usize) -> Result<(Window, Depth), SourceError> {
        match self {
            Source::List(_) if list::is_used_up(cursor) => Err(SourceError::UsedUp),
            Source::List(list) => list.read(cursor, count, true).await,
            Source::Pop(pop) => pop.read(cursor, count).await,
        }
    }

    /// Reads unsettled events once more.
    ///
    /// # Errors
    /// The ownership has ended.
    pub async fn reread(&self, cursor: i64, count: usize) -> Result<Window, SourceError> {
        match self {
            Source::List(list) => Ok(list.read(cursor, count, false).await?.0),
            Source::Pop(pop) => Ok(pop.reread(cursor, count)),
        }
    }

    /// Records dead letters, so that no crash loses them.
    ///
    /// # Errors
    /// The ownership has ended.
    pub async fn bury(&self, letters: &[Letter]) -> Result<(), SourceError> {
        match self {
            Source::List(list) => list.bury(letters).await,
            Source::Pop(pop) => pop.bury(letters).await,
        }
    }

    /// Tells the queue that everything below `checkpoint` is settled, `dead` of it dead letters.
    ///
    /// # Errors
    /// The ownership has ended.
    pub async fn commit(&self, checkpoint: Checkpoint, dead: &[i64]) -> Result<Depth, SourceError> {
        match self {
            Source::List(list) => list.commit(checkpoint, dead).await,
            Source::Pop(pop) => Ok(pop.commit(checkpoint)),
        }
    }

    /// How much is in the queue, and how many dead letters in their list, if they could be counted.
    ///
    /// # Errors
    /// The ownership has ended.
    pub async fn depth(&self) -> Result<(Depth, Option<u64>), SourceError> {
        match self {
            Source::List(list) => list.depth().await,
            Source::Pop(pop) => pop.depth().await,
        }
    }
}

//! Talks to Redis: reads events, keeps what is unsettled, commits what is settled.

mod connect;
mod deaths;
mod delivery_status;
mod error;
mod hot_state;
mod identity;
mod instances;
mod lease;
mod list;
mod lua;
mod meddling;
mod pop;
mod rights;
mod script;
mod sentinel;
mod state;
mod stream;
mod waiter;
mod window;
mod wire;

use std::ops::Range;

pub use self::connect::{Redis, check_version, deletes_at_once, version};
pub use self::deaths::{Deaths, RecoveryPart, lives};
pub use self::delivery_status::{DeliveryStatus, DeliveryStatuses};
pub use self::error::SourceError;
pub use self::hot_state::{Looked, Refresh};
pub use self::identity::{KnownQueue, identify};
pub use self::instances::{Beat, Instances, Roster};
pub use self::lease::Lease;
pub use self::list::{List, sha1};
pub use self::meddling::Interference;
pub use self::pop::Pop;
pub use self::rights::Rights;
pub use self::state::{QueueState, state};
pub use self::stream::Stream;
pub use self::waiter::Waiter;
pub use self::window::{Depth, MAX_WINDOW, QueueLook, Window};
use crate::commit::Checkpoint;
use crate::epoch::{epoch_of, first_offset, is_used_up};

/// A dead letter, as it is kept.
#[derive(Debug, Clone)]
pub struct DeadLetterRecord {
    /// The event's offset.
    pub offset: i64,
    /// The JSON object for the dead-letter list.
    pub json: String,
}

/// A queue, read in the way that its kind and delivery ask for.
#[derive(Debug)]
pub enum Source {
    /// Read without removal, trimmed once settled.
    List(Box<List>),
    /// Read without removal; the consumer group says what is settled.
    Stream(Box<Stream>),
    /// Popped.
    Pop(Box<Pop>),
}

impl Source {
    /// What makes it this instance's, if anything has to.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        match self {
            Source::List(list) => Some(list.lease()),
            Source::Stream(stream) => Some(stream.lease()),
            Source::Pop(_) => None,
        }
    }

    /// How many streams were in this place, one after another, with this one.
    #[must_use]
    pub fn generation(&self) -> i64 {
        match self {
            Source::Stream(stream) => stream.generation(),
            Source::List(_) | Source::Pop(_) => 1,
        }
    }

    /// The numbering that an offset is of, where there are several: a later one follows when all of this is settled.
    #[must_use]
    pub fn numbering(&self, offset: i64) -> Option<i64> {
        matches!(self, Source::List(_)).then(|| epoch_of(offset))
    }

    /// The first offset that is not of the numbering of this one, nor of an earlier one, where there are several.
    #[must_use]
    pub fn beyond_numbering(&self, offset: i64) -> Option<i64> {
        first_offset(self.numbering(offset)? + 1)
    }

    /// How many of the events that are wanted may be asked for: no more than are `known` to be there, where elements
    /// are numbered by their place.
    #[must_use]
    pub fn may_ask(&self, wanted: usize, known: u64) -> usize {
        match self {
            Source::List(_) => wanted.min(usize::try_from(known).unwrap_or(usize::MAX)),
            Source::Stream(_) | Source::Pop(_) => wanted,
        }
    }

    /// Reads new events from `cursor` on: `count`, or as many as are there. With no count, only looks how much there
    /// is. A popped list has no cursor; it waits for events, and answers up to `count` of them.
    ///
    /// # Errors
    /// The ownership has ended.
    pub async fn read(&self, cursor: i64, count: usize) -> Result<(Window, Depth), SourceError> {
        match self {
            Source::List(_) if is_used_up(cursor) => Err(SourceError::UsedUp),
            Source::List(list) => list.read(cursor, count, true).await,
            Source::Stream(stream) => stream.read(cursor, count).await,
            Source::Pop(pop) => pop.read(cursor, count).await,
        }
    }

    /// Reads unsettled events once more: up to `count` of those in `range`. None are answered only if none are there.
    ///
    /// # Errors
    /// The ownership has ended.
    pub async fn reread(&self, range: Range<i64>, count: usize) -> Result<Window, SourceError> {
        let dense = || count.min(usize::try_from(range.end - range.start).unwrap_or(usize::MAX));
        match self {
            Source::List(list) => Ok(list.read(range.start, dense(), false).await?.0),
            Source::Stream(stream) => stream.reread(range, count).await,
            Source::Pop(pop) => Ok(pop.reread(range.start, dense())),
        }
    }

    /// The offsets that a former owner may have sent to MongoDB, or has promised to: what is to be settled before
    /// anything new is read, in this order. The last range, be it empty, begins where Redis takes everything before for
    /// settled.
    pub async fn unsettled(&self) -> Vec<Range<i64>> {
        match self {
            Source::List(list) => vec![list.unsettled().await],
            Source::Stream(stream) => stream.unsettled().await,
            Source::Pop(_) => Vec::new(),
        }
    }

    /// Whether a former owner may have written, or begun to write, any of what is unsettled.
    pub async fn is_in_doubt(&self) -> bool {
        match self {
            Source::List(list) => !list.unsettled().await.is_empty(),
            Source::Stream(stream) => stream.is_in_doubt().await,
            Source::Pop(_) => false,
        }
    }

    /// Where the first `events` events of a range end: the offset behind the last of them.
    ///
    /// # Errors
    /// The ownership has ended.
    pub async fn part_end(&self, range: Range<i64>, events: i64) -> Result<i64, SourceError> {
        match self {
            Source::List(_) | Source::Pop(_) => Ok(range.end.min(range.start.saturating_add(events))),
            Source::Stream(stream) => stream.part_end(range, events).await,
        }
    }

    /// Makes a dead letter of the first event of a range, at whose start everything before is settled, without reading
    /// it. `letter` is the JSON object without its event.
    ///
    /// # Errors
    /// The ownership has ended.
    pub async fn set_aside(&self, range: Range<i64>, letter: &str) -> Result<(), SourceError> {
        match self {
            Source::List(list) => list.set_aside(letter).await,
            Source::Stream(stream) => stream.set_aside(range, letter).await,
            Source::Pop(_) => Ok(()),
        }
    }

    /// All that was unsettled is settled: prepares for reading new events, and answers where they begin.
    ///
    /// # Errors
    /// The ownership has ended.
    pub async fn recovered(&self) -> Result<i64, SourceError> {
        match self {
            Source::List(list) => list.renumber().await,
            Source::Stream(stream) => stream.recovered().await,
            Source::Pop(_) => Ok(0),
        }
    }

    /// When an event came into being, milliseconds since the Unix epoch, if its offset says so.
    #[must_use]
    pub fn enqueued_ms(&self, offset: i64) -> Option<i64> {
        matches!(self, Source::Stream(_)).then(|| stream::ms_of(offset))
    }

    /// Records dead letters, so that no crash loses them.
    ///
    /// # Errors
    /// The ownership has ended.
    pub async fn bury(&self, letters: &[DeadLetterRecord]) -> Result<(), SourceError> {
        match self {
            Source::Pop(pop) => pop.bury(letters).await,
            Source::List(list) => list.lease().bury(letters).await,
            Source::Stream(stream) => stream.lease().bury(letters).await,
        }
    }

    /// Tells the queue that everything below `checkpoint` is settled, `dead` of it dead letters.
    ///
    /// # Errors
    /// The ownership has ended.
    pub async fn commit(&self, checkpoint: Checkpoint, dead: &[i64]) -> Result<Depth, SourceError> {
        match self {
            Source::List(list) => list.commit(checkpoint, dead).await,
            Source::Stream(stream) => stream.commit(checkpoint, dead).await,
            Source::Pop(pop) => Ok(pop.commit(checkpoint)),
        }
    }

    /// Looks at the queue; `settled_to` is the offset below which everything is settled, or will be told to be.
    ///
    /// # Errors
    /// The ownership has ended.
    pub async fn look(&self, settled_to: i64) -> Result<QueueLook, SourceError> {
        match self {
            Source::List(list) => list.look().await,
            Source::Stream(stream) => stream.look(settled_to).await,
            Source::Pop(pop) => pop.look().await,
        }
    }
}

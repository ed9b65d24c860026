//! Talks to Redis: reads events, keeps what is unsettled, commits what is settled.

/// Does something with the type behind a configured kind of queue.
macro_rules! of_kind {
    ($kind:expr, $queue:ident => $does:expr) => {
        match $kind {
            crate::config::QueueKind::List => {
                type $queue = crate::source::list::List;
                $does
            }
            crate::config::QueueKind::Stream => {
                type $queue = crate::source::stream::Stream;
                $does
            }
        }
    };
}

mod access;
mod cluster;
mod connect;
mod connection;
mod deaths;
mod delivery_status;
mod error;
mod hot_state;
mod identity;
mod inspect;
mod instances;
mod lease;
mod letters;
mod letters_script;
mod list;
mod lua;
mod meddling;
mod node;
mod on_demand;
mod open;
mod overflow;
mod paused;
mod pop;
mod program;
mod rights;
mod script;
mod sentinel;
mod shared;
mod state;
mod stream;
mod takeover;
mod waiter;
mod watch;
mod window;
mod wire;

use std::ops::Range;
use std::sync::Arc;

pub(crate) use self::connect::{Redis, check_version, version};
pub(crate) use self::connection::Connection;
pub(crate) use self::deaths::{Deaths, RecoveryPart, lives};
pub(crate) use self::delivery_status::{DeliveryStatus, DeliveryStatuses, RecordedOwnership};
pub(crate) use self::error::SourceError;
pub(crate) use self::hot_state::{Looked, Refresh};
pub(crate) use self::identity::{KnownQueue, identify};
pub(crate) use self::inspect::inspect;
pub(crate) use self::instances::{Beat, Heard, Instances, Roster, Says};
pub(crate) use self::lease::Lease;
pub(crate) use self::letters::{LetterKey, LetterList, Picked, Taking, letter_key};
use self::list::List;
pub(crate) use self::meddling::Interference;
pub(crate) use self::overflow::Outgoing;
pub(crate) use self::paused::{PauseNote, pause, resume};
use self::pop::Pop;
pub(crate) use self::rights::Rights;
pub(crate) use self::state::{QueueState, state};
use self::stream::Stream;
pub(crate) use self::takeover::{Taken, TakeoverRequest};
pub(crate) use self::waiter::Waiter;
pub(crate) use self::window::{Depth, MAX_WINDOW, QueueLook, Window};
use crate::buffer::Buffer;
use crate::commit::Checkpoint;
use crate::config::Keys;
use crate::dead_letter::Dead;
use crate::epoch::{epoch_of, first_offset, is_used_up};
use crate::health::Health;

/// A dead letter, as it is kept.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetterRecord {
    /// The event's offset.
    pub(crate) offset: i64,
    /// The JSON object for the dead-letter list.
    pub(crate) json: String,
}

/// Who is told of dead letters that are on record in Redis, and whose events nobody else has read.
pub(crate) trait Recorded: std::fmt::Debug + Send + Sync {
    /// Tells of them, and takes account of their events.
    fn recorded_unread(&self, letters: &[Dead<'_>]);
}

/// A queue, read in the way that its kind and delivery ask for.
#[derive(Debug)]
pub(crate) struct Source(Kind);

/// What there is of each kind of queue; whatever else differs between them is in their files.
#[derive(Debug)]
enum Kind {
    /// Read without removal, trimmed once settled.
    List(Box<List>),
    /// Read without removal; the consumer group says what is settled.
    Stream(Box<Stream>),
    /// Popped.
    Pop(Box<Pop>),
}

impl Source {
    /// Opens a list to be popped, which nobody has to take over. A server that cannot be reached is an error only here.
    pub(crate) async fn pop(
        redis: Redis,
        keys: Keys,
        health: Arc<Health>,
        buffer: Arc<Buffer>,
    ) -> Result<Self, SourceError> {
        let pop = Pop::new(redis, keys, health, buffer);
        pop.reach().await?;
        Ok(Source(Kind::Pop(Box::new(pop))))
    }

    /// What makes it this instance's, if anything has to.
    #[must_use]
    pub(crate) fn lease(&self) -> Option<&Lease> {
        match &self.0 {
            Kind::List(list) => Some(list.lease()),
            Kind::Stream(stream) => Some(stream.lease()),
            Kind::Pop(_) => None,
        }
    }

    /// How many streams were in this place, one after another, with this one.
    #[must_use]
    pub(crate) fn generation(&self) -> i64 {
        match &self.0 {
            Kind::Stream(stream) => stream.generation(),
            Kind::List(_) | Kind::Pop(_) => 1,
        }
    }

    /// The numbering that an offset is of, where there are several: a later one follows when all of this is settled.
    #[must_use]
    pub(crate) fn numbering(&self, offset: i64) -> Option<i64> {
        matches!(self.0, Kind::List(_)).then(|| epoch_of(offset))
    }

    /// The first offset that is not of the numbering of this one, nor of an earlier one, where there are several.
    #[must_use]
    pub(crate) fn beyond_numbering(&self, offset: i64) -> Option<i64> {
        first_offset(self.numbering(offset)? + 1)
    }

    /// How many of the events that are wanted may be asked for: no more than are `known` to be there, where elements
    /// are numbered by their place.
    #[must_use]
    pub(crate) fn may_ask(&self, wanted: usize, known: u64) -> usize {
        match &self.0 {
            Kind::List(_) => wanted.min(usize::try_from(known).unwrap_or(usize::MAX)),
            Kind::Stream(_) | Kind::Pop(_) => wanted,
        }
    }

    /// Reads new events from `cursor` on: `count`, or as many as are there. With no count, only looks how much there
    /// is. A popped list has no cursor; it waits for events, and answers up to `count` of them.
    pub(crate) async fn read(&self, cursor: i64, count: usize) -> Result<(Window, Depth), SourceError> {
        match &self.0 {
            Kind::List(_) if is_used_up(cursor) => Err(SourceError::UsedUp),
            Kind::List(list) => list.read(cursor, count, true).await,
            Kind::Stream(stream) => stream.read(cursor, count).await,
            Kind::Pop(pop) => pop.read(cursor, count).await,
        }
    }

    /// Whether reading waits by itself until there is something.
    #[must_use]
    pub(crate) fn waits_to_read(&self) -> bool {
        matches!(self.0, Kind::Pop(_))
    }

    /// Waits until there is something to read, or a while.
    pub(crate) async fn wait(&self, waiter: &mut Waiter) -> Result<(), SourceError> {
        match &self.0 {
            Kind::List(_) => waiter.wait(None).await,
            Kind::Stream(stream) => waiter.wait(Some(&stream.past().await)).await,
            Kind::Pop(_) => Ok(()),
        }
    }

    /// The ownership ends, since another client has removed or inserted events: remembers it for the next takeover, or
    /// tells it.
    pub(crate) async fn was_interfered_with(&self) -> Result<(), SourceError> {
        match &self.0 {
            Kind::List(list) => list.mark_moved().await,
            Kind::Stream(stream) => {
                stream.lost_some();
                Ok(())
            }
            Kind::Pop(_) => Ok(()),
        }
    }

    /// Reads unsettled events once more: up to `count` of those in `range`. None are answered only if none are there.
    pub(crate) async fn reread(&self, range: Range<i64>, count: usize) -> Result<Window, SourceError> {
        let dense = || count.min(usize::try_from(range.end - range.start).unwrap_or(usize::MAX));
        match &self.0 {
            Kind::List(list) => Ok(list.read(range.start, dense(), false).await?.0),
            Kind::Stream(stream) => stream.reread(range, count).await,
            Kind::Pop(pop) => Ok(pop.reread(range.start, dense())),
        }
    }

    /// The offsets that a former owner may have sent to MongoDB, or has promised to: what is to be settled before
    /// anything new is read, in this order. The last range, be it empty, begins where Redis takes everything before for
    /// settled.
    pub(crate) async fn unsettled(&self) -> Vec<Range<i64>> {
        match &self.0 {
            Kind::List(list) => vec![list.unsettled().await],
            Kind::Stream(stream) => stream.unsettled().await,
            Kind::Pop(_) => Vec::new(),
        }
    }

    /// Whether a former owner may have written, or begun to write, any of what is unsettled.
    pub(crate) async fn is_in_doubt(&self) -> bool {
        match &self.0 {
            Kind::List(list) => !list.unsettled().await.is_empty(),
            Kind::Stream(stream) => stream.is_in_doubt().await,
            Kind::Pop(_) => false,
        }
    }

    /// Where the first `events` events of a range end: the offset behind the last of them.
    pub(crate) async fn part_end(&self, range: Range<i64>, events: i64) -> Result<i64, SourceError> {
        match &self.0 {
            Kind::List(_) | Kind::Pop(_) => Ok(range.end.min(range.start.saturating_add(events))),
            Kind::Stream(stream) => stream.part_end(range, events).await,
        }
    }

    /// Makes a dead letter of the first event of a range, at whose start everything before is settled, without reading
    /// it. `letter` is the JSON object without its event.
    pub(crate) async fn set_aside(&self, range: Range<i64>, letter: &str) -> Result<(), SourceError> {
        match &self.0 {
            Kind::List(list) => list.set_aside(letter).await,
            Kind::Stream(stream) => stream.set_aside(range, letter).await,
            Kind::Pop(_) => Ok(()),
        }
    }

    /// All that was unsettled is settled: prepares for reading new events, and answers where they begin.
    pub(crate) async fn recovered(&self) -> Result<i64, SourceError> {
        match &self.0 {
            Kind::List(list) => list.renumber().await,
            Kind::Stream(stream) => stream.recovered().await,
            Kind::Pop(_) => Ok(0),
        }
    }

    /// When an event came into being, milliseconds since the Unix epoch, if its offset says so.
    #[must_use]
    pub(crate) fn enqueued_ms(&self, offset: i64) -> Option<i64> {
        matches!(self.0, Kind::Stream(_)).then(|| stream::ms_of(offset))
    }

    /// Records dead letters, so that no crash loses them.
    pub(crate) async fn bury(&self, letters: &[DeadLetterRecord]) -> Result<(), SourceError> {
        match &self.0 {
            Kind::Pop(pop) => pop.bury(letters).await,
            Kind::List(list) => list.lease().bury(letters).await,
            Kind::Stream(stream) => stream.lease().bury(letters).await,
        }
    }

    /// Tells the queue that everything below `checkpoint` is settled, `dead` of it dead letters.
    pub(crate) async fn commit(&self, checkpoint: Checkpoint, dead: &[i64]) -> Result<Depth, SourceError> {
        match &self.0 {
            Kind::List(list) => list.commit(checkpoint, dead).await,
            Kind::Stream(stream) => stream.commit(checkpoint, dead).await,
            Kind::Pop(pop) => Ok(pop.commit(checkpoint)),
        }
    }

    /// Looks at the queue; `settled_to` is the offset below which everything is settled, or will be told to be.
    pub(crate) async fn look(&self, settled_to: i64) -> Result<QueueLook, SourceError> {
        match &self.0 {
            Kind::List(list) => list.look().await,
            Kind::Stream(stream) => stream.look(settled_to).await,
            Kind::Pop(pop) => pop.look().await,
        }
    }

    /// The offset of the oldest unsettled event, by what was seen of the queue; `settled_to` is as for [`Self::look`].
    #[must_use]
    pub(crate) fn oldest(&self, seen: &QueueLook, settled_to: i64) -> Option<i64> {
        match &self.0 {
            Kind::Stream(_) => seen.oldest,
            Kind::List(_) | Kind::Pop(_) => (settled_to < seen.depth.tail).then_some(settled_to),
        }
    }
}

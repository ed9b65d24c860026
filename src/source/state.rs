//! Reads what Redis knows of a queue that is not this instance's.

use super::connection::Connection;
use super::error::SourceError;
use super::paused::{PauseNote, paused};
use crate::config::{self, Delivery, Keys};

/// What Redis knows of a queue, before it is taken over.
#[derive(Debug, Clone, Default)]
pub(crate) struct QueueState {
    pub(super) owner: Option<String>,
    pub(super) base: String,
    pub(super) read: String,
    /// The position of a stream's consumer group, if it has one.
    pub(super) position: String,
    /// Events that are not committed.
    pub(crate) elements: u64,
    /// The highest epoch that offsets, or what was kept beside them, know of.
    pub(super) epoch: i64,
    /// The epoch under which what is unsettled was read.
    pub(crate) reader: i64,
    /// Who has paused it, if it is paused.
    pub(crate) paused: Option<PauseNote>,
}

impl QueueState {
    /// Whether somebody else than the owner of `previous` owns the queue.
    #[must_use]
    pub(crate) fn is_owned(&self, previous: Option<i64>) -> bool {
        self.owner
            .as_ref()
            .is_some_and(|owner| Some(owner) != previous.map(|epoch| epoch.to_string()).as_ref())
    }

    /// The highest epoch that anything in Redis has.
    #[must_use]
    pub(crate) fn epoch(&self) -> i64 {
        let owner = self.owner.as_ref().and_then(|owner| owner.parse().ok()).unwrap_or(0);
        self.epoch.max(owner)
    }

    /// Whether somebody may have read, and written, what is not committed.
    #[must_use]
    pub(crate) fn is_unsettled(&self) -> bool {
        let (base, read) = self.offsets();
        read > base
    }

    /// Base and read as numbers.
    pub(super) fn offsets(&self) -> (i64, i64) {
        let base = self.base.parse().unwrap_or(0);
        (base, self.read.parse().unwrap_or(0).max(base))
    }
}

/// Reads a queue's state.
pub(crate) async fn state(
    connection: &mut Connection,
    keys: &Keys,
    queue: &config::Queue,
) -> Result<QueueState, SourceError> {
    if queue.delivery == Delivery::AtMostOnce {
        // Nothing else is kept of what is popped, and no right to read more is asked for.
        let elements = redis::cmd("LLEN").arg(&keys.queue).query_async(connection).await?;
        let paused = paused(connection, keys).await?;
        return Ok(QueueState { elements, paused, ..QueueState::default() });
    }
    of_kind!(queue.kind, Queue => Queue::state(connection, keys, queue).await)
}

//! Marks in Redis that this process works on what is to be recovered. If it dies then, the marked events are suspected.
//!
//! It is set before anything is read, and taken away when the work has to wait for MongoDB, or is to end. Waiting may take
//! hours, and processes are ended meanwhile for all kinds of reasons, none of them the events.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::ownership::Owned;
use crate::source::{Lease, RecoveryPart, SourceError};

/// How often the work is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// What lanes do with what they were given takes far less, unless MongoDB does not answer.
const STALLED: Duration = Duration::from_secs(1);

/// A mark for one piece of work.
pub(super) struct DeathMark<'o> {
    queue: &'o Owned,
    lease: &'o Lease,
    part: Option<RecoveryPart>,
    state: Mutex<Progress>,
}

struct Progress {
    is_set: bool,
    doing: Stage,
    since: Instant,
    /// How far the queue was settled when that was seen last.
    settled_to: i64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Reads and decodes.
    Reading,
    /// The lanes have it.
    Given,
    /// The work is to end.
    Ending,
}

impl<'o> DeathMark<'o> {
    pub(super) fn new(queue: &'o Owned, lease: &'o Lease, part: Option<RecoveryPart>) -> Self {
        let state = Progress { is_set: false, doing: Stage::Given, since: Instant::now(), settled_to: 0 };
        DeathMark { queue, lease, part, state: state.into() }
    }

    /// Something is about to be read. The mark is there before.
    pub(super) async fn reading(&self) -> Result<(), SourceError> {
        {
            let mut state = self.state.lock();
            if state.doing == Stage::Ending {
                return Ok(());
            }
            state.doing = Stage::Reading;
            if std::mem::replace(&mut state.is_set, true) {
                return Ok(());
            }
        }
        self.lease.works(self.queue.shared.peers.name(), self.part).await
    }

    /// What was read is the lanes'.
    pub(super) fn given(&self) {
        let mut state = self.state.lock();
        if state.doing == Stage::Reading {
            (state.doing, state.since) = (Stage::Given, Instant::now());
        }
    }

    /// Takes the mark away whenever nothing is done but waiting, and for good once `stop` is there.
    ///
    /// # Errors
    /// Redis's. Ends with nothing else.
    pub(super) async fn watch(&self, stop: &CancellationToken) -> SourceError {
        loop {
            let stopped = stop.run_until_cancelled(sleep(LOOK)).await.is_none();
            if self.is_to_go(stopped)
                && let Err(error) = self.lease.rests(self.queue.shared.peers.name()).await
            {
                return error;
            }
            if stopped {
                return std::future::pending().await;
            }
        }
    }

    /// Whether there is a mark that should not be. It counts as taken away then.
    fn is_to_go(&self, stopped: bool) -> bool {
        let settled_to = self.queue.tracker.lock().settled_to();
        let mut state = self.state.lock();
        if stopped {
            state.doing = Stage::Ending;
        }
        if state.settled_to != settled_to {
            (state.settled_to, state.since) = (settled_to, Instant::now());
        }
        let waits = match state.doing {
            Stage::Reading => false,
            Stage::Given => !self.queue.shared.health.mongodb.is_up() || state.since.elapsed() >= STALLED,
            Stage::Ending => true,
        };
        waits && std::mem::take(&mut state.is_set)
    }
}

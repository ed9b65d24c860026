//! Tracks what each lane of a queue does, and since when. It is told once a batch, never once an event.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Serialize, Serializer};

/// Documents of a collection that wait, since MongoDB refuses to write them for something else than their content.
#[derive(Debug, Clone)]
pub(crate) struct HeldBack {
    /// The collection.
    pub(crate) collection: Arc<str>,
    /// How many documents.
    pub(crate) documents: usize,
    /// Their events.
    pub(crate) events: u64,
    /// Since when.
    pub(crate) since: Instant,
    /// What MongoDB said last.
    pub(crate) error: String,
}

/// A lane's state, for people.
#[derive(Debug, Default)]
pub(crate) struct LaneStatus {
    lane: Mutex<LaneReport>,
    /// What waits for MongoDB to take it.
    held_back: Mutex<Vec<HeldBack>>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct LaneReport {
    doing: Doing,
    #[serde(rename = "for_seconds", serialize_with = "seconds_since")]
    since: Instant,
    /// Documents with a pending update.
    pending_documents: usize,
    /// Events in the batch on its way.
    writing_events: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Doing {
    /// Nothing to do.
    Idle,
    /// Its pending updates wait for company.
    Gathering,
    /// Something is due, and waits for `batch.max_writes_per_second`.
    Limited,
    /// A batch is on its way.
    Writing,
    /// A batch failed and is tried again.
    Retrying,
}

fn seconds_since<S: Serializer>(since: &Instant, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(since.elapsed().as_secs_f64())
}

impl Default for LaneReport {
    fn default() -> Self {
        LaneReport { doing: Doing::Idle, since: Instant::now(), pending_documents: 0, writing_events: 0 }
    }
}

impl LaneReport {
    fn set(&mut self, doing: Doing) {
        if self.doing != doing {
            self.doing = doing;
            self.since = Instant::now();
        }
    }
}

impl LaneStatus {
    /// No batch is on its way, and so many documents are pending.
    pub(crate) fn holds(&self, pending: usize) {
        let mut lane = self.lane.lock();
        lane.set(if pending == 0 { Doing::Idle } else { Doing::Gathering });
        (lane.pending_documents, lane.writing_events) = (pending, 0);
    }

    /// So many documents are pending, of which some would be written but for the bound on writes a second.
    pub(crate) fn is_limited(&self, pending: usize) {
        let mut lane = self.lane.lock();
        lane.set(Doing::Limited);
        (lane.pending_documents, lane.writing_events) = (pending, 0);
    }

    /// A batch is on its way. `began`: it is another one than before.
    pub(crate) fn writes(&self, events: u64, pending: usize, began: bool) {
        let mut lane = self.lane.lock();
        if began {
            lane.doing = Doing::Writing;
            lane.since = Instant::now();
        }
        (lane.pending_documents, lane.writing_events) = (pending, events);
    }

    /// An attempt at the batch failed, or went well after others had failed.
    pub(crate) fn attempted(&self, failed: bool) {
        self.lane.lock().set(if failed { Doing::Retrying } else { Doing::Writing });
    }

    /// Documents of these collections wait for MongoDB to take them.
    pub(crate) fn holds_back(&self, held_back: Vec<HeldBack>) {
        *self.held_back.lock() = held_back;
    }

    /// The same, by collection.
    pub(super) fn held_back(&self) -> Vec<HeldBack> {
        self.held_back.lock().clone()
    }

    /// Whether a batch is on its way.
    pub(super) fn is_writing(&self) -> bool {
        matches!(self.now().doing, Doing::Writing | Doing::Retrying)
    }

    /// Whether it waits for the bound on writes a second.
    pub(super) fn waits_for_bound(&self) -> bool {
        self.now().doing == Doing::Limited
    }

    /// For how long all attempts have failed, if the last one has.
    pub(super) fn retrying(&self) -> Option<Duration> {
        let lane = self.now();
        (lane.doing == Doing::Retrying).then(|| lane.since.elapsed())
    }

    pub(super) fn now(&self) -> LaneReport {
        *self.lane.lock()
    }
}

//! Tracks the events that are parked beside the queue, since MongoDB does not take them now.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::Owned;
use crate::source::SourceError;

/// The most events that are parked, and their bytes: they are in Redis a second time until they are committed.
const MAX_EVENTS: usize = 100_000;
const MAX_BYTES: usize = 64 << 20;

/// Which events of a queue are parked.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    known: Mutex<ParkedEvents>,
    /// Held while the queue is committed, and while events are forgotten here. An event may be in both places, and its
    /// dead letter is moved once: by the commit or by forgetting it, as the base says.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct ParkedEvents {
    /// Offsets, and each event's bytes.
    events: BTreeMap<i64, usize>,
    bytes: usize,
}

impl Parked {
    /// Those that former owners parked. Their sizes are known once they are read.
    #[must_use]
    pub(crate) fn new(offsets: Vec<i64>) -> Self {
        let events = offsets.into_iter().map(|offset| (offset, 0)).collect();
        Parked { known: Mutex::new(ParkedEvents { events, bytes: 0 }), turn: tokio::sync::Mutex::default() }
    }

    /// Whether one more may be parked.
    #[must_use]
    pub(crate) fn has_room(&self) -> bool {
        let known = self.known.lock();
        known.events.len() < MAX_EVENTS && known.bytes < MAX_BYTES
    }

    /// Whether the event at an offset is parked.
    #[must_use]
    pub(crate) fn has(&self, offset: i64) -> bool {
        self.known.lock().events.contains_key(&offset)
    }

    /// How many there are.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.known.lock().events.len()
    }

    /// Whether there are none.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The offsets of those from `first` to `last`.
    #[must_use]
    pub(crate) fn within(&self, first: i64, last: i64) -> Vec<i64> {
        let known = self.known.lock();
        if first > last {
            Vec::new()
        } else {
            known.events.range(first..=last).map(|(offset, _)| *offset).collect()
        }
    }

    pub(crate) fn add(&self, offset: i64, bytes: usize) {
        let mut known = self.known.lock();
        let before = known.events.insert(offset, bytes).unwrap_or(0);
        known.bytes = known.bytes + bytes - before;
    }

    fn remove(&self, offset: i64) {
        let mut known = self.known.lock();
        if let Some(bytes) = known.events.remove(&offset) {
            known.bytes -= bytes;
        }
    }
}

impl Owned {
    /// Parks events: from then on the queue may be trimmed beyond them.
    pub(crate) async fn park(&self, events: &[(i64, &[u8])]) -> Result<(), SourceError> {
        let Some(lease) = self.source.lease().filter(|_| !events.is_empty()) else { return Ok(()) };
        lease.park(events).await?;
        events.iter().for_each(|(offset, event)| self.parked.add(*offset, event.len()));
        self.metrics.parked.set(self.parked.len() as f64);
        Ok(())
    }

    /// Forgets parked events that are settled. Dead letters among them go to their list, unless the queue has them yet.
    pub(crate) async fn unpark(&self, offsets: &[i64]) -> Result<(), SourceError> {
        let Some(lease) = self.source.lease().filter(|_| !offsets.is_empty()) else { return Ok(()) };
        for some in offsets.chunks(1000) {
            let _turn = self.parked.turn.lock().await;
            let base = self.tracker.lock().committed_to();
            let (dead, others): (Vec<i64>, Vec<i64>) = {
                let buried = self.buried.lock();
                some.iter().partition(|offset| **offset < base && buried.contains(*offset))
            };
            lease.unpark(&dead, &others).await?;
            some.iter().for_each(|offset| self.parked.remove(*offset));
            let mut buried = self.buried.lock();
            dead.iter().for_each(|offset| {
                buried.remove(offset);
            });
        }
        self.metrics.parked.set(self.parked.len() as f64);
        Ok(())
    }
}

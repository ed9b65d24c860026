//! Holds the duty to settle events: whoever holds an [`Unsettled`] has to say what became of each of its events.
//! Dropping it hands the events back: they stay in Redis and are read again.

use std::sync::Arc;

use crate::buffer::Buffer;
use crate::change::CollectionId;
use crate::dead_letter::Reason;
use crate::metrics::QueueMetrics;

/// Keeps the account of one queue: received = persisted + deduplicated + dead-lettered + released +
/// buffered.
#[derive(Debug)]
pub struct Ledger {
    metrics: Arc<QueueMetrics>,
    buffer: Arc<Buffer>,
}

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Durable in MongoDB.
    Persisted(CollectionId),
    /// Applied before, by this process or another.
    Deduplicated,
    /// Nothing: a route skips it.
    Skipped,
    /// A dead letter, recorded.
    Dead(Reason),
}

impl Ledger {
    /// The account of the queue whose metrics these are.
    #[must_use]
    pub fn new(metrics: Arc<QueueMetrics>, buffer: Arc<Buffer>) -> Arc<Self> {
        Arc::new(Ledger { metrics, buffer })
    }

    /// Takes on events that were read.
    pub fn receive(self: &Arc<Self>, events: u64) -> Unsettled {
        self.metrics.received.increment(events);
        self.buffer.add_events(events);
        Unsettled { ledger: Arc::clone(self), events }
    }
}

/// Events held, and the duty to settle them.
#[derive(Debug)]
#[must_use = "events must be settled; dropping this hands them back"]
pub struct Unsettled {
    ledger: Arc<Ledger>,
    events: u64,
}

impl Unsettled {
    /// How many events.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The account they are in.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Takes `events` of them out, or as many as there are.
    pub fn split(&mut self, events: u64) -> Unsettled {
        debug_assert!(events <= self.events, "{events} events of {} cannot be split off", self.events);
        let events = events.min(self.events);
        self.events -= events;
        Unsettled { ledger: Arc::clone(&self.ledger), events }
    }

    /// Takes more of the same queue on.
    pub fn absorb(&mut self, mut other: Unsettled) {
        self.events += std::mem::take(&mut other.events);
    }

    /// Says what became of all of them.
    pub fn settle(mut self, outcome: Outcome) {
        let events = std::mem::take(&mut self.events);
        let metrics = &self.ledger.metrics;
        match outcome {
            Outcome::Persisted(collection) => metrics.persisted(collection, events),
            Outcome::Deduplicated => metrics.deduplicated.increment(events),
            Outcome::Skipped => {
                metrics.deduplicated.increment(events);
                metrics.skipped.increment(events);
            }
            Outcome::Dead(reason) => metrics.dead_lettered(reason, events),
        }
        self.ledger.buffer.remove_events(events);
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if self.events > 0 {
            self.ledger.metrics.released.increment(self.events);
            self.ledger.buffer.remove_events(self.events);
        }
    }
}

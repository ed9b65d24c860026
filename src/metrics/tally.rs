//! Counts so that the count can be read.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::Counter;

/// Counts for Prometheus, and keeps the total for the status: the recorder's handles can only be written to.
pub struct Tally {
    counter: Counter,
    total: AtomicU64,
}

impl Tally {
    pub(super) fn new(counter: Counter) -> Self {
        Tally { counter, total: AtomicU64::new(0) }
    }

    /// So many more.
    pub fn increment(&self, by: u64) {
        self.counter.increment(by);
        self.total.fetch_add(by, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

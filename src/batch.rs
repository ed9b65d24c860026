//! Decides when a lane's pending updates become a batch. Time is passed in, never read.

use std::time::Duration;

use crate::config;

labelled! {
    /// Which bound made a batch.
    pub enum Trigger {
        /// As many entities as a batch may have.
        Ops => "ops",
        /// As many bytes as a batch may have.
        Bytes => "bytes",
        /// The oldest change has waited long enough.
        Delay => "delay",
        /// Everything is to be flushed: at the end, or before renumbering.
        Drain => "drain",
    }
}

/// The bounds of a batch; the first one reached sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Entities.
    pub max_ops: usize,
    /// Bytes of pending updates.
    pub max_bytes: usize,
    /// Wait of the oldest change.
    pub max_delay: Duration,
    /// The same while a backlog is read whose changes fold.
    pub backlog_delay: Duration,
}

/// What is pending in a lane.
#[derive(Debug, Clone, Copy)]
pub struct Backlog {
    /// Entities.
    pub ops: usize,
    /// Events, folded into their updates.
    pub events: u64,
    /// Bytes of the updates.
    pub bytes: usize,
    /// Wait of the oldest change.
    pub waited: Duration,
}

impl From<&config::Batch> for Policy {
    fn from(batch: &config::Batch) -> Self {
        Policy {
            max_ops: batch.max_ops,
            max_bytes: usize::try_from(batch.max_bytes.as_u64()).unwrap_or(usize::MAX),
            max_delay: batch.max_delay,
            backlog_delay: batch.backlog_delay,
        }
    }
}

impl Policy {
    /// Why what is held is to be sent now. `behind` says that many more events wait to be read.
    #[must_use]
    pub fn due(&self, held: Backlog, behind: bool) -> Option<Trigger> {
        if held.ops == 0 {
            None
        } else if held.bytes >= self.max_bytes {
            Some(Trigger::Bytes)
        } else if behind && held.waited < self.patience(held, behind) {
            None
        } else if held.ops >= self.max_ops {
            Some(Trigger::Ops)
        } else if held.waited >= self.max_delay {
            Some(Trigger::Delay)
        } else {
            None
        }
    }

    /// How long the oldest change may wait for company.
    #[must_use]
    pub fn patience(&self, held: Backlog, behind: bool) -> Duration {
        // What comes next out of a backlog will be for the same documents, if what came was. Whether it was, shows
        // only after a while.
        let folds = held.events >= 2 * held.ops as u64;
        if behind && folds { self.max_delay.max(self.backlog_delay) } else { self.max_delay }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        max_ops: 10,
        max_bytes: 1000,
        max_delay: Duration::from_millis(50),
        backlog_delay: Duration::from_millis(500),
    };

    fn held(ops: usize, events: u64, bytes: usize, ms: u64) -> Backlog {
        Backlog { ops, events, bytes, waited: Duration::from_millis(ms) }
    }

    #[test]
    fn the_first_bound_reached_sends() {
        let due = |ops, bytes, ms| POLICY.due(held(ops, ops as u64, bytes, ms), false);
        assert_eq!(due(0, 0, 1000), None);
        assert_eq!(due(9, 999, 49), None);
        assert_eq!(due(10, 1, 0), Some(Trigger::Ops));
        assert_eq!(due(1, 1000, 0), Some(Trigger::Bytes));
        assert_eq!(due(1, 1, 50), Some(Trigger::Delay));
    }

    #[test]
    fn a_backlog_that_folds_is_worth_waiting_for() {
        let due = |ops, events, ms| POLICY.due(held(ops, events, 1, ms), true);
        assert_eq!(due(10, 10, 49), None);
        assert_eq!(due(10, 19, 50), Some(Trigger::Ops));
        assert_eq!(due(9, 10, 50), Some(Trigger::Delay));
        assert_eq!(due(10, 20, 499), None);
        assert_eq!(due(10, 20, 500), Some(Trigger::Ops));
        assert_eq!(due(1, 20, 500), Some(Trigger::Delay));
        assert_eq!(POLICY.due(held(1, 20, 1000, 0), true), Some(Trigger::Bytes));
        let impatient = Policy { backlog_delay: Duration::ZERO, ..POLICY };
        assert_eq!(impatient.due(held(10, 20, 1, 50), true), Some(Trigger::Ops));
    }
}

//! When a lane's pending changes become a batch. Pure: time is passed in, never read.

use std::time::Duration;

use crate::config;

/// Which bound made a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// As many entities as a batch may have.
    Ops,
    /// As many bytes as a batch may have.
    Bytes,
    /// The oldest change has waited long enough.
    Delay,
    /// Everything is to be flushed: at the end, or before renumbering.
    Drain,
}

impl Trigger {
    /// All triggers.
    pub const ALL: [Trigger; 4] = [Trigger::Ops, Trigger::Bytes, Trigger::Delay, Trigger::Drain];

    /// The metric's label value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Trigger::Ops => "ops",
            Trigger::Bytes => "bytes",
            Trigger::Delay => "delay",
            Trigger::Drain => "drain",
        }
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
}

impl From<&config::Batch> for Policy {
    fn from(batch: &config::Batch) -> Self {
        Policy {
            max_ops: batch.max_ops,
            max_bytes: usize::try_from(batch.max_bytes.as_u64()).unwrap_or(usize::MAX),
            max_delay: batch.max_delay,
        }
    }
}

impl Policy {
    /// Why `ops` entities with `bytes`, the oldest of which has waited `waited`, are to be sent now.
    #[must_use]
    pub fn due(&self, ops: usize, bytes: usize, waited: Duration) -> Option<Trigger> {
        if ops == 0 {
            None
        } else if ops >= self.max_ops {
            Some(Trigger::Ops)
        } else if bytes >= self.max_bytes {
            Some(Trigger::Bytes)
        } else if waited >= self.max_delay {
            Some(Trigger::Delay)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bound_reached_sends() {
        let policy = Policy { max_ops: 10, max_bytes: 1000, max_delay: Duration::from_millis(50) };
        let due = |ops, bytes, ms| policy.due(ops, bytes, Duration::from_millis(ms));
        assert_eq!(due(0, 0, 1000), None);
        assert_eq!(due(9, 999, 49), None);
        assert_eq!(due(10, 1, 0), Some(Trigger::Ops));
        assert_eq!(due(1, 1000, 0), Some(Trigger::Bytes));
        assert_eq!(due(1, 1, 50), Some(Trigger::Delay));
    }
}

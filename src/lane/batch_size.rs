//! Decides how many documents are written at once: as many as take little time. Time is passed in, never read.

use std::time::Duration;

/// What a batch should take. What comes while it is on its way waits for its end, and then for a batch of its own.
const AIM: Duration = Duration::from_millis(100);
/// Batches of fewer documents tell nothing of larger ones.
const FEWEST: usize = 100;
/// Where a document takes so much longer after batches were halved, it is the distance that takes the time, not the server.
const DEARER: f64 = 1.5;
/// Batches until smaller ones are tried again where they were dearer.
const REST: u32 = 8;

/// Adapts the size of a lane's batches to how fast MongoDB takes them.
#[derive(Debug)]
pub(super) struct BatchSize {
    documents: usize,
    /// What a document took before batches were halved, in seconds, until the next batch shows what it takes since.
    before: Option<f64>,
    rest: u32,
}

impl Default for BatchSize {
    fn default() -> Self {
        BatchSize { documents: usize::MAX, before: None, rest: 0 }
    }
}

impl BatchSize {
    /// The most documents of a batch, where the configuration allows for `max_ops`.
    pub(super) fn of(&self, max_ops: usize) -> usize {
        self.documents.min(max_ops)
    }

    /// Learns from a batch of so many documents.
    pub(super) fn took(&mut self, documents: usize, time: Duration) {
        if documents < FEWEST {
            return;
        }
        let each = time.as_secs_f64() / documents as f64;
        let is_dearer = self.before.take().is_some_and(|before| each > before * DEARER);
        if is_dearer {
            (self.documents, self.rest) = (self.documents.saturating_mul(2), REST);
        } else if time > AIM && self.rest == 0 {
            (self.documents, self.before) = ((documents / 2).max(FEWEST), Some(each));
        } else if time < AIM / 2 {
            self.documents = self.documents.saturating_mul(2);
        }
        self.rest = self.rest.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_OPS: usize = 1_000;

    /// The sizes of batches of a server far `away`, in milliseconds, that takes `each`, where enough is pending.
    fn sizes(away: f64, each: f64) -> Vec<usize> {
        let mut size = BatchSize::default();
        let batches = std::iter::repeat_with(|| {
            let documents = size.of(MAX_OPS);
            size.took(documents, Duration::from_secs_f64((away + each * documents as f64) / 1e3));
            documents
        });
        batches.take(100).collect()
    }

    #[test]
    fn a_fast_server_gets_full_batches() {
        assert!(sizes(1.0, 0.02).into_iter().all(|documents| documents == MAX_OPS));
    }

    #[test]
    fn batches_of_a_slow_server_are_small() {
        let sizes = sizes(1.0, 0.65);
        assert_eq!(sizes[..4], [1_000, 500, 250, 125]);
        assert!(sizes[4..].iter().all(|documents| *documents == 125), "{sizes:?}");
    }

    #[test]
    fn lanes_that_come_to_share_a_server_get_small_batches() {
        let mut size = BatchSize::default();
        size.took(200, Duration::from_millis(30));
        for expected in [1_000, 500, 250, 125, 125] {
            let documents = size.of(MAX_OPS);
            assert_eq!(documents, expected);
            size.took(documents, Duration::from_millis(documents as u64 * 13 / 20));
        }
    }

    #[test]
    fn a_server_that_is_far_away_gets_full_batches_nearly_always() {
        let sizes = sizes(150.0, 0.04);
        let full = sizes.iter().filter(|documents| **documents == MAX_OPS).count();
        assert!(full >= 85, "{sizes:?}");
    }

    #[test]
    fn a_server_that_is_fast_again_gets_full_batches_again() {
        let mut size = BatchSize::default();
        let took = |size: &mut BatchSize, each: f64| {
            let documents = size.of(MAX_OPS);
            size.took(documents, Duration::from_secs_f64(each * documents as f64 / 1e3));
        };
        (0..10).for_each(|_| took(&mut size, 0.65));
        assert_eq!((size.of(MAX_OPS), size.of(5)), (125, 5));
        (0..4).for_each(|_| took(&mut size, 0.02));
        assert_eq!(size.of(MAX_OPS), MAX_OPS);
    }

    #[test]
    fn a_batch_of_few_says_nothing() {
        let mut size = BatchSize::default();
        size.took(1, Duration::from_millis(200));
        assert_eq!(size.of(MAX_OPS), MAX_OPS);
    }
}

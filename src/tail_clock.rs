//! When events without a time of their own came into being, told from how the queue grew.
//!
//! Now and then the queue's tail is looked at. An event whose offset lies between the tails of two looks
//! was pushed between them; where exactly is interpolated. Pure: time is passed in, never read.

use std::collections::VecDeque;
use std::time::Instant;

/// Looks at a queue's tail.
#[derive(Debug, Default)]
pub struct TailClock {
    samples: VecDeque<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    /// The offset that the next element pushed would have had.
    tail: i64,
    at: Instant,
}

impl TailClock {
    /// Looks kept. When there are more, every other one of the older half is forgotten.
    const MOST: usize = 512;

    /// The tail was `tail` at `at`. Offsets and time only grow, until [`TailClock::reset`].
    pub fn sample(&mut self, tail: i64, at: Instant) {
        let [.., before, last] = self.samples.make_contiguous() else {
            self.samples.push_back(Sample { tail, at });
            return;
        };
        if tail == last.tail && before.tail == last.tail {
            // Nothing was pushed; only the latest moment of that matters.
            last.at = at;
            return;
        }
        if tail < last.tail {
            return;
        }
        self.samples.push_back(Sample { tail, at });
        if self.samples.len() > Self::MOST {
            let mut place = 0;
            self.samples.retain(|_| {
                place += 1;
                place > Self::MOST / 2 || place % 2 == 1
            });
        }
    }

    /// When the element at `offset` was pushed, about. Elements that were there before the first look are
    /// as old as that, at least. None for elements that no look has seen.
    #[must_use]
    pub fn enqueued_at(&self, offset: i64) -> Option<Instant> {
        // The first look that saw the element, and the one before.
        let after = self.samples.partition_point(|sample| sample.tail <= offset);
        let seen = self.samples.get(after)?;
        let Some(unseen) = after.checked_sub(1).map(|at| self.samples[at]) else { return Some(seen.at) };
        let share = (offset - unseen.tail + 1) as f64 / (seen.tail - unseen.tail) as f64;
        Some(unseen.at + seen.at.saturating_duration_since(unseen.at).mul_f64(share.clamp(0.0, 1.0)))
    }

    /// Elements below `offset` will not be asked about any more.
    pub fn forget_below(&mut self, offset: i64) {
        while self.samples.len() > 1 && self.samples[1].tail <= offset {
            self.samples.pop_front();
        }
    }

    /// Offsets begin anew.
    pub fn reset(&mut self) {
        self.samples.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn events_between_two_looks_are_spread_between_them() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut clock = TailClock::default();
        assert_eq!(clock.enqueued_at(0), None);
        clock.sample(10, at(0));
        clock.sample(20, at(1000));
        assert_eq!(clock.enqueued_at(5), Some(at(0)));
        assert_eq!(clock.enqueued_at(14), Some(at(500)));
        assert_eq!(clock.enqueued_at(19), Some(at(1000)));
        assert_eq!(clock.enqueued_at(20), None);
        clock.sample(20, at(2000));
        clock.sample(20, at(3000));
        clock.sample(21, at(3500));
        assert_eq!(clock.enqueued_at(20), Some(at(3500)));
        clock.forget_below(20);
        assert!(clock.samples.len() <= 3);
    }

    proptest! {
        /// The estimate is never further off than the looks around the event are apart.
        #[test]
        fn the_estimate_is_within_one_interval(
            pushes in prop::collection::vec(0_u64..50, 1..400),
            every in 1_usize..20,
        ) {
            let start = Instant::now();
            let mut clock = TailClock::default();
            let mut pushed = Vec::new();
            let mut looks = vec![start];
            clock.sample(0, start);
            let mut now = start;
            for (step, wait) in pushes.into_iter().enumerate() {
                now += Duration::from_millis(wait);
                pushed.push(now);
                if step % every == 0 {
                    clock.sample(pushed.len() as i64, now);
                    looks.push(now);
                }
            }
            clock.sample(pushed.len() as i64, now);
            looks.push(now);
            for (offset, truth) in pushed.iter().enumerate() {
                let estimate = clock.enqueued_at(offset as i64).unwrap();
                let interval = looks.windows(2)
                    .filter(|pair| pair[0] <= *truth && *truth <= pair[1])
                    .map(|pair| pair[1] - pair[0])
                    .max().unwrap();
                // Samples may have been thinned: then intervals are longer.
                let slack = if looks.len() > TailClock::MOST { Duration::from_secs(60) } else { Duration::from_micros(1) };
                let off = estimate.max(*truth) - estimate.min(*truth);
                prop_assert!(off <= interval + slack, "off by {off:?} in {interval:?}");
            }
        }
    }
}

//! Estimates from how a queue grew when events without a time of their own came into being.
//!
//! Now and then the queue's tail is looked at. An event whose offset lies between the tails of two looks
//! was pushed between them; its time is interpolated. Time is passed in, never read.

use std::collections::VecDeque;
use std::time::Instant;

/// Looks at a queue's tail.
#[derive(Debug, Default)]
pub(crate) struct TailClock {
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
    pub(crate) fn sample(&mut self, tail: i64, at: Instant) {
        let looks = self.samples.make_contiguous();
        if looks.last().is_some_and(|last| tail < last.tail) {
            return;
        }
        if let [.., before, last] = looks
            && before.tail == tail
            && last.tail == tail
        {
            // Nothing was pushed; only the latest moment of that matters.
            last.at = at;
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
    pub(crate) fn enqueued_at(&self, offset: i64) -> Option<Instant> {
        // The first look that saw the element, and the one before.
        let after = self.samples.partition_point(|sample| sample.tail <= offset);
        let seen = self.samples.get(after)?;
        let Some(unseen) = after.checked_sub(1).map(|at| self.samples[at]) else { return Some(seen.at) };
        let share = (offset - unseen.tail + 1) as f64 / (seen.tail - unseen.tail) as f64;
        Some(unseen.at + seen.at.saturating_duration_since(unseen.at).mul_f64(share.clamp(0.0, 1.0)))
    }

    /// Elements below `offset` will not be asked about any more.
    pub(crate) fn forget_below(&mut self, offset: i64) {
        while self.samples.len() > 1 && self.samples[1].tail <= offset {
            self.samples.pop_front();
        }
    }

    /// Offsets begin anew.
    pub(crate) fn reset(&mut self) {
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

    #[test]
    fn a_new_epoch_begins_anew() {
        let start = Instant::now();
        let mut clock = TailClock::default();
        clock.sample(7, start);
        // Offsets that fall back are not of this numbering.
        clock.sample(3, start + Duration::from_secs(1));
        assert_eq!(clock.enqueued_at(3), Some(start));
        clock.reset();
        assert_eq!(clock.enqueued_at(3), None);
        let base = 5_i64 << 36;
        let later = start + Duration::from_secs(9);
        clock.sample(base + 2, later);
        assert_eq!(clock.enqueued_at(base + 1), Some(later));
        assert_eq!(clock.enqueued_at(base + 2), None);
    }

    /// Pauses before each push in ms, pushes a look, and how far behind the tail commits follow, if they do.
    fn arrivals() -> impl Strategy<Value = (Vec<u64>, usize, Option<i64>)> {
        // Bursts, a trickle, and long silences.
        let pause = prop_oneof![3 => Just(0_u64), 3 => 0_u64..50, 1 => 0_u64..100_000];
        let pushes = prop::collection::vec(pause, 1..3000);
        (pushes, 1_usize..20, prop::option::of(0_i64..100))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The estimate lies between the same two remembered looks as the truth, so it is off by no more than
        /// those are apart; and no more than [`TailClock::MOST`] are remembered.
        #[test]
        fn the_estimate_is_within_one_interval((pushes, every, lag) in arrivals()) {
            let mut now = Instant::now();
            let mut clock = TailClock::default();
            let mut pushed = Vec::new();
            let mut settled = 0;
            clock.sample(0, now);
            for (step, pause) in pushes.into_iter().enumerate() {
                now += Duration::from_millis(pause);
                pushed.push(now);
                if step % every == 0 {
                    let tail = pushed.len() as i64;
                    clock.sample(tail, now);
                    if let Some(lag) = lag {
                        settled = settled.max(tail - lag);
                        clock.forget_below(settled);
                    }
                }
                prop_assert!(clock.samples.len() <= TailClock::MOST);
            }
            clock.sample(pushed.len() as i64, now);
            let looks: Vec<_> = clock.samples.iter().copied().collect();
            for (offset, truth) in pushed.iter().enumerate().skip(settled as usize) {
                let offset = offset as i64;
                let estimate = clock.enqueued_at(offset).unwrap();
                let around = looks.windows(2).find(|pair| (pair[0].tail..pair[1].tail).contains(&offset));
                let Some([unseen, seen]) = around else {
                    prop_assert!(false, "no two looks around {offset}");
                    unreachable!()
                };
                prop_assert!(unseen.at <= *truth && *truth <= seen.at, "a look is at a wrong time");
                // Interpolating rounds to nanoseconds.
                let slack = Duration::from_nanos(1);
                prop_assert!(unseen.at <= estimate && estimate <= seen.at + slack, "{offset}");
            }
            // Unless looks had to be thinned, they are as far apart as they were made.
            if looks.len() < TailClock::MOST / 2 && lag.is_none() {
                let most = looks.windows(2).map(|pair| pair[1].tail - pair[0].tail).max().unwrap_or(0);
                prop_assert!(most <= every as i64, "{most} pushes between two looks");
            }
        }

        /// Of two events, the later is not estimated to be the older.
        #[test]
        fn estimates_keep_the_order(looks in prop::collection::vec((0_i64..40, 1_u64..1000), 1..700)) {
            let mut now = Instant::now();
            let (mut clock, mut tail) = (TailClock::default(), 0);
            for (pushed, wait) in looks {
                tail += pushed;
                now += Duration::from_millis(wait);
                clock.sample(tail, now);
            }
            let times: Vec<_> = (0..tail).map(|offset| clock.enqueued_at(offset).unwrap()).collect();
            prop_assert!(times.is_sorted());
            prop_assert!(times.last().is_none_or(|last| *last <= now));
        }
    }
}

//! Bounds how many documents an instance writes in a second. Time is passed in, never read.

use std::time::{Duration, Instant};

/// What was not used for so long may be used at once. So batches have more than a document, and the bound holds within any
/// second.
const BURST: Duration = Duration::from_millis(100);

/// A token bucket, kept as the time up to which what it gives is used.
#[derive(Debug, Default)]
pub(crate) struct WriteRate {
    used_to: Option<Instant>,
}

impl WriteRate {
    /// Takes as many of the `wanted` writes as may be made now, where so many may be made in a second. Zero is no bound.
    ///
    /// # Errors
    /// There are too few for a batch: when there are enough.
    pub(crate) fn take(&mut self, per_second: u64, wanted: usize, now: Instant) -> Result<usize, Instant> {
        if per_second == 0 {
            return Ok(wanted);
        }
        let each = 1.0 / per_second as f64;
        let burst = BURST.as_secs_f64().max(each);
        let unused = self.used_to.map_or(burst, |used| {
            let since = now.saturating_duration_since(used).as_secs_f64();
            let ahead = used.saturating_duration_since(now).as_secs_f64();
            (since - ahead).min(burst)
        });
        // What a division makes a hair less than one is one.
        let whole = |time: f64| (time / each + 1e-6) as i64;
        let enough = i64::try_from(wanted).unwrap_or(i64::MAX).clamp(1, whole(burst));
        let free = whole(unused);
        if free < enough {
            return Err(now + Duration::from_secs_f64((enough as f64 * each - unused).max(0.0)));
        }
        let taken = usize::try_from(free).unwrap_or(0).min(wanted);
        self.used_to = now.checked_sub(Duration::from_secs_f64(unused.max(0.0)));
        self.use_up(taken as f64 * each, now);
        Ok(taken)
    }

    /// Gives back what was taken and not used.
    pub(crate) fn give_back(&mut self, per_second: u64, unused: usize) {
        if per_second > 0 {
            let time = Duration::from_secs_f64(unused as f64 / per_second as f64);
            self.used_to = self.used_to.and_then(|used| used.checked_sub(time));
        }
    }

    fn use_up(&mut self, seconds: f64, now: Instant) {
        self.used_to = Some(self.used_to.unwrap_or(now) + Duration::from_secs_f64(seconds));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is given to one who asks for so many at such times, in milliseconds, and uses some of it.
    fn given(per_second: u64, asked: &[(u64, usize, usize)]) -> Vec<(Instant, usize)> {
        let (mut rate, mut now) = (WriteRate::default(), Instant::now());
        let mut given = Vec::new();
        for (pause, wanted, used) in asked {
            now += Duration::from_millis(*pause);
            match rate.take(per_second, *wanted, now) {
                Ok(taken) => {
                    assert!(taken <= *wanted);
                    let used = taken.min(*used);
                    rate.give_back(per_second, taken - used);
                    given.push((now, used));
                }
                Err(then) => {
                    assert!(then > now);
                    assert!(
                        WriteRate { used_to: rate.used_to }.take(per_second, *wanted, then + TICK).is_ok()
                    );
                }
            }
        }
        given
    }

    const TICK: Duration = Duration::from_millis(1);

    proptest! {
        #[test]
        fn the_bound_holds_in_every_second(
            per_second in 1_u64..5_000,
            asked in prop::collection::vec((0_u64..300, 1_usize..2_000, 0_usize..2_000), 1..200),
        ) {
            let given = given(per_second, &asked);
            for (at, (from, _)) in given.iter().enumerate() {
                let mut sum = 0.0;
                for (to, used) in &given[at..] {
                    sum += *used as f64;
                    let most = (*to - *from + BURST).as_secs_f64() * per_second as f64;
                    prop_assert!(sum <= most.max(1.0) + 1.0, "{sum} in {:?}", *to - *from);
                }
            }
        }
    }

    #[test]
    fn who_asks_all_the_time_gets_all_of_it() {
        for per_second in [1, 3, 30, 1_000, 50_000] {
            let (mut rate, begun) = (WriteRate::default(), Instant::now());
            let (mut now, mut taken) = (begun, 0);
            while now < begun + Duration::from_secs(20) {
                match rate.take(per_second, 1_000, now) {
                    Ok(some) => taken += some as u64,
                    Err(then) => now = then + TICK,
                }
            }
            let share = taken as f64 / (20 * per_second) as f64;
            assert!((0.9..=1.1).contains(&share), "{share} of {per_second}");
        }
    }

    #[test]
    fn without_a_bound_all_is_given() {
        assert_eq!(WriteRate::default().take(0, 7, Instant::now()), Ok(7));
    }
}

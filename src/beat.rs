//! Times what is done again and again. All of it is done at the same moments: to wake costs more than most of it does.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

/// The next of the moments that are `period` apart, counted from when the first was asked for.
pub(crate) fn next(period: Duration) -> Instant {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let first = *FIRST.get_or_init(Instant::now);
    first + behind(first.elapsed(), period)
}

/// The first multiple of `period` behind `elapsed`.
fn behind(elapsed: Duration, period: Duration) -> Duration {
    let period = period.as_nanos().max(1);
    Duration::from_nanos_u128((elapsed.as_nanos() / period + 1) * period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_in_one_period_gets_the_same_moment() {
        let ms = Duration::from_millis;
        for (elapsed, expected) in [(0, 250), (1, 250), (249, 250), (250, 500), (999, 1000)] {
            assert_eq!(behind(ms(elapsed), ms(250)), ms(expected), "{elapsed}");
        }
        assert_eq!(behind(ms(1), Duration::ZERO), ms(1) + Duration::from_nanos(1));
        let (now, period) = (Instant::now(), ms(40));
        assert!(next(period) > now && next(period) <= Instant::now() + period);
    }

    #[test]
    fn a_longer_period_has_its_moments_with_a_shorter_one_that_divides_it() {
        let period = Duration::from_secs(1000);
        assert_eq!(next(period).duration_since(next(period / 4)).as_nanos() % (period / 4).as_nanos(), 0);
    }
}

//! Tells which errors are tried again, and after how long.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(10);

/// Waits that grow from 100 ms to 10 s, each drawn evenly from zero to its bound, so that instances that
/// failed together do not come back together.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next wait.
    pub(crate) fn wait(&mut self) -> Duration {
        let bound = FIRST.saturating_mul(1 << self.tries.min(10)).min(MOST);
        self.tries += 1;
        bound.mul_f64(fastrand::f64())
    }

    /// Begins anew, after a success.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

labelled! {
    /// What is to be done about an error.
    pub(crate) enum Class {
        /// Network, elections, overload: the same again may well work.
        Transient => "transient",
        /// The command or statement itself is refused, and will be for ever.
        Data => "data",
        /// Wrong credentials or a server too old: no event can be written at all.
        Fatal => "fatal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound() {
        let mut backoff = Backoff::default();
        for bound in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            let longest = (0..50).map(|_| Backoff { tries: backoff.tries }.wait()).max().unwrap();
            assert!(longest <= Duration::from_millis(bound));
            assert!(longest > Duration::from_millis(bound / 4));
            backoff.wait();
        }
    }
}

//! Decides when to look for new elements while others that were read wait for their commit.
//! Until these are committed, Redis does not tell when more arrive.

use std::time::Duration;

use tokio::time::Instant;

/// Pauses between looks, ever longer ones.
#[derive(Debug, Default)]
pub(super) struct Pause {
    next: Option<Duration>,
    /// When Redis was asked last, and had nothing new.
    in_vain: Option<Instant>,
}

impl Pause {
    const LONGEST: Duration = Duration::from_millis(20);

    /// Waits a little, after Redis was asked in vain; less where changes are not to wait long. As it counts among their delay, it costs
    /// them nothing, and each look less saves the work of a window.
    pub(super) async fn wait(&mut self, asked: Instant, max_delay: Duration) {
        self.in_vain = Some(asked);
        // Timers go off at the end of a millisecond.
        let shortest = (max_delay / 5).clamp(Duration::from_micros(100), Duration::from_millis(10));
        let pause = self.next.unwrap_or(shortest);
        tokio::time::sleep(pause).await;
        self.next = Some((pause * 2).min(Self::LONGEST));
    }

    /// There are new elements. Answers since when they may have waited in Redis, so that a pause counts among the delay that a
    /// change may have: since the last look in vain. Without one, there was no pause.
    pub(super) fn end(&mut self) -> Instant {
        std::mem::take(self).in_vain.unwrap_or_else(Instant::now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_in_a_pause_has_waited_since_the_look_before() {
        let mut pause = Pause::default();
        let start = Instant::now();
        assert!(pause.end() >= start, "there was no pause");
        let mut asked = start;
        // Timers are never early.
        for least in [10, 30, 50, 70] {
            asked = Instant::now();
            pause.wait(asked, Duration::from_millis(50)).await;
            assert!(start.elapsed() >= Duration::from_millis(least));
        }
        assert_eq!(pause.next, Some(Pause::LONGEST));
        assert_eq!(pause.end(), asked);
        let now = Instant::now();
        assert!(pause.end() >= now, "the pause has ended");
        pause.wait(now, Duration::ZERO).await;
        assert_eq!(pause.next, Some(Duration::from_micros(200)), "the next pause is short again");
    }
}

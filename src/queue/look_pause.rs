//! Decides when to look for new elements while others that were read wait for their commit.
//! Until these are committed, Redis does not tell when more arrive.

use std::time::Duration;

use tokio::time::Instant;

/// Pauses between looks, ever longer ones.
#[derive(Debug, Default)]
pub(super) struct LookPause {
    next: Option<Duration>,
    /// When Redis was asked last, and had nothing new.
    in_vain: Option<Instant>,
    /// Events found since the last pause.
    found: u64,
}

/// Events that are many for one look: what is found at once should not look like a backlog.
const MANY: u64 = 256;
/// A look takes so long, so that what it finds is there when it is due.
const LOOK: Duration = Duration::from_millis(4);
/// Within a shorter time than this, a look and the end of a timer's millisecond would be too much of it.
const LONG: Duration = Duration::from_millis(20);

impl LookPause {
    const LONGEST: Duration = Duration::from_millis(20);
    const LONGEST_FIRST: Duration = Duration::from_millis(46);
    const LONGEST_OFTEN: Duration = Duration::from_millis(10);

    /// Waits a little, after Redis was asked in vain; less where changes are not to wait long. As it counts among their delay, it costs
    /// them nothing, and each look less saves the work of a window. What comes right after one look is due when the next is over.
    pub(super) async fn wait(&mut self, asked: Instant, max_delay: Duration) {
        self.in_vain = Some(asked);
        let is_often = std::mem::take(&mut self.found) > MANY || max_delay < LONG;
        let first =
            if is_often { Self::LONGEST_OFTEN.min(max_delay / 5) } else { max_delay.saturating_sub(LOOK) };
        let pause = self.next.unwrap_or(first.clamp(Duration::from_micros(100), Self::LONGEST_FIRST));
        tokio::time::sleep(pause).await;
        self.next = Some((pause * 2).min(Self::LONGEST.max(pause)));
    }

    /// There are so many new elements. Answers since when they may have waited in Redis, so that a pause counts among the delay that a
    /// change may have: since the last look in vain. Without one, there was no pause.
    pub(super) fn end(&mut self, events: u64) -> Instant {
        let found = self.found + events;
        let ended = std::mem::replace(self, LookPause { found, ..LookPause::default() });
        ended.in_vain.unwrap_or_else(Instant::now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_in_a_pause_has_waited_since_the_look_before() {
        let mut pause = LookPause::default();
        let start = Instant::now();
        assert!(pause.end(0) >= start, "there was no pause");
        let mut asked = start;
        // Timers are never early.
        for least in [46, 92] {
            asked = Instant::now();
            pause.wait(asked, Duration::from_millis(50)).await;
            assert!(start.elapsed() >= Duration::from_millis(least));
        }
        assert_eq!(pause.next, Some(LookPause::LONGEST_FIRST));
        assert_eq!(pause.end(1), asked);
        let now = Instant::now();
        assert!(pause.end(1) >= now, "the pause has ended");
        pause.wait(now, Duration::ZERO).await;
        assert_eq!(pause.next, Some(Duration::from_micros(200)), "the next pause is short again");
    }

    #[tokio::test]
    async fn where_many_come_it_looks_more_often() {
        let mut pause = LookPause::default();
        for (found, expected) in [(MANY - 1, 20), (MANY, 8), (1, 20)] {
            pause.end(found);
            pause.end(1);
            pause.wait(Instant::now(), Duration::from_millis(20)).await;
            assert_eq!(pause.next, Some(Duration::from_millis(expected)), "{found}");
        }
    }
}

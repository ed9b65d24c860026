//! Decides of which queues a heartbeat speaks. Where there are many, each has its turn, as long as nothing changes.

use std::time::Duration;

/// With no more queues than this, a heartbeat speaks of all of them.
const FEW: usize = 32;

/// Heartbeats that speak of all queues after something has changed: more is likely to.
const UNSETTLED: u32 = 8;

/// Whose turn it is.
#[derive(Debug)]
pub(super) struct Turns {
    /// Heartbeats in which each queue has its turn.
    count: usize,
    turn: usize,
    /// Heartbeats to come that speak of all.
    whole: u32,
}

impl Turns {
    /// Turns of `queues` queues that are forgotten when they are not spoken of for `ttl`: each is spoken of twice within
    /// that, and a half.
    pub(super) fn new(queues: usize, period: Duration, ttl: Duration) -> Self {
        let most = (ttl.as_micros() * 2).checked_div(period.as_micros() * 5).unwrap_or(1);
        let count = usize::try_from(most).unwrap_or(1).min(queues / FEW).max(1);
        Turns { count, turn: 0, whole: UNSETTLED }
    }

    /// Goes on to the next heartbeat.
    pub(super) fn advance(&mut self) {
        self.turn = (self.turn + 1) % self.count;
        self.whole = self.whole.saturating_sub(1);
    }

    /// Whether this heartbeat speaks of a queue.
    pub(super) fn has(&self, queue: usize) -> bool {
        self.whole > 0 || queue % self.count == self.turn
    }

    /// Something has changed, so that the next heartbeats speak of all queues. Answers whether this one did not: then the next
    /// need not be waited for.
    pub(super) fn unsettle(&mut self) -> bool {
        let was_partial = self.count > 1 && self.whole == 0;
        self.whole = UNSETTLED + 1;
        was_partial
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(250);

    fn spoken_of(turns: &Turns, queues: usize) -> Vec<usize> {
        (0..queues).filter(|queue| turns.has(*queue)).collect()
    }

    /// Turns after the first heartbeats, which speak of all.
    fn settled(queues: usize, ttl: Duration) -> Turns {
        let mut turns = Turns::new(queues, PERIOD, ttl);
        for _ in 0..UNSETTLED {
            assert_eq!(spoken_of(&turns, queues).len(), queues);
            turns.advance();
        }
        turns
    }

    #[test]
    fn each_has_its_turn_twice_before_it_is_forgotten() {
        for (queues, seconds, part) in
            [(1000, 5, 125), (1000, 1, 1000), (31, 5, 31), (63, 5, 63), (64, 5, 32)]
        {
            let ttl = Duration::from_secs(seconds);
            let mut turns = settled(queues, ttl);
            let beats = u32::try_from(ttl.as_micros() / PERIOD.as_micros()).unwrap();
            let mut spoken = vec![0; queues];
            for _ in 0..beats {
                let of = spoken_of(&turns, queues);
                assert!(of.len() <= part, "{queues} queues: {}", of.len());
                of.iter().for_each(|queue| spoken[*queue] += 1);
                turns.advance();
            }
            assert!(spoken.iter().all(|times| *times >= 2), "{queues} queues: {spoken:?}");
        }
    }

    #[test]
    fn a_change_is_followed_up_at_once() {
        let mut turns = settled(1000, Duration::from_secs(5));
        assert!(turns.unsettle(), "the next heartbeat comes at once");
        turns.advance();
        for _ in 0..UNSETTLED {
            assert_eq!(spoken_of(&turns, 1000).len(), 1000);
            assert!(!turns.has(1000) || turns.whole > 0);
            turns.advance();
        }
        assert_eq!(spoken_of(&turns, 1000).len(), 125);
        turns.unsettle();
        turns.advance();
        assert!(!turns.unsettle(), "this one spoke of all");
    }
}

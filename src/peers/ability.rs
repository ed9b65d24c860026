//! Judges whether this instance could drain a queue.
//! Where it could not, others should; but only if they can. Instances that fail alike must not hand a queue to and fro.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest time that MongoDB is out of reach before a queue is handed over for it. Others need as long to notice
/// an outage that is theirs, too.
const LEAST_AWAY: Duration = Duration::from_secs(3);
/// How long an instance that gets no epoch leaves a queue to others, the first time and at most.
const LEFT: Duration = Duration::from_secs(60);
const LEFT_AT_MOST: Duration = Duration::from_secs(3600);

/// Whether this instance reaches MongoDB. What MongoDB refuses it would refuse to others, so a refusal changes nothing.
#[derive(Debug)]
pub(super) struct Reach {
    patience: Duration,
    away_since: Option<Instant>,
}

impl Reach {
    pub(super) fn new(lease: Duration) -> Self {
        Reach { patience: lease.max(LEAST_AWAY), away_since: None }
    }

    /// Whether MongoDB is in reach, or was until a moment ago.
    pub(super) fn is_there(&mut self, away: bool, now: Instant) -> bool {
        if !away {
            self.away_since = None;
            return true;
        }
        now.duration_since(*self.away_since.get_or_insert(now)) < self.patience
    }
}

/// Whether this instance is given epochs of a queue.
#[derive(Debug)]
pub(super) struct Fitness {
    patience: Duration,
    /// When MongoDB first refused an epoch since it last gave one.
    refused: Option<Instant>,
    /// How often the queue was left to others for that.
    strikes: u32,
    was_fit: bool,
}

impl Fitness {
    /// Gives up before another instance comes because this one did not.
    pub(super) fn new(lease: Duration) -> Self {
        Fitness { patience: lease / 2, refused: None, strikes: 0, was_fit: true }
    }

    /// Notes that MongoDB answered, and gave no epoch.
    pub(super) fn refused(&mut self, now: Instant) {
        match self.refused {
            None => self.refused = Some(now),
            Some(refused) if now >= refused + self.patience + self.left() => {
                self.strikes += 1;
                // It was given the time to change its mind before.
                self.refused = now.checked_sub(self.patience);
            }
            Some(_) => {}
        }
    }

    /// Notes that an epoch was given.
    pub(super) fn given(&mut self) {
        *self = Fitness { refused: None, strikes: 0, ..*self };
    }

    /// Whether the queue may be this instance's, and whether the answer has changed since last time.
    pub(super) fn look(&mut self, now: Instant) -> (bool, bool) {
        let is_fit = self.refused.is_none_or(|refused| {
            let since = refused + self.patience;
            now < since || now >= since + self.left()
        });
        (is_fit, std::mem::replace(&mut self.was_fit, is_fit) != is_fit)
    }

    fn left(&self) -> Duration {
        LEFT.saturating_mul(1 << self.strikes.min(10)).min(LEFT_AT_MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    #[test]
    fn a_short_outage_or_a_refusal_hands_nothing_over() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut reach = Reach::new(LEASE);
        assert!(reach.is_there(false, at(0)));
        assert!(reach.is_there(true, at(1)));
        assert!(reach.is_there(true, at(10)));
        // It flaps: a server that answers pings and nothing else.
        assert!(reach.is_there(false, at(10)));
        assert!(reach.is_there(true, at(11)));
        assert!(reach.is_there(true, at(20)));
        assert!(!reach.is_there(true, at(21)));
        assert!(reach.is_there(false, at(22)));
        assert!(Reach::new(Duration::from_secs(1)).is_there(true, at(0)));
    }

    #[test]
    fn who_gets_no_epoch_leaves_the_queue_to_others_for_longer_each_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut fitness = Fitness::new(LEASE);
        assert_eq!(fitness.look(at(0)), (true, false));
        fitness.refused(at(0));
        fitness.refused(at(3));
        assert_eq!(fitness.look(at(4)), (true, false));
        // Nothing else need happen: it may be long until the next attempt.
        assert_eq!(fitness.look(at(5)), (false, true));
        assert_eq!(fitness.look(at(64)), (false, false));
        assert_eq!(fitness.look(at(65)), (true, true));
        fitness.refused(at(65));
        assert_eq!(fitness.look(at(65)), (false, true));
        assert_eq!(fitness.look(at(184)), (false, false));
        assert_eq!(fitness.look(at(185)), (true, true));
        fitness.refused(at(186));
        fitness.given();
        fitness.refused(at(187));
        assert_eq!((fitness.look(at(191)), fitness.look(at(192))), ((true, false), (false, true)));
    }
}

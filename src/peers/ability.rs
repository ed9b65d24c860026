//! Whether this instance could drain a queue. Where it could not, others should; but only if they can: instances that
//! fail alike must not hand a queue to and fro.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest time that MongoDB is out of reach before a queue is handed over for it: the others need as long to notice
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
    refused_since: Option<Instant>,
    unfit_until: Option<Instant>,
    strikes: u32,
}

impl Fitness {
    /// Before another instance comes because this one did not.
    pub(super) fn new(lease: Duration) -> Self {
        Fitness { patience: lease / 2, refused_since: None, unfit_until: None, strikes: 0 }
    }

    /// MongoDB answered, and gave no epoch. Answers whether the queue is left to others from now on.
    pub(super) fn refused(&mut self, now: Instant) -> bool {
        let since = *self.refused_since.get_or_insert(now);
        if now.duration_since(since) < self.patience || !self.is_fit(now) {
            return false;
        }
        self.unfit_until = Some(now + LEFT.saturating_mul(1 << self.strikes.min(10)).min(LEFT_AT_MOST));
        self.strikes += 1;
        true
    }

    /// An epoch was given.
    pub(super) fn given(&mut self) {
        *self = Fitness { refused_since: None, unfit_until: None, strikes: 0, ..*self };
    }

    pub(super) fn is_fit(&self, now: Instant) -> bool {
        self.unfit_until.is_none_or(|until| until <= now)
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
        assert!(!fitness.refused(at(0)) && !fitness.refused(at(4)) && fitness.is_fit(at(4)));
        assert!(fitness.refused(at(5)) && !fitness.is_fit(at(5)) && !fitness.is_fit(at(64)));
        assert!(!fitness.refused(at(6)), "told once");
        assert!(fitness.is_fit(at(65)));
        assert!(fitness.refused(at(65)) && !fitness.is_fit(at(184)) && fitness.is_fit(at(185)));
        fitness.given();
        assert!(fitness.is_fit(at(66)) && !fitness.refused(at(66)));
    }
}

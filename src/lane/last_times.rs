//! Remembers when something last happened to a document. Time is passed in, never read.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// Documents that are remembered at most, twice.
const MOST: usize = 32 * 1024;

/// When something last happened to documents, by the hashes of their entities. It is remembered for at least so long, unless it
/// happens to very many.
#[derive(Debug)]
pub(super) struct LastTimes {
    at_least: Duration,
    latest: HashMap<u64, Instant>,
    /// Those before. They are forgotten all at once.
    former: HashMap<u64, Instant>,
    /// When the latest began.
    began: Option<Instant>,
}

impl LastTimes {
    pub(super) fn new(at_least: Duration) -> Self {
        LastTimes { at_least, latest: HashMap::new(), former: HashMap::new(), began: None }
    }

    /// Notes that it happens to these.
    pub(super) fn note(&mut self, hashes: impl Iterator<Item = u64>, now: Instant) {
        let began = *self.began.get_or_insert(now);
        if now.saturating_duration_since(began) > self.at_least || self.latest.len() >= MOST {
            self.former = std::mem::take(&mut self.latest);
            self.began = Some(now);
        }
        self.latest.extend(hashes.map(|hash| (hash, now)));
    }

    /// Documents that are remembered, some of them twice.
    pub(super) fn len(&self) -> usize {
        self.latest.len() + self.former.len()
    }

    /// Forgets all but these.
    pub(super) fn retain(&mut self, keeps: impl Fn(u64) -> bool) {
        self.latest.retain(|hash, _| keeps(*hash));
        self.former.retain(|hash, _| keeps(*hash));
    }

    /// When it last happened to a document, if that is remembered.
    pub(super) fn last(&self, hash: u64) -> Option<Instant> {
        self.latest.get(&hash).or_else(|| self.former.get(&hash)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_remembered_for_the_at_least_and_not_for_ever() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut recent = LastTimes::new(Duration::from_millis(100));
        recent.note([1].into_iter(), at(0));
        for ms in (10..=100).step_by(10) {
            recent.note([2].into_iter(), at(ms));
            assert_eq!(recent.last(1), Some(at(0)), "after {ms} ms");
        }
        recent.note([3].into_iter(), at(101));
        assert_eq!((recent.last(1), recent.last(2)), (Some(at(0)), Some(at(100))));
        recent.note([4].into_iter(), at(202));
        assert_eq!((recent.last(1), recent.last(3)), (None, Some(at(101))));
    }

    #[test]
    fn memory_is_bounded() {
        let start = Instant::now();
        let mut recent = LastTimes::new(Duration::from_secs(3600));
        for hash in 0..10 * MOST as u64 {
            recent.note([hash].into_iter(), start);
        }
        assert!(recent.latest.len() + recent.former.len() <= 2 * MOST);
    }
}

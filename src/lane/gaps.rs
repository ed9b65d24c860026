//! Measures how far apart the events of a document are, which tells what a longer window would fold. Time is passed in,
//! never read.

use std::time::Duration;

use tokio::time::Instant;

use super::last_times::LastTimes;

/// Events that are further apart are not one after another.
const LONGEST: Duration = Duration::from_secs(30);
/// Documents that are looked at, about.
const MOST: usize = 1024;

/// The documents that are looked at: all, or one in so many by their hashes, so that they are not too many.
#[derive(Debug)]
pub(super) struct Gaps {
    one_in: u64,
    seen: LastTimes,
}

impl Default for Gaps {
    fn default() -> Self {
        Gaps { one_in: 1, seen: LastTimes::new(LONGEST) }
    }
}

impl Gaps {
    /// Takes note of an event, if its document is looked at. Answers how long after the one before it comes, if there was one
    /// lately.
    pub(super) fn see(&mut self, hash: u64, now: Instant) -> Option<Option<Duration>> {
        if !hash.is_multiple_of(self.one_in) {
            return None;
        }
        let gap = self.seen.last(hash).map(|last| now.saturating_duration_since(last));
        self.seen.note([hash].into_iter(), now);
        if self.seen.len() > 2 * MOST {
            self.one_in *= 2;
            let one_in = self.one_in;
            self.seen.retain(|hash| hash.is_multiple_of(one_in));
        }
        Some(gap.filter(|gap| *gap <= LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_between_two_events_of_one_document() {
        let (mut gaps, start) = (Gaps::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(gaps.see(1, at(0)), Some(None));
        assert_eq!(gaps.see(2, at(10)), Some(None));
        assert_eq!(gaps.see(1, at(25)), Some(Some(Duration::from_millis(25))));
        assert_eq!(gaps.see(2, at(40_000)), Some(None), "not one after another");
    }

    #[test]
    fn of_many_documents_a_part_is_looked_at_whole() {
        let (mut gaps, start) = (Gaps::default(), Instant::now());
        let documents = || 0..100_000_u64;
        let looked_at = documents().filter(|hash| gaps.see(*hash, start).is_some()).count();
        assert!(gaps.seen.len() <= 2 * MOST && looked_at < 10 * MOST, "{looked_at}");
        let later = start + Duration::from_secs(1);
        let known: Vec<_> = documents().filter_map(|hash| gaps.see(hash, later)).collect();
        assert!(known.len() > MOST / 2 && known.iter().all(Option::is_some), "{}", known.len());
    }
}

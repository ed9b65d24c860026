//! Tracks how far a queue is settled: every event below that is durable or a dead letter.
//!
//! Lanes settle out of order. So each lane tells the oldest offset that it still holds, and the least of them bounds
//! the commit. Commits are made at the ends of windows only. The script that trims compares the last element that it
//! would trim with the one that was read, which is remembered once a window.

use std::collections::VecDeque;

/// The end of a window read: a place where the queue may be trimmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// The offset behind the window's last element.
    pub(crate) end: i64,
    /// Events of the window. In a checkpoint that [`Tracker::due`] answers: events of all windows up to there.
    pub(crate) events: u64,
    /// SHA-1 of that last element.
    pub(crate) sha1: [u8; 20],
}

/// Tracks what is settled of one queue under one ownership.
#[derive(Debug)]
pub(crate) struct Tracker {
    lanes: Vec<LaneProgress>,
    checkpoints: VecDeque<Checkpoint>,
    read_to: i64,
    committed_to: i64,
    /// Events of all windows, and of those that are committed.
    events: u64,
    committed_events: u64,
}

/// What a lane has of the queue.
#[derive(Debug, Default)]
struct LaneProgress {
    /// First offsets of chunks sent to it and not yet folded.
    queued: VecDeque<i64>,
    /// The oldest offset among its pending updates and its batch in flight.
    held: Option<i64>,
}

impl LaneProgress {
    fn oldest(&self) -> Option<i64> {
        self.held.into_iter().chain(self.queued.front().copied()).min()
    }
}

impl Tracker {
    /// A tracker of a queue of which nothing is read yet. Reading starts at `from`.
    #[must_use]
    pub(crate) fn new(lanes: usize, from: i64) -> Self {
        Tracker {
            lanes: (0..lanes).map(|_| LaneProgress::default()).collect(),
            checkpoints: VecDeque::new(),
            read_to: from,
            committed_to: from,
            events: 0,
            committed_events: 0,
        }
    }

    /// Goes on under new numbers, from `from` on. All that was read must be committed.
    pub(crate) fn restart(&mut self, from: i64) {
        debug_assert!(self.is_drained(), "numbers change only when nothing is under way");
        self.read_to = from;
        self.committed_to = from;
    }

    /// Notes that a chunk goes to `lane`, whose first change is at `first`. Call it before [`Tracker::window`].
    pub(crate) fn sent(&mut self, lane: usize, first: i64) {
        self.lanes[lane].queued.push_back(first);
    }

    /// Notes that a window was read, that its chunks go to lanes, and that its dead letters are recorded.
    pub(crate) fn window(&mut self, checkpoint: Checkpoint) {
        self.read_to = checkpoint.end;
        self.events += checkpoint.events;
        self.checkpoints.push_back(Checkpoint { events: self.events, ..checkpoint });
    }

    /// Notes that `lane` has folded the oldest chunk sent to it, and now holds events from `held` on.
    pub(crate) fn folded(&mut self, lane: usize, held: Option<i64>) {
        self.lanes[lane].queued.pop_front();
        self.lanes[lane].held = held;
    }

    /// Notes that `lane` has settled something, and now holds events from `held` on.
    pub(crate) fn settled(&mut self, lane: usize, held: Option<i64>) {
        self.lanes[lane].held = held;
    }

    /// The offset below which every event is settled.
    #[must_use]
    pub(crate) fn settled_to(&self) -> i64 {
        self.lanes.iter().filter_map(LaneProgress::oldest).min().unwrap_or(self.read_to)
    }

    /// Whether all that was read is settled and committed.
    #[must_use]
    pub(crate) fn is_drained(&self) -> bool {
        self.checkpoints.is_empty()
    }

    /// The offset below which everything is committed.
    #[must_use]
    pub(crate) fn committed_to(&self) -> i64 {
        self.committed_to
    }

    /// The events of all windows that were committed, since this tracker began.
    #[must_use]
    pub(crate) fn committed_events(&self) -> u64 {
        self.committed_events
    }

    /// Events of all windows that were read and are not committed.
    #[must_use]
    pub(crate) fn uncommitted_events(&self) -> u64 {
        self.events - self.committed_events
    }

    /// The end of the windows that have the first so many of the events which are not committed.
    #[must_use]
    pub(crate) fn end_of(&self, events: u64) -> i64 {
        let behind = self.committed_events + events;
        let at = self.checkpoints.partition_point(|checkpoint| checkpoint.events < behind);
        self.checkpoints.get(at).map_or(self.read_to, |checkpoint| checkpoint.end)
    }

    /// The furthest settled checkpoint that is not above `limit`; the first one, if it is settled, whatever the limit.
    /// The answer stays the same until [`Tracker::committed`] is called.
    #[must_use]
    pub(crate) fn due(&self, limit: i64) -> Option<Checkpoint> {
        let first = self.checkpoints.front()?.end;
        let settled = self.settled_to().min(limit.max(first));
        let behind = self.checkpoints.partition_point(|checkpoint| checkpoint.end <= settled);
        behind.checked_sub(1).map(|at| self.checkpoints[at])
    }

    /// Notes that everything below `end` was committed.
    pub(crate) fn committed(&mut self, end: i64) {
        self.committed_to = end;
        while let Some(checkpoint) = self.checkpoints.pop_front_if(|checkpoint| checkpoint.end <= end) {
            self.committed_events = checkpoint.events;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(end: i64) -> Checkpoint {
        Checkpoint { end, events: 0, sha1: [0; 20] }
    }

    #[test]
    fn the_slowest_lane_bounds_the_commit() {
        let mut tracker = Tracker::new(2, 0);
        tracker.sent(0, 0);
        tracker.sent(1, 3);
        tracker.window(at(10));
        tracker.sent(1, 12);
        tracker.window(at(20));
        assert_eq!(tracker.due(i64::MAX), None);

        tracker.folded(0, Some(0));
        tracker.folded(1, Some(3));
        tracker.settled(1, None);
        assert_eq!((tracker.settled_to(), tracker.due(i64::MAX)), (0, None));

        tracker.settled(0, None);
        assert_eq!((tracker.settled_to(), tracker.due(i64::MAX)), (12, Some(at(10))));

        tracker.committed(10);
        tracker.folded(1, Some(12));
        tracker.settled(1, None);
        assert_eq!(tracker.due(i64::MAX), Some(at(20)));
        tracker.committed(20);
        assert!(tracker.is_drained());
    }

    #[test]
    fn a_limit_holds_back_all_but_the_first_checkpoint() {
        let mut tracker = Tracker::new(1, 0);
        [10, 20, 30].into_iter().for_each(|end| tracker.window(at(end)));
        assert_eq!(tracker.due(25), Some(at(20)));
        assert_eq!(tracker.due(5), Some(at(10)));
        tracker.committed(10);
        assert_eq!((tracker.committed_to(), tracker.due(5)), (10, Some(at(20))));
    }

    #[test]
    fn the_end_of_so_many_events_is_that_of_a_window() {
        let mut tracker = Tracker::new(1, 0);
        [(10, 10), (25, 15), (30, 5)].into_iter().for_each(|(end, events)| {
            tracker.window(Checkpoint { end, events, sha1: [0; 20] });
        });
        let end_of = |tracker: &Tracker, events| (tracker.uncommitted_events(), tracker.end_of(events));
        assert_eq!(end_of(&tracker, 1), (30, 10));
        assert_eq!(end_of(&tracker, 10), (30, 10));
        assert_eq!(end_of(&tracker, 11), (30, 25));
        assert_eq!(end_of(&tracker, 99), (30, 30));
        tracker.committed(10);
        assert_eq!(end_of(&tracker, 10), (20, 25));
    }

    #[test]
    fn a_window_without_changes_is_settled_at_once() {
        let mut tracker = Tracker::new(1, 5);
        tracker.window(at(9));
        assert_eq!(tracker.due(i64::MAX), Some(at(9)));
    }

    proptest! {
        /// Whatever the order of folding and settling, nothing unsettled is ever due.
        #[test]
        fn nothing_unsettled_is_due(steps in prop::collection::vec((0_u8..4, 0_usize..3), 1..200)) {
            const LANES: usize = 3;
            let mut tracker = Tracker::new(LANES, 0);
            let mut next = 0_i64;
            let mut queued: Vec<VecDeque<i64>> = vec![VecDeque::new(); LANES];
            let mut held: Vec<VecDeque<i64>> = vec![VecDeque::new(); LANES];
            for (step, lane) in steps {
                match step {
                    0 => {
                        // A window of three events, for up to three lanes.
                        for (l, queued) in queued.iter_mut().enumerate().take(lane + 1) {
                            tracker.sent(l, next + l as i64);
                            queued.push_back(next + l as i64);
                        }
                        next += LANES as i64;
                        tracker.window(at(next));
                    }
                    1 => if let Some(offset) = queued[lane].pop_front() {
                        held[lane].push_back(offset);
                        tracker.folded(lane, held[lane].front().copied());
                    },
                    2 => if held[lane].pop_front().is_some() {
                        tracker.settled(lane, held[lane].front().copied());
                    },
                    _ => if let Some(checkpoint) = tracker.due(i64::MAX) {
                        tracker.committed(checkpoint.end);
                    },
                }
                let unsettled = queued.iter().chain(&held).flatten().min().copied();
                prop_assert_eq!(tracker.settled_to(), unsettled.unwrap_or(next));
                if let Some(checkpoint) = tracker.due(i64::MAX) {
                    prop_assert!(unsettled.is_none_or(|offset| checkpoint.end <= offset));
                }
            }
        }
    }
}

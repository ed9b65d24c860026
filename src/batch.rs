//! Decides when a lane's pending updates become a batch. Time is passed in, never read.

use std::time::Duration;

use crate::change::TimingId;
use crate::config;

labelled! {
    /// Which bound made a batch.
    pub enum Trigger {
        /// As many entities as a batch may have.
        Ops => "ops",
        /// As many bytes as a batch may have.
        Bytes => "bytes",
        /// A document has waited long enough.
        Delay => "delay",
        /// So much is held that the oldest has to go, though it might wait longer.
        Pressure => "pressure",
        /// Everything is to be flushed: at the end, or before renumbering.
        Drain => "drain",
    }
}

/// How long a change may wait for company.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Timing {
    /// As long as the policy says.
    #[default]
    Default,
    /// So long, whatever the policy says.
    Within(Duration),
    /// As long as the policy says if its document was not written for so long, else so long after it was.
    Paced(Duration),
    /// Not at all. Nor may anything else that waits for its document.
    Flush,
    /// The same, of an event that writes nothing itself.
    FlushOnly,
}

impl Timing {
    fn of(route: &config::Route) -> Self {
        match (route.max_delay, route.pace) {
            _ if route.only_flushes() => Timing::FlushOnly,
            _ if route.flush => Timing::Flush,
            (Some(max_delay), _) => Timing::Within(max_delay),
            (None, Some(pace)) => Timing::Paced(pace),
            (None, None) => Timing::Default,
        }
    }
}

/// What flushes is read so soon, while other events are held.
const FLUSHED_WITHIN: Duration = Duration::from_millis(20);

/// The timings that routes name.
#[derive(Debug)]
pub struct Timings {
    /// The first is the default.
    all: Vec<Timing>,
    by_route: Vec<TimingId>,
}

impl Timings {
    /// What the routes say.
    #[must_use]
    pub fn new(routes: &[config::Route]) -> Self {
        let mut all = vec![Timing::Default];
        let by_route = routes.iter().map(|route| {
            let timing = Timing::of(route);
            let place = all.iter().position(|known| *known == timing).unwrap_or_else(|| {
                all.push(timing);
                all.len() - 1
            });
            TimingId(u16::try_from(place).unwrap_or_default())
        });
        Timings { by_route: by_route.collect(), all }
    }

    /// The timing of a route's changes. Native events have none.
    #[must_use]
    pub fn of(&self, route: Option<usize>) -> TimingId {
        route.and_then(|route| self.by_route.get(route)).copied().unwrap_or_default()
    }

    /// Whether a route's events write nothing, and have written what waits.
    #[must_use]
    pub fn only_flush(&self, route: Option<usize>) -> bool {
        self.get(self.of(route)) == Timing::FlushOnly
    }

    /// What stands behind an id.
    #[must_use]
    pub fn get(&self, id: TimingId) -> Timing {
        self.all.get(usize::from(id.0)).copied().unwrap_or_default()
    }

    /// The longest that any change may wait, if one without a timing of its own waits so long.
    #[must_use]
    pub fn longest(&self, max_delay: Duration) -> Duration {
        let of_timing = |timing: &Timing| match timing {
            Timing::Default | Timing::Flush | Timing::FlushOnly => max_delay,
            Timing::Within(window) | Timing::Paced(window) => *window,
        };
        self.all.iter().map(of_timing).max().unwrap_or(max_delay)
    }

    /// The shortest that a change waits, if one without a timing of its own waits so long. What flushes counts as if it
    /// waited a little, so that it is not read much later.
    #[must_use]
    pub fn shortest(&self, max_delay: Duration) -> Duration {
        let windows = self.all.iter().filter_map(|timing| match timing {
            Timing::Within(window) => Some(*window),
            Timing::Flush | Timing::FlushOnly => Some(FLUSHED_WITHIN),
            Timing::Default | Timing::Paced(_) => None,
        });
        windows.fold(max_delay, Duration::min)
    }

    /// The longest pace, if there is any.
    #[must_use]
    pub fn longest_pace(&self) -> Option<Duration> {
        let paces = self.all.iter().filter_map(|timing| match timing {
            Timing::Paced(pace) => Some(*pace),
            _ => None,
        });
        paces.max()
    }
}

/// The bounds of a batch; the first one reached sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Entities.
    pub max_ops: usize,
    /// Bytes of pending updates.
    pub max_bytes: usize,
    /// Wait of a change without a timing of its own.
    pub max_delay: Duration,
    /// The same while a backlog is read whose changes fold.
    pub backlog_delay: Duration,
    /// Documents that the instance may write in a second; zero is no bound.
    pub max_writes_per_second: u64,
}

/// What is pending in a lane.
#[derive(Debug, Clone, Copy)]
pub struct Backlog {
    /// Entities.
    pub ops: usize,
    /// Events, folded into their updates.
    pub events: u64,
    /// Entities that will not wait for longer than the policy's delay.
    pub prompt_ops: usize,
    /// Bytes of their updates.
    pub prompt_bytes: usize,
    /// The entity that is due first.
    pub first_due: Option<FirstDue>,
    /// Whether something is held that has to go because so much is held.
    pub is_pressed: bool,
    /// Events to be read, about, that will be for what is held.
    pub to_come: u64,
}

/// The entity that is due first.
#[derive(Debug, Clone, Copy)]
pub struct FirstDue {
    /// In how long it is due; zero if it is.
    pub due_in: Duration,
    /// How long its first change has waited.
    pub waited: Duration,
    /// Whether it waits no longer than the policy's delay.
    pub is_prompt: bool,
}

impl From<&config::Batch> for Policy {
    fn from(batch: &config::Batch) -> Self {
        Policy {
            max_ops: batch.max_ops,
            max_writes_per_second: batch.max_writes_per_second,
            max_bytes: usize::try_from(batch.max_bytes.as_u64()).unwrap_or(usize::MAX),
            max_delay: batch.max_delay,
            backlog_delay: batch.backlog_delay,
        }
    }
}

impl Policy {
    /// Why what is held is to be sent now. `behind` says that many more events wait to be read.
    #[must_use]
    pub fn due(&self, held: &Backlog, behind: bool) -> Option<Trigger> {
        let is_due = self.patience(held, behind).is_some_and(|patience| patience.is_zero());
        if held.ops == 0 {
            None
        } else if held.is_pressed {
            Some(Trigger::Pressure)
        } else if behind && !is_due {
            // The buffer bounds what gathers meanwhile.
            None
        } else if held.prompt_bytes >= self.max_bytes {
            Some(Trigger::Bytes)
        } else if held.prompt_ops >= self.max_ops {
            Some(Trigger::Ops)
        } else if is_due {
            Some(Trigger::Delay)
        } else {
            None
        }
    }

    /// How long what is due first may wait for company.
    #[must_use]
    pub fn patience(&self, held: &Backlog, behind: bool) -> Option<Duration> {
        let FirstDue { due_in, waited, .. } = held.first_due?;
        // What comes next out of a backlog will be for the same documents, if what came was: if two events were for each, or
        // one will be.
        let ops = held.ops as u64;
        let folds = held.events >= 2 * ops || held.to_come >= ops;
        Some(if behind && folds { due_in.max(self.backlog_delay.saturating_sub(waited)) } else { due_in })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        max_ops: 10,
        max_bytes: 1000,
        max_delay: Duration::from_millis(50),
        backlog_delay: Duration::from_millis(500),
        max_writes_per_second: 0,
    };

    /// What is held `ms` after its first change came, which may wait as long as the policy says.
    fn due(
        policy: Policy,
        (ops, events): (usize, u64),
        bytes: usize,
        ms: u64,
        behind: bool,
    ) -> Option<Trigger> {
        let waited = Duration::from_millis(ms);
        let due_in = policy.max_delay.saturating_sub(waited);
        let first_due = Some(FirstDue { due_in, waited, is_prompt: true });
        let (prompt_ops, prompt_bytes) = (ops, bytes);
        let held =
            Backlog { ops, events, prompt_ops, prompt_bytes, first_due, is_pressed: false, to_come: 0 };
        policy.due(&held, behind)
    }

    #[test]
    fn the_first_bound_reached_sends() {
        let due = |ops, bytes, ms| due(POLICY, (ops, ops as u64), bytes, ms, false);
        assert_eq!(due(0, 0, 1000), None);
        assert_eq!(due(9, 999, 49), None);
        assert_eq!(due(10, 1, 0), Some(Trigger::Ops));
        assert_eq!(due(1, 1000, 0), Some(Trigger::Bytes));
        assert_eq!(due(1, 1, 50), Some(Trigger::Delay));
    }

    #[test]
    fn a_backlog_that_folds_is_worth_waiting_for() {
        let folded = |ops, events, ms| due(POLICY, (ops, events), 1, ms, true);
        assert_eq!(folded(10, 10, 49), None);
        assert_eq!(folded(10, 19, 50), Some(Trigger::Ops));
        assert_eq!(folded(9, 10, 50), Some(Trigger::Delay));
        assert_eq!(folded(10, 20, 499), None);
        assert_eq!(folded(10, 20, 500), Some(Trigger::Ops));
        assert_eq!(folded(1, 20, 500), Some(Trigger::Delay));
        // A batch has so many bytes, but more may gather.
        assert_eq!(due(POLICY, (1, 20), 1000, 499, true), None);
        assert_eq!(due(POLICY, (1, 20), 1000, 500, true), Some(Trigger::Bytes));
        let impatient = Policy { backlog_delay: Duration::ZERO, ..POLICY };
        assert_eq!(due(impatient, (10, 20), 1, 50, true), Some(Trigger::Ops));
    }

    #[test]
    fn a_backlog_whose_rest_will_fold_is_worth_waiting_for() {
        let waited = POLICY.max_delay;
        let held = |to_come| Backlog {
            ops: 10,
            events: 11,
            prompt_ops: 10,
            prompt_bytes: 1,
            first_due: Some(FirstDue { due_in: Duration::ZERO, waited, is_prompt: true }),
            is_pressed: false,
            to_come,
        };
        assert_eq!(POLICY.due(&held(9), true), Some(Trigger::Ops));
        assert_eq!(POLICY.due(&held(10), true), None);
        assert_eq!(POLICY.due(&held(10), false), Some(Trigger::Ops));
    }

    #[test]
    fn what_may_wait_longer_fills_no_batch_but_goes_when_memory_runs_short() {
        let first_due =
            Some(FirstDue { due_in: Duration::from_secs(60), waited: Duration::ZERO, is_prompt: false });
        let held = |is_pressed| Backlog {
            ops: 10_000,
            events: 10_000,
            prompt_ops: 0,
            prompt_bytes: 0,
            first_due,
            is_pressed,
            to_come: 0,
        };
        for behind in [false, true] {
            assert_eq!(POLICY.due(&held(false), behind), None);
            assert_eq!(POLICY.due(&held(true), behind), Some(Trigger::Pressure));
        }
    }

    #[test]
    fn routes_with_the_same_timing_share_it() {
        let route = |max_delay: Option<u64>, pace: Option<u64>, flush| config::Route {
            max_delay: max_delay.map(Duration::from_secs),
            pace: pace.map(Duration::from_secs),
            flush,
            delete: true,
            ..config::Route::default()
        };
        let routes = [
            route(Some(2), None, false),
            route(None, None, false),
            route(None, Some(3), false),
            route(Some(2), None, false),
            route(None, None, true),
        ];
        let timings = Timings::new(&routes);
        let second = Duration::from_secs(1);
        let of = |route| timings.get(timings.of(route));
        assert_eq!((of(None), of(Some(1)), of(Some(7))), (Timing::Default, Timing::Default, Timing::Default));
        assert_eq!((of(Some(0)), of(Some(3))), (Timing::Within(2 * second), Timing::Within(2 * second)));
        assert_eq!((of(Some(2)), of(Some(4))), (Timing::Paced(3 * second), Timing::Flush));
        assert_eq!((timings.all.len(), timings.longest_pace()), (4, Some(3 * second)));
        assert_eq!((timings.longest(second), timings.longest(9 * second)), (3 * second, 9 * second));
        let without_flush = Timings::new(&routes[..4]);
        let shortest = |timings: &Timings| (timings.shortest(second), timings.shortest(9 * second));
        assert_eq!(shortest(&without_flush), (second, 2 * second));
        assert_eq!(shortest(&timings), (FLUSHED_WITHIN, FLUSHED_WITHIN));
    }
}

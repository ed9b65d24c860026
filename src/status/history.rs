//! Keeps the last two minutes of each queue, looked at once a second. Figures per second come from this.

use std::collections::VecDeque;
use std::time::Duration;

/// Looks kept: two minutes.
const KEPT: usize = 121;
/// Looks that present rates and latencies are told from: ten seconds.
const RECENT: usize = 10;

/// Totals and levels of a queue at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Figures {
    /// Events seen to arrive in the queue.
    pub(super) arrived: u64,
    /// Events read.
    pub(super) received: u64,
    /// Events that are durable or dead, or were found to be.
    pub(super) settled: u64,
    /// Events folded into a pending update.
    pub(super) coalesced: u64,
    /// Dead letters.
    pub(super) dead: u64,
    /// Elements in the queue.
    pub(super) depth: u64,
    /// Age of the oldest event that is not settled, in ms.
    pub(super) age_ms: u64,
}

/// One look at all queues.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) at: Duration,
    pub(super) figures: Vec<Figures>,
}

/// Looks, the oldest first. Pure: time is passed in, since the start of the instance.
#[derive(Debug, Default)]
pub(super) struct History {
    looks: VecDeque<Look>,
    /// Of each queue, how many events took how long, at the last few looks.
    latencies: VecDeque<Vec<Vec<u64>>>,
    /// The number of the next look.
    next: u64,
}

/// What happened to a queue in the last seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Recent {
    /// How long a time this is about.
    pub(super) seconds: f64,
    pub(super) arrived: u64,
    pub(super) received: u64,
    pub(super) settled: u64,
    pub(super) coalesced: u64,
    pub(super) dead: u64,
    /// Events that became durable, by the bucket of how long that took.
    pub(super) latencies: Vec<u64>,
}

impl History {
    /// Another look: what each queue's figures are, and how long its events took.
    pub(super) fn look(&mut self, at: Duration, queues: impl Iterator<Item = (Figures, Vec<u64>)>) {
        let (figures, latencies) = queues.unzip();
        self.looks.push_back(Look { at, figures });
        self.latencies.push_back(latencies);
        self.next += 1;
        if self.looks.len() > KEPT {
            self.looks.pop_front();
        }
        if self.latencies.len() > RECENT + 1 {
            self.latencies.pop_front();
        }
    }

    /// What happened to a queue lately.
    pub(super) fn recent(&self, queue: usize) -> Recent {
        let Some(last) = self.looks.back() else { return Recent::default() };
        let Some(first) = self.looks.get(self.looks.len().saturating_sub(RECENT + 1)) else {
            return Recent::default();
        };
        let (Some(then), Some(now)) = (first.figures.get(queue), last.figures.get(queue)) else {
            return Recent::default();
        };
        let latencies = match (self.latencies.front(), self.latencies.back()) {
            (Some(then), Some(now)) => {
                now[queue].iter().zip(&then[queue]).map(|(now, then)| now - then).collect()
            }
            _ => Vec::new(),
        };
        Recent {
            seconds: last.at.saturating_sub(first.at).as_secs_f64(),
            arrived: now.arrived - then.arrived,
            received: now.received - then.received,
            settled: now.settled - then.settled,
            coalesced: now.coalesced - then.coalesced,
            dead: now.dead - then.dead,
            latencies,
        }
    }

    /// The number of the next look. Whoever asks with that number again misses none.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The looks from number `since` on.
    pub(super) fn since(&self, since: u64) -> impl Iterator<Item = &Look> {
        let first = self.next - self.looks.len() as u64;
        // A number from the future is one of another process: it gets everything.
        let since = if since > self.next { 0 } else { since };
        self.looks.iter().skip(usize::try_from(since.saturating_sub(first)).unwrap_or(usize::MAX))
    }
}

impl Recent {
    /// So many a second.
    pub(super) fn per_second(&self, events: u64) -> f64 {
        if self.seconds > 0.0 { events as f64 / self.seconds } else { 0.0 }
    }

    /// Events that one write stands for, on average. None if there was none to write.
    pub(super) fn events_per_write(&self) -> Option<f64> {
        let written = self.received.checked_sub(self.dead).filter(|written| *written > 0)?;
        // While no batch can be sent, all of them may be folded into updates that pend.
        let writes = written.saturating_sub(self.coalesced).max(1);
        Some(written as f64 / writes as f64)
    }

    /// Within how many seconds the given share of the events was durable: the upper bound of its bucket. None
    /// if there was no event, infinite if it is beyond all `bounds`.
    pub(super) fn within(&self, share: f64, bounds: &[f64]) -> Option<f64> {
        let all: u64 = self.latencies.iter().sum();
        let mut seen = 0;
        let bucket = self.latencies.iter().position(|events| {
            seen += events;
            seen > 0 && seen as f64 >= share * all as f64
        })?;
        Some(bounds.get(bucket).copied().unwrap_or(f64::INFINITY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> (Duration, Figures, Vec<u64>) {
        let n = second * 100;
        let figures = Figures {
            arrived: n * 2,
            received: n,
            settled: n,
            coalesced: n / 2,
            depth: n,
            ..Default::default()
        };
        (Duration::from_secs(second), figures, vec![n * 9 / 10, n / 10, 0])
    }

    fn history(seconds: u64) -> History {
        let mut history = History::default();
        for (at, figures, latencies) in (0..seconds).map(at) {
            history.look(at, [(figures, latencies)].into_iter());
        }
        history
    }

    #[test]
    fn rates_and_latencies_are_of_the_last_ten_seconds() {
        assert_eq!(history(0).recent(0), Recent::default());
        let young = history(4).recent(0);
        assert_eq!((young.seconds, young.per_second(young.arrived)), (3.0, 200.0));
        let recent = history(1000).recent(0);
        assert_eq!((recent.seconds, recent.arrived, recent.settled), (10.0, 2000, 1000));
        assert_eq!(recent.events_per_write(), Some(2.0));
        let folded = Recent { received: 10, coalesced: 12, ..Recent::default() };
        assert_eq!((folded.events_per_write(), Recent::default().events_per_write()), (Some(10.0), None));
        let bounds = [0.05, 0.1];
        let within = |share| recent.within(share, &bounds);
        assert_eq!((within(0.5), within(0.9), within(1.0)), (Some(0.05), Some(0.05), Some(0.1)));
        let slow = Recent { latencies: vec![0, 0, 1], ..Recent::default() };
        assert_eq!(slow.within(0.5, &bounds), Some(f64::INFINITY));
        assert_eq!(Recent::default().within(1.0, &bounds), None);
    }

    #[test]
    fn whoever_asks_on_misses_nothing_and_gets_nothing_twice() {
        let looks = |history: &History, since| history.since(since).count();
        let history = history(500);
        assert_eq!(history.next(), 500);
        assert_eq!((looks(&history, 0), looks(&history, 490), looks(&history, 500)), (KEPT, 10, 0));
        // A process that was started anew.
        assert_eq!(looks(&history, 501), KEPT);
        assert_eq!(history.since(499).next().unwrap().figures[0].arrived, 99_800);
    }
}

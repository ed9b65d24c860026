//! Puts into words that nothing is wrong, and how soon events are durable.

use std::time::Duration;

use super::{Facts, LATE, Level, Summary, events, number, rate, span, summary};
use crate::status::Phase;

/// A window that is no longer than this is over before anybody reads of it.
const AT_ONCE: Duration = Duration::from_secs(1);

impl Facts {
    pub(super) fn fine(&self) -> Summary {
        let standing_by = self.queues.iter().filter(|queue| queue.phase == Phase::Standby).count();
        if standing_by > 0 && standing_by == self.queues.len() {
            let what = if standing_by == 1 { "the queue" } else { "all queues" };
            let text = format!("Standing by: another instance drains {what}.");
            let advice = "This one takes over when the other ends or was not heard of for lease.ttl.";
            return summary(Level::Ok, "standing-by", text, advice);
        }
        let (durable, rates) = (self.durable("Everything"), self.rates());
        summary(Level::Ok, "fine", format!("{durable}."), format!("{rates} There is nothing to do."))
    }

    /// Events came that can never be written.
    pub(super) fn dead_letters(&self) -> Option<Summary> {
        let dead = match self.dead_lately {
            0 => return None,
            1 => "1 dead letter".to_owned(),
            dead => format!("{} dead letters", number(dead)),
        };
        let durable = self.durable("What can be written");
        let text = format!("{dead} in the last 5 minutes. {durable}.");
        let advice = format!(
            "{} Dead letters can never be written. They are kept, and the reasons are below; tidegate dead looks after them.",
            self.rates()
        );
        Some(summary(Level::Warning, "dead-letters", text, advice))
    }

    /// How soon events are durable, of which all are called as is said.
    fn durable(&self, all: &str) -> String {
        let slowest = self.queues.iter().filter_map(|queue| queue.durable_within).reduce(f64::max);
        let window = self.queues.iter().map(|queue| queue.window).max().unwrap_or_default();
        let waiting = if window > AT_ONCE { self.sum(|queue| queue.held) } else { 0 };
        let subject = if waiting == 0 { all } else { "What is due" };
        let depth = self.sum(|queue| if queue.phase == Phase::Standby { 0 } else { queue.depth });
        let durable = match slowest {
            Some(seconds) if seconds <= (LATE + window).as_secs_f64() => {
                format!("{subject} is durable within {}", span(Duration::from_secs_f64(seconds)))
            }
            Some(seconds) if seconds.is_finite() => {
                let slowest = span(Duration::from_secs_f64(seconds));
                format!("{subject} is durable; lately it took up to {slowest}")
            }
            Some(_) => format!("{subject} is durable; lately it took more than a minute"),
            None if depth == 0 => format!("{all} is durable, and nothing waits"),
            None => format!("{} on the way", events(depth, "is", "are")),
        };
        match waiting {
            0 => durable,
            _ => {
                format!("{durable}; {} for company, up to {}", events(waiting, "waits", "wait"), span(window))
            }
        }
    }

    fn rates(&self) -> String {
        let (arrive, settle) = (self.arrived_per_second(), self.settled_per_second());
        if arrive < 0.05 && settle < 0.05 {
            "No events arrive.".to_owned()
        } else {
            format!("{} events arrive a second, {} are settled.", rate(arrive), rate(settle))
        }
    }
}

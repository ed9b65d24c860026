//! Holds the figures to the goals.

use tidegate::format::number;

use super::results::Results;
use super::typing::SHIPPED;

/// A goal, and what was reached.
#[derive(Debug)]
pub(crate) struct Goal {
    pub(crate) says: String,
    pub(crate) wanted: String,
    pub(crate) reached: String,
    pub(crate) met: bool,
}

impl Goal {
    fn at_least(says: impl Into<String>, wanted: f64, got: f64, digits: usize) -> Self {
        Self {
            says: says.into(),
            wanted: format!("{wanted:.digits$} or more"),
            reached: format!("{got:.digits$}"),
            met: got >= wanted,
        }
    }

    fn at_most(says: impl Into<String>, unit: &str, wanted: f64, got: f64) -> Self {
        Self {
            says: says.into(),
            wanted: format!("{wanted:.0} {unit} or less"),
            reached: format!("{got:.1} {unit}"),
            met: got <= wanted,
        }
    }
}

/// How fast workloads should be, against draining their events and then writing each of their documents once.
const IDEAL: &[(&str, f64)] =
    &[("hot", 1.2), ("again", 1.1), ("one", 1.3), ("zipf", 1.0), ("distinct", 1.1), ("large", 0.9)];

/// The goals of which something was measured. Ratios are those of the better configuration.
pub(crate) fn goals(results: &Results) -> Vec<Goal> {
    use super::compare::{BARE_DRAIN, BARE_UPSERTS, SERIAL_IDEAL, TIDEGATE};
    use super::peers::{BATCHED, PLAIN};
    let mut goals = Vec::new();
    let mut ratio = |says, workload, to, wanted, digits| {
        if let Some(got) = results.best_ratio(workload, to) {
            goals.push(Goal::at_least(says, wanted, got, digits));
        }
    };
    ratio("hot, against the bare drain", "hot", BARE_DRAIN, 0.70, 2);
    ratio("one document, against the bare drain", "one", BARE_DRAIN, 0.70, 2);
    ratio("distinct, against bare upserts", "distinct", BARE_UPSERTS, 0.90, 2);
    ratio("hot, against the plain Node worker", "hot", PLAIN, 500.0, 0);
    ratio("hot, against the Node worker batched by hand", "hot", BATCHED, 40.0, 0);
    // Of the default configuration.
    for (workload, wanted) in IDEAL {
        if let Some(got) = results.comparison(workload).and_then(|c| c.ratio(TIDEGATE, SERIAL_IDEAL)) {
            goals.push(Goal::at_least(format!("{workload}, against the serial ideal"), *wanted, got, 2));
        }
    }
    if let Some(got) = results.stream_to_list() {
        goals.push(Goal::at_least("hot, a stream against a list", 0.65, got, 2));
    }
    for latency in results.latencies.iter().filter(|latency| latency.rate == 1_000) {
        let says = format!("p99 from push to durable, 1,000 events/s, `max_delay` {} ms", latency.max_delay);
        goals.push(Goal::at_most(says, "ms", latency.max_delay + 10.0, latency.p99()));
    }
    let shipped =
        results.typing.iter().flat_map(|typing| &typing.windows).find(|window| window.name == SHIPPED);
    if let Some(window) = shipped {
        let says = format!("typing, events a write with the shipped `max_delay`, {SHIPPED}");
        goals.push(Goal::at_least(says, 5.0, window.of(|round| round.events_a_write()), 2));
    }
    if let Some(typing) = &results.typing {
        let says = "clicks beside typing, p99 from push to durable, against clicks alone".to_owned();
        let clicks = &typing.clicks;
        goals.push(Goal::at_most(says, "ms", clicks.alone() + 10.0, clicks.beside()));
    }
    if let Some(memory) = &results.memory {
        let says = format!("peak RSS, outage, {} events over 5,000 documents", number(memory.events));
        goals.push(Goal::at_most(says, "MiB", 64.0, memory.of(|round| round.outage)));
    }
    if let Some(backlog) = results.backlog.as_ref().filter(|backlog| backlog.is_whole())
        && let Some(got) = backlog.longest_against(10_000)
    {
        goals.push(Goal::at_least("events/s at a backlog of 10^7 against 10^4", 0.85, got, 2));
    }
    goals
}

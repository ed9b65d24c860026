//! Holds all that was measured in a run.

use super::backlog::Backlog;
use super::compare::{Comparison, TIDEGATE, TIDEGATE_BEST, TIDEGATE_LIST, TIDEGATE_LIST_BEST};
use super::latency::Latency;
use super::memory::Memory;
use super::typing::Typing;
use super::workload::STREAM;

/// What was measured so far.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) comparisons: Vec<Comparison>,
    pub(crate) latencies: Vec<Latency>,
    pub(crate) memory: Option<Memory>,
    pub(crate) backlog: Option<Backlog>,
    pub(crate) typing: Option<Typing>,
}

impl Results {
    pub(crate) fn comparison(&self, workload: &str) -> Option<&Comparison> {
        self.comparisons.iter().find(|comparison| comparison.workload.name == workload)
    }

    /// How much faster tidegate is than another, in the configuration that is better at it.
    pub(crate) fn best_ratio(&self, workload: &str, to: &str) -> Option<f64> {
        let comparison = self.comparison(workload)?;
        let ratios = [TIDEGATE, TIDEGATE_BEST].map(|name| comparison.ratio(name, to));
        ratios.into_iter().flatten().reduce(f64::max)
    }

    /// How fast a stream is drained against a list of the same events, in the configuration that is worse at it.
    pub(crate) fn stream_to_list(&self) -> Option<f64> {
        let comparison = self.comparison(STREAM)?;
        let pairs = [(TIDEGATE, TIDEGATE_LIST), (TIDEGATE_BEST, TIDEGATE_LIST_BEST)];
        pairs.into_iter().filter_map(|(stream, list)| comparison.ratio(stream, list)).reduce(f64::min)
    }
}

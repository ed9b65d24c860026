//! All that was measured in a run.

use super::backlog::Backlog;
use super::compare::{Comparison, TIDEGATE, TIDEGATE_BEST};
use super::latency::Latency;
use super::memory::Memory;

/// What was measured so far.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) comparisons: Vec<Comparison>,
    pub(crate) latencies: Vec<Latency>,
    pub(crate) memory: Option<Memory>,
    pub(crate) backlog: Option<Backlog>,
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
}

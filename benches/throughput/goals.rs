//! What is to be reached.

use super::results::Results;

/// A goal, and what was reached.
#[derive(Debug)]
pub(crate) struct Goal {
    pub(crate) says: &'static str,
    pub(crate) wanted: String,
    pub(crate) reached: String,
    pub(crate) met: bool,
}

impl Goal {
    fn at_least(says: &'static str, wanted: f64, got: f64, digits: usize) -> Self {
        Self {
            says,
            wanted: format!("{wanted:.digits$} or more"),
            reached: format!("{got:.digits$}"),
            met: got >= wanted,
        }
    }

    fn at_most(says: &'static str, unit: &str, wanted: f64, got: f64) -> Self {
        Self {
            says,
            wanted: format!("{wanted:.0} {unit} or less"),
            reached: format!("{got:.1} {unit}"),
            met: got <= wanted,
        }
    }
}

/// The goals of which something was measured. Ratios are those of the better configuration.
pub(crate) fn goals(results: &Results) -> Vec<Goal> {
    use super::compare::{BARE_DRAIN, BARE_UPSERTS};
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
    goals
}

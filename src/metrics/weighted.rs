//! Defines a histogram that takes many events at once.
//!
//! The exporter's own keeps every sample until the next scrape or upkeep, one by one. One write may make a
//! hundred thousand events durable, and a histogram of events must not cost work and memory for each.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Counts in buckets.
#[derive(Debug)]
pub(super) struct WeightedHistogram {
    bounds: &'static [f64],
    /// One more than bounds: the last is beyond all of them. Not cumulative.
    counts: Vec<AtomicU64>,
    sum: Mutex<f64>,
}

impl WeightedHistogram {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        WeightedHistogram { bounds, counts, sum: Mutex::new(0.0) }
    }

    /// Counts `value` so many times.
    pub(super) fn record(&self, value: f64, times: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(times, Ordering::Relaxed);
        *self.sum.lock() += value * times as f64;
    }

    /// What was counted so far, bucket by bucket; not cumulative.
    pub(super) fn counts(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Writes the sample lines of a metric, in Prometheus' text format.
    pub(super) fn render(&self, out: &mut String, name: &str, label: (&str, &str)) {
        let label = format!("{}=\"{}\"", label.0, escape(label.1));
        let mut count = 0;
        let mut line = |suffix: &str, labels: &str, value: &dyn std::fmt::Display| {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{name}{suffix}{{{labels}}} {value}");
        };
        for (bound, bucket) in
            self.bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]).zip(&self.counts)
        {
            count += bucket.load(Ordering::Relaxed);
            line("_bucket", &format!("{label},le=\"{bound}\""), &count);
        }
        line("_sum", &label, &*self.sum.lock());
        line("_count", &label, &count);
    }
}

/// <https://prometheus.io/docs/instrumenting/exposition_formats/#comments-help-text-and-type-information>
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_their_bounds_belong_to_them() {
        let histogram = WeightedHistogram::new(&[0.1, 1.0]);
        histogram.record(0.1, 5);
        histogram.record(0.5, 2);
        histogram.record(7.0, 1);
        let mut out = String::new();
        histogram.render(&mut out, "m", ("queue", "a\"b"));
        insta::assert_snapshot!(out, @r#"
        m_bucket{queue="a\"b",le="0.1"} 5
        m_bucket{queue="a\"b",le="1"} 7
        m_bucket{queue="a\"b",le="+Inf"} 8
        m_sum{queue="a\"b"} 8.5
        m_count{queue="a\"b"} 8
        "#);
    }
}

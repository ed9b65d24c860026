//! What `metrics` and its Prometheus exporter cannot do, each with its reason. Their macros are the fourth, banned in
//! `clippy.toml`: they name a metric anywhere, and there is one list of them.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::Counter;
use metrics_process::collector::{Metrics, collect};
use parking_lot::Mutex;

/// A counter that can be read: the recorder's handles can only be written to, and the status tells totals, too.
pub(crate) struct Tally {
    counter: Counter,
    total: AtomicU64,
}

impl From<Counter> for Tally {
    fn from(counter: Counter) -> Self {
        Tally { counter, total: AtomicU64::new(0) }
    }
}

impl Tally {
    /// So many more.
    pub(crate) fn increment(&self, by: u64) {
        self.counter.increment(by);
        self.total.fetch_add(by, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

/// A histogram that takes many events at once. The exporter's own keeps every sample until the next scrape or upkeep, one
/// by one. One write may make a hundred thousand events durable, which must not cost work and memory for each.
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
        let mut line = |suffix: &str, labels: &str, value: &dyn Display| {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{name}{suffix}{{{labels}}} {value}");
        };
        let bounds = self.bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, bucket) in bounds.zip(self.counts()) {
            count += bucket;
            line("_bucket", &format!("{label},le=\"{bound}\""), &count);
        }
        line("_sum", &label, &*self.sum.lock());
        line("_count", &label, &count);
    }
}

/// <https://prometheus.io/docs/instrumenting/exposition_formats/#comments-help-text-and-type-information>
pub(super) fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Writes what the system tells of this process, under the names that Prometheus' client libraries give it. It is not
/// recorded: the recorder's counters are integers, and a process that uses a twentieth of a core would seem to use none
/// for twenty seconds.
pub(super) fn render_process(out: &mut String) {
    write_process(out, &collect());
}

fn write_process(out: &mut String, process: &Metrics) {
    let whole = |value: Option<u64>| value.map(|value| value as f64);
    let cpu = process.cpu_seconds_total;
    for (name, kind, value, help) in [
        ("cpu_seconds_total", "counter", cpu, "Total user and system CPU time spent in seconds."),
        ("open_fds", "gauge", whole(process.open_fds), "Number of open file descriptors."),
        ("max_fds", "gauge", whole(process.max_fds), "Maximum number of open file descriptors."),
        (
            "resident_memory_bytes",
            "gauge",
            whole(process.resident_memory_bytes),
            "Resident memory size in bytes.",
        ),
        (
            "virtual_memory_bytes",
            "gauge",
            whole(process.virtual_memory_bytes),
            "Virtual memory size in bytes.",
        ),
        ("threads", "gauge", whole(process.threads), "Number of OS threads in the process."),
        (
            "start_time_seconds",
            "gauge",
            whole(process.start_time_seconds),
            "Start time of the process since unix epoch in seconds.",
        ),
    ] {
        let Some(value) = value else { continue };
        let name = format!("process_{name}");
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
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

    #[test]
    fn processor_time_has_fractions_and_what_is_unknown_is_left_out() {
        let mut out = String::new();
        write_process(
            &mut out,
            &Metrics { cpu_seconds_total: Some(1.25), threads: Some(3), ..Metrics::default() },
        );
        insta::assert_snapshot!(out.trim_end(), @r"
        # HELP process_cpu_seconds_total Total user and system CPU time spent in seconds.
        # TYPE process_cpu_seconds_total counter
        process_cpu_seconds_total 1.25

        # HELP process_threads Number of OS threads in the process.
        # TYPE process_threads gauge
        process_threads 3
        ");
    }
}

//! Measures the process, under the names that Prometheus' client libraries use.
//!
//! Written out here rather than recorded: the recorder's counters are integers, and a process that uses a
//! twentieth of a core would seem to use none for twenty seconds.

use std::fmt::Write;

use metrics_process::collector::{Metrics, collect};

/// Writes what the system tells of this process, in Prometheus' text format.
pub(super) fn render(out: &mut String) {
    write(out, &collect());
}

fn write(out: &mut String, process: &Metrics) {
    let mut metric = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            // Writing to a string cannot fail.
            let _ = writeln!(
                out,
                "# HELP process_{name} {help}\n# TYPE process_{name} {kind}\nprocess_{name} {value}\n"
            );
        }
    };
    let whole = |value: Option<u64>| value.map(|value| value as f64);
    metric(
        "cpu_seconds_total",
        "counter",
        "Total user and system CPU time spent in seconds.",
        process.cpu_seconds_total,
    );
    metric("open_fds", "gauge", "Number of open file descriptors.", whole(process.open_fds));
    metric("max_fds", "gauge", "Maximum number of open file descriptors.", whole(process.max_fds));
    metric(
        "resident_memory_bytes",
        "gauge",
        "Resident memory size in bytes.",
        whole(process.resident_memory_bytes),
    );
    metric(
        "virtual_memory_bytes",
        "gauge",
        "Virtual memory size in bytes.",
        whole(process.virtual_memory_bytes),
    );
    metric("threads", "gauge", "Number of OS threads in the process.", whole(process.threads));
    metric(
        "start_time_seconds",
        "gauge",
        "Start time of the process since unix epoch in seconds.",
        whole(process.start_time_seconds),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_has_fractions_and_what_is_unknown_is_left_out() {
        let mut out = String::new();
        write(&mut out, &Metrics { cpu_seconds_total: Some(1.25), threads: Some(3), ..Metrics::default() });
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

//! Holds `docs/metrics.md` equal to the list of metrics.

use std::fmt::Write;

use super::{Metric, MetricKind, WriteOp};
use crate::batch::Trigger;
use crate::dead_letter::Reason;
use crate::hot_state::Refreshed;
use crate::retry::Class;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");

const HEAD: &str = "\
# Metrics

`GET /metrics` answers in Prometheus' text format. Every series is there from the start, at zero, so that `rate()`
works from the first event on. Labels come from closed sets: what events contain never makes a new series.

On an idle instance, for every queue:
`events_received_total = events_persisted_total + events_deduplicated_total + events_dead_lettered_total + events_released_total`,
and while events are held, `buffer_events` is the difference (over all queues).

<!-- Generated from the list in the code: `UPDATE_DOCS=1 cargo test metrics_page` writes this page. -->

";

const PROCESS: &str = "
## The process

The usual process metrics, under their usual names: `process_cpu_seconds_total`, `process_resident_memory_bytes`,
`process_virtual_memory_bytes`, `process_open_fds`, `process_max_fds`, `process_threads`,
`process_start_time_seconds`.
";

fn labels(metric: Metric) -> String {
    let labels = metric.spec().labels;
    if labels.is_empty() {
        return "none".to_owned();
    }
    labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ")
}

/// What a label may say.
fn values(label: &str) -> String {
    fn list(labels: impl IntoIterator<Item = &'static str>) -> String {
        labels.into_iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ")
    }
    match label {
        "queue" => "The key of a configured queue.".to_owned(),
        "collection" => "A collection that the configuration names.".to_owned(),
        "version" => "The version of the program.".to_owned(),
        "dependency" => list(["redis", "mongodb"]),
        "reason" => list(Reason::ALL.map(Reason::label)),
        "op" => list(WriteOp::ALL.map(WriteOp::label)),
        "outcome" => list(Refreshed::ALL.map(Refreshed::label)),
        "trigger" => list(Trigger::ALL.map(Trigger::label)),
        "class" => list(Class::ALL.map(Class::label)),
        other => panic!("say here what the label {other:?} may be"),
    }
}

fn page() -> String {
    let mut out = HEAD.to_owned();
    for (title, wanted) in [("Gauges", "gauge"), ("Counters", "counter"), ("Histograms", "histogram")] {
        writeln!(out, "## {title}\n\n| name | labels | meaning |\n| --- | --- | --- |").unwrap();
        for metric in Metric::ALL {
            let spec = metric.spec();
            if spec.kind.name() == wanted {
                writeln!(out, "| `{}` | {} | {} |", spec.name, labels(metric), spec.help).unwrap();
            }
        }
        out.push('\n');
    }
    out.push_str(
        "### Buckets\n\nUpper bounds, in the unit of the name.\n\n| name | bounds |\n| --- | --- |\n",
    );
    for metric in Metric::ALL {
        if let MetricKind::Histogram(bounds) = metric.spec().kind {
            let bounds: Vec<_> = bounds.iter().map(f64::to_string).collect();
            writeln!(out, "| `{}` | {} |", metric.spec().name, bounds.join(", ")).unwrap();
        }
    }
    out.push_str("\n## Labels\n\n| label | values |\n| --- | --- |\n");
    let mut seen = Vec::new();
    for label in Metric::ALL.iter().flat_map(|metric| metric.spec().labels) {
        if !seen.contains(label) {
            seen.push(*label);
            writeln!(out, "| `{label}` | {} |", values(label)).unwrap();
        }
    }
    out.push_str(PROCESS);
    out
}

#[test]
fn the_metrics_page_tells_what_the_code_exports() {
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PATH, &page).unwrap();
    }
    let written = std::fs::read_to_string(PATH).unwrap_or_default();
    assert!(
        written == page,
        "docs/metrics.md is out of date: UPDATE_DOCS=1 cargo test metrics_page writes it"
    );
}

#[test]
fn names_are_unique_and_tell_the_type() {
    let mut names: Vec<_> = Metric::ALL.iter().map(|metric| metric.spec().name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Metric::ALL.len());
    for metric in Metric::ALL {
        let spec = metric.spec();
        assert!(spec.name.starts_with("tidegate_"), "{}", spec.name);
        assert_eq!(spec.name.ends_with("_total"), spec.kind == MetricKind::Counter, "{}", spec.name);
        assert!(spec.help.ends_with('.') && !spec.help.contains('|'), "{}", spec.name);
        assert!(metric.bounds().is_sorted(), "{}", spec.name);
    }
}

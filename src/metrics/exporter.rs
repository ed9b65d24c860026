//! Writes the text that Prometheus scrapes.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use metrics::Recorder;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::RwLock;

use super::list::{Metric, MetricKind};
use super::patterns::Patterns;
use super::workarounds::render_process;
use super::{QueueMetrics, gauge};
use crate::beat;

/// Renders all metrics.
#[derive(Clone)]
pub(crate) struct Exporter {
    handle: PrometheusHandle,
    queues: Arc<RwLock<Vec<Arc<QueueMetrics>>>>,
    patterns: Arc<RwLock<Patterns>>,
}

/// A recorder that knows all metrics, and what renders it.
pub(crate) fn recorder() -> anyhow::Result<(PrometheusRecorder, Exporter)> {
    let mut builder = PrometheusBuilder::new();
    for metric in Metric::ALL {
        let spec = metric.spec();
        if let MetricKind::Histogram(bounds) = spec.kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(spec.name.to_owned()), bounds)?;
        }
    }
    let recorder = builder.build_recorder();
    for metric in Metric::ALL {
        let spec = metric.spec();
        let (name, help) = (spec.name.into(), spec.help.into());
        match spec.kind {
            MetricKind::Counter => recorder.describe_counter(name, None, help),
            MetricKind::Gauge => recorder.describe_gauge(name, None, help),
            MetricKind::Histogram(_) => recorder.describe_histogram(name, None, help),
        }
    }
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    metrics::with_local_recorder(&recorder, || gauge(Metric::BuildInfo, &version).set(1.0));
    let handle = recorder.handle();
    let exporter = Exporter { handle, queues: Arc::default(), patterns: Arc::default() };
    Ok((recorder, exporter))
}

impl Exporter {
    /// Makes all metrics of this process go to the exporter.
    ///
    /// # Errors
    /// Something else has done so before.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let (recorder, exporter) = recorder()?;
        metrics::set_global_recorder(recorder).context("metrics are recorded elsewhere")?;
        Ok(exporter)
    }

    /// Renders a queue's own histograms, too.
    pub(crate) fn add(&self, queue: Arc<QueueMetrics>) {
        self.queues.write().push(queue);
    }

    /// Renders what a queue has together with all others of this pattern.
    pub(crate) fn aggregate(&self, queue: &str, pattern: &str) {
        self.patterns.write().add(queue, pattern);
    }

    /// Keeps histograms that nobody scrapes from growing. Never ends.
    pub(crate) async fn upkeep(self) -> std::io::Result<()> {
        loop {
            tokio::time::sleep_until(beat::next(Duration::from_secs(5))).await;
            self.handle.run_upkeep();
        }
    }

    /// All metrics in Prometheus' text format.
    #[must_use]
    pub(crate) fn render(&self) -> String {
        self.patterns.read().fold(self.render_each())
    }

    fn render_each(&self) -> String {
        let mut out = self.handle.render();
        render_process(&mut out);
        let queues = self.queues.read();
        let of_all: Vec<_> = queues.iter().map(|queue| (&*queue.queue, queue.weighted())).collect();
        let Some((_, first)) = of_all.first() else { return out };
        for (at, (metric, _)) in first.iter().enumerate() {
            let spec = metric.spec();
            // Writing to a string cannot fail.
            let _ = writeln!(out, "# HELP {0} {1}\n# TYPE {0} histogram", spec.name, spec.help);
            for (queue, weighted) in &of_all {
                weighted[at].1.render(&mut out, spec.name, ("queue", queue));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Trigger;
    use crate::change::CollectionId;
    use crate::metrics::promtool::promtool;
    use crate::metrics::{WriteMetrics, WriteOp};

    fn rendered() -> String {
        let (recorder, exporter) = recorder().unwrap();
        metrics::with_local_recorder(&recorder, || {
            let collections = ["documents".to_owned()];
            let queue = QueueMetrics::new("q", &collections);
            queue.persisted_after(Duration::from_millis(30), 1000);
            exporter.add(Arc::new(queue));
            let writes = WriteMetrics::new(&collections);
            writes.batch(Trigger::Delay, 5, 100);
            writes.writes(CollectionId(0), WriteOp::Update, 5);
            writes.write_duration(CollectionId(0), Duration::from_millis(3));
            crate::metrics::gauge(Metric::Up, &[("dependency", "redis")]).set(1.0);
            let _receipts = crate::metrics::ReceiptMetrics::new();
            let _registered = crate::buffer::Buffer::new(&crate::config::Buffer::default());
            exporter.render()
        })
    }

    #[test]
    fn every_metric_is_there_from_the_start_with_its_help_and_type() {
        let text = rendered();
        for metric in Metric::ALL {
            let spec = metric.spec();
            let kind = spec.kind.name();
            assert!(text.contains(&format!("# TYPE {} {kind}\n", spec.name)), "{}: {text}", spec.name);
            assert!(text.contains(&format!("# HELP {} ", spec.name)), "{}", spec.name);
            let sample = |line: &str| !line.starts_with('#') && line.starts_with(spec.name);
            assert!(text.lines().any(sample), "{} has no sample", spec.name);
        }
        assert!(text.contains("tidegate_persist_latency_seconds_bucket{queue=\"q\",le=\"0.05\"} 1000\n"));
        assert!(text.contains("\nprocess_resident_memory_bytes "));
        assert!(text.contains("tidegate_events_dead_lettered_total{queue=\"q\",reason=\"not-json\"} 0\n"));
    }

    #[test]
    fn prometheus_own_checker_finds_nothing() {
        let (content, said) = promtool(&["check", "metrics"], &rendered());
        assert!(content && said.is_empty(), "{said}");
    }
}

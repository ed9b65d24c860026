//! Counts: one list of metrics, handles kept by those who count, and the text that Prometheus scrapes.

#[cfg(test)]
mod alert_tests;
#[cfg(test)]
mod dashboard_tests;
#[cfg(test)]
mod docs_tests;
mod exporter;
mod list;
mod process;
#[cfg(test)]
mod promtool;
mod receipts;
mod tally;
mod weighted;

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label, Level, Metadata, with_recorder};
use parking_lot::RwLock;

pub use self::exporter::Exporter;
#[cfg(test)]
pub(crate) use self::exporter::recorder;
pub use self::list::{Metric, MetricKind, Spec};
pub use self::receipts::ReceiptMetrics;
pub use self::tally::Tally;
use self::weighted::WeightedHistogram;
use crate::batch::Trigger;
use crate::change::CollectionId;
use crate::dead_letter::Reason;
use crate::hot_state::Refreshed;
use crate::retry::Class;

const METADATA: Metadata<'static> = Metadata::new("tidegate", Level::INFO, None);

fn key(metric: Metric, labels: &[(&'static str, &str)]) -> metrics::Key {
    let spec = metric.spec();
    debug_assert!(labels.iter().map(|(name, _)| name).eq(spec.labels), "labels of {}", spec.name);
    let labels: Vec<Label> =
        labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    metrics::Key::from_parts(spec.name, labels)
}

/// A counter, registered and therefore exported from now on.
fn counter(metric: Metric, labels: &[(&'static str, &str)]) -> Counter {
    with_recorder(|recorder| recorder.register_counter(&key(metric, labels), &METADATA))
}

/// A counter whose total this process can read, too.
fn tally(metric: Metric, labels: &[(&'static str, &str)]) -> Tally {
    Tally::new(counter(metric, labels))
}

/// A gauge, registered at 0.
pub(crate) fn gauge(metric: Metric, labels: &[(&'static str, &str)]) -> Gauge {
    with_recorder(|recorder| recorder.register_gauge(&key(metric, labels), &METADATA))
}

fn histogram(metric: Metric, labels: &[(&'static str, &str)]) -> Histogram {
    with_recorder(|recorder| recorder.register_histogram(&key(metric, labels), &METADATA))
}

/// The metrics of one queue.
pub struct QueueMetrics {
    /// `queue_depth`
    pub depth: Gauge,
    /// `queue_oldest_age_seconds`
    pub oldest_age: Gauge,
    /// `dead_letters`
    pub dead_letters: Gauge,
    /// `held_back_documents`
    pub held_back: Gauge,
    /// `parked_events`
    pub parked: Gauge,
    /// `stream_lag`
    pub stream_lag: Gauge,
    /// `stream_pending`
    pub stream_pending: Gauge,
    /// `lease_held`
    pub lease_held: Gauge,
    /// `epoch`
    pub epoch: Gauge,
    /// `last_commit_timestamp_seconds`
    pub last_commit: Gauge,
    /// `events_received_total`
    pub received: Tally,
    /// `events_coalesced_total`
    pub coalesced: Tally,
    /// `events_deduplicated_total`
    pub deduplicated: Tally,
    /// `events_released_total`
    pub released: Tally,
    /// `events_skipped_total`
    pub skipped: Counter,
    /// `events_mended_total`
    pub mended: Counter,
    /// `takeovers_total`
    pub takeovers: Counter,
    /// `foreign_pops_total`
    pub foreign_pops: Tally,
    /// By collection.
    persisted: RwLock<Vec<Tally>>,
    dead_lettered: Vec<Tally>,
    latency: WeightedHistogram,
    queue: String,
}

impl std::fmt::Debug for QueueMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueueMetrics").finish_non_exhaustive()
    }
}

impl QueueMetrics {
    /// Registers the metrics of a queue whose events go to `collections`.
    #[must_use]
    pub fn new(queue: &str, collections: &[String]) -> Self {
        let labels = [("queue", queue)];
        let dead_lettered = |reason: &Reason| {
            tally(Metric::EventsDeadLettered, &[("queue", queue), ("reason", reason.label())])
        };
        QueueMetrics {
            depth: gauge(Metric::QueueDepth, &labels),
            oldest_age: gauge(Metric::QueueOldestAge, &labels),
            dead_letters: gauge(Metric::DeadLetters, &labels),
            held_back: gauge(Metric::HeldBackDocuments, &labels),
            parked: gauge(Metric::ParkedEvents, &labels),
            stream_lag: gauge(Metric::StreamLag, &labels),
            stream_pending: gauge(Metric::StreamPending, &labels),
            lease_held: gauge(Metric::LeaseHeld, &labels),
            epoch: gauge(Metric::Epoch, &labels),
            last_commit: gauge(Metric::LastCommitTimestamp, &labels),
            received: tally(Metric::EventsReceived, &labels),
            coalesced: tally(Metric::EventsCoalesced, &labels),
            deduplicated: tally(Metric::EventsDeduplicated, &labels),
            released: tally(Metric::EventsReleased, &labels),
            skipped: counter(Metric::EventsSkipped, &labels),
            mended: counter(Metric::EventsMended, &labels),
            takeovers: counter(Metric::Takeovers, &labels),
            foreign_pops: tally(Metric::ForeignPops, &labels),
            persisted: collections.iter().map(|name| persisted(queue, name)).collect::<Vec<_>>().into(),
            dead_lettered: Reason::ALL.iter().map(dead_lettered).collect(),
            latency: WeightedHistogram::new(Metric::PersistLatency.bounds()),
            queue: queue.to_owned(),
        }
    }

    /// Registers the metrics of the collections that are new; the others have come in the same order before.
    pub fn extend(&self, collections: &[String]) {
        let mut counters = self.persisted.write();
        let known = counters.len();
        counters.extend(collections.iter().skip(known).map(|name| persisted(&self.queue, name)));
    }

    /// Counts durable events of a collection.
    pub fn persisted(&self, collection: CollectionId, events: u64) {
        if let Some(counter) = self.persisted.read().get(usize::from(collection.0)) {
            counter.increment(events);
        }
    }

    /// Counts dead letters.
    pub fn dead_lettered(&self, reason: Reason, events: u64) {
        if let Some(tally) = self.dead_lettered.get(reason as usize) {
            tally.increment(events);
        }
    }

    /// Tells how long events took to become durable.
    pub fn persisted_after(&self, latency: Duration, events: u64) {
        self.latency.record(latency.as_secs_f64(), events);
    }

    /// Events durable in MongoDB.
    #[must_use]
    pub fn persisted_total(&self) -> u64 {
        self.persisted.read().iter().map(Tally::total).sum()
    }

    /// Dead letters.
    #[must_use]
    pub fn dead_lettered_total(&self) -> u64 {
        self.dead_lettered.iter().map(Tally::total).sum()
    }

    /// Events durable so far, by how long that took: counts for the buckets of `persist_latency_seconds`, and
    /// for what is beyond them.
    #[must_use]
    pub fn latencies(&self) -> Vec<u64> {
        self.latency.counts()
    }

    fn render_latency(&self, out: &mut String, name: &str) {
        self.latency.render(out, name, ("queue", &self.queue));
    }
}

fn persisted(queue: &str, collection: &str) -> Tally {
    tally(Metric::EventsPersisted, &[("queue", queue), ("collection", collection)])
}

/// What a statement does to its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOp {
    /// A document that is new.
    Insert,
    /// Operations on fields.
    Update,
    /// A replacement.
    Replace,
    /// A deletion.
    Delete,
    /// Updates of a Yjs document merged into one; it settles no events.
    Compact,
}

impl WriteOp {
    /// All of them.
    pub const ALL: [WriteOp; 5] =
        [WriteOp::Insert, WriteOp::Update, WriteOp::Replace, WriteOp::Delete, WriteOp::Compact];

    /// The metric's label value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            WriteOp::Insert => "insert",
            WriteOp::Update => "update",
            WriteOp::Replace => "replace",
            WriteOp::Delete => "delete",
            WriteOp::Compact => "compact",
        }
    }
}

/// The metrics of writing to one collection.
struct CollectionMetrics {
    writes: [Counter; WriteOp::ALL.len()],
    hot_states: [Counter; Refreshed::ALL.len()],
    duration: Histogram,
}

impl CollectionMetrics {
    fn new(name: &str) -> Self {
        CollectionMetrics {
            writes: WriteOp::ALL
                .map(|op| counter(Metric::Writes, &[("collection", name), ("op", op.label())])),
            hot_states: Refreshed::ALL.map(|outcome| {
                counter(Metric::HotStates, &[("collection", name), ("outcome", outcome.label())])
            }),
            duration: histogram(Metric::WriteDuration, &[("collection", name)]),
        }
    }
}

/// The metrics of writing, for all queues together.
pub struct WriteMetrics {
    collections: RwLock<Vec<CollectionMetrics>>,
    batches: [Counter; Trigger::ALL.len()],
    batch_events: Histogram,
    batch_bytes: Histogram,
    retries_redis: Counter,
    retries_mongodb: [Counter; Class::ALL.len()],
    pending_entities: Gauge,
}

impl std::fmt::Debug for WriteMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteMetrics").finish_non_exhaustive()
    }
}

impl WriteMetrics {
    /// Registers the metrics of writing to `collections`.
    #[must_use]
    pub fn new(collections: &[String]) -> Self {
        gauge(Metric::BuildInfo, &[("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
        let retries = |dependency, class: Class| {
            counter(Metric::Retries, &[("dependency", dependency), ("class", class.label())])
        };
        WriteMetrics {
            collections: collections
                .iter()
                .map(|name| CollectionMetrics::new(name))
                .collect::<Vec<_>>()
                .into(),
            batches: Trigger::ALL.map(|trigger| counter(Metric::Batches, &[("trigger", trigger.label())])),
            batch_events: histogram(Metric::BatchSizeEvents, &[]),
            batch_bytes: histogram(Metric::BatchSizeBytes, &[]),
            retries_redis: retries("redis", Class::Transient),
            retries_mongodb: Class::ALL.map(|class| retries("mongodb", class)),
            pending_entities: gauge(Metric::PendingEntities, &[]),
        }
    }

    /// Registers the metrics of the collections that are new; the others have come in the same order before.
    pub fn extend(&self, collections: &[String]) {
        let mut metrics = self.collections.write();
        let known = metrics.len();
        metrics.extend(collections.iter().skip(known).map(|name| CollectionMetrics::new(name)));
    }

    /// Counts statements that MongoDB applied.
    pub fn writes(&self, collection: CollectionId, op: WriteOp, statements: u64) {
        if let Some(metrics) = self.collections.read().get(usize::from(collection.0)) {
            metrics.writes[op as usize].increment(statements);
        }
    }

    /// Counts a write to a document that had a hot state, by what became of that.
    pub fn hot_state(&self, collection: CollectionId, refreshed: Refreshed) {
        if let Some(metrics) = self.collections.read().get(usize::from(collection.0)) {
            metrics.hot_states[refreshed as usize].increment(1);
        }
    }

    /// Tells how long a command took.
    pub fn write_duration(&self, collection: CollectionId, duration: Duration) {
        if let Some(metrics) = self.collections.read().get(usize::from(collection.0)) {
            metrics.duration.record(duration);
        }
    }

    /// Counts a batch.
    pub fn batch(&self, trigger: Trigger, events: u64, bytes: usize) {
        self.batches[trigger as usize].increment(1);
        self.batch_events.record(events as f64);
        self.batch_bytes.record(bytes as f64);
    }

    /// Counts an attempt of MongoDB's that failed.
    pub fn retried_mongodb(&self, class: Class) {
        self.retries_mongodb[class as usize].increment(1);
    }

    /// Counts an attempt of Redis's that failed.
    pub fn retried_redis(&self) {
        self.retries_redis.increment(1);
    }

    /// Counts documents with a pending update: so many more, or fewer.
    pub fn pending_changed(&self, by: i64) {
        self.pending_entities.increment(by as f64);
    }
}

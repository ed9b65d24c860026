//! Counts: one list of metrics, handles kept by those who count, and the text that Prometheus scrapes.

#[cfg(test)]
mod alert_tests;
#[cfg(test)]
mod dashboard_tests;
#[cfg(test)]
mod docs_tests;
mod exporter;
mod list;
mod patterns;
#[cfg(test)]
mod promtool;
mod workarounds;

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label, Level, Metadata, with_recorder};
use parking_lot::RwLock;

pub(crate) use self::exporter::Exporter;
#[cfg(test)]
pub(crate) use self::exporter::recorder;
pub use self::list::{Metric, MetricKind, Spec};
pub(crate) use self::workarounds::Tally;
use self::workarounds::WeightedHistogram;
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
    counter(metric, labels).into()
}

/// A gauge, registered at 0.
pub(crate) fn gauge(metric: Metric, labels: &[(&'static str, &str)]) -> Gauge {
    with_recorder(|recorder| recorder.register_gauge(&key(metric, labels), &METADATA))
}

fn histogram(metric: Metric, labels: &[(&'static str, &str)]) -> Histogram {
    with_recorder(|recorder| recorder.register_histogram(&key(metric, labels), &METADATA))
}

/// Makes a struct of handles, each registered for its metric under the struct's labels. What else it has comes after `and`.
macro_rules! handles {
    (
        $(#[$meta:meta])*
        $of:vis struct $name:ident($($arg:ident: $arg_type:ty),*) of $labels:expr => {
            $($vis:vis $field:ident: $kind:ident $metric:ident,)*
        } and {
            $($(#[$and_meta:meta])* $and:ident: $and_type:ty = $value:expr,)*
        }
    ) => {
        $(#[$meta])*
        $of struct $name {
            $(#[doc = stringify!($metric)] $vis $field: handles!(@ $kind),)*
            $($(#[$and_meta])* $and: $and_type,)*
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }

        impl $name {
            /// Registers them.
            #[must_use]
            #[allow(clippy::new_without_default, reason = "registering is no default")]
            $of fn new($($arg: $arg_type),*) -> Self {
                $name { $($field: $kind(Metric::$metric, &$labels),)* $($and: $value,)* }
            }
        }
    };
    (@ gauge) => { Gauge };
    (@ counter) => { Counter };
    (@ tally) => { Tally };
    (@ histogram) => { Histogram };
}

handles! {
    /// The metrics of one queue, whose events go to `collections`.
    pub struct QueueMetrics(queue: &str, collections: &[String]) of [("queue", queue)] => {
        pub(crate) depth: gauge QueueDepth,
        pub(crate) oldest_age: gauge QueueOldestAge,
        pub(crate) window: gauge QueueWindow,
        pub(crate) dead_letters: gauge DeadLetters,
        pub(crate) dead_letters_oldest_age: gauge DeadLettersOldestAge,
        pub(crate) held_back: gauge HeldBackDocuments,
        pub(crate) parked: gauge ParkedEvents,
        pub(crate) stream_lag: gauge StreamLag,
        pub(crate) stream_pending: gauge StreamPending,
        pub(crate) lease_held: gauge LeaseHeld,
        pub(crate) paused: gauge QueuePaused,
        pub(crate) epoch: gauge Epoch,
        pub(crate) last_commit: gauge LastCommitTimestamp,
        pub(crate) received: tally EventsReceived,
        pub(crate) coalesced: tally EventsCoalesced,
        pub(crate) deduplicated: tally EventsDeduplicated,
        pub(crate) released: tally EventsReleased,
        pub(crate) skipped: counter EventsSkipped,
        pub(crate) mended: counter EventsMended,
        pub(crate) takeovers: counter Takeovers,
        pub(crate) foreign_pops: tally ForeignPops,
    } and {
        /// By collection.
        persisted: RwLock<Vec<Tally>> =
            collections.iter().map(|name| persisted(queue, name)).collect::<Vec<_>>().into(),
        dead_lettered: [Tally; Reason::ALL.len()] = Reason::ALL.map(|reason| {
            tally(Metric::EventsDeadLettered, &[("queue", queue), ("reason", reason.label())])
        }),
        latency: WeightedHistogram = WeightedHistogram::new(Metric::PersistLatency.bounds()),
        gaps: WeightedHistogram = WeightedHistogram::new(Metric::EventGap.bounds()),
        queue: String = queue.to_owned(),
    }
}

impl QueueMetrics {
    /// Registers the metrics of the collections that are new; the others have come in the same order before.
    pub(crate) fn extend(&self, collections: &[String]) {
        let mut counters = self.persisted.write();
        let known = counters.len();
        counters.extend(collections.iter().skip(known).map(|name| persisted(&self.queue, name)));
    }

    /// Counts durable events of a collection.
    pub(crate) fn persisted(&self, collection: CollectionId, events: u64) {
        if let Some(counter) = self.persisted.read().get(usize::from(collection.0)) {
            counter.increment(events);
        }
    }

    /// Counts dead letters.
    pub(crate) fn dead_lettered(&self, reason: Reason, events: u64) {
        if let Some(tally) = self.dead_lettered.get(reason as usize) {
            tally.increment(events);
        }
    }

    /// Tells how long events took to become durable.
    pub(crate) fn persisted_after(&self, latency: Duration, events: u64) {
        self.latency.record(latency.as_secs_f64(), events);
    }

    /// Counts an event of a document that came so long after the one before.
    pub(crate) fn event_after(&self, gap: Option<Duration>) {
        self.gaps.record(gap.unwrap_or(Duration::from_secs(60)).as_secs_f64(), 1);
    }

    /// Events durable in MongoDB.
    #[must_use]
    pub(crate) fn persisted_total(&self) -> u64 {
        self.persisted.read().iter().map(Tally::total).sum()
    }

    /// Dead letters.
    #[must_use]
    pub(crate) fn dead_lettered_total(&self) -> u64 {
        self.dead_lettered.iter().map(Tally::total).sum()
    }

    /// Events durable so far, by how long that took: counts for the buckets of `persist_latency_seconds`, and
    /// for what is beyond them.
    #[must_use]
    pub(crate) fn latencies(&self) -> Vec<u64> {
        self.latency.counts()
    }

    /// Its histograms that the recorder does not have.
    fn weighted(&self) -> [(Metric, &WeightedHistogram); 2] {
        [(Metric::PersistLatency, &self.latency), (Metric::EventGap, &self.gaps)]
    }
}

fn persisted(queue: &str, collection: &str) -> Tally {
    tally(Metric::EventsPersisted, &[("queue", queue), ("collection", collection)])
}

labelled! {
    /// What a statement does to its document.
    pub(crate) enum WriteOp {
        /// A document that is new.
        Insert => "insert",
        /// Operations on fields.
        Update => "update",
        /// A replacement.
        Replace => "replace",
        /// A deletion.
        Delete => "delete",
        /// Updates of a Yjs document merged into one; it settles no events.
        Compact => "compact",
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

handles! {
    /// The metrics of writing to `collections`, for all queues together.
    pub(crate) struct WriteMetrics(collections: &[String]) of [] => {
        batch_events: histogram BatchSizeEvents,
        batch_bytes: histogram BatchSizeBytes,
        pending_entities: gauge PendingEntities,
    } and {
        collections: RwLock<Vec<CollectionMetrics>> =
            collections.iter().map(|name| CollectionMetrics::new(name)).collect::<Vec<_>>().into(),
        batches: [Counter; Trigger::ALL.len()] =
            Trigger::ALL.map(|trigger| counter(Metric::Batches, &[("trigger", trigger.label())])),
        retries_redis: Counter = retries("redis", Class::Transient),
        retries_mongodb: [Counter; Class::ALL.len()] = Class::ALL.map(|class| retries("mongodb", class)),
    }
}

handles! {
    /// What became of receipts.
    #[derive(Clone)]
    pub(crate) struct ReceiptMetrics() of [] => {
        pub(crate) published: counter ReceiptsPublished,
        pub(crate) dropped: counter ReceiptsDropped,
    } and {}
}

fn retries(dependency: &str, class: Class) -> Counter {
    counter(Metric::Retries, &[("dependency", dependency), ("class", class.label())])
}

impl WriteMetrics {
    /// Registers the metrics of the collections that are new; the others have come in the same order before.
    pub(crate) fn extend(&self, collections: &[String]) {
        let mut metrics = self.collections.write();
        let known = metrics.len();
        metrics.extend(collections.iter().skip(known).map(|name| CollectionMetrics::new(name)));
    }

    /// Counts statements that MongoDB applied.
    pub(crate) fn writes(&self, collection: CollectionId, op: WriteOp, statements: u64) {
        if let Some(metrics) = self.collections.read().get(usize::from(collection.0)) {
            metrics.writes[op as usize].increment(statements);
        }
    }

    /// Counts a write to a document that had a hot state, by what became of that.
    pub(crate) fn hot_state(&self, collection: CollectionId, refreshed: Refreshed) {
        if let Some(metrics) = self.collections.read().get(usize::from(collection.0)) {
            metrics.hot_states[refreshed as usize].increment(1);
        }
    }

    /// Tells how long a command took.
    pub(crate) fn write_duration(&self, collection: CollectionId, duration: Duration) {
        if let Some(metrics) = self.collections.read().get(usize::from(collection.0)) {
            metrics.duration.record(duration);
        }
    }

    /// Counts a batch.
    pub(crate) fn batch(&self, trigger: Trigger, events: u64, bytes: usize) {
        self.batches[trigger as usize].increment(1);
        self.batch_events.record(events as f64);
        self.batch_bytes.record(bytes as f64);
    }

    /// Counts an attempt of MongoDB's that failed.
    pub(crate) fn retried_mongodb(&self, class: Class) {
        self.retries_mongodb[class as usize].increment(1);
    }

    /// Counts an attempt of Redis's that failed.
    pub(crate) fn retried_redis(&self) {
        self.retries_redis.increment(1);
    }

    /// Counts documents with a pending update: so many more, or fewer.
    pub(crate) fn pending_changed(&self, by: i64) {
        self.pending_entities.increment(by as f64);
    }
}

//! The list of all metrics: types, names with their units, labels, help. Nothing else names one.

use MetricKind::{Counter, Gauge, Histogram};

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution, in buckets with these bounds.
    Histogram(&'static [f64]),
}

impl MetricKind {
    /// Prometheus' word for it.
    #[cfg(test)]
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Counter => "counter",
            Gauge => "gauge",
            Histogram(_) => "histogram",
        }
    }
}

/// What there is to say of a metric.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// The name, with prefix and unit.
    pub name: &'static str,
    /// The type.
    pub kind: MetricKind,
    /// The names of its labels.
    pub(crate) labels: &'static [&'static str],
    /// The help text.
    pub(crate) help: &'static str,
}

const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const GAPS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
const EVENTS: &[f64] = &[1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1e3, 5e3, 1e4, 5e4, 1e5];
const BYTES: &[f64] = &[
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// Makes the list: of each metric its type, its name without prefix, the names of its labels, and its help text.
macro_rules! metrics {
    ($($metric:ident: $kind:expr, $name:literal, $labels:expr, $help:literal;)*) => {
        /// Every metric. A contract with dashboards and alerts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Metric {
            $(#[doc = $help] $metric,)*
        }

        impl Metric {
            /// All metrics.
            pub const ALL: [Metric; [$($name),*].len()] = [$(Metric::$metric),*];

            /// What there is to say of it.
            #[must_use]
            pub const fn spec(self) -> Spec {
                let (name, kind, labels, help): (_, _, &[&str], _) = match self {
                    $(Metric::$metric => (concat!("tidegate_", $name), $kind, &$labels, $help),)*
                };
                Spec { name, kind, labels, help }
            }
        }
    };
}

metrics! {
    QueueDepth: Gauge, "queue_depth", ["queue"],
        "Events in the queue. Of a list: all elements, settled or not. Of a stream: entries that are not settled.";
    QueueOldestAge: Gauge, "queue_oldest_age_seconds", ["queue"],
        "Age of the oldest event that is not settled; 0 if there is none.";
    QueuePaused: Gauge, "queue_paused", ["queue"],
        "1 while a person has paused the queue, else 0. Of an instance that stands by, as it knows.";
    QueueWindow: Gauge, "queue_window_seconds", ["queue"],
        "The longest that a change may wait for company, by the routes and `batch.max_delay`; 0 before the first takeover.";
    BufferEvents: Gauge, "buffer_events", [],
        "Events read and not settled, all queues together.";
    BufferBytes: Gauge, "buffer_bytes", [],
        "Memory held by events and pending updates.";
    BufferMaxEvents: Gauge, "buffer_max_events", [],
        "Bound of `buffer_events`: while it is reached, nothing is read.";
    BufferMaxBytes: Gauge, "buffer_max_bytes", [],
        "Bound of `buffer_bytes`: while it is reached, nothing is read.";
    PendingEntities: Gauge, "pending_entities", [],
        "Documents with an update that waits for its batch.";
    DeadLetters: Gauge, "dead_letters", ["queue"],
        "Dead letters in the queue's dead-letter list.";
    DeadLettersOldestAge: Gauge, "dead_letters_oldest_age_seconds", ["queue"],
        "Age of the oldest dead letter in that list, by what the letter says.";
    HeldBackDocuments: Gauge, "held_back_documents", ["queue"],
        "Documents that wait because MongoDB refuses them for another reason than their content.";
    ParkedEvents: Gauge, "parked_events", ["queue"],
        "Events of such documents, kept beside the queue so that it goes on without them.";
    StreamLag: Gauge, "stream_lag", ["queue"],
        "Entries of a stream behind the consumer group's position, so not settled; 0 for a list.";
    StreamPending: Gauge, "stream_pending", ["queue"],
        "Entries pending in the consumer group of a stream. Others left them, and they are settled first. 0 for a list.";
    Up: Gauge, "up", ["dependency"],
        "Whether the dependency answers: 1 or 0.";
    LeaseHeld: Gauge, "lease_held", ["queue"],
        "Whether this instance owns the queue: 1 or 0.";
    Epoch: Gauge, "epoch", ["queue"],
        "Number of the ownership under which this instance last owned the queue.";
    LastCommitTimestamp: Gauge, "last_commit_timestamp_seconds", ["queue"],
        "When events were last committed, seconds since the Unix epoch; 0 if never.";
    BuildInfo: Gauge, "build_info", ["version"],
        "Always 1; the label is the version.";
    EventsReceived: Counter, "events_received_total", ["queue"],
        "Events read from the queue.";
    EventsPersisted: Counter, "events_persisted_total", ["queue", "collection"],
        "Events durable in MongoDB.";
    EventsCoalesced: Counter, "events_coalesced_total", ["queue"],
        "Events folded into a pending update: they cost no write of their own.";
    EventsDeduplicated: Counter, "events_deduplicated_total", ["queue"],
        "Events that needed no write: read again and settled before, or skipped by a route.";
    EventsDeadLettered: Counter, "events_dead_lettered_total", ["queue", "reason"],
        "Events that can never be applied.";
    EventsReleased: Counter, "events_released_total", ["queue"],
        "Events handed back unsettled when the ownership of the queue ended; they are read again.";
    EventsSkipped: Counter, "events_skipped_total", ["queue"],
        "Events that a route skips; they count among the deduplicated.";
    EventsMended: Counter, "events_mended_total", ["queue"],
        "Events with half of a surrogate pair in a text, which became U+FFFD.";
    Writes: Counter, "writes_total", ["collection", "op"],
        "Statements that MongoDB applied. Some updates that made their documents are inserts.";
    Batches: Counter, "batches_total", ["trigger"],
        "Batches sent, by the bound that sent them.";
    Retries: Counter, "retries_total", ["dependency", "class"],
        "Attempts that failed and are made again.";
    Takeovers: Counter, "takeovers_total", ["queue"],
        "Times this instance became the queue's owner.";
    ForeignPops: Counter, "foreign_pops_total", ["queue"],
        "Times another client was found to remove or insert elements, or to replace the stream.";
    ReceiptsPublished: Counter, "receipts_published_total", [],
        "Receipts published.";
    ReceiptsDropped: Counter, "receipts_dropped_total", [],
        "Receipts not published, because Redis was slow or away. Their events are settled all the same.";
    HotStates: Counter, "hot_states_total", ["collection", "outcome"],
        "Writes to documents with a hot state: applied to it, skipped because it had them, or deleting it.";
    BatchSizeEvents: Histogram(EVENTS), "batch_size_events", [],
        "Events that a batch covers.";
    BatchSizeBytes: Histogram(BYTES), "batch_size_bytes", [],
        "Bytes of the updates in a batch.";
    WriteDuration: Histogram(SECONDS), "write_duration_seconds", ["collection"],
        "Time from sending a write command to its reply.";
    EventGap: Histogram(GAPS), "event_gap_seconds", ["queue"],
        "Time from one event of a document to the next, of a sample of documents and outside of backlogs. Above 30 s, and for a first event, 60 s.";
    PersistLatency: Histogram(SECONDS), "persist_latency_seconds", ["queue"],
        "Time from the event until it is durable. Events of one write count with the time of the oldest.";
}

impl Metric {
    /// The bounds of its buckets; none where it is no histogram.
    #[must_use]
    pub(crate) const fn bounds(self) -> &'static [f64] {
        match self.spec().kind {
            Histogram(bounds) => bounds,
            Counter | Gauge => &[],
        }
    }
}

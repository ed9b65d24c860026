//! Lists all metrics: names, types, units, labels, help. Nothing else names one.

use metrics::Unit;

use Metric as M;
use MetricKind::{Counter, Gauge, Histogram};

/// Every metric, without the prefix `tidegate_`. A contract with dashboards and alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is described by its help text")]
pub enum Metric {
    QueueDepth,
    QueueOldestAge,
    BufferEvents,
    BufferBytes,
    BufferMaxEvents,
    BufferMaxBytes,
    PendingEntities,
    DeadLetters,
    HeldBackDocuments,
    ParkedEvents,
    /// `stream_lag`
    StreamLag,
    /// `stream_pending`
    StreamPending,
    Up,
    LeaseHeld,
    Epoch,
    LastCommitTimestamp,
    BuildInfo,
    EventsReceived,
    EventsPersisted,
    EventsCoalesced,
    EventsDeduplicated,
    EventsDeadLettered,
    EventsReleased,
    EventsSkipped,
    EventsMended,
    Writes,
    Batches,
    Retries,
    Takeovers,
    ForeignPops,
    ReceiptsPublished,
    ReceiptsDropped,
    HotStates,
    BatchSizeEvents,
    BatchSizeBytes,
    WriteDuration,
    PersistLatency,
}

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
    #[must_use]
    pub const fn name(self) -> &'static str {
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
    /// The unit, where it has one.
    pub unit: Option<Unit>,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The help text.
    pub help: &'static str,
}

const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
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

impl Metric {
    /// All metrics.
    pub const ALL: [Metric; 37] = [
        M::QueueDepth,
        M::QueueOldestAge,
        M::BufferEvents,
        M::BufferBytes,
        M::BufferMaxEvents,
        M::BufferMaxBytes,
        M::PendingEntities,
        M::DeadLetters,
        M::HeldBackDocuments,
        M::ParkedEvents,
        M::StreamLag,
        M::StreamPending,
        M::Up,
        M::LeaseHeld,
        M::Epoch,
        M::LastCommitTimestamp,
        M::BuildInfo,
        M::EventsReceived,
        M::EventsPersisted,
        M::EventsCoalesced,
        M::EventsDeduplicated,
        M::EventsDeadLettered,
        M::EventsReleased,
        M::EventsSkipped,
        M::EventsMended,
        M::Writes,
        M::Batches,
        M::Retries,
        M::Takeovers,
        M::ForeignPops,
        M::ReceiptsPublished,
        M::ReceiptsDropped,
        M::HotStates,
        M::BatchSizeEvents,
        M::BatchSizeBytes,
        M::WriteDuration,
        M::PersistLatency,
    ];

    /// What there is to say of it.
    #[must_use]
    pub const fn spec(self) -> Spec {
        const QUEUE: &[&str] = &["queue"];
        let (name, kind, unit, labels, help): (_, _, _, &[&str], _) = match self {
            M::QueueDepth => (
                "tidegate_queue_depth",
                Gauge,
                None,
                QUEUE,
                "Events in the queue. Of a list: all elements, settled or not. Of a stream: entries that are not settled.",
            ),
            M::QueueOldestAge => (
                "tidegate_queue_oldest_age_seconds",
                Gauge,
                Some(Unit::Seconds),
                QUEUE,
                "Age of the oldest event that is not settled; 0 if there is none.",
            ),
            M::BufferEvents => (
                "tidegate_buffer_events",
                Gauge,
                None,
                &[],
                "Events read and not settled, all queues together.",
            ),
            M::BufferBytes => (
                "tidegate_buffer_bytes",
                Gauge,
                Some(Unit::Bytes),
                &[],
                "Memory held by events and pending updates.",
            ),
            M::BufferMaxEvents => (
                "tidegate_buffer_max_events",
                Gauge,
                None,
                &[],
                "Bound of `buffer_events`: while it is reached, nothing is read.",
            ),
            M::BufferMaxBytes => (
                "tidegate_buffer_max_bytes",
                Gauge,
                Some(Unit::Bytes),
                &[],
                "Bound of `buffer_bytes`: while it is reached, nothing is read.",
            ),
            M::PendingEntities => (
                "tidegate_pending_entities",
                Gauge,
                None,
                &[],
                "Documents with an update that waits for its batch.",
            ),
            M::DeadLetters => {
                ("tidegate_dead_letters", Gauge, None, QUEUE, "Dead letters in the queue's dead-letter list.")
            }
            M::HeldBackDocuments => (
                "tidegate_held_back_documents",
                Gauge,
                None,
                QUEUE,
                "Documents that wait because MongoDB refuses them for another reason than their content.",
            ),
            M::ParkedEvents => (
                "tidegate_parked_events",
                Gauge,
                None,
                QUEUE,
                "Events of such documents, kept beside the queue so that it goes on without them.",
            ),
            M::StreamLag => (
                "tidegate_stream_lag",
                Gauge,
                None,
                QUEUE,
                "Entries of a stream behind the consumer group's position, so not settled; 0 for a list.",
            ),
            M::StreamPending => (
                "tidegate_stream_pending",
                Gauge,
                None,
                QUEUE,
                "Entries pending in the consumer group of a stream. Others left them, and they are settled first. 0 for a list.",
            ),
            M::Up => ("tidegate_up", Gauge, None, &["dependency"], "Whether the dependency answers: 1 or 0."),
            M::LeaseHeld => {
                ("tidegate_lease_held", Gauge, None, QUEUE, "Whether this instance owns the queue: 1 or 0.")
            }
            M::Epoch => (
                "tidegate_epoch",
                Gauge,
                None,
                QUEUE,
                "Number of the ownership under which this instance last owned the queue.",
            ),
            M::LastCommitTimestamp => (
                "tidegate_last_commit_timestamp_seconds",
                Gauge,
                Some(Unit::Seconds),
                QUEUE,
                "When events were last committed, seconds since the Unix epoch; 0 if never.",
            ),
            M::BuildInfo => {
                ("tidegate_build_info", Gauge, None, &["version"], "Always 1; the label is the version.")
            }
            M::EventsReceived => {
                ("tidegate_events_received_total", Counter, None, QUEUE, "Events read from the queue.")
            }
            M::EventsPersisted => (
                "tidegate_events_persisted_total",
                Counter,
                None,
                &["queue", "collection"],
                "Events durable in MongoDB.",
            ),
            M::EventsCoalesced => (
                "tidegate_events_coalesced_total",
                Counter,
                None,
                QUEUE,
                "Events folded into a pending update: they cost no write of their own.",
            ),
            M::EventsDeduplicated => (
                "tidegate_events_deduplicated_total",
                Counter,
                None,
                QUEUE,
                "Events that needed no write: read again and settled before, or skipped by a route.",
            ),
            M::EventsDeadLettered => (
                "tidegate_events_dead_lettered_total",
                Counter,
                None,
                &["queue", "reason"],
                "Events that can never be applied.",
            ),
            M::EventsReleased => (
                "tidegate_events_released_total",
                Counter,
                None,
                QUEUE,
                "Events handed back unsettled when the ownership of the queue ended; they are read again.",
            ),
            M::EventsSkipped => (
                "tidegate_events_skipped_total",
                Counter,
                None,
                QUEUE,
                "Events that a route skips; they count among the deduplicated.",
            ),
            M::EventsMended => (
                "tidegate_events_mended_total",
                Counter,
                None,
                QUEUE,
                "Events with half of a surrogate pair in a text, which became U+FFFD.",
            ),
            M::Writes => (
                "tidegate_writes_total",
                Counter,
                None,
                &["collection", "op"],
                "Statements that MongoDB applied. Some updates that made their documents are inserts.",
            ),
            M::Batches => (
                "tidegate_batches_total",
                Counter,
                None,
                &["trigger"],
                "Batches sent, by the bound that sent them.",
            ),
            M::Retries => (
                "tidegate_retries_total",
                Counter,
                None,
                &["dependency", "class"],
                "Attempts that failed and are made again.",
            ),
            M::Takeovers => (
                "tidegate_takeovers_total",
                Counter,
                None,
                QUEUE,
                "Times this instance became the queue's owner.",
            ),
            M::ForeignPops => (
                "tidegate_foreign_pops_total",
                Counter,
                None,
                QUEUE,
                "Times another client was found to remove or insert elements, or to replace the stream.",
            ),
            M::ReceiptsPublished => {
                ("tidegate_receipts_published_total", Counter, None, &[], "Receipts published.")
            }
            M::ReceiptsDropped => (
                "tidegate_receipts_dropped_total",
                Counter,
                None,
                &[],
                "Receipts not published, because Redis was slow or away. Their events are settled all the same.",
            ),
            M::HotStates => (
                "tidegate_hot_states_total",
                Counter,
                None,
                &["collection", "outcome"],
                "Writes to documents with a hot state: applied to it, skipped because it had them, or deleting it.",
            ),
            M::BatchSizeEvents => {
                ("tidegate_batch_size_events", Histogram(EVENTS), None, &[], "Events that a batch covers.")
            }
            M::BatchSizeBytes => (
                "tidegate_batch_size_bytes",
                Histogram(BYTES),
                Some(Unit::Bytes),
                &[],
                "Bytes of the updates in a batch.",
            ),
            M::WriteDuration => (
                "tidegate_write_duration_seconds",
                Histogram(SECONDS),
                Some(Unit::Seconds),
                &["collection"],
                "Time from sending a write command to its reply.",
            ),
            M::PersistLatency => (
                "tidegate_persist_latency_seconds",
                Histogram(SECONDS),
                Some(Unit::Seconds),
                QUEUE,
                "Time from the event until it is durable. Events of one write count with the time of the oldest.",
            ),
        };
        Spec { name, kind, unit, labels, help }
    }

    /// The bounds of its buckets; none where it is no histogram.
    #[must_use]
    pub const fn bounds(self) -> &'static [f64] {
        match self.spec().kind {
            Histogram(bounds) => bounds,
            Counter | Gauge => &[],
        }
    }
}

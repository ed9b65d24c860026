//! Holds what an ownership of a queue shares among reader, lanes and committer, from takeover to end.

mod claim;
mod confirmations;
mod letters;
mod parked;
mod pressure;
mod window_size;
mod write_rate;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::claim::{Claim, Claims, Unconfirmed};
pub(crate) use self::confirmations::Confirmations;
pub(crate) use self::letters::Letters;
pub(crate) use self::parked::Parked;
pub(crate) use self::pressure::Pressure;
pub(crate) use self::window_size::WindowSize;
pub(crate) use self::write_rate::WriteRate;
use crate::buffer::Buffer;
use crate::change::Entity;
use crate::coalesce::Segment;
use crate::commit::Tracker;
use crate::config::Config;
use crate::health::Health;
use crate::ledger::{Ledger, Outcome};
use crate::live_settings::LiveSettings;
use crate::mapping::Mapping;
use crate::metrics::{QueueMetrics, WriteMetrics};
use crate::peers::Peers;
use crate::receipts::{Receipts, Teller};
use crate::sink::{COMMAND_BYTES, Guard, Sink, Verdict, Write};
use crate::source::{Redis, Source};
use crate::status::{QueueStatus, Status};
use crate::tail_clock::TailClock;
use crate::trace::Traceparent;

/// What all queues of an instance share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The configuration as of the start.
    pub(crate) config: Config,
    /// Where events come from.
    pub(crate) redis: Redis,
    /// Where they go.
    pub(crate) sink: Sink,
    /// The bound on what is in memory.
    pub(crate) buffer: Arc<Buffer>,
    /// How much of `batch.max_writes_per_second` is used.
    pub(crate) write_rate: Mutex<WriteRate>,
    /// What can change while it runs.
    pub(crate) live: Arc<LiveSettings>,
    /// What entities are hashed with.
    pub(crate) seed: foldhash::quality::RandomState,
    /// Metrics of writing.
    pub(crate) metrics: Arc<WriteMetrics>,
    /// The health of Redis and MongoDB.
    pub(crate) health: Arc<Health>,
    /// For people and probes.
    pub(crate) status: Arc<Status>,
    /// Other instances that share the queues.
    pub(crate) peers: Arc<Peers>,
    /// Where receipts go, if there are any.
    pub(crate) receipts: Option<Receipts>,
    /// The ownerships that MongoDB has on record.
    pub(crate) claims: Claims,
}

/// A queue under one ownership: from takeover until the lease, the connection or the process ends.
#[derive(Debug)]
pub struct Owned {
    /// What all queues share.
    pub(crate) shared: Arc<Shared>,
    /// Where its events are.
    pub(crate) source: Source,
    /// What its events mean, the same from takeover to end.
    pub(crate) mapping: Arc<Mapping>,
    /// Cancelled when what a former owner left is settled.
    pub(crate) recovered: CancellationToken,
    /// The guard that keeps its events from being applied twice, if its delivery asks for one.
    pub(crate) guard: Option<Guard>,
    /// Its account.
    pub(crate) ledger: Arc<Ledger>,
    /// Its metrics.
    pub(crate) metrics: Arc<QueueMetrics>,
    /// Its status.
    pub(crate) status: Arc<QueueStatus>,
    /// Its receipts, if there are any.
    pub(crate) receipts: Option<Teller>,
    /// Who is told of its dead letters.
    pub(crate) letters: Arc<Letters>,
    /// How far it is settled.
    pub(crate) tracker: Mutex<Tracker>,
    /// Notified when something was settled or read.
    pub(crate) progress: Notify,
    /// Notified when something was committed.
    pub(crate) committed: Notify,
    /// Offsets of dead letters recorded and not committed.
    pub(crate) buried: Mutex<BTreeSet<i64>>,
    /// What has to be written though it might wait.
    pub(crate) pressure: Pressure,
    /// Events that wait to be read, as Redis said last.
    pub(crate) unread: AtomicU64,
    /// Notified when something is seen in the queue, and nothing of it was read.
    pub(crate) seen: tokio::sync::Notify,
    /// Events that wait for MongoDB beside the queue.
    pub(crate) parked: Parked,
    /// Whether something was committed, or nothing was left to be.
    pub(crate) got_on: AtomicBool,
    /// When offsets came into being.
    pub(crate) clock: Mutex<TailClock>,
    /// The time that the oldest event held by each lane gives itself.
    pub(crate) held_ts: Mutex<Vec<Option<i64>>>,
    /// Its Redis key.
    pub(crate) key: String,
    /// Its name in MongoDB, under which what is unsettled was read.
    pub(crate) id: String,
    /// Whether the configuration gives it another name by now.
    pub(crate) has_former_id: bool,
    /// What MongoDB knows of this ownership, if its delivery has a guard.
    pub(crate) claim: Option<Arc<Claim>>,
}

impl Owned {
    /// Tries once to apply writes, as [`Sink::write`] does. Large ones take turns: all queues have one bound on memory.
    pub(crate) async fn write(&self, writes: &[Write], ordered: bool) -> Vec<Verdict> {
        let largest = writes.iter().map(|write| write.segment.bytes()).max().unwrap_or(0);
        let _copies = match largest > COMMAND_BYTES {
            true => Some(self.shared.buffer.copies(largest).await),
            false => None,
        };
        self.shared.sink.write(writes, self.guard.as_ref(), ordered).await
    }

    /// Whether all that was read is settled and committed. What a former owner left ends at `left_to`.
    #[must_use]
    pub(crate) fn is_flushed(&self, left_to: i64) -> bool {
        let tracker = self.tracker.lock();
        tracker.is_drained() && (self.recovered.is_cancelled() || tracker.committed_to() >= left_to)
    }

    /// Notes that something was committed, or that nothing is left to be. Redis refuses nothing of this queue any more.
    pub(crate) fn gets_on(&self) {
        self.got_on.store(true, Ordering::Relaxed);
        if self.source.lease().is_some() {
            self.shared.health.redis.takes(&self.key);
        }
    }

    /// Settles a write that is durable, and tells how long its events took.
    pub(crate) fn persisted(&self, write: Write) {
        let events = write.unsettled.events();
        // Events folded into one write count with the latency of the oldest of them.
        let latency = self.age(write.segment.ts, write.segment.first);
        if let Some(latency) = latency {
            self.metrics.persisted_after(latency, events);
        }
        self.log_traces(&write, true);
        write.unsettled.settle(Outcome::Persisted(write.entity.get().collection));
        self.tell_durable(write.entity, write.segment.last, events, latency);
    }

    /// Settles a write that was found to be durable already.
    pub(crate) fn found(&self, write: Write) {
        self.log_traces(&write, false);
        let events = write.unsettled.events();
        write.unsettled.settle(Outcome::Deduplicated);
        // Who wrote it may have ended before it could tell.
        self.tell_durable(write.entity, write.segment.last, events, None);
    }

    /// Sends the receipt for an entity that is durable up to an offset: `events` more than before, after `latency`.
    pub(crate) fn tell_durable(&self, entity: Entity, offset: i64, events: u64, latency: Option<Duration>) {
        if let Some(receipts) = &self.receipts {
            receipts.durable(entity, offset, events, latency);
        }
    }

    fn log_traces(&self, write: &Write, now: bool) {
        let collection = self.mapping.collections.name(write.entity.get().collection);
        log_write(&self.key, collection, &write.segment, now);
    }

    /// How long ago an event came into being: by its own time, or else by an estimate for its offset.
    fn age(&self, ts: Option<i64>, offset: i64) -> Option<Duration> {
        if let Some(age) = ts.or_else(|| self.source.enqueued_ms(offset)).and_then(age_by_clock) {
            return Some(age);
        }
        let at = self.clock.lock().enqueued_at(offset)?;
        Some(Instant::now().into_std().saturating_duration_since(at))
    }

    /// Remembers the queue's tail, unless offsets themselves tell when events came into being.
    pub(crate) fn sample(&self, tail: i64) {
        if self.source.enqueued_ms(tail).is_none() {
            self.clock.lock().sample(tail, std::time::Instant::now());
        }
    }

    /// How long ago the oldest unsettled event came into being, the one at `offset`. Once it was read, its own time
    /// counts. By its offset, an event from before this ownership would look younger.
    pub(crate) fn oldest_age(&self, offset: i64) -> Option<Duration> {
        let ts = self.held_ts.lock().iter().flatten().min().copied();
        ts.and_then(age_by_clock).max(self.age(None, offset))
    }
}

/// How long ago a time was, in milliseconds since the Unix epoch. None if it was years ago: a queue does not hold
/// events for years, so it is something else, such as seconds.
fn age_by_clock(ms: i64) -> Option<Duration> {
    const OLDEST: Duration = Duration::from_secs(365 * 24 * 3600);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let age = now.saturating_sub(Duration::from_millis(u64::try_from(ms).ok()?));
    (age < OLDEST).then_some(age)
}

/// Logs that a write is durable, if it stands for events that are traced; `now` unless it was found to be.
fn log_write(queue: &str, collection: &str, segment: &Segment, now: bool) {
    let Some((count, latest)) = segment.traces.kept() else { return };
    let Segment { first, last, events, .. } = segment;
    let traceparents = latest.iter().map(Traceparent::as_str).collect::<Vec<_>>().join(",");
    let what = if now { "written" } else { "was written before" };
    // People filter by this name.
    tracing::debug!(
        target: "tidegate::trace",
        queue, collection, first, last, events, traced = count, traceparents, "{what}"
    );
}

//! What `/status` and `/readyz` say, field by field, as `docs/status.md` describes it. All of it is filled here; records
//! that are told as they are kept say themselves how.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;
use serde_json::Value;

use super::history::{History, Recent};
use super::lane::{LaneReport, LaneStatus};
use super::summary::Summary;
use super::{Phase, QueueStatus, Status};
use crate::buffer::Buffer;
use crate::config::{Delivery, QueueKind};
use crate::dead_letter::{LetterGroup, RecentDeadLetter};
use crate::format::cut;
use crate::health::{DependencyReport, Trouble};
use crate::metrics::Metric;
use crate::source::PauseNote;

#[derive(Serialize)]
pub(crate) struct Report<'a> {
    version: &'static str,
    instance: &'a str,
    uptime_seconds: u64,
    #[serde(flatten)]
    able: Able,
    summary: Summary,
    receipts_refused: Option<String>,
    buffer: &'a Buffer,
    queues: Vec<QueueReport<'a>>,
    dead_letter_groups: Vec<LetterGroup>,
    latest_dead_letters: Vec<RecentDeadLetter>,
    payloads_shown: bool,
    config: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<HistoryReport>,
}

#[derive(Serialize)]
pub(crate) struct Readiness<'a> {
    #[serde(flatten)]
    able: Able,
    held_back: Vec<HeldBackReport<'a>>,
}

/// What both say.
#[derive(Serialize)]
struct Able {
    ready: bool,
    stopping: bool,
    dependencies: Dependencies,
    troubles: Vec<Trouble>,
}

#[derive(Serialize)]
struct Dependencies {
    redis: DependencyReport,
    mongodb: DependencyReport,
}

#[derive(Serialize)]
struct QueueReport<'a> {
    key: &'a str,
    kind: QueueKind,
    delivery: Delivery,
    phase: Phase,
    phase_seconds: u64,
    obstacle: Option<String>,
    pause: Option<PauseNote>,
    epoch: i64,
    owner: Option<String>,
    instances: BTreeSet<String>,
    depth: u64,
    oldest_age_seconds: f64,
    window_seconds: f64,
    held: u64,
    held_back: Vec<HeldBackReport<'a>>,
    committed: i64,
    last_commit_seconds_ago: Option<f64>,
    dead_letters: u64,
    dead_letter_list: &'a str,
    totals: Totals,
    recent: RecentReport,
    lanes: Vec<LaneReport>,
}

#[derive(Serialize)]
struct HeldBackReport<'a> {
    queue: &'a str,
    collection: String,
    documents: usize,
    events: u64,
    for_seconds: u64,
    error: String,
}

#[derive(Serialize)]
struct Totals {
    arrived: u64,
    received: u64,
    persisted: u64,
    coalesced: u64,
    deduplicated: u64,
    dead_lettered: u64,
    released: u64,
    foreign_pops: u64,
}

#[derive(Serialize)]
struct RecentReport {
    seconds: f64,
    arrived_per_second: f64,
    received_per_second: f64,
    settled_per_second: f64,
    events_per_write: Option<f64>,
    durable_within: DurableWithin,
}

#[derive(Serialize)]
struct DurableWithin {
    half: Option<Within>,
    p99: Option<Within>,
    all: Option<Within>,
}

#[derive(Serialize)]
struct Within {
    /// JSON has no infinity: what is beyond all bounds becomes null.
    seconds: f64,
}

#[derive(Serialize)]
struct HistoryReport {
    next: u64,
    columns: [&'static str; 6],
    looks: Vec<LookReport>,
}

#[derive(Serialize)]
struct LookReport {
    at: f64,
    queues: Vec<[u64; 6]>,
}

impl Status {
    /// What `/status` says; with the history, from look number `since` on, if one is given.
    pub(crate) fn report(&self, since: Option<u64>) -> Report<'_> {
        let history = self.history.lock();
        let recent: Vec<Recent> = (0..self.queues.len()).map(|queue| history.recent(queue)).collect();
        let looks = since.map(|since| HistoryReport::new(&history, since));
        drop(history);
        Report {
            version: env!("CARGO_PKG_VERSION"),
            instance: &self.instance,
            uptime_seconds: self.started.elapsed().as_secs(),
            able: self.able(),
            summary: self.summary(&recent),
            receipts_refused: self.receipts_refused.lock().clone(),
            buffer: &self.buffer,
            queues: self.queues.iter().zip(&recent).map(|(queue, recent)| queue.report(recent)).collect(),
            dead_letter_groups: self.letters.groups(),
            latest_dead_letters: self.letters.latest(),
            payloads_shown: self.show_payloads,
            config: self.config.lock().0.clone(),
            history: looks,
        }
    }

    /// What `/readyz` says.
    pub(crate) fn readiness(&self) -> Readiness<'_> {
        let held_back = self.queues.iter().flat_map(|queue| queue.held_back_report()).collect();
        Readiness { able: self.able(), held_back }
    }

    fn able(&self) -> Able {
        Able {
            ready: self.is_ready(),
            stopping: self.is_stopping(),
            dependencies: Dependencies {
                redis: self.health.redis.report(),
                mongodb: self.health.mongodb.report(),
            },
            troubles: self.health.troubles.all(),
        }
    }
}

impl QueueStatus {
    fn report(&self, recent: &Recent) -> QueueReport<'_> {
        let (phase, since) = self.phase();
        let members = self.members.lock().clone();
        let metrics = &self.metrics;
        let within = |share| {
            let seconds = recent.within(share, Metric::PersistLatency.bounds())?;
            Some(Within { seconds })
        };
        QueueReport {
            key: &self.key,
            kind: self.kind,
            delivery: self.delivery,
            phase,
            phase_seconds: since.as_secs(),
            obstacle: self.obstacle.lock().as_ref().map(|obstacle| obstacle.text.clone()),
            pause: self.paused.lock().clone(),
            epoch: self.epoch.load(Relaxed),
            owner: members.holder,
            instances: members.instances,
            depth: self.depth.load(Relaxed),
            oldest_age_seconds: self.oldest_age().as_secs_f64(),
            window_seconds: self.window().as_secs_f64(),
            held: self.held(),
            held_back: self.held_back_report(),
            committed: self.committed.load(Relaxed),
            last_commit_seconds_ago: self.last_commit.lock().map(|at| at.elapsed().as_secs_f64()),
            dead_letters: self.dead_letters.load(Relaxed),
            dead_letter_list: &self.dead_list,
            totals: Totals {
                arrived: self.arrived.load(Relaxed),
                received: metrics.received.total(),
                persisted: metrics.persisted_total(),
                coalesced: metrics.coalesced.total(),
                deduplicated: metrics.deduplicated.total(),
                dead_lettered: metrics.dead_lettered_total(),
                released: metrics.released.total(),
                foreign_pops: metrics.foreign_pops.total(),
            },
            recent: RecentReport {
                seconds: recent.seconds,
                arrived_per_second: recent.per_second(recent.arrived),
                received_per_second: recent.per_second(recent.received),
                settled_per_second: recent.per_second(recent.settled),
                events_per_write: recent.events_per_write(),
                durable_within: DurableWithin { half: within(0.5), p99: within(0.99), all: within(1.0) },
            },
            lanes: self.lanes.iter().map(LaneStatus::now).collect(),
        }
    }

    fn held_back_report(&self) -> Vec<HeldBackReport<'_>> {
        let held_back = self.held_back_by_collection().into_values().map(|held| HeldBackReport {
            queue: &self.key,
            collection: held.collection.to_string(),
            documents: held.documents,
            events: held.events,
            for_seconds: held.since.elapsed().as_secs(),
            error: cut(&held.error, 500),
        });
        held_back.collect()
    }
}

impl HistoryReport {
    fn new(history: &History, since: u64) -> Self {
        let looks = history.since(since).map(|look| LookReport {
            at: look.at.as_secs_f64(),
            queues: (look.figures.iter())
                .map(|f| [f.arrived, f.received, f.settled, f.coalesced, f.depth, f.age_ms])
                .collect(),
        });
        HistoryReport {
            next: history.next(),
            columns: ["arrived", "received", "settled", "coalesced", "depth", "age_ms"],
            looks: looks.collect(),
        }
    }
}

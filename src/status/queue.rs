//! Tracks what an instance does with a queue, and how far it is.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::history::{Figures, Recent};
use super::lane::{HeldBack, LaneStatus};
use super::summary::{self, QueueFacts};
use crate::config::{self, Delivery, QueueKind};
use crate::metrics::{Metric, QueueMetrics};
use crate::source::{Depth, Instances, Interference, PauseNote};

/// What an instance does with a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// It has no connection, or waits to try again.
    Connecting,
    /// Another instance owns the queue.
    Standby,
    /// A person has paused the queue: no instance owns it.
    Paused,
    /// It settles what a former owner left.
    Recovering,
    /// It drains the queue.
    Active,
    /// It flushes, and reads no more.
    Draining,
    /// It is done.
    Stopped,
}

/// What keeps a queue from being drained until somebody decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// What is the case.
    pub(crate) text: String,
    /// What is to be done.
    pub(crate) advice: &'static str,
}

/// What other clients were found to do to a queue.
#[derive(Debug, Default)]
struct Meddled {
    last: Option<Interference>,
    told: Option<Instant>,
    untold: u64,
}

/// Between two lines of the log about other clients that go on meddling with a queue.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// The state of a queue.
#[derive(Debug)]
pub(crate) struct QueueStatus {
    /// Its lanes.
    pub(crate) lanes: Vec<LaneStatus>,
    pub(super) key: String,
    pub(super) kind: QueueKind,
    pub(super) delivery: Delivery,
    pub(super) dead_list: String,
    pub(super) metrics: Arc<QueueMetrics>,
    phase: Mutex<(Phase, Instant)>,
    pub(super) obstacle: Mutex<Option<Obstacle>>,
    pub(super) paused: Mutex<Option<PauseNote>>,
    pub(super) epoch: AtomicI64,
    pub(super) committed: AtomicI64,
    pub(super) last_commit: Mutex<Option<Instant>>,
    pub(super) depth: AtomicU64,
    pub(super) dead_letters: AtomicU64,
    oldest_age: Mutex<Duration>,
    window: Mutex<Duration>,
    pub(super) members: Mutex<Instances>,
    meddling: Mutex<Meddled>,
    /// The tail seen last under the present numbering.
    tail: Mutex<Option<i64>>,
    pub(super) arrived: AtomicU64,
}

impl QueueStatus {
    pub(super) fn new(
        queue: &config::Queue,
        config: &config::Config,
        metrics: &Arc<QueueMetrics>,
    ) -> Arc<Self> {
        Arc::new(QueueStatus {
            lanes: (0..config.lanes.count).map(|_| LaneStatus::default()).collect(),
            key: queue.key.clone(),
            kind: queue.kind,
            delivery: queue.delivery,
            dead_list: config.keys_of(&queue.key).dead_list,
            metrics: Arc::clone(metrics),
            phase: Mutex::new((Phase::Connecting, Instant::now())),
            obstacle: Mutex::new(None),
            paused: Mutex::new(None),
            epoch: AtomicI64::new(0),
            committed: AtomicI64::new(0),
            last_commit: Mutex::new(None),
            depth: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            oldest_age: Mutex::new(Duration::ZERO),
            window: Mutex::new(Duration::ZERO),
            members: Mutex::default(),
            meddling: Mutex::default(),
            tail: Mutex::new(None),
            arrived: AtomicU64::new(0),
        })
    }

    /// What the instance does with the queue now.
    pub(crate) fn set_phase(&self, phase: Phase) {
        let mut known = self.phase.lock();
        if known.0 != phase {
            *known = (phase, Instant::now());
        }
        drop(known);
        self.metrics.lease_held.set(f64::from(u8::from(self.is_held())));
    }

    /// What keeps the queue from being drained, if anything does. Answers whether that is news.
    pub(crate) fn set_obstacle(&self, obstacle: Option<Obstacle>) -> bool {
        let mut known = self.obstacle.lock();
        let news = *known != obstacle;
        *known = obstacle;
        news
    }

    /// A person has paused the queue, or nobody has. Answers whether that is news.
    pub(crate) fn set_paused(&self, note: Option<PauseNote>) -> bool {
        self.metrics.paused.set(f64::from(u8::from(note.is_some())));
        let mut known = self.paused.lock();
        let news = *known != note;
        *known = note;
        news
    }

    /// Whether something keeps it from being drained.
    pub(super) fn is_obstructed(&self) -> bool {
        self.obstacle.lock().is_some()
    }

    /// Whether this instance owns the queue.
    #[must_use]
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.phase().0, Phase::Recovering | Phase::Active | Phase::Draining)
    }

    /// Another client was found to meddle with the queue. Answers how often since it was told last, if it is to be told now:
    /// while it goes on, once a minute is enough.
    pub(crate) fn meddled(&self, meddling: Interference) -> Option<u64> {
        let mut known = self.meddling.lock();
        let is_news = known.last.replace(meddling).map(|last| std::mem::discriminant(&last))
            != Some(std::mem::discriminant(&meddling));
        known.untold += 1;
        if !is_news && known.told.is_some_and(|told| told.elapsed() < TOLD_AGAIN) {
            return None;
        }
        known.told = Some(Instant::now());
        Some(std::mem::take(&mut known.untold))
    }

    /// Who drains the queue, and who owns it.
    pub(crate) fn set_members(&self, members: Instances) {
        *self.members.lock() = members;
    }

    /// What the instance does, and for how long it has.
    pub(super) fn phase(&self) -> (Phase, Duration) {
        let (phase, since) = *self.phase.lock();
        (phase, since.elapsed())
    }

    /// The number of the ownership.
    pub(crate) fn set_epoch(&self, epoch: i64) {
        self.epoch.store(epoch, Ordering::Relaxed);
        self.metrics.epoch.set(epoch as f64);
    }

    /// Elements in the queue.
    pub(crate) fn set_depth(&self, elements: u64) {
        self.depth.store(elements, Ordering::Relaxed);
        self.metrics.depth.set(elements as f64);
    }

    /// The queue as its owner sees it: how much is there, and how far its numbers go.
    pub(crate) fn saw(&self, depth: Depth) {
        self.set_depth(depth.elements);
        // Of some streams it is not known for a while.
        if depth.tail < 0 {
            return;
        }
        let mut tail = self.tail.lock();
        if let Some(tail) = *tail {
            let more = u64::try_from(depth.tail.saturating_sub(tail)).unwrap_or(0);
            self.arrived.fetch_add(more, Ordering::Relaxed);
        }
        *tail = Some(tail.map_or(depth.tail, |tail| tail.max(depth.tail)));
    }

    /// What is in the queue gets other numbers from now on. It did not arrive just now.
    pub(crate) fn renumbered(&self) {
        *self.tail.lock() = None;
    }

    /// Everything below this offset was committed just now.
    pub(crate) fn set_committed(&self, offset: i64) {
        self.committed.store(offset, Ordering::Relaxed);
        *self.last_commit.lock() = Some(Instant::now());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.metrics.last_commit.set(now.as_secs_f64());
    }

    /// How many dead letters are in its list.
    #[must_use]
    pub(crate) fn dead_letters(&self) -> u64 {
        self.dead_letters.load(Ordering::Relaxed)
    }

    /// Dead letters in their list.
    pub(crate) fn set_dead_letters(&self, letters: u64) {
        self.dead_letters.store(letters, Ordering::Relaxed);
        self.metrics.dead_letters.set(letters as f64);
    }

    /// What a lane holds back, since MongoDB refuses to write it for something else than its content.
    pub(crate) fn holds_back(&self, lane: usize, held_back: Vec<HeldBack>) {
        self.lanes[lane].holds_back(held_back);
        self.metrics.held_back.set(self.held_back().map(|held| held.documents).sum::<usize>() as f64);
    }

    fn held_back(&self) -> impl Iterator<Item = HeldBack> {
        self.lanes.iter().flat_map(LaneStatus::held_back)
    }

    /// Documents that are held back.
    #[must_use]
    pub(crate) fn held_back_documents(&self) -> usize {
        self.held_back().map(|held| held.documents).sum()
    }

    /// For how long something has been held back.
    pub(super) fn held_back_for(&self) -> Duration {
        self.held_back().map(|held| held.since.elapsed()).max().unwrap_or_default()
    }

    /// What is held back, by collection.
    pub(super) fn held_back_by_collection(&self) -> BTreeMap<Arc<str>, HeldBack> {
        let mut by_collection: BTreeMap<Arc<str>, HeldBack> = BTreeMap::new();
        for held in self.held_back() {
            match by_collection.entry(Arc::clone(&held.collection)) {
                Entry::Vacant(entry) => drop(entry.insert(held)),
                Entry::Occupied(mut entry) => {
                    let all = entry.get_mut();
                    all.documents += held.documents;
                    all.events += held.events;
                    all.since = all.since.min(held.since);
                }
            }
        }
        by_collection
    }

    /// Age of the oldest event that is not settled.
    pub(crate) fn set_oldest_age(&self, age: Duration) {
        *self.oldest_age.lock() = age;
        self.metrics.oldest_age.set(age.as_secs_f64());
    }

    /// Age of the oldest event that is not settled, as it was told last.
    pub(super) fn oldest_age(&self) -> Duration {
        *self.oldest_age.lock()
    }

    /// The longest that a change may wait for company.
    pub(crate) fn set_window(&self, window: Duration) {
        *self.window.lock() = window;
        self.metrics.window.set(window.as_secs_f64());
    }

    /// The longest that a change may wait for company, as it was told last.
    pub(super) fn window(&self) -> Duration {
        *self.window.lock()
    }

    /// Events read and not settled.
    pub(super) fn held(&self) -> u64 {
        let metrics = &self.metrics;
        // What is settled is read first, so that the difference is none too small.
        let gone = self.settled() + metrics.released.total();
        metrics.received.total().saturating_sub(gone)
    }

    fn settled(&self) -> u64 {
        let metrics = &self.metrics;
        metrics.persisted_total() + metrics.deduplicated.total() + metrics.dead_lettered_total()
    }

    pub(super) fn figures(&self) -> Figures {
        Figures {
            arrived: self.arrived.load(Ordering::Relaxed),
            received: self.metrics.received.total(),
            settled: self.settled(),
            coalesced: self.metrics.coalesced.total(),
            dead: self.metrics.dead_lettered_total(),
            depth: self.depth.load(Ordering::Relaxed),
            age_ms: u64::try_from(self.oldest_age().as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub(super) fn facts(&self, recent: &Recent) -> QueueFacts {
        let (phase, phase_for) = self.phase();
        QueueFacts {
            key: self.key.clone(),
            at_most_once: self.delivery == Delivery::AtMostOnce,
            phase,
            phase_for,
            obstacle: self.obstacle.lock().clone(),
            paused: self.paused.lock().clone(),
            depth: self.depth.load(Ordering::Relaxed),
            held: self.held(),
            oldest_age: self.oldest_age(),
            window: self.window(),
            arrived_per_second: recent.per_second(recent.arrived),
            settled_per_second: recent.per_second(recent.settled),
            durable_within: recent.within(1.0, Metric::PersistLatency.bounds()),
            foreign_pops: self.metrics.foreign_pops.total(),
            meddling: self
                .meddling
                .lock()
                .last
                .map(|last| summary::Meddling { text: last.text(), advice: last.advice() }),
            lanes: self.lanes.len(),
            lanes_limited: self.lanes.iter().filter(|lane| lane.waits_for_bound()).count(),
            lanes_writing: self.lanes.iter().filter(|lane| lane.is_writing()).count(),
            retrying: self.lanes.iter().filter_map(LaneStatus::retrying).max(),
            held_back: self.held_back_by_collection().into_values().max_by_key(|held| held.documents),
        }
    }
}

//! The state of an instance, for people and probes. Changes of state are logged here, once each.

#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use metrics::Gauge;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

#[cfg(test)]
pub(crate) use self::tests::Lines;
use crate::buffer::Buffer;
use crate::config::{Config, Delivery};
use crate::metrics::{Metric, QueueMetrics, gauge};
use crate::source::Members;

/// The state of an instance.
#[derive(Debug)]
pub struct Status {
    /// Redis.
    pub redis: Dependency,
    /// MongoDB.
    pub mongodb: Dependency,
    /// The queues, in the order of the configuration.
    pub queues: Vec<Arc<QueueStatus>>,
    instance: String,
    buffer: Arc<Buffer>,
    started: Instant,
    stopping: AtomicBool,
    config: Value,
}

impl Status {
    /// The state at the start.
    #[must_use]
    pub fn new(
        config: &Config,
        instance: &str,
        buffer: Arc<Buffer>,
        metrics: &[Arc<QueueMetrics>],
    ) -> Arc<Self> {
        let queue = |(queue, metrics): (&crate::config::Queue, &Arc<QueueMetrics>)| {
            Arc::new(QueueStatus {
                key: queue.key.clone(),
                delivery: queue.delivery,
                metrics: Arc::clone(metrics),
                phase: Mutex::new(Phase::Connecting),
                epoch: AtomicI64::new(0),
                committed: AtomicI64::new(0),
                depth: AtomicU64::new(0),
                dead_letters: AtomicU64::new(0),
                oldest_age: Mutex::new(Duration::ZERO),
                members: Mutex::default(),
            })
        };
        Arc::new(Status {
            redis: Dependency::new("redis"),
            mongodb: Dependency::new("mongodb"),
            queues: config.queues.iter().zip(metrics).map(queue).collect(),
            instance: instance.to_owned(),
            buffer,
            started: Instant::now(),
            stopping: AtomicBool::new(false),
            // Secrets serialize hidden.
            config: serde_json::to_value(config).unwrap_or_default(),
        })
    }

    /// The instance is about to end.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the instance can do its work: its dependencies answer and it is not ending.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.redis.is_up() && self.mongodb.is_up() && !self.stopping.load(Ordering::Relaxed)
    }

    /// What `/readyz` says.
    #[must_use]
    pub fn readiness(&self) -> Value {
        json!({
            "ready": self.is_ready(),
            "stopping": self.stopping.load(Ordering::Relaxed),
            "dependencies": { "redis": self.redis.to_json(), "mongodb": self.mongodb.to_json() },
        })
    }

    /// What `/status` says.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "instance": self.instance,
            "uptime_seconds": self.started.elapsed().as_secs(),
            "ready": self.is_ready(),
            "dependencies": { "redis": self.redis.to_json(), "mongodb": self.mongodb.to_json() },
            "buffer": { "events": self.buffer.events(), "bytes": self.buffer.bytes() },
            "queues": self.queues.iter().map(|queue| queue.to_json()).collect::<Vec<_>>(),
            "config": self.config,
        })
    }
}

/// Something that an instance cannot do without.
pub struct Dependency {
    name: &'static str,
    /// Whether `state` says "up": the common question, answered without its lock.
    up: AtomicBool,
    state: Mutex<State>,
    back: Notify,
    gauge: Gauge,
}

impl std::fmt::Debug for Dependency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dependency").field("name", &self.name).field("up", &self.up).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum State {
    Unknown,
    Up { since: Instant },
    Down { since: Instant, error: String },
}

impl Dependency {
    fn new(name: &'static str) -> Self {
        Dependency {
            name,
            up: AtomicBool::new(false),
            state: Mutex::new(State::Unknown),
            back: Notify::new(),
            gauge: gauge(Metric::Up, &[("dependency", name)]),
        }
    }

    /// It answers.
    pub fn up(&self) {
        if self.up.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state.lock();
        match &*state {
            State::Up { .. } => return,
            State::Unknown => tracing::info!("{} is reached", self.name),
            State::Down { since, .. } => {
                tracing::info!("{} is back after {:.1} s", self.name, since.elapsed().as_secs_f64());
            }
        }
        *state = State::Up { since: Instant::now() };
        self.up.store(true, Ordering::Relaxed);
        self.gauge.set(1.0);
        self.back.notify_waiters();
    }

    /// It does not answer, or not well. Of an outage, only the first error is logged.
    pub fn down(&self, error: &dyn Display) {
        let mut state = self.state.lock();
        let since = match &*state {
            State::Down { since, .. } => *since,
            State::Unknown | State::Up { .. } => {
                tracing::warn!("{} is down: {error}; trying again until it is back", self.name);
                Instant::now()
            }
        };
        *state = State::Down { since, error: error.to_string() };
        self.up.store(false, Ordering::Relaxed);
        self.gauge.set(0.0);
    }

    /// Waits that long, or until it is back after an outage.
    pub async fn back_or(&self, wait: Duration) {
        // The limit is the one way out that is no news.
        let _ = tokio::time::timeout(wait, self.back.notified()).await;
    }

    /// Whether it answered last time.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    fn to_json(&self) -> Value {
        match &*self.state.lock() {
            State::Unknown => json!({ "state": "unknown" }),
            State::Up { since } => json!({ "state": "up", "for_seconds": since.elapsed().as_secs() }),
            State::Down { since, error } => {
                json!({ "state": "down", "for_seconds": since.elapsed().as_secs(), "error": error })
            }
        }
    }
}

/// What an instance does with a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It has no connection, or waits to try again.
    Connecting,
    /// Another instance owns the queue.
    Standby,
    /// It settles what a former owner left.
    Recovering,
    /// It drains the queue.
    Active,
    /// It flushes, and reads no more.
    Draining,
    /// It is done.
    Stopped,
}

/// The state of a queue.
#[derive(Debug)]
pub struct QueueStatus {
    key: String,
    delivery: Delivery,
    metrics: Arc<QueueMetrics>,
    phase: Mutex<Phase>,
    epoch: AtomicI64,
    committed: AtomicI64,
    depth: AtomicU64,
    dead_letters: AtomicU64,
    oldest_age: Mutex<Duration>,
    members: Mutex<Members>,
}

impl QueueStatus {
    /// What the instance does with the queue now.
    pub fn set_phase(&self, phase: Phase) {
        *self.phase.lock() = phase;
        self.metrics.lease_held.set(f64::from(u8::from(self.is_held())));
    }

    /// Whether this instance owns the queue.
    #[must_use]
    pub fn is_held(&self) -> bool {
        matches!(*self.phase.lock(), Phase::Recovering | Phase::Active | Phase::Draining)
    }

    /// Who drains the queue, and who owns it.
    pub fn set_members(&self, members: Members) {
        *self.members.lock() = members;
    }

    /// The number of the ownership.
    pub fn set_epoch(&self, epoch: i64) {
        self.epoch.store(epoch, Ordering::Relaxed);
        self.metrics.epoch.set(epoch as f64);
    }

    /// Elements in the queue.
    pub fn set_depth(&self, elements: u64) {
        self.depth.store(elements, Ordering::Relaxed);
        self.metrics.depth.set(elements as f64);
    }

    /// Everything below this offset was committed just now.
    pub fn set_committed(&self, offset: i64) {
        self.committed.store(offset, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.metrics.last_commit.set(now.as_secs_f64());
    }

    /// Dead letters in their list.
    pub fn set_dead_letters(&self, letters: u64) {
        self.dead_letters.store(letters, Ordering::Relaxed);
        self.metrics.dead_letters.set(letters as f64);
    }

    /// Age of the oldest event that is not settled.
    pub fn set_oldest_age(&self, age: Duration) {
        *self.oldest_age.lock() = age;
        self.metrics.oldest_age.set(age.as_secs_f64());
    }

    fn to_json(&self) -> Value {
        let members = self.members.lock();
        json!({
            "key": self.key,
            "delivery": self.delivery,
            "phase": *self.phase.lock(),
            "epoch": self.epoch.load(Ordering::Relaxed),
            "owner": members.holder,
            "instances": members.instances,
            "depth": self.depth.load(Ordering::Relaxed),
            "oldest_age_seconds": self.oldest_age.lock().as_secs_f64(),
            "committed": self.committed.load(Ordering::Relaxed),
            "dead_letters": self.dead_letters.load(Ordering::Relaxed),
        })
    }
}

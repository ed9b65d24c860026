//! Redis and MongoDB, as the instance finds them.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use metrics::Gauge;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::cut;
use crate::metrics::{Metric, gauge};

/// Bytes of an error that are kept.
const ERROR: usize = 500;

/// Something that an instance cannot do without.
pub struct Dependency {
    name: &'static str,
    /// Whether `state` says "up": the common question, answered without its lock.
    up: AtomicBool,
    state: Mutex<Known>,
    back: Notify,
    gauge: Gauge,
}

impl std::fmt::Debug for Dependency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dependency").field("name", &self.name).field("up", &self.up).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Known {
    state: State,
    /// The outage before the present state.
    past: Option<Outage>,
}

#[derive(Debug)]
struct Outage {
    error: String,
    ended: Instant,
    lasted: Duration,
}

#[derive(Debug)]
enum State {
    Unknown,
    Up { since: Instant },
    Down { since: Instant, error: String },
}

/// How a dependency is now.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Health {
    /// It was not asked yet.
    Unknown,
    /// It has answered for so long.
    Up(Duration),
    /// It does not, for so long, for this reason.
    Down(Duration, String),
}

impl Dependency {
    pub(super) fn new(name: &'static str) -> Self {
        Dependency {
            name,
            up: AtomicBool::new(false),
            state: Mutex::new(Known { state: State::Unknown, past: None }),
            back: Notify::new(),
            gauge: gauge(Metric::Up, &[("dependency", name)]),
        }
    }

    /// It answers.
    pub fn up(&self) {
        if self.up.load(Ordering::Relaxed) {
            return;
        }
        let mut known = self.state.lock();
        match &known.state {
            State::Up { .. } => return,
            State::Unknown => tracing::info!("{} is reached", self.name),
            State::Down { since, error } => {
                let lasted = since.elapsed();
                tracing::info!("{} is back after {:.1} s", self.name, lasted.as_secs_f64());
                let error = error.clone();
                known.past = Some(Outage { error, ended: Instant::now(), lasted });
            }
        }
        known.state = State::Up { since: Instant::now() };
        self.up.store(true, Ordering::Relaxed);
        self.gauge.set(1.0);
        self.back.notify_waiters();
    }

    /// It does not answer, or not well. Of an outage, only the first error is logged.
    pub fn down(&self, error: &dyn Display) {
        let mut known = self.state.lock();
        let since = match &known.state {
            State::Down { since, .. } => *since,
            State::Unknown | State::Up { .. } => {
                tracing::warn!("{} is down: {error}; trying again until it is back", self.name);
                Instant::now()
            }
        };
        known.state = State::Down { since, error: error.to_string() };
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

    pub(super) fn health(&self) -> Health {
        match &self.state.lock().state {
            State::Unknown => Health::Unknown,
            State::Up { since } => Health::Up(since.elapsed()),
            State::Down { since, error } => Health::Down(since.elapsed(), cut(error, ERROR)),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let known = self.state.lock();
        let mut shown = match &known.state {
            State::Unknown => json!({ "state": "unknown" }),
            State::Up { since } => json!({ "state": "up", "for_seconds": since.elapsed().as_secs() }),
            State::Down { since, error } => {
                let error = cut(error, ERROR);
                json!({ "state": "down", "for_seconds": since.elapsed().as_secs(), "error": error })
            }
        };
        if let Some(past) = &known.past {
            shown["last_outage"] = json!({
                "error": cut(&past.error, ERROR),
                "ended_seconds_ago": past.ended.elapsed().as_secs(),
                "lasted_seconds": past.lasted.as_secs_f64(),
            });
        }
        shown
    }
}

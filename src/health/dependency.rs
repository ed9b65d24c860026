//! Tracks whether a server that an instance depends on answers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use metrics::Gauge;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, watch};

use super::seconds_since;
use crate::format::cut;
use crate::metrics::{Metric, gauge};
use crate::retry::Backoff;

/// Reasons of one outage that are logged.
const REASONS: usize = 8;

/// Bytes of an error that are kept.
const ERROR: usize = 500;

/// Something that an instance cannot do without.
pub(crate) struct Dependency {
    name: &'static str,
    /// Whether `state` says "up": the common question, answered without its lock.
    up: AtomicBool,
    /// It ever was.
    answered: AtomicBool,
    state: Mutex<Observed>,
    back: Notify,
    gauge: Gauge,
    /// It could not be asked last time, be it to refuse.
    away: watch::Sender<bool>,
    /// The last attempt to write failed: that it answers a ping is not enough then.
    writes_fail: AtomicBool,
}

impl std::fmt::Debug for Dependency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dependency").field("name", &self.name).field("up", &self.up).finish_non_exhaustive()
    }
}

/// Attempts at one thing that a dependency has to do.
pub(crate) struct Attempts {
    dependency: Arc<Dependency>,
    backoff: Backoff,
}

impl Attempts {
    /// Waits before the next attempt: longer each time, or until the dependency is back after an outage.
    pub(crate) async fn pause(&mut self) {
        self.pause_at_most(Duration::MAX).await;
    }

    /// [`pause`](Self::pause), and not longer than that.
    pub(crate) async fn pause_at_most(&mut self, longest: Duration) {
        let wait = self.backoff.wait().min(longest);
        // The limit is the one way out that is no news.
        let _ = tokio::time::timeout(wait, self.dependency.back.notified()).await;
    }

    /// The last one did it: the next failure is a first one.
    pub(crate) fn succeeded(&mut self) {
        self.backoff.reset();
    }
}

#[derive(Debug)]
struct Observed {
    state: Availability,
    /// What it does not do though it, or another part of it, answers.
    refused: BTreeMap<String, Failure>,
    /// What of that was logged in this outage.
    told: BTreeSet<String>,
    /// The outage before the present state.
    past: Option<Outage>,
}

/// What is said of something that is not done, and whether a server said it.
#[derive(Debug, Clone)]
struct Failure {
    error: String,
    refuses: bool,
}

#[derive(Debug, Clone, Serialize)]
struct Outage {
    error: String,
    #[serde(rename = "ended_seconds_ago", serialize_with = "seconds_since")]
    ended: Instant,
    lasted_seconds: f64,
}

/// What `/status` says of a dependency.
#[derive(Debug, Serialize)]
pub(crate) struct DependencyReport {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    for_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_outage: Option<Outage>,
}

#[derive(Debug)]
enum Availability {
    Unknown,
    Up {
        since: Instant,
    },
    /// Whether it `refuses` now, and whether it `refused` at first.
    Down {
        since: Instant,
        error: String,
        refuses: bool,
        refused: bool,
    },
}

/// How a dependency is now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DependencyState {
    /// It was not asked yet.
    Unknown,
    /// It has answered for so long.
    Up(Duration),
    /// It does not, for so long, for this reason.
    Down(Duration, String),
    /// It answers, and has not done what it was asked for so long, for this reason.
    Refuses(Duration, String),
}

impl Dependency {
    /// Nothing is known of it yet.
    #[must_use]
    pub(crate) fn new(name: &'static str) -> Self {
        Dependency {
            name,
            up: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            state: Mutex::new(Observed {
                state: Availability::Unknown,
                refused: BTreeMap::new(),
                told: BTreeSet::new(),
                past: None,
            }),
            back: Notify::new(),
            gauge: gauge(Metric::Up, &[("dependency", name)]),
            away: watch::Sender::new(false),
            writes_fail: AtomicBool::new(false),
        }
    }

    /// It answers.
    pub(crate) fn up(&self) {
        if self.up.load(Ordering::Relaxed) {
            return;
        }
        self.is_up_again(&mut self.state.lock());
    }

    fn is_up_again(&self, known: &mut Observed) {
        // That it answers something is no news while it refuses something else.
        if let Some(failure) = known.refused.values().next() {
            if let Availability::Down { error, refuses, .. } = &mut known.state {
                (*error, *refuses) = (failure.error.clone(), failure.refuses);
            }
            return;
        }
        match &known.state {
            Availability::Up { .. } => return,
            Availability::Unknown => tracing::info!("{} is reached", self.name),
            Availability::Down { since, error, refused, .. } => {
                let lasted_seconds = since.elapsed().as_secs_f64();
                let what = if *refused { "refuses no more, after" } else { "is back after" };
                tracing::info!("{} {what} {lasted_seconds:.1} s", self.name);
                let error = cut(error, ERROR);
                known.past = Some(Outage { error, ended: Instant::now(), lasted_seconds });
            }
        }
        known.state = Availability::Up { since: Instant::now() };
        known.told.clear();
        self.up.store(true, Ordering::Relaxed);
        self.answered.store(true, Ordering::Relaxed);
        self.gauge.set(1.0);
        self.back.notify_waiters();
    }

    /// It does not answer, or not well. Of an outage, only the first error is logged.
    pub(crate) fn down(&self, error: &dyn Display) {
        self.is_down(&mut self.state.lock(), error, false);
    }

    /// It answers, and does not do what `what` asks of it. That is one state until it [takes](Self::takes) all that it
    /// refused, whatever else it does meanwhile.
    pub(crate) fn refuses(&self, what: &str, error: &dyn Display) {
        self.fails(what, error, true);
    }

    /// The part of it that `what` needs does not answer, whatever others do. That is one state with what is
    /// [refused](Self::refuses).
    pub(crate) fn lacks(&self, what: &str, error: &dyn Display) {
        self.fails(what, error, false);
    }

    fn fails(&self, what: &str, error: &dyn Display, refuses: bool) {
        let mut known = self.state.lock();
        known.refused.insert(what.to_owned(), Failure { error: error.to_string(), refuses });
        self.is_down(&mut known, error, refuses);
    }

    /// It does what `what` asks of it.
    pub(crate) fn takes(&self, what: &str) {
        if self.up.load(Ordering::Relaxed) {
            return;
        }
        let mut known = self.state.lock();
        if known.refused.remove(what).is_some() {
            self.is_up_again(&mut known);
        }
    }

    fn is_down(&self, known: &mut Observed, error: &dyn Display, refuses: bool) {
        let (since, refused) = match &known.state {
            Availability::Down { since, refused, .. } => (*since, *refused),
            Availability::Unknown | Availability::Up { .. } => {
                if !refuses {
                    tracing::warn!("{} is down: {error}; trying again until it is back", self.name);
                }
                (Instant::now(), refuses)
            }
        };
        // Each once in an outage, and not all that there may be.
        if refuses && known.told.len() < REASONS && known.told.insert(error.to_string()) {
            tracing::warn!("{error}; trying again until it does not");
        }
        known.state = Availability::Down { since, error: error.to_string(), refuses, refused };
        self.up.store(false, Ordering::Relaxed);
        self.gauge.set(0.0);
    }

    /// Attempts at something that it has to do.
    #[must_use]
    pub(crate) fn attempts(self: &Arc<Self>) -> Attempts {
        Attempts { dependency: Arc::clone(self), backoff: Backoff::default() }
    }

    /// Makes attempts until one has an answer.
    pub(crate) async fn until<T, F: Future<Output = Option<T>>>(
        self: &Arc<Self>,
        attempt: impl Fn() -> F,
    ) -> T {
        let mut attempts = self.attempts();
        loop {
            if let Some(answer) = attempt().await {
                return answer;
            }
            attempts.pause().await;
        }
    }

    /// Whether it answered last time.
    #[must_use]
    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Whether it ever answered.
    #[must_use]
    pub(crate) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Whether it is known to be out of reach. What is not sent then need not be sent apart from what comes behind it.
    /// Something must ask, or it stays so.
    #[must_use]
    pub(crate) fn watch_away(&self) -> watch::Receiver<bool> {
        self.away.subscribe()
    }

    /// It was asked something, and was out of reach or was not.
    pub(crate) fn was_asked(&self, is_away: bool) {
        self.away.send_if_modified(|was| std::mem::replace(was, is_away) != is_away);
    }

    /// It answered something else than a write. That makes it no better while writes fail.
    pub(crate) fn answers(&self) {
        if !self.writes_fail.load(Ordering::Relaxed) {
            self.up();
        }
    }

    /// An attempt to write has ended, well or not.
    pub(crate) fn wrote(&self, failure: Option<&dyn Display>) {
        self.writes_fail.store(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(error) => self.down(error),
            None => self.up(),
        }
    }

    /// Forgets that the last attempt to write failed, where nobody makes another.
    pub(crate) fn forget_failure(&self) {
        self.writes_fail.store(false, Ordering::Relaxed);
    }

    /// How it is now.
    #[must_use]
    pub(crate) fn now(&self) -> DependencyState {
        match &self.state.lock().state {
            Availability::Unknown => DependencyState::Unknown,
            Availability::Up { since } => DependencyState::Up(since.elapsed()),
            Availability::Down { since, error, refuses: false, .. } => {
                DependencyState::Down(since.elapsed(), cut(error, ERROR))
            }
            Availability::Down { since, error, refuses: true, .. } => {
                DependencyState::Refuses(since.elapsed(), cut(error, ERROR))
            }
        }
    }

    /// What `/status` says of it.
    #[must_use]
    pub(crate) fn report(&self) -> DependencyReport {
        let known = self.state.lock();
        let (state, since, error) = match &known.state {
            Availability::Unknown => ("unknown", None, None),
            Availability::Up { since } => ("up", Some(since), None),
            Availability::Down { since, error, refuses, .. } => {
                (if *refuses { "refuses" } else { "down" }, Some(since), Some(cut(error, ERROR)))
            }
        };
        let for_seconds = since.map(|since| since.elapsed().as_secs());
        DependencyReport { state, for_seconds, error, last_outage: known.past.clone() }
    }
}

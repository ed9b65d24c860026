//! Keeps the state of an instance, for people and probes. Changes of state are logged here, once each.

#[cfg(test)]
mod docs_tests;
mod history;
mod lane;
mod queue;
mod report;
mod summary;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;

use self::history::{History, Recent};
pub(crate) use self::lane::{HeldBack, LaneStatus};
pub(crate) use self::queue::{Obstacle, Phase, QueueStatus};
use self::summary::{Facts, Summary};
#[cfg(test)]
pub(crate) use self::tests::Lines;
use crate::beat;
use crate::buffer::Buffer;
use crate::config::Config;
use crate::dead_letter::RecentDeadLetters;
use crate::health::Health;
use crate::metrics::QueueMetrics;

/// From this time on, documents that MongoDB refuses are a reason not to be ready.
pub(crate) const HELD_BACK: Duration = Duration::from_secs(5);

/// The state of an instance.
#[derive(Debug)]
pub(crate) struct Status {
    /// Redis, MongoDB, and what else fails.
    pub(crate) health: Arc<Health>,
    /// The queues, in the order of the configuration.
    pub(crate) queues: Vec<Arc<QueueStatus>>,
    /// The latest dead letters.
    pub(crate) letters: Arc<RecentDeadLetters>,
    /// Why receipts cannot be published, if they cannot.
    receipts_refused: Mutex<Option<String>>,
    instance: String,
    buffer: Arc<Buffer>,
    started: Instant,
    stopping: AtomicBool,
    history: Mutex<History>,
    /// The configuration in effect: for programs, and as TOML.
    config: Mutex<(Value, String)>,
    show_payloads: bool,
}

impl Status {
    /// The state at the start.
    #[must_use]
    pub(crate) fn new(
        config: &Config,
        instance: &str,
        buffer: Arc<Buffer>,
        metrics: &[Arc<QueueMetrics>],
    ) -> Arc<Self> {
        let queues = config.queues.iter().zip(metrics);
        Arc::new(Status {
            health: Health::new(),
            queues: queues.map(|(queue, metrics)| QueueStatus::new(queue, config, metrics)).collect(),
            letters: Arc::new(RecentDeadLetters::new(config.http.show_payloads)),
            receipts_refused: Mutex::default(),
            instance: instance.to_owned(),
            buffer,
            started: Instant::now(),
            stopping: AtomicBool::new(false),
            history: Mutex::default(),
            config: shown(config).into(),
            show_payloads: config.http.show_payloads,
        })
    }

    /// The instance is about to end.
    pub(crate) fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Redis refuses to publish receipts, or does no more. Caused once each.
    pub(crate) fn receipts_refused(&self, error: Option<String>) {
        let mut known = self.receipts_refused.lock();
        match (&*known, &error) {
            (None, Some(error)) => {
                tracing::warn!("receipts cannot be published and are dropped: {error}");
            }
            (Some(_), None) => tracing::info!("receipts are published again"),
            _ => {}
        }
        *known = error;
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Whether the instance can do its work, all of it: its dependencies answer, nothing keeps it from draining a queue, nothing
    /// else fails, and it is not ending.
    #[must_use]
    pub(crate) fn is_ready(&self) -> bool {
        let servers = self.health.redis.is_up() && self.health.mongodb.is_up();
        let is_drained = self.queues.iter().all(|queue| queue.held_back_for() < HELD_BACK);
        servers
            && is_drained
            && self.health.troubles.is_empty()
            && !self.is_stopping()
            && !self.is_obstructed()
    }

    fn is_obstructed(&self) -> bool {
        self.queues.iter().any(|queue| queue.is_obstructed())
    }

    /// Looks at all figures once a second, so that rates can be told. Never ends.
    pub(crate) async fn watch(self: Arc<Self>) -> std::io::Result<()> {
        loop {
            self.look();
            tokio::time::sleep_until(beat::next(Duration::from_secs(1))).await;
        }
    }

    fn look(&self) {
        if let Some(news) = self.letters.news() {
            tracing::info!("{news}");
        }
        let queues = self.queues.iter().map(|queue| (queue.figures(), queue.metrics.latencies()));
        self.history.lock().look(self.started.elapsed(), queues);
    }

    /// What `/config` says: the configuration in effect, with secrets hidden.
    #[must_use]
    pub(crate) fn config_toml(&self) -> String {
        self.config.lock().1.clone()
    }

    /// The configuration in effect is another one now.
    pub(crate) fn set_config(&self, config: &Config) {
        *self.config.lock() = shown(config);
    }

    fn summary(&self, recent: &[Recent]) -> Summary {
        Facts {
            stopping: self.is_stopping(),
            redis: self.health.redis.now(),
            mongodb: self.health.mongodb.now(),
            trouble: self.health.troubles.worst(),
            queues: self.queues.iter().zip(recent).map(|(queue, recent)| queue.facts(recent)).collect(),
            // A page that is looked at minutes later should still say it.
            dead_lately: self.letters.lately(),
            buffer_is_full: self.buffer.room().is_none(),
            receipts_refused: self.receipts_refused.lock().clone(),
        }
        .summary()
    }
}

/// The configuration for programs, and as TOML: both hide secrets.
fn shown(config: &Config) -> (Value, String) {
    (serde_json::to_value(config).unwrap_or_default(), config.redacted_toml())
}

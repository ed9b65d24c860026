//! Sends receipts: Redis' Pub/Sub tells whoever listens what has become durable, and what never will.
//!
//! They are notices. Settling never waits for them: when Redis takes them too slowly or is away, they are dropped and
//! counted. Who has to be certain asks `/durable`.

mod message;
mod publish;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

pub(crate) use self::publish::Publisher;
use crate::change::{CollectionId, Entity};
use crate::config;
use crate::dead_letter::Dead;
use crate::live_settings::LiveSettings;
use crate::metrics::ReceiptMetrics;
use crate::raw::Value;
use crate::source::Redis;
use crate::status::Status;

/// Receipts that wait to be published.
const WAITING: usize = 65_536;
/// Bytes of their ids and reasons: ids are as long as events make them.
const WAITING_BYTES: usize = 8 << 20;

/// What is told.
#[derive(Debug)]
struct Receipt {
    queue: Arc<str>,
    entity: Option<(CollectionId, Value)>,
    offset: i64,
    news: News,
}

#[derive(Debug)]
enum News {
    /// So many events are durable, and how long the oldest of them took, in milliseconds.
    Durable { events: u64, ms: Option<u64> },
    /// The event is a dead letter.
    Dead(Box<PublishRefusal>),
}

#[derive(Debug)]
struct PublishRefusal {
    reason: String,
    class: Option<&'static str>,
    code: Option<i32>,
}

impl Receipt {
    /// Bytes that are as long as an event makes them.
    fn bytes(&self) -> usize {
        let id = self.entity.as_ref().map_or(0, |(_, id)| id.len());
        id + match &self.news {
            News::Durable { .. } => 0,
            News::Dead(refusal) => refusal.reason.len(),
        }
    }
}

/// The way of receipts to their publisher.
#[derive(Debug, Clone)]
pub(crate) struct Receipts {
    sender: mpsc::Sender<Receipt>,
    bytes: Arc<AtomicUsize>,
    metrics: ReceiptMetrics,
}

impl Receipts {
    /// The way, and the publisher at its end; none if receipts are off.
    #[must_use]
    pub(crate) fn new(
        config: &config::Receipts,
        redis: &Redis,
        live: &Arc<LiveSettings>,
        metrics: ReceiptMetrics,
        status: &Arc<Status>,
    ) -> Option<(Self, Publisher)> {
        if !config.enabled {
            return None;
        }
        let (sender, receiver) = mpsc::channel(WAITING);
        let bytes = Arc::new(AtomicUsize::new(0));
        let publisher = Publisher {
            receiver,
            bytes: Arc::clone(&bytes),
            redis: redis.clone(),
            live: Arc::clone(live),
            channels: config.clone(),
            metrics: metrics.clone(),
            status: Arc::clone(status),
        };
        Some((Receipts { sender, bytes, metrics }, publisher))
    }

    /// The receipts of one queue.
    #[must_use]
    pub(crate) fn of_queue(&self, queue: &str) -> Teller {
        Teller { receipts: self.clone(), queue: queue.into() }
    }

    /// Sends a receipt on its way, if there is room.
    fn send(&self, receipt: Receipt) {
        let bytes = receipt.bytes();
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if waiting + bytes > WAITING_BYTES || self.sender.try_send(receipt).is_err() {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.metrics.dropped.increment(1);
        }
    }
}

/// Tells of one queue's events.
#[derive(Debug)]
pub(crate) struct Teller {
    receipts: Receipts,
    queue: Arc<str>,
}

impl Teller {
    /// Sends that an entity is durable up to `offset`: `events` more than before, the oldest of which took `latency`.
    pub(crate) fn durable(&self, entity: Entity, offset: i64, events: u64, latency: Option<Duration>) {
        let ms = latency.map(|latency| u64::try_from(latency.as_millis()).unwrap_or(u64::MAX));
        self.send(Some(entity), offset, News::Durable { events, ms });
    }

    /// Sends that events are dead letters. What MongoDB says of them is left out: it quotes values, not only the
    /// event's.
    pub(crate) fn dead(&self, letters: &[Dead<'_>]) {
        for Dead { offset, rejection, entity, .. } in letters {
            let refusal = PublishRefusal {
                reason: rejection.without_values().to_owned(),
                class: Some(rejection.reason.label()),
                code: rejection.code,
            };
            self.send(entity.map(Entity::from), *offset, News::Dead(refusal.into()));
        }
    }

    /// An event was made a dead letter by a former owner, who perhaps could not tell.
    pub(crate) fn dead_before(&self, entity: Option<Entity>, offset: i64) {
        let reason = "it was made a dead letter before; the letter has the reason".to_owned();
        self.send(entity, offset, News::Dead(PublishRefusal { reason, class: None, code: None }.into()));
    }

    fn send(&self, entity: Option<Entity>, offset: i64, news: News) {
        let entity = entity.map(Entity::into_id);
        self.receipts.send(Receipt { queue: Arc::clone(&self.queue), entity, offset, news });
    }
}

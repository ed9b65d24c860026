//! Answers `/durable/QUEUE/OFFSET`: whether an event is durable, at once or as soon as it is.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::HttpState;
use crate::config::{self, Config, Delivery, Keys, QueueKind};
use crate::ownership::{Confirmations, Shared};
use crate::source::{DeliveryStatus, DeliveryStatuses, RecordedOwnership, Redis};

/// The longest wait. The listener gives a client more than this and [`REPLY`] together until its answer begins.
const LONGEST: Duration = Duration::from_secs(5);
/// The longest that Redis may take to answer.
const REPLY: Duration = Duration::from_secs(2);
/// Clients that may wait at once. The listener has room for twice as many, so that scrapes and probes find some.
const WAITING: usize = 32;

#[derive(Debug)]
struct AskedQueue {
    key: String,
    /// Only lists that are read without removal have offsets that Redis tells.
    keys: Option<Keys>,
    /// How it is called in MongoDB, if owners are on record there.
    id: Option<String>,
}

impl AskedQueue {
    fn new(queue: &config::Queue, config: &Config) -> Self {
        let numbered = queue.delivery != Delivery::AtMostOnce && queue.kind == QueueKind::List;
        AskedQueue {
            key: queue.key.clone(),
            keys: numbered.then(|| Keys::new(&queue.key, &config.dead_letter.suffix)),
            id: (queue.delivery == Delivery::ExactlyOnce).then(|| queue.id().to_owned()),
        }
    }
}

/// Answers for all queues of the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Asked(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    statuses: DeliveryStatuses,
    queues: Vec<AskedQueue>,
    /// There from when MongoDB has answered first.
    confirmations: OnceLock<Confirmations>,
    waiting: Semaphore,
}

impl Asked {
    /// Nothing is sent to Redis before somebody asks.
    #[must_use]
    pub(crate) fn new(redis: Redis, config: &Config) -> Self {
        Asked(Arc::new(Inner {
            statuses: DeliveryStatuses::new(redis),
            queues: config.queues.iter().map(|queue| AskedQueue::new(queue, config)).collect(),
            confirmations: OnceLock::new(),
            waiting: Semaphore::new(WAITING),
        }))
    }

    /// MongoDB has answered, and can be asked from now on.
    pub(crate) fn reaches_mongodb(&self, shared: Arc<Shared>) {
        self.0.confirmations.get_or_init(|| Confirmations::new(shared));
    }
}

pub(super) async fn durable(
    State(shared): State<HttpState>,
    Path((queue, offset)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    match answer(&shared.asked.0, &queue, &offset, query.as_deref().unwrap_or_default()).await {
        Ok(told) => Json(told).into_response(),
        Err((StatusCode::SERVICE_UNAVAILABLE, error)) => {
            let later = [(header::RETRY_AFTER, "1")];
            (StatusCode::SERVICE_UNAVAILABLE, later, Json(json!({ "error": error }))).into_response()
        }
        Err((code, error)) => (code, Json(json!({ "error": error }))).into_response(),
    }
}

type HttpError = (StatusCode, &'static str);

const BAD: StatusCode = StatusCode::BAD_REQUEST;
const LATER: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

impl Inner {
    /// What has become of an event. Redis' word counts while MongoDB knows of no other owner: a primary that was cut off
    /// does not know what became of its queue.
    async fn status_of(
        &self,
        queue: &AskedQueue,
        keys: &Keys,
        offset: i64,
    ) -> Result<DeliveryStatus, HttpError> {
        // Connecting may take long, too.
        let asking = timeout(REPLY, self.statuses.of(keys, offset)).await;
        let (status, owner) = asking.ok().and_then(Result::ok).ok_or((LATER, "Redis does not answer"))?;
        let is_settled = !matches!(status, DeliveryStatus::Pending | DeliveryStatus::Unknown);
        match &queue.id {
            Some(id) if is_settled => match self.is_latest(id, &owner).await {
                Some(true) => Ok(status),
                Some(false) => Ok(DeliveryStatus::Unknown),
                None => Err((LATER, "MongoDB does not answer whose the queue is")),
            },
            _ => Ok(status),
        }
    }

    async fn is_latest(&self, id: &str, owner: &RecordedOwnership) -> Option<bool> {
        self.confirmations.get()?.is_latest(id, owner).await
    }
}

async fn answer(asked: &Inner, key: &str, offset: &str, query: &str) -> Result<Value, HttpError> {
    let queue = asked.queues.iter().find(|queue| queue.key == key);
    let queue = queue.ok_or((StatusCode::NOT_FOUND, "no such queue"))?;
    let keys = queue
        .keys
        .as_ref()
        .ok_or((BAD, "only the events of lists that are not at-most-once can be asked for"))?;
    let parsed = offset.parse().ok().filter(|offset: &i64| *offset >= 0);
    let offset = parsed.ok_or((BAD, "the offset must be a number, from 0 on"))?;
    let wait = query.split('&').find_map(|part| part.strip_prefix("wait="));
    let wait = wait.map(humantime_serde::re::humantime::parse_duration).transpose();
    let wait = wait.map_err(|_| (BAD, "wait must be a duration, such as 2s"))?.unwrap_or_default();
    let deadline = Instant::now() + wait.min(LONGEST);
    let mut place = None;
    let mut pause = Duration::from_millis(2);
    loop {
        let status = asked.status_of(queue, keys, offset).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        if status != DeliveryStatus::Pending || left.is_zero() {
            let (state, durable) = match status {
                DeliveryStatus::Durable => ("durable", true),
                DeliveryStatus::Dead => ("dead", false),
                DeliveryStatus::Settled => ("settled", false),
                DeliveryStatus::Pending => ("pending", false),
                DeliveryStatus::Unknown => ("unknown", false),
            };
            return Ok(json!({
                "queue": key, "offset": offset.to_string(), "state": state, "durable": durable
            }));
        }
        if place.is_none() {
            let free = asked.waiting.try_acquire();
            place = Some(free.map_err(|_| (LATER, "too many are waiting; ask again without"))?);
        }
        sleep(pause.min(left)).await;
        pause = (pause * 2).min(Duration::from_millis(25));
    }
}

//! Answers `/durable/QUEUE/OFFSET`: whether an event is durable, at once or as soon as it is.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::HttpState;
use crate::config::Keys;
use crate::config::{Config, Delivery, QueueKind};
use crate::source::{DeliveryStatus, DeliveryStatuses, Redis};

/// The longest wait. The listener gives a client more than this and [`REPLY`] together until its answer begins.
const LONGEST: Duration = Duration::from_secs(5);
/// The longest that Redis may take to answer.
const REPLY: Duration = Duration::from_secs(2);
/// Clients that may wait at once. The listener has room for twice as many, so that scrapes and probes find some.
const WAITING: usize = 32;

/// Answers for all queues of the configuration.
#[derive(Debug, Clone)]
pub struct Asked(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    fates: DeliveryStatuses,
    /// By key; only lists that are read without removal have offsets that Redis tells.
    queues: Vec<(String, Option<Keys>)>,
    waiting: Semaphore,
}

impl Asked {
    /// Nothing is sent to Redis before somebody asks.
    #[must_use]
    pub fn new(redis: Redis, config: &Config) -> Self {
        let keys = |queue: &crate::config::Queue| {
            let numbered = queue.delivery != Delivery::AtMostOnce && queue.kind == QueueKind::List;
            let keys = numbered.then(|| Keys::new(&queue.key, &config.dead_letter.suffix));
            (queue.key.clone(), keys)
        };
        let queues = config.queues.iter().map(keys).collect();
        Asked(Arc::new(Inner {
            fates: DeliveryStatuses::new(redis),
            queues,
            waiting: Semaphore::new(WAITING),
        }))
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

async fn answer(asked: &Inner, key: &str, offset: &str, query: &str) -> Result<Value, HttpError> {
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    const LATER: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
    let queue = asked.queues.iter().find(|(known, _)| known == key);
    let (_, keys) = queue.ok_or((StatusCode::NOT_FOUND, "no such queue"))?;
    let keys =
        keys.as_ref().ok_or((BAD, "only the events of lists that are not at-most-once can be asked for"))?;
    let parsed = offset.parse().ok().filter(|offset: &i64| *offset >= 0);
    let offset = parsed.ok_or((BAD, "the offset must be a number, from 0 on"))?;
    let wait = query.split('&').find_map(|part| part.strip_prefix("wait="));
    let wait = wait.map(humantime_serde::re::humantime::parse_duration).transpose();
    let wait = wait.map_err(|_| (BAD, "wait must be a duration, such as 2s"))?.unwrap_or_default();
    let deadline = Instant::now() + wait.min(LONGEST);
    let mut place = None;
    let mut pause = Duration::from_millis(2);
    loop {
        // Connecting may take long, too.
        let asking = timeout(REPLY, asked.fates.of(keys, offset)).await;
        let fate = asking.ok().and_then(Result::ok).ok_or((LATER, "Redis does not answer"))?;
        let left = deadline.saturating_duration_since(Instant::now());
        if fate != DeliveryStatus::Pending || left.is_zero() {
            let (state, durable) = match fate {
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

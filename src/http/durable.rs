//! Answers `/durable/QUEUE/OFFSET`: whether an event is durable, at once or as soon as it is.
//!
//! Redis tells of what is committed, which is a prefix of the queue. Whoever names the document need not wait for the
//! events of others.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bson::Bson;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::HttpState;
use crate::config::{self, Config, Delivery, Keys, QueueKind};
use crate::ownership::{Confirmations, Shared};
use crate::sink::NamedDocument;
use crate::source::{DeliveryStatus, DeliveryStatuses, RecordedOwnership, Redis};

/// The longest wait. The listener gives a client more than this and [`REPLY`] together until its answer begins.
const LONGEST: Duration = Duration::from_secs(5);
/// The longest that Redis may take to answer.
const REPLY: Duration = Duration::from_secs(2);
/// Clients that may wait at once. The listener has room for twice as many, so that scrapes and probes find some.
const WAITING: usize = 32;

/// Between two looks at Redis for who waits, at most.
const PAUSE: Duration = Duration::from_millis(25);
/// The same, where MongoDB is asked, too.
const PAUSE_OF_MONGODB: Duration = Duration::from_millis(100);

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
            keys: numbered.then(|| config.keys_of(&queue.key)),
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
    question: Result<Query<Question>, QueryRejection>,
) -> Response {
    let answered = match question {
        Ok(Query(question)) => answer(&shared.asked.0, &queue, &offset, question).await,
        Err(_) => Err((BAD, "the question must be wait=, collection= and id=, each once, percent-encoded")),
    };
    match answered {
        Ok(told) => Json(told).into_response(),
        Err((StatusCode::SERVICE_UNAVAILABLE, error)) => {
            let later = [(header::RETRY_AFTER, "1")];
            (StatusCode::SERVICE_UNAVAILABLE, later, Json(json!({ "error": error }))).into_response()
        }
        Err((code, error)) => (code, Json(json!({ "error": error }))).into_response(),
    }
}

type HttpError = (StatusCode, &'static str);

/// What may stand behind the question mark.
#[derive(Debug, Default, serde::Deserialize)]
pub(super) struct Question {
    wait: Option<String>,
    collection: Option<String>,
    id: Option<String>,
}

impl Question {
    fn wait(&self) -> Result<Duration, HttpError> {
        let wait = self.wait.as_deref().map(humantime_serde::re::humantime::parse_duration).transpose();
        Ok(wait.map_err(|_| (BAD, "wait must be a duration, such as 2s"))?.unwrap_or_default())
    }

    /// The event's document, if it is named.
    fn document(self) -> Result<Option<NamedDocument>, HttpError> {
        match (self.collection, self.id) {
            (Some(collection), Some(id)) => Ok(Some(NamedDocument { collection, id: read_id(&id)? })),
            (None, None) => Ok(None),
            _ => Err((BAD, "collection and id go together")),
        }
    }
}

/// An id as an event has it: a number, a text in quotes or extended JSON. What is none of them is text.
fn read_id(text: &str) -> Result<Bson, HttpError> {
    let is_json = text.starts_with(['{', '"']) || text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    let parsed = serde_json::from_str::<Value>(text).ok().filter(|_| is_json);
    match parsed {
        Some(value) => Bson::try_from(value).map_err(|_| (BAD, "id must be text or extended JSON")),
        None => Ok(Bson::String(text.to_owned())),
    }
}

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
        document: Option<&NamedDocument>,
    ) -> Result<DeliveryStatus, HttpError> {
        let (mut status, mut owner) = self.by_redis(keys, offset).await?;
        if let (DeliveryStatus::Pending(current), Some(id), Some(document)) = (status, &queue.id, document)
            && self.has_applied(id, keys, document, current).await
        {
            // A commit meanwhile takes dead letters from where they were looked for, and knows better.
            (status, owner) = self.by_redis(keys, offset).await?;
            if status == DeliveryStatus::Pending(current) {
                status = DeliveryStatus::Durable;
            }
        }
        let is_settled = !matches!(status, DeliveryStatus::Pending(_) | DeliveryStatus::Unknown);
        match &queue.id {
            Some(id) if is_settled => match self.is_latest(id, &owner).await {
                Some(true) => Ok(status),
                Some(false) => Ok(DeliveryStatus::Unknown),
                None => Err((LATER, "MongoDB does not answer whose the queue is")),
            },
            _ => Ok(status),
        }
    }

    async fn by_redis(
        &self,
        keys: &Keys,
        offset: i64,
    ) -> Result<(DeliveryStatus, RecordedOwnership), HttpError> {
        // Connecting may take long, too.
        let asking = timeout(REPLY, self.statuses.of(keys, offset)).await;
        asking.ok().and_then(Result::ok).ok_or((LATER, "Redis does not answer"))
    }

    /// Whether an event that is not committed is in its document nevertheless. Nobody knows is no.
    async fn has_applied(&self, id: &str, keys: &Keys, document: &NamedDocument, offset: i64) -> bool {
        let Some(confirmations) = self.confirmations.get() else { return false };
        // A dead letter is on record before later events of its document are written, so that is asked afterwards.
        confirmations.has_applied(id, document, offset).await == Some(true)
            && matches!(timeout(REPLY, self.statuses.is_buried(keys, offset)).await, Ok(Ok(false)))
    }

    async fn is_latest(&self, id: &str, owner: &RecordedOwnership) -> Option<bool> {
        self.confirmations.get()?.is_latest(id, owner).await
    }
}

async fn answer(asked: &Inner, key: &str, offset: &str, question: Question) -> Result<Value, HttpError> {
    let queue = asked.queues.iter().find(|queue| queue.key == key);
    let queue = queue.ok_or((StatusCode::NOT_FOUND, "no such queue"))?;
    let keys = queue
        .keys
        .as_ref()
        .ok_or((BAD, "only the events of lists that are not at-most-once can be asked for"))?;
    let parsed = offset.parse().ok().filter(|offset: &i64| *offset >= 0);
    let offset = parsed.ok_or((BAD, "the offset must be a number, from 0 on"))?;
    let (wait, document) = (question.wait()?, question.document()?);
    let deadline = Instant::now() + wait.min(LONGEST);
    let longest = if document.is_some() { PAUSE_OF_MONGODB } else { PAUSE };
    let mut place = None;
    let mut pause = Duration::from_millis(2);
    loop {
        let status = asked.status_of(queue, keys, offset, document.as_ref()).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        if !matches!(status, DeliveryStatus::Pending(_)) || left.is_zero() {
            let (state, durable) = match status {
                DeliveryStatus::Durable => ("durable", true),
                DeliveryStatus::Dead => ("dead", false),
                DeliveryStatus::Settled => ("settled", false),
                DeliveryStatus::Pending(_) => ("pending", false),
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
        pause = (pause * 2).min(longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_an_event_has_it() {
        let oid = "507f1f77bcf86cd799439011";
        let read = |text: &str| read_id(text).map_err(|(_, error)| error);
        for (text, id) in [
            ("doc:1", Bson::from("doc:1")),
            ("true", Bson::from("true")),
            ("1d", Bson::from("1d")),
            (oid, Bson::from(oid)),
            ("\"42\"", Bson::from("42")),
            ("42", Bson::Int32(42)),
            ("{\"$oid\":\"507f1f77bcf86cd799439011\"}", Bson::ObjectId(oid.parse().unwrap())),
        ] {
            assert_eq!(read(text), Ok(id), "{text}");
        }
        assert!(read("{\"$oid\":1}").is_err());
    }
}

//! Pushes events, and records what Redis acknowledged and what nobody knows of.
//!
//! Event `n` of an entity appends `n` to the document's log and counts it, so that the log tells what was applied, in
//! which order, and how often. How long its changes wait, differs by document.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use fastrand::Rng;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::plan::{Plan, Stream};
use crate::support::{add_at_once, push};
use crate::timing::{LEFT, Timing};

const PRODUCERS: u64 = 3;
/// Events of a burst, events in one push of it, milliseconds between two bursts: thousands of events a second.
const BURST: std::ops::Range<usize> = 20..300;
const PUSH: std::ops::Range<usize> = 1..60;
const PAUSE: std::ops::Range<u64> = 20..150;
/// Events in one push at the end.
const AT_ONCE: usize = 1_000;
/// After a push that failed.
const RETRY: Duration = Duration::from_millis(10);

/// What is known of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Redis acknowledged it, and kept it.
    Acknowledged,
    /// The reply was lost, or Redis lost what it had acknowledged. It may be applied or not.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Pushed {
    pub(crate) fate: Fate,
    pub(crate) deletes: bool,
}

/// Of each entity, its events so far. Event `n` is at index `n`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record(pub(crate) Vec<Vec<Pushed>>);

/// Producers at work, and where Redis is for them.
pub(crate) struct Workload {
    queue: String,
    /// Held for reading during a push.
    url: Arc<RwLock<String>>,
    record: Arc<Mutex<Record>>,
    stop: CancellationToken,
    producers: JoinSet<anyhow::Result<()>>,
    is_stream: bool,
}

/// No push is under way while this is there. It holds where producers find Redis.
pub(crate) type Closed = OwnedRwLockWriteGuard<String>;

impl Workload {
    /// Starts producers, which push to the Redis at `url` without a proxy.
    pub(crate) fn start(plan: &Plan, queue: &str, url: &str) -> Self {
        let mut workload = Self {
            queue: queue.to_owned(),
            url: Arc::new(RwLock::new(url.to_owned())),
            record: Arc::new(Mutex::new(Record(vec![Vec::new(); plan.entities]))),
            stop: CancellationToken::new(),
            producers: JoinSet::new(),
            is_stream: plan.trim.is_some(),
        };
        for index in 0..PRODUCERS {
            let producer = Producer {
                index: index as usize,
                entities: plan.entities,
                deletes: plan.deletions.is_some(),
                rng: plan.stream(Stream::Producer(index)),
                queue: workload.queue.clone(),
                url: Arc::clone(&workload.url),
                record: Arc::clone(&workload.record),
                connection: None,
                is_stream: plan.trim.is_some(),
            };
            workload.producers.spawn(producer.run(workload.stop.clone()));
        }
        workload
    }

    /// Waits until no push is under way, and lets none begin.
    pub(crate) async fn close(&self) -> Closed {
        Arc::clone(&self.url).write_owned().await
    }

    /// How many events of each entity there are.
    pub(crate) fn mark(&self) -> Vec<usize> {
        self.record.lock().0.iter().map(Vec::len).collect()
    }

    /// Redis has lost what it acknowledged last: of the events since `mark`, those in `kept` are all that it has in
    /// the queue. Answers how many acknowledged ones may be gone.
    pub(crate) fn fell_back(&self, mark: &[usize], kept: &[Vec<u8>]) -> anyhow::Result<usize> {
        let kept: Vec<(usize, usize)> = kept.iter().filter_map(|event| identify(event)).collect();
        let mut first: HashMap<usize, usize> = HashMap::new();
        for (entity, n) in &kept {
            let first = first.entry(*entity).or_insert(*n);
            *first = (*first).min(*n);
        }
        let kept: HashSet<(usize, usize)> = kept.into_iter().collect();
        let mut lost = 0;
        for (entity, events) in self.record.lock().0.iter_mut().enumerate() {
            let mark = *mark.get(entity).context("a mark of fewer entities")?;
            // What was before the first one that is left was trimmed, so it was applied.
            let settled = first.get(&entity).copied().unwrap_or(0).max(mark);
            for (n, event) in events.iter_mut().enumerate() {
                if kept.contains(&(entity, n)) {
                    event.fate = Fate::Acknowledged;
                } else if n >= settled {
                    lost += usize::from(event.fate == Fate::Acknowledged);
                    event.fate = Fate::Unknown;
                }
            }
        }
        Ok(lost)
    }

    /// Where producers find Redis.
    pub(crate) fn url(&self) -> Arc<RwLock<String>> {
        Arc::clone(&self.url)
    }

    /// Stops the producers.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.producers.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// Has documents written at once that would else wait for longer than a round. Nobody pushes any more.
    pub(crate) async fn flush(&self) -> anyhow::Result<()> {
        let url = self.url.read().await.clone();
        let mut connection = connect(&url).await?;
        let waiting: Vec<usize> = {
            let record = self.record.lock();
            let all = record.0.iter().enumerate().filter(|(_, events)| !events.is_empty());
            all.map(|(entity, _)| entity).filter(|entity| Timing::of(*entity).outlasts_a_round()).collect()
        };
        for entities in waiting.chunks(AT_ONCE) {
            let left = |entity: &usize| json!({ "timing": LEFT, "id": document_id(*entity) }).to_string();
            push_to(&mut connection, &self.queue, self.is_stream, entities.iter().map(left).collect())
                .await?;
        }
        Ok(())
    }

    /// What was pushed.
    pub(crate) fn record(&self) -> Record {
        self.record.lock().clone()
    }
}

/// One client that pushes. Every entity has its producer, so that there is one order of its events.
struct Producer {
    index: usize,
    entities: usize,
    deletes: bool,
    rng: Rng,
    queue: String,
    url: Arc<RwLock<String>>,
    record: Arc<Mutex<Record>>,
    connection: Option<(String, MultiplexedConnection)>,
    is_stream: bool,
}

impl Producer {
    async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        while !stop.is_cancelled() {
            let mut left = self.rng.usize(BURST);
            while left > 0 && !stop.is_cancelled() {
                let size = self.rng.usize(PUSH).min(left);
                if self.push(size).await? {
                    left -= size;
                } else {
                    sleep(RETRY).await;
                }
            }
            sleep(Duration::from_millis(self.rng.u64(PAUSE))).await;
        }
        Ok(())
    }

    /// Pushes so many events, if there is a connection. False if there is none, or it is lost.
    async fn push(&mut self, size: usize) -> anyhow::Result<bool> {
        let url = Arc::clone(&self.url).read_owned().await;
        let known = self.connection.take().filter(|(to, _)| *to == *url);
        let mut connection = match known {
            Some((_, connection)) => connection,
            None => match connect(&url).await {
                Ok(connection) => connection,
                Err(_) => return Ok(false),
            },
        };
        let mut events = Vec::with_capacity(size);
        let mut drawn = Vec::with_capacity(size);
        for _ in 0..size {
            let (entity, n, event) = self.draw();
            drawn.push((entity, n));
            events.push(event);
        }
        if push_to(&mut connection, &self.queue, self.is_stream, events).await.is_err() {
            return Ok(false);
        }
        let mut record = self.record.lock();
        for (entity, n) in drawn {
            record.0[entity][n].fate = Fate::Acknowledged;
        }
        drop(record);
        self.connection = Some((url.clone(), connection));
        Ok(true)
    }

    /// The next event, as one whose fate is unknown.
    fn draw(&mut self) -> (usize, usize, String) {
        // Half of the events go to a tenth of the documents.
        let among = if self.rng.bool() { self.entities / 10 } else { self.entities };
        let step = PRODUCERS as usize;
        let entity = self.index + step * self.rng.usize(..among / step);
        let deletes = self.deletes && self.rng.u8(..) < 8;
        let mut record = self.record.lock();
        let events = &mut record.0[entity];
        let n = events.len();
        events.push(Pushed { fate: Fate::Unknown, deletes });
        let event = if deletes {
            json!({ "collection": "documents", "id": document_id(entity), "delete": true }).to_string()
        } else {
            event(entity, n, Timing::of_event(entity, n))
        };
        (entity, n, event)
    }
}

/// The document of an entity.
pub(crate) fn document_id(entity: usize) -> String {
    format!("e{entity}")
}

/// Pushes all of it or nothing.
async fn push_to(
    connection: &mut MultiplexedConnection,
    queue: &str,
    is_stream: bool,
    events: Vec<String>,
) -> anyhow::Result<()> {
    if is_stream {
        add_at_once(connection, queue, events).await
    } else {
        push(connection, queue, events).await
    }
}

/// An event that updates: a route's, or a native one. What it does to the document is the same.
fn event(entity: usize, n: usize, timing: Timing) -> String {
    let id = document_id(entity);
    match timing.name() {
        Some(name) => json!({ "timing": name, "id": id, "n": n }).to_string(),
        None => {
            let update = json!({ "$push": { "log": n }, "$inc": { "count": 1 }, "$set": { "last": n } });
            json!({ "collection": "documents", "id": id, "update": update }).to_string()
        }
    }
}

/// Entity and number of an event that updates. None of another: deletions are not in rounds that ask.
fn identify(event: &[u8]) -> Option<(usize, usize)> {
    let event: Value = serde_json::from_slice(event).ok()?;
    let entity = event["id"].as_str()?.strip_prefix('e')?.parse().ok()?;
    let n = event["n"].as_u64().or_else(|| event["update"]["$set"]["last"].as_u64())?;
    Some((entity, usize::try_from(n).ok()?))
}

async fn connect(url: &str) -> anyhow::Result<MultiplexedConnection> {
    let limits = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(5)))
        .set_response_timeout(Some(Duration::from_secs(20)));
    Ok(redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&limits).await?)
}

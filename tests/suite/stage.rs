//! Sets the stage for one test: a queue, a database and the daemon between them.

use std::fmt::Write;
use std::time::Duration;

use anyhow::Context;
use bson::Document;
use mongodb::Database;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

use crate::support::{
    Durability, Forge, Launch, Metrics, Mongo, Redis, Tidegate, add, assert_accounting, dead_letters,
    document, length, push, try_eventually, unique,
};

/// How long a test waits for what takes milliseconds on a quiet machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Servers, names, and how the daemon is launched.
pub(crate) struct Stage {
    pub(crate) redis: Redis,
    pub(crate) mongo: Mongo,
    pub(crate) queue: String,
    pub(crate) database: Database,
    pub(crate) launch: Launch,
    pub(crate) is_stream: bool,
    forge: Option<Forge>,
}

/// What a test wants of its stage.
pub(crate) struct Setting {
    /// Servers of its own, which it may stop, and what MongoDB then keeps.
    own_servers: Option<Durability>,
    queues: Vec<(String, &'static str)>,
    extra: String,
    /// More of the first queue's keys, if it is a stream.
    stream: Option<&'static str>,
    forged: bool,
}

impl Setting {
    /// One exactly-once queue and native events for the collection `documents`.
    pub(crate) fn new() -> Self {
        let queues = vec![(unique("queue"), "exactly-once")];
        Setting { own_servers: None, queues, extra: String::new(), stream: None, forged: false }
    }

    /// Servers that the test may stop.
    pub(crate) fn own_servers(mut self) -> Self {
        self.own_servers = Some(Durability::Synced);
        self
    }

    /// Servers that the test may pause, or stop in order; faster than those that may be killed.
    pub(crate) fn own_fast_servers(mut self) -> Self {
        self.own_servers = Some(Durability::Relaxed);
        self
    }

    /// The first queue's key; only with servers of its own.
    pub(crate) fn named(mut self, key: &str) -> Self {
        key.clone_into(&mut self.queues[0].0);
        self
    }

    /// The delivery of the first queue.
    pub(crate) fn delivery(mut self, delivery: &'static str) -> Self {
        self.queues[0].1 = delivery;
        self
    }

    /// Makes a stream of the first queue, with more of its keys.
    pub(crate) fn stream(mut self, keys: &'static str) -> Self {
        self.stream = Some(keys);
        self
    }

    /// One queue more.
    pub(crate) fn another_queue(mut self, key: &str) -> Self {
        self.queues.push((key.to_owned(), "exactly-once"));
        self
    }

    /// The daemon finds MongoDB behind a [`Forge`]; the test itself asks the server.
    pub(crate) fn forged(mut self) -> Self {
        self.forged = true;
        self
    }

    /// More of the configuration file.
    pub(crate) fn with(mut self, toml: &str) -> Self {
        self.extra.push_str(toml);
        self
    }

    /// Starts the servers.
    pub(crate) async fn stage(self) -> anyhow::Result<Stage> {
        let (mut redis, mut mongo) = if let Some(durability) = self.own_servers {
            (Redis::start().await?, Mongo::start_with(durability).await?)
        } else {
            (Redis::shared().await?, Mongo::shared().await?)
        };
        let queue = self.queues[0].0.clone();
        let name = mongo.database_name("test");
        let mut config = "native.collections = [\"documents\"]\nlease.ttl = \"1s\"\n".to_owned();
        config.push_str(&self.extra);
        for (number, (key, delivery)) in self.queues.iter().enumerate() {
            write!(config, "\n[[queues]]\nkey = \"{key}\"\ndelivery = \"{delivery}\"\n")?;
            if let Some(keys) = self.stream.filter(|_| number == 0) {
                write!(config, "kind = \"stream\"\n{keys}\n")?;
            }
        }
        self.queues.iter().for_each(|(key, _)| redis.tidy(key));
        let mut launch = Launch::config(config).redis(&redis).mongodb(&mongo, &name);
        let forge = if self.forged { Some(Forge::start(&mongo).await?) } else { None };
        if let Some(forge) = &forge {
            launch = launch.env("TIDEGATE_MONGODB__URI", forge.uri());
        }
        Ok(Stage {
            database: mongo.database(&name).await?,
            launch,
            queue,
            redis,
            mongo,
            is_stream: self.stream.is_some(),
            forge,
        })
    }
}

impl Stage {
    /// What the daemon takes for MongoDB; only with [`Setting::forged`].
    pub(crate) fn forge(&self) -> &Forge {
        self.forge.as_ref().expect("the stage is forged")
    }

    /// A connection to Redis, as producers have.
    pub(crate) async fn producer(&self) -> anyhow::Result<MultiplexedConnection> {
        self.redis.connect().await
    }

    /// Starts the daemon and waits until it owns the queue.
    pub(crate) async fn start(&self) -> anyhow::Result<Tidegate> {
        self.start_as(&self.launch).await
    }

    /// The same with another launch.
    pub(crate) async fn start_as(&self, launch: &Launch) -> anyhow::Result<Tidegate> {
        let tidegate = launch.start().await?;
        let owns = |metrics: &Metrics| {
            let held = metrics.sum("tidegate_lease_held", &[("queue", self.queue.as_str())]);
            anyhow::ensure!(held == 1.0, "the queue is not owned");
            Ok(())
        };
        tidegate.metrics_when(PATIENCE, "the queue to be owned", owns).await?;
        Ok(tidegate)
    }

    /// Pushes events to the queue.
    pub(crate) async fn push<E: AsRef<[u8]>>(
        &self,
        events: impl IntoIterator<Item = E>,
    ) -> anyhow::Result<()> {
        let mut producer = self.producer().await?;
        if self.is_stream {
            return add(&mut producer, &self.queue, events).await;
        }
        push(&mut producer, &self.queue, events).await
    }

    /// Waits until the queue is drained; the account must be in order then.
    pub(crate) async fn settled(&self, tidegate: &Tidegate) -> anyhow::Result<Metrics> {
        settled(&self.redis, &self.queue, tidegate).await
    }

    /// The document of that id.
    pub(crate) async fn document(&self, id: impl Into<bson::Bson>) -> anyhow::Result<Option<Document>> {
        document(&self.database, "documents", id).await
    }

    /// The dead letters so far.
    pub(crate) async fn dead_letters(&self) -> anyhow::Result<Vec<Value>> {
        dead_letters(&mut self.producer().await?, &self.queue).await
    }
}

/// Waits until a queue is drained; the account must be in order then.
pub(crate) async fn settled(redis: &Redis, queue: &str, tidegate: &Tidegate) -> anyhow::Result<Metrics> {
    // An instance that does not own the queue yet has nothing to say of it, so Redis is asked first.
    empty(redis, queue).await.with_context(|| format!("{:#?}", tidegate.log()))?;
    let metrics = tidegate.idle(queue, PATIENCE).await?;
    assert_accounting(&metrics, queue);
    Ok(metrics)
}

/// Waits until nothing is left in a queue.
pub(crate) async fn empty(redis: &Redis, queue: &str) -> anyhow::Result<()> {
    let mut connection = redis.connect().await?;
    try_eventually(PATIENCE, "the queue to be empty", async || match length(&mut connection, queue).await {
        Ok(0) => Ok(()),
        Ok(left) => Err(format!("{left} are left")),
        Err(error) => Err(error.to_string()),
    })
    .await
}

/// A native event that updates a document.
pub(crate) fn update(id: &str, update: Value) -> String {
    json!({ "collection": "documents", "id": id, "update": update }).to_string()
}

/// The workload of the reliability tests: event `n` of a document appends `n` to its log and counts it.
pub(crate) fn logged(id: &str, n: usize) -> String {
    update(id, json!({ "$push": { "log": n }, "$inc": { "count": 1 }, "$set": { "last": n } }))
}

/// Asserts that exactly the events `0..events` were applied to a document, in order.
pub(crate) fn assert_exact(document: Option<&Document>, events: usize) {
    let document = document.unwrap_or_else(|| panic!("a document with {events} events is missing"));
    let log: Vec<i64> = document.get_array("log").expect("a log").iter().map(number).collect();
    let expected: Vec<i64> = (0..i64::try_from(events).expect("few events")).collect();
    let first = log.iter().zip(&expected).position(|(a, b)| a != b);
    assert!(log == expected, "{} of {events} events; the first out of place is at {first:?}", log.len());
    assert_eq!(number(document.get("count").expect("a count")), expected.len() as i64);
    assert_eq!(number(document.get("last").expect("the last")), expected.len() as i64 - 1);
}

/// An integer of whatever width.
pub(crate) fn number(value: &bson::Bson) -> i64 {
    match value {
        bson::Bson::Int32(n) => (*n).into(),
        bson::Bson::Int64(n) => *n,
        other => panic!("{other} is no integer"),
    }
}

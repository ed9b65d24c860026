//! The servers that everything is measured with, and the events in them.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bson::{Bson, doc};
use mongodb::{Client, Database};
use redis::aio::MultiplexedConnection;

use super::cpu;
use super::stats::{Cpu, Run};
use super::support::{Aof, Durability, Mongo, Redis, try_eventually};
use super::workload::Workload;

/// What everybody drains, and where to.
pub(crate) const QUEUE: &str = "collabQueue";
pub(crate) const COLLECTION: &str = "documents";
/// Where events wait that are kept for the next run, and those of the next run.
const KEPT: &str = "bench:kept";
const STAGED: &str = "bench:staged";
const CHUNK: usize = 1_000;
/// Longer than any run should take.
const LIMIT: Duration = Duration::from_secs(900);
/// Short against any run, and asked seldom enough to cost Redis nothing to speak of.
const GLANCE: Duration = Duration::from_millis(1);

/// Servers of our own, without persistence in Redis and with as much durability in MongoDB as costs nothing: what is
/// measured is what is between them.
pub(crate) struct Servers {
    pub(crate) redis: Redis,
    pub(crate) mongo: Mongo,
    pub(crate) client: Client,
    connection: MultiplexedConnection,
    databases: u32,
    /// How many of which workload's events are kept.
    kept: (&'static str, u64),
}

impl Servers {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let redis = Redis::start_with(Aof::Off).await?;
        let mongo = Mongo::start_with(Durability::Relaxed).await?;
        let (connection, client) = (redis.connect().await?, mongo.client().await?);
        Ok(Self { redis, mongo, client, connection, databases: 0, kept: ("", 0) })
    }

    /// Makes a workload's events, `count` of them, to be staged as often as one likes.
    pub(crate) async fn keep(&mut self, workload: &Workload, count: u64) -> anyhow::Result<()> {
        if self.kept == (workload.name, count) {
            return Ok(());
        }
        self.forget().await?;
        let mut events = workload.generate();
        let mut left = count;
        while left > 0 {
            let mut push = redis::cmd("RPUSH");
            push.arg(KEPT);
            let chunk = left.min(CHUNK as u64);
            (0..chunk).for_each(|_| {
                push.arg(events.next());
            });
            push.exec_async(&mut self.connection).await?;
            left -= chunk;
        }
        self.kept = (workload.name, count);
        Ok(())
    }

    /// Forgets the events kept.
    pub(crate) async fn forget(&mut self) -> anyhow::Result<()> {
        self.kept = ("", 0);
        Ok(redis::cmd("DEL").arg(KEPT).arg(STAGED).exec_async(&mut self.connection).await?)
    }

    /// Copies the first `count` events kept to where they wait to be released.
    pub(crate) async fn stage(&mut self, count: u64) -> anyhow::Result<()> {
        ensure!(count <= self.kept.1, "{count} events wanted, {} kept", self.kept.1);
        let mut pipe = redis::pipe();
        pipe.cmd("COPY").arg(KEPT).arg(STAGED).arg("REPLACE").ignore();
        pipe.cmd("LTRIM").arg(STAGED).arg(0).arg(count - 1).ignore();
        Ok(pipe.exec_async(&mut self.connection).await?)
    }

    /// Makes the staged events the queue, in no time whatever their number. It begins now.
    pub(crate) async fn release(&mut self) -> anyhow::Result<Instant> {
        let began = Instant::now();
        redis::cmd("RENAME").arg(STAGED).arg(QUEUE).exec_async(&mut self.connection).await?;
        Ok(began)
    }

    /// Waits until nothing is queued any more.
    pub(crate) async fn drained(&mut self) -> anyhow::Result<()> {
        let limit = Instant::now() + LIMIT;
        while redis::cmd("LLEN").arg(QUEUE).query_async::<u64>(&mut self.connection).await? > 0 {
            ensure!(Instant::now() < limit, "the queue was not drained within {LIMIT:?}");
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    /// Waits until tidegate has the queue and waits for events.
    pub(crate) async fn taken(&mut self) -> anyhow::Result<()> {
        let connection = &mut self.connection;
        try_eventually(Duration::from_secs(30), "tidegate to take the queue", async || {
            let keys = ["owner", "base"].map(|key| format!("tidegate:{{{QUEUE}}}:{key}"));
            let there: usize = redis::cmd("EXISTS").arg(&keys).query_async(connection).await?;
            ensure!(there == keys.len(), "no owner yet");
            Ok(())
        })
        .await
    }

    /// Adds an event to the queue.
    pub(crate) async fn push(&mut self, event: &str) -> anyhow::Result<()> {
        Ok(redis::cmd("RPUSH").arg(QUEUE).arg(event).exec_async(&mut self.connection).await?)
    }

    /// How many events are read and not committed.
    pub(crate) async fn read_ahead(&mut self) -> anyhow::Result<u64> {
        let keys = ["read", "base"].map(|key| format!("tidegate:{{{QUEUE}}}:{key}"));
        let (read, base): (u64, u64) =
            redis::cmd("MGET").arg(&keys).query_async(&mut self.connection).await?;
        Ok(read - base)
    }

    /// Deletes the queue and all that is known of it.
    pub(crate) async fn clear(&mut self) -> anyhow::Result<()> {
        let keys: Vec<String> =
            redis::cmd("KEYS").arg("*").query_async(&mut self.connection).await.context("KEYS")?;
        let gone: Vec<String> = keys.into_iter().filter(|key| key != KEPT && key != STAGED).collect();
        if !gone.is_empty() {
            redis::cmd("DEL").arg(gone).exec_async(&mut self.connection).await?;
        }
        Ok(())
    }

    /// A database that holds nothing, so that every run finds the same: no document, no collection.
    pub(crate) fn database(&mut self) -> Database {
        self.databases += 1;
        self.client.database(&format!("bench_{}", self.databases))
    }

    /// Makes sure that so many events have taken effect: a run that is fast because it is wrong is none.
    pub(crate) async fn check(&self, database: &Database, events: u64) -> anyhow::Result<()> {
        let sum = doc! { "$group": { "_id": null, "edits": { "$sum": "$edits" } } };
        let mut sums = database.collection::<bson::Document>(COLLECTION).aggregate([sum]).await?;
        ensure!(sums.advance().await?, "no documents");
        let sum = sums.deserialize_current()?;
        let edits = match sum.get("edits") {
            Some(Bson::Int32(edits)) => i64::from(*edits),
            Some(Bson::Int64(edits)) => *edits,
            other => anyhow::bail!("a sum of edits of {other:?}"),
        };
        ensure!(edits as u64 == events, "{edits} of {events} events have taken effect");
        Ok(())
    }

    /// What they are, for people.
    pub(crate) async fn describe(&mut self) -> anyhow::Result<String> {
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut self.connection).await?;
        let redis = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("?");
        let build = self.client.database("admin").run_command(doc! { "buildInfo": 1 }).await?;
        let mongodb = build.get_str("version").unwrap_or("?");
        Ok(format!("Redis {redis} without persistence, {} {mongodb}", self.mongo.name()))
    }

    /// Processor time used so far, with that of a worker.
    pub(crate) fn cpu(&self, worker: u32) -> anyhow::Result<Cpu> {
        let worker = cpu::used(worker)?;
        Ok(Cpu { worker, redis: cpu::used(self.redis.id()?)?, mongodb: cpu::used(self.mongo.id()?)? })
    }

    /// A run that began then, and ends now.
    pub(crate) fn run(&self, events: u64, began: Instant, before: Cpu, worker: u32) -> anyhow::Result<Run> {
        let elapsed = began.elapsed();
        let after = self.cpu(worker)?;
        let cpu = Cpu {
            worker: after.worker - before.worker,
            redis: after.redis - before.redis,
            mongodb: after.mongodb - before.mongodb,
        };
        Ok(Run { events, elapsed, cpu })
    }
}

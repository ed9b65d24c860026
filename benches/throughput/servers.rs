//! Runs the servers that everything is measured with, and fills them with events.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bson::{Bson, doc};
use mongodb::{Client, Database};
use redis::aio::MultiplexedConnection;

use super::cpu;
use super::kind::Kind;
use super::stats::{Cpu, Run};
use super::support::{Aof, Durability, Mongo, Redis, try_eventually};
use super::workload::Workload;

/// What everybody drains, and where to.
pub(crate) const QUEUE: &str = "collabQueue";
pub(crate) const COLLECTION: &str = "documents";
/// Where the events of the next run wait.
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
    /// How many of which workload's events are kept, by kind.
    kept: [(&'static str, u64); Kind::ALL.len()],
}

impl Servers {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let redis = Redis::start_with(Aof::Off).await?;
        let mongo = Mongo::start_with(Durability::Relaxed).await?;
        let (connection, client) = (redis.connect().await?, mongo.client().await?);
        Ok(Self { redis, mongo, client, connection, databases: 0, kept: Default::default() })
    }

    /// Makes a workload's events, `count` of them, to be staged as often as one likes.
    pub(crate) async fn keep(&mut self, workload: &Workload, count: u64) -> anyhow::Result<()> {
        let kind = workload.kind;
        if self.kept[kind as usize] == (workload.name, count) {
            return Ok(());
        }
        redis::cmd("DEL").arg(kind.kept()).exec_async(&mut self.connection).await?;
        let mut events = workload.generate();
        for first in (0..count).step_by(CHUNK) {
            let mut pipe = redis::pipe();
            for n in first..count.min(first + CHUNK as u64) {
                pipe.add_command(kind.keep(n, events.next())).ignore();
            }
            pipe.exec_async(&mut self.connection).await?;
        }
        self.kept[kind as usize] = (workload.name, count);
        Ok(())
    }

    /// Forgets the events kept.
    pub(crate) async fn forget(&mut self) -> anyhow::Result<()> {
        self.kept = Default::default();
        let kept = Kind::ALL.map(Kind::kept);
        Ok(redis::cmd("DEL").arg(&kept).arg(STAGED).exec_async(&mut self.connection).await?)
    }

    /// Copies as many events as the workload has, of those kept, to where they wait to be released.
    pub(crate) async fn stage(&mut self, workload: &Workload) -> anyhow::Result<()> {
        let (kind, count) = (workload.kind, workload.events);
        let (_, kept) = self.kept[kind as usize];
        ensure!(count <= kept, "{count} events wanted, {kept} kept");
        let mut pipe = redis::pipe();
        pipe.cmd("COPY").arg(kind.kept()).arg(STAGED).arg("REPLACE").ignore();
        pipe.add_command(kind.cut(STAGED, count)).ignore();
        Ok(pipe.exec_async(&mut self.connection).await?)
    }

    /// Makes the staged events the queue, in no time whatever their number. It begins now.
    pub(crate) async fn release(&mut self, kind: Kind) -> anyhow::Result<Instant> {
        if kind == Kind::Stream {
            self.found_group().await?;
        }
        let began = Instant::now();
        redis::cmd("RENAME").arg(STAGED).arg(QUEUE).exec_async(&mut self.connection).await?;
        Ok(began)
    }

    /// Gives the staged stream a consumer group like the queue's, which goes with the stream whose name it takes.
    async fn found_group(&mut self) -> anyhow::Result<()> {
        let known = format!("tidegate:{{{QUEUE}}}:stream");
        let position: Option<String> =
            redis::cmd("HGET").arg(known).arg("position").query_async(&mut self.connection).await?;
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(STAGED).arg("tidegate").arg(position.as_deref().unwrap_or("0"));
        Ok(create.arg("ENTRIESREAD").arg(0).exec_async(&mut self.connection).await?)
    }

    /// Waits until nothing is queued any more.
    pub(crate) async fn drained(&mut self, kind: Kind) -> anyhow::Result<()> {
        let limit = Instant::now() + LIMIT;
        while kind.length().query_async::<u64>(&mut self.connection).await? > 0 {
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
    pub(crate) async fn push(&mut self, kind: Kind, event: &str) -> anyhow::Result<()> {
        Ok(kind.push(event).exec_async(&mut self.connection).await?)
    }

    /// How many events are read and not committed.
    pub(crate) async fn read_ahead(&mut self) -> anyhow::Result<u64> {
        let keys = ["read", "base"].map(|key| format!("tidegate:{{{QUEUE}}}:{key}"));
        let (read, base): (u64, u64) =
            redis::cmd("MGET").arg(&keys).query_async(&mut self.connection).await?;
        Ok(read - base)
    }

    /// The offset of the event that is first in the queue, or the next one there.
    pub(crate) async fn base(&mut self) -> anyhow::Result<i64> {
        let key = format!("tidegate:{{{QUEUE}}}:base");
        Ok(redis::cmd("GET").arg(key).query_async(&mut self.connection).await?)
    }

    /// Deletes the queue and all that is known of it.
    pub(crate) async fn clear(&mut self) -> anyhow::Result<()> {
        let keys: Vec<String> =
            redis::cmd("KEYS").arg("*").query_async(&mut self.connection).await.context("KEYS")?;
        let gone: Vec<String> = keys.into_iter().filter(|key| !key.starts_with("bench:")).collect();
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

    /// Makes the documents that a workload finds.
    pub(crate) async fn make(&self, database: &Database, workload: &Workload) -> anyhow::Result<()> {
        let documents: Vec<_> =
            workload.existing().map(|id| doc! { "_id": id, "title": "a document" }).collect();
        if !documents.is_empty() {
            database.collection(COLLECTION).insert_many(documents).await?;
        }
        Ok(())
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
        Ok(Run { events, elapsed, cpu, peak: None })
    }
}

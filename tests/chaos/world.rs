//! Starts what a round takes place in: servers, instances of tidegate behind proxies of their own, producers.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bson::{Document, doc};
use mongodb::Database;
use nix::sys::signal::Signal;
use redis::aio::MultiplexedConnection;
use serde_json::Value;

use crate::deck::{Deletions, Fault, Side};
use crate::history;
use crate::plan::Plan;
use crate::receipts::{Found, Listener};
use crate::support::{
    Aof, Durability, Forge, Launch, Mongo, Proxy, Redis, Tidegate, add, check_accounting, dead_letters,
    length, push, try_eventually,
};
use crate::workload::Workload;

pub(crate) const QUEUE: &str = "chaos";
const DATABASE: &str = "chaos";
/// How long to wait for what takes a second or two. Longer than the daemon's longest pause between two attempts.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    /// First, so that they end first.
    pub(crate) instances: Vec<Instance>,
    pub(crate) workload: Workload,
    pub(crate) redis: Redis,
    pub(crate) mongo: Mongo,
    pub(crate) replica: Option<Replica>,
    /// Between the instances and MongoDB, where its answers are forged.
    pub(crate) forge: Option<Forge>,
    receipts: Listener,
    database: Database,
    probes: u32,
    is_stream: bool,
}

/// A second Redis, which follows the first.
pub(crate) struct Replica {
    pub(crate) redis: Redis,
    /// What it hears of the first.
    pub(crate) link: Proxy,
}

/// An instance of tidegate, killed and started again.
pub(crate) struct Instance {
    launch: Launch,
    tidegate: Option<Tidegate>,
    pub(crate) redis: Proxy,
    pub(crate) mongo: Proxy,
    /// What those said that are no more.
    log: Vec<String>,
}

impl World {
    /// `release` is a release build of tidegate, if there is one.
    pub(crate) async fn build(plan: &Plan, release: Option<&Path>) -> anyhow::Result<Self> {
        let aof = match plan.fault {
            Fault::CutTail => Aof::EverySecond,
            fault if fault.fills_redis() => Aof::EverySecond,
            fault if fault.kills_redis() => Aof::Always,
            _ => Aof::Off,
        };
        let durability = if plan.fault.kills_mongo() { Durability::Synced } else { Durability::Relaxed };
        let (redis, mongo) = tokio::join!(Redis::start_with(aof), Mongo::start_with(durability));
        let (redis, mongo) = (redis?, mongo?);
        let mut instances = Vec::new();
        let forge = match plan.fault.forges() {
            true => Some(Forge::in_front_of(mongo.address()?).await?),
            false => None,
        };
        let address = forge.as_ref().map_or(mongo.address()?, Forge::address);
        for _ in 0..plan.instances {
            instances.push(Instance::start(plan, redis.address()?, address, release).await?);
        }
        let replica = if plan.fault.has_replica() {
            let link = Proxy::start(redis.address()?).await?;
            let replica = Redis::start_with(Aof::Off).await?;
            history::follow(&redis, &replica, link.address()).await?;
            Some(Replica { redis: replica, link })
        } else {
            None
        };
        let database = mongo.database(DATABASE).await?;
        let workload = Workload::start(plan, QUEUE, redis.url());
        let may_be_gone = plan.deletions == Some(Deletions::Hard);
        let receipts = Listener::start(workload.url(), database.clone(), QUEUE, may_be_gone);
        Ok(Self {
            instances,
            forge,
            receipts,
            workload,
            redis,
            mongo,
            replica,
            database,
            probes: 0,
            is_stream: plan.trim.is_some(),
        })
    }

    /// Which instance owns the queue.
    pub(crate) async fn owner(&self) -> anyhow::Result<usize> {
        try_eventually(PATIENCE, "an owner", async || {
            for (index, instance) in self.instances.iter().enumerate() {
                if instance.owns().await {
                    return Ok(index);
                }
            }
            Err("none")
        })
        .await
    }

    /// Waits until an event that is pushed now is durable. Answers how long that is after `since`.
    pub(crate) async fn recovery(&mut self, since: Instant) -> anyhow::Result<Duration> {
        self.probes += 1;
        let id = format!("probe{}", self.probes);
        let event = format!(r#"{{"collection":"probes","id":"{id}","update":{{"$set":{{"is":true}}}}}}"#);
        let mut connection = self.redis.connect().await?;
        if self.is_stream {
            add(&mut connection, QUEUE, [event]).await?;
        } else {
            push(&mut connection, QUEUE, [event]).await?;
        }
        try_eventually(PATIENCE, "tidegate to recover", async || {
            let probes = self.database.collection::<Document>("probes");
            probes.find_one(doc! { "_id": &id }).await?.context("the probe is not durable yet")
        })
        .await?;
        Ok(since.elapsed())
    }

    /// Waits until nothing is left to be done. Every instance must have its account in order. Answers how many events
    /// they found applied already, not counting instances that are no more, and the dead letters.
    pub(crate) async fn settle(&self) -> anyhow::Result<(usize, Vec<Value>)> {
        let mut connection = self.redis.connect().await?;
        try_eventually(PATIENCE, "the queue to be empty", async || {
            let left = length(&mut connection, QUEUE).await?;
            ensure!(left == 0, "{left} events are left");
            Ok(())
        })
        .await?;
        let mut deduplicated = 0.0;
        for instance in &self.instances {
            let tidegate = instance.tidegate.as_ref().context("an instance is not running")?;
            let metrics = tidegate.idle(QUEUE, PATIENCE).await?;
            check_accounting(&metrics, QUEUE)?;
            deduplicated += metrics.sum("tidegate_events_deduplicated_total", &[("queue", QUEUE)]);
        }
        let letters = dead_letters(&mut connection, QUEUE).await?;
        Ok((deduplicated as usize, letters))
    }

    /// What became of the receipts so far.
    pub(crate) async fn receipts(&self) -> anyhow::Result<Found> {
        self.receipts.finish(self.redis.connect().await?).await
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<MultiplexedConnection> {
        self.redis.connect().await
    }

    /// What all instances have said.
    pub(crate) fn log(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (index, instance) in self.instances.iter().enumerate() {
            let now = instance.tidegate.as_ref().map(Tidegate::log).unwrap_or_default();
            all.extend(instance.log.iter().chain(&now).map(|line| format!("[{index}] {line}")));
        }
        all
    }
}

impl Instance {
    async fn start(
        plan: &Plan,
        redis: std::net::SocketAddr,
        mongo: std::net::SocketAddr,
        release: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let (redis, mongo) = (Proxy::start(redis).await?, Proxy::start(mongo).await?);
        let launch = Launch::config(plan.config(QUEUE))
            .env("TIDEGATE_REDIS__URL", format!("redis://{}/", redis.address()))
            // Without directConnection the client would ask the server where it is, and go there.
            .env("TIDEGATE_MONGODB__URI", format!("mongodb://{}/?directConnection=true", mongo.address()))
            .env("TIDEGATE_MONGODB__DATABASE", DATABASE);
        let launch = match release.filter(|_| plan.release) {
            Some(release) => launch.program(vec![release.display().to_string()]),
            None => launch,
        };
        let tidegate = Some(launch.spawn().await?);
        Ok(Self { launch, tidegate, redis, mongo, log: Vec::new() })
    }

    pub(crate) fn proxy(&self, side: Side) -> &Proxy {
        match side {
            Side::Redis => &self.redis,
            Side::Mongo => &self.mongo,
        }
    }

    async fn owns(&self) -> bool {
        let Some(tidegate) = &self.tidegate else { return false };
        let Ok(metrics) = tidegate.metrics().await else { return false };
        metrics.get("tidegate_lease_held", &[("queue", QUEUE)]) == Some(1.0)
    }

    /// SIGKILL, and another one in its place.
    pub(crate) async fn kill_and_restart(&mut self) -> anyhow::Result<()> {
        let tidegate = self.tidegate.take().context("it is not running")?;
        self.log.extend(tidegate.log());
        tidegate.kill9()?;
        self.log.push("--- killed ---".to_owned());
        self.tidegate = Some(self.launch.spawn().await?);
        Ok(())
    }

    /// SIGTERM, and another one in its place.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        let exited = self.tidegate.take().context("it is not running")?.terminate().await?;
        self.log.extend(exited.lines);
        ensure!(exited.status.success(), "it ended with {}", exited.status);
        self.log.push("--- terminated ---".to_owned());
        self.tidegate = Some(self.launch.spawn().await?);
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.tidegate.as_ref().context("it is not running")?.signal(signal)
    }

    /// It finds no Redis any more.
    pub(crate) fn lose_redis(&self) {
        self.redis.refuse();
        self.redis.cut();
    }
}

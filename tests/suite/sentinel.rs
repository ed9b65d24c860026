//! Tests Redis behind Sentinel: the primary dies, a replica takes its place.

use anyhow::Context;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use crate::stage::{PATIENCE, Setting, assert_exact, logged, settled};
use crate::support::{Process, Redis, command, eventually, free_port, push};

type Outcome = anyhow::Result<()>;

/// A sentinel that watches a primary.
struct Sentinel {
    _process: Process,
    _folder: TempDir,
    url: String,
}

impl Sentinel {
    async fn start(primary: &Redis) -> anyhow::Result<Self> {
        let (folder, port) = (tempfile::tempdir()?, free_port()?);
        let watched = primary.address()?;
        let config = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor collab {} {} 1\n\
             sentinel down-after-milliseconds collab 500\nsentinel failover-timeout collab 5000\n",
            watched.ip(),
            watched.port()
        );
        let file = folder.path().join("sentinel.conf");
        std::fs::write(&file, config)?;
        let mut command = command("redis-server");
        command.arg(&file).arg("--sentinel");
        let process = Process::spawn("sentinel", command)?;
        let sentinel =
            Sentinel { _process: process, _folder: folder, url: format!("redis://127.0.0.1:{port}") };
        eventually(PATIENCE, "the sentinel to know the primary's replica", async || {
            let replicas: Vec<redis::Value> = redis::cmd("SENTINEL")
                .arg(&["replicas", "collab"])
                .query_async(&mut sentinel.connect().await?)
                .await?;
            anyhow::ensure!(replicas.len() == 1, "{} replicas", replicas.len());
            anyhow::Ok(())
        })
        .await;
        Ok(sentinel)
    }

    async fn connect(&self) -> anyhow::Result<MultiplexedConnection> {
        Ok(redis::Client::open(self.url.as_str())?.get_multiplexed_async_connection().await?)
    }
}

/// Waits until the replica has all that the primary acknowledged.
async fn replicated(primary: &Redis) -> anyhow::Result<()> {
    let mut connection = primary.connect().await?;
    let caught_up: u64 =
        redis::cmd("WAIT").arg(1).arg(PATIENCE.as_millis() as u64).query_async(&mut connection).await?;
    anyhow::ensure!(caught_up == 1, "the replica lags");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_new_primary_is_drained_after_a_failover() -> Outcome {
    let stage = Setting::new().own_servers().stage().await?;
    let (mut primary, queue) = (stage.redis, stage.queue);
    let replica = Redis::start().await?;
    let address = primary.address()?;
    redis::cmd("REPLICAOF")
        .arg(address.ip().to_string())
        .arg(address.port())
        .query_async::<()>(&mut replica.connect().await?)
        .await?;
    let sentinel = Sentinel::start(&primary).await?;
    let mut tidegate = stage
        .launch
        .env("TIDEGATE_REDIS__SENTINELS", format!("[\"{}\"]", sentinel.url))
        .env("TIDEGATE_REDIS__SENTINEL_PRIMARY", "collab")
        // Only the address comes from the sentinel; this one is nobody's.
        .env("TIDEGATE_REDIS__URL", "redis://127.0.0.1:1/")
        .start()
        .await?;
    push(&mut primary.connect().await?, &queue, (0..500).map(|n| logged("doc", n))).await?;
    settled(&primary, &queue, &tidegate).await?;
    push(&mut primary.connect().await?, &queue, (500..600).map(|n| logged("doc", n))).await?;
    replicated(&primary).await?;

    primary.kill()?;
    tidegate.logged("redis is down", PATIENCE).await?;
    eventually(PATIENCE, "the replica to be promoted", async || {
        let role: Vec<redis::Value> = redis::cmd("ROLE").query_async(&mut replica.connect().await?).await?;
        let role: String = redis::from_redis_value_ref(role.first().context("a role")?)?;
        anyhow::ensure!(role == "master", "{role}");
        anyhow::Ok(())
    })
    .await;
    push(&mut replica.connect().await?, &queue, (600..1000).map(|n| logged("doc", n))).await?;
    settled(&replica, &queue, &tidegate).await?;
    let document = crate::support::document(&stage.database, "documents", "doc").await?;
    assert_exact(document.as_ref(), 1000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_that_know_nothing_are_told_of() -> Outcome {
    let stage = Setting::new().stage().await?;
    let mut tidegate =
        stage.launch.env("TIDEGATE_REDIS__SENTINELS", format!("[\"{}\"]", stage.redis.url())).spawn().await?;
    tidegate.logged("no sentinel tells where the primary is", PATIENCE).await?;
    Ok(())
}

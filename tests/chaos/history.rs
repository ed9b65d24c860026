//! Changes what Redis remembers: replicas that take over, and append-only files that lose their end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use redis::AsyncCommands;

use crate::support::{Redis, try_eventually};

const PATIENCE: Duration = Duration::from_secs(20);

/// Has a replica follow a primary that it finds at `link`, and waits until it has everything.
pub(crate) async fn follow(primary: &Redis, replica: &Redis, link: SocketAddr) -> anyhow::Result<()> {
    let set = ["SET", "repl-diskless-sync-delay", "0"];
    let () = redis::cmd("CONFIG").arg(&set).query_async(&mut primary.connect().await?).await?;
    let mut connection = replica.connect().await?;
    let () = redis::cmd("REPLICAOF")
        .arg(link.ip().to_string())
        .arg(link.port())
        .query_async(&mut connection)
        .await?;
    try_eventually(PATIENCE, "the replica to follow", async || {
        let info: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await?;
        ensure!(info.contains("master_link_status:up"), "{info}");
        Ok(())
    })
    .await
}

/// Waits until a replica has all that the primary has acknowledged.
pub(crate) async fn wait_for_replica(primary: &Redis) -> anyhow::Result<()> {
    let mut connection = primary.connect().await?;
    // WAIT looks at the writes of its own connection only.
    let () = connection.incr("chaos:mark", 1).await?;
    let limit = PATIENCE.as_millis() as u64 / 2;
    let replicas: u64 = redis::cmd("WAIT").arg(1).arg(limit).query_async(&mut connection).await?;
    ensure!(replicas == 1, "the replica does not keep up");
    Ok(())
}

/// Makes a replica the primary.
pub(crate) async fn promote(replica: &Redis) -> anyhow::Result<()> {
    let mut connection = replica.connect().await?;
    Ok(redis::cmd("REPLICAOF").arg(&["NO", "ONE"]).query_async(&mut connection).await?)
}

/// What is in a queue.
pub(crate) async fn elements(redis: &Redis, queue: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut connection = redis.connect().await?;
    let kind: String = redis::cmd("TYPE").arg(queue).query_async(&mut connection).await?;
    if kind != "stream" {
        return Ok(connection.lrange(queue, 0, -1).await?);
    }
    type Entry = (String, Vec<(String, Vec<u8>)>);
    let entries: Vec<Entry> =
        redis::cmd("XRANGE").arg(queue).arg("-").arg("+").query_async(&mut connection).await?;
    Ok(entries.into_iter().flat_map(|(_, fields)| fields).map(|(_, event)| event).collect())
}

/// How long the append-only file is, when all that was acknowledged is in it.
pub(crate) async fn written(redis: &Redis) -> anyhow::Result<u64> {
    let mut connection = redis.connect().await?;
    try_eventually(PATIENCE, "the append-only file to be written", async || {
        let info: String = redis::cmd("INFO").arg("persistence").query_async(&mut connection).await?;
        ensure!(info.contains("aof_buffer_length:0\r"), "{info}");
        Ok(())
    })
    .await?;
    Ok(std::fs::metadata(tail(redis)?)?.len())
}

/// Takes up to so many bytes off the end of the append-only file of a Redis that is not running, but leaves the first
/// `least`. Answers how many.
pub(crate) fn cut_tail(redis: &Redis, bytes: u64, least: u64) -> anyhow::Result<u64> {
    let file = std::fs::OpenOptions::new().write(true).open(tail(redis)?)?;
    let length = file.metadata()?.len();
    let cut = bytes.min(length.saturating_sub(least));
    file.set_len(length - cut)?;
    Ok(cut)
}

/// The file to which Redis appends now. It begins another only to rewrite, which is long beyond what a round writes.
fn tail(redis: &Redis) -> anyhow::Result<PathBuf> {
    let folder = redis.folder()?.join("appendonlydir");
    let files =
        std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    let mut incremental = files.into_iter().filter(|file| file.to_string_lossy().ends_with(".incr.aof"));
    let file = incremental.next().with_context(|| format!("no append-only file in {}", folder.display()))?;
    ensure!(incremental.next().is_none(), "several append-only files in {}", folder.display());
    Ok(file)
}

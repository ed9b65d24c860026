//! Measures the limits: what the servers alone allow, with a loop that does nothing else.

use std::hint::black_box;
use std::time::Instant;

use anyhow::ensure;
use bson::{Bson, RawDocumentBuf, doc};

use super::kind::Kind;
use super::servers::{COLLECTION, QUEUE, Servers};
use super::stats::Run;
use super::workload::Workload;

/// Statements of a command: tidegate's `batch.max_ops`.
const STATEMENTS: usize = 1_000;

/// Reads the queue to its end: a window, and what trims it, in one pipeline. Nothing is done with what was read.
pub(crate) async fn drain(servers: &mut Servers, workload: &Workload) -> anyhow::Result<Run> {
    servers.stage(workload).await?;
    let before = servers.cpu(std::process::id())?;
    let began = servers.release(workload.kind).await?;
    let (url, window) = (servers.redis.url().to_owned(), workload.window);
    let drained = match workload.kind {
        Kind::List => tokio::task::spawn_blocking(move || drain_list(&url, window)),
        Kind::Stream => tokio::task::spawn_blocking(move || drain_stream(&url, window)),
    };
    let drained = drained.await??;
    ensure!(drained == workload.events, "{drained} events drained");
    servers.run(workload.events, began, before, std::process::id())
}

fn drain_list(url: &str, window: usize) -> anyhow::Result<u64> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    let mut pipe = redis::pipe();
    pipe.cmd("LRANGE").arg(QUEUE).arg(0).arg(window - 1);
    pipe.cmd("LTRIM").arg(QUEUE).arg(window).arg(-1).ignore();
    let mut drained = 0;
    loop {
        let (events,): (Vec<Vec<u8>>,) = pipe.query(&mut connection)?;
        if events.is_empty() {
            return Ok(drained);
        }
        drained += black_box(events).len() as u64;
    }
}

/// As of a list. What was read is trimmed with the next read, when its last id is known.
fn drain_stream(url: &str, window: usize) -> anyhow::Result<u64> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    let mut drained = 0;
    let mut past = "0".to_owned();
    loop {
        let mut pipe = redis::pipe();
        pipe.cmd("XTRIM").arg(QUEUE).arg("MINID").arg(&past).ignore();
        pipe.cmd("XRANGE").arg(QUEUE).arg(format!("({past}")).arg("+").arg("COUNT").arg(window);
        let (entries,): (Vec<(String, Vec<Vec<u8>>)>,) = pipe.query(&mut connection)?;
        let Some((last, _)) = entries.last() else { return Ok(drained) };
        past.clone_from(last);
        drained += black_box(entries).len() as u64;
    }
}

/// Sends commands of guarded upserts, one after the other, that were made before the clock starts.
pub(crate) async fn upserts(servers: &mut Servers, workload: &Workload) -> anyhow::Result<Run> {
    let commands = commands(workload)?;
    let database = servers.database();
    // What connects.
    database.run_command(doc! { "ping": 1 }).await?;
    let before = servers.cpu(std::process::id())?;
    let began = Instant::now();
    for command in commands {
        let reply = database.run_raw_command(command).await?;
        ensure!(!reply.contains_key("writeErrors"), "refused: {reply}");
    }
    let run = servers.run(workload.events, began, before, std::process::id())?;
    servers.check(&database, workload.events).await?;
    database.drop().await?;
    Ok(run)
}

/// An upsert for each event: right only where every event is another document's.
fn commands(workload: &Workload) -> anyhow::Result<Vec<RawDocumentBuf>> {
    let watermark = format!("_tidegate.{QUEUE}");
    let mut events = workload.generate();
    let mut commands = Vec::new();
    let mut offset = 1_i64 << 36;
    let mut left = workload.events as usize;
    while left > 0 {
        let count = left.min(STATEMENTS);
        let mut updates = Vec::with_capacity(count);
        for _ in 0..count {
            let event: serde_json::Value = serde_json::from_str(events.next())?;
            let text = |key: &str| event["payload"][key].as_str().unwrap_or_default();
            updates.push(Bson::Document(doc! {
                "q": { "_id": text("docId"), &watermark: { "$not": { "$gte": offset } } },
                "u": {
                    "$set": { "text": text("text"), "updatedBy": text("userId"), &watermark: offset },
                    "$inc": { "edits": 1 },
                },
                "upsert": true,
            }));
            offset += 1;
        }
        let concern = doc! { "w": "majority" };
        let command =
            doc! { "update": COLLECTION, "ordered": false, "writeConcern": concern, "updates": updates };
        commands.push(RawDocumentBuf::try_from(&command)?);
        left -= count;
    }
    Ok(commands)
}

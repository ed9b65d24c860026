//! Measures the limits: what the servers alone allow, with a loop that does nothing else.

use std::collections::HashMap;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use anyhow::{Context, ensure};
use bson::{Bson, Document, RawDocumentBuf, doc};

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

/// Reads a list to its end as [`drain`] does, by a plain socket: nothing is made of the elements, they are only passed over.
pub(crate) async fn drain_by_socket(servers: &mut Servers, workload: &Workload) -> anyhow::Result<Run> {
    servers.stage(workload).await?;
    let before = servers.cpu(std::process::id())?;
    let began = servers.release(workload.kind).await?;
    let (url, window) = (servers.redis.url().to_owned(), workload.window);
    let drained = tokio::task::spawn_blocking(move || pass_over_list(&url, window)).await??;
    ensure!(drained == workload.events, "{drained} events drained");
    servers.run(workload.events, began, before, std::process::id())
}

fn pass_over_list(url: &str, window: usize) -> anyhow::Result<u64> {
    let address = url.strip_prefix("redis://").context("a server's address")?;
    let mut socket = TcpStream::connect(address.trim_end_matches('/'))?;
    let mut replies = BufReader::with_capacity(1 << 18, socket.try_clone()?);
    let ask = format!("LRANGE {QUEUE} 0 {}\r\nLTRIM {QUEUE} {window} -1\r\n", window - 1);
    let mut line = String::new();
    let mut number = |replies: &mut BufReader<TcpStream>, kind: char| -> anyhow::Result<u64> {
        line.clear();
        replies.read_line(&mut line)?;
        line.trim_end().strip_prefix(kind).with_context(|| format!("{line:?}"))?.parse().context("a number")
    };
    let mut drained = 0;
    loop {
        socket.write_all(ask.as_bytes())?;
        let elements = number(&mut replies, '*')?;
        for _ in 0..elements {
            let bytes = number(&mut replies, '$')? + 2;
            std::io::copy(&mut replies.by_ref().take(bytes), &mut std::io::sink())?;
        }
        let mut trimmed = [0; b"+OK\r\n".len()];
        replies.read_exact(&mut trimmed)?;
        ensure!(&trimmed == b"+OK\r\n", "LTRIM was refused");
        if elements == 0 {
            return Ok(drained);
        }
        drained += elements;
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
    send(servers, workload, upsert_commands(workload)?).await
}

/// Writes each document that the events leave once, as cheaply as the server can: what is new is inserted, what is there is
/// updated under its guard.
pub(crate) async fn writes(servers: &mut Servers, workload: &Workload) -> anyhow::Result<Run> {
    send(servers, workload, write_commands(workload)?).await
}

async fn send(
    servers: &mut Servers,
    workload: &Workload,
    commands: Vec<RawDocumentBuf>,
) -> anyhow::Result<Run> {
    let database = servers.database();
    servers.make(&database, workload).await?;
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
fn upsert_commands(workload: &Workload) -> anyhow::Result<Vec<RawDocumentBuf>> {
    let mut events = workload.generate();
    let mut updates = Vec::with_capacity(workload.events as usize);
    for offset in 0..workload.events as i64 {
        let Content { id, fields } = Content::of(events.next())?;
        updates.push(update(id, fields, 1, offset));
    }
    commands("update", "updates", updates)
}

/// The document that each event leaves, or what makes it of the one that is there.
fn write_commands(workload: &Workload) -> anyhow::Result<Vec<RawDocumentBuf>> {
    let mut events = workload.generate();
    let mut left: HashMap<String, (Document, i32, i64)> = HashMap::new();
    for offset in 0..workload.events as i64 {
        let Content { id, fields } = Content::of(events.next())?;
        let known = left.entry(id).or_default();
        *known = (fields, known.1 + 1, offset);
    }
    let left = left.into_iter();
    if workload.existing {
        let updates = left.map(|(id, (fields, edits, offset))| update(id, fields, edits, offset));
        return commands("update", "updates", updates.collect());
    }
    let documents = left.map(|(id, (fields, edits, offset))| {
        let mut document = doc! { "_id": id, "_tidegate": { QUEUE: FIRST + offset } };
        document.extend(fields);
        document.insert("edits", edits);
        document
    });
    commands("insert", "documents", documents.collect())
}

/// The first offset that tidegate gives: watermarks take as many bytes.
const FIRST: i64 = 1 << 36;

/// What an event says.
struct Content {
    id: String,
    fields: Document,
}

impl Content {
    fn of(event: &str) -> anyhow::Result<Self> {
        let event: serde_json::Value = serde_json::from_str(event)?;
        let text = |key: &str| event["payload"][key].as_str().map(str::to_owned);
        let mut fields = doc! { "text": text("text") };
        // Small events do not tell.
        if let Some(user) = text("userId") {
            fields.insert("updatedBy", user);
        }
        Ok(Self { id: text("docId").context("no docId")?, fields })
    }
}

fn update(id: String, fields: Document, edits: i32, offset: i64) -> Document {
    let watermark = format!("_tidegate.{QUEUE}");
    let offset = FIRST + offset;
    let mut set = fields;
    set.insert(&watermark, offset);
    doc! {
        "q": { "_id": id, watermark: { "$not": { "$gte": offset } } },
        "u": { "$set": set, "$inc": { "edits": edits } },
        "upsert": true,
    }
}

fn commands(name: &str, list: &str, statements: Vec<Document>) -> anyhow::Result<Vec<RawDocumentBuf>> {
    let mut commands = Vec::new();
    for some in statements.chunks(STATEMENTS) {
        let concern = doc! { "w": "majority" };
        let statements: Vec<Bson> = some.iter().cloned().map(Bson::Document).collect();
        let command = doc! { name: COLLECTION, "ordered": false, "writeConcern": concern, list: statements };
        commands.push(RawDocumentBuf::try_from(&command)?);
    }
    Ok(commands)
}

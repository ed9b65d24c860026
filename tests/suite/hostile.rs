//! Tests events that mean harm, or that a broken producer sends: mutations of valid ones, by the ten thousand.
//! This is the part of `make fuzz` that every test run can afford; FUZZ_EVENTS and FUZZ_SEED are for more.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bson::{Bson, Document, doc};
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tidegate::config::{DEAD, EPOCHS};
use tidegate::dead_letter::Reason;
use tidegate::decode::Decoder;
use tidegate::trace::TraceRef;

use self::events::{Events, GOOD_DOCUMENTS, GOOD_EVERY, good_document};
use crate::stage::{PATIENCE, Setting, Stage, assert_exact};
use crate::support::{Tidegate, count, document, length, push, try_eventually};

mod events;
mod mutate;
mod pipeline;
mod tree;

type Outcome = anyhow::Result<()>;

const EVENTS: usize = 30_000;
/// What the daemon may ever have resident: `buffer.max_bytes`, and room for the largest events on their way.
const MEMORY: u64 = 300 << 20;
/// Events in the queue beyond which producers wait, so that Redis need not hold a million.
const BACKLOG: usize = 10_000;
const CHUNK: usize = 500;
/// What is tidegate's own in MongoDB; events must not reach it.
const OWN_COLLECTIONS: [&str; 2] = [EPOCHS, DEAD];
/// An offset is an epoch and, in so many low bits, an index.
const INDEX_BITS: u32 = 36;

const CONFIG: &str = r#"
buffer.max_bytes = "32MiB"
redis.timeout = "60s"
"#;

/// A dead letter, as its reader sees it.
#[derive(Deserialize)]
struct Letter<'a> {
    #[serde(borrow, default, deserialize_with = "there")]
    event: Option<&'a RawValue>,
    event_base64: Option<String>,
    reason: String,
    class: String,
    code: Option<i32>,
    offset: i64,
    queue: String,
    traceparent: Option<String>,
    at: String,
}

/// A value that is there, be it null.
fn there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// What is known of the dead letters so far.
#[derive(Default)]
struct Letters {
    by_class: BTreeMap<String, usize>,
    count: usize,
    traced: usize,
    refused_by_mongodb: u64,
    last: i64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_events_harm_nobody() -> Outcome {
    let total: usize = from_environment("FUZZ_EVENTS")?.unwrap_or(EVENTS);
    let seed: u64 = from_environment("FUZZ_SEED")?.unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("{total} hostile events; FUZZ_SEED={seed} makes the same again");
    let events = Events::new(seed)?;
    let mut stage = Setting::new().with(CONFIG).with(&events.routes()?).stage().await?;
    // A lease lost on a busy machine would number the events anew, and they are told by their numbers here.
    stage.launch = stage.launch.env("TIDEGATE_LEASE__TTL", "60s");
    make_picky(&stage).await?;
    let tidegate = stage.start().await?;

    let mut producer = stage.producer().await?;
    let mut letters = Letters::default();
    for first in (0..total).step_by(CHUNK) {
        let chunk = (first..total.min(first + CHUNK)).map(|number| events.event(number));
        push(&mut producer, &stage.queue, chunk).await?;
        shrunk(&mut producer, &stage.queue, BACKLOG).await?;
        letters.take(&mut producer, &stage.queue, &events).await?;
        if first % 50_000 == 0 {
            println!("{first}: {} dead letters, {} MiB", letters.count, tidegate.resident_bytes()? >> 20);
        }
    }
    shrunk(&mut producer, &stage.queue, 0).await?;
    let metrics = stage.settled(&tidegate).await?;
    letters.take(&mut producer, &stage.queue, &events).await?;

    let sum = |name: &str| metrics.sum(name, &[("queue", stage.queue.as_str())]);
    assert_eq!(sum("tidegate_events_received_total"), total as f64);
    assert_eq!(sum("tidegate_takeovers_total"), 1.0, "the queue changed hands");
    let skipped = sum("tidegate_events_skipped_total");
    assert_eq!(sum("tidegate_events_deduplicated_total"), skipped, "an event was applied before");
    assert_eq!(sum("tidegate_events_dead_lettered_total"), letters.count as f64);
    println!("dead letters: {:#?}", letters.by_class);
    // Otherwise nothing but the decoder was put to the test.
    assert!(letters.count < total * 3 / 4, "only {} events were persisted", total - letters.count);
    assert!(letters.traced > 0, "no dead letter has a trace");
    for reason in
        [Reason::NotJson, Reason::BadKey, Reason::TypeMismatch, Reason::UniqueIndex, Reason::Validation]
    {
        assert!(letters.by_class.contains_key(reason.label()), "no event was refused as {}", reason.label());
    }
    assert_eq!(count(&stage.database, EPOCHS).await?, 1);
    assert_eq!(count(&stage.database, DEAD).await?, letters.refused_by_mongodb);
    check_documents(&stage, &events, total).await?;
    end(tidegate).await
}

/// Mutations of what is no event to begin with would all be refused at the door.
#[test]
fn what_is_mutated_is_valid() -> Outcome {
    let events = Events::new(0)?;
    let routes = events.routes()?;
    let config = format!("queues = [{{ key = \"q\" }}]\nnative.collections = [\"documents\"]\n{routes}");
    let mut decoder = Decoder::new(&toml::from_str(&config)?);
    for event in events.valid() {
        let decoded = decoder.decode(event.as_bytes());
        // Some routes say that their events are to be skipped.
        let is_taken =
            decoded.as_ref().err().is_none_or(|refused| refused.rejection.reason == Reason::Skipped);
        assert!(is_taken, "{event}: {decoded:?}");
    }
    Ok(())
}

/// What `cargo fuzz` goes on with; see `fuzz/`.
#[test]
fn the_pipeline_holds_without_servers() -> Outcome {
    let events = Events::new(fastrand::u64(..1 << 32))?;
    for first in (0..5_000).step_by(CHUNK) {
        let chunk: Vec<Vec<u8>> = (first..first + CHUNK).map(|number| events.event(number)).collect();
        pipeline::run(&chunk.join(&b'\n'));
    }
    Ok(())
}

/// Gives MongoDB reasons to refuse: a validator, and an index that is unique.
async fn make_picky(stage: &Stage) -> Outcome {
    let validator = doc! {"total": {"$not": {"$lt": 0}}};
    stage.database.run_command(doc! {"create": "all", "validator": validator}).await?;
    let index = doc! {"key": {"unique": 1}, "name": "unique", "unique": true, "sparse": true};
    stage.database.run_command(doc! {"createIndexes": "documents", "indexes": [index]}).await?;
    Ok(())
}

fn from_environment<T: FromStr<Err: Into<anyhow::Error>>>(name: &str) -> anyhow::Result<Option<T>> {
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    text.parse().map(Some).map_err(Into::into).with_context(|| format!("{name}={text}"))
}

/// Waits until no more than `most` events are left. It may take long, but not without getting anywhere.
async fn shrunk(producer: &mut MultiplexedConnection, queue: &str, most: usize) -> Outcome {
    let mut left = length(producer, queue).await?;
    while left > most {
        left = try_eventually(PATIENCE, "an event to be settled", async || {
            let now = length(producer, queue).await?;
            ensure!(now < left, "{now} events are left");
            anyhow::Ok(now)
        })
        .await?;
    }
    Ok(())
}

impl Letters {
    /// Takes the dead letters out of their list, and looks at each.
    async fn take(&mut self, producer: &mut MultiplexedConnection, queue: &str, events: &Events) -> Outcome {
        loop {
            let mut lpop = redis::cmd("LPOP");
            lpop.arg(format!("{queue}:dead")).arg(200);
            let letters: Option<Vec<Vec<u8>>> = lpop.query_async(producer).await?;
            let Some(letters) = letters else { return Ok(()) };
            for letter in letters {
                self.check(&letter, queue, events).with_context(|| {
                    String::from_utf8_lossy(&letter[..letter.len().min(2_000)]).into_owned()
                })?;
            }
        }
    }

    fn check(&mut self, letter: &[u8], queue: &str, events: &Events) -> Outcome {
        let letter: Letter<'_> = serde_json::from_slice(letter)?;
        ensure!(Reason::ALL.iter().any(|reason| reason.label() == letter.class), "no such class");
        ensure!(letter.class != Reason::Crash.label(), "it was taken for one that kills");
        ensure!(!letter.reason.is_empty() && letter.queue == queue && letter.at.ends_with('Z'));
        let trace = letter.traceparent.as_deref();
        ensure!(trace.is_none_or(|trace| TraceRef::new(trace.as_bytes()).is_some()), "no valid trace");
        self.traced += usize::from(trace.is_some());
        ensure!(letter.offset > self.last, "it comes after offset {}", self.last);
        let number = usize::try_from(letter.offset & ((1 << INDEX_BITS) - 1))?;
        let pushed = events.event(number);
        ensure!(!number.is_multiple_of(GOOD_EVERY), "nothing is wrong with event {number}");
        match (letter.event, letter.event_base64) {
            (Some(event), None) => {
                let text = std::str::from_utf8(&pushed)?;
                ensure!(event.get() == text.trim_ascii(), "not event {number}: {text}");
            }
            (None, Some(event)) => ensure!(STANDARD.decode(event)? == pushed, "not event {number}"),
            _ => anyhow::bail!("no event, or two"),
        }
        self.last = letter.offset;
        self.count += 1;
        // The decoder sees by itself what would be code 40.
        let by_mongodb = letter.code.is_some() && letter.class != Reason::PathConflict.label();
        self.refused_by_mongodb += u64::from(by_mongodb);
        *self.by_class.entry(letter.class).or_default() += 1;
        Ok(())
    }
}

/// The good events among the hostile ones are all there, and no event got to where it must not.
async fn check_documents(stage: &Stage, events: &Events, total: usize) -> Outcome {
    let good = total.div_ceil(GOOD_EVERY);
    for n in 0..GOOD_DOCUMENTS {
        let found = document(&stage.database, "documents", good_document(n)).await?;
        assert_exact(found.as_ref(), good.saturating_sub(n).div_ceil(GOOD_DOCUMENTS));
    }
    let names = stage.database.list_collection_names().await?;
    let mut documents = 0;
    for name in names.iter().filter(|name| !OWN_COLLECTIONS.contains(&name.as_str())) {
        assert!(events.collections().contains(&name.as_str()), "nobody named the collection {name}");
        let watermarks = doc! {"_tidegate": 1, "_tidegateDeleted": 1};
        let mut cursor =
            stage.database.collection::<Document>(name).find(doc! {}).projection(watermarks).await?;
        while cursor.advance().await? {
            let found = cursor.deserialize_current()?;
            let queues = found.get_document("_tidegate").with_context(|| format!("{name}: {found}"))?;
            let ours = queues.iter().all(|(key, mark)| *key == stage.queue && matches!(mark, Bson::Int64(_)));
            assert!(ours && queues.len() == 1, "{name}: {found}");
            let deleted = found.get("_tidegateDeleted");
            assert!(matches!(deleted, None | Some(Bson::DateTime(_))), "{name}: {found}");
            documents += 1;
        }
    }
    println!("{documents} documents in {} collections", names.len());
    assert!(documents > GOOD_DOCUMENTS, "only good events came through");
    Ok(())
}

/// The daemon has lived through all of it, in bounded memory, and ends in order.
async fn end(tidegate: Tidegate) -> Outcome {
    let peak = tidegate.peak_resident_bytes()?;
    println!("at most {} MiB resident", peak >> 20);
    assert!(peak < MEMORY, "{peak} bytes were resident");
    let exited = tidegate.terminate().await?;
    assert!(exited.status.success(), "{}", exited.status);
    let panics: Vec<_> = exited.lines.iter().filter(|line| line.contains("panicked")).collect();
    assert!(panics.is_empty(), "{panics:#?}");
    Ok(())
}

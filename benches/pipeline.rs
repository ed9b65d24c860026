//! What an event costs on its way, without servers: decode, route, fold, encode. `make microbench`
//!
//! Throughput is in events, so the time of one event is the time shown divided by the events of an iteration:
//! criterion's "thrpt" says it in events a second.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![allow(clippy::expect_used, reason = "a benchmark that cannot go on should stop there")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidegate::buffer::Buffer;
use tidegate::change::Placed;
use tidegate::config::Config;
use tidegate::event::{Collections, Decoder};
use tidegate::lane::pending::Pending;
use tidegate::metrics::QueueMetrics;
use tidegate::settle::Ledger;
use tidegate::sink::{Encoder, Guard, Limits, Tombstones};
use tokio::time::Instant;

const ENTITIES: usize = 5_000;
const EVENTS: usize = 20_000;
const MAX_BYTES: usize = 1 << 30;

/// The article's event, about 140 bytes.
fn article(n: usize) -> String {
    format!(
        r#"{{"type":"UPDATE_CONTENT","ts":1700000000000,"payload":{{"docId":"doc-{}","userId":"u{}","text":"some text that was typed {n}"}}}}"#,
        n * 7 % ENTITIES,
        n % 100,
    )
}

fn native(n: usize) -> String {
    let id = n * 7 % ENTITIES;
    format!(
        r#"{{"collection":"documents","id":"doc-{id}","update":{{"$set":{{"text":"typed {n}"}},"$inc":{{"edits":1}},"$push":{{"log":{n}}}}}}}"#
    )
}

/// Routes of which the `last` matches the article's events.
fn config(last: usize) -> Config {
    let mut toml = "queues = [{ key = 'q' }]\nnative.collections = ['documents']\n".to_owned();
    for n in 1..last {
        toml += &format!(
            "[[routes]]\nwhen = {{ type = 'OTHER_{n}' }}\ncollection = 'other'\nid = 'payload.id{n}'\nset = {{ a = 'payload.a{n}' }}\n"
        );
    }
    toml += "[[routes]]\nwhen = { type = 'UPDATE_CONTENT' }\ncollection = 'documents'\nid = 'payload.docId'\nts = 'ts'\n\
             set = { text = 'payload.text', updatedBy = 'payload.userId' }\ninc = { edits = 1 }\n";
    toml::from_str(&toml).expect("a configuration")
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(EVENTS as u64));
    let articles: Vec<String> = (0..EVENTS).map(article).collect();
    for routes in [1, 20] {
        let mut decoder = Decoder::new(&config(routes));
        group.bench_function(BenchmarkId::new("route", routes), |b| {
            b.iter(|| {
                for event in &articles {
                    black_box(decoder.decode(event.as_bytes()).expect("a change"));
                }
            });
        });
    }
    let natives: Vec<String> = (0..EVENTS).map(native).collect();
    let mut decoder = Decoder::new(&Config { routes: Vec::new(), ..config(1) });
    group.bench_function("native", |b| {
        b.iter(|| {
            for event in &natives {
                black_box(decoder.decode(event.as_bytes()).expect("a change"));
            }
        });
    });
    group.finish();
}

/// Changes in a chunk, as a lane gets them.
fn chunk(event: impl Fn(usize) -> String) -> tidegate::change::Chunk {
    let mut decoder = Decoder::new(&config(1));
    let seed = foldhash::quality::RandomState::default();
    let mut chunk = tidegate::change::Chunk::default();
    for n in 0..EVENTS {
        let event = event(n);
        let change = decoder.decode(event.as_bytes()).expect("a change");
        let hash = change.entity.hash(&seed);
        chunk.push(Placed { offset: n as i64, hash, change });
    }
    chunk
}

fn ledger() -> Arc<Ledger> {
    let buffer = Buffer::new(&Config::default().buffer);
    Ledger::new(Arc::new(QueueMetrics::new("q", &["documents".into(), "other".into()])), buffer)
}

fn pending(ledger: &Arc<Ledger>, chunk: &tidegate::change::Chunk) -> Pending {
    let mut pending = Pending::new(ledger);
    pending.take_on(ledger.receive(chunk.len() as u64));
    let now = Instant::now();
    for placed in chunk.iter() {
        black_box(pending.fold(&placed, now, MAX_BYTES));
    }
    pending
}

fn fold(c: &mut Criterion) {
    let mut group = c.benchmark_group("fold");
    group.throughput(Throughput::Elements(EVENTS as u64));
    let ledger = ledger();
    let document = r#"{"collection":"documents","id":1,"replace":{"a":{"b":{"c":1}},"n":1}}"#;
    let deep = |n: usize| match n {
        0 => document.to_owned(),
        n => format!(
            r#"{{"collection":"documents","id":1,"update":{{"$set":{{"a.b.c":{n}}},"$inc":{{"n":1}}}}}}"#
        ),
    };
    let workloads: [(&str, tidegate::change::Chunk); 3] =
        [("article", chunk(article)), ("native", chunk(native)), ("into a replacement", chunk(deep))];
    for (name, chunk) in &workloads {
        group.bench_function(*name, |b| b.iter(|| pending(&ledger, chunk).events()));
    }
    group.finish();
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(ENTITIES as u64));
    let ledger = ledger();
    let collections = Collections::new(&config(1));
    let guard = Guard::new("q");
    let concern = bson::serialize_to_vec(&bson::doc! {"w": "majority"}).expect("a document");
    let encoder = Encoder {
        collections: &collections,
        limits: Limits { max_bytes: 16 << 20, max_statements: 100_000 },
        write_concern: &concern,
        guard: Some(&guard),
        tombstones: &Tombstones::default(),
        ordered: false,
    };
    for (name, chunk) in [("article", chunk(article)), ("native", chunk(native))] {
        let writes = pending(&ledger, &chunk).next_segments();
        group.bench_function(name, |b| {
            b.iter(|| encoder.commands(&writes).for_each(|command| drop(black_box(command))))
        });
    }
    group.finish();
}

criterion_group! {
    name = pipeline;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    targets = decode, fold, encode
}
criterion_main!(pipeline);

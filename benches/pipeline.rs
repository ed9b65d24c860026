//! Measures what an event costs on its way, without servers: decode, route, fold, encode. `make microbench`
//!
//! Throughput is in events, so the time of one event is the time shown divided by the events of an iteration:
//! criterion's "thrpt" says it in events a second.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![allow(clippy::expect_used, reason = "a benchmark that cannot go on should stop there")]

mod corpus;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidegate::change::Chunk;
use tidegate::config::Config;
use tidegate::decode::Decoder;

use self::corpus::{ENTITIES, EVENTS, article, chunk, config, encoder, ledger, native, pending};

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
    let workloads: [(&str, Chunk); 3] =
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
    for (name, chunk) in [("article", chunk(article)), ("native", chunk(native))] {
        let writes = pending(&ledger, &chunk).next_segments();
        encoder(|encoder| {
            group.bench_function(name, |b| {
                b.iter(|| {
                    encoder.commands(writes.iter().enumerate()).for_each(|command| drop(black_box(command)))
                });
            });
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

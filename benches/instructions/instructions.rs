//! Runs one phase of an event's way, to have its instructions counted: `make instructions`.
//!
//! Time depends on the machine and on what else it does; how many instructions it takes does hardly. Without servers,
//! and small: callgrind is some fifty times slower than the machine.
#![allow(clippy::expect_used, reason = "a benchmark that cannot go on should stop there")]

#[path = "../corpus/mod.rs"]
mod corpus;

use std::hint::black_box;

use tidegate::config::Config;
use tidegate::decode::Decoder;

use self::corpus::{EVENTS, article, chunk, config, encoder, ledger, native, pending};

fn main() {
    let phase = std::env::args().nth(1).unwrap_or_default();
    match phase.as_str() {
        "decode-routed" => decode(config(20), article),
        "decode-native" => decode(Config { routes: Vec::new(), ..config(1) }, native),
        "fold" => {
            let (ledger, chunk) = (ledger(), chunk(article));
            measured(|| pending(&ledger, &chunk));
        }
        "encode" => {
            let writes = pending(&ledger(), &chunk(article)).next_segments();
            encoder(|encoder| {
                measured(|| {
                    encoder.commands(writes.iter().enumerate()).for_each(|command| drop(black_box(command)))
                })
            });
        }
        _ => panic!("no such phase: {phase:?}"),
    }
    // What the instructions are divided by.
    println!("{EVENTS}");
}

fn decode(config: Config, event: impl Fn(usize) -> String) {
    let events: Vec<String> = (0..EVENTS).map(event).collect();
    let mut decoder = Decoder::new(&config);
    measured(|| {
        for event in &events {
            black_box(decoder.decode(event.as_bytes()).expect("a change"));
        }
    });
}

/// Callgrind counts from here to its end, and nothing else.
#[inline(never)]
fn measured<R>(work: impl FnOnce() -> R) -> R {
    black_box(work())
}

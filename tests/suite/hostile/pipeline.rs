//! Takes an event its way without servers: decode, route, fold, encode. The fuzz target in `fuzz/` is this, too.
//!
//! Nothing may panic, and what comes out must be BSON that MongoDB can read, and dead letters that are JSON.

use std::sync::{Arc, LazyLock};

use bson::RawDocument;
use serde_json::value::RawValue;
use tidegate::buffer::Buffer;
use tidegate::change::Collections;
use tidegate::change::{Chunk, Entity, Placed, TimingId};
use tidegate::config::Config;
use tidegate::dead_letter::{self, Dead};
use tidegate::decode::{Decoder, Refused};
use tidegate::lane::pending::Pending;
use tidegate::ledger::Ledger;
use tidegate::metrics::QueueMetrics;
use tidegate::sink::{CommandLimits, Encoder, Guard, Tombstones};
use tokio::time::Instant;

/// Small, so that updates are split into segments.
const MAX_BYTES: usize = 16 * 1024;

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let routes = include_str!("routes.toml");
    let head = "queues = [{ key = 'q' }]\nnative.collections = ['documents']\n";
    toml::from_str(&format!("{head}{routes}")).expect("a configuration")
});

/// Sends events, one on each line, that way.
pub(crate) fn run(input: &[u8]) {
    let config: &Config = &CONFIG;
    let collections = Collections::new(config);
    let metrics = Arc::new(QueueMetrics::new("q", collections.names()));
    let ledger = Ledger::new(metrics, Buffer::new(&config.buffer));
    let pending = fold(config, &ledger, input);
    encode(&collections, pending);
}

fn fold(config: &Config, ledger: &Arc<Ledger>, input: &[u8]) -> Pending {
    let seed = foldhash::quality::RandomState::default();
    let mut decoder = Decoder::new(config);
    let mut chunk = Chunk::default();
    for (offset, event) in (1..).zip(input.split(|byte| *byte == b'\n')) {
        match decoder.decode(event) {
            Ok(change) => {
                let hash = change.entity.hash(&seed);
                chunk.push(Placed { offset, hash, change }, TimingId::default());
            }
            Err(refused) => {
                let now = bson::DateTime::from_millis(0);
                let Refused { rejection, traceparent, entity, .. } = &*refused;
                let entity = entity.as_ref().map(Entity::get);
                let dead = Dead { offset, event, rejection, traceparent: *traceparent, entity };
                let letter = dead_letter::render(&dead, "q", now);
                // However deep, and whatever its numbers are.
                serde_json::from_str::<&RawValue>(&letter).expect("a dead letter is JSON");
            }
        }
    }
    let mut pending = Pending::new(ledger);
    pending.take_on(ledger.receive(chunk.len() as u64));
    let now = Instant::now();
    for (placed, _) in chunk.iter() {
        pending.fold(&placed, now, MAX_BYTES);
    }
    pending
}

fn encode(collections: &Collections, mut pending: Pending) {
    let concern = bson::serialize_to_vec(&bson::doc! {"w": "majority"}).expect("a document");
    let guard = Guard::new("q");
    let encoder = Encoder {
        collections,
        limits: CommandLimits { max_bytes: 16 << 20, max_statements: 100_000 },
        write_concern: &concern,
        guard: Some(&guard),
        tombstones: &Tombstones::default(),
        ordered: false,
    };
    while pending.events() > 0 {
        let events = pending.events();
        let writes = pending.next_segments();
        for command in encoder.commands(writes.iter().enumerate()) {
            let document = RawDocument::from_bytes(&command.body).expect("a command is a document");
            bson::Document::try_from(document).expect("a command is BSON to the end");
        }
        drop(writes);
        assert!(pending.events() < events, "segments that are taken settle events");
    }
}

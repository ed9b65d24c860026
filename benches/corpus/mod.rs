//! Makes events, and what they come to on their way, for whoever measures that without servers.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use tidegate::buffer::Buffer;
use tidegate::change::Collections;
use tidegate::change::{Chunk, Placed, TimingId};
use tidegate::config::Config;
use tidegate::decode::Decoder;
use tidegate::lane::pending::Pending;
use tidegate::ledger::Ledger;
use tidegate::metrics::QueueMetrics;
use tidegate::sink::{CommandLimits, Encoder, Guard, Tombstones};
use tokio::time::Instant;

pub(crate) const ENTITIES: usize = 5_000;
pub(crate) const EVENTS: usize = 20_000;
pub(crate) const MAX_BYTES: usize = 1 << 30;

/// The article's event, about 140 bytes.
pub(crate) fn article(n: usize) -> String {
    format!(
        r#"{{"type":"UPDATE_CONTENT","ts":1700000000000,"payload":{{"docId":"doc-{}","userId":"u{}","text":"some text that was typed {n}"}}}}"#,
        n * 7 % ENTITIES,
        n % 100,
    )
}

/// The same as a native event, with a log.
pub(crate) fn native(n: usize) -> String {
    let id = n * 7 % ENTITIES;
    format!(
        r#"{{"collection":"documents","id":"doc-{id}","update":{{"$set":{{"text":"typed {n}"}},"$inc":{{"edits":1}},"$push":{{"log":{n}}}}}}}"#
    )
}

/// Routes of which the `last` matches the article's events.
pub(crate) fn config(last: usize) -> Config {
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

/// Changes in a chunk, as a lane gets them.
pub(crate) fn chunk(event: impl Fn(usize) -> String) -> Chunk {
    let mut decoder = Decoder::new(&config(1));
    let seed = foldhash::quality::RandomState::default();
    let mut chunk = Chunk::default();
    for n in 0..EVENTS {
        let event = event(n);
        let change = decoder.decode(event.as_bytes()).expect("a change");
        let hash = change.entity.hash(&seed);
        chunk.push(Placed { offset: n as i64, hash, change }, TimingId::default());
    }
    chunk
}

/// An account of its own.
pub(crate) fn ledger() -> Arc<Ledger> {
    let buffer = Buffer::new(&Config::default().buffer);
    Ledger::new(Arc::new(QueueMetrics::new("q", &["documents".into(), "other".into()])), buffer)
}

/// Everything in a chunk, folded.
pub(crate) fn pending(ledger: &Arc<Ledger>, chunk: &Chunk) -> Pending {
    // As a lane has it.
    let mut pending = Pending::with_deadlines(ledger, Duration::from_millis(50));
    pending.take_on(ledger.receive(chunk.len() as u64));
    let now = Instant::now();
    for (placed, _) in chunk.iter() {
        black_box(pending.fold(&placed, now, MAX_BYTES));
    }
    pending
}

/// Hands an encoder to `work`, as a lane has one.
pub(crate) fn encoder<R>(work: impl FnOnce(&Encoder<'_>) -> R) -> R {
    let collections = Collections::new(&config(1));
    let guard = Guard::new("q");
    let concern = bson::serialize_to_vec(&bson::doc! {"w": "majority"}).expect("a document");
    let encoder = Encoder {
        collections: &collections,
        limits: CommandLimits { max_bytes: 16 << 20, max_statements: 100_000 },
        write_concern: &concern,
        guard: Some(&guard),
        tombstones: &Tombstones::default(),
        ordered: false,
    };
    work(&encoder)
}

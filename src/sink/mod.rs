//! Writes to MongoDB, one attempt at a time. Who asks decides what an error means for its events.

mod applied;
mod attempt;
mod bulk_command;
mod cause;
mod client;
mod code;
mod collections;
mod command;
mod compact;
mod dead;
mod epoch;
mod error;
mod expiry;
mod expr;
mod history;
mod insert;
mod insert_rate;
mod inspect;
mod json_patch;
mod kept_letters;
#[cfg(test)]
mod law;
mod operator;
mod pipeline;
mod preview;
mod recent_writes;
mod reply;
mod tombstone;
#[cfg(test)]
mod tombstone_tests;
mod uri;
mod watermark;
mod write;

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc};
use tokio::time::{Instant, timeout};

pub(crate) use self::applied::NamedDocument;
pub(crate) use self::bulk_command::COMMAND_BYTES;
pub use self::bulk_command::CommandLimits;
pub(crate) use self::client::Connections;
pub use self::command::{Command, Encoder, Guard};
pub(crate) use self::compact::Grown;
pub(crate) use self::epoch::Owner;
pub(crate) use self::error::SinkError;
use self::insert_rate::InsertRate;
pub(crate) use self::preview::preview;
pub(crate) use self::reply::{Refusal, Verdict};
pub use self::tombstone::Tombstones;
pub use self::uri::check_uri;
pub(crate) use self::watermark::{FoundWatermark, Strange};
pub use self::write::Write;
use crate::caused::Caused;
use crate::change::CollectionId;
use crate::config::{self, EPOCHS};
use crate::health::Health;
use crate::live_settings::LiveSettings;
use crate::metrics::WriteMetrics;
use crate::raw::{self, begin_document, end_document};
use crate::retry::Class;

/// MongoDB: the user has not the right to.
const UNAUTHORIZED: i32 = 13;

/// The oldest wire version spoken: MongoDB 5.0's.
const MIN_WIRE_VERSION: i32 = 13;

/// MongoDB, as a place to write to.
#[derive(Debug)]
pub(crate) struct Sink {
    connections: Arc<Connections>,
    live: Arc<LiveSettings>,
    limits: CommandLimits,
    write_concern: Vec<u8>,
    /// Reading back what was written must not see what may yet be rolled back.
    read_concern: &'static str,
    timeout: Duration,
    tombstones: Tombstones,
    insert_rate: InsertRate,
    /// When something was last written to each collection.
    written: parking_lot::Mutex<HashMap<CollectionId, Instant>>,
    /// New documents may be inserted before it is known that they are new.
    may_insert: bool,
    health: Arc<Health>,
    metrics: Arc<WriteMetrics>,
}

impl Sink {
    /// Asks the server what it is and accepts. Whoever asked tells of a failure: else one that comes after a good answer
    /// would be another outage each time.
    pub(crate) async fn connect(
        connections: Arc<Connections>,
        config: &config::Config,
        live: Arc<LiveSettings>,
        health: Arc<Health>,
        metrics: Arc<WriteMetrics>,
    ) -> Result<Self, SinkError> {
        let tombstones = Tombstones::new(config, &live.mapping().collections);
        let config = &config.mongodb;
        let mut sink = Sink {
            connections,
            tombstones,
            insert_rate: InsertRate::default(),
            written: parking_lot::Mutex::default(),
            may_insert: false,
            live,
            limits: CommandLimits { max_bytes: 16 * 1024 * 1024, max_statements: 100_000 },
            write_concern: write_concern(&config.write_concern),
            read_concern: if config.write_concern == "1" { "local" } else { "majority" },
            timeout: config.timeout,
            health,
            metrics,
        };
        let hello = sink.ask(&doc! {"hello": 1}).await?;
        let wire = hello.get_i32("maxWireVersion").unwrap_or(0);
        if wire < MIN_WIRE_VERSION {
            return Err(SinkError::fatal(format!(
                "MongoDB 5.0 or newer is needed; the server speaks wire version {wire}, not {MIN_WIRE_VERSION}"
            )));
        }
        let limit =
            |key, default| hello.get_i32(key).ok().and_then(|n| usize::try_from(n).ok()).unwrap_or(default);
        sink.limits = CommandLimits {
            max_bytes: limit("maxBsonObjectSize", sink.limits.max_bytes),
            max_statements: limit("maxWriteBatchSize", sink.limits.max_statements),
        };
        sink.may_insert = !is_router(&hello);
        // Neither credentials nor the write concern are looked at by `hello`; they are by a write of nothing.
        let nothing = doc! {
            "update": EPOCHS,
            "updates": [{"q": {"_id": {"$in": []}}, "u": {"$set": {"epoch": 0}}}],
            "writeConcern": raw_to_document(&sink.write_concern),
        };
        let unusable = |text: &dyn Display| format!("mongodb.write_concern cannot be used: {text}");
        match sink.ask(&nothing).await {
            Err(error) if error.class() == Class::Data => {
                Err(SinkError::fatal(Caused::of(unusable(&error), error)))
            }
            Err(error) => Err(error),
            Ok(reply) => match reply.get_document("writeConcernError") {
                // UnknownReplWriteConcern, UnsatisfiableWriteConcern
                Ok(error) if matches!(error.get_i32("code"), Ok(79 | 100)) => {
                    Err(SinkError::fatal(unusable(&error.get_str("errmsg").unwrap_or_default())))
                }
                _ => {
                    sink.health.mongodb.up();
                    Ok(sink)
                }
            },
        }
    }

    /// For a command that ends: nobody else is told how its requests go.
    pub(crate) async fn alone(config: &config::Config) -> Result<Self, SinkError> {
        let live = LiveSettings::new(config);
        let metrics = Arc::new(WriteMetrics::new(live.mapping().collections.names()));
        Self::connect(Connections::new(&config.mongodb), config, live, Health::new(), metrics).await
    }

    /// Ends the client's connections and sessions, which it else does in the background while the runtime ends.
    pub(crate) async fn close(&self) {
        self.connections.close().await;
    }

    /// Whether the server answers. Tells the status.
    pub(crate) async fn ping(&self) {
        // The outcome is the status's.
        let _ = self.run(bson::serialize_to_vec(&doc! {"ping": 1}).unwrap_or_default()).await;
    }

    async fn run_document(&self, command: &Document) -> Result<Document, SinkError> {
        let body = bson::serialize_to_vec(command)?;
        self.run(body).await
    }

    /// Runs a command, within the configured time, whose failure says nothing of the server.
    async fn ask(&self, command: &Document) -> Result<Document, SinkError> {
        self.send(bson::serialize_to_vec(command)?).await
    }

    /// The same for another database than the one that is written to.
    async fn ask_in(&self, database: &str, command: &Document) -> Result<Document, SinkError> {
        let database = self.connections.database().await?.client().database(database);
        match timeout(self.timeout, database.run_command(command.clone())).await {
            Ok(result) => result.map_err(SinkError::from),
            Err(_) => Err(SinkError::transient(format!("no reply within {:?}", self.timeout))),
        }
    }

    /// Whether the server is a mongos.
    fn is_router(&self) -> bool {
        !self.may_insert
    }

    async fn send(&self, body: Vec<u8>) -> Result<Document, SinkError> {
        let command = RawDocumentBuf::from_bytes(body)?;
        let database = self.connections.database().await?;
        let answer = match timeout(self.timeout, database.run_raw_command(command)).await {
            Ok(result) => result.map_err(SinkError::from),
            Err(_) => Err(SinkError::transient(format!("no reply within {:?}", self.timeout))),
        };
        if answer.as_ref().is_err_and(|error| error.is_outage() || error.class() == Class::Fatal) {
            // It may be that others are let in by now.
            self.connections.renew().await;
        }
        answer
    }

    /// Runs a command for documents, within the configured time. A refusal is told with the documents that wait for it, and says
    /// that the server is there.
    async fn run_for_documents(&self, body: Vec<u8>) -> Result<Document, SinkError> {
        let result = self.send(body).await;
        self.tell(&result, |error| !error.is_refusal());
        result
    }

    /// Runs a command, within the configured time, and tells the status how it went.
    async fn run(&self, body: Vec<u8>) -> Result<Document, SinkError> {
        let result = self.send(body).await;
        self.tell(&result, |error| error.class() != Class::Data);
        result
    }

    fn tell(&self, result: &Result<Document, SinkError>, is_down: impl Fn(&SinkError) -> bool) {
        let mongodb = &self.health.mongodb;
        mongodb.was_asked(matches!(result, Err(error) if error.is_outage()));
        match result {
            Err(error) if is_down(error) => mongodb.down(error),
            _ => mongodb.answers(),
        }
    }
}

/// Whether it is a mongos, by its `hello`. A shard knows only its own documents, so a document whose `_id` another shard has
/// would be inserted there a second time.
fn is_router(hello: &Document) -> bool {
    hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid")
}

/// `{w: ...}`, encoded: a number of nodes, or `majority` or a tag set's name.
fn write_concern(w: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let start = begin_document(&mut out);
    match w.parse::<i32>() {
        Ok(nodes) => raw::write_i32(&mut out, "w", nodes),
        Err(_) => raw::write_text(&mut out, "w", w),
    }
    end_document(&mut out, start);
    out
}

fn raw_to_document(bytes: &[u8]) -> Document {
    bson::deserialize_from_slice(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mongos_says_what_it_is() {
        assert!(is_router(&doc! {"ok": 1, "maxWireVersion": 25, "msg": "isdbgrid"}));
        assert!(!is_router(&doc! {"ok": 1, "maxWireVersion": 25, "setName": "rs0"}));
    }
}

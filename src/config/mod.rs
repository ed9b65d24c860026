//! Defines the configuration: what can be set, its defaults, and where values come from.
//!
//! `config.toml` at the top of the repository documents every key for users; these types are its shape.
//! [`Config::load`] (in `load`) layers defaults, file, environment and flags. `check` and `route_rules` hold the rules
//! across keys. `source` is where routes take values from. `error` words every problem as one line. `secret` keeps
//! passwords out of everything that is printed, and `show` prints the effective configuration.
//!
//! A key is written once, as a field: what it is, its default, and its type. `schema` reads all else from there.

mod changes;
mod check;
mod cluster_rules;
mod error;
mod history_rules;
mod hot_state;
mod key_rules;
pub(crate) mod keys;
mod load;
mod partitions;
mod patience;
mod queue;
mod route;
mod route_rules;
mod schema;
mod secret;
mod show;
mod source;
mod source_table;
mod target_rules;
mod timing_rules;
mod units;
mod url_rules;
mod yjs;

#[cfg(test)]
mod load_error_tests;
#[cfg(test)]
mod load_tests;
#[cfg(test)]
mod shipped_file_tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer, Serialize};
use smart_default::SmartDefault;

pub use check::{CheckLiteral, DEAD, EPOCHS};
pub use error::{ConfigError, KeyPath, Problem};
pub use hot_state::HotState;
pub use keys::Keys;
pub use patience::Patience;
pub use queue::{Delivery, MaxLen, Queue, QueueKind, Trim, TrimWord};
pub use route::{Deletes, Empty, Route, Scalar, Skip};
pub use secret::{SecretCommand, SecretUrl};
pub use source::{Amount, Id, Source};
pub use source_table::{Conversion, SourceTable};
pub(crate) use units::{Size, Span};
pub use yjs::{Yjs, YjsEncoding};

#[cfg(test)]
use load_tests::violations;

/// The whole configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the queues are.
    pub redis: Redis,
    /// Where the documents go.
    pub mongodb: Mongodb,
    /// The queues to drain.
    #[schemars(extend("examples" = [[{ "key": "collabQueue" }]]))]
    pub queues: Vec<Queue>,
    /// When a lane's pending changes become a batch.
    pub batch: Batch,
    /// How far reading may run ahead of writing.
    pub buffer: Buffer,
    /// How many lanes share a queue's entities.
    pub lanes: Lanes,
    /// Native events: events written for tidegate.
    pub native: Native,
    /// How any other producer's events become changes; first match wins.
    #[schemars(extend("examples" = [[{ "collection": "documents", "id": "id", "replace": "state" }]]))]
    pub routes: Vec<Route>,
    /// What is left of deleted documents, where a route says so.
    pub tombstones: Tombstones,
    /// Where dead letters go.
    pub dead_letter: DeadLetter,
    /// Telling what is durable.
    pub receipts: Receipts,
    /// How long a queue stays with a silent owner.
    pub lease: Lease,
    /// The HTTP listener for metrics and health.
    pub http: Http,
    /// Logs.
    pub log: Log,
    /// The end.
    pub shutdown: Shutdown,
}

/// `[redis]`
#[derive(Debug, Clone, SmartDefault, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// `redis://`, `rediss://` or `unix://` URL.
    #[default(SecretUrl::new("redis://127.0.0.1:6379"))]
    pub url: SecretUrl,
    /// File that holds the URL; wins over `url`.
    pub url_file: Option<PathBuf>,
    /// Who asks, if the URL does not say.
    pub username: Option<String>,
    /// File that holds the password alone.
    pub password_file: Option<PathBuf>,
    /// Program that prints the password, and its arguments.
    #[schemars(extend("examples" = [["cat", "/run/secrets/redis-password"]]))]
    pub password_command: SecretCommand,
    /// URLs of sentinels, which know where the primary is; it is reached with the rest of `url`.
    #[schemars(extend("examples" = [["redis://10.0.0.1:26379"]]))]
    pub sentinels: Vec<SecretUrl>,
    /// The name under which the sentinels know the primary.
    #[default("mymaster".into())]
    pub sentinel_primary: String,
    /// URLs of some nodes of a Redis Cluster; they tell of the others. All are reached with the rest of `url`.
    #[schemars(extend("examples" = [["redis://10.0.0.1:7000"]]))]
    pub cluster: Vec<SecretUrl>,
    /// What encrypted connections are made with, those to sentinels too.
    #[serde(skip_serializing_if = "Tls::is_none")]
    pub tls: Tls,
    /// Longest wait for a reply, blocking waits excepted.
    #[serde(with = "Span")]
    #[default(Duration::from_secs(5))]
    pub timeout: Duration,
}

/// `[redis.tls]`: files of PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// The authorities that are trusted, and no others.
    pub ca_file: Option<PathBuf>,
    /// The certificate that is shown to servers that want one.
    pub cert_file: Option<PathBuf>,
    /// Its private key.
    pub key_file: Option<PathBuf>,
}

impl Tls {
    /// Whether it is left to defaults.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Tls::default()
    }
}

/// `[mongodb]`
#[derive(Debug, Clone, SmartDefault, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mongodb {
    /// Connection string.
    #[default(SecretUrl::new("mongodb://127.0.0.1:27017"))]
    pub uri: SecretUrl,
    /// File that holds the connection string; wins over `uri`.
    pub uri_file: Option<PathBuf>,
    /// Database of all collections written.
    #[default("collab".into())]
    pub database: String,
    /// `"majority"`, a number of nodes such as `"1"`, or a tag set's name.
    #[default("majority".into())]
    #[schemars(title = "a string such as \"majority\" or \"1\"")]
    pub write_concern: String,
    /// Longest wait for a reply to one command; then it is retried.
    #[serde(with = "Span")]
    #[default(Duration::from_secs(10))]
    pub timeout: Duration,
}

/// `[batch]`: whichever bound is reached first sends the batch.
#[derive(Debug, Clone, SmartDefault, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Batch {
    /// Entities.
    #[default = 1000]
    pub max_ops: usize,
    /// Bytes of pending updates.
    #[serde(with = "Size")]
    #[default(ByteSize::mib(8))]
    pub max_bytes: ByteSize,
    /// Wait of the oldest change.
    #[serde(with = "Span")]
    #[default(Duration::from_millis(50))]
    pub max_delay: Duration,
    /// Wait of the oldest change while a backlog is read whose changes fold.
    #[serde(with = "Span")]
    #[default(Duration::from_secs(2))]
    pub backlog_delay: Duration,
    /// Documents that an instance writes in a second; 0: as many as MongoDB takes.
    #[default = 0]
    pub max_writes_per_second: u64,
}

/// `[buffer]`: read ahead of MongoDB, per instance.
#[derive(Debug, Clone, SmartDefault, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Buffer {
    /// Bytes of events and pending updates held.
    #[serde(with = "Size")]
    #[default(ByteSize::mib(64))]
    pub max_bytes: ByteSize,
    /// Events read and not yet settled.
    #[default = 1_000_000]
    pub max_events: u64,
}

/// `[lanes]`
#[derive(Debug, Clone, SmartDefault, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lanes {
    /// Lanes per queue: batches of one queue that may be in flight at once.
    #[default = 4]
    pub count: usize,
}

/// `[native]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Native {
    /// Collections that native events may name; empty: native events are not accepted.
    #[schemars(extend("examples" = [["documents"]]))]
    pub collections: Vec<String>,
}

/// `[tombstones]`
#[derive(Debug, Clone, SmartDefault, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tombstones {
    /// How long they stay.
    #[serde(with = "Span")]
    #[default(Duration::from_secs(24 * 3600))]
    pub ttl: Duration,
}

/// `[dead_letter]`
#[derive(Debug, Clone, SmartDefault, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DeadLetter {
    /// Appended to the queue's key to name the list of its dead letters.
    #[default(":dead".into())]
    pub suffix: String,
    /// How long an event waits that MongoDB refuses with a code that nobody knows, until it is a dead letter.
    #[default(Patience::of(Duration::from_secs(15 * 60)))]
    pub patience: Patience,
    /// Dead letters that a queue has in Redis; the oldest beyond it are kept in MongoDB.
    #[default = 100_000]
    pub max_events: u64,
    /// How long dead letters are kept, wherever they are.
    #[default(Patience::NEVER)]
    pub max_age: Patience,
}

/// `[receipts]`
#[derive(Debug, Clone, SmartDefault, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Receipts {
    /// Whether there are any.
    pub enabled: bool,
    /// What the collection's name is appended to, for the channel of what is durable.
    #[default("tidegate:durable:".into())]
    pub channel: String,
    /// The same, for dead letters.
    #[default("tidegate:dead:".into())]
    pub dead_channel: String,
}

/// `[lease]`
#[derive(Debug, Clone, SmartDefault, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lease {
    /// How long a queue stays with an owner that is not heard of.
    #[serde(with = "Span")]
    #[default(Duration::from_secs(10))]
    pub ttl: Duration,
}

impl Lease {
    /// How often an owner extends it, and looks whether it still is the owner.
    #[must_use]
    pub fn look_every(&self) -> Duration {
        (self.ttl / 4).min(Duration::from_secs(1))
    }

    /// The same, while nothing is in the queue.
    #[must_use]
    pub fn idle_look_every(&self) -> Duration {
        self.ttl / 4
    }
}

/// `[http]`
#[derive(Debug, Clone, SmartDefault, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Address and port.
    #[default(SocketAddr::from(([127, 0, 0, 1], 9464)))]
    #[schemars(title = "an address and port such as \"127.0.0.1:9464\"")]
    pub listen: SocketAddr,
    /// Whether the status shows the events of dead letters.
    pub show_payloads: bool,
}

/// `[log]`
#[derive(Debug, Clone, SmartDefault, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Filter, in `RUST_LOG` syntax.
    #[default("info".into())]
    pub level: String,
    /// Text or JSON.
    #[serde(deserialize_with = "word")]
    pub format: LogFormat,
}

/// Formats of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// `[shutdown]`
#[derive(Debug, Clone, SmartDefault, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// How long flushing may take after SIGTERM; what is unsettled then stays in Redis.
    #[serde(with = "Span")]
    #[default(Duration::from_secs(25))]
    pub deadline: Duration,
}

/// Reads one of an enum's words. Without it figment takes a number for the index of a variant, and
/// `kind = 0` would silently mean `list`.
fn word<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let word = String::deserialize(deserializer)?;
    T::deserialize(word.into_deserializer())
}

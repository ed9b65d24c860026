//! Checks the rules across keys, which the types cannot express. All violations are found at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytesize::ByteSize;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};

use super::url_rules::check_url;
use super::{Config, Conversion, Deletes, Delivery, KeyPath, Problem, Size, Tls};

/// Lanes of one queue. More would only wait for the same server.
const MAX_LANES: usize = 64;

/// MongoDB refuses more statements in one command.
const MAX_OPS: usize = 100_000;

/// Bounds of a batch. MongoDB takes messages of up to 48 MB; the sink splits below its own limits.
const BATCH_BYTES: (ByteSize, ByteSize) = (ByteSize::kib(1), ByteSize::mib(48));

/// A lease is renewed at a fraction of this; shorter ones would be lost in a pause of the network.
const MIN_LEASE: Duration = Duration::from_secs(1);

/// TTL indexes count in seconds.
const MIN_TOMBSTONE_TTL: Duration = Duration::from_secs(1);

/// MongoDB: no name of a database is longer.
const MAX_DATABASE_BYTES: usize = 63;

/// MongoDB: no name of a database has one of these.
const FORBIDDEN_IN_DATABASE: [char; 12] = ['/', '\\', '.', ' ', '"', '$', '*', '<', '>', ':', '|', '?'];

/// MongoDB's own.
const RESERVED_DATABASES: [&str; 3] = ["admin", "config", "local"];

/// The collection in which tidegate keeps the epochs of its queues.
pub const EPOCHS: &str = "tidegate";

/// The collection in which tidegate records which events are dead letters.
pub const DEAD: &str = "tidegate_dead";

const OWN_COLLECTIONS: [&str; 2] = [EPOCHS, DEAD];

/// Tells whether a literal of a route can be a value, and be converted: those who decode events know.
pub type CheckLiteral = fn(&toml::Value, Option<Conversion>) -> Result<(), String>;

/// Collects what is wrong.
pub(super) struct Violations {
    found: Vec<Problem>,
    /// What is allowed and probably not meant.
    doubts: Vec<Problem>,
    pub(super) check_literal: CheckLiteral,
}

impl Violations {
    /// `key` is wrong unless `holds`.
    pub(super) fn require(&mut self, holds: bool, key: impl Into<KeyPath>, message: impl Into<String>) {
        if !holds {
            self.found.push(Problem { origin: None, key: key.into(), message: message.into() });
        }
    }

    /// `key` is allowed, and probably not meant.
    pub(super) fn doubt(&mut self, key: impl Into<KeyPath>, message: impl Into<String>) {
        self.doubts.push(Problem { origin: None, key: key.into(), message: message.into() });
    }
}

impl Config {
    /// Everything that breaks a rule across keys. [`Config::load`] has asked already; this is for
    /// configurations made in code.
    #[must_use]
    pub fn violations(&self, check_literal: CheckLiteral) -> Vec<Problem> {
        self.judged(check_literal).found
    }

    fn judged(&self, check_literal: CheckLiteral) -> Violations {
        let mut found = Violations { found: Vec::new(), doubts: Vec::new(), check_literal };
        self.check_servers(&mut found);
        self.check_queues(&mut found);
        self.check_keys(&mut found);
        self.check_bounds(&mut found);
        self.check_log(&mut found);
        for (number, name) in self.native.collections.iter().enumerate() {
            check_collection(name, KeyPath::from("native.collections").join(number), &mut found);
        }
        found.require(
            !self.routes.is_empty() || !self.native.collections.is_empty(),
            "routes",
            "no routes, and `native.collections` is empty too: no event could be accepted",
        );
        found.require(
            self.tombstones.ttl >= MIN_TOMBSTONE_TTL,
            "tombstones.ttl",
            "must be at least 1s: they guard against requests that are late",
        );
        // TTL indexes count in seconds, and in 32 bits.
        found.require(
            self.tombstones.ttl.as_secs() <= u64::from(i32::MAX.unsigned_abs()),
            "tombstones.ttl",
            "must be at most 68 years: MongoDB cannot count further",
        );
        self.check_deletes(&mut found);
        self.check_histories(&mut found);
        self.check_hot_states(&mut found);
        for (number, route) in self.routes.iter().enumerate() {
            route.check(&KeyPath::from("routes").join(number), &mut found);
        }
        found
    }

    /// What is allowed and probably not meant, one line each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for queue in &self.queues {
            if queue.delivery == Delivery::AtMostOnce {
                warnings.push(format!(
                    "queue {:?} is drained at-most-once: events in memory are lost in a crash",
                    queue.key
                ));
            }
        }
        for (number, route) in self.routes.iter().enumerate() {
            let shadows = |earlier: &super::Route| {
                (earlier.id == route.id || earlier.skips_matching())
                    && !earlier.skips_empty()
                    && !route.skips_empty()
                    && earlier.when.iter().all(|(path, value)| route.when.get(path) == Some(value))
            };
            if let Some(earlier) = self.routes[..number].iter().position(shadows) {
                warnings.push(format!(
                    "`routes[{number}]` can never be reached: `routes[{earlier}]` matches all of its events"
                ));
            }
        }
        let takes_all = |route: &super::Route| route.when.is_empty() && route.id.is_path("id");
        if let Some(number) = self.routes.iter().position(takes_all)
            && !self.native.collections.is_empty()
        {
            warnings.push(format!(
                "native events can never be reached: `routes[{number}]` matches every event with an `id`"
            ));
        }
        self.warn_of_windows(&mut warnings);
        warnings.extend(self.judged(|_, _| Ok(())).doubts.iter().map(ToString::to_string));
        warnings
    }

    /// A collection has tombstones or it has none: what writes to it has to know.
    fn check_deletes(&self, found: &mut Violations) {
        let mut decided: BTreeMap<&String, (usize, Deletes)> = BTreeMap::new();
        for (number, route) in self.routes.iter().enumerate().filter(|(_, route)| route.delete) {
            for collection in route.collection.iter().chain(&route.collections) {
                let (earlier, deletes) = *decided.entry(collection).or_insert((number, route.deletes));
                let key = KeyPath::from("routes").join(number).join("deletes");
                let message = format!("differs from that of `routes[{earlier}]` for the same collection");
                found.require(deletes == route.deletes, key, message);
            }
        }
    }

    fn check_servers(&self, found: &mut Violations) {
        check_url(&self.redis.url, "redis.url", &["redis", "rediss", "unix"], found);
        for (number, sentinel) in self.redis.sentinels.iter().enumerate() {
            let key = KeyPath::from("redis.sentinels").join(number);
            check_url(sentinel, key, &["redis", "rediss"], found);
        }
        self.check_cluster(found);
        self.redis.check_access(found);
        check_url(&self.mongodb.uri, "mongodb.uri", &["mongodb", "mongodb+srv"], found);

        let database = self.mongodb.database.as_str();
        let key = "mongodb.database";
        found.require(!database.is_empty(), key, "must not be empty");
        found.require(
            !database.contains(FORBIDDEN_IN_DATABASE) && !database.contains('\0'),
            key,
            "must not contain NUL, a space or any of /\\.\"$*<>:|?",
        );
        found.require(
            database.len() <= MAX_DATABASE_BYTES,
            key,
            format!("must not be longer than {MAX_DATABASE_BYTES} bytes"),
        );
        found.require(
            !RESERVED_DATABASES.contains(&database),
            key,
            format!("\"{database}\" is MongoDB's own"),
        );

        let concern = self.mongodb.write_concern.trim();
        found.require(!concern.is_empty(), "mongodb.write_concern", "must not be empty");
        // Unacknowledged writes can be lost, and their events would leave Redis all the same.
        let acknowledged = concern.parse::<i64>().map_or(true, |nodes| nodes >= 1);
        found.require(
            acknowledged,
            "mongodb.write_concern",
            "must be at least 1: writes have to be acknowledged",
        );
    }

    fn check_queues(&self, found: &mut Violations) {
        found.require(!self.queues.is_empty(), "queues", "at least one queue is needed");
        let mut keys = BTreeSet::new();
        let mut ids = BTreeMap::new();
        for (number, queue) in self.queues.iter().enumerate() {
            queue.check(&KeyPath::from("queues").join(number), found);
            let path = KeyPath::from("queues").join(number).join("id");
            match queue.ids() {
                Ok(all) => {
                    for id in all {
                        let message = format!("{id:?} is that of another queue, too");
                        // Of keys that are there twice, that is said.
                        let has_own = ids.insert(id, queue.id.is_some());
                        let is_new = has_own.is_none_or(|other| !other && queue.id.is_none());
                        found.require(is_new, path.clone(), message);
                    }
                }
                Err(fault) => found.require(queue.id.is_none() || queue.keys().is_err(), path, fault),
            }
            let path = KeyPath::from("queues").join(number).join("key");
            match queue.keys() {
                Ok(all) => {
                    for key in all {
                        let message = format!("{key:?} is there twice");
                        found.require(keys.insert(key), path.clone(), message);
                    }
                }
                Err(fault) => found.require(false, path, fault),
            }
        }
        for (key, channel) in [
            ("receipts.channel", &self.receipts.channel),
            ("receipts.dead_channel", &self.receipts.dead_channel),
        ] {
            found.require(!channel.is_empty(), key, "must not be empty");
        }
        found.require(
            !self.dead_letter.suffix.is_empty(),
            "dead_letter.suffix",
            "must not be empty: dead letters would go back into the queue",
        );
    }

    fn check_bounds(&self, found: &mut Violations) {
        let (least, most) = BATCH_BYTES;
        let (batch, buffer) = (&self.batch, &self.buffer);
        found.require(
            (1..=MAX_OPS).contains(&batch.max_ops),
            "batch.max_ops",
            format!("must be from 1 to {MAX_OPS}, is {}", batch.max_ops),
        );
        found.require(
            (least..=most).contains(&batch.max_bytes),
            "batch.max_bytes",
            format!(
                "must be from {} to {}, is {}",
                Size::text(least),
                Size::text(most),
                Size::text(batch.max_bytes)
            ),
        );
        found.require(
            buffer.max_bytes >= batch.max_bytes,
            "buffer.max_bytes",
            format!(
                "must hold at least one batch (`batch.max_bytes` = {}), is {}",
                Size::text(batch.max_bytes),
                Size::text(buffer.max_bytes)
            ),
        );
        found.require(buffer.max_events >= 1, "buffer.max_events", "must be at least 1");
        found.require(
            (1..=MAX_LANES).contains(&self.lanes.count),
            "lanes.count",
            format!("must be from 1 to {MAX_LANES}, is {}", self.lanes.count),
        );
        found.require(self.lease.ttl >= MIN_LEASE, "lease.ttl", "must be at least 1s");
        for (key, timeout) in [
            ("redis.timeout", self.redis.timeout),
            ("mongodb.timeout", self.mongodb.timeout),
            ("shutdown.deadline", self.shutdown.deadline),
        ] {
            found.require(!timeout.is_zero(), key, "must be longer than 0s");
        }
    }

    fn check_log(&self, found: &mut Violations) {
        let level = self.log.level.trim();
        // To the filter, a bare word that is no level is the name of a module: a typing error
        // would silence everything else.
        let is_bare = !level.contains(['=', ',', '[', ':']);
        found.require(
            !level.is_empty()
                && EnvFilter::builder().parse(level).is_ok()
                && (!is_bare || level.parse::<LevelFilter>().is_ok()),
            "log.level",
            "must be off, error, warn, info, debug or trace, or a filter such as \"info,tidegate=debug\"",
        );
    }
}

impl super::Redis {
    /// An encrypted connection is asked for by the URL, whatever it is made with. There is one place for the password.
    fn check_access(&self, found: &mut Violations) {
        let message = "does not go together with `redis.password_file`: which is right is not guessed";
        let is_one = self.password_file.is_none() || self.password_command.is_empty();
        found.require(is_one, "redis.password_command", message);
        let Tls { cert_file, key_file, .. } = &self.tls;
        let message = "only means something where `redis.url` begins with rediss://";
        found.require(self.tls.is_none() || self.url.scheme() == Some("rediss"), "redis.tls", message);
        let message = "is needed, too: a certificate and its private key go together";
        found.require(cert_file.is_some() || key_file.is_none(), "redis.tls.cert_file", message);
        found.require(key_file.is_some() || cert_file.is_none(), "redis.tls.key_file", message);
    }
}

/// A name that events may write to.
pub(super) fn check_collection(name: &str, key: KeyPath, found: &mut Violations) {
    let fault = if name.is_empty() {
        "must not be empty"
    } else if name.contains('$') {
        "must not contain `$`"
    } else if name.contains('\0') {
        "must not contain NUL"
    } else if name.starts_with("system.") {
        "must not begin with `system.`: those collections are MongoDB's own"
    } else if OWN_COLLECTIONS.contains(&name) {
        "is a collection in which tidegate keeps its own state"
    } else {
        return;
    };
    found.require(false, key, fault);
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;

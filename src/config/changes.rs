//! Compares two configurations key by key, and tells which keys a running instance can follow.

use super::Config;

/// The keys that a running instance follows when it re-reads its configuration.
pub const LIVE: [&str; 9] = [
    "batch.max_ops",
    "batch.max_bytes",
    "batch.max_delay",
    "batch.backlog_delay",
    "buffer.max_bytes",
    "buffer.max_events",
    "native.collections",
    "routes",
    "log.level",
];

impl Config {
    /// The keys that have another value in `other`. A URL that is read from a file counts as that URL.
    #[must_use]
    pub fn changes(&self, other: &Config) -> Vec<&'static str> {
        let (a, b) = (self, other);
        let same = [
            ("redis.url", a.redis.url == b.redis.url),
            ("redis.url_file", a.redis.url_file == b.redis.url_file),
            ("redis.sentinels", a.redis.sentinels == b.redis.sentinels),
            ("redis.sentinel_primary", a.redis.sentinel_primary == b.redis.sentinel_primary),
            ("redis.timeout", a.redis.timeout == b.redis.timeout),
            ("mongodb.uri", a.mongodb.uri == b.mongodb.uri),
            ("mongodb.uri_file", a.mongodb.uri_file == b.mongodb.uri_file),
            ("mongodb.database", a.mongodb.database == b.mongodb.database),
            ("mongodb.write_concern", a.mongodb.write_concern == b.mongodb.write_concern),
            ("mongodb.timeout", a.mongodb.timeout == b.mongodb.timeout),
            ("queues", a.queues == b.queues),
            ("batch.max_ops", a.batch.max_ops == b.batch.max_ops),
            ("batch.max_bytes", a.batch.max_bytes == b.batch.max_bytes),
            ("batch.max_delay", a.batch.max_delay == b.batch.max_delay),
            ("batch.backlog_delay", a.batch.backlog_delay == b.batch.backlog_delay),
            ("buffer.max_bytes", a.buffer.max_bytes == b.buffer.max_bytes),
            ("buffer.max_events", a.buffer.max_events == b.buffer.max_events),
            ("lanes.count", a.lanes == b.lanes),
            ("native.collections", a.native == b.native),
            ("routes", a.routes == b.routes),
            ("tombstones.ttl", a.tombstones == b.tombstones),
            ("dead_letter.suffix", a.dead_letter.suffix == b.dead_letter.suffix),
            ("dead_letter.patience", a.dead_letter.patience == b.dead_letter.patience),
            ("receipts.enabled", a.receipts.enabled == b.receipts.enabled),
            ("receipts.channel", a.receipts.channel == b.receipts.channel),
            ("receipts.dead_channel", a.receipts.dead_channel == b.receipts.dead_channel),
            ("lease.ttl", a.lease == b.lease),
            ("http.listen", a.http.listen == b.http.listen),
            ("http.show_payloads", a.http.show_payloads == b.http.show_payloads),
            ("log.level", a.log.level == b.log.level),
            ("log.format", a.log.format == b.log.format),
            ("shutdown.deadline", a.shutdown == b.shutdown),
        ];
        same.into_iter().filter_map(|(key, same)| (!same).then_some(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::load::KEYS;
    use super::*;

    /// Another value than the default for a key, as text.
    fn another(key: &str) -> &'static str {
        match key.rsplit('.').next().unwrap_or_default() {
            "url" => "redis://elsewhere",
            "uri" => "mongodb://elsewhere",
            "queues" => "[{ key = 'another' }]",
            "collections" => "['another']",
            "routes" => "[{ collection = 'another', id = 'id', replace = 'state' }]",
            "max_bytes" => "2MiB",
            "max_ops" | "max_events" | "count" => "7",
            "listen" => "127.0.0.1:1",
            "level" => "debug",
            "format" => "json",
            "database" | "suffix" | "sentinel_primary" | "channel" | "dead_channel" => "another",
            "sentinels" => "['redis://elsewhere:26379']",
            "show_payloads" | "enabled" => "true",
            "write_concern" => "1",
            _ => "7s",
        }
    }

    fn loaded(file: &Path, overrides: &[(&str, &str)]) -> Config {
        let overrides: Vec<_> =
            overrides.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Config::load_from(file, [], &overrides, crate::decode::check_literal).unwrap()
    }

    #[test]
    fn every_key_is_compared() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::write(
            &file,
            "queues = [{ key = 'q' }]\nbatch.max_bytes = '1MiB'\nnative.collections = ['a']",
        )
        .unwrap();
        let before = loaded(&file, &[]);
        assert_eq!(before.changes(&before), [""; 0]);
        for (key, _) in KEYS.iter().filter(|(key, _)| !key.ends_with("_file")) {
            assert_eq!(before.changes(&loaded(&file, &[(key, another(key))])), [*key]);
        }
        // The URL is what the file holds.
        let url = folder.path().join("url");
        for (key, content) in
            [("redis.url_file", "redis://elsewhere"), ("mongodb.uri_file", "mongodb://elsewhere")]
        {
            std::fs::write(&url, content).unwrap();
            let changes = before.changes(&loaded(&file, &[(key, url.to_str().unwrap())]));
            assert_eq!(changes, [key.trim_end_matches("_file"), key]);
        }
    }

    #[test]
    fn live_keys_are_keys() {
        assert!(LIVE.iter().all(|live| KEYS.iter().any(|(key, _)| key == live)));
    }
}

//! Compares two configurations key by key.

use std::collections::HashMap;

use super::Config;
use super::load::values;
use super::schema::KEYS;

impl Config {
    /// The keys that have another value in `other`. A URL that is read from a file counts as that URL.
    #[must_use]
    pub fn changes(&self, other: &Config) -> Vec<&'static str> {
        let [mine, others] =
            [self, other].map(|config| values(config).into_iter().collect::<HashMap<_, _>>());
        // What is shown of them is not all of them.
        let secret_differs = |key: &str| match key {
            "redis.url" => self.redis.url != other.redis.url,
            "redis.password_command" => self.redis.password_command != other.redis.password_command,
            "redis.cluster" => self.redis.cluster != other.redis.cluster,
            "redis.sentinels" => self.redis.sentinels != other.redis.sentinels,
            "mongodb.uri" => self.mongodb.uri != other.mongodb.uri,
            _ => false,
        };
        let keys = KEYS.iter().map(|(key, _)| key.as_str());
        keys.filter(|key| mine.get(*key) != others.get(*key) || secret_differs(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
            "max_ops" | "max_events" | "max_writes_per_second" | "count" => "7",
            "listen" => "127.0.0.1:1",
            "level" => "debug",
            "format" => "json",
            "password_command" => "['another']",
            "username" | "database" | "suffix" | "sentinel_primary" | "channel" | "dead_channel" => "another",
            "sentinels" | "cluster" => "['redis://elsewhere:26379']",
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
            assert_eq!(before.changes(&loaded(&file, &[(key.as_str(), another(key))])), [key.as_str()]);
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
}

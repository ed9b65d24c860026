//! Writes the effective configuration as TOML for people: sizes and durations with units, no secrets.

use toml::{Table, Value};

use super::{Config, Route};

impl Config {
    /// The effective configuration as TOML, with secrets replaced by `***`. Apart from those it
    /// loads back to the same configuration.
    #[must_use]
    pub fn redacted_toml(&self) -> String {
        match toml::Table::try_from(self) {
            Ok(mut table) => {
                drop_unset(&mut table);
                layout(&table)
            }
            Err(error) => format!("# cannot be shown as TOML: {error}\n"),
        }
    }
}

/// Leaves out what a route does not say: it has some thirty keys.
fn drop_unset(config: &mut Table) {
    let unset = Table::try_from(Route::default()).unwrap_or_default();
    let routes = config.get_mut("routes").and_then(Value::as_array_mut);
    for route in routes.into_iter().flatten().filter_map(Value::as_table_mut) {
        route.retain(|key, value| unset.get(key) != Some(value));
    }
}

/// Lays the configuration out as `config.toml` is: a block for each table and for each element of a
/// list of tables, everything inside on one line. The serializer's own layout gives a route's `set`
/// a table of its own, far from the route.
fn layout(config: &Table) -> String {
    let is_table = |value: &Value| matches!(value, Value::Table(_));
    let is_block = |value: &Value| match value {
        Value::Array(items) => !items.is_empty() && items.iter().all(is_table),
        value => is_table(value),
    };
    let mut text = String::new();
    // TOML takes a key below a table's header for one of that table, so keys without one come first.
    for (key, value) in config.iter().filter(|(_, value)| !is_block(value)) {
        text += &format!("{key} = {value}\n");
    }
    for (key, value) in config.iter().filter(|(_, value)| is_block(value)) {
        let (header, items) = match value {
            Value::Array(items) => (format!("[[{key}]]"), items.as_slice()),
            table => (format!("[{key}]"), std::slice::from_ref(table)),
        };
        for table in items.iter().filter_map(Value::as_table) {
            text += if text.is_empty() { "" } else { "\n" };
            text += &format!("{header}\n");
            for (key, value) in table {
                text += &format!("{key} = {value}\n");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;

    use super::super::{Amount, Queue, Route, Scalar, SecretUrl};
    use super::*;

    fn with_everything() -> Config {
        let mut config = Config::default();
        config.redis.url = SecretUrl::new("redis://:hunter2@cache:6379");
        config.queues = vec![Queue {
            key: "collabQueue".into(),
            kind: Default::default(),
            delivery: super::super::Delivery::AtLeastOnce,
            ..toml::from_str("key = ''").unwrap()
        }];
        config.batch.max_bytes = ByteSize::b(1_500_000);
        config.native.collections = vec!["notes".into()];
        config.routes = vec![Route {
            when: [("type".to_owned(), Scalar::String("EDIT".into())), ("v".to_owned(), Scalar::Int(2))]
                .into(),
            collection: Some("documents".into()),
            id: "payload.docId".into(),
            set: [("text".to_owned(), "payload.text".into())].into(),
            inc: [("edits".to_owned(), Amount::Int(1))].into(),
            ..Route::default()
        }];
        config
    }

    #[test]
    fn shows_units_and_no_secrets() {
        insta::assert_snapshot!(with_everything().redacted_toml(), @r#"
        [redis]
        url = "redis://:***@cache:6379"
        password_command = []
        sentinels = []
        sentinel_primary = "mymaster"
        cluster = []
        timeout = "5s"

        [mongodb]
        uri = "mongodb://127.0.0.1:27017"
        database = "collab"
        write_concern = "majority"
        timeout = "10s"

        [[queues]]
        key = "collabQueue"
        kind = "list"
        delivery = "at-least-once"

        [batch]
        max_ops = 1000
        max_bytes = "1500000B"
        max_delay = "50ms"
        backlog_delay = "2s"
        max_writes_per_second = 0

        [buffer]
        max_bytes = "64MiB"
        max_events = 1000000

        [lanes]
        count = 4

        [native]
        collections = ["notes"]

        [[routes]]
        when = { type = "EDIT", v = 2 }
        collection = "documents"
        id = "payload.docId"
        set = { text = "payload.text" }
        inc = { edits = 1 }

        [tombstones]
        ttl = "1day"

        [dead_letter]
        suffix = ":dead"
        patience = "15m"
        max_events = 100000
        max_age = "never"

        [receipts]
        enabled = false
        channel = "tidegate:durable:"
        dead_channel = "tidegate:dead:"

        [lease]
        ttl = "10s"

        [http]
        listen = "127.0.0.1:9464"
        show_payloads = false

        [log]
        level = "info"
        format = "text"

        [shutdown]
        deadline = "25s"
        "#);
    }

    #[test]
    fn loads_back() {
        let mut config = with_everything();
        config.redis.url = SecretUrl::new("redis://cache");
        assert_eq!(toml::from_str::<Config>(&config.redacted_toml()).unwrap(), config);
    }
}

//! Defines queues: what all of them have, and what only streams have.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Violations;
use super::{KeyPath, word};

/// `[[queues]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    /// Redis key; `{0..15}` in it makes sixteen queues of it.
    pub key: String,
    /// Its name in watermarks and epochs; with a range as in the key. Without one, its key.
    pub id: Option<String>,
    /// List or stream.
    #[serde(default, deserialize_with = "word")]
    pub kind: QueueKind,
    /// What a crash may cost.
    #[serde(default, deserialize_with = "word")]
    pub delivery: Delivery,
    /// Of a stream: the consumer group whose position says what is settled.
    pub group: Option<String>,
    /// Of a stream: the field of its entries that is the event.
    pub field: Option<String>,
    /// Of a stream: an entry's fields, all of them, are the event.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flat: bool,
    /// Of a stream: what becomes of entries that are settled.
    pub trim: Option<Trim>,
    /// Partitions have the metrics of their pattern together, in place of some for each.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub aggregate: bool,
    /// The key with the range that this is a partition of.
    #[serde(skip)]
    pub pattern: Option<String>,
}

/// Kinds of queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum QueueKind {
    /// A Redis list, appended to by `RPUSH`.
    #[default]
    List,
    /// A Redis stream, appended to by `XADD`.
    Stream,
}

/// What a crash may cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// Nothing is lost, nothing is applied twice.
    #[default]
    ExactlyOnce,
    /// Nothing is lost; after a crash some events are applied again. Writes no watermarks.
    AtLeastOnce,
    /// Events in memory at a crash are lost. For lists shared with other consumers.
    AtMostOnce,
}

/// What becomes of entries that are settled: `"keep"`, `"delete"` or `{ maxlen = 100000 }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "\"keep\", \"delete\" or { maxlen = 100000 }")]
pub enum Trim {
    /// One of two words.
    Word(TrimWord),
    /// Some stay.
    MaxLen(MaxLen),
}

/// What becomes of all entries that are settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TrimWord {
    /// They stay.
    Keep,
    /// They go.
    Delete,
}

/// How many entries stay, settled or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaxLen {
    /// About so many; more, where more are not settled.
    pub maxlen: u64,
}

impl Trim {
    /// Settled entries stay.
    pub const KEEP: Trim = Trim::Word(TrimWord::Keep);
    /// Settled entries go.
    pub const DELETE: Trim = Trim::Word(TrimWord::Delete);
}

/// Each document that is written has the id in a field's name.
const MAX_ID_BYTES: usize = 200;

impl Queue {
    /// Its name in watermarks and epochs.
    #[must_use]
    pub fn id(&self) -> &str {
        self.id.as_deref().unwrap_or(&self.key)
    }

    /// What its metrics are told under, if not under its key.
    #[must_use]
    pub fn aggregated(&self) -> Option<&str> {
        self.pattern.as_deref().filter(|_| self.aggregate)
    }

    /// The consumer group of a stream.
    #[must_use]
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or("tidegate")
    }

    /// The field of a stream's entries that is the event.
    #[must_use]
    pub fn field(&self) -> &str {
        self.field.as_deref().unwrap_or("event")
    }

    /// What becomes of a stream's settled entries.
    #[must_use]
    pub fn trim(&self) -> Trim {
        self.trim.unwrap_or(Trim::KEEP)
    }

    /// Reports what is wrong with it alone.
    pub(super) fn check(&self, key: &KeyPath, found: &mut Violations) {
        found.require(!self.key.is_empty(), key.join("key"), "must not be empty");
        let id = self.id.as_deref();
        found.require(id != Some(""), key.join("id"), "must not be empty");
        let message = format!("must not be longer than {MAX_ID_BYTES} bytes");
        found.require(id.is_none_or(|id| id.len() <= MAX_ID_BYTES), key.join("id"), message);
        match self.kind {
            QueueKind::Stream => {
                let message =
                    "a stream can be \"exactly-once\" or \"at-least-once\": nothing is popped from it";
                found.require(self.delivery != Delivery::AtMostOnce, key.join("delivery"), message);
                found.require(!self.group().is_empty(), key.join("group"), "must not be empty");
                let message = "means nothing together with `flat = true`: all fields are the event";
                found.require(!self.flat || self.field.is_none(), key.join("field"), message);
            }
            QueueKind::List => {
                for (name, is_set) in [
                    ("group", self.group.is_some()),
                    ("field", self.field.is_some()),
                    ("flat", self.flat),
                    ("trim", self.trim.is_some()),
                ] {
                    let message = "only means something together with `kind = \"stream\"`";
                    found.require(!is_set, key.join(name), message);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(queue: &str) -> String {
        super::super::violations(&format!("native.collections = [\"a\"]\n[[queues]]\nkey = \"q\"\n{queue}"))
    }

    fn trim(value: &str) -> Result<Trim, String> {
        let queue: Result<Queue, _> =
            toml::from_str(&format!("key = \"q\"\nkind = \"stream\"\ntrim = {value}"));
        queue.map(|queue| queue.trim()).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn streams_have_keys_of_their_own() {
        assert_eq!(violations("kind = \"stream\"\ngroup = \"g\"\nfield = \"f\"\ntrim = \"delete\""), "");
        assert_eq!(violations("kind = \"stream\"\nflat = true\ndelivery = \"at-least-once\""), "");
        insta::assert_snapshot!(violations("flat = true\ngroup = \"g\"\nfield = \"f\"\ntrim = \"keep\""), @r#"
        `queues[0].group`: only means something together with `kind = "stream"`
        `queues[0].field`: only means something together with `kind = "stream"`
        `queues[0].flat`: only means something together with `kind = "stream"`
        `queues[0].trim`: only means something together with `kind = "stream"`
        "#);
        let wrong =
            "kind = \"stream\"\ngroup = \"\"\nflat = true\nfield = \"f\"\ndelivery = \"at-most-once\"";
        insta::assert_snapshot!(violations(wrong), @r#"
        `queues[0].delivery`: a stream can be "exactly-once" or "at-least-once": nothing is popped from it
        `queues[0].group`: must not be empty
        `queues[0].field`: means nothing together with `flat = true`: all fields are the event
        "#);
    }

    #[test]
    fn an_id_is_a_name_of_its_own() {
        assert_eq!(violations("id = \"eu:q\""), "");
        assert_eq!(violations("id = \"\""), "`queues[0].id`: must not be empty");
        let long = format!("id = {:?}", "x".repeat(201));
        assert_eq!(violations(&long), "`queues[0].id`: must not be longer than 200 bytes");
        let more = |queue: &str| violations(&format!("[[queues]]\nkey = \"other\"\n{queue}"));
        assert_eq!(more("id = \"mine\""), "");
        assert_eq!(more("id = \"q\""), "`queues[1].id`: \"q\" is that of another queue, too");
        assert_eq!(
            violations("id = \"other\"\n[[queues]]\nkey = \"other\""),
            "`queues[1].id`: \"other\" is that of another queue, too"
        );
        let ranges = violations("[[queues]]\nkey = \"p:{0..1}\"\nid = \"p\"");
        assert_eq!(ranges, "`queues[1].id`: must name as many queues as the key: that names 2, this 1");
    }

    #[test]
    fn trimming_is_a_word_or_a_bound() {
        assert_eq!(trim("\"keep\""), Ok(Trim::KEEP));
        assert_eq!(trim("\"delete\""), Ok(Trim::DELETE));
        assert_eq!(trim("{ maxlen = 5 }"), Ok(Trim::MaxLen(MaxLen { maxlen: 5 })));
        for wrong in ["\"all\"", "0", "{ maxlen = -1 }", "{ maxlen = 1, minid = 2 }"] {
            assert_eq!(trim(wrong).unwrap_err(), "\"keep\", \"delete\" or { maxlen = 100000 }", "{wrong}");
        }
    }
}

//! Holds a route's keys, as the configuration has them.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::MaybeSpan;
use super::{Amount, HotState, Id, Source, Yjs, word};

/// `[[routes]]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// Path to the value it must have; all must hold. Empty matches everything.
    pub when: BTreeMap<String, Scalar>,
    /// The collection.
    pub collection: Option<String>,
    /// Path to the collection's name, one of `collections`.
    pub collection_from: Option<String>,
    /// What `collection_from` may name.
    pub collections: Vec<String>,
    /// Its events have no effect.
    pub skip: Option<Skip>,
    /// The document's `_id`. An event without it is not this route's.
    pub id: Id,
    /// Between the parts of an `id` that has several; `:` unless given.
    pub id_separator: Option<String>,
    /// Fields of the collection's shard key to their values, for the filter.
    pub shard_key: BTreeMap<String, Source>,
    /// Path to the event's time: milliseconds since the epoch, or RFC 3339.
    pub ts: Option<String>,
    /// Path to the event's trace, a W3C `traceparent`.
    pub traceparent: Option<String>,
    /// Field to what it becomes.
    pub set: BTreeMap<String, Source>,
    /// Fields to remove.
    pub unset: Vec<String>,
    /// Field to a number, or where it is.
    pub inc: BTreeMap<String, Amount>,
    /// Array field to the element to append.
    pub push: BTreeMap<String, Source>,
    /// Array field to the element to append where it has none equal.
    pub add_to_set: BTreeMap<String, Source>,
    /// Field to what it becomes if that is less.
    pub min: BTreeMap<String, Source>,
    /// Field to what it becomes if that is greater.
    pub max: BTreeMap<String, Source>,
    /// Field to the number it is multiplied by.
    pub mul: BTreeMap<String, Source>,
    /// Field to what it is if the event makes the document.
    pub set_on_insert: BTreeMap<String, Source>,
    /// Array field to the value whose equals are removed from it.
    pub pull: BTreeMap<String, Source>,
    /// Array field to an array whose elements are removed from it.
    pub pull_all: BTreeMap<String, Source>,
    /// Array field to -1 or 1: its first or last element is removed.
    pub pop: BTreeMap<String, i64>,
    /// Field to its new name.
    pub rename: BTreeMap<String, String>,
    /// Fields that get the time of the write, by MongoDB's clock.
    pub current_date: Vec<String>,
    /// A Yjs document that the event has an update of.
    pub yjs: Option<Yjs>,
    /// Path to an object merged into the document (RFC 7396).
    pub merge: Option<String>,
    /// Path to a JSON Patch (RFC 6902), as far as it needs not read the document.
    pub patch: Option<String>,
    /// Path to an object that replaces the document.
    pub replace: Option<String>,
    /// Deletes the document.
    pub delete: bool,
    /// What a deletion leaves.
    #[serde(deserialize_with = "word")]
    pub deletes: Deletes,
    /// The longest that its changes wait for company; `batch.max_delay` unless given.
    #[serde(with = "MaybeSpan")]
    pub max_delay: Option<Duration>,
    /// Its documents are written at once if they were not for that long, else that long after they were.
    #[serde(with = "MaybeSpan")]
    pub pace: Option<Duration>,
    /// All that waits for its document is written at once.
    pub flush: bool,
    /// The collection that keeps the events as they came.
    pub history: Option<String>,
    /// How long it keeps them; for ever without.
    #[serde(with = "MaybeSpan")]
    pub history_ttl: Option<Duration>,
    /// Keep the documents' hot states fresh.
    pub hot_state: Option<HotState>,
}

impl Route {
    /// Whether it skips the events that `when` matches.
    #[must_use]
    pub fn skips_matching(&self) -> bool {
        self.skip == Some(Skip::Matching(true))
    }

    /// Whether it skips events that are empty or `null`.
    #[must_use]
    pub fn skips_empty(&self) -> bool {
        self.skip == Some(Skip::Empty(Empty::Empty))
    }

    /// The keys that give fields a value from a source, and what they hold.
    #[must_use]
    pub fn sourced_fields(&self) -> [(&'static str, &BTreeMap<String, Source>); 9] {
        [
            ("set", &self.set),
            ("push", &self.push),
            ("add_to_set", &self.add_to_set),
            ("min", &self.min),
            ("max", &self.max),
            ("mul", &self.mul),
            ("set_on_insert", &self.set_on_insert),
            ("pull", &self.pull),
            ("pull_all", &self.pull_all),
        ]
    }
}

/// Which events a route skips.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "true, or \"empty\"")]
pub enum Skip {
    /// Those that `when` matches.
    Matching(bool),
    /// Those that are empty or `null`.
    Empty(Empty),
}

/// The word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Empty {
    /// No text but blanks, or JSON's null.
    Empty,
}

/// What a deletion leaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Deletes {
    /// Nothing.
    #[default]
    Hard,
    /// A document with its watermarks and the time, for a while.
    Tombstone,
}

/// A value that `when` compares with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a string, a number, true or false (quote a dotted path: \"a.b\")")]
pub enum Scalar {
    /// Boolean.
    Bool(bool),
    /// Integer.
    Int(i64),
    /// Floating point.
    Float(f64),
    /// Text.
    String(String),
}

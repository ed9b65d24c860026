//! Holds a route's keys, as the configuration has them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Amount, HotState, Id, Source, Yjs, word};

/// `[[routes]]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Path to the value it must have; all must hold. Empty matches everything.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub when: BTreeMap<String, Scalar>,
    /// The collection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// Path to the collection's name, one of `collections`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection_from: Option<String>,
    /// What `collection_from` may name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub collections: Vec<String>,
    /// Its events have no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<Skip>,
    /// The document's `_id`. An event without it is not this route's.
    #[serde(default, skip_serializing_if = "Id::is_none")]
    pub id: Id,
    /// Between the parts of an `id` that has several; `:` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_separator: Option<String>,
    /// Fields of the collection's shard key to their values, for the filter.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shard_key: BTreeMap<String, Source>,
    /// Path to the event's time: milliseconds since the epoch, or RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts: Option<String>,
    /// Path to the event's trace, a W3C `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Field to what it becomes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, Source>,
    /// Fields to remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unset: Vec<String>,
    /// Field to a number, or where it is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inc: BTreeMap<String, Amount>,
    /// Array field to the element to append.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub push: BTreeMap<String, Source>,
    /// Array field to the element to append where it has none equal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub add_to_set: BTreeMap<String, Source>,
    /// Field to what it becomes if that is less.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub min: BTreeMap<String, Source>,
    /// Field to what it becomes if that is greater.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub max: BTreeMap<String, Source>,
    /// Field to the number it is multiplied by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mul: BTreeMap<String, Source>,
    /// Field to what it is if the event makes the document.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set_on_insert: BTreeMap<String, Source>,
    /// Array field to the value whose equals are removed from it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pull: BTreeMap<String, Source>,
    /// Array field to an array whose elements are removed from it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pull_all: BTreeMap<String, Source>,
    /// Array field to -1 or 1: its first or last element is removed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pop: BTreeMap<String, i64>,
    /// Field to its new name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rename: BTreeMap<String, String>,
    /// Fields that get the time of the write, by MongoDB's clock.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub current_date: Vec<String>,
    /// A Yjs document that the event has an update of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yjs: Option<Yjs>,
    /// Path to an object merged into the document (RFC 7396).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<String>,
    /// Path to a JSON Patch (RFC 6902), as far as it needs not read the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    /// Path to an object that replaces the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace: Option<String>,
    /// Deletes the document.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delete: bool,
    /// What a deletion leaves.
    #[serde(default, deserialize_with = "word", skip_serializing_if = "Deletes::is_hard")]
    pub deletes: Deletes,
    /// The longest that its changes wait for company; `batch.max_delay` unless given.
    #[serde(default, with = "humantime_serde::option", skip_serializing_if = "Option::is_none")]
    pub max_delay: Option<Duration>,
    /// Its documents are written at once if they were not for that long, else that long after they were.
    #[serde(default, with = "humantime_serde::option", skip_serializing_if = "Option::is_none")]
    pub pace: Option<Duration>,
    /// All that waits for its document is written at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flush: bool,
    /// The collection that keeps the events as they came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<String>,
    /// How long it keeps them; for ever without.
    #[serde(default, with = "humantime_serde::option", skip_serializing_if = "Option::is_none")]
    pub history_ttl: Option<Duration>,
    /// Keep the documents' hot states fresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "true, or \"empty\"")]
pub enum Skip {
    /// Those that `when` matches.
    Matching(bool),
    /// Those that are empty or `null`.
    Empty(Empty),
}

/// The word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Empty {
    /// No text but blanks, or JSON's null.
    Empty,
}

/// What a deletion leaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deletes {
    /// Nothing.
    #[default]
    Hard,
    /// A document with its watermarks and the time, for a while.
    Tombstone,
}

impl Deletes {
    fn is_hard(&self) -> bool {
        *self == Deletes::Hard
    }
}

/// A value that `when` compares with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

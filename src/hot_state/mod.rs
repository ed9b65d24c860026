//! Tells what is to be done to hot states: Redis hashes that hold documents field by field.
//! Gateways fill them from MongoDB. What is written to a document is applied to its hash, if it has one, or deletes it.
//!
//! A hash has one field for each leaf of its document: the dotted path, with the value as JSON. As in the document,
//! `_tidegate.<queue id>` is the offset of the last event that it holds. This module says what is to be done to a hash.
//! The scripts that do it are in [`source`](crate::source).

mod flat;
mod json;
mod key;
mod program;

use std::collections::HashMap;
use std::time::Duration;

pub(crate) use self::key::StateKeys;
pub(crate) use self::program::{Program, is_exact};
use crate::change::CollectionId;
use crate::change::Collections;
use crate::config::Config;

/// The collections whose documents have hot states, and how long those live.
#[derive(Debug, Default)]
pub(crate) struct HotStates(HashMap<CollectionId, Duration>);

impl HotStates {
    /// What the routes say.
    #[must_use]
    pub(crate) fn new(config: &Config, collections: &Collections) -> Self {
        let mut all = HashMap::new();
        for route in &config.routes {
            let Some(hot_state) = &route.hot_state else { continue };
            let names = route.collection.iter().chain(&route.collections);
            all.extend(names.filter_map(|name| Some((collections.find(name)?, hot_state.ttl))));
        }
        HotStates(all)
    }

    /// How long the hot states of a collection live after they were filled; none if it has none.
    #[must_use]
    pub(crate) fn ttl(&self, collection: CollectionId) -> Option<Duration> {
        // Mostly there is no collection that has any.
        if self.0.is_empty() { None } else { self.0.get(&collection).copied() }
    }
}

labelled! {
    /// What became of a hot state.
    pub(crate) enum Refreshed {
        /// It has the write.
        Applied => "applied",
        /// It had the write.
        Skipped => "skipped",
        /// It is gone.
        Deleted => "deleted",
    }
}

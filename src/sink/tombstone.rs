//! Tells which collections have tombstones: what is left of a deleted document where a route says so.
//!
//! A hard deletion takes the watermark along, so a write that was under way for long finds no trace of it and makes
//! the document again. A tombstone keeps the watermark for a while; `expiry.rs` has MongoDB remove it.
//!
//! Who leaves them is configured, instance by instance; who meets them is not. Every update revives what it is written to
//! (`command.rs`), since a document that was a tombstone would else be removed as one.

use std::collections::{BTreeSet, HashSet};

use crate::change::CollectionId;
use crate::change::Collections;
use crate::config::{Config, Deletes};

/// The collections whose deleted documents leave tombstones.
#[derive(Debug, Clone, Default)]
pub struct Tombstones {
    collections: HashSet<CollectionId>,
}

impl Tombstones {
    /// What the routes say.
    #[must_use]
    pub(crate) fn new(config: &Config, collections: &Collections) -> Self {
        Tombstones {
            collections: Self::names(config).into_iter().filter_map(|name| collections.find(name)).collect(),
        }
    }

    /// The names of the collections that the routes give tombstones.
    #[must_use]
    pub(crate) fn names(config: &Config) -> BTreeSet<&str> {
        let routes = config.routes.iter().filter(|route| route.deletes == Deletes::Tombstone);
        routes
            .flat_map(|route| route.collection.iter().chain(&route.collections))
            .map(String::as_str)
            .collect()
    }

    /// Whether deletions from a collection leave them.
    #[must_use]
    pub(crate) fn are_in(&self, collection: CollectionId) -> bool {
        self.collections.contains(&collection)
    }
}

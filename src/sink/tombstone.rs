//! Tombstones: what is left of a deleted document where a route says so.
//!
//! A hard deletion takes the watermark along, so a write that was under way for long finds no trace of it and makes
//! the document again. A tombstone keeps the watermark for a while.

use std::collections::{BTreeSet, HashSet};

use bson::doc;

use super::{Sink, SinkError, raw_to_document};
use crate::change::CollectionId;
use crate::config::{Config, Deletes};
use crate::event::Collections;
use crate::event::path::DELETED_FIELD;

/// The collections whose deleted documents leave tombstones.
#[derive(Debug, Clone, Default)]
pub struct Tombstones {
    collections: HashSet<CollectionId>,
    ttl_seconds: i64,
}

const INDEX: &str = "tidegate_tombstones";

/// MongoDB: an index of that name or key is there with other options.
const OPTIONS_CONFLICT: i32 = 85;

/// MongoDB: the user has not the right to.
const UNAUTHORIZED: i32 = 13;

impl Tombstones {
    /// What the routes say.
    #[must_use]
    pub fn new(config: &Config, collections: &Collections) -> Self {
        Tombstones {
            collections: Self::names(config).into_iter().filter_map(|name| collections.find(name)).collect(),
            ttl_seconds: i64::try_from(config.tombstones.ttl.as_secs()).unwrap_or(i64::from(i32::MAX)),
        }
    }

    /// The names of the collections that the routes give tombstones.
    #[must_use]
    pub fn names(config: &Config) -> BTreeSet<&str> {
        let routes = config.routes.iter().filter(|route| route.deletes == Deletes::Tombstone);
        routes
            .flat_map(|route| route.collection.iter().chain(&route.collections))
            .map(String::as_str)
            .collect()
    }

    /// Whether a collection has them.
    #[must_use]
    pub fn are_in(&self, collection: CollectionId) -> bool {
        self.collections.contains(&collection)
    }
}

impl Sink {
    /// Makes the indexes by which MongoDB removes tombstones in time.
    pub(super) async fn ensure_tombstone_indexes(&self) -> Result<(), SinkError> {
        let key = doc! {DELETED_FIELD: 1};
        let expire = self.tombstones.ttl_seconds;
        let mapping = self.live.mapping();
        for collection in &self.tombstones.collections {
            let name = mapping.collections.name(*collection);
            let create = doc! {
                "createIndexes": name,
                "indexes": [{"key": key.clone(), "name": INDEX, "expireAfterSeconds": expire}],
                "writeConcern": raw_to_document(&self.write_concern),
            };
            let change = doc! {
                "collMod": name,
                "index": {"keyPattern": key.clone(), "expireAfterSeconds": expire},
            };
            let made = match self.run_document(&create).await {
                Err(error) if error.code() == Some(OPTIONS_CONFLICT) => self.run_document(&change).await,
                made => made,
            };
            made.map_err(|error| match error.code() {
                Some(UNAUTHORIZED) => SinkError::fatal(format!(
                    "deletes = \"tombstone\" needs the right to create an index of {name:?}: {error}"
                )),
                _ => error,
            })?;
        }
        Ok(())
    }
}

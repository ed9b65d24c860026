//! Tombstones: what is left of a deleted document where a route says so.
//!
//! A hard deletion takes the watermark along, so a write that was under way for long finds no trace of it and makes
//! the document again. A tombstone keeps the watermark for a while.

use std::collections::{BTreeSet, HashSet};

use bson::{Bson, doc};

use super::{Sink, SinkError, UNAUTHORIZED, raw_to_document};
use crate::change::CollectionId;
use crate::config::{Config, Deletes};
use crate::event::Collections;
use crate::event::path::DELETED_FIELD;

/// The collections whose deleted documents leave tombstones.
#[derive(Debug, Clone, Default)]
pub struct Tombstones {
    collections: HashSet<CollectionId>,
    /// Those that had them once: some may still be there, and their index.
    formerly: HashSet<CollectionId>,
    ttl_seconds: i64,
}

const INDEX: &str = "tidegate_tombstones";

/// MongoDB: an index of that name or key is there with other options.
const OPTIONS_CONFLICT: i32 = 85;

/// MongoDB: there is no such collection.
const NAMESPACE_NOT_FOUND: i32 = 26;

impl Tombstones {
    /// What the routes say.
    #[must_use]
    pub fn new(config: &Config, collections: &Collections) -> Self {
        Tombstones {
            collections: Self::names(config).into_iter().filter_map(|name| collections.find(name)).collect(),
            formerly: HashSet::new(),
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

    /// Whether a document of a collection may be one.
    #[must_use]
    pub fn may_be_in(&self, collection: CollectionId) -> bool {
        self.are_in(collection) || self.formerly.contains(&collection)
    }

    /// Whether deletions from a collection leave them.
    #[must_use]
    pub fn are_in(&self, collection: CollectionId) -> bool {
        self.collections.contains(&collection)
    }
}

impl Sink {
    /// Finds the collections whose routes said `deletes = "tombstone"` once and do so no more. What is written over
    /// one of their tombstones must not be removed as one.
    pub(super) async fn find_former_tombstones(&mut self) -> Result<(), SinkError> {
        let collections = self.live.mapping().collections.clone();
        for name in collections.names() {
            let Some(collection) = collections.find(name) else { continue };
            if self.tombstones.are_in(collection) {
                continue;
            }
            // A collection that is not there has no indexes.
            let indexes = match self.ask(&doc! {"listIndexes": name}).await {
                Err(error) if matches!(error.code(), Some(NAMESPACE_NOT_FOUND | UNAUTHORIZED)) => continue,
                found => found?,
            };
            let indexes = indexes.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
            let is_ours = |index: &Bson| {
                index.as_document().is_some_and(|index| index.get_str("name").is_ok_and(|name| name == INDEX))
            };
            if indexes.is_ok_and(|indexes| indexes.iter().any(is_ours)) {
                self.tombstones.formerly.insert(collection);
            }
        }
        Ok(())
    }

    /// Makes the indexes by which MongoDB removes tombstones in time.
    pub(super) async fn ensure_tombstone_indexes(&self) -> Result<(), SinkError> {
        let expire = self.tombstones.ttl_seconds;
        let mapping = self.live.mapping();
        for collection in &self.tombstones.collections {
            let name = mapping.collections.name(*collection);
            let made = self.ensure_ttl_index(name, DELETED_FIELD, INDEX, expire).await;
            made.map_err(|error| match error.code() {
                Some(UNAUTHORIZED) => SinkError::fatal(format!(
                    "deletes = \"tombstone\" needs the right to create an index of {name:?}: {error}"
                )),
                _ => error,
            })?;
        }
        Ok(())
    }

    /// Makes an index by which MongoDB removes documents so many seconds after the time in a field.
    pub(super) async fn ensure_ttl_index(
        &self,
        collection: &str,
        field: &str,
        index: &str,
        seconds: i64,
    ) -> Result<(), SinkError> {
        let key = doc! {field: 1};
        let create = doc! {
            "createIndexes": collection,
            "indexes": [{"key": key.clone(), "name": index, "expireAfterSeconds": seconds}],
            "writeConcern": raw_to_document(&self.write_concern),
        };
        let change = doc! {
            "collMod": collection,
            "index": {"keyPattern": key, "expireAfterSeconds": seconds},
        };
        match self.ask(&create).await {
            Err(error) if error.code() == Some(OPTIONS_CONFLICT) => self.ask(&change).await.map(drop),
            made => made.map(drop),
        }
    }
}

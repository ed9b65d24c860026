//! Makes the indexes by which MongoDB removes old tombstones, events of histories, and records of dead letters.
//!
//! Nothing waits for them, since events are written all the same without. So no error ends the process, whatever its
//! code. A person can drop a view or an index that is in the way, grant a right, buy room, or wait for the end of an
//! index's build. None of it takes another configuration or another process. The error is told, and the index is tried
//! again.

use std::time::Duration;

use bson::{Bson, Document, doc};

use super::kept_letters::EXPIRES;
use super::{Sink, SinkError, UNAUTHORIZED, raw_to_document};
use crate::change::path::DELETED_FIELD;
use crate::config::{Config, DEAD};
use crate::history::Histories;
use crate::sink::Tombstones;

/// MongoDB: there is no such collection, and no such index.
const NAMESPACE_NOT_FOUND: i32 = 26;
const INDEX_NOT_FOUND: i32 = 27;

/// MongoDB: an index of that name or key is there with other options.
const OPTIONS_CONFLICT: i32 = 85;

/// How long records of dead letters are kept. Redis does not fall back by more than this.
const DEAD_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// An index by which MongoDB removes documents so long after the time in a field.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Expiry {
    collection: String,
    name: &'static str,
    field: &'static str,
    /// None: what is there stays for ever, so that an index that is there has to go.
    after: Option<Duration>,
}

impl Expiry {
    /// What a configuration asks for.
    fn wanted(config: &Config) -> Vec<Expiry> {
        let tombstones = Tombstones::names(config).into_iter().map(|collection| Expiry {
            collection: collection.to_owned(),
            name: "tidegate_tombstones",
            field: DELETED_FIELD,
            after: Some(config.tombstones.ttl),
        });
        let histories = Histories::kept_for(config).into_iter().map(|(collection, after)| Expiry {
            collection: collection.to_owned(),
            name: "tidegate_history",
            field: "at",
            after,
        });
        let dead = Expiry { collection: DEAD.to_owned(), name: "at", field: "at", after: Some(DEAD_KEPT) };
        let letters = Expiry { name: EXPIRES, field: EXPIRES, after: Some(Duration::ZERO), ..dead.clone() };
        tombstones.chain(histories).chain([dead, letters]).collect()
    }

    /// What is to be done, for people.
    fn task(&self) -> String {
        let Expiry { collection, name, .. } = self;
        let verb = if self.after.is_some() { "making" } else { "dropping" };
        format!("{verb} the index {name} of {collection:?}")
    }

    /// Whether an instance that cannot have it lacks anything. Of dead letters there are few.
    fn is_needed(&self) -> bool {
        self.collection != DEAD
    }
}

/// The indexes that are made, by collection and name.
pub(super) fn wanted_indexes(config: &Config) -> impl Iterator<Item = (String, &'static str)> {
    let made = Expiry::wanted(config).into_iter().filter(|index| index.after.is_some());
    made.map(|index| (index.collection, index.name))
}

impl Sink {
    /// Makes the indexes that a configuration asks for, each as soon as nothing is in the way. Ends when all are there.
    pub(crate) async fn make_indexes(&self, config: &Config) {
        let mut wanted = Expiry::wanted(config);
        let mut attempts = self.health.mongodb.attempts();
        let mut first = true;
        loop {
            let mut left = Vec::new();
            for index in wanted {
                let task = index.task();
                match self.ensure(&index).await {
                    Ok(()) => self.health.troubles.over(&task),
                    Err(error) => {
                        let error = with_advice(&error);
                        if index.is_needed() {
                            self.health.troubles.met(&task, &error);
                        } else if first {
                            tracing::warn!("{task} failed: {error}; what is old stays there until it works");
                        }
                        left.push(index);
                    }
                }
            }
            if left.is_empty() {
                return;
            }
            (wanted, first) = (left, false);
            attempts.pause().await;
        }
    }

    async fn ensure(&self, index: &Expiry) -> Result<(), SinkError> {
        match index.after {
            Some(after) => self.make(index, after).await,
            None => self.drop_index(index).await,
        }
    }

    async fn make(&self, index: &Expiry, after: Duration) -> Result<(), SinkError> {
        // MongoDB knows no more.
        let seconds = i32::try_from(after.as_secs()).unwrap_or(i32::MAX);
        let key = doc! {index.field: 1};
        let create = doc! {
            "createIndexes": &index.collection,
            "indexes": [{"key": key.clone(), "name": index.name, "expireAfterSeconds": seconds}],
            "writeConcern": raw_to_document(&self.write_concern),
        };
        let change = |which: Document| {
            let mut index_options = which;
            index_options.insert("expireAfterSeconds", seconds);
            doc! {"collMod": &index.collection, "index": index_options}
        };
        match self.ask(&create).await {
            Err(error) if error.code() == Some(OPTIONS_CONFLICT) => {
                // DocumentDB finds it by its name only. Under another name, it is somebody else's, and serves as well.
                match self.ask(&change(doc! {"name": index.name})).await {
                    Err(error) if error.code() == Some(INDEX_NOT_FOUND) => {
                        self.ask(&change(doc! {"keyPattern": key})).await.map(drop)
                    }
                    changed => changed.map(drop),
                }
            }
            made => made.map(drop),
        }
    }

    /// Drops an index, if it is there. Mostly it is not, or there is no collection.
    async fn drop_index(&self, index: &Expiry) -> Result<(), SinkError> {
        let there = match self.ask(&doc! {"listIndexes": &index.collection}).await {
            Err(error) if error.code() == Some(NAMESPACE_NOT_FOUND) => return Ok(()),
            // Without the right to look there was none to make it.
            Err(error) if error.code() == Some(UNAUTHORIZED) => return Ok(()),
            reply => reply?,
        };
        let is_it = |found: &Bson| {
            found
                .as_document()
                .is_some_and(|found| found.get_str("name").is_ok_and(|name| name == index.name))
        };
        let indexes = there.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        if !indexes.is_ok_and(|indexes| indexes.iter().any(is_it)) {
            return Ok(());
        }
        match self.ask(&doc! {"dropIndexes": &index.collection, "index": index.name}).await {
            Err(error) if matches!(error.code(), Some(NAMESPACE_NOT_FOUND | INDEX_NOT_FOUND)) => Ok(()),
            dropped => dropped.map(drop),
        }
    }
}

/// An error, and what its code asks for.
fn with_advice(error: &SinkError) -> String {
    let advice = match error.code() {
        Some(UNAUTHORIZED) => " (grant the user createIndex and collMod there)",
        // CommandNotSupportedOnView
        Some(166) => " (it is a view; name a collection)",
        // IndexKeySpecsConflict
        Some(86) => " (another index has that name: drop it)",
        _ => "",
    };
    format!("{error}{advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_collection_gets_the_index_that_its_routes_ask_for() {
        let config: Config = toml::from_str(
            "queues = [{ key = 'q' }]\ntombstones.ttl = '90s'\n\
             [[routes]]\nwhen = { t = 'a' }\ncollection = 'a'\nid = 'id'\ndelete = true\ndeletes = 'tombstone'\n\
             [[routes]]\nwhen = { t = 'b' }\ncollection = 'a'\nid = 'id'\nset = { v = 'v' }\nhistory = 'h'\n\
             [[routes]]\ncollection = 'b'\nid = 'id'\nset = { v = 'v' }\nhistory = 'i'\nhistory_ttl = '2s'\n",
        )
        .unwrap();
        assert_eq!(config.violations(crate::decode::check_literal), []);
        let wanted = Expiry::wanted(&config);
        let told: Vec<_> =
            wanted.iter().map(|index| (index.task(), index.after.map(|t| t.as_secs()))).collect();
        assert_eq!(
            told,
            [
                ("making the index tidegate_tombstones of \"a\"".to_owned(), Some(90)),
                ("dropping the index tidegate_history of \"h\"".to_owned(), None),
                ("making the index tidegate_history of \"i\"".to_owned(), Some(2)),
                ("making the index at of \"tidegate_dead\"".to_owned(), Some(604_800)),
                ("making the index expires of \"tidegate_dead\"".to_owned(), Some(0)),
            ]
        );
    }
}

//! Finds out whether the collections that a configuration names can be written to as tidegate writes.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Document, doc};

use super::{Sink, SinkError};
use crate::caused::Caused;
use crate::config::{Config, DEAD, EPOCHS};
use crate::finding::{Finding, Weight};

/// Who writes to a collection, and by which fields of a shard key beside `_id`.
type Writers = Vec<(String, BTreeSet<String>)>;

/// The collections that a configuration writes to.
fn writers(config: &Config) -> BTreeMap<String, Writers> {
    let mut writers: BTreeMap<String, Writers> = BTreeMap::new();
    let mut writes = |collection: &str, who: String, shard_key: BTreeSet<String>| {
        writers.entry(collection.to_owned()).or_default().push((who, shard_key));
    };
    for (number, route) in config.routes.iter().enumerate().filter(|(_, route)| !route.only_flushes()) {
        for collection in route.collection.iter().chain(&route.collections) {
            writes(collection, format!("routes[{number}]"), route.shard_key.keys().cloned().collect());
        }
        if let Some(history) = &route.history {
            writes(history, format!("routes[{number}].history"), BTreeSet::new());
        }
    }
    for collection in &config.native.collections {
        writes(collection, "native.collections".to_owned(), BTreeSet::new());
    }
    for own in [EPOCHS, DEAD] {
        writes(own, "tidegate itself".to_owned(), BTreeSet::new());
    }
    writers
}

/// The names of those.
pub(super) fn names(config: &Config) -> impl Iterator<Item = String> {
    writers(config).into_keys()
}

impl Sink {
    /// What keeps collections from being written to as they must be, or would change what is written.
    ///
    /// # Errors
    /// MongoDB cannot be asked now. That this user may not ask is none: then nothing is found.
    pub(crate) async fn look_at_collections(&self, config: &Config) -> Result<Vec<Finding>, SinkError> {
        let writers = writers(config);
        let names: Vec<_> = writers.keys().cloned().collect();
        let list =
            doc! {"listCollections": 1, "filter": {"name": {"$in": &names}}, "cursor": {"batchSize": 10_000}};
        let listed: BTreeMap<String, Document> = rows(self.ask(&list).await)?
            .into_iter()
            .filter_map(|listed| Some((listed.get_str("name").ok()?.to_owned(), listed)))
            .collect();
        let sharded = if self.is_router() { self.shard_keys(&names).await? } else { BTreeMap::new() };
        let mut found = Vec::new();
        for (name, writers) in &writers {
            let before = found.len();
            let about = format!("collection {name}");
            if let Some(key) = sharded.get(name) {
                found.extend(unnamed(name, key, writers));
            }
            match listed.get(name) {
                Some(listed) => found.extend(misfits(&about, listed)),
                None if !sharded.contains_key(name) => {
                    found.push(Finding::fine(&about, "is not there yet; the first write makes it"));
                }
                None => {}
            }
            if found.len() == before {
                found.push(Finding::fine(about, "is there"));
            }
        }
        Ok(found)
    }

    /// Refuses what would make second documents of an `_id`, and logs what else is odd of the collections.
    ///
    /// # Errors
    /// Fatal: a collection is sharded by what its writers do not name; or MongoDB cannot be asked now.
    pub(crate) async fn check_collections(&self, config: &Config) -> Result<(), SinkError> {
        for finding in self.look_at_collections(config).await? {
            match finding.weight {
                Weight::Fatal => return Err(SinkError::fatal(Caused::from(finding.told()))),
                Weight::Warning => tracing::warn!("{}", finding.told()),
                Weight::Fine | Weight::Note => {}
            }
        }
        Ok(())
    }

    /// The shard keys of those collections that are sharded, as far as this user may know.
    async fn shard_keys(&self, names: &[String]) -> Result<BTreeMap<String, Vec<String>>, SinkError> {
        let database = self.connections.database().await?.name().to_owned();
        let ids: Vec<_> = names.iter().map(|name| format!("{database}.{name}")).collect();
        // https://www.mongodb.com/docs/manual/reference/config-database/#config.collections
        let find = doc! {
            "find": "collections",
            "filter": {"_id": {"$in": &ids}, "dropped": {"$ne": true}},
            "batchSize": 10_000,
        };
        let of = |sharded: Document| {
            let name = sharded.get_str("_id").ok()?.strip_prefix(&format!("{database}."))?.to_owned();
            Some((name, sharded.get_document("key").ok()?.keys().cloned().collect()))
        };
        Ok(rows(self.ask_in("config", &find).await)?.into_iter().filter_map(of).collect())
    }
}

/// The documents of a cursor's first batch. None, where the user may not ask, or the server does not tell.
fn rows(answer: Result<Document, SinkError>) -> Result<Vec<Document>, SinkError> {
    let reply = match answer {
        Err(error) if !error.is_outage() => {
            tracing::debug!(%error, "collections are not looked at");
            return Ok(Vec::new());
        }
        answer => answer?,
    };
    let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let rows = batch.map(|batch| batch.iter().filter_map(|row| row.as_document().cloned()).collect());
    Ok(rows.unwrap_or_default())
}

/// Whoever writes to a sharded collection without naming what it is sharded by. An upsert by `_id` alone may make a second
/// document of that `_id`, on another shard: <https://www.mongodb.com/docs/manual/core/sharding-shard-key/>.
fn unnamed(collection: &str, key: &[String], writers: &Writers) -> Vec<Finding> {
    let needed: BTreeSet<&String> = key.iter().filter(|field| *field != "_id").collect();
    let lacks = writers.iter().filter_map(|(who, named)| {
        let missing: Vec<_> = needed.iter().filter(|field| !named.contains(**field)).map(|field| field.as_str()).collect();
        let text = format!(
            "is sharded by {}, and {who} does not name {}: the same _id could get a second document; add it to the route's shard_key",
            key.join(", "),
            missing.join(", "),
        );
        (!missing.is_empty()).then(|| Finding::fatal(format!("collection {collection}"), text))
    });
    let mut found: Vec<_> = lacks.collect();
    if found.is_empty() {
        found.push(Finding::fine(
            format!("collection {collection}"),
            format!("is sharded by {}", key.join(", ")),
        ));
    }
    found
}

/// What a collection is that cannot be written to as any other, by `listCollections`.
fn misfits(about: &str, listed: &Document) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut warn = |text: &str| found.push(Finding::warning(about, text));
    match listed.get_str("type") {
        Ok("view") => warn("is a view: nothing can be written to it; name the collection behind it"),
        Ok("timeseries") => warn("is a time series: its documents cannot be updated by _id"),
        _ => {}
    }
    let Ok(options) = listed.get_document("options") else { return found };
    if options.get_bool("capped").unwrap_or(false) {
        warn("is capped: old documents leave it by themselves, with their watermarks");
    }
    let collation = options.get_document("collation").ok();
    if let Some(strength @ ..3) = collation.and_then(|collation| collation.get_i32("strength").ok()) {
        warn(&format!(
            "has a collation of strength {strength}: ids that differ in case or accents would be one document"
        ));
    } else if collation.is_some_and(|collation| collation.get_bool("numericOrdering").unwrap_or(false)) {
        warn("has a collation with numericOrdering: the ids 7 and 07 would be one document");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(found: &[Finding]) -> String {
        found.iter().map(|found| format!("{found}\n")).collect()
    }

    #[test]
    fn a_shard_key_is_named_by_all_who_write() {
        let config: Config = toml::from_str(
            "queues = [{ key = 'q' }]\nnative.collections = ['b']\n\
             [[routes]]\ncollection = 'a'\nid = 'id'\nshard_key = { region = 'r' }\nset = { v = 'v' }\nhistory = 'h'\n\
             [[routes]]\ncollection = 'a'\nid = 'id'\nset = { v = 'v' }\n",
        )
        .unwrap();
        let writers = writers(&config);
        assert_eq!(writers.keys().collect::<Vec<_>>(), ["a", "b", "h", "tidegate", "tidegate_dead"]);
        let of = |collection: &str, key: &[&str]| {
            let key: Vec<_> = key.iter().map(|field| (*field).to_owned()).collect();
            told(&unnamed(collection, &key, &writers[collection]))
        };
        insta::assert_snapshot!(of("a", &["region", "_id"]), @"error   collection a: is sharded by region, _id, and routes[1] does not name region: the same _id could get a second document; add it to the route's shard_key");
        insta::assert_snapshot!(of("b", &["_id"]), @"ok      collection b: is sharded by _id");
        insta::assert_snapshot!(of("b", &["x", "y"]), @"error   collection b: is sharded by x, y, and native.collections does not name x, y: the same _id could get a second document; add it to the route's shard_key");
    }

    #[test]
    fn what_is_no_plain_collection_is_told() {
        let of = |listed: Document| told(&misfits("collection c", &listed));
        assert_eq!(of(doc! {"name": "c", "type": "collection", "options": {}}), "");
        insta::assert_snapshot!(of(doc! {"type": "view", "options": {"viewOn": "x"}}), @"warning collection c: is a view: nothing can be written to it; name the collection behind it");
        insta::assert_snapshot!(of(doc! {"type": "timeseries"}), @"warning collection c: is a time series: its documents cannot be updated by _id");
        insta::assert_snapshot!(of(doc! {"type": "collection", "options": {"capped": true, "collation": {"locale": "en", "strength": 2}}}), @"
        warning collection c: is capped: old documents leave it by themselves, with their watermarks
        warning collection c: has a collation of strength 2: ids that differ in case or accents would be one document
        ");
        assert_eq!(of(doc! {"options": {"collation": {"locale": "en", "strength": 3}}}), "");
        insta::assert_snapshot!(of(doc! {"options": {"collation": {"locale": "en", "numericOrdering": true}}}), @"warning collection c: has a collation with numericOrdering: the ids 7 and 07 would be one document");
    }
}

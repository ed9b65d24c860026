//! Finds out what a MongoDB is like, for `tidegate check --connect`. It changes nothing there.

use std::time::SystemTime;

use bson::{Document, doc};

use super::{Sink, SinkError, UNAUTHORIZED};
use crate::config::{Config, DEAD, EPOCHS};
use crate::finding::{Finding, clock};

impl Sink {
    /// What there is to say of a server that is reached, of the collections there, and of what this user may do to them.
    pub(crate) async fn inspect(&self, config: &Config) -> Vec<Finding> {
        let mut found = Vec::new();
        match self.inspect_server().await {
            Ok(told) => found.extend(told),
            Err(error) => found.push(Finding::warning("mongodb", error.to_string())),
        }
        let concern = &config.mongodb.write_concern;
        found.push(Finding::fine("mongodb", format!("write_concern {concern:?} can be reached")));
        match self.look_at_collections(config).await {
            Ok(told) => found.extend(told),
            Err(error) => {
                found.push(Finding::warning("mongodb", format!("collections cannot be looked at: {error}")))
            }
        }
        found.extend(self.inspect_rights(config).await);
        found.extend(self.inspect_indexes(config).await);
        found
    }

    async fn inspect_server(&self) -> Result<Vec<Finding>, SinkError> {
        let asked = SystemTime::now();
        let hello = self.ask(&doc! {"hello": 1}).await?;
        let version = self.ask(&doc! {"buildInfo": 1}).await;
        let version =
            version.as_ref().ok().and_then(|info| info.get_str("version").ok()).unwrap_or("unknown");
        let kind = match hello.get_str("setName") {
            _ if self.is_router() => "a mongos of a sharded cluster".to_owned(),
            Ok(set) => {
                let members = hello.get_array("hosts").map_or(1, Vec::len);
                format!("replica set {set} of {members} members with data")
            }
            Err(_) => "a single server, no replica set".to_owned(),
        };
        let mut found = vec![Finding::fine("mongodb", format!("version {version}, {kind}"))];
        if let Ok(theirs) = hello.get_datetime("localTime") {
            found.extend(clock("mongodb", theirs.to_system_time(), asked));
        }
        Ok(found)
    }

    /// Whether this user may read and write what has to be. Explained commands need the rights of those they explain, and do
    /// nothing.
    async fn inspect_rights(&self, config: &Config) -> Vec<Finding> {
        let nothing = doc! {"_id": {"$in": []}};
        let mut found = Vec::new();
        for collection in super::collections::names(config) {
            let set = doc! {"$set": {"_tidegate.check": 0}};
            let mut explained = vec![
                ("find", doc! {"find": &collection, "filter": &nothing}),
                (
                    "insert and update",
                    doc! {"update": &collection, "updates": [{"q": &nothing, "u": set, "upsert": true}]},
                ),
            ];
            if config.routes.iter().any(|route| route.delete) && ![EPOCHS, DEAD].contains(&&*collection) {
                explained
                    .push(("remove", doc! {"delete": &collection, "deletes": [{"q": &nothing, "limit": 1}]}));
            }
            let mut missing = Vec::new();
            for (right, command) in explained {
                if self.may(&command).await == Some(false) {
                    missing.push(right);
                }
            }
            if !missing.is_empty() {
                let text = format!(
                    "this user may not {} there; grant that, as docs/security.md says",
                    missing.join(", ")
                );
                found.push(Finding::warning(format!("collection {collection}"), text));
            }
        }
        if found.is_empty() {
            found.push(Finding::fine("mongodb", "this user may read and write all of them"));
        }
        found
    }

    /// Whether this user may; nothing, where the server does not tell.
    async fn may(&self, command: &Document) -> Option<bool> {
        match self.ask(&doc! {"explain": command, "verbosity": "queryPlanner"}).await {
            Ok(_) => Some(true),
            Err(error) if error.code() == Some(UNAUTHORIZED) => Some(false),
            Err(_) => None,
        }
    }

    /// Which indexes are to be made.
    async fn inspect_indexes(&self, config: &Config) -> Vec<Finding> {
        let mut found = Vec::new();
        for (collection, index) in super::expiry::wanted_indexes(config) {
            let about = format!("collection {collection}");
            let is_there = match self.ask(&doc! {"listIndexes": &collection}).await {
                Ok(reply) => reply
                    .get_document("cursor")
                    .and_then(|cursor| cursor.get_array("firstBatch"))
                    .is_ok_and(|indexes| {
                        indexes
                            .iter()
                            .filter_map(bson::Bson::as_document)
                            .any(|found| found.get_str("name").is_ok_and(|name| name == index))
                    }),
                Err(_) => false,
            };
            found.push(match is_there {
                true => Finding::fine(about, format!("the index {index} is there")),
                false => Finding::note(
                    about,
                    format!("the index {index} is to be made; tidegate does that at its start"),
                ),
            });
        }
        found
    }
}

//! Draws the numbers of ownerships, and records whose they are: one document for each queue.
//!
//! `epoch` is the last number given out, or one that a document was found to have. `owner` is the number of the latest
//! ownership. `identity` says which Redis the queue is in. By these an owner finds that another Redis has the queue, or
//! that another ownership followed.

use std::collections::HashMap;

use bson::{Bson, Document, doc};

use super::{Sink, SinkError};
use crate::config::EPOCHS;
use crate::epoch::{Drawn, Identity};

/// A queue without any number begins at one of the first so many. Documents may have watermarks of an earlier life of
/// the queue, whose numbers are forgotten: this way no ownership has the number of one back then.
const FIRST_EPOCHS: i64 = 1 << 20;

/// Whose a queue is: its identity, and the epoch of its latest ownership, if these are on record.
pub(crate) type Owner = (Option<String>, Option<i64>);

/// Whatever the writes' concern is, an epoch must never be taken twice.
fn concern() -> Document {
    doc! {"w": "majority"}
}

impl Sink {
    /// Takes a new epoch of a queue, above its last and above `least`. None where the queue of that id is in another
    /// Redis. What is new has the say: it is taken for the one that is to be drained from now on.
    pub(crate) async fn next_epoch(
        &self,
        queue: &str,
        least: i64,
        identity: Option<&Identity>,
    ) -> Result<Option<Drawn>, SinkError> {
        // Two steps, each atomic: whoever's increment comes later has the larger epoch.
        let raise = match least {
            ..1 => doc! {"$setOnInsert": {"epoch": fastrand::i64(0..FIRST_EPOCHS)}},
            least => doc! {"$max": {"epoch": least}},
        };
        let raise = doc! {
            "update": EPOCHS,
            "updates": [{"q": {"_id": queue}, "u": raise, "upsert": true}],
            "writeConcern": concern(),
        };
        let reply = self.run_document(&raise).await?;
        // An upsert race is the other's raise; the increment below does not mind.
        if let Some(error) = reply.get_array("writeErrors").ok().and_then(|errors| errors.first())
            && error.as_document().and_then(|e| e.get_i32("code").ok()) != Some(11000)
        {
            return Err(SinkError::transient(format!("no epoch could be taken: {error}")));
        }
        let (mut query, mut update) = (doc! {"_id": queue}, doc! {"$inc": {"epoch": 1_i64}});
        if let Some(identity) = identity {
            update.insert("$set", doc! {"identity": &identity.name});
            if !identity.is_new {
                query.insert("identity", doc! {"$in": [&identity.name, Bson::Null]});
            }
        }
        if let Some(taken) = self.change_epoch(query, update).await? {
            let number = |field| taken.get(field).and_then(Bson::as_i64);
            let none = || SinkError::transient("no epoch could be taken: the reply has none");
            let epoch = number("epoch").ok_or_else(none)?;
            // A Redis that is new, or has lost everything, knows of no former stream.
            let has_lost = identity.is_some_and(|identity| identity.is_new) && number("owner").is_some();
            let generation = number("generation").unwrap_or(1) + i64::from(has_lost);
            return Ok(Some(Drawn { epoch, generation }));
        }
        match self.owners(&[queue]).await?.is_empty() {
            false => Ok(None),
            true => Err(SinkError::transient("no epoch could be taken: the queue's document is gone")),
        }
    }

    /// Puts on record that an ownership has begun. Answers whether it has: none of a higher epoch, or of another Redis,
    /// is on record. Only then may it write.
    pub(crate) async fn claim(
        &self,
        queue: &str,
        epoch: i64,
        identity: &Identity,
        generation: i64,
    ) -> Result<bool, SinkError> {
        // Without an owner, too.
        let query = doc! {"_id": queue, "identity": &identity.name, "owner": {"$not": {"$gt": epoch}}};
        let mut update = doc! {"$set": {"owner": epoch}};
        if generation > 1 {
            update.insert("$max", doc! {"generation": generation});
        }
        let claimed = self.change_epoch(query, update).await?;
        Ok(claimed.is_some())
    }

    /// Answers whether an ownership is the latest, as a majority of nodes knows it. If it is, no epoch up to `above` is
    /// given out any more.
    pub(crate) async fn confirm(
        &self,
        queue: &str,
        epoch: i64,
        identity: &Identity,
        above: i64,
    ) -> Result<bool, SinkError> {
        let query = doc! {"_id": queue, "identity": &identity.name, "owner": epoch};
        let confirmed = self.change_epoch(query, doc! {"$max": {"epoch": above}}).await?;
        Ok(confirmed.is_some())
    }

    /// Whose queues are, by their ids. Nothing is known of those that are not answered.
    pub(crate) async fn owners(&self, queues: &[&str]) -> Result<HashMap<String, Owner>, SinkError> {
        let Some(count) = i64::try_from(queues.len()).ok().filter(|count| *count > 0) else {
            return Ok(HashMap::new());
        };
        let find = doc! {
            "find": EPOCHS,
            "filter": {"_id": {"$in": queues}},
            "batchSize": count,
            "singleBatch": true,
            "readConcern": {"level": "majority"},
        };
        let reply = self.ask(&find).await?;
        let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        let found = batch.into_iter().flatten().filter_map(Bson::as_document);
        let owner = |found: &Document| {
            let identity = found.get_str("identity").ok().map(str::to_owned);
            Some((
                found.get_str("_id").ok()?.to_owned(),
                (identity, found.get("owner").and_then(Bson::as_i64)),
            ))
        };
        Ok(found.filter_map(owner).collect())
    }

    /// Gives a queue's id up: the queue has another now, and one in another Redis may have this.
    pub(crate) async fn give_id_up(&self, queue: &str, identity: &Identity) -> Result<(), SinkError> {
        let query = doc! {"_id": queue, "identity": &identity.name};
        self.change_epoch(query, doc! {"$unset": {"identity": ""}}).await.map(drop)
    }

    /// Changes a queue's document, if it is as `query` says; answers what it is then.
    async fn change_epoch(&self, query: Document, update: Document) -> Result<Option<Document>, SinkError> {
        let change = doc! {
            "findAndModify": EPOCHS,
            "query": query,
            "update": update,
            "new": true,
            "writeConcern": concern(),
        };
        let reply = self.run_document(&change).await?;
        if reply.contains_key("writeConcernError") {
            return Err(SinkError::transient("no epoch could be taken: the write concern was not met"));
        }
        Ok(reply.get_document("value").ok().cloned())
    }
}

//! Reads what is in MongoDB.

use std::collections::BTreeMap;

use anyhow::Context;
use bson::{Bson, Document, doc};
use mongodb::Database;

/// One document.
pub(crate) async fn document(
    database: &Database,
    collection: &str,
    id: impl Into<Bson>,
) -> anyhow::Result<Option<Document>> {
    Ok(database.collection(collection).find_one(doc! { "_id": id.into() }).await?)
}

/// All documents of a collection that have a text as their id, by id.
pub(crate) async fn documents(
    database: &Database,
    collection: &str,
) -> anyhow::Result<BTreeMap<String, Document>> {
    let mut cursor = database.collection::<Document>(collection).find(doc! {}).await?;
    let mut found = BTreeMap::new();
    while cursor.advance().await? {
        let document = cursor.deserialize_current()?;
        let id = document.get_str("_id").context("an _id that is no text")?.to_owned();
        found.insert(id, document);
    }
    Ok(found)
}

/// How many documents a collection has.
pub(crate) async fn count(database: &Database, collection: &str) -> anyhow::Result<u64> {
    Ok(database.collection::<Document>(collection).count_documents(doc! {}).await?)
}

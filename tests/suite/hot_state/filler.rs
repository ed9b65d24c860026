//! Does what `docs/hot-state.md` tells gateways to do: fills hot states from MongoDB, and reads them.
#![allow(dead_code, reason = "shared with the fault campaign, which uses a part")]

use std::time::Duration;

use anyhow::{Context, ensure};
use bson::{Bson, Document, doc};
use mongodb::options::{CollectionOptions, ReadConcern};
use mongodb::{Collection, Database};
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, Script};
use serde_json::{Map, Value};

use crate::support::unique;

/// The script that gateways are told to fill with.
fn script() -> Script {
    let page = include_str!("../../../docs/hot-state.md");
    let (_, script) = page.split_once("```lua\n").expect("a script");
    Script::new(script.split_once("```").expect("its end").0)
}

/// A gateway.
#[derive(Clone)]
pub(crate) struct Filler {
    redis: MultiplexedConnection,
    documents: Collection<Document>,
    ttl: Duration,
}

/// Where the hot state of a document whose id is a text is, and the token of who fills it.
pub(crate) fn keys(id: &str) -> (String, String) {
    (format!("tidegate:state:documents:{id}"), format!("tidegate:fill:documents:{id}"))
}

impl Filler {
    pub(crate) fn new(redis: MultiplexedConnection, database: &Database, ttl: Duration) -> Self {
        let majority = CollectionOptions::builder().read_concern(ReadConcern::majority()).build();
        let documents = database.collection_with_options("documents", majority);
        Self { redis, documents, ttl }
    }

    /// Asks to be the one who fills. None: somebody else is.
    pub(crate) async fn token(&mut self, id: &str) -> anyhow::Result<Option<String>> {
        let token = unique("token");
        let mut set = redis::cmd("SET");
        set.arg(keys(id).1).arg(&token).arg("NX").arg("PX").arg(5000);
        let got: Option<String> = set.query_async(&mut self.redis).await?;
        Ok(got.map(|_| token))
    }

    /// The document.
    pub(crate) async fn read(&self, id: &str) -> anyhow::Result<Option<Document>> {
        Ok(self.documents.find_one(doc! { "_id": id }).await?)
    }

    /// Fills, unless the document was written since the token was set.
    pub(crate) async fn put(&mut self, id: &str, token: &str, document: &Document) -> anyhow::Result<bool> {
        let (state, fill) = keys(id);
        let script = script();
        let mut call = script.key(state);
        call.key(fill).arg(token).arg(u64::try_from(self.ttl.as_millis())?);
        for (path, value) in flat(document) {
            call.arg(path).arg(value);
        }
        let filled: u8 = call.invoke_async(&mut self.redis).await?;
        Ok(filled == 1)
    }

    /// All of it. Whether it was filled.
    pub(crate) async fn fill(&mut self, id: &str) -> anyhow::Result<bool> {
        let Some(token) = self.token(id).await? else { return Ok(false) };
        match self.read(id).await? {
            Some(document) if !document.contains_key("_tidegateDeleted") => {
                self.put(id, &token, &document).await
            }
            _ => Ok(false),
        }
    }

    /// What there is in Redis, as it is there.
    pub(crate) async fn fields(&mut self, id: &str) -> anyhow::Result<Map<String, Value>> {
        let fields: Vec<(String, String)> = self.redis.hgetall(keys(id).0).await?;
        let read = |(path, text): (String, String)| {
            // Its own note is no JSON.
            let value = if path == "_tidegate" { Value::Null } else { serde_json::from_str(&text)? };
            Ok((path, value))
        };
        fields.into_iter().map(read).collect()
    }

    /// The hot state, as a document. None if there is none.
    pub(crate) async fn state(&mut self, id: &str) -> anyhow::Result<Option<Value>> {
        let fields = self.fields(id).await?;
        if fields.is_empty() {
            return Ok(None);
        }
        let mut document = Map::new();
        for (path, value) in fields.into_iter().filter(|(path, _)| !path.starts_with("_tidegate")) {
            let mut at = &mut document;
            let mut components = path.split('.').peekable();
            while let Some(component) = components.next() {
                if components.peek().is_none() {
                    ensure!(at.insert(component.to_owned(), value).is_none(), "{path} is no leaf");
                    break;
                }
                let below = at.entry(component).or_insert_with(|| Map::new().into());
                at = below.as_object_mut().with_context(|| format!("{path} is below a leaf"))?;
            }
        }
        Ok(Some(document.into()))
    }

    /// How long the hot state lives, in milliseconds.
    pub(crate) async fn left(&mut self, id: &str) -> anyhow::Result<i64> {
        Ok(self.redis.pttl(keys(id).0).await?)
    }
}

/// A document as a hot state shows it.
pub(crate) fn shown(document: &Document) -> Value {
    let mut document = document.clone();
    document.remove("_id");
    document.remove("_tidegate");
    Bson::from(document).into_relaxed_extjson()
}

fn flat(document: &Document) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    add(&mut fields, "", document);
    fields
}

fn add(fields: &mut Vec<(String, String)>, above: &str, document: &Document) {
    let is_component = |key: &String| !key.is_empty() && !key.contains('.') && !key.starts_with('$');
    for (key, value) in document.iter().filter(|(key, _)| !above.is_empty() || *key != "_id") {
        let path = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
        match value {
            Bson::Document(inner) if !inner.is_empty() && inner.keys().all(is_component) => {
                add(fields, &path, inner);
            }
            value => fields.push((path, value.clone().into_relaxed_extjson().to_string())),
        }
    }
}

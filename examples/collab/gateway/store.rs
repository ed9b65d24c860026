//! Asks Redis and MongoDB for pages.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use bson::{Bson, Document, doc};
use mongodb::Collection;
use mongodb::options::{ClientOptions, CollectionOptions, ReadConcern};
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncCommands, AsyncConnectionConfig, ExistenceCheck, Script, SetExpiry, SetOptions};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::Servers;
use super::hot_state;
use super::message::Said;

/// What `config.toml` drains, and where to.
const QUEUE: &str = "pageEdits";
const COLLECTION: &str = "pages";
/// On which all gateways hear all edits. With many gateways, each page would have a channel of its own.
pub(super) const EDITS: &str = "collab:edits";
/// On which tidegate speaks.
pub(super) const DURABLE: &str = "tidegate:durable:pages";
pub(super) const DEAD: &str = "tidegate:dead:pages";

/// The longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Numbers an edit, queues it for tidegate and publishes it: all three or, if Redis refuses to push, none. As that is one
/// step, edits are published in the order in which they are queued. Should Redis have lost the number, `least` is what
/// the page is known to have reached.
///
/// KEYS queue number · ARGV event-without-its-end least channel
const PUSH: &str = r#"
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
local number = string.format('%.0f', math.max(last, tonumber(ARGV[2])) + 1)
local event = ARGV[1] .. ',"number":' .. number .. '}'
redis.call('RPUSH', KEYS[1], event)
redis.call('SET', KEYS[2], number)
redis.call('PUBLISH', ARGV[3], event)
return 1"#;

/// Redis and MongoDB.
pub(super) struct Store {
    redis: redis::Client,
    /// Made when it is needed, and given up with the first error.
    connection: Mutex<Option<MultiplexedConnection>>,
    push: Script,
    fill: Script,
    pages: Collection<Document>,
}

/// A page as MongoDB has it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    /// The number of the last edit that was applied.
    pub(super) last: u64,
    /// How many were.
    pub(super) edits: u64,
    pub(super) paragraphs: BTreeMap<String, String>,
}

impl Store {
    pub(super) async fn new(servers: &Servers) -> anyhow::Result<Self> {
        let redis = redis::Client::open(servers.redis.as_str()).context("Redis' URL")?;
        let mut options = ClientOptions::parse(&servers.mongodb).await.context("MongoDB's address")?;
        options.server_selection_timeout.get_or_insert(LIMIT);
        options.connect_timeout.get_or_insert(LIMIT);
        let database = mongodb::Client::with_options(options)?.database(&servers.database);
        // What a majority does not have yet may still be undone: it is not saved.
        let majority = CollectionOptions::builder().read_concern(ReadConcern::majority()).build();
        let pages = database.collection_with_options(COLLECTION, majority);
        let (push, fill) = (Script::new(PUSH), Script::new(hot_state::FILL));
        Ok(Self { redis, connection: Mutex::default(), push, fill, pages })
    }

    /// Pushes an edit, for tidegate and for all who have the page open.
    pub(super) async fn push(&self, page: &str, by: &str, said: Said, least: u64) -> anyhow::Result<()> {
        let Said { paragraph, text, own } = said;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut event = json!({
            "type": "EDIT",
            "page": page,
            "by": by,
            "own": own,
            "ts": u64::try_from(since.as_millis())?,
            "changes": { "paragraphs": { paragraph: text } },
        })
        .to_string();
        // The number comes in its place.
        event.pop();
        let mut push = self.push.key(QUEUE);
        push.key(number_key(page)).arg(event).arg(least).arg(EDITS);
        self.on_redis(async |connection| push.invoke_async::<()>(connection).await).await
    }

    /// Has what was typed into a page written at once.
    pub(super) async fn flush(&self, page: &str) -> anyhow::Result<()> {
        let event = json!({ "type": "LEFT", "page": page }).to_string();
        self.on_redis(async |connection| connection.rpush::<_, _, ()>(QUEUE, &event).await).await
    }

    /// The number of the last edit of a page that was pushed.
    pub(super) async fn last(&self, page: &str) -> anyhow::Result<u64> {
        let key = number_key(page);
        let last: Option<u64> = self.on_redis(async |connection| connection.get(&key).await).await?;
        Ok(last.unwrap_or(0))
    }

    /// All of a page: its hot state if it has one, else from MongoDB, and then it has one.
    pub(super) async fn load(&self, page: &str) -> anyhow::Result<Stored> {
        let state = hot_state::state_key(page);
        let fields: HashMap<String, String> =
            self.on_redis(async |connection| connection.hgetall(&state).await).await?;
        if let Some(stored) = hot_state::read(&fields) {
            return Ok(stored);
        }
        // Before it is read. One at a time: who comes second goes without.
        let (fill, token) = (hot_state::fill_key(page), format!("{:032x}", fastrand::u128(..)));
        let expiry = SetExpiry::PX(u64::try_from(hot_state::FILLING.as_millis())?);
        let alone = SetOptions::default().conditional_set(ExistenceCheck::NX).with_expiration(expiry);
        let set =
            async |connection: &mut MultiplexedConnection| connection.set_options(&fill, &token, alone).await;
        let set: Option<String> = self.on_redis(set).await?;
        let found = timeout(LIMIT, self.pages.find_one(doc! { "_id": page })).await;
        let found = found.context("MongoDB does not answer")?.context("MongoDB does not answer")?;
        let Some(document) = found else { return Ok(Stored::default()) };
        if let Some(leaves) = hot_state::leaves(&document).filter(|_| set.is_some()) {
            let mut call = self.fill.key(&state);
            call.key(&fill).arg(&token).arg(u64::try_from(hot_state::TTL.as_millis())?).arg(leaves);
            self.on_redis(async |connection| call.invoke_async::<()>(connection).await).await?;
        }
        Ok(Stored::from(&document))
    }

    /// How far MongoDB has a page, without its paragraphs.
    pub(super) async fn look(&self, page: &str) -> anyhow::Result<Stored> {
        let fields = doc! { "lastEdit": 1, "edits": 1 };
        let found = timeout(LIMIT, self.pages.find_one(doc! { "_id": page }).projection(fields)).await;
        let found = found.context("MongoDB does not answer")?.context("MongoDB does not answer")?;
        Ok(found.map_or_else(Stored::default, |document| Stored::from(&document)))
    }

    /// Hears all that is published, from now on.
    pub(super) async fn listen(&self) -> anyhow::Result<PubSub> {
        let mut channels = timeout(LIMIT, self.redis.get_async_pubsub()).await??;
        timeout(LIMIT, channels.subscribe(&[EDITS, DURABLE, DEAD])).await??;
        Ok(channels)
    }

    async fn on_redis<T>(
        &self,
        ask: impl AsyncFnOnce(&mut MultiplexedConnection) -> redis::RedisResult<T>,
    ) -> anyhow::Result<T> {
        let there = self.connection.lock().await.clone();
        let mut connection = match there {
            Some(connection) => connection,
            None => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(LIMIT))
                    .set_response_timeout(Some(LIMIT));
                let made = self.redis.get_multiplexed_async_connection_with_config(&config).await?;
                self.connection.lock().await.insert(made).clone()
            }
        };
        let answer = ask(&mut connection).await;
        if answer.is_err() {
            *self.connection.lock().await = None;
        }
        Ok(answer?)
    }
}

impl From<&Document> for Stored {
    fn from(document: &Document) -> Self {
        let number = |name| match document.get(name) {
            Some(Bson::Int32(number)) => u64::try_from(*number).unwrap_or(0),
            Some(Bson::Int64(number)) => u64::try_from(*number).unwrap_or(0),
            _ => 0,
        };
        let texts = document.get_document("paragraphs").into_iter().flatten();
        let paragraphs = texts.filter_map(|(key, text)| Some((key.clone(), text.as_str()?.to_owned())));
        Self { last: number("lastEdit"), edits: number("edits"), paragraphs: paragraphs.collect() }
    }
}

fn number_key(page: &str) -> String {
    format!("collab:number:{page}")
}

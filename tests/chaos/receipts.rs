//! Holds receipts against MongoDB as soon as they come.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bson::{Bson, Document, doc};
use mongodb::Database;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind};
use serde_json::Value;
use tokio::sync::{RwLock, mpsc};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::support::try_eventually;

const DURABLE: &str = "tidegate:durable:documents";
/// What comes over this came behind all that was told before.
const END: &str = "tidegate:chaos:end";
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
/// Of those that were false, so many are told.
const TOLD: usize = 10;

/// What was found.
#[derive(Debug, Default, Clone)]
pub(crate) struct Found {
    /// Receipts that were compared.
    pub(crate) compared: usize,
    /// Those that said durable what was not there.
    pub(crate) untrue: usize,
    pub(crate) told: Vec<String>,
    ended: bool,
}

/// Somebody who listens, and looks.
pub(crate) struct Listener {
    found: Arc<Mutex<Found>>,
    listening: AbortHandle,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Listener {
    /// Listens to the Redis that producers find at `url`. Where `may_be_gone`, documents are deleted with their watermarks.
    pub(crate) fn start(
        url: Arc<RwLock<String>>,
        database: Database,
        queue: &str,
        may_be_gone: bool,
    ) -> Self {
        let found = Arc::new(Mutex::new(Found::default()));
        let looking = Looking { database, queue: queue.to_owned(), may_be_gone, found: Arc::clone(&found) };
        let listening = tokio::spawn(async move {
            loop {
                let now = url.read().await.clone();
                if let Ok((_connection, pushes)) = subscribe(&now).await {
                    looking.listen(pushes).await;
                }
                sleep(PAUSE).await;
            }
        });
        Self { found, listening: listening.abort_handle() }
    }

    /// Waits until all receipts so far were compared.
    pub(crate) async fn finish(&self, mut redis: MultiplexedConnection) -> anyhow::Result<Found> {
        try_eventually(PATIENCE, "the receipts to be compared", async || {
            let () = redis::cmd("PUBLISH").arg(END).arg("{}").query_async(&mut redis).await?;
            let found = self.found.lock().clone();
            found.ended.then_some(found).context("they are being compared")
        })
        .await
    }
}

async fn subscribe(url: &str) -> anyhow::Result<(MultiplexedConnection, mpsc::UnboundedReceiver<PushInfo>)> {
    let info = redis::Client::open(url)?.get_connection_info().clone();
    let settings = info.redis_settings().clone().set_protocol(redis::ProtocolVersion::RESP3);
    let client = redis::Client::open(info.set_redis_settings(settings))?;
    let (pushed, pushes) = mpsc::unbounded_channel();
    let config = redis::AsyncConnectionConfig::new().set_push_sender(pushed);
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    connection.subscribe(&[DURABLE, END]).await?;
    Ok((connection, pushes))
}

struct Looking {
    database: Database,
    queue: String,
    may_be_gone: bool,
    found: Arc<Mutex<Found>>,
}

impl Looking {
    /// Compares what comes until the connection ends.
    async fn listen(&self, mut pushes: mpsc::UnboundedReceiver<PushInfo>) {
        while let Some(mut push) = pushes.recv().await {
            let (mut last, mut count, mut ends) = (HashMap::new(), 0, false);
            loop {
                if push.kind == PushKind::Disconnection {
                    return;
                }
                if let Some(message) = redis::Msg::from_push_info(push) {
                    ends |= message.get_channel_name() == END;
                    if let Some((id, offset)) = receipt(message.get_payload_bytes()) {
                        count += 1;
                        let last = last.entry(id).or_insert(offset);
                        *last = offset.max(*last);
                    }
                }
                match pushes.try_recv() {
                    Ok(next) => push = next,
                    Err(_) => break,
                }
            }
            self.compare(last, count).await;
            self.found.lock().ended |= ends;
        }
    }

    /// Compares the last offset told of each document with its watermark.
    async fn compare(&self, told: HashMap<String, i64>, count: usize) {
        let ids: Vec<&String> = told.keys().collect();
        let watermarks = loop {
            match self.watermarks(&ids).await {
                Ok(watermarks) => break watermarks,
                // It is away. What it has acknowledged must be there when it is back.
                Err(_) => sleep(PAUSE).await,
            }
        };
        let mut found = self.found.lock();
        found.compared += count;
        for (id, offset) in &told {
            let watermark = watermarks.get(id).copied();
            let is_true = watermark.map_or(self.may_be_gone, |watermark| watermark >= Some(*offset));
            if !is_true {
                found.untrue += 1;
                if found.told.len() < TOLD {
                    found.told.push(format!(
                        "{id} is said to be durable up to {offset}, and is up to {watermark:?}"
                    ));
                }
            }
        }
    }

    /// The watermarks of documents that are there.
    async fn watermarks(&self, ids: &[&String]) -> anyhow::Result<HashMap<String, Option<i64>>> {
        let documents = self.database.collection::<Document>("documents");
        let mut cursor = documents.find(doc! {"_id": {"$in": ids}}).projection(doc! {"_tidegate": 1}).await?;
        let mut found = HashMap::new();
        while cursor.advance().await? {
            let document = cursor.deserialize_current()?;
            let all = document.get_document("_tidegate").ok();
            let watermark = all.and_then(|all| all.get(&self.queue)).and_then(Bson::as_i64);
            found.insert(document.get_str("_id")?.to_owned(), watermark);
        }
        Ok(found)
    }
}

/// The document and the offset of a receipt.
fn receipt(text: &[u8]) -> Option<(String, i64)> {
    let message: Value = serde_json::from_slice(text).ok()?;
    Some((message["id"].as_str()?.to_owned(), message["offset"].as_str()?.parse().ok()?))
}

//! Appends the events of a batch to the histories of their routes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::quarantine::Withheld;
use crate::history::{Record, Records};
use crate::ownership::Owned;
use crate::retry::Class;
use crate::sink::SinkError;

/// MongoDB's code of a duplicate key.
const DUPLICATE_KEY: i32 = 11000;

/// Appends the events of a batch that is settled to their histories, however long MongoDB is away. Dead letters are left
/// out. Only then may the events be committed: a next owner reads them again until both are durable. Those that a history
/// does not take now are answered, to be tried again.
pub(super) async fn append(queue: &Owned, mut kept: Vec<Records>) -> Vec<Withheld> {
    {
        let buried = queue.buried.lock();
        if !buried.is_empty() {
            for Records { records, .. } in &mut kept {
                records.retain(|record| !buried.contains(&record.offset));
            }
        }
    }
    let Err(error) = attempt(queue, &kept).await else { return Vec::new() };
    let mut refused: BTreeMap<Arc<str>, SinkError> = BTreeMap::new();
    if error.is_refusal() {
        tracing::debug!(
            queue = queue.key,
            "a history does not take a batch, so its events are tried one by one: {error}"
        );
    }
    let mut withheld = Vec::new();
    for Records { entity, hash, records, refused_since } in kept {
        let mut left = VecDeque::from(records);
        let mut why = None;
        while let Some(record) = left.pop_front() {
            let into = Arc::clone(&record.into);
            // One answer that speaks of the server holds for all that goes to the same history.
            let answer = match refused.get(&into) {
                Some(error) => Err((record, error.clone())),
                None => one(queue, &entity, hash, record, refused_since).await,
            };
            if let Err((record, error)) = answer {
                if error.is_of_server() {
                    refused.insert(Arc::clone(&into), error.clone());
                }
                left.push_front(record);
                why = Some((into, error));
                break;
            }
        }
        if let Some((collection, error)) = why {
            queue.shared.metrics.retried_mongodb(error.class());
            withheld.push(Withheld {
                entity,
                hash,
                segments: VecDeque::new(),
                unsettled: queue.ledger.receive(0),
                records: left.into(),
                parked: Vec::new(),
                since: refused_since.unwrap_or_else(Instant::now),
                error,
                collection,
            });
        }
    }
    withheld
}

/// Appends one event; gives it back where it is to be tried again.
async fn one(
    queue: &Owned,
    entity: &crate::change::Entity,
    hash: u64,
    record: Record,
    refused_since: Option<Instant>,
) -> Result<(), (Record, SinkError)> {
    let (offset, into) = (record.offset, Arc::clone(&record.into));
    let mut kept = [Records { entity: entity.clone(), hash, records: vec![record], refused_since }];
    let Err(error) = attempt(queue, &kept).await else { return Ok(()) };
    // Servers that do not say which index a duplicate key is of: it may be there already.
    if error.code() == Some(DUPLICATE_KEY) && is_kept(queue, offset, &into).await {
        return Ok(());
    }
    let patience = queue.shared.config.dead_letter.patience.limit();
    let waited_enough =
        || refused_since.zip(patience).is_some_and(|(since, patience)| since.elapsed() >= patience);
    if error.class() == Class::Data || (error.is_unknown() && waited_enough()) {
        // Its document is durable. The queue must not stand still for what has a validator.
        tracing::error!(queue = queue.key, offset, "{into:?} does not take an event: {error}");
        return Ok(());
    }
    match kept[0].records.pop() {
        Some(record) => Err((record, error)),
        None => Ok(()),
    }
}

/// Whether a history has the event already, as far as MongoDB tells.
async fn is_kept(queue: &Owned, offset: i64, into: &str) -> bool {
    queue.shared.sink.has_record(&queue.id, offset, into).await.unwrap_or(false)
}

/// Tries until MongoDB answers.
async fn attempt(queue: &Owned, kept: &[Records]) -> Result<(), SinkError> {
    let (shared, collections) = (&queue.shared, &queue.mapping.collections);
    let attempt = || async {
        match shared.sink.append_history(&queue.id, kept, collections).await {
            Err(error) if error.class() != Class::Data && !error.is_refusal() => {
                shared.metrics.retried_mongodb(error.class());
                None
            }
            answered => Some(answered),
        }
    };
    shared.health.mongodb.until(attempt).await
}

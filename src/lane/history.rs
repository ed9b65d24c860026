//! Keeping the events of a batch whose routes have a history.

use crate::backoff::Backoff;
use crate::class::Class;
use crate::history::Records;
use crate::queue::Owned;

/// Appends the events of a batch that is settled to their histories, however long that takes. Dead letters are left
/// out. Only then may the events be committed: a next owner reads them again until both are durable.
pub(super) async fn append(queue: &Owned, mut kept: Vec<Records>) {
    {
        let buried = queue.buried.lock();
        if !buried.is_empty() {
            for Records { records, .. } in &mut kept {
                records.retain(|record| !buried.contains(&record.offset));
            }
        }
    }
    let (sink, collections) = (&queue.shared.sink, &queue.mapping.collections);
    let mut backoff = Backoff::default();
    while let Err(error) = sink.append_history(&queue.id, &kept, collections).await {
        if error.class() == Class::Data {
            return one_by_one(queue, kept).await;
        }
        queue.shared.metrics.retried_mongodb(error.class());
        queue.shared.status.mongodb.back_or(backoff.wait()).await;
    }
}

/// The same for each event by itself, where MongoDB does not take all of them.
async fn one_by_one(queue: &Owned, kept: Vec<Records>) {
    let (sink, collections) = (&queue.shared.sink, &queue.mapping.collections);
    for Records { entity, records } in kept {
        for record in records {
            let (offset, into) = (record.offset, record.into.clone());
            let one = [Records { entity: entity.clone(), records: vec![record] }];
            let mut backoff = Backoff::default();
            while let Err(error) = sink.append_history(&queue.id, &one, collections).await {
                if error.class() == Class::Data {
                    // Its document is durable. The queue must not stand still for what has a validator.
                    tracing::error!(queue = queue.key, offset, "{into:?} does not take an event: {error}");
                    break;
                }
                queue.shared.metrics.retried_mongodb(error.class());
                queue.shared.status.mongodb.back_or(backoff.wait()).await;
            }
        }
    }
}

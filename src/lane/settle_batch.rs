//! Settles a batch: documents first, then the histories of their events. What was parked is forgotten at the end.

use super::history;
use super::pending::Pending;
use super::quarantine::Withheld;
use super::settle::settle;
use crate::ownership::Owned;
use crate::source::SourceError;
use crate::status::LaneStatus;

/// Settles a batch, keeps its events where they are to be kept, and forgets those that were parked. Answers the documents of
/// which something is left.
pub(super) async fn settle_batch(
    queue: &Owned,
    status: &LaneStatus,
    mut batch: Pending,
) -> Result<Vec<Withheld>, SourceError> {
    let (mut records, parked) = (batch.take_records(), batch.take_parked());
    let mut withheld = settle(queue, status, batch).await?;
    for kept in &mut records {
        if let Some(withheld) = withheld.iter_mut().find(|withheld| withheld.entity == kept.entity) {
            let behind = kept.records.partition_point(|record| record.offset < withheld.first());
            withheld.records.extend(kept.records.drain(behind..));
        }
    }
    if !records.is_empty() {
        for mut left in history::append(queue, records).await {
            match withheld.iter_mut().find(|withheld| withheld.entity == left.entity) {
                Some(withheld) => {
                    left.records.append(&mut withheld.records);
                    withheld.records = left.records;
                }
                None => withheld.push(left),
            }
        }
    }
    let mut settled = Vec::new();
    for (entity, offsets) in parked {
        match withheld.iter_mut().find(|withheld| withheld.entity == entity) {
            Some(withheld) => withheld.parked = offsets,
            None => settled.extend(offsets),
        }
    }
    queue.unpark(&settled).await?;
    Ok(withheld)
}

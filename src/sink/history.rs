//! Appends events to their histories. `expiry.rs` has MongoDB remove old ones.

use std::collections::BTreeMap;

use bson::doc;
use bson::spec::ElementType;

use super::bulk_command::{BulkCommand, StatementKind};
use super::reply::write_error;
use super::{Sink, SinkError};
use crate::change::Collections;
use crate::history::{Record, Records};
use crate::raw::{self, ValueRef, begin_document, end_document};

/// The longest event that is kept whole; its document must not pass 16 MiB.
const LONGEST: usize = 15 << 20;

impl Sink {
    /// Appends events of a queue to their histories. Those that are there already stay as they are.
    ///
    /// # Errors
    /// MongoDB's; data, if it will never take one of them, and the others may not be there either.
    pub(crate) async fn append_history(
        &self,
        queue: &str,
        kept: &[Records],
        collections: &Collections,
    ) -> Result<(), SinkError> {
        let mut open: BTreeMap<&str, BulkCommand> = BTreeMap::new();
        for Records { entity, records, .. } in kept {
            for record in records {
                let entity = entity.get();
                let id = entity.id;
                let insert = open.entry(&*record.into).or_insert_with(|| self.insert(&record.into));
                if insert.is_full(record.bytes(), self.limits) {
                    let full = std::mem::replace(insert, self.insert(&record.into));
                    self.send_insert(full).await?;
                }
                insert.reserve(record.bytes());
                insert.add(|out| {
                    encode(out, queue, record, collections.name(entity.collection), id);
                    true
                });
            }
        }
        for insert in open.into_values() {
            self.send_insert(insert).await?;
        }
        Ok(())
    }

    /// Whether a history has an event of a queue.
    pub(crate) async fn has_record(&self, queue: &str, offset: i64, into: &str) -> Result<bool, SinkError> {
        let find = doc! {
            "find": into,
            "filter": {"_id": {"queue": queue, "offset": offset}},
            "projection": {"_id": 1},
            "limit": 1,
            "singleBatch": true,
        };
        let reply = self.ask(&find).await?;
        let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        Ok(batch.is_ok_and(|batch| !batch.is_empty()))
    }

    fn insert(&self, collection: &str) -> BulkCommand {
        BulkCommand::new(StatementKind::Insert, collection, false, &self.write_concern)
    }

    async fn send_insert(&self, insert: BulkCommand) -> Result<(), SinkError> {
        let reply = self.run_for_documents(insert.close()).await?;
        write_error(&reply).map_or(Ok(()), Err)
    }
}

/// Writes the document that keeps an event. The event is text: whatever its keys are, it is kept as it came.
fn encode(out: &mut Vec<u8>, queue: &str, record: &Record, collection: &str, id: ValueRef<'_>) {
    let date = |out: &mut Vec<u8>, key: &str, ms: i64| {
        raw::write(out, key, ValueRef { kind: ElementType::DateTime, bytes: &ms.to_le_bytes() });
    };
    let document = begin_document(out);
    raw::write_key(out, ElementType::EmbeddedDocument, "_id");
    let own_id = begin_document(out);
    raw::write_text(out, "queue", queue);
    raw::write_i64(out, "offset", record.offset);
    end_document(out, own_id);
    raw::write_text(out, "collection", collection);
    raw::write(out, "id", id);
    date(out, "at", record.at.timestamp_millis());
    if let Some(ts) = record.ts {
        date(out, "ts", ts);
    }
    // What was decoded is UTF-8.
    match std::str::from_utf8(&record.event) {
        Ok(event) if event.len() <= LONGEST => raw::write_text(out, "event", event),
        _ => raw::write_i64(out, "omittedBytes", i64::try_from(record.event.len()).unwrap_or(i64::MAX)),
    }
    end_document(out, document);
}

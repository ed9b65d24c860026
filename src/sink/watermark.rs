//! Reading back how far documents are: their watermarks of a queue.

use std::collections::HashMap;

use bson::spec::ElementType;
use bson::{Binary, Bson, Document};

use super::command::{Guard, write_entity};
use super::{Sink, SinkError};
use crate::change::CollectionId;
use crate::event::path::WATERMARK_FIELD;
use crate::raw::{self, Number, ValueRef, begin_document, end_document};
use crate::write::Write;

/// What is known of an entity's document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// There is none.
    Nothing,
    /// It has no watermark of the queue.
    Unmarked,
    /// Its watermark of the queue.
    Watermark(i64),
    /// Its `_id` is taken, by a document with another shard key.
    Taken,
}

/// Ids asked for at once; their documents' watermarks fit one reply.
const IDS: usize = 1000;

impl Sink {
    /// Looks up the documents' watermarks of a queue, in the order of `writes`. Without a guard there are none.
    ///
    /// # Errors
    /// MongoDB's.
    pub async fn watermarks(
        &self,
        writes: &[&Write],
        guard: Option<&Guard>,
    ) -> Result<Vec<Found>, SinkError> {
        let projected = guard.map_or("_id", Guard::path);
        let mut all = vec![Found::Nothing; writes.len()];
        let mut by_collection: HashMap<CollectionId, Vec<usize>> = HashMap::new();
        for (at, write) in writes.iter().enumerate() {
            let entity = write.entity.get();
            if entity.shard_key.is_empty() {
                by_collection.entry(entity.collection).or_default().push(at);
                continue;
            }
            // The same `_id` may be there on another shard.
            let mut filter = Vec::new();
            let start = begin_document(&mut filter);
            write_entity(&mut filter, entity);
            end_document(&mut filter, start);
            let find = async || self.find(entity.collection, &filter, projected, 1).await;
            let mut found = find().await?;
            if found.is_empty() {
                let by_id = among(std::iter::once(entity.id));
                if !self.find(entity.collection, &by_id, projected, 1).await?.is_empty() {
                    // Unless it was made between the two looks, it is another's.
                    found = find().await?;
                    all[at] = Found::Taken;
                }
            }
            if let Some(document) = found.first() {
                all[at] = watermark(document, guard);
            }
        }
        for (collection, places) in by_collection {
            for some in places.chunks(IDS) {
                let filter = among(some.iter().map(|at| writes[*at].entity.get().id));
                let documents = self.find(collection, &filter, projected, some.len()).await?;
                let found: HashMap<Vec<u8>, Found> = documents
                    .iter()
                    .filter_map(|document| Some((id_bytes(document.get("_id")?), watermark(document, guard))))
                    .collect();
                for at in some {
                    let found = found.get(&key(writes[*at].entity.get().id)).copied();
                    all[*at] = found.unwrap_or(Found::Nothing);
                }
            }
        }
        Ok(all)
    }

    /// The documents that match, with `_id` and what is at the projected path. They must fit one reply.
    pub(super) async fn find(
        &self,
        collection: CollectionId,
        filter: &[u8],
        projected: &str,
        at_most: usize,
    ) -> Result<Vec<Document>, SinkError> {
        let mut out = Vec::new();
        let start = begin_document(&mut out);
        raw::write_text(&mut out, "find", self.live.mapping().collections.name(collection));
        raw::write(&mut out, "filter", ValueRef { kind: ElementType::EmbeddedDocument, bytes: filter });
        raw::write_key(&mut out, ElementType::EmbeddedDocument, "projection");
        let projection = begin_document(&mut out);
        raw::write_i32(&mut out, projected, 1);
        end_document(&mut out, projection);
        raw::write_i32(&mut out, "batchSize", i32::try_from(at_most).unwrap_or(i32::MAX));
        raw::write_bool(&mut out, "singleBatch", true);
        raw::write_key(&mut out, ElementType::EmbeddedDocument, "readConcern");
        let concern = begin_document(&mut out);
        raw::write_text(&mut out, "level", self.read_concern);
        end_document(&mut out, concern);
        end_document(&mut out, start);
        let reply = self.run_for_documents(out).await?;
        let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        let batch = batch.map(Vec::as_slice).unwrap_or_default();
        Ok(batch.iter().filter_map(Bson::as_document).cloned().collect())
    }
}

/// `{_id: {$in: [...]}}`
fn among<'a>(ids: impl Iterator<Item = ValueRef<'a>>) -> Vec<u8> {
    let mut out = Vec::new();
    let filter = begin_document(&mut out);
    raw::write_key(&mut out, ElementType::EmbeddedDocument, "_id");
    let operator = begin_document(&mut out);
    raw::write_key(&mut out, ElementType::Array, "$in");
    let array = begin_document(&mut out);
    ids.enumerate().for_each(|(at, id)| raw::write_indexed(&mut out, at, id));
    [array, operator, filter].into_iter().for_each(|start| end_document(&mut out, start));
    out
}

fn watermark(document: &Document, guard: Option<&Guard>) -> Found {
    let Some(guard) = guard else { return Found::Unmarked };
    let watermarks = document.get_document(WATERMARK_FIELD).ok();
    let watermark = watermarks.and_then(|watermarks| watermarks.get(guard.id())).and_then(Bson::as_i64);
    watermark.map_or(Found::Unmarked, Found::Watermark)
}

/// What finds an id again. To MongoDB, 7 is the same whatever number type it has.
fn key(id: ValueRef<'_>) -> Vec<u8> {
    match id.number() {
        Some(Number::Int32(n)) => integer_id(n.into()),
        Some(Number::Int64(n)) => integer_id(n),
        _ => [&[id.kind as u8], id.bytes].concat(),
    }
}

fn integer_id(n: i64) -> Vec<u8> {
    [&[ElementType::Int64 as u8], &n.to_le_bytes()[..]].concat()
}

fn id_bytes(id: &Bson) -> Vec<u8> {
    match id {
        Bson::Int32(n) => integer_id((*n).into()),
        Bson::Int64(n) => integer_id(*n),
        Bson::Double(n) if n.fract() == 0.0 => integer_id(*n as i64),
        // An integral decimal reads as one.
        Bson::Decimal128(n) => n.to_string().parse().map(integer_id).unwrap_or_default(),
        Bson::String(text) => {
            let mut bytes = vec![ElementType::String as u8];
            raw::write_text_value(&mut bytes, text);
            bytes
        }
        Bson::ObjectId(id) => [&[ElementType::ObjectId as u8], &id.bytes()[..]].concat(),
        Bson::Binary(Binary { subtype, bytes }) => {
            let len = i32::try_from(bytes.len()).unwrap_or(i32::MAX).to_le_bytes();
            [&[ElementType::Binary as u8], &len[..], &[(*subtype).into()], bytes].concat()
        }
        // No event has such an id.
        _ => Vec::new(),
    }
}

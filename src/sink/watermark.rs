//! Reads back how far documents are: their watermarks of a queue.

use std::collections::HashMap;

use bson::spec::ElementType;
use bson::{Binary, Bson, Decimal128, Document, doc};

use super::command::{Guard, write_entity};
use super::{Sink, SinkError};
use crate::change::path::WATERMARK_FIELD;
use crate::change::{CollectionId, EntityRef};
use crate::raw::{self, Number, ValueRef, begin_document, end_document};

/// What is known of an entity's document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FoundWatermark {
    /// There is none.
    Nothing,
    /// It has no watermark of the queue.
    Unmarked,
    /// Its watermark of the queue, by its value.
    Watermark(i64),
    /// What is in the place of its watermark proves nothing.
    Strange,
    /// Its `_id` is taken, by a document with another shard key.
    Taken,
}

/// What is in the place of a watermark, and is none. It proves nothing, but some of it keeps the guard from matching: an
/// array, for one, is as large as its largest element.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Strange {
    /// A value of the queue's field.
    Value(Bson),
    /// What holds the fields of all queues is an array.
    Array,
}

impl Strange {
    /// The number, if it is one.
    #[must_use]
    pub(crate) fn as_watermark(&self) -> Option<i64> {
        match self {
            Strange::Value(value) => whole(value),
            Strange::Array => None,
        }
    }

    /// Writes what a filter says of a document that has it.
    pub(super) fn filter(&self, out: &mut Vec<u8>, guard: &Guard) {
        let condition = match self {
            Strange::Value(value) => doc! { guard.path(): value.clone() },
            Strange::Array => doc! { WATERMARK_FIELD: { "$type": "array" } },
        };
        // What was read from BSON can be written again.
        let bytes = bson::serialize_to_vec(&condition).unwrap_or_default();
        out.extend_from_slice(bytes.get(4..bytes.len().saturating_sub(1)).unwrap_or_default());
    }
}

/// Ids asked for at once; their documents' watermarks fit one reply.
const IDS: usize = 1000;

impl Sink {
    /// Looks up the documents' watermarks of a queue, in the order of `entities`, each as it is stored. Without a guard
    /// there are none.
    pub(crate) async fn watermarks(
        &self,
        entities: &[EntityRef<'_>],
        guard: Option<&Guard>,
    ) -> Result<Vec<(FoundWatermark, Option<Strange>)>, SinkError> {
        let projected = guard.map_or("_id", Guard::path);
        let mut all = vec![(FoundWatermark::Nothing, None); entities.len()];
        let mut by_collection: HashMap<CollectionId, Vec<usize>> = HashMap::new();
        for (at, entity) in entities.iter().copied().enumerate() {
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
                    all[at] = (FoundWatermark::Taken, None);
                }
            }
            if let Some(document) = found.first() {
                all[at] = watermark(document, guard);
            }
        }
        for (collection, places) in by_collection {
            for some in places.chunks(IDS) {
                let filter = among(some.iter().map(|at| entities[*at].id));
                let documents = self.find(collection, &filter, projected, some.len()).await?;
                let found: HashMap<Vec<u8>, (FoundWatermark, Option<Strange>)> = documents
                    .iter()
                    .filter_map(|document| Some((id_bytes(document.get("_id")?), watermark(document, guard))))
                    .collect();
                for at in some {
                    let found = found.get(&key(entities[*at].id)).cloned();
                    all[*at] = found.unwrap_or((FoundWatermark::Nothing, None));
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

pub(super) fn watermark(document: &Document, guard: Option<&Guard>) -> (FoundWatermark, Option<Strange>) {
    let Some(guard) = guard else { return (FoundWatermark::Unmarked, None) };
    let watermarks = match document.get(WATERMARK_FIELD) {
        Some(Bson::Document(watermarks)) => watermarks,
        Some(Bson::Array(_)) => return (FoundWatermark::Strange, Some(Strange::Array)),
        // No field can be in it: the server refuses to make one.
        _ => return (FoundWatermark::Unmarked, None),
    };
    let Some(value) = watermarks.get(guard.id()) else { return (FoundWatermark::Unmarked, None) };
    (
        whole(value).map_or(FoundWatermark::Strange, FoundWatermark::Watermark),
        Some(Strange::Value(value.clone())),
    )
}

/// A whole number of any type: to MongoDB they compare alike, and other programs store what they please.
fn whole(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(n) => Some((*n).into()),
        Bson::Int64(n) => Some(*n),
        // From 2^63 on they do not fit.
        Bson::Double(n) if n.fract() == 0.0 && n.abs() < 9_223_372_036_854_775_808.0 => Some(*n as i64),
        Bson::Decimal128(n) => whole_decimal(*n),
        _ => None,
    }
}

fn whole_decimal(n: Decimal128) -> Option<i64> {
    let text = n.to_string();
    let (digits, exponent) = text.split_once(['E', 'e']).unwrap_or((&text, "0"));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let exponent = exponent.parse::<i32>().ok()? - i32::try_from(fraction.len()).ok()?;
    let unscaled: i128 = format!("{whole}{fraction}").parse().ok()?;
    let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
    let value = match exponent {
        0.. => unscaled.checked_mul(power)?,
        _ if unscaled % power == 0 => unscaled / power,
        _ => return None,
    };
    i64::try_from(value).ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn found(watermark: impl Into<Bson>) -> (FoundWatermark, Option<Strange>) {
        let document = doc! { "_id": 1, WATERMARK_FIELD: { "q": watermark.into() } };
        super::watermark(&document, Some(&Guard::new("q")))
    }

    #[test]
    fn numbers_count_by_their_value() {
        let large = (40_i64 << 36) + 17;
        assert_eq!(found(large).0, FoundWatermark::Watermark(large));
        // As it is stored: not every server finds it by the same number of another type.
        let stored = Strange::Value(Bson::Double(large as f64));
        assert_eq!(found(large as f64), (FoundWatermark::Watermark(large), Some(stored)));
        assert_eq!(found(7).0, FoundWatermark::Watermark(7));
        for (text, value) in
            [("2748779069457", large), ("27487790694570E-1", large), ("17.00", 17), ("5E+3", 5000)]
        {
            assert_eq!(
                found(text.parse::<Decimal128>().unwrap()).0,
                FoundWatermark::Watermark(value),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_whole_number_is_told() {
        let decimal = |text: &str| Bson::Decimal128(text.parse().unwrap());
        for value in [
            Bson::Double(1.5),
            Bson::Double(f64::INFINITY),
            Bson::Double(9.3e18),
            decimal("1.5"),
            decimal("NaN"),
            decimal("1E+40"),
            Bson::Null,
            "7".into(),
            Bson::Array(vec![Bson::Int64(i64::MAX)]),
            Bson::Document(doc! {}),
        ] {
            assert_eq!(found(value.clone()), (FoundWatermark::Strange, Some(Strange::Value(value))));
        }
        let guard = Guard::new("q");
        let within = |value: Bson| super::watermark(&doc! { WATERMARK_FIELD: value }, Some(&guard));
        assert_eq!(
            within(Bson::Array(vec![Bson::Document(doc! {"q": 1})])),
            (FoundWatermark::Strange, Some(Strange::Array))
        );
        assert_eq!(within(Bson::Int32(5)).0, FoundWatermark::Unmarked);
        assert_eq!(within(Bson::Document(doc! {})).0, FoundWatermark::Unmarked);
    }
}

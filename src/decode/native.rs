//! Decodes native events, which name collection, id and update themselves.

use std::borrow::Cow;

use bson::spec::ElementType;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::convert::text_value;
use super::extract::Extracted;
use super::operators::read_update;
use super::patch::read_patch;
use super::paths::{Paths, Slot};
use super::transcode::KeyRule;
use super::{Collections, Decoded, Ops, entity_id, event_time, merge};
use crate::change::{CollectionId, Entity, EntityRef};
use crate::dead_letter::{Reason, Rejection};
use crate::raw::{Number, Value, ValueRef};

/// The key for the trace.
pub(super) const TRACEPARENT: &str = "traceparent";

/// What an event says of itself first.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    collection: Cow<'a, str>,
    #[serde(borrow)]
    id: &'a RawValue,
}

/// Reads native events.
#[derive(Debug)]
pub(super) struct Native {
    paths: Paths,
    collection: Slot,
    id: Slot,
    ts: Slot,
    update: Slot,
    merge: Slot,
    patch: Slot,
    replace: Slot,
    delete: Slot,
    traceparent: Slot,
    allowed: Vec<String>,
}

impl Native {
    pub(super) fn new(allowed: &[String]) -> Self {
        let mut paths = Paths::strict();
        Native {
            collection: paths.add("collection", KeyRule::Data),
            id: paths.add("id", KeyRule::Data),
            ts: paths.add("ts", KeyRule::Data),
            update: paths.add("update", KeyRule::Update),
            merge: paths.add("merge", KeyRule::Merge),
            patch: paths.add("patch", KeyRule::Data),
            replace: paths.add("replace", KeyRule::Document),
            delete: paths.add("delete", KeyRule::Data),
            traceparent: paths.add_trace(TRACEPARENT),
            paths,
            allowed: allowed.to_vec(),
        }
    }

    /// The collection of this name, if events may name it.
    fn collection(&self, name: &str, collections: &Collections) -> Option<CollectionId> {
        self.allowed.iter().find(|allowed| *allowed == name).and_then(|name| collections.find(name))
    }

    /// The entity of an event that is refused, as far as it can be told.
    pub(super) fn entity(&self, event: &[u8], collections: &Collections) -> Option<Entity> {
        let named: Named<'_> = serde_json::from_slice(event).ok()?;
        let collection = self.collection(&named.collection, collections)?;
        let id = match serde_json::from_str::<serde_json::Value>(named.id.get()).ok()? {
            serde_json::Value::Number(id) => Value::from(Number::int(id.as_i64()?)),
            serde_json::Value::String(id) if !id.is_empty() => text_value(&id),
            _ => return None,
        };
        Some(EntityRef { collection, id: id.get(), shard_key: &[] }.into())
    }

    pub(super) fn decode<'a>(
        &self,
        event: &str,
        collections: &Collections,
        extracted: &'a mut Extracted,
        ops: &mut Ops,
    ) -> Result<Decoded<'a>, Rejection> {
        extracted.extract(&self.paths, event)?;
        let extracted: &'a Extracted = extracted;
        extracted.check_keys(&self.paths.reads)?;
        ops.is_mended = extracted.is_mended();
        let bad = |text: &str| Rejection::new(Reason::BadEvent, text);
        let name = extracted
            .get(self.collection)
            .ok_or_else(|| bad("a native event needs \"collection\""))?
            .text()
            .ok_or_else(|| bad("\"collection\" must be a string"))?;
        let collection = self.collection(name, collections).ok_or_else(|| {
            let text = format!("the collection {name:?} is not in native.collections");
            Rejection::new(Reason::UnknownCollection, text)
        })?;
        let id = extracted.get(self.id).filter(|id| id.kind != ElementType::Null);
        let id = id.ok_or_else(|| Rejection::new(Reason::MissingId, "a native event needs \"id\""))?;
        let entity = EntityRef { collection, id: entity_id(id, "id")?, shard_key: &[] };
        let ts = extracted.get(self.ts).and_then(event_time);

        let effects =
            [self.update, self.merge, self.patch, self.replace, self.delete].map(|slot| extracted.get(slot));
        let decoded = match effects {
            [Some(update), None, None, None, None] => {
                read_update(update, ops)?;
                Ok(Decoded::update(entity, ts))
            }
            [None, Some(patch), None, None, None] => {
                merge(patch, "merge", ops)?;
                Ok(Decoded::update(entity, ts))
            }
            [None, None, Some(patch), None, None] => {
                read_patch(patch, ops)?;
                Ok(Decoded::update(entity, ts))
            }
            [None, None, None, Some(document), None] => Decoded::replace(entity, ts, document, "replace"),
            [None, None, None, None, Some(ValueRef { kind: ElementType::Boolean, bytes: [1] })] => {
                Ok(Decoded::delete(entity, ts))
            }
            [None, None, None, None, Some(_)] => Err(bad("\"delete\" must be true")),
            _ => Err(bad(
                "a native event needs one of \"update\", \"merge\", \"patch\", \"replace\", \"delete\"",
            )),
        };
        decoded.map(|decoded| Decoded { traceparent: extracted.trace(self.traceparent), ..decoded })
    }
}

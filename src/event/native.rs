//! Native events: events written for tidegate, which name collection, id and update themselves.

use bson::spec::ElementType;

use super::extract::{Extracted, Paths, Slot};
use super::transcode::Keys;
use super::{Collections, Decoded, Ops, entity_id, event_time, merge};
use crate::change::{EntityRef, FieldOp, Op};
use crate::dead_letter::{Reason, Rejection};
use crate::raw::{self, ValueRef};

/// Reads native events.
#[derive(Debug)]
pub(super) struct Native {
    paths: Paths,
    collection: Slot,
    id: Slot,
    ts: Slot,
    update: Slot,
    merge: Slot,
    replace: Slot,
    delete: Slot,
    allowed: Vec<String>,
}

impl Native {
    pub(super) fn new(allowed: &[String]) -> Self {
        let mut paths = Paths::strict();
        Native {
            collection: paths.add("collection", Keys::Data),
            id: paths.add("id", Keys::Data),
            ts: paths.add("ts", Keys::Data),
            update: paths.add("update", Keys::Update),
            merge: paths.add("merge", Keys::Merge),
            replace: paths.add("replace", Keys::Document),
            delete: paths.add("delete", Keys::Data),
            paths,
            allowed: allowed.to_vec(),
        }
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
        let bad = |text: &str| Rejection::new(Reason::BadEvent, text);
        let name = extracted
            .get(self.collection)
            .ok_or_else(|| bad("a native event needs \"collection\""))?
            .text()
            .ok_or_else(|| bad("\"collection\" must be a string"))?;
        let collection =
            self.allowed.iter().find(|n| *n == name).and_then(|n| collections.find(n)).ok_or_else(|| {
                let text = format!("the collection {name:?} is not in native.collections");
                Rejection::new(Reason::UnknownCollection, text)
            })?;
        let id = extracted.get(self.id).filter(|id| id.kind != ElementType::Null);
        let id = id.ok_or_else(|| Rejection::new(Reason::MissingId, "a native event needs \"id\""))?;
        let entity = EntityRef { collection, id: entity_id(id, "id")? };
        let ts = extracted.get(self.ts).and_then(event_time);

        let effects = [self.update, self.merge, self.replace, self.delete].map(|slot| extracted.get(slot));
        match effects {
            [Some(update), None, None, None] => {
                read_update(update, ops)?;
                Ok(Decoded::update(entity, ts))
            }
            [None, Some(patch), None, None] => {
                merge(patch, "merge", ops)?;
                Ok(Decoded::update(entity, ts))
            }
            [None, None, Some(document), None] => Decoded::replace(entity, ts, document, "replace"),
            [None, None, None, Some(ValueRef { kind: ElementType::Boolean, bytes: [1] })] => {
                Ok(Decoded::delete(entity, ts))
            }
            [None, None, None, Some(_)] => Err(bad("\"delete\" must be true")),
            _ => Err(bad("a native event needs one of \"update\", \"merge\", \"replace\", \"delete\"")),
        }
    }
}

/// Reads `{"$set": {...}, "$inc": {...}}`.
fn read_update(update: ValueRef<'_>, ops: &mut Ops) -> Result<(), Rejection> {
    let bad = |text: String| Rejection::new(Reason::BadEvent, text);
    if update.kind != ElementType::EmbeddedDocument {
        return Err(bad("\"update\" must be an object".into()));
    }
    let before = ops.len();
    for (operator, operands) in raw::elements(update.bytes) {
        let op = match operator {
            "$set" => Op::Set,
            "$unset" => Op::Unset,
            "$inc" => Op::Inc,
            "$push" => Op::Push,
            _ => return Err(bad(format!("the operator {operator:?} is not supported"))),
        };
        if operands.kind != ElementType::EmbeddedDocument {
            return Err(bad(format!("{operator:?} must be an object of paths")));
        }
        for (path, value) in raw::elements(operands.bytes) {
            match op {
                Op::Push | Op::PushEach => read_push(path, value, ops)?,
                Op::Unset => ops.add_from_event(FieldOp { op, path, value: ValueRef::NULL })?,
                Op::Set | Op::Inc => {
                    Keys::Data.check_encoded(value)?;
                    ops.add_from_event(FieldOp { op, path, value })?;
                }
            }
        }
    }
    if ops.len() == before {
        return Err(bad("\"update\" has nothing to write".into()));
    }
    Ok(())
}

/// Reads a `$push` operand: one element, or `{"$each": [...]}`.
fn read_push(path: &str, value: ValueRef<'_>, ops: &mut Ops) -> Result<(), Rejection> {
    let each = match value.kind {
        ElementType::EmbeddedDocument => raw::find(value.bytes, "$each"),
        _ => None,
    };
    let Some(each) = each else {
        Keys::Data.check_encoded(value)?;
        return ops.add_from_event(FieldOp { op: Op::Push, path, value });
    };
    if let Some((modifier, _)) = raw::elements(value.bytes).find(|(key, _)| *key != "$each") {
        return Err(Rejection::new(Reason::BadEvent, format!("$push with {modifier:?} is not supported")));
    }
    if each.kind != ElementType::Array {
        return Err(Rejection::new(Reason::BadEvent, "\"$each\" must be an array"));
    }
    ops.add_from_event(FieldOp { op: Op::PushEach, path, value: each })
}

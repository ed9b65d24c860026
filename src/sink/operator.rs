//! Writes MongoDB's update operators, with the fields that they are for.

use bson::spec::ElementType;

use crate::change::Op;
use crate::change::path::DELETED_FIELD;
use crate::coalesce::{ArrayElements, FieldUpdate, Fields};
use crate::raw::{self, ValueRef, begin_document, end_document};
use crate::yjs;

/// `$unset: {_tidegateDeleted: null}`, as an element of an update.
pub(super) const REVIVE: &[u8] = b"\x03$unset\0\x17\0\0\0\x0a_tidegateDeleted\0\0";

/// Writes an operator with its fields, or nothing if it has none. What is written over a tombstone is none any more, and
/// must not be removed as one: `$unset` always has that field.
pub(super) fn operator(out: &mut Vec<u8>, name: &str, fields: &Fields) {
    let at = out.len();
    raw::write_key(out, ElementType::EmbeddedDocument, name);
    let start = begin_document(out);
    for (path, update) in fields.iter() {
        match update {
            FieldUpdate::Yjs(updates) if name == "$inc" => {
                let count = i32::try_from(updates.count()).unwrap_or(i32::MAX);
                raw::write_i32(out, &format!("{path}.{}", yjs::COUNT), count);
            }
            _ if update.operator() != Some(name) => {}
            FieldUpdate::Yjs(updates) => each(out, &format!("{path}.{}", yjs::UPDATES), updates, None),
            FieldUpdate::Other(_, value) => raw::write(out, path, value.get()),
            FieldUpdate::Constant(_) => raw::write(out, path, ValueRef::NULL),
            FieldUpdate::PullAll(elements) => {
                raw::write_key(out, ElementType::Array, path);
                elements.write(out);
            }
            FieldUpdate::Push(elements) | FieldUpdate::AddToSet(elements) => each(out, path, elements, None),
            FieldUpdate::PushWith(with) => each(out, path, &with.0, Some(with.1.get())),
            // What is merged is in a pipeline.
            FieldUpdate::RenameTarget | FieldUpdate::Merge(_) => {}
        }
    }
    if name == Op::Unset.operator() {
        raw::write(out, DELETED_FIELD, ValueRef::NULL);
    }
    if out.len() == start + 4 {
        out.truncate(at);
    } else {
        end_document(out, start);
    }
}

/// Writes `path: {$each: [...], modifiers}`.
fn each(out: &mut Vec<u8>, path: &str, elements: &ArrayElements, modifiers: Option<ValueRef<'_>>) {
    raw::write_key(out, ElementType::EmbeddedDocument, path);
    let operand = begin_document(out);
    raw::write_key(out, ElementType::Array, "$each");
    elements.write(out);
    for (key, value) in modifiers.iter().flat_map(|modifiers| raw::elements(modifiers.bytes)) {
        raw::write(out, key, value);
    }
    end_document(out, operand);
}

#[cfg(test)]
mod tests {
    use bson::{Bson, Document, doc};

    use super::*;

    #[test]
    fn what_revives_is_what_the_operator_writes_of_no_fields() {
        let mut update = Vec::new();
        let start = begin_document(&mut update);
        update.extend_from_slice(REVIVE);
        end_document(&mut update, start);
        let update: Document = bson::deserialize_from_slice(&update).unwrap();
        assert_eq!(update, doc! {"$unset": {DELETED_FIELD: Bson::Null}});
    }
}

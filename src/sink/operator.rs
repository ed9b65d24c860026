//! MongoDB's update operators, with the fields that they are for.

use bson::spec::ElementType;

use crate::change::Op;
use crate::coalesce::{Elements, FieldUpdate, Fields};
use crate::event::path::DELETED_FIELD;
use crate::raw::{self, ValueRef, begin_document, end_document};
use crate::yjs;

/// Writes an operator with its fields, or nothing if it has none.
pub(super) fn operator(out: &mut Vec<u8>, name: &str, fields: &Fields, revive: bool) {
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
            FieldUpdate::Known(_) => raw::write(out, path, ValueRef::NULL),
            FieldUpdate::PullAll(elements) => {
                raw::write_key(out, ElementType::Array, path);
                elements.write(out);
            }
            FieldUpdate::Push(elements) | FieldUpdate::AddToSet(elements) => each(out, path, elements, None),
            FieldUpdate::PushWith(with) => each(out, path, &with.0, Some(with.1.get())),
            FieldUpdate::RenameTarget => {}
        }
    }
    if revive && name == Op::Unset.operator() {
        raw::write(out, DELETED_FIELD, ValueRef::NULL);
    }
    if out.len() == start + 4 {
        out.truncate(at);
    } else {
        end_document(out, start);
    }
}

/// Writes `path: {$each: [...], modifiers}`.
fn each(out: &mut Vec<u8>, path: &str, elements: &Elements, modifiers: Option<ValueRef<'_>>) {
    raw::write_key(out, ElementType::EmbeddedDocument, path);
    let operand = begin_document(out);
    raw::write_key(out, ElementType::Array, "$each");
    elements.write(out);
    for (key, value) in modifiers.iter().flat_map(|modifiers| raw::elements(modifiers.bytes)) {
        raw::write(out, key, value);
    }
    end_document(out, operand);
}

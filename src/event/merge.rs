//! Merge patches.

use bson::spec::ElementType;

use super::ops::Ops;
use crate::change::{FieldOp, Op};
use crate::dead_letter::{Reason, Rejection};
use crate::raw::{self, ValueRef};

/// Turns a merge patch (RFC 7396) into operations on fields: null removes, an object merges, anything
/// else is set.
pub(super) fn merge(patch: ValueRef<'_>, at: &str, ops: &mut Ops) -> Result<(), Rejection> {
    if patch.kind != ElementType::EmbeddedDocument {
        return Err(Rejection::new(Reason::BadEvent, format!("{at:?} must be an object to merge")));
    }
    merge_below(patch, &mut String::new(), ops)
}

fn merge_below(patch: ValueRef<'_>, path: &mut String, ops: &mut Ops) -> Result<(), Rejection> {
    for (key, value) in raw::elements(patch.bytes) {
        let parent = path.len();
        if parent > 0 {
            path.push('.');
        }
        path.push_str(key);
        match value.kind {
            ElementType::Null => ops.add_from_event(FieldOp { op: Op::Unset, path, value })?,
            ElementType::EmbeddedDocument if raw::elements(value.bytes).next().is_none() => {
                let text =
                    format!("merging an empty object into {path:?} depends on what the document holds there");
                return Err(Rejection::new(Reason::BadEvent, text));
            }
            ElementType::EmbeddedDocument => merge_below(value, path, ops)?,
            _ => ops.add_from_event(FieldOp { op: Op::Set, path, value })?,
        }
        path.truncate(parent);
    }
    Ok(())
}

//! Makes an operation of a merge patch (RFC 7396).

use bson::spec::ElementType;

use super::MAX_UPDATE;
use super::ops::Ops;
use crate::change::{FieldOp, Op};
use crate::coalesce::merge_bytes;
use crate::dead_letter::{Reason, Rejection};
use crate::raw::{self, ValueRef};

/// Turns a merge patch (RFC 7396) into operations on the document's own fields: null removes, an object merges, anything
/// else is set. A document is an object, so only what an object merges into is not known.
pub(super) fn merge(patch: ValueRef<'_>, at: &str, ops: &mut Ops) -> Result<(), Rejection> {
    if patch.kind != ElementType::EmbeddedDocument {
        return Err(Rejection::new(Reason::BadEvent, format!("{at:?} must be an object to merge")));
    }
    for (path, value) in raw::elements(patch.bytes) {
        let op = match value.kind {
            ElementType::Null => Op::Unset,
            ElementType::EmbeddedDocument => {
                check_size(value, path)?;
                Op::Merge
            }
            _ => Op::Set,
        };
        ops.add_from_event(FieldOp { op, path, value })?;
    }
    Ok(())
}

/// Every field of a patch is written with its path, so keys weigh more than once.
fn check_size(patch: ValueRef<'_>, path: &str) -> Result<(), Rejection> {
    let bytes = merge_bytes(patch, path.len());
    if bytes <= MAX_UPDATE {
        return Ok(());
    }
    let text = format!(
        "merging into {path:?} takes an update of about {bytes} bytes, which exceeds MongoDB's 16 MiB"
    );
    Err(Rejection::new(Reason::TooLarge, text))
}

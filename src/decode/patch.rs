//! Checks what can be known of a JSON Patch (RFC 6902) without the document.
//! The rest is MongoDB's to find out: the update that the patch becomes refuses what does not fit the document.
//!
//! `test` is refused: objects are the same to the RFC in any order of their members, and are not to MongoDB.

use std::collections::HashSet;

use bson::spec::ElementType;

use super::{Ops, path, plain_data};
use crate::change::path::overlap;
use crate::change::{FieldOp, Op};
use crate::change::{MAX_UPDATE, pointer};
use crate::coalesce::step_bytes;
use crate::dead_letter::{Reason, Rejection};
use crate::raw::{self, ValueRef};

/// Tokens that a pointer may have: each nests an expression deeper, and servers take 200 levels.
const MOST_TOKENS: usize = 10;

/// Operations that a patch may have: servers take a thousand stages in a pipeline.
const MOST_OPERATIONS: usize = 200;

fn bad(text: String) -> Rejection {
    Rejection::new(Reason::BadEvent, text)
}

/// Turns a patch, an array of operations, into operations on the document.
pub(super) fn read_patch(patch: ValueRef<'_>, ops: &mut Ops) -> Result<(), Rejection> {
    if patch.kind != ElementType::Array {
        return Err(bad("\"patch\" must be an array of operations".into()));
    }
    let (mut bytes, mut count, mut added, mut only_adds) = (0, 0, HashSet::new(), true);
    for (at, operation) in raw::elements(patch.bytes) {
        if operation.kind != ElementType::EmbeddedDocument {
            return Err(bad(format!("operation {at} of the patch must be an object")));
        }
        let field = check(at, operation)?;
        only_adds &= field.is_some_and(|field| added.insert(field));
        bytes += step_bytes(operation);
        count += 1;
    }
    if count == 0 {
        return Ok(());
    }
    if only_adds {
        return set_members(patch, ops);
    }
    if count > MOST_OPERATIONS {
        return Err(bad(format!("the patch has {count} operations, more than {MOST_OPERATIONS}")));
    }
    if bytes > MAX_UPDATE {
        let text =
            format!("the patch takes an update of about {bytes} bytes, which exceeds MongoDB's 16 MiB");
        return Err(Rejection::new(Reason::TooLarge, text));
    }
    ops.add_patch(patch)
}

/// A document is an object, so adding a member to it is setting it.
fn set_members(patch: ValueRef<'_>, ops: &mut Ops) -> Result<(), Rejection> {
    for (_, operation) in raw::elements(patch.bytes) {
        let field = |name| raw::find(operation.bytes, name);
        let Some(path) = field("path").and_then(ValueRef::text) else { continue };
        let value = field("value").unwrap_or(ValueRef::NULL);
        for path in pointer::tokens(path) {
            ops.add_from_event(FieldOp { op: Op::Set, path: &path, value })?;
        }
    }
    Ok(())
}

/// Checks an operation. Answers which of the document's own fields it adds, if that is all it does.
fn check<'a>(at: &str, operation: ValueRef<'a>) -> Result<Option<&'a str>, Rejection> {
    let text = |name: &str| {
        raw::find(operation.bytes, name)
            .and_then(ValueRef::text)
            .ok_or_else(|| bad(format!("operation {at} of the patch has no {name:?}")))
    };
    let op = text("op")?;
    let target = text("path")?;
    check_pointer(target)?;
    match op {
        "add" | "replace" => {
            let value = raw::find(operation.bytes, "value");
            plain_data(value.ok_or_else(|| bad(format!("operation {at} of the patch has no \"value\"")))?)?;
        }
        "remove" => {}
        "move" | "copy" => {
            let from = text("from")?;
            check_pointer(from)?;
            if op == "move" && overlap(&dotted(from), &dotted(target)) && from.len() < target.len() {
                return Err(bad(format!("operation {at} of the patch moves {from:?} into itself")));
            }
        }
        "test" => {
            return Err(bad(format!("operation {at} of the patch is \"test\", which tidegate does not do")));
        }
        _ => {
            return Err(bad(format!(
                "operation {at} of the patch is {op:?}, which JSON Patch does not have"
            )));
        }
    }
    Ok((op == "add" && pointer::depth(target) == 1).then_some(target))
}

fn dotted(pointer: &str) -> String {
    pointer::tokens(pointer).collect::<Vec<_>>().join(".")
}

fn check_pointer(text: &str) -> Result<(), Rejection> {
    if !text.starts_with('/') {
        let what = if text.is_empty() { "the whole document" } else { "no JSON Pointer" };
        return Err(bad(format!("a patch's path {text:?} is {what}; a member is needed")));
    }
    if pointer::depth(text) > MOST_TOKENS {
        let text = format!("a patch's path has more than {MOST_TOKENS} parts");
        return Err(Rejection::new(Reason::TooDeep, text));
    }
    if let Some(token) = pointer::tokens(text).find(|token| token.is_empty() || token.contains('.')) {
        return Err(Rejection::new(Reason::BadKey, format!("a patch's path has the key {token:?}")));
    }
    path::check(&dotted(text))
}

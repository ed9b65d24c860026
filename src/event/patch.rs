//! JSON Patch (RFC 6902), as far as it can be said without reading the document.
//!
//! `add` and `replace` of a member set it, `add` to an array inserts or appends, `remove` of a member removes
//! it, `move` of a member renames it. An element of an array cannot be removed, replaced or moved by MongoDB's
//! operators, and `test` and `copy` look at the document: such patches are refused. Unlike the RFC, a parent
//! that is missing is made, and a member that is missing can be removed and replaced.

use bson::spec::ElementType;

use super::{Ops, path, plain_data};
use crate::change::{FieldOp, Op};
use crate::dead_letter::{Reason, Rejection};
use crate::raw::{self, ValueRef};

fn bad(text: String) -> Rejection {
    Rejection::new(Reason::BadEvent, text)
}

/// Turns a patch, an array of operations, into operations on fields.
pub(super) fn read_patch(patch: ValueRef<'_>, ops: &mut Ops) -> Result<(), Rejection> {
    if patch.kind != ElementType::Array {
        return Err(bad("\"patch\" must be an array of operations".into()));
    }
    for (at, operation) in raw::elements(patch.bytes) {
        if operation.kind != ElementType::EmbeddedDocument {
            return Err(bad(format!("operation {at} of the patch must be an object")));
        }
        read_operation(at, operation, ops)?;
    }
    Ok(())
}

fn read_operation(at: &str, operation: ValueRef<'_>, ops: &mut Ops) -> Result<(), Rejection> {
    let text = |name: &str| {
        raw::find(operation.bytes, name)
            .and_then(ValueRef::text)
            .ok_or_else(|| bad(format!("operation {at} of the patch has no {name:?}")))
    };
    let value = || {
        raw::find(operation.bytes, "value")
            .ok_or_else(|| bad(format!("operation {at} of the patch has no \"value\"")))
    };
    let op = text("op")?;
    let pointer = Pointer::parse(text("path")?)?;
    match (op, pointer.last_is()) {
        ("add", Last::End) => push(&pointer, None, value()?, ops),
        ("add", Last::Index(index)) => push(&pointer, Some(index), value()?, ops),
        ("add" | "replace", Last::Member) => {
            let value = value()?;
            plain_data(value)?;
            ops.add_from_event(FieldOp { op: Op::Set, path: &pointer.path(), value })
        }
        ("remove", Last::Member) => {
            ops.add_from_event(FieldOp { op: Op::Unset, path: &pointer.path(), value: ValueRef::NULL })
        }
        ("move", Last::Member) => {
            let from = Pointer::parse(text("from")?)?;
            if from.has_index() || pointer.has_index() {
                return Err(unsayable(at, "move of an array's element"));
            }
            let mut target = Vec::new();
            path::check(&pointer.path())?;
            raw::write_text_value(&mut target, pointer.path());
            let value = ValueRef { kind: ElementType::String, bytes: &target };
            ops.add_from_event(FieldOp { op: Op::Rename, path: &from.path(), value })
        }
        ("replace" | "remove" | "move", _) => Err(unsayable(at, &format!("{op} of an array's element"))),
        ("test" | "copy", _) => Err(unsayable(at, op)),
        _ => Err(bad(format!("operation {at} of the patch is {op:?}, which JSON Patch does not have"))),
    }
}

fn unsayable(at: &str, what: &str) -> Rejection {
    bad(format!("operation {at} of the patch cannot be done without reading the document: {what}"))
}

/// Inserts an element before the one at `index`, or appends it.
fn push(pointer: &Pointer, index: Option<i32>, value: ValueRef<'_>, ops: &mut Ops) -> Result<(), Rejection> {
    plain_data(value)?;
    let array = pointer.parent();
    let Some(index) = index else {
        return ops.add_from_event(FieldOp { op: Op::Push, path: &array, value });
    };
    let mut operand = Vec::new();
    let start = raw::begin_document(&mut operand);
    raw::write_key(&mut operand, ElementType::Array, "$each");
    let each = raw::begin_document(&mut operand);
    raw::write_indexed(&mut operand, 0, value);
    raw::end_document(&mut operand, each);
    raw::write_i32(&mut operand, "$position", index);
    raw::end_document(&mut operand, start);
    let value = ValueRef { kind: ElementType::EmbeddedDocument, bytes: &operand };
    ops.add_from_event(FieldOp { op: Op::PushWith, path: &array, value })
}

/// What a pointer ends in. A number is taken for an array's index, as in the RFC's examples.
enum Last {
    Member,
    Index(i32),
    End,
}

/// A JSON Pointer (RFC 6901).
struct Pointer(Vec<String>);

impl Pointer {
    fn parse(text: &str) -> Result<Self, Rejection> {
        let Some(rest) = text.strip_prefix('/') else {
            let what = if text.is_empty() { "the whole document" } else { "no JSON Pointer" };
            return Err(bad(format!("a patch's path {text:?} is {what}; a member is needed")));
        };
        let tokens: Vec<String> =
            rest.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect();
        match tokens.iter().find(|token| token.is_empty() || token.contains('.')) {
            Some(token) => {
                Err(Rejection::new(Reason::BadKey, format!("a patch's path has the key {token:?}")))
            }
            None => Ok(Pointer(tokens)),
        }
    }

    fn last_is(&self) -> Last {
        let last = self.0.last().map_or("", String::as_str);
        match last.parse() {
            // At the top of a document there is no array.
            _ if self.0.len() == 1 => Last::Member,
            _ if last == "-" => Last::End,
            Ok(index) if last.bytes().all(|b| b.is_ascii_digit()) => Last::Index(index),
            _ => Last::Member,
        }
    }

    fn has_index(&self) -> bool {
        self.0.iter().skip(1).any(|token| token.bytes().all(|b| b.is_ascii_digit()))
    }

    fn path(&self) -> String {
        self.0.join(".")
    }

    fn parent(&self) -> String {
        self.0[..self.0.len() - 1].join(".")
    }
}

//! Holds a value that is known whatever the document held: what was set, and what operations made of it since.
//!
//! It is kept as it came until an operation reaches into it. Then the objects on the way are taken apart, so that
//! folding into them takes as many steps as the path has. Arrays only grow, since reaching into one would take as long
//! as it has elements.

use bson::spec::ElementType;
use foldhash::quality::RandomState;
use indexmap::IndexMap;

use super::elements::ArrayElements;
use super::number;
use crate::change::{FieldOp, Op};
use crate::raw::{self, Value, ValueRef};

/// A known value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Constant {
    /// There is none.
    Missing,
    /// As it was set.
    Value(Value),
    /// An array that elements were pushed to.
    Array(ArrayElements),
    /// An object that operations reached into.
    Object(Box<Object>),
}

/// An object taken apart. A field that was removed keeps its place.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Object {
    fields: IndexMap<Box<str>, Constant, RandomState>,
    bytes: usize,
}

/// A field of an object, besides its key and value: about what it takes in memory.
const FIELD_OVERHEAD: usize = 64;

impl Constant {
    /// An object without fields.
    pub(crate) fn empty() -> Self {
        Constant::Object(Box::default())
    }

    /// An encoded document.
    pub(super) fn document(bytes: &[u8]) -> Self {
        Constant::Value(ValueRef { kind: ElementType::EmbeddedDocument, bytes }.into())
    }

    /// Whether the result of `op` at `path` is known. The path begins below this value, and is empty for the value
    /// itself.
    pub(super) fn accepts(&self, path: &str, op: FieldOp<'_>) -> bool {
        let (key, rest) = step(path);
        match self {
            Constant::Missing => nothing_accepts(op),
            Constant::Value(value) => value_accepts(value.get(), path, op),
            Constant::Array(_) => {
                path.is_empty()
                    && matches!(
                        op.op,
                        Op::Set | Op::Unset | Op::Merge | Op::Push | Op::PushEach | Op::SetOnInsert
                    )
            }
            Constant::Object(_) if path.is_empty() => {
                matches!(op.op, Op::Set | Op::Unset | Op::Merge | Op::SetOnInsert)
            }
            Constant::Object(object) => {
                object.fields.get(key).map_or_else(|| nothing_accepts(op), |field| field.accepts(rest, op))
            }
        }
    }

    /// Applies an accepted operation at `path`, as above. `inserts` says whether the operation, written by itself,
    /// would have made the document.
    pub(super) fn apply(&mut self, path: &str, op: FieldOp<'_>, inserts: bool) {
        if path.is_empty() {
            return self.apply_here(op, inserts);
        }
        if let Constant::Value(value) = self {
            *self = Constant::Object(Box::new(Object::of(value.get())));
        }
        if matches!(self, Constant::Missing) && creates(op, inserts) {
            *self = Constant::empty();
        }
        if let Constant::Object(object) = self {
            object.apply(path, op, inserts);
        }
    }

    fn apply_here(&mut self, op: FieldOp<'_>, inserts: bool) {
        match (&mut *self, op.op) {
            (Constant::Value(value), Op::Set) => value.set(op.value),
            (_, Op::Set) => *self = Constant::Value(op.value.into()),
            (_, Op::Merge) => self.merge(op.value),
            (_, Op::SetOnInsert) if inserts => *self = Constant::Value(op.value.into()),
            (_, Op::Unset) => *self = Constant::Missing,
            (Constant::Missing, Op::Inc | Op::Min | Op::Max) => *self = Constant::Value(op.value.into()),
            (Constant::Missing, Op::Mul) => {
                *self = number::zero(op.value).map_or(Constant::Missing, Constant::Value)
            }
            (Constant::Missing, Op::Push | Op::PushEach | Op::AddToSet) => {
                *self = Constant::Array(ArrayElements::of(op));
            }
            (Constant::Array(elements), Op::Push | Op::PushEach) => elements.push_op(op),
            (Constant::Value(value), Op::Push | Op::PushEach) => {
                let mut elements = ArrayElements::of_array(value.get());
                elements.push_op(op);
                *self = Constant::Array(elements);
            }
            (Constant::Value(value), _) => {
                if let Some(result) = number::result(value.get(), op) {
                    *value = result;
                }
            }
            _ => {}
        }
    }

    /// Merges a merge patch (RFC 7396).
    pub(super) fn merge(&mut self, patch: ValueRef<'_>) {
        match patch.kind {
            ElementType::Null => return *self = Constant::Missing,
            ElementType::EmbeddedDocument => {}
            _ => return *self = Constant::Value(patch.into()),
        }
        match self {
            Constant::Value(value) if value.get().kind == ElementType::EmbeddedDocument => {
                *self = Constant::Object(Box::new(Object::of(value.get())));
            }
            Constant::Object(_) => {}
            _ => *self = Constant::empty(),
        }
        if let Constant::Object(object) = self {
            object.merge(patch);
        }
    }

    /// Bytes, about as many as it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Constant::Missing => 0,
            Constant::Value(value) => value.len(),
            Constant::Array(elements) => elements.bytes(),
            Constant::Object(object) => object.bytes,
        }
    }

    /// Writes an element, if there is a value.
    pub(crate) fn write(&self, out: &mut Vec<u8>, key: &str) {
        match self {
            Constant::Missing => {}
            Constant::Value(value) => raw::write(out, key, value.get()),
            Constant::Array(elements) => {
                raw::write_key(out, ElementType::Array, key);
                elements.write(out);
            }
            Constant::Object(_) => {
                raw::write_key(out, ElementType::EmbeddedDocument, key);
                let start = raw::begin_document(out);
                self.write_fields(out);
                raw::end_document(out, start);
            }
        }
    }

    /// Writes the fields of an object, without its beginning and end. False if it is none.
    pub(crate) fn write_fields(&self, out: &mut Vec<u8>) -> bool {
        match self {
            Constant::Object(object) => object.fields.iter().for_each(|(key, field)| field.write(out, key)),
            Constant::Value(value) if value.get().kind == ElementType::EmbeddedDocument => {
                let bytes = value.get().bytes;
                out.extend_from_slice(&bytes[size_of::<i32>()..bytes.len() - 1]);
            }
            Constant::Missing | Constant::Value(_) | Constant::Array(_) => return false,
        }
        true
    }
}

impl Object {
    fn of(document: ValueRef<'_>) -> Self {
        let mut object = Object::default();
        for (key, value) in raw::elements(document.bytes) {
            object.bytes += key.len() + value.bytes.len() + FIELD_OVERHEAD;
            object.fields.insert(key.into(), Constant::Value(value.into()));
        }
        object
    }

    fn apply(&mut self, path: &str, op: FieldOp<'_>, inserts: bool) {
        let (key, rest) = step(path);
        let field = match self.fields.get_mut(key) {
            Some(field) => field,
            None if creates(op, inserts) => {
                self.bytes += key.len() + FIELD_OVERHEAD;
                self.fields.entry(key.into()).or_insert(Constant::Missing)
            }
            None => return,
        };
        let before = field.bytes();
        field.apply(rest, op, inserts);
        self.bytes = self.bytes - before + field.bytes();
    }
}

impl Object {
    fn merge(&mut self, patch: ValueRef<'_>) {
        for (key, value) in raw::elements(patch.bytes) {
            let field = match self.fields.get_mut(key) {
                Some(field) => field,
                None if value.kind == ElementType::Null => continue,
                None => {
                    self.bytes += key.len() + FIELD_OVERHEAD;
                    self.fields.entry(key.into()).or_insert(Constant::Missing)
                }
            };
            let before = field.bytes();
            field.merge(value);
            self.bytes = self.bytes - before + field.bytes();
        }
    }
}

/// A path's first component and the rest.
fn step(path: &str) -> (&str, &str) {
    path.split_once('.').unwrap_or((path, ""))
}

/// Whether an operation on what is not there leaves something.
fn creates(op: FieldOp<'_>, inserts: bool) -> bool {
    match op.op {
        Op::Unset | Op::PullAll | Op::Pull | Op::Pop => false,
        Op::SetOnInsert => inserts,
        _ => true,
    }
}

/// Whether what an operation makes of nothing is known.
fn nothing_accepts(op: FieldOp<'_>) -> bool {
    match op.op {
        // Among several there may be equal ones.
        Op::AddToSet => raw::elements(op.value.bytes).nth(1).is_none(),
        Op::PushWith | Op::Rename | Op::CurrentDate | Op::Yjs | Op::Patch => false,
        _ => true,
    }
}

fn value_accepts(value: ValueRef<'_>, path: &str, op: FieldOp<'_>) -> bool {
    if path.is_empty() {
        return match op.op {
            Op::Set | Op::Unset | Op::Merge | Op::SetOnInsert => true,
            Op::Push | Op::PushEach => value.kind == ElementType::Array,
            _ => number::result(value, op).is_some(),
        };
    }
    if value.kind != ElementType::EmbeddedDocument {
        return false;
    }
    let (key, rest) = step(path);
    raw::find(value.bytes, key).map_or_else(|| nothing_accepts(op), |field| value_accepts(field, rest, op))
}

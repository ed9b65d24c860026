//! Tells which operators an update that is written as a pipeline may have, and holds its JSON Patches.
//!
//! MongoDB takes operators or a pipeline, not both. So what goes with a merge into nested objects, or with a JSON Patch, has
//! to be said in a pipeline, too.

use bson::spec::ElementType;

use super::field_update::FieldUpdate;
use crate::change::pointer;
use crate::change::{FieldOp, Op};
use crate::raw::{self, Value, ValueRef};

/// Components that a path may have: each nests an expression deeper, and servers take 200 levels.
const MOST_COMPONENTS: usize = 8;

/// The JSON Patch operations of an update, in their order.
#[derive(Debug, Default)]
pub(super) struct Steps {
    steps: Vec<Value>,
    bytes: usize,
}

/// What a step's expressions take besides its value, for each component of its pointers.
const STEP_OVERHEAD: usize = 700;

impl Steps {
    pub(super) fn add(&mut self, patch: ValueRef<'_>) {
        for (_, step) in raw::elements(patch.bytes) {
            self.bytes += step_bytes(step);
            self.steps.push(step.into());
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = ValueRef<'_>> {
        self.steps.iter().map(Value::get)
    }

    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    /// About the bytes that they take in an update.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether one of them reads or writes this field of the document.
    pub(super) fn touch(&self, field: &str) -> bool {
        self.iter().any(|step| pointer::fields(step).any(|own| own == field))
    }
}

/// About the bytes that a JSON Patch operation takes in an update.
pub(crate) fn step_bytes(step: ValueRef<'_>) -> usize {
    let tokens = |name| raw::find(step.bytes, name).and_then(ValueRef::text).map_or(0, pointer::depth);
    step.bytes.len() + (1 + tokens("path") + tokens("from")) * STEP_OVERHEAD
}

/// Whether a pipeline can do what the operation does, to the letter.
pub(crate) fn can_be_piped(op: FieldOp<'_>) -> bool {
    match op.op {
        Op::Patch => true,
        Op::PushWith => cuts_only(op.value) && is_plain(op.path),
        Op::CurrentDate => makes_date(op.value) && is_plain(op.path),
        Op::Pull | Op::Pop | Op::Rename | Op::Yjs => false,
        _ => is_plain(op.path),
    }
}

/// The same of what operations have come to.
pub(super) fn is_piped(path: &str, update: &FieldUpdate) -> bool {
    let (op, value) = match update {
        FieldUpdate::PushWith(with) => (Op::PushWith, with.1.get()),
        FieldUpdate::Other(op, value) => (*op, value.get()),
        FieldUpdate::Yjs(_) | FieldUpdate::RenameTarget => return false,
        _ => (Op::Set, ValueRef::NULL),
    };
    can_be_piped(FieldOp { op, path, value })
}

/// Whether it leads through objects only.
fn is_plain(path: &str) -> bool {
    let mut components = path.split('.');
    components.by_ref().take(MOST_COMPONENTS).all(|name| !name.bytes().all(|b| b.is_ascii_digit()))
        && components.next().is_none()
}

fn cuts_only(operand: ValueRef<'_>) -> bool {
    raw::elements(operand.bytes).all(|(key, _)| matches!(key, "$each" | "$slice"))
}

fn makes_date(operand: ValueRef<'_>) -> bool {
    operand.kind == ElementType::Boolean
        || raw::find(operand.bytes, "$type").is_some_and(|kind| kind.is_text("date"))
}

//! Says what is to become of one field, and folds later operations on the same field into that.

use bson::spec::ElementType;

use super::constant::Constant;
use super::elements::ArrayElements;
use super::merge::Merge;
use super::number;
use crate::change::{FieldOp, Op};
use crate::raw::{self, Value, ValueRef};

/// What is to become of one field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FieldUpdate {
    /// `$set`, or `$unset` where nothing is left.
    Constant(Constant),
    /// `$push` with `$each`
    Push(ArrayElements),
    /// `$push` with `$each` and these modifiers, a document.
    PushWith(Box<(ArrayElements, Value)>),
    /// `$addToSet` with `$each`
    AddToSet(ArrayElements),
    /// `$pullAll`
    PullAll(ArrayElements),
    /// `$push` of updates to a Yjs document, and `$inc` of their count.
    Yjs(ArrayElements),
    /// A merge patch, into a field of the document's own.
    Merge(Box<Merge>),
    /// Any other operator, with its operand.
    Other(Op, Value),
    /// The place that a `$rename` of another path fills.
    RenameTarget,
}

impl FieldUpdate {
    pub(super) fn new(op: FieldOp<'_>) -> Self {
        match op.op {
            Op::Set => FieldUpdate::Constant(Constant::Value(op.value.into())),
            Op::Unset => FieldUpdate::Constant(Constant::Missing),
            Op::Push | Op::PushEach => FieldUpdate::Push(ArrayElements::of(op)),
            Op::PushWith => FieldUpdate::PushWith(Box::new((ArrayElements::of(op), modifiers(op.value)))),
            Op::AddToSet => FieldUpdate::AddToSet(ArrayElements::of(op)),
            Op::PullAll => FieldUpdate::PullAll(ArrayElements::of(op)),
            Op::Yjs => FieldUpdate::Yjs(ArrayElements::of(op)),
            Op::Merge => FieldUpdate::Merge(Box::new(Merge::of(op.value, op.path.len()))),
            other => FieldUpdate::Other(other, op.value.into()),
        }
    }

    /// MongoDB's operator for it; none where another path's says all.
    #[must_use]
    pub(crate) fn operator(&self) -> Option<&'static str> {
        Some(match self {
            FieldUpdate::Constant(Constant::Missing) => Op::Unset.operator(),
            FieldUpdate::Constant(_) | FieldUpdate::Merge(_) => Op::Set.operator(),
            FieldUpdate::Push(_) | FieldUpdate::PushWith(_) | FieldUpdate::Yjs(_) => Op::Push.operator(),
            FieldUpdate::AddToSet(_) => Op::AddToSet.operator(),
            FieldUpdate::PullAll(_) => Op::PullAll.operator(),
            FieldUpdate::Other(op, _) => op.operator(),
            FieldUpdate::RenameTarget => return None,
        })
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            FieldUpdate::Constant(known) => known.bytes(),
            FieldUpdate::Merge(merge) => merge.bytes(),
            FieldUpdate::Other(_, value) => value.len(),
            FieldUpdate::RenameTarget => 0,
            FieldUpdate::PushWith(with) => with.0.bytes() + with.1.len(),
            FieldUpdate::Push(elements)
            | FieldUpdate::AddToSet(elements)
            | FieldUpdate::PullAll(elements)
            | FieldUpdate::Yjs(elements) => elements.bytes(),
        }
    }

    /// Whether no document makes MongoDB refuse it. A path's parents may be no objects, and what is to be
    /// incremented no number; removing what is not there is fine, and so is filling a new document.
    pub(super) fn is_infallible(&self, path: &str) -> bool {
        match self {
            FieldUpdate::Constant(Constant::Missing) | FieldUpdate::Other(Op::SetOnInsert, _) => true,
            FieldUpdate::Constant(_) | FieldUpdate::Other(Op::CurrentDate, _) => is_top(path),
            FieldUpdate::Merge(_) => true,
            _ => false,
        }
    }

    /// Whether an operation on the same path can be folded in.
    pub(super) fn accepts(&self, op: FieldOp<'_>) -> bool {
        #[cfg(test)]
        if super::broken_rules::accepts(self, op) {
            return true;
        }
        match (self, op.op) {
            // Both are refused of the same documents.
            (
                FieldUpdate::Constant(_) | FieldUpdate::Other(Op::CurrentDate, _),
                Op::Set | Op::CurrentDate,
            )
            | (FieldUpdate::Other(Op::SetOnInsert, _), Op::Set | Op::CurrentDate) => true,
            (FieldUpdate::Constant(Constant::Missing), Op::Unset) => true,
            (FieldUpdate::Merge(_), Op::Set | Op::Unset | Op::Merge | Op::CurrentDate) => true,
            // Of a field that has no parent they are refused; removing it is not.
            (FieldUpdate::Constant(Constant::Missing), _) if may_be_refused(op.path, op) => false,
            // Setting a.b makes an a; removing a.b does not. Only at the top is that no difference.
            (
                FieldUpdate::Constant(_) | FieldUpdate::Other(Op::CurrentDate | Op::SetOnInsert, _),
                Op::Unset,
            ) => is_top(op.path),
            // An array's element becomes null when it is unset.
            (FieldUpdate::Constant(Constant::Missing), _) if may_be_index(op.path) => false,
            (FieldUpdate::Constant(known), _) => known.accepts("", op),
            (FieldUpdate::Push(_), Op::Push | Op::PushEach) => true,
            (FieldUpdate::AddToSet(_), Op::AddToSet)
            | (FieldUpdate::PullAll(_), Op::PullAll)
            | (FieldUpdate::Yjs(_), Op::Yjs) => true,
            // What is sorted or cut at last is all that was pushed, one way or the other.
            (FieldUpdate::Push(_), Op::PushWith) => raw::find(op.value.bytes, "$position").is_none(),
            (FieldUpdate::PushWith(before), Op::PushWith) => {
                raw::find(op.value.bytes, "$position").is_none() && before.1 == modifiers(op.value)
            }
            (FieldUpdate::Other(before, value), _) => {
                *before == op.op && number::combined(value.get(), op).is_some()
            }
            _ => false,
        }
    }

    /// Folds an operation, which was accepted, in. Answers what was renamed, with its new path.
    pub(super) fn fold<'a>(&mut self, op: FieldOp<'a>) -> Option<(&'a str, Constant)> {
        match (&mut *self, op.op) {
            (FieldUpdate::Constant(known), Op::Rename) => {
                return Some((op.value.text()?, std::mem::replace(known, Constant::Missing)));
            }
            (_, Op::CurrentDate) => *self = FieldUpdate::new(op),
            (FieldUpdate::Merge(merge), Op::Merge) => merge.add(op.value, op.path.len()),
            (FieldUpdate::Merge(_), _) => *self = FieldUpdate::new(op),
            (FieldUpdate::Constant(known), _) => known.apply("", op, false),
            (FieldUpdate::Push(elements), Op::PushWith) => {
                elements.push_op(op);
                *self = FieldUpdate::PushWith(Box::new((std::mem::take(elements), modifiers(op.value))));
            }
            (FieldUpdate::PushWith(with), _) => with.0.push_op(op),
            (FieldUpdate::Push(elements), _)
            | (FieldUpdate::AddToSet(elements), Op::AddToSet)
            | (FieldUpdate::PullAll(elements) | FieldUpdate::Yjs(elements), _) => elements.push_op(op),
            (FieldUpdate::Other(before, value), _) if *before == op.op => {
                if let Some(result) = number::combined(value.get(), op) {
                    *value = result;
                }
            }
            _ => *self = FieldUpdate::new(op),
        }
        None
    }
}

/// The modifiers of a `$push`: its operand without `$each`.
fn modifiers(operand: ValueRef<'_>) -> Value {
    let mut out = Vec::new();
    let start = raw::begin_document(&mut out);
    for (key, value) in raw::elements(operand.bytes).filter(|(key, _)| *key != "$each") {
        raw::write(&mut out, key, value);
    }
    raw::end_document(&mut out, start);
    ValueRef { kind: ElementType::EmbeddedDocument, bytes: &out }.into()
}

pub(super) fn is_top(path: &str) -> bool {
    !path.contains('.')
}

/// Whether MongoDB may refuse an operation that does nothing to what is missing. It may if a parent is a scalar, say;
/// so it may not if there is no parent.
pub(super) fn may_be_refused(missing: &str, op: FieldOp<'_>) -> bool {
    !is_top(missing) && matches!(op.op, Op::PullAll | Op::Pull | Op::Pop)
}

pub(super) fn may_be_index(path: &str) -> bool {
    path.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
}

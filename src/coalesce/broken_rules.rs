//! Breaks rules of folding on purpose, so that tests see the law's test catch them.

use std::cell::Cell;

use super::FieldUpdate;
use crate::change::{FieldOp, Op};

/// A wrong rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// A set takes the place of an increment that MongoDB may have refused.
    SetHidesInc,
    /// An unset takes the place of a set below a parent that the set would have made.
    UnsetUndoesSet,
}

thread_local! {
    static RULE: Cell<Option<Wrong>> = const { Cell::new(None) };
}

/// Runs `f` under a wrong rule.
pub(crate) fn with_wrong_rule<T>(wrong: Wrong, f: impl FnOnce() -> T) -> T {
    RULE.set(Some(wrong));
    let result = f();
    RULE.set(None);
    result
}

/// Whether the wrong rule in force accepts an operation.
pub(super) fn accepts(update: &FieldUpdate, op: FieldOp<'_>) -> bool {
    match RULE.get() {
        Some(Wrong::SetHidesInc) => matches!((update, op.op), (FieldUpdate::Other(Op::Inc, _), Op::Set)),
        Some(Wrong::UnsetUndoesSet) => matches!((update, op.op), (FieldUpdate::Constant(_), Op::Unset)),
        None => false,
    }
}

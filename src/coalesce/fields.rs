//! Pending operations on the fields of one document.
//!
//! Invariant: no path in the map is another's parent, as MongoDB demands of one update. So an operation
//! whose very path is there already, the common case, conflicts with nothing else and costs one look-up.

use std::collections::BTreeMap;
use std::ops::Bound;

use bson::spec::ElementType;

use crate::change::{FieldOp, Op};
use crate::event::path::ancestors;
use crate::raw::{self, Number, Value, ValueRef};

/// What is to become of one field.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldUpdate {
    /// `$set`
    Set(Value),
    /// `$set` to an array that grows: what was set or came out of nothing, and what was pushed since.
    SetArray(Elements),
    /// `$unset`
    Unset,
    /// `$inc`; the value is a number.
    Inc(Value),
    /// `$push` with `$each`
    Push(Elements),
    /// `$addToSet` with `$each`
    AddToSet(Elements),
    /// `$pullAll`
    PullAll(Elements),
    /// Any other operator, with its operand.
    Other(Op, Value),
    /// The place that a `$rename` of another path fills.
    RenameTarget,
}

/// Array elements, encoded as an array without its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Elements {
    open: Vec<u8>,
    count: usize,
}

impl Elements {
    fn new() -> Self {
        let mut open = Vec::new();
        raw::begin_document(&mut open);
        Elements { open, count: 0 }
    }

    fn of(op: FieldOp<'_>) -> Self {
        let mut elements = Elements::new();
        elements.push_op(op);
        elements
    }

    fn of_array(array: ValueRef<'_>) -> Self {
        let count = raw::elements(array.bytes).count();
        Elements { open: array.bytes[..array.bytes.len() - 1].to_vec(), count }
    }

    fn push(&mut self, value: ValueRef<'_>) {
        raw::write_indexed(&mut self.open, self.count, value);
        self.count += 1;
    }

    fn push_op(&mut self, op: FieldOp<'_>) {
        match op.op {
            Op::Push => self.push(op.value),
            _ => raw::elements(op.value.bytes).for_each(|(_, value)| self.push(value)),
        }
    }

    /// Writes the array's value.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.open);
        raw::end_document(out, start);
    }
}

/// A field's path and update, besides path and value, in a map: about what they take in memory.
const FIELD_OVERHEAD: usize = 64;

impl FieldUpdate {
    fn new(op: FieldOp<'_>) -> Self {
        match op.op {
            Op::Set => FieldUpdate::Set(op.value.into()),
            Op::Unset => FieldUpdate::Unset,
            Op::Inc => FieldUpdate::Inc(op.value.into()),
            Op::Push | Op::PushEach => FieldUpdate::Push(Elements::of(op)),
            Op::AddToSet => FieldUpdate::AddToSet(Elements::of(op)),
            Op::PullAll => FieldUpdate::PullAll(Elements::of(op)),
            other => FieldUpdate::Other(other, op.value.into()),
        }
    }

    /// MongoDB's operator for it; none where another path's says all.
    #[must_use]
    pub fn operator(&self) -> Option<&'static str> {
        Some(match self {
            FieldUpdate::Set(_) | FieldUpdate::SetArray(_) => Op::Set.operator(),
            FieldUpdate::Unset => Op::Unset.operator(),
            FieldUpdate::Inc(_) => Op::Inc.operator(),
            FieldUpdate::Push(_) => Op::Push.operator(),
            FieldUpdate::AddToSet(_) => Op::AddToSet.operator(),
            FieldUpdate::PullAll(_) => Op::PullAll.operator(),
            FieldUpdate::Other(op, _) => op.operator(),
            FieldUpdate::RenameTarget => return None,
        })
    }

    fn bytes(&self) -> usize {
        match self {
            FieldUpdate::Set(value) | FieldUpdate::Inc(value) | FieldUpdate::Other(_, value) => value.len(),
            FieldUpdate::Unset | FieldUpdate::RenameTarget => 0,
            FieldUpdate::SetArray(elements)
            | FieldUpdate::Push(elements)
            | FieldUpdate::AddToSet(elements)
            | FieldUpdate::PullAll(elements) => elements.open.len(),
        }
    }

    /// Whether no document makes MongoDB refuse it. A path's parents may be no objects, and what is to be
    /// incremented no number; removing what is not there is fine.
    fn is_infallible(&self, path: &str) -> bool {
        match self {
            FieldUpdate::Unset => true,
            FieldUpdate::Set(_) | FieldUpdate::SetArray(_) => !path.contains('.'),
            _ => false,
        }
    }

    /// Whether `op` on the same path can be folded in.
    fn accepts(&self, op: FieldOp<'_>) -> bool {
        #[cfg(test)]
        if super::wrong::accepts(self, op) {
            return true;
        }
        match (self, op.op) {
            // Both are refused of the same documents.
            (FieldUpdate::Set(_) | FieldUpdate::SetArray(_) | FieldUpdate::Unset, Op::Set) => true,
            // Setting a.b makes an a; removing a.b does not. Only at the top is that no difference.
            (FieldUpdate::Set(_) | FieldUpdate::SetArray(_) | FieldUpdate::Unset, Op::Unset) => {
                self.is_infallible(op.path)
            }
            (FieldUpdate::Set(value), Op::Push | Op::PushEach) => value.get().kind == ElementType::Array,
            (FieldUpdate::Set(value), _) => of_set(value.get(), op).is_some(),
            (FieldUpdate::Inc(value), Op::Inc) => sum_of_incs(value.get(), op.value).is_some(),
            (FieldUpdate::Push(_) | FieldUpdate::SetArray(_), Op::Push | Op::PushEach) => true,
            (FieldUpdate::AddToSet(_), Op::AddToSet) => true,
            (FieldUpdate::PullAll(_), Op::PullAll) => true,
            (FieldUpdate::Other(before, value), Op::Min | Op::Max) => {
                *before == op.op && extreme(value.get(), op).is_some()
            }
            // A field that is gone starts anew, but an array's element becomes null when it is unset.
            (FieldUpdate::Unset, Op::Inc | Op::Push | Op::PushEach) => !may_be_index(op.path),
            _ => false,
        }
    }

    /// Folds `op`, which was accepted.
    fn fold(&mut self, op: FieldOp<'_>) {
        match (&mut *self, op.op) {
            (FieldUpdate::Set(value), Op::Set) => value.set(op.value),
            (FieldUpdate::Set(value), Op::Inc | Op::Mul | Op::Min | Op::Max) => {
                if let Some(result) = of_set(value.get(), op) {
                    *value = result.into();
                }
            }
            (FieldUpdate::Other(_, value), Op::Min | Op::Max) => {
                if let Some(result) = extreme(value.get(), op) {
                    *value = result.into();
                }
            }
            (FieldUpdate::AddToSet(elements), Op::AddToSet)
            | (FieldUpdate::PullAll(elements), Op::PullAll) => {
                elements.push_op(op);
            }
            (FieldUpdate::Inc(value), Op::Inc) => {
                if let Some(sum) = sum_of_incs(value.get(), op.value) {
                    *value = sum.into();
                }
            }
            (FieldUpdate::Push(elements) | FieldUpdate::SetArray(elements), Op::Push | Op::PushEach) => {
                elements.push_op(op);
            }
            (FieldUpdate::Set(value), Op::Push | Op::PushEach) => {
                let mut elements = Elements::of_array(value.get());
                elements.push_op(op);
                *self = FieldUpdate::SetArray(elements);
            }
            (FieldUpdate::Unset, Op::Inc) => *self = FieldUpdate::Set(op.value.into()),
            (FieldUpdate::Unset, Op::Push | Op::PushEach) => {
                *self = FieldUpdate::SetArray(Elements::of(op));
            }
            _ => *self = FieldUpdate::new(op),
        }
    }
}

/// Pending operations, by path.
#[derive(Debug, Default)]
pub struct Fields {
    by_path: BTreeMap<Box<str>, FieldUpdate>,
    bytes: usize,
}

impl Fields {
    /// Whether an operation can be folded in. The operations of one change do not overlap, so each may be
    /// asked about before any is applied.
    #[must_use]
    pub fn accepts(&self, op: FieldOp<'_>) -> bool {
        match (op.op, op.value.text()) {
            // The document is there once anything before it was applied.
            (Op::SetOnInsert, _) => return false,
            (Op::Rename, Some(target)) => {
                return !self.by_path.contains_key(op.path)
                    && self.is_apart(op.path)
                    && self.is_apart(target);
            }
            _ => {}
        }
        if let Some(update) = self.by_path.get(op.path) {
            return update.accepts(op);
        }
        if ancestors(op.path).any(|parent| self.by_path.contains_key(parent)) {
            return false;
        }
        if self.shares_an_array(op) {
            return false;
        }
        let mut below = self.below(op.path);
        match op.op {
            Op::Set | Op::Unset => below.all(|(_, update)| *update == FieldUpdate::Unset),
            _ => below.next().is_none(),
        }
    }

    /// Whether the path leads to one element, and an operation's path to another, of what may be the same
    /// array. Writing an element beyond the end makes nulls before it, which most operators refuse.
    fn shares_an_array(&self, op: FieldOp<'_>) -> bool {
        let is_index = |component: &str| component.bytes().all(|b| b.is_ascii_digit());
        ancestors(op.path).any(|array| {
            let component = |path: &str| path[array.len() + 1..].split('.').next().map(str::to_owned);
            let own = component(op.path).filter(|own| is_index(own));
            own.is_some_and(|own| {
                self.below(array).any(|(path, update)| {
                    let other = component(path).filter(|other| is_index(other) && *other != own);
                    other.is_some()
                        && !(op.op == Op::Set
                            && matches!(update, FieldUpdate::Set(_) | FieldUpdate::SetArray(_)))
                })
            })
        })
    }

    /// Whether no operation's path is this one, above or below it.
    fn is_apart(&self, path: &str) -> bool {
        !self.by_path.contains_key(path)
            && !ancestors(path).any(|parent| self.by_path.contains_key(parent))
            && self.below(path).next().is_none()
    }

    /// Whether no document makes MongoDB refuse any of them.
    pub(super) fn are_infallible(&self) -> bool {
        self.iter().all(|(path, update)| update.is_infallible(path))
    }

    /// Folds an accepted operation in, or adds the first one of its path.
    pub fn apply(&mut self, op: FieldOp<'_>) {
        if let Some(update) = self.by_path.get_mut(op.path) {
            let before = update.bytes();
            update.fold(op);
            self.bytes = self.bytes - before + update.bytes();
            return;
        }
        let superseded: Vec<Box<str>> = self.below(op.path).map(|(path, _)| path.clone()).collect();
        for path in superseded {
            if let Some(update) = self.by_path.remove(&path) {
                self.bytes -= path.len() + update.bytes() + FIELD_OVERHEAD;
            }
        }
        if op.op == Op::Rename
            && let Some(target) = op.value.text()
        {
            self.bytes += target.len() + FIELD_OVERHEAD;
            self.by_path.insert(target.into(), FieldUpdate::RenameTarget);
        }
        let update = FieldUpdate::new(op);
        self.bytes += op.path.len() + update.bytes() + FIELD_OVERHEAD;
        self.by_path.insert(op.path.into(), update);
    }

    /// The operations on paths below `path`.
    fn below(&self, path: &str) -> impl Iterator<Item = (&Box<str>, &FieldUpdate)> {
        // All of them, and some siblings such as "a-b" under "a", sort behind it and share its text.
        self.by_path
            .range::<str, _>((Bound::Excluded(path), Bound::Unbounded))
            .take_while(move |(other, _)| other.starts_with(path))
            .filter(move |(other, _)| other.as_bytes()[path.len()] == b'.')
    }

    /// The operations, in the order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &FieldUpdate)> {
        self.by_path.iter().map(|(path, update)| (&**path, update))
    }

    /// Bytes, about as many as they take in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn may_be_index(path: &str) -> bool {
    path.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
}

/// What an operator makes of a number that was set, if MongoDB would not refuse.
fn of_set(value: ValueRef<'_>, op: FieldOp<'_>) -> Option<Number> {
    match op.op {
        Op::Inc => sum_of_values(value, op.value),
        Op::Mul => product(value, op.value),
        Op::Min | Op::Max => extreme(value, op),
        _ => None,
    }
}

/// The less or the greater of two numbers of one type. MongoDB keeps the first of equal ones.
fn extreme(value: ValueRef<'_>, op: FieldOp<'_>) -> Option<Number> {
    use Number::{Double, Int32, Int64};
    let (first, second) = (value.number()?, op.value.number()?);
    let less = match (first, second) {
        (Int32(a), Int32(b)) => b < a,
        (Int64(a), Int64(b)) => b < a,
        (Double(a), Double(b)) if !a.is_nan() && !b.is_nan() => b < a,
        _ => return None,
    };
    let greater = match (first, second) {
        (Int32(a), Int32(b)) => b > a,
        (Int64(a), Int64(b)) => b > a,
        (Double(a), Double(b)) => b > a,
        _ => return None,
    };
    let takes = if op.op == Op::Min { less } else { greater };
    Some(if takes { second } else { first })
}

/// What `$mul` makes of a number it finds, if MongoDB would not refuse.
fn product(value: ValueRef<'_>, factor: ValueRef<'_>) -> Option<Number> {
    use Number::{Double, Int32, Int64};
    Some(match (value.number()?, factor.number()?) {
        (Int32(a), Int32(b)) => a.checked_mul(b).map_or(Int64(i64::from(a) * i64::from(b)), Int32),
        (Int32(a), Int64(b)) | (Int64(b), Int32(a)) => Int64(b.checked_mul(a.into())?),
        (Int64(a), Int64(b)) => Int64(a.checked_mul(b)?),
        (a, b) => Double(double(a) * double(b)),
    })
}

/// What `$inc` makes of a number it finds, if MongoDB would not refuse.
fn sum_of_values(value: ValueRef<'_>, amount: ValueRef<'_>) -> Option<Number> {
    use Number::{Double, Int32, Int64};
    Some(match (value.number()?, amount.number()?) {
        (Int32(a), Int32(b)) => a.checked_add(b).map_or(Int64(i64::from(a) + i64::from(b)), Int32),
        (Int32(a), Int64(b)) | (Int64(b), Int32(a)) => Int64(b.checked_add(a.into())?),
        (Int64(a), Int64(b)) => Int64(a.checked_add(b)?),
        (a, b) => Double(double(a) + double(b)),
    })
}

/// The one increment that does what two do. Doubles round, so their order shows: those are not summed.
fn sum_of_incs(first: ValueRef<'_>, second: ValueRef<'_>) -> Option<Number> {
    use Number::{Int32, Int64};
    Some(match (first.number()?, second.number()?) {
        (Int32(a), Int32(b)) => Int32(a.checked_add(b)?),
        (Int32(a), Int64(b)) | (Int64(b), Int32(a)) => Int64(b.checked_add(a.into())?),
        (Int64(a), Int64(b)) => Int64(a.checked_add(b)?),
        _ => return None,
    })
}

fn double(number: Number) -> f64 {
    match number {
        Number::Int32(n) => n.into(),
        Number::Int64(n) => n as f64,
        Number::Double(n) => n,
    }
}

//! Folds operations on the fields of one document.
//!
//! Invariant: no path in the map is another's parent, as MongoDB demands of one update. In the common case the
//! operation's own path is there already. Then it conflicts with nothing else, and costs one look-up.

use bson::spec::ElementType;
use smallvec::SmallVec;

use super::by_path::ByPath;
use super::constant::Constant;
use super::elements::ArrayElements;
use super::merge::Merge;
use super::number;
use super::pipeline::{Steps, can_be_piped, is_piped};
use crate::change::path::ancestors;
use crate::change::pointer;
use crate::change::{EncodedOp, FieldOp, FieldOps, Op};
use crate::raw::{self, Value, ValueRef};
use crate::yjs;

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

/// A field's path and update, besides path and value, in a map: about what they take in memory.
const FIELD_OVERHEAD: usize = 64;

impl FieldUpdate {
    fn new(op: FieldOp<'_>) -> Self {
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

    fn bytes(&self) -> usize {
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
    fn is_infallible(&self, path: &str) -> bool {
        match self {
            FieldUpdate::Constant(Constant::Missing) | FieldUpdate::Other(Op::SetOnInsert, _) => true,
            FieldUpdate::Constant(_) | FieldUpdate::Other(Op::CurrentDate, _) => is_top(path),
            FieldUpdate::Merge(_) => true,
            _ => false,
        }
    }

    /// Whether an operation on the same path can be folded in.
    fn accepts(&self, op: FieldOp<'_>) -> bool {
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
    fn fold<'a>(&mut self, op: FieldOp<'a>) -> Option<(&'a str, Constant)> {
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

fn is_top(path: &str) -> bool {
    !path.contains('.')
}

/// Pending operations, by path.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    by_path: ByPath<FieldUpdate>,
    bytes: usize,
    /// The update is written as a pipeline, in which these are.
    piped: Option<Box<Steps>>,
}

/// Fields and steps of an update that is written as a pipeline: servers take a thousand stages.
const MOST_PIPED: usize = 200;

impl Fields {
    /// Folds in the operations of a later change; none of them, if one is not accepted.
    pub(crate) fn fold(&mut self, ops: FieldOps<'_>) -> bool {
        if self.piped.is_some() {
            return self.fold_anywhere(ops);
        }
        // Mostly all paths are there, and in the same order as the time before.
        let mut placed: SmallVec<[(EncodedOp<'_>, usize); 8]> = SmallVec::new();
        let (mut rest, mut near) = (ops, 0);
        while let Some(op) = rest.next_encoded() {
            let is_in_place = !matches!(op.op, Op::Rename | Op::SetOnInsert | Op::Merge | Op::Patch);
            let place = self.by_path.place(op.path, near).filter(|_| is_in_place);
            let Some(at) = place else { return self.fold_anywhere(ops) };
            if !self.by_path.at(at).is_some_and(|(path, update)| update.accepts(op.on(path))) {
                return false;
            }
            placed.push((op, at));
            near = at + 1;
        }
        for (op, at) in placed {
            let Some((path, update)) = self.by_path.at(at) else { continue };
            let before = update.bytes();
            update.fold(op.on(path));
            self.bytes = self.bytes - before + update.bytes();
        }
        true
    }

    fn fold_anywhere(&mut self, ops: FieldOps<'_>) -> bool {
        let is_piped = self.piped.is_some() || ops.clone().any(|op| op.op.needs_pipeline());
        if is_piped && !self.accepts_piped(ops) || !ops.clone().all(|op| self.accepts(op)) {
            return false;
        }
        ops.for_each(|op| self.apply(op));
        true
    }

    /// Whether a pipeline can do all of it. Steps see what is before them, so what else there is has other fields.
    fn accepts_piped(&self, ops: FieldOps<'_>) -> bool {
        let steps = |ops: FieldOps<'_>| {
            let all = ops.filter(|op| op.op == Op::Patch);
            all.map(|op| raw::elements(op.value.bytes).count()).sum::<usize>()
        };
        let before = self.by_path.len() + self.piped.as_ref().map_or(0, |steps| steps.len());
        before + ops.count() + steps(ops) <= MOST_PIPED
            && (self.piped.is_some() || self.iter().all(|(path, update)| is_piped(path, update)))
            && ops
                .into_iter()
                .all(|op| op.op == Op::SetOnInsert || (can_be_piped(op) && self.is_apart_from_steps(op)))
    }

    fn is_apart_from_steps(&self, op: FieldOp<'_>) -> bool {
        let top = |path: &str| path.split('.').next().unwrap_or_default().to_owned();
        if op.op != Op::Patch {
            return self.piped.as_ref().is_none_or(|steps| !steps.touch(&top(op.path)));
        }
        let written: Vec<String> = self.iter().map(|(path, _)| top(path)).collect();
        raw::elements(op.value.bytes)
            .all(|(_, step)| pointer::fields(step).all(|field| !written.iter().any(|own| *own == field)))
    }

    /// Whether an operation can be folded in. The operations of one change do not overlap, so each may be
    /// asked about before any is applied.
    #[must_use]
    pub(crate) fn accepts(&self, op: FieldOp<'_>) -> bool {
        // The document is there once anything before it was applied. Steps are apart from all else.
        if matches!(op.op, Op::SetOnInsert | Op::Patch) {
            return true;
        }
        if op.op == Op::Rename {
            return op.value.text().is_some_and(|target| self.accepts_rename(op.path, target));
        }
        if let Some(update) = self.by_path.get(op.path) {
            return update.accepts(op);
        }
        if let Some((parent, update)) = self.parent(op.path) {
            return match update {
                // As above.
                FieldUpdate::Constant(Constant::Missing) if may_be_index(parent) => false,
                FieldUpdate::Constant(Constant::Missing) if may_be_refused(parent, op) => false,
                FieldUpdate::Constant(known) => known.accepts(&op.path[parent.len() + 1..], op),
                _ => false,
            };
        }
        if self.shares_an_array(op) {
            return false;
        }
        let mut below = self.below(op.path);
        match op.op {
            Op::Set => below.all(|(path, update)| update.is_infallible(path)),
            Op::Unset if is_top(op.path) => below.all(|(path, update)| update.is_infallible(path)),
            Op::Unset => below.all(|(_, update)| *update == FieldUpdate::Constant(Constant::Missing)),
            _ => below.next().is_none(),
        }
    }

    /// A field that was set can be set under its new name instead. Into an array, where setting would
    /// write, MongoDB renames nothing.
    fn accepts_rename(&self, path: &str, target: &str) -> bool {
        if !self.is_apart(target) || target.split('.').any(may_be_index) {
            return false;
        }
        match self.by_path.get(path) {
            Some(FieldUpdate::Constant(Constant::Missing)) => false,
            Some(FieldUpdate::Constant(_)) => is_top(path),
            Some(_) => false,
            None => self.is_apart(path),
        }
    }

    /// The operation on a path above this one.
    fn parent<'p>(&self, path: &'p str) -> Option<(&'p str, &FieldUpdate)> {
        ancestors(path).find_map(|parent| Some((parent, self.by_path.get(parent)?)))
    }

    /// Whether the path and some operation's path may lead to two elements of one array. Writing an element beyond the
    /// end makes nulls before it, which most operators refuse.
    fn shares_an_array(&self, op: FieldOp<'_>) -> bool {
        let is_index = |component: &str| component.bytes().all(|b| b.is_ascii_digit());
        ancestors(op.path).any(|array| {
            let component = |path: &str| path[array.len() + 1..].split('.').next().map(str::to_owned);
            let own = component(op.path).filter(|own| is_index(own));
            own.is_some_and(|own| {
                self.below(array).any(|(path, update)| {
                    let other = component(path).filter(|other| is_index(other) && *other != own);
                    other.is_some() && !(op.op == Op::Set && update.operator() == Some(Op::Set.operator()))
                })
            })
        })
    }

    /// Whether no operation's path is this one, above or below it.
    fn is_apart(&self, path: &str) -> bool {
        !self.by_path.contains(path)
            && !ancestors(path).any(|parent| self.by_path.contains(parent))
            && self.below(path).next().is_none()
    }

    /// Whether no document makes MongoDB refuse any of them.
    pub(super) fn are_infallible(&self) -> bool {
        self.iter().all(|(path, update)| update.is_infallible(path)) && self.steps().next().is_none()
    }

    /// Adds an operation of the change that comes first.
    pub(crate) fn add(&mut self, op: FieldOp<'_>) {
        if op.op.needs_pipeline() {
            let steps = self.piped.get_or_insert_default();
            if op.op == Op::Patch {
                self.bytes -= steps.bytes();
                steps.add(op.value);
                self.bytes += steps.bytes();
                return;
            }
        }
        if op.op == Op::Rename
            && let Some(target) = op.value.text()
        {
            self.insert(target, FieldUpdate::RenameTarget);
        }
        self.insert(op.path, FieldUpdate::new(op));
    }

    /// Folds in an accepted operation of a later change.
    pub(crate) fn apply(&mut self, op: FieldOp<'_>) {
        if op.op == Op::SetOnInsert {
            return;
        }
        if op.op.needs_pipeline() {
            self.piped.get_or_insert_default();
        }
        if let Some(update) = self.by_path.get_mut(op.path) {
            let before = update.bytes();
            let moved = update.fold(op);
            self.bytes = self.bytes - before + update.bytes();
            if let Some((target, known)) = moved {
                self.insert(target, FieldUpdate::Constant(known));
            }
            return;
        }
        let parent = self.parent(op.path).map(|(parent, _)| parent);
        if let Some(parent) = parent
            && let Some(FieldUpdate::Constant(known)) = self.by_path.get_mut(parent)
        {
            let before = known.bytes();
            known.apply(&op.path[parent.len() + 1..], op, false);
            self.bytes = self.bytes - before + known.bytes();
            return;
        }
        let superseded: Vec<String> = self.below(op.path).map(|(path, _)| path.to_owned()).collect();
        for path in superseded {
            if let Some(update) = self.by_path.remove(&path) {
                self.bytes -= path.len() + update.bytes() + FIELD_OVERHEAD;
            }
        }
        self.add(op);
    }

    fn insert(&mut self, path: &str, update: FieldUpdate) {
        self.bytes += path.len() + update.bytes() + FIELD_OVERHEAD;
        self.by_path.insert(path, update);
    }

    /// The operations on paths below `path`.
    fn below(&self, path: &str) -> impl Iterator<Item = (&str, &FieldUpdate)> {
        // All of them, and some siblings such as "a-b" under "a", sort behind it and share its text.
        self.by_path
            .behind(path)
            .take_while(move |(other, _)| other.starts_with(path))
            .filter(move |(other, _)| other.as_bytes()[path.len()] == b'.')
    }

    /// Merges the updates of Yjs documents, now that no more are to come.
    pub(super) fn seal(&mut self) {
        for update in self.by_path.values_mut() {
            let FieldUpdate::Yjs(updates) = update else { continue };
            if updates.count() > 1 {
                let before = updates.bytes();
                *updates = merged(updates);
                self.bytes = self.bytes - before + updates.bytes();
            }
        }
    }

    /// The paths of Yjs documents.
    pub(crate) fn yjs(&self) -> impl Iterator<Item = &str> {
        self.iter().filter(|(_, update)| matches!(update, FieldUpdate::Yjs(_))).map(|(path, _)| path)
    }

    /// The operations, in the order of their paths.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &FieldUpdate)> {
        self.by_path.iter()
    }

    /// Whether they are written as a pipeline.
    #[must_use]
    pub(crate) fn are_piped(&self) -> bool {
        self.piped.is_some()
    }

    /// The operations of JSON Patches, in their order, for a pipeline behind all else.
    pub(crate) fn steps(&self) -> impl Iterator<Item = ValueRef<'_>> {
        self.piped.iter().flat_map(|steps| steps.iter())
    }

    /// Bytes, about as many as they take in memory.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn merged(updates: &ArrayElements) -> ArrayElements {
    let updates = updates.iter().filter_map(|update| Some(update.binary()?.to_vec())).collect();
    let mut merged = ArrayElements::default();
    for update in yjs::merge(updates) {
        merged.push(Value::binary(&update).get());
    }
    merged
}

/// Whether MongoDB may refuse an operation that does nothing to what is missing. It may if a parent is a scalar, say;
/// so it may not if there is no parent.
fn may_be_refused(missing: &str, op: FieldOp<'_>) -> bool {
    !is_top(missing) && matches!(op.op, Op::PullAll | Op::Pull | Op::Pop)
}

fn may_be_index(path: &str) -> bool {
    path.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
}

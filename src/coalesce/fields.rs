//! Folds operations on the fields of one document.
//!
//! Invariant: no path in the map is another's parent, as MongoDB demands of one update. In the common case the
//! operation's own path is there already. Then it conflicts with nothing else, and costs one look-up.

use smallvec::SmallVec;

use super::by_path::ByPath;
use super::constant::Constant;
use super::elements::ArrayElements;
use super::field_update::{FieldUpdate, is_top, may_be_index, may_be_refused};
use super::pipeline::{Steps, can_be_piped, is_piped};
use crate::change::path::ancestors;
use crate::change::pointer;
use crate::change::{EncodedOp, FieldOp, FieldOps, Op};
use crate::raw::{self, Value, ValueRef};
use crate::yjs;

/// A field's path and update, besides path and value, in a map: about what they take in memory.
const FIELD_OVERHEAD: usize = 64;

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

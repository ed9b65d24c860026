//! Holds the operations of the update that an event is decoded to.

use std::sync::atomic::AtomicU64;

use super::KEPT;
use super::path;
use super::surrogates::REPLACEMENT;
use crate::change::pointer;
use crate::change::{FieldOp, FieldOps, FieldTemplate, Op, write_field_op};
use crate::coalesce::can_be_piped;
use crate::dead_letter::{Reason, Rejection};
use crate::raw::{self, ValueRef};

/// The operations of one update.
#[derive(Debug, Default)]
pub(super) struct Ops {
    pub(super) bytes: Vec<u8>,
    count: usize,
    /// The elements of the entity's shard key.
    pub(super) shard_key: Vec<u8>,
    /// Some paths came from the event, so nobody has compared them yet.
    from_event: bool,
    /// Some can only be done by a pipeline, so all must be.
    needs_pipeline: bool,
    /// The event had halves of surrogate pairs, which were replaced. Paths must not have any.
    pub(super) is_mended: bool,
    /// How many such events were decoded.
    pub(super) mended: AtomicU64,
}

impl Ops {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.shard_key.clear();
        self.count = 0;
        self.from_event = false;
        self.needs_pipeline = false;
        self.is_mended = false;
    }

    /// Gives back what large events took.
    pub(super) fn shrink(&mut self) {
        self.clear();
        self.bytes.shrink_to(KEPT);
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Adds an operation whose path is the configuration's.
    pub(super) fn add(&mut self, op: FieldOp<'_>) -> Result<(), Rejection> {
        check_number(op.op, op.path, op.value)?;
        write_field_op(&mut self.bytes, op);
        self.count += 1;
        Ok(())
    }

    /// Adds what happens to a field, with a value.
    #[inline(always)]
    pub(super) fn add_with(&mut self, field: &FieldTemplate, value: ValueRef<'_>) -> Result<(), Rejection> {
        check_number(field.op, &field.path, value)?;
        field.write(&mut self.bytes, value);
        self.count += 1;
        Ok(())
    }

    /// Adds an operation that is encoded already.
    #[inline]
    pub(super) fn add_encoded(&mut self, op: &[u8]) {
        self.bytes.extend_from_slice(op);
        self.count += 1;
    }

    /// Adds an operation whose path is the event's.
    pub(super) fn add_from_event(&mut self, op: FieldOp<'_>) -> Result<(), Rejection> {
        path::check(op.path)?;
        if op.op == Op::Rename {
            self.check_mended(op.value.text().unwrap_or_default())?;
        }
        self.check_mended(op.path)?;
        self.from_event = true;
        self.needs_pipeline |= op.op.needs_pipeline();
        self.add(op)
    }

    fn check_mended(&self, path: &str) -> Result<(), Rejection> {
        match self.is_mended && path.contains(REPLACEMENT) {
            true => {
                Err(Rejection::new(Reason::BadKey, format!("the path {path:?} has half of a surrogate pair")))
            }
            false => Ok(()),
        }
    }

    /// Adds a checked JSON Patch.
    pub(super) fn add_patch(&mut self, patch: ValueRef<'_>) -> Result<(), Rejection> {
        for (_, step) in raw::elements(patch.bytes) {
            let pointers =
                ["path", "from"].into_iter().filter_map(|name| raw::find(step.bytes, name)?.text());
            pointers.into_iter().try_for_each(|pointer| self.check_mended(pointer))?;
        }
        self.from_event = true;
        self.needs_pipeline = true;
        self.add(FieldOp { op: Op::Patch, path: "", value: patch })
    }

    /// Checks that one update can have all operations.
    #[inline]
    pub(super) fn check(&self) -> Result<(), Rejection> {
        if !self.from_event {
            return Ok(());
        }
        self.check_disjoint()?;
        if self.needs_pipeline { self.check_piped() } else { Ok(()) }
    }

    /// MongoDB takes a pipeline or operators in one update, and not all that operators do can be said in a pipeline.
    fn check_piped(&self) -> Result<(), Rejection> {
        match FieldOps::new(&self.bytes).find(|op| !can_be_piped(*op)) {
            None => Ok(()),
            Some(op) => {
                let what = format!("{} of {:?}", op.op.operator(), op.path);
                let text =
                    format!("one update cannot do {what} along with a merge into an object or a patch");
                Err(Rejection::new(Reason::BadEvent, text))
            }
        }
    }

    fn check_disjoint(&self) -> Result<(), Rejection> {
        let mut paths = Vec::with_capacity(self.count);
        let patched: Vec<String> = self.patched();
        paths.extend(patched.iter().map(String::as_str));
        for op in FieldOps::new(&self.bytes).filter(|op| op.op != Op::Patch) {
            paths.push(op.path);
            if op.op == Op::Rename {
                paths.extend(op.value.text());
            }
        }
        path::check_disjoint(&paths)
    }

    /// The document's own fields that a patch reads or writes, each once.
    fn patched(&self) -> Vec<String> {
        let mut fields = Vec::new();
        let patches = FieldOps::new(&self.bytes).filter(|op| self.needs_pipeline && op.op == Op::Patch);
        for (_, step) in patches.flat_map(|patch| raw::elements(patch.value.bytes)) {
            fields.extend(pointer::fields(step).map(String::from));
        }
        fields.sort();
        fields.dedup();
        fields
    }
}

#[inline]
fn check_number(op: Op, path: &str, value: ValueRef<'_>) -> Result<(), Rejection> {
    match matches!(op, Op::Inc | Op::Mul) && value.number().is_none() {
        true => Err(no_number(op, path)),
        false => Ok(()),
    }
}

#[cold]
fn no_number(op: Op, path: &str) -> Rejection {
    let verb = if op == Op::Inc { "incremented" } else { "multiplied" };
    Rejection::new(Reason::BadNumber, format!("{path:?} can only be {verb} by a number"))
}

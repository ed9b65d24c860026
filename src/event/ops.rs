//! The operations of the update that an event is decoded to.

use super::path;
use crate::change::{FieldOp, FieldOps, Op, write_field_op, write_text_op};
use crate::dead_letter::{Reason, Rejection};

/// The operations of one update.
#[derive(Debug, Default)]
pub(super) struct Ops {
    pub(super) bytes: Vec<u8>,
    count: usize,
    /// The elements of the entity's shard key.
    pub(super) shard_key: Vec<u8>,
    /// Some paths came from the event, so nobody has compared them yet.
    from_event: bool,
}

impl Ops {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.shard_key.clear();
        self.count = 0;
        self.from_event = false;
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Adds an operation whose path is the configuration's.
    pub(super) fn add(&mut self, op: FieldOp<'_>) -> Result<(), Rejection> {
        if matches!(op.op, Op::Inc | Op::Mul) && op.value.number().is_none() {
            let verb = if op.op == Op::Inc { "incremented" } else { "multiplied" };
            let text = format!("{:?} can only be {verb} by a number", op.path);
            return Err(Rejection::new(Reason::BadNumber, text));
        }
        write_field_op(&mut self.bytes, op);
        self.count += 1;
        Ok(())
    }

    /// Adds an operation with a text, as it stands in an event. None if the operation takes none.
    pub(super) fn add_text(&mut self, op: Op, path: &str, text: &[u8]) -> Option<()> {
        if matches!(op, Op::Inc | Op::Mul) {
            return None;
        }
        write_text_op(&mut self.bytes, op, path, text);
        self.count += 1;
        Some(())
    }

    /// Adds an operation whose path is the event's.
    pub(super) fn add_from_event(&mut self, op: FieldOp<'_>) -> Result<(), Rejection> {
        path::check(op.path)?;
        self.from_event = true;
        self.add(op)
    }

    pub(super) fn check_disjoint(&self) -> Result<(), Rejection> {
        if !self.from_event {
            return Ok(());
        }
        let mut paths = Vec::with_capacity(self.count);
        for op in FieldOps::new(&self.bytes) {
            paths.push(op.path);
            if op.op == Op::Rename {
                paths.extend(op.value.text());
            }
        }
        path::check_disjoint(&paths)
    }
}

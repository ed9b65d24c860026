//! Holds array elements that are gathered, encoded one behind the other.

use crate::change::{FieldOp, Op};
use crate::raw::{self, ValueRef};

/// Array elements, encoded as an array without its end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ArrayElements {
    open: Vec<u8>,
    count: usize,
}

impl Default for ArrayElements {
    fn default() -> Self {
        let mut open = Vec::new();
        raw::begin_document(&mut open);
        ArrayElements { open, count: 0 }
    }
}

impl ArrayElements {
    /// The elements that an operation adds.
    pub(super) fn of(op: FieldOp<'_>) -> Self {
        let mut elements = ArrayElements::default();
        elements.push_op(op);
        elements
    }

    /// The elements of an encoded array.
    pub(super) fn of_array(array: ValueRef<'_>) -> Self {
        let count = raw::elements(array.bytes).count();
        ArrayElements { open: array.bytes[..array.bytes.len() - 1].to_vec(), count }
    }

    pub(super) fn push(&mut self, value: ValueRef<'_>) {
        raw::write_indexed(&mut self.open, self.count, value);
        self.count += 1;
    }

    /// Appends what an operation adds.
    pub(super) fn push_op(&mut self, op: FieldOp<'_>) {
        let array = match op.op {
            Op::Push | Op::Yjs => return self.push(op.value),
            Op::PushWith => raw::find(op.value.bytes, "$each").unwrap_or(op.value),
            _ => op.value,
        };
        raw::elements(array.bytes).for_each(|(_, value)| self.push(value));
    }

    /// How many there are.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The elements.
    pub(crate) fn iter(&self) -> impl Iterator<Item = ValueRef<'_>> {
        raw::bare_elements(&self.open[size_of::<i32>()..]).map(|(_, value)| value)
    }

    /// Encoded bytes.
    pub(super) fn bytes(&self) -> usize {
        self.open.len()
    }

    /// Writes the array's value.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.open);
        raw::end_document(out, start);
    }
}

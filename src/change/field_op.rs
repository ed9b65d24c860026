//! Defines operations on single fields, and their encoding.

use bson::spec::ElementType;

use crate::raw::ValueRef;

/// What happens to one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// The field gets the value.
    Set,
    /// The field goes; the value is null.
    Unset,
    /// The number is added to the field.
    Inc,
    /// The value is appended to the field, an array.
    Push,
    /// The elements of the value, an array, are appended to the field.
    PushEach,
    /// `$push` with modifiers; the value is its whole operand.
    PushWith,
    /// The elements of the value, an array, are added to the field where it has none equal.
    AddToSet,
    /// All elements equal to one of the value's, an array, are removed from the field.
    PullAll,
    /// All elements that equal the value, or meet its condition, are removed from the field.
    Pull,
    /// The first (-1) or last (1) element of the field is removed.
    Pop,
    /// The field is multiplied by the number.
    Mul,
    /// The field gets the value if that is less.
    Min,
    /// The field gets the value if that is greater.
    Max,
    /// The field gets the name that the value says.
    Rename,
    /// The field gets the value if the document is made by this.
    SetOnInsert,
    /// The field gets the time of the write.
    CurrentDate,
    /// The binary is merged into the field, a Yjs document.
    Yjs,
    /// The object, a merge patch (RFC 7396), is merged into the field, one of the document's own.
    Merge,
    /// The operations of the value, an array, are done to the document (RFC 6902); there is no path.
    Patch,
}

impl Op {
    const ALL: [Op; 19] = [
        Op::Set,
        Op::Unset,
        Op::Inc,
        Op::Push,
        Op::PushEach,
        Op::PushWith,
        Op::AddToSet,
        Op::PullAll,
        Op::Pull,
        Op::Pop,
        Op::Mul,
        Op::Min,
        Op::Max,
        Op::Rename,
        Op::SetOnInsert,
        Op::CurrentDate,
        Op::Yjs,
        Op::Merge,
        Op::Patch,
    ];

    /// MongoDB's operators, in the order in which they are written.
    pub const OPERATORS: [&'static str; 14] = [
        "$set",
        "$unset",
        "$inc",
        "$push",
        "$addToSet",
        "$pullAll",
        "$pull",
        "$pop",
        "$mul",
        "$min",
        "$max",
        "$rename",
        "$setOnInsert",
        "$currentDate",
    ];

    /// Whether only an update pipeline can do it: what it does depends on what the document holds.
    #[must_use]
    pub const fn needs_pipeline(self) -> bool {
        matches!(self, Op::Merge | Op::Patch)
    }

    /// MongoDB's name of it.
    #[must_use]
    pub const fn operator(self) -> &'static str {
        match self {
            Op::Set | Op::Merge | Op::Patch => "$set",
            Op::Unset => "$unset",
            Op::Inc => "$inc",
            Op::Push | Op::PushEach | Op::PushWith | Op::Yjs => "$push",
            Op::AddToSet => "$addToSet",
            Op::PullAll => "$pullAll",
            Op::Pull => "$pull",
            Op::Pop => "$pop",
            Op::Mul => "$mul",
            Op::Min => "$min",
            Op::Max => "$max",
            Op::Rename => "$rename",
            Op::SetOnInsert => "$setOnInsert",
            Op::CurrentDate => "$currentDate",
        }
    }
}

/// An operation on one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldOp<'a> {
    /// What happens.
    pub op: Op,
    /// The field's dotted path.
    pub path: &'a str,
    /// The operand.
    pub value: ValueRef<'a>,
}

/// Field operations, encoded one behind the other: op, type, lengths of path and value, path, value.
#[derive(Debug, Clone, Copy)]
pub struct FieldOps<'a> {
    bytes: &'a [u8],
}

const FIELD_HEAD: usize = 10;

/// Appends a field operation to `out`.
#[inline]
pub fn write_field_op(out: &mut Vec<u8>, op: FieldOp<'_>) {
    write_head(out, op.op, op.value.kind, op.path, op.value.bytes.len());
    out.extend_from_slice(op.value.bytes);
}

#[inline]
fn write_head(out: &mut Vec<u8>, op: Op, kind: ElementType, path: &str, value: usize) {
    let mut head = [op as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    head[2..6].copy_from_slice(&len(path.len()));
    say_value(&mut head, kind, value);
    out.reserve(head.len() + path.len() + value);
    out.extend_from_slice(&head);
    out.extend_from_slice(path.as_bytes());
}

fn say_value(head: &mut [u8; FIELD_HEAD], kind: ElementType, value: usize) {
    head[1] = kind as u8;
    head[6..].copy_from_slice(&len(value));
}

/// Events of 4 GiB do not come out of Redis, whose strings end at 512 MiB.
fn len(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes()
}

/// What happens to one field, encoded once for all values.
#[derive(Debug)]
pub struct FieldTemplate {
    /// What happens.
    pub op: Op,
    /// The field's dotted path.
    pub path: String,
    encoded: Vec<u8>,
}

impl FieldTemplate {
    /// Encodes it.
    #[must_use]
    pub fn new(op: Op, path: &str) -> Self {
        let mut encoded = Vec::new();
        write_head(&mut encoded, op, ElementType::Null, path, 0);
        FieldTemplate { op, path: path.to_owned(), encoded }
    }

    /// Appends the operation with a value to `out`.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>, value: ValueRef<'_>) {
        let start = out.len();
        out.reserve(self.encoded.len() + value.bytes.len());
        out.extend_from_slice(&self.encoded);
        if let Some(head) = out[start..].first_chunk_mut() {
            say_value(head, value.kind, value.bytes.len());
        }
        out.extend_from_slice(value.bytes);
    }
}

impl<'a> FieldOps<'a> {
    /// Reads what [`write_field_op`] wrote.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        FieldOps { bytes }
    }

    /// What is not yet read, encoded.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Encoded bytes not yet read.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no operation is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// An operation whose path nobody has read yet.
#[derive(Debug, Clone, Copy)]
pub struct EncodedOp<'a> {
    /// What happens.
    pub op: Op,
    /// The field's dotted path, text.
    pub path: &'a [u8],
    /// The operand.
    pub value: ValueRef<'a>,
}

impl<'a> EncodedOp<'a> {
    /// The operation, on a path that is the same.
    #[must_use]
    pub fn on<'p>(&self, path: &'p str) -> FieldOp<'p>
    where
        'a: 'p,
    {
        FieldOp { op: self.op, path, value: self.value }
    }
}

impl<'a> FieldOps<'a> {
    /// The next operation, as it is.
    #[inline]
    pub fn next_encoded(&mut self) -> Option<EncodedOp<'a>> {
        let (head, rest) = self.bytes.split_first_chunk::<FIELD_HEAD>()?;
        let [op, kind, a, b, c, d, e, f, g, h] = *head;
        let len = |bytes| usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
        let op = *Op::ALL.get(usize::from(op))?;
        let kind = ElementType::from(kind)?;
        let (path, rest) = rest.split_at_checked(len([a, b, c, d]))?;
        let (bytes, rest) = rest.split_at_checked(len([e, f, g, h]))?;
        self.bytes = rest;
        Some(EncodedOp { op, path, value: ValueRef { kind, bytes } })
    }
}

impl<'a> Iterator for FieldOps<'a> {
    type Item = FieldOp<'a>;

    fn next(&mut self) -> Option<FieldOp<'a>> {
        let op = self.next_encoded()?;
        Some(op.on(std::str::from_utf8(op.path).ok()?))
    }
}

//! Writes and walks BSON as bytes, without building documents.
//!
//! An event's values are transcoded from JSON once and travel as encoded BSON values until they are
//! spliced into a command. Layout: <https://bsonspec.org/spec.html>.

use bson::spec::ElementType;
use smallvec::SmallVec;

/// The generic subtype of binaries.
const GENERIC: u8 = 0;

/// An encoded BSON value, borrowed: its type and its bytes without type and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueRef<'a> {
    /// The element type.
    pub kind: ElementType,
    /// The encoded value.
    pub bytes: &'a [u8],
}

/// An encoded BSON value, owned. Reused in place when a later change overwrites it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    kind: ElementType,
    bytes: Bytes,
}

/// Numbers, dates, ObjectIds and short texts take no allocation.
type Bytes = SmallVec<[u8; 16]>;

impl Value {
    /// The value, borrowed.
    #[must_use]
    pub fn get(&self) -> ValueRef<'_> {
        ValueRef { kind: self.kind, bytes: &self.bytes }
    }

    /// Overwrites the value, keeping its allocation.
    pub fn set(&mut self, value: ValueRef<'_>) {
        self.kind = value.kind;
        if value.bytes.len() > self.bytes.capacity() {
            // Growing would double it.
            self.bytes = Bytes::from_slice(value.bytes);
        } else {
            self.bytes.clear();
            self.bytes.extend_from_slice(value.bytes);
        }
    }

    /// A binary of the generic subtype.
    #[must_use]
    pub fn binary(bytes: &[u8]) -> Self {
        let len = i32::try_from(bytes.len()).unwrap_or(i32::MAX).to_le_bytes();
        Value { kind: ElementType::Binary, bytes: [&len[..], &[GENERIC], bytes].concat().into() }
    }

    /// The number of encoded bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the encoding is empty, as null's is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl From<ValueRef<'_>> for Value {
    fn from(value: ValueRef<'_>) -> Self {
        Value { kind: value.kind, bytes: Bytes::from_slice(value.bytes) }
    }
}

impl From<Number> for Value {
    fn from(number: Number) -> Self {
        let (kind, bytes) = match number {
            Number::Int32(n) => (ElementType::Int32, Bytes::from_slice(&n.to_le_bytes())),
            Number::Int64(n) => (ElementType::Int64, Bytes::from_slice(&n.to_le_bytes())),
            Number::Double(n) => (ElementType::Double, Bytes::from_slice(&n.to_le_bytes())),
        };
        Value { kind, bytes }
    }
}

impl<'a> ValueRef<'a> {
    /// Null.
    pub const NULL: ValueRef<'static> = ValueRef { kind: ElementType::Null, bytes: &[] };

    /// The bytes, if it is a binary.
    #[must_use]
    pub fn binary(self) -> Option<&'a [u8]> {
        (self.kind == ElementType::Binary).then(|| self.bytes.get(5..))?
    }

    /// The number, if it is one.
    #[must_use]
    pub fn number(self) -> Option<Number> {
        match self.kind {
            ElementType::Int32 => Some(Number::Int32(i32::from_le_bytes(self.bytes.try_into().ok()?))),
            ElementType::Int64 => Some(Number::Int64(i64::from_le_bytes(self.bytes.try_into().ok()?))),
            ElementType::Double => Some(Number::Double(f64::from_le_bytes(self.bytes.try_into().ok()?))),
            _ => None,
        }
    }

    /// Whether it is this text.
    #[must_use]
    pub fn is_text(self, text: &str) -> bool {
        self.kind == ElementType::String
            && self.bytes.len() == text.len() + 5
            && &self.bytes[4..text.len() + 4] == text.as_bytes()
    }

    /// The text, if it is a string.
    #[must_use]
    pub fn text(self) -> Option<&'a str> {
        if self.kind != ElementType::String {
            return None;
        }
        let text = self.bytes.get(4..self.bytes.len().checked_sub(1)?)?;
        std::str::from_utf8(text).ok()
    }
}

/// A number as BSON has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// 32-bit integer.
    Int32(i32),
    /// 64-bit integer.
    Int64(i64),
    /// Double.
    Double(f64),
}

impl Number {
    /// An integer in the smallest type that holds it, as drivers encode integers.
    #[must_use]
    pub fn int(n: i64) -> Self {
        i32::try_from(n).map_or(Number::Int64(n), Number::Int32)
    }
}

/// Begins a document or array; returns where it starts, for [`end_document`].
pub fn begin_document(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    start
}

/// Ends the document or array begun at `start`.
pub fn end_document(out: &mut Vec<u8>, start: usize) {
    out.push(0);
    // Longer than i32 cannot be sent; the size check before a command is cut refuses it.
    let len = i32::try_from(out.len() - start).unwrap_or(i32::MAX);
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

/// Writes an element's type and key; the value's bytes follow. The key holds no NUL.
pub fn write_key(out: &mut Vec<u8>, kind: ElementType, key: &str) {
    out.push(kind as u8);
    out.extend_from_slice(key.as_bytes());
    out.push(0);
}

/// Writes an element.
pub fn write(out: &mut Vec<u8>, key: &str, value: ValueRef<'_>) {
    write_key(out, value.kind, key);
    out.extend_from_slice(value.bytes);
}

/// An array of one element.
#[must_use]
pub fn array_of(value: ValueRef<'_>) -> Value {
    let mut bytes = Vec::with_capacity(value.bytes.len() + 8);
    let start = begin_document(&mut bytes);
    write_indexed(&mut bytes, 0, value);
    end_document(&mut bytes, start);
    Value { kind: ElementType::Array, bytes: bytes.into() }
}

/// Writes an array element under its index.
pub fn write_indexed(out: &mut Vec<u8>, index: usize, value: ValueRef<'_>) {
    write_index_key(out, value.kind, index);
    out.extend_from_slice(value.bytes);
}

/// Writes an array element's type and index.
pub fn write_index_key(out: &mut Vec<u8>, kind: ElementType, index: usize) {
    out.push(kind as u8);
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = index;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.push(0);
}

/// Writes a string element.
pub fn write_text(out: &mut Vec<u8>, key: &str, text: &str) {
    write_key(out, ElementType::String, key);
    write_text_value(out, text);
}

/// Bytes of a string's value besides the text.
pub const TEXT_OVERHEAD: usize = 5;

/// Writes a string's value: text, or the bytes of a text.
pub fn write_text_value(out: &mut Vec<u8>, text: impl AsRef<[u8]>) {
    let text = text.as_ref();
    let len = i32::try_from(text.len() + 1).unwrap_or(i32::MAX);
    out.reserve(text.len() + TEXT_OVERHEAD);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(text);
    out.push(0);
}

/// Makes a string's value of the text in it, which has four bytes before it, and one behind.
#[inline]
pub fn make_text_value(value: &mut [u8]) {
    if let [a, b, c, d, text @ .., end] = value {
        let len = i32::try_from(text.len() + 1).unwrap_or(i32::MAX);
        [*a, *b, *c, *d] = len.to_le_bytes();
        *end = 0;
    }
}

/// Writes a 64-bit integer element.
pub fn write_i64(out: &mut Vec<u8>, key: &str, n: i64) {
    write_key(out, ElementType::Int64, key);
    out.extend_from_slice(&n.to_le_bytes());
}

/// Writes a 32-bit integer element.
pub fn write_i32(out: &mut Vec<u8>, key: &str, n: i32) {
    write_key(out, ElementType::Int32, key);
    out.extend_from_slice(&n.to_le_bytes());
}

/// Writes a boolean element.
pub fn write_bool(out: &mut Vec<u8>, key: &str, b: bool) {
    write_key(out, ElementType::Boolean, key);
    out.push(u8::from(b));
}

/// The elements of a document or array that this process encoded: key and value.
///
/// Ends early, without an error, at bytes that are no BSON: the input is ours.
#[must_use]
pub fn elements(document: &[u8]) -> Elements<'_> {
    Elements { rest: document.get(4..document.len().saturating_sub(1)).unwrap_or_default() }
}

/// The elements of a document that was written without its beginning and end.
#[must_use]
pub fn bare_elements(elements: &[u8]) -> Elements<'_> {
    Elements { rest: elements }
}

/// Iterator of [`elements`].
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Elements<'a> {
    type Item = (&'a str, ValueRef<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let kind = ElementType::from(*self.rest.first()?)?;
        let key_len = self.rest[1..].iter().position(|b| *b == 0)?;
        let key = std::str::from_utf8(&self.rest[1..=key_len]).ok()?;
        let value = &self.rest[key_len + 2..];
        let len = value_len(kind, value)?;
        let bytes = value.get(..len)?;
        self.rest = &value[len..];
        Some((key, ValueRef { kind, bytes }))
    }
}

fn value_len(kind: ElementType, value: &[u8]) -> Option<usize> {
    let prefix = || Some(usize::try_from(i32::from_le_bytes(value.get(..4)?.try_into().ok()?)).unwrap_or(0));
    Some(match kind {
        ElementType::Null => 0,
        ElementType::Boolean => 1,
        ElementType::Int32 => 4,
        ElementType::Double | ElementType::Int64 | ElementType::DateTime => 8,
        ElementType::ObjectId => 12,
        ElementType::Decimal128 => 16,
        ElementType::String => prefix()? + 4,
        ElementType::Binary => prefix()? + 5,
        ElementType::EmbeddedDocument | ElementType::Array => prefix()?,
        _ => return None,
    })
}

/// The value of `key` in a document that this process encoded.
#[must_use]
pub fn find<'a>(document: &'a [u8], key: &str) -> Option<ValueRef<'a>> {
    elements(document).find(|(k, _)| *k == key).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_bson() {
        let mut out = Vec::new();
        let start = begin_document(&mut out);
        write_text(&mut out, "t", "héllo");
        write_i64(&mut out, "n", 1 << 40);
        write_i32(&mut out, "i", -7);
        write_bool(&mut out, "b", true);
        write(&mut out, "z", ValueRef::NULL);
        write_key(&mut out, ElementType::Array, "a");
        let array = begin_document(&mut out);
        for i in 0..12 {
            write_indexed(&mut out, i, Value::from(Number::int(i as i64)).get());
        }
        end_document(&mut out, array);
        end_document(&mut out, start);

        let document: bson::Document = bson::deserialize_from_slice(&out).unwrap();
        let range: Vec<i32> = (0..12).collect();
        let expected = bson::doc! {"t": "héllo", "n": 1_i64 << 40, "i": -7, "b": true, "z": null, "a": range};
        assert_eq!(document, expected);
        let keys: Vec<_> = elements(&out).map(|(key, _)| key).collect();
        assert_eq!(keys, ["t", "n", "i", "b", "z", "a"]);
        assert_eq!(find(&out, "t").and_then(ValueRef::text), Some("héllo"));
    }
}

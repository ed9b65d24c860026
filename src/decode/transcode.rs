//! Writes JSON as BSON without a tree between: a serde visitor encodes as it reads.
//!
//! Event data is untrusted, so the rules for keys, numbers and depth are enforced while writing. What
//! JSON calls an object stays data: `{"$oid": ...}` is a bad key, never an ObjectId.

use std::collections::HashSet;
use std::fmt;

use bson::spec::ElementType;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::dead_letter::{Reason, Rejection};
use crate::raw::{self, ValueRef};

/// Levels a value may nest, and components a path may have. A server accepts BSON of 200 levels and
/// stores 180, so a value under a path always fits.
pub(super) const MAX_DEPTH: usize = 90;

/// Which keys an object may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyRule {
    /// Data below a field: no empty key, no NUL, no leading `$`.
    Data,
    /// Data whose keys become paths, at every level (`merge`): as `Data`, and no `.`.
    Merge,
    /// The fields of a document (`replace`): as `Merge` at the top, `Data` below.
    Document,
    /// A native update: operators at the top, paths below them, data below those.
    Update,
    /// Paths to operands: the objects under a native update's operators.
    Paths,
    /// An operand: data that may have modifiers such as `$each` for keys at its top.
    Operand,
}

impl KeyRule {
    /// The rule for the objects that are values in an object under this rule.
    fn below(self) -> Self {
        match self {
            KeyRule::Data | KeyRule::Document | KeyRule::Operand => KeyRule::Data,
            KeyRule::Paths => KeyRule::Operand,
            KeyRule::Merge => KeyRule::Merge,
            KeyRule::Update => KeyRule::Paths,
        }
    }

    fn check(self, key: &str) -> Result<(), Rejection> {
        let bad = |what: String| Err(Rejection::new(Reason::BadKey, what));
        if key.is_empty() || key.contains('\0') {
            return bad("a key is empty, or contains NUL".into());
        }
        match self {
            // Which operators and modifiers there are is checked where they are read.
            KeyRule::Update | KeyRule::Operand => Ok(()),
            // `$` may hide in a path's later components, which the path check sees.
            _ if key.starts_with('$') => bad(format!("the key {key:?} starts with \"$\"")),
            KeyRule::Merge | KeyRule::Document if key.contains('.') => {
                bad(format!("the key {key:?} contains \".\", which would make it a path"))
            }
            _ => Ok(()),
        }
    }

    /// Checks the keys of a value that was encoded under a laxer rule.
    pub(super) fn check_encoded(self, value: ValueRef<'_>) -> Result<(), Rejection> {
        if matches!(value.kind, ElementType::EmbeddedDocument | ElementType::Array) {
            for (key, value) in raw::elements(value.bytes) {
                self.check(key)?;
                self.below().check_encoded(value)?;
            }
        }
        Ok(())
    }
}

/// What is written to, and what was found wrong on the way.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Encoded values, one behind the other.
    pub(super) bytes: Vec<u8>,
    /// Why the event was refused, where JSON itself was in order. Set before the visitor fails.
    pub(super) rejection: Option<Rejection>,
    /// A number was read as a double that an integer literal may have overflowed into.
    pub(super) wide_number: bool,
    /// A value has a key that breaks the rule it was read under. Its reader may go by another rule.
    pub(super) bad_key: bool,
}

impl Output {
    /// Forgets everything, keeping allocations.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.rejection = None;
        self.wide_number = false;
        self.bad_key = false;
    }

    fn reject<E: serde::de::Error>(&mut self, reason: Reason, what: impl Into<String>) -> E {
        self.stop(Rejection::new(reason, what))
    }

    /// Records a rejection and makes the error that stops the parser.
    pub(super) fn stop<E: serde::de::Error>(&mut self, rejection: Rejection) -> E {
        self.rejection = Some(rejection);
        E::custom("rejected")
    }
}

/// Transcodes one value; answers its element type.
pub(super) struct Transcode<'o> {
    /// Where to.
    pub(super) out: &'o mut Output,
    /// Which keys it may have.
    pub(super) keys: KeyRule,
    /// Levels above it.
    pub(super) depth: usize,
}

impl<'de> DeserializeSeed<'de> for Transcode<'_> {
    type Value = ElementType;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<ElementType, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Transcode<'_> {
    type Value = ElementType;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<ElementType, E> {
        Ok(ElementType::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<ElementType, E> {
        self.out.bytes.push(u8::from(b));
        Ok(ElementType::Boolean)
    }

    /// Integers take the smallest type that holds them, as drivers encode them.
    fn visit_i64<E>(self, n: i64) -> Result<ElementType, E> {
        if let Ok(n) = i32::try_from(n) {
            self.out.bytes.extend_from_slice(&n.to_le_bytes());
            return Ok(ElementType::Int32);
        }
        self.out.bytes.extend_from_slice(&n.to_le_bytes());
        Ok(ElementType::Int64)
    }

    fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<ElementType, E> {
        match i64::try_from(n) {
            Ok(n) => self.visit_i64(n),
            Err(_) => {
                Err(self.out.reject(Reason::BadNumber, format!("the integer {n} does not fit 64 bits")))
            }
        }
    }

    fn visit_f64<E>(self, n: f64) -> Result<ElementType, E> {
        // serde_json reads integer literals beyond 64 bits as doubles; the caller looks again.
        self.out.wide_number |= n.abs() >= 9e18;
        self.out.bytes.extend_from_slice(&n.to_le_bytes());
        Ok(ElementType::Double)
    }

    fn visit_str<E>(self, text: &str) -> Result<ElementType, E> {
        raw::write_text_value(&mut self.out.bytes, text);
        Ok(ElementType::String)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<ElementType, A::Error> {
        let depth = self.deeper()?;
        let start = raw::begin_document(&mut self.out.bytes);
        for index in 0.. {
            let at = self.out.bytes.len();
            raw::write_index_key(&mut self.out.bytes, ElementType::Null, index);
            let element = Transcode { out: self.out, keys: self.keys.below(), depth };
            let Some(kind) = seq.next_element_seed(element)? else {
                self.out.bytes.truncate(at);
                break;
            };
            self.out.bytes[at] = kind as u8;
        }
        raw::end_document(&mut self.out.bytes, start);
        Ok(ElementType::Array)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<ElementType, A::Error> {
        let depth = self.deeper()?;
        let start = raw::begin_document(&mut self.out.bytes);
        let mut keys = SeenKeys::default();
        loop {
            let at = self.out.bytes.len();
            self.out.bytes.push(0);
            if map.next_key_seed(Key { out: self.out, rule: self.keys })?.is_none() {
                self.out.bytes.truncate(at);
                break;
            }
            if !keys.add(&self.out.bytes, at + 1) {
                let key =
                    String::from_utf8_lossy(&self.out.bytes[at + 1..self.out.bytes.len() - 1]).into_owned();
                return Err(self.out.reject(Reason::DuplicateKey, format!("the key {key:?} occurs twice")));
            }
            let kind = map.next_value_seed(Transcode { out: self.out, keys: self.keys.below(), depth })?;
            self.out.bytes[at] = kind as u8;
        }
        raw::end_document(&mut self.out.bytes, start);
        Ok(ElementType::EmbeddedDocument)
    }
}

impl Transcode<'_> {
    fn deeper<E: serde::de::Error>(&mut self) -> Result<usize, E> {
        if self.depth < MAX_DEPTH {
            return Ok(self.depth + 1);
        }
        let text = format!("a value is nested more than {MAX_DEPTH} levels deep");
        Err(self.out.reject(Reason::TooDeep, text))
    }
}

/// Writes a key and its NUL.
struct Key<'o> {
    out: &'o mut Output,
    rule: KeyRule,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<(), E> {
        self.out.bad_key = self.out.bad_key || self.rule.check(key).is_err();
        // BSON ends a key at NUL. Without a name it is as bad, and nobody finds it.
        let key = if self.out.bad_key && key.contains('\0') { "" } else { key };
        self.out.bytes.extend_from_slice(key.as_bytes());
        self.out.bytes.push(0);
        Ok(())
    }
}

/// The keys of one object so far, as positions in the output.
#[derive(Default)]
struct SeenKeys {
    few: Vec<(usize, usize)>,
    many: Option<HashSet<Box<[u8]>>>,
}

impl SeenKeys {
    /// Objects larger than this are checked by hash.
    const FEW: usize = 16;

    /// Adds the key at `start`, up to the output's last byte, its NUL. False if it was there before. An empty one is bad
    /// anyway, and may stand for any that contains NUL.
    fn add(&mut self, out: &[u8], start: usize) -> bool {
        let end = out.len() - 1;
        let key = &out[start..end];
        if key.is_empty() {
            return true;
        }
        if let Some(many) = &mut self.many {
            return many.insert(key.into());
        }
        if self.few.iter().any(|(from, to)| &out[*from..*to] == key) {
            return false;
        }
        self.few.push((start, end));
        if self.few.len() > Self::FEW {
            self.many = Some(self.few.iter().map(|(from, to)| out[*from..*to].into()).collect());
        }
        true
    }
}

/// Whether JSON text has an integer literal beyond 64 bits. Called only where a parsed number gave
/// cause to look, so its cost does not matter.
#[must_use]
pub(super) fn has_wide_integer(json: &str) -> bool {
    let bytes = json.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let start = at;
                let is_part = |byte: &&u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                at += bytes[start..].iter().take_while(is_part).count();
                let literal = &json[start..at];
                if !literal.contains(['.', 'e', 'E']) && literal.parse::<i64>().is_err() {
                    return true;
                }
            }
            _ => at += 1,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcode(json: &str, keys: KeyRule) -> Result<bson::Bson, Rejection> {
        let mut out = Output::default();
        let mut wrapped = Vec::new();
        let start = raw::begin_document(&mut wrapped);
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let read = Transcode { out: &mut out, keys, depth: 0 }.deserialize(&mut deserializer);
        let not_json = |error: serde_json::Error| Rejection::new(Reason::NotJson, error.to_string());
        let kind = read.map_err(|error| out.rejection.take().unwrap_or_else(|| not_json(error)))?;
        let value = ValueRef { kind, bytes: &out.bytes };
        let checked = keys.check_encoded(value);
        assert_eq!(checked.is_err(), out.bad_key, "{json}");
        checked?;
        raw::write(&mut wrapped, "v", value);
        raw::end_document(&mut wrapped, start);
        let mut document: bson::Document = bson::deserialize_from_slice(&wrapped).unwrap();
        Ok(document.remove("v").unwrap())
    }

    fn reason(json: &str, keys: KeyRule) -> Reason {
        transcode(json, keys).unwrap_err().reason
    }

    #[test]
    fn values_keep_their_types() {
        let value = transcode(
            r#"{"s":"a\nb","i":5,"l":5000000000,"d":0.5,"n":null,"t":true,"a":[1,[2],{"k":[]}],"o":{},"a.b":1}"#,
            KeyRule::Data,
        );
        let expected = bson::bson!({
            "s": "a\nb", "i": 5, "l": 5_000_000_000_i64, "d": 0.5, "n": null, "t": true,
            "a": [1, [2], {"k": []}], "o": {}, "a.b": 1
        });
        assert_eq!(value.unwrap(), expected);
    }

    #[test]
    fn bad_keys_are_refused_with_their_reason() {
        for json in [r#"{"":1}"#, r#"{"a\u0000b":1}"#, r#"{"$oid":"5f"}"#, r#"{"a":[{"$x":1}]}"#] {
            for keys in [KeyRule::Data, KeyRule::Merge, KeyRule::Document] {
                assert_eq!(reason(json, keys), Reason::BadKey, "{json}");
            }
        }
        assert_eq!(reason(r#"{"a.b":1}"#, KeyRule::Document), Reason::BadKey);
        assert!(transcode(r#"{"a":{"a.b":1}}"#, KeyRule::Document).is_ok());
        assert_eq!(reason(r#"{"a":{"a.b":1}}"#, KeyRule::Merge), Reason::BadKey);
        assert!(transcode(r#"{"$set":{"a.b":{"c.d":1}}}"#, KeyRule::Update).is_ok());
        assert!(transcode(r#"{"$push":{"a":{"$each":[1]}}}"#, KeyRule::Update).is_ok());
        assert_eq!(reason(r#"{"$set":{"a":{"b":{"$c":1}}}}"#, KeyRule::Update), Reason::BadKey);
    }

    #[test]
    fn duplicate_keys_are_refused_in_small_and_large_objects() {
        assert_eq!(reason(r#"{"a":1,"a":2}"#, KeyRule::Data), Reason::DuplicateKey);
        assert_eq!(reason(r#"{"o":{"x":1,"y":2,"x":3}}"#, KeyRule::Data), Reason::DuplicateKey);
        let many: Vec<_> = (0..40).map(|i| format!("\"k{i}\":{i}")).collect();
        assert!(transcode(&format!("{{{}}}", many.join(",")), KeyRule::Data).is_ok());
        assert_eq!(reason(&format!("{{{},\"k3\":0}}", many.join(",")), KeyRule::Data), Reason::DuplicateKey);
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(transcode(&nested(MAX_DEPTH), KeyRule::Data).is_ok());
        assert_eq!(reason(&nested(MAX_DEPTH + 1), KeyRule::Data), Reason::TooDeep);
        assert_eq!(reason(&nested(10_000), KeyRule::Data), Reason::TooDeep);
    }

    #[test]
    fn integers_beyond_64_bits_are_found() {
        assert_eq!(reason("9223372036854775808", KeyRule::Data), Reason::BadNumber);
        assert!(has_wide_integer(r#"{"a":[1,-92233720368547758090]}"#));
        assert!(!has_wide_integer(r#"{"a":"92233720368547758090","b\"":1e30,"c":9223372036854775807}"#));
    }
}

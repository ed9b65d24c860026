//! Converts encoded values of one type into another.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bson::spec::{BinarySubtype, ElementType};

use super::transcode::KeyRule;
use crate::config::Conversion;
use crate::raw::{self, Number, Value, ValueRef, begin_document, end_document};

/// Producers disagree on whether base64 is padded.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a value cannot be converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// What it is.
    found: ElementType,
    /// What it was to become.
    pub(super) wanted: Conversion,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = match self.found {
            ElementType::Null => "null",
            ElementType::Boolean => "a boolean",
            ElementType::Int32 | ElementType::Int64 => "an integer",
            ElementType::Double => "a double",
            ElementType::String => "a string",
            ElementType::Array => "an array",
            ElementType::EmbeddedDocument => "an object",
            ElementType::DateTime => "a date",
            _ => "a value",
        };
        let from = match self.wanted {
            Conversion::Date => "whole milliseconds since 1970 or RFC 3339",
            Conversion::ObjectId => "24 hexadecimal digits",
            Conversion::Int => "a whole number of 64 bits, or its text",
            Conversion::Double => "a number, or its text",
            Conversion::Decimal => "a number of at most 34 digits, or its text",
            Conversion::String => "text, a number, true or false",
            Conversion::Binary => "base64",
            Conversion::Uuid => "a UUID's text",
        };
        write!(f, "{found} that cannot be converted to \"{}\": that needs {from}", self.wanted.name())
    }
}

/// Converts a value. Null stays null.
///
/// # Errors
/// There is no such value of that type.
pub(crate) fn convert(value: ValueRef<'_>, wanted: Conversion) -> Result<Value, Fault> {
    if value.kind == ElementType::Null {
        return Ok(value.into());
    }
    let converted = match wanted {
        Conversion::Date => date(value),
        Conversion::ObjectId => value
            .text()
            .and_then(|text| bson::oid::ObjectId::parse_str(text).ok())
            .map(|id| made(ElementType::ObjectId, &id.bytes())),
        Conversion::Int => int(value).map(|n| Number::int(n).into()),
        Conversion::Double => double(value).map(|n| Number::Double(n).into()),
        Conversion::Decimal => decimal(value),
        Conversion::String => string(value),
        Conversion::Binary => {
            value.text().and_then(base64).and_then(|bytes| binary(BinarySubtype::Generic, &bytes))
        }
        Conversion::Uuid => value
            .text()
            .and_then(|text| bson::Uuid::parse_str(text).ok())
            .and_then(|uuid| binary(BinarySubtype::Uuid, &uuid.bytes())),
    };
    converted.ok_or(Fault { found: value.kind, wanted })
}

fn made(kind: ElementType, bytes: &[u8]) -> Value {
    ValueRef { kind, bytes }.into()
}

fn date(value: ValueRef<'_>) -> Option<Value> {
    if value.kind == ElementType::DateTime {
        return Some(value.into());
    }
    let ms = match value.text() {
        Some(text) => bson::DateTime::parse_rfc3339_str(text).ok()?.timestamp_millis(),
        None => whole(value.number()?)?,
    };
    Some(made(ElementType::DateTime, &ms.to_le_bytes()))
}

/// The number as an integer, if it is a whole one.
fn whole(number: Number) -> Option<i64> {
    const END: f64 = 9_223_372_036_854_775_808.0;
    match number {
        Number::Int32(n) => Some(n.into()),
        Number::Int64(n) => Some(n),
        Number::Double(n) if n.fract() == 0.0 && (-END..END).contains(&n) => Some(n as i64),
        Number::Double(_) => None,
    }
}

fn int(value: ValueRef<'_>) -> Option<i64> {
    match value.text() {
        Some(text) => text.parse().ok(),
        None => whole(value.number()?),
    }
}

fn double(value: ValueRef<'_>) -> Option<f64> {
    let number = match value.text() {
        Some(text) => text.parse().ok()?,
        None => match value.number()? {
            Number::Int32(n) => n.into(),
            Number::Int64(n) => n as f64,
            Number::Double(n) => n,
        },
    };
    number.is_finite().then_some(number)
}

fn decimal(value: ValueRef<'_>) -> Option<Value> {
    let text = match value.text() {
        Some(text) => text.to_owned(),
        None => match value.number()? {
            Number::Int32(n) => n.to_string(),
            Number::Int64(n) => n.to_string(),
            // The shortest text that is this double: what the event said.
            Number::Double(n) => format!("{n:e}"),
        },
    };
    // Decimals can be infinite and NaN; numbers in events cannot.
    let is_number = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let decimal: bson::Decimal128 = is_number.then(|| text.parse().ok())??;
    Some(made(ElementType::Decimal128, &decimal.bytes()))
}

fn string(value: ValueRef<'_>) -> Option<Value> {
    let text = match (value.kind, value.number()) {
        (ElementType::String, _) => return Some(value.into()),
        (ElementType::Boolean, _) => (value.bytes == [1]).to_string(),
        (_, Some(Number::Int32(n))) => n.to_string(),
        (_, Some(Number::Int64(n))) => n.to_string(),
        (_, Some(Number::Double(n))) => format!("{n:?}"),
        _ => return None,
    };
    Some(text_value(&text))
}

/// A string, encoded.
pub(super) fn text_value(text: &str) -> Value {
    let mut bytes = Vec::with_capacity(text.len() + 5);
    raw::write_text_value(&mut bytes, text);
    made(ElementType::String, &bytes)
}

/// The bytes of a base64 text.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

fn binary(subtype: BinarySubtype, bytes: &[u8]) -> Option<Value> {
    let len = i32::try_from(bytes.len()).ok()?;
    let encoded = [&len.to_le_bytes()[..], &[subtype.into()], bytes].concat();
    Some(made(ElementType::Binary, &encoded))
}

/// Encodes a value of the configuration.
///
/// # Errors
/// It cannot be stored: says why.
pub(crate) fn literal(value: &toml::Value) -> Result<Value, String> {
    let mut bytes = Vec::new();
    let kind = write_literal(&mut bytes, value)?;
    let value = made(kind, &bytes);
    KeyRule::Data.check_encoded(value.get()).map_err(|rejection| rejection.text)?;
    Ok(value)
}

/// Encodes the modifiers of a `$push`, the configuration's.
pub(super) fn modifiers(modifiers: toml::Table) -> Option<Value> {
    let mut bytes = Vec::new();
    let kind = write_literal(&mut bytes, &toml::Value::Table(modifiers)).ok()?;
    Some(made(kind, &bytes))
}

fn write_literal(out: &mut Vec<u8>, value: &toml::Value) -> Result<ElementType, String> {
    let number = match value {
        toml::Value::String(text) => {
            raw::write_text_value(out, text);
            return Ok(ElementType::String);
        }
        toml::Value::Boolean(b) => {
            out.push(u8::from(*b));
            return Ok(ElementType::Boolean);
        }
        toml::Value::Datetime(time) => {
            let date = bson::DateTime::parse_rfc3339_str(time.to_string())
                .map_err(|_| "a date needs a time and an offset, such as 2024-01-31T12:00:00Z".to_owned())?;
            out.extend_from_slice(&date.timestamp_millis().to_le_bytes());
            return Ok(ElementType::DateTime);
        }
        toml::Value::Array(values) => {
            let start = begin_document(out);
            for (index, value) in values.iter().enumerate() {
                let at = out.len();
                raw::write_index_key(out, ElementType::Null, index);
                out[at] = write_literal(out, value)? as u8;
            }
            end_document(out, start);
            return Ok(ElementType::Array);
        }
        toml::Value::Table(table) => {
            let start = begin_document(out);
            for (key, value) in table {
                if key.contains('\0') {
                    return Err("a key must not contain NUL".to_owned());
                }
                let at = out.len();
                raw::write_key(out, ElementType::Null, key);
                out[at] = write_literal(out, value)? as u8;
            }
            end_document(out, start);
            return Ok(ElementType::EmbeddedDocument);
        }
        toml::Value::Integer(n) => Number::int(*n),
        toml::Value::Float(n) if n.is_finite() => Number::Double(*n),
        toml::Value::Float(_) => return Err("must be a finite number".to_owned()),
    };
    let value = Value::from(number);
    out.extend_from_slice(value.get().bytes);
    Ok(value.get().kind)
}

#[cfg(test)]
mod tests {
    use bson::{Bson, Document};
    use proptest::prelude::*;

    use super::*;

    fn bson(value: &Value) -> Bson {
        let mut out = Vec::new();
        let start = begin_document(&mut out);
        raw::write(&mut out, "v", value.get());
        end_document(&mut out, start);
        let document: Document = bson::deserialize_from_slice(&out).unwrap();
        document.get("v").unwrap().clone()
    }

    fn converted(toml: &str, wanted: Conversion) -> Result<Bson, String> {
        let table: toml::Table = toml::from_str(&format!("v = {toml}")).unwrap();
        let value = literal(&table["v"]).unwrap();
        convert(value.get(), wanted).map(|value| bson(&value)).map_err(|fault| fault.to_string())
    }

    #[test]
    fn what_can_be_converted_is() {
        let date = |ms| Bson::DateTime(bson::DateTime::from_millis(ms));
        let decimal = |text: &str| Bson::Decimal128(text.parse().unwrap());
        let hex = "65a0b1c2d3e4f5a6b7c8d9e0";
        let uuid = "0191e1f8-6c5b-7b53-9a1e-2f0c8a3d4e5f";
        let binary = |bytes: &[u8]| {
            Bson::Binary(bson::Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() })
        };
        let text = |text: &str| Bson::String(text.into());
        for (toml, wanted, expected) in [
            ("1700000000000", Conversion::Date, date(1_700_000_000_000)),
            ("-1", Conversion::Date, date(-1)),
            ("1.7e12", Conversion::Date, date(1_700_000_000_000)),
            ("'1970-01-01T01:00:00.5+01:00'", Conversion::Date, date(500)),
            (&format!("'{hex}'"), Conversion::ObjectId, Bson::ObjectId(hex.parse().unwrap())),
            ("7", Conversion::Int, Bson::Int32(7)),
            ("7.0", Conversion::Int, Bson::Int32(7)),
            ("'-9223372036854775808'", Conversion::Int, Bson::Int64(i64::MIN)),
            ("7", Conversion::Double, Bson::Double(7.0)),
            ("'0.5'", Conversion::Double, Bson::Double(0.5)),
            ("'12.50'", Conversion::Decimal, decimal("12.50")),
            ("12.5", Conversion::Decimal, decimal("12.5")),
            ("12", Conversion::Decimal, decimal("12")),
            ("1e300", Conversion::Decimal, decimal("1E+300")),
            ("'x'", Conversion::String, text("x")),
            ("true", Conversion::String, text("true")),
            ("9007199254740993", Conversion::String, text("9007199254740993")),
            ("1.5", Conversion::String, text("1.5")),
            ("'AAEC/w=='", Conversion::Binary, binary(&[0, 1, 2, 255])),
            ("'AAEC/w'", Conversion::Binary, binary(&[0, 1, 2, 255])),
            ("''", Conversion::Binary, binary(&[])),
            (&format!("'{uuid}'"), Conversion::Uuid, bson::Uuid::parse_str(uuid).unwrap().into()),
        ] {
            assert_eq!(converted(toml, wanted), Ok(expected), "{toml}");
        }
        let null = convert(ValueRef::NULL, Conversion::Date).map(|value| bson(&value));
        assert_eq!(null, Ok(Bson::Null));
    }

    #[test]
    fn what_cannot_be_converted_is_told() {
        for (toml, wanted) in [
            ("'yesterday'", Conversion::Date),
            ("1.5", Conversion::Date),
            ("1e19", Conversion::Date),
            ("true", Conversion::Date),
            ("'65a0'", Conversion::ObjectId),
            ("5", Conversion::ObjectId),
            ("1.5", Conversion::Int),
            ("9.3e18", Conversion::Int),
            ("'1.0'", Conversion::Int),
            ("'9223372036854775808'", Conversion::Int),
            ("'nan'", Conversion::Double),
            ("'1e999'", Conversion::Double),
            ("''", Conversion::Double),
            ("'Infinity'", Conversion::Decimal),
            ("'1.00000000000000000000000000000000001'", Conversion::Decimal),
            ("'e'", Conversion::Decimal),
            ("[1]", Conversion::String),
            ("'*'", Conversion::Binary),
            ("'0191e1f8'", Conversion::Uuid),
        ] {
            assert!(converted(toml, wanted).is_err(), "{toml} {:?}", converted(toml, wanted));
        }
        insta::assert_snapshot!(
            converted("'yesterday'", Conversion::Date).unwrap_err(),
            @r#"a string that cannot be converted to "date": that needs whole milliseconds since 1970 or RFC 3339"#
        );
    }

    proptest! {
        /// Untrusted text makes no conversion panic, and what comes out is BSON.
        #[test]
        fn any_text_is_converted_or_refused(text in "\\PC{0,40}|[-+0-9.eE]{0,45}") {
            for wanted in [
                Conversion::Date, Conversion::ObjectId, Conversion::Int, Conversion::Double,
                Conversion::Decimal, Conversion::String, Conversion::Binary, Conversion::Uuid,
            ] {
                if let Ok(value) = convert(text_value(&text).get(), wanted) {
                    bson(&value);
                }
            }
        }
    }
}

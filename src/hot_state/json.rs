//! Writes values as MongoDB's extended JSON: <https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/>.

use bson::Bson;
use bson::spec::ElementType;
use serde_json::Value;

use crate::raw::{self, Number, ValueRef, begin_document, end_document};

/// A value in relaxed form: numbers are numbers.
pub(super) fn relaxed(value: ValueRef<'_>) -> String {
    let mut out = String::new();
    write(&mut out, value);
    out
}

/// A value in canonical form: its type can be told from the text.
pub(super) fn canonical(value: ValueRef<'_>) -> String {
    decoded(value).into_canonical_extjson().to_string()
}

/// Array elements, without the brackets around them.
pub(super) fn elements<'a>(elements: impl Iterator<Item = ValueRef<'a>>) -> String {
    let mut out = String::new();
    for element in elements {
        if !out.is_empty() {
            out.push(',');
        }
        write(&mut out, element);
    }
    out
}

/// Fields keep their order, which a tree of JSON would not.
fn write(out: &mut String, value: ValueRef<'_>) {
    match (value.kind, value.number()) {
        (ElementType::Null, _) => out.push_str("null"),
        (ElementType::Boolean, _) => out.push_str(if value.bytes == [0] { "false" } else { "true" }),
        (_, Some(Number::Int32(n))) => out.push_str(&n.to_string()),
        (_, Some(Number::Int64(n))) => out.push_str(&n.to_string()),
        (ElementType::String, _) => text(out, value.text().unwrap_or_default()),
        (ElementType::Array, _) => {
            out.push('[');
            out.push_str(&elements(raw::elements(value.bytes).map(|(_, element)| element)));
            out.push(']');
        }
        (ElementType::EmbeddedDocument, _) => {
            out.push('{');
            for (at, (key, field)) in raw::elements(value.bytes).enumerate() {
                if at > 0 {
                    out.push(',');
                }
                text(out, key);
                out.push(':');
                write(out, field);
            }
            out.push('}');
        }
        _ => out.push_str(&decoded(value).into_relaxed_extjson().to_string()),
    }
}

fn text(out: &mut String, text: &str) {
    out.push_str(&Value::from(text).to_string());
}

fn decoded(value: ValueRef<'_>) -> Bson {
    let mut document = Vec::with_capacity(value.bytes.len() + 8);
    let start = begin_document(&mut document);
    raw::write(&mut document, "", value);
    end_document(&mut document, start);
    // It was encoded by this process.
    let decoded = bson::deserialize_from_slice::<bson::Document>(&document);
    decoded.ok().and_then(|mut document| document.remove("")).unwrap_or(Bson::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Document, doc};

    fn document() -> Document {
        doc! {
            "z": 1, "a": [1, 5_i64 << 40, -2.5, 5.0, 1e300, f64::NAN, f64::INFINITY, true, Bson::Null],
            "text": "héllo \" \n \u{1}", "empty": {}, "none": [],
            "date": bson::DateTime::from_millis(1_700_000_000_123),
            "early": bson::DateTime::from_millis(-1),
            "oid": bson::oid::ObjectId::from_bytes([7; 12]),
            "decimal": "1.50".parse::<bson::Decimal128>().unwrap(),
            "uuid": bson::Uuid::from_bytes([9; 16]),
            "nested": {"b": {"y": [{"k": 1, "j": 2}]}, "a": 0},
        }
    }

    #[test]
    fn it_is_what_the_bson_library_makes_but_in_order() {
        let encoded = bson::serialize_to_vec(&document()).unwrap();
        let written = relaxed(ValueRef { kind: ElementType::EmbeddedDocument, bytes: &encoded });
        let tree: Value = serde_json::from_str(&written).unwrap();
        assert_eq!(tree, Bson::from(document()).into_relaxed_extjson());
        assert!(written.starts_with(r#"{"z":1,"a":[1,5497558138880,-2.5,5.0,1e"#), "{written}");
        assert!(written.contains(r#"{"k":1,"j":2}"#), "{written}");
    }
}

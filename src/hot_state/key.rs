//! Names the keys of a document's hot state.

use bson::spec::ElementType;

use super::json;
use crate::raw::{Number, ValueRef};

/// Key names; a contract with gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateKeys {
    /// The hash.
    pub(crate) state: String,
    /// The token of whoever is about to fill it.
    pub(crate) fill: String,
}

impl StateKeys {
    /// The keys that belong to a document. No two documents share one: a collection with hot states has no colon in its
    /// name.
    #[must_use]
    pub(crate) fn new(collection: &str, id: ValueRef<'_>) -> Self {
        let id = id_text(id);
        StateKeys {
            state: format!("tidegate:state:{collection}:{id}"),
            // In front and not behind: an id may end in anything.
            fill: format!("tidegate:fill:{collection}:{id}"),
        }
    }

    /// Bytes of both.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.state.len() + self.fill.len()
    }
}

/// A text as it is, anything else as extended JSON, where integers are the same whatever their width. A text that could
/// be mistaken for JSON is written as JSON.
fn id_text(id: ValueRef<'_>) -> String {
    match (id.text(), id.number()) {
        (Some(text), _) if !text.starts_with(['{', '"']) => text.to_owned(),
        (None, Some(Number::Int32(n))) => long(n.into()),
        (None, Some(Number::Int64(n))) => long(n),
        _ if id.kind == ElementType::Double => json::canonical(id),
        _ => json::relaxed(id),
    }
}

fn long(n: i64) -> String {
    format!("{{\"$numberLong\":\"{n}\"}}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::{self, Value};

    fn key(id: impl Into<bson::Bson>) -> String {
        let document = bson::serialize_to_vec(&bson::doc! {"": id.into()}).unwrap();
        let id: Value = raw::elements(&document).next().unwrap().1.into();
        StateKeys::new("pages", id.get()).state
    }

    #[test]
    fn no_two_ids_have_the_same_key() {
        assert_eq!(key("doc:1"), "tidegate:state:pages:doc:1");
        assert_eq!(key("7"), "tidegate:state:pages:7");
        assert_eq!(key(7), r#"tidegate:state:pages:{"$numberLong":"7"}"#);
        assert_eq!(key(7_i64), key(7));
        assert_eq!(key(r#"{"$numberLong":"7"}"#), r#"tidegate:state:pages:"{\"$numberLong\":\"7\"}""#);
        assert_eq!(key(r#""a"#), r#"tidegate:state:pages:"\"a""#);
        let oid: bson::oid::ObjectId = "65a0b1c2d3e4f5a6b7c8d9e0".parse().unwrap();
        assert_eq!(key(oid), r#"tidegate:state:pages:{"$oid":"65a0b1c2d3e4f5a6b7c8d9e0"}"#);
        let uuid = bson::Uuid::parse_str("0191e1f8-6c5b-7b53-9a1e-2f0c8a3d4e5f").unwrap();
        assert_eq!(
            key(uuid),
            r#"tidegate:state:pages:{"$binary":{"base64":"AZHh+Gxbe1OaHi8Mij1OXw==","subType":"04"}}"#
        );
        assert_eq!(key(1.5), r#"tidegate:state:pages:{"$numberDouble":"1.5"}"#);
    }

    #[test]
    fn a_fill_key_is_no_state_key() {
        let text = |text: &str| {
            let mut value = Vec::new();
            raw::write_text_value(&mut value, text);
            StateKeys::new("pages", ValueRef { kind: ElementType::String, bytes: &value })
        };
        assert_eq!(text("a").fill, "tidegate:fill:pages:a");
        assert_ne!(text("a").fill, text("a:fill").state);
    }
}

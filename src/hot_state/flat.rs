//! Makes a document flat: the dotted paths of its leaves.
//! Arrays and empty objects are leaves, and so is an object with a key that cannot be part of a path.

use std::collections::HashSet;

use bson::spec::ElementType;

use super::json;
use crate::raw::{self, ValueRef};

/// A leaf: its path and its value, as they are in a hash.
pub(super) type Leaf = (String, String);

/// The leaves of a value at a path. None if it has a key twice.
pub(super) fn value(path: &str, value: ValueRef<'_>) -> Option<Vec<Leaf>> {
    let mut leaves = Vec::new();
    add(&mut leaves, path, value)?;
    Some(leaves)
}

/// The leaves of a document. None if it has a key that cannot be part of a path, or a key twice.
pub(super) fn document(document: ValueRef<'_>) -> Option<Vec<Leaf>> {
    let mut leaves = Vec::new();
    if !has_only_components(document.bytes) {
        return None;
    }
    for (key, field) in raw::elements(document.bytes) {
        add(&mut leaves, key, field)?;
    }
    has_no_twins(document.bytes).then_some(leaves)
}

fn add(leaves: &mut Vec<Leaf>, path: &str, value: ValueRef<'_>) -> Option<()> {
    let is_object = value.kind == ElementType::EmbeddedDocument;
    if is_object && raw::elements(value.bytes).next().is_some() {
        if !has_no_twins(value.bytes) {
            return None;
        }
        if has_only_components(value.bytes) {
            return raw::elements(value.bytes)
                .try_for_each(|(key, field)| add(leaves, &format!("{path}.{key}"), field));
        }
    }
    leaves.push((path.to_owned(), json::relaxed(value)));
    Some(())
}

fn has_only_components(document: &[u8]) -> bool {
    raw::elements(document).all(|(key, _)| !key.is_empty() && !key.contains('.') && !key.starts_with('$'))
}

fn has_no_twins(document: &[u8]) -> bool {
    let mut seen = HashSet::new();
    raw::elements(document).all(|(key, _)| seen.insert(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, Document, doc};

    fn flat(of: Document) -> Option<Vec<Leaf>> {
        let encoded = bson::serialize_to_vec(&of).unwrap();
        document(ValueRef { kind: ElementType::EmbeddedDocument, bytes: &encoded })
    }

    fn leaves(of: Document) -> String {
        let leaves = flat(of).unwrap();
        leaves.iter().map(|(path, value)| format!("{path}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn leaves_are_values_arrays_and_empty_objects() {
        assert_eq!(
            leaves(doc! {"a": 1, "b": {"c": "x", "d": {"e": Bson::Null}}, "f": [{"g": 1}], "h": {}, "i": []}),
            r#"a=1 b.c="x" b.d.e=null f=[{"g":1}] h={} i=[]"#
        );
        assert_eq!(leaves(doc! {}), "");
        assert_eq!(leaves(doc! {"0": {"1": 2}}), "0.1=2");
    }

    #[test]
    fn an_object_whose_keys_are_no_components_is_a_leaf() {
        for key in ["", "x.y", "$x"] {
            let inner = doc! {key: 1, "b": {"c": 2}};
            let json = Bson::from(inner.clone()).into_relaxed_extjson();
            let found = flat(doc! {"a": {"k": inner, "l": 3}}).unwrap();
            assert_eq!(found[0].0, "a.k");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&found[0].1).unwrap(), json);
            assert_eq!(found[1], ("a.l".to_owned(), "3".to_owned()));
            // There is no path to keep a whole document under.
            assert_eq!(flat(doc! {key: 1}), None);
        }
    }

    #[test]
    fn a_key_that_is_there_twice_cannot_be_kept() {
        let mut twice = Vec::new();
        let start = raw::begin_document(&mut twice);
        raw::write_i32(&mut twice, "a", 1);
        raw::write_i32(&mut twice, "a", 2);
        raw::end_document(&mut twice, start);
        let twice = ValueRef { kind: ElementType::EmbeddedDocument, bytes: &twice };
        assert_eq!(document(twice), None);
        assert_eq!(value("x", twice), None);
    }
}

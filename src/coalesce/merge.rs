//! Makes one patch of the merge patches (RFC 7396) that are pending for a field.
//!
//! Two patches are composed to one that does the same as both. Nulls stay, since nobody knows whether the document has
//! the field. If the first sets a field to something that is no object, the second is merged into that at once. Such a
//! field is known: it replaces what the document holds.

use bson::spec::ElementType;
use foldhash::quality::RandomState;
use indexmap::IndexMap;

use super::constant::Constant;
use crate::raw::{self, ValueRef, begin_document, end_document};

/// A patch that is an object. What it is merged into becomes an object if it is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Merge {
    fields: IndexMap<Box<str>, Merged, RandomState>,
    bytes: usize,
}

/// What becomes of a field of an object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Merged {
    /// This, whatever was there; nothing, where it is missing.
    Constant(Constant),
    /// What was there, with this merged into it.
    Merge(Box<Merge>),
}

/// About the bytes that an object of a patch, or a field of one, takes in an update besides its path.
const OBJECT_OVERHEAD: usize = 128;
const FIELD_OVERHEAD: usize = 48;

/// About the bytes that the update for a patch takes, at a path of this length: [`Merge::bytes`], before there is one.
pub(crate) fn merge_bytes(patch: ValueRef<'_>, path: usize) -> usize {
    let mut bytes = OBJECT_OVERHEAD + 3 * path;
    for (key, value) in raw::elements(patch.bytes) {
        let path = path + 1 + key.len();
        let field = match value.kind {
            ElementType::EmbeddedDocument => merge_bytes(value, path),
            _ => value.bytes.len(),
        };
        bytes = bytes.saturating_add(FIELD_OVERHEAD + path).saturating_add(field);
    }
    bytes
}

impl Merge {
    /// A patch for what is at a path of that length.
    pub(super) fn of(patch: ValueRef<'_>, path: usize) -> Self {
        let mut merge = Merge { bytes: OBJECT_OVERHEAD + 3 * path, ..Merge::default() };
        merge.add(patch, path);
        merge
    }

    /// Composes this with a patch that comes behind it.
    pub(super) fn add(&mut self, patch: ValueRef<'_>, path: usize) {
        for (key, value) in raw::elements(patch.bytes) {
            let path = path + 1 + key.len();
            match self.fields.get_mut(key) {
                Some(field) => {
                    let before = field.bytes();
                    field.add(value, path);
                    self.bytes = self.bytes - before + field.bytes();
                }
                None => {
                    let field = Merged::of(value, path);
                    self.bytes += FIELD_OVERHEAD + path + field.bytes();
                    self.fields.insert(key.into(), field);
                }
            }
        }
    }

    /// The fields, in the order in which they came up.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &Merged)> {
        self.fields.iter().map(|(key, field)| (&**key, field))
    }

    /// Whether anything below it is set. An object that it is set in is there, then.
    #[must_use]
    pub(crate) fn sets(&self) -> bool {
        self.fields.values().any(|field| match field {
            Merged::Constant(known) => *known != Constant::Missing,
            Merged::Merge(merge) => merge.sets(),
        })
    }

    /// Bytes, about as many as the update takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes what it makes of nothing.
    pub(crate) fn write(&self, out: &mut Vec<u8>, key: &str) {
        raw::write_key(out, ElementType::EmbeddedDocument, key);
        let start = begin_document(out);
        for (key, field) in self.fields() {
            match field {
                Merged::Constant(known) => known.write(out, key),
                Merged::Merge(merge) => merge.write(out, key),
            }
        }
        end_document(out, start);
    }
}

impl Merged {
    fn of(value: ValueRef<'_>, path: usize) -> Self {
        match value.kind {
            ElementType::EmbeddedDocument => Merged::Merge(Box::new(Merge::of(value, path))),
            ElementType::Null => Merged::Constant(Constant::Missing),
            _ => Merged::Constant(Constant::Value(value.into())),
        }
    }

    fn add(&mut self, value: ValueRef<'_>, path: usize) {
        match self {
            _ if value.kind != ElementType::EmbeddedDocument => *self = Merged::of(value, path),
            Merged::Constant(known) => known.merge(value),
            Merged::Merge(merge) => merge.add(value, path),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Merged::Constant(known) => known.bytes(),
            Merged::Merge(merge) => merge.bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value as Json, json};

    use super::*;
    use crate::raw::find;

    /// RFC 7396, section 2.
    fn reference(target: &Json, patch: &Json) -> Json {
        let Json::Object(patch) = patch else { return patch.clone() };
        let mut target = target.as_object().cloned().unwrap_or_default();
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                let before = target.get(key).unwrap_or(&Json::Null);
                target.insert(key.clone(), reference(before, value));
            }
        }
        Json::Object(target)
    }

    fn encoded(json: &Json) -> Vec<u8> {
        bson::serialize_to_vec(&bson::doc! {"v": bson::serialize_to_bson(json).unwrap()}).unwrap()
    }

    fn json(write: impl FnOnce(&mut Vec<u8>)) -> Option<Json> {
        let mut out = Vec::new();
        let start = begin_document(&mut out);
        write(&mut out);
        end_document(&mut out, start);
        let document: bson::Document = bson::deserialize_from_slice(&out).unwrap();
        document.get("v").map(|value| value.clone().into_relaxed_extjson())
    }

    /// What a pending patch makes of a value, as the sink's pipeline does.
    fn applied(target: &Json, merge: &Merge) -> Json {
        let mut target = target.as_object().cloned().unwrap_or_default();
        for (key, field) in merge.fields() {
            let value = match field {
                Merged::Constant(known) => json(|out| known.write(out, "v")),
                Merged::Merge(merge) => Some(applied(target.get(key).unwrap_or(&Json::Null), merge)),
            };
            match value {
                Some(value) => drop(target.insert(key.to_owned(), value)),
                None => drop(target.remove(key)),
            }
        }
        Json::Object(target)
    }

    fn value() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            Just(json!("text")),
            Just(json!(7)),
            Just(json!([1, {"x": null}])),
            Just(json!({}))
        ];
        leaf.prop_recursive(4, 24, 3, |inner| {
            prop::collection::btree_map("[abc0]", inner, 0..4)
                .prop_map(|fields| Json::Object(fields.into_iter().collect::<Map<_, _>>()))
        })
    }

    fn object() -> impl Strategy<Value = Json> {
        prop::collection::btree_map("[abc0]", value(), 0..4)
            .prop_map(|fields| Json::Object(fields.into_iter().collect::<Map<_, _>>()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn patches_compose(target in value(), patches in prop::collection::vec(object(), 1..5)) {
            let (mut expected, mut merge, mut known) = (target.clone(), None::<Merge>, Constant::Missing);
            let document = encoded(&target);
            if let Some(target) = find(&document, "v") {
                known = Constant::Value(target.into());
            }
            for patch in &patches {
                expected = reference(&expected, patch);
                let document = encoded(patch);
                let patch = find(&document, "v").unwrap();
                known.merge(patch);
                match &mut merge {
                    Some(merge) => merge.add(patch, 1),
                    None => merge = Some(Merge::of(patch, 1)),
                }
            }
            let merge = merge.unwrap();
            prop_assert_eq!(applied(&target, &merge), expected.clone());
            prop_assert_eq!(json(|out| known.write(out, "v")), Some(expected));
            let fresh = patches.iter().fold(Json::Null, |target, patch| reference(&target, patch));
            prop_assert_eq!(json(|out| merge.write(out, "v")), Some(fresh));
            if let [patch] = &*patches {
                let document = encoded(patch);
                prop_assert_eq!(merge.bytes(), merge_bytes(find(&document, "v").unwrap(), 1));
            }
        }
    }
}

//! Makes the document that `insert` takes in place of a guarded upsert.
//!
//! Servers insert documents by the hundred in one transaction, and look each upsert up by itself. So where documents
//! are mostly new, inserting first and updating what was there already costs a fraction. It decides nothing: an
//! insert that is refused, for whatever reason, leaves no trace, and the guarded update has the say.

use bson::spec::ElementType;

use super::command::Guard;
use crate::change::path::WATERMARK_FIELD;
use crate::change::{EntityRef, Op};
use crate::coalesce::{Constant, FieldUpdate, Fields, Segment, Update, zero};
use crate::raw::{self, begin_document, end_document};

/// Writes the document, or says that it is not known what it would be: MongoDB's clock, say, is in it.
pub(super) fn document(
    out: &mut Vec<u8>,
    entity: EntityRef<'_>,
    segment: &Segment,
    guard: Option<&Guard>,
) -> bool {
    // Shard keys have paths, too, and documents of other keys may have this `_id`: rare, and well looked after elsewhere.
    if !entity.shard_key.is_empty() {
        return false;
    }
    let start = begin_document(out);
    raw::write(out, "_id", entity.id);
    // Where MongoDB puts it, too.
    let known = match &segment.update {
        Update::Fields(fields) => {
            watermark(out, segment, guard);
            write_fields(out, fields)
        }
        Update::Replace(document) => {
            let known = document.write_fields(out);
            watermark(out, segment, guard);
            known
        }
        Update::Delete => false,
    };
    end_document(out, start);
    known
}

fn watermark(out: &mut Vec<u8>, segment: &Segment, guard: Option<&Guard>) {
    let Some(guard) = guard else { return };
    raw::write_key(out, ElementType::EmbeddedDocument, WATERMARK_FIELD);
    let watermarks = begin_document(out);
    raw::write_i64(out, guard.id(), segment.last);
    end_document(out, watermarks);
}

/// Writes what operations make of no fields.
fn write_fields(out: &mut Vec<u8>, fields: &Fields) -> bool {
    // Those come one behind the other that have a parent in common, and no path is another's parent.
    let mut parents: Vec<(&str, usize)> = Vec::new();
    // They are refused of nothing, nearly all.
    if fields.steps().next().is_some() {
        return false;
    }
    for (path, update) in fields.iter() {
        match update {
            // They remove something, where there is something.
            FieldUpdate::Constant(Constant::Missing)
            | FieldUpdate::PullAll(_)
            | FieldUpdate::Other(Op::Pop, _) => {
                continue;
            }
            FieldUpdate::Constant(_) | FieldUpdate::Push(_) | FieldUpdate::Merge(_) => {}
            FieldUpdate::AddToSet(elements) if elements.count() <= 1 => {}
            FieldUpdate::Other(Op::Inc | Op::Mul | Op::Min | Op::Max | Op::SetOnInsert, _) => {}
            // Among them `$pull`, whose condition MongoDB may refuse.
            FieldUpdate::PushWith(_)
            | FieldUpdate::AddToSet(_)
            | FieldUpdate::Yjs(_)
            | FieldUpdate::Other(..)
            | FieldUpdate::RenameTarget => return false,
        }
        let (parent, key) = path.rsplit_once('.').map_or((None, path), |(parent, key)| (Some(parent), key));
        let components = || parent.into_iter().flat_map(|parent| parent.split('.'));
        let shared = parents.iter().zip(components()).take_while(|((a, _), b)| a == b).count();
        parents.drain(shared..).rev().for_each(|(_, start)| end_document(out, start));
        for component in components().skip(shared) {
            raw::write_key(out, ElementType::EmbeddedDocument, component);
            parents.push((component, begin_document(out)));
        }
        match update {
            FieldUpdate::Constant(known) => known.write(out, key),
            FieldUpdate::Merge(merge) => merge.write(out, key),
            FieldUpdate::Push(elements) | FieldUpdate::AddToSet(elements) => {
                raw::write_key(out, ElementType::Array, key);
                elements.write(out);
            }
            FieldUpdate::Other(Op::Mul, factor) => match zero(factor.get()) {
                Some(zero) => raw::write(out, key, zero.get()),
                None => return false,
            },
            FieldUpdate::Other(_, value) => raw::write(out, key, value.get()),
            _ => return false,
        }
    }
    parents.drain(..).rev().for_each(|(_, start)| end_document(out, start));
    true
}

#[cfg(test)]
mod tests {
    use bson::{Document, doc};

    use super::*;
    use crate::change::Placed;
    use crate::coalesce::PendingUpdate;
    use crate::config::{Config, Native};
    use crate::decode::Decoder;

    /// What native events make of nothing, but for the id.
    fn made(events: &[&str]) -> Option<Document> {
        let native = Native { collections: vec!["c".into()] };
        let mut decoder = Decoder::new(&Config { native, ..Config::default() });
        let mut pending: Option<PendingUpdate> = None;
        for (n, event) in events.iter().enumerate() {
            let event = format!(r#"{{"collection":"c","id":"x",{event}}}"#);
            let placed =
                Placed { offset: n as i64, hash: 0, change: decoder.decode(event.as_bytes()).unwrap() };
            match &mut pending {
                Some(pending) => drop(pending.fold(&placed, 1 << 20)),
                None => pending = Some(PendingUpdate::new(&placed)),
            }
        }
        let segment = pending.unwrap().take_first().unwrap();
        let mut out = Vec::new();
        let id = bson::spec::ElementType::Int32;
        let id = crate::raw::ValueRef { kind: id, bytes: &7_i32.to_le_bytes() };
        let entity = EntityRef { collection: crate::change::CollectionId(0), id, shard_key: &[] };
        document(&mut out, entity, &segment, Some(&Guard::new("a.q"))).then(|| {
            let mut document: Document = bson::deserialize_from_slice(&out).unwrap();
            assert_eq!(document.remove("_id"), Some(7.into()));
            assert_eq!(document.remove("_tidegate"), Some(doc! {"a%2Eq": segment.last}.into()));
            document
        })
    }

    #[test]
    fn a_document_is_made_of_what_its_events_say() {
        let update = |update: &str| made(&[&format!(r#""update":{update}"#)]);
        assert_eq!(
            update(
                r#"{"$set":{"b.c":1,"b.d.e":[1],"b-x":"t","b.d.f":{"g":1},"a":null},"$inc":{"n.1":5,"n.0":1}}"#
            ),
            Some(
                doc! {"a": null, "b": {"c": 1, "d": {"e": [1], "f": {"g": 1}}}, "b-x": "t", "n": {"0": 1, "1": 5}}
            )
        );
        assert_eq!(
            update(
                r#"{"$unset":{"a":1},"$pull":{"b.c":1},"$pop":{"d":1},"$mul":{"m":2.5},"$max":{"x":3},"$push":{"p":1}}"#
            ),
            Some(doc! {"m": 0.0, "x": 3, "p": [1]})
        );
        assert_eq!(
            made(&[r#""update":{"$set":{"a":1}}"#, r#""update":{"$set":{"b.c":2},"$inc":{"a":3}}"#]),
            Some(doc! {"a": 4, "b": {"c": 2}})
        );
        assert_eq!(made(&[r#""replace":{"a":{"b":1}}"#]), Some(doc! {"a": {"b": 1}}));
        assert_eq!(made(&[r#""delete":true"#, r#""update":{"$set":{"a":1}}"#]), Some(doc! {"a": 1}));
    }

    #[test]
    fn a_document_that_only_mongodb_knows_is_not_guessed() {
        for update in [
            r#""update":{"$currentDate":{"a":true}}"#,
            r#""update":{"$pull":{"a":{"$gt":1,"x":2}},"$set":{"b":1}}"#,
            r#""update":{"$rename":{"a":"b"},"$set":{"c":1}}"#,
            r#""update":{"$push":{"a":{"$each":[2,1],"$sort":1}}}"#,
            r#""update":{"$addToSet":{"a":{"$each":[2,2]}}}"#,
            r#""delete":true"#,
        ] {
            assert_eq!(made(&[update]), None, "{update}");
        }
    }
}

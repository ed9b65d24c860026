//! Tests which changes fold, and into what. That folding leaves the same document is shown against a server.

use bson::Bson;

use super::*;
use crate::change::{Change, CollectionId, EntityRef, FieldOp, FieldOps, Op, write_field_op};
use crate::raw::{ValueRef, begin_document, end_document, find, write, write_key, write_text_value};
use bson::spec::ElementType;

#[derive(Clone)]
pub(super) enum Make {
    Ops(Vec<(Op, &'static str, Bson)>),
    Replace(bson::Document),
    Delete,
}

fn encoded(value: &Bson) -> (ElementType, Vec<u8>) {
    let document = bson::serialize_to_vec(&bson::doc! {"v": value.clone()}).unwrap();
    let value = find(&document, "v").unwrap();
    (value.kind, value.bytes.to_vec())
}

/// Folds changes at offsets 1, 2, ... and tells the segments: `first-last: update`.
pub(super) fn fold(changes: &[Make]) -> Vec<String> {
    let mut pending: Option<PendingUpdate> = None;
    for (at, change) in changes.iter().enumerate() {
        let mut body = Vec::new();
        let effect = match change {
            Make::Ops(ops) => {
                for (op, path, value) in ops {
                    let (kind, bytes) = encoded(value);
                    write_field_op(
                        &mut body,
                        FieldOp { op: *op, path, value: ValueRef { kind, bytes: &bytes } },
                    );
                }
                Effect::Update(FieldOps::new(&body))
            }
            Make::Replace(document) => {
                body = bson::serialize_to_vec(document).unwrap();
                Effect::Replace(&body)
            }
            Make::Delete => Effect::Delete,
        };
        let entity = EntityRef { collection: CollectionId(0), id: ValueRef::NULL, shard_key: &[] };
        let offset = i64::try_from(at).unwrap() + 1;
        let placed =
            Placed { offset, hash: 0, change: Change { entity, effect, ts: None, traceparent: None } };
        match &mut pending {
            None => pending = Some(PendingUpdate::new(&placed)),
            Some(pending) => {
                pending.fold(&placed, 1 << 20);
            }
        }
    }
    let pending = pending.unwrap();
    let (bytes, segments) = (pending.bytes(), pending.into_segments());
    assert_eq!(bytes, segments.iter().map(Segment::bytes).sum::<usize>());
    segments.iter().map(|s| format!("{}-{}: {}", s.first, s.last, told(&s.update))).collect()
}

fn told(update: &Update) -> String {
    let json = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut document = Vec::new();
        let start = begin_document(&mut document);
        write(&mut document);
        end_document(&mut document, start);
        let document: bson::Document = bson::deserialize_from_slice(&document).unwrap();
        document.get("v").map_or("null".into(), |value| value.clone().into_relaxed_extjson().to_string())
    };
    let array = |elements: &ArrayElements| {
        json(&|out| {
            write_key(out, ElementType::Array, "v");
            elements.write(out);
        })
    };
    match update {
        Update::Delete => "delete".into(),
        Update::Replace(document) => format!("replace {}", json(&|out| document.write(out, "v"))),
        Update::Fields(fields) => {
            let told = fields.iter().filter_map(|(path, update)| {
                let operand = match update {
                    FieldUpdate::Constant(known) => json(&|out| known.write(out, "v")),
                    FieldUpdate::Other(_, value) => json(&|out| write(out, "v", value.get())),
                    FieldUpdate::Push(elements)
                    | FieldUpdate::Yjs(elements)
                    | FieldUpdate::AddToSet(elements)
                    | FieldUpdate::PullAll(elements) => array(elements),
                    FieldUpdate::PushWith(with) => {
                        format!("{} {}", array(&with.0), json(&|out| write(out, "v", with.1.get())))
                    }
                    FieldUpdate::Merge(merge) => return Some(format!("merge {path} {}", patch(merge))),
                    FieldUpdate::RenameTarget => return None,
                };
                Some(format!("{} {path} {operand}", &update.operator()?[1..]))
            });
            let steps = fields.steps().map(|step| format!("patch {}", json(&|out| write(out, "v", step))));
            told.chain(steps).collect::<Vec<_>>().join(", ")
        }
    }
}

/// A pending merge patch; `=` before what takes the place of whatever is there.
fn patch(merge: &Merge) -> String {
    let fields = merge.fields().map(|(key, field)| match field {
        Merged::Constant(Constant::Missing) => format!("{key}: null"),
        Merged::Constant(known) => {
            let mut out = Vec::new();
            let start = begin_document(&mut out);
            known.write(&mut out, "v");
            end_document(&mut out, start);
            let document: bson::Document = bson::deserialize_from_slice(&out).unwrap();
            format!("{key} = {}", document.get("v").unwrap().clone().into_relaxed_extjson())
        }
        Merged::Merge(merge) => format!("{key}: {}", patch(merge)),
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
}

fn merge(path: &'static str, patch: Bson) -> Make {
    Make::Ops(vec![(Op::Merge, path, patch)])
}

pub(super) fn replace_at(pointer: &'static str, value: i32) -> Make {
    Make::Ops(vec![(Op::Patch, "", bson::bson!([{"op": "replace", "path": pointer, "value": value}]))])
}

#[test]
fn merges_of_one_field_become_one() {
    let object = |value: Bson| merge("a", value);
    let scalar_then_object = [
        object(bson::bson!({"x": 1, "y": {"z": null}})),
        object(bson::bson!({"x": {"p": null, "q": 2}})),
        object(bson::bson!({"y": {"w": {}}})),
    ];
    assert_eq!(fold(&scalar_then_object), [r#"1-3: merge a {x = {"q":2}, y: {z: null, w: {}}}"#]);
    // What is known is merged into at once, and what is merged is superseded.
    assert_eq!(
        fold(&[set("a", bson::bson!({"k": 1})), object(bson::bson!({"k": null, "n": {"m": null}}))]),
        [r#"1-2: set a {"n":{}}"#]
    );
    assert_eq!(fold(&[set("a", "text"), object(bson::bson!({"k": 1}))]), [r#"1-2: set a {"k":1}"#]);
    assert_eq!(fold(&[unset("a"), object(bson::bson!({"k": null}))]), ["1-2: set a {}"]);
    assert_eq!(fold(&[object(bson::bson!({"k": 1})), set("a", 5)]), ["1-2: set a 5"]);
    assert_eq!(fold(&[object(bson::bson!({"k": 1})), unset("a")]), ["1-2: unset a null"]);
    assert_eq!(
        fold(&[Make::Replace(bson::doc! {"a": [1]}), object(bson::bson!({"k": 1}))]),
        [r#"1-2: replace {"a":{"k":1}}"#]
    );
    assert_eq!(fold(&[Make::Delete, object(bson::bson!({"k": {}}))]), [r#"1-2: replace {"a":{"k":{}}}"#]);
    assert_eq!(fold(&[object(bson::bson!({})), Make::Delete]), ["1-2: delete"]);
}

#[test]
fn a_merge_folds_with_what_a_pipeline_can_do() {
    let object = || merge("a", bson::bson!({"k": 1}));
    let others = [set("b", 1), inc("n", 1), set("c.d", 1), push("l", 1), unset("e.f")];
    for other in others {
        assert_eq!(fold(&[object(), other.clone()]).len(), 1);
        assert_eq!(fold(&[other, object()]).len(), 1);
    }
    let rename = Make::Ops(vec![(Op::Rename, "b", "c".into())]);
    for other in [set("c.0", 1), rename, set("a.k", 2), inc("a.k", 2), unset("a.k")] {
        assert_eq!(fold(&[object(), other.clone()]).len(), 2);
        assert_eq!(fold(&[other, object()]).len(), 2);
    }
    let many: Vec<_> = (0..600).map(|n| &*Box::leak(format!("f{n}").into_boxed_str())).collect();
    let many: Vec<_> = std::iter::once(object()).chain(many.iter().map(|path| set(path, 1))).collect();
    assert_eq!(fold(&many).len(), 2);
}

#[test]
fn patches_go_one_behind_the_other_apart_from_all_else() {
    let both = fold(&[replace_at("/a/b", 1), replace_at("/a/b", 2)]);
    assert_eq!(both.len(), 1);
    assert_eq!(both[0].matches("patch").count(), 2);
    assert_eq!(fold(&[replace_at("/a/b", 1), inc("n", 1), replace_at("/c", 2)]).len(), 1);
    for other in [set("a", 1), set("a.c", 1), unset("a"), merge("a", bson::bson!({})), Make::Delete] {
        assert_eq!(fold(&[replace_at("/a/b", 1), other.clone()]).len(), 2);
        assert_eq!(fold(&[other, replace_at("/a/b", 1)]).len(), 2);
    }
}

#[test]
fn removing_hides_no_refusal_of_what_removes_elements() {
    for (op, value) in [(Op::PullAll, bson::bson!([1])), (Op::Pull, 1.into()), (Op::Pop, 1.into())] {
        for path in ["a.b", "a.b.c"] {
            // Where `a` is a number, MongoDB takes the first and refuses the second.
            let remove = Make::Ops(vec![(op, path, value.clone())]);
            assert_eq!(fold(&[unset("a.b"), remove]).len(), 2, "{op:?} {path}");
        }
        // What has no parent is missing then, and so is all below it.
        for path in ["a", "a.b"] {
            let remove = Make::Ops(vec![(op, path, value.clone())]);
            assert_eq!(fold(&[unset("a"), remove]).len(), 1, "{op:?} {path}");
        }
    }
}

fn set(path: &'static str, value: impl Into<Bson>) -> Make {
    Make::Ops(vec![(Op::Set, path, value.into())])
}

fn inc(path: &'static str, value: impl Into<Bson>) -> Make {
    Make::Ops(vec![(Op::Inc, path, value.into())])
}

fn push(path: &'static str, value: impl Into<Bson>) -> Make {
    Make::Ops(vec![(Op::Push, path, value.into())])
}

fn unset(path: &'static str) -> Make {
    Make::Ops(vec![(Op::Unset, path, Bson::Null)])
}

#[test]
fn the_last_value_set_wins() {
    assert_eq!(fold(&[set("a", 1), set("b", 2), set("a", "x")]), [r#"1-3: set a "x", set b 2"#]);
    assert_eq!(fold(&[set("a", 5), unset("b"), set("b", 1), unset("a")]), ["1-4: unset a null, set b 1"]);
    assert_eq!(fold(&[set("a.b", 1), set("a.b", 2)]), ["1-2: set a.b 2"]);
}

#[test]
fn increments_add_up_as_mongodb_adds() {
    assert_eq!(fold(&[inc("n", 1), inc("n", 2), inc("n", -4)]), ["1-3: inc n -1"]);
    assert_eq!(fold(&[inc("n", 1), inc("n", 1_i64 << 40)]), [format!("1-2: inc n {}", (1_i64 << 40) + 1)]);
    assert_eq!(fold(&[set("n", 1), inc("n", 2), inc("n", 0.5)]), ["1-3: set n 3.5"]);
    assert_eq!(fold(&[set("n", i32::MAX), inc("n", 1)]), [format!("1-2: set n {}", 1_i64 << 31)]);
    assert_eq!(fold(&[unset("n"), inc("n", 2)]), ["1-2: set n 2"]);
}

#[test]
fn increments_that_would_round_overflow_or_fail_open_a_segment() {
    assert_eq!(fold(&[inc("n", 0.1), inc("n", 0.2)]).len(), 2);
    assert_eq!(fold(&[inc("n", i32::MAX), inc("n", 1)]).len(), 2);
    assert_eq!(fold(&[set("n", i64::MAX), inc("n", 1)]).len(), 2);
    assert_eq!(fold(&[set("n", "text"), inc("n", 1)]).len(), 2);
    assert_eq!(fold(&[unset("a.0"), inc("a.0", 2)]).len(), 2);
}

#[test]
fn pushes_gather() {
    let each = Make::Ops(vec![(Op::PushEach, "l", bson::bson!([2, 3]))]);
    assert_eq!(
        fold(&[push("l", 1), each.clone(), push("l", bson::bson!({"a": [4]}))]),
        [r#"1-3: push l [1,2,3,{"a":[4]}]"#]
    );
    assert_eq!(fold(&[set("l", bson::bson!([0])), push("l", 1), each]), ["1-3: set l [0,1,2,3]"]);
    assert_eq!(fold(&[unset("l"), push("l", 1)]), ["1-2: set l [1]"]);
    assert_eq!(fold(&[set("l", 5), push("l", 1)]).len(), 2);
}

#[test]
fn a_parent_supersedes_children_that_cannot_be_refused() {
    assert_eq!(
        fold(&[unset("a.b"), unset("a.c.d"), set("a-b", 2), set("ab", 3), set("a", 4)]),
        ["1-5: set a 4, set a-b 2, set ab 3"]
    );
    assert_eq!(fold(&[unset("a.b"), unset("a")]), ["1-2: unset a null"]);
}

#[test]
fn what_mongodb_may_have_refused_is_not_superseded() {
    assert_eq!(fold(&[inc("a", 1), set("a", 1)]).len(), 2);
    assert_eq!(fold(&[inc("a", 1), unset("a")]).len(), 2);
    assert_eq!(fold(&[push("a", 1), set("a", 1)]).len(), 2);
    assert_eq!(fold(&[set("a.b", 1), set("a", 1)]).len(), 2);
    assert_eq!(fold(&[set("a.b", 1), unset("a")]).len(), 2);
    assert_eq!(fold(&[inc("a", 1), Make::Delete, Make::Delete]), ["1-1: inc a 1", "2-3: delete"]);
}

#[test]
fn what_depends_on_the_document_opens_a_segment() {
    // A parent whose making shows, and children of what is not known or no object.
    assert_eq!(fold(&[set("a.b", 1), unset("a.b")]).len(), 2);
    assert_eq!(fold(&[set("a.b.c", 1), unset("a.b")]).len(), 2);
    assert_eq!(fold(&[set("a.b", 1), inc("a", 1)]).len(), 2);
    assert_eq!(fold(&[inc("a", 1), set("a.b", 1)]).len(), 2);
    assert_eq!(fold(&[set("a", 1), set("a.b", 1)]).len(), 2);
    assert_eq!(fold(&[set("a", bson::bson!([{"b": 1}])), set("a.0.b", 1)]).len(), 2);
    // All of a change or nothing.
    let both = Make::Ops(vec![(Op::Set, "b", 1.into()), (Op::Set, "a.b", 1.into())]);
    assert_eq!(fold(&[set("a", 1), both]), ["1-1: set a 1", "2-2: set a.b 1, set b 1"]);
}

#[test]
fn operations_reach_into_what_was_set() {
    let object = set("a", bson::bson!({"n": 1, "o": {"x": "y"}, "l": [1]}));
    let into = [
        object.clone(),
        inc("a.n", 2),
        set("a.o.z", 3),
        push("a.l", 2),
        unset("a.o.x"),
        inc("a.p.q", 1),
        unset("a.none.here"),
        inc("a.n", 4),
    ];
    assert_eq!(fold(&into), [r#"1-8: set a {"l":[1,2],"n":7,"o":{"z":3},"p":{"q":1}}"#]);
    assert_eq!(fold(&[object.clone(), inc("a.o", 1)]).len(), 2);
    assert_eq!(fold(&[unset("a"), set("a.b", 1), inc("a.c", 1)]), [r#"1-3: set a {"b":1,"c":1}"#]);
    assert_eq!(fold(&[unset("a.0"), set("a.0.b", 1)]).len(), 2);
}

#[test]
fn what_was_set_is_set_under_its_new_name() {
    let rename = |from, to: &str| Make::Ops(vec![(Op::Rename, from, to.into())]);
    assert_eq!(fold(&[set("a", 1), inc("a", 1), rename("a", "b")]), ["1-3: unset a null, set b 2"]);
    assert_eq!(
        fold(&[set("a", 1), rename("a", "b"), rename("b", "c"), inc("c", 1)]),
        ["1-4: unset a null, unset b null, set c 2"]
    );
    assert_eq!(fold(&[inc("a", 1), rename("a", "b")]).len(), 2);
    assert_eq!(fold(&[set("a", 1), rename("a", "b.0")]).len(), 2);
    assert_eq!(fold(&[set("a", 1), set("b", 1), rename("a", "b")]).len(), 2);
}

#[test]
fn a_log_that_is_cut_gathers() {
    let cut = |value: i32, modifiers: bson::Document| {
        let mut operand = bson::doc! {"$each": [value]};
        operand.extend(modifiers);
        Make::Ops(vec![(Op::PushWith, "l", operand.into())])
    };
    let last = bson::doc! {"$slice": -3};
    assert_eq!(
        fold(&[push("l", 1), cut(2, last.clone()), cut(3, last.clone())]),
        [r#"1-3: push l [1,2,3] {"$slice":-3}"#]
    );
    assert_eq!(fold(&[cut(1, last.clone()), push("l", 2)]).len(), 2);
    assert_eq!(fold(&[cut(1, last), cut(2, bson::doc! {"$slice": 3})]).len(), 2);
    assert_eq!(fold(&[push("l", 1), cut(2, bson::doc! {"$position": 0})]).len(), 2);
}

#[test]
fn replacing_and_deleting_supersede_everything_else() {
    let replace = Make::Replace(bson::doc! {"x": 1});
    assert_eq!(fold(&[set("a", 1), unset("b"), replace.clone()]), [r#"1-3: replace {"x":1}"#]);
    assert_eq!(
        fold(&[inc("a", 1), unset("a.b"), replace.clone()]),
        ["1-1: inc a 1", r#"2-3: replace {"x":1}"#]
    );
    assert_eq!(fold(&[Make::Delete, replace]), [r#"1-2: replace {"x":1}"#]);
}

#[test]
fn a_replaced_or_deleted_document_is_known() {
    let replace = Make::Replace(bson::doc! {"x": 1});
    let on_insert = Make::Ops(vec![(Op::SetOnInsert, "s", 1.into())]);
    assert_eq!(
        fold(&[replace.clone(), inc("x", 1), set("a.b", 1), on_insert.clone(), unset("none")]),
        [r#"1-5: replace {"a":{"b":1},"x":2}"#]
    );
    assert_eq!(fold(&[replace.clone(), push("x", 1)]).len(), 2);
    assert_eq!(fold(&[replace, set("a", 1), Make::Delete]), ["1-3: delete"]);
    assert_eq!(fold(&[Make::Delete, on_insert, inc("n", 2), unset("s")]), [r#"1-4: replace {"n":2}"#]);
    assert_eq!(fold(&[Make::Delete, unset("a")]), ["1-2: replace {}"]);
}

#[test]
fn no_update_grows_beyond_what_mongodb_takes() {
    use crate::change::MAX_UPDATE;
    let text = "x".repeat(1 << 20);
    let (mut body, mut value) = (Vec::new(), Vec::new());
    write_text_value(&mut value, &text);
    let value = ValueRef { kind: ElementType::String, bytes: &value };
    write_field_op(&mut body, FieldOp { op: Op::Push, path: "a", value });
    let entity = EntityRef { collection: CollectionId(0), id: ValueRef::NULL, shard_key: &[] };
    let effect = Effect::Update(FieldOps::new(&body));
    let change = Change { entity, effect, ts: None, traceparent: None };
    let mut pending = PendingUpdate::new(&Placed { offset: 0, hash: 0, change });
    for offset in 1..40 {
        pending.fold(&Placed { offset, hash: 0, change }, usize::MAX);
    }
    let segments: Vec<_> = pending.into_segments().into_iter().collect();
    assert_eq!(segments.len(), 3);
    assert!(segments.iter().all(|segment| segment.bytes() <= MAX_UPDATE));
}

//! Holds the page that tells what folds to what does.

use bson::Bson;
use bson::spec::BinarySubtype;

use super::tests::{Make, fold, replace_at};
use crate::change::Op;

/// A change of one operator on the field `f`, and what a change behind it may have to do with it.
fn kinds() -> Vec<(&'static str, Make)> {
    let op = |op, value: Bson| Make::Ops(vec![(op, "f", value)]);
    vec![
        ("$set number", op(Op::Set, 1.into())),
        ("$set array", op(Op::Set, bson::bson!([1]))),
        ("$set other", op(Op::Set, "x".into())),
        ("$unset", op(Op::Unset, Bson::Null)),
        ("$inc", op(Op::Inc, 1.into())),
        ("$mul", op(Op::Mul, 2.into())),
        ("$min", op(Op::Min, 1.into())),
        ("$max", op(Op::Max, 1.into())),
        ("$push", op(Op::Push, 1.into())),
        ("$push modified", op(Op::PushWith, bson::bson!({"$each": [1], "$slice": 5}))),
        ("$addToSet", op(Op::AddToSet, bson::bson!([1]))),
        ("$pullAll", op(Op::PullAll, bson::bson!([1]))),
        ("$pull", op(Op::Pull, 1.into())),
        ("$pop", op(Op::Pop, 1.into())),
        ("$rename", op(Op::Rename, "g".into())),
        ("$setOnInsert", op(Op::SetOnInsert, 1.into())),
        ("$currentDate", op(Op::CurrentDate, true.into())),
        (
            "yjs",
            op(Op::Yjs, Bson::Binary(bson::Binary { subtype: BinarySubtype::Generic, bytes: vec![0, 0] })),
        ),
        ("merge", op(Op::Merge, bson::bson!({"x": {"y": null}}))),
        ("patch", replace_at("/f", 1)),
        ("replace", Make::Replace(bson::doc! {"f": 1})),
        ("delete", Make::Delete),
    ]
}

/// Why a change opens a segment behind another on the same field.
fn why(first: &str, second: &str) -> &'static str {
    let on_arrays =
        matches!(second, "$push" | "$push modified" | "$addToSet" | "$pullAll" | "$pull" | "$pop");
    let on_numbers = matches!(second, "$inc" | "$mul");
    match (first, second) {
        ("replace" | "delete", "patch") => "work",
        ("patch", "replace" | "delete") => "refusal",
        ("patch", _) | (_, "patch") => "patch",
        ("merge", _) if on_arrays || on_numbers => "wrong",
        ("merge", "$min" | "$max") => "work",
        (_, "merge") => "two",
        ("replace" | "delete", "$currentDate") => "two",
        ("$set number" | "$set array" | "$set other" | "replace", "yjs") => "wrong",
        ("$set number" | "replace", _) if on_arrays => "wrong",
        ("$set other", _) if on_arrays || on_numbers => "wrong",
        ("$set array", _) if on_numbers => "wrong",
        ("$set number" | "$set array" | "$set other" | "$unset" | "replace" | "delete", _) => "work",
        (_, "$set number" | "$set array" | "$set other" | "$unset" | "replace" | "delete") => "refusal",
        _ => "two",
    }
}

/// `docs/coalescing.md` shows what folds; `UPDATE_DOCS=1` writes its table anew.
#[test]
fn the_page_tells_what_folds() {
    let kinds = kinds();
    let mut table = String::from("| first \\ second |");
    for (name, _) in &kinds {
        table += &format!(" {name} |");
    }
    table += &format!("\n| --- |{}\n", " --- |".repeat(kinds.len()));
    for (first, change) in &kinds {
        table += &format!("| **{first}** |");
        for (second, other) in &kinds {
            let folds = fold(&[change.clone(), other.clone()]).len() == 1;
            table += &format!(" {} |", if folds { "folds" } else { why(first, second) });
        }
        table.push('\n');
    }
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/coalescing.md");
    let text = std::fs::read_to_string(page).unwrap();
    let (start, end) = ("<!-- table -->\n", "<!-- end of table -->");
    let (before, rest) = text.split_once(start).unwrap();
    let (shown, after) = rest.split_once(end).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(page, format!("{before}{start}{table}{end}{after}")).unwrap();
    } else {
        assert_eq!(shown, table, "run this test with UPDATE_DOCS=1");
    }
}

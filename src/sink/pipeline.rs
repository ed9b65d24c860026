//! Writes updates as pipelines: merges, JSON Patches, and whatever operators go with them.
//! What merges and patches make depends on what the document holds.

use std::borrow::Cow;

use super::command::Encoder;
use super::expr::{Expr, Literal, call, cond, is, literal, op, refuse, text, with, without};
use super::json_patch;
use crate::change::Op;
use crate::change::path::{DELETED_FIELD, NEW_FIELD};
use crate::coalesce::{ArrayElements, Constant, FieldUpdate, Fields, Merge, Merged, zero};
use crate::raw::{self, Number, ValueRef, begin_document, end_document};
use bson::spec::ElementType;

/// Whether the update asks whether it makes the document. A filter for a field that is null finds documents without it,
/// and what is made where none is found has it.
pub(super) fn asks_whether_new(fields: &Fields) -> bool {
    fields.are_piped()
        && fields.iter().any(|(_, update)| matches!(update, FieldUpdate::Other(Op::SetOnInsert, _)))
}

/// A pipeline's stages.
struct Stages<'o> {
    out: &'o mut Vec<u8>,
    count: usize,
}

impl Stages<'_> {
    fn add(&mut self, stage: Expr<'_>) {
        stage.write(self.out, &self.count.to_string());
        self.count += 1;
    }

    /// A stage that sets fields, if there are any.
    fn set(&mut self, fields: Vec<(Cow<'_, str>, Expr<'_>)>) {
        if !fields.is_empty() {
            self.add(op("$set", Expr::Object(fields)));
        }
    }
}

impl Encoder<'_> {
    /// The pipeline of an update. If the document is a tombstone, it is none afterwards.
    pub(super) fn pipeline(&self, out: &mut Vec<u8>, fields: &Fields, watermark: i64) {
        let pipeline = begin_document(out);
        let mut stages = Stages { out, count: 0 };
        let (mut set, mut gone) = merges(fields, &mut stages);
        for (path, update) in fields.iter().filter(|(path, _)| !path.contains('.')) {
            match update {
                FieldUpdate::Merge(_) => {}
                FieldUpdate::Constant(Constant::Missing) => gone.push(path.into()),
                _ => set.push((path.into(), outcome(&format!("${path}"), path, update))),
            }
        }
        let last = watermark.to_le_bytes();
        if let Some(guard) = self.guard {
            let value = ValueRef { kind: ElementType::Int64, bytes: &last };
            set.push((guard.path().into(), literal(value)));
        }
        stages.set(set);
        for (path, update) in fields.iter() {
            if let Some((top, below)) = path.split_once('.') {
                let below: Vec<&str> = below.split('.').collect();
                stages.set(vec![(top.into(), reach(format!("${top}"), &below, path, update))]);
            }
        }
        gone.push(DELETED_FIELD.into());
        gone.extend(asks_whether_new(fields).then_some(NEW_FIELD.into()));
        stages.add(op("$unset", Expr::Array(gone.into_iter().map(Expr::Text).collect())));
        for step in fields.steps() {
            stages.set(json_patch::step(step));
        }
        end_document(out, pipeline);
    }
}

type Set<'a> = Vec<(Cow<'a, str>, Expr<'a>)>;

/// Has what is merged into be objects, from the top downwards, and answers what is to be set and removed in them then. A
/// path leads to nothing else than a field where all above it are objects.
fn merges<'a>(fields: &'a Fields, stages: &mut Stages<'_>) -> (Set<'a>, Vec<Cow<'a, str>>) {
    let (mut set, mut gone): (Set<'a>, _) = (Vec::new(), Vec::new());
    let mut level: Vec<(String, &Merge)> = Vec::new();
    for (path, update) in fields.iter() {
        if let FieldUpdate::Merge(merge) = update {
            level.push((path.to_owned(), merge));
        }
    }
    while !level.is_empty() {
        let object = |(path, _): &(String, &Merge)| {
            let place = format!("${path}");
            let empty = op("$literal", Expr::Object(Vec::new()));
            (path.clone().into(), cond(is(&place, "object"), text(place.clone()), empty))
        };
        stages.set(level.iter().map(object).collect());
        let mut below = Vec::new();
        for (parent, merge) in level {
            for (key, field) in merge.fields() {
                let path = format!("{parent}.{key}");
                match field {
                    Merged::Constant(Constant::Missing) => gone.push(path.into()),
                    Merged::Constant(known) => {
                        set.push((path.into(), Expr::Literal(Literal::Constant(known))))
                    }
                    Merged::Merge(merge) => below.push((path, &**merge)),
                }
            }
        }
        level = below;
    }
    (set, gone)
}

/// An object, from `place` on, with what an operator makes of a field below it. As operators do, it makes objects that are
/// missing if it makes something, and refuses to go through anything else; but nothing is removed from what is none.
fn reach<'a>(place: String, below: &[&'a str], path: &'a str, update: &'a FieldUpdate) -> Expr<'a> {
    let [key, rest @ ..] = below else { return outcome(&place, path, update) };
    let removes = matches!(update, FieldUpdate::Constant(Constant::Missing));
    let inside = if removes && rest.is_empty() {
        without(&place, *key)
    } else {
        let field = reach(format!("{place}.{key}"), rest, path, update);
        let changed = Expr::Object(vec![((*key).into(), field)]);
        call("$mergeObjects", [text(place.clone()), changed])
    };
    let unchanged = || text(place.clone());
    let otherwise = match update {
        FieldUpdate::Constant(Constant::Missing) => unchanged(),
        FieldUpdate::Other(Op::SetOnInsert, _) => cond(is_new(), inside.clone(), unchanged()),
        FieldUpdate::PullAll(_) => cond(is(&place, "missing"), unchanged(), misfit(path, &place, update)),
        _ => cond(is(&place, "missing"), inside.clone(), misfit(path, &place, update)),
    };
    cond(is(&place, "object"), inside, otherwise)
}

fn is_new<'a>() -> Expr<'a> {
    is(&format!("${NEW_FIELD}"), "null")
}

fn misfit<'a>(path: &str, place: &str, update: &FieldUpdate) -> Expr<'a> {
    // What begins with a `$` would be a path.
    refuse(&format!("the update's {} of {path:?} does not fit", update.operator().unwrap_or_default()), place)
}

/// What an operator makes of what is at a place.
fn outcome<'a>(place: &str, path: &'a str, update: &'a FieldUpdate) -> Expr<'a> {
    let elements = |elements: &'a ArrayElements| Expr::Literal(Literal::ArrayElements(elements));
    // Something of an array, or of nothing.
    let of_array = |array: Expr<'a>, nothing: Expr<'a>| {
        let otherwise = cond(is(place, "missing"), nothing, misfit(path, place, update));
        cond(is(place, "array"), array, otherwise)
    };
    let here = || text(place.to_owned());
    match update {
        FieldUpdate::Constant(known) => Expr::Literal(Literal::Constant(known)),
        FieldUpdate::Push(added) => {
            of_array(call("$concatArrays", [here(), elements(added)]), elements(added))
        }
        FieldUpdate::PushWith(pushed) => {
            let most = raw::find(pushed.1.get().bytes, "$slice").unwrap_or(ValueRef::NULL);
            let cut = |array| call("$slice", [array, literal(most)]);
            let all = call("$concatArrays", [here(), elements(&pushed.0)]);
            of_array(cut(all), cut(elements(&pushed.0)))
        }
        FieldUpdate::AddToSet(new) => {
            let more = call("$concatArrays", [text("$$value"), Expr::Array(vec![text("$$this")])]);
            let union = |array| {
                let unless_there =
                    cond(call("$in", [text("$$this"), text("$$value")]), text("$$value"), more.clone());
                let fields = [("input", elements(new)), ("initialValue", array), ("in", unless_there)];
                op("$reduce", Expr::Object(fields.map(|(name, expr)| (name.into(), expr)).into()))
            };
            of_array(union(here()), union(Expr::Array(Vec::new())))
        }
        FieldUpdate::PullAll(pulled) => {
            let stays = call("$not", [call("$in", [text("$$this"), elements(pulled)])]);
            let rest = Expr::Object(vec![("input".into(), here()), ("cond".into(), stays)]);
            of_array(op("$filter", rest), here())
        }
        FieldUpdate::Other(operator, value) => operated(*operator, value.get(), place, path, update),
        // What is neither, is not in a pipeline.
        FieldUpdate::Merge(_) | FieldUpdate::Yjs(_) | FieldUpdate::RenameTarget => here(),
    }
}

fn operated<'a>(
    operator: Op,
    value: ValueRef<'a>,
    place: &str,
    path: &str,
    update: &'a FieldUpdate,
) -> Expr<'a> {
    let here = || text(place.to_owned());
    let missing = || is(place, "missing");
    match operator {
        Op::Inc => {
            let sum = counted("$add", value, place, path, update);
            cond(missing(), literal(value), sum)
        }
        Op::Mul => {
            let product = counted("$multiply", value, place, path, update);
            let nothing = match zero(value).map(|zero| zero.get().number()) {
                Some(Some(Number::Int32(_))) => Expr::Int(0),
                _ => call("$multiply", [Expr::Int(0), literal(value)]),
            };
            cond(missing(), nothing, product)
        }
        Op::Min | Op::Max => {
            let compare = if operator == Op::Min { "$lt" } else { "$gt" };
            let takes = call("$or", [missing(), call(compare, [literal(value), here()])]);
            cond(takes, literal(value), here())
        }
        Op::SetOnInsert => cond(is_new(), literal(value), here()),
        Op::CurrentDate => text("$$NOW"),
        _ => here(),
    }
}

/// A sum or a product of numbers. Expressions make a double where integers of 64 bits do not do; operators refuse.
fn counted<'a>(
    expression: &'static str,
    value: ValueRef<'a>,
    place: &str,
    path: &str,
    update: &FieldUpdate,
) -> Expr<'a> {
    let here = || text(place.to_owned());
    let result = call(expression, [here(), literal(value)]);
    let result = match value.number() {
        Some(Number::Double(_)) => result,
        _ => {
            let is_double = |what| call("$eq", [op("$type", what), text("double")]);
            let overflows = call("$ne", [is_double(text("$$result")), is_double(here())]);
            with("result", result, cond(overflows, misfit(path, place, update), text("$$result")))
        }
    };
    cond(op("$isNumber", here()), result, misfit(path, place, update))
}

//! Writes the operations of JSON Patches (RFC 6902) as stages of a pipeline.
//! Each does what the RFC says to the document that it meets, or has MongoDB refuse the update.

use std::borrow::Cow;

use super::expr::{Expr, call, cond, is, literal, op, refuse, text, with, without};
use crate::change::pointer;
use crate::raw::{self, ValueRef};

/// What is done to the member or element that a pointer leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Add,
    Replace,
    Remove,
    /// Nothing: it is only looked at.
    Get,
}

/// The variable with the value that is added.
const VALUE: &str = "$$value";

/// Servers take no more.
const ALL: i32 = i32::MAX;

/// What an operation sets of the document's own fields. It was checked when it was decoded.
pub(super) fn step(step: ValueRef<'_>) -> Vec<(Cow<'_, str>, Expr<'_>)> {
    let member = |name| raw::find(step.bytes, name);
    let pointer = |name| member(name).and_then(ValueRef::text).unwrap_or_default();
    let (path, from) = (pointer("path"), pointer("from"));
    let name = pointer("op");
    let (target, source) = (Way::new(name, path, Act::Add), Way::new(name, from, Act::Get));
    match name {
        "add" | "replace" => {
            let act = if name == "add" { Act::Add } else { Act::Replace };
            let way = Way { act, ..target };
            let value = literal(member("value").unwrap_or(ValueRef::NULL));
            vec![(way.field.clone(), with("value", value, way.at_top(way.top())))]
        }
        "remove" => {
            let way = Way { act: Act::Remove, ..target };
            vec![(way.field.clone(), way.at_top(way.top()))]
        }
        "copy" => vec![(
            target.field.clone(),
            with("value", source.at_top(source.top()), target.at_top(target.top())),
        )],
        // What is moved is gone before it is put elsewhere.
        "move" => {
            let rest = Way::new(name, from, Act::Remove);
            let value = source.at_top(source.top());
            if rest.field == target.field {
                let added = with("rest", rest.at_top(rest.top()), target.at_top("$$rest".into()));
                return vec![(target.field.clone(), with("value", value, added))];
            }
            let removed = rest.at_top(rest.top());
            vec![
                (target.field.clone(), with("value", value, target.at_top(target.top()))),
                (rest.field.clone(), removed),
            ]
        }
        _ => Vec::new(),
    }
}

/// The way that a pointer leads, and what is done at its end.
struct Way<'a> {
    act: Act,
    /// The document's own field that it begins with.
    field: Cow<'a, str>,
    below: Vec<Cow<'a, str>>,
    /// What to say where it cannot be gone.
    why: String,
}

impl<'a> Way<'a> {
    fn new(op: &str, pointer: &'a str, act: Act) -> Self {
        let mut tokens = pointer::tokens(pointer);
        let field = tokens.next().unwrap_or_default();
        let shown: String = pointer.chars().take(200).collect();
        let why = format!("the patch's {op:?} does not fit the document at {shown:?}");
        Way { act, field, below: tokens.collect(), why }
    }

    fn top(&self) -> String {
        format!("${}", self.field)
    }

    /// What becomes of the document's own field; `place` is what it holds.
    fn at_top(&self, place: String) -> Expr<'a> {
        if !self.below.is_empty() {
            return self.go(place, 0);
        }
        let here = match self.act {
            Act::Add => return text(VALUE),
            Act::Replace => text(VALUE),
            Act::Remove => text("$$REMOVE"),
            Act::Get => text(place.clone()),
        };
        cond(is(&place, "missing"), refuse(&self.why, &place), here)
    }

    /// What becomes of what is at a place, if the token of that number leads on from there.
    fn go(&self, place: String, at: usize) -> Expr<'a> {
        let token = &self.below[at];
        let is_last = at + 1 == self.below.len();
        let in_object = if is_last { self.member(&place, token) } else { self.through_member(&place, at) };
        let in_array = match (pointer::index(token), is_last) {
            (Some(index), true) => self.element(&place, index),
            (Some(index), false) => self.through_element(&place, index, at),
            (None, true) if token == "-" && self.act == Act::Add => {
                call("$concatArrays", [text(place.clone()), Expr::Array(vec![text(VALUE)])])
            }
            _ => refuse(&self.why, &place),
        };
        let otherwise = cond(is(&place, "array"), in_array, refuse(&self.why, &place));
        cond(is(&place, "object"), in_object, otherwise)
    }

    fn member(&self, object: &str, key: &Cow<'a, str>) -> Expr<'a> {
        let field = format!("{object}.{key}");
        let with_value = || {
            call("$mergeObjects", [text(object.to_owned()), Expr::Object(vec![(key.clone(), text(VALUE))])])
        };
        let done = match self.act {
            Act::Add => return with_value(),
            Act::Replace => with_value(),
            Act::Remove => without(object, key.clone()),
            Act::Get => text(field.clone()),
        };
        cond(lacks(object, key), refuse(&self.why, object), done)
    }

    fn element(&self, array: &str, index: i32) -> Expr<'a> {
        let most = if self.act == Act::Add { "$gte" } else { "$gt" };
        let is_there = call(most, [op("$size", text(array.to_owned())), Expr::Int(index)]);
        let one = || Expr::Array(vec![text(VALUE)]);
        let done = match self.act {
            Act::Add => spliced(array, index, Some(one()), index),
            Act::Replace => spliced(array, index, Some(one()), index + 1),
            Act::Remove => spliced(array, index, None, index + 1),
            Act::Get => call("$arrayElemAt", [text(array.to_owned()), Expr::Int(index)]),
        };
        cond(is_there, done, refuse(&self.why, array))
    }

    fn through_member(&self, object: &str, at: usize) -> Expr<'a> {
        let key = &self.below[at];
        let inner = self.go(format!("{object}.{key}"), at + 1);
        match self.act {
            Act::Get => inner,
            _ => call("$mergeObjects", [text(object.to_owned()), Expr::Object(vec![(key.clone(), inner)])]),
        }
    }

    fn through_element(&self, array: &str, index: i32, at: usize) -> Expr<'a> {
        let is_there = call("$gt", [op("$size", text(array.to_owned())), Expr::Int(index)]);
        let name = format!("at{at}");
        let inner = self.go(format!("$${name}"), at + 1);
        let changed = match self.act {
            Act::Get => inner,
            _ => spliced(array, index, Some(Expr::Array(vec![inner])), index + 1),
        };
        let element = call("$arrayElemAt", [text(array.to_owned()), Expr::Int(index)]);
        cond(is_there, with(name, element, changed), refuse(&self.why, array))
    }
}

/// Whether an object has no such member.
fn lacks<'a>(object: &str, key: &Cow<'a, str>) -> Expr<'a> {
    if !object.starts_with("$$") {
        return is(&format!("{object}.{key}"), "missing");
    }
    // Below a variable some servers take what is missing for null.
    let keys = Expr::Object(vec![
        ("input".into(), op("$objectToArray", text(object.to_owned()))),
        ("in".into(), text("$$this.k")),
    ]);
    call("$not", [call("$in", [op("$literal", text(key.clone())), op("$map", keys)])])
}

/// An array up to an index, with something put behind it, and what follows from another index on.
fn spliced<'a>(array: &str, upto: i32, between: Option<Expr<'a>>, from: i32) -> Expr<'a> {
    let array = || text(array.to_owned());
    // A slice of none is an error.
    let before = (upto > 0).then(|| call("$slice", [array(), Expr::Int(upto)]));
    let after = call("$slice", [array(), Expr::Int(from), Expr::Int(ALL)]);
    op("$concatArrays", Expr::Array(before.into_iter().chain(between).chain([after]).collect()))
}

//! Writes expressions of update pipelines.

use std::borrow::Cow;

use bson::spec::ElementType;

use crate::coalesce::{ArrayElements, Constant};
use crate::raw::{self, ValueRef, begin_document, end_document};

/// An expression.
#[derive(Debug, Clone)]
pub(super) enum Expr<'a> {
    /// A field's path or a variable, with its `$`, or a text that does not begin with one.
    Text(Cow<'a, str>),
    /// An integer.
    Int(i32),
    /// A value that is taken as it is.
    Literal(Literal<'a>),
    /// An operator with its operand, or an object of expressions.
    Object(Vec<(Cow<'a, str>, Expr<'a>)>),
    /// An array of expressions.
    Array(Vec<Expr<'a>>),
}

/// Where a literal comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Literal<'a> {
    Value(ValueRef<'a>),
    Constant(&'a Constant),
    ArrayElements(&'a ArrayElements),
}

impl Expr<'_> {
    /// Writes it as an element.
    pub(super) fn write(&self, out: &mut Vec<u8>, key: &str) {
        let inside = |out: &mut Vec<u8>, kind, write: &dyn Fn(&mut Vec<u8>)| {
            raw::write_key(out, kind, key);
            let start = begin_document(out);
            write(out);
            end_document(out, start);
        };
        match self {
            Expr::Text(text) => raw::write_text(out, key, text),
            Expr::Int(n) => raw::write_i32(out, key, *n),
            Expr::Literal(literal) => {
                inside(out, ElementType::EmbeddedDocument, &|out| literal.write(out, "$literal"));
            }
            Expr::Object(fields) => inside(out, ElementType::EmbeddedDocument, &|out| {
                fields.iter().for_each(|(key, expr)| expr.write(out, key));
            }),
            Expr::Array(elements) => inside(out, ElementType::Array, &|out| {
                let places = elements.iter().enumerate();
                places.for_each(|(at, element)| element.write(out, &at.to_string()));
            }),
        }
    }
}

impl Literal<'_> {
    fn write(self, out: &mut Vec<u8>, key: &str) {
        match self {
            Literal::Value(value) => raw::write(out, key, value),
            Literal::Constant(known) => known.write(out, key),
            Literal::ArrayElements(elements) => {
                raw::write_key(out, ElementType::Array, key);
                elements.write(out);
            }
        }
    }
}

/// A field's path or a variable, with its `$`.
pub(super) fn text<'a>(text: impl Into<Cow<'a, str>>) -> Expr<'a> {
    Expr::Text(text.into())
}

/// A value as it is.
pub(super) fn literal(value: ValueRef<'_>) -> Expr<'_> {
    Expr::Literal(Literal::Value(value))
}

/// An operator with its operand.
pub(super) fn op<'a>(operator: &'static str, operand: Expr<'a>) -> Expr<'a> {
    Expr::Object(vec![(operator.into(), operand)])
}

/// An operator with its operands.
pub(super) fn call<'a, const N: usize>(operator: &'static str, operands: [Expr<'a>; N]) -> Expr<'a> {
    op(operator, Expr::Array(operands.into()))
}

/// One of two.
pub(super) fn cond<'a>(test: Expr<'a>, then: Expr<'a>, otherwise: Expr<'a>) -> Expr<'a> {
    call("$cond", [test, then, otherwise])
}

/// `in` with a variable.
pub(super) fn with<'a>(name: impl Into<Cow<'a, str>>, value: Expr<'a>, inner: Expr<'a>) -> Expr<'a> {
    let vars = Expr::Object(vec![(name.into(), value)]);
    op("$let", Expr::Object(vec![("vars".into(), vars), ("in".into(), inner)]))
}

/// Whether what is there is of a type, or `missing`.
pub(super) fn is<'a>(place: &str, kind: &'static str) -> Expr<'a> {
    call("$eq", [op("$type", text(place.to_owned())), text(kind)])
}

/// What is there without one of its fields.
pub(super) fn without<'a>(object: &str, field: impl Into<Cow<'a, str>>) -> Expr<'a> {
    let fields = op("$objectToArray", text(object.to_owned()));
    // A field's name may look like an expression.
    let differs = call("$ne", [text("$$this.k"), op("$literal", text(field))]);
    let rest = Expr::Object(vec![("input".into(), fields), ("cond".into(), differs)]);
    op("$arrayToObject", op("$filter", rest))
}

/// Has MongoDB refuse the update, with this and the type of what is there in its message: no text is a number. A constant
/// would be worked out, and refused, before anybody has asked for it.
pub(super) fn refuse<'a>(why: &str, place: &str) -> Expr<'a> {
    let met = op("$type", text(place.to_owned()));
    op("$toInt", call("$concat", [text(format!("{why}; it meets: ")), met]))
}

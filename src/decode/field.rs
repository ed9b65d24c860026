//! Writes the operations of a route's fields.

use bson::spec::ElementType;

use super::Ops;
use super::convert::{self, base64};
use super::extract::Extracted;
use super::paths::Paths;
use super::source::{At, ValueSource};
use super::transcode::KeyRule;
use crate::change::{FieldOp, FieldTemplate, Op};
use crate::config::{self, Amount, YjsEncoding};
use crate::dead_letter::{Reason, Rejection};
use crate::raw::{self, Number, Value, ValueRef};
use crate::yjs;

/// An operator on one field.
#[derive(Debug)]
pub(super) enum Field {
    /// The same for every event: the operation, encoded.
    Fixed(Vec<u8>),
    Sourced {
        field: FieldTemplate,
        source: ValueSource,
        operand: Operand,
    },
}

/// What an operator makes of its source's value.
#[derive(Debug)]
pub(super) enum Operand {
    /// The operand is the value.
    Value,
    /// The operand is an array of the value alone.
    ArrayOf,
    /// The operand is the value, which must be an array.
    Array,
    /// The operand of a `$push` with these modifiers, a document; of the value, or of its elements.
    Modified { modifiers: Value, each: bool },
}

impl Field {
    fn new(op: Op, path: &str, source: ValueSource, operand: Operand) -> Self {
        let is_fixed = matches!(source, ValueSource::Fixed(_));
        let field = Field::Sourced { field: FieldTemplate::new(op, path), source, operand };
        let mut ops = Ops::default();
        // What can never be written is refused when an event comes.
        match is_fixed && field.write(&Extracted::default(), &mut ops).is_ok() {
            true => Field::Fixed(ops.bytes),
            false => field,
        }
    }

    /// Writes the operation, if the event has its operand.
    #[inline(always)]
    pub(super) fn write(&self, extracted: &Extracted, ops: &mut Ops) -> Result<(), Rejection> {
        match self {
            Field::Fixed(op) => {
                ops.add_encoded(op);
                Ok(())
            }
            Field::Sourced { field, source: ValueSource::Event(at), operand: Operand::Value } => {
                at.get(extracted).map_or(Ok(()), |value| ops.add_with(field, value))
            }
            Field::Sourced { field, source, operand } => write_made(field, source, operand, extracted, ops),
        }
    }
}

/// Writes an operation whose operand is not just the event's value.
fn write_made(
    field: &FieldTemplate,
    source: &ValueSource,
    operand: &Operand,
    extracted: &Extracted,
    ops: &mut Ops,
) -> Result<(), Rejection> {
    source.with(extracted, |value| {
        let Some(value) = value else { return Ok(()) };
        let needs_array = matches!(operand, Operand::Array | Operand::Modified { each: true, .. });
        if needs_array && value.kind != ElementType::Array {
            let text = format!("what is written to {:?} must be an array", field.path);
            return Err(Rejection::new(Reason::BadEvent, text));
        }
        let made = match operand {
            Operand::Value | Operand::Array => None,
            Operand::ArrayOf => Some(raw::array_of(value)),
            Operand::Modified { modifiers, each } => Some(modified(value, *each, modifiers.get())),
        };
        ops.add_with(field, made.as_ref().map_or(value, Value::get))
    })
}

/// `{$each: [...], modifiers}`
fn modified(value: ValueRef<'_>, each: bool, modifiers: ValueRef<'_>) -> Value {
    let mut out = Vec::new();
    let start = raw::begin_document(&mut out);
    match each {
        true => raw::write(&mut out, "$each", value),
        false => raw::write(&mut out, "$each", raw::array_of(value).get()),
    }
    raw::elements(modifiers.bytes).for_each(|(key, value)| raw::write(&mut out, key, value));
    raw::end_document(&mut out, start);
    ValueRef { kind: ElementType::EmbeddedDocument, bytes: &out }.into()
}

/// Compiles a route's operators.
pub(super) fn fields(route: &config::Route, paths: &mut Paths) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    let mut add = |op, path: &String, source, operand| {
        fields.push(Field::new(op, path, source, operand));
    };
    let fixed = |value: Value| ValueSource::Fixed(value);
    let [(_, set), others @ ..] = route.sourced_fields();
    for (path, source) in set {
        add(Op::Set, path, ValueSource::new(source, paths)?, Operand::Value);
    }
    for path in &route.unset {
        add(Op::Unset, path, fixed(ValueRef::NULL.into()), Operand::Value);
    }
    for (path, amount) in &route.inc {
        let source = match amount {
            Amount::Int(n) => fixed(Number::int(*n).into()),
            Amount::Float(n) => fixed(Number::Double(*n).into()),
            Amount::From(source) => ValueSource::new(source, paths)?,
        };
        add(Op::Inc, path, source, Operand::Value);
    }
    for (key, sourced) in others {
        for (path, source) in sourced {
            let (op, operand) = sourced_operator(key, source)?;
            add(op, path, ValueSource::new(source, paths)?, operand);
        }
    }
    for (path, end) in &route.pop {
        add(Op::Pop, path, fixed(Number::int(*end).into()), Operand::Value);
    }
    for (path, name) in &route.rename {
        add(Op::Rename, path, fixed(convert::text_value(name)), Operand::Value);
    }
    for path in &route.current_date {
        add(
            Op::CurrentDate,
            path,
            convert::literal(&toml::Value::Boolean(true)).ok().map(fixed)?,
            Operand::Value,
        );
    }
    Some(fields)
}

fn sourced_operator(key: &str, source: &config::Source) -> Option<(Op, Operand)> {
    let table = match source {
        config::Source::Table(table) => Some(table),
        config::Source::Path(_) => None,
    };
    let each = table.is_some_and(|table| table.each);
    Some(match key {
        "push" => {
            let modifiers: toml::Table = table
                .map(|table| table.push_modifiers())
                .unwrap_or_default()
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            match (modifiers.is_empty(), each) {
                (true, false) => (Op::Push, Operand::Value),
                (true, true) => (Op::PushEach, Operand::Array),
                (false, each) => {
                    let modifiers = convert::modifiers(modifiers)?;
                    (Op::PushWith, Operand::Modified { modifiers, each })
                }
            }
        }
        "add_to_set" if each => (Op::AddToSet, Operand::Array),
        "add_to_set" => (Op::AddToSet, Operand::ArrayOf),
        "pull" => (Op::PullAll, Operand::ArrayOf),
        "pull_all" => (Op::PullAll, Operand::Array),
        "min" => (Op::Min, Operand::Value),
        "max" => (Op::Max, Operand::Value),
        "mul" => (Op::Mul, Operand::Value),
        "set_on_insert" => (Op::SetOnInsert, Operand::Value),
        _ => return None,
    })
}

/// A route's Yjs document.
#[derive(Debug)]
pub(super) struct Yjs {
    update: At,
    encoding: YjsEncoding,
    field: String,
    max_bytes: usize,
}

impl Yjs {
    pub(super) fn new(yjs: &config::Yjs, paths: &mut Paths) -> Self {
        Yjs {
            update: At::new(paths, &yjs.update, KeyRule::Data),
            encoding: yjs.encoding,
            field: yjs.field.clone(),
            max_bytes: usize::try_from(yjs.max_bytes.as_u64()).unwrap_or(usize::MAX),
        }
    }

    /// Writes the update, if the event has one.
    pub(super) fn write(&self, extracted: &Extracted, ops: &mut Ops) -> Result<(), Rejection> {
        let Some(value) = self.update.get(extracted) else { return Ok(()) };
        let path = &self.update.path;
        let update = match self.encoding {
            YjsEncoding::Base64 => value.text().and_then(base64),
            YjsEncoding::Bytes => bytes(value),
        };
        let update = update.ok_or_else(|| {
            let form = match self.encoding {
                YjsEncoding::Base64 => "base64",
                YjsEncoding::Bytes => "an array of bytes",
            };
            Rejection::new(Reason::BadEvent, format!("the Yjs update at {path:?} is not {form}"))
        })?;
        if update.len() > self.max_bytes {
            let text = format!(
                "the Yjs update at {path:?} has {} bytes, more than yjs.max_bytes, {}",
                update.len(),
                self.max_bytes
            );
            return Err(Rejection::new(Reason::TooLarge, text));
        }
        yjs::check(&update).map_err(|what| {
            Rejection::new(Reason::BadEvent, format!("what is at {path:?} is no Yjs update: {what}"))
        })?;
        ops.add(FieldOp { op: Op::Yjs, path: &self.field, value: Value::binary(&update).get() })
    }
}

fn bytes(value: ValueRef<'_>) -> Option<Vec<u8>> {
    if value.kind != ElementType::Array {
        return None;
    }
    raw::elements(value.bytes)
        .map(|(_, byte)| match byte.number()? {
            Number::Int32(byte) => u8::try_from(byte).ok(),
            _ => None,
        })
        .collect()
}

//! Reads MongoDB's update operators out of native events.

use bson::spec::ElementType;

use super::Ops;
use super::{path, plain_data};
use crate::change::{FieldOp, Op};
use crate::dead_letter::{Reason, Rejection};
use crate::raw::{self, Number, ValueRef};

fn bad(text: String) -> Rejection {
    Rejection::new(Reason::BadEvent, text)
}

/// Reads `{"$set": {...}, "$inc": {...}}`.
pub(super) fn read_update(update: ValueRef<'_>, ops: &mut Ops) -> Result<(), Rejection> {
    if update.kind != ElementType::EmbeddedDocument {
        return Err(bad("\"update\" must be an object".into()));
    }
    let before = ops.len();
    for (operator, operands) in raw::elements(update.bytes) {
        if operands.kind != ElementType::EmbeddedDocument {
            return Err(bad(format!("{operator:?} must be an object of paths")));
        }
        for (path, operand) in raw::elements(operands.bytes) {
            read_operand(operator, path, operand, ops)?;
        }
        if !Op::OPERATORS.contains(&operator) {
            return Err(bad(format!("the operator {operator:?} is not supported")));
        }
    }
    if ops.len() == before {
        return Err(bad("\"update\" has nothing to write".into()));
    }
    Ok(())
}

fn read_operand(operator: &str, path: &str, value: ValueRef<'_>, ops: &mut Ops) -> Result<(), Rejection> {
    let op = match operator {
        "$set" => Op::Set,
        "$unset" => return ops.add_from_event(FieldOp { op: Op::Unset, path, value: ValueRef::NULL }),
        "$inc" => Op::Inc,
        "$push" => return read_push(path, value, ops),
        "$addToSet" => return read_add_to_set(path, value, ops),
        "$pullAll" => {
            array(operator, value)?;
            Op::PullAll
        }
        "$pull" => return read_pull(path, value, ops),
        "$pop" => {
            if !matches!(integer(value), Some(1 | -1)) {
                return Err(bad("\"$pop\" takes 1 or -1".into()));
            }
            Op::Pop
        }
        "$mul" => Op::Mul,
        "$min" => Op::Min,
        "$max" => Op::Max,
        "$rename" => {
            path::check(value.text().ok_or_else(|| bad("\"$rename\" takes a path".into()))?)?;
            Op::Rename
        }
        "$setOnInsert" => Op::SetOnInsert,
        "$currentDate" => {
            check_current_date(value)?;
            return ops.add_from_event(FieldOp { op: Op::CurrentDate, path, value });
        }
        _ => return Err(bad(format!("the operator {operator:?} is not supported"))),
    };
    plain_data(value)?;
    ops.add_from_event(FieldOp { op, path, value })
}

/// Reads a `$push` operand: one element, or `{"$each": [...]}` with modifiers.
fn read_push(path: &str, value: ValueRef<'_>, ops: &mut Ops) -> Result<(), Rejection> {
    let Some(each) = each(value) else {
        plain_data(value)?;
        return ops.add_from_event(FieldOp { op: Op::Push, path, value });
    };
    array("$each", each)?;
    let mut modified = false;
    for (modifier, operand) in raw::elements(value.bytes) {
        match modifier {
            "$each" => plain_data(operand)?,
            "$position" | "$slice" if integer(operand).is_some() => modified = true,
            "$sort" if is_sort(operand) => modified = true,
            _ => return Err(bad(format!("$push with this {modifier:?} is not supported"))),
        }
    }
    let (op, value) = if modified { (Op::PushWith, value) } else { (Op::PushEach, each) };
    ops.add_from_event(FieldOp { op, path, value })
}

/// Reads an `$addToSet` operand: one element, or `{"$each": [...]}`.
fn read_add_to_set(path: &str, value: ValueRef<'_>, ops: &mut Ops) -> Result<(), Rejection> {
    if let Some(each) = each(value) {
        array("$each", each)?;
        if raw::elements(value.bytes).count() > 1 {
            return Err(bad("$addToSet takes no modifiers".into()));
        }
        plain_data(each)?;
        return ops.add_from_event(FieldOp { op: Op::AddToSet, path, value: each });
    }
    plain_data(value)?;
    ops.add_from_event(FieldOp { op: Op::AddToSet, path, value: raw::array_of(value).get() })
}

/// Reads a `$pull` operand. One that is a plain value removes what `$pullAll` would, which folds.
fn read_pull(path: &str, value: ValueRef<'_>, ops: &mut Ops) -> Result<(), Rejection> {
    if matches!(value.kind, ElementType::String | ElementType::Boolean) || value.number().is_some() {
        return ops.add_from_event(FieldOp { op: Op::PullAll, path, value: raw::array_of(value).get() });
    }
    check_condition(value)?;
    ops.add_from_event(FieldOp { op: Op::Pull, path, value })
}

fn each(value: ValueRef<'_>) -> Option<ValueRef<'_>> {
    (value.kind == ElementType::EmbeddedDocument).then(|| raw::find(value.bytes, "$each")).flatten()
}

fn array(operator: &str, value: ValueRef<'_>) -> Result<(), Rejection> {
    if value.kind == ElementType::Array {
        return Ok(());
    }
    Err(bad(format!("{operator:?} must be an array")))
}

/// `$pull` takes plain data, or comparisons with plain data. Events get no further into the query language.
fn check_condition(value: ValueRef<'_>) -> Result<(), Rejection> {
    const COMPARISONS: [&str; 8] = ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin"];
    if value.kind != ElementType::EmbeddedDocument {
        return plain_data(value);
    }
    for (key, operand) in raw::elements(value.bytes) {
        if key.starts_with('$') && !COMPARISONS.contains(&key) {
            return Err(bad(format!("$pull with {key:?} is not supported")));
        }
        if matches!(key, "$in" | "$nin") {
            array(key, operand)?;
        }
        plain_data(operand)?;
    }
    Ok(())
}

fn check_current_date(value: ValueRef<'_>) -> Result<(), Rejection> {
    let kind =
        (value.kind == ElementType::EmbeddedDocument).then(|| raw::find(value.bytes, "$type")).flatten();
    match (value.kind, kind.and_then(ValueRef::text)) {
        (ElementType::Boolean, _) => Ok(()),
        (_, Some("date" | "timestamp")) if raw::elements(value.bytes).count() == 1 => Ok(()),
        _ => Err(bad("\"$currentDate\" takes true, or \"$type\": \"date\" or \"timestamp\"".into())),
    }
}

/// 1 or -1, or an object of paths to them.
fn is_sort(value: ValueRef<'_>) -> bool {
    let direction = |value| matches!(integer(value), Some(1 | -1));
    match value.kind {
        ElementType::EmbeddedDocument => {
            let mut paths = raw::elements(value.bytes).peekable();
            paths.peek().is_some() && paths.all(|(path, value)| path::check(path).is_ok() && direction(value))
        }
        _ => direction(value),
    }
}

fn integer(value: ValueRef<'_>) -> Option<i64> {
    match value.number()? {
        Number::Int32(n) => Some(n.into()),
        Number::Int64(n) => Some(n),
        Number::Double(_) => None,
    }
}

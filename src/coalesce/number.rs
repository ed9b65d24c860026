//! Computes what MongoDB's arithmetic and comparing operators make of two operands.
//!
//! Every function answers None where MongoDB would refuse, or where the answer is not known for sure.

use bson::spec::ElementType;

use crate::change::{FieldOp, Op};
use crate::raw::{
    Number::{self, Double, Int32, Int64},
    Value, ValueRef,
};

/// What an operator makes of a known value.
pub(super) fn result(value: ValueRef<'_>, op: FieldOp<'_>) -> Option<Value> {
    match op.op {
        Op::Inc => sum(value.number()?, op.value.number()?).map(Value::from),
        Op::Mul => product(value.number()?, op.value.number()?).map(Value::from),
        Op::Min | Op::Max => extreme(value, op).map(Value::from),
        _ => None,
    }
}

/// The operand that does at once what two of one operator do one after the other.
pub(super) fn combined(first: ValueRef<'_>, op: FieldOp<'_>) -> Option<Value> {
    match op.op {
        Op::Inc => sum_of_incs(first.number()?, op.value.number()?).map(Value::from),
        Op::Mul => product_of_muls(first.number()?, op.value.number()?).map(Value::from),
        Op::Min | Op::Max => extreme(first, op).map(Value::from),
        _ => None,
    }
}

/// What `$mul` makes of a field that is not there: a zero of the operand's type.
pub(crate) fn zero(factor: ValueRef<'_>) -> Option<Value> {
    product(Int32(0), factor.number()?).map(Value::from)
}

/// The less or the greater of two numbers or dates. MongoDB keeps the first of equal ones. Texts compare
/// by the collection's collation, which is not known here.
fn extreme<'a>(first: ValueRef<'a>, op: FieldOp<'a>) -> Option<ValueRef<'a>> {
    let second = op.value;
    let order = match (first.kind, second.kind) {
        (ElementType::DateTime, ElementType::DateTime) => milliseconds(first)?.cmp(&milliseconds(second)?),
        _ => match (first.number()?, second.number()?) {
            (Double(a), Double(b)) => a.partial_cmp(&b)?,
            (Double(a), b) => a.partial_cmp(&exact(b)?)?,
            (a, Double(b)) => exact(a)?.partial_cmp(&b)?,
            (a, b) => integer(a)?.cmp(&integer(b)?),
        },
    };
    let takes = if op.op == Op::Min { order.is_gt() } else { order.is_lt() };
    Some(if takes { second } else { first })
}

fn milliseconds(date: ValueRef<'_>) -> Option<i64> {
    date.bytes.try_into().ok().map(i64::from_le_bytes)
}

fn integer(number: Number) -> Option<i64> {
    match number {
        Int32(n) => Some(n.into()),
        Int64(n) => Some(n),
        Double(_) => None,
    }
}

/// An integer as the double that is equal to it.
fn exact(number: Number) -> Option<f64> {
    const LARGEST: i64 = 1 << 53;
    integer(number).filter(|n| (-LARGEST..=LARGEST).contains(n)).map(|n| n as f64)
}

fn double(number: Number) -> f64 {
    match number {
        Int32(n) => n.into(),
        Int64(n) => n as f64,
        Double(n) => n,
    }
}

/// What `$inc` makes of a number that it finds.
fn sum(value: Number, amount: Number) -> Option<Number> {
    Some(match (value, amount) {
        (Int32(a), Int32(b)) => a.checked_add(b).map_or(Int64(i64::from(a) + i64::from(b)), Int32),
        (Int32(a), Int64(b)) | (Int64(b), Int32(a)) => Int64(b.checked_add(a.into())?),
        (Int64(a), Int64(b)) => Int64(a.checked_add(b)?),
        (a, b) => Double(double(a) + double(b)),
    })
}

/// What `$mul` makes of a number that it finds.
fn product(value: Number, factor: Number) -> Option<Number> {
    Some(match (value, factor) {
        (Int32(a), Int32(b)) => a.checked_mul(b).map_or(Int64(i64::from(a) * i64::from(b)), Int32),
        (Int32(a), Int64(b)) | (Int64(b), Int32(a)) => Int64(b.checked_mul(a.into())?),
        (Int64(a), Int64(b)) => Int64(a.checked_mul(b)?),
        (a, b) => Double(double(a) * double(b)),
    })
}

/// Doubles round, so their order shows: those are not summed.
fn sum_of_incs(first: Number, second: Number) -> Option<Number> {
    Some(match (first, second) {
        (Int32(a), Int32(b)) => Int32(a.checked_add(b)?),
        (Int32(a), Int64(b)) | (Int64(b), Int32(a)) => Int64(b.checked_add(a.into())?),
        (Int64(a), Int64(b)) => Int64(a.checked_add(b)?),
        _ => return None,
    })
}

/// A zero would hide that the other factor overflows.
fn product_of_muls(first: Number, second: Number) -> Option<Number> {
    let (a, b) = (integer(first)?, integer(second)?);
    (a != 0 && b != 0).then(|| a.checked_mul(b)).flatten().map(Number::int)
}

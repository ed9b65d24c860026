//! Makes a program of a write: what a script is to do to the hot state.
//!
//! Only what is the same whatever the document held, or can be seen from the hash, is applied. Everything else deletes
//! the hash: it is filled again from MongoDB when somebody wants it.

use super::flat::{self, Leaf};
use super::json;
use crate::change::Op;
use crate::coalesce::{Constant, FieldUpdate, Merge, Merged, Update};
use crate::raw::{self, Number};

/// More fields than these, or bytes, are not sent to Redis, which does nothing else meanwhile.
const MOST_FIELDS: usize = 10_000;
const MOST_BYTES: usize = 1 << 20;
/// What an argument takes besides itself, about. Redis takes no more than a million of them at once.
const ARG_OVERHEAD: usize = 16;

/// Whether the update can be applied to hot states at all. Deletions cannot: there is nothing to keep.
#[must_use]
pub(crate) fn is_exact(update: &Update) -> bool {
    match update {
        Update::Delete => false,
        Update::Replace(_) => true,
        // What a JSON Patch makes of arrays is not followed.
        Update::Fields(fields) if fields.steps().next().is_some() => false,
        Update::Fields(fields) => fields.iter().all(|(_, field)| match field {
            FieldUpdate::Constant(_) | FieldUpdate::Push(_) | FieldUpdate::Merge(_) => true,
            FieldUpdate::Other(Op::Inc, by) => {
                matches!(by.get().number(), Some(Number::Int32(_) | Number::Int64(_)))
            }
            // What has a hot state is not being made.
            FieldUpdate::Other(Op::SetOnInsert, _) => true,
            _ => false,
        }),
    }
}

/// The script's arguments for one write: one operation behind the other.
///
/// | Operation | Arguments |
/// | --- | --- |
/// | `S` | path, number of leaves, and for each its path and its value: all that is at the path now |
/// | `U` | path: nothing is there any more |
/// | `I` | path, integer to add |
/// | `P` | path, elements to append, without brackets around them |
/// | `M` | path: what is there is an object now, an empty one if it was none |
/// | `R` | number of leaves, and each as above: all of the document |
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Program {
    args: Vec<String>,
    bytes: usize,
}

impl Program {
    /// None if the write cannot be applied exactly, or is too large.
    #[must_use]
    pub(crate) fn new(update: &Update) -> Option<Self> {
        if !is_exact(update) {
            return None;
        }
        let mut program = Program::default();
        match update {
            Update::Delete => return None,
            Update::Replace(document) => {
                let mut out = Vec::new();
                document.write(&mut out, "");
                let (_, document) = raw::bare_elements(&out).next()?;
                program.add(["R"])?;
                program.leaves(flat::document(document)?)?;
            }
            Update::Fields(fields) => {
                for (path, field) in fields.iter() {
                    program.field(path, field)?;
                }
            }
        }
        Some(program)
    }

    fn field(&mut self, path: &str, field: &FieldUpdate) -> Option<()> {
        match field {
            FieldUpdate::Constant(known) => self.known(path, known),
            FieldUpdate::Merge(merge) => self.merge(path, merge),
            FieldUpdate::Push(elements) => self.add(["P", path, &json::elements(elements.iter())]),
            FieldUpdate::Other(Op::Inc, by) => self.add(["I", path, &json::relaxed(by.get())]),
            _ => Some(()),
        }
    }

    fn known(&mut self, path: &str, known: &Constant) -> Option<()> {
        if *known == Constant::Missing {
            return self.add(["U", path]);
        }
        let mut out = Vec::new();
        known.write(&mut out, "");
        let (_, value) = raw::bare_elements(&out).next()?;
        self.add(["S", path])?;
        self.leaves(flat::value(path, value)?)
    }

    fn merge(&mut self, path: &str, merge: &Merge) -> Option<()> {
        // Where anything is set below it, it is an object, or the script gives up.
        if !merge.sets() {
            self.add(["M", path])?;
        }
        merge.fields().try_for_each(|(key, field)| {
            let path = format!("{path}.{key}");
            match field {
                Merged::Constant(known) => self.known(&path, known),
                Merged::Merge(merge) => self.merge(&path, merge),
            }
        })
    }

    fn leaves(&mut self, leaves: Vec<Leaf>) -> Option<()> {
        self.add([&*leaves.len().to_string()])?;
        leaves.into_iter().try_for_each(|(path, value)| self.add([&*path, &*value]))
    }

    fn add<const N: usize>(&mut self, args: [&str; N]) -> Option<()> {
        self.bytes += args.iter().map(|arg| arg.len() + ARG_OVERHEAD).sum::<usize>();
        self.args.extend(args.map(str::to_owned));
        (self.args.len() <= 2 * MOST_FIELDS && self.bytes <= MOST_BYTES).then_some(())
    }

    /// The arguments.
    #[must_use]
    pub(crate) fn args(&self) -> &[String] {
        &self.args
    }

    /// Bytes that all arguments take.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Change, CollectionId, Effect, EntityRef, FieldOp, FieldOps, Placed, write_field_op};
    use crate::coalesce::PendingUpdate;
    use crate::raw::ValueRef;
    use bson::{Bson, doc};

    fn update(effect: Effect<'_>) -> Update {
        let entity = EntityRef { collection: CollectionId(0), id: ValueRef::NULL, shard_key: &[] };
        let change = Change { entity, effect, ts: None, traceparent: None };
        let mut pending = PendingUpdate::new(&Placed { offset: 1, hash: 0, change });
        pending.take_first().unwrap().update
    }

    fn fields(ops: &[(Op, &str, Bson)]) -> Update {
        let mut body = Vec::new();
        for (op, path, value) in ops {
            let document = bson::serialize_to_vec(&doc! {"": value.clone()}).unwrap();
            let (_, value) = raw::elements(&document).next().unwrap();
            write_field_op(&mut body, FieldOp { op: *op, path, value });
        }
        update(Effect::Update(FieldOps::new(&body)))
    }

    fn told(update: &Update) -> String {
        Program::new(update).map_or("deleted".into(), |program| program.args().join(" "))
    }

    #[test]
    fn what_is_exact_is_told() {
        let of = |ops: &[_]| told(&fields(ops));
        assert_eq!(of(&[(Op::Set, "a.b", "x".into())]), r#"S a.b 1 a.b "x""#);
        assert_eq!(
            of(&[(Op::Set, "a", doc! {"b": 1, "c": {"d": [2]}}.into()), (Op::Unset, "z", Bson::Null)]),
            "S a 2 a.b 1 a.c.d [2] U z"
        );
        assert_eq!(of(&[(Op::Set, "a", doc! {}.into())]), "S a 1 a {}");
        assert_eq!(
            of(&[(Op::Inc, "n", (-3).into()), (Op::Inc, "o", (1_i64 << 40).into())]),
            "I n -3 I o 1099511627776"
        );
        assert_eq!(of(&[(Op::Push, "l", doc! {"x": 1}.into())]), r#"P l {"x":1}"#);
        assert_eq!(of(&[(Op::PushEach, "l", vec![1, 2].into())]), "P l 1,2");
        assert_eq!(of(&[(Op::PushEach, "l", Bson::Array(vec![]))]), "P l ");
        assert_eq!(of(&[(Op::SetOnInsert, "a", 1.into()), (Op::Set, "b", 2.into())]), "S b 1 b 2");
        let document = bson::serialize_to_vec(&doc! {"a": {"b": 1}, "c": 2.5}).unwrap();
        assert_eq!(told(&update(Effect::Replace(&document))), "R 2 a.b 1 c 2.5");
    }

    #[test]
    fn what_is_not_deletes() {
        for op in [
            (Op::Inc, 0.5.into()),
            (Op::PushWith, doc! {"$each": [1], "$slice": -1}.into()),
            (Op::AddToSet, vec![1].into()),
            (Op::PullAll, vec![1].into()),
            (Op::Pull, 1.into()),
            (Op::Pop, 1.into()),
            (Op::Mul, 2.into()),
            (Op::Min, 2.into()),
            (Op::Max, 2.into()),
            (Op::Rename, "b".into()),
            (Op::CurrentDate, true.into()),
            (
                Op::Yjs,
                Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![] }),
            ),
        ] {
            let (op, value) = op;
            let update = fields(&[(Op::Set, "s", 1.into()), (op, "a", value)]);
            assert!(!is_exact(&update), "{op:?}");
            assert_eq!(told(&update), "deleted", "{op:?}");
        }
        assert_eq!(told(&update(Effect::Delete)), "deleted");
        // There is no path to keep it under, or it would take Redis too long.
        let document = bson::serialize_to_vec(&doc! {"a.b": 1}).unwrap();
        assert_eq!(told(&update(Effect::Replace(&document))), "deleted");
        assert_eq!(told(&fields(&[(Op::Set, "a", "x".repeat(MOST_BYTES).into())])), "deleted");
        let many: bson::Document = (0..MOST_FIELDS).map(|n| (n.to_string(), Bson::from(1))).collect();
        assert_eq!(told(&fields(&[(Op::Set, "a", many.into())])), "deleted");
    }
}

//! Tests that what is pending is split off whole and in order, and that nothing is lost.

use super::*;
use crate::buffer::Buffer;
use crate::change::{Change, CollectionId, Effect, FieldOp, FieldOps, Op, write_field_op};
use crate::raw::{Number, Value, ValueRef};
use proptest::prelude::*;

fn empty() -> Pending {
    let buffer = Buffer::new(&crate::config::Buffer::default());
    Pending::new(&Ledger::new(Arc::new(crate::metrics::QueueMetrics::new("q", &[])), buffer))
}

fn fold(pending: &mut Pending, offset: i64, id: i64, op: Op) -> Folded {
    pending.unsettled.absorb(pending.unsettled.ledger().receive(1));
    let (id, one) = (Value::from(Number::int(id)), Value::from(Number::int(1)));
    let mut body = Vec::new();
    write_field_op(&mut body, FieldOp { op, path: "a.b", value: one.get() });
    let entity = EntityRef { collection: CollectionId(0), id: id.get(), shard_key: &[] };
    let change = Change { entity, effect: Effect::Update(FieldOps::new(&body)), ts: None, traceparent: None };
    // A hash that collides often.
    let hash = u64::from(id.get().bytes[0] % 3);
    pending.fold(&Placed { offset, hash, change }, Instant::now(), 1 << 20)
}

fn taken(writes: &[Write]) -> Vec<(i64, i64, i64)> {
    let id = |value: ValueRef<'_>| match value.number() {
        Some(Number::Int32(id)) => i64::from(id),
        _ => panic!("an id"),
    };
    writes.iter().map(|w| (id(w.entity.get().id), w.segment.first, w.segment.last)).collect()
}

#[test]
fn the_oldest_entities_are_taken_first() {
    let mut pending = empty();
    for (offset, id) in [(1, 10), (2, 20), (3, 10), (4, 30)] {
        fold(&mut pending, offset, id, Op::Inc);
    }
    assert_eq!((pending.entities(), pending.first()), (3, Some(1)));
    let mut batch = pending.split_off(2, 1 << 20);
    assert_eq!((batch.first(), batch.events()), (Some(1), 3));
    assert_eq!(taken(&batch.next_segments()), [(10, 1, 3), (20, 2, 2)]);
    assert_eq!((pending.first(), pending.events()), (Some(4), 1));
    assert_eq!(taken(&pending.split_off(9, 1 << 20).next_segments()), [(30, 4, 4)]);
    assert_eq!((pending.entities(), pending.bytes(), pending.first()), (0, 0, None));
}

#[test]
fn segments_of_one_entity_follow_one_another() {
    let mut pending = empty();
    for (offset, id, op) in [(1, 10, Op::Set), (2, 10, Op::Unset), (3, 20, Op::Set), (4, 10, Op::Set)] {
        fold(&mut pending, offset, id, op);
    }
    let mut batch = pending.split_off(9, 1 << 20);
    assert_eq!(taken(&batch.next_segments()), [(10, 1, 1), (20, 3, 3)]);
    assert_eq!(taken(&batch.next_segments()), [(10, 2, 4)]);
    assert_eq!((batch.entities(), batch.bytes(), batch.events()), (0, 0, 0));
    assert!(batch.next_segments().is_empty());
}

#[test]
fn memory_follows_the_document_not_the_events() {
    let mut pending = empty();
    let (id, text) = (Value::from(Number::int(1)), Value::from(Number::int(7)));
    let mut fold = |offset: i64, op| {
        let mut body = Vec::new();
        let path = format!("field{}", offset % 10);
        write_field_op(&mut body, FieldOp { op, path: &path, value: text.get() });
        let entity = EntityRef { collection: CollectionId(0), id: id.get(), shard_key: &[] };
        let change =
            Change { entity, effect: Effect::Update(FieldOps::new(&body)), ts: None, traceparent: None };
        pending.unsettled.absorb(pending.unsettled.ledger().receive(1));
        pending.fold(&Placed { offset, hash: 0, change }, Instant::now(), 1 << 20);
        pending.bytes()
    };
    let ten_fields = (0..10).map(|offset| fold(offset, Op::Set)).last();
    let after_a_million = (10..1_000_000).map(|offset| fold(offset, Op::Set)).max();
    assert_eq!(after_a_million, ten_fields);
    // Pushes grow, and are counted, so that `batch.max_bytes` sends them.
    let before = fold(1_000_000, Op::Push);
    let grown = (1_000_001..1_010_000).map(|offset| fold(offset, Op::Push)).last();
    assert!(grown.is_some_and(|grown| grown > before + 10_000 * 4), "{grown:?} after {before}");
}

proptest! {
    /// `first` is never above the oldest event held, every event is taken once, in order per entity.
    #[test]
    fn nothing_is_forgotten(steps in prop::collection::vec((0_i64..6, 0_u8..3, any::<bool>()), 1..120)) {
        let mut pending = empty();
        let mut held: Vec<(i64, i64)> = Vec::new();
        for (at, (id, op, take)) in steps.into_iter().enumerate() {
            let offset = at as i64;
            fold(&mut pending, offset, id, [Op::Set, Op::Unset, Op::Inc][usize::from(op)]);
            held.push((id, offset));
            if take {
                let mut batch = pending.split_off(2, 1 << 20);
                let mut writes = batch.next_segments();
                while !writes.is_empty() {
                    for (id, first, last) in taken(&writes) {
                        let oldest = held.iter().find(|(i, _)| *i == id).map(|(_, offset)| *offset);
                        prop_assert_eq!(oldest, Some(first));
                        held.retain(|(i, offset)| *i != id || *offset > last);
                    }
                    writes = batch.next_segments();
                }
            }
            prop_assert_eq!(pending.first(), held.iter().map(|(_, offset)| *offset).min());
        }
        let mut rest = pending.split_off(usize::MAX, usize::MAX);
        let mut writes = rest.next_segments();
        while !writes.is_empty() {
            for (id, _, last) in taken(&writes) {
                held.retain(|(i, offset)| *i != id || *offset > last);
            }
            writes = rest.next_segments();
        }
        prop_assert!(held.is_empty());
        prop_assert_eq!(pending.bytes(), 0);
    }
}

//! Tests that what waits keeps its order, and that the queue keeps what is not parked.

use super::*;
use crate::buffer::Buffer;
use crate::change::{Change, Effect, FieldOp, FieldOps, Op, write_field_op};
use crate::metrics::QueueMetrics;
use crate::raw::{Number, Value};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn ledger() -> Arc<Ledger> {
    Ledger::new(Arc::new(QueueMetrics::new("q", &[])), Buffer::new(&crate::config::Buffer::default()))
}

/// Folds an increment of one of a few documents, as a lane does.
fn fold(quarantine: &mut Quarantine, pending: &mut Pending, offset: i64, id: i64) {
    let (id, one) = (Value::from(Number::int(id)), Value::from(Number::int(1)));
    let mut body = Vec::new();
    write_field_op(&mut body, FieldOp { op: Op::Inc, path: "a", value: one.get() });
    let entity = EntityRef { collection: CollectionId(0), id: id.get(), shard_key: &[] };
    let effect = Effect::Update(FieldOps::new(&body));
    let change = Change { entity, effect, ts: None, traceparent: None };
    let placed = Placed { offset, hash: u64::from(id.get().bytes[0] % 3), change };
    pending.take_on(quarantine.ledger.receive(1));
    if quarantine.fold(&placed, Instant::now(), 1 << 20, pending).is_none() {
        pending.fold(&placed, Instant::now(), 1 << 20);
    }
}

fn id_of(entity: &Entity) -> i64 {
    match entity.get().id.number() {
        Some(Number::Int32(n)) => n.into(),
        Some(Number::Int64(n)) => n,
        _ => panic!("an integer"),
    }
}

proptest! {
    /// Whatever is refused, parked and tried again: each event is written once, those of a document in order, what the
    /// queue must keep is never forgotten, and nothing is written behind a parked event that is not forgotten.
    #[test]
    fn nothing_is_lost_in_quarantine(steps in prop::collection::vec((0_u8..6, 0_i64..5, any::<u8>()), 1..150)) {
        let ledger = ledger();
        let (mut quarantine, mut pending) = (Quarantine::new(&ledger), Pending::new(&ledger));
        let name: Arc<str> = Arc::from("documents");
        let mut left: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        let mut parked: BTreeSet<i64> = BTreeSet::new();
        for (offset, (step, id, refused)) in (0_i64..).zip(steps) {
            match step {
                0..3 => {
                    left.entry(id).or_default().push(offset);
                    fold(&mut quarantine, &mut pending, offset, id);
                }
                3 => {
                    let spans = quarantine.unparked(Duration::ZERO);
                    let offsets = |span: &Unparked| -> Vec<i64> {
                        let of_document = &left[&id_of(&span.entity)];
                        of_document.iter().copied().filter(|at| (span.first..=span.last).contains(at)).collect()
                    };
                    let spans: Vec<_> = spans.into_iter().map(|span| { let all = offsets(&span); (span, all) }).collect();
                    parked.extend(spans.iter().flat_map(|(_, offsets)| offsets));
                    quarantine.parked(spans);
                    prop_assert_eq!(quarantine.first(), None);
                }
                _ => {
                    let from_quarantine = step == 5 && !quarantine.is_empty();
                    let (tried, mut batch) = if from_quarantine {
                        quarantine.groups.iter_mut().for_each(|group| group.next = Instant::now());
                        let Some((name, batch)) = quarantine.take_due(Instant::now(), 3, 1 << 20) else { continue };
                        (Some((name, batch.entities())), batch)
                    } else {
                        (None, pending.split_off(3, 1 << 20))
                    };
                    let forgotten = batch.take_parked();
                    let (mut withheld, mut nth) = (Vec::new(), 0);
                    loop {
                        let writes = batch.next_segments();
                        if writes.is_empty() {
                            break;
                        }
                        let mut round = Vec::new();
                        for write in writes {
                            nth += 1;
                            if (refused >> (nth % 8)) & 1 == 1 {
                                round.push(Withheld::new(write, SinkError::transient("no"), Arc::clone(&name)));
                                continue;
                            }
                            let id = id_of(&write.entity);
                            let Segment { first, last, .. } = write.segment;
                            let of_document = left.get_mut(&id).unwrap();
                            prop_assert_eq!(of_document.first(), Some(&first));
                            let own: BTreeSet<i64> = forgotten.iter().filter(|(e, _)| id_of(e) == id).flat_map(|(_, all)| all.clone()).collect();
                            prop_assert!(own.is_empty() || own.contains(&last), "{} is behind what is parked", last);
                            let before = of_document.len();
                            of_document.retain(|at| *at > last);
                            prop_assert_eq!(before - of_document.len(), usize::try_from(write.unsettled.events()).unwrap());
                            drop(write.unsettled);
                        }
                        batch.give_way(&mut round);
                        withheld.append(&mut round);
                    }
                    for (entity, offsets) in forgotten {
                        match withheld.iter_mut().find(|withheld| withheld.entity == entity) {
                            Some(withheld) => withheld.parked = offsets,
                            None => offsets.iter().for_each(|offset| { parked.remove(offset); }),
                        }
                    }
                    pending.give_way(&mut withheld);
                    quarantine.withhold(withheld, tried.as_ref().map(|(name, tried)| (name, *tried)));
                }
            }
            let oldest = left.values().flatten().filter(|offset| !parked.contains(offset)).min().copied();
            let kept = pending.first().into_iter().chain(quarantine.first()).min();
            prop_assert!(kept <= oldest && kept.is_some() == oldest.is_some(), "{:?} is kept of {:?}", kept, oldest);
        }
    }
}

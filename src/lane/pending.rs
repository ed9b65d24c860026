//! The pending updates of a lane, found by entity and taken in the order of their oldest event.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;
use tokio::time::Instant;

use crate::change::{CollectionId, EntityRef, Placed};
use crate::coalesce::{Folded, PendingUpdate};
use crate::raw::Value;
use crate::settle::{Ledger, Unsettled};
use crate::write::Write;

/// The pending updates of one lane.
#[derive(Debug)]
pub struct Pending {
    /// The duty to settle all events folded in.
    unsettled: Unsettled,
    /// Places in `entries`, by entity.
    by_entity: HashTable<usize>,
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    /// Places in `entries`, oldest event first.
    order: VecDeque<usize>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    collection: CollectionId,
    id: Value,
    since: Instant,
    update: PendingUpdate,
}

/// An entry without its update: table slot, id, place in the order.
const ENTRY_OVERHEAD: usize = 256;

impl Entry {
    fn is(&self, entity: EntityRef<'_>) -> bool {
        self.collection == entity.collection && self.id.get() == entity.id
    }

    fn bytes(&self) -> usize {
        self.id.len() + self.update.bytes() + ENTRY_OVERHEAD
    }
}

impl Pending {
    /// Nothing is pending in the account of `ledger`.
    #[must_use]
    pub fn new(ledger: &Arc<Ledger>) -> Self {
        Pending {
            unsettled: ledger.receive(0),
            by_entity: HashTable::new(),
            entries: Vec::new(),
            free: Vec::new(),
            order: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Takes on the duty to settle events that are about to be folded in.
    pub fn take_on(&mut self, unsettled: Unsettled) {
        self.unsettled.absorb(unsettled);
    }

    /// Folds a change, whose event was taken on, into its entity's pending update.
    pub fn fold(&mut self, placed: &Placed<'_>, now: Instant, max_bytes: usize) -> Folded {
        let entity = placed.change.entity;
        let entries = &mut self.entries;
        let found =
            self.by_entity.find(placed.hash, |at| entries[*at].as_ref().is_some_and(|e| e.is(entity)));
        if let Some(entry) = found.and_then(|at| entries[*at].as_mut()) {
            let before = entry.update.bytes();
            let folded = entry.update.fold(placed, max_bytes);
            self.bytes = self.bytes - before + entry.update.bytes();
            return folded;
        }
        let entry = Entry {
            hash: placed.hash,
            collection: entity.collection,
            id: entity.id.into(),
            since: now,
            update: PendingUpdate::new(placed),
        };
        self.bytes += entry.bytes();
        let at = match self.free.pop() {
            Some(at) => {
                entries[at] = Some(entry);
                at
            }
            None => {
                entries.push(Some(entry));
                entries.len() - 1
            }
        };
        self.by_entity.insert_unique(placed.hash, at, |at| entries[*at].as_ref().map_or(0, |e| e.hash));
        self.order.push_back(at);
        Folded::Opened
    }

    /// Takes the oldest entities' first segments: at most `max_ops`, and no more than `max_bytes` unless
    /// the first alone is larger.
    pub fn take(&mut self, max_ops: usize, max_bytes: usize) -> Vec<Write> {
        let mut writes = Vec::with_capacity(max_ops.min(self.order.len()));
        let mut split = Vec::new();
        let mut bytes = 0;
        while writes.len() < max_ops
            && let Some(at) = self.order.front().copied()
        {
            let Some(entry) = &mut self.entries[at] else { break };
            let before = entry.update.bytes();
            let Some(segment) = entry.update.take_first() else { break };
            bytes += segment.bytes();
            self.bytes -= before - entry.update.bytes();
            self.order.pop_front();
            let (collection, hash) = (entry.collection, entry.hash);
            let id = if entry.update.first().is_some() {
                split.push(at);
                entry.id.clone()
            } else {
                self.remove(at)
            };
            let unsettled = self.unsettled.split(segment.events);
            writes.push(Write { collection, id, hash, segment, unsettled });
            if bytes >= max_bytes {
                break;
            }
        }
        split.into_iter().for_each(|at| self.reinsert(at));
        writes
    }

    /// Forgets an entity whose update was taken; answers its id.
    fn remove(&mut self, at: usize) -> Value {
        let Some(entry) = self.entries[at].take() else { return crate::raw::ValueRef::NULL.into() };
        if let Ok(found) = self.by_entity.find_entry(entry.hash, |other| *other == at) {
            found.remove();
        }
        self.bytes -= entry.id.len() + ENTRY_OVERHEAD;
        self.free.push(at);
        entry.id
    }

    /// Puts an entity with segments left back where its oldest event belongs, so that the front stays the
    /// oldest of all.
    fn reinsert(&mut self, at: usize) {
        let first = self.first_of(at);
        let place = self.order.partition_point(|other| self.first_of(*other) <= first);
        self.order.insert(place, at);
    }

    fn first_of(&self, at: usize) -> i64 {
        self.entries[at].as_ref().and_then(|entry| entry.update.first()).unwrap_or(i64::MAX)
    }

    /// The offset of the oldest event.
    #[must_use]
    pub fn first(&self) -> Option<i64> {
        self.order.front().map(|at| self.first_of(*at))
    }

    /// When the oldest entity's first change was folded.
    #[must_use]
    pub fn since(&self) -> Option<Instant> {
        self.order.front().and_then(|at| self.entries[*at].as_ref()).map(|entry| entry.since)
    }

    /// How long the oldest entity has waited.
    #[must_use]
    pub fn waited(&self, now: Instant) -> Duration {
        self.since().map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Entities with a pending update.
    #[must_use]
    pub fn entities(&self) -> usize {
        self.order.len()
    }

    /// Bytes of memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Buffer;
    use crate::change::{Change, Effect, FieldOp, FieldOps, Op, write_field_op};
    use crate::raw::{Number, ValueRef};
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
        let entity = EntityRef { collection: CollectionId(0), id: id.get() };
        let change = Change { entity, effect: Effect::Update(FieldOps::new(&body)), ts: None };
        // A hash that collides often.
        let hash = u64::from(id.get().bytes[0] % 3);
        pending.fold(&Placed { offset, hash, change }, Instant::now(), 1 << 20)
    }

    fn taken(writes: &[Write]) -> Vec<(i64, i64, i64)> {
        let id = |value: ValueRef<'_>| match value.number() {
            Some(Number::Int32(id)) => i64::from(id),
            _ => panic!("an id"),
        };
        writes.iter().map(|w| (id(w.id.get()), w.segment.first, w.segment.last)).collect()
    }

    #[test]
    fn the_oldest_entities_are_taken_first() {
        let mut pending = empty();
        for (offset, id) in [(1, 10), (2, 20), (3, 10), (4, 30)] {
            fold(&mut pending, offset, id, Op::Inc);
        }
        assert_eq!((pending.entities(), pending.first()), (3, Some(1)));
        assert_eq!(taken(&pending.take(2, 1 << 20)), [(10, 1, 3), (20, 2, 2)]);
        assert_eq!(pending.first(), Some(4));
        assert_eq!(taken(&pending.take(9, 1 << 20)), [(30, 4, 4)]);
        assert_eq!((pending.entities(), pending.bytes(), pending.first()), (0, 0, None));
    }

    #[test]
    fn segments_of_one_entity_go_in_separate_batches() {
        let mut pending = empty();
        for (offset, id, op) in [(1, 10, Op::Set), (2, 10, Op::Unset), (3, 20, Op::Set), (4, 10, Op::Set)] {
            fold(&mut pending, offset, id, op);
        }
        assert_eq!(taken(&pending.take(9, 1 << 20)), [(10, 1, 1), (20, 3, 3)]);
        assert_eq!(pending.first(), Some(2));
        assert_eq!(taken(&pending.take(9, 1 << 20)), [(10, 2, 4)]);
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
                    for (id, first, last) in taken(&pending.take(2, 1 << 20)) {
                        let oldest = held.iter().find(|(i, _)| *i == id).map(|(_, offset)| *offset);
                        prop_assert_eq!(oldest, Some(first));
                        held.retain(|(i, offset)| *i != id || *offset > last);
                    }
                }
                prop_assert_eq!(pending.first(), held.iter().map(|(_, offset)| *offset).min());
            }
            while pending.entities() > 0 {
                for (id, _, last) in taken(&pending.take(3, 1 << 20)) {
                    held.retain(|(i, offset)| *i != id || *offset > last);
                }
            }
            prop_assert!(held.is_empty());
            prop_assert_eq!(pending.bytes(), 0);
        }
    }
}

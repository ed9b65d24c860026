//! Defines a change: an entity and an update to it. A chunk of changes takes two allocations.

mod collections;
mod field_op;
pub mod path;
pub(crate) mod pointer;

use std::hash::{BuildHasher, Hasher};

use bson::spec::ElementType;

pub use self::collections::Collections;
pub use self::field_op::{EncodedOp, FieldOp, FieldOps, FieldTemplate, Op, write_field_op};
use crate::raw::{Value, ValueRef};
use crate::trace::{self, TraceRef};

/// The largest BSON document MongoDB stores, bytes.
pub const MAX_DOCUMENT: usize = 16 * 1024 * 1024;

/// The most bytes that an update may have. That leaves room in the command for guard, watermark and names.
pub const MAX_UPDATE: usize = MAX_DOCUMENT - 64 * 1024;

/// A collection, by its place in the list of configured ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionId(pub u16);

/// How long a change may wait, by its place in the list of timings that routes name. The first is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimingId(pub u16);

/// One MongoDB document: collection and `_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntityRef<'a> {
    /// The collection.
    pub collection: CollectionId,
    /// The `_id`: text or an integer.
    pub id: ValueRef<'a>,
    /// The fields of the shard key and their values, encoded elements; mostly none.
    pub shard_key: &'a [u8],
}

/// [`EntityRef`], owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    collection: CollectionId,
    id: Value,
    shard_key: Box<[u8]>,
}

impl Entity {
    /// The entity, borrowed.
    #[must_use]
    pub fn get(&self) -> EntityRef<'_> {
        EntityRef { collection: self.collection, id: self.id.get(), shard_key: &self.shard_key }
    }

    /// The collection and the id.
    #[must_use]
    pub fn into_id(self) -> (CollectionId, Value) {
        (self.collection, self.id)
    }

    /// Bytes it takes in memory besides itself.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.id.len() + self.shard_key.len()
    }
}

impl From<EntityRef<'_>> for Entity {
    fn from(entity: EntityRef<'_>) -> Self {
        Entity { collection: entity.collection, id: entity.id.into(), shard_key: entity.shard_key.into() }
    }
}

impl EntityRef<'_> {
    /// The hash that chooses the lane and finds the pending update. Ids are untrusted, so its seed is
    /// the process's own: `seed` is drawn once and shared by all who hash.
    #[must_use]
    pub fn hash(&self, seed: &foldhash::quality::RandomState) -> u64 {
        let mut hasher = seed.build_hasher();
        hasher.write_u16(self.collection.0);
        hasher.write_u8(self.id.kind as u8);
        hasher.write(self.id.bytes);
        hasher.write(self.shard_key);
        hasher.finish()
    }
}

/// What a change does to its document.
#[derive(Debug, Clone, Copy)]
pub enum Effect<'a> {
    /// Operations on fields. Their paths do not overlap.
    Update(FieldOps<'a>),
    /// The document becomes this one, encoded, `_id` left out.
    Replace(&'a [u8]),
    /// The document goes.
    Delete,
}

impl Effect<'_> {
    /// Encoded bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts().1.len()
    }

    /// Whether there are none, as a deletion has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn parts(&self) -> (EffectKind, &[u8]) {
        match self {
            Effect::Update(ops) => (EffectKind::Update, ops.bytes()),
            Effect::Replace(document) => (EffectKind::Replace, document),
            Effect::Delete => (EffectKind::Delete, &[]),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum EffectKind {
    Update,
    Replace,
    Delete,
}

/// An event, decoded.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// The document it changes.
    pub entity: EntityRef<'a>,
    /// How.
    pub effect: Effect<'a>,
    /// The event's own time, milliseconds since the Unix epoch. Untrusted.
    pub ts: Option<i64>,
    /// The trace it belongs to.
    pub traceparent: Option<TraceRef<'a>>,
}

/// The changes of one window that belong to one lane.
#[derive(Debug, Default)]
pub struct Chunk {
    heads: Vec<Head>,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    offset: i64,
    hash: u64,
    ts: Option<i64>,
    collection: CollectionId,
    timing: TimingId,
    effect: EffectKind,
    /// Its trace is behind its body.
    traced: bool,
    id_kind: ElementType,
    id_start: usize,
    key_start: usize,
    body_start: usize,
    body_end: usize,
}

/// A change with its place in the queue.
#[derive(Debug, Clone, Copy)]
pub struct Placed<'a> {
    /// The event's offset.
    pub offset: i64,
    /// [`EntityRef::hash`].
    pub hash: u64,
    /// The change.
    pub change: Change<'a>,
}

impl Chunk {
    /// A chunk with room for one of `shares` of a window's events. It suffices if they are spread evenly, and if what
    /// routes take of an event is no larger than the event.
    #[must_use]
    pub fn with_room(events: usize, bytes: usize, shares: usize) -> Self {
        let share = |n: usize| n / shares + n / shares / 8;
        // A few are not spread evenly.
        let bytes = if events < 8 * shares { 0 } else { share(bytes) };
        Chunk { heads: Vec::with_capacity(share(events)), bytes: Vec::with_capacity(bytes) }
    }

    /// Appends a change. Offsets only grow.
    pub fn push(&mut self, placed: Placed<'_>, timing: TimingId) {
        let change = &placed.change;
        let id_start = self.bytes.len();
        self.bytes.extend_from_slice(change.entity.id.bytes);
        let key_start = self.bytes.len();
        self.bytes.extend_from_slice(change.entity.shard_key);
        let body_start = self.bytes.len();
        let (effect, body) = change.effect.parts();
        self.bytes.extend_from_slice(body);
        let body_end = self.bytes.len();
        if let Some(trace) = change.traceparent {
            self.bytes.extend_from_slice(trace.bytes());
        }
        self.heads.push(Head {
            offset: placed.offset,
            hash: placed.hash,
            ts: change.ts,
            collection: change.entity.collection,
            timing,
            effect,
            id_kind: change.entity.id.kind,
            id_start,
            key_start,
            body_start,
            body_end,
            traced: change.traceparent.is_some(),
        });
    }

    /// The changes, in queue order.
    pub fn iter(&self) -> impl Iterator<Item = (Placed<'_>, TimingId)> {
        self.heads.iter().map(|head| {
            let id = ValueRef { kind: head.id_kind, bytes: &self.bytes[head.id_start..head.key_start] };
            let body = &self.bytes[head.body_start..head.body_end];
            let effect = match head.effect {
                EffectKind::Update => Effect::Update(FieldOps::new(body)),
                EffectKind::Replace => Effect::Replace(body),
                EffectKind::Delete => Effect::Delete,
            };
            let shard_key = &self.bytes[head.key_start..head.body_start];
            let entity = EntityRef { collection: head.collection, id, shard_key };
            let trace = || self.bytes.get(head.body_end..head.body_end + trace::LEN);
            let traceparent = if head.traced { trace().and_then(TraceRef::new) } else { None };
            let change = Change { entity, effect, ts: head.ts, traceparent };
            (Placed { offset: head.offset, hash: head.hash, change }, head.timing)
        })
    }

    /// The offset of the first change.
    #[must_use]
    pub fn first(&self) -> Option<i64> {
        self.heads.first().map(|head| head.offset)
    }

    /// The number of changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether there is no change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Bytes of memory the changes take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.heads.len() * size_of::<Head>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::Number;

    #[test]
    fn a_chunk_gives_back_what_was_put_in() {
        let one = Value::from(Number::int(1));
        let id = Value::from(Number::int(7));
        let mut body = Vec::new();
        write_field_op(&mut body, FieldOp { op: Op::Inc, path: "n", value: one.get() });
        write_field_op(&mut body, FieldOp { op: Op::Unset, path: "a.b", value: ValueRef::NULL });
        let entity = EntityRef { collection: CollectionId(3), id: id.get(), shard_key: b"key" };
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let traceparent = TraceRef::new(text.as_bytes());
        let effect = Effect::Update(FieldOps::new(&body));
        let change = Change { entity, effect, ts: Some(5), traceparent };

        let mut chunk = Chunk::default();
        let hash = entity.hash(&foldhash::quality::RandomState::default());
        chunk.push(Placed { offset: 10, hash, change }, TimingId(3));
        let deletion = Change { effect: Effect::Delete, ts: None, traceparent: None, ..change };
        chunk.push(Placed { offset: 12, hash: 1, change: deletion }, TimingId::default());

        let (placed, timings): (Vec<_>, Vec<_>) = chunk.iter().unzip();
        assert_eq!(timings, [TimingId(3), TimingId(0)]);
        assert_eq!((placed[0].offset, placed[1].offset), (10, 12));
        assert_eq!(placed[0].change.entity, entity);
        let Effect::Update(ops) = placed[0].change.effect else { panic!("an update") };
        let ops: Vec<_> = ops.map(|op| (op.op, op.path.to_owned(), op.value.number())).collect();
        assert_eq!(
            ops,
            [(Op::Inc, "n".to_owned(), Some(Number::Int32(1))), (Op::Unset, "a.b".to_owned(), None)]
        );
        assert!(matches!(placed[1].change.effect, Effect::Delete));
        assert_eq!((placed[0].change.traceparent, placed[1].change.traceparent), (traceparent, None));
        assert!(traceparent.is_some());
    }
}

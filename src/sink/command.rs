//! Encodes a batch's writes as `update` and `delete` commands.
//!
//! Each statement is guarded by the document's watermark:
//! `q: {_id: X, "_tidegate.<queue id>": {$not: {$gte: f}}}`. An upsert that the guard keeps from matching
//! tries to insert and meets the `_id` index: that E11000 says "some of it was applied before".

use bson::spec::ElementType;

use super::bulk_command::{BulkCommand, CommandLimits, StatementKind};
use super::operator::{REVIVE, operator};
use super::pipeline::asks_whether_new;
use super::{Strange, Tombstones, insert};
use crate::change::Collections;
use crate::change::path::{DELETED_FIELD, NEW_FIELD, WATERMARK_FIELD};
use crate::change::{CollectionId, EntityRef, Op};
use crate::coalesce::{Constant, FieldUpdate, Fields, Segment, Update};
use crate::raw::{self, ValueRef, begin_document, end_document};
use crate::sink::Write;

/// The watermark that guards a queue's writes.
#[derive(Debug, Clone)]
pub struct Guard {
    id: String,
    path: String,
}

impl Guard {
    /// The guard of the queue with that key. Characters with a meaning in paths are percent-encoded, so
    /// that no two keys share a field.
    #[must_use]
    pub fn new(queue: &str) -> Self {
        let mut id = String::with_capacity(queue.len());
        for c in queue.chars() {
            match c {
                '.' | '$' | '%' | '\0' => id.push_str(&format!("%{:02X}", u32::from(c))),
                c => id.push(c),
            }
        }
        Guard { path: format!("{WATERMARK_FIELD}.{id}"), id }
    }

    /// The same for the n-th stream in the queue's place: the numbers of the former ones are not its own. No key has such an
    /// ending, since a percent sign in it is encoded.
    #[must_use]
    pub(crate) fn in_generation(self, generation: i64) -> Self {
        if generation <= 1 {
            return self;
        }
        let id = format!("{}%n{generation}", self.id);
        Guard { path: format!("{WATERMARK_FIELD}.{id}"), id }
    }

    /// The field's path: `_tidegate.<queue id>`.
    #[must_use]
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The queue's id within the watermark field.
    #[must_use]
    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}

/// A command to one collection.
#[derive(Debug)]
pub struct Command {
    /// The collection.
    pub(crate) collection: CollectionId,
    /// Its kind.
    pub(crate) kind: StatementKind,
    /// The places, among the writes, of its statements.
    pub(crate) writes: Vec<usize>,
    /// The encoded command.
    pub body: Vec<u8>,
}

/// Makes commands.
#[derive(Debug)]
pub struct Encoder<'a> {
    /// The collections' names.
    pub collections: &'a Collections,
    /// The server's limits.
    pub limits: CommandLimits,
    /// The encoded `writeConcern` document.
    pub write_concern: &'a [u8],
    /// The queue's guard, if its delivery has one.
    pub guard: Option<&'a Guard>,
    /// The collections whose deleted documents leave tombstones.
    pub tombstones: &'a Tombstones,
    /// Whether the server is to stop at the first statement it refuses.
    pub ordered: bool,
}

/// The document's watermarks, as a pipeline's expression.
const WATERMARKS: &str = "$_tidegate";

impl Encoder<'_> {
    /// The commands for `writes`: as few as collections, kinds and limits allow. Each is encoded when it is
    /// asked for, so that one at a time is in memory.
    pub fn commands<'w>(
        &'w self,
        writes: impl IntoIterator<Item = (usize, &'w Write), IntoIter: 'w>,
    ) -> impl Iterator<Item = Command> + 'w {
        let kind = |write: &Write| self.kind(write.entity.get().collection, &write.segment);
        self.pack(writes, kind, |out, write| {
            self.statement(out, write.entity.get(), &write.segment, write.instead_of.lock().as_deref());
            true
        })
    }

    /// The commands that insert the documents that `writes` make where there are none; those of which that is not known
    /// are left out.
    pub(crate) fn inserts<'w>(
        &'w self,
        writes: impl IntoIterator<Item = (usize, &'w Write), IntoIter: 'w>,
    ) -> impl Iterator<Item = Command> + 'w {
        self.pack(
            writes,
            |_| StatementKind::Insert,
            |out, write| {
                // What has a watermark is not new.
                let is_known = write.instead_of.lock().is_some();
                !is_known && insert::document(out, write.entity.get(), &write.segment, self.guard)
            },
        )
    }

    /// Packs what `encode` makes of writes into commands of their `kind`.
    fn pack<'w>(
        &'w self,
        writes: impl IntoIterator<Item = (usize, &'w Write), IntoIter: 'w>,
        kind: impl Fn(&Write) -> StatementKind + 'w,
        encode: impl Fn(&mut Vec<u8>, &Write) -> bool + 'w,
    ) -> impl Iterator<Item = Command> + 'w {
        let mut writes = writes.into_iter();
        let mut open: Vec<Open> = Vec::new();
        std::iter::from_fn(move || {
            for (at, write) in writes.by_ref() {
                let (collection, kind) = (write.entity.get().collection, kind(write));
                let found = open.iter().position(|o| o.collection == collection && o.kind == kind);
                let slot = found.unwrap_or_else(|| {
                    open.push(self.open(collection, kind));
                    open.len() - 1
                });
                let full = open[slot].add(at, write.segment.bytes(), |out| encode(out, write), self);
                if full.is_some() {
                    return full;
                }
            }
            // Of some it was not known what to write.
            open.retain(|open| !open.writes.is_empty());
            open.pop().map(Open::close)
        })
    }

    /// The command for one segment alone.
    #[must_use]
    pub(crate) fn command(&self, entity: EntityRef<'_>, segment: &Segment) -> Command {
        let mut open = self.open(entity.collection, self.kind(entity.collection, segment));
        let encode = |out: &mut Vec<u8>| {
            self.statement(out, entity, segment, None);
            true
        };
        open.add(0, segment.bytes(), encode, self);
        open.close()
    }

    /// The kind of command that writes a segment.
    fn kind(&self, collection: CollectionId, segment: &Segment) -> StatementKind {
        match segment.update {
            Update::Delete if !self.tombstones.are_in(collection) => StatementKind::Delete,
            _ => StatementKind::Update,
        }
    }

    fn open(&self, collection: CollectionId, kind: StatementKind) -> Open {
        let name = self.collections.name(collection);
        let command = BulkCommand::new(kind, name, self.ordered, self.write_concern);
        Open { collection, kind, command, writes: Vec::new() }
    }

    fn statement(
        &self,
        out: &mut Vec<u8>,
        entity: EntityRef<'_>,
        segment: &Segment,
        instead_of: Option<&Strange>,
    ) {
        let start = begin_document(out);
        raw::write_key(out, ElementType::EmbeddedDocument, "q");
        self.filter(out, entity, segment, instead_of);
        match &segment.update {
            Update::Fields(fields) if fields.are_piped() => {
                raw::write_key(out, ElementType::Array, "u");
                self.pipeline(out, fields, segment.last);
                raw::write_bool(out, "upsert", true);
            }
            Update::Fields(fields) => {
                raw::write_key(out, ElementType::EmbeddedDocument, "u");
                self.update(out, fields, segment.last);
                raw::write_bool(out, "upsert", true);
            }
            Update::Replace(document) => {
                raw::write_key(out, ElementType::Array, "u");
                self.replacement(out, entity, Some(document), segment.last);
                raw::write_bool(out, "upsert", true);
            }
            Update::Delete if self.tombstones.are_in(entity.collection) => {
                raw::write_key(out, ElementType::Array, "u");
                self.replacement(out, entity, None, segment.last);
                raw::write_bool(out, "upsert", true);
            }
            Update::Delete => raw::write_i32(out, "limit", 1),
        }
        end_document(out, start);
    }

    /// `{_id: X, "_tidegate.<queue id>": {$not: {$gte: f}}}`; documents without watermark match. Where the watermark is
    /// one that proves nothing, exactly that: `{_id: X, "_tidegate.<queue id>": w}`.
    fn filter(
        &self,
        out: &mut Vec<u8>,
        entity: EntityRef<'_>,
        segment: &Segment,
        instead_of: Option<&Strange>,
    ) {
        let start = begin_document(out);
        write_entity(out, entity);
        if let (Some(guard), Some(strange)) = (self.guard, instead_of) {
            strange.filter(out, guard);
        } else if let Some(guard) = self.guard {
            raw::write_key(out, ElementType::EmbeddedDocument, &guard.path);
            let not = begin_document(out);
            raw::write_key(out, ElementType::EmbeddedDocument, "$not");
            let gte = begin_document(out);
            raw::write_i64(out, "$gte", segment.guard());
            end_document(out, gte);
            end_document(out, not);
        }
        if let Update::Fields(fields) = &segment.update
            && asks_whether_new(fields)
        {
            raw::write(out, NEW_FIELD, ValueRef::NULL);
        }
        end_document(out, start);
    }

    /// `{$set: {...}, $unset: {...}, $inc: {...}, $push: {...}}`, with the watermark in `$set`. If the document is a
    /// tombstone, it is none afterwards. Any document may be: another instance, or one before, may leave tombstones
    /// where this one knows of none. With what is left of one, MongoDB would remove the live document.
    fn update(&self, out: &mut Vec<u8>, fields: &Fields, watermark: i64) {
        let start = begin_document(out);
        raw::write_key(out, ElementType::EmbeddedDocument, "$set");
        let set = begin_document(out);
        let mut others = false;
        for (path, update) in fields.iter() {
            match update {
                FieldUpdate::Constant(known) if *known != Constant::Missing => known.write(out, path),
                _ => others = true,
            }
        }
        if let Some(guard) = self.guard {
            raw::write_i64(out, &guard.path, watermark);
        }
        if out.len() == set + 4 {
            // Nothing to set: an empty `$set` is an error before MongoDB 5.0 and noise since.
            out.truncate(start + 4);
        } else {
            end_document(out, set);
        }
        if others {
            Op::OPERATORS[1..].iter().for_each(|name| operator(out, name, fields));
        } else {
            out.extend_from_slice(REVIVE);
        }
        end_document(out, start);
    }

    /// A pipeline that replaces everything but `_id` and the watermarks of other queues:
    /// `[{$replaceWith: {$mergeObjects: [{$literal: document},
    /// {_id: {$literal: X}, _tidegate: {$mergeObjects: ["$_tidegate", {<queue id>: {$literal: l}}]}}]}}]`,
    /// and where there is a shard key, which a document must keep, `{$set: {<field>: {$literal: ...}}}`. Without a
    /// document it leaves a tombstone.
    fn replacement(
        &self,
        out: &mut Vec<u8>,
        entity: EntityRef<'_>,
        document: Option<&Constant>,
        watermark: i64,
    ) {
        let literal = |out: &mut Vec<u8>, key: &str, value: ValueRef<'_>| {
            raw::write_key(out, ElementType::EmbeddedDocument, key);
            let start = begin_document(out);
            raw::write(out, "$literal", value);
            end_document(out, start);
        };
        let pipeline = begin_document(out);
        raw::write_key(out, ElementType::EmbeddedDocument, "0");
        let stage = begin_document(out);
        raw::write_key(out, ElementType::EmbeddedDocument, "$replaceWith");
        let with = begin_document(out);
        raw::write_key(out, ElementType::Array, "$mergeObjects");
        let objects = begin_document(out);
        raw::write_key(out, ElementType::EmbeddedDocument, "0");
        let replacing = begin_document(out);
        match document {
            Some(document) => document.write(out, "$literal"),
            None => raw::write_text(out, DELETED_FIELD, "$$NOW"),
        }
        end_document(out, replacing);
        raw::write_key(out, ElementType::EmbeddedDocument, "1");
        let kept = begin_document(out);
        literal(out, "_id", entity.id);
        match self.guard {
            Some(guard) => {
                raw::write_key(out, ElementType::EmbeddedDocument, WATERMARK_FIELD);
                let watermarks = begin_document(out);
                raw::write_key(out, ElementType::Array, "$mergeObjects");
                let merged = begin_document(out);
                raw::write_text(out, "0", WATERMARKS);
                raw::write_key(out, ElementType::EmbeddedDocument, "1");
                let own = begin_document(out);
                let last = ValueRef { kind: ElementType::Int64, bytes: &watermark.to_le_bytes() };
                literal(out, &guard.id, last);
                [own, merged, watermarks].into_iter().for_each(|start| end_document(out, start));
            }
            None => raw::write_text(out, WATERMARK_FIELD, WATERMARKS),
        }
        [kept, objects, with, stage].into_iter().for_each(|start| end_document(out, start));
        if !entity.shard_key.is_empty() {
            raw::write_key(out, ElementType::EmbeddedDocument, "1");
            let stage = begin_document(out);
            raw::write_key(out, ElementType::EmbeddedDocument, "$set");
            let set = begin_document(out);
            raw::bare_elements(entity.shard_key).for_each(|(field, value)| literal(out, field, value));
            [set, stage].into_iter().for_each(|start| end_document(out, start));
        }
        end_document(out, pipeline);
    }
}

/// Writes what a filter says of an entity: `_id` and shard key.
pub(super) fn write_entity(out: &mut Vec<u8>, entity: EntityRef<'_>) {
    raw::write(out, "_id", entity.id);
    out.extend_from_slice(entity.shard_key);
}

/// A command that statements are still added to, and whose these are.
struct Open {
    collection: CollectionId,
    kind: StatementKind,
    command: BulkCommand,
    writes: Vec<usize>,
}

impl Open {
    /// Adds what is encoded of a write of about so many bytes, if it is. Answers the command so far, if that is full.
    fn add(
        &mut self,
        write: usize,
        bytes: usize,
        encode: impl FnOnce(&mut Vec<u8>) -> bool,
        encoder: &Encoder<'_>,
    ) -> Option<Command> {
        let next = |open: &mut Self| {
            let next = encoder.open(open.collection, open.kind);
            std::mem::replace(open, next)
        };
        let mut full = self.command.is_full(bytes, encoder.limits).then(|| next(self));
        self.command.reserve(bytes);
        if self.command.add(encode) {
            // It may be larger than was thought.
            if self.command.is_over(encoder.limits) {
                let over = full.insert(next(self));
                over.command.move_last(&mut self.command);
            }
            self.writes.push(write);
        }
        full.map(Open::close)
    }

    fn close(self) -> Command {
        Command {
            collection: self.collection,
            kind: self.kind,
            writes: self.writes,
            body: self.command.close(),
        }
    }
}

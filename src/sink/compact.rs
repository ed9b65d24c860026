//! Keeps Yjs documents short: merges stored updates into one where they have become many.
//!
//! Merged updates take the place of exactly the array they were read as, wherever it is met: that is the
//! whole condition. So nobody's later update is lost, and a compaction that arrives late, twice or from a former
//! owner does no harm. The watermark stays as it is, since no event is applied.

use std::collections::HashMap;

use bson::{Bson, Document, doc};

use super::{Sink, SinkError, raw_to_document};
use crate::change::{CollectionId, Entity};
use crate::coalesce::Update;
use crate::metrics::WriteOp;
use crate::raw::{begin_document, end_document};
use crate::sink::Write;
use crate::sink::command::write_entity;
use crate::yjs;

/// A Yjs document that has grown and is to be looked at.
#[derive(Debug)]
pub(crate) struct Grown {
    entity: Entity,
    field: Box<str>,
}

/// What there is beside the updates in a document or command.
const ROOM: usize = 64 * 1024;

impl Sink {
    /// The Yjs documents of a write that it is time to look at. Looking costs a read, so only one of several
    /// writes leads to it; how many depends on how long the array may become.
    pub(crate) fn grown(&self, write: &Write) -> Vec<Grown> {
        let Update::Fields(fields) = &write.segment.update else { return Vec::new() };
        let mut yjs = fields.yjs().peekable();
        if yjs.peek().is_none() {
            return Vec::new();
        }
        let mapping = self.live.mapping();
        let due = |field: &&str| {
            let limit = mapping.compaction.limit(write.entity.get().collection, field);
            limit.is_some_and(|limit| fastrand::u32(0..(limit / 4).max(1)) == 0)
        };
        let grown = |field: &str| Grown { entity: write.entity.clone(), field: field.into() };
        yjs.filter(due).map(grown).collect()
    }

    /// Merges the updates of those documents that have too many. A failure is not one of any event: there
    /// will be another occasion.
    pub(crate) async fn compact(&self, grown: Vec<Grown>) {
        let mut by_field: HashMap<(CollectionId, Box<str>), Vec<Entity>> = HashMap::new();
        for Grown { entity, field } in grown {
            by_field.entry((entity.get().collection, field)).or_default().push(entity);
        }
        for ((collection, field), entities) in by_field {
            if let Err(error) = self.compact_field(collection, &field, &entities).await {
                tracing::debug!(%error, field, "no Yjs document was compacted");
            }
        }
    }

    async fn compact_field(
        &self,
        collection: CollectionId,
        field: &str,
        entities: &[Entity],
    ) -> Result<(), SinkError> {
        let mapping = self.live.mapping();
        let Some(limit) = mapping.compaction.limit(collection, field) else { return Ok(()) };
        let filters: Vec<Document> = entities.iter().map(filter).collect();
        let long = doc! {
            "$or": filters.clone(),
            format!("{field}.{}", yjs::COUNT): {"$gt": i64::from(limit)},
        };
        let long = bson::serialize_to_vec(&long)?;
        let path = format!("{field}.{}", yjs::UPDATES);
        for document in self.find(collection, &long, &path, entities.len()).await? {
            let Some(id) = document.get("_id") else { continue };
            let Some(Bson::Array(stored)) = at(&document, &path) else { continue };
            let Some(filter) = filters.iter().find(|filter| same_id(filter.get("_id"), id)) else { continue };
            let Some(merged) = merged(stored, self.limits.max_bytes) else { continue };
            self.replace_updates(collection, filter, field, stored, merged).await?;
        }
        Ok(())
    }

    async fn replace_updates(
        &self,
        collection: CollectionId,
        filter: &Document,
        field: &str,
        stored: &[Bson],
        merged: Vec<Bson>,
    ) -> Result<(), SinkError> {
        let updates = format!("{field}.{}", yjs::UPDATES);
        let count = format!("{field}.{}", yjs::COUNT);
        let mut filter = filter.clone();
        filter.insert(updates.clone(), stored.to_vec());
        let length = i32::try_from(merged.len()).unwrap_or(i32::MAX);
        let command = doc! {
            "update": self.live.mapping().collections.name(collection),
            "updates": [{"q": filter, "u": {"$set": {updates: merged, count: length}}}],
            "writeConcern": raw_to_document(&self.write_concern),
        };
        let reply = self.run_document(&command).await?;
        if matches!(reply.get_i32("nModified"), Ok(1)) {
            self.metrics.writes(collection, WriteOp::Compact, 1);
            tracing::debug!(field, from = stored.len(), to = length, "compacted a Yjs document");
        }
        Ok(())
    }
}

fn filter(entity: &Entity) -> Document {
    let mut out = Vec::new();
    let start = begin_document(&mut out);
    write_entity(&mut out, entity.get());
    end_document(&mut out, start);
    raw_to_document(&out)
}

/// Whether two ids are the same to MongoDB, as far as events can name them.
fn same_id(one: Option<&Bson>, other: &Bson) -> bool {
    let integer = |id: &Bson| match id {
        Bson::Int32(n) => Some(i64::from(*n)),
        Bson::Int64(n) => Some(*n),
        Bson::Double(n) if n.fract() == 0.0 => Some(*n as i64),
        _ => None,
    };
    one.is_some_and(|one| one == other || integer(one).is_some_and(|n| integer(other) == Some(n)))
}

fn at<'d>(document: &'d Document, path: &str) -> Option<&'d Bson> {
    match path.split_once('.') {
        None => document.get(path),
        Some((first, rest)) => at(document.get_document(first).ok()?, rest),
    }
}

/// The updates merged. None if that makes them no fewer, if they are none, or if a command that names them
/// would be too large.
fn merged(stored: &[Bson], max_bytes: usize) -> Option<Vec<Bson>> {
    let updates: Vec<Vec<u8>> = stored
        .iter()
        .map(|update| match update {
            Bson::Binary(binary) if yjs::check(&binary.bytes).is_ok() => Some(binary.bytes.clone()),
            _ => None,
        })
        .collect::<Option<_>>()?;
    if 2 * updates.iter().map(|update| update.len() + 16).sum::<usize>() + ROOM > max_bytes {
        return None;
    }
    let merged = yjs::merge(updates);
    let binary = |bytes| Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes });
    (merged.len() < stored.len()).then(|| merged.into_iter().map(binary).collect())
}

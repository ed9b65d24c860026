//! Holds the pending updates of a lane, found by entity and split off in the order of their oldest event.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;
use tokio::time::Instant;

use super::quarantine::{Unparked, Withheld};
use crate::batch::Backlog;
use crate::change::{Entity, EntityRef, Placed};
use crate::coalesce::{Folded, PendingUpdate};
use crate::history::{Record, Records};
use crate::ledger::{Ledger, Unsettled};
use crate::sink::Write;

/// The pending updates of one lane.
#[derive(Debug)]
pub struct Pending {
    /// The duty to settle all events folded in.
    unsettled: Unsettled,
    /// Places in `entries`, by entity.
    by_entity: HashTable<usize>,
    entries: Vec<Option<PendingEntity>>,
    free: Vec<usize>,
    /// Places in `entries`, oldest event first.
    order: VecDeque<usize>,
    bytes: usize,
}

#[derive(Debug)]
struct PendingEntity {
    hash: u64,
    entity: Entity,
    since: Instant,
    update: PendingUpdate,
    /// Its events, where they are to be kept.
    records: Vec<Record>,
    record_bytes: usize,
    /// Since when MongoDB refuses it for something else than its content.
    refused_since: Option<Instant>,
    /// Offsets of those of its events that are parked.
    parked: Vec<i64>,
}

/// An entry without its update: table slot, id, place in the order.
const ENTRY_OVERHEAD: usize = 256;

impl PendingEntity {
    fn is(&self, entity: EntityRef<'_>) -> bool {
        self.entity.get() == entity
    }

    fn bytes(&self) -> usize {
        let parked = self.parked.len() * size_of::<i64>();
        self.entity.bytes() + self.update.bytes() + self.record_bytes + parked + ENTRY_OVERHEAD
    }

    /// The oldest of its events that the queue must keep.
    fn first(&self) -> Option<i64> {
        let pending = match self.parked.last() {
            None => self.update.first(),
            Some(parked) => self.update.first_behind(*parked),
        };
        let parked = self.parked.last().copied().unwrap_or(i64::MIN);
        let kept = self.records.iter().map(|record| record.offset).find(|offset| *offset > parked);
        pending.into_iter().chain(kept).min()
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

    /// Gives up the duty to settle so many events that were taken on and not folded in yet.
    pub(super) fn give_up(&mut self, events: u64) -> Unsettled {
        self.unsettled.split(events)
    }

    /// Folds a change, whose event was taken on and has waited `since` then, into its entity's pending update.
    pub fn fold(&mut self, placed: &Placed<'_>, since: Instant, max_bytes: usize) -> Folded {
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
        let entry = PendingEntity {
            hash: placed.hash,
            entity: entity.into(),
            since,
            update: PendingUpdate::new(placed),
            records: Vec::new(),
            record_bytes: 0,
            refused_since: None,
            parked: Vec::new(),
        };
        self.insert(entry);
        Folded::Opened
    }

    /// Keeps the event of a change that was folded in.
    pub fn keep(&mut self, placed: &Placed<'_>, record: Record) {
        let (entity, entries) = (placed.change.entity, &mut self.entries);
        let found =
            self.by_entity.find(placed.hash, |at| entries[*at].as_ref().is_some_and(|e| e.is(entity)));
        if let Some(entry) = found.and_then(|at| entries[*at].as_mut()) {
            let bytes = record.bytes();
            entry.record_bytes += bytes;
            self.bytes += bytes;
            entry.records.push(record);
        }
    }

    /// Takes all events that were kept.
    pub fn take_records(&mut self) -> Vec<Records> {
        let mut kept = Vec::new();
        for entry in self.entries.iter_mut().flatten().filter(|entry| !entry.records.is_empty()) {
            self.bytes -= std::mem::take(&mut entry.record_bytes);
            let (entity, records) = (entry.entity.clone(), std::mem::take(&mut entry.records));
            kept.push(Records { entity, hash: entry.hash, records, refused_since: entry.refused_since });
        }
        kept
    }

    fn insert(&mut self, entry: PendingEntity) {
        self.bytes += entry.bytes();
        let (hash, entries) = (entry.hash, &mut self.entries);
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
        self.by_entity.insert_unique(hash, at, |at| entries[*at].as_ref().map_or(0, |e| e.hash));
        self.order.push_back(at);
    }

    fn remove(&mut self, at: usize) -> Option<PendingEntity> {
        let entry = self.entries[at].take()?;
        if let Ok(found) = self.by_entity.find_entry(entry.hash, |other| *other == at) {
            found.remove();
        }
        self.bytes -= entry.bytes();
        self.free.push(at);
        Some(entry)
    }

    /// Splits off the oldest entities with all that is pending of them: at most `max_ops` entities, and
    /// no more than `max_bytes` unless the first alone is larger.
    #[must_use]
    pub fn split_off(&mut self, max_ops: usize, max_bytes: usize) -> Pending {
        let mut batch = Pending::new(self.unsettled.ledger());
        let mut bytes = 0;
        while batch.entities() < max_ops
            && bytes < max_bytes
            && let Some(at) = self.order.pop_front()
        {
            let Some(entry) = self.remove(at) else { continue };
            bytes += entry.bytes();
            batch.take_on(self.unsettled.split(entry.update.events()));
            batch.insert(entry);
        }
        batch
    }

    /// Takes the next segment of every entity. Only when these are settled may the next ones follow.
    pub fn next_segments(&mut self) -> Vec<Write> {
        let mut writes = Vec::with_capacity(self.order.len());
        for at in std::mem::take(&mut self.order) {
            let Some(mut entry) = self.remove(at) else { continue };
            let Some(segment) = entry.update.take_first() else { continue };
            let unsettled = self.unsettled.split(segment.events);
            let (hash, refused_since) = (entry.hash, entry.refused_since);
            let entity = if entry.update.first().is_some() {
                let entity = entry.entity.clone();
                self.insert(entry);
                entity
            } else {
                entry.entity
            };
            writes.push(Write::new(entity, hash, segment, unsettled, refused_since));
        }
        writes
    }

    /// Takes all offsets of parked events.
    pub fn take_parked(&mut self) -> Vec<(Entity, Vec<i64>)> {
        let parked = self.entries.iter_mut().flatten().filter(|entry| !entry.parked.is_empty());
        parked.map(|entry| (entry.entity.clone(), std::mem::take(&mut entry.parked))).collect()
    }

    /// Whether something is pending for the entity.
    #[must_use]
    pub fn has(&self, hash: u64, entity: EntityRef<'_>) -> bool {
        self.find(hash, entity).is_some()
    }

    fn find(&self, hash: u64, entity: EntityRef<'_>) -> Option<usize> {
        let is_it = |at: &usize| self.entries[*at].as_ref().is_some_and(|entry| entry.is(entity));
        self.by_entity.find(hash, is_it).copied()
    }

    /// Moves all that is pending for the entities of `withheld` behind what is withheld of them.
    pub(super) fn give_way(&mut self, withheld: &mut [Withheld]) {
        let mut took = false;
        for withheld in withheld {
            let Some(at) = self.find(withheld.hash, withheld.entity.get()) else { continue };
            let Some(entry) = self.remove(at) else { continue };
            took = true;
            withheld.unsettled.absorb(self.unsettled.split(entry.update.events()));
            withheld.segments.extend(entry.update.into_segments());
            withheld.records.extend(entry.records);
            withheld.parked.extend(entry.parked);
        }
        if took {
            self.order.retain(|at| self.entries[*at].is_some());
        }
    }

    /// Takes on what is withheld of a document of which nothing is pending here.
    pub(super) fn take_on_withheld(&mut self, withheld: Withheld) {
        let Withheld { entity, hash, segments, unsettled, since, records, parked, .. } = withheld;
        let mut update = PendingUpdate::none();
        update.put_back(segments.into_iter());
        let record_bytes = records.iter().map(Record::bytes).sum();
        let refused_since = Some(since);
        self.unsettled.absorb(unsettled);
        self.insert(PendingEntity {
            hash,
            entity,
            since,
            update,
            records,
            record_bytes,
            refused_since,
            parked,
        });
    }

    /// The offset of the oldest event.
    #[must_use]
    pub fn first(&self) -> Option<i64> {
        self.oldest().and_then(|entry| entry.update.first())
    }

    /// The offset of the oldest event that the queue must keep, where entities are in any order.
    #[must_use]
    pub(super) fn first_of_all(&self) -> Option<i64> {
        self.entries.iter().flatten().filter_map(PendingEntity::first).min()
    }

    /// The spans of offsets, by entity, of events that are not parked.
    pub(super) fn unparked(&self) -> Vec<Unparked> {
        let spans = self.entries.iter().flatten().filter_map(|entry| {
            let kept = entry.records.last().map(|record| record.offset);
            let last = entry.update.last().max(kept)?;
            Some(Unparked { hash: entry.hash, entity: entry.entity.clone(), first: entry.first()?, last })
        });
        spans.collect()
    }

    /// Splits off the oldest entities, as [`split_off`](Self::split_off) does; of those that have parked events only these, which
    /// have to be forgotten before anything behind them is written.
    pub(super) fn split_off_parked_first(&mut self, max_ops: usize, max_bytes: usize) -> Pending {
        let mut batch = self.split_off(max_ops, max_bytes);
        for at in 0..batch.entries.len() {
            let Some(entry) = batch.entries[at].as_mut() else { continue };
            let Some(parked) = entry.parked.last().copied() else { continue };
            let before = entry.bytes();
            let update = entry.update.split_off_behind(parked);
            let behind = entry.records.partition_point(|record| record.offset <= parked);
            let records = entry.records.split_off(behind);
            if update.first().is_none() && records.is_empty() {
                continue;
            }
            let record_bytes = records.iter().map(Record::bytes).sum();
            entry.record_bytes -= record_bytes;
            let (hash, entity, since, refused_since) =
                (entry.hash, entry.entity.clone(), entry.since, entry.refused_since);
            batch.bytes = batch.bytes + entry.bytes() - before;
            self.unsettled.absorb(batch.unsettled.split(update.events()));
            let parked = Vec::new();
            self.insert(PendingEntity {
                hash,
                entity,
                since,
                update,
                records,
                record_bytes,
                refused_since,
                parked,
            });
        }
        batch
    }

    /// Notes that these events of an entity are parked. What is pending stays as it is from then on.
    pub(super) fn parked(&mut self, hash: u64, entity: EntityRef<'_>, offsets: Vec<i64>) {
        if let Some(entry) = self.find(hash, entity).and_then(|at| self.entries[at].as_mut()) {
            self.bytes += offsets.len() * size_of::<i64>();
            entry.update.close();
            entry.parked.extend(offsets);
        }
    }

    /// The time that the oldest event gives itself, milliseconds since the Unix epoch; or an event folded onto it.
    #[must_use]
    pub fn ts(&self) -> Option<i64> {
        self.oldest().and_then(|entry| entry.update.ts())
    }

    fn oldest(&self) -> Option<&PendingEntity> {
        // Entities are added in the order of their oldest events, and leave with all of them.
        self.order.front().and_then(|at| self.entries[*at].as_ref())
    }

    /// Events pending.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.unsettled.events()
    }

    /// Since when the oldest entity's first change has waited.
    #[must_use]
    pub fn since(&self) -> Option<Instant> {
        self.oldest().map(|entry| entry.since)
    }

    /// What the batch policy goes by.
    #[must_use]
    pub fn held(&self, now: Instant) -> Backlog {
        let waited = self.since().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        Backlog { ops: self.entities(), events: self.events(), bytes: self.bytes, waited }
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
mod tests;

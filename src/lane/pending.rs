//! Holds the pending updates of a lane, found by entity and split off by age or by deadline.

mod entity;
mod withheld;

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;
use tokio::time::Instant;

pub use self::entity::Deadline;
use self::entity::PendingEntity;
use super::schedule::Schedule;
use crate::batch::{Backlog, FirstDue};
use crate::change::{EntityRef, Placed};
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
    /// The order of places in `entries`.
    schedule: Schedule,
    /// How long changes without a timing of their own wait. None where nothing has a deadline: in batches, and in quarantine.
    max_delay: Option<Duration>,
    bytes: usize,
    /// Entities that wait no longer than `max_delay`, and their bytes.
    prompt_ops: usize,
    prompt_bytes: usize,
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
            schedule: Schedule::default(),
            max_delay: None,
            bytes: 0,
            prompt_ops: 0,
            prompt_bytes: 0,
        }
    }

    /// The same, of changes that have deadlines: without a timing of their own they wait for `max_delay`.
    #[must_use]
    pub fn with_deadlines(ledger: &Arc<Ledger>, max_delay: Duration) -> Self {
        Pending { max_delay: Some(max_delay), ..Pending::new(ledger) }
    }

    /// Has changes without a timing of their own wait for so long, those that wait already, too.
    pub fn set_max_delay(&mut self, max_delay: Duration) {
        if self.max_delay.is_none_or(|former| former == max_delay) {
            return;
        }
        self.max_delay = Some(max_delay);
        self.schedule.by_age().into_iter().for_each(|at| self.see_when_due(at));
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
        self.fold_until(placed, since, Deadline::Default, max_bytes)
    }

    /// The same, of a change that may wait until `deadline`.
    pub fn fold_until(
        &mut self,
        placed: &Placed<'_>,
        since: Instant,
        deadline: Deadline,
        max_bytes: usize,
    ) -> Folded {
        let entity = placed.change.entity;
        let entries = &mut self.entries;
        let found =
            self.by_entity.find(placed.hash, |at| entries[*at].as_ref().is_some_and(|e| e.is(entity)));
        if let Some((at, entry)) = found.and_then(|at| Some((*at, entries[*at].as_mut()?))) {
            let before = entry.update.bytes();
            let folded = entry.update.fold(placed, max_bytes);
            let after = entry.update.bytes();
            self.bytes = self.bytes - before + after;
            if entry.is_prompt {
                self.prompt_bytes = self.prompt_bytes - before + after;
            }
            if self.max_delay.is_some() && entry.hasten(deadline, since) {
                self.see_when_due(at);
            }
            return folded;
        }
        let mut entry = PendingEntity::new(entity.into(), placed.hash, since, PendingUpdate::new(placed));
        if self.max_delay.is_some() {
            entry.hasten(deadline, since);
        }
        self.insert(entry);
        Folded::Opened
    }

    /// Has everything that waits for an entity written at once. Answers whether anything does.
    pub fn flush(&mut self, placed: &Placed<'_>, now: Instant) -> bool {
        let Some(at) = self.find(placed.hash, placed.change.entity) else { return false };
        if let Some(entry) = self.entries[at].as_mut()
            && entry.hasten(Deadline::At(now), now)
        {
            self.see_when_due(at);
        }
        true
    }

    /// Notes when an entity is due, which may not be when it was.
    fn see_when_due(&mut self, at: usize) {
        let (Some(max_delay), Some(entry)) = (self.max_delay, self.entries[at].as_mut()) else { return };
        let due = entry.due(max_delay);
        self.schedule.set_deadline(at, due);
        let is_prompt = due.is_some_and(|due| due.is_prompt);
        if std::mem::replace(&mut entry.is_prompt, is_prompt) != is_prompt {
            let bytes = entry.bytes();
            match is_prompt {
                true => {
                    (self.prompt_ops, self.prompt_bytes) = (self.prompt_ops + 1, self.prompt_bytes + bytes)
                }
                false => {
                    (self.prompt_ops, self.prompt_bytes) = (self.prompt_ops - 1, self.prompt_bytes - bytes)
                }
            }
        }
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
            if entry.is_prompt {
                self.prompt_bytes += bytes;
            }
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
        self.schedule.insert(at, None);
        self.see_when_due(at);
    }

    fn remove(&mut self, at: usize) -> Option<PendingEntity> {
        let entry = self.entries[at].take()?;
        if let Ok(found) = self.by_entity.find_entry(entry.hash, |other| *other == at) {
            found.remove();
        }
        let bytes = entry.bytes();
        self.bytes -= bytes;
        if entry.is_prompt {
            self.prompt_ops -= 1;
            self.prompt_bytes -= bytes;
        }
        self.schedule.remove(at);
        self.free.push(at);
        Some(entry)
    }

    /// Splits off the oldest entities with all that is pending of them: at most `max_ops` entities, and
    /// no more than `max_bytes` unless the first alone is larger.
    #[must_use]
    pub fn split_off(&mut self, max_ops: usize, max_bytes: usize) -> Pending {
        self.split_off_while(max_ops, max_bytes, |pending| pending.schedule.oldest())
    }

    /// The same, of those that are due by then, what is due first in front. Prompt ones go only `with_prompt`.
    #[must_use]
    pub fn split_off_due(
        &mut self,
        by: Instant,
        with_prompt: bool,
        max_ops: usize,
        max_bytes: usize,
    ) -> Pending {
        self.split_off_while(max_ops, max_bytes, |pending| {
            let schedule = &pending.schedule;
            let first = if with_prompt { schedule.first_due() } else { schedule.first_due_of(false) };
            first.filter(|(_, due)| due.at <= by).map(|(at, _)| at)
        })
    }

    /// The same, of those that have an event below an offset, the oldest in front.
    #[must_use]
    pub fn split_off_below(&mut self, offset: i64, max_ops: usize, max_bytes: usize) -> Pending {
        self.split_off_while(max_ops, max_bytes, |pending| {
            pending.schedule.oldest().filter(|_| pending.first().is_some_and(|first| first < offset))
        })
    }

    fn split_off_while(
        &mut self,
        max_ops: usize,
        max_bytes: usize,
        next: impl Fn(&Pending) -> Option<usize>,
    ) -> Pending {
        let mut batch = Pending::new(self.unsettled.ledger());
        let mut bytes = 0;
        while batch.entities() < max_ops
            && bytes < max_bytes
            && let Some(mut entry) = next(self).and_then(|at| self.remove(at))
        {
            bytes += entry.bytes();
            batch.take_on(self.unsettled.split(entry.update.events()));
            entry.is_prompt = false;
            batch.insert(entry);
        }
        batch
    }

    /// Takes the next segment of every entity. Only when these are settled may the next ones follow.
    pub fn next_segments(&mut self) -> Vec<Write> {
        let mut writes = Vec::with_capacity(self.entities());
        for at in self.schedule.by_age() {
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

    /// Whether something is pending for the entity.
    #[must_use]
    pub fn has(&self, hash: u64, entity: EntityRef<'_>) -> bool {
        self.find(hash, entity).is_some()
    }

    fn find(&self, hash: u64, entity: EntityRef<'_>) -> Option<usize> {
        let is_it = |at: &usize| self.entries[*at].as_ref().is_some_and(|entry| entry.is(entity));
        self.by_entity.find(hash, is_it).copied()
    }

    /// The offset of the oldest event.
    #[must_use]
    pub fn first(&self) -> Option<i64> {
        self.oldest().and_then(|entry| entry.update.first())
    }

    /// The time that the oldest event gives itself, milliseconds since the Unix epoch; or an event folded onto it.
    #[must_use]
    pub fn ts(&self) -> Option<i64> {
        self.oldest().and_then(|entry| entry.update.ts())
    }

    fn oldest(&self) -> Option<&PendingEntity> {
        // Entities are added in the order of their oldest events, and leave with all of them.
        self.schedule.oldest().and_then(|at| self.entries[at].as_ref())
    }

    /// Events pending.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.unsettled.events()
    }

    /// What the batch policy goes by, if nothing is known of what is to come. What waits long and is below an offset has to go.
    #[must_use]
    pub fn held(&self, to_go: i64, now: Instant) -> Backlog {
        let first_due = self.schedule.first_due().and_then(|(at, due)| {
            let since = self.entries[at].as_ref()?.since;
            let (due_in, waited) =
                (due.at.saturating_duration_since(now), now.saturating_duration_since(since));
            Some(FirstDue { due_in, waited, is_prompt: due.is_prompt })
        });
        Backlog {
            ops: self.entities(),
            events: self.events(),
            prompt_ops: self.prompt_ops,
            prompt_bytes: self.prompt_bytes,
            first_due,
            // A prompt one goes soon, and folds meanwhile.
            is_pressed: self.oldest().is_some_and(|oldest| {
                !oldest.is_prompt && oldest.update.first().is_some_and(|first| first < to_go)
            }),
            to_come: 0,
        }
    }

    /// The hashes of the entities.
    pub(super) fn hashes(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().flatten().map(|entry| entry.hash)
    }

    /// Entities with a pending update.
    #[must_use]
    pub fn entities(&self) -> usize {
        self.schedule.len()
    }

    /// Bytes of memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod timing_tests;

//! Takes on what MongoDB does not take now, and keeps apart what of it is parked.

use super::Pending;
use super::entity::PendingEntity;
use crate::change::{Entity, EntityRef};
use crate::coalesce::PendingUpdate;
use crate::history::Record;
use crate::lane::quarantine::{Unparked, Withheld};

impl Pending {
    /// Takes all offsets of parked events.
    pub fn take_parked(&mut self) -> Vec<(Entity, Vec<i64>)> {
        let parked = self.entries.iter_mut().flatten().filter(|entry| !entry.parked.is_empty());
        parked.map(|entry| (entry.entity.clone(), std::mem::take(&mut entry.parked))).collect()
    }

    /// Moves all that is pending for the entities of `withheld` behind what is withheld of them.
    pub(in crate::lane) fn give_way(&mut self, withheld: &mut [Withheld]) {
        for withheld in withheld {
            let Some(at) = self.find(withheld.hash, withheld.entity.get()) else { continue };
            let Some(entry) = self.remove(at) else { continue };
            withheld.unsettled.absorb(self.unsettled.split(entry.update.events()));
            withheld.segments.extend(entry.update.into_segments());
            withheld.records.extend(entry.records);
            withheld.parked.extend(entry.parked);
        }
    }

    /// Takes on what is withheld of a document of which nothing is pending here.
    pub(in crate::lane) fn take_on_withheld(&mut self, withheld: Withheld) {
        let Withheld { entity, hash, segments, unsettled, since, records, parked, .. } = withheld;
        let mut update = PendingUpdate::none();
        update.put_back(segments.into_iter());
        let record_bytes = records.iter().map(Record::bytes).sum();
        self.unsettled.absorb(unsettled);
        self.insert(PendingEntity {
            records,
            record_bytes,
            refused_since: Some(since),
            parked,
            ..PendingEntity::new(entity, hash, since, update)
        });
    }

    /// The offset of the oldest event that the queue must keep, where entities are in any order.
    #[must_use]
    pub(in crate::lane) fn first_of_all(&self) -> Option<i64> {
        self.entries.iter().flatten().filter_map(PendingEntity::first).min()
    }

    /// The spans of offsets, by entity, of events that are not parked.
    pub(in crate::lane) fn unparked(&self) -> Vec<Unparked> {
        let spans = self.entries.iter().flatten().filter_map(|entry| {
            let kept = entry.records.last().map(|record| record.offset);
            let last = entry.update.last().max(kept)?;
            Some(Unparked { hash: entry.hash, entity: entry.entity.clone(), first: entry.first()?, last })
        });
        spans.collect()
    }

    /// Splits off the oldest entities, as [`split_off`](Self::split_off) does; of those that have parked events only these, which
    /// have to be forgotten before anything behind them is written.
    pub(in crate::lane) fn split_off_parked_first(&mut self, max_ops: usize, max_bytes: usize) -> Pending {
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
            self.insert(PendingEntity {
                records,
                record_bytes,
                refused_since,
                ..PendingEntity::new(entity, hash, since, update)
            });
        }
        batch
    }

    /// Notes that these events of an entity are parked. What is pending stays as it is from then on.
    pub(in crate::lane) fn parked(&mut self, hash: u64, entity: EntityRef<'_>, offsets: Vec<i64>) {
        if let Some(entry) = self.find(hash, entity).and_then(|at| self.entries[at].as_mut()) {
            self.bytes += offsets.len() * size_of::<i64>();
            entry.update.close();
            entry.parked.extend(offsets);
        }
    }
}

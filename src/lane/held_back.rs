//! Holds documents back that MongoDB does not take now, parks their events, and tries them again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::parking::park;
use super::quarantine::shared_name;
use super::{InFlight, Lane, Settled};
use crate::batch::Policy;
use crate::change::{Chunk, CollectionId};
use crate::history::Record;
use crate::ledger::Unsettled;

/// How long documents wait for MongoDB to take them until their events are parked, so that the queue can go on without.
const PARKED_AFTER: Duration = Duration::from_secs(5);

impl Lane {
    /// Takes on changes that wait since a former ownership.
    pub(super) fn take_on(&mut self, chunk: &Chunk, unsettled: Unsettled, records: Vec<Record>) {
        self.pending.take_on(unsettled);
        let mut records = records.into_iter().peekable();
        let mut names: HashMap<CollectionId, Arc<str>> = HashMap::new();
        for (placed, _) in chunk.iter() {
            let record = records.next_if(|record| record.offset == placed.offset);
            let collection = placed.change.entity.collection;
            let name = names
                .entry(collection)
                .or_insert_with(|| shared_name(&self.queue.mapping.collections, collection));
            self.quarantine.take_on_parked(&placed, name, record, &mut self.pending);
        }
        self.account();
        self.queue.status.holds_back(self.index, self.quarantine.told());
    }

    /// Takes back what a batch left, or notes what is parked.
    pub(super) fn take_back(&mut self, settled: Settled) {
        let in_flight = self.in_flight.take();
        match settled {
            Settled::Parked(parked) => self.quarantine.parked(parked),
            Settled::Batch(mut withheld) => {
                if let Some(batch) = &in_flight {
                    self.size.took(batch.documents, batch.began.elapsed());
                }
                let tried = in_flight.and_then(|batch| batch.tried);
                if !withheld.is_empty() {
                    self.pending.give_way(&mut withheld);
                }
                if tried.is_some() || !withheld.is_empty() {
                    self.quarantine.withhold(withheld, tried.as_ref().map(|(name, tried)| (name, *tried)));
                    self.account();
                }
            }
        }
        self.queue.status.holds_back(self.index, self.quarantine.told());
    }

    /// When something is to be done for what is in quarantine.
    pub(super) fn quarantine_due(&self) -> Option<Instant> {
        if self.quarantine.is_empty() {
            return None;
        }
        let parks_at = self.quarantine.parks_at(PARKED_AFTER).filter(|_| self.can_park());
        self.quarantine.next().into_iter().chain(parks_at).min()
    }

    pub(super) fn can_park(&self) -> bool {
        self.queue.source.lease().is_some() && self.queue.parked.has_room()
    }

    /// Parks what has been in quarantine for long, or tries some of it again. While the queue is flushed nothing waits.
    pub(super) fn send_from_quarantine(&mut self, policy: Policy) -> bool {
        let waits = if self.flushing { Duration::ZERO } else { PARKED_AFTER };
        let unparked = if self.can_park() { self.quarantine.unparked(waits) } else { Vec::new() };
        if !unparked.is_empty() {
            let queue = Arc::clone(&self.queue);
            let settling = Box::pin(async move { park(&queue, unparked).await.map(Settled::Parked) });
            self.in_flight = Some(InFlight::new(settling));
            return true;
        }
        let due = self.quarantine.take_due(Instant::now(), policy.max_ops, policy.max_bytes);
        let Some((collection, batch)) = due else { return false };
        let tried = Some((collection, batch.entities()));
        self.send(batch, tried);
        true
    }
}

//! Holds writes that are durable until the hot states of their documents are fresh; then it settles them.
//!
//! In this order nothing is lost. Who settles first, and dies before a state is refreshed, would leave it stale for ever.
//! Who refreshes first, and dies before settling, has a successor who finds the write in MongoDB and refreshes again.

use crate::change::{CollectionId, Entity, EntityRef};
use crate::coalesce::Segment;
use crate::hot_state::Refreshed;
use crate::hot_state::{Program, StateKeys, is_exact};
use crate::ownership::Owned;
use crate::sink::Guard;
use crate::sink::Write;
use crate::source::{Lease, Looked, Refresh, SourceError};

/// Documents that are looked at in one call of a script.
const STATES: usize = 256;
/// Hot states that are refreshed in one call: Redis does nothing else meanwhile.
const REFRESHES: usize = 64;
/// Bytes of one call's keys or programs, unless the first alone is larger.
const BYTES: usize = 1 << 20;

/// Durable writes that are held. Dropping them hands their events back.
pub(super) struct Durable<'q> {
    queue: &'q Owned,
    held: Vec<Held>,
}

enum Held {
    /// It was written.
    Persisted(Write),
    /// It was found to have been written before.
    Found(Write),
    /// Nobody knows how much of what was written before its hot state has. It is settled by somebody else.
    InPart(Entity),
}

impl Held {
    fn entity(&self) -> &Entity {
        match self {
            Held::Persisted(write) | Held::Found(write) => &write.entity,
            Held::InPart(entity) => entity,
        }
    }

    /// What to apply to the hot state, if it can stay.
    fn segment(&self) -> Option<&Segment> {
        match self {
            Held::Persisted(write) | Held::Found(write) => {
                // A state that has the watermark of another numbering cannot tell what it has.
                let is_told = write.instead_of.lock().is_none();
                Some(&write.segment).filter(|segment| is_told && is_exact(&segment.update))
            }
            Held::InPart(_) => None,
        }
    }
}

/// A document whose hot state is to be looked at.
struct Place<'h> {
    collection: CollectionId,
    keys: StateKeys,
    ttl_ms: u64,
    segment: Option<&'h Segment>,
}

impl<'q> Durable<'q> {
    /// Nothing is held.
    pub(super) fn new(queue: &'q Owned) -> Self {
        Durable { queue, held: Vec::new() }
    }

    /// Takes on a write that is durable. It is settled at once where its collection has no hot states.
    pub(super) fn persisted(&mut self, write: Write) {
        match self.ttl_ms(&write.entity) {
            Some(_) => self.held.push(Held::Persisted(write)),
            None => self.queue.persisted(write),
        }
    }

    /// Takes on a write that was found to be durable. Who wrote it may have ended before it refreshed the hot state.
    pub(super) fn found(&mut self, write: Write) {
        match self.ttl_ms(&write.entity) {
            Some(_) => self.held.push(Held::Found(write)),
            None => self.queue.found(write),
        }
    }

    /// Notes that some of an entity's events were found to be durable, and perhaps are not in its hot state.
    pub(super) fn in_part(&mut self, entity: &Entity) {
        if self.ttl_ms(entity).is_some() {
            self.held.push(Held::InPart(entity.clone()));
        }
    }

    /// Refreshes the hot states of all documents whose writes are held, and settles these.
    pub(super) async fn refresh(&mut self) -> Result<(), SourceError> {
        if self.held.is_empty() {
            return Ok(());
        }
        let queue = self.queue;
        if let Some(lease) = queue.source.lease() {
            let places: Vec<_> = self.held.iter().filter_map(|held| self.place(held)).collect();
            for part in parts(&places) {
                refresh(queue, lease, part).await?;
            }
        }
        for held in self.held.drain(..) {
            match held {
                Held::Persisted(write) => queue.persisted(write),
                Held::Found(write) => queue.found(write),
                Held::InPart(_) => {}
            }
        }
        Ok(())
    }

    fn place<'h>(&self, held: &'h Held) -> Option<Place<'h>> {
        let entity = held.entity();
        let ttl_ms = self.ttl_ms(entity)?;
        let EntityRef { collection, id, .. } = entity.get();
        let keys = StateKeys::new(self.queue.mapping.collections.name(collection), id);
        // Without a guard nothing would tell what a state has.
        let segment = held.segment().filter(|_| self.queue.guard.is_some());
        Some(Place { collection, keys, ttl_ms, segment })
    }

    fn ttl_ms(&self, entity: &Entity) -> Option<u64> {
        let ttl = self.queue.mapping.hot_states.ttl(entity.get().collection)?;
        Some(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
    }
}

/// What one call of a script looks at.
fn parts<'p, 'h>(mut rest: &'p [Place<'h>]) -> impl Iterator<Item = &'p [Place<'h>]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |place: &&Place<'_>| {
            bytes += place.keys.bytes();
            bytes <= BYTES
        };
        let count = rest.iter().take(STATES).take_while(fits).count().max(1).min(rest.len());
        let (part, behind) = rest.split_at(count);
        rest = behind;
        (!part.is_empty()).then_some(part)
    })
}

/// Refreshes the hot states that there are. Most documents have none: only for those that have one is more done than
/// to look.
async fn refresh(queue: &Owned, lease: &Lease, places: &[Place<'_>]) -> Result<(), SourceError> {
    let metrics = &queue.shared.metrics;
    let watermark = queue.guard.as_ref().map_or("", Guard::path);
    let looked: Vec<_> = places.iter().map(|place| (&place.keys, place.segment.is_none())).collect();
    let looked = lease.look_at_hot_states(&looked).await?;
    let mut there = places.iter().zip(looked).filter_map(|(place, looked)| {
        if looked == Looked::Deleted {
            metrics.hot_state(place.collection, Refreshed::Deleted);
        }
        Some((place, place.segment.filter(|_| looked == Looked::There)?))
    });
    loop {
        let (mut bytes, mut collections, mut refreshes) = (0, Vec::new(), Vec::new());
        while bytes < BYTES
            && refreshes.len() < REFRESHES
            && let Some((place, segment)) = there.next()
        {
            let program = Program::new(&segment.update);
            bytes += place.keys.bytes() + program.as_ref().map_or(0, Program::bytes);
            let (first, last, ttl_ms) = (segment.guard(), segment.last, place.ttl_ms);
            collections.push(place.collection);
            refreshes.push(Refresh { key: &place.keys.state, first, last, ttl_ms, program });
        }
        if refreshes.is_empty() {
            return Ok(());
        }
        let beyond = refreshes.first().and_then(|refresh| queue.source.beyond_numbering(refresh.last));
        let outcomes = lease.refresh_hot_states((watermark, beyond), &refreshes).await?;
        for (collection, outcome) in collections.into_iter().zip(outcomes) {
            if let Some(outcome) = outcome {
                metrics.hot_state(collection, outcome);
            }
        }
    }
}

//! Holds documents back that MongoDB refuses to write for something else than their content.
//! That may be rights on a collection, a server's trouble with a statement, or a code that says nothing. They wait here
//! with all that comes for them, and the others go on.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::pending::Pending;
use super::reread::Span;
use crate::change::{CollectionId, Entity, EntityRef, Placed};
use crate::coalesce::{Folded, Segment};
use crate::history::Record;
use crate::ledger::{Ledger, Unsettled};
use crate::retry::Backoff;
use crate::sink::SinkError;
use crate::sink::Write;
use crate::status::HeldBack;

/// Of the documents that wait, one in so many is tried at once.
const TRIED_OF: usize = 8;
/// But no fewer than these.
const TRIED: usize = 16;

/// How often what comes for documents that wait is parked.
const PARKED_EVERY: Duration = Duration::from_secs(1);

/// A document that cannot be written now, with all of its writes that were on their way.
#[derive(Debug)]
pub(super) struct Withheld {
    pub(super) entity: Entity,
    pub(super) hash: u64,
    /// What is to be written, in order. None where only a history is behind.
    pub(super) segments: VecDeque<Segment>,
    pub(super) unsettled: Unsettled,
    /// Events that are to be kept once they are durable.
    pub(super) records: Vec<Record>,
    /// Offsets of those of its events that are parked.
    pub(super) parked: Vec<i64>,
    /// When it was first refused.
    pub(super) since: Instant,
    pub(super) error: SinkError,
    /// The collection that is refused.
    pub(super) collection: Arc<str>,
}

impl Withheld {
    /// A write that MongoDB refused for something else than its content.
    pub(super) fn new(write: Write, error: SinkError, collection: Arc<str>) -> Self {
        let Write { entity, hash, segment, unsettled, refused_since, .. } = write;
        Withheld {
            entity,
            hash,
            segments: [segment].into(),
            unsettled,
            records: Vec::new(),
            parked: Vec::new(),
            since: refused_since.unwrap_or_else(Instant::now),
            error,
            collection,
        }
    }

    /// One more write of the document, which comes behind.
    pub(super) fn add(&mut self, write: Write) {
        self.segments.push_back(write.segment);
        self.unsettled.absorb(write.unsettled);
    }

    /// The offset of its first event that is not durable.
    pub(super) fn first(&self) -> i64 {
        self.segments.front().map_or(i64::MAX, |segment| segment.first)
    }
}

/// The events of an entity between two offsets, which are not parked.
#[derive(Debug)]
pub(super) struct Unparked {
    pub(super) hash: u64,
    pub(super) entity: Entity,
    pub(super) first: i64,
    pub(super) last: i64,
}

impl Span for Unparked {
    fn hash(&self) -> u64 {
        self.hash
    }

    fn entity(&self) -> EntityRef<'_> {
        self.entity.get()
    }

    fn offsets(&self) -> RangeInclusive<i64> {
        self.first..=self.last
    }
}

/// The documents of one collection that wait.
struct Group {
    collection: Arc<str>,
    pending: Pending,
    error: SinkError,
    since: Instant,
    next: Instant,
    backoff: Backoff,
    /// The oldest offset that the queue must keep.
    first: Option<i64>,
}

/// All documents of a lane that wait.
pub(super) struct Quarantine {
    ledger: Arc<Ledger>,
    groups: Vec<Group>,
    /// When events were last parked.
    parked: Option<Instant>,
}

impl Quarantine {
    pub(super) fn new(ledger: &Arc<Ledger>) -> Self {
        Quarantine { ledger: Arc::clone(ledger), groups: Vec::new(), parked: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Folds a change in, if its document waits. The duty to settle its event moves from `pending`.
    pub(super) fn fold(
        &mut self,
        placed: &Placed<'_>,
        since: Instant,
        max_bytes: usize,
        pending: &mut Pending,
    ) -> Option<Folded> {
        let group = self.group_of(placed.hash, placed.change.entity)?;
        group.pending.take_on(pending.give_up(1));
        let folded = group.pending.fold(placed, since, max_bytes);
        group.first = group.first.or(Some(placed.offset));
        Some(folded)
    }

    /// Keeps the event of a change that was folded in.
    pub(super) fn keep(&mut self, placed: &Placed<'_>, record: Record) {
        if let Some(group) = self.group_of(placed.hash, placed.change.entity) {
            group.pending.keep(placed, record);
        }
    }

    fn group_of(&mut self, hash: u64, entity: EntityRef<'_>) -> Option<&mut Group> {
        self.groups.iter_mut().find(|group| group.pending.has(hash, entity))
    }

    /// Takes documents on. Those that MongoDB took meanwhile are a reason to try the next ones of their group at once.
    pub(super) fn withhold(&mut self, mut withheld: Vec<Withheld>, tried: Option<(&Arc<str>, usize)>) {
        let now = Instant::now();
        if let Some((collection, tried)) = tried
            && let Some(group) = self.groups.iter_mut().find(|group| group.collection == *collection)
        {
            let refused = withheld.iter().filter(|withheld| withheld.collection == *collection).count();
            if refused < tried {
                group.backoff.reset();
                group.next = now;
            } else {
                group.next = now + group.backoff.wait();
            }
        }
        self.groups.iter_mut().for_each(|group| group.pending.give_way(&mut withheld));
        for withheld in withheld {
            let group = self.group(&withheld, now);
            group.error = withheld.error.clone();
            group.pending.take_on_withheld(withheld);
        }
        self.groups.retain(|group| {
            let is_over = group.pending.entities() == 0;
            if is_over {
                let after = group.since.elapsed().as_secs_f64();
                tracing::info!(
                    "documents of {:?} that MongoDB refused are written after {after:.1} s",
                    group.collection
                );
            }
            !is_over
        });
        self.groups.iter_mut().for_each(|group| group.first = group.pending.first_of_all());
    }

    fn group(&mut self, withheld: &Withheld, now: Instant) -> &mut Group {
        let known = self.groups.iter().position(|group| group.collection == withheld.collection);
        let at = known.unwrap_or_else(|| {
            let Withheld { collection, error, .. } = withheld;
            tracing::warn!(
                "MongoDB refuses to write documents of {collection:?}: {error}; they wait, others go on"
            );
            self.open(collection, error, now)
        });
        &mut self.groups[at]
    }

    fn open(&mut self, collection: &Arc<str>, error: &SinkError, now: Instant) -> usize {
        let mut backoff = Backoff::default();
        self.groups.push(Group {
            collection: Arc::clone(collection),
            pending: Pending::new(&self.ledger),
            error: error.clone(),
            since: now,
            next: now + backoff.wait(),
            backoff,
            first: None,
        });
        self.groups.len() - 1
    }

    /// Takes on an event that is parked, as a write of its own, to be tried soon. The duty to settle it moves from `pending`.
    pub(super) fn take_on_parked(
        &mut self,
        placed: &Placed<'_>,
        collection: &Arc<str>,
        record: Option<Record>,
        pending: &mut Pending,
    ) {
        let now = Instant::now();
        let known = self.groups.iter().position(|group| group.collection == *collection);
        let at = known
            .unwrap_or_else(|| self.open(collection, &SinkError::transient("they were parked before"), now));
        let group = &mut self.groups[at];
        group.pending.take_on(pending.give_up(1));
        group.pending.fold(placed, now, usize::MAX);
        record.into_iter().for_each(|record| group.pending.keep(placed, record));
        group.pending.parked(placed.hash, placed.change.entity, vec![placed.offset]);
    }

    /// When the next ones are to be tried.
    pub(super) fn next(&self) -> Option<Instant> {
        self.groups.iter().map(|group| group.next).min()
    }

    /// Takes documents that are to be tried now, with the collection that refused them.
    pub(super) fn take_due(
        &mut self,
        now: Instant,
        max_ops: usize,
        max_bytes: usize,
    ) -> Option<(Arc<str>, Pending)> {
        let group =
            self.groups.iter_mut().filter(|group| group.next <= now).min_by_key(|group| group.next)?;
        let some = (group.pending.entities() / TRIED_OF).max(TRIED).min(max_ops);
        Some((Arc::clone(&group.collection), group.pending.split_off_parked_first(some, max_bytes)))
    }

    /// The oldest offset that the queue must keep.
    pub(super) fn first(&self) -> Option<i64> {
        self.groups.iter().filter_map(|group| group.first).min()
    }

    pub(super) fn entities(&self) -> usize {
        self.groups.iter().map(|group| group.pending.entities()).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        self.groups.iter().map(|group| group.pending.bytes()).sum()
    }

    /// What is not parked, of groups that have waited for so long.
    pub(super) fn unparked(&self, waited: Duration) -> Vec<Unparked> {
        let now = Instant::now();
        let is_due = |group: &&Group| self.group_parks_at(group, waited).is_some_and(|at| at <= now);
        self.groups.iter().filter(is_due).flat_map(|group| group.pending.unparked()).collect()
    }

    /// When a group is to be parked that waits for so long before it is: then what has come for it once a second.
    fn group_parks_at(&self, group: &Group, waited: Duration) -> Option<Instant> {
        let again = self.parked.filter(|_| !waited.is_zero()).map(|parked| parked + PARKED_EVERY);
        group.first.map(|_| (group.since + waited).max(again.unwrap_or(group.since)))
    }

    /// When the first group that is not parked will have waited for so long.
    pub(super) fn parks_at(&self, waited: Duration) -> Option<Instant> {
        self.groups.iter().filter_map(|group| self.group_parks_at(group, waited)).min()
    }

    /// Notes that events are parked.
    pub(super) fn parked(&mut self, parked: Vec<(Unparked, Vec<i64>)>) {
        self.parked = Some(Instant::now());
        for (span, offsets) in parked {
            if let Some(group) = self.group_of(span.hash, span.entity.get()) {
                group.pending.parked(span.hash, span.entity.get(), offsets);
            }
        }
        self.groups.iter_mut().for_each(|group| group.first = group.pending.first_of_all());
    }

    /// What people are told.
    pub(super) fn told(&self) -> Vec<HeldBack> {
        let told = self.groups.iter().map(|group| HeldBack {
            collection: Arc::clone(&group.collection),
            documents: group.pending.entities(),
            events: group.pending.events(),
            since: group.since.into_std(),
            error: group.error.to_string(),
        });
        told.collect()
    }
}

/// The name of a collection, to be shared.
pub(super) fn shared_name(collections: &crate::change::Collections, collection: CollectionId) -> Arc<str> {
    Arc::from(collections.name(collection))
}

#[cfg(test)]
mod tests;

//! Defines what is pending of one entity: its update, its events that are to be kept, and until when it may wait.

use std::time::Duration;

use tokio::time::Instant;

use crate::change::{Entity, EntityRef};
use crate::coalesce::PendingUpdate;
use crate::history::Record;
use crate::lane::schedule;

/// Until when a change may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// As long as the policy says, also if it says something else meanwhile.
    Default,
    /// Until then.
    At(Instant),
}

#[derive(Debug)]
pub(super) struct PendingEntity {
    pub(super) hash: u64,
    pub(super) entity: Entity,
    pub(super) since: Instant,
    /// Since when its first change without a timing of its own has waited.
    pub(super) default_since: Option<Instant>,
    /// The earliest deadline of its other changes.
    pub(super) due_by: Option<Instant>,
    /// Whether it is counted among those that wait no longer than changes without a timing of their own.
    pub(super) is_prompt: bool,
    pub(super) update: PendingUpdate,
    /// Its events, where they are to be kept.
    pub(super) records: Vec<Record>,
    pub(super) record_bytes: usize,
    /// Since when MongoDB refuses it for something else than its content.
    pub(super) refused_since: Option<Instant>,
    /// Offsets of those of its events that are parked.
    pub(super) parked: Vec<i64>,
}

/// An entry without its update: its slots in tables that grow by doubling, and its places in the orders.
const ENTRY_OVERHEAD: usize = 512;

impl PendingEntity {
    pub(super) fn new(entity: Entity, hash: u64, since: Instant, update: PendingUpdate) -> Self {
        PendingEntity {
            hash,
            entity,
            since,
            default_since: None,
            due_by: None,
            is_prompt: false,
            update,
            records: Vec::new(),
            record_bytes: 0,
            refused_since: None,
            parked: Vec::new(),
        }
    }

    /// Notes until when another change may wait. Answers whether that may make it due earlier.
    pub(super) fn hasten(&mut self, deadline: Deadline, since: Instant) -> bool {
        match deadline {
            Deadline::Default if self.default_since.is_some() => return false,
            Deadline::Default => self.default_since = Some(since),
            Deadline::At(due) if self.due_by.is_some_and(|former| former <= due) => return false,
            Deadline::At(due) => self.due_by = Some(due),
        }
        true
    }

    /// When it is due, if changes without a timing of their own wait so long.
    pub(super) fn due(&self, max_delay: Duration) -> Option<schedule::Due> {
        let at = self.default_since.map(|since| since + max_delay).into_iter().chain(self.due_by).min()?;
        Some(schedule::Due { at, is_prompt: at <= self.since + max_delay })
    }

    pub(super) fn is(&self, entity: EntityRef<'_>) -> bool {
        self.entity.get() == entity
    }

    pub(super) fn bytes(&self) -> usize {
        let parked = self.parked.len() * size_of::<i64>();
        self.entity.bytes() + self.update.bytes() + self.record_bytes + parked + ENTRY_OVERHEAD
    }

    /// The oldest of its events that the queue must keep.
    pub(super) fn first(&self) -> Option<i64> {
        let pending = match self.parked.last() {
            None => self.update.first(),
            Some(parked) => self.update.first_behind(*parked),
        };
        let parked = self.parked.last().copied().unwrap_or(i64::MIN);
        let kept = self.records.iter().map(|record| record.offset).find(|offset| *offset > parked);
        pending.into_iter().chain(kept).min()
    }
}

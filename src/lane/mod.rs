//! Runs a lane: a worker that owns a share of a queue's entities, so that an entity's changes keep their order.
//!
//! It folds the changes sent to it into pending updates and, when the batch policy says so, has a batch of
//! them settled. One batch is in flight at a time; meanwhile the lane goes on folding.

mod durable;
mod history;
mod isolate;
mod parking;
pub mod pending;
mod proof;
mod quarantine;
mod reread;
mod resolve;
mod settle;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use self::parking::park;
use self::pending::Pending;
use self::quarantine::{Quarantine, Unparked, Withheld, shared_name};
use self::settle::settle;
use crate::batch::{Policy, Trigger};
use crate::buffer::Reserved;
use crate::change::{Chunk, CollectionId};
use crate::coalesce::Folded;
use crate::history::Record;
use crate::ledger::Unsettled;
use crate::ownership::Owned;
use crate::source::SourceError;
use crate::status::LaneStatus;

/// What is sent to a lane.
#[derive(Debug)]
pub enum Input {
    /// Changes to fold.
    Changes {
        /// The changes.
        chunk: Chunk,
        /// When the first of their events may have been pushed.
        since: Instant,
        /// The duty to settle their events.
        unsettled: Unsettled,
        /// Their memory.
        memory: Reserved,
        /// Those of their events that are to be kept, in the same order.
        records: Vec<Record>,
    },
    /// Changes whose events are parked.
    Parked {
        /// The changes.
        chunk: Chunk,
        /// The duty to settle their events.
        unsettled: Unsettled,
        /// Those of their events that are to be kept, in the same order.
        records: Vec<Record>,
    },
    /// Whether many more events wait to be read behind what was sent so far, and there is memory for them.
    Behind(bool),
    /// Send everything pending without delay.
    Flush,
}

/// Timers go off at the end of a millisecond, and a batch had better be sent before its time than after it.
const TICK: Duration = Duration::from_millis(1);

/// How long documents wait for MongoDB to take them until their events are parked, so that the queue can go on without.
const PARKED_AFTER: Duration = Duration::from_secs(5);

type Settling = Pin<Box<dyn Future<Output = Result<Settled, SourceError>> + Send>>;

/// What has come of what a lane was at.
enum Settled {
    /// A batch is settled, but for these documents.
    Batch(Vec<Withheld>),
    /// These events are parked.
    Parked(Vec<(Unparked, Vec<i64>)>),
}

/// A lane of a queue.
pub struct Lane {
    index: usize,
    queue: Arc<Owned>,
    input: mpsc::Receiver<Input>,
    policy: watch::Receiver<Policy>,
    /// Whether MongoDB is out of reach.
    away: watch::Receiver<bool>,
    behind: bool,
    pending: Pending,
    /// Documents that MongoDB does not take now.
    quarantine: Quarantine,
    /// The last batch came from there.
    was_quarantine: bool,
    memory: Reserved,
    in_flight: Option<InFlight>,
    /// Pending updates are sent without delay until none is left.
    flushing: bool,
    closed: bool,
    /// Pending entities, as the metric has them.
    counted: i64,
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.queue.shared.metrics.pending_changed(-self.counted);
        self.status().holds(0);
        self.queue.status.holds_back(self.index, Vec::new());
    }
}

struct InFlight {
    first: Option<i64>,
    /// Documents that were in quarantine: the collection that refused them, and how many they are.
    tried: Option<(Arc<str>, usize)>,
    ts: Option<i64>,
    events: u64,
    settling: Settling,
}

impl Lane {
    /// A lane that is fed through `input`; the end of that is its end.
    #[must_use]
    pub fn new(index: usize, queue: Arc<Owned>, input: mpsc::Receiver<Input>) -> Self {
        let pending = Pending::new(&queue.ledger);
        let memory = Reserved::new(&queue.shared.buffer, 0);
        Lane {
            index,
            policy: queue.shared.live.watch_policy(),
            away: queue.shared.health.mongodb.watch_away(),
            behind: false,
            quarantine: Quarantine::new(&queue.ledger),
            was_quarantine: false,
            queue,
            input,
            pending,
            memory,
            in_flight: None,
            flushing: false,
            closed: false,
            counted: 0,
        }
    }

    /// Works until the input has ended and everything is settled.
    ///
    /// # Errors
    /// The ownership of the queue has ended; what is held is handed back.
    pub async fn run(mut self) -> Result<(), SourceError> {
        loop {
            let policy = *self.policy.borrow_and_update();
            // What was sent may have been applied, so nothing can be folded into it any more. In an outage all of it would be
            // written apart from what comes behind.
            let can_send = self.in_flight.is_none() && !*self.away.borrow_and_update();
            if can_send {
                self.send_if_due(policy);
            }
            if self.in_flight.is_none() && self.pending.entities() == 0 {
                if self.closed {
                    // What is in quarantine is handed back: it is in the queue, or parked.
                    return Ok(());
                }
                self.flushing &= self.quarantine.first().is_some();
            }
            self.tell(false);
            let patience = policy.patience(self.pending.held(Instant::now()), self.behind);
            let due = self.pending.since().map(|since| since + patience.saturating_sub(TICK));
            let due = due.into_iter().chain(self.quarantine_due()).min();
            let can_send = can_send && self.in_flight.is_none();
            tokio::select! {
                done = settled(&mut self.in_flight) => {
                    self.take_back(done?);
                    self.tell_time();
                    self.queue.tracker.lock().settled(self.index, self.held());
                    self.queue.progress.notify_one();
                }
                input = self.input.recv(), if !self.closed => match input {
                    Some(Input::Changes { chunk, since, unsettled, memory, records }) => {
                        self.fold(&chunk, since, unsettled, memory, records);
                    }
                    Some(Input::Parked { chunk, unsettled, records }) => self.take_on(&chunk, unsettled, records),
                    Some(Input::Behind(behind)) => self.behind = behind,
                    Some(Input::Flush) => self.flushing = true,
                    None => {
                        self.closed = true;
                        self.flushing = true;
                    }
                },
                // Another policy may find due what waits under this one.
                Ok(()) = self.policy.changed() => {}
                Ok(()) = self.away.changed() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if can_send && due.is_some() => {}
            }
        }
    }

    fn fold(
        &mut self,
        chunk: &Chunk,
        since: Instant,
        unsettled: Unsettled,
        memory: Reserved,
        records: Vec<Record>,
    ) {
        let max_bytes = self.policy.borrow().max_bytes;
        self.pending.take_on(unsettled);
        let mut coalesced = 0;
        let mut records = records.into_iter().peekable();
        for placed in chunk.iter() {
            let record = records.next_if(|record| record.offset == placed.offset);
            let in_quarantine = match self.quarantine.is_empty() {
                true => None,
                false => self.quarantine.fold(&placed, since, max_bytes, &mut self.pending),
            };
            match in_quarantine {
                Some(folded) => {
                    coalesced += u64::from(folded == Folded::In);
                    record.into_iter().for_each(|record| self.quarantine.keep(&placed, record));
                }
                None => {
                    coalesced += u64::from(self.pending.fold(&placed, since, max_bytes) == Folded::In);
                    record.into_iter().for_each(|record| self.pending.keep(&placed, record));
                }
            }
        }
        self.queue.metrics.coalesced.increment(coalesced);
        self.account();
        drop(memory);
        self.tell_time();
        self.queue.tracker.lock().folded(self.index, self.held());
    }

    /// Takes on changes that wait since a former ownership.
    fn take_on(&mut self, chunk: &Chunk, unsettled: Unsettled, records: Vec<Record>) {
        self.pending.take_on(unsettled);
        let mut records = records.into_iter().peekable();
        let mut names: HashMap<CollectionId, Arc<str>> = HashMap::new();
        for placed in chunk.iter() {
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

    /// Tells how old by its own time what is held is, for the metrics.
    fn tell_time(&self) {
        let in_flight = self.in_flight.as_ref().and_then(|batch| batch.ts);
        self.queue.held_ts.lock()[self.index] = in_flight.into_iter().chain(self.pending.ts()).min();
    }

    fn status(&self) -> &LaneStatus {
        &self.queue.status.lanes[self.index]
    }

    /// Says what the lane does; `began` where a batch was just sent.
    fn tell(&self, began: bool) {
        let pending = self.pending.entities();
        match &self.in_flight {
            Some(batch) => self.status().writes(batch.events, pending, began),
            None => self.status().holds(pending),
        }
    }

    /// The oldest offset held.
    fn held(&self) -> Option<i64> {
        let in_flight = self.in_flight.as_ref().and_then(|batch| batch.first);
        in_flight.into_iter().chain(self.pending.first()).chain(self.quarantine.first()).min()
    }

    fn account(&mut self) {
        self.memory.resize(self.pending.bytes() + self.quarantine.bytes());
        // Of what is parked, the queue does not tell that something is in flight.
        let tried = self.in_flight.as_ref().and_then(|batch| batch.tried.as_ref()).map_or(0, |tried| tried.1);
        let entities = self.pending.entities() + self.quarantine.entities() + tried;
        let entities = i64::try_from(entities).unwrap_or(0);
        self.queue.shared.metrics.pending_changed(entities - self.counted);
        self.counted = entities;
    }

    /// Takes back what a batch left, or notes what is parked.
    fn take_back(&mut self, settled: Settled) {
        let in_flight = self.in_flight.take();
        match settled {
            Settled::Parked(parked) => self.quarantine.parked(parked),
            Settled::Batch(mut withheld) => {
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
    fn quarantine_due(&self) -> Option<Instant> {
        if self.quarantine.is_empty() {
            return None;
        }
        let parks_at = self.quarantine.parks_at(PARKED_AFTER).filter(|_| self.can_park());
        self.quarantine.next().into_iter().chain(parks_at).min()
    }

    fn can_park(&self) -> bool {
        self.queue.source.lease().is_some() && self.queue.parked.has_room()
    }

    /// Parks what has been in quarantine for long, or tries some of it again. While the queue is flushed nothing waits.
    fn send_from_quarantine(&mut self, policy: Policy) -> bool {
        let waits = if self.flushing { Duration::ZERO } else { PARKED_AFTER };
        let unparked = if self.can_park() { self.quarantine.unparked(waits) } else { Vec::new() };
        if !unparked.is_empty() {
            let queue = Arc::clone(&self.queue);
            let settling = Box::pin(async move { park(&queue, unparked).await.map(Settled::Parked) });
            self.in_flight = Some(InFlight { first: None, tried: None, ts: None, events: 0, settling });
            return true;
        }
        let due = self.quarantine.take_due(Instant::now(), policy.max_ops, policy.max_bytes);
        let Some((collection, batch)) = due else { return false };
        let tried = Some((collection, batch.entities()));
        self.send(batch, tried);
        true
    }

    /// Sends a batch, if the policy says so.
    fn send_if_due(&mut self, policy: Policy) {
        // In turns, so that neither waits for the other.
        let was_quarantine = std::mem::take(&mut self.was_quarantine);
        if !was_quarantine && !self.quarantine.is_empty() && self.send_from_quarantine(policy) {
            self.was_quarantine = true;
            return;
        }
        let held = self.pending.held(Instant::now() + TICK);
        let trigger = match policy.due(held, self.behind) {
            None if self.flushing && held.ops > 0 => Trigger::Drain,
            None => return,
            Some(trigger) => trigger,
        };
        let batch = self.pending.split_off(policy.max_ops, policy.max_bytes);
        self.queue.shared.metrics.batch(trigger, batch.events(), batch.bytes());
        self.send(batch, None);
    }

    /// Sends a batch: of `tried` documents of a collection, if they come from quarantine.
    fn send(&mut self, batch: Pending, tried: Option<(Arc<str>, usize)>) {
        let first = if tried.is_some() { batch.first_of_all() } else { batch.first() };
        let (bytes, events, ts) = (batch.bytes(), batch.events(), batch.ts());
        let memory = Reserved::new(&self.queue.shared.buffer, bytes);
        let queue = Arc::clone(&self.queue);
        let lane = self.index;
        let settling = Box::pin(async move {
            let _memory = memory;
            settle_all(&queue, &queue.status.lanes[lane], batch).await.map(Settled::Batch)
        });
        self.in_flight = Some(InFlight { first, tried, ts, events, settling });
        self.account();
        self.tell(true);
    }
}

/// Settles a batch, keeps its events where they are to be kept, and forgets those that were parked. Answers the documents of
/// which something is left.
async fn settle_all(
    queue: &Owned,
    status: &LaneStatus,
    mut batch: Pending,
) -> Result<Vec<Withheld>, SourceError> {
    let (mut records, parked) = (batch.take_records(), batch.take_parked());
    let mut withheld = settle(queue, status, batch).await?;
    for kept in &mut records {
        if let Some(withheld) = withheld.iter_mut().find(|withheld| withheld.entity == kept.entity) {
            let behind = kept.records.partition_point(|record| record.offset < withheld.first());
            withheld.records.extend(kept.records.drain(behind..));
        }
    }
    if !records.is_empty() {
        for mut left in history::append(queue, records).await {
            match withheld.iter_mut().find(|withheld| withheld.entity == left.entity) {
                Some(withheld) => {
                    left.records.append(&mut withheld.records);
                    withheld.records = left.records;
                }
                None => withheld.push(left),
            }
        }
    }
    let mut settled = Vec::new();
    for (entity, offsets) in parked {
        match withheld.iter_mut().find(|withheld| withheld.entity == entity) {
            Some(withheld) => withheld.parked = offsets,
            None => settled.extend(offsets),
        }
    }
    queue.unpark(&settled).await?;
    Ok(withheld)
}

/// Waits for the batch in flight; for ever if there is none.
async fn settled(in_flight: &mut Option<InFlight>) -> Result<Settled, SourceError> {
    match in_flight {
        Some(batch) => batch.settling.as_mut().await,
        None => std::future::pending().await,
    }
}

//! Runs a lane: a worker that owns a share of a queue's entities, so that an entity's changes keep their order.
//!
//! It folds the changes sent to it into pending updates and, when the batch policy says so, has a batch of
//! them settled. One batch is in flight at a time; meanwhile the lane goes on folding.

mod batch_size;
mod durable;
mod gaps;
mod held_back;
mod history;
mod isolate;
mod last_times;
mod parking;
pub mod pending;
mod proof;
mod quarantine;
mod reread;
mod resolve;
mod schedule;
mod send;
mod settle;
mod settle_batch;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use self::batch_size::BatchSize;
use self::gaps::Gaps;
use self::last_times::LastTimes;
use self::pending::{Deadline, Pending};
use self::quarantine::{Quarantine, Unparked, Withheld};
use crate::batch::{Backlog, Policy, Timing};
use crate::buffer::Reserved;
use crate::change::{Chunk, TimingId};
use crate::coalesce::Folded;
use crate::history::Record;
use crate::ledger::{Outcome, Unsettled};
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
    /// Below this offset everything has to go, since so much is held.
    to_go: watch::Receiver<i64>,
    behind: bool,
    pending: Pending,
    /// When documents were written last, if any route paces its writes.
    written: Option<LastTimes>,
    /// The share of the last events that were for what was held.
    folding: f64,
    size: BatchSize,
    gaps: Gaps,
    /// Documents that MongoDB does not take now.
    quarantine: Quarantine,
    /// The last batch came from there.
    was_quarantine: bool,
    memory: Reserved,
    in_flight: Option<InFlight>,
    /// When some may be written of what is due: not before, by the bound on writes a second.
    limited_until: Option<Instant>,
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
    documents: usize,
    began: Instant,
    settling: Settling,
}

impl InFlight {
    /// What holds no event of the queue, and has just begun.
    fn new(settling: Settling) -> Self {
        let began = Instant::now();
        InFlight { first: None, tried: None, ts: None, events: 0, documents: 0, began, settling }
    }
}

impl Lane {
    /// A lane that is fed through `input`; the end of that is its end.
    #[must_use]
    pub fn new(index: usize, queue: Arc<Owned>, input: mpsc::Receiver<Input>) -> Self {
        let policy = queue.shared.live.watch_policy();
        let pending = Pending::with_deadlines(&queue.ledger, policy.borrow().max_delay);
        let written = queue.mapping.timings.longest_pace().map(LastTimes::new);
        let memory = Reserved::new(&queue.shared.buffer, 0);
        Lane {
            index,
            policy,
            away: queue.shared.health.mongodb.watch_away(),
            to_go: queue.pressure.watch(),
            behind: false,
            written,
            folding: 0.0,
            size: BatchSize::default(),
            gaps: Gaps::default(),
            quarantine: Quarantine::new(&queue.ledger),
            was_quarantine: false,
            queue,
            input,
            pending,
            memory,
            in_flight: None,
            limited_until: None,
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
            self.pending.set_max_delay(policy.max_delay);
            let to_go = *self.to_go.borrow_and_update();
            // What was sent may have been applied, so nothing can be folded into it any more. In an outage all of it would be
            // written apart from what comes behind.
            let can_send = self.in_flight.is_none() && !*self.away.borrow_and_update();
            if can_send {
                self.send_within_bound(policy, to_go);
            }
            if self.in_flight.is_none() && self.pending.entities() == 0 {
                if self.closed {
                    // What is in quarantine is handed back: it is in the queue, or parked.
                    return Ok(());
                }
                self.flushing &= self.quarantine.first().is_some();
            }
            self.tell(false);
            let now = Instant::now();
            let patience = policy.patience(&self.backlog(to_go, now + TICK), self.behind);
            let due = patience.map(|patience| now + patience).into_iter().chain(self.quarantine_due()).min();
            let due = self.limited_until.or(due);
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
                Ok(()) = self.to_go.changed() => {}
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
        let Policy { max_bytes, max_delay, .. } = *self.policy.borrow();
        self.pending.take_on(unsettled);
        let mut coalesced = 0;
        let mut records = records.into_iter().peekable();
        for (placed, timing) in chunk.iter() {
            let record = records.next_if(|record| record.offset == placed.offset);
            // Out of a backlog, events come closer together than they were pushed.
            if !self.behind
                && let Some(gap) = self.gaps.see(placed.hash, since)
            {
                self.queue.metrics.event_after(gap);
            }
            if self.queue.mapping.timings.get(timing) == Timing::FlushOnly {
                // It is settled by itself. `base` passes it with what waits for its document, so who asks learns of both.
                self.pending.flush(&placed, since);
                self.pending.give_up(1).settle(Outcome::Skipped);
                continue;
            }
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
                    let deadline = self.deadline(timing, placed.hash, since, max_delay);
                    let folded = self.pending.fold_until(&placed, since, deadline, max_bytes);
                    coalesced += u64::from(folded == Folded::In);
                    record.into_iter().for_each(|record| self.pending.keep(&placed, record));
                }
            }
        }
        self.queue.metrics.coalesced.increment(coalesced);
        self.folding = (self.folding + coalesced as f64 / chunk.len().max(1) as f64) / 2.0;
        self.account();
        drop(memory);
        self.tell_time();
        self.queue.tracker.lock().folded(self.index, self.held());
    }

    /// What the batch policy goes by.
    fn backlog(&self, to_go: i64, now: Instant) -> Backlog {
        // Lanes have about as many events each.
        let unread = self.queue.unread.load(Ordering::Relaxed) as f64 / self.queue.status.lanes.len() as f64;
        Backlog { to_come: (self.folding * unread) as u64, ..self.pending.held(to_go, now) }
    }

    /// Until when a change may wait that has waited `since` then.
    fn deadline(&self, timing: TimingId, hash: u64, since: Instant, max_delay: Duration) -> Deadline {
        match self.queue.mapping.timings.get(timing) {
            Timing::Default => Deadline::Default,
            Timing::Within(delay) => Deadline::At(since + delay),
            Timing::Flush | Timing::FlushOnly => Deadline::At(since),
            Timing::Paced(pace) => {
                let next =
                    self.written.as_ref().and_then(|written| written.last(hash)).map(|last| last + pace);
                next.filter(|next| *next > since + max_delay).map_or(Deadline::Default, Deadline::At)
            }
        }
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
            None if self.limited_until.is_some() => self.status().is_limited(pending),
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
}

/// Waits for the batch in flight; for ever if there is none.
async fn settled(in_flight: &mut Option<InFlight>) -> Result<Settled, SourceError> {
    match in_flight {
        Some(batch) => batch.settling.as_mut().await,
        None => std::future::pending().await,
    }
}

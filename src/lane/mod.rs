//! A lane: a worker that owns a share of a queue's entities, so that an entity's changes keep their order.
//!
//! It folds the changes sent to it into pending updates and, when the batch policy says so, has a batch of
//! them settled. One batch is in flight at a time; meanwhile the lane goes on folding.

mod durable;
mod history;
mod isolate;
pub mod pending;
mod settling;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use self::pending::Pending;
use self::settling::settle;
use crate::batch::{Policy, Trigger};
use crate::buffer::Reserved;
use crate::change::Chunk;
use crate::coalesce::Folded;
use crate::history::Record;
use crate::queue::Owned;
use crate::settle::Unsettled;
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
    /// Whether many more events wait to be read behind what was sent so far, and there is memory for them.
    Behind(bool),
    /// Send everything pending without delay.
    Flush,
}

/// Timers go off at the end of a millisecond, and a batch had better be sent before its time than after it.
const TICK: Duration = Duration::from_millis(1);

type Settling = Pin<Box<dyn Future<Output = Result<(), SourceError>> + Send>>;

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
    }
}

struct InFlight {
    first: i64,
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
            away: queue.shared.sink.watch_away(),
            behind: false,
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
                self.flushing = false;
                if self.closed {
                    return Ok(());
                }
            }
            self.tell(false);
            let patience = policy.patience(self.pending.held(Instant::now()), self.behind);
            let due = self.pending.since().map(|since| since + patience.saturating_sub(TICK));
            let can_send = can_send && self.in_flight.is_none();
            tokio::select! {
                done = settled(&mut self.in_flight) => {
                    done?;
                    self.in_flight = None;
                    self.tell_time();
                    self.queue.tracker.lock().settled(self.index, self.held());
                    self.queue.progress.notify_one();
                }
                input = self.input.recv(), if !self.closed => match input {
                    Some(Input::Changes { chunk, since, unsettled, memory, records }) => {
                        self.fold(&chunk, since, unsettled, memory, records);
                    }
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
            if self.pending.fold(&placed, since, max_bytes) == Folded::In {
                coalesced += 1;
            }
            if let Some(record) = records.next_if(|record| record.offset == placed.offset) {
                self.pending.keep(&placed, record);
            }
        }
        self.queue.metrics.coalesced.increment(coalesced);
        self.account();
        drop(memory);
        self.tell_time();
        self.queue.tracker.lock().folded(self.index, self.held());
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
        let in_flight = self.in_flight.as_ref().map(|batch| batch.first);
        in_flight.into_iter().chain(self.pending.first()).min()
    }

    fn account(&mut self) {
        self.memory.resize(self.pending.bytes());
        let entities = i64::try_from(self.pending.entities()).unwrap_or(0);
        self.queue.shared.metrics.pending_changed(entities - self.counted);
        self.counted = entities;
    }

    /// Sends a batch, if the policy says so.
    fn send_if_due(&mut self, policy: Policy) {
        let held = self.pending.held(Instant::now() + TICK);
        let trigger = match policy.due(held, self.behind) {
            None if self.flushing && held.ops > 0 => Trigger::Drain,
            None => return,
            Some(trigger) => trigger,
        };
        let mut batch = self.pending.split_off(policy.max_ops, policy.max_bytes);
        let Some(first) = batch.first() else { return };
        let (bytes, events, ts) = (batch.bytes(), batch.events(), batch.ts());
        self.queue.shared.metrics.batch(trigger, events, bytes);
        self.account();
        let memory = Reserved::new(&self.queue.shared.buffer, bytes);
        let records = batch.take_records();
        let queue = Arc::clone(&self.queue);
        let lane = self.index;
        let settling = Box::pin(async move {
            let _memory = memory;
            settle(&queue, &queue.status.lanes[lane], batch).await?;
            if !records.is_empty() {
                history::append(&queue, records).await;
            }
            Ok(())
        });
        self.in_flight = Some(InFlight { first, ts, events, settling });
        self.tell(true);
    }
}

/// Waits for the batch in flight; for ever if there is none.
async fn settled(in_flight: &mut Option<InFlight>) -> Result<(), SourceError> {
    match in_flight {
        Some(batch) => batch.settling.as_mut().await,
        None => std::future::pending().await,
    }
}

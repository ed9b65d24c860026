//! Sends batches, within the instance's bound on writes a second. What waits for its turn is folded meanwhile.

use std::sync::Arc;

use tokio::time::Instant;

use super::pending::Pending;
use super::settle_batch::settle_batch;
use super::{InFlight, Lane, Settled, TICK};
use crate::batch::{Policy, Trigger};
use crate::buffer::Reserved;

impl Lane {
    /// Sends a batch, if one is due, of as many documents as may be written now. Else notes when some may be.
    pub(super) fn send_within_bound(&mut self, policy: Policy, to_go: i64) {
        self.limited_until = None;
        let per_second = policy.max_writes_per_second;
        // What is in memory only does not wait at the end.
        let is_free = per_second == 0 || (self.closed && self.queue.source.lease().is_none());
        if is_free {
            self.send_if_due(policy, usize::MAX, to_go);
            return;
        }
        let now = Instant::now();
        if !self.has_due(policy, to_go, now) {
            return;
        }
        let shared = Arc::clone(&self.queue.shared);
        let wanted = (self.pending.entities() + self.quarantine.entities()).min(policy.max_ops);
        let taken = shared.write_rate.lock().take(per_second, wanted, now.into_std());
        match taken {
            Ok(taken) => {
                self.send_if_due(policy, taken, to_go);
                let sent = self.in_flight.as_ref().map_or(0, |batch| batch.documents);
                shared.write_rate.lock().give_back(per_second, taken.saturating_sub(sent));
            }
            Err(until) => self.limited_until = Some(until.into()),
        }
    }

    fn has_due(&self, policy: Policy, to_go: i64, now: Instant) -> bool {
        let held = self.backlog(to_go, now + TICK);
        let is_quarantine_due = self.quarantine_due().is_some_and(|due| due <= now);
        policy.due(&held, self.behind).is_some()
            || is_quarantine_due
            || (self.flushing && (held.ops > 0 || !self.quarantine.is_empty()))
    }

    /// Sends a batch of so many documents at most, if the policy says so.
    fn send_if_due(&mut self, policy: Policy, most: usize, to_go: i64) {
        // In turns, so that neither waits for the other.
        let was_quarantine = std::mem::take(&mut self.was_quarantine);
        if !was_quarantine
            && !self.quarantine.is_empty()
            && self.send_from_quarantine(Policy { max_ops: policy.max_ops.min(most), ..policy })
        {
            self.was_quarantine = true;
            return;
        }
        let now = Instant::now() + TICK;
        let held = self.backlog(to_go, now);
        let trigger = match policy.due(&held, self.behind) {
            None if self.flushing && held.ops > 0 => Trigger::Drain,
            None => return,
            Some(trigger) => trigger,
        };
        let (max_ops, max_bytes) = (self.size.of(policy.max_ops).min(most), policy.max_bytes);
        let batch = match trigger {
            Trigger::Drain => self.pending.split_off(max_ops, max_bytes),
            Trigger::Pressure => self.pending.split_off_below(to_go, max_ops, max_bytes),
            Trigger::Ops | Trigger::Bytes | Trigger::Delay => {
                // What is due soon goes along. Prompt ones would only be written again, where what is due is none of them.
                let with_prompt =
                    trigger != Trigger::Delay || held.first_due.is_some_and(|first| first.is_prompt);
                self.pending.split_off_due(now + policy.max_delay, with_prompt, max_ops, max_bytes)
            }
        };
        if let Some(written) = &mut self.written {
            written.note(batch.hashes(), now);
        }
        self.queue.shared.metrics.batch(trigger, batch.events(), batch.bytes());
        self.send(batch, None);
    }

    /// Sends a batch: of `tried` documents of a collection, if they come from quarantine.
    pub(super) fn send(&mut self, batch: Pending, tried: Option<(Arc<str>, usize)>) {
        let first = batch.first_of_all();
        let (bytes, events, ts) = (batch.bytes(), batch.events(), batch.ts());
        let documents = batch.entities();
        let memory = Reserved::new(&self.queue.shared.buffer, bytes);
        let queue = Arc::clone(&self.queue);
        let lane = self.index;
        let settling = Box::pin(async move {
            let _memory = memory;
            settle_batch(&queue, &queue.status.lanes[lane], batch).await.map(Settled::Batch)
        });
        self.in_flight = Some(InFlight { first, tried, ts, events, documents, ..InFlight::new(settling) });
        self.account();
        self.tell(true);
    }
}

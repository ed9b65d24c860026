//! Settles what a former owner left, under the numbers that it was read under.
//!
//! Where process after process dies over the same events, one of them kills. Then they are worked on in parts, each
//! committed before the next. The part over which the next process dies is worked on event by event. The event over
//! which two more die is set aside, without being read. [`DeathMark`] tells what counts as a death.

use std::ops::Range;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::death_mark::DeathMark;
use super::reader::Reader;
use crate::ownership::{Owned, WindowSize};
use crate::source::{Deaths, Lease, RecoveryPart, SourceError};
use crate::status::Phase;

/// Processes that may die over the same events before one is suspected.
const PATIENCE: u64 = 3;
/// Processes that must have died over one event alone: a single one may have been ended by something else.
const WITNESSES: u64 = 2;
/// Parked events that are read at once.
const PARKED_AT_ONCE: usize = 200;
/// Events in a part.
const PART: i64 = 1000;

/// The recovery of one queue. What it reads, its reader shares out.
pub(super) struct Recovery<'r> {
    queue: Arc<Owned>,
    stop: CancellationToken,
    reader: &'r mut Reader,
}

impl<'r> Recovery<'r> {
    /// A recovery that ends early with `stop`.
    pub(super) fn new(queue: Arc<Owned>, stop: CancellationToken, reader: &'r mut Reader) -> Self {
        Recovery { queue, stop, reader }
    }

    /// Takes on what former owners parked. It is older than all that is in the queue.
    pub(super) async fn take_on_parked(&mut self) -> Result<(), SourceError> {
        let queue = Arc::clone(&self.queue);
        let Some(lease) = queue.source.lease() else { return Ok(()) };
        let offsets = queue.parked.within(i64::MIN, i64::MAX);
        for some in offsets.chunks(PARKED_AT_ONCE) {
            let window = lease.parked_events(some.to_vec()).await?;
            window.iter().for_each(|(offset, event)| queue.parked.add(offset, event.len()));
            self.reader.share_out_parked(&window).await?;
        }
        if !offsets.is_empty() {
            tracing::info!(
                queue = queue.key,
                events = offsets.len(),
                "events that wait for MongoDB beside the queue are tried again"
            );
            queue.metrics.parked.set(queue.parked.len() as f64);
        }
        Ok(())
    }

    /// Processes exactly the events that may have been sent to MongoDB, and waits until they are committed.
    pub(super) async fn recover(&mut self) -> Result<(), SourceError> {
        let queue = Arc::clone(&self.queue);
        let mut unsettled = queue.source.unsettled().await;
        unsettled.retain(|range| !range.is_empty());
        let Some(lease) = queue.source.lease().filter(|_| !unsettled.is_empty()) else { return Ok(()) };
        queue.status.set_phase(Phase::Recovering);
        let process = queue.shared.peers.name();
        let tries = lease.tries(process).await?;
        let suspects = tries.deaths >= PATIENCE || tries.suspect.is_some();
        if suspects {
            tracing::warn!(
                queue = queue.key,
                deaths = tries.deaths,
                "process after process died over the same events; going on in small parts"
            );
        }
        for range in unsettled {
            // What was pending has no place among what is behind it.
            queue.tracker.lock().restart(range.start);
            if suspects {
                self.recover_in_parts(lease, range, tries).await?;
            } else {
                self.settle(lease, range, None).await?;
            }
            if self.stop.is_cancelled() {
                break;
            }
        }
        lease.rests(process).await
    }

    /// Works on part after part; on single events up to the end of the part over which a process died.
    async fn recover_in_parts(
        &mut self,
        lease: &Lease,
        unsettled: Range<i64>,
        tries: Deaths,
    ) -> Result<(), SourceError> {
        let queue = Arc::clone(&self.queue);
        let mut at = unsettled.start;
        let suspect_to = tries.suspect.unwrap_or(at);
        let first_end = queue.source.part_end(unsettled.clone(), 1).await?;
        if suspect_to == first_end && tries.alone >= WITNESSES {
            queue.set_aside(at..first_end).await?;
            at = first_end;
        }
        while at < unsettled.end && !self.stop.is_cancelled() {
            let is_one = at < suspect_to;
            let end = queue.source.part_end(at..unsettled.end, if is_one { 1 } else { PART }).await?;
            self.settle(lease, at..end, Some(RecoveryPart { end, is_one })).await?;
            at = end;
        }
        Ok(())
    }

    /// Has the events of a range settled and committed, or as many as come to that before the end.
    async fn settle(
        &mut self,
        lease: &Lease,
        range: Range<i64>,
        part: Option<RecoveryPart>,
    ) -> Result<(), SourceError> {
        let (queue, stop) = (Arc::clone(&self.queue), self.stop.clone());
        let mark = DeathMark::new(&queue, lease, part);
        tokio::select! {
            settled = self.settle_marked(range, &mark) => settled,
            error = mark.watch(&stop) => Err(error),
        }
    }

    async fn settle_marked(&mut self, range: Range<i64>, mark: &DeathMark<'_>) -> Result<(), SourceError> {
        let mut size = WindowSize::default();
        let mut cursor = range.start;
        while cursor < range.end {
            let Some(room) = self.reader.room().await? else { return Ok(()) };
            mark.reading().await?;
            let window = self.queue.source.reread(cursor..range.end, size.events().min(room)).await?;
            // Offsets of a stream have gaps.
            cursor = if window.is_empty() { range.end } else { window.end() };
            size.saw(&window);
            self.reader.share_out(window).await?;
            mark.given();
        }
        self.reader.flush().await?;
        loop {
            let committed = self.queue.committed.notified();
            // The lanes' end settles what can be settled.
            if self.stop.is_cancelled() || self.queue.tracker.lock().is_drained() {
                return Ok(());
            }
            tokio::select! {
                () = committed => {}
                () = self.stop.cancelled() => {}
            }
        }
    }
}

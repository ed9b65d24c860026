//! Recovery: settling what a former owner left, under the numbers that it was read under.
//!
//! Where owner after owner dies over the same events, one of them kills. Then they are worked on in parts, each
//! committed before the next; the part over which the next process dies is worked on event by event; and the event over
//! which two more die is set aside, without being read.

use std::ops::Range;

use tokio::sync::oneshot;

use super::reader::{Fetched, Fetcher, ended};
use super::window_size::WindowSize;
use crate::dead_letter::{Dead, Reason, Rejection, render_without_event};
use crate::settle::Outcome;
use crate::source::{List, SourceError, Tries};
use crate::status::Phase;

/// Processes that may die over the same events before one is suspected.
const PATIENCE: u64 = 3;
/// Processes that must have ended over one event alone: a single one may have been stopped past its lease.
const WITNESSES: u64 = 2;
/// Events in a part.
const PART: i64 = 1000;

impl Fetcher {
    /// Processes exactly the elements that may have been sent to MongoDB, and waits until they are committed.
    pub(super) async fn recover(&mut self, list: &List) -> Result<(), SourceError> {
        let unsettled = list.unsettled().await;
        if unsettled.is_empty() {
            return Ok(());
        }
        self.queue.status.set_phase(Phase::Recovering);
        let tries = list.tries(self.queue.shared.peers.name()).await?;
        if tries.count <= PATIENCE {
            return self.settle(unsettled).await;
        }
        tracing::warn!(
            queue = self.queue.key,
            tries = tries.count - 1,
            "process after process ended over the same events; going on in small parts"
        );
        self.recover_in_parts(list, unsettled, tries).await
    }

    /// Works on part after part; on single events up to the end of the part over which a process died.
    async fn recover_in_parts(
        &mut self,
        list: &List,
        unsettled: Range<i64>,
        tries: Tries,
    ) -> Result<(), SourceError> {
        let mut at = unsettled.start;
        let suspect_to = tries.part.unwrap_or(at);
        if suspect_to == at + 1 && tries.alone >= WITNESSES {
            self.set_aside(list, at).await?;
            at += 1;
        }
        while at < unsettled.end && !self.stop.is_cancelled() {
            let step = if at < suspect_to { 1 } else { PART };
            let end = unsettled.end.min(at + step);
            list.part(self.queue.shared.peers.name(), end, end == at + 1, PATIENCE + 1).await?;
            self.settle(at..end).await?;
            at = end;
        }
        Ok(())
    }

    /// Makes a dead letter of the event at the base, which has killed.
    async fn set_aside(&mut self, list: &List, offset: i64) -> Result<(), SourceError> {
        let queue = &self.queue;
        let text = "process after process ended while it was being worked on";
        let rejection = Rejection::new(Reason::Crash, text);
        let letter = render_without_event(&rejection, offset, &queue.key, bson::DateTime::now());
        list.set_aside(&letter).await?;
        // The event itself is read by nobody any more.
        let dead = Dead { offset, event: b"", rejection: &rejection, traceparent: None, entity: None };
        queue.shared.status.letters.record(&queue.key, &[dead]);
        queue.tell_dead(&[dead]);
        queue.ledger.receive(1).settle(Outcome::Dead(rejection.reason));
        queue.tracker.lock().restart(offset + 1);
        tracing::error!(queue = queue.key, offset, "an event was set aside as a dead letter: {text}");
        Ok(())
    }

    /// Has the elements of a range settled and committed.
    async fn settle(&mut self, range: Range<i64>) -> Result<(), SourceError> {
        let mut size = WindowSize::default();
        let mut cursor = range.start;
        while cursor < range.end {
            let Some(room) = self.room(cursor).await else { return Ok(()) };
            let rest = usize::try_from(range.end - cursor).unwrap_or(usize::MAX);
            let window = self.queue.source.reread(cursor, size.events().min(rest).min(room)).await?;
            cursor = window.end();
            size.saw(&window);
            self.send(window).await?;
        }
        let (told, lanes_know) = oneshot::channel();
        self.windows.send(Fetched::Flush(told)).await.map_err(|_| ended())?;
        lanes_know.await.map_err(|_| ended())?;
        loop {
            let committed = self.queue.committed.notified();
            if self.queue.tracker.lock().is_drained() {
                return Ok(());
            }
            committed.await;
        }
    }
}

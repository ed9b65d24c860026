//! Decodes windows, and shares the changes out to lanes.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::buffer::Reserved;
use crate::change::{Change, Chunk, Entity, Placed};
use crate::dead_letter::{Dead, NO_EVENT_FIELD, Reason, Rejection};
use crate::decode::{Decoder, Refused};
use crate::history::Record;
use crate::lane::Input;
use crate::ledger::{Outcome, Unsettled};
use crate::ownership::Owned;
use crate::source::{SourceError, Window};
use crate::trace;

/// Shares the changes of a queue out to its lanes.
pub(super) struct Dispatcher {
    queue: Arc<Owned>,
    decoder: Decoder,
    lanes: Vec<mpsc::Sender<Input>>,
    /// What the lanes were told of a backlog.
    behind: bool,
}

impl Dispatcher {
    /// A dispatcher to `lanes`; its end is the end of what they get.
    pub(super) fn new(queue: Arc<Owned>, lanes: Vec<mpsc::Sender<Input>>) -> Self {
        Dispatcher { decoder: queue.mapping.decoder(), queue, lanes, behind: false }
    }

    /// Decodes a window, which has waited `since` then, and sends each lane its share, with the duty to settle it.
    pub(super) async fn share_out(
        &mut self,
        window: &Window,
        unsettled: Unsettled,
        since: Instant,
    ) -> Result<(), SourceError> {
        let lanes = self.lanes.len();
        let shares = decode(&self.queue, &mut self.decoder, window, unsettled, since, lanes).await?;
        for (lane, share) in shares {
            self.lanes[lane].send(share).await.map_err(|_| ended())?;
        }
        Ok(())
    }

    /// Decodes events that are parked, and hands each lane its share of them.
    pub(super) async fn share_out_parked(&mut self, window: &Window) -> Result<(), SourceError> {
        let (queue, lanes) = (Arc::clone(&self.queue), self.lanes.len());
        let unsettled = queue.ledger.receive(window.len() as u64);
        let mut decoded = DecodedWindow::new(window, lanes, unsettled);
        decoded.read(&queue, &mut self.decoder, window, EventPlace::Parked);
        let refused: Vec<i64> = decoded.rejected.iter().map(|rejected| rejected.0).collect();
        decoded.bury(&queue).await?;
        queue.unpark(&[&*decoded.buried, &*refused].concat()).await?;
        for (lane, chunk, records) in decoded.shares() {
            let unsettled = decoded.unsettled.split(chunk.len() as u64);
            self.lanes[lane].send(Input::Parked { chunk, unsettled, records }).await.map_err(|_| ended())?;
        }
        Ok(())
    }

    /// Tells the lanes whether there is a backlog behind what they got, and memory for it.
    pub(super) async fn tell_behind(&mut self, behind: bool) -> Result<(), SourceError> {
        if std::mem::replace(&mut self.behind, behind) == behind {
            return Ok(());
        }
        for lane in &self.lanes {
            lane.send(Input::Behind(behind)).await.map_err(|_| ended())?;
        }
        Ok(())
    }

    /// Has the lanes settle all that they got.
    pub(super) async fn flush(&self) -> Result<(), SourceError> {
        for lane in &self.lanes {
            lane.send(Input::Flush).await.map_err(|_| ended())?;
        }
        Ok(())
    }
}

/// The other end of a channel is gone: its task has the reason.
fn ended() -> SourceError {
    SourceError::Lost("the queue's tasks have ended".into())
}

/// Decodes a window: the lanes' shares of it. Its dead letters are recorded.
async fn decode(
    queue: &Owned,
    decoder: &mut Decoder,
    window: &Window,
    unsettled: Unsettled,
    since: Instant,
    lanes: usize,
) -> Result<Vec<(usize, Input)>, SourceError> {
    let Some(checkpoint) = window.checkpoint() else { return Ok(Vec::new()) };
    let mut decoded = DecodedWindow::new(window, lanes, unsettled);
    decoded.read(queue, decoder, window, EventPlace::InQueue);
    decoded.bury(queue).await?;
    let shares = decoded.shares();
    let inputs: Vec<_> = shares
        .into_iter()
        .map(|(lane, chunk, records)| {
            let kept: usize = records.iter().map(Record::bytes).sum();
            let memory = Reserved::new(&queue.shared.buffer, chunk.bytes() + kept);
            let unsettled = decoded.unsettled.split(chunk.len() as u64);
            (lane, Input::Changes { chunk, since, unsettled, memory, records })
        })
        .collect();
    let mut tracker = queue.tracker.lock();
    for (lane, input) in &inputs {
        if let Input::Changes { chunk, .. } = input
            && let Some(first) = chunk.first()
        {
            tracker.sent(*lane, first);
        }
    }
    tracker.window(checkpoint);
    drop(tracker);
    // Else it is not settled before a lane says so.
    if inputs.is_empty() {
        queue.progress.notify_one();
    }
    Ok(inputs)
}

/// Where events are that are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EventPlace {
    InQueue,
    Parked,
}

/// What came of a window.
struct DecodedWindow<'w> {
    chunks: Vec<Chunk>,
    records: Vec<Vec<Record>>,
    /// Offsets and events that are refused.
    rejected: Vec<(i64, &'w [u8], Box<Refused>)>,
    /// Offsets of those that were dead letters before, or are parked and need not be.
    buried: Vec<i64>,
    unsettled: Unsettled,
}

impl<'w> DecodedWindow<'w> {
    fn new(window: &Window, lanes: usize, unsettled: Unsettled) -> Self {
        let room = || Chunk::with_room(window.len(), window.bytes(), lanes);
        DecodedWindow {
            chunks: (0..lanes).map(|_| room()).collect(),
            records: (0..lanes).map(|_| Vec::new()).collect(),
            rejected: Vec::new(),
            buried: Vec::new(),
            unsettled,
        }
    }

    /// Decodes the events of a window.
    fn read(&mut self, queue: &Owned, decoder: &mut Decoder, window: &'w Window, kept: EventPlace) {
        // Else nobody asks for the traces of writes.
        let keeps_traces = trace::is_logged();
        let mut skipped = 0;
        let buried = queue.buried.lock();
        // What is parked comes from there, and only from there.
        let may_be_parked = kept == EventPlace::InQueue && !queue.parked.is_empty();
        for (offset, event) in window.iter() {
            if may_be_parked && queue.parked.has(offset) {
                drop(self.unsettled.split(1));
                continue;
            }
            if !buried.is_empty() && buried.contains(&offset) {
                self.buried.push(offset);
                // Who recorded it may have ended before it could tell.
                if let Some(receipts) = &queue.receipts {
                    let entity = decoder.decode(event).ok().map(|change| change.entity.into());
                    receipts.dead_before(entity, offset);
                }
                continue;
            }
            let decoded = if window.is_malformed(offset) {
                Err(decoder.refused(event, Rejection::new(Reason::BadEvent, NO_EVENT_FIELD)))
            } else {
                decoder.decode_routed(event)
            };
            match decoded {
                // The routes have changed since it was parked, and nothing is written for it any more.
                Ok((_, route)) if kept == EventPlace::Parked && queue.mapping.timings.only_flush(route) => {
                    self.buried.push(offset);
                }
                Ok((change, route)) => {
                    let traceparent = change.traceparent.filter(|_| keeps_traces);
                    self.place(queue, (offset, event), Change { traceparent, ..change }, route);
                }
                Err(refused) if refused.rejection.reason == Reason::Skipped => {
                    match kept {
                        EventPlace::InQueue => skipped += 1,
                        // The routes have changed since it was parked. It is to be parked no more.
                        EventPlace::Parked => self.buried.push(offset),
                    }
                }
                Err(refused) => self.rejected.push((offset, event, refused)),
            }
        }
        decoder.shrink();
        queue.metrics.mended.increment(decoder.take_mended());
        if skipped > 0 {
            self.unsettled.split(skipped).settle(Outcome::Skipped);
        }
        if !self.buried.is_empty() {
            self.unsettled.split(self.buried.len() as u64).settle(Outcome::Deduplicated);
        }
    }

    /// Gives the change that an event makes to the lane of its document.
    #[inline]
    fn place(
        &mut self,
        queue: &Owned,
        (offset, event): (i64, &[u8]),
        change: Change<'_>,
        route: Option<usize>,
    ) {
        let hash = change.entity.hash(&queue.shared.seed);
        let (lane, ts) = (lane_of(hash, self.chunks.len()), change.ts);
        self.chunks[lane].push(Placed { offset, hash, change }, queue.mapping.timings.of(route));
        if let Some(into) = queue.mapping.histories.of(route) {
            let (into, at) = (Arc::clone(into), bson::DateTime::now());
            self.records[lane].push(Record { offset, into, at, ts, event: event.into() });
        }
    }

    /// Records the dead letters.
    async fn bury(&mut self, queue: &Owned) -> Result<(), SourceError> {
        if self.rejected.is_empty() {
            return Ok(());
        }
        let letters: Vec<_> = self
            .rejected
            .iter()
            .map(|(offset, event, refused)| Dead {
                offset: *offset,
                event,
                rejection: &refused.rejection,
                traceparent: refused.traceparent,
                entity: refused.entity.as_ref().map(Entity::get),
            })
            .collect();
        queue.bury(&letters).await?;
        for Dead { rejection, .. } in &letters {
            self.unsettled.split(1).settle(Outcome::Dead(rejection.reason));
        }
        Ok(())
    }

    /// The changes, and what is to be kept of them, by lane.
    fn shares(&mut self) -> Vec<(usize, Chunk, Vec<Record>)> {
        let (chunks, records) = (std::mem::take(&mut self.chunks), std::mem::take(&mut self.records));
        let shares = chunks.into_iter().zip(records).enumerate();
        shares
            .filter(|(_, (chunk, _))| !chunk.is_empty())
            .map(|(lane, (chunk, records))| (lane, chunk, records))
            .collect()
    }
}

/// The lane of an entity. The table of a lane uses the hash's low bits, so lanes go by its high ones.
fn lane_of(hash: u64, lanes: usize) -> usize {
    ((u128::from(hash) * lanes as u128) >> 64) as usize
}

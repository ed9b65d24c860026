//! Reading ahead: one task fetches windows, another decodes them and shares the changes out to lanes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Owned;
use super::window_size::WindowSize;
use crate::buffer::Reserved;
use crate::change::{Change, Chunk, Entity, Placed};
use crate::dead_letter::{Dead, Reason, Rejection};
use crate::history::Record;
use crate::lane::Input;
use crate::settle::Outcome;
use crate::source::{MAX_WINDOW, Source, SourceError, Waiter, Window};
use crate::status::Phase;
use crate::trace::{self, Traceparent};

/// More events than these to be read are a backlog.
const BACKLOG: u64 = MAX_WINDOW as u64;

/// What is fetched.
pub(super) enum Fetched {
    /// Events, and their memory.
    Window(Window, Reserved),
    /// Whether there is a backlog behind what was fetched so far, and memory for it.
    Behind(bool),
    /// Everything read so far is to be settled; answered when the lanes know.
    Flush(oneshot::Sender<()>),
}

/// Fetches windows.
pub(super) struct Fetcher {
    pub(super) queue: Arc<Owned>,
    pub(super) windows: mpsc::Sender<Fetched>,
    pub(super) stop: CancellationToken,
    waiter: Waiter,
    /// Events sent on so far.
    sent: u64,
    /// What the lanes are told of a backlog.
    behind: bool,
}

impl Fetcher {
    /// A fetcher that sends what it reads to `windows`.
    pub(super) fn new(
        queue: Arc<Owned>,
        windows: mpsc::Sender<Fetched>,
        stop: CancellationToken,
        waiter: Waiter,
    ) -> Self {
        Fetcher { queue, windows, stop, waiter, sent: 0, behind: false }
    }

    /// Recovers what a former owner left, numbers the rest anew, and reads on until stopped.
    ///
    /// # Errors
    /// The ownership has ended.
    pub(super) async fn run(mut self) -> Result<(), SourceError> {
        let queue = Arc::clone(&self.queue);
        self.recover().await?;
        if self.stop.is_cancelled() && queue.source.lease().is_some() {
            return Ok(());
        }
        let cursor = queue.source.recovered().await?;
        queue.tracker.lock().restart(cursor);
        queue.clock.lock().reset();
        queue.status.renumbered();
        queue.recovered.cancel();
        queue.status.set_phase(Phase::Active);
        self.read(cursor).await
    }

    async fn read(&mut self, mut cursor: i64) -> Result<(), SourceError> {
        let popping = matches!(self.queue.source, Source::Pop(_));
        let mut size = WindowSize::default();
        let live = Arc::clone(&self.queue.shared.live);
        let mut pause = Pause::new(live.policy().max_delay);
        let mut known = 0;
        while let Some(room) = self.room().await? {
            let count = self.queue.source.may_ask(size.events().min(room), known);
            let (window, depth) = self.queue.source.read(cursor, count).await?;
            known = depth.ahead;
            self.queue.sample(depth.tail);
            self.queue.status.saw(depth);
            size.saw(&window);
            let read = self.uncommitted() + window.len() as u64;
            // To its very end: what is left of it is for the same documents. What cannot be read any more, as Redis counts
            // in streams, is none of it.
            let more = if self.behind { known > 0 } else { depth.elements.saturating_sub(read) > BACKLOG };
            let behind = !popping && more;
            if behind {
                self.tell_behind(true).await?;
            }
            if !window.is_empty() {
                cursor = window.end();
                self.send(window).await?;
                pause = Pause::new(live.policy().max_delay);
            }
            if !behind {
                self.tell_behind(false).await?;
            }
            // Popping waits by itself.
            if popping || known > 0 {
                continue;
            }
            let waited = if depth.is_held {
                self.stop.run_until_cancelled(pause.wait()).await.map(Ok)
            } else {
                let past = match &self.queue.source {
                    Source::Stream(stream) => Some(stream.past().await),
                    Source::List(_) | Source::Pop(_) => None,
                };
                self.stop.run_until_cancelled(self.waiter.wait(past.as_deref())).await
            };
            match waited {
                Some(waited) => waited?,
                None => break,
            }
        }
        self.queue.status.set_phase(Phase::Draining);
        Ok(())
    }

    /// Waits until more may be read; answers how many events. None at the end.
    ///
    /// Dead letters leave the buffer before they are committed, so what is not committed is bounded, too.
    ///
    /// # Errors
    /// The ownership has ended.
    pub(super) async fn room(&mut self) -> Result<Option<usize>, SourceError> {
        let queue = Arc::clone(&self.queue);
        let buffer = &queue.shared.buffer;
        loop {
            let (committed, changed) = (queue.committed.notified(), buffer.changed());
            if self.stop.is_cancelled() {
                return Ok(None);
            }
            if self.uncommitted() < buffer.max_events()
                && let Some(room) = buffer.room()
            {
                return Ok(Some(usize::try_from(room).unwrap_or(usize::MAX)));
            }
            // Only writing makes room.
            self.tell_behind(false).await?;
            tokio::select! {
                () = committed => {}
                () = changed => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Events read and not committed.
    fn uncommitted(&self) -> u64 {
        self.sent - self.queue.tracker.lock().committed_events()
    }

    /// Tells the lanes, in its place among the windows, whether there is a backlog: told at once, they would send what
    /// the windows on their way still add to.
    async fn tell_behind(&mut self, behind: bool) -> Result<(), SourceError> {
        if std::mem::replace(&mut self.behind, behind) == behind {
            return Ok(());
        }
        self.windows.send(Fetched::Behind(behind)).await.map_err(|_| ended())
    }

    pub(super) async fn send(&mut self, window: Window) -> Result<(), SourceError> {
        self.sent += window.len() as u64;
        let memory = Reserved::new(&self.queue.shared.buffer, window.bytes());
        self.windows.send(Fetched::Window(window, memory)).await.map_err(|_| ended())
    }
}

/// How long to wait before looking for new elements again, while read ones wait for their commit.
struct Pause {
    next: Duration,
}

impl Pause {
    const LONGEST: Duration = Duration::from_millis(20);

    fn new(max_delay: Duration) -> Self {
        let shortest = (max_delay / 10).clamp(Duration::from_millis(1), Duration::from_millis(2));
        Pause { next: shortest }
    }

    async fn wait(&mut self) {
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(Self::LONGEST);
    }
}

/// The other end of a channel is gone: its task has the reason.
pub(super) fn ended() -> SourceError {
    SourceError::Lost("the queue's tasks have ended".into())
}

/// Decodes windows and shares the changes out to `lanes`, until the windows end.
///
/// # Errors
/// The ownership has ended.
pub(super) async fn dispatch(
    queue: Arc<Owned>,
    mut windows: mpsc::Receiver<Fetched>,
    lanes: Vec<mpsc::Sender<Input>>,
) -> Result<(), SourceError> {
    let mut decoder = queue.mapping.decoder();
    while let Some(fetched) = windows.recv().await {
        match fetched {
            Fetched::Window(window, memory) => {
                let chunks = decode(&queue, &mut decoder, &window, lanes.len()).await?;
                drop((window, memory));
                for (lane, input) in chunks {
                    lanes[lane].send(input).await.map_err(|_| ended())?;
                }
            }
            Fetched::Behind(behind) => {
                for lane in &lanes {
                    lane.send(Input::Behind(behind)).await.map_err(|_| ended())?;
                }
            }
            Fetched::Flush(told) => {
                for lane in &lanes {
                    lane.send(Input::Flush).await.map_err(|_| ended())?;
                }
                // Nobody waits for it any more if the queue is being given up.
                let _ = told.send(());
            }
        }
    }
    Ok(())
}

/// Decodes a window: the lanes' shares of it. Its dead letters are recorded.
async fn decode(
    queue: &Arc<Owned>,
    decoder: &mut crate::event::Decoder,
    window: &Window,
    lanes: usize,
) -> Result<Vec<(usize, Input)>, SourceError> {
    let Some(checkpoint) = window.checkpoint() else { return Ok(Vec::new()) };
    let mut unsettled = queue.ledger.receive(window.len() as u64);
    let room = || Chunk::with_room(window.len(), window.bytes(), lanes);
    let mut chunks: Vec<Chunk> = (0..lanes).map(|_| room()).collect();
    let mut records: Vec<Vec<Record>> = (0..lanes).map(|_| Vec::new()).collect();
    let mut rejected = Vec::new();
    let mut settled_before = 0;
    // Else nobody asks for the traces of writes.
    let keeps_traces = trace::is_logged();
    let mut route = None;
    {
        let buried = queue.buried.lock();
        for (offset, event) in window.iter() {
            if !buried.is_empty() && buried.contains(&offset) {
                settled_before += 1;
                // Who recorded it may have ended before it could tell.
                if let Some(receipts) = &queue.receipts {
                    let entity = decoder.decode(event).ok().map(|change| change.entity.into());
                    receipts.dead_before(entity, offset);
                }
                continue;
            }
            let decoded = if window.is_malformed(offset) {
                Err(Rejection::new(Reason::BadEvent, "the entry does not have the field that is the event"))
            } else {
                decoder.decode_routed(event, &mut route)
            };
            match decoded {
                Ok(change) => {
                    let traceparent = change.traceparent.filter(|_| keeps_traces);
                    let change = Change { traceparent, ..change };
                    let hash = change.entity.hash(&queue.shared.seed);
                    let lane = lane_of(hash, lanes);
                    let ts = change.ts;
                    chunks[lane].push(Placed { offset, hash, change });
                    if let Some(into) = queue.mapping.histories.of(route) {
                        let (into, at) = (Arc::clone(into), bson::DateTime::now());
                        records[lane].push(Record { offset, into, at, ts, event: event.into() });
                    }
                }
                Err(rejection) => {
                    let traceparent = decoder.traceparent(event, route).map(Traceparent::from);
                    // Else nobody asks whose it is.
                    let entity = queue.receipts.as_ref().and_then(|_| decoder.whose(event, route));
                    rejected.push((offset, event, rejection, traceparent, entity));
                }
            }
        }
    }
    if settled_before > 0 {
        unsettled.split(settled_before).settle(Outcome::Deduplicated);
    }
    if !rejected.is_empty() {
        let letters: Vec<_> = rejected
            .iter()
            .map(|(offset, event, rejection, traceparent, entity)| Dead {
                offset: *offset,
                event,
                rejection,
                traceparent: *traceparent,
                entity: entity.as_ref().map(Entity::get),
            })
            .collect();
        queue.bury(&letters).await?;
        for Dead { rejection, .. } in &letters {
            unsettled.split(1).settle(Outcome::Dead(rejection.reason));
        }
    }

    let inputs: Vec<_> = chunks
        .into_iter()
        .zip(records)
        .enumerate()
        .filter(|(_, (chunk, _))| !chunk.is_empty())
        .map(|(lane, (chunk, records))| {
            let kept: usize = records.iter().map(Record::bytes).sum();
            let memory = Reserved::new(&queue.shared.buffer, chunk.bytes() + kept);
            let unsettled = unsettled.split(chunk.len() as u64);
            (lane, Input::Changes { chunk, unsettled, memory, records })
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
    queue.progress.notify_one();
    Ok(inputs)
}

/// The lane of an entity. The table of a lane uses the hash's low bits, so lanes go by its high ones.
fn lane_of(hash: u64, lanes: usize) -> usize {
    ((u128::from(hash) * lanes as u128) >> 64) as usize
}

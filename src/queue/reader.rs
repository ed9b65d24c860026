//! Reads windows: the next is on its way while the one before is decoded and shared out to the lanes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dispatcher::Dispatcher;
use super::look_pause::LookPause;
use super::recovery::Recovery;
use crate::buffer::Reserved;
use crate::ledger::Unsettled;
use crate::ownership::Owned;
use crate::ownership::WindowSize;
use crate::source::{MAX_WINDOW, SourceError, Waiter, Window};
use crate::status::Phase;

/// More windows than these to be read are a backlog, and so is the largest window.
const BACKLOG: usize = 4;

/// Reads windows, and has them shared out.
pub(super) struct Reader {
    queue: Arc<Owned>,
    stop: CancellationToken,
    dispatcher: Dispatcher,
    waiter: Waiter,
    /// What was read last and is to be shared out.
    held: Option<HeldWindow>,
    /// Events read so far.
    read: u64,
    /// Whether there is a backlog behind what was read.
    behind: bool,
    pause: LookPause,
}

struct HeldWindow {
    window: Window,
    unsettled: Unsettled,
    _memory: Reserved,
    behind: bool,
    since: Instant,
}

impl Reader {
    /// A reader that has what it reads shared out by `dispatcher`.
    pub(super) fn new(
        queue: Arc<Owned>,
        dispatcher: Dispatcher,
        stop: CancellationToken,
        waiter: Waiter,
    ) -> Self {
        Reader {
            queue,
            dispatcher,
            stop,
            waiter,
            held: None,
            read: 0,
            behind: false,
            pause: LookPause::default(),
        }
    }

    /// Recovers what a former owner left, numbers the rest anew, and reads on until stopped.
    pub(super) async fn run(mut self) -> Result<(), SourceError> {
        let queue = Arc::clone(&self.queue);
        let mut recovery = Recovery::new(Arc::clone(&queue), self.stop.clone(), &mut self);
        recovery.take_on_parked().await?;
        recovery.recover().await?;
        if self.stop.is_cancelled() && queue.source.lease().is_some() {
            return Ok(());
        }
        if queue.has_former_id {
            return Err(SourceError::OtherId);
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
        let queue = Arc::clone(&self.queue);
        let popping = queue.source.waits_to_read();
        let mut size = WindowSize::default();
        let live = Arc::clone(&queue.shared.live);
        let mut known = 0;
        while let Some(room) = self.room().await? {
            let count = queue.source.may_ask(size.events().min(room), known);
            // What is said of the queue holds when Redis says it. Decoding what is held takes longer.
            let reading = async {
                let (window, depth) = queue.source.read(cursor, count).await?;
                queue.sample(depth.tail);
                let committed = queue.tracker.lock().committed_events();
                Ok::<_, SourceError>((window, depth, committed))
            };
            let asked = Instant::now();
            // Redis is asked first, and answers while what it answered before is decoded.
            let (read, released) = tokio::join!(biased; reading, self.release());
            released?;
            let (window, depth, committed) = read?;
            known = depth.ahead;
            queue.status.saw(depth);
            size.saw(&window);
            let read = self.read - committed + window.len() as u64;
            // To its very end: what is left of it is for the same documents. What cannot be read any more, as Redis counts
            // in streams, is none of it.
            let unread = depth.elements.saturating_sub(read);
            queue.unread.store(unread, Ordering::Relaxed);
            let backlog = (BACKLOG * size.events()).min(MAX_WINDOW) as u64;
            let more = if self.behind { known > 0 } else { unread > backlog };
            self.behind = !popping && more;
            if !window.is_empty() {
                cursor = window.end();
            }
            self.hold(window);
            // Popping waits by itself.
            if popping || known > 0 {
                continue;
            }
            self.release().await?;
            let waited = if depth.is_held {
                let shortest = queue.mapping.timings.shortest(live.policy().max_delay);
                let pause = self.pause.wait(asked, shortest);
                self.stop.run_until_cancelled(pause).await.map(Ok)
            } else {
                // Redis tells at once.
                self.pause = LookPause::default();
                let told = async {
                    tokio::select! {
                        told = queue.source.wait(&mut self.waiter) => told.map(|()| true),
                        () = queue.seen.notified() => Ok(false),
                    }
                };
                let told = self.stop.run_until_cancelled(told).await;
                if matches!(told, Some(Ok(false))) {
                    self.waiter.has_missed();
                }
                told.map(|told| told.map(drop))
            };
            match waited {
                Some(waited) => waited?,
                None => break,
            }
        }
        self.release().await?;
        queue.status.set_phase(Phase::Draining);
        Ok(())
    }

    /// Waits until more may be read; answers how many events. None at the end.
    ///
    /// Dead letters leave the buffer before they are committed, so what is not committed is bounded, too.
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
            // Only writing makes room, and that may take long.
            self.release().await?;
            queue.relieve();
            self.pause = LookPause::default();
            self.behind = false;
            self.dispatcher.tell_behind(false).await?;
            tokio::select! {
                () = committed => {}
                () = changed => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Events read and not committed.
    fn uncommitted(&self) -> u64 {
        self.read - self.queue.tracker.lock().committed_events()
    }

    /// Shares out a window at once.
    pub(super) async fn share_out(&mut self, window: Window) -> Result<(), SourceError> {
        self.hold(window);
        self.release().await
    }

    /// Shares out events that are parked.
    pub(super) async fn share_out_parked(&mut self, window: &Window) -> Result<(), SourceError> {
        self.dispatcher.share_out_parked(window).await
    }

    /// Has the lanes settle all that was shared out.
    pub(super) async fn flush(&self) -> Result<(), SourceError> {
        self.dispatcher.flush().await
    }

    /// Holds a window, to be shared out while the next one is on its way.
    fn hold(&mut self, window: Window) {
        debug_assert!(self.held.is_none(), "a window is released before the next is held");
        let events = window.len() as u64;
        self.read += events;
        let unsettled = self.queue.ledger.receive(events);
        let memory = Reserved::new(&self.queue.shared.buffer, window.bytes());
        let since = if events > 0 { self.pause.end(events) } else { Instant::now() };
        self.held = Some(HeldWindow { window, unsettled, _memory: memory, behind: self.behind, since });
    }

    /// Shares out the window that is held.
    async fn release(&mut self) -> Result<(), SourceError> {
        let Some(HeldWindow { window, unsettled, _memory, behind, since }) = self.held.take() else {
            return Ok(());
        };
        // Lanes that are told of an end before its last window would send what this still adds to.
        if behind {
            self.dispatcher.tell_behind(true).await?;
        }
        self.dispatcher.share_out(&window, unsettled, since).await?;
        if !behind {
            self.dispatcher.tell_behind(false).await?;
            self.queue.relieve();
        }
        Ok(())
    }
}

//! Pops a list at-most-once, for lists shared with other consumers or Redis before 6.2.
//!
//! Popped events are in memory only until they are settled. A lost connection to Redis must not cost
//! them, so it is opened again here and never ends the ownership.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use parking_lot::Mutex;

use super::DeadLetterRecord;
use super::connect::{Redis, version};
use super::error::SourceError;
use super::window::{Depth, QueueLook, Window};
use crate::buffer::{Buffer, Reserved};
use crate::commit::Checkpoint;
use crate::config::Keys;
use crate::health::{Attempts, Health};

/// What is asked of Redis besides popping the first event: more of them, and how many there are.
const MORE: &str = "LPOP";
const LENGTHS: &str = "LLEN";

/// A list that this instance pops.
pub(super) struct Pop {
    redis: Redis,
    keys: Keys,
    health: Arc<Health>,
    buffer: Arc<Buffer>,
    popping: tokio::sync::Mutex<Popping>,
    /// For what does not block.
    other: tokio::sync::Mutex<Option<Connection>>,
    held: Mutex<PoppedWindows>,
}

struct Popping {
    /// The connection, and whether its server pops several at once.
    connection: Option<(Connection, bool)>,
    attempts: Attempts,
}

/// What was popped and is not settled.
#[derive(Debug, Default)]
struct PoppedWindows {
    windows: VecDeque<(Window, Reserved)>,
    next: i64,
    /// What was left in the list when it was last looked at.
    elements: u64,
}

impl PoppedWindows {
    fn depth(&self) -> Depth {
        // Popped events are numbered as they come, and none is in the list.
        Depth { elements: self.elements, tail: self.next, ..Depth::default() }
    }
}

impl std::fmt::Debug for Pop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pop").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Pop {
    /// Longest wait on the server. A pop must never be dropped, so this bounds how long the end of the
    /// process may wait for one.
    const BLOCK: Duration = Duration::from_secs(1);

    /// A list to pop. Nothing is sent yet.
    #[must_use]
    pub(super) fn new(redis: Redis, keys: Keys, health: Arc<Health>, buffer: Arc<Buffer>) -> Self {
        let popping = Popping { connection: None, attempts: health.redis.attempts() };
        Pop {
            redis,
            keys,
            health,
            buffer,
            popping: tokio::sync::Mutex::new(popping),
            other: tokio::sync::Mutex::default(),
            held: Mutex::default(),
        }
    }

    /// Pops up to `count` events; waits a while for the first. The connection's response timeout is longer
    /// than the wait, and the future must be driven to its end: the reply of a pop that nobody takes is lost.
    pub(super) async fn read(&self, cursor: i64, count: usize) -> Result<(Window, Depth), SourceError> {
        let mut popping = self.popping.lock().await;
        let events = match self.pop(&mut popping.connection, count).await {
            Ok(events) => {
                popping.attempts.succeeded();
                self.health.redis.takes(&self.keys.queue);
                events
            }
            Err(error) => {
                // What such a pop took may be lost: that is what at-most-once means.
                popping.connection = None;
                self.failed(&self.keys.queue, &error);
                popping.attempts.pause().await;
                Vec::new()
            }
        };
        let window = Window::new(cursor, events);
        let mut held = self.held.lock();
        held.next = window.end();
        if !window.is_empty() {
            let memory = Reserved::new(&self.buffer, window.bytes());
            held.windows.push_back((window.clone(), memory));
        }
        Ok((window, held.depth()))
    }

    async fn pop(
        &self,
        open: &mut Option<(Connection, bool)>,
        count: usize,
    ) -> Result<Vec<Vec<u8>>, SourceError> {
        if open.is_none() {
            let mut connection = self.redis.connect_blocking(Self::BLOCK).await?;
            let counted = version(&mut connection).await? >= (6, 2);
            *open = Some((connection, counted));
            self.health.redis.up();
        }
        let Some((connection, counted)) = open else { return Ok(Vec::new()) };
        let queue = &self.keys.queue;
        let first: Option<(Vec<u8>, Vec<u8>)> =
            redis::cmd("BLPOP").arg(queue).arg(Self::BLOCK.as_secs()).query_async(connection).await?;
        let Some((_, first)) = first else {
            self.held.lock().elements = 0;
            return Ok(Vec::new());
        };
        let mut events = vec![first];
        let more = count.saturating_sub(1);
        if more == 0 {
            return Ok(events);
        }
        // From here on, what was popped is kept whatever happens to the rest.
        let rest: Result<Vec<Option<Vec<u8>>>, _> = if *counted {
            let popped: Result<Option<Vec<Vec<u8>>>, _> =
                redis::cmd("LPOP").arg(queue).arg(more).query_async(connection).await;
            popped.map(|events| events.unwrap_or_default().into_iter().map(Some).collect())
        } else {
            let mut pipe = redis::pipe();
            (0..more).for_each(|_| {
                pipe.cmd("LPOP").arg(queue);
            });
            pipe.query_async(connection).await
        };
        match rest {
            Ok(rest) => {
                self.health.redis.takes(MORE);
                events.extend(rest.into_iter().flatten());
            }
            Err(error) => {
                *open = None;
                self.failed(MORE, &error.into());
            }
        }
        Ok(events)
    }

    /// Popped events, from memory.
    pub(super) fn reread(&self, cursor: i64, count: usize) -> Window {
        let held = self.held.lock();
        let windows = held.windows.iter().map(|(window, _)| window);
        let behind = windows.filter(|window| window.end() > cursor);
        let events = behind.flat_map(Window::iter).filter(|(offset, _)| *offset >= cursor);
        Window::new(cursor, events.take(count).map(|(_, event)| event))
    }

    pub(super) fn commit(&self, checkpoint: Checkpoint) -> Depth {
        let mut held = self.held.lock();
        while held.windows.front().is_some_and(|(window, _)| window.end() <= checkpoint.end) {
            held.windows.pop_front();
        }
        held.depth()
    }

    /// Pushes dead letters to their list at once; they have nowhere else to be.
    pub(super) async fn bury(&self, letters: &[DeadLetterRecord]) -> Result<(), SourceError> {
        let mut push = redis::pipe();
        for letter in letters {
            push.cmd("RPUSH").arg(&self.keys.dead_list).arg(&letter.json).ignore();
        }
        let attempt = || async { self.other::<()>(&self.keys.dead_list, &push).await.ok() };
        self.health.redis.until(attempt).await;
        Ok(())
    }

    pub(super) async fn look(&self) -> Result<QueueLook, SourceError> {
        let mut lengths = redis::pipe();
        lengths.cmd("LLEN").arg(&self.keys.queue).cmd("LLEN").arg(&self.keys.dead_list);
        let lengths = self.other::<(u64, u64)>(LENGTHS, &lengths).await;
        let mut held = self.held.lock();
        // An outage is told elsewhere; what was seen last is as good as any guess.
        let dead = lengths.ok().map(|(elements, dead)| {
            held.elements = elements;
            dead
        });
        Ok(QueueLook { depth: held.depth(), dead, oldest: None })
    }

    /// Whether Redis can be reached and accepts us; the one moment at which it may be fatal that it does not.
    pub(super) async fn reach(&self) -> Result<(), SourceError> {
        let mut lengths = redis::pipe();
        lengths.cmd("LLEN").arg(&self.keys.queue).cmd("LLEN").arg(&self.keys.dead_list);
        self.other::<(u64, u64)>(LENGTHS, &lengths).await.map(drop)
    }

    /// Tells that `what` has failed.
    fn failed(&self, what: &str, error: &SourceError) {
        match error {
            SourceError::Refused(_) => self.health.redis.refuses(what, error),
            _ if self.redis.is_cluster() => self.health.redis.lacks(what, error),
            _ => self.health.redis.down(error),
        }
    }

    /// Sends commands that do not block; `what` they are for.
    async fn other<T: redis::FromRedisValue>(
        &self,
        what: &str,
        pipe: &redis::Pipeline,
    ) -> Result<T, SourceError> {
        let mut open = self.other.lock().await;
        let answer = async {
            let mut connection = match open.take() {
                Some(connection) => connection,
                None => self.redis.connect().await?,
            };
            let answer = pipe.query_async(&mut connection).await?;
            *open = Some(connection);
            Ok(answer)
        };
        let answer: Result<T, SourceError> = answer.await;
        match &answer {
            Ok(_) => {
                self.health.redis.takes(what);
                self.health.redis.up();
            }
            Err(error) => self.failed(what, error),
        }
        answer
    }
}

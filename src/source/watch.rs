//! Has Redis tell when a queue changes that was found empty. One connection tells of all queues of a server.
//!
//! Redis remembers which keys a connection has read, and tells once that one has changed since:
//! <https://redis.io/docs/latest/develop/reference/client-side-caching/>. So a queue is looked at, and then waited for. It
//! may be told in vain, and is never told too little for as long as the connection lasts.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::access::Access;
use super::connection::Connection;
use super::error::SourceError;
use super::open::{Duplex, open};
use super::shared::Ends;
use crate::beat;

/// How often the connection is used, if only to find out whether it lasts.
const USED_EVERY: Duration = Duration::from_secs(1);

/// A server that does not tell is asked again after so long. It may log each refusal.
const ASKED_AGAIN: Duration = Duration::from_secs(3600);

/// What a server does for those who wait.
#[derive(Debug, Clone)]
pub(super) enum Watching {
    /// It tells.
    Told(Arc<Watch>),
    /// It does not: it is too old, or the user may not ask for it. So it said then.
    Untold(Instant),
}

/// A connection that tells of changes.
#[derive(Debug)]
pub(super) struct Watch {
    connection: Connection,
    waiting: Arc<Waiting>,
    _used: AbortOnDropHandle<()>,
}

/// Who waits for what.
#[derive(Debug, Default)]
struct Waiting {
    keys: Mutex<HashMap<String, Arc<Notify>>>,
    is_over: AtomicBool,
}

impl Ends for Watching {
    fn has_ended(&self) -> bool {
        match self {
            Watching::Told(watch) => watch.is_over(),
            Watching::Untold(since) => since.elapsed() > ASKED_AGAIN,
        }
    }
}

impl Watching {
    /// Asks a server to tell.
    ///
    /// # Errors
    /// Lost.
    pub(super) async fn open(access: &Access, patience: Duration) -> Result<Self, SourceError> {
        let stream = open(access, patience).await?;
        match Watch::over(stream, access, patience).await {
            Ok(watch) => Ok(Watching::Told(Arc::new(watch))),
            Err(error @ SourceError::LoginRefused(_)) => Err(error),
            // If the server is gone, whoever waits in another way finds that out.
            Err(error) => {
                tracing::debug!(%error, "Redis does not tell of changes: each queue waits over a connection of its own");
                Ok(Watching::Untold(Instant::now()))
            }
        }
    }
}

impl Watch {
    async fn over(stream: Box<dyn Duplex>, access: &Access, patience: Duration) -> Result<Self, SourceError> {
        let waiting = Arc::new(Waiting::default());
        let tell = {
            let waiting = Arc::clone(&waiting);
            move |push: PushInfo| -> Result<(), std::convert::Infallible> {
                waiting.take(&push);
                Ok(())
            }
        };
        let connect = async {
            let settings = access.info.redis_settings();
            let mut connection = Connection::told_over(stream, settings, patience, tell).await?;
            tracking().exec_async(&mut connection).await?;
            Ok(connection)
        };
        let late = |_| Err(SourceError::Lost(format!("timed out: no reply within {patience:?}").into()));
        let connection = timeout(patience, connect).await.unwrap_or_else(late)?;
        let used = tokio::spawn(keep(connection.clone(), Arc::clone(&waiting)));
        Ok(Watch { connection, waiting, _used: AbortOnDropHandle::new(used) })
    }

    fn is_over(&self) -> bool {
        self.waiting.is_over.load(Ordering::Acquire) || !self.connection.is_open()
    }

    /// Waits until a list has elements, or a stream entries behind the id `past`; or until it was changed.
    ///
    /// # Errors
    /// Lost: nobody tells any more.
    pub(super) async fn wait(&self, queue: &str, past: Option<&str>) -> Result<(), SourceError> {
        let mut look = redis::Cmd::new();
        match past {
            None => look.arg("LLEN").arg(queue),
            Some(past) => look.arg("XREAD").arg("COUNT").arg(1).arg("STREAMS").arg(queue).arg(past),
        };
        self.until_told(queue, &look).await.map(drop)
    }

    /// Waits until a key is there, or was changed. Answers whether it was there.
    ///
    /// # Errors
    /// Lost: nobody tells any more. Or the user may not look at it.
    pub(super) async fn until_there(&self, key: &str) -> Result<bool, SourceError> {
        self.until_told(key, redis::cmd("EXISTS").arg(key)).await
    }

    /// Waits until what is looked at is there, or its key was changed. Answers whether it was there.
    async fn until_told(&self, key: &str, look: &redis::Cmd) -> Result<bool, SourceError> {
        let told = Arc::clone(self.waiting.keys.lock().entry(key.to_owned()).or_default());
        let mut told = std::pin::pin!(told.notified());
        // From here on nothing is missed.
        told.as_mut().enable();
        let seen: Value = look.query_async(&mut self.connection.clone()).await?;
        let is_there = !matches!(seen, Value::Nil | Value::Int(0));
        if !is_there && !self.is_over() {
            told.await;
        }
        match self.is_over() {
            true => Err(SourceError::Lost("the connection that tells of changes is gone".into())),
            false => Ok(is_there),
        }
    }
}

impl Waiting {
    /// Takes what Redis said without being asked.
    fn take(&self, push: &PushInfo) {
        match push.kind {
            PushKind::Invalidate => match push.data.first() {
                Some(Value::Array(keys)) => keys.iter().for_each(|key| self.wake(key)),
                // All of it is gone, as by FLUSHALL.
                _ => self.wake_all(),
            },
            PushKind::Disconnection => self.end(),
            _ => {}
        }
    }

    fn wake(&self, key: &Value) {
        let Value::BulkString(key) = key else { return };
        let keys = self.keys.lock();
        if let Some(waits) = std::str::from_utf8(key).ok().and_then(|key| keys.get(key)) {
            waits.notify_waiters();
        }
    }

    fn wake_all(&self) {
        self.keys.lock().values().for_each(|waits| waits.notify_waiters());
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        self.wake_all();
    }
}

fn tracking() -> redis::Cmd {
    let mut command = redis::cmd("CLIENT");
    command.arg("TRACKING").arg("ON");
    command
}

/// Uses the connection now and then, until it does not answer.
async fn keep(mut connection: Connection, waiting: Arc<Waiting>) {
    // To ask once more for what is granted changes nothing.
    while tracking().exec_async(&mut connection).await.is_ok() {
        sleep_until(beat::next(USED_EVERY)).await;
    }
    waiting.end();
}

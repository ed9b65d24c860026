//! Reads large replies into one piece of memory, and cuts them up where they lie.
//! A general client makes a tree of a reply, a piece of memory for each string. That costs more than all that is done
//! with an event of a list; and an entry of a stream is five strings.

mod resp;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use redis::{FromRedisValue, Pipeline, RedisConnectionInfo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::resp::Scanner;
pub(super) use self::resp::{ReplyPart, ReplyWalk};
use super::access::Access;
use super::error::SourceError;
use super::open::{Duplex, open};

/// The least that is read at once.
const CHUNK: usize = 4096;

/// A connection on which one at a time asks.
pub(crate) struct Wire {
    stream: Box<dyn Duplex>,
    timeout: Duration,
    /// A reply is awaited. Whoever gave up waiting left it on its way.
    awaits: bool,
    /// Bytes of the last answer: the next one is likely to have as many.
    usual: usize,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("awaits", &self.awaits).finish_non_exhaustive()
    }
}

impl Wire {
    /// Connects as `access` says: TCP, TLS or a Unix socket, credentials, database.
    ///
    /// # Errors
    /// Lost, or fatal where Redis refuses the credentials.
    pub(in crate::source) async fn open(access: &Access, timeout: Duration) -> Result<Self, SourceError> {
        let stream = open(access, timeout).await?;
        let mut wire = Wire { stream, timeout, awaits: false, usual: 0 };
        let greeting = greeting(access.info.redis_settings());
        if !greeting.is_empty() {
            wire.ask(&greeting).await?;
        }
        Ok(wire)
    }

    /// Sends commands, and waits for the replies to all of them.
    ///
    /// # Errors
    /// One of the replies is an error; or lost, and then nothing can be asked any more.
    pub(super) async fn ask(&mut self, commands: &Pipeline) -> Result<WireReply, SourceError> {
        self.ask_for(commands, usize::MAX).await
    }

    /// The same, where the first reply may be larger than there is memory for: what of it begins beyond `limit` bytes is passed
    /// over.
    pub(super) async fn ask_for(
        &mut self,
        commands: &Pipeline,
        limit: usize,
    ) -> Result<WireReply, SourceError> {
        if std::mem::replace(&mut self.awaits, true) {
            return Err(SourceError::Lost("a reply was given up on before".into()));
        }
        let (timeout, packed) = (self.timeout, commands.get_packed_pipeline());
        let answer = tokio::time::timeout(timeout, self.exchange(&packed, commands.len(), limit)).await;
        let answer =
            answer.map_err(|_| SourceError::Lost(format!("no reply within {timeout:?}").into()))??;
        self.awaits = false;
        self.usual = answer.bytes.len();
        answer.check()?;
        Ok(answer)
    }

    /// Whether the other side has closed it, or said what it was not asked.
    pub(super) async fn was_closed(&mut self) -> bool {
        let mut byte = [0];
        let read = self.stream.read(&mut byte);
        // What is there already is all that is looked for. Of one that awaits a reply, the next question finds that out.
        !self.awaits && tokio::time::timeout(Duration::ZERO, read).await.is_ok()
    }

    async fn exchange(
        &mut self,
        packed: &[u8],
        replies: usize,
        limit: usize,
    ) -> Result<WireReply, SourceError> {
        self.stream.write_all(packed).await.map_err(SourceError::lost)?;
        self.stream.flush().await.map_err(SourceError::lost)?;
        let mut bytes = Vec::with_capacity(self.usual.max(CHUNK));
        let mut scanner = Scanner::keeping(limit);
        loop {
            let missing = scanner.scan(&mut bytes, replies)?;
            if missing == 0 {
                break;
            }
            // Doubling costs much memory where what is missing is known, and is large.
            if missing > bytes.len() / 4 {
                bytes.reserve_exact(missing.max(CHUNK));
            } else {
                bytes.reserve(missing.max(CHUNK));
            }
            if self.stream.read_buf(&mut bytes).await.map_err(SourceError::lost)? == 0 {
                return Err(SourceError::Lost("Redis has closed the connection".into()));
            }
        }
        // Large windows may be followed by small ones.
        if bytes.capacity() > 2 * bytes.len() + CHUNK {
            bytes.shrink_to_fit();
        }
        Ok(WireReply { bytes, ends: scanner.ends() })
    }
}

/// What is to be said first: who asks, and which database is meant.
fn greeting(settings: &RedisConnectionInfo) -> Pipeline {
    let mut greeting = redis::pipe();
    if let Some(password) = settings.password() {
        greeting.cmd("AUTH").arg(settings.username()).arg(password);
    }
    if settings.db() != 0 {
        greeting.cmd("SELECT").arg(settings.db());
    }
    greeting
}

/// The replies to what was asked, none of them an error.
#[derive(Debug)]
pub(super) struct WireReply {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl WireReply {
    fn range(&self, nth: usize) -> Range<usize> {
        let end = |nth: usize| self.ends.get(nth).copied().unwrap_or(self.bytes.len());
        nth.checked_sub(1).map_or(0, end)..end(nth)
    }

    fn check(&self) -> Result<(), SourceError> {
        for nth in 0..self.ends.len() {
            if self.bytes[self.range(nth)].starts_with(b"-") {
                self.value::<redis::Value>(nth)?;
            }
        }
        Ok(())
    }

    /// The n-th reply, which is small.
    pub(super) fn value<T: FromRedisValue>(&self, nth: usize) -> Result<T, SourceError> {
        let value = redis::parse_redis_value(&self.bytes[self.range(nth)])?.extract_error()?;
        redis::from_redis_value(value).map_err(SourceError::lost)
    }

    /// The n-th reply, part by part. Places are those in all the bytes.
    pub(super) fn walk(&self, nth: usize) -> ReplyWalk<'_> {
        let Range { start, end } = self.range(nth);
        ReplyWalk::new(&self.bytes[..end], start)
    }

    /// Bytes of all replies.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// All replies, as they came.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    #[cfg(test)]
    pub(super) fn of(text: &str, replies: usize) -> Self {
        let (mut scanner, mut bytes) = (Scanner::default(), text.into());
        assert_eq!(scanner.scan(&mut bytes, replies).unwrap(), 0);
        WireReply { bytes, ends: scanner.ends() }
    }
}

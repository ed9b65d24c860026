//! Waits for a list to have elements, or a stream more entries, without taking any.

use std::sync::Arc;
use std::time::Duration;

use super::connect::Redis;
use super::connection::Connection;
use super::error::SourceError;
use super::shared::Ends;
use super::watch::Watching;
use crate::config::Keys;

/// Waits on the connection that tells of all queues of the server. Where there is none, blocks on one of its own until a
/// list has an element, and leaves it there: the element moves to where it was. Of a stream, reads one entry in vain.
///
/// Nothing is lost if the reply is: no element was removed.
pub(crate) struct Waiter {
    redis: Redis,
    keys: Arc<Keys>,
    watching: Option<Watching>,
    connection: Option<Connection>,
    /// How often in a row something was there and was not told.
    missed: u32,
}

impl Waiter {
    /// Longest wait on the server; then it is asked again.
    const BLOCK: Duration = Duration::from_secs(5);
    /// Wait where Redis cannot.
    const POLL: Duration = Duration::from_millis(100);
    /// Whoever missed that many in a row believes nobody any more. One may be found while it is being told.
    const TRUST: u32 = 3;

    /// Waits on connections that are opened when first needed.
    #[must_use]
    pub(crate) fn new(redis: Redis, keys: Arc<Keys>) -> Self {
        Waiter { redis, keys, watching: None, connection: None, missed: 0 }
    }

    /// Waits until there is an element; of a stream, an entry behind the id `past`. It may be told in vain.
    pub(crate) async fn wait(&mut self, past: Option<&str>) -> Result<(), SourceError> {
        if self.missed < Self::TRUST {
            let watching = match self.watching.take().filter(|watching| !watching.has_ended()) {
                Some(watching) => watching,
                None => self.redis.watching().await?,
            };
            if let Watching::Told(watch) = self.watching.insert(watching) {
                watch.wait(&self.keys.queue, past).await?;
                self.missed = 0;
                return Ok(());
            }
        }
        self.block(past).await
    }

    /// Something was there before a wait was over.
    pub(crate) fn has_missed(&mut self) {
        self.missed += 1;
    }

    /// Blocks until there is something, or a while.
    async fn block(&mut self, past: Option<&str>) -> Result<(), SourceError> {
        // Taken out, so that a wait that is dropped or fails takes its connection along.
        let (mut connection, was_idle) = match self.connection.take() {
            Some(connection) => (connection, true),
            None => (self.redis.connect_blocking(Self::BLOCK).await?, false),
        };
        let queue = &self.keys.queue;
        let mut peek;
        if let Some(past) = past {
            peek = redis::cmd("XREAD");
            peek.arg("COUNT").arg(1).arg("BLOCK").arg(Self::BLOCK.as_secs() * 1000);
            peek.arg("STREAMS").arg(queue).arg(past);
        } else {
            peek = redis::cmd("BLMOVE");
            peek.arg(queue).arg(queue).arg("LEFT").arg("LEFT").arg(Self::BLOCK.as_secs());
        }
        match peek.query_async::<redis::Value>(&mut connection).await {
            Ok(_) => {}
            // A Redis at `maxmemory` refuses it; then the caller's looking around has to do.
            Err(error) if error.code() == Some("OOM") => tokio::time::sleep(Self::POLL).await,
            // Nobody waited for as long as there was no room to read, and somebody on the way closes what is idle. The next wait
            // opens another one, unless Redis itself is gone.
            Err(error) if was_idle && error.is_connection_dropped() => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        self.connection = Some(connection);
        Ok(())
    }
}

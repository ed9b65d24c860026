//! Waits for a list to have elements, or a stream more entries, without taking any.

use std::sync::Arc;
use std::time::Duration;

use super::connect::Redis;
use super::connection::Connection;
use super::error::SourceError;
use crate::config::Keys;

/// Blocks until a list has an element, and leaves it there: the element moves to where it was. Of a stream, reads one
/// entry in vain.
///
/// Nothing is lost if the reply is: no element was removed.
pub(crate) struct Waiter {
    redis: Redis,
    keys: Arc<Keys>,
    connection: Option<Connection>,
}

impl Waiter {
    /// Longest wait on the server; the caller then looks around.
    const BLOCK: Duration = Duration::from_secs(5);
    /// Wait where Redis cannot.
    const POLL: Duration = Duration::from_millis(100);

    /// Waits on a connection of its own, opened when first needed.
    #[must_use]
    pub(crate) fn new(redis: Redis, keys: Arc<Keys>) -> Self {
        Waiter { redis, keys, connection: None }
    }

    /// Waits until there is an element, or a while; of a stream, an entry behind the id `past`.
    pub(crate) async fn wait(&mut self, past: Option<&str>) -> Result<(), SourceError> {
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

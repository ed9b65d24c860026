//! Wraps a connection of the client library, over a stream that is opened here.
//!
//! The library's own way to open one reads the system's certificates each time, whether they are wanted or not.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, RedisFuture, Value};
use tokio_util::task::AbortOnDropHandle;

use super::error::SourceError;
use super::open::Duplex;

/// A connection for one who asks after another, or several at once. What is under way ends with its last clone.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    asks: MultiplexedConnection,
    _driver: Arc<AbortOnDropHandle<()>>,
}

impl Connection {
    /// Says who asks, and which database is meant. Commands are then answered within `response`.
    ///
    /// # Errors
    /// Lost, or the login is refused.
    pub(super) async fn over(
        stream: Box<dyn Duplex>,
        settings: &RedisConnectionInfo,
        response: Duration,
    ) -> Result<Self, SourceError> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(response));
        let (asks, driver) = MultiplexedConnection::new_with_config(settings, stream, config).await?;
        Ok(Connection { asks, _driver: Arc::new(AbortOnDropHandle::new(tokio::spawn(driver))) })
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        self.asks.req_packed_command(command)
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.asks.req_packed_commands(commands, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.asks.get_db()
    }
}

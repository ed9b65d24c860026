//! Wraps a connection of the client library, over a stream that is opened here.
//!
//! The library's own way to open one reads the system's certificates each time, whether they are wanted or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::{AsyncPushSender, ConnectionLike, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, ProtocolVersion, RedisConnectionInfo, RedisError, RedisFuture,
    Value,
};
use tokio::sync::OnceCell;
use tokio_util::task::AbortOnDropHandle;

use super::error::{RedisRefusal, SourceError};
use super::open::Duplex;

/// A connection for one who asks after another, or several at once. What is under way ends with its last clone.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    asks: MultiplexedConnection,
    driver: Arc<AbortOnDropHandle<()>>,
    state: Arc<State>,
}

/// What all clones of a connection know.
#[derive(Debug, Default)]
struct State {
    /// Something was not answered, or by a server that takes no writes any more.
    failed: AtomicBool,
    /// What the server says of itself. It says the same as long as the connection lasts.
    info: OnceCell<String>,
}

impl State {
    fn note(&self, error: &RedisError) {
        let is_broken = error.is_io_error() || error.is_timeout() || error.is_unrecoverable_error();
        if is_broken || RedisRefusal::of(error).is_of_no_primary() {
            self.failed.store(true, Ordering::Relaxed);
        }
    }
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
        Self::with(stream, settings, Self::config(response)).await
    }

    /// The same, and what the server says without being asked goes to `told`.
    pub(super) async fn told_over(
        stream: Box<dyn Duplex>,
        settings: &RedisConnectionInfo,
        response: Duration,
        told: impl AsyncPushSender,
    ) -> Result<Self, SourceError> {
        let settings = settings.clone().set_protocol(ProtocolVersion::RESP3);
        Self::with(stream, &settings, Self::config(response).set_push_sender(told)).await
    }

    fn config(response: Duration) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new().set_response_timeout(Some(response))
    }

    async fn with(
        stream: Box<dyn Duplex>,
        settings: &RedisConnectionInfo,
        config: AsyncConnectionConfig,
    ) -> Result<Self, SourceError> {
        let (asks, driver) = MultiplexedConnection::new_with_config(settings, stream, config).await?;
        let driver = Arc::new(AbortOnDropHandle::new(tokio::spawn(driver)));
        Ok(Connection { asks, driver, state: Arc::default() })
    }

    /// Whether it can be used for something new. What waits for an answer may get one still.
    #[must_use]
    pub(super) fn is_open(&self) -> bool {
        !self.state.failed.load(Ordering::Relaxed) && !self.driver.is_finished()
    }

    /// What the server says of itself, in the section `server` of its `INFO`.
    pub(super) async fn info(&mut self) -> Result<&str, SourceError> {
        let mut asks = self.clone();
        let ask = async || redis::cmd("INFO").arg("server").query_async(&mut asks).await;
        Ok(self.state.info.get_or_try_init(ask).await?)
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        let (state, asked) = (&self.state, self.asks.req_packed_command(command));
        Box::pin(async move { asked.await.inspect_err(|error| state.note(error)) })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        let (state, asked) = (&self.state, self.asks.req_packed_commands(commands, offset, count));
        Box::pin(async move { asked.await.inspect_err(|error| state.note(error)) })
    }

    fn get_db(&self) -> i64 {
        self.asks.get_db()
    }
}

//! Opening connections to Redis.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo};

use super::error::SourceError;
use super::sentinel::{Sentinels, check_primary};
use crate::config;

/// Where Redis is. Connections never reconnect by themselves: whoever loses one takes over again.
#[derive(Debug, Clone)]
pub struct Redis {
    info: ConnectionInfo,
    sentinels: Option<Sentinels>,
    timeout: Duration,
}

impl Redis {
    /// Reads the URL. Nothing is sent yet.
    ///
    /// # Errors
    /// Fatal: the URL cannot be used. It is not repeated in the text.
    pub fn new(config: &config::Redis) -> Result<Self, SourceError> {
        let bad = |error: redis::RedisError| {
            SourceError::Fatal(format!(
                "redis.url cannot be used: {}",
                error.detail().unwrap_or(error.category())
            ))
        };
        let info: ConnectionInfo = config.url.expose().into_connection_info().map_err(bad)?;
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        // Opening tells what is wrong with it; nothing is sent.
        Client::open(info.clone()).map_err(bad)?;
        let sentinels = match &*config.sentinels {
            [] => None,
            sentinels => Some(Sentinels::new(sentinels, &config.sentinel_primary)?),
        };
        Ok(Redis { info, sentinels, timeout: config.timeout })
    }

    /// Opens a connection whose commands are answered within the configured time.
    ///
    /// # Errors
    /// Lost, or fatal where Redis refuses the credentials.
    pub async fn connect(&self) -> Result<MultiplexedConnection, SourceError> {
        self.open(self.timeout).await
    }

    /// Opens a connection for commands that block up to `block` on the server. A response timeout that
    /// were shorter would end them from this side while the server still serves them.
    ///
    /// # Errors
    /// As [`Redis::connect`].
    pub async fn connect_blocking(&self, block: Duration) -> Result<MultiplexedConnection, SourceError> {
        self.open(block + self.timeout).await
    }

    async fn open(&self, response: Duration) -> Result<MultiplexedConnection, SourceError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(response));
        let Some(sentinels) = &self.sentinels else {
            let client = Client::open(self.info.clone())?;
            return Ok(client.get_multiplexed_async_connection_with_config(&config).await?);
        };
        let client = Client::open(sentinels.resolve(&self.info, self.timeout).await?)?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        check_primary(&mut connection).await?;
        Ok(connection)
    }
}

/// The server's version, `(major, minor)`.
///
/// # Errors
/// Redis's.
pub async fn version(connection: &mut MultiplexedConnection) -> Result<(u32, u32), SourceError> {
    let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or_default();
    let mut parts = version.trim().split('.').map(|part| part.parse().unwrap_or(0));
    Ok((parts.next().unwrap_or(0), parts.next().unwrap_or(0)))
}

//! Connects to one server, and asks a server of several one thing.

use std::time::Duration;

use redis::{Cmd, ConnectionAddr, FromRedisValue};

use super::access::Access;
use super::connection::Connection;
use super::error::SourceError;
use super::open::{explained, open};

/// Opens a connection within `timeout`, whose commands are answered within `response`.
pub(super) async fn connect(
    access: &Access,
    timeout: Duration,
    response: Duration,
) -> Result<Connection, SourceError> {
    let connect = async {
        let stream = open(access, timeout).await?;
        let greeted = Connection::over(stream, access.info.redis_settings(), response);
        let late = |_| Err(SourceError::Lost(format!("timed out: no reply within {timeout:?}").into()));
        tokio::time::timeout(timeout, greeted).await.unwrap_or_else(late)
    };
    match connect.await {
        Err(error) => Err(explained(error, &access.info).await),
        connected => connected,
    }
}

/// What a server answers, over a connection of its own.
pub(super) async fn ask<T: FromRedisValue>(
    access: &Access,
    question: &Cmd,
    timeout: Duration,
) -> Result<T, SourceError> {
    Ok(question.query_async(&mut connect(access, timeout, timeout).await?).await?)
}

/// A server that is reached like the configured one, elsewhere.
pub(super) fn at(configured: &Access, host: String, port: u16) -> Access {
    let info = configured.info.clone().set_addr(match configured.info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    });
    Access { info, ..configured.clone() }
}

//! Asks a server of several one thing, over a connection of its own.

use std::time::Duration;

use redis::{Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue};

use super::error::SourceError;
use super::open::open;

/// What a server answers.
pub(super) async fn ask<T: FromRedisValue>(
    server: &ConnectionInfo,
    question: &Cmd,
    timeout: Duration,
) -> Result<T, SourceError> {
    let mut connection = open(server, timeout, timeout).await?;
    Ok(question.query_async(&mut connection).await?)
}

/// A server that is reached like the configured one, elsewhere.
pub(super) fn at(configured: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    configured.clone().set_addr(match configured.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    })
}

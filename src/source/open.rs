//! Opens connections of the client library. Where a server gives no answer, finds out whether it speaks TLS and the URL asks
//! for none, or the other way round.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::error::SourceError;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(1);

/// What a connection meets whose server waits for something else, or is given it.
const SILENCES: [&str; 4] = ["timed out", "reset by peer", "closed the connection", "end of file"];

/// Opens a connection within `timeout`, whose commands are answered within `response`.
pub(super) async fn open(
    server: &ConnectionInfo,
    timeout: Duration,
    response: Duration,
) -> Result<MultiplexedConnection, SourceError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(response));
    let opened = Client::open(server.clone())?.get_multiplexed_async_connection_with_config(&config).await;
    match opened.map_err(SourceError::from) {
        Err(SourceError::Lost(told)) => Err(SourceError::Lost(match misfit(server, told.text()).await {
            Some(advice) => {
                let text = format!("{told} ({advice})");
                told.saying(text)
            }
            None => told,
        })),
        opened => opened,
    }
}

/// What is wrong with the URL, if it is that.
async fn misfit(info: &ConnectionInfo, error: &str) -> Option<&'static str> {
    if !SILENCES.iter().any(|silence| error.contains(silence)) {
        return None;
    }
    let (found, told) = match info.addr() {
        ConnectionAddr::Tcp(host, port) => {
            let told = "TLS is spoken there; a redis.url that begins with rediss:// asks for it";
            (tokio::time::timeout(LIMIT, speaks_tls(host, *port)).await, told)
        }
        ConnectionAddr::TcpTls { host, port, .. } => {
            let told = "no TLS is spoken there; is it right that redis.url begins with rediss://?";
            (tokio::time::timeout(LIMIT, speaks_plainly(host, *port)).await, told)
        }
        _ => return None,
    };
    matches!(found, Ok(Some(true))).then_some(told)
}

/// Whether the server shows a certificate. Whose it is does not matter.
async fn speaks_tls(host: &str, port: u16) -> Option<bool> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().ok()?;
    let config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let stream = TcpStream::connect((host, port)).await.ok()?;
    let shown = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    Some(shown.is_err_and(|error| error.to_string().contains("peer certificate")))
}

/// Whether the server answers as Redis does, if only that the password is missing.
async fn speaks_plainly(host: &str, port: u16) -> Option<bool> {
    let mut stream = TcpStream::connect((host, port)).await.ok()?;
    stream.write_all(b"PING\r\n").await.ok()?;
    Some(matches!(stream.read_u8().await.ok()?, b'+' | b'-'))
}

//! Opens streams as a URL says. Where a server gives no answer, finds out whether it speaks TLS and the URL asks for none, or
//! the other way round.

use std::sync::Arc;
use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::access::Access;
use super::error::SourceError;
use crate::caused::Caused;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(1);

/// What a connection meets whose server waits for something else, or is given it.
const SILENCES: [&str; 4] = ["timed out", "reset by peer", "closed the connection", "end of file"];

/// Something to read from and to write to.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Duplex for T {}

/// Opens what an address names.
async fn opened(access: &Access) -> Result<Box<dyn Duplex>, SourceError> {
    Ok(match access.info.addr() {
        ConnectionAddr::Tcp(host, port) => Box::new(tcp(host, *port).await.map_err(SourceError::lost)?),
        ConnectionAddr::TcpTls { host, port, .. } => {
            let name = ServerName::try_from(host.clone());
            let name =
                name.map_err(|error| SourceError::Lost(Caused::of(format!("{host:?}: {error}"), error)))?;
            let tls =
                access.tls.clone().ok_or_else(|| SourceError::Lost("nothing to encrypt with".into()))?;
            let connector = TlsConnector::from(tls);
            let stream = tcp(host, *port).await.map_err(SourceError::lost)?;
            Box::new(connector.connect(name, stream).await.map_err(SourceError::lost)?)
        }
        ConnectionAddr::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(SourceError::lost)?),
        _ => return Err(SourceError::Fatal("redis.url has an address of an unknown kind".into())),
    })
}

async fn tcp(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Opens a stream within `timeout`.
pub(super) async fn open(access: &Access, timeout: Duration) -> Result<Box<dyn Duplex>, SourceError> {
    tokio::time::timeout(timeout, opened(access)).await.unwrap_or_else(|_| {
        Err(SourceError::Lost(format!("timed out: no connection within {timeout:?}").into()))
    })
}

/// An error of a connection that was just opened, with what is wrong with the URL, if it is that.
pub(super) async fn explained(error: SourceError, info: &ConnectionInfo) -> SourceError {
    let SourceError::Lost(told) = error else { return error };
    SourceError::Lost(match misfit(info, told.text()).await {
        Some(advice) => {
            let text = format!("{told} ({advice})");
            told.saying(text)
        }
        None => told,
    })
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

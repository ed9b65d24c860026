//! Connects as a URL says.

use redis::{ConnectionAddr, Pipeline, RedisConnectionInfo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::caused::Caused;
use crate::source::access::Access;
use crate::source::error::SourceError;

/// Something to read from and to write to.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Duplex for T {}

/// Opens what an address names.
pub(super) async fn open(access: &Access) -> Result<Box<dyn Duplex>, SourceError> {
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

/// What is to be said first: who asks, and which database is meant.
pub(super) fn greeting(settings: &RedisConnectionInfo) -> Pipeline {
    let mut greeting = redis::pipe();
    if let Some(password) = settings.password() {
        greeting.cmd("AUTH").arg(settings.username()).arg(password);
    }
    if settings.db() != 0 {
        greeting.cmd("SELECT").arg(settings.db());
    }
    greeting
}

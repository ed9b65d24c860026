//! Finds where an instance serves HTTP, and asks there: one GET, one answer, within a bounded time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, anyhow};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::format::span;

/// Whoever takes longer does not answer. The page waits as long.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of the largest answer. A thousand queues take a few million.
const LARGEST: usize = 64 << 20;

/// Where an instance serves HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    host: String,
    port: u16,
    /// Host and port as people write them.
    authority: String,
    /// What stands before each path: an instance may be behind a proxy.
    prefix: String,
}

impl Endpoint {
    /// Of the address that the instance listens on.
    ///
    /// # Errors
    /// The address does not say where to ask.
    pub(super) fn listening(on: SocketAddr) -> Result<Self, String> {
        if on.port() == 0 {
            return Err("http.listen has port 0, which stands for any: say --url".to_owned());
        }
        // Who listens everywhere listens here, too.
        let ip = match on.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let authority = SocketAddr::new(ip, on.port()).to_string();
        Ok(Endpoint { host: ip.to_string(), port: on.port(), authority, prefix: String::new() })
    }

    /// Of a URL. The error does not repeat it: it may hold a password.
    ///
    /// # Errors
    /// It is no URL that can be asked.
    pub(super) fn of_url(url: &str) -> Result<Self, String> {
        let unusable = || "--url: needs a URL such as http://127.0.0.1:9464".to_owned();
        let whole = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let uri: Uri = whole.parse().map_err(|_| unusable())?;
        if uri.scheme_str() != Some("http") {
            return Err("--url: tidegate serves plain HTTP, and no other scheme can be asked".to_owned());
        }
        let authority = uri.authority().filter(|authority| !authority.host().is_empty());
        let authority =
            authority.filter(|authority| !authority.as_str().contains('@')).ok_or_else(unusable)?;
        Ok(Endpoint {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Host and port.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// Code and body of the answer.
    ///
    /// # Errors
    /// There is none, or not in time.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        let answer = timeout(PATIENCE, self.exchange(path)).await;
        let answer = answer.unwrap_or_else(|_| Err(anyhow!("nothing came within {}", span(PATIENCE))));
        answer.with_context(|| format!("no answer from http://{}{}{path}", self.authority, self.prefix))
    }

    async fn exchange(&self, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        let stream = TcpStream::connect((&*self.host, self.port)).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its errors are told by what is asked through it.
        let connection = tokio::spawn(connection);
        let request = Request::get(format!("{}{path}", self.prefix))
            .header(header::HOST, &self.authority)
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        let code = answer.status();
        let body = Limited::new(answer.into_body(), LARGEST).collect().await;
        connection.abort();
        Ok((code, body.map_err(|error| anyhow!(error))?.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(url: &str) -> Option<(String, u16, String)> {
        Endpoint::of_url(url).ok().map(|at| (at.host, at.port, at.prefix))
    }

    #[test]
    fn who_listens_everywhere_is_asked_here() {
        let at = |on: &str| Endpoint::listening(on.parse().unwrap()).map(|at| at.authority);
        assert_eq!(at("0.0.0.0:9464").unwrap(), "127.0.0.1:9464");
        assert_eq!(at("[::]:9464").unwrap(), "[::1]:9464");
        assert_eq!(at("10.1.2.3:80").unwrap(), "10.1.2.3:80");
        assert!(at("127.0.0.1:0").is_err());
    }

    #[test]
    fn urls_say_where_to_ask() {
        let at = |host: &str, port, prefix: &str| Some((host.to_owned(), port, prefix.to_owned()));
        assert_eq!(asked("http://127.0.0.1:9464"), at("127.0.0.1", 9464, ""));
        assert_eq!(asked("db.example:9464"), at("db.example", 9464, ""));
        assert_eq!(asked("http://proxy/tidegate/"), at("proxy", 80, "/tidegate"));
        assert_eq!(asked("http://[::1]:9464/"), at("::1", 9464, ""));
        for wrong in ["https://db.example", "http://", "", "a b", "redis://h", "http://me:hunter2@h:1"] {
            let error = Endpoint::of_url(wrong).unwrap_err();
            assert!(!error.contains("hunter2") && error.starts_with("--url: "), "{wrong}: {error}");
        }
    }
}

//! Listens so that slow, idle or numerous clients cannot take the sockets that Redis and MongoDB need.
//! `axum::serve` gives its connections no timer, so they would wait for ever.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionLimits {
    /// Connections at once; more wait to be accepted.
    pub(super) connections: usize,
    /// From the first byte of a request until the answer begins, and between two pieces of the answer.
    pub(super) request: Duration,
    /// From one answer to the next request.
    pub(super) idle: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        // Longer idle than scrapes are usually apart, so that they keep their connection.
        ConnectionLimits { connections: 64, request: Duration::from_secs(10), idle: Duration::from_secs(90) }
    }
}

/// A listener whose connections keep to [`ConnectionLimits`].
pub(super) struct Limited {
    listener: TcpListener,
    limits: ConnectionLimits,
    free: Arc<Semaphore>,
}

impl Limited {
    pub(super) fn new(listener: TcpListener, limits: ConnectionLimits) -> Self {
        Limited { listener, limits, free: Arc::new(Semaphore::new(limits.connections)) }
    }
}

impl Listener for Limited {
    type Io = LimitedConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (LimitedConnection, SocketAddr) {
        // Only a closed semaphore has no permit to give, and this one is never closed.
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let connection = LimitedConnection {
            stream,
            limits: self.limits,
            between_requests: false,
            deadline: Box::pin(sleep(self.limits.request)),
            _permit: permit,
        };
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails when its client lets it wait too long.
pub(super) struct LimitedConnection {
    stream: TcpStream,
    limits: ConnectionLimits,
    /// An answer was given and nothing came since.
    between_requests: bool,
    deadline: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl LimitedConnection {
    /// Fails once the deadline has passed, and otherwise sees to it that the task wakes then.
    fn check_deadline(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    fn extend(&mut self, by: Duration) {
        self.deadline.as_mut().reset(Instant::now() + by);
    }

    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(_)) = written {
            self.between_requests = true;
            self.extend(self.limits.idle);
        }
    }
}

impl AsyncRead for LimitedConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Before reading: who sends a byte now and then must not have for ever.
        self.check_deadline(cx)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.between_requests && buf.filled().len() > before {
            self.between_requests = false;
            let patience = self.limits.request;
            self.extend(patience);
            // A deadline that was moved wakes nobody before it is polled again.
            self.check_deadline(cx)?;
        }
        read
    }
}

impl AsyncWrite for LimitedConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(&written);
        self.check_deadline(cx)?;
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(&written);
        self.check_deadline(cx)?;
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

//! Stands between a client and a server, and does to their connections what networks do.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::port;

const PORTS_TRIED: usize = 5;
const CHUNK: usize = 16 * 1024;
/// Chunks of one direction that may wait in the proxy; beyond that the sender has to.
const CHUNKS: usize = 1024;
/// How often a trickle drips.
const DRIP: Duration = Duration::from_millis(50);

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// They pass.
    Pass,
    /// They pass so much later.
    Delay(Duration),
    /// So many of them pass a second.
    Trickle(usize),
    /// They wait, and pass when the flow is another: a partition that heals, and TCP sends again what was on its way.
    /// That includes what a client sent that has given up since.
    Hold,
    /// They vanish. A connection that has lost bytes is of no use any more, and ends when the flow is another.
    Swallow,
}

/// A proxy in front of one server. Its connections end with it.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    accepting: AbortHandle,
}

#[derive(Debug, Clone, Copy)]
struct State {
    server: SocketAddr,
    refuse: bool,
    requests: Flow,
    replies: Flow,
    /// A connection is held once a client has sent this over it.
    marked: Option<&'static str>,
    /// Connections of an earlier generation are to end.
    generation: u64,
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    Requests,
    Replies,
}

impl State {
    fn flow(&self, direction: Direction) -> Flow {
        match direction {
            Direction::Requests => self.requests,
            Direction::Replies => self.replies,
        }
    }
}

impl Proxy {
    /// Listens on a free port of this machine and forwards to `server`.
    pub(crate) async fn start(server: SocketAddr) -> anyhow::Result<Self> {
        let mut tries = 0;
        let listener = loop {
            tries += 1;
            match TcpListener::bind((Ipv4Addr::LOCALHOST, port::free()?)).await {
                Ok(listener) => break listener,
                Err(error) if tries == PORTS_TRIED => return Err(error.into()),
                Err(_) => {}
            }
        };
        let address = listener.local_addr()?;
        let (requests, replies) = (Flow::Pass, Flow::Pass);
        let (state, seen) =
            watch::channel(State { server, refuse: false, requests, replies, marked: None, generation: 0 });
        let accepting = tokio::spawn(accept(listener, seen)).abort_handle();
        Ok(Self { address, state, accepting })
    }

    /// Where clients find it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| state.generation += 1);
    }

    /// Ends every new connection at once.
    pub(crate) fn refuse(&self) {
        self.state.send_modify(|state| state.refuse = true);
    }

    /// New connections go to another server: a failover behind one address. Those there are stay where they are.
    pub(crate) fn retarget(&self, server: SocketAddr) {
        self.state.send_modify(|state| state.server = server);
    }

    /// Holds what clients send over a connection from this text on, and over no other.
    pub(crate) fn hold_connections_with(&self, text: &'static str) {
        self.state.send_modify(|state| state.marked = Some(text));
    }

    /// No connection is held any more for what was sent over it.
    pub(crate) fn release_connections(&self) {
        self.state.send_modify(|state| state.marked = None);
    }

    /// What happens to the clients' bytes.
    pub(crate) fn requests(&self, flow: Flow) {
        self.state.send_modify(|state| state.requests = flow);
    }

    /// What happens to the server's bytes.
    pub(crate) fn replies(&self, flow: Flow) {
        self.state.send_modify(|state| state.replies = flow);
    }

    /// Everything passes, and connections are accepted.
    pub(crate) fn heal(&self) {
        self.state.send_modify(|state| {
            (state.requests, state.replies, state.refuse) = (Flow::Pass, Flow::Pass, false);
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, state: watch::Receiver<State>) {
    // A failed accept is its client's; the listener lives as long as this task.
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        if state.borrow().refuse {
            // With a reset; no matter if it becomes an orderly end.
            let _ = client.set_zero_linger();
            continue;
        }
        tokio::spawn(serve(client, state.clone()));
    }
}

/// Serves one connection until both directions have ended, or it is cut. An end of any kind is all the news there is.
async fn serve(client: TcpStream, mut state: watch::Receiver<State>) {
    let State { server, generation, .. } = *state.borrow();
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (requests, replies) = (state.clone(), state.clone());
    // One direction's end does not end the other: what a client sent before it gave up still arrives.
    let pumps = async {
        tokio::join!(
            pump(from_client, to_server, requests, Direction::Requests),
            pump(from_server, to_client, replies, Direction::Replies),
        )
    };
    let cut = state.wait_for(|state| state.generation != generation);
    tokio::select! {
        _ = pumps => {}
        _ = cut => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    state: watch::Receiver<State>,
    direction: Direction,
) {
    let (arrived, chunks) = mpsc::channel(CHUNKS);
    let read = async move {
        let mut buffer = vec![0; CHUNK];
        // A reset ends what arrives as an orderly end does.
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if arrived.send((Instant::now(), buffer[..length].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let mut outlet = Outlet { to, state, direction, marked: false };
    let written = async move {
        // Whatever ends it: the receiver's end or swallowed bytes.
        let _ = outlet.run(chunks).await;
    };
    tokio::pin!(read, written);
    tokio::select! {
        () = &mut written => {}
        () = &mut read => written.await,
    }
}

/// One direction's way out.
struct Outlet<W> {
    to: W,
    state: watch::Receiver<State>,
    direction: Direction,
    /// The text that holds a connection has been seen.
    marked: bool,
}

impl<W: AsyncWrite + Unpin> Outlet<W> {
    async fn run(&mut self, mut chunks: mpsc::Receiver<(Instant, Vec<u8>)>) -> io::Result<()> {
        while let Some((arrived, bytes)) = chunks.recv().await {
            let marked = self.state.borrow().marked.filter(|_| matches!(self.direction, Direction::Requests));
            self.marked |=
                marked.is_some_and(|text| bytes.windows(text.len()).any(|at| at == text.as_bytes()));
            if self.release(arrived, &bytes).await? {
                continue;
            }
            // Swallowed; so is all that follows.
            loop {
                tokio::select! {
                    changed = self.state.changed() => changed.map_err(io::Error::other)?,
                    Some(_) = chunks.recv() => continue,
                }
                if self.flow() != Flow::Swallow {
                    return Ok(());
                }
            }
        }
        // The end, too, comes through only where bytes do.
        let open = |state: &State, direction| !matches!(state.flow(direction), Flow::Hold | Flow::Swallow);
        let direction = self.direction;
        self.state.wait_for(|state| open(state, direction)).await.map_err(io::Error::other)?;
        self.to.shutdown().await
    }

    fn flow(&mut self) -> Flow {
        let state = self.state.borrow_and_update();
        if self.marked && state.marked.is_some() { Flow::Hold } else { state.flow(self.direction) }
    }

    /// Lets bytes out as the flow wants it. False if they are swallowed.
    async fn release(&mut self, arrived: Instant, mut bytes: &[u8]) -> io::Result<bool> {
        while !bytes.is_empty() {
            let until = match self.flow() {
                Flow::Swallow => return Ok(false),
                Flow::Pass => {
                    self.to.write_all(bytes).await?;
                    break;
                }
                Flow::Delay(delay) if arrived + delay <= Instant::now() => {
                    self.to.write_all(bytes).await?;
                    break;
                }
                Flow::Delay(delay) => Some(arrived + delay),
                Flow::Hold => None,
                Flow::Trickle(rate) => {
                    let drop = (rate * DRIP.as_millis() as usize / 1000).clamp(1, bytes.len());
                    self.to.write_all(&bytes[..drop]).await?;
                    bytes = &bytes[drop..];
                    Some(Instant::now() + DRIP)
                }
            };
            let due = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => sleep(Duration::MAX).await,
                }
            };
            tokio::select! {
                () = due => {}
                changed = self.state.changed() => changed.map_err(io::Error::other)?,
            }
        }
        Ok(true)
    }
}

//! Starts a Redis server of one's own, or takes the user's.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::Signal;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use super::names::unique;
use super::port;
use super::process::{Process, command, command_on_a_small_disk, on_path};

/// Names a server to use instead of starting one.
const SHARED: &str = "TIDEGATE_TEST_REDIS_URL";
const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(20);
const REPLY_LIMIT: Duration = Duration::from_secs(20);
const PORTS_TRIED: usize = 5;
/// In its folder, besides the port.
const SOCKET: &str = "redis.sock";

/// How much a server keeps over a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aof {
    /// Nothing.
    Off,
    /// Everything but about the last second.
    EverySecond,
    /// Everything it acknowledged.
    Always,
}

/// A Redis server.
pub(crate) struct Redis {
    url: String,
    /// None: shared, and not ours to stop.
    own: Option<Own>,
    queues: Vec<String>,
}

struct Own {
    folder: TempDir,
    port: u16,
    aof: Aof,
    /// More options, such as a cluster's.
    options: Vec<String>,
    process: Option<Process>,
}

impl Redis {
    /// Starts a server that keeps everything over kill and restart.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        Self::start_with(Aof::Always).await
    }

    /// Starts a server.
    pub(crate) async fn start_with(aof: Aof) -> anyhow::Result<Self> {
        Self::start_as(aof, Vec::new()).await
    }

    /// Starts a node of a cluster that is not made yet.
    pub(crate) async fn start_node(node_timeout: Duration) -> anyhow::Result<Self> {
        let mut options = vec!["--cluster-enabled".into(), "yes".into()];
        options.extend(["--cluster-node-timeout".into(), node_timeout.as_millis().to_string()]);
        // Else it is 10,000 above its port, which an earlier Redis insists on.
        if has_cluster_port()? {
            options.extend(["--cluster-port".into(), port::free()?.to_string()]);
        }
        options.extend(
            ["--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"].map(str::to_owned),
        );
        Self::start_as(Aof::EverySecond, options).await
    }

    async fn start_as(aof: Aof, options: Vec<String>) -> anyhow::Result<Self> {
        let mut own = Own { folder: tempfile::tempdir()?, port: 0, aof, options, process: None };
        let mut tries = 0;
        loop {
            own.port = port::free()?;
            tries += 1;
            match own.run().await {
                Ok(()) => break,
                Err(error) if tries == PORTS_TRIED => return Err(error),
                Err(_) => {}
            }
        }
        Ok(Self { url: own.url(), own: Some(own), queues: Vec::new() })
    }

    /// The server that the environment names, else one of our own. It must not be stopped, and may hold other data.
    pub(crate) async fn shared() -> anyhow::Result<Self> {
        match std::env::var(SHARED) {
            Ok(url) => Ok(Self { url, own: None, queues: Vec::new() }),
            Err(_) => Self::start_with(Aof::Off).await,
        }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens. Not known of a shared one.
    pub(crate) fn address(&self) -> anyhow::Result<SocketAddr> {
        let own = self.own.as_ref().context("the address of a shared Redis is in its URL")?;
        Ok((Ipv4Addr::LOCALHOST, own.port).into())
    }

    /// Its process id.
    pub(crate) fn id(&self) -> anyhow::Result<u32> {
        let own = self.own.as_ref().context("a shared Redis is no process of ours")?;
        Ok(own.process.as_ref().context("Redis is not running")?.id())
    }

    /// The folder of its data.
    pub(crate) fn folder(&self) -> anyhow::Result<&Path> {
        Ok(self.own.as_ref().context("a shared Redis has its own folder")?.folder.path())
    }

    /// The Unix socket at which it listens, too.
    pub(crate) fn socket(&self) -> anyhow::Result<PathBuf> {
        Ok(self.folder()?.join(SOCKET))
    }

    /// A connection of the caller's own.
    pub(crate) async fn connect(&self) -> anyhow::Result<MultiplexedConnection> {
        connect(&self.url).await
    }

    /// A queue's key that no other test uses. What belongs to it is deleted from a shared server at the end.
    pub(crate) fn queue(&mut self, prefix: &str) -> String {
        let key = unique(prefix);
        self.tidy(&key);
        key
    }

    /// Has what belongs to a queue deleted from a shared server at the end.
    pub(crate) fn tidy(&mut self, queue: &str) {
        self.queues.push(queue.to_owned());
    }

    /// Ends it in order.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        let mut process = self.own()?.process.take().context("Redis is not running")?;
        process.terminate(STOP_LIMIT).await?;
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.own()?.process.take().context("Redis is not running")?.kill()?;
        Ok(())
    }

    /// Starts it again, on the same port and folder. Kills it first if it is running.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        let own = self.own()?;
        own.process = None;
        own.run().await
    }

    /// SIGSTOP: connections stay open, nothing answers.
    pub(crate) fn pause(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Its disk is full as soon as its append-only file has so many bytes more. None: there is room again.
    pub(crate) fn limit_disk(&mut self, room: Option<u64>) -> anyhow::Result<()> {
        let own = self.own()?;
        let process = own.process.as_ref().context("Redis is not running")?;
        let Some(room) = room else { return process.limit_file_size(None) };
        let files = std::fs::read_dir(own.folder.path().join("appendonlydir"))?;
        let lengths = files.map(|file| Ok(file?.metadata()?.len())).collect::<anyhow::Result<Vec<_>>>()?;
        process.limit_file_size(Some(lengths.into_iter().max().context("no append-only file")? + room))
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        self.own()?.process.as_ref().context("Redis is not running")?.signal(signal)
    }

    fn own(&mut self) -> anyhow::Result<&mut Own> {
        self.own.as_mut().context("a shared Redis is not ours to stop")
    }
}

impl Own {
    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    async fn run(&mut self) -> anyhow::Result<()> {
        let program =
            on_path("redis-server").context("no redis-server on the PATH: run `make servers` first")?;
        let mut command = command_on_a_small_disk(program);
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", ""]);
        command.arg("--dir").arg(self.folder.path());
        command.arg("--unixsocket").arg(self.folder.path().join(SOCKET));
        match self.aof {
            Aof::Off => command.args(["--appendonly", "no"]),
            Aof::EverySecond => command.args(["--appendonly", "yes", "--appendfsync", "everysec"]),
            Aof::Always => command.args(["--appendonly", "yes", "--appendfsync", "always"]),
        };
        command.args(&self.options);
        let mut process = Process::spawn("redis-server", command)?;
        let url = self.url();
        process
            .until(START_LIMIT, "Redis to answer", async |process| check_ready(&url, process.id()).await)
            .await?;
        self.process = Some(process);
        Ok(())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.own.is_none()
            && !self.queues.is_empty()
            && let Err(error) = delete(&self.url, &self.queues)
        {
            eprintln!("cannot tidy up the shared Redis: {error:#}");
        }
    }
}

/// Whether this Redis lets its nodes talk to each other on a port of one's choice, which 7.0 was the first to do.
fn has_cluster_port() -> anyhow::Result<bool> {
    let version = command("redis-server").arg("--version").output()?;
    Ok(!String::from_utf8_lossy(&version.stdout).contains("v=6."))
}

async fn connect(url: &str) -> anyhow::Result<MultiplexedConnection> {
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(5)))
        // The default of half a second is too short for a busy machine.
        .set_response_timeout(Some(REPLY_LIMIT));
    Ok(redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await?)
}

/// Whether this very process answers, not another one that was faster to take the port.
async fn check_ready(url: &str, process: u32) -> anyhow::Result<()> {
    let info: String = redis::cmd("INFO").query_async(&mut connect(url).await?).await?;
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    ensure!(field("loading") == Some("0"), "it is loading its data");
    if field("process_id") != Some(&process.to_string()) {
        bail!("another server answers on this port");
    }
    Ok(())
}

/// Blocking, so that it can be called on drop.
fn delete(url: &str, queues: &[String]) -> anyhow::Result<()> {
    let mut connection = redis::Client::open(url)?.get_connection_with_timeout(Duration::from_secs(5))?;
    for queue in queues {
        let pattern = format!("*{queue}*");
        let keys: Vec<Vec<u8>> = redis::cmd("SCAN")
            .cursor_arg(0)
            .arg("MATCH")
            .arg(pattern)
            .arg("COUNT")
            .arg(1000)
            .clone()
            .iter(&mut connection)?
            .collect::<Result<_, _>>()?;
        if !keys.is_empty() {
            redis::cmd("UNLINK").arg(keys).exec(&mut connection)?;
        }
    }
    Ok(())
}

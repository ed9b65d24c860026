//! Starts the daemon: the real binary, in a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::http;
use super::metrics::Metrics;
use super::mongo::Mongo;
use super::process::{Process, command};
use super::redis::Redis;
use super::wait::try_eventually;

/// Connecting to servers that are there takes far less; a busy machine with two cores is slow.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// The daemon's own deadline for flushing is 25 s.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How the daemon is to be started. Keep it to start another one, or the same again.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    config: Config,
    env: Vec<(String, String)>,
    args: Vec<String>,
    /// Bytes of memory it may have.
    memory: Option<u64>,
    /// Another program than the one that was built, and its first arguments.
    program: Vec<String>,
}

#[derive(Debug, Clone)]
enum Config {
    Text(String),
    File(PathBuf),
}

/// A process that has ended, and what it printed.
#[derive(Debug)]
pub(crate) struct Exited {
    pub(crate) status: ExitStatus,
    pub(crate) lines: Vec<String>,
}

/// A running daemon. Killed on drop.
pub(crate) struct Tidegate {
    process: Process,
    address: SocketAddr,
    /// Holds the configuration file.
    folder: TempDir,
}

impl Launch {
    /// With this configuration file's text. The HTTP listener gets a free port.
    pub(crate) fn config(text: impl Into<String>) -> Self {
        Self::new(Config::Text(text.into()))
    }

    /// With the configuration file at this path.
    pub(crate) fn config_file(path: impl Into<PathBuf>) -> Self {
        Self::new(Config::File(path.into()))
    }

    fn new(config: Config) -> Self {
        Self { config, env: Vec::new(), args: Vec::new(), memory: None, program: Vec::new() }
            .env("TIDEGATE_HTTP__LISTEN", "127.0.0.1:0")
    }

    /// Overrides a key, as in `TIDEGATE_BATCH__MAX_DELAY`.
    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Adds an argument to the command line.
    pub(crate) fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Lets it have no more memory than this, by `prlimit`: it ends when it needs more.
    pub(crate) fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Runs this in place of the binary that was built.
    pub(crate) fn program(mut self, program: Vec<String>) -> Self {
        self.program = program;
        self
    }

    /// Points it at a Redis.
    pub(crate) fn redis(self, redis: &Redis) -> Self {
        self.env("TIDEGATE_REDIS__URL", redis.url())
    }

    /// Points it at a MongoDB and a database there.
    pub(crate) fn mongodb(self, mongo: &Mongo, database: &str) -> Self {
        self.env("TIDEGATE_MONGODB__URI", mongo.uri()).env("TIDEGATE_MONGODB__DATABASE", database)
    }

    /// Starts it and waits until `/readyz` says yes.
    pub(crate) async fn start(&self) -> anyhow::Result<Tidegate> {
        let mut tidegate = self.spawn().await?;
        let address = tidegate.address;
        let ready = async |_: &Process| {
            let (status, body) = http::get(address, "/readyz").await?;
            ensure!(status == 200, "{status} {body}");
            Ok(())
        };
        tidegate.process.until(READY_LIMIT, "tidegate to be ready", ready).await?;
        Ok(tidegate)
    }

    /// Starts it and waits only until it listens: for instances that stand by, or whose servers are away.
    pub(crate) async fn spawn(&self) -> anyhow::Result<Tidegate> {
        let (mut process, folder) = self.run()?;
        let address = process
            .until(READY_LIMIT, "tidegate to listen", async |process| {
                process.lines().iter().find_map(|line| listening(line)).context("it does not listen yet")
            })
            .await?;
        Ok(Tidegate { process, address, folder })
    }

    /// Starts it and waits until it ends by itself: for configurations that it must refuse.
    pub(crate) async fn until_exit(&self, limit: Duration) -> anyhow::Result<Exited> {
        let (mut process, _folder) = self.run()?;
        let status = process.wait(limit).await?;
        Ok(Exited { status, lines: process.all_lines(limit).await? })
    }

    fn run(&self) -> anyhow::Result<(Process, TempDir)> {
        let folder = tempfile::tempdir()?;
        let config = match &self.config {
            Config::File(path) => path.clone(),
            Config::Text(text) => {
                let path = folder.path().join("config.toml");
                std::fs::write(&path, text)?;
                path
            }
        };
        let mut command = match self.memory {
            _ if !self.program.is_empty() => {
                let mut command = without_test_variables(command(&self.program[0]));
                command.args(&self.program[1..]);
                command
            }
            None => tidegate_command()?,
            Some(bytes) => {
                let mut command = without_test_variables(command("prlimit"));
                command.arg(format!("--data={bytes}")).arg(binary()?);
                command
            }
        };
        command.args(&self.args).arg("--config").arg(config);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        Ok((Process::spawn("tidegate", command)?, folder))
    }
}

/// What is above this line of the file is replaced by [`Tidegate::reconfigure`].
pub(crate) const REST: &str = "# what was there at the start\n";

impl Tidegate {
    /// Where it serves HTTP.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Adds to the front of its configuration file, in place of what was added before, and has it read again.
    pub(crate) fn reconfigure(&self, addition: &str) -> anyhow::Result<()> {
        let file = self.folder.path().join("config.toml");
        let text = std::fs::read_to_string(&file)?;
        let text = text.split_once(REST).map_or(text.as_str(), |(_, text)| text);
        std::fs::write(&file, format!("{addition}\n{REST}{text}"))?;
        self.signal(Signal::SIGHUP)
    }

    /// All lines of its log so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.process.lines()
    }

    /// Waits for a line of the log that contains `text`.
    pub(crate) async fn logged(&mut self, text: &str, limit: Duration) -> anyhow::Result<String> {
        let line = async |process: &Process| {
            process.lines().into_iter().find(|line| line.contains(text)).context("no such line yet")
        };
        self.process.until(limit, &format!("{text:?} in the log"), line).await
    }

    /// Waits until `/readyz` answers with this status.
    pub(crate) async fn readiness(&mut self, status: u16, limit: Duration) -> anyhow::Result<String> {
        let address = self.address;
        let check = async |_: &Process| {
            let (answered, body) = http::get(address, "/readyz").await?;
            ensure!(answered == status, "{answered} {body}");
            Ok(body)
        };
        self.process.until(limit, &format!("readiness {status}"), check).await
    }

    /// One scrape.
    pub(crate) async fn metrics(&self) -> anyhow::Result<Metrics> {
        let (status, body) = self.get("/metrics").await?;
        ensure!(status == 200, "/metrics: {status} {body}");
        Metrics::parse(&body)
    }

    /// Waits until a scrape satisfies `check`, and returns it.
    pub(crate) async fn metrics_when(
        &self,
        limit: Duration,
        what: &str,
        mut check: impl FnMut(&Metrics) -> anyhow::Result<()>,
    ) -> anyhow::Result<Metrics> {
        try_eventually(limit, what, async || {
            let metrics = self.metrics().await?;
            check(&metrics)?;
            anyhow::Ok(metrics)
        })
        .await
    }

    /// Waits until everything in `queue` is settled, and returns the scrape that says so.
    pub(crate) async fn idle(&self, queue: &str, limit: Duration) -> anyhow::Result<Metrics> {
        let idle = |metrics: &Metrics| {
            let depth = metrics.get("tidegate_queue_depth", &[("queue", queue)]).context("no queue_depth")?;
            let buffered = metrics.get("tidegate_buffer_events", &[]).context("no buffer_events")?;
            let pending = metrics.get("tidegate_pending_entities", &[]).context("no pending_entities")?;
            ensure!(
                depth + buffered + pending == 0.0,
                "depth {depth}, buffered {buffered}, pending {pending}"
            );
            Ok(())
        };
        self.metrics_when(limit, &format!("{queue} to be drained"), idle).await
    }

    /// Status and body of a GET.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        http::get(self.address, path).await
    }

    /// Status and JSON of a GET.
    pub(crate) async fn get_json(&self, path: &str) -> anyhow::Result<(u16, Value)> {
        let (status, body) = self.get(path).await?;
        let json = serde_json::from_str(&body).with_context(|| format!("{path} is not JSON: {body}"))?;
        Ok((status, json))
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<u64> {
        self.process.resident_bytes()
    }

    /// The most that was ever resident, in bytes.
    pub(crate) fn peak_resident_bytes(&self) -> anyhow::Result<u64> {
        self.process.peak_resident_bytes()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.process.signal(signal)
    }

    /// SIGTERM, and waits for the end; [`Exited`] has the whole log.
    pub(crate) async fn terminate(mut self) -> anyhow::Result<Exited> {
        let status = self.process.terminate(STOP_LIMIT).await?;
        Ok(Exited { status, lines: self.process.all_lines(STOP_LIMIT).await? })
    }

    /// Waits for the end by itself.
    pub(crate) async fn exited(mut self, limit: Duration) -> anyhow::Result<Exited> {
        let status = self.process.wait(limit).await?;
        Ok(Exited { status, lines: self.process.all_lines(limit).await? })
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill9(mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        Ok(())
    }
}

/// The binary, with no argument yet, and without the variables that are for tests: to the daemon, every `TIDEGATE_`
/// variable is a key of the configuration, and an unknown one stops it.
pub(crate) fn tidegate_command() -> anyhow::Result<Command> {
    Ok(without_test_variables(command(binary()?)))
}

fn without_test_variables(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEGATE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Cargo names it for tests; for an example it is one folder up.
fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = option_env!("CARGO_BIN_EXE_tidegate") {
        return Ok(PathBuf::from(path));
    }
    let ourselves = std::env::current_exe()?;
    let folder = ourselves.parent().and_then(Path::parent).context("no folder of binaries")?;
    let binary = folder.join("tidegate");
    ensure!(binary.is_file(), "no binary at {}: build it first", binary.display());
    Ok(binary)
}

/// The address in a log line such as `listening on http://127.0.0.1:9464`, plain or within JSON.
fn listening(line: &str) -> Option<SocketAddr> {
    let (_, address) = line.split_once("listening on http://")?;
    let end = address.find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c))).unwrap_or(address.len());
    address[..end].parse().ok()
}

//! Starts a MongoDB server of one's own, or takes the user's.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use bson::doc;
use mongodb::options::ClientOptions;
use mongodb::{Client, Database};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::names::unique;
use super::port;
use super::process::{Process, command_on_a_small_disk, on_path};
use super::wait::try_eventually;

/// Names a server to use instead of starting one.
const SHARED: &str = "TIDEGATE_TEST_MONGODB_URI";
/// Where `scripts/servers.sh` puts the server that it builds; relative to the repository.
const SERVERS_DIR: &str = "TIDEGATE_SERVERS_DIR";
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const PORTS_TRIED: usize = 5;

/// What survives SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Everything it acknowledged. secantusd-rs then syncs the disk for every single document: hundreds a second.
    Synced,
    /// Not the last writes, acknowledged or not. Tens of thousands a second; for tests that do not kill the server.
    Relaxed,
}

/// A MongoDB server.
pub(crate) struct Mongo {
    uri: String,
    /// None: shared, and not ours to stop.
    own: Option<Own>,
    databases: Vec<String>,
}

struct Own {
    program: Program,
    folder: TempDir,
    port: u16,
    durability: Durability,
    process: Option<Process>,
}

/// The two servers that we can start.
#[derive(Debug, Clone)]
enum Program {
    Mongod(PathBuf),
    Secantusd(PathBuf),
}

impl Mongo {
    /// Starts a server that keeps everything over kill and restart.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        Self::start_with(Durability::Synced).await
    }

    /// Starts a server.
    pub(crate) async fn start_with(durability: Durability) -> anyhow::Result<Self> {
        let program = Program::find()?;
        let mut tries = 0;
        let own = loop {
            let folder = tempfile::tempdir()?;
            let port = port::free()?;
            let mut own = Own { program: program.clone(), folder, port, durability, process: None };
            tries += 1;
            match own.run().await {
                Ok(()) => break own,
                Err(error) if tries == PORTS_TRIED => return Err(error),
                Err(_) => {}
            }
        };
        Ok(Self { uri: own.uri(), own: Some(own), databases: Vec::new() })
    }

    /// The server that the environment names, else one of our own. It must not be stopped, and may hold other data.
    pub(crate) async fn shared() -> anyhow::Result<Self> {
        match std::env::var(SHARED) {
            Ok(uri) => Ok(Self { uri, own: None, databases: Vec::new() }),
            Err(_) => Self::start_with(Durability::Relaxed).await,
        }
    }

    /// Its connection string.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// Where it listens. Not known of a shared one.
    pub(crate) fn address(&self) -> anyhow::Result<SocketAddr> {
        let own = self.own.as_ref().context("the address of a shared MongoDB is in its URI")?;
        Ok((Ipv4Addr::LOCALHOST, own.port).into())
    }

    /// Its process id.
    pub(crate) fn id(&self) -> anyhow::Result<u32> {
        let own = self.own.as_ref().context("a shared MongoDB is no process of ours")?;
        Ok(own.process.as_ref().context("MongoDB is not running")?.id())
    }

    /// What it is, for people.
    pub(crate) fn name(&self) -> &'static str {
        match self.own.as_ref().map(|own| &own.program) {
            Some(Program::Mongod(_)) => "mongod",
            Some(Program::Secantusd(_)) => "secantusd-rs",
            None => "a shared server",
        }
    }

    /// A client of the caller's own.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        client(&self.uri).await
    }

    /// A database, through a client of its own.
    pub(crate) async fn database(&self, name: &str) -> anyhow::Result<Database> {
        Ok(self.client().await?.database(name))
    }

    /// The name of a database that no other test uses. It is dropped from a shared server at the end.
    pub(crate) fn database_name(&mut self, prefix: &str) -> String {
        let name = unique(prefix);
        self.databases.push(name.clone());
        name
    }

    /// Ends it in order; it then keeps everything, whatever its durability.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        let mut process = self.own()?.process.take().context("MongoDB is not running")?;
        process.terminate(STOP_LIMIT).await?;
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.own()?.process.take().context("MongoDB is not running")?.kill()?;
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

    /// SIGCONT.
    pub(crate) fn resume(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Its disk is full as soon as one of its files is to have more than so many bytes, or gets more behind those. None:
    /// there is room again. A server that has met the end of its disk needs a restart.
    pub(crate) fn limit_disk(&mut self, bytes: Option<u64>) -> anyhow::Result<()> {
        self.own()?.process.as_ref().context("MongoDB is not running")?.limit_file_size(bytes)
    }

    /// Fills what is left of its disk: waits until it refuses a write, or has ended.
    pub(crate) async fn until_full(&self) -> anyhow::Result<()> {
        let filler = self.database("filler").await?.collection("filler");
        let padding = "x".repeat(10_000);
        try_eventually(START_LIMIT, "MongoDB's disk to be full", async || {
            match filler.insert_one(doc! { "padding": &padding }).await {
                Ok(_) => Err("there is room"),
                Err(_) => Ok(()),
            }
        })
        .await
    }

    fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        self.own()?.process.as_ref().context("MongoDB is not running")?.signal(signal)
    }

    fn own(&mut self) -> anyhow::Result<&mut Own> {
        self.own.as_mut().context("a shared MongoDB is not ours to stop")
    }
}

impl Own {
    fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port)
    }

    async fn run(&mut self) -> anyhow::Result<()> {
        let mut process = Process::spawn("the MongoDB server", self.command()?)?;
        let client = client(&self.uri()).await?;
        if let Program::Secantusd(_) = self.program {
            // Only our own process can have printed this, so it is not another one that took the port.
            process
                .until(START_LIMIT, "MongoDB to listen", async |process| {
                    let listens = process.lines().iter().any(|line| line.contains("listening on"));
                    listens.then_some(()).context("it does not listen yet")
                })
                .await?;
        }
        let program = &self.program;
        let port = self.port;
        process
            .until(START_LIMIT, "MongoDB to accept writes", async |process| match program {
                Program::Mongod(_) => check_mongod(&client, port, process.id()).await,
                Program::Secantusd(_) => check_writable(&client).await,
            })
            .await?;
        self.process = Some(process);
        Ok(())
    }

    fn command(&self) -> anyhow::Result<Command> {
        let folder = self.folder.path();
        let port = self.port.to_string();
        let command = match &self.program {
            Program::Mongod(program) => {
                let mut command = command_on_a_small_disk(program);
                command
                    .args(["--bind_ip", "127.0.0.1", "--port", &port, "--nounixsocket", "--dbpath"])
                    .arg(folder);
                // As a replica set of one: only then does a write of "majority" wait for the journal.
                command.args(["--replSet", "rs0"]);
                command
            }
            Program::Secantusd(program) => {
                // An empty file instead of whatever it would find in the working or home directory.
                let config = folder.join("secantusd.toml");
                std::fs::write(&config, "")?;
                let mut command = command_on_a_small_disk(program);
                command
                    .args(["--host", "127.0.0.1", "--port", &port, "--storage-path"])
                    .arg(folder.join("data"));
                command.arg("--config").arg(config);
                // The defaults are made for large machines: a cache of 4 GB.
                command.args(["--cache-size", "256M", "--log-file-max", "64MB"]);
                if self.durability == Durability::Synced {
                    command.arg("--sync-on-commit");
                }
                command
            }
        };
        Ok(command)
    }
}

impl Program {
    fn find() -> anyhow::Result<Self> {
        if let Some(mongod) = on_path("mongod") {
            return Ok(Self::Mongod(mongod));
        }
        let folder = std::env::var_os(SERVERS_DIR).map_or_else(|| PathBuf::from(".servers"), PathBuf::from);
        let secantusd = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join("bin/secantusd-rs");
        ensure!(
            secantusd.is_file(),
            "no MongoDB server at {}: run `make servers` first",
            secantusd.display()
        );
        Ok(Self::Secantusd(secantusd))
    }
}

impl Drop for Mongo {
    fn drop(&mut self) {
        if self.own.is_none()
            && !self.databases.is_empty()
            && let Err(error) = drop_databases(&self.uri, &self.databases)
        {
            eprintln!("cannot tidy up the shared MongoDB: {error:#}");
        }
    }
}

async fn client(uri: &str) -> anyhow::Result<Client> {
    let mut options = ClientOptions::parse(uri).await?;
    options.server_selection_timeout.get_or_insert(Duration::from_secs(5));
    options.connect_timeout.get_or_insert(Duration::from_secs(5));
    Ok(Client::with_options(options)?)
}

async fn check_writable(client: &Client) -> anyhow::Result<()> {
    let hello = client.database("admin").run_command(doc! { "hello": 1 }).await?;
    ensure!(hello.get_bool("isWritablePrimary").unwrap_or(false), "it is not primary: {hello}");
    Ok(())
}

async fn check_mongod(client: &Client, port: u16, process: u32) -> anyhow::Result<()> {
    let admin = client.database("admin");
    let status = admin.run_command(doc! { "serverStatus": 1 }).await?;
    let pid = status.get("pid").and_then(|pid| pid.as_i64().or_else(|| pid.as_i32().map(i64::from)));
    ensure!(pid == Some(i64::from(process)), "another server answers on this port");
    if check_writable(client).await.is_ok() {
        return Ok(());
    }
    let member = doc! { "_id": 0, "host": format!("127.0.0.1:{port}") };
    let config = doc! { "_id": "rs0", "members": [member] };
    // Refused if it was done before; then it only has to elect itself.
    let initiated = admin.run_command(doc! { "replSetInitiate": config }).await;
    check_writable(client).await.with_context(|| format!("replSetInitiate: {initiated:?}"))
}

/// On a thread and runtime of its own, so that it can be called on drop.
fn drop_databases(uri: &str, names: &[String]) -> anyhow::Result<()> {
    let dropped = std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let client = client(uri).await?;
                for name in names {
                    client.database(name).drop().await?;
                }
                anyhow::Ok(())
            })
        });
        work.join()
    });
    dropped.map_err(|_| anyhow!("it panicked"))?
}

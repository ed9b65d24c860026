//! Runs what people run today: workers of other makes, each as its own documentation shows it, in `benches/peers`.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail, ensure};

use super::plan::Plan;
use super::servers::{COLLECTION, QUEUE, Servers};
use super::stats::Run;
use super::support::{Process, command};
use super::workload::Workload;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers");

/// A worker of another make.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    program: &'static str,
    /// As many as take it a few seconds.
    pub(crate) events: u64,
    /// What it is run with, or why it cannot be.
    interpreter: Result<PathBuf, String>,
    folder: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runtime {
    Node,
    Python,
}

/// All of them, with what they need installed into `folder`, and nowhere else.
pub(crate) fn all(plan: &Plan, folder: &Path) -> anyhow::Result<Vec<Peer>> {
    let folder = folder.join("peers");
    std::fs::create_dir_all(&folder)?;
    for entry in std::fs::read_dir(SOURCES)? {
        let entry = entry?;
        std::fs::copy(entry.path(), folder.join(entry.file_name()))?;
    }
    let node = node(&folder).map_err(|error| format!("{error:#}"));
    let python = python(&folder).map_err(|error| format!("{error:#}"));
    let peer = |name, runtime, program, events| {
        let interpreter = match runtime {
            Runtime::Node => node.clone(),
            Runtime::Python => python.clone(),
        };
        Peer { name, program, events, interpreter, folder: folder.clone() }
    };
    Ok(vec![
        peer(PLAIN, Runtime::Node, "plain.js", plan.of(20_000, 3_000)),
        peer(BATCHED, Runtime::Node, "batched.js", plan.of(200_000, 20_000)),
        peer("BullMQ", Runtime::Node, "bullmq.js", plan.of(20_000, 3_000)),
        peer("Python, batched by hand", Runtime::Python, "worker.py", plan.of(200_000, 20_000)),
    ])
}

pub(crate) const PLAIN: &str = "Node, plain";
pub(crate) const BATCHED: &str = "Node, batched by hand";

impl Peer {
    /// Why it cannot be measured, if so.
    pub(crate) fn missing(&self) -> Option<&str> {
        self.interpreter.as_ref().err().map(String::as_str)
    }

    /// From the moment when it begins until it says that the last event is in MongoDB. It has connected before.
    pub(crate) async fn drain(&self, servers: &mut Servers) -> anyhow::Result<Run> {
        let Ok(interpreter) = &self.interpreter else { bail!("{} cannot be run", self.name) };
        servers.clear().await?;
        let workload = Workload { events: self.events, ..Workload::hot() };
        servers.stage(&workload).await?;
        // Before its start, for the one that makes jobs of them.
        servers.release(workload.kind).await?;
        let database = servers.database();
        let mut command = command(interpreter);
        command.arg(self.program).current_dir(&self.folder).envs([
            ("QUEUE", QUEUE),
            ("EVENTS", &self.events.to_string()),
            ("REDIS_URL", servers.redis.url()),
            ("MONGODB_URI", servers.mongo.uri()),
            ("DATABASE", database.name()),
            ("COLLECTION", COLLECTION),
        ]);
        let (process, mut input, output) = Process::spawn_to_talk(self.name, command)?;
        let mut output = BufReader::new(output);
        output = self.hear(&process, output, "ready").await?;
        let before = servers.cpu(process.id())?;
        let began = Instant::now();
        input.write_all(b"go\n")?;
        self.hear(&process, output, "done").await?;
        let run = servers.run(self.events, began, before, process.id())?;
        servers.check(&database, self.events).await?;
        database.drop().await?;
        Ok(run)
    }

    async fn hear(
        &self,
        process: &Process,
        mut output: BufReader<ChildStdout>,
        word: &'static str,
    ) -> anyhow::Result<BufReader<ChildStdout>> {
        let heard = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            output.read_line(&mut line).map(|_| (line, output))
        });
        let (line, output) = heard.await??;
        ensure!(
            line.trim() == word,
            "{} said {line:?} in place of {word:?}:\n{}",
            self.name,
            process.lines().join("\n")
        );
        Ok(output)
    }
}

/// Node, with the packages that `package.json` names.
fn node(folder: &Path) -> anyhow::Result<PathBuf> {
    run(Command::new("node").arg("--version")).context("node is missing")?;
    once(folder, "package.json", "node_modules/installed", || {
        let npm = ["install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"];
        run(Command::new("npm").args(npm).current_dir(folder)).context("npm could not install the packages")
    })?;
    Ok("node".into())
}

/// A Python of its own, with the packages that `requirements.txt` names.
fn python(folder: &Path) -> anyhow::Result<PathBuf> {
    let python = folder.join("venv/bin/python");
    once(folder, "requirements.txt", "venv/installed", || {
        run(Command::new("python3").args(["-m", "venv", "venv"]).current_dir(folder))
            .context("python3 with venv is missing")?;
        let pip =
            ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"];
        run(Command::new(&python).args(pip).current_dir(folder)).context("pip could not install the packages")
    })?;
    Ok(python)
}

/// Installs what `wanted` names, unless it is what was installed the last time.
fn once(
    folder: &Path,
    wanted: &str,
    installed: &str,
    install: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let wanted = std::fs::read(folder.join(wanted))?;
    let installed = folder.join(installed);
    if std::fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    install()?;
    Ok(std::fs::write(installed, wanted)?)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", output.status, errors.trim());
    Ok(())
}

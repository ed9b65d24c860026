//! Runs a child process that never outlives us, and reads what it prints.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use parking_lot::Mutex;

use super::wait::try_eventually;

const LINES_SHOWN: usize = 30;

/// A running child. Ended and waited for on drop.
pub(crate) struct Process {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `command`, made by [`command`].
    pub(crate) fn spawn(name: &str, mut command: Command) -> anyhow::Result<Self> {
        // A group of its own: Ctrl-C on the terminal is for us, and we decide who stops when.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn_from_lasting_thread(command).with_context(|| format!("cannot start {name}"))?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        if let Some(stdout) = child.stdout.take() {
            capture(stdout, Arc::clone(&lines));
        }
        if let Some(stderr) = child.stderr.take() {
            capture(stderr, Arc::clone(&lines));
        }
        Ok(Self { name: name.to_owned(), child, lines })
    }

    /// Starts `command` to talk with it: what it reads and what it writes to standard output are the caller's.
    pub(crate) fn spawn_to_talk(
        name: &str,
        mut command: Command,
    ) -> anyhow::Result<(Self, ChildStdin, ChildStdout)> {
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn_from_lasting_thread(command).with_context(|| format!("cannot start {name}"))?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        if let Some(stderr) = child.stderr.take() {
            capture(stderr, Arc::clone(&lines));
        }
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let process = Self { name: name.to_owned(), child, lines };
        Ok((process, input.context("no standard input")?, output.context("no standard output")?))
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// All lines printed so far, standard output and standard error together.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }

    /// All lines that an ended process has printed: waits until its output is read to the end.
    pub(crate) async fn all_lines(&self, limit: Duration) -> anyhow::Result<Vec<String>> {
        // Whoever still reads holds the lines too.
        let read =
            try_eventually(limit, "the end of its output", async || match Arc::strong_count(&self.lines) {
                1 => Ok(()),
                more => Err(more - 1),
            });
        read.await.with_context(|| self.name.clone())?;
        Ok(self.lines())
    }

    /// Sends a signal to this process alone.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.id())?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Lets no file of this process grow beyond so many bytes. None: as large as they like.
    pub(crate) fn limit_file_size(&self, bytes: Option<u64>) -> anyhow::Result<()> {
        let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        let mut prlimit = Command::new("prlimit");
        // The soft limit alone, so that it can be raised again without root.
        let status = prlimit.args(["--pid", &self.id().to_string(), &format!("--fsize={limit}:")]).status();
        let status = status.context("prlimit, of Debian's util-linux, is needed")?;
        ensure!(status.success(), "prlimit ended with {status}");
        Ok(())
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        // Fails only if it has ended already, which is what is wanted.
        let _ = self.child.kill();
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name))
    }

    /// SIGKILL to it and to all that it has started, and waits for its end.
    pub(crate) fn kill_group(&mut self) -> anyhow::Result<ExitStatus> {
        let pid = Pid::from_raw(i32::try_from(self.id())?);
        // It leads a group of its own, which is gone if all of them have ended.
        let _ = killpg(pid, Signal::SIGKILL);
        self.kill()
    }

    /// Waits for the end by itself.
    pub(crate) async fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let child = &mut self.child;
        let ended = try_eventually(limit, "the end of the process", async || match child.try_wait() {
            Ok(Some(status)) => Ok(Ok(status)),
            Ok(None) => Err("still running"),
            Err(error) => Ok(Err(error)),
        });
        let status = ended.await.with_context(|| self.name.clone())?;
        Ok(status?)
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn terminate(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(limit).await
    }

    /// Waits until `check` answers `Ok`; gives up at once when the process ends. The error has the last lines printed.
    pub(crate) async fn until<T>(
        &mut self,
        limit: Duration,
        what: &str,
        mut check: impl AsyncFnMut(&Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let me = &mut *self;
        let outcome = try_eventually(limit, what, async || match me.child.try_wait() {
            Ok(Some(status)) => Ok(Err(anyhow!("it ended too early: {status}"))),
            Ok(None) => check(me).await.map(Ok),
            Err(error) => Ok(Err(error.into())),
        });
        let outcome = outcome.await.and_then(|ended| ended);
        outcome.with_context(|| {
            let lines = self.lines.lock();
            let tail = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
            format!("{} said:\n  {}\nand then", self.name, tail.join("\n  "))
        })
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most that was ever resident, in bytes: no sample misses it.
    pub(crate) fn peak_resident_bytes(&self) -> anyhow::Result<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &'static str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context(name)?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing to be done about an error here, and SIGKILL also ends a process that is paused.
        let _ = self.kill();
    }
}

/// A command that starts `program` such that it is killed if we die without having ended it.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    static SETPRIV: OnceLock<Option<PathBuf>> = OnceLock::new();
    match SETPRIV.get_or_init(|| on_path("setpriv")) {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// The same, for a program to which a file that reaches its limit is to be an error, as on a full disk, and not the end.
pub(crate) fn command_on_a_small_disk(program: impl AsRef<OsStr>) -> Command {
    let mut command = command("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(program);
    command
}

/// Where a program is, if it is on the PATH.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| Path::is_file(file))
}

/// The "parent" whose death is signalled is the thread that forked, and a test's threads come and go. So all children
/// come from one thread that lasts as long as we do.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static ORDERS: OnceLock<mpsc::Sender<Order>> = OnceLock::new();

    let orders = ORDERS.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                // The one who asked waits for the reply below.
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let (reply, answer) = mpsc::channel();
    orders.send((command, reply)).map_err(io::Error::other)?;
    answer.recv().map_err(io::Error::other)?
}

fn capture(output: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) {
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        // Until the end or an error, which for a pipe both mean that the process is gone.
        while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            lines.lock().push(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    });
}

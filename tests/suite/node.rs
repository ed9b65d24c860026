//! Runs Node programs with the packages that they need, as a real client would have them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// A folder of programs and the packages that its `package.json` names, installed once.
#[derive(Debug)]
pub(crate) struct Node {
    folder: PathBuf,
}

impl Node {
    /// The programs of a folder of the repository.
    pub(crate) fn programs(folder: &str) -> anyhow::Result<Self> {
        let npm = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"];
        let folder = installed("node", folder, "package.json", &npm)
            .context("npm could not install the packages; Node and npm are needed (make servers)")?;
        Ok(Node { folder })
    }

    /// What a program prints, given this on its standard input.
    pub(crate) fn run(&self, program: &str, args: &[&str], input: &[u8]) -> anyhow::Result<String> {
        run(self.command(program).args(args), input)
    }

    /// A program, to be given arguments.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("node");
        command.arg(program).current_dir(&self.folder);
        command
    }
}

/// Copies the programs of a folder of the repository into the build folder, and has what their `manifest` names
/// installed beside them, once.
pub(crate) fn installed(
    kind: &str,
    folder: &str,
    manifest: &str,
    installer: &[&str],
) -> anyhow::Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    // Packages are looked for beside the program, so both are in the build folder.
    let name = format!("{kind}-{}", folder.replace('/', "-"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder)?;
    // Tests are processes of their own.
    let lock = std::fs::File::create(folder.join("lock"))?;
    lock.lock()?;
    let wanted = std::fs::read(source.join(manifest))?;
    let present = std::fs::read(folder.join("installed")).unwrap_or_default();
    for entry in std::fs::read_dir(&source)? {
        let entry = entry?;
        std::fs::copy(entry.path(), folder.join(entry.file_name()))?;
    }
    if present != wanted {
        run(Command::new(installer[0]).args(&installer[1..]).current_dir(&folder), b"")?;
        std::fs::write(folder.join("installed"), wanted)?;
    }
    Ok(folder)
}

/// What a command prints, given this on its standard input.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input)?;
    }
    let output = child.wait_with_output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} ended with {}: {errors}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

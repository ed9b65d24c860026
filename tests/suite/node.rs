//! Node programs with the packages that they need, as a real client would have them.

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
    /// The programs of a folder of `tests`.
    pub(crate) fn programs(name: &str) -> anyhow::Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("node-{name}"));
        // Packages are looked for beside the program, so both are in the build folder.
        std::fs::create_dir_all(&folder)?;
        // Tests are processes of their own.
        let lock = std::fs::File::create(folder.join("lock"))?;
        lock.lock()?;
        let manifest = std::fs::read(source.join("package.json"))?;
        let installed = std::fs::read(folder.join("installed.json")).unwrap_or_default();
        for entry in std::fs::read_dir(&source)? {
            let entry = entry?;
            std::fs::copy(entry.path(), folder.join(entry.file_name()))?;
        }
        if installed != manifest {
            let npm = ["install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"];
            run(Command::new("npm").args(npm).current_dir(&folder), b"")
                .context("npm could not install the packages; Node and npm are needed (make servers)")?;
            std::fs::write(folder.join("installed.json"), manifest)?;
        }
        Ok(Node { folder })
    }

    /// What a program prints, given this on its standard input.
    pub(crate) fn run(&self, program: &str, args: &[&str], input: &[u8]) -> anyhow::Result<String> {
        run(Command::new("node").arg(program).args(args).current_dir(&self.folder), input)
    }
}

fn run(command: &mut Command, input: &[u8]) -> anyhow::Result<String> {
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

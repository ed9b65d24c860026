//! Tests the snippets of `examples/producers`: what each pushes becomes the document that their page shows.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use bson::{Document, doc};

use crate::node::{Node, installed, run};
use crate::stage::Setting;
use crate::support::document;

type Outcome = anyhow::Result<()>;

const FOLDER: &str = "examples/producers";

/// Whether a program is there. If not, says that its test is left out: past the test harness, which would keep it to
/// itself, and `.config/nextest.toml` has nextest show it.
fn is_there(program: &str, args: &[&str]) -> bool {
    let there = Command::new(program).args(args).output().is_ok_and(|output| output.status.success());
    if !there {
        let told = format!("SKIPPED: a producer, as `{program} {}` does not run here\n", args.join(" "));
        let _ = std::io::stderr().write_all(told.as_bytes());
    }
    there
}

/// Runs a producer and looks at the document.
async fn check(mut producer: Command) -> Outcome {
    let stage = Setting::new().stage().await?;
    let tidegate = stage.launch.clone().env("TIDEGATE_NATIVE__COLLECTIONS", "[\"notes\"]").start().await?;
    let printed = run(producer.arg(&stage.queue).env("REDIS_URL", stage.redis.url()), b"")?;
    assert_eq!(printed.lines().filter(|line| line.starts_with("accepted; ")).count(), 2, "{printed}");
    stage.settled(&tidegate).await?;

    let mut note: Document = document(&stage.database, "notes", "n1").await?.expect("the document");
    assert!(note.remove("_tidegate").is_some());
    assert_eq!(note, doc! {"_id": "n1", "title": "Hello", "edits": 2});
    assert!(stage.dead_letters().await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node() -> Outcome {
    check(Node::programs(FOLDER)?.command("produce.mjs")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python() -> Outcome {
    if !is_there("python3", &["-m", "pip", "--version"]) {
        return Ok(());
    }
    let pip = "python3 -m pip install --quiet --upgrade --target packages -r requirements.txt";
    let folder = installed("python", FOLDER, "requirements.txt", &pip.split(' ').collect::<Vec<_>>())?;
    let mut command = Command::new("python3");
    command.arg("produce.py").env("PYTHONPATH", folder.join("packages")).current_dir(folder);
    check(command).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shell() -> Outcome {
    if !is_there("redis-cli", &["--version"]) {
        return Ok(());
    }
    check(Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER).join("produce.sh"))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go() -> Outcome {
    if !is_there("go", &["version"]) {
        return Ok(());
    }
    let mut command = Command::new("go");
    command.args(["run", "produce.go"]).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER));
    check(command).await
}

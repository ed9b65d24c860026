//! Tests the image: what the Dockerfile copies is enough for cargo, and what is built of it works.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::stage::Setting;
use crate::support::{Launch, document};

type Outcome = anyhow::Result<()>;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The files that `.dockerignore` lets into the build: all are out, but for those that a line names with a `!`.
fn sent() -> anyhow::Result<Vec<PathBuf>> {
    let text = fs::read_to_string(Path::new(ROOT).join(".dockerignore"))?;
    let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    ensure!(lines.next() == Some("*"), "`.dockerignore` does not begin with `*`");
    lines
        .map(|line| Ok(line.strip_prefix('!').context("not a `!`: this test knows no more")?.into()))
        .collect()
}

/// What the `COPY` lines of a stage take from the build's folder, and where to.
fn copied(stage: usize) -> anyhow::Result<Vec<(PathBuf, PathBuf)>> {
    let text = fs::read_to_string(Path::new(ROOT).join("Dockerfile"))?;
    let stage = text.split("\nFROM ").nth(stage + 1).context("no such stage")?;
    let lines = stage.lines().filter_map(|line| line.strip_prefix("COPY "));
    let mut all = Vec::new();
    for line in lines.filter(|line| !line.starts_with("--from=")) {
        let mut names: Vec<_> = line.split_whitespace().collect();
        let to = names.pop().context("COPY to nowhere")?;
        for from in &names {
            // A folder's content goes to the folder named; a file into it, if it ends in a slash.
            let to = if to.ends_with('/') && Path::new(ROOT).join(from).is_file() {
                Path::new(to).join(from)
            } else {
                to.into()
            };
            all.push((from.into(), to));
        }
    }
    Ok(all)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if !from.is_dir() {
        fs::create_dir_all(to.parent().context("no folder")?)?;
        fs::copy(from, to).with_context(|| from.display().to_string())?;
        return Ok(());
    }
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        copy(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

/// The files of this repository that the library was compiled from, as the compiler wrote them down. The binary's own are
/// among them.
fn compiled() -> anyhow::Result<BTreeSet<PathBuf>> {
    let folder = Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().context("no folder")?.join("deps");
    let mut newest: Option<(SystemTime, String)> = None;
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        if !name.starts_with("tidegate-") || !name.ends_with(".d") {
            continue;
        }
        let (text, written) = (fs::read_to_string(entry.path())?, entry.metadata()?.modified()?);
        if text.contains("/libtidegate-") && newest.as_ref().is_none_or(|(time, _)| *time < written) {
            newest = Some((written, text));
        }
    }
    let (_, text) = newest.with_context(|| format!("nothing of the library in {}", folder.display()))?;
    let sources = text.lines().filter_map(|line| line.strip_suffix(':')).map(PathBuf::from);
    let ours = sources.map(|path| path.strip_prefix(ROOT).map(Path::to_owned).unwrap_or(path));
    Ok(ours.filter(|path| path.is_relative()).chain([PathBuf::from("src/main.rs")]).collect())
}

#[test]
fn cargo_finds_what_it_wants_among_what_the_dockerfile_copies() -> Outcome {
    let sent = sent()?;
    let build = copied(0)?;
    for (from, _) in build.iter().chain(&copied(1)?) {
        ensure!(Path::new(ROOT).join(from).exists(), "{} is copied and not there", from.display());
        ensure!(sent.iter().any(|path| from.starts_with(path)), "{} is ignored", from.display());
    }
    let folder = tempfile::tempdir()?;
    for (from, to) in &build {
        copy(&Path::new(ROOT).join(from), &folder.path().join(to))?;
    }
    // Of what is quick, this looks for each target of the manifest, as a build does; `cargo metadata` does not.
    let mut cargo = Command::new(env!("CARGO"));
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    cargo.args(["fetch", "--locked", "--offline", "--target", &platform]);
    let output = cargo.current_dir(folder.path()).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let sources = compiled()?;
    assert!(sources.len() > 100 && sources.contains(Path::new("src/lib.rs")), "{sources:?}");
    let missing: Vec<_> = sources.iter().filter(|path| !folder.path().join(path).is_file()).collect();
    assert!(missing.is_empty(), "the Dockerfile does not copy {missing:?}");
    Ok(())
}

/// Run by `scripts/image.sh`, with the image's files and its configuration.
#[tokio::test]
#[ignore = "needs an image: `make image`"]
async fn the_built_image_drains_a_queue_and_stops_by_sigterm() -> Outcome {
    let root = std::env::var("IMAGE_ROOT").context("IMAGE_ROOT: the files of the image")?;
    let image: Value = serde_json::from_slice(&fs::read(std::env::var("IMAGE_CONFIG")?)?)?;
    let config = &image["OCIv1"]["config"];
    let words = |key: &str| -> Vec<String> {
        let words = config[key].as_array().into_iter().flatten();
        words.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    assert_eq!(config["StopSignal"], "SIGTERM");
    let user = config["User"].as_str().context("a user")?;
    let mut command = vec!["chroot".to_owned(), format!("--userspec={user}"), root];
    command.extend(words("Entrypoint"));
    let file = words("Cmd");
    assert_eq!(file[0], "--config");

    let stage = Setting::new().stage().await?;
    let mut launch = Launch::config_file(&file[1]).program(command);
    for variable in words("Env") {
        let (name, value) = variable.split_once('=').context("a variable")?;
        if name.starts_with("TIDEGATE_") && name != "TIDEGATE_HTTP__LISTEN" {
            launch = launch.env(name, value);
        }
    }
    let launch = launch
        .redis(&stage.redis)
        .mongodb(&stage.mongo, stage.database.name())
        .env("TIDEGATE_QUEUES", format!("[{{ key = \"{}\" }}]", stage.queue));
    let tidegate = launch.start().await?;
    stage.push([r#"{"type":"UPDATE_CONTENT","payload":{"docId":"d","text":"t"}}"#]).await?;
    stage.settled(&tidegate).await?;
    assert!(document(&stage.database, "documents", "d").await?.is_some());
    let exited = tidegate.terminate().await?;
    assert!(exited.status.success(), "{exited:?}");
    Ok(())
}

//! Tests the commands that ask a running instance: what `tidegate healthcheck` prints, and each exit code.

use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::Signal;
use tokio::net::TcpListener;

use crate::stage::{PATIENCE, Setting, logged};
use crate::support::{Launch, Tidegate, try_eventually};

type Outcome = anyhow::Result<()>;

/// What a command prints with the configuration of the instance that is asked, and its exit code.
async fn told(launch: &Launch, at: &str, arguments: &[&str]) -> anyhow::Result<(String, i32)> {
    let launch = launch.clone().env("TIDEGATE_HTTP__LISTEN", at);
    let launch = arguments.iter().fold(launch, |launch, argument| launch.arg(*argument));
    let exited = launch.until_exit(PATIENCE).await?;
    Ok((exited.lines.join("\n"), exited.status.code().context("a code")?))
}

fn at(tidegate: &Tidegate) -> String {
    tidegate.address().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_lives_and_is_ready_until_it_is_told_to_end() -> Outcome {
    let mut stage = Setting::new().own_fast_servers().stage().await?;
    let tidegate = stage.start().await?;
    let at = at(&tidegate);
    let probe = ["healthcheck"];
    let ready = ["healthcheck", "--ready"];
    assert_eq!(told(&stage.launch, &at, &probe).await?, (format!("alive: {at}"), 0));
    assert_eq!(told(&stage.launch, &at, &ready).await?, (format!("ready: {at}"), 0));
    // Who listens everywhere is asked at loopback, and a URL needs no configuration.
    let everywhere = format!("0.0.0.0:{}", tidegate.address().port());
    assert_eq!(told(&stage.launch, &everywhere, &ready).await?, (format!("ready: {at}"), 0));
    let url = format!("http://{at}/");
    let none = Launch::config("nonsense = true");
    assert_eq!(told(&none, "127.0.0.1:1", &["healthcheck", "--url", &url]).await?.1, 0);
    let (line, code) = told(&none, &at, &probe).await?;
    assert!(code == 1 && line.starts_with("unhealthy: ") && line.contains("nonsense"), "{line}");

    // It cannot write what it has read, and so takes its time to end.
    stage.mongo.pause()?;
    stage.push((0..100).map(|n| logged("doc", n))).await?;
    try_eventually(PATIENCE, "MongoDB to be missed", async || {
        let (line, code) = told(&stage.launch, &at, &ready).await?;
        anyhow::ensure!(code == 1 && line.starts_with("not ready: MongoDB is down: "), "{code}: {line}");
        anyhow::Ok(())
    })
    .await?;
    assert_eq!(told(&stage.launch, &at, &probe).await?.1, 0, "a restart would not help");
    tidegate.signal(Signal::SIGTERM)?;
    try_eventually(PATIENCE, "it to say that it ends", async || {
        let (line, code) = told(&stage.launch, &at, &ready).await?;
        anyhow::ensure!(code == 1 && line.starts_with("not ready: it is stopping"), "{code}: {line}");
        anyhow::Ok(())
    })
    .await?;
    stage.mongo.resume()?;
    assert!(tidegate.exited(PATIENCE).await?.status.success());
    let (line, code) = told(&stage.launch, &at, &probe).await?;
    assert!(code == 1 && line.starts_with("unhealthy: no answer from http://"), "{line}");
    Ok(())
}

/// Something else listens there, and says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_answers_is_not_waited_for() -> Outcome {
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let at = silent.local_addr()?.to_string();
    let launch = Launch::config("native.collections = [\"documents\"]\n[[queues]]\nkey = \"q\"\n");
    let begun = Instant::now();
    let (line, code) = told(&launch, &at, &["healthcheck"]).await?;
    assert!(code == 1 && line.contains("nothing came within 5 s"), "{code}: {line}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    Ok(())
}

//! Tests the commands that ask a running instance: what they print, and each exit code.

use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::stage::{PATIENCE, Setting, logged, update};
use crate::support::{Launch, On, Process, Tidegate, tidegate_command, try_eventually, unique, write_error};

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

/// Waits until the command ends with a code and has said something.
async fn until(launch: &Launch, at: &str, code: i32, says: &[&str]) -> anyhow::Result<String> {
    try_eventually(PATIENCE, &format!("status to end with {code}"), async || {
        let (text, ended) = told(launch, at, &["status"]).await?;
        anyhow::ensure!(ended == code && says.iter().all(|said| text.contains(said)), "{ended}: {text}");
        anyhow::Ok(text)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_is_told_in_the_words_of_the_page() -> Outcome {
    let mut stage = Setting::new().own_servers().another_queue("idle").stage().await?;
    let tidegate = stage.start().await?;
    let at = at(&tidegate);
    stage.push((0..100).map(|n| logged("doc", n))).await?;
    stage.settled(&tidegate).await?;
    let text = until(&stage.launch, &at, 0, &["ok: Everything is durable", "MongoDB  up for "]).await?;
    assert!(text.contains(&format!(" at {at}, up ")) && text.contains("owned by this instance"), "{text}");

    let (json, code) = told(&stage.launch, &at, &["status", "--json"]).await?;
    let (told_json, mut page) =
        (serde_json::from_str::<Value>(&json)?, tidegate.get_json("/status").await?.1);
    assert_eq!((code, json.lines().count()), (0, 1));
    assert_eq!(shape(&told_json), shape(&page));
    assert_eq!(told_json["config"], page["config"].take());

    stage.mongo.kill()?;
    stage.push((100..1334).map(|n| logged("doc", n))).await?;
    let said = [
        "bad: MongoDB has been down for ",
        "1,234 events wait in Redis",
        "The error: ",
        "retrying MongoDB for",
    ];
    let text = until(&stage.launch, &at, 1, &said).await?;
    let line = |part: &str| text.lines().position(|line| line.starts_with(part));
    assert!(line(&stage.queue) < line("idle "), "the queue that needs attention comes first: {text}");
    assert_eq!(told(&stage.launch, &at, &["status", "--json"]).await?.1, 1);

    tidegate.kill9()?;
    for arguments in [&["status"][..], &["status", "--json"]] {
        let (text, code) = told(&stage.launch, &at, arguments).await?;
        assert!(code == 2 && text.starts_with("error: no answer from http://"), "{code}: {text}");
    }
    for (at, url) in [("127.0.0.1:0", None), ("127.0.0.1:1", Some("https://h"))] {
        let arguments: Vec<_> =
            ["status"].into_iter().chain(url.iter().flat_map(|url| ["--url", *url])).collect();
        assert_eq!(told(&stage.launch, at, &arguments).await?.1, 64, "{at} {url:?}");
    }
    Ok(())
}

/// The fields of a value, without figures and texts, which change from one second to the next.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::Array(values) => values.iter().map(shape).collect(),
        _ => Value::Null,
    }
}

/// Keys, collections and errors come from outside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_told_steers_a_terminal() -> Outcome {
    let odd = format!("{}\u{1b}[31m\u{9b}2J\u{7}", unique("odd"));
    let escaped = |text: &str| {
        text.replace('\u{1b}', "\\u001b").replace('\u{9b}', "\\u009b").replace('\u{7}', "\\u0007")
    };
    let stage = Setting::new().forged().another_queue(&escaped(&odd)).stage().await?;
    let collections = format!("[\"documents\", \"{}\"]", escaped(&odd));
    let _refused = stage.forge().rule(On::writes().refuse(|statement| {
        (statement.id_text() == "refused").then(|| write_error(8000, "no\u{1b}[2J\r\u{9b}"))
    }));
    let tidegate =
        stage.start_as(&stage.launch.clone().env("TIDEGATE_NATIVE__COLLECTIONS", collections)).await?;
    let event = json!({"collection": odd, "id": "refused", "update": {"$set": {"n": 1}}}).to_string();
    stage.push([event, update("doc", json!({"$set": {"n": 1}}))]).await?;
    let at = at(&tidegate);
    let name = odd.replace('\u{1b}', "\\u{1b}").replace('\u{9b}', "\\u{9b}").replace('\u{7}', "\\u{7}");
    let text = until(&stage.launch, &at, 1, &[&format!("of {name} from "), "no\\u{1b}[2J"]).await?;
    assert!(text.lines().any(|line| line.starts_with(&name)), "{text}");
    let harmless = |text: &str| !text.replace('\n', "").contains(char::is_control) && text.contains("31m");
    for arguments in [&["status"][..], &["status", "--json"]] {
        let (text, _) = told(&stage.launch, &at, arguments).await?;
        assert!(harmless(&text), "{arguments:?}: {text:?}");
    }
    try_eventually(PATIENCE, "it not to be ready", async || {
        let (line, code) = told(&stage.launch, &at, &["healthcheck", "--ready"]).await?;
        anyhow::ensure!(code == 1, "{line}");
        assert!(harmless(&line), "{line:?}");
        anyhow::Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_while_the_instance_is_away() -> Outcome {
    let stage = Setting::new().stage().await?;
    let tidegate = stage.start().await?;
    let url = format!("http://{}", at(&tidegate));
    let mut command = tidegate_command()?;
    command.args(["status", "--watch", "--json", "--url", &url]);
    let mut watch = Process::spawn("tidegate status", command)?;
    let lines = async |watch: &mut Process, least: usize, of: &str| {
        let count = async |watch: &Process| {
            let count = watch.lines().iter().filter(|line| line.starts_with(of)).count();
            anyhow::ensure!(count >= least, "{count} lines");
            anyhow::Ok(())
        };
        watch.until(PATIENCE, "more lines", count).await
    };
    lines(&mut watch, 2, "{").await?;
    tidegate.kill9()?;
    lines(&mut watch, 2, "error: no answer").await?;
    watch.kill()?;
    Ok(())
}

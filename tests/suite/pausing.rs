//! Tests `tidegate pause` and `tidegate resume`: what was read is written, nothing more is, and nothing is lost.

use std::time::Duration;

use anyhow::ensure;
use redis::AsyncCommands;
use serde_json::Value;

use crate::stage::{PATIENCE, Setting, Stage, assert_exact, logged};
use crate::support::{Metrics, Tidegate, documents, eventually, length};

type Outcome = anyhow::Result<()>;

const DOCUMENTS: usize = 20;

/// Runs a command on the stage's queue, which must do it.
async fn command(stage: &Stage, arguments: &[&str]) -> anyhow::Result<String> {
    let launch = arguments.iter().fold(stage.launch.clone(), |launch, argument| launch.arg(*argument));
    let exited = launch.until_exit(PATIENCE).await?;
    ensure!(exited.status.success(), "{arguments:?}: {:?}", exited.lines);
    Ok(exited.lines.join("\n"))
}

async fn pause(stage: &Stage) -> anyhow::Result<String> {
    command(stage, &["pause", &stage.queue, "--by", "anna", "--reason", "moving the database"]).await
}

async fn resume(stage: &Stage) -> anyhow::Result<String> {
    command(stage, &["resume", &stage.queue]).await
}

/// Waits until an instance says of the queue that it is in a phase for so many seconds, and answers all it says.
async fn until_phase_for(tidegate: &Tidegate, phase: &str, seconds: f64) -> Value {
    eventually(PATIENCE, phase, async || {
        let (_, status) = tidegate.get_json("/status").await?;
        let queue = &status["queues"][0];
        let lasts = queue["phase_seconds"].as_f64().unwrap_or(0.0);
        ensure!(queue["phase"] == phase && lasts >= seconds, "{queue}");
        anyhow::Ok(status)
    })
    .await
}

async fn until_phase(tidegate: &Tidegate, phase: &str) -> Value {
    until_phase_for(tidegate, phase, 0.0).await
}

fn event(n: usize) -> String {
    logged(&format!("doc{}", n % DOCUMENTS), n / DOCUMENTS)
}

fn writes(metrics: &Metrics) -> f64 {
    metrics.sum("tidegate_writes_total", &[])
}

/// Pauses the queue in the middle of events, with a second instance beside; then lets it go on.
async fn waits_and_goes_on(setting: Setting, is_popped: bool) -> Outcome {
    let mut stage = setting.stage().await?;
    stage.launch = stage.launch.env("TIDEGATE_LEASE__TTL", "2s");
    let tidegate = stage.start().await?;
    let beside = if is_popped { None } else { Some(stage.launch.start().await?) };
    stage.push((0..400).map(event)).await?;
    let told = pause(&stage).await?;
    ensure!(told.contains("is paused"), "{told}");
    let status = until_phase(&tidegate, "paused").await;
    let paused = &status["queues"][0]["pause"];
    assert_eq!((&paused["by"], &paused["reason"]), (&"anna".into(), &"moving the database".into()));
    let text = status["summary"]["text"].as_str().unwrap_or_default();
    assert!(text.contains("has been paused by anna"), "{text}");
    if let Some(beside) = &beside {
        until_phase(beside, "paused").await;
    }
    let metrics = tidegate.metrics().await?;
    assert_eq!(metrics.sum("tidegate_queue_paused", &[]), 1.0);
    // All that was read is written, and left the queue.
    let mut producer = stage.producer().await?;
    let left = length(&mut producer, &stage.queue).await?;
    let found = documents(&stage.database, "documents").await?;
    let written: usize = found.values().map(|found| found.get_array("log").map_or(0, Vec::len)).sum();
    assert_eq!(written + left, 400);

    stage.push((400..800).map(event)).await?;
    // Whoever would read had time to.
    let lasts = status["queues"][0]["phase_seconds"].as_f64().unwrap_or(0.0);
    until_phase_for(&tidegate, "paused", lasts + 2.0).await;
    assert_eq!(length(&mut producer, &stage.queue).await?, left + 400);
    assert_eq!(writes(&tidegate.metrics().await?), writes(&metrics));

    resume(&stage).await?;
    eventually(PATIENCE, "all to be written", async || {
        let found = documents(&stage.database, "documents").await?;
        let written: usize = found.values().map(|found| found.get_array("log").map_or(0, Vec::len)).sum();
        ensure!(written == 800, "{written}");
        anyhow::Ok(())
    })
    .await;
    let found = documents(&stage.database, "documents").await?;
    found.values().for_each(|document| assert_exact(Some(document), 800 / DOCUMENTS));
    assert!(resume(&stage).await?.contains("was not paused"));
    let (_, status) = tidegate.get_json("/status").await?;
    assert!(status["queues"][0]["pause"].is_null(), "{status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_waits_and_goes_on() -> Outcome {
    waits_and_goes_on(Setting::new(), false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_waits_and_goes_on() -> Outcome {
    waits_and_goes_on(Setting::new().stream("trim = \"delete\"\n"), false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_popped_list_waits_and_goes_on() -> Outcome {
    waits_and_goes_on(Setting::new().delivery("at-most-once"), true).await
}

/// Whoever dies while a queue is paused, or is being paused, changes nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_outlasts_every_instance() -> Outcome {
    let mut stage = Setting::new().stage().await?;
    stage.launch = stage.launch.env("TIDEGATE_LEASE__TTL", "1s");
    let mut pushed = 0;
    for round in 0..4 {
        let tidegate = stage.start().await?;
        stage.push((pushed..pushed + 200).map(event)).await?;
        pushed += 200;
        let paused = async {
            match round % 2 {
                // It is killed in the middle of it.
                0 => tokio::time::sleep(Duration::from_millis(20 * round)).await,
                _ => drop(until_phase(&tidegate, "paused").await),
            }
            tidegate.kill9()
        };
        let (told, killed) = tokio::join!(pause(&stage), paused);
        killed?;
        ensure!(told?.contains("is paused"));
        let next = stage.launch.start().await?;
        until_phase(&next, "paused").await;
        assert_eq!(writes(&next.metrics().await?), 0.0);
        resume(&stage).await?;
        stage.settled(&next).await?;
        next.terminate().await?;
    }
    let found = documents(&stage.database, "documents").await?;
    found.values().for_each(|document| assert_exact(Some(document), pushed / DOCUMENTS));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_queue_needs_no_mongodb_and_ends_well() -> Outcome {
    let mut stage = Setting::new().own_servers().stage().await?;
    let tidegate = stage.start().await?;
    stage.push((0..100).map(event)).await?;
    stage.settled(&tidegate).await?;
    pause(&stage).await?;
    assert!(pause(&stage).await?.contains("was paused by anna"));
    until_phase(&tidegate, "paused").await;
    stage.mongo.pause()?;
    stage.push((100..200).map(event)).await?;
    stage.mongo.resume()?;
    assert!(tidegate.terminate().await?.status.success());
    let mut producer = stage.producer().await?;
    assert_eq!(length(&mut producer, &stage.queue).await?, 100);
    // By hand, as somebody would.
    let key = format!("tidegate:{{{}}}:paused", stage.queue);
    let () = producer.set(&key, "by hand").await?;
    let next = stage.launch.start().await?;
    assert_eq!(until_phase(&next, "paused").await["queues"][0]["pause"]["reason"], "by hand");
    let () = producer.del(&key).await?;
    stage.settled(&next).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_not_there_cannot_be_paused() -> Outcome {
    let stage = Setting::new().stage().await?;
    let exited = stage.launch.clone().arg("pause").arg("nobody").until_exit(PATIENCE).await?;
    assert_eq!(exited.status.code(), Some(1));
    assert!(exited.lines.join("\n").contains("no queue \"nobody\" is configured"), "{:?}", exited.lines);
    Ok(())
}

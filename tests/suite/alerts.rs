//! Tests that alerts fire: a real Prometheus with the shipped rules scrapes a daemon that is in real trouble.
//!
//! Only waiting times and two thresholds are shortened; the expressions are the shipped ones.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use tokio::time::sleep;

use crate::stage::{PATIENCE, Setting, Stage, settled, update};
use crate::support::{Prometheus, Tidegate, eventually, free_port, push};

type Outcome = anyhow::Result<()>;

const RULES: &str = include_str!("../../dashboards/alerts.yaml");

/// The rules for a test that has no minutes.
fn impatient() -> String {
    let mut rules = RULES.to_owned();
    for (patient, impatient) in [
        ("_window_seconds) > 60\n", "_window_seconds) > 2\n"),
        ("_window_seconds) > 300\n", "_window_seconds) > 3\n"),
        ("deriv(tidegate_queue_depth[5m])", "deriv(tidegate_queue_depth[5s])"),
    ] {
        assert_eq!(rules.matches(patient).count(), 1, "{patient}");
        rules = rules.replace(patient, impatient);
    }
    for waiting in ["    for: 1m\n", "    for: 2m\n", "    for: 5m\n"] {
        assert!(rules.contains(waiting), "{waiting}");
        rules = rules.replace(waiting, "    for: 1s\n");
    }
    rules
}

/// Events for as many documents.
fn edits(documents: usize) -> impl Iterator<Item = String> {
    (0..documents).map(|n| update(&format!("doc{n}"), json!({ "$inc": { "n": 1 } })))
}

/// A daemon that works, watched by a Prometheus that sees nothing wrong with it.
async fn watched(stage: &Stage) -> anyhow::Result<(Tidegate, Prometheus)> {
    let tidegate = stage.start().await?;
    let prometheus = Prometheus::start(&[tidegate.address()], Some(&impatient())).await?;
    stage.push(edits(50)).await?;
    stage.settled(&tidegate).await?;
    prometheus.answers(PATIENCE, "sum(tidegate_events_persisted_total) == 50").await?;
    silence(&prometheus).await;
    Ok((tidegate, prometheus))
}

/// Waits until all of these alerts fire.
async fn fire(prometheus: &Prometheus, wanted: &[&str]) {
    eventually(PATIENCE, &format!("{wanted:?} to fire"), async || {
        let alerts = prometheus.alerts().await?;
        let firing: BTreeSet<_> = alerts
            .iter()
            .filter(|alert| alert["state"] == "firing")
            .filter_map(|alert| alert["labels"]["alertname"].as_str())
            .collect();
        ensure!(wanted.iter().all(|name| firing.contains(name)), "{firing:?} fire");
        Ok(())
    })
    .await;
}

/// Waits until no alert fires and none is about to.
async fn silence(prometheus: &Prometheus) {
    eventually(PATIENCE, "all alerts to be silent", async || {
        let alerts = prometheus.alerts().await?;
        ensure!(alerts.is_empty(), "{alerts:?}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_mongodb_is_told_by_what_it_does() -> Outcome {
    let mut stage = Setting::new().own_servers().with("buffer.max_events = 100\n").stage().await?;
    let (tidegate, prometheus) = watched(&stage).await?;
    stage.mongo.stop().await?;
    let wanted =
        ["TidegateMongodbUnreachable", "TidegateEventsOld", "TidegateBacklogGrows", "TidegateBufferFull"];
    // A backlog grows only while somebody produces.
    let producing = async {
        let mut producer = stage.producer().await?;
        loop {
            push(&mut producer, &stage.queue, edits(50)).await?;
            sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = fire(&prometheus, &wanted) => {}
        failed = producing => return failed,
    }
    stage.mongo.restart().await?;
    stage.settled(&tidegate).await?;
    silence(&prometheus).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_redis_leaves_the_queue_without_an_owner() -> Outcome {
    let mut stage = Setting::new().own_servers().stage().await?;
    let (tidegate, prometheus) = watched(&stage).await?;
    stage.redis.stop().await?;
    fire(&prometheus, &["TidegateRedisUnreachable", "TidegateQueueWithoutOwner"]).await;
    stage.redis.restart().await?;
    settled(&stage.redis, &stage.queue, &tidegate).await?;
    silence(&prometheus).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_events_and_foreign_clients_are_told() -> Outcome {
    let mut stage = Setting::new().own_servers().stage().await?;
    let (tidegate, prometheus) = watched(&stage).await?;
    stage.push(["no JSON at all"]).await?;
    fire(&prometheus, &["TidegateDeadLetters"]).await;

    stage.mongo.pause()?;
    let mut producer = stage.producer().await?;
    push(&mut producer, &stage.queue, edits(100)).await?;
    tidegate
        .metrics_when(PATIENCE, "the events to be read", |metrics| {
            let buffered = metrics.sum("tidegate_buffer_events", &[]);
            ensure!(buffered == 100.0, "{buffered} are buffered");
            Ok(())
        })
        .await?;
    let _: String = redis::cmd("LPOP").arg(&stage.queue).query_async(&mut producer).await?;
    stage.mongo.resume()?;
    fire(&prometheus, &["TidegateForeignPops"]).await;
    stage.settled(&tidegate).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_crashes_again_and_again_is_told_and_one_that_stays_away() -> Outcome {
    let mut stage = Setting::new().stage().await?;
    // What is scraped is known by its address, so that stays.
    let address = format!("127.0.0.1:{}", free_port()?);
    stage.launch = stage.launch.clone().env("TIDEGATE_HTTP__LISTEN", address);
    let (mut tidegate, prometheus) = watched(&stage).await?;
    for _ in 0..4 {
        let epoch = tidegate.metrics().await?.sum("tidegate_epoch", &[]);
        tidegate.kill9()?;
        tidegate = stage.start().await?;
        // Prometheus has to see each of them.
        let seen = format!("(tidegate_epoch > {epoch}) and tidegate_lease_held == 1");
        prometheus.answers(PATIENCE, &seen).await?;
    }
    fire(&prometheus, &["TidegateRestarts", "TidegateTakeovers"]).await;
    tidegate.kill9()?;
    fire(&prometheus, &["TidegateInstanceDown", "TidegateQueueWithoutOwner"]).await;
    Ok(())
}

//! Tests what `/metrics` says: everything from the first scrape on, in Prometheus' format, and true.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use serde_json::json;
use tidegate::metrics::{Metric, MetricKind};

use crate::stage::{PATIENCE, Setting, Stage, update};
use crate::support::{Metrics, Tidegate, eventually, promtool_command};

type Outcome = anyhow::Result<()>;

/// Looks at the queue's tail are made this often at least: a third of the stage's lease.
const LOOK: Duration = Duration::from_millis(334);

/// A scrape as text.
async fn scrape(tidegate: &Tidegate) -> anyhow::Result<String> {
    let (status, text) = tidegate.get("/metrics").await?;
    ensure!(status == 200, "{status} {text}");
    Ok(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_series_are_there_at_zero_before_any_server_is() -> Outcome {
    let stage = Setting::new().stage().await?;
    // Nothing can listen on port 0.
    let nowhere = stage.launch.clone().env("TIDEGATE_REDIS__URL", "redis://127.0.0.1:0/");
    let nowhere = nowhere.env("TIDEGATE_MONGODB__URI", "mongodb://127.0.0.1:1/?directConnection=true");
    let tidegate = nowhere.spawn().await?;
    let text = scrape(&tidegate).await?;
    let metrics = Metrics::parse(&text)?;
    for metric in Metric::ALL {
        let spec = metric.spec();
        let value = match spec.kind {
            MetricKind::Histogram(_) => metrics.sum(&format!("{}_count", spec.name), &[]),
            MetricKind::Counter | MetricKind::Gauge => metrics.sum(spec.name, &[]),
        };
        match metric {
            Metric::BufferMaxEvents => assert_eq!(value, 1_000_000.0),
            Metric::BufferMaxBytes => assert_eq!(value, 64.0 * 1024.0 * 1024.0),
            Metric::BuildInfo => assert_eq!(value, 1.0),
            // It may have tried already.
            Metric::Retries => {}
            _ => assert_eq!(value, 0.0, "{}", spec.name),
        }
    }
    // The same series as an instance has that works; and no event makes another.
    let at_work = stage.start().await?;
    stage
        .push((0..500).map(|n| update(&format!("doc{n}"), json!({ "$set": { format!("f{n}"): n } }))))
        .await?;
    let bad = (0..50).map(|n| match n % 3 {
        0 => format!("no JSON {n}"),
        1 => json!({ "collection": format!("other{n}"), "id": "x", "delete": true }).to_string(),
        _ => json!({ "collection": "documents", "id": { "n": n }, "delete": true }).to_string(),
    });
    stage.push(bad).await?;
    let settled = stage.settled(&at_work).await?;
    assert_eq!(settled.sum("tidegate_events_dead_lettered_total", &[]), 50.0);
    assert_eq!(settled.series(), metrics.series());
    promtool_is_content(&text)?;
    promtool_is_content(&scrape(&at_work).await?)
}

fn promtool_is_content(text: &str) -> Outcome {
    let mut check = promtool_command()?;
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.spawn()?;
    check.stdin.take().context("no standard input")?.write_all(text.as_bytes())?;
    let output = check.wait_with_output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success() && said.trim().is_empty(), "{said}");
    Ok(())
}

/// Stops MongoDB, pushes one event, and answers the moments between which it was pushed.
async fn push_to_wait(stage: &mut Stage, event: String) -> anyhow::Result<[SystemTime; 2]> {
    stage.mongo.pause()?;
    let before = SystemTime::now();
    stage.push([event]).await?;
    Ok([before, SystemTime::now()])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_without_a_time_is_as_old_as_its_place_in_the_queue_says() -> Outcome {
    let mut stage = Setting::new().own_servers().stage().await?;
    let tidegate = stage.start().await?;
    let [before, after] = push_to_wait(&mut stage, update("doc", json!({ "$set": { "a": 1 } }))).await?;
    let queue = stage.queue.clone();
    let queue = [("queue", queue.as_str())];
    // Old enough for the tolerances to mean something. Of the estimate, one look; and the gauge is as old as a look.
    let tolerance = 2 * LOOK + Duration::from_millis(200);
    eventually(PATIENCE, "the age of the event", async || {
        let least = after.elapsed()?;
        let age = tidegate.metrics().await?.sum("tidegate_queue_oldest_age_seconds", &queue);
        let most = before.elapsed()?;
        let about = least.saturating_sub(tolerance).as_secs_f64()..=(most + tolerance).as_secs_f64();
        ensure!(age > 3.0 && about.contains(&age), "{age} s, should be in {about:?}");
        anyhow::Ok(())
    })
    .await;
    let least = after.elapsed()?;
    stage.mongo.resume()?;
    let metrics = stage.settled(&tidegate).await?;
    let most = before.elapsed()?;
    let latency = metrics.sum("tidegate_persist_latency_seconds_sum", &queue);
    let about = least.saturating_sub(LOOK).as_secs_f64()..=(most + LOOK).as_secs_f64();
    assert!(about.contains(&latency), "{latency} s, should be in {about:?}");
    assert_eq!(metrics.sum("tidegate_persist_latency_seconds_count", &queue), 1.0);
    let gone = |metrics: &Metrics| {
        let age = metrics.sum("tidegate_queue_oldest_age_seconds", &queue);
        ensure!(age == 0.0, "{age} s old, and there is no event");
        Ok(())
    };
    tidegate.metrics_when(PATIENCE, "the age to be over with the event", gone).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_with_a_time_is_as_old_as_it_says() -> Outcome {
    let mut stage = Setting::new().own_servers().stage().await?;
    let tidegate = stage.start().await?;
    let made = SystemTime::now() - Duration::from_secs(1000);
    let ms = u64::try_from(made.duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?;
    let event = json!({ "collection": "documents", "id": "doc", "delete": true, "ts": ms }).to_string();
    push_to_wait(&mut stage, event).await?;
    let queue = stage.queue.clone();
    let queue = [("queue", queue.as_str())];
    let old = |metrics: &Metrics| {
        let age = metrics.sum("tidegate_queue_oldest_age_seconds", &queue);
        ensure!((1000.0..1100.0).contains(&age), "{age} s, should be 1000 s and what the test takes");
        Ok(())
    };
    tidegate.metrics_when(PATIENCE, "the age of the event", old).await?;
    let least = made.elapsed()?;
    stage.mongo.resume()?;
    let metrics = stage.settled(&tidegate).await?;
    let most = made.elapsed()? + Duration::from_millis(1);
    let latency = metrics.sum("tidegate_persist_latency_seconds_sum", &queue);
    let about = least.as_secs_f64()..=most.as_secs_f64();
    assert!(about.contains(&latency), "{latency} s, should be in {about:?}");
    let gone = |metrics: &Metrics| {
        let age = metrics.sum("tidegate_queue_oldest_age_seconds", &queue);
        ensure!(age == 0.0, "{age} s old, and there is no event");
        Ok(())
    };
    tidegate.metrics_when(PATIENCE, "the age to be over with the event", gone).await?;
    Ok(())
}

/// Waits until a scrape shows this depth, Redis up and MongoDB down.
async fn shows_the_backlog(tidegate: &Tidegate, stage: &Stage, depth: f64) -> Outcome {
    let shown = |metrics: &Metrics| {
        let up = |dependency| metrics.sum("tidegate_up", &[("dependency", dependency)]);
        let seen = metrics.sum("tidegate_queue_depth", &[("queue", &stage.queue)]);
        ensure!(
            (up("redis"), up("mongodb"), seen) == (1.0, 0.0, depth),
            "redis {}, mongodb {}, depth {seen}",
            up("redis"),
            up("mongodb")
        );
        Ok(())
    };
    tidegate.metrics_when(PATIENCE, "Redis to be up and the depth to be right", shown).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_mongodb_the_backlog_is_seen_all_the_same() -> Outcome {
    let mut stage = Setting::new().own_servers().stage().await?;
    stage.mongo.stop().await?;
    // An instance that never reached it.
    let tidegate = stage.launch.spawn().await?;
    stage.push((0..7).map(|n| update("doc", json!({ "$set": { "n": n } })))).await?;
    shows_the_backlog(&tidegate, &stage, 7.0).await?;
    stage.mongo.restart().await?;
    stage.settled(&tidegate).await?;

    // One that would have to take the queue over.
    stage.mongo.stop().await?;
    redis::cmd("CLIENT")
        .arg("KILL")
        .arg("TYPE")
        .arg("normal")
        .exec_async(&mut stage.producer().await?)
        .await?;
    stage.push((0..3).map(|n| update("doc", json!({ "$set": { "n": n } })))).await?;
    shows_the_backlog(&tidegate, &stage, 3.0).await?;
    stage.push((0..2).map(|n| update("doc", json!({ "$set": { "n": n } })))).await?;
    shows_the_backlog(&tidegate, &stage, 5.0).await?;
    assert_eq!(tidegate.metrics().await?.sum("tidegate_lease_held", &[]), 0.0);
    stage.mongo.restart().await?;
    stage.settled(&tidegate).await?;
    Ok(())
}

/// The partitions of a pattern have one set of series together, however many they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_may_be_told_as_one() -> Outcome {
    const COUNT: usize = 12;
    let mut stage = Setting::new().stage().await?;
    let name = crate::support::unique("aggregate");
    let mut sizes = Vec::new();
    for count in [2, COUNT] {
        let pattern = format!("{name}:{{0..{}}}", count - 1);
        let queues = format!("[{{ key = \"{pattern}\", aggregate = true }}]");
        let tidegate = stage.launch.clone().env("TIDEGATE_QUEUES", queues).start().await?;
        let mut producer = stage.producer().await?;
        for partition in 0..count {
            let key = format!("{name}:{partition}");
            stage.redis.tidy(&key);
            let events = [
                update(&format!("{count}/{partition}"), json!({ "$set": { "v": 1 } })),
                "no event".to_owned(),
            ];
            crate::support::push(&mut producer, &key, events).await?;
        }
        let of = |metrics: &Metrics, metric: &str| metrics.sum(metric, &[("queue", &pattern)]);
        let all = |metrics: &Metrics| {
            let persisted = of(metrics, "tidegate_events_persisted_total");
            let dead = of(metrics, "tidegate_events_dead_lettered_total");
            ensure!((persisted, dead) == (count as f64, count as f64), "{persisted} {dead}");
            ensure!(of(metrics, "tidegate_lease_held") == count as f64, "not all are owned");
            ensure!(
                of(metrics, "tidegate_persist_latency_seconds_count") == count as f64,
                "not all have a latency"
            );
            Ok(())
        };
        tidegate.metrics_when(PATIENCE, "all partitions to be drained", all).await?;
        let text = scrape(&tidegate).await?;
        promtool_is_content(&text)?;
        ensure!(!text.contains(&format!("{name}:1\"")), "a partition has series of its own");
        sizes.push(text.lines().count());
        tidegate.terminate().await?;
    }
    ensure!(sizes[0] == sizes[1], "{sizes:?} lines");
    Ok(())
}

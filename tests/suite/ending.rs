//! Tests how the daemon ends, in order and not.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::stage::{PATIENCE, Setting, assert_exact, empty, logged, update};
use crate::support::assert_accounting;

type Outcome = anyhow::Result<()>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_flushes_what_was_read() -> Outcome {
    // Nothing would be flushed by itself for a minute.
    let stage = Setting::new().with("batch.max_delay = \"60s\"\n").stage().await?;
    let tidegate = stage.start().await?;
    stage.push((0..5000).map(|n| logged(&format!("doc{}", n % 10), n / 10))).await?;
    tidegate
        .metrics_when(PATIENCE, "all events to be read", |metrics| {
            anyhow::ensure!(metrics.sum("tidegate_buffer_events", &[]) == 5000.0);
            Ok(())
        })
        .await?;
    let exited = tidegate.terminate().await?;
    assert!(exited.status.success(), "{:#?}", exited.lines);
    for id in 0..10 {
        assert_exact(stage.document(format!("doc{id}")).await?.as_ref(), 500);
    }
    empty(&stage.redis, &stage.queue).await?;
    // The next instance need not wait for the lease to run out.
    let owner = format!("tidegate:{{{}}}:owner", stage.queue);
    let owned: bool = redis::AsyncCommands::exists(&mut stage.producer().await?, owner).await?;
    assert!(!owned, "the queue was not given up");

    // Nothing is left for the next instance to settle again.
    let tidegate = stage.start().await?;
    stage.push((0..10).map(|n| logged(&format!("doc{n}"), 500))).await?;
    tidegate
        .metrics_when(PATIENCE, "the new events to be read", |metrics| {
            anyhow::ensure!(metrics.sum("tidegate_events_received_total", &[]) == 10.0);
            Ok(())
        })
        .await?;
    let metrics = tidegate.metrics().await?;
    assert_eq!(metrics.sum("tidegate_events_deduplicated_total", &[]), 0.0);
    tidegate.kill9()?;
    let tidegate = stage.launch.clone().arg("--set").arg("batch.max_delay=10ms").start().await?;
    stage.settled(&tidegate).await?;
    for id in 0..10 {
        assert_exact(stage.document(format!("doc{id}")).await?.as_ref(), 501);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigkill_and_restart_lose_and_double_nothing() -> Outcome {
    let stage = Setting::new().stage().await?;
    let mut pushed = 0;
    for round in 0..6 {
        let tidegate = stage.start().await?;
        let events = (pushed..pushed + 4000).map(|n| logged(&format!("doc{}", n % 20), n / 20));
        stage.push(events).await?;
        pushed += 4000;
        // Killed at another point of its work each time.
        let enough = f64::from(500 * round);
        tidegate
            .metrics_when(PATIENCE, "some events to be persisted", |metrics| {
                let persisted = metrics.sum("tidegate_events_persisted_total", &[]);
                anyhow::ensure!(persisted >= enough, "{persisted} of {enough}");
                Ok(())
            })
            .await?;
        tidegate.kill9()?;
    }
    let tidegate = stage.start().await?;
    stage.settled(&tidegate).await?;
    for id in 0..20 {
        assert_exact(stage.document(format!("doc{id}")).await?.as_ref(), pushed / 20);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_behind_a_dead_letter_keeps_it() -> Outcome {
    let stage = Setting::new().with("batch.max_delay = \"20ms\"\n").stage().await?;
    let bad = update("doc", json!({"$inc": {"log": 1}}));
    let mut letters = 0;
    let mut pushed = 0;
    for _ in 0..8 {
        let tidegate = stage.start().await?;
        let mut events = Vec::new();
        for _ in 0..40 {
            events.extend([logged("doc", pushed), bad.clone()]);
            pushed += 1;
            letters += 1;
        }
        stage.push(events).await?;
        tidegate
            .metrics_when(PATIENCE, "a dead letter", |metrics| {
                anyhow::ensure!(metrics.sum("tidegate_events_dead_lettered_total", &[]) > 3.0);
                Ok(())
            })
            .await?;
        tidegate.kill9()?;
    }
    let tidegate = stage.start().await?;
    stage.settled(&tidegate).await?;
    assert_exact(stage.document("doc").await?.as_ref(), pushed);
    assert_eq!(stage.dead_letters().await?.len(), letters);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() -> Outcome {
    let mut stage = Setting::new().own_servers().with("batch.max_delay = \"60s\"\n").stage().await?;
    let mut tidegate = stage.start().await?;
    stage.push([logged("doc", 0)]).await?;
    tidegate
        .metrics_when(PATIENCE, "the event to be read", |metrics| {
            anyhow::ensure!(metrics.sum("tidegate_buffer_events", &[]) == 1.0);
            Ok(())
        })
        .await?;
    stage.mongo.pause()?;
    tidegate.signal(Signal::SIGTERM)?;
    tidegate.logged("flushing", PATIENCE).await?;
    tidegate.signal(Signal::SIGTERM)?;
    let exited = tidegate.exited(PATIENCE).await?;
    assert!(!exited.status.success());
    stage.mongo.resume()?;
    let tidegate = stage.start().await?;
    // The interrupted instance kept its lease until that ran out; waiting for the batch would take a minute.
    let exited = async {
        tidegate
            .metrics_when(PATIENCE, "the event to be read again", |metrics| {
                anyhow::ensure!(metrics.sum("tidegate_events_received_total", &[]) == 1.0);
                Ok(())
            })
            .await?;
        tidegate.terminate().await
    };
    assert!(exited.await?.status.success());
    assert_exact(stage.document("doc").await?.as_ref(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_flushed_in_time_stays_in_redis() -> Outcome {
    let mut stage = Setting::new().own_servers().with("shutdown.deadline = \"1s\"\n").stage().await?;
    let tidegate = stage.start().await?;
    stage.mongo.pause()?;
    stage.push((0..100).map(|n| logged("doc", n))).await?;
    tidegate
        .metrics_when(PATIENCE, "the events to be read", |metrics| {
            anyhow::ensure!(metrics.sum("tidegate_buffer_events", &[]) == 100.0);
            Ok(())
        })
        .await?;
    let exited = tidegate.terminate().await?;
    assert!(!exited.status.success());
    assert!(
        exited.lines.iter().any(|line| line.contains("100 events could not be flushed")),
        "{:#?}",
        exited.lines
    );
    stage.mongo.resume()?;
    let tidegate = stage.start().await?;
    let metrics = stage.settled(&tidegate).await?;
    assert_accounting(&metrics, &stage.queue);
    assert_exact(stage.document("doc").await?.as_ref(), 100);
    Ok(())
}

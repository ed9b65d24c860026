//! Tests `batch.max_writes_per_second`: no more is written, what waits folds, and the page says why.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::stage::{PATIENCE, Setting, assert_exact, logged};
use crate::support::{documents, try_eventually};

type Outcome = anyhow::Result<()>;

const LIMIT: usize = 30;
const DOCUMENTS: usize = 60;
/// So soon, what was not used may be written at once.
const BURST: Duration = Duration::from_millis(100);

/// Events come faster than may be written, for two queues together. `settings` is the kind of the first.
async fn holds(setting: Setting) -> Outcome {
    const ROUNDS: usize = 20;
    let other = format!("other_{}", std::process::id());
    let limit = format!("batch.max_writes_per_second = {LIMIT}\n");
    let stage = setting.another_queue(&other).with(&limit).stage().await?;
    let tidegate = stage.start().await?;
    let begun = Instant::now();
    for round in 0..ROUNDS {
        stage.push((0..DOCUMENTS).map(|n| logged(&format!("doc{n}"), round))).await?;
    }
    let metrics = stage.settled(&tidegate).await?;
    let (writes, took) = (metrics.sum("tidegate_writes_total", &[]), begun.elapsed());
    let most = LIMIT as f64 * (took + BURST).as_secs_f64() + 1.0;
    println!("{} events, {writes} writes in {took:?}, at most {most:.0}", ROUNDS * DOCUMENTS);
    assert!(writes <= most, "{writes} writes in {took:?}");
    // All that came while its document waited is in one write of it.
    assert!(writes <= 3.0 * DOCUMENTS as f64, "{writes} writes");
    let found = documents(&stage.database, "documents").await?;
    assert_eq!(found.len(), DOCUMENTS);
    found.values().for_each(|document| assert_exact(Some(document), ROUNDS));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_written_within_the_bound() -> Outcome {
    holds(Setting::new()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_written_within_the_bound() -> Outcome {
    holds(Setting::new().stream("")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_popped_is_written_within_the_bound() -> Outcome {
    holds(Setting::new().delivery("at-most-once")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_it_says_so_until_there_is_no_bound() -> Outcome {
    let stage = Setting::new().stage().await?;
    let mut tidegate = stage.start().await?;
    tidegate.reconfigure("batch.max_writes_per_second = 1")?;
    tidegate.logged("configuration re-read: batch.max_writes_per_second", PATIENCE).await?;
    stage.push((0..1_000).map(|n| logged(&format!("doc{n}"), 0))).await?;
    try_eventually(PATIENCE, "the reason", async || {
        let (_, status) = tidegate.get_json("/status").await?;
        let advice = status["summary"]["advice"].as_str().unwrap_or_default();
        ensure!(advice.contains("batch.max_writes_per_second holds writes back"), "{}", status["summary"]);
        let lanes = status["queues"][0]["lanes"].as_array().map_or(&[][..], Vec::as_slice);
        ensure!(lanes.iter().any(|lane| lane["doing"] == "limited"), "{lanes:?}");
        anyhow::Ok(())
    })
    .await?;
    // A thousand seconds would be too long.
    tidegate.reconfigure("")?;
    stage.settled(&tidegate).await?;
    assert_eq!(documents(&stage.database, "documents").await?.len(), 1_000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_popped_does_not_wait_at_the_end() -> Outcome {
    let setting = Setting::new().delivery("at-most-once").with("batch.max_writes_per_second = 1\n");
    let stage = setting.stage().await?;
    let tidegate = stage.start().await?;
    stage.push((0..200).map(|n| logged(&format!("doc{n}"), 0))).await?;
    tidegate
        .metrics_when(PATIENCE, "all to be read", |metrics| {
            let read = metrics.sum("tidegate_events_received_total", &[]);
            ensure!(read >= 200.0, "{read} are read");
            Ok(())
        })
        .await?;
    assert!(tidegate.terminate().await?.status.success());
    assert_eq!(documents(&stage.database, "documents").await?.len(), 200);
    Ok(())
}

//! Tests how often tidegate asks Redis where little happens, or nothing.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, sleep};

use crate::stage::{PATIENCE, Setting, Stage, assert_exact, logged};
use crate::support::try_eventually;

type Outcome = anyhow::Result<()>;

/// How often Redis did each command.
async fn calls(stage: &Stage) -> anyhow::Result<HashMap<String, f64>> {
    let mut connection = stage.producer().await?;
    let info: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await?;
    let calls = info.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    });
    Ok(calls.collect())
}

/// How often Redis did a command between two moments.
fn between(before: &HashMap<String, f64>, after: &HashMap<String, f64>, command: &str) -> f64 {
    let calls = |at: &HashMap<String, f64>| at.get(command).copied().unwrap_or_default();
    calls(after) - calls(before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trickle_is_read_and_committed_a_few_times_a_second() -> Outcome {
    let stage = Setting::new().own_fast_servers().stage().await?;
    let daemon = stage.start().await?;
    stage.push([logged("doc", 0)]).await?;
    stage.settled(&daemon).await?;
    let (before, began) = (calls(&stage).await?, Instant::now());
    for n in 1..600 {
        stage.push([logged("doc", n)]).await?;
        sleep(Duration::from_millis(2)).await;
    }
    stage.settled(&daemon).await?;
    let (after, took) = (calls(&stage).await?, began.elapsed().as_secs_f64());
    // Twice where an event comes between two commands of one look.
    let most = 5.0 + took / 0.048 * 2.0;
    for command in ["lrange", "ltrim"] {
        let count = between(&before, &after, command);
        ensure!(count <= most, "{command}: {count} times in {took} s");
    }
    assert_exact(stage.document("doc").await?.as_ref(), 600);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_queue_is_looked_at_once_a_second() -> Outcome {
    let stage = Setting::new().own_fast_servers().stage().await?;
    let daemon = stage.launch.clone().env("TIDEGATE_LEASE__TTL", "10s").start().await?;
    stage.push([logged("doc", 0)]).await?;
    stage.settled(&daemon).await?;
    let (before, began) = (calls(&stage).await?, Instant::now());
    // Each heartbeat has one.
    let after = try_eventually(PATIENCE, "twelve heartbeats", async || {
        let after = calls(&stage).await?;
        let beats = between(&before, &after, "zadd");
        ensure!(beats >= 12.0, "{beats} heartbeats");
        Ok(after)
    });
    let after = after.await?;
    let seconds = began.elapsed().as_secs_f64();
    let beats = between(&before, &after, "zadd");
    ensure!(beats <= 2.0 + 4.0 * seconds, "{beats} heartbeats in {seconds} s");
    let looks = between(&before, &after, "evalsha") - beats;
    // What waits on Redis looks around now and then.
    ensure!(looks <= 4.0 + seconds * 1.5, "{looks} other scripts in {seconds} s");
    Ok(())
}

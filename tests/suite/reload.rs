//! Tests SIGHUP: the configuration is read again, and what can change does while events flow.

use anyhow::{Context, ensure};
use serde_json::json;

use crate::stage::{PATIENCE, Setting, Stage, number, update};
use crate::support::{Metrics, Tidegate, document, eventually, try_eventually};

type Outcome = anyhow::Result<()>;

/// An event that is refused.
const BAD: &str = "no JSON";

fn lines_with(tidegate: &Tidegate, text: &str) -> usize {
    tidegate.log().iter().filter(|line| line.contains(text)).count()
}

/// Waits until the log has so many lines with `text`.
async fn logged(tidegate: &Tidegate, text: &str, times: usize) {
    eventually(PATIENCE, &format!("{times} lines with {text:?}"), async || {
        let found = lines_with(tidegate, text);
        ensure!(found >= times, "{found} in {:#?}", tidegate.log());
        anyhow::Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_level_changes_and_info_has_no_line_for_an_event() -> Outcome {
    let stage = Setting::new().stage().await?;
    let tidegate = stage.start().await?;
    stage.push([BAD]).await?;
    stage.settled(&tidegate).await?;
    let before = tidegate.log().len();
    stage.push((0..500).map(|n| update(&format!("doc{}", n % 7), json!({ "$set": { "n": n } })))).await?;
    stage.push([BAD; 50]).await?;
    stage.settled(&tidegate).await?;
    assert_eq!(tidegate.log().len(), before, "{:#?}", tidegate.log());

    tidegate.reconfigure("log.level = \"debug\"")?;
    logged(&tidegate, "configuration re-read: log.level", 1).await;
    stage.push([BAD]).await?;
    logged(&tidegate, "dead letter", 1).await;

    // The line that says so is the last one heard.
    tidegate.reconfigure("log.level = \"warn\"")?;
    logged(&tidegate, "configuration re-read: log.level", 2).await;
    let dead = stage.dead_letters().await?.len();
    stage.push([BAD]).await?;
    stage.settled(&tidegate).await?;
    eventually(PATIENCE, "the dead letter", async || {
        ensure!(stage.dead_letters().await?.len() > dead);
        anyhow::Ok(())
    })
    .await;
    assert_eq!(lines_with(&tidegate, "dead letter"), 1, "{:#?}", tidegate.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rust_log_wins_and_the_log_says_so() -> Outcome {
    let mut stage = Setting::new().stage().await?;
    stage.launch = stage.launch.env("RUST_LOG", "info");
    let tidegate = stage.start().await?;
    tidegate.reconfigure("log.level = \"debug\"")?;
    logged(&tidegate, "configuration re-read: log.level (RUST_LOG wins)", 1).await;
    stage.push([BAD]).await?;
    stage.settled(&tidegate).await?;
    assert_eq!(lines_with(&tidegate, "DEBUG"), 0, "{:#?}", tidegate.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_of_batches_and_memory_change_at_once() -> Outcome {
    let stage = Setting::new().stage().await?;
    let tidegate = stage.start().await?;
    let patient = |events: u64| format!("batch.max_delay = \"1h\"\nbuffer.max_events = {events}");
    tidegate.reconfigure(&patient(10))?;
    logged(&tidegate, "configuration re-read: batch.max_delay, buffer.max_events", 1).await;
    let held = async |events: f64| {
        let full = |metrics: &Metrics| {
            let (max, held) =
                (metrics.sum("tidegate_buffer_max_events", &[]), metrics.sum("tidegate_buffer_events", &[]));
            // Windows that are fetched and not yet decoded come on top.
            ensure!(max == events && held >= events && held < 2000.0, "{held} of {max}");
            Ok(())
        };
        tidegate.metrics_when(PATIENCE, &format!("{events} events to be held"), full).await
    };
    // One document: a batch is due by its delay alone.
    stage.push((0..2000).map(|n| update("doc", json!({ "$push": { "log": n } })))).await?;
    held(10.0).await?;
    assert_eq!(stage.document("doc").await?, None);
    // Readers that wait for room go on.
    tidegate.reconfigure(&patient(300))?;
    held(300.0).await?;
    assert_eq!(stage.document("doc").await?, None);
    // A lane that waits for the delay looks again.
    tidegate.reconfigure("batch.max_delay = \"10ms\"\nbuffer.max_events = 300")?;
    stage.settled(&tidegate).await?;
    let log = stage.document("doc").await?.context("no document")?.get_array("log")?.len();
    assert_eq!(log, 2000);
    let (_, status) = tidegate.get_json("/status").await?;
    assert_eq!(status["config"]["batch"]["max_delay"], "10ms");
    // No queue had to be taken over for that.
    let takeovers = tidegate.metrics().await?.sum("tidegate_takeovers_total", &[]);
    assert_eq!(takeovers, 1.0);
    Ok(())
}

/// Routes by which event `n` is appended to the log of the one document of a collection.
fn routes(collection: &str) -> String {
    format!(
        "routes = [{{ collection = \"{collection}\", id = \"doc\", push = {{ log = \"n\" }}, inc = {{ count = 1 }} }}]"
    )
}

/// What the document in `collection` has in its log.
async fn log_in(stage: &Stage, collection: &str) -> anyhow::Result<Vec<i64>> {
    let Some(document) = document(&stage.database, collection, "d").await? else { return Ok(Vec::new()) };
    let log: Vec<i64> = document.get_array("log")?.iter().map(number).collect();
    ensure!(number(document.get("count").context("no count")?) == log.len() as i64, "the counter is off");
    Ok(log)
}

/// Switches between two collections while events come in. Every event must be in exactly one of them, in order.
/// Where `cut`, every switch is met by lost connections to Redis, which are the stage's own.
async fn switch_routes_under_load(setting: Setting, cut: bool) -> Outcome {
    const SWITCHES: usize = 8;
    let stage = setting.with("batch.max_ops = 5\n").stage().await?;
    let tidegate = stage.start().await?;
    tidegate.reconfigure(&routes("before"))?;
    logged(&tidegate, "flushing, to go on with the new routes", 1).await;

    let mut pushed = 0;
    let mut more = async |n: i64| -> anyhow::Result<i64> {
        stage.push((pushed..pushed + n).map(|n| json!({ "doc": "d", "n": n }).to_string())).await?;
        pushed += n;
        Ok(pushed)
    };
    for switch in 0..SWITCHES {
        let told = lines_with(&tidegate, "configuration re-read: routes");
        // The first of them go to a collection that nobody has named so far.
        let now = if switch % 2 == 0 { "after" } else { "before" };
        tidegate.reconfigure(&routes(now))?;
        let mut is_cut_off = !cut;
        while lines_with(&tidegate, "configuration re-read: routes") == told || !is_cut_off {
            more(100).await?;
            if cut {
                let mut killer = stage.producer().await?;
                let killed: i64 = redis::cmd("CLIENT")
                    .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
                    .query_async(&mut killer)
                    .await?;
                is_cut_off |= killed > 0;
            }
        }
        // Some go through between two switches, and some are under way at each.
        let first_of_now = more(0).await?;
        try_eventually(PATIENCE, "events to go where the new routes say", async || {
            more(50).await?;
            let last = log_in(&stage, now).await?.last().copied();
            ensure!(last >= Some(first_of_now), "{last:?}");
            anyhow::Ok(())
        })
        .await?;
        more(200).await?;
    }
    let pushed = more(0).await?;
    let metrics = stage.settled(&tidegate).await?;
    let (before, after) = (log_in(&stage, "before").await?, log_in(&stage, "after").await?);
    println!("{} events before, {} after, {} log lines", before.len(), after.len(), tidegate.log().len());
    for log in [&before, &after] {
        assert!(!log.is_empty() && log.is_sorted_by(|a, b| a < b), "out of order or doubled");
    }
    let mut all = [before, after.clone()].concat();
    all.sort_unstable();
    assert_eq!(all, (0..pushed).collect::<Vec<_>>());
    assert_eq!(stage.dead_letters().await?, [json!(null); 0]);
    let counted = metrics.sum("tidegate_events_persisted_total", &[("collection", "after")]);
    assert!(counted > 0.0 && counted <= after.len() as f64, "{counted} of {}", after.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_routes_under_load_lose_and_double_nothing() -> Outcome {
    switch_routes_under_load(Setting::new(), false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_routes_for_a_stream_lose_and_double_nothing() -> Outcome {
    switch_routes_under_load(Setting::new().stream(""), false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_routes_while_connections_are_lost_lose_and_double_nothing() -> Outcome {
    switch_routes_under_load(Setting::new().own_servers(), true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_routes_for_a_stream_while_connections_are_lost_lose_and_double_nothing() -> Outcome {
    switch_routes_under_load(Setting::new().own_servers().stream(""), true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_retried_keep_their_meaning() -> Outcome {
    let mut stage = Setting::new().own_servers().stage().await?;
    let tidegate = stage.start().await?;
    tidegate.reconfigure(&routes("before"))?;
    logged(&tidegate, "flushing, to go on with the new routes", 1).await;
    let again = |metrics: &Metrics| {
        ensure!(metrics.sum("tidegate_takeovers_total", &[]) == 2.0, "not taken over again");
        Ok(())
    };
    tidegate.metrics_when(PATIENCE, "the queue to be owned again", again).await?;
    // Read under the old routes, and unsettled when the new ones come.
    stage.mongo.pause()?;
    stage.push((0..300).map(|n| json!({ "doc": "d", "n": n }).to_string())).await?;
    let read = |metrics: &Metrics| {
        ensure!(metrics.sum("tidegate_buffer_events", &[]) == 300.0, "not all are read");
        Ok(())
    };
    tidegate.metrics_when(PATIENCE, "all to be read", read).await?;
    tidegate.reconfigure(&routes("after"))?;
    logged(&tidegate, "flushing, to go on with the new routes", 2).await;
    // The ownership under which they were read ends before they are settled.
    let mut killer = stage.producer().await?;
    let _: i64 = redis::cmd("CLIENT")
        .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
        .query_async(&mut killer)
        .await?;
    stage.push((300..400).map(|n| json!({ "doc": "d", "n": n }).to_string())).await?;
    stage.mongo.resume()?;
    stage.settled(&tidegate).await?;
    assert_eq!(log_in(&stage, "before").await?, (0..300).collect::<Vec<_>>());
    assert_eq!(log_in(&stage, "after").await?, (300..400).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_configuration_changes_nothing_and_every_problem_is_told() -> Outcome {
    let stage = Setting::new().stage().await?;
    let tidegate = stage.start().await?;
    let (_, before) = tidegate.get_json("/status").await?;
    tidegate.reconfigure("log.level = \"debug\"\nbatch.max_ops = 0\nbatch.max_dely = \"1s\"")?;
    let prefix = "the configuration stays as it is; the new one is wrong: ";
    logged(&tidegate, prefix, 1).await;
    logged(&tidegate, "did you mean `batch.max_delay`?", 1).await;
    tidegate.reconfigure("batch.max_ops = 0\nlanes.count = 1000")?;
    logged(&tidegate, "`batch.max_ops`: must be from 1 to 100000, is 0", 1).await;
    logged(&tidegate, "`lanes.count`: must be", 1).await;
    tidegate.reconfigure("batch.max_ops = = 1")?;
    logged(&tidegate, "config.toml:1:17: ", 1).await;
    let (_, after) = tidegate.get_json("/status").await?;
    assert_eq!(after["config"], before["config"]);
    stage.push([BAD, &update("doc", json!({ "$set": { "n": 1 } }))]).await?;
    stage.settled(&tidegate).await?;
    assert!(stage.document("doc").await?.is_some());
    assert_eq!(lines_with(&tidegate, "DEBUG"), 0, "{:#?}", tidegate.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_a_restart_is_named_and_stays() -> Outcome {
    let mut stage = Setting::new().stage().await?;
    let folder = tempfile::tempdir()?;
    let url = folder.path().join("url");
    std::fs::write(&url, stage.redis.url())?;
    stage.launch = stage.launch.env("TIDEGATE_REDIS__URL_FILE", url.to_string_lossy());
    let tidegate = stage.start().await?;
    std::fs::write(&url, "redis://:hunter2@127.0.0.1:1")?;
    tidegate.reconfigure("batch.max_ops = 7\nlanes.count = 2")?;
    let line = "WARN configuration re-read: batch.max_ops; needs a restart: lanes.count, redis.url";
    logged(&tidegate, line, 1).await;
    stage.push([update("doc", json!({ "$set": { "n": 1 } }))]).await?;
    stage.settled(&tidegate).await?;
    assert!(stage.document("doc").await?.is_some());
    let (_, status) = tidegate.get_json("/status").await?;
    assert_eq!(
        (&status["config"]["batch"]["max_ops"], &status["config"]["lanes"]["count"]),
        (&json!(7), &json!(4))
    );
    let told = format!("{:?}{status}", tidegate.log());
    assert!(!told.contains("hunter2"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tombstones_do_not_begin_without_a_restart() -> Outcome {
    let stage = Setting::new().stage().await?;
    let tidegate = stage.start().await?;
    let route =
        "routes = [{ collection = \"archive\", id = \"gone\", delete = true, deletes = \"tombstone\" }]";
    tidegate.reconfigure(route)?;
    let line =
        "nothing changed; needs a restart: routes (deletes = \"tombstone\" begins or ends for \"archive\")";
    logged(&tidegate, line, 1).await;
    stage.push([json!({ "gone": "d" }).to_string()]).await?;
    stage.settled(&tidegate).await?;
    eventually(PATIENCE, "a dead letter", async || {
        let letters = stage.dead_letters().await?;
        ensure!(letters.len() == 1 && letters[0]["class"] == "bad-event", "{letters:?}");
        anyhow::Ok(())
    })
    .await;
    Ok(())
}

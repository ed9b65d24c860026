//! Tests that dead letters in Redis are bounded: the oldest go to MongoDB, where `tidegate dead` finds them, each once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bson::{Document, doc};
use redis::AsyncCommands;
use serde_json::{Value, json};

use crate::dead_command::{dead, done, elements, letter};
use crate::stage::{PATIENCE, Setting, Stage, update};
use crate::support::{Process, push, tidegate_command, try_eventually};

type Outcome = anyhow::Result<()>;

/// Letters of native events for documents of their own, as the daemon would have made them.
async fn bury(stage: &Stage, letters: usize) -> Outcome {
    let letters = (0..letters).map(|n| letter(&stage.queue, n, &event(n)));
    push(&mut stage.producer().await?, &list(stage), letters).await
}

fn list(stage: &Stage) -> String {
    format!("{}:dead", stage.queue)
}

fn event(n: usize) -> String {
    update(&n.to_string(), json!({"$set": {"n": n}}))
}

async fn kept(stage: &Stage) -> anyhow::Result<u64> {
    let there = doc! {"letter": {"$exists": true}};
    Ok(stage.database.collection::<Document>("tidegate_dead").count_documents(there).await?)
}

async fn until_moved(stage: &Stage, stay: usize, all: usize) -> Outcome {
    let mut redis = stage.producer().await?;
    let moving = format!("tidegate:{{{}}}:dead-moving", stage.queue);
    try_eventually(PATIENCE, "the oldest to be moved", async || {
        let left: usize = redis.llen(list(stage)).await?;
        let on_their_way: usize = redis.llen(&moving).await?;
        ensure!(left <= stay && on_their_way == 0, "{left} are left, {on_their_way} on their way");
        ensure!(kept(stage).await? == (all - left) as u64);
        anyhow::Ok(())
    })
    .await
}

/// The events of all letters, wherever they are; none is there twice.
async fn exported(stage: &Stage) -> anyhow::Result<BTreeSet<String>> {
    let text = done(stage, &["export"]).await?;
    let mut events = BTreeSet::new();
    for line in text.lines() {
        let letter: Value = serde_json::from_str(line)?;
        ensure!(events.insert(letter["offset"].to_string()), "twice: {line}");
    }
    Ok(events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_go_to_mongodb_and_come_back() -> Outcome {
    const LETTERS: usize = 3_500;
    let stage = Setting::new().with("dead_letter.max_events = 500\n").stage().await?;
    bury(&stage, LETTERS).await?;
    let tidegate = stage.start().await?;
    until_moved(&stage, 500, LETTERS).await?;
    assert_eq!(kept(&stage).await?, 3_000);
    tidegate.terminate().await?;

    assert_eq!(exported(&stage).await?.len(), LETTERS);
    let listed = done(&stage, &["list", "--limit", "2", "--json"]).await?;
    assert!(listed.starts_with("{\"queue\":") || listed.contains("\"offset\":0,"), "{listed}");
    assert!(done(&stage, &["show", "17", "--event"]).await?.contains("\"17\""));
    done(&stage, &["drop", "17"]).await?;
    let (told, code) = dead(&stage, &["show", "17"]).await?;
    assert!(code == 1, "{told}");
    done(&stage, &["replay", "--yes"]).await?;
    let queue = elements(&stage, &stage.queue).await?;
    let wanted: Vec<String> = (0..LETTERS).filter(|n| *n != 17).map(event).collect();
    assert_eq!(queue, wanted, "in the order of their offsets");
    assert_eq!((kept(&stage).await?, elements(&stage, &list(&stage)).await?.len()), (0, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_killed_while_it_moves_them_loses_none() -> Outcome {
    const LETTERS: usize = 20_000;
    let stage = Setting::new().with("dead_letter.max_events = 100\n").stage().await?;
    bury(&stage, LETTERS).await?;
    let mut redis = stage.producer().await?;
    let mut kills = 0;
    loop {
        let left: usize = redis.llen(list(&stage)).await?;
        let tidegate = stage.launch.spawn().await?;
        let goal = left.saturating_sub(LETTERS / 6);
        if goal <= 100 {
            until_moved(&stage, 100, LETTERS).await?;
            tidegate.terminate().await?;
            break;
        }
        try_eventually(PATIENCE, "some to be moved", async || {
            let now: usize = redis.clone().llen(list(&stage)).await?;
            ensure!(now <= goal, "{now} are left");
            anyhow::Ok(())
        })
        .await?;
        tidegate.kill9()?;
        kills += 1;
        assert_eq!(exported(&stage).await?.len(), LETTERS, "after {kills} kills");
    }
    assert!(kills >= 3, "{kills} kills");
    assert_eq!(exported(&stage).await?.len(), LETTERS);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_out_of_mongodb_that_is_killed_repeats_nothing() -> Outcome {
    const LETTERS: usize = 6_000;
    let stage = Setting::new().with("dead_letter.max_events = 1000\n").stage().await?;
    bury(&stage, LETTERS).await?;
    let tidegate = stage.start().await?;
    until_moved(&stage, 1_000, LETTERS).await?;
    tidegate.terminate().await?;
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("config.toml");
    std::fs::write(
        &config,
        format!("native.collections = [\"documents\"]\n[[queues]]\nkey = \"{}\"\n", stage.queue),
    )?;
    let mut redis = stage.producer().await?;
    let mut kills = 0;
    loop {
        let before: usize = redis.llen(&stage.queue).await?;
        let mut command = tidegate_command()?;
        command.args(["dead", "replay", "--yes", "--config"]).arg(&config);
        command.env("TIDEGATE_REDIS__URL", stage.redis.url()).env("TIDEGATE_MONGODB__URI", stage.mongo.uri());
        command.env("TIDEGATE_MONGODB__DATABASE", stage.database.name());
        let mut process = Process::spawn("tidegate dead", command)?;
        let goal = before + LETTERS / 5;
        if goal >= LETTERS {
            assert!(process.wait(PATIENCE).await?.success(), "{:?}", process.lines());
            break;
        }
        try_eventually(PATIENCE, "some to be replayed", async || {
            let now: usize = redis.clone().llen(&stage.queue).await?;
            ensure!(now >= goal, "{now} are back");
            anyhow::Ok(())
        })
        .await?;
        process.kill()?;
        kills += 1;
    }
    assert!(kills >= 3, "{kills} kills");
    let queue = elements(&stage, &stage.queue).await?;
    assert_eq!(queue.len(), LETTERS);
    assert_eq!(queue.into_iter().collect::<BTreeSet<_>>(), (0..LETTERS).map(event).collect());
    assert_eq!(kept(&stage).await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_ones_are_dropped_only_where_that_is_asked_for() -> Outcome {
    let stage = Setting::new().stage().await?;
    bury(&stage, 1_200).await?;
    let tidegate = stage.start().await?;
    stage.push(["{"]).await?;
    stage.settled(&tidegate).await?;
    tidegate.terminate().await?;
    assert_eq!(stage.dead_letters().await?.len(), 1_201);
    let launch = stage.launch.clone().env("TIDEGATE_DEAD_LETTER__MAX_AGE", "1h");
    let mut tidegate = stage.start_as(&launch).await?;
    tidegate.logged("dead letters older than dead_letter.max_age were dropped", PATIENCE).await?;
    let left = stage.dead_letters().await?;
    assert_eq!((left.len(), &left[0]["event_base64"]), (1, &json!("ew==")));
    Ok(())
}

/// Bad events, as fast as they can be pushed, into a Redis that has little memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_leaves_producers_room() -> Outcome {
    /// As letters, they would take half as much again as there is memory.
    const FLOOD: usize = 120_000;
    let stage = Setting::new().own_fast_servers().with("dead_letter.max_events = 2000\n").stage().await?;
    let mut redis = stage.producer().await?;
    let () = redis::cmd("CONFIG").arg(&["SET", "maxmemory", "48mb"]).query_async(&mut redis).await?;
    let tidegate = stage.start().await?;
    let event = format!("{{\"collection\":\"nowhere\",\"text\":\"{}\"}}", "x".repeat(400));
    let begun = Instant::now();
    for _ in 0..FLOOD / 500 {
        if let Err(error) = push(&mut redis, &stage.queue, (0..500).map(|_| &event)).await {
            let letters: usize = redis.llen(list(&stage)).await?;
            let buried: usize = redis.hlen(format!("tidegate:{{{}}}:dead", stage.queue)).await?;
            return Err(error.context(format!(
                "a producer was refused; {letters} letters, {buried} buried, {} kept",
                kept(&stage).await?
            )));
        }
        while redis.llen::<_, usize>(&stage.queue).await? > 20_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    stage.settled(&tidegate).await?;
    println!("{FLOOD} bad events in {:?}", begun.elapsed());
    until_moved(&stage, 2_000, FLOOD).await?;
    Ok(())
}

//! Tests servers that are away for a while.

use std::time::{Duration, Instant};

use anyhow::ensure;
use bson::{Document, doc};
use serde_json::json;

use crate::stage::{PATIENCE, Setting, assert_exact, logged, update};
use crate::support::{Metrics, push};

type Outcome = anyhow::Result<()>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mongodb_away_for_twenty_seconds() -> Outcome {
    let mut stage = Setting::new()
        .own_servers()
        .with("buffer.max_events = 20000\nbuffer.max_bytes = \"8MiB\"\n")
        .stage()
        .await?;
    let mut tidegate = stage.start().await?;
    stage.push((0..1000).map(|n| logged("doc0", n))).await?;
    stage.settled(&tidegate).await?;

    stage.mongo.kill()?;
    tidegate.readiness(503, PATIENCE).await?;
    let before = tidegate.resident_bytes()?;
    let mut next = [1000, 0, 0, 0, 0];
    let began = tokio::time::Instant::now();
    let mut pause = tokio::time::interval(Duration::from_millis(500));
    // Producers do not notice: they push three times what the buffer holds.
    while began.elapsed() < Duration::from_secs(20) {
        pause.tick().await;
        let mut events = Vec::new();
        for _ in 0..300 {
            for (doc, n) in next.iter_mut().enumerate() {
                events.push(logged(&format!("doc{doc}"), *n));
                *n += 1;
            }
        }
        stage.push(events).await?;
        let (status, _) = tidegate.get("/readyz").await?;
        assert_eq!(status, 503);
    }
    let metrics = tidegate.metrics().await?;
    let buffered = metrics.sum("tidegate_buffer_events", &[]);
    assert!((1.0..=22_000.0).contains(&buffered), "{buffered} events are buffered");
    let grown = tidegate.resident_bytes()?.saturating_sub(before);
    assert!(grown < 64 << 20, "memory grew by {grown} bytes");

    stage.mongo.restart().await?;
    tidegate.readiness(200, PATIENCE).await?;
    stage.settled(&tidegate).await?;
    for (doc, n) in next.into_iter().enumerate() {
        assert_exact(stage.document(format!("doc{doc}")).await?.as_ref(), n);
    }
    let log = tidegate.log();
    let lines = |text: &str| log.iter().filter(|line| line.contains(text)).count();
    assert_eq!((lines("mongodb is down"), lines("mongodb is back after")), (1, 1), "{log:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_restarted_under_load() -> Outcome {
    let mut stage = Setting::new().own_servers().stage().await?;
    let mut tidegate = stage.start().await?;
    let mut pushed = 0;
    for _ in 0..3 {
        let mut producer = stage.redis.connect().await?;
        let events = (pushed..pushed + 6000).map(|n| logged(&format!("doc{}", n % 20), n / 20));
        push(&mut producer, &stage.queue, events).await?;
        pushed += 6000;
        stage.redis.kill()?;
        tidegate.readiness(503, PATIENCE).await?;
        stage.redis.restart().await?;
        tidegate.readiness(200, PATIENCE).await?;
    }
    stage.settled(&tidegate).await?;
    for id in 0..20 {
        assert_exact(stage.document(format!("doc{id}")).await?.as_ref(), pushed / 20);
    }
    let log = tidegate.log();
    let lines = |text: &str| log.iter().filter(|line| line.contains(text)).count();
    assert_eq!((lines("redis is down"), lines("redis is back after")), (3, 3), "{log:#?}");
    Ok(())
}

/// By then a wait between two attempts may take ten seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_that_was_away_for_long_is_noticed_at_once() -> Outcome {
    let mut stage = Setting::new().own_servers().stage().await?;
    let tidegate = stage.start().await?;
    stage.redis.kill()?;
    let waits_for_long = |metrics: &Metrics| {
        let retries = metrics.sum("tidegate_retries_total", &[("dependency", "redis")]);
        ensure!(retries >= 8.0, "{retries} retries");
        Ok(())
    };
    tidegate.metrics_when(PATIENCE, "long waits", waits_for_long).await?;
    stage.redis.restart().await?;
    let back = Instant::now();
    stage.push([logged("doc", 0)]).await?;
    stage.settled(&tidegate).await?;
    assert!(back.elapsed() < Duration::from_secs(3), "{:?}", back.elapsed());
    println!("recovered in {:?}", back.elapsed());
    assert_exact(stage.document("doc").await?.as_ref(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_come_up_after_the_daemon() -> Outcome {
    let mut stage = Setting::new().own_servers().stage().await?;
    stage.push([logged("doc", 0)]).await?;
    stage.mongo.kill()?;
    stage.redis.stop().await?;
    let mut tidegate = stage.launch.spawn().await?;
    tidegate.logged("mongodb is down", PATIENCE).await?;
    assert_eq!(tidegate.get("/livez").await?.0, 200);
    assert_eq!(tidegate.get("/readyz").await?.0, 503);
    tidegate.logged("redis is down", PATIENCE).await?;
    let (_, status) = tidegate.get_json("/status").await?;
    assert_eq!(status["summary"]["kind"], "redis-down", "{status}");
    assert!(status["summary"]["advice"].to_string().contains("MongoDB is down, too."), "{status}");
    stage.mongo.restart().await?;
    stage.redis.restart().await?;
    tidegate.readiness(200, PATIENCE).await?;
    stage.settled(&tidegate).await?;
    assert_exact(stage.document("doc").await?.as_ref(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_full_is_drained_nevertheless() -> Outcome {
    let mut stage = Setting::new().own_servers().stage().await?;
    let tidegate = stage.start().await?;
    stage.mongo.pause()?;
    let mut producer = stage.producer().await?;
    // What MongoDB's absence leads to: the queue has grown to all the memory that Redis may have.
    let () = redis::cmd("CONFIG")
        .arg(&["SET", "maxmemory-policy", "noeviction"])
        .query_async(&mut producer)
        .await?;
    let padding = "x".repeat(10_000);
    let filler = |n| update("other", serde_json::json!({"$set": {"n": n, "text": padding}}));
    stage.push((0..500).map(|n| logged("doc", n)).chain((0..2000).map(filler))).await?;
    let () = redis::cmd("CONFIG").arg(&["SET", "maxmemory", "4mb"]).query_async(&mut producer).await?;
    let refused = stage.push([logged("doc", 500)]).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("OOM")), "Redis is not full");
    tidegate.kill9()?;
    stage.mongo.resume()?;

    let tidegate = stage.start().await?;
    stage.settled(&tidegate).await?;
    assert_exact(stage.document("doc").await?.as_ref(), 500);
    stage.push([logged("doc", 500)]).await?;
    stage.settled(&tidegate).await?;
    assert_exact(stage.document("doc").await?.as_ref(), 501);
    Ok(())
}

/// Redis falls back to a state from before an event was refused; a later event of its document was applied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_redis_has_forgotten_is_made_again() -> Outcome {
    let stage = Setting::new().stage().await?;
    let queue = stage.queue.as_str();
    let documents = stage.database.collection::<Document>("documents");
    documents.insert_one(doc! {"_id": "d", "n": "text"}).await?;
    let bad = update("d", json!({"$inc": {"n": 1}}));
    let good = update("d", json!({"$push": {"log": 1}}));
    let tidegate = stage.start().await?;
    stage.push([&bad, &good]).await?;
    stage.settled(&tidegate).await?;
    let applied = stage.document("d").await?.expect("the document");
    let watermark = applied.get_document("_tidegate")?.get_i64(queue)?;
    drop(tidegate);

    // Both events are there again; both were read; nothing is known of a dead letter.
    let key = |name: &str| format!("tidegate:{{{queue}}}:{name}");
    redis::pipe()
        .del(&[format!("{queue}:dead"), key("dead"), key("head"), key("owner")])
        .set(key("base"), watermark - 1)
        .set(key("read"), watermark + 1)
        .rpush(queue, &[&bad, &good])
        .query_async::<()>(&mut stage.producer().await?)
        .await?;
    let tidegate = stage.start().await?;
    stage.settled(&tidegate).await?;
    assert_eq!(stage.document("d").await?.expect("the document"), applied);
    let letters = stage.dead_letters().await?;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["class"], "type-mismatch");
    assert_eq!(letters[0]["event"]["update"]["$inc"]["n"], 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_with_a_full_disk_is_away_until_there_is_room() -> Outcome {
    let mut stage = Setting::new().own_servers().stage().await?;
    let mut producer = stage.producer().await?;
    // With `always`, Redis ends itself when it cannot write.
    let () = redis::cmd("CONFIG").arg(&["SET", "appendfsync", "everysec"]).query_async(&mut producer).await?;
    let mut tidegate = stage.start().await?;
    let mut pushed = 0;
    for _ in 0..2 {
        stage.redis.limit_disk(Some(100_000))?;
        let refused = loop {
            let events: Vec<_> = (pushed..pushed + 50).map(|n| logged("doc", n)).collect();
            match push(&mut producer, &stage.queue, events).await {
                Ok(()) => pushed += 50,
                Err(error) => break error.to_string(),
            }
            assert!(pushed < 100_000, "Redis takes more than its disk does");
        };
        assert!(refused.contains("MISCONF"), "{refused}");
        tidegate.readiness(503, PATIENCE).await?;
        stage.redis.limit_disk(None)?;
        tidegate.readiness(200, PATIENCE).await?;
        stage.settled(&tidegate).await?;
        assert_exact(stage.document("doc").await?.as_ref(), pushed);
    }
    let log = tidegate.log();
    let lines = |text: &str| log.iter().filter(|line| line.contains(text)).count();
    let told =
        (lines("Redis refuses: MISCONF"), lines("redis refuses no more, after"), lines("redis is down"));
    assert_eq!(told, (2, 2, 0), "{log:#?}");
    Ok(())
}

/// A server that met the end of its disk refuses everything until it is started again, if it has not ended itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mongodb_with_a_full_disk_is_away_until_it_is_restarted_with_room() -> Outcome {
    let mut stage = Setting::new().own_servers().stage().await?;
    let mut tidegate = stage.start().await?;
    for round in 1..=2 {
        stage.mongo.limit_disk(Some(100_000))?;
        stage.mongo.until_full().await?;
        let events = (round - 1) * 500..round * 500;
        stage.push(events.map(|n| logged(&format!("doc{}", n % 5), n / 5))).await?;
        tidegate.readiness(503, PATIENCE).await?;
        // It goes on trying.
        let retries = |metrics: &Metrics| {
            let retries = metrics.sum("tidegate_retries_total", &[("class", "transient")]);
            ensure!(retries >= 4.0 * round as f64, "{retries} retries");
            Ok(())
        };
        tidegate.metrics_when(PATIENCE, "more retries", retries).await?;
        assert_eq!(tidegate.get("/readyz").await?.0, 503);

        stage.mongo.restart().await?;
        tidegate.readiness(200, PATIENCE).await?;
        stage.settled(&tidegate).await?;
        for id in 0..5 {
            let document = stage.document(format!("doc{id}")).await?;
            assert_exact(document.as_ref(), round * 100);
        }
    }
    assert_eq!(stage.dead_letters().await?.len(), 0);
    // It answers, and refuses: that is told of the documents, once a lane and an outage.
    let log = tidegate.log();
    let refusals = log.iter().filter(|line| line.contains("MongoDB refuses to write documents")).count();
    assert!((2..=8).contains(&refusals), "{refusals} refusals told: {log:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_of_mongodb_that_is_full_at_the_start() -> Outcome {
    let mut stage = Setting::new().own_servers().stage().await?;
    stage.push([logged("doc", 0)]).await?;
    stage.mongo.limit_disk(Some(100_000))?;
    stage.mongo.until_full().await?;
    let mut tidegate = stage.launch.spawn().await?;
    tidegate.logged("mongodb is down", PATIENCE).await?;
    assert_eq!(tidegate.get("/readyz").await?.0, 503);
    stage.mongo.restart().await?;
    tidegate.readiness(200, PATIENCE).await?;
    stage.settled(&tidegate).await?;
    assert_exact(stage.document("doc").await?.as_ref(), 1);
    Ok(())
}

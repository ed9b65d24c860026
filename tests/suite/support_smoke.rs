//! Tests the servers that everything else stands on: they start, die and come back with their data.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use redis::AsyncCommands;

use crate::support::{Durability, Metrics, Mongo, Redis, dead_letters, document, eventually, length, push};

type Outcome = anyhow::Result<()>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_what_it_acknowledged_over_a_kill() -> Outcome {
    let mut redis = Redis::start().await?;
    let mut connection = redis.connect().await?;
    push(&mut connection, "q", (0..2_500).map(|n| n.to_string())).await?;
    push(&mut connection, "q:dead", [r#"{"reason":"x"}"#]).await?;

    redis.kill()?;
    assert!(redis.connect().await.is_err(), "it answers after SIGKILL");
    redis.restart().await?;

    let mut connection = redis.connect().await?;
    assert_eq!(length(&mut connection, "q").await?, 2_500);
    let last: String = connection.lindex("q", -1).await?;
    assert_eq!(last, "2499");
    assert_eq!(dead_letters(&mut connection, "q").await?[0]["reason"], "x");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mongodb_keeps_what_it_acknowledged_over_a_kill() -> Outcome {
    let began = Instant::now();
    let mut mongo = Mongo::start().await?;
    println!("{} started in {:?}", mongo.name(), began.elapsed());
    let database = mongo.database("smoke").await?;
    for watermark in 1..=20_i64 {
        let reply = guarded_upsert(&database, watermark).await?;
        assert!(!reply.contains_key("writeErrors"), "{reply}");
    }
    let reply = guarded_upsert(&database, 20).await?;
    let error = reply.get_array("writeErrors")?[0].as_document().expect("an error is a document");
    assert_eq!(error.get_i32("code")?, 11000, "the guard lets nothing through twice: {reply}");

    mongo.kill()?;
    let began = Instant::now();
    mongo.restart().await?;
    println!("{} was back in {:?}", mongo.name(), began.elapsed());

    let kept = document(&mongo.database("smoke").await?, "documents", "d1").await?.expect("the document");
    assert_eq!(kept.get_i64("edits")?, 20);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_answers_once_it_is_resumed() -> Outcome {
    let mut mongo = Mongo::start_with(Durability::Relaxed).await?;
    let database = mongo.database("smoke").await?;
    mongo.pause()?;
    let write = tokio::spawn(async move { guarded_upsert(&database, 1).await });
    mongo.resume()?;
    let reply = tokio::time::timeout(Duration::from_secs(20), write).await???;
    assert_eq!(reply.get_i32("n")?, 1, "{reply}");
    Ok(())
}

#[tokio::test]
#[should_panic(expected = "for the tide; seen last: ebb")]
async fn waiting_has_an_end_and_says_what_was_seen() {
    eventually(Duration::from_millis(20), "the tide", async || Err::<(), _>("ebb")).await;
}

#[test]
fn metrics_are_read_with_their_labels() -> Outcome {
    let text = "# HELP a x\n# TYPE a counter\na{queue=\"q\",why=\"x,\\\"}\"} 2\na{queue=\"q\",why=\"y\"} 3\nb 1.5\n\
                h_bucket{le=\"1\"} 50\nh_bucket{le=\"3\"} 100\nh_bucket{le=\"+Inf\"} 100\n";
    let metrics = Metrics::parse(text)?;
    assert_eq!(metrics.get("a", &[("queue", "q")]), Some(5.0));
    assert_eq!(metrics.get("a", &[("why", "x,\"}")]), Some(2.0));
    assert_eq!(metrics.get("a", &[("queue", "other")]), None);
    assert_eq!(metrics.get("b", &[]), Some(1.5));
    assert_eq!(metrics.quantile("h", &[], 0.75), Some(2.0));
    assert_eq!(metrics.since(&metrics).quantile("h", &[], 0.75), None);
    Ok(())
}

/// The daemon's kind of write: applied only if the watermark is below.
async fn guarded_upsert(database: &mongodb::Database, watermark: i64) -> anyhow::Result<Document> {
    let statement = doc! {
        "q": { "_id": "d1", "_tidegate.q": { "$not": { "$gte": watermark } } },
        "u": { "$inc": { "edits": 1_i64 }, "$set": { "_tidegate.q": watermark } },
        "upsert": true,
    };
    let update = doc! {
        "update": "documents",
        "updates": [statement],
        "ordered": false,
        "writeConcern": { "w": "majority", "j": true },
    };
    Ok(database.run_command(update).await?)
}

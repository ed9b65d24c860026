//! Tests the delivery modes other than exactly-once.

use redis::AsyncCommands;
use serde_json::json;

use crate::stage::{PATIENCE, Setting, assert_exact, logged, update};

type Outcome = anyhow::Result<()>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_least_once_writes_no_watermarks() -> Outcome {
    let stage = Setting::new().delivery("at-least-once").stage().await?;
    let tidegate = stage.start().await?;
    stage.push((0..2000).map(|n| logged("doc", n))).await?;
    let replace = json!({"collection": "documents", "id": "other", "replace": {"x": 1}});
    stage.push([replace.to_string(), update("doc", json!({"$inc": {"log": 1}}))]).await?;
    stage.settled(&tidegate).await?;
    let document = stage.document("doc").await?;
    assert_exact(document.as_ref(), 2000);
    assert!(!document.expect("the document").contains_key("_tidegate"));
    assert_eq!(stage.document("other").await?, Some(bson::doc! {"_id": "other", "x": 1}));
    assert_eq!(stage.dead_letters().await?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_least_once_reads_again_what_a_crash_left() -> Outcome {
    let mut stage = Setting::new().delivery("at-least-once").own_servers().stage().await?;
    let tidegate = stage.start().await?;
    stage.mongo.pause()?;
    stage.push((0..500).map(|n| update("doc", json!({"$set": {"last": n}})))).await?;
    tidegate
        .metrics_when(PATIENCE, "events to be read", |metrics| {
            anyhow::ensure!(metrics.sum("tidegate_events_received_total", &[]) == 500.0);
            Ok(())
        })
        .await?;
    tidegate.kill9()?;
    stage.mongo.resume()?;
    let tidegate = stage.start().await?;
    stage.settled(&tidegate).await?;
    assert_eq!(stage.document("doc").await?.expect("the document").get_i32("last")?, 499);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_most_once_pops_and_shares_the_list() -> Outcome {
    let stage = Setting::new().delivery("at-most-once").stage().await?;
    stage.push((0..3000).map(|n| logged("doc", n))).await?;
    stage.push(["not json", &update("doc", json!({"$inc": {"log": 1}}))]).await?;
    let tidegate = stage.start().await?;
    stage.settled(&tidegate).await?;
    assert_exact(stage.document("doc").await?.as_ref(), 3000);
    let reasons: Vec<_> =
        stage.dead_letters().await?.iter().map(|letter| letter["class"].to_string()).collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    let mut producer = stage.producer().await?;
    let keys: Vec<String> = producer.keys(format!("tidegate:*{}*", stage.queue)).await?;
    assert!(keys.is_empty(), "{keys:?}");

    stage.push((3000..3100).map(|n| logged("doc", n))).await?;
    let exited = tidegate.terminate().await?;
    assert!(exited.status.success());
    // What was not popped is still there, what was popped is durable.
    let left: usize = producer.llen(&stage.queue).await?;
    assert_exact(stage.document("doc").await?.as_ref(), 3100 - left);
    Ok(())
}

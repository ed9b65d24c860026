//! Tests that new documents are inserted, and that nobody but MongoDB notices.

use anyhow::ensure;
use bson::doc;
use serde_json::json;

use crate::stage::{PATIENCE, Setting, assert_exact, logged, update};
use crate::support::{Metrics, count, documents};

type Outcome = anyhow::Result<()>;

fn writes(metrics: &Metrics, op: &str) -> f64 {
    metrics.sum("tidegate_writes_total", &[("op", op)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_documents_are_inserted_and_others_updated() -> Outcome {
    const DOCUMENTS: usize = 4_000;
    let stage = Setting::new().stage().await?;
    let tidegate = stage.start().await?;
    let events = |n: usize| (0..DOCUMENTS).map(move |id| logged(&format!("doc{id}"), n));
    stage.push(events(0)).await?;
    let metrics = stage.settled(&tidegate).await?;
    let inserted = writes(&metrics, "insert");
    // The first batch of each of four lanes may be one of fewer than 128, which is not sampled but updated.
    assert!(inserted >= DOCUMENTS as f64 - 4.0 * 128.0, "{inserted} inserted");
    assert_eq!(inserted + writes(&metrics, "update"), DOCUMENTS as f64);

    // That they are not new any more is found out.
    stage.push(events(1)).await?;
    let metrics = stage.settled(&tidegate).await?;
    assert_eq!(writes(&metrics, "insert"), inserted);
    assert_eq!(inserted + writes(&metrics, "update"), 2.0 * DOCUMENTS as f64);
    assert_eq!(metrics.sum("tidegate_events_deduplicated_total", &[]), 0.0);
    let documents = documents(&stage.database, "documents").await?;
    assert_eq!(documents.len(), DOCUMENTS);
    documents.values().for_each(|document| assert_exact(Some(document), 2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_is_killed_while_it_inserts_does_no_harm() -> Outcome {
    const DOCUMENTS: usize = 30_000;
    let stage = Setting::new().stage().await?;
    let mut tidegate = stage.start().await?;
    stage.push((0..DOCUMENTS).map(|id| logged(&format!("doc{id}"), 0))).await?;
    let inserts = |metrics: &Metrics| {
        ensure!(writes(metrics, "insert") > 0.0, "none yet");
        Ok(())
    };
    tidegate.metrics_when(PATIENCE, "documents to be inserted", inserts).await?;
    for part in 1..4 {
        while count(&stage.database, "documents").await? < (DOCUMENTS * part / 5) as u64 {}
        tidegate.kill9()?;
        tidegate = stage.start().await?;
    }
    stage.settled(&tidegate).await?;
    let documents = documents(&stage.database, "documents").await?;
    assert_eq!(documents.len(), DOCUMENTS);
    documents.values().for_each(|document| assert_exact(Some(document), 1));
    Ok(())
}

/// What MongoDB refuses to insert is refused as an update, with the same reason; and nothing else is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_documents_that_mongodb_refuses_are_dead_letters() -> Outcome {
    let stage = Setting::new().stage().await?;
    let validator = doc! {"$jsonSchema": {"properties": {"n": {"maximum": 1_000}}}};
    stage.database.create_collection("documents").validator(validator).await?;
    let tidegate = stage.start().await?;
    stage.push((0..2_000).map(|n| update(&format!("doc{n}"), json!({"$set": {"n": n}})))).await?;
    let metrics = stage.settled(&tidegate).await?;
    assert!(writes(&metrics, "insert") > 0.0);
    let letters = stage.dead_letters().await?;
    assert_eq!(letters.len(), 999);
    assert!(letters.iter().all(|letter| letter["class"] == "validation"), "{}", letters[0]);
    assert_eq!(count(&stage.database, "documents").await?, 1_001);
    Ok(())
}

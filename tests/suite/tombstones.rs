//! Tests deletions that leave a tombstone for a while.

use bson::{Bson, Document, doc};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::stage::{PATIENCE, Setting, Stage, number, update};
use crate::support::{Tidegate, document, documents, eventually, try_eventually};

type Outcome = anyhow::Result<()>;

const ROUTES: &str = r#"
[tombstones]
ttl = "90s"

[[routes]]
when = { type = "COUNT" }
collection = "boards"
id = "id"
inc = { n = 1 }

[[routes]]
when = { type = "DELETE" }
collection = "boards"
id = "id"
delete = true
deletes = "tombstone"
"#;

/// Waits until the index that removes tombstones has this time to live.
async fn until_removed_after(stage: &Stage, seconds: i64) {
    eventually(PATIENCE, "the index of tombstones", async || {
        let reply = stage.database.run_command(doc! {"listIndexes": "boards"}).await?;
        let indexes = reply.get_document("cursor")?.get_array("firstBatch")?;
        let mut indexes = indexes.iter().filter_map(Bson::as_document);
        let expires = indexes.find_map(|index| index.get("expireAfterSeconds")).map(number);
        anyhow::ensure!(expires == Some(seconds), "{expires:?}");
        anyhow::Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_document_leaves_a_tombstone_until_it_is_written_again() -> Outcome {
    let stage = Setting::new().with(ROUTES).stage().await?;
    let tidegate = stage.start().await?;
    let (count, delete) = (r#"{"type":"COUNT","id":1}"#, r#"{"type":"DELETE","id":1}"#);
    let board = async || document(&stage.database, "boards", 1).await;

    stage.push([count, count, delete]).await?;
    stage.settled(&tidegate).await?;
    let tombstone = board().await?.expect("a tombstone");
    assert!(matches!(tombstone.get("_tidegateDeleted"), Some(Bson::DateTime(_))), "{tombstone}");
    assert_eq!(tombstone.keys().collect::<Vec<_>>(), ["_id", "_tidegateDeleted", "_tidegate"], "{tombstone}");

    stage.push([count]).await?;
    stage.settled(&tidegate).await?;
    let revived = board().await?.expect("a board");
    assert_eq!(number(revived.get("n").expect("a count")), 1);
    assert!(!revived.contains_key("_tidegateDeleted"), "{revived}");

    until_removed_after(&stage, 90).await;
    assert!(tidegate.terminate().await?.status.success());
    let tidegate = stage.launch.clone().env("TIDEGATE_TOMBSTONES__TTL", "2min").start().await?;
    until_removed_after(&stage, 120).await;
    stage.push([delete]).await?;
    stage.settled(&tidegate).await?;
    assert!(tidegate.terminate().await?.status.success());

    // Routes that know no tombstones any more: what is written over one must not be removed as one.
    let routes = r#"[{ when = { type = "COUNT" }, collection = "boards", id = "id", inc = { n = 1 } }]"#;
    let tidegate = stage.launch.clone().env("TIDEGATE_ROUTES", routes).start().await?;
    stage.push([count]).await?;
    stage.settled(&tidegate).await?;
    let revived = board().await?.expect("a board");
    assert!(!revived.contains_key("_tidegateDeleted"), "{revived}");
    Ok(())
}

/// Native deletions leave tombstones, for a second.
const TAKES_DELETIONS: &str = r#"[{ when = { delete = true }, collection = "documents", id = "id", delete = true, deletes = "tombstone" }]"#;

fn deletion(id: &str) -> String {
    json!({"collection": "documents", "id": id, "delete": true}).to_string()
}

/// Updates of every shape, each to the document that is named by its place.
fn updates() -> Vec<String> {
    let updates = [
        json!({"$set": {"a": 1}}),
        json!({"$inc": {"a": 1}}),
        json!({"$unset": {"a": ""}}),
        json!({"$unset": {"a": ""}, "$set": {"b": 1}}),
        json!({"$push": {"a": 1}, "$max": {"b": 2}}),
        json!({"$addToSet": {"a": 1}, "$pull": {"b": 1}}),
        json!({"$rename": {"a": "b"}}),
        json!({"$setOnInsert": {"a": 1}}),
        json!({"$currentDate": {"a": true}}),
    ];
    let mut all: Vec<_> = (0..).zip(updates).map(|(id, u)| update(&format!("live{id}"), u)).collect();
    for merge in [json!({}), json!({"a": 1}), json!({"a": null}), json!({"a": {"b": null, "c": 1}})] {
        let id = format!("live{}", all.len());
        all.push(json!({"collection": "documents", "id": id, "merge": merge}).to_string());
    }
    let id = format!("live{}", all.len());
    all.push(json!({"collection": "documents", "id": id, "replace": {"a": 1}}).to_string());
    all
}

/// Waits until an instance owns the queue.
async fn owns(stage: &Stage, tidegate: &Tidegate) -> Outcome {
    let held = |metrics: &crate::support::Metrics| {
        let held = metrics.sum("tidegate_lease_held", &[("queue", stage.queue.as_str())]);
        anyhow::ensure!(held == 1.0, "the queue is not owned");
        Ok(())
    };
    tidegate.metrics_when(PATIENCE, "the queue to be owned", held).await.map(drop)
}

fn dead(found: &std::collections::BTreeMap<String, Document>) -> Vec<&str> {
    let marked = found.iter().filter(|(_, document)| document.contains_key("_tidegateDeleted"));
    marked.map(|(id, _)| id.as_str()).collect()
}

/// In a roll-out some instances leave tombstones and others, which began before there were any, know of none. What those
/// write over a tombstone is a document like any other, and MongoDB does not remove it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_instance_of_another_configuration_writes_is_not_removed_as_a_tombstone() -> Outcome {
    let stage = Setting::new().own_fast_servers().with("tombstones.ttl = \"1s\"\n").stage().await?;
    let admin = stage.mongo.client().await?.database("admin");
    admin.run_command(doc! {"setParameter": 1, "ttlMonitorSleepSecs": 1}).await?;
    let knows_none = stage.start().await?;
    let leaves_them = stage.launch.clone().env("TIDEGATE_ROUTES", TAKES_DELETIONS).start().await?;
    knows_none.signal(Signal::SIGSTOP)?;
    owns(&stage, &leaves_them).await?;
    // Not before all of them are written over may MongoDB remove one.
    admin.run_command(doc! {"setParameter": 1, "ttlMonitorEnabled": false}).await?;
    let updates = updates();
    let ids: Vec<_> = (0..updates.len()).map(|id| format!("live{id}")).collect();
    stage.push(ids.iter().map(|id| deletion(id)).chain([deletion("gone")])).await?;
    stage.settled(&leaves_them).await?;
    let found = documents(&stage.database, "documents").await?;
    assert_eq!(dead(&found).len(), ids.len() + 1, "{found:?}");
    assert!(leaves_them.terminate().await?.status.success());

    knows_none.signal(Signal::SIGCONT)?;
    owns(&stage, &knows_none).await?;
    stage.push(&updates).await?;
    stage.settled(&knows_none).await?;
    let found = documents(&stage.database, "documents").await?;
    assert_eq!(dead(&found), ["gone"]);

    admin.run_command(doc! {"setParameter": 1, "ttlMonitorEnabled": true}).await?;
    let left = try_eventually(PATIENCE, "the tombstone to be removed", async || {
        let found = documents(&stage.database, "documents").await?;
        anyhow::ensure!(!found.contains_key("gone"), "it is there");
        anyhow::Ok(found)
    });
    assert_eq!(left.await?.len(), ids.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_that_is_added_while_it_runs_may_have_tombstones() -> Outcome {
    let stage = Setting::new().stage().await?;
    let routes = ROUTES.split_once("[[routes]]").expect("routes").1;
    let routes: toml::Table = toml::from_str(&format!("[[routes]]{routes}"))?;
    let leaves_them =
        stage.launch.clone().env("TIDEGATE_ROUTES", routes["routes"].to_string()).start().await?;
    stage.push([r#"{"type":"COUNT","id":1}"#, r#"{"type":"DELETE","id":1}"#]).await?;
    stage.settled(&leaves_them).await?;
    assert!(leaves_them.terminate().await?.status.success());

    let tidegate = stage.start().await?;
    let counts =
        r#"routes = [{ when = { type = "COUNT" }, collection = "boards", id = "id", inc = { n = 1 } }]"#;
    tidegate.reconfigure(counts)?;
    eventually(PATIENCE, "the new routes", async || {
        let (_, config) = tidegate.get("/config").await?;
        anyhow::ensure!(config.contains("boards"), "{config}");
        anyhow::Ok(())
    })
    .await;
    stage.push([r#"{"type":"COUNT","id":1}"#]).await?;
    stage.settled(&tidegate).await?;
    let revived = document(&stage.database, "boards", 1).await?.expect("a board");
    assert_eq!(number(revived.get("n").expect("a count")), 1);
    assert!(!revived.contains_key("_tidegateDeleted"), "{revived}");
    Ok(())
}

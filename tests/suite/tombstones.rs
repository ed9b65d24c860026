//! Deletions that leave a tombstone for a while.

use bson::{Bson, doc};

use crate::stage::{PATIENCE, Setting, Stage, number};
use crate::support::{document, eventually};

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

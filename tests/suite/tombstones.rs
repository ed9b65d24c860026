//! Deletions that leave a tombstone for a while.

use bson::{Bson, doc};

use crate::stage::{Setting, number};
use crate::support::document;

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

    let reply = stage.database.run_command(doc! {"listIndexes": "boards"}).await?;
    let indexes = reply.get_document("cursor")?.get_array("firstBatch")?;
    let expires =
        indexes.iter().filter_map(Bson::as_document).find_map(|index| index.get("expireAfterSeconds"));
    assert_eq!(expires.map(number), Some(90));

    // Another time to live is taken over.
    assert!(tidegate.terminate().await?.status.success());
    let tidegate = stage.launch.clone().env("TIDEGATE_TOMBSTONES__TTL", "2min").start().await?;
    let reply = stage.database.run_command(doc! {"listIndexes": "boards"}).await?;
    let indexes = reply.get_document("cursor")?.get_array("firstBatch")?;
    let expires =
        indexes.iter().filter_map(Bson::as_document).find_map(|index| index.get("expireAfterSeconds"));
    assert_eq!(expires.map(number), Some(120));
    assert!(tidegate.terminate().await?.status.success());
    Ok(())
}

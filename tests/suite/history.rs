//! Tests histories: each event as it came, beside the document that it was folded into.

use bson::{Bson, Document, doc};
use serde_json::json;

use crate::stage::{PATIENCE, Setting, Stage, number};
use crate::support::{Metrics, eventually};

type Outcome = anyhow::Result<()>;

const ROUTES: &str = r#"
[[routes]]
when = { type = "EDIT" }
collection = "boards"
id = "id"
ts = "at"
inc = { edits = 1 }
push = { log = "n" }
history = "boards_history"
history_ttl = "30d"

[[routes]]
when = { type = "TOUCH" }
collection = "boards"
id = "id"
inc = { touches = 1 }
"#;

fn edit(id: &str, n: usize) -> String {
    // A key that no document could have.
    json!({"type": "EDIT", "id": id, "n": n, "at": 1_000 + n, "$odd.key": {"\u{0}": n}}).to_string()
}

/// The history of the stage's queue, by offset.
async fn history(stage: &Stage) -> anyhow::Result<Vec<Document>> {
    let mut found =
        stage.database.collection::<Document>("boards_history").find(doc! {}).sort(doc! {"_id": 1}).await?;
    let mut kept = Vec::new();
    while found.advance().await? {
        kept.push(found.deserialize_current()?);
    }
    Ok(kept)
}

fn texts(kept: &[Document]) -> Vec<&str> {
    kept.iter().map(|kept| kept.get_str("event").expect("an event")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_kept_as_it_came() -> Outcome {
    let stage = Setting::new().with(ROUTES).stage().await?;
    let events: Vec<String> = (0..3000).map(|n| edit(["a", "b", "c"][n % 3], n)).collect();
    stage.push(&events).await?;
    // Neither of a route without history nor dead letters, be they MongoDB's or tidegate's.
    stage.push([r#"{"type":"TOUCH","id":"a"}"#, r#"{"type":"EDIT"}"#]).await?;
    stage.database.collection("boards").insert_one(doc! {"_id": "full", "log": "no array"}).await?;
    stage.push([edit("full", 0)]).await?;
    let tidegate = stage.start().await?;
    let metrics = stage.settled(&tidegate).await?;
    assert_eq!(stage.dead_letters().await?.len(), 2);
    let writes = metrics.sum("tidegate_writes_total", &[("collection", "boards")]);
    assert!(writes < 100.0, "{writes} writes for 3000 events");

    let kept = history(&stage).await?;
    assert_eq!(texts(&kept), events);
    let first = &kept[0];
    let keys: Vec<&String> = first.keys().collect();
    assert_eq!(keys, ["_id", "collection", "id", "at", "ts", "event"]);
    assert_eq!(first.get_document("_id")?.get_str("queue")?, stage.queue);
    assert_eq!((first.get_str("collection")?, first.get_str("id")?), ("boards", "a"));
    assert_eq!(first.get("ts"), Some(&Bson::DateTime(bson::DateTime::from_millis(1000))));

    eventually(PATIENCE, "the index that removes old events", async || {
        let reply = stage.database.run_command(doc! {"listIndexes": "boards_history"}).await?;
        let indexes = reply.get_document("cursor")?.get_array("firstBatch")?;
        let index =
            indexes.iter().filter_map(Bson::as_document).find(|i| i.contains_key("expireAfterSeconds"));
        let index = index.ok_or_else(|| anyhow::anyhow!("no index"))?;
        assert_eq!(number(index.get("expireAfterSeconds").expect("a time")), 30 * 24 * 3600);
        assert_eq!(index.get_document("key")?, &doc! {"at": 1});
        anyhow::Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_kept_once_whoever_dies() -> Outcome {
    for delivery in ["exactly-once", "at-least-once"] {
        let stage = Setting::new().delivery(delivery).own_servers().with(ROUTES).stage().await?;
        let mut events = Vec::new();
        for round in 0..6 {
            let tidegate = stage.start().await?;
            let more: Vec<String> =
                (0..2000).map(|n| edit(&format!("{}", n % 7), round * 2000 + n)).collect();
            stage.push(&more).await?;
            events.extend(more);
            // It dies at some moment of its work, which is another one each time.
            let target = 300.0 * (round % 4) as f64;
            let under_way = |metrics: &Metrics| {
                let persisted = metrics.sum("tidegate_events_persisted_total", &[]);
                anyhow::ensure!(persisted >= target, "{persisted}");
                Ok(())
            };
            tidegate.metrics_when(PATIENCE, "events to be under way", under_way).await?;
            tidegate.kill9()?;
        }
        let tidegate = stage.start().await?;
        stage.settled(&tidegate).await?;
        let kept = history(&stage).await?;
        assert_eq!(kept.len(), events.len(), "{delivery}");
        assert_eq!(texts(&kept), events, "{delivery}");
    }
    Ok(())
}

/// What a batch waits to keep stays in the queue until it is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_committed_before_it_is_kept() -> Outcome {
    let stage = Setting::new().own_fast_servers().with(ROUTES).stage().await?;
    let tidegate = stage.start().await?;
    let fail = |mode: Bson| {
        doc! {
            "configureFailPoint": "failCommand", "mode": mode,
            "data": {"failCommands": ["insert"], "errorCode": 91},
        }
    };
    let admin = stage.mongo.database("admin").await?;
    if admin.run_command(fail("alwaysOn".into())).await.is_err() {
        println!("SKIPPED: the server has no fail points");
        return Ok(());
    }
    stage.push([edit("a", 0)]).await?;
    eventually(PATIENCE, "the document", async || {
        let board = crate::support::document(&stage.database, "boards", "a").await?;
        anyhow::ensure!(board.is_some());
        anyhow::Ok(())
    })
    .await;
    let retried = |metrics: &Metrics| {
        let retries = metrics.sum("tidegate_retries_total", &[("dependency", "mongodb")]);
        anyhow::ensure!(retries >= 2.0, "{retries}");
        Ok(())
    };
    tidegate.metrics_when(PATIENCE, "attempts to keep it", retried).await?;
    assert_eq!(crate::support::length(&mut stage.producer().await?, &stage.queue).await?, 1);
    tidegate.kill9()?;
    admin.run_command(fail("off".into())).await?;
    let tidegate = stage.start().await?;
    stage.settled(&tidegate).await?;
    assert_eq!(texts(&history(&stage).await?), [edit("a", 0)]);
    let board = crate::support::document(&stage.database, "boards", "a").await?.expect("the board");
    assert_eq!(number(board.get("edits").expect("a count")), 1);
    Ok(())
}

/// What a history's own validator refuses does not hold up the queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_takes_not_everything_gets_the_rest() -> Outcome {
    let stage = Setting::new().with(ROUTES).stage().await?;
    let validator = doc! {"create": "boards_history", "validator": {"id": {"$ne": "b"}}};
    stage.database.run_command(validator).await?;
    let mut tidegate = stage.start().await?;
    stage.push([edit("a", 0), edit("b", 1), edit("c", 2)]).await?;
    stage.settled(&tidegate).await?;
    assert_eq!(texts(&history(&stage).await?), [edit("a", 0), edit("c", 2)]);
    tidegate.logged("does not take an event", PATIENCE).await?;
    assert!(stage.dead_letters().await?.is_empty());
    Ok(())
}

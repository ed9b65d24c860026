//! Tests the main job: events become documents.

use bson::{Bson, doc};
use serde_json::{Value, json};

use crate::stage::{Setting, assert_exact, logged, number, settled, update};
use crate::support::{Launch, Mongo, Redis, document, push};

type Outcome = anyhow::Result<()>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shipped_configuration_drains_the_articles_events() -> Outcome {
    let (redis, mut mongo) = (Redis::start().await?, Mongo::shared().await?);
    let name = mongo.database_name("shipped");
    let launch = Launch::config_file(concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml"));
    let tidegate = launch.redis(&redis).mongodb(&mongo, &name).start().await?;
    let mut producer = redis.connect().await?;
    let events = [
        r#"{"type":"UPDATE_CONTENT","payload":{"docId":"d1","userId":"u123","text":"Hello"}}"#,
        r#"{"type":"UPDATE_CONTENT","payload":{"docId":"d1","userId":"u9","text":"Hello, world"}}"#,
        r#"{"type":"UPDATE_CONTENT","payload":{"userId":"u123","text":"not saved yet"}}"#,
    ];
    push(&mut producer, "collabQueue", events).await?;

    settled(&redis, "collabQueue", &tidegate).await?;
    let database = mongo.database(&name).await?;
    let saved = document(&database, "documents", "d1").await?.expect("the document");
    assert_eq!((saved.get_str("text")?, saved.get_str("updatedBy")?), ("Hello, world", "u9"));
    assert_eq!(saved.get_i32("edits")?, 2);
    let draft = document(&database, "drafts", "u123").await?.expect("the draft");
    assert_eq!(draft.get_str("text")?, "not saved yet");
    assert!(tidegate.terminate().await?.status.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_folded_and_every_event_counts() -> Outcome {
    let stage = Setting::new().stage().await?;
    let events = (0..20_000).map(|n| logged(&format!("doc{}", n % 50), n / 50));
    stage.push(events).await?;
    let tidegate = stage.launch.start().await?;

    let metrics = stage.settled(&tidegate).await?;
    for id in 0..50 {
        assert_exact(stage.document(format!("doc{id}")).await?.as_ref(), 400);
    }
    let queue = [("queue", stage.queue.as_str())];
    assert_eq!(metrics.sum("tidegate_events_persisted_total", &queue), 20_000.0);
    let writes = metrics.sum("tidegate_writes_total", &[]);
    assert!(writes < 10_000.0, "20,000 events took {writes} writes");
    assert!(metrics.sum("tidegate_events_coalesced_total", &queue) > 10_000.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_native_event_is_applied() -> Outcome {
    let stage = Setting::new().stage().await?;
    let tidegate = stage.launch.start().await?;
    stage
        .push([
            update("a", json!({"$set": {"x.y": 1, "z": [1]}, "$push": {"l": {"$each": [1, {"k": 2}]}}})),
            update("a", json!({"$unset": {"z": ""}, "$inc": {"n": 2.5}})),
            json!({"collection": "documents", "id": "a", "merge": {"x": {"w": 3, "y": null}}}).to_string(),
            json!({"collection": "documents", "id": 7, "replace": {"whole": {"$": 0}}})
                .to_string()
                .replace("\"$\"", "\"k\""),
            json!({"collection": "documents", "id": 7, "replace": {"whole": true}}).to_string(),
            update("gone", json!({"$set": {"x": 1}})),
            json!({"collection": "documents", "id": "gone", "delete": true}).to_string(),
            json!({"collection": "documents", "id": "never there", "delete": true}).to_string(),
            update("again", json!({"$set": {"x": 1}})),
            json!({"collection": "documents", "id": "again", "delete": true}).to_string(),
            update("again", json!({"$set": {"y": 2}})),
        ])
        .await?;
    stage.settled(&tidegate).await?;

    let mut a = stage.document("a").await?.expect("a");
    a.remove("_tidegate");
    assert_eq!(a, doc! {"_id": "a", "l": [1, {"k": 2}], "x": {"w": 3}, "n": 2.5});
    let mut seven = stage.document(7).await?.expect("7");
    assert!(seven.remove("_tidegate").is_some(), "a replacement keeps its watermark");
    assert_eq!(seven, doc! {"_id": 7, "whole": true});
    assert_eq!(stage.document("gone").await?, None);
    let mut again = stage.document("again").await?.expect("again");
    again.remove("_tidegate");
    assert_eq!(again, doc! {"_id": "again", "y": 2});
    assert!(stage.dead_letters().await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_convert_values_and_ids() -> Outcome {
    let (object_id, uuid) = ("65a0b1c2d3e4f5a6b7c8d9e0", "0191e1f8-6c5b-7b53-9a1e-2f0c8a3d4e5f");
    let mut routes = String::new();
    for to in ["objectId", "uuid"] {
        let head = format!("collection = \"documents\"\nid = {{ path = \"id\", as = \"{to}\" }}\n");
        routes.push_str(&format!(
            "[[routes]]\nwhen = {{ as = \"{to}\", do = \"set\" }}\n{head}\
             set = {{ price = {{ path = \"price\", as = \"decimal\" }}, at = {{ path = \"at\", as = \"date\" }},\
             by = {{ value = \"route\" }} }}\ninc = {{ n = {{ path = \"n\", as = \"int\", default = 1 }} }}\n\
             [[routes]]\nwhen = {{ as = \"{to}\", do = \"break\" }}\n{head}inc = {{ by = 1 }}\n"
        ));
    }
    let stage = Setting::new().with(&routes).stage().await?;
    for (to, id) in [("objectId", object_id), ("uuid", uuid)] {
        let event = |what: &str, n: Value| {
            json!({"as": to, "do": what, "id": id, "price": "12.50", "at": "1970-01-01T00:00:01Z", "n": n})
                .to_string()
        };
        let good = |n| event("set", n);
        stage.push([good(json!(null)), good(json!("2")), event("break", json!(0)), good(json!(4))]).await?;
    }
    let tidegate = stage.launch.start().await?;
    stage.settled(&tidegate).await?;

    let ids = [Bson::ObjectId(object_id.parse()?), bson::Uuid::parse_str(uuid)?.into()];
    for id in ids {
        let mut document = stage.document(id.clone()).await?.expect("the document");
        assert!(document.remove("_tidegate").is_some());
        let price: bson::Decimal128 = "12.50".parse()?;
        let at = bson::DateTime::from_millis(1000);
        assert_eq!(document, doc! {"_id": id, "at": at, "by": "route", "price": price, "n": 7});
    }
    assert_eq!(stage.dead_letters().await?.len(), 2);
    Ok(())
}

/// An event that was applied before is found out by reading the document's watermark, by its id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_with_converted_ids_are_found_again() -> Outcome {
    let (object_id, uuid) = ("65a0b1c2d3e4f5a6b7c8d9e1", "0191e1f8-6c5b-7b53-9a1e-2f0c8a3d4e60");
    let route = |to: &str| {
        format!(
            "[[routes]]\nwhen = {{ as = \"{to}\" }}\ncollection = \"documents\"\n\
             id = {{ path = \"id\", as = \"{to}\" }}\ninc = {{ n = 1 }}\n"
        )
    };
    let stage = Setting::new().with(&(route("objectId") + &route("uuid"))).stage().await?;
    let ids = [Bson::ObjectId(object_id.parse()?), bson::Uuid::parse_str(uuid)?.into()];
    // The queue's next epoch is the seventh: only a watermark of that says that its events were applied.
    let numbers = doc! {"_id": &stage.queue, "epoch": 6_i64};
    stage.database.collection("tidegate").insert_one(numbers).await?;
    for id in &ids {
        let applied = doc! {"_id": id, "n": 1, "_tidegate": {&stage.queue: (7_i64 << 36) + 1000}};
        stage.database.collection("documents").insert_one(applied).await?;
    }
    for (to, id) in [("objectId", object_id), ("uuid", uuid)] {
        stage.push([json!({"as": to, "id": id}).to_string()]).await?;
    }
    let tidegate = stage.launch.start().await?;
    let metrics = stage.settled(&tidegate).await?;
    assert_eq!(metrics.sum("tidegate_events_deduplicated_total", &[]), 2.0);
    for id in ids {
        assert_eq!(stage.document(id).await?.expect("the document").get_i32("n")?, 1);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_without_watermark_is_updated() -> Outcome {
    let stage = Setting::new().stage().await?;
    let documents = stage.database.collection("documents");
    documents.insert_one(doc! {"_id": "old", "kept": true, "count": 40}).await?;
    let tidegate = stage.launch.start().await?;
    stage.push([update("old", json!({"$inc": {"count": 2}}))]).await?;
    stage.settled(&tidegate).await?;
    let old = stage.document("old").await?.expect("the document");
    assert_eq!((number(old.get("count").expect("count")), old.get_bool("kept")?), (42, true));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_queues_feed_one_document() -> Outcome {
    let second = crate::support::unique("second");
    let stage = Setting::new().another_queue(&second).stage().await?;
    let tidegate = stage.launch.start().await?;
    let mut producer = stage.producer().await?;
    for n in 0..200 {
        stage.push([update("both", json!({"$push": {"first": n}}))]).await?;
        push(&mut producer, &second, [update("both", json!({"$push": {"second": n}}))]).await?;
        if n == 100 {
            // A replacement by one queue must keep the other's watermark.
            stage.settled(&tidegate).await?;
            settled(&stage.redis, &second, &tidegate).await?;
            let event =
                json!({"collection": "documents", "id": "both", "replace": {"first": [], "second": []}});
            stage.push([event.to_string()]).await?;
            stage.settled(&tidegate).await?;
        }
    }
    stage.settled(&tidegate).await?;
    settled(&stage.redis, &second, &tidegate).await?;
    let both = stage.document("both").await?.expect("the document");
    for field in ["first", "second"] {
        let log: Vec<i64> = both.get_array(field)?.iter().map(number).collect();
        assert_eq!(log, (101..200).collect::<Vec<_>>(), "{field}");
    }
    assert_eq!(both.get_document("_tidegate")?.len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_batch_is_split_under_the_servers_limits() -> Outcome {
    let stage = Setting::new()
        .with("batch.max_bytes = \"40MiB\"\nbatch.max_ops = 100000\nlanes.count = 1\n")
        .stage()
        .await?;
    let megabyte = "x".repeat(1 << 20);
    stage.push((0..40).map(|n| update(&format!("big{n}"), json!({"$set": {"text": megabyte}})))).await?;
    let tidegate = stage.launch.start().await?;
    stage.settled(&tidegate).await?;
    assert_eq!(crate::support::count(&stage.database, "documents").await?, 40);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_is_the_same_number_whatever_its_type() -> Outcome {
    let stage = Setting::new().stage().await?;
    let documents = stage.database.collection::<bson::Document>("documents");
    documents.insert_many([doc! {"_id": 7_i64}, doc! {"_id": 8.0}]).await?;
    let events = [7, 8]
        .map(|id| json!({"collection": "documents", "id": id, "update": {"$inc": {"n": 1}}}).to_string());
    let tidegate = stage.start().await?;
    stage.push(&events).await?;
    stage.settled(&tidegate).await?;
    // Numbered anew, they are applied again: under the old numbers they would be held back and looked up.
    tidegate.kill9()?;
    let base = format!("tidegate:{{{}}}:base", stage.queue);
    let mut producer = stage.producer().await?;
    let before: i64 = redis::AsyncCommands::get(&mut producer, &base).await?;
    stage.push(&events).await?;
    let () = redis::AsyncCommands::set(&mut producer, &base, before - 2).await?;
    let tidegate = stage.start().await?;
    let metrics = stage.settled(&tidegate).await?;
    assert_eq!(metrics.sum("tidegate_events_deduplicated_total", &[]), 2.0);
    for id in [7, 8] {
        assert_eq!(stage.document(id).await?.expect("the document").get_i32("n")?, 1);
    }
    Ok(())
}

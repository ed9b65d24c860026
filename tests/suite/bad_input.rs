//! Tests events that can never be applied: each becomes one dead letter, and its neighbours are persisted.

use std::collections::BTreeMap;

use bson::doc;
use serde_json::{Value, json};

use crate::stage::{Setting, Stage, assert_exact, logged, number, update};

type Outcome = anyhow::Result<()>;

/// An event, the class of its dead letter, and a piece of the reason.
type Bad = (Vec<u8>, &'static str, &'static str);

fn bad(event: impl Into<Vec<u8>>, class: &'static str, reason: &'static str) -> Bad {
    (event.into(), class, reason)
}

fn native(more: &str) -> String {
    format!(r#"{{"collection":"documents","id":"doc",{more}}}"#)
}

/// Pushes each bad event between good ones of the same document, in one batch, and checks all dead letters.
async fn check(stage: &Stage, bad: Vec<Bad>) -> Outcome {
    let mut events: Vec<Vec<u8>> = Vec::new();
    for (n, (event, _, _)) in bad.iter().enumerate() {
        events.push(logged("doc", n).into());
        events.push(event.clone());
    }
    let good = bad.len();
    stage.push(&events).await?;
    let tidegate = stage.launch.start().await?;
    let metrics = stage.settled(&tidegate).await?;

    let letters = stage.dead_letters().await?;
    // Dead letters are in the order in which they were committed, which is that of their offsets.
    let told: Vec<_> = letters.iter().map(|l| (l["class"].as_str(), l["reason"].as_str())).collect();
    assert_eq!(letters.len(), bad.len(), "{told:#?}");
    let mut by_class: BTreeMap<&str, f64> = BTreeMap::new();
    for (letter, (event, class, reason)) in letters.iter().zip(&bad) {
        let text = letter["reason"].as_str().unwrap_or_default();
        let shown = String::from_utf8_lossy(&event[..event.len().min(100)]).into_owned();
        assert_eq!(letter["class"], *class, "{shown}: {text}");
        assert!(text.contains(reason), "{shown}: {text:?} does not say {reason:?}");
        assert_eq!(letter["queue"], stage.queue.as_str());
        assert!(letter["offset"].is_i64() && letter["at"].is_string());
        *by_class.entry(class).or_default() += 1.0;
    }
    for (class, count) in by_class {
        let labels = [("queue", stage.queue.as_str()), ("reason", class)];
        assert_eq!(metrics.sum("tidegate_events_dead_lettered_total", &labels), count, "{class}");
    }
    assert_exact(stage.document("doc").await?.as_ref(), good);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_event() -> Outcome {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let stage = Setting::new().stage().await?;
    check(
        &stage,
        vec![
            bad("hello", "not-json", "not JSON"),
            bad(r#"{"collection":"documents""#, "not-json", "not JSON"),
            bad(&b"{\"a\":\"\xff\xfe\"}"[..], "not-utf8", "not UTF-8"),
            bad("", "not-json", "empty"),
            bad("[1,2]", "bad-event", "not a JSON object"),
            bad("\"text\"", "bad-event", "not a JSON object"),
            bad("null", "bad-event", "not a JSON object"),
            bad(native(&format!(r#""merge":{{"a":{deep}}}"#)), "too-deep", "levels deep"),
            bad(native(r#""update":{}"#), "bad-event", "nothing to write"),
            bad(native(r#""upsert":true"#), "bad-event", "no field \"upsert\""),
        ],
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_reach_where_events_must_not() -> Outcome {
    let stage = Setting::new().stage().await?;
    check(
        &stage,
        vec![
            bad(r#"{"collection":"documents","update":{"$set":{"a":1}}}"#, "missing-id", "\"id\""),
            bad(
                r#"{"collection":"documents","id":{"a":1},"delete":true}"#,
                "bad-id",
                "neither text nor an integer",
            ),
            bad(r#"{"collection":"documents","id":{"$ne":1},"delete":true}"#, "bad-key", "starts with \"$\""),
            bad(native(r#""merge":{"a":{"$gt":1}}"#), "bad-key", "starts with \"$\""),
            bad(native(r#""merge":{"a.b":1}"#), "bad-key", "contains \".\""),
            bad(native(r#""merge":{"a\u0000b":1}"#), "bad-key", "NUL"),
            bad(native(r#""merge":{"":1}"#), "bad-key", "empty"),
            bad(native(r#""update":{"$set":{"_id":"other"}}"#), "protected-field", "\"_id\""),
            bad(native(r#""update":{"$set":{"_tidegate.q":1}}"#), "protected-field", "\"_tidegate\""),
            bad(native(r#""replace":{"_tidegate":{}}"#), "protected-field", "\"_tidegate\""),
            bad(r#"{"collection":"users","id":"doc","delete":true}"#, "unknown-collection", "\"users\""),
            bad(
                r#"{"collection":"tidegate","id":"doc","delete":true}"#,
                "unknown-collection",
                "\"tidegate\"",
            ),
            bad(native(r#""merge":{"n":9223372036854775808}"#), "bad-number", "64 bits"),
            bad(native(r#""merge":{"n":123456789012345678901234567890}"#), "bad-number", "64 bits"),
            bad(native(r#""merge":{"a":1,"a":2}"#), "duplicate-key", "\"a\" occurs twice"),
            bad(native(r#""update":{"$set":{"a":1,"a.b":2}}"#), "path-conflict", "\"a.b\""),
        ],
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_mongodb_refuses() -> Outcome {
    let stage = Setting::new().stage().await?;
    let validator = doc! {"forbidden": {"$exists": false}};
    let create = doc! {"create": "documents", "validator": validator};
    stage.database.run_command(create).await?;
    stage
        .database
        .run_command(doc! {"createIndexes": "documents", "indexes": [
            {"key": {"email": 1}, "name": "email", "unique": true, "sparse": true},
        ]})
        .await?;
    stage.database.collection("documents").insert_one(doc! {"_id": "first", "email": "taken"}).await?;
    let large = "x".repeat(9 << 20);
    let half = update("large", json!({"$set": {"first": large}}));
    stage.push([half]).await?;
    check(
        &stage,
        vec![
            bad(update("doc", json!({"$inc": {"log": 1}})), "type-mismatch", "does not fit"),
            bad(update("doc", json!({"$push": {"count": 1}})), "type-mismatch", "does not fit"),
            bad(update("doc", json!({"$set": {"count.x": 1}})), "type-mismatch", "does not fit"),
            bad(update("doc", json!({"$set": {"forbidden": 1}})), "validation", "validator"),
            bad(update("doc", json!({"$set": {"email": "taken"}})), "unique-index", "unique index"),
            bad(update("new", json!({"$set": {"email": "taken"}})), "unique-index", "unique index"),
            bad(update("large", json!({"$set": {"second": large}})), "too-large", "16 MiB"),
            bad(update("huge", json!({"$set": {"text": "x".repeat(20 << 20)}})), "too-large", "16 MiB"),
        ],
    )
    .await?;
    let kept = stage.document("large").await?.expect("the document that was small enough");
    assert!(kept.contains_key("first") && !kept.contains_key("second"));
    assert_eq!(stage.document("new").await?, None);
    let letters = stage.dead_letters().await?;
    let codes: Vec<Value> = letters.iter().map(|letter| letter["code"].clone()).collect();
    assert_eq!(codes[3..6], [json!(121), json!(11000), json!(11000)]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_holds_the_event_as_it_was() -> Outcome {
    let stage = Setting::new().stage().await?;
    let tidegate = stage.launch.start().await?;
    let event = r#"{"collection":"documents", "id":"doc", "update":{"$inc":{"text":1.50}}}"#;
    stage.push([&update("doc", json!({"$set": {"text": "x"}})), event]).await?;
    stage.push([&b"\xffbytes"[..]]).await?;
    stage.settled(&tidegate).await?;
    let mut producer = stage.producer().await?;
    let letters: Vec<String> =
        redis::AsyncCommands::lrange(&mut producer, format!("{}:dead", stage.queue), 0, -1).await?;
    assert!(letters[0].contains(event), "{}", letters[0]);
    assert!(letters[1].contains(r#""event_base64":"/2J5dGVz""#), "{}", letters[1]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_refused_events_is_settled_one_by_one() -> Outcome {
    let stage = Setting::new().stage().await?;
    let events = (0..600)
        .flat_map(|n| [logged("doc", n), update("doc", json!({"$inc": {"log": 1}})), format!("bad {n}")]);
    stage.push(events).await?;
    let tidegate = stage.launch.start().await?;
    stage.settled(&tidegate).await?;
    assert_exact(stage.document("doc").await?.as_ref(), 600);
    assert_eq!(stage.dead_letters().await?.len(), 1200);
    Ok(())
}

/// An upsert that its guard keeps from matching tries to insert, and a validator may be asked before `_id` is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validator_does_not_make_dead_letters_of_what_was_applied() -> Outcome {
    let stage = Setting::new().stage().await?;
    let validator = doc! {"create": "documents", "validator": {"title": {"$exists": true}}};
    stage.database.run_command(validator).await?;
    // What a crash between write and commit leaves: the first event is applied, and still in the queue.
    let (queue, first) = (stage.queue.as_str(), 1_i64 << 36);
    let document = doc! {"_id": "d", "title": "t", "n": 1, "_tidegate": {queue: first}};
    stage.database.collection("documents").insert_one(document).await?;
    stage.database.collection("tidegate").insert_one(doc! {"_id": queue, "epoch": 1_i64}).await?;
    redis::pipe()
        .set(format!("tidegate:{{{queue}}}:base"), first)
        .set(format!("tidegate:{{{queue}}}:read"), first + 2)
        .query_async::<()>(&mut stage.producer().await?)
        .await?;
    let one_more = update("d", json!({"$inc": {"n": 1}}));
    stage.push([one_more.clone(), one_more.clone(), update("other", json!({"$inc": {"n": 1}}))]).await?;

    let tidegate = stage.start().await?;
    stage.settled(&tidegate).await?;
    assert_eq!(number(stage.document("d").await?.expect("it").get("n").expect("n")), 2);
    let letters = stage.dead_letters().await?;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["event"]["id"], "other");
    Ok(())
}

//! Tests events that are no change, or not quite text: what a route skips, and halves of surrogate pairs.

use bson::{Document, doc};
use redis::AsyncCommands;
use serde_json::json;

use crate::stage::{Setting, Stage};
use crate::support::{Metrics, Tidegate};

type Outcome = anyhow::Result<()>;

const SKIPS: &str = "[[routes]]\nwhen = { t = 'PING' }\nskip = true\n[[routes]]\nskip = 'empty'\n\
    [[routes]]\nwhen = { t = 'set' }\ncollection = 'documents'\nid = 'id'\nset = { v = 'v' }\nhistory = 'history'\n";

fn count(metrics: &Metrics, stage: &Stage, name: &str) -> f64 {
    metrics.sum(&format!("tidegate_events_{name}_total"), &[("queue", stage.queue.as_str())])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_route_skips_is_committed_without_a_letter() -> Outcome {
    let stage = Setting::new().with(SKIPS).stage().await?;
    let tidegate = stage.start().await?;
    let set = |v: i32| json!({"t": "set", "id": "d", "v": v}).to_string();
    let ping = json!({"t": "PING", "id": "d", "v": 9}).to_string();
    stage.push([set(1), String::new(), ping.clone(), "null".into(), set(2), ping, " ".into()]).await?;
    let metrics = stage.settled(&tidegate).await?;
    assert_eq!(stage.document("d").await?.expect("the document").get_i32("v")?, 2);
    assert!(stage.dead_letters().await?.is_empty());
    assert_eq!((count(&metrics, &stage, "skipped"), count(&metrics, &stage, "deduplicated")), (5.0, 5.0));
    assert_eq!(stage.database.collection::<Document>("history").count_documents(doc! {}).await?, 2);

    // Nothing but such events is committed, too; and what only looks like one is a dead letter.
    stage.push(["null", "null"]).await?;
    stage.settled(&tidegate).await?;
    stage.push(["nul", "[]"]).await?;
    stage.settled(&tidegate).await?;
    assert_eq!(stage.dead_letters().await?.len(), 2);
    Ok(())
}

/// Pushes events with halves of pairs, and looks at what becomes of them.
async fn halves(stage: &Stage, tidegate: &Tidegate) -> anyhow::Result<Metrics> {
    let events = [
        r#"{"t":"set","id":"d","v":"typed \ud83d"}"#,
        r#"{"t":"set","id":"whole","v":"\ud83d\ude00"}"#,
        r#"{"t":"set","id":"\ud83d","v":1}"#,
        r#"{"t":"set","id":"d","v":{"\ude00":1}}"#,
        r#"{"collection":"documents","id":"n","update":{"$push":{"l":"\ude00!"}}}"#,
    ];
    stage.push(events).await?;
    let metrics = stage.settled(tidegate).await?;
    assert_eq!(stage.document("d").await?.expect("d").get_str("v")?, "typed \u{fffd}");
    assert_eq!(stage.document("whole").await?.expect("whole").get_str("v")?, "\u{1f600}");
    assert_eq!(stage.document("n").await?.expect("n").get_array("l")?, &vec!["\u{fffd}!".into()]);
    Ok(metrics)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_character_is_replaced_in_values_and_counted() -> Outcome {
    let stage = Setting::new().with(SKIPS).stage().await?;
    let tidegate = stage.start().await?;
    let metrics = halves(&stage, &tidegate).await?;
    assert_eq!(count(&metrics, &stage, "mended"), 2.0);
    // The letters and the history keep what was pushed, which few parsers take.
    let letters: Vec<String> = stage.producer().await?.lrange(format!("{}:dead", stage.queue), 0, -1).await?;
    let [id, key] = &*letters else { panic!("{letters:?}") };
    assert!(id.contains(r#""class":"bad-id""#) && id.contains(r#"{"t":"set","id":"\ud83d","v":1}"#), "{id}");
    assert!(key.contains(r#""class":"bad-key""#) && key.contains(r#"{"\ude00":1}"#), "{key}");
    let history = stage.database.collection::<Document>("history");
    let kept = history.find_one(doc! {"id": "d"}).await?.expect("an event");
    assert_eq!(kept.get_str("event")?, r#"{"t":"set","id":"d","v":"typed \ud83d"}"#);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_character_is_replaced_in_streams_too() -> Outcome {
    let stage = Setting::new().with(SKIPS).stream("").stage().await?;
    let tidegate = stage.start().await?;
    let metrics = halves(&stage, &tidegate).await?;
    assert_eq!(count(&metrics, &stage, "mended"), 2.0);
    Ok(())
}

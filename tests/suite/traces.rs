//! Tests W3C trace context: what becomes of an event can be followed by its `traceparent`.

use bson::doc;
use serde_json::{Value, json};

use crate::stage::{PATIENCE, Setting, Stage, number, update};
use crate::support::Tidegate;

type Outcome = anyhow::Result<()>;

const ROUTE: &str = r#"
[[routes]]
when = { type = "TITLE" }
collection = "documents"
id = "id"
set = { title = "title" }
traceparent = "meta.trace"
"#;

/// The trace of one span, by number.
fn trace(n: u8) -> String {
    format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902{n:02x}-01")
}

/// A native event with a trace.
fn traced(id: &str, change: Value, trace: &str) -> String {
    let mut event: Value = serde_json::from_str(&update(id, change)).expect("JSON");
    event["traceparent"] = trace.into();
    event.to_string()
}

/// Lines of the log that say this, from the first to the last.
fn said(tidegate: &Tidegate, message: &str) -> Vec<Value> {
    let lines = tidegate.log();
    let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == message).collect()
}

async fn stage(level: &str) -> anyhow::Result<Stage> {
    let logs = format!("log.level = \"{level}\"\nlog.format = \"json\"\n");
    Setting::new().with(&logs).with(ROUTE).stage().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_logged_with_the_traces_of_its_events() -> Outcome {
    // Nothing else is said at this level, not even of dead letters.
    let stage = stage("info,tidegate::trace=debug").await?;
    stage
        .push([
            traced("one", json!({"$inc": {"n": 1}}), &trace(1)),
            update("one", json!({"$inc": {"n": 1}})),
            traced("one", json!({"$inc": {"n": 1}}), &trace(2)),
            traced("two", json!({"$inc": {"n": 1}}), "no trace"),
            json!({"type": "TITLE", "id": "three", "title": "x", "meta": {"trace": trace(3)}}).to_string(),
            json!({"type": "TITLE", "id": "four", "title": "x", "meta": {"trace": {"$x": 1}}}).to_string(),
            traced("five", json!({"$inc": {"_id": 1}}), &trace(4)),
        ])
        .await?;
    let mut tidegate = stage.launch.start().await?;
    stage.settled(&tidegate).await?;
    // The line is written before the account is settled, and read a little later.
    tidegate.logged(&trace(2), PATIENCE).await?;
    tidegate.logged(&trace(3), PATIENCE).await?;

    let mut lines = said(&tidegate, "written");
    lines.sort_by_key(|line| line["first"].as_i64());
    assert_eq!(lines.len(), 2, "{lines:#?}");
    let first = lines[0]["first"].as_i64().expect("an offset");
    for (line, events, traced, last, traceparents) in [
        (&lines[0], 3, 2, first + 2, format!("{},{}", trace(1), trace(2))),
        (&lines[1], 1, 1, first + 4, trace(3)),
    ] {
        assert_eq!((&line["events"], &line["traced"]), (&json!(events), &json!(traced)));
        assert_eq!((&line["last"], &line["traceparents"]), (&json!(last), &json!(traceparents)));
        assert_eq!((&line["queue"], &line["collection"]), (&json!(stage.queue), &json!("documents")));
        assert_eq!(line["level"], "DEBUG");
    }
    for id in ["two", "four"] {
        assert!(stage.document(id).await?.is_some(), "{id}: what is no trace costs no event");
    }
    assert_eq!(said(&tidegate, "dead letter"), [Value::Null; 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_has_the_trace_of_its_event() -> Outcome {
    let stage = stage("debug").await?;
    stage
        .push([
            // Refused when read, with no trace, with one, and by MongoDB.
            update("one", json!({"$inc": {"_id": 1}})),
            traced("one", json!({"$set": {"a": 1, "a.b": 2}}), &trace(1)),
            json!({"type": "TITLE", "id": {}, "meta": {"trace": trace(2)}}).to_string(),
            traced("one", json!({"$set": {"n": "text"}}), &trace(3)),
            traced("one", json!({"$mul": {"n": 2}}), &trace(4)),
            traced("one", json!({"$unset": {"n": ""}}), &trace(5)),
        ])
        .await?;
    let mut tidegate = stage.launch.start().await?;
    stage.settled(&tidegate).await?;

    let expected = [None, Some(trace(1)), Some(trace(2)), Some(trace(4))];
    let seen = |letters: &[Value]| -> Vec<Option<String>> {
        letters.iter().map(|letter| letter["traceparent"].as_str().map(str::to_owned)).collect()
    };
    let letters = stage.dead_letters().await?;
    assert_eq!(seen(&letters), expected, "{letters:#?}");
    assert!(letters[0].get("traceparent").is_none());
    let (_, mut status) = tidegate.get_json("/status").await?;
    let latest = status["latest_dead_letters"].as_array_mut().expect("letters");
    latest.reverse();
    assert_eq!(seen(latest), expected);
    // MongoDB refused one, and keeps a record.
    let (queue, offset) = (stage.queue.as_str(), letters[3]["offset"].as_i64());
    let records = stage.database.collection::<bson::Document>("tidegate_dead");
    let record = records.find_one(doc! {"_id": {"queue": queue, "offset": offset}}).await?;
    assert_eq!(record.expect("a record").get_str("traceparent")?, trace(4));

    tidegate.logged(&trace(5), PATIENCE).await?;
    let mut lines = said(&tidegate, "dead letter");
    lines.sort_by_key(|line| line["offset"].as_i64());
    assert_eq!(seen(&lines), expected, "{lines:#?}");
    Ok(())
}

/// What a crash between write and commit leaves is told of by whoever finds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_found_is_logged_too() -> Outcome {
    let stage = stage("debug").await?;
    let (queue, first) = (stage.queue.as_str(), 1_i64 << 36);
    let document = doc! {"_id": "one", "n": 1, "_tidegate": {queue: first}};
    stage.database.collection("documents").insert_one(document).await?;
    stage.database.collection("tidegate").insert_one(doc! {"_id": queue, "epoch": 1_i64}).await?;
    redis::pipe()
        .set(format!("tidegate:{{{queue}}}:base"), first)
        .set(format!("tidegate:{{{queue}}}:read"), first + 1)
        .query_async::<()>(&mut stage.producer().await?)
        .await?;
    stage.push([traced("one", json!({"$inc": {"n": 1}}), &trace(1))]).await?;

    let mut tidegate = stage.start().await?;
    stage.settled(&tidegate).await?;
    assert_eq!(number(stage.document("one").await?.expect("it").get("n").expect("n")), 1);
    tidegate.logged(&trace(1), PATIENCE).await?;
    let lines = said(&tidegate, "was written before");
    assert_eq!(lines.len(), 1, "{:#?}", tidegate.log());
    assert_eq!((&lines[0]["traceparents"], &lines[0]["first"]), (&json!(trace(1)), &json!(first)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_info_nothing_is_said_of_traces() -> Outcome {
    let stage = stage("info").await?;
    stage
        .push([
            traced("one", json!({"$inc": {"n": 1}}), &trace(1)),
            traced("one", json!({"$inc": {"_id": 1}}), &trace(2)),
        ])
        .await?;
    let tidegate = stage.launch.start().await?;
    stage.settled(&tidegate).await?;
    assert_eq!(stage.dead_letters().await?[0]["traceparent"], trace(2));
    let log = tidegate.terminate().await?.lines.join("\n");
    assert!(log.contains("\"level\":\"INFO\"") && !log.contains(&trace(1)[..52]), "{log}");
    Ok(())
}

//! Tests numbers that mean nothing here: of another Redis, of another life of the queue, of another id.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use bson::{Bson, Document, doc};
use redis::AsyncCommands;
use serde_json::json;

use crate::receipts::{Listener, events, fate, push_numbered};
use crate::stage::{PATIENCE, Setting, Stage, assert_exact, empty, logged, settled, update};
use crate::support::{Aof, Forge, Launch, Metrics, On, Redis, Tidegate, command_error, push, try_eventually};

type Outcome = anyhow::Result<()>;

/// The queue's first block, with another id.
fn with_id(stage: &Stage, id: &str) -> Launch {
    let queues = format!("[{{ key = {:?}, id = {id:?} }}]", stage.queue);
    stage.launch.clone().env("TIDEGATE_QUEUES", queues)
}

/// Waits until a document has so many events, and asserts that they are exactly these.
async fn until_exact(stage: &Stage, id: &str, events: usize) -> Outcome {
    try_eventually(PATIENCE, "the document to have its events", async || {
        let document = stage.document(id).await?.context("no document")?;
        let count = document.get("count").map(crate::stage::number);
        ensure!(count >= i64::try_from(events).ok(), "{count:?} of {events}");
        Ok(())
    })
    .await?;
    assert_exact(stage.document(id).await?.as_ref(), events);
    Ok(())
}

/// Waits until a daemon says that the queue is in another Redis.
async fn until_told(tidegate: &mut Tidegate) -> Outcome {
    tidegate.logged("another Redis writes under the same id", PATIENCE).await?;
    tidegate.readiness(503, PATIENCE).await?;
    let (_, status) = tidegate.get_json("/status").await?;
    let text = status["summary"]["text"].as_str().context("no summary")?;
    ensure!(text.contains("is not drained: another Redis writes under the same id"), "{text}");
    Ok(())
}

#[tokio::test]
async fn of_two_redis_servers_with_one_id_only_one_is_drained() -> Outcome {
    let stage = Setting::new().stage().await?;
    let first = stage.start().await?;
    stage.push((0..10).map(|n| logged("first", n))).await?;
    stage.settled(&first).await?;
    let mut first = first;

    // The later one is taken for the one that is meant, as after a move to another server.
    let other = Redis::start_with(Aof::Off).await?;
    let mut producer = other.connect().await?;
    push(&mut producer, &stage.queue, (0..10).map(|n| logged("second", n))).await?;
    let second = stage.launch.clone().redis(&other).start().await?;
    settled(&other, &stage.queue, &second).await?;
    until_exact(&stage, "second", 10).await?;

    // The earlier one loses nothing, and says what it waits for.
    until_told(&mut first).await?;
    stage.push((10..20).map(|n| logged("first", n)).chain((0..5).map(|n| logged("both", n)))).await?;
    push(&mut producer, &stage.queue, (5..10).map(|n| logged("second", n + 5))).await?;
    settled(&other, &stage.queue, &second).await?;
    let waiting: usize = stage.producer().await?.llen(&stage.queue).await?;
    ensure!(waiting == 15, "{waiting} wait");
    assert_exact(stage.document("first").await?.as_ref(), 10);

    // An id of its own is the way out.
    let metrics = first.metrics().await?;
    ensure!(metrics.sum("tidegate_events_deduplicated_total", &[("queue", &stage.queue)]) == 0.0);
    first.terminate().await?;
    let first = with_id(&stage, "eu:collab").start().await?;
    stage.settled(&first).await?;
    for (id, events) in [("first", 20), ("both", 5), ("second", 15)] {
        until_exact(&stage, id, events).await?;
    }
    let document = stage.document("first").await?.context("no document")?;
    let watermarks = document.get_document("_tidegate")?;
    ensure!(watermarks.contains_key("eu:collab") && watermarks.contains_key(&stage.queue), "{watermarks}");
    Ok(())
}

#[tokio::test]
async fn an_id_that_is_given_up_is_free_for_the_other_redis() -> Outcome {
    let stage = Setting::new().stage().await?;
    let mut first = stage.start().await?;
    let other = Redis::start_with(Aof::Off).await?;
    let second = stage.launch.clone().redis(&other).start().await?;
    until_told(&mut first).await?;
    stage.push((0..10).map(|n| logged("d", n))).await?;
    second.terminate().await?;
    let second = with_id(&stage, "other").redis(&other).start().await?;
    first.readiness(200, PATIENCE).await?;
    stage.settled(&first).await?;
    until_exact(&stage, "d", 10).await?;
    push(&mut other.connect().await?, &stage.queue, (10..20).map(|n| logged("d", n))).await?;
    settled(&other, &stage.queue, &second).await?;
    until_exact(&stage, "d", 20).await
}

/// Puts the queue back to before its last commit, as a crash right before it leaves it.
async fn uncommit(stage: &Stage, events: &[String]) -> Outcome {
    let mut redis = stage.producer().await?;
    let key = |name: &str| format!("tidegate:{{{}}}:{name}", stage.queue);
    let base: i64 = redis.get(key("base")).await?;
    let first = base - i64::try_from(events.len())?;
    let mut pipe = redis::pipe();
    pipe.atomic();
    for event in events.iter().rev() {
        pipe.cmd("LPUSH").arg(&stage.queue).arg(event).ignore();
    }
    pipe.cmd("SET").arg(key("base")).arg(first).ignore();
    pipe.cmd("DEL").arg(key("head")).ignore();
    pipe.exec_async(&mut redis).await?;
    Ok(())
}

#[tokio::test]
async fn what_was_read_under_a_former_id_is_settled_under_that() -> Outcome {
    let stage = Setting::new().stage().await?;
    let first = stage.start().await?;
    let events: Vec<_> = (0..10).map(|n| logged("d", n)).collect();
    stage.push(&events).await?;
    stage.settled(&first).await?;
    first.terminate().await?;
    uncommit(&stage, &events).await?;
    stage.push((10..15).map(|n| logged("d", n))).await?;

    let mut second = with_id(&stage, "other").start().await?;
    second.logged("settled; going on under the one it has now", PATIENCE).await?;
    let metrics = stage.settled(&second).await?;
    until_exact(&stage, "d", 15).await?;
    let sum = |name: &str| metrics.sum(name, &[("queue", &stage.queue)]);
    ensure!(sum("tidegate_events_deduplicated_total") == 10.0);
    let watermarks = stage.document("d").await?.context("no document")?.get_document("_tidegate")?.clone();
    ensure!(watermarks.contains_key("other"), "{watermarks}");
    let records = stage.database.collection::<Document>("tidegate");
    let former = records.find_one(doc! {"_id": &stage.queue}).await?.context("no record")?;
    ensure!(!former.contains_key("identity"), "the former id is given up: {former}");
    Ok(())
}

#[tokio::test]
async fn a_redis_that_lost_everything_is_a_new_one() -> Outcome {
    let stage = Setting::new().own_fast_servers().stage().await?;
    let tidegate = stage.start().await?;
    stage.push((0..10).map(|n| logged("d", n))).await?;
    stage.settled(&tidegate).await?;
    redis::cmd("FLUSHALL").exec_async(&mut stage.producer().await?).await?;
    stage.push((10..20).map(|n| logged("d", n))).await?;
    empty(&stage.redis, &stage.queue).await?;
    until_exact(&stage, "d", 20).await?;
    stage.settled(&tidegate).await?;
    Ok(())
}

fn held(queue: &str) -> impl Fn(&Metrics) -> Outcome + '_ {
    move |metrics| {
        ensure!(metrics.sum("tidegate_lease_held", &[("queue", queue)]) == 1.0, "the queue is not owned");
        Ok(())
    }
}

#[tokio::test]
async fn epochs_of_a_queue_that_nobody_knows_begin_anywhere() -> Outcome {
    let stage = Setting::new().another_queue("other").stage().await?;
    let tidegate = stage.start().await?;
    tidegate.metrics_when(PATIENCE, "the other queue to be owned", held("other")).await?;
    let metrics = tidegate.metrics().await?;
    let epoch = |queue: &str| metrics.sum("tidegate_epoch", &[("queue", queue)]);
    let epochs = [epoch(&stage.queue), epoch("other")];
    ensure!(epochs[0] != epochs[1], "{epochs:?}");
    ensure!(epochs.iter().all(|epoch| (1.0..=1_048_576.0 + 100.0).contains(epoch)), "{epochs:?}");
    Ok(())
}

/// Above any number with which a queue begins.
const LATER: i64 = 1 << 21;

/// Makes a document with something in the place of the queue's watermark.
async fn marked(stage: &Stage, id: &str, watermark: impl Into<Bson>) -> Outcome {
    let document = doc! { "_id": id, "before": true, "_tidegate": { &stage.queue: watermark.into() } };
    stage.database.collection("documents").insert_one(document).await?;
    Ok(())
}

fn deduplicated(stage: &Stage, metrics: &Metrics) -> f64 {
    metrics.sum("tidegate_events_deduplicated_total", &[("queue", &stage.queue)])
}

#[tokio::test]
async fn a_watermark_of_another_numbering_proves_nothing() -> Outcome {
    let stage = Setting::new().with("receipts.enabled = true\n").stage().await?;
    // A database that was copied without the collection `tidegate`.
    let ids: Vec<_> = (0..10).map(|n| format!("d{n}")).collect();
    for id in ids.iter().map(String::as_str).chain(["replaced", "deleted", "refused"]) {
        marked(&stage, id, (LATER << 36) + 17).await?;
    }
    let set = doc! {"$set": {"text": "no number"}};
    stage.database.collection::<Document>("documents").update_one(doc! {"_id": "refused"}, set).await?;
    let mut tidegate = stage.start().await?;
    stage.push(ids.iter().flat_map(|id| (0..3).map(move |n| logged(id, n)))).await?;
    stage
        .push([
            json!({"collection": "documents", "id": "replaced", "replace": {"n": 1}}).to_string(),
            json!({"collection": "documents", "id": "deleted", "delete": true}).to_string(),
            update("refused", json!({"$inc": {"text": 1}})),
            update("refused", json!({"$set": {"n": 1}})),
        ])
        .await?;
    let metrics = stage.settled(&tidegate).await?;
    ensure!(deduplicated(&stage, &metrics) == 0.0);
    for id in &ids {
        assert_exact(stage.document(id.as_str()).await?.as_ref(), 3);
    }
    let replaced = stage.document("replaced").await?.context("no document")?;
    ensure!(replaced.get("n").map(crate::stage::number) == Some(1) && !replaced.contains_key("before"));
    ensure!(stage.document("deleted").await?.is_none(), "it is not deleted");
    let refused = stage.document("refused").await?.context("no document")?;
    ensure!(refused.get("n").map(crate::stage::number) == Some(1), "{refused}");
    ensure!(stage.dead_letters().await?.len() == 1, "one is refused");
    tidegate.logged("watermarks of another numbering", PATIENCE).await?;
    let told = tidegate.log().iter().filter(|line| line.contains("of another numbering")).count();
    ensure!(told == 1, "it is told {told} times");
    tidegate.terminate().await?;

    // The next numbering is above it.
    let tidegate = stage.start().await?;
    ensure!(tidegate.metrics().await?.sum("tidegate_epoch", &[("queue", &stage.queue)]) > LATER as f64);
    marked(&stage, "more", (LATER << 36) + 17).await?;
    stage.push((0..3).map(|n| logged("more", n))).await?;
    stage.settled(&tidegate).await?;
    assert_exact(stage.document("more").await?.as_ref(), 3);
    ensure!(!tidegate.log().iter().any(|line| line.contains("of another numbering")));
    Ok(())
}

#[tokio::test]
async fn a_watermark_of_any_type_holds_nothing_up() -> Outcome {
    let stage = Setting::new().stage().await?;
    let later = (LATER << 36) as f64;
    let decimal = |text: &str| Bson::Decimal128(text.parse().expect("a decimal"));
    let values = [
        Bson::Double(later),
        Bson::Double(1.5),
        Bson::Double(f64::INFINITY),
        Bson::Double(1e300),
        decimal("144115188075855872"),
        decimal("1E+40"),
        Bson::Int64(i64::MAX),
        Bson::Int32(7),
        Bson::Null,
        "text".into(),
        Bson::Boolean(true),
        Bson::Document(doc! {"a": 1}),
        Bson::Array(vec![Bson::Int64(i64::MAX), Bson::Int64(1)]),
        Bson::MaxKey,
        Bson::DateTime(bson::DateTime::now()),
    ];
    for (n, value) in values.iter().enumerate() {
        marked(&stage, &n.to_string(), value.clone()).await?;
    }
    let mut tidegate = stage.start().await?;
    for n in 0..values.len() {
        stage.push((0..3).map(|event| logged(&n.to_string(), event))).await?;
    }
    let metrics = stage.settled(&tidegate).await?;
    ensure!(deduplicated(&stage, &metrics) == 0.0);
    for (n, value) in values.iter().enumerate() {
        println!("{value}");
        let document = stage.document(n.to_string()).await?;
        assert_exact(document.as_ref(), 3);
        let watermark =
            document.as_ref().map(|document| document.get_document("_tidegate")?.get_i64(&stage.queue));
        ensure!(matches!(watermark, Some(Ok(_))), "{watermark:?}");
    }
    tidegate.logged("they do not count", PATIENCE).await?;
    tidegate.terminate().await?;
    // Rubbish has used no numbers up.
    let tidegate = stage.start().await?;
    ensure!(tidegate.metrics().await?.sum("tidegate_epoch", &[("queue", &stage.queue)]) < f64::from(1 << 26));
    Ok(())
}

#[tokio::test]
async fn a_watermark_that_another_program_stored_as_a_double_counts() -> Outcome {
    let stage = Setting::new().stage().await?;
    let tidegate = stage.start().await?;
    let events: Vec<_> = (0..10).map(|n| logged("d", n)).collect();
    stage.push(&events).await?;
    stage.settled(&tidegate).await?;
    tidegate.terminate().await?;
    uncommit(&stage, &events).await?;
    let path = format!("_tidegate.{}", stage.queue);
    let document = stage.document("d").await?.context("no document")?;
    let watermark = document.get_document("_tidegate")?.get_i64(&stage.queue)?;
    let decimal: bson::Decimal128 = format!("{watermark}.0").parse()?;
    let set = doc! {"$set": {path: decimal}};
    stage.database.collection::<Document>("documents").update_one(doc! {"_id": "d"}, set).await?;
    let tidegate = stage.start().await?;
    let metrics = stage.settled(&tidegate).await?;
    ensure!(deduplicated(&stage, &metrics) == 10.0);
    assert_exact(stage.document("d").await?.as_ref(), 10);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_over_a_strange_watermark_is_made_once_though_its_reply_is_lost() -> Outcome {
    let mut stage = Setting::new().stage().await?;
    let forge = Forge::start(&stage.mongo).await?;
    stage.launch = stage.launch.env("TIDEGATE_MONGODB__URI", forge.uri());
    marked(&stage, "d", LATER << 36).await?;
    let tidegate = stage.start().await?;
    let path = format!("_tidegate.{}", stage.queue);
    let exactly = Bson::Int64(LATER << 36);
    let rule = forge.rule(
        On::command("update")
            .collection("documents")
            .when(move |command| {
                let updates =
                    command.get_array("updates").into_iter().flatten().filter_map(Bson::as_document);
                let mut filters = updates.filter_map(|update| update.get_document("q").ok());
                filters.any(|filter| filter.get(&path) == Some(&exactly))
            })
            .times(1)
            .close_after(),
    );
    stage.push((0..5).map(|n| logged("d", n))).await?;
    rule.hit(1, PATIENCE).await?;
    let metrics = stage.settled(&tidegate).await?;
    assert_exact(stage.document("d").await?.as_ref(), 5);
    ensure!(deduplicated(&stage, &metrics) == 5.0, "it is found again");
    Ok(())
}

/// How often each event of `logged` is in a document's log.
async fn counts(stage: &Stage, id: &str) -> anyhow::Result<BTreeMap<i64, usize>> {
    let document = stage.document(id).await?.context("no document")?;
    let mut counts = BTreeMap::new();
    for n in document.get_array("log")? {
        *counts.entry(crate::stage::number(n)).or_default() += 1;
    }
    Ok(counts)
}

/// A copy of a Redis that goes on by itself, as one that took the place of a primary which was cut off.
async fn promoted(redis: &Redis) -> anyhow::Result<Redis> {
    let copy = Redis::start_with(Aof::Off).await?;
    let mut connection = copy.connect().await?;
    let address = redis.address()?;
    redis::cmd("REPLICAOF")
        .arg(address.ip().to_string())
        .arg(address.port())
        .exec_async(&mut connection)
        .await?;
    try_eventually(PATIENCE, "the copy to be made", async || {
        let info: String =
            redis::cmd("INFO").arg("replication").query_async(&mut copy.connect().await?).await?;
        ensure!(info.contains("master_link_status:up"), "{info}");
        Ok(())
    })
    .await?;
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec_async(&mut connection).await?;
    Ok(copy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_primary_that_was_cut_off_has_is_told_durable_only_if_it_is() -> Outcome {
    let stage = Setting::new().own_fast_servers().forged().with("receipts.enabled = true\n").stage().await?;
    let mut first = stage.start().await?;
    let mut listener = Listener::new(&stage).await?;
    let mut producer = stage.producer().await?;
    let mut offsets = Vec::new();
    for n in 0..10 {
        offsets.push(push_numbered(&mut producer, &stage.queue, &logged("d", n)).await?);
    }
    stage.settled(&first).await?;
    listener.until("ten events", |heard| events(heard) == 10).await?;
    assert_eq!(fate(&first, &stage.queue, offsets[9], "").await?, "durable");
    // From now on it can write and read, but takes no queue over.
    let refusal = command_error(13, "Unauthorized", "not authorized");
    let takeovers = stage.forge().rule(On::command("update").collection("tidegate").answer(refusal));
    let other = promoted(&stage.redis).await?;
    let second = stage.launch.clone().redis(&other).env("TIDEGATE_MONGODB__URI", stage.mongo.uri());
    let second = second.start().await?;
    push(&mut other.connect().await?, &stage.queue, (10..20).map(|n| logged("d", n))).await?;
    settled(&other, &stage.queue, &second).await?;

    // Its producers do not know that it was cut off; nor does its owner, at first.
    for n in 20..30 {
        offsets.push(push_numbered(&mut producer, &stage.queue, &logged("d", n)).await?);
    }
    first.logged("MongoDB knows of a later owner", PATIENCE).await?;
    try_eventually(PATIENCE, "MongoDB to deny the owner", async || {
        let state = fate(&first, &stage.queue, offsets[9], "").await?;
        ensure!(state == "unknown", "{state}");
        Ok(())
    })
    .await?;
    assert_eq!(
        fate(&second, &stage.queue, offsets[9], "").await?,
        "durable",
        "the promoted one has its word"
    );
    for offset in &offsets[10..] {
        assert_eq!(fate(&first, &stage.queue, *offset, "").await?, "pending");
    }
    ensure!(counts(&stage, "d").await?.keys().copied().eq(0..20), "nothing is written of a former owner");
    let mark = json!({"queue": stage.queue, "mark": true}).to_string();
    let () = producer.publish("tidegate:mark", mark).await?;
    listener.until("the mark", |heard| heard.iter().any(|(channel, _)| channel == "tidegate:mark")).await?;
    ensure!(events(&listener.heard) == 10, "no receipt tells of them: {:?}", listener.heard);

    // Whoever brings the two together again has both.
    second.terminate().await?;
    takeovers.remove();
    for (n, offset) in (20..).zip(&offsets[10..]) {
        try_eventually(PATIENCE, "the event to be durable", async || {
            let state = fate(&first, &stage.queue, *offset, "?wait=5s").await?;
            ensure!(state == "durable", "{state}");
            Ok(())
        })
        .await?;
        ensure!(counts(&stage, "d").await?.contains_key(&n), "{n} is told to be durable");
    }
    listener.until("twenty events", |heard| events(heard) == 20).await?;
    ensure!(counts(&stage, "d").await?.into_iter().eq((0..30).map(|n| (n, 1))), "each is there once");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_told_durable_while_mongodb_does_not_say_whose_the_queue_is() -> Outcome {
    let stage = Setting::new().forged().stage().await?;
    let tidegate = stage.start().await?;
    let mut producer = stage.producer().await?;
    let offset = push_numbered(&mut producer, &stage.queue, &logged("d", 0)).await?;
    stage.settled(&tidegate).await?;
    assert_eq!(fate(&tidegate, &stage.queue, offset, "").await?, "durable");
    let silence = stage.forge().rule(On::command("find").collection("tidegate").hold_request());
    let path = format!("/durable/{}/{offset}", stage.queue);
    try_eventually(PATIENCE, "the last word to be too old", async || {
        let (code, told) = tidegate.get_json(&path).await?;
        ensure!(code == 503 && told["error"].as_str().is_some_and(|text| text.contains("MongoDB")), "{told}");
        Ok(())
    })
    .await?;
    silence.remove();
    try_eventually(PATIENCE, "MongoDB to answer", async || {
        ensure!(fate(&tidegate, &stage.queue, offset, "").await? == "durable");
        Ok(())
    })
    .await
}

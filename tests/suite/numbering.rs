//! Numbers that mean nothing here: of another Redis, of another life of the queue, of another id.

use anyhow::{Context, ensure};
use bson::doc;
use redis::AsyncCommands;

use crate::stage::{PATIENCE, Setting, Stage, assert_exact, empty, logged, settled};
use crate::support::{Aof, Launch, Metrics, Redis, Tidegate, push, try_eventually};

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
    let records = stage.database.collection::<bson::Document>("tidegate");
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

//! Tests hot states: hashes in Redis that gateways fill from MongoDB, and that follow what is written.

mod filler;
mod follows;
mod load;
mod takeovers;

use std::time::Duration;

use anyhow::{Context, ensure};
use redis::AsyncCommands;
use serde_json::json;

use self::filler::{Filler, keys, shown};
use crate::stage::{PATIENCE, Setting, Stage, logged, update};
use crate::support::{Metrics, push, unique};

type Outcome = anyhow::Result<()>;

const TTL: Duration = Duration::from_secs(600);

const ROUTES: &str = r#"
[[routes]]
when = { type = "TOUCH" }
collection = "documents"
id = "id"
inc = { touches = 1 }
hot_state = { ttl = "10m" }
"#;

async fn stage() -> anyhow::Result<(Stage, Filler)> {
    let stage = Setting::new().with(ROUTES).stage().await?;
    let filler = Filler::new(stage.producer().await?, &stage.database, TTL);
    Ok((stage, filler))
}

fn outcomes(metrics: &Metrics, outcome: &str) -> f64 {
    metrics.sum("tidegate_hot_states_total", &[("collection", "documents"), ("outcome", outcome)])
}

/// Asserts that a document's hot state, if there is one, is the document. Whether there is one.
async fn assert_fresh(filler: &mut Filler, id: &str) -> anyhow::Result<bool> {
    let Some(state) = filler.state(id).await? else { return Ok(false) };
    let document =
        filler.read(id).await?.with_context(|| format!("{id} has a hot state and is no document"))?;
    assert_eq!(state, shown(&document), "{id}: {:?}", filler.fields(id).await?);
    Ok(true)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_writes_are_applied_and_others_delete() -> Outcome {
    let (stage, mut filler) = stage().await?;
    let tidegate = stage.start().await?;
    let odd = json!({"x.y": 1, "z": 2});
    let start =
        json!({"a": {"b": 1, "c": {}}, "l": [], "n": 5, "d": 2.0, "s": "5", "odd": odd, "gone": {"only": 1}});
    let exact = [
        json!({"$set": {"a.b": {"x": {"y": 1}, "z": []}}}),
        json!({"$set": {"a.c.d.e": "in an empty object"}}),
        json!({"$set": {"a": {}, "l": {}}}),
        json!({"$unset": {"gone.only": "", "a.none": "", "a.c.none": "", "no.thing": ""}}),
        json!({"$unset": {"a": "", "gone": ""}}),
        json!({"$unset": {"a.b": "", "a.c": ""}}),
        json!({"$inc": {"n": 1_i64 << 60, "a.new.er": -7}}),
        json!({"$push": {"l": {"$each": []}, "a.c.l": 1}}),
        json!({"$push": {"l": {"x": [1, "]"]}}}),
        json!({"$push": {"l": {"$each": ["a", {}]}}, "$set": {"n": null}}),
        json!({"$setOnInsert": {"n": 1}, "$set": {"0": {"1": 2}}}),
        json!({"$set": {"odd": 1}}),
        json!({"$set": {"odd": {"z": {"x.y": 1}, "a": {}}}}),
        json!({"$unset": {"odd": ""}}),
    ];
    let inexact = [
        json!({"$inc": {"d": 1}}),
        json!({"$inc": {"n": 0.5}}),
        json!({"$set": {"odd.z": 1}}),
        json!({"$unset": {"odd.z": ""}}),
        json!({"$addToSet": {"l": 1}}),
        json!({"$set": {"l.0": 1}}),
        json!({"$min": {"n": 1}}),
        json!({"$rename": {"n": "m"}}),
        json!({"$currentDate": {"at": true}}),
    ];
    let cases = exact.iter().map(|case| (case, true)).chain(inexact.iter().map(|case| (case, false)));
    for (n, (case, stays)) in cases.enumerate() {
        let id = format!("case{n}");
        let replace = json!({"collection": "documents", "id": id, "replace": start}).to_string();
        stage.push([replace]).await?;
        stage.settled(&tidegate).await?;
        ensure!(filler.fill(&id).await?, "{id} was not filled");
        // A first write after the fill, and another one.
        for _ in 0..2 {
            stage.push([update(&id, case.clone())]).await?;
            stage.settled(&tidegate).await?;
            assert_eq!(assert_fresh(&mut filler, &id).await?, stays, "{case}");
        }
    }
    assert!(stage.dead_letters().await?.is_empty(), "{:?}", stage.dead_letters().await?);

    // The document as a whole.
    ensure!(filler.fill("case0").await?);
    let replace = json!({"collection": "documents", "id": "case0", "replace": {"x": {"y": 1}}}).to_string();
    stage.push([replace]).await?;
    stage.settled(&tidegate).await?;
    ensure!(assert_fresh(&mut filler, "case0").await?);
    stage.push([json!({"collection": "documents", "id": "case0", "delete": true}).to_string()]).await?;
    stage.settled(&tidegate).await?;
    assert_eq!(filler.state("case0").await?, None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tidegate_makes_no_state_of_its_own() -> Outcome {
    let (stage, mut filler) = stage().await?;
    let tidegate = stage.start().await?;
    let id = unique("alone");
    stage.push((0..100).map(|n| logged(&id, n))).await?;
    let metrics = stage.settled(&tidegate).await?;
    assert!(filler.fields(&id).await?.is_empty());
    let there: usize = stage.producer().await?.exists(&[keys(&id).0, keys(&id).1]).await?;
    assert_eq!(there, 0);
    assert_eq!(["applied", "deleted", "skipped"].map(|outcome| outcomes(&metrics, outcome)), [0.0; 3]);

    // Something else that has the name is no hash.
    let () = stage.producer().await?.set(keys(&id).0, "text").await?;
    stage.push([logged(&id, 100)]).await?;
    stage.settled(&tidegate).await?;
    let there: bool = stage.producer().await?.exists(keys(&id).0).await?;
    assert!(!there);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_before_a_write_is_not_filled_after_it() -> Outcome {
    let (stage, mut filler) = stage().await?;
    let tidegate = stage.start().await?;
    stage.push([logged("a", 0)]).await?;
    stage.settled(&tidegate).await?;

    let token = filler.token("a").await?.context("nobody else fills")?;
    assert_eq!(filler.token("a").await?, None, "one at a time");
    let old = filler.read("a").await?.context("the document")?;
    stage.push([logged("a", 1)]).await?;
    stage.settled(&tidegate).await?;
    assert!(!filler.put("a", &token, &old).await?, "what is filled lacks a write");
    assert_eq!(filler.state("a").await?, None);

    // The same for a deletion.
    let token = filler.token("a").await?.context("the write has ended the other's")?;
    let old = filler.read("a").await?.context("the document")?;
    stage.push([json!({"collection": "documents", "id": "a", "delete": true}).to_string()]).await?;
    stage.settled(&tidegate).await?;
    assert!(!filler.put("a", &token, &old).await?);

    stage.push([logged("a", 0)]).await?;
    stage.settled(&tidegate).await?;
    assert!(filler.fill("a").await?);
    assert!(assert_fresh(&mut filler, "a").await?);
    Ok(())
}

/// Neighbours in a stream have offsets that no double tells apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_compared_to_their_last_digit() -> Outcome {
    let stage = Setting::new().stream("").with(ROUTES).stage().await?;
    let mut filler = Filler::new(stage.producer().await?, &stage.database, TTL);
    let tidegate = stage.start().await?;
    stage.push([update("a", json!({"$set": {"n": 0}}))]).await?;
    stage.settled(&tidegate).await?;
    ensure!(filler.fill("a").await?);
    // What sets a field does not fold into what adds to it: each pair opens a write of its own.
    let pair = |n: usize| {
        let field = format!("f{n}");
        let [add, set] = [json!({"$inc": {&field: 1}}), json!({"$set": {&field: 10 * n}})];
        [update("a", add), update("a", set)]
    };
    stage.push((0..10).flat_map(pair)).await?;
    let metrics = stage.settled(&tidegate).await?;
    assert!(assert_fresh(&mut filler, "a").await?);
    assert!(outcomes(&metrics, "applied") >= 11.0);
    assert_eq!(["skipped", "deleted"].map(|outcome| outcomes(&metrics, outcome)), [0.0; 2]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_is_not_in_the_state_and_its_neighbours_are() -> Outcome {
    let (stage, mut filler) = stage().await?;
    let tidegate = stage.start().await?;
    stage.push([logged("a", 0), update("a", json!({"$set": {"text": "x"}}))]).await?;
    stage.settled(&tidegate).await?;
    ensure!(filler.fill("a").await?);
    let refused = || update("a", json!({"$inc": {"text": 1}}));
    stage.push([logged("a", 1), refused(), logged("a", 2), refused(), logged("a", 3)]).await?;
    let metrics = stage.settled(&tidegate).await?;
    assert_eq!(stage.dead_letters().await?.len(), 2);
    assert!(assert_fresh(&mut filler, "a").await?);
    assert_eq!(filler.state("a").await?.context("a state")?["count"], 4);
    assert_eq!(outcomes(&metrics, "deleted"), 0.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_lives_no_longer_for_being_written() -> Outcome {
    let (stage, mut filler) = stage().await?;
    let tidegate = stage.start().await?;
    stage.push([logged("a", 0), logged("b", 0)]).await?;
    stage.settled(&tidegate).await?;
    let mut redis = stage.producer().await?;
    let whole = |id: &str| json!({"collection": "documents", "id": id, "replace": {"x": 1}}).to_string();
    for (n, write) in [logged("a", 1), whole("a"), logged("b", 1)].into_iter().enumerate() {
        let id = if n == 2 { "b" } else { "a" };
        let () = redis.del(keys(id).0).await?;
        ensure!(filler.fill(id).await?);
        // As if it had been filled a while ago; never to end; and for longer than it may.
        let set: bool = match n {
            0 | 1 => redis.pexpire(keys(id).0, 100_000).await?,
            _ => redis.persist(keys(id).0).await?,
        };
        ensure!(set, "{id} is there");
        stage.push([write]).await?;
        stage.settled(&tidegate).await?;
        ensure!(assert_fresh(&mut filler, id).await?);
        let (left, most) = (filler.left(id).await?, if n == 2 { 600_000 } else { 100_000 });
        assert!((1..=most).contains(&left), "{n}: {left} ms");
    }
    let set: bool = redis.pexpire(keys("b").0, 700_000).await?;
    ensure!(set, "it is there");
    stage.push([logged("b", 2)]).await?;
    stage.settled(&tidegate).await?;
    assert!((1..=600_000).contains(&filler.left("b").await?));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_queues_write_to_has_a_state_until_the_next_write() -> Outcome {
    let other = unique("other");
    let stage = Setting::new().another_queue(&other).with(ROUTES).stage().await?;
    let mut filler = Filler::new(stage.producer().await?, &stage.database, TTL);
    let tidegate = stage.start().await?;
    let other_pushes = async |events: Vec<String>| {
        push(&mut stage.producer().await?, &other, events).await?;
        crate::stage::settled(&stage.redis, &other, &tidegate).await.map(drop)
    };
    stage.push([update("a", json!({"$set": {"mine": 1}}))]).await?;
    stage.settled(&tidegate).await?;
    for filled_by_both in [false, true] {
        ensure!(filler.fill("a").await?);
        // The hash has this queue's mark, and no other's yet.
        if !filled_by_both {
            stage.push([update("a", json!({"$set": {"mine": 2}}))]).await?;
            stage.settled(&tidegate).await?;
            ensure!(assert_fresh(&mut filler, "a").await?);
        }
        other_pushes(vec![update("a", json!({"$set": {"theirs": 1}}))]).await?;
        assert_eq!(filler.state("a").await?, None);
        ensure!(filler.fill("a").await?);
        stage.push([update("a", json!({"$set": {"mine": 3}}))]).await?;
        stage.settled(&tidegate).await?;
        assert_eq!(filler.state("a").await?, None);
    }
    Ok(())
}

/// More documents, and more to write to them, than one call of a script takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_and_large_states_are_refreshed_in_several_calls() -> Outcome {
    let (stage, mut filler) = stage().await?;
    let tidegate = stage.start().await?;
    let ids: Vec<String> = (0..700).map(|n| format!("doc{n}")).collect();
    stage.push(ids.iter().map(|id| logged(id, 0))).await?;
    stage.settled(&tidegate).await?;
    for id in &ids {
        ensure!(filler.fill(id).await?);
    }
    let text = "x".repeat(10_000);
    let large = |id: &String| update(id, json!({"$set": {"text": text}, "$inc": {"count": 1}}));
    stage.push(ids.iter().map(large)).await?;
    let metrics = stage.settled(&tidegate).await?;
    assert_eq!(outcomes(&metrics, "applied"), 700.0);
    for id in &ids {
        ensure!(assert_fresh(&mut filler, id).await?, "{id} is gone");
    }
    // One that is too large for any call.
    stage.push([update("doc0", json!({"$set": {"text": "x".repeat(2 << 20)}}))]).await?;
    stage.settled(&tidegate).await?;
    assert_eq!(filler.state("doc0").await?, None);
    // And one that has too many fields to be looked at.
    for (fields, stays) in [(9_000, true), (10_001, false)] {
        let many: serde_json::Map<_, _> = (0..fields).map(|n| (format!("f{n}"), json!(n))).collect();
        stage.push([json!({"collection": "documents", "id": "many", "replace": many}).to_string()]).await?;
        stage.settled(&tidegate).await?;
        let () = stage.producer().await?.del(keys("many").0).await?;
        ensure!(filler.fill("many").await?);
        stage.push([update("many", json!({"$set": {"f7": "x"}}))]).await?;
        stage.settled(&tidegate).await?;
        assert_eq!(assert_fresh(&mut filler, "many").await?, stays, "{fields} fields");
    }
    Ok(())
}

/// Where memory is used up, writes are refreshed all the same: the queue must drain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_are_refreshed_by_a_redis_that_is_full() -> Outcome {
    let mut stage = Setting::new().own_fast_servers().with(ROUTES).stage().await?;
    let mut filler = Filler::new(stage.producer().await?, &stage.database, TTL);
    let tidegate = stage.start().await?;
    stage.push([logged("a", 0)]).await?;
    stage.settled(&tidegate).await?;
    ensure!(filler.fill("a").await?);
    // Full between the write and what follows from it.
    stage.mongo.pause()?;
    stage.push([logged("a", 1)]).await?;
    let read = |metrics: &Metrics| {
        ensure!(metrics.sum("tidegate_events_received_total", &[]) == 2.0);
        Ok(())
    };
    tidegate.metrics_when(PATIENCE, "the event to be read", read).await?;
    let mut full = redis::cmd("CONFIG");
    let () = full.arg("SET").arg("maxmemory").arg("1").query_async(&mut stage.producer().await?).await?;
    stage.mongo.resume()?;
    stage.settled(&tidegate).await?;
    assert!(assert_fresh(&mut filler, "a").await?);
    assert_eq!(filler.state("a").await?.context("a state")?["count"], 2);
    Ok(())
}

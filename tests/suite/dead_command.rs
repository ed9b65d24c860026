//! Tests `tidegate dead`: what it tells of letters, and that each it changes is changed once, wherever it is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bson::doc;
use redis::AsyncCommands;
use serde_json::{Value, json};

use crate::stage::{PATIENCE, Setting, Stage, update};
use crate::support::{
    Cluster, ClusterClient, Launch, Mongo, Process, push, tidegate_command, try_eventually, unique,
};

type Outcome = anyhow::Result<()>;

/// What the command prints, and its exit code.
pub(crate) async fn dead(stage: &Stage, arguments: &[&str]) -> anyhow::Result<(String, i32)> {
    told(&stage.launch, arguments).await
}

async fn told(launch: &Launch, arguments: &[&str]) -> anyhow::Result<(String, i32)> {
    let launch = arguments.iter().fold(launch.clone().arg("dead"), |launch, argument| launch.arg(*argument));
    let exited = launch.until_exit(PATIENCE).await?;
    Ok((exited.lines.join("\n"), exited.status.code().unwrap_or(-1)))
}

/// The same, where it must do all of it.
pub(crate) async fn done(stage: &Stage, arguments: &[&str]) -> anyhow::Result<String> {
    let (told, code) = dead(stage, arguments).await?;
    ensure!(code == 0, "{arguments:?} ended with {code}: {told}");
    Ok(told)
}

pub(crate) async fn elements(stage: &Stage, key: &str) -> anyhow::Result<Vec<String>> {
    Ok(stage.producer().await?.lrange(key, 0, -1).await?)
}

/// Has the daemon make dead letters of events, and ends it.
async fn bury(stage: &Stage, events: &[String]) -> Outcome {
    let tidegate = stage.start().await?;
    stage.push(events).await?;
    stage.settled(&tidegate).await?;
    tidegate.terminate().await?;
    Ok(())
}

/// A letter as the daemon makes it.
pub(crate) fn letter(queue: &str, offset: usize, event: &str) -> String {
    format!(
        r#"{{"event":{event},"reason":"told","class":"bad-id","offset":{offset},"queue":"{queue}","at":"2026-01-02T03:04:05.678Z"}}"#
    )
}

fn offset(letter: &Value) -> String {
    letter["offset"].to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_counted_listed_and_shown() -> Outcome {
    let stage = Setting::new().stage().await?;
    let odd = r#"{"collection":"documents", "id":"d1","update":{"$set":{"n":10.0,"_id":1e2}}}"#;
    bury(
        &stage,
        &[
            odd.into(),
            "{".into(),
            "\u{1}".into(),
            r#"{"collection":"nowhere","id":"x","delete":true}"#.into(),
        ],
    )
    .await?;
    let letters = stage.dead_letters().await?;
    assert_eq!(letters.len(), 4);

    let stats: Value = serde_json::from_str(&done(&stage, &["stats", "--json"]).await?)?;
    let class = json!({"protected-field": 1, "not-json": 2, "unknown-collection": 1});
    assert_eq!((&stats[0]["letters"], &stats[0]["class"]), (&json!(4), &class));
    assert!(done(&stage, &["stats"]).await?.contains("2  not-json"));

    let listed = done(&stage, &["list", "--json", "--class", "not-json"]).await?;
    let listed: Vec<Value> = listed.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(listed.iter().map(offset).collect::<Vec<_>>(), [offset(&letters[1]), offset(&letters[2])]);
    let page = done(&stage, &["list", "--limit", "3", "--page", "2"]).await?;
    assert!(page.contains("4 to 4 of 4 dead letters") && page.contains("unknown-collection"), "{page}");
    for (filter, left) in [
        (["--reason", "nowhere"], "1 dead letter"),
        (["--since", "1h"], "4 dead letters"),
        (["--until", "1h"], "none of 0 dead letters"),
        (["--collection", "documents"], "none of 0 dead letters"),
    ] {
        let told = done(&stage, &["list", filter[0], filter[1]]).await?;
        assert!(told.ends_with(left), "{filter:?}: {told}");
    }

    let shown = done(&stage, &["show", &offset(&letters[0])]).await?;
    assert!(shown.contains(odd) && shown.contains("class   protected-field"), "{shown}");
    assert!(
        shown.contains("now: a native event") || shown.contains("  dead letter: protected-field"),
        "{shown}"
    );
    assert_eq!(done(&stage, &["show", &offset(&letters[0]), "--event"]).await?, odd);
    let (told, code) = dead(&stage, &["show", "7"]).await?;
    assert!(code == 1 && told.contains("no dead letter has the offset 7"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_go_back_as_they_came() -> Outcome {
    let stage = Setting::new().stage().await?;
    let events: Vec<String> = [
        r#"{"collection":"nowhere", "id":1,"update":{"$set":{"n":10.0,"m":1e2}}}"#,
        "{ not json",
        "\"\\ud83d\"",
        "a\u{7}b",
    ]
    .map(str::to_owned)
    .into();
    bury(&stage, &events).await?;
    let told = done(&stage, &["replay", "--dry-run"]).await?;
    assert!(told.contains("4 dead letters would be replayed"), "{told}");
    assert_eq!(elements(&stage, &format!("{}:dead", stage.queue)).await?.len(), 4);
    done(&stage, &["replay"]).await?;
    assert_eq!(elements(&stage, &stage.queue).await?, events);
    assert!(elements(&stage, &format!("{}:dead", stage.queue)).await?.is_empty());
    Ok(())
}

/// A letter's event would overwrite what is newer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_document_has_moved_on_from_is_left() -> Outcome {
    let stage = Setting::new().stage().await?;
    let text = |id: &str, text: &str| update(id, json!({"$set": {"text": text}}));
    let tidegate = stage.start().await?;
    // MongoDB refuses to count what is a text.
    stage.database.collection("documents").insert_one(doc! {"_id": "moved", "count": "many"}).await?;
    stage.database.collection("documents").insert_one(doc! {"_id": "still", "count": "many"}).await?;
    let counted = |id: &str, text: &str| update(id, json!({"$inc": {"count": 1}, "$set": {"text": text}}));
    stage.push([counted("moved", "old"), counted("still", "a"), counted("still", "b")]).await?;
    stage.settled(&tidegate).await?;
    stage.push([text("moved", "new")]).await?;
    stage.settled(&tidegate).await?;
    let all = stage.database.collection::<bson::Document>("documents");
    all.update_many(doc! {}, doc! {"$set": {"count": 0}}).await?;

    let (told, code) = dead(&stage, &["replay"]).await?;
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("its document has moved on") && told.contains("replayed 2 dead letters"), "{told}");
    stage.settled(&tidegate).await?;
    let of = async |id: &str| {
        let document = stage.document(id).await?.context("no document")?;
        anyhow::Ok((
            document.get_str("text")?.to_owned(),
            crate::stage::number(document.get("count").context("count")?),
        ))
    };
    assert_eq!(of("moved").await?, ("new".to_owned(), 0));
    assert_eq!(of("still").await?, ("b".to_owned(), 2), "both, in their order");

    let letters = stage.dead_letters().await?;
    assert_eq!(letters.len(), 1);
    done(&stage, &["replay", &offset(&letters[0]), "--even-if-newer"]).await?;
    stage.settled(&tidegate).await?;
    assert_eq!(of("moved").await?, ("old".to_owned(), 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edited_event_takes_a_letters_place() -> Outcome {
    let stage = Setting::new().stage().await?;
    bury(&stage, &["{\"collection\":\"documents\",\"id\":true}".into(), "{".into()]).await?;
    let letters = stage.dead_letters().await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("edited.json");
    let path = file.to_str().context("a path")?;
    std::fs::write(&file, "{\"collection\":\"documents\",\"id\":true}\n")?;
    let (told, code) = dead(&stage, &["replay", &offset(&letters[0]), "--event", path]).await?;
    assert!(code == 1 && told.contains("would be a dead letter again: bad-id"), "{told}");
    let event = update("d", json!({"$set": {"n": 1}}));
    std::fs::write(&file, format!("{event}\n"))?;
    done(&stage, &["replay", &offset(&letters[0]), "--event", path]).await?;
    assert_eq!(elements(&stage, &stage.queue).await?, [event]);
    assert_eq!(stage.dead_letters().await?, letters[1..]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_streams_are_made_again() -> Outcome {
    for keys in ["flat = true", ""] {
        let stage = Setting::new().stream(keys).stage().await?;
        let mut redis = stage.producer().await?;
        let tidegate = stage.start().await?;
        let entries: [&[(&str, &str)]; 3] =
            [&[("event", "{\"a\":1.0}")], &[("b", "2"), ("c", "\u{1}\"")], &[("event", "x")]];
        for entry in entries {
            let fields: Vec<_> = entry.iter().flat_map(|(name, value)| [name, value]).collect();
            let mut xadd = redis::cmd("XADD");
            let _: String = xadd.arg(&stage.queue).arg("*").arg(fields).query_async(&mut redis).await?;
        }
        stage.settled(&tidegate).await?;
        tidegate.terminate().await?;
        assert_eq!(stage.dead_letters().await?.len(), 3);
        let before: usize = redis::cmd("XLEN").arg(&stage.queue).query_async(&mut redis).await?;
        done(&stage, &["replay"]).await?;
        let all: Vec<(String, Vec<String>)> =
            redis::cmd("XRANGE").arg(&stage.queue).arg("-").arg("+").query_async(&mut redis).await?;
        let again: Vec<_> = all[before..].iter().map(|(_, fields)| fields.clone()).collect();
        let wanted =
            entries.map(|entry| entry.iter().flat_map(|(a, b)| [(*a).to_owned(), (*b).to_owned()]).collect());
        assert_eq!(again, wanted as [Vec<String>; 3], "{keys}");
        assert!(stage.dead_letters().await?.is_empty());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_are_asked_for_and_limits_are_kept() -> Outcome {
    let stage = Setting::new().stage().await?;
    let mut redis = stage.producer().await?;
    let list = format!("{}:dead", stage.queue);
    push(&mut redis, &list, (0..150).map(|n| letter(&stage.queue, n, &n.to_string()))).await?;
    for command in ["replay", "drop"] {
        let (told, code) = dead(&stage, &[command]).await?;
        assert!(code == 1 && told.contains("say --yes"), "{told}");
    }
    let begun = Instant::now();
    done(&stage, &["replay", "--limit", "40", "--rate", "40"]).await?;
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    assert_eq!(
        (redis.llen::<_, usize>(&list).await?, redis.llen::<_, usize>(&stage.queue).await?),
        (110, 40)
    );
    let last = letter(&stage.queue, 149, "149");
    let _: usize = redis.rpush(&list, "no letter").await?;
    done(&stage, &["drop", "149"]).await?;
    let left = elements(&stage, &list).await?;
    assert!(left.len() == 110 && !left.contains(&last) && left.contains(&"no letter".to_owned()));
    done(&stage, &["drop", "--yes"]).await?;
    assert_eq!(elements(&stage, &list).await?, ["no letter"]);
    assert_eq!(redis.llen::<_, usize>(&stage.queue).await?, 40);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_exported_can_be_imported() -> Outcome {
    let stage = Setting::new().stage().await?;
    let mut redis = stage.producer().await?;
    let list = format!("{}:dead", stage.queue);
    let mut letters: Vec<String> = (0..1500).map(|n| letter(&stage.queue, n, "{\"n\":1.0}")).collect();
    letters.push(letter(&stage.queue, 1500, "{\n}"));
    push(&mut redis, &list, &letters).await?;
    let exported = done(&stage, &["export"]).await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("letters.jsonl");
    std::fs::write(&file, &exported)?;
    done(&stage, &["drop", "--yes", "--until", "1h"]).await?;
    let path = file.to_str().context("a path")?;
    done(&stage, &["import", path, "--limit", "700", "--yes"]).await?;
    let told = done(&stage, &["import", path, "--yes"]).await?;
    assert!(told.contains("imported 801 dead letters"), "{told}");
    let there = elements(&stage, &list).await?;
    assert_eq!(there[..1500], letters[..1500]);
    assert!(there[1500].contains("event_base64"), "it is on one line: {}", there[1500]);
    assert_eq!(done(&stage, &["export"]).await?, exported);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_at_a_time_changes_them() -> Outcome {
    let stage = Setting::new().stage().await?;
    let mut redis = stage.producer().await?;
    push(&mut redis, &format!("{}:dead", stage.queue), [letter(&stage.queue, 1, "1")]).await?;
    let key = format!("tidegate:{{{}}}:dead-owner", stage.queue);
    let _: () = redis.set(&key, "another").await?;
    let (told, code) = dead(&stage, &["replay"]).await?;
    assert!(code == 1 && told.contains("another process changes the dead letters"), "{told}");
    assert_eq!(stage.dead_letters().await?.len(), 1);
    let _: () = redis.del(&key).await?;
    done(&stage, &["replay"]).await?;
    assert!(!redis.exists::<_, bool>(&key).await?, "it lets go");
    Ok(())
}

/// Letters of many documents and of a few; killed again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_is_killed_loses_nothing_and_repeats_nothing() -> Outcome {
    const LETTERS: usize = 30_000;
    let stage = Setting::new().stage().await?;
    let mut redis = stage.producer().await?;
    let list = format!("{}:dead", stage.queue);
    let event = |n: usize| {
        let id = if n.is_multiple_of(3) { n % 100 } else { n };
        update(&id.to_string(), json!({"$set": {"n": n}}))
    };
    push(&mut redis, &list, (0..LETTERS).map(|n| letter(&stage.queue, n, &event(n)))).await?;
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("config.toml");
    std::fs::write(
        &config,
        format!("native.collections = [\"documents\"]\n[[queues]]\nkey = \"{}\"\n", stage.queue),
    )?;
    let mut kills = 0;
    loop {
        let left: usize = redis.llen(&list).await?;
        let mut command = tidegate_command()?;
        command.args(["dead", "replay", "--yes", "--config"]).arg(&config);
        command.env("TIDEGATE_REDIS__URL", stage.redis.url()).env("TIDEGATE_MONGODB__URI", stage.mongo.uri());
        let mut process = Process::spawn("tidegate dead", command)?;
        let goal = left.saturating_sub(LETTERS / 6);
        if goal == 0 {
            assert!(process.wait(PATIENCE).await?.success(), "{:?}", process.lines());
            break;
        }
        try_eventually(PATIENCE, "some to be replayed", async || {
            let now: usize = redis.clone().llen(&list).await?;
            ensure!(now <= goal, "{now} are left");
            anyhow::Ok(())
        })
        .await?;
        process.kill()?;
        kills += 1;
    }
    assert!(kills >= 4, "{kills} kills");
    let queue = elements(&stage, &stage.queue).await?;
    assert_eq!(queue.len(), LETTERS);
    let wanted: BTreeSet<String> = (0..LETTERS).map(event).collect();
    assert_eq!(queue.iter().cloned().collect::<BTreeSet<_>>(), wanted);
    let mut last = BTreeMap::new();
    for event in &queue {
        let event: Value = serde_json::from_str(event)?;
        let n = event["update"]["$set"]["n"].as_u64();
        let before = last.insert(event["id"].to_string(), n);
        assert!(before.is_none_or(|before| before < n), "{event} comes after {before:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_take_less_than_a_minute() -> Outcome {
    let stage = Setting::new().stage().await?;
    let mut redis = stage.producer().await?;
    let list = format!("{}:dead", stage.queue);
    let event = |n: usize| update(&n.to_string(), json!({"$set": {"n": n, "text": "x".repeat(100)}}));
    push(&mut redis, &list, (0..100_000).map(|n| letter(&stage.queue, n, &event(n)))).await?;
    let begun = Instant::now();
    done(&stage, &["replay", "--yes"]).await?;
    let took = begun.elapsed();
    assert_eq!(redis.llen::<_, usize>(&stage.queue).await?, 100_000);
    println!("100,000 letters in {took:?}");
    assert!(took < Duration::from_secs(60), "{took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_letters_are_in_the_queues_slot() -> Outcome {
    let cluster = Cluster::start(3, 0).await?;
    let mongo = Mongo::shared().await?;
    let mut client = ClusterClient::new(&cluster)?;
    let queue = unique("queue");
    let list = format!("{{{queue}}}:dead");
    let mut rpush = redis::cmd("RPUSH");
    let _: usize = client.ask(&list, rpush.arg(&list).arg(letter(&queue, 1, "1.0"))).await?;
    let config = format!("native.collections = [\"documents\"]\n[[queues]]\nkey = \"{queue}\"\n");
    let launch =
        Launch::config(config).env("TIDEGATE_REDIS__CLUSTER", cluster.seeds()).mongodb(&mongo, "test");
    let (told, code) = told(&launch, &["replay"]).await?;
    assert_eq!(code, 0, "{told}");
    let mut lrange = redis::cmd("LRANGE");
    let events: Vec<String> = client.ask(&queue, lrange.arg(&queue).arg(0).arg(-1)).await?;
    assert_eq!(events, ["1.0"]);
    Ok(())
}

//! Tests streams as queues.

use bson::doc;
use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;
use serde_json::json;

use crate::stage::{PATIENCE, Setting, Stage, assert_exact, logged, number, update};
use crate::support::{REST, Tidegate, group};

type Outcome = anyhow::Result<()>;

/// Sends a command: its name and its arguments.
async fn send<T: FromRedisValue>(redis: &mut MultiplexedConnection, words: &[&str]) -> anyhow::Result<T> {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    Ok(command.query_async(redis).await?)
}

/// Adds an entry under an id of the caller's.
async fn add_at(redis: &mut MultiplexedConnection, stream: &str, id: &str, event: &str) -> Outcome {
    send(redis, &["XADD", stream, id, "event", event]).await
}

/// Reads new entries as another consumer of the group does. Answers their ids.
async fn take(
    redis: &mut MultiplexedConnection,
    stream: &str,
    name: &str,
    n: usize,
) -> anyhow::Result<Vec<String>> {
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP").arg("tidegate").arg(name).arg("COUNT").arg(n).arg("STREAMS").arg(stream).arg(">");
    type Entries = Vec<(String, Vec<(String, Vec<String>)>)>;
    let taken: Option<Entries> = read.query_async(redis).await?;
    Ok(taken.into_iter().flatten().flat_map(|(_, entries)| entries).map(|(id, _)| id).collect())
}

async fn acknowledge(redis: &mut MultiplexedConnection, stream: &str, ids: &[String]) -> Outcome {
    Ok(redis::cmd("XACK").arg(stream).arg("tidegate").arg(ids).query_async(redis).await?)
}

/// Waits until so many events were read and none was written.
async fn received(tidegate: &Tidegate, events: f64) -> Outcome {
    let all = |metrics: &crate::support::Metrics| {
        let received = metrics.sum("tidegate_events_received_total", &[]);
        anyhow::ensure!(received == events, "{received} were received");
        Ok(())
    };
    tidegate.metrics_when(PATIENCE, "the events to be read", all).await.map(drop)
}

async fn log_of(stage: &Stage, id: &str) -> anyhow::Result<Vec<i64>> {
    let document = stage.document(id).await?.expect("the document");
    Ok(document.get_array("log")?.iter().map(number).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_are_applied_and_the_group_says_so() -> Outcome {
    let stage = Setting::new().stream("").stage().await?;
    let mut producer = stage.producer().await?;
    stage.push((0..3000).map(|n| logged(&format!("doc{}", n % 3), n / 3))).await?;
    let tidegate = stage.start().await?;
    stage.push(["no json".to_owned(), update("doc0", json!({"$inc": {"log": 1}}))]).await?;
    let _: String = send(&mut producer, &["XADD", &stage.queue, "*", "other", "field"]).await?;
    stage.push((3000..6000).map(|n| logged(&format!("doc{}", n % 3), n / 3))).await?;
    let metrics = stage.settled(&tidegate).await?;
    for id in 0..3 {
        assert_exact(stage.document(format!("doc{id}")).await?.as_ref(), 2000);
    }
    let letters = stage.dead_letters().await?;
    let classes: Vec<_> = letters.iter().map(|letter| letter["class"].as_str().unwrap_or_default()).collect();
    assert_eq!(classes, ["not-json", "type-mismatch", "bad-event"]);
    assert_eq!(letters[2]["event"], json!({"other": "field"}));
    let offsets: Vec<_> = letters.iter().filter_map(|letter| letter["offset"].as_i64()).collect();
    assert!(offsets.is_sorted() && offsets.len() == 3, "{offsets:?}");

    assert_eq!(metrics.sum("tidegate_foreign_pops_total", &[]), 0.0);
    let kept: usize = send(&mut producer, &["XLEN", &stage.queue]).await?;
    assert_eq!(kept, 6003, "nothing is trimmed unless it is asked for");
    let group = group(&mut producer, &stage.queue).await?;
    assert_eq!((group.pending, group.lag), (0, 0));
    let (_, status) = tidegate.get_json("/status").await?;
    assert_eq!((&status["queues"][0]["kind"], &status["queues"][0]["depth"]), (&json!("stream"), &json!(0)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flat_entries_go_through_routes() -> Outcome {
    let route = "[[routes]]\ncollection = \"documents\"\nid = \"doc\"\nset = { text = \"text\" }\n\
                 inc = { n = { path = \"by\", as = \"int\" } }\n";
    let stage = Setting::new().stream("flat = true").with(route).stage().await?;
    let tidegate = stage.start().await?;
    let mut producer = stage.producer().await?;
    for (text, by) in [("first", "1"), ("a \"quoted\"\nline", "41"), ("bad", "x")] {
        let entry = ["XADD", &*stage.queue, "*", "doc", "d", "text", text, "by", by];
        let _: String = send(&mut producer, &entry).await?;
    }
    let mut not_utf8 = redis::cmd("XADD");
    let _: String =
        not_utf8.arg(&stage.queue).arg("*").arg("doc").arg(&b"\xff"[..]).query_async(&mut producer).await?;
    stage.settled(&tidegate).await?;
    let mut document = stage.document("d").await?.expect("the document");
    document.remove("_tidegate");
    assert_eq!(document, doc! {"_id": "d", "text": "a \"quoted\"\nline", "n": 42});
    let letters = stage.dead_letters().await?;
    assert_eq!(letters.len(), 2);
    assert_eq!((&letters[0]["event"]["by"], &letters[1]["class"]), (&json!("x"), &json!("not-utf8")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_dead_consumers_left_comes_first_and_in_order() -> Outcome {
    let stage = Setting::new().stream("").stage().await?;
    let mut redis = stage.producer().await?;
    let () = send(&mut redis, &["XGROUP", "CREATE", &stage.queue, "tidegate", "0", "MKSTREAM"]).await?;
    stage.push((0..5000).map(|n| logged("doc", n))).await?;
    let first = take(&mut redis, &stage.queue, "one", 1500).await?;
    take(&mut redis, &stage.queue, "two", 1000).await?;
    // What a worker has acknowledged is its own affair, and what was deleted nobody's.
    acknowledge(&mut redis, &stage.queue, &first[..10]).await?;
    let _: usize = send(&mut redis, &["XDEL", &stage.queue, &first[10], &first[11]]).await?;
    let tidegate = stage.start().await?;
    stage.push((5000..6000).map(|n| logged("doc", n))).await?;
    let metrics = stage.settled(&tidegate).await?;
    assert_eq!(log_of(&stage, "doc").await?, (12..6000).collect::<Vec<_>>());
    assert_eq!(metrics.sum("tidegate_events_received_total", &[]), 5988.0);
    assert!(stage.dead_letters().await?.is_empty());
    // Nothing of it is read again.
    tidegate.terminate().await?;
    let tidegate = stage.start().await?;
    stage.push([logged("doc", 6000)]).await?;
    stage.settled(&tidegate).await?;
    received(&tidegate, 1.0).await?;
    assert_eq!(log_of(&stage, "doc").await?, (12..6001).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_costs_nothing_and_doubles_nothing() -> Outcome {
    let stage = Setting::new().stream("").stage().await?;
    let mut redis = stage.producer().await?;
    let () = send(&mut redis, &["XGROUP", "CREATE", &stage.queue, "tidegate", "0", "MKSTREAM"]).await?;
    stage.push((0..1000).map(|n| logged(&format!("doc{}", n % 10), n / 10))).await?;
    take(&mut redis, &stage.queue, "gone", 700).await?;
    let mut pushed = 1000;
    for round in 0..5 {
        let tidegate = stage.launch.spawn().await?;
        stage.push((pushed..pushed + 3000).map(|n| logged(&format!("doc{}", n % 10), n / 10))).await?;
        pushed += 3000;
        let some = |metrics: &crate::support::Metrics| {
            let received = metrics.sum("tidegate_events_received_total", &[]);
            anyhow::ensure!(received >= f64::from(300 * round), "{received} were received");
            Ok(())
        };
        tidegate.metrics_when(PATIENCE, "some to be read", some).await?;
        tidegate.kill9()?;
    }
    let tidegate = stage.start().await?;
    stage.settled(&tidegate).await?;
    for id in 0..10 {
        assert_exact(stage.document(format!("doc{id}")).await?.as_ref(), pushed / 10);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settled_entries_are_trimmed_as_asked() -> Outcome {
    for (keys, least, most) in [("trim = \"delete\"", 0, 0), ("trim = { maxlen = 500 }", 500, 700)] {
        let mut stage = Setting::new().own_fast_servers().stream(keys).stage().await?;
        let tidegate = stage.start().await?;
        let mut producer = stage.producer().await?;
        stage.push((0..3000).map(|n| logged("doc", n))).await?;
        stage.settled(&tidegate).await?;
        let kept: usize = send(&mut producer, &["XLEN", &stage.queue]).await?;
        assert!((least..=most).contains(&kept), "{keys}: {kept} are kept");

        // What is not settled is never trimmed.
        stage.mongo.pause()?;
        stage.push((3000..5000).map(|n| logged("doc", n))).await?;
        received(&tidegate, 5000.0).await?;
        let kept: usize = send(&mut producer, &["XLEN", &stage.queue]).await?;
        assert!(kept >= 2000, "{keys}: {kept} are kept of 2000");
        tidegate.kill9()?;
        stage.mongo.resume()?;
        let tidegate = stage.start().await?;
        stage.settled(&tidegate).await?;
        assert_exact(stage.document("doc").await?.as_ref(), 5000);
        let kept: usize = send(&mut producer, &["XLEN", &stage.queue]).await?;
        assert!((least..=most).contains(&kept), "{keys}: {kept} are kept");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_left_is_deleted_if_nothing_is_to_be_kept() -> Outcome {
    for (keys, kept) in [("trim = \"delete\"", 0), ("", 100)] {
        let stage = Setting::new().own_fast_servers().stream(keys).stage().await?;
        let mut redis = stage.producer().await?;
        let () = send(&mut redis, &["XGROUP", "CREATE", &stage.queue, "tidegate", "0", "MKSTREAM"]).await?;
        stage.push((0..99).map(|n| logged("doc", n))).await?;
        // It never takes effect.
        let _: String = send(&mut redis, &["XADD", &stage.queue, "9000000000000-0", "event", "{}"]).await?;
        take(&mut redis, &stage.queue, "gone", 100).await?;
        let tidegate = stage.start().await?;
        stage.settled(&tidegate).await?;
        assert_exact(stage.document("doc").await?.as_ref(), 99);
        assert_eq!(stage.dead_letters().await?.len(), 1);
        let length: usize = send(&mut redis, &["XLEN", &stage.queue]).await?;
        assert_eq!(length, kept, "{keys:?}");

        let info: String = send(&mut redis, &["INFO", "all"]).await?;
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let version = field("redis_version:").expect("a version");
        let (major, rest) = version.split_once('.').expect("a major version");
        let has = (major.parse::<u32>()?, rest.chars().next()) >= (8, Some('2'));
        println!("Redis {version}, XACKDEL is called: {}", field("cmdstat_xackdel:").is_some());
        assert_eq!(field("cmdstat_xackdel:").is_some(), has && kept == 0);
        assert_eq!(field("cmdstat_xdel:").is_some(), !has && kept == 0);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_longer_than_what_is_kept() -> Outcome {
    let setting = Setting::new().stream("trim = { maxlen = 10 }").with("buffer.max_events = 100\n");
    let stage = setting.stage().await?;
    stage.push((0..5000).map(|n| logged("doc", n))).await?;
    let tidegate = stage.start().await?;
    stage.settled(&tidegate).await?;
    assert_exact(stage.document("doc").await?.as_ref(), 5000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_consumer_of_the_group_costs_nothing() -> Outcome {
    let stage = Setting::new().stream("").stage().await?;
    let tidegate = stage.start().await?;
    let mut other = stage.producer().await?;
    let mut taken = 0;
    for round in 0..40 {
        stage.push((round * 200..round * 200 + 200).map(|n| logged("doc", n))).await?;
        taken += take(&mut other, &stage.queue, "other", 50).await?.len();
    }
    let metrics = stage.settled(&tidegate).await?;
    assert_exact(stage.document("doc").await?.as_ref(), 8000);
    let found = metrics.sum("tidegate_foreign_pops_total", &[]);
    assert!(found >= 1.0 || taken == 0, "{taken} were taken, and nobody noticed");
    assert!(taken > 0, "the test must take some");
    assert!(stage.dead_letters().await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_was_moved_or_destroyed_is_put_back() -> Outcome {
    let stage = Setting::new().stream("").stage().await?;
    let mut other = stage.producer().await?;
    let mut pushed = 0;
    for meddling in [["SETID", "0"], ["SETID", "$"], ["DESTROY", ""]] {
        let tidegate = stage.start().await?;
        stage.push((pushed..pushed + 100).map(|n| logged("doc", n))).await?;
        stage.settled(&tidegate).await?;
        tidegate.terminate().await?;
        stage.push((pushed + 100..pushed + 200).map(|n| logged("doc", n))).await?;
        pushed += 200;
        let mut command = redis::cmd("XGROUP");
        command.arg(meddling[0]).arg(&stage.queue).arg("tidegate");
        if !meddling[1].is_empty() {
            command.arg(meddling[1]);
        }
        let () = command.query_async(&mut other).await?;
        let mut tidegate = stage.start().await?;
        tidegate.logged("another client moves the consumer group's position", PATIENCE).await?;
        let metrics = stage.settled(&tidegate).await?;
        assert_eq!(metrics.sum("tidegate_foreign_pops_total", &[]), 1.0, "{meddling:?}");
        assert_eq!(metrics.sum("tidegate_events_received_total", &[]), 100.0, "{meddling:?}");
        tidegate.terminate().await?;
    }
    assert_exact(stage.document("doc").await?.as_ref(), pushed);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_comes_too_late_is_a_dead_letter() -> Outcome {
    let stage = Setting::new().stream("").stage().await?;
    let mut other = stage.producer().await?;
    let () = send(&mut other, &["XGROUP", "CREATE", &stage.queue, "tidegate", "0", "MKSTREAM"]).await?;
    stage.push((0..3).map(|n| logged("doc", n))).await?;
    let ids = take(&mut other, &stage.queue, "worker", 3).await?;
    acknowledge(&mut other, &stage.queue, &ids).await?;
    let tidegate = stage.start().await?;
    stage.push((3..50).map(|n| logged("doc", n))).await?;
    stage.settled(&tidegate).await?;
    tidegate.terminate().await?;
    // The worker has the first given to it again, and dies.
    let () = send(&mut other, &["XGROUP", "SETID", &stage.queue, "tidegate", "0"]).await?;
    take(&mut other, &stage.queue, "worker", 1).await?;
    let tidegate = stage.start().await?;
    stage.push((50..60).map(|n| logged("doc", n))).await?;
    stage.settled(&tidegate).await?;
    assert_eq!(log_of(&stage, "doc").await?, (3..60).collect::<Vec<_>>());
    let letters = stage.dead_letters().await?;
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (&letters[0]["class"], &letters[0]["event"]["update"]["$set"]["last"]),
        (&json!("out-of-order"), &json!(0))
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_do_not_fit_are_dead_letters_in_their_turn() -> Outcome {
    let stage = Setting::new().stream("trim = \"delete\"").stage().await?;
    let mut producer = stage.producer().await?;
    let stream = &stage.queue;
    let mut n = 0;
    let mut next = || {
        n += 1;
        logged("doc", n - 1)
    };
    add_at(&mut producer, stream, "5-1048576", "first").await?;
    for ms in 6..9 {
        add_at(&mut producer, stream, &format!("{ms}-1"), &next()).await?;
        add_at(&mut producer, stream, &format!("{ms}-1048575"), &next()).await?;
        add_at(&mut producer, stream, &format!("{ms}-1048576"), "too many").await?;
        add_at(&mut producer, stream, &format!("{ms}-18446744073709551615"), "far too many").await?;
    }
    let mut tidegate = stage.start().await?;
    stage.settled(&tidegate).await?;
    tidegate.terminate().await?;
    add_at(&mut producer, stream, "9-0", &next()).await?;
    tidegate = stage.start().await?;
    add_at(&mut producer, stream, "9-2000000", "while it runs").await?;
    stage.settled(&tidegate).await?;
    add_at(&mut producer, stream, "8796093022207-1048574", &next()).await?;
    add_at(&mut producer, stream, "8796093022208-0", "too late").await?;
    // From here on, no id fits any more.
    stage.push(["nor does this"]).await?;
    stage.settled(&tidegate).await?;
    assert_exact(stage.document("doc").await?.as_ref(), 8);
    let letters = stage.dead_letters().await?;
    assert_eq!(letters.len(), 10);
    assert!(letters.iter().all(|letter| letter["class"] == "bad-event"), "{letters:?}");
    assert!(
        letters[9]["reason"].as_str().is_some_and(|text| text.contains("8796093022208-1")),
        "{}",
        letters[9]
    );
    let kept: usize = send(&mut producer, &["XLEN", stream]).await?;
    assert_eq!(kept, 0);
    assert_eq!(group(&mut producer, stream).await?.position, "8796093022208-1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_restarts_goes_on() -> Outcome {
    let mut stage = Setting::new().own_servers().stream("").stage().await?;
    let tidegate = stage.start().await?;
    for round in 0..3 {
        stage.push((round * 1000..round * 1000 + 1000).map(|n| logged("doc", n))).await?;
        stage.redis.kill()?;
        stage.redis.restart().await?;
    }
    stage.settled(&tidegate).await?;
    assert_exact(stage.document("doc").await?.as_ref(), 3000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_removed_before_they_are_settled_are_told_of() -> Outcome {
    let mut stage = Setting::new().own_fast_servers().stream("").stage().await?;
    let mut tidegate = stage.start().await?;
    stage.mongo.pause()?;
    stage.push((0..100).map(|n| logged("gone", n))).await?;
    received(&tidegate, 100.0).await?;
    tidegate.kill9()?;
    let mut other = stage.producer().await?;
    let _: usize = send(&mut other, &["XTRIM", &stage.queue, "MAXLEN", "0"]).await?;
    stage.mongo.resume()?;
    tidegate = stage.start().await?;
    tidegate.logged("another client removes entries before they are settled", PATIENCE).await?;
    stage.push((0..100).map(|n| logged("doc", n))).await?;
    let metrics = stage.settled(&tidegate).await?;
    assert!(metrics.sum("tidegate_foreign_pops_total", &[]) >= 1.0);
    assert_exact(stage.document("doc").await?.as_ref(), 100);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_pending_entries_that_were_removed_others_are_found() -> Outcome {
    let patient = format!("batch.max_delay = \"1h\"\nbuffer.max_events = 100\n{REST}");
    let stage = Setting::new().stream("").with(&patient).stage().await?;
    let mut other = stage.producer().await?;
    let () = send(&mut other, &["XGROUP", "CREATE", &stage.queue, "tidegate", "0", "MKSTREAM"]).await?;
    stage.push((0..120).map(|n| logged("doc", n))).await?;
    // More than one window asks for, one after the other.
    stage.push((0..400).map(|n| logged("removed", n))).await?;
    stage.push((120..200).map(|n| logged("doc", n))).await?;
    let ids = take(&mut other, &stage.queue, "gone", 600).await?;
    let mut tidegate = stage.start().await?;
    let some = |metrics: &crate::support::Metrics| {
        let received = metrics.sum("tidegate_events_received_total", &[]);
        anyhow::ensure!(received >= 100.0, "{received} were received");
        Ok(())
    };
    tidegate.metrics_when(PATIENCE, "as many to be read as there is room for", some).await?;
    let _: usize = redis::cmd("XDEL").arg(&stage.queue).arg(&ids[120..520]).query_async(&mut other).await?;
    tidegate.reconfigure(
        "native.collections = [\"documents\"]\nlease.ttl = \"1s\"\nbatch.max_delay = \"10ms\"",
    )?;
    tidegate.logged("some that were pending are gone", PATIENCE).await?;
    let metrics = stage.settled(&tidegate).await?;
    assert!(metrics.sum("tidegate_foreign_pops_total", &[]) >= 1.0);
    assert_eq!(log_of(&stage, "doc").await?, (0..200).collect::<Vec<_>>());
    Ok(())
}

//! Tests who owns a queue, and what happens when somebody else touches it.

use nix::sys::signal::Signal;
use redis::AsyncCommands;

use crate::stage::{PATIENCE, Setting, assert_exact, logged, number};
use crate::support::{Metrics, assert_accounting, push};

type Outcome = anyhow::Result<()>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_instance_stands_by_and_takes_over() -> Outcome {
    let stage = Setting::new().stage().await?;
    let first = stage.launch.start().await?;
    stage.push((0..1000).map(|n| logged("doc", n))).await?;
    stage.settled(&first).await?;
    let mut second = stage.launch.start().await?;
    second.logged("standing by", PATIENCE).await?;
    let (_, status) = second.get_json("/status").await?;
    assert_eq!(status["summary"]["kind"], "standing-by", "{status}");
    assert_eq!(status["queues"][0]["phase"], "standby");
    assert_eq!(second.metrics().await?.sum("tidegate_lease_held", &[]), 0.0);

    first.kill9()?;
    stage.push((1000..2000).map(|n| logged("doc", n))).await?;
    stage.settled(&second).await?;
    assert_exact(stage.document("doc").await?.as_ref(), 2000);
    assert_eq!(second.metrics().await?.sum("tidegate_lease_held", &[]), 1.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_was_stopped_past_its_lease_does_no_harm() -> Outcome {
    let stage = Setting::new().stage().await?;
    let mut first = stage.launch.start().await?;
    let mut second = stage.launch.start().await?;
    let mut pushed = 0;
    for _ in 0..3 {
        stage.push((pushed..pushed + 2000).map(|n| logged(&format!("doc{}", n % 10), n / 10))).await?;
        pushed += 2000;
        first.signal(Signal::SIGSTOP)?;
        // Whoever is not stopped drains the queue, after the lease has run out.
        crate::stage::empty(&stage.redis, &stage.queue).await?;
        stage.push((pushed..pushed + 2000).map(|n| logged(&format!("doc{}", n % 10), n / 10))).await?;
        pushed += 2000;
        first.signal(Signal::SIGCONT)?;
        crate::stage::empty(&stage.redis, &stage.queue).await?;
        std::mem::swap(&mut first, &mut second);
    }
    for tidegate in [&first, &second] {
        let metrics = tidegate.idle(&stage.queue, PATIENCE).await?;
        assert_accounting(&metrics, &stage.queue);
    }
    for id in 0..10 {
        assert_exact(stage.document(format!("doc{id}")).await?.as_ref(), pushed / 10);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_client_that_pops_costs_only_what_it_takes() -> Outcome {
    let stage = Setting::new().stage().await?;
    let tidegate = stage.start().await?;
    let mut producer = stage.producer().await?;
    let mut taken = Vec::new();
    let mut pushed = 0;
    for round in 0..40 {
        push(&mut producer, &stage.queue, (pushed..pushed + 500).map(|n| logged("doc", n))).await?;
        pushed += 500;
        let event: Option<String> = if round % 2 == 0 {
            producer.lpop(&stage.queue, None).await?
        } else {
            producer.rpop(&stage.queue, None).await?
        };
        if let Some(event) = event {
            let event: serde_json::Value = serde_json::from_str(&event)?;
            taken.push(event["update"]["$set"]["last"].as_i64().expect("its number"));
        }
    }
    stage.settled(&tidegate).await?;
    let document = stage.document("doc").await?.expect("the document");
    let log: std::collections::BTreeSet<i64> = document.get_array("log")?.iter().map(number).collect();
    let missing: Vec<_> = (0..pushed as i64).filter(|n| !log.contains(n)).collect();
    let lost: Vec<_> = missing.iter().filter(|n| !taken.contains(n)).collect();
    assert!(lost.is_empty(), "lost, though nobody took them: {lost:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pop_among_unsettled_events_is_found_and_counted() -> Outcome {
    let mut stage = Setting::new().own_servers().stage().await?;
    let mut tidegate = stage.start().await?;
    let mut producer = stage.producer().await?;
    for side in ["LPOP", "RPOP"] {
        stage.mongo.pause()?;
        push(&mut producer, &stage.queue, (0..100).map(|n| logged(side, n))).await?;
        tidegate
            .metrics_when(PATIENCE, "the events to be read", |metrics| {
                let buffered = metrics.sum("tidegate_buffer_events", &[]);
                anyhow::ensure!(buffered == 100.0, "{buffered} are buffered");
                Ok(())
            })
            .await?;
        let _: String = redis::cmd(side).arg(&stage.queue).query_async(&mut producer).await?;
        push(&mut producer, &stage.queue, (100..150).map(|n| logged(side, n))).await?;
        stage.mongo.resume()?;
        stage.settled(&tidegate).await?;
        let document = stage.document(side).await?.expect("the document");
        let log: std::collections::BTreeSet<i64> = document.get_array("log")?.iter().map(number).collect();
        let kept = (0..150).filter(|n| log.contains(n)).count();
        assert!(kept >= 149, "{side}: {kept} of 149 that nobody took were applied");
    }
    let metrics = tidegate.metrics().await?;
    assert!(metrics.sum("tidegate_foreign_pops_total", &[]) >= 1.0);
    tidegate.logged("another client removes or replaces", PATIENCE).await?;
    Ok(())
}

/// What somebody does to the list, and what the log calls it.
const MEDDLINGS: [(&str, &[&str], &str); 5] = [
    ("LPUSH", &[], "pushes with LPUSH"),
    ("LPOP", &[], "at the head, as LPOP"),
    ("RPOP", &[], "behind the head, as RPOP"),
    ("LSET", &["0"], "at the head, as LPOP, BLPOP, LMOVE and LSET"),
    ("LREM", &["-1"], "behind the head, as RPOP, LREM"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_does_to_a_list_is_told_once_by_its_name() -> Outcome {
    const TIMES: usize = 30;
    let mut stage = Setting::new().own_fast_servers().stage().await?;
    let mut producer = stage.producer().await?;
    for (command, args, name) in MEDDLINGS {
        let mut tidegate = stage.start().await?;
        let mut pushed = 0;
        let mut meddled = Vec::new();
        for round in 0..3 {
            stage.mongo.pause()?;
            push(&mut producer, &stage.queue, (pushed..pushed + 40).map(|n| logged(command, n))).await?;
            pushed += 40;
            let read = |metrics: &Metrics| {
                let buffered = metrics.sum("tidegate_buffer_events", &[]);
                anyhow::ensure!(buffered >= 40.0, "{buffered} are buffered");
                Ok(())
            };
            tidegate.metrics_when(PATIENCE, "the events to be read", read).await?;
            for n in 0..TIMES / 3 {
                let event = match command {
                    "LREM" => logged(command, pushed - 1 - n),
                    _ => logged("other", round * TIMES / 3 + n),
                };
                let mut meddle = redis::cmd(command);
                meddle.arg(&stage.queue).arg(args);
                if !command.ends_with("POP") {
                    meddle.arg(&event);
                    meddled.push(event);
                }
                meddle.exec_async(&mut producer).await?;
            }
            stage.mongo.resume()?;
            // One more, so that even what was cut off at the end is found.
            push(&mut producer, &stage.queue, [logged("last", round)]).await?;
            stage.settled(&tidegate).await?;
        }
        tidegate.logged(name, PATIENCE).await?;
        let log = tidegate.log();
        let errors: Vec<_> = log.iter().filter(|line| line.contains("ERROR")).collect();
        assert!(errors.len() == 1 && errors[0].contains(name), "{command}: {log:#?}");
        assert!(log.len() < 25, "{command}: {log:#?}");
        let (_, status) = tidegate.get_json("/status").await?;
        assert_eq!(status["summary"]["kind"], "foreign-pops", "{status}");
        assert!(status["summary"]["text"].to_string().contains(name), "{status}");
        assert!(tidegate.metrics().await?.sum("tidegate_foreign_pops_total", &[]) >= 1.0);
        if command == "LPUSH" {
            // Nothing that anybody pushed is lost.
            for (id, events) in [(command, pushed), ("other", meddled.len())] {
                let document = stage.document(id).await?.expect("the document");
                let log: std::collections::BTreeSet<i64> =
                    document.get_array("log")?.iter().map(number).collect();
                assert_eq!(log.len(), events, "{id}");
            }
        }
        tidegate.terminate().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_type_stops_the_start() -> Outcome {
    for (setting, command) in [
        (Setting::new(), ["XADD", "*", "event", "{}"].as_slice()),
        (Setting::new().stream(""), ["RPUSH", "{}"].as_slice()),
        (Setting::new().delivery("at-most-once"), ["SET", "{}"].as_slice()),
    ] {
        let stage = setting.stage().await?;
        let mut make = redis::cmd(command[0]);
        make.arg(&stage.queue).arg(&command[1..]).exec_async(&mut stage.producer().await?).await?;
        let exited = stage.launch.until_exit(PATIENCE).await?;
        assert_eq!(exited.status.code(), Some(1), "{:#?}", exited.lines);
        let said = exited.lines.join("\n");
        let names = said.contains("another type") && said.contains(&stage.queue);
        assert!(names, "{said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_becomes_another_type_is_told_of_until_it_is_put_right() -> Outcome {
    for setting in [Setting::new(), Setting::new().stream("")] {
        let stage = setting.stage().await?;
        let mut tidegate = stage.start().await?;
        stage.push((0..100).map(|n| logged("doc", n))).await?;
        stage.settled(&tidegate).await?;

        let mut somebody = stage.producer().await?;
        let () = redis::pipe()
            .atomic()
            .del(&stage.queue)
            .set(&stage.queue, "x")
            .query_async(&mut somebody)
            .await?;
        tidegate.readiness(503, PATIENCE).await?;
        tidegate.logged("another type", PATIENCE).await?;
        let tries = tidegate.metrics().await?.sum("tidegate_retries_total", &[]);
        assert!(tries < 100.0, "{tries} tries at once");

        let () = somebody.del(&stage.queue).await?;
        stage.push((100..200).map(|n| logged("doc", n))).await?;
        stage.settled(&tidegate).await?;
        assert_exact(stage.document("doc").await?.as_ref(), 200);
    }
    Ok(())
}

//! Tests that several instances share the queues between them.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::stage::{PATIENCE, Setting, Stage, assert_exact, empty, logged, settled};
use crate::support::{Forge, On, Proxy, Tidegate, add, command_error, eventually, length, push, unique};

type Outcome = anyhow::Result<()>;

const QUEUES: usize = 6;

/// A stage with six queues.
async fn stage() -> anyhow::Result<(Stage, Vec<String>)> {
    let keys: Vec<String> = (1..QUEUES).map(|n| unique(&format!("shared-{n}"))).collect();
    let setting = keys.iter().fold(Setting::new(), |setting, key| setting.another_queue(key));
    let mut stage = setting.stage().await?;
    stage.launch = stage.launch.env("TIDEGATE_LEASE__TTL", "2s");
    let all = std::iter::once(stage.queue.clone()).chain(keys).collect();
    Ok((stage, all))
}

/// How many queues each instance owns.
async fn held(instances: &[Tidegate]) -> anyhow::Result<Vec<usize>> {
    let mut held = Vec::new();
    for instance in instances {
        held.push(instance.metrics().await?.sum("tidegate_lease_held", &[]) as usize);
    }
    Ok(held)
}

async fn takeovers(instances: &[Tidegate]) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for instance in instances {
        sum += instance.metrics().await?.sum("tidegate_takeovers_total", &[]);
    }
    Ok(sum)
}

async fn until_held(instances: &[Tidegate], expected: &[usize]) {
    eventually(PATIENCE, &format!("queues to be spread {expected:?}"), async || {
        let held = held(instances).await?;
        anyhow::ensure!(held == expected, "{held:?}");
        anyhow::Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_spread_and_move_and_no_event_is_lost() -> Outcome {
    let (stage, keys) = stage().await?;
    let mut producer = stage.producer().await?;
    let mut pushed = 0;
    let mut more = async |pushed: &mut usize| -> anyhow::Result<()> {
        for (q, key) in keys.iter().enumerate() {
            push(&mut producer, key, (*pushed..*pushed + 200).map(|n| logged(&format!("doc{q}"), n))).await?;
        }
        *pushed += 200;
        Ok(())
    };

    let mut instances = vec![stage.launch.start().await?];
    until_held(&instances, &[6]).await;
    more(&mut pushed).await?;
    instances.push(stage.launch.start().await?);
    until_held(&instances, &[3, 3]).await;
    more(&mut pushed).await?;
    instances.push(stage.launch.start().await?);
    until_held(&instances, &[2, 2, 2]).await;
    more(&mut pushed).await?;

    let killed = Instant::now();
    instances.remove(0).kill9()?;
    more(&mut pushed).await?;
    until_held(&instances, &[3, 3]).await;
    println!("after a kill: {:?}", killed.elapsed());

    let stopped = Instant::now();
    let last = instances.remove(0);
    last.signal(nix::sys::signal::Signal::SIGTERM)?;
    until_held(&instances, &[6]).await;
    println!("after SIGTERM: {:?}", stopped.elapsed());
    assert!(last.exited(PATIENCE).await?.status.success());
    more(&mut pushed).await?;

    for key in &keys {
        empty(&stage.redis, key).await?;
    }
    for q in 0..QUEUES {
        eventually(PATIENCE, "every event", async || {
            let document = stage.document(format!("doc{q}")).await?;
            let events = document.as_ref().and_then(|d| d.get_array("log").ok()).map_or(0, Vec::len);
            anyhow::ensure!(events >= pushed, "{events} of {pushed}");
            anyhow::Ok(())
        })
        .await;
        assert_exact(stage.document(format!("doc{q}")).await?.as_ref(), pushed);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_instance_knows_who_owns_what() -> Outcome {
    let (stage, keys) = stage().await?;
    let instances = [stage.launch.start().await?, stage.launch.start().await?];
    until_held(&instances, &[3, 3]).await;

    eventually(PATIENCE, "the instances to agree", async || {
        let mut owners: Vec<Vec<String>> = Vec::new();
        for instance in &instances {
            let (_, status) = instance.get_json("/status").await?;
            let queues = status["queues"].as_array().cloned().unwrap_or_default();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            owners.push(queues.iter().map(|queue| text(&queue["owner"])).collect());
            for queue in &queues {
                let phase = if queue["owner"] == status["instance"] { "active" } else { "standby" };
                anyhow::ensure!(queue["phase"] == phase, "{queue}");
                anyhow::ensure!(queue["instances"].as_array().map(Vec::len) == Some(2), "{queue}");
            }
        }
        anyhow::ensure!(owners[0] == owners[1], "{owners:?}");
        anyhow::Ok(())
    })
    .await;
    assert_eq!(length(&mut stage.producer().await?, &keys[0]).await?, 0);
    Ok(())
}

/// Partitions under load: divided, handed over in order and by a kill, and divided again.
async fn divide_partitions(kind: &str) -> Outcome {
    let mut stage = Setting::new().stage().await?;
    let name = unique("partition");
    let keys: Vec<String> = (0..8).map(|n| format!("{name}:{n}")).collect();
    keys.iter().for_each(|key| stage.redis.tidy(key));
    let queues = format!("[{{ key = \"{name}:{{0..7}}\", kind = \"{kind}\" }}]");
    let launch = stage.launch.clone().env("TIDEGATE_QUEUES", queues);
    let mut producer = stage.producer().await?;
    let mut pushed = 0;
    let mut more = async || -> Outcome {
        for n in pushed..pushed + 100 {
            for (document, key) in keys.iter().enumerate() {
                let event = [logged(&format!("doc{document}"), n)];
                match kind {
                    "stream" => add(&mut producer, key, event).await?,
                    _ => push(&mut producer, key, event).await?,
                }
            }
        }
        pushed += 100;
        Ok(())
    };

    let mut instances = vec![launch.start().await?];
    until_held(&instances, &[8]).await;
    more().await?;
    instances.push(launch.start().await?);
    more().await?;
    until_held(&instances, &[4, 4]).await;
    more().await?;
    instances.remove(0).kill9()?;
    more().await?;
    until_held(&instances, &[8]).await;
    instances.push(launch.start().await?);
    until_held(&instances, &[4, 4]).await;
    let leaving = instances.remove(0);
    leaving.signal(nix::sys::signal::Signal::SIGTERM)?;
    more().await?;
    assert!(leaving.exited(PATIENCE).await?.status.success());

    for key in &keys {
        settled(&stage.redis, key, &instances[0]).await?;
    }
    for document in 0..8 {
        assert_exact(stage.document(format!("doc{document}")).await?.as_ref(), 500);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_divided_and_keep_each_documents_order() -> Outcome {
    divide_partitions("list").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_of_streams_are_divided_alike() -> Outcome {
    divide_partitions("stream").await
}

/// In the middle of a roll-out that adds queues, an instance does not see how many queues another has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_with_different_queues_agree_on_those_they_share() -> Outcome {
    let mut stage = Setting::new().stage().await?;
    // First in the order of names: where queues are counted over all that an instance has, they fill it.
    let (added, shared) = (unique("added"), unique("shared"));
    let keys = |name: &str| (0..6).map(|n| format!("{name}:{n}")).collect::<Vec<_>>();
    let all = [keys(&shared), keys(&added)].concat();
    all.iter().for_each(|key| stage.redis.tidy(key));
    let with = |names: &[&str]| {
        let queues: Vec<_> = names.iter().map(|name| format!("{{ key = \"{name}:{{0..5}}\" }}")).collect();
        let queues = format!("[{}]", queues.join(", "));
        stage.launch.clone().env("TIDEGATE_QUEUES", queues).env("TIDEGATE_LEASE__TTL", "3s")
    };
    let mut instances = vec![with(&[&shared]).start().await?];
    until_held(&instances, &[6]).await;
    instances.push(with(&[&shared, &added]).start().await?);
    until_held(&instances, &[3, 9]).await;
    let before = takeovers(&instances).await?;
    let mut producer = stage.producer().await?;
    let mut n = 0;
    // Longer than it takes to find a queue that nobody comes for, and to hand it back.
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(3) {
        for (q, key) in all.iter().enumerate() {
            push(&mut producer, key, [logged(&format!("doc{q}"), n)]).await?;
        }
        n += 1;
        let pushed = Instant::now();
        for key in &all {
            empty(&stage.redis, key).await?;
        }
        slowest = slowest.max(pushed.elapsed());
    }
    println!("{n} events a queue, the slowest drained in {slowest:?}");
    assert_eq!(takeovers(&instances).await?, before, "queues go to and fro");
    for q in 0..all.len() {
        assert_exact(stage.document(format!("doc{q}")).await?.as_ref(), n);
    }
    for (q, key) in all.iter().enumerate() {
        for instance in &instances[usize::from(q >= 6)..] {
            settled(&stage.redis, key, instance).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_loses_mongodb_hands_its_queue_to_who_does_not() -> Outcome {
    let mut stage = Setting::new().own_servers().stage().await?;
    stage.launch = stage.launch.env("TIDEGATE_MONGODB__TIMEOUT", "1s");
    let address = stage.mongo.address()?;
    let proxy = Proxy::start(address).await?;
    let uri = stage.mongo.uri().replace(&address.to_string(), &proxy.address().to_string());
    let cut_off = stage.launch.clone().env("TIDEGATE_MONGODB__URI", uri).start().await?;
    until_held(std::slice::from_ref(&cut_off), &[1]).await;
    stage.push((0..100).map(|n| logged("doc", n))).await?;
    stage.settled(&cut_off).await?;

    proxy.refuse();
    proxy.cut();
    let mut both = [cut_off, stage.launch.spawn().await?];
    stage.push((100..200).map(|n| logged("doc", n))).await?;
    until_held(&both, &[0, 1]).await;
    stage.settled(&both[1]).await?;
    assert_exact(stage.document("doc").await?.as_ref(), 200);
    both[0].logged("given up; what could not be flushed is in Redis", PATIENCE).await?;
    let log = both[0].log();
    assert!(!log.iter().any(|line| line.contains("is flushed")), "{log:#?}");
    Ok(())
}

/// MongoDB refuses an instance what it gives another. Whoever gets no epoch must not be handed queues again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gets_no_epoch_leaves_its_queues_to_who_does() -> Outcome {
    let (stage, keys) = stage().await?;
    let forge = Forge::start(&stage.mongo).await?;
    let refusal = command_error(13, "Unauthorized", "not authorized on collab to execute command");
    forge.rule(On::command("findAndModify").answer(refusal));
    let refused = stage.launch.clone().env("TIDEGATE_MONGODB__URI", forge.uri()).spawn().await?;
    eventually(PATIENCE, "the instance to say that it gets no epoch of any queue", async || {
        let log = refused.log();
        let said = log.iter().filter(|line| line.contains("gives this instance no epoch")).count();
        anyhow::ensure!(said == QUEUES, "said of {said}");
        anyhow::Ok(())
    })
    .await;
    let both = [refused, stage.launch.spawn().await?];
    until_held(&both, &[0, QUEUES]).await;
    let before = takeovers(&both).await?;
    // Longer than a queue stays free that nobody comes for, and is held by who is to hand it back.
    let began = Instant::now();
    let mut producer = stage.producer().await?;
    let mut n = 0;
    while began.elapsed() < Duration::from_secs(4) {
        push(&mut producer, &keys[n % QUEUES], [logged(&format!("doc{}", n % QUEUES), n / QUEUES)]).await?;
        empty(&stage.redis, &keys[n % QUEUES]).await?;
        n += 1;
    }
    assert_eq!(takeovers(&both).await?, before, "queues go to and fro");
    for key in &keys {
        settled(&stage.redis, key, &both[1]).await?;
    }
    assert_exact(stage.document("doc0").await?.as_ref(), n.div_ceil(QUEUES));
    Ok(())
}

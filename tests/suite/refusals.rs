//! Tests a Redis that answers, and does not do what it is asked: rights that are missing, replicas, disks.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::ensure;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;

use crate::stage::{PATIENCE, Setting, Stage, assert_exact, logged};
use crate::support::{
    Launch, Metrics, Tidegate, add, assert_accounting, dead_letters, document, length, push, try_eventually,
    unique,
};

type Outcome = anyhow::Result<()>;

/// Daemons that are each denied one command after the other, at once.
const WORKERS: usize = 6;

const SHARED: &str = include_str!("../../src/source/script.rs");
const STREAM: &str = concat!(
    include_str!("../../src/source/stream/helpers.rs"),
    include_str!("../../src/source/stream/script.rs")
);
const INSTANCES: &str = include_str!("../../src/source/instances.rs");
const IDENTITY: &str = include_str!("../../src/source/identity.rs");
const OWNED: [&str; 2] = ["const OWNED:", include_str!("../../src/source/rights.rs")];
const OF_LISTS: [&str; 2] = ["const COMMANDS:", include_str!("../../src/source/list.rs")];
const OF_STREAMS: [&str; 2] = ["const COMMANDS:", include_str!("../../src/source/stream/mod.rs")];

/// The commands that scripts call, and those of lists in the code.
fn commands(scripts: &[&str], lists: [[&str; 2]; 2]) -> BTreeSet<String> {
    let mut found = BTreeSet::from(["multi".to_owned()]);
    for script in scripts {
        let names = script.split("call('").skip(1).filter_map(|rest| rest.split('\'').next());
        found.extend(names.map(str::to_lowercase));
    }
    for [list, code] in lists {
        let list = code.split_once(list).expect("such a list").1;
        let list = list.split_once('=').expect("its beginning").1.split("];").next().expect("its end");
        for command in list.split('"').skip(1).step_by(2) {
            found.insert(command.split(' ').next().expect("a command").to_lowercase());
        }
    }
    found
}

/// One daemon with a user of its own, and what its queue was given.
struct Denied {
    queue: String,
    user: String,
    daemon: Tidegate,
    is_stream: bool,
    good: usize,
    bad: usize,
}

impl Denied {
    async fn start(stage: &mut Stage, database: &str, is_stream: bool) -> anyhow::Result<Self> {
        let (queue, user) = (stage.redis.queue("denied"), unique("worker"));
        let rights = ["on", ">sesame", "~*", "&*", "+@all"];
        redis::cmd("ACL")
            .arg(&["SETUSER", &user])
            .arg(&rights)
            .exec_async(&mut stage.producer().await?)
            .await?;
        let kind = if is_stream { "kind = \"stream\"\ntrim = \"delete\"\n" } else { "" };
        let config = format!(
            "native.collections = [\"documents\"]\nlease.ttl = \"1s\"\n[[queues]]\nkey = \"{queue}\"\n{kind}"
        );
        let url = stage.redis.url().replace("redis://", &format!("redis://{user}:sesame@"));
        let launch = Launch::config(config).mongodb(&stage.mongo, database).env("TIDEGATE_REDIS__URL", url);
        let daemon = launch.start().await?;
        Ok(Denied { queue, user, daemon, is_stream, good: 0, bad: 0 })
    }

    async fn push(&mut self, producer: &mut MultiplexedConnection) -> Outcome {
        let mut events: Vec<_> = (self.good..self.good + 4).map(|n| logged(&self.queue, n)).collect();
        events.insert(2, format!("no event, number {}", self.bad));
        (self.good, self.bad) = (self.good + 4, self.bad + 1);
        if self.is_stream {
            return add(producer, &self.queue, events).await;
        }
        push(producer, &self.queue, events).await
    }

    /// Denies it a command until it has told so.
    async fn deny(&mut self, command: &str, redis: &mut MultiplexedConnection) -> Outcome {
        let user = self.user.clone();
        let acl = async |redis: &mut MultiplexedConnection, sign: char| {
            let mut acl = redis::cmd("ACL");
            acl.arg(&["SETUSER", &user, &format!("{sign}{command}")]).exec_async(redis).await
        };
        let known = self.daemon.log().len();
        if let Err(error) = acl(redis, '-').await {
            // One of a later version.
            ensure!(error.to_string().to_lowercase().contains("unknown command"), "{command}: {error}");
            return Ok(());
        }
        let name = command.to_uppercase();
        let told = |daemon: &Tidegate| {
            let lines = &daemon.log()[known..];
            lines.iter().any(|line| line.contains("Redis refuses: ") && line.contains(&name))
        };
        let (mut redis2, queue) = (redis.clone(), self.queue.clone());
        self.push(redis).await?;
        try_eventually(PATIENCE, &format!("{command} to be missed, or all to be drained"), async || {
            match length(&mut redis2, &queue).await {
                Ok(0) => Ok(()),
                _ if told(&self.daemon) => Ok(()),
                left => Err(format!("{left:?}")),
            }
        })
        .await?;
        // What is asked for at a takeover alone is missed at the next.
        if !told(&self.daemon) {
            redis::cmd("CLIENT").arg(&["KILL", "USER", &self.user]).exec_async(redis).await?;
        }
        let missed =
            async || if told(&self.daemon) { Ok(()) } else { Err(self.daemon.log()[known..].join("\n")) };
        try_eventually(PATIENCE, &format!("{name} to be told by name"), missed).await?;
        let letters = dead_letters(redis, &self.queue).await?.len();
        ensure!(letters <= self.bad, "{command}: {letters} dead letters of {}", self.bad);
        acl(redis, '+').await?;
        try_eventually(PATIENCE, &format!("all to be drained with {command}"), async || {
            match length(&mut redis2, &queue).await {
                Ok(0) => Ok(()),
                left => Err(format!("{left:?} {:#?}", &self.daemon.log()[known..])),
            }
        })
        .await?;
        let letters = dead_letters(redis, &self.queue).await?.len();
        ensure!(letters == self.bad, "{command}: {letters} dead letters of {}", self.bad);
        Ok(())
    }
}

async fn deny_each(is_stream: bool, commands: BTreeSet<String>) -> Outcome {
    let mut stage = Setting::new().own_fast_servers().stage().await?;
    let database = stage.mongo.database_name("denied");
    let (local, mut all) = (tokio::task::LocalSet::new(), tokio::task::JoinSet::<Outcome>::new());
    let commands: Vec<String> = commands.into_iter().collect();
    println!("{} commands: {commands:?}", commands.len());
    for nth in 0..WORKERS {
        let mut denied = Denied::start(&mut stage, &database, is_stream).await?;
        let mut redis = stage.producer().await?;
        let documents = stage.mongo.database(&database).await?;
        let share: Vec<_> = commands.iter().skip(nth).step_by(WORKERS).cloned().collect();
        all.spawn_local_on(
            async move {
                for command in &share {
                    denied.deny(command, &mut redis).await?;
                }
                let metrics = denied.daemon.idle(&denied.queue, PATIENCE).await?;
                assert_accounting(&metrics, &denied.queue);
                let takeovers = metrics.sum("tidegate_takeovers_total", &[]);
                // Each refusal ends at most the ownership that met it, and a killed connection another.
                let most = 1.0 + 3.0 * share.len() as f64;
                ensure!(takeovers <= most, "{takeovers} takeovers for {} refusals", share.len());
                assert_exact(
                    document(&documents, "documents", denied.queue.as_str()).await?.as_ref(),
                    denied.good,
                );
                denied.daemon.readiness(200, PATIENCE).await?;
                Ok(())
            },
            &local,
        );
    }
    let ended = async {
        while let Some(ended) = all.join_next().await {
            ended??;
        }
        Ok(())
    };
    local.run_until(ended).await
}

/// Dozens of commands, each denied and granted once: so it takes longer than others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_right_that_a_list_needs_is_told_by_name_and_nothing_is_done_by_halves() -> Outcome {
    deny_each(false, commands(&[SHARED, INSTANCES, IDENTITY], [OWNED, OF_LISTS])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_right_that_a_stream_needs_is_told_by_name_and_nothing_is_done_by_halves() -> Outcome {
    deny_each(true, commands(&[STREAM, INSTANCES, IDENTITY], [OWNED, OF_STREAMS])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_to_be_popped_is_not_popped_without_the_rights_to() -> Outcome {
    let stage = Setting::new().own_fast_servers().delivery("at-most-once").stage().await?;
    let mut redis = stage.producer().await?;
    let rights = ["SETUSER", "worker", "on", ">sesame", "~*", "&*", "+@all", "-rpush"];
    redis::cmd("ACL").arg(&rights).exec_async(&mut redis).await?;
    let url = stage.redis.url().replace("redis://", "redis://worker:sesame@");
    let mut tidegate = stage.launch.clone().env("TIDEGATE_REDIS__URL", url).spawn().await?;
    stage.push(["no event", &logged("doc", 0)]).await?;
    tidegate.logged(&format!("user worker may not RPUSH on {}:dead", stage.queue), PATIENCE).await?;
    assert_eq!(length(&mut redis, &stage.queue).await?, 2);
    redis::cmd("ACL").arg(&["SETUSER", "worker", "+rpush"]).exec_async(&mut redis).await?;
    stage.settled(&tidegate).await?;
    assert_exact(stage.document("doc").await?.as_ref(), 1);
    assert_eq!(stage.dead_letters().await?.len(), 1);
    Ok(())
}

/// A key of the queue that has another type, found while it runs: nothing is done by halves then either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_beside_the_queue_that_becomes_another_type_makes_no_copies() -> Outcome {
    let stage = Setting::new().stage().await?;
    let mut tidegate = stage.start().await?;
    let mut redis = stage.producer().await?;
    let refused = format!("tidegate:{{{}}}:refused", stage.queue);
    let () = redis.set(&refused, "x").await?;
    stage.push(["no event", &logged("doc", 0)]).await?;
    tidegate.logged(&format!("{refused} is a string, not a zset"), PATIENCE).await?;
    tidegate.readiness(503, PATIENCE).await?;
    assert_eq!(stage.dead_letters().await?.len(), 0);
    let () = redis.del(&refused).await?;
    stage.settled(&tidegate).await?;
    assert_exact(stage.document("doc").await?.as_ref(), 1);
    assert_eq!(stage.dead_letters().await?.len(), 1);
    tidegate.readiness(200, PATIENCE).await?;
    Ok(())
}

/// Commands, each by its words.
type Commands = Vec<Vec<&'static str>>;

/// What makes Redis refuse, and what ends it.
fn refusals() -> Vec<(&'static str, Commands, Commands)> {
    vec![
        (
            "NOREPLICAS",
            vec![vec!["CONFIG", "SET", "min-replicas-to-write", "1"]],
            vec![vec!["CONFIG", "SET", "min-replicas-to-write", "0"]],
        ),
        ("READONLY", vec![vec!["REPLICAOF", "127.0.0.1", "1"]], vec![vec!["REPLICAOF", "NO", "ONE"]]),
        (
            "MASTERDOWN",
            vec![
                vec!["CONFIG", "SET", "replica-serve-stale-data", "no"],
                vec!["REPLICAOF", "127.0.0.1", "1"],
            ],
            vec![vec!["REPLICAOF", "NO", "ONE"]],
        ),
        (
            "may not",
            vec![vec!["ACL", "SETUSER", "worker", "-@write"]],
            vec![vec!["ACL", "SETUSER", "worker", "+@all"]],
        ),
    ]
}

async fn run(commands: &[Vec<&str>], redis: &mut MultiplexedConnection) -> Outcome {
    for command in commands {
        redis::cmd(command[0]).arg(&command[1..]).exec_async(redis).await?;
    }
    Ok(())
}

/// The last epoch that MongoDB gave out.
async fn epoch(stage: &Stage) -> anyhow::Result<i64> {
    let found = document(&stage.database, "tidegate", stage.queue.as_str()).await?;
    Ok(found.and_then(|found| found.get_i64("epoch").ok()).unwrap_or(0))
}

/// For so long nothing may change while Redis refuses.
const REFUSED_FOR: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_refuses_is_one_state_until_it_does_not() -> Outcome {
    let stage = Setting::new().own_fast_servers().stage().await?;
    let mut redis = stage.producer().await?;
    let rights = ["SETUSER", "worker", "on", ">sesame", "~*", "&*", "+@all"];
    redis::cmd("ACL").arg(&rights).exec_async(&mut redis).await?;
    let url = stage.redis.url().replace("redis://", "redis://worker:sesame@");
    let mut tidegate = stage.launch.clone().env("TIDEGATE_REDIS__URL", url).start().await?;
    let mut pushed = 0;
    for (word, begin, end) in refusals() {
        stage.push([logged("doc", pushed)]).await?;
        pushed += 1;
        stage.settled(&tidegate).await?;
        let (before, known) = (epoch(&stage).await?, tidegate.log().len());
        run(&begin, &mut redis).await?;
        tidegate.readiness(503, PATIENCE).await?;
        let (began, mut looks) = (Instant::now(), 0);
        while began.elapsed() < REFUSED_FOR {
            let (_, status) = tidegate.get_json("/status").await?;
            ensure!(status["ready"] == false, "{word}: ready");
            let state = status["dependencies"]["redis"]["state"].clone();
            ensure!(looks == 0 || state == "refuses", "{word}: {state}");
            let up = tidegate.metrics().await?.sum("tidegate_up", &[("dependency", "redis")]);
            ensure!(up == 0.0, "{word}: it is up");
            looks += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (_, status) = tidegate.get_json("/status").await?;
        assert_eq!(status["summary"]["kind"], "redis-refuses", "{status}");
        let text = status["summary"]["text"].to_string();
        assert!(text.contains("Redis refuses: ") && text.contains(word), "{text}");
        ensure!(epoch(&stage).await? - before <= 1, "{word}: epochs were drawn");
        run(&end, &mut redis).await?;
        tidegate.readiness(200, PATIENCE).await?;
        stage.push([logged("doc", pushed)]).await?;
        pushed += 1;
        stage.settled(&tidegate).await?;
        let log = tidegate.log()[known..].to_vec();
        let lines = |text: &str| log.iter().filter(|line| line.contains(text)).count();
        let told = (lines("Redis refuses: "), lines("redis refuses no more, after"), lines("redis is down"));
        assert_eq!(told, (1, 1, 0), "{word}: {log:#?}");
    }
    assert_exact(stage.document("doc").await?.as_ref(), pushed);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_that_may_not_be_published_are_told_of_once() -> Outcome {
    let stage = Setting::new().own_fast_servers().with("receipts.enabled = true\n").stage().await?;
    let mut redis = stage.producer().await?;
    let rights = ["SETUSER", "worker", "on", ">sesame", "~*", "resetchannels", "+@all"];
    redis::cmd("ACL").arg(&rights).exec_async(&mut redis).await?;
    let url = stage.redis.url().replace("redis://", "redis://worker:sesame@");
    let mut tidegate = stage.launch.clone().env("TIDEGATE_REDIS__URL", url).start().await?;
    for n in 0..3 {
        stage.push([logged("doc", n)]).await?;
        stage.settled(&tidegate).await?;
        let dropped = |metrics: &Metrics| {
            let dropped = metrics.sum("tidegate_receipts_dropped_total", &[]);
            ensure!(dropped == n as f64 + 1.0, "{dropped} dropped");
            Ok(())
        };
        tidegate.metrics_when(PATIENCE, "the receipt to be dropped", dropped).await?;
    }
    let (_, status) = tidegate.get_json("/status").await?;
    assert_eq!(status["summary"]["kind"], "receipts-refused", "{status}");
    assert!(status["receipts_refused"].to_string().contains("NOPERM"), "{status}");
    redis::cmd("ACL").arg(&["SETUSER", "worker", "&tidegate:*"]).exec_async(&mut redis).await?;
    stage.push([logged("doc", 3)]).await?;
    stage.settled(&tidegate).await?;
    tidegate.logged("receipts are published again", PATIENCE).await?;
    let told = tidegate.log().iter().filter(|line| line.contains("receipts cannot be published")).count();
    assert_eq!(told, 1);
    assert_exact(stage.document("doc").await?.as_ref(), 4);
    Ok(())
}

//! Tests a Redis Cluster: queues on several nodes, slots that move, and nodes that die, all under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use mongodb::Database;
use serde_json::{Value, json};

use crate::stage::{PATIENCE, update};
use crate::support::{
    Cluster, ClusterClient, Launch, Load, Mongo, Pushed, Redis, Tidegate, document, documents, eventually,
    unique,
};

type Outcome = anyhow::Result<()>;

/// A cluster with partitions, and what they are written to.
struct Partitions {
    cluster: Cluster,
    _mongo: Mongo,
    database: Database,
    name: String,
    count: usize,
    launch: Launch,
}

impl Partitions {
    async fn on(cluster: Cluster, count: usize) -> anyhow::Result<Self> {
        let mut mongo = Mongo::shared().await?;
        let (name, database) = (unique("cluster"), mongo.database_name("test"));
        let config = format!(
            "native.collections = [\"documents\"]\nlease.ttl = \"2s\"\n\
             [[queues]]\nkey = \"{name}:{{0..{}}}\"\n",
            count - 1
        );
        let launch = Launch::config(config)
            .env("TIDEGATE_REDIS__CLUSTER", cluster.seeds())
            // Only how to log in would be taken from it; this address is nobody's.
            .env("TIDEGATE_REDIS__URL", "redis://127.0.0.1:1/")
            .mongodb(&mongo, &database);
        let database = mongo.database(&database).await?;
        Ok(Partitions { cluster, _mongo: mongo, database, name, count, launch })
    }

    fn key(&self, partition: usize) -> String {
        format!("{}:{partition}", self.name)
    }

    fn keys(&self) -> Vec<String> {
        (0..self.count).map(|partition| self.key(partition)).collect()
    }

    fn load(&self, replicas: &Arc<AtomicUsize>) -> anyhow::Result<Load> {
        Load::start(&self.cluster, self.keys(), replicas)
    }

    /// Waits until all that was pushed is written, and asserts that each event is there once and in order.
    async fn assert_exact(&self, pushed: &Pushed) -> Outcome {
        pushed.drained(&self.cluster, PATIENCE).await?;
        pushed.compare(&documents(&self.database, "documents").await?).check()
    }
}

async fn holds(instances: &[&Tidegate], count: usize) {
    eventually(PATIENCE, "all queues to be owned", async || {
        let mut held = Vec::new();
        for instance in instances {
            held.push(instance.metrics().await?.sum("tidegate_lease_held", &[]) as usize);
        }
        anyhow::ensure!(held.iter().sum::<usize>() == count, "{held:?}");
        anyhow::ensure!(held.iter().all(|held| held.abs_diff(count / instances.len()) <= 1), "{held:?}");
        anyhow::Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_takes_its_queue_along() -> Outcome {
    let stage = Partitions::on(Cluster::start(3, 0).await?, 6).await?;
    let tidegate = stage.launch.start().await?;
    let load = stage.load(&Arc::default())?;
    load.goes_on(20).await;
    for partition in 0..stage.count {
        let key = stage.key(partition);
        let to = (stage.cluster.primary_of(&key).await? + 1) % 3;
        // The others go on while the keys of this one are on two nodes.
        stage.cluster.move_slot_of(&key, to, async || load.goes_on(2).await).await?;
        anyhow::ensure!(stage.cluster.primary_of(&key).await? == to, "the slot has not moved");
    }
    load.goes_on(20).await;
    stage.assert_exact(&load.stop().await?).await?;
    // By what it was told, depends on what it asked for when.
    let told = ["has moved to another node", "Redis refuses: ASK ", "Redis refuses: TRYAGAIN "];
    let is_told = |line: &String| told.iter().any(|told| line.contains(told));
    anyhow::ensure!(tidegate.log().iter().any(is_told), "{}", tidegate.log().join("\n"));
    eventually(PATIENCE, "it to be ready", async || {
        let (status, body) = tidegate.get_json("/readyz").await?;
        anyhow::ensure!(status == 200, "{body}");
        anyhow::Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_outlive_a_primary_an_instance_and_a_move() -> Outcome {
    const COUNT: usize = 64;
    let mut stage = Partitions::on(Cluster::start(3, 1).await?, COUNT).await?;
    let launch = stage.launch.clone();
    let (first, second, third) = (launch.start().await?, launch.start().await?, launch.start().await?);
    holds(&[&first, &second, &third], COUNT).await;
    let replicas = Arc::new(AtomicUsize::new(1));
    let load = stage.load(&replicas)?;
    load.goes_on(5).await;

    stage.cluster.move_slots(0, 1, 1000).await?;
    load.goes_on(5).await;
    first.kill9()?;
    load.goes_on(5).await;
    holds(&[&second, &third], COUNT).await;
    let primary = stage.cluster.primary_of(&stage.key(0)).await?;
    stage.cluster.nodes[primary].kill()?;
    // The replica that takes its place has none.
    replicas.store(0, Ordering::Relaxed);
    load.goes_on(5).await;
    holds(&[&second, &third], COUNT).await;
    // For a moment, it takes itself for the primary that it was: what it acknowledges then is lost.
    replicas.store(1, Ordering::Relaxed);
    stage.cluster.nodes[primary].restart().await?;
    load.goes_on(5).await;

    stage.assert_exact(&load.stop().await?).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_queue_keeps_is_in_its_slot() -> Outcome {
    let stage = Partitions::on(Cluster::start(3, 0).await?, 3).await?;
    let launch = stage.launch.clone().env("TIDEGATE_RECEIPTS__ENABLED", "true");
    let tidegate = launch.start().await?;
    let mut client = ClusterClient::new(&stage.cluster)?;
    for partition in 0..3 {
        let key = stage.key(partition);
        let () = client.ask(&key, redis::cmd("RPUSH").arg(&key).arg("no event")).await?;
        let dead = format!("{{{key}}}:dead");
        eventually(PATIENCE, "the dead letter", async || {
            let letters: Vec<String> =
                client.ask(&dead, redis::cmd("LRANGE").arg(&dead).arg(0).arg(-1)).await?;
            let letter = letters.first().context("none yet")?;
            let letter: Value = serde_json::from_str(letter)?;
            anyhow::ensure!(letter["event_base64"].is_string() || letter["event"] == "no event", "{letter}");
            anyhow::Ok(())
        })
        .await;
    }
    eventually(PATIENCE, "the status to know of them", async || {
        let (_, status) = tidegate.get_json("/status").await?;
        for queue in status["queues"].as_array().context("queues")? {
            let list = format!("{{{}}}:dead", queue["key"].as_str().unwrap_or_default());
            anyhow::ensure!(queue["owner"] == status["instance"], "{queue}");
            anyhow::ensure!(queue["dead_letters"] == 1 && queue["dead_letter_list"] == list, "{queue}");
        }
        anyhow::Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_and_a_single_server_are_told_apart_at_the_start() -> Outcome {
    let stage = Partitions::on(Cluster::start(3, 0).await?, 2).await?;
    let single = stage
        .launch
        .clone()
        .env("TIDEGATE_REDIS__CLUSTER", "[]")
        .env("TIDEGATE_REDIS__URL", stage.cluster.nodes[0].url());
    let exited = single.until_exit(PATIENCE).await?;
    let told = exited.lines.join("\n");
    assert!(
        !exited.status.success() && told.contains("names a node of a Redis Cluster: set redis.cluster"),
        "{told}"
    );

    let redis = Redis::start().await?;
    let cluster = stage.launch.clone().env("TIDEGATE_REDIS__CLUSTER", format!("[{:?}]", redis.url()));
    let exited = cluster.until_exit(PATIENCE).await?;
    let told = exited.lines.join("\n");
    assert!(!exited.status.success() && told.contains("is no node of a Redis Cluster"), "{told}");
    Ok(())
}

/// Else no node serves anything when one is gone.
async fn serve_what_there_is(cluster: &Cluster) -> Outcome {
    for node in &cluster.nodes {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg("cluster-require-full-coverage").arg("no");
        let () = set.query_async(&mut node.connect().await?).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_of_nobody_holds_back_its_own_queue_only() -> Outcome {
    let stage = Partitions::on(Cluster::start(3, 0).await?, 6).await?;
    serve_what_there_is(&stage.cluster).await?;
    let (mut first, second) = (stage.launch.start().await?, stage.launch.start().await?);
    holds(&[&first, &second], 6).await;
    let key = stage.key(0);
    let owner = stage.cluster.primary_of(&key).await?;
    let slot = stage.cluster.slot_of(&key);
    let change = async |what: &str, nodes: &[Redis]| -> Outcome {
        for node in nodes {
            let mut change = redis::cmd("CLUSTER");
            change.arg(what).arg(slot);
            let () = change.query_async(&mut node.connect().await?).await?;
        }
        Ok(())
    };
    change("DELSLOTS", &stage.cluster.nodes).await?;
    // Whoever had the queue tells so, and both go on with the others, which are divided as they were.
    let told = [
        format!("slot {slot} of the Redis Cluster is no node's"),
        "CLUSTERDOWN Hash slot not served".to_owned(),
    ];
    eventually(PATIENCE, "it to be told", async || {
        let lines = [first.log(), second.log()].concat();
        let is_told = lines.iter().any(|line| told.iter().any(|told| line.contains(told)));
        anyhow::ensure!(is_told, "{}", lines.join("\n"));
        anyhow::Ok(())
    })
    .await;
    let mut client = ClusterClient::new(&stage.cluster)?;
    for partition in 1..6 {
        let key = stage.key(partition);
        let event = update(&format!("there{partition}"), json!({ "$set": { "is": true } }));
        let () = client.ask(&key, redis::cmd("RPUSH").arg(&key).arg(event)).await?;
        eventually(PATIENCE, "the event of another slot", async || {
            let written = document(&stage.database, "documents", format!("there{partition}")).await?;
            written.context("not yet").map(drop)
        })
        .await;
    }
    change("ADDSLOTS", &stage.cluster.nodes[owner..=owner]).await?;
    holds(&[&first, &second], 6).await;
    first.logged("took the queue over", PATIENCE).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_dead_node_holds_back_its_own_queues_only() -> Outcome {
    let mut stage = Partitions::on(Cluster::start(3, 0).await?, 6).await?;
    serve_what_there_is(&stage.cluster).await?;
    let mut tidegate = stage.launch.start().await?;
    holds(&[&tidegate], 6).await;
    let dead = stage.cluster.primary_of(&stage.key(0)).await?;
    let mut alive = None;
    for partition in 1..6 {
        if stage.cluster.primary_of(&stage.key(partition)).await? != dead {
            alive = Some(partition);
        }
    }
    let alive = alive.context("all queues are on one node")?;
    stage.cluster.nodes[dead].kill()?;
    tidegate.logged("redis is down: queue", PATIENCE).await?;
    let mut client = ClusterClient::new(&stage.cluster)?;
    let key = stage.key(alive);
    let event = update("there", json!({ "$set": { "is": true } }));
    let () = client.ask(&key, redis::cmd("RPUSH").arg(&key).arg(event)).await?;
    eventually(PATIENCE, "the event on a node that lives", async || {
        let written = document(&stage.database, "documents", "there").await?;
        written.context("not yet").map(drop)
    })
    .await;
    let (status, _) = tidegate.get_json("/readyz").await?;
    assert_eq!(status, 503, "a queue is not drained");
    stage.cluster.nodes[dead].restart().await?;
    eventually(PATIENCE, "it to be ready", async || {
        let (status, body) = tidegate.get_json("/readyz").await?;
        anyhow::ensure!(status == 200, "{body}");
        anyhow::Ok(())
    })
    .await;
    Ok(())
}

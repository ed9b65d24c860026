//! Plays rounds on a Redis Cluster: `make chaos CLUSTER=1 ROUNDS=n`. One round is among the tests.
//!
//! Three instances share the partitions of three primaries, each with a replica. Nodes are killed and stopped, primaries
//! step down, slots move, and instances die, two or three such faults a round, while producers go on. What a producer
//! takes for pushed is on the replica, too. What tidegate keeps in Redis need not be there yet when a primary dies; the
//! cluster has broken its word then, and what it had acknowledged may take effect twice.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use fastrand::Rng;
use nix::sys::signal::Signal;
use tokio::time::sleep;

use crate::support::{Cluster, Compared, Launch, Load, Mongo, Tidegate, Wait, documents};

const PARTITIONS: usize = 24;
const INSTANCES: usize = 3;
/// Of a rolling restart.
const ROLLED: usize = 64;
/// A round in which an event waited for so much longer than the cluster took to replace a primary is worth a look.
const SLOW: Duration = Duration::from_secs(3);
/// How long the queues may take to be empty after the last fault.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillPrimary,
    StopPrimary,
    StepDown,
    MoveSlots,
    KillInstance,
    RestartInstance,
    StopInstance,
}

const FAULTS: [Fault; 7] = [
    Fault::KillPrimary,
    Fault::StopPrimary,
    Fault::StepDown,
    Fault::MoveSlots,
    Fault::KillInstance,
    Fault::RestartInstance,
    Fault::StopInstance,
];

impl Fault {
    /// Another node takes a primary's place, without having all that it acknowledged.
    fn may_lose(self) -> bool {
        matches!(self, Fault::KillPrimary | Fault::StopPrimary)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::KillPrimary => "a primary is killed",
            Fault::StopPrimary => "a primary is stopped, and wakes when another has its place",
            Fault::StepDown => "a replica takes its primary's place in order",
            Fault::MoveSlots => "slots move",
            Fault::KillInstance => "an instance is killed",
            Fault::RestartInstance => "an instance is restarted in order",
            Fault::StopInstance => "an instance is stopped beyond its lease",
        })
    }
}

/// The cluster, and the instances of a round.
struct Play<'c> {
    cluster: &'c mut Cluster,
    launch: Launch,
    instances: Vec<Option<Tidegate>>,
    keys: Vec<String>,
    replicas: Arc<AtomicUsize>,
    /// The longest that the cluster itself took to replace a primary.
    election: Duration,
    rng: Rng,
}

impl Play<'_> {
    async fn inject(&mut self, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::KillPrimary | Fault::StopPrimary => {
                let (primary, began) = (self.primary().await?, Instant::now());
                match fault {
                    Fault::KillPrimary => self.cluster.nodes[primary].kill()?,
                    _ => self.cluster.nodes[primary].pause()?,
                }
                // The replica that takes its place has none.
                self.replicas.store(0, Ordering::Relaxed);
                self.cluster.until_replaced(primary).await?;
                self.election = self.election.max(began.elapsed());
                sleep(Duration::from_millis(self.rng.u64(..500))).await;
                // For a moment, it takes itself for the primary that it was: what it acknowledges then is lost.
                self.replicas.store(1, Ordering::Relaxed);
                match fault {
                    Fault::KillPrimary => self.cluster.nodes[primary].restart().await?,
                    _ => self.cluster.nodes[primary].resume()?,
                }
                self.cluster.settled(3).await?;
            }
            Fault::StepDown => {
                let primary = self.primary().await?;
                self.cluster.step_down(primary).await?;
                self.cluster.settled(3).await?;
            }
            Fault::MoveSlots => {
                for _ in 0..self.rng.usize(1..=4) {
                    let key = self.keys[self.rng.usize(..self.keys.len())].clone();
                    let from = self.cluster.primary_of(&key).await?;
                    let to = self.other_primary(from).await?;
                    let wait = Duration::from_millis(self.rng.u64(..300));
                    self.cluster.move_slot_of(&key, to, async || sleep(wait).await).await?;
                }
            }
            Fault::KillInstance => {
                let victim = self.rng.usize(..INSTANCES);
                self.instances[victim].take().context("it runs")?.kill9()?;
                sleep(Duration::from_millis(self.rng.u64(..2000))).await;
                self.instances[victim] = Some(self.launch.spawn().await?);
            }
            Fault::RestartInstance => {
                let victim = self.rng.usize(..INSTANCES);
                self.instances[victim].take().context("it runs")?.terminate().await?;
                self.instances[victim] = Some(self.launch.spawn().await?);
            }
            Fault::StopInstance => {
                let stopped = self.instances[self.rng.usize(..INSTANCES)].as_ref().context("it runs")?;
                stopped.signal(Signal::SIGSTOP)?;
                sleep(Duration::from_millis(self.rng.u64(500..3000))).await;
                stopped.signal(Signal::SIGCONT)?;
            }
        }
        Ok(())
    }

    /// A primary that has queues.
    async fn primary(&mut self) -> anyhow::Result<usize> {
        let key = &self.keys[self.rng.usize(..self.keys.len())];
        self.cluster.primary_of(key).await
    }

    async fn other_primary(&mut self, than: usize) -> anyhow::Result<usize> {
        let primaries = self.cluster.primaries().await?;
        let others: Vec<_> = primaries.into_iter().filter(|node| *node != than).collect();
        self.rng.choice(others).context("another primary")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_campaign() -> anyhow::Result<()> {
    let asked: Option<usize> = crate::from_env("CHAOS_CLUSTER_ROUNDS")?;
    let seed: u64 = crate::from_env("CHAOS_SEED")?.unwrap_or(crate::SEED);
    let first: u64 = crate::from_env("CHAOS_FIRST")?.unwrap_or(0);
    let release = asked.and_then(|_| crate::release_build());
    let launch = |launch: Launch| match &release {
        Some(release) => launch.program(vec![release.display().to_string()]),
        None => launch,
    };
    let mut cluster = Cluster::start(3, 1).await?;
    let (began, mut failures, mut sum, mut longest) =
        (Instant::now(), Vec::new(), Compared::default(), Duration::ZERO);
    let rounds = asked.unwrap_or(1) as u64;
    for round in first..first + rounds {
        let mut rng = Rng::with_seed(seed ^ (round << 20));
        let mut faults = FAULTS.to_vec();
        rng.shuffle(&mut faults);
        faults.truncate(rng.usize(2..=3));
        let told: Vec<_> = faults.iter().map(Fault::to_string).collect();
        let Played { found, gap, election, log } = play(&mut cluster, round, &faults, rng, &launch)
            .await
            .with_context(|| format!("round {round}: {}", told.join("; ")))?;
        println!(
            "{round:>4}  {:>6} events, longest wait {:>5.2} s, longest election {:>5.2} s, {} lost, {} twice, {} out of order: {}",
            found.events,
            gap.longest.as_secs_f64(),
            election.as_secs_f64(),
            found.lost,
            found.twice,
            found.out_of_order,
            told.join("; ")
        );
        if !found.faults.is_empty() || gap.longest > election + SLOW {
            let file = crate::write(&format!("cluster-seed-{seed}-round-{round}.log"), &log.join("\n"))?;
            println!("      {gap:?}; what tidegate said is in {}", file.display());
        }
        longest = longest.max(gap.longest);
        sum.events += found.events;
        sum.lost += found.lost;
        sum.twice += found.twice;
        sum.out_of_order += found.out_of_order;
        let is_twice = found.twice > 0 && !faults.iter().any(|fault| fault.may_lose());
        if found.lost > 0 || found.out_of_order > 0 || is_twice || found.events == 0 {
            failures.push(format!("round {round}: {}", found.faults.join("\n  ")));
        }
    }
    if asked.is_some() {
        let wait = rolling_restart(&cluster, &launch).await?;
        println!(
            "a rolling restart of {INSTANCES} instances with {ROLLED} partitions: an event waited {:.2} s at most",
            wait.longest.as_secs_f64()
        );
    }
    println!(
        "{rounds} rounds in {:.0} s, seed {seed}: {} events, {} lost, {} twice, {} out of order; the longest wait of an event was {:.2} s",
        began.elapsed().as_secs_f64(),
        sum.events,
        sum.lost,
        sum.twice,
        sum.out_of_order,
        longest.as_secs_f64()
    );
    anyhow::ensure!(failures.is_empty(), "{} rounds failed:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

/// What came of a round.
struct Played {
    found: Compared,
    /// The longest that an event waited for its document.
    gap: Wait,
    /// The longest that the cluster took to replace a primary.
    election: Duration,
    /// What the instances say that run in the end.
    log: Vec<String>,
}

/// Restarts one instance after the other in order, under load.
async fn rolling_restart(cluster: &Cluster, launch: impl Fn(Launch) -> Launch) -> anyhow::Result<Wait> {
    let mut mongo = Mongo::shared().await?;
    let name = mongo.database_name("rolled");
    let config =
        format!("native.collections = [\"documents\"]\n[[queues]]\nkey = \"rolled:{{0..{}}}\"\n", ROLLED - 1);
    let launch =
        launch(Launch::config(config)).env("TIDEGATE_REDIS__CLUSTER", cluster.seeds()).mongodb(&mongo, &name);
    let mut instances = Vec::new();
    for _ in 0..INSTANCES {
        instances.push(launch.start().await?);
    }
    let keys = (0..ROLLED).map(|partition| format!("rolled:{partition}")).collect();
    let load = Load::start(cluster, keys, &Arc::new(AtomicUsize::new(1)))?;
    load.goes_on(10).await;
    let database = mongo.database(&name).await?;
    let watch = load.watch(database.clone());
    for _ in 0..INSTANCES {
        instances.remove(0).terminate().await?;
        instances.push(launch.start().await?);
        load.goes_on(10).await;
    }
    let pushed = load.stop().await?;
    pushed.drained(cluster, PATIENCE).await?;
    pushed.compare(&documents(&database, "documents").await?).check()?;
    watch.stop().await
}

/// Plays a round: its faults one after the other, under load. Answers what became of the events, and how long one waited.
async fn play(
    cluster: &mut Cluster,
    round: u64,
    faults: &[Fault],
    rng: Rng,
    launch: impl Fn(Launch) -> Launch,
) -> anyhow::Result<Played> {
    let mut mongo = Mongo::shared().await?;
    let (name, database_name) = (format!("chaos{round}"), mongo.database_name("chaos"));
    let config = format!(
        "native.collections = [\"documents\"]\nlease.ttl = \"1s\"\nredis.timeout = \"1s\"\n\
         [[queues]]\nkey = \"{name}:{{0..{}}}\"\n",
        PARTITIONS - 1
    );
    let launch = launch(Launch::config(config))
        .env("TIDEGATE_REDIS__CLUSTER", cluster.seeds())
        .mongodb(&mongo, &database_name);
    let database = mongo.database(&database_name).await?;
    let mut instances = Vec::new();
    for _ in 0..INSTANCES {
        instances.push(Some(launch.start().await?));
    }
    let keys: Vec<_> = (0..PARTITIONS).map(|partition| format!("{name}:{partition}")).collect();
    let replicas = Arc::new(AtomicUsize::new(1));
    let load = Load::start(cluster, keys.clone(), &replicas)?;
    load.goes_on(5).await;
    let watch = load.watch(database.clone());
    let mut play = Play { cluster, launch, instances, keys, replicas, election: Duration::ZERO, rng };
    for fault in faults {
        play.inject(*fault).await.with_context(|| fault.to_string())?;
        load.goes_on(20).await;
    }
    let pushed = load.stop().await?;
    pushed.drained(play.cluster, PATIENCE).await?;
    let longest = watch.stop().await?;
    let instances = play.instances.iter().flatten().enumerate();
    let log = instances
        .flat_map(|(at, instance)| instance.log().into_iter().map(move |line| format!("[{at}] {line}")));
    let found = pushed.compare(&documents(&database, "documents").await?);
    Ok(Played { found, gap: longest, election: play.election, log: log.collect() })
}

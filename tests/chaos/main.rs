//! Runs the fault campaign: `make chaos ROUNDS=n SEED=s`. A short one is among the tests.
//!
//! Each round starts servers, one or two instances of the real tidegate behind fault proxies, and producers. Something
//! fails while they are at work; then everything is to be settled, and every document is to be what its producer made
//! it. What fails, when, and what is pushed is drawn from the seed. How the threads of all those processes interleave
//! is not: the same seed is the same campaign, not the same run.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop there")]

#[path = "../suite/support/mod.rs"]
mod support;

#[path = "../suite/hot_state/filler.rs"]
mod filler;

mod cluster;
mod deck;
mod faults;
mod history;
mod hot;
mod plan;
mod receipts;
mod refusals;
mod report;
mod timing;
mod verdict;
mod workload;
mod world;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use self::plan::Plan;
use self::report::{Outcome, Report};
use self::world::World;

/// Of the campaign among the tests: every process killed or stopped, a full disk, a network that fails on either side, a
/// Redis that loses what it acknowledged, and servers that refuse.
const ROUNDS: usize = 8;
const SEED: u64 = 51820;
/// A round takes a few seconds. One that takes longer than every wait within it hangs.
const ROUND_LIMIT: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn campaign() -> anyhow::Result<()> {
    let rounds: Option<usize> = from_env("CHAOS_ROUNDS")?;
    let seed = from_env("CHAOS_SEED")?.unwrap_or(SEED);
    let first = from_env("CHAOS_FIRST")?.unwrap_or(0);
    let fault: String = from_env("CHAOS_FAULT")?.unwrap_or_default();
    let named = |plan: &Plan| plan.to_string().contains(&fault);
    // Not in the few rounds among the tests: nobody has built it for them.
    let release = rounds.and_then(|_| release_build());
    if rounds.is_some() && release.is_none() {
        println!("there is no release build, so all rounds have a debug build");
    }
    let plans = || (first..).map(|round| Plan::draw(seed, round).with(release.is_some()));
    ensure!(plans().take(deck::DECK.len() * 2).any(|plan| named(&plan)), "no fault is called {fault:?}");
    let mut report = Report::new(seed);
    for plan in plans().filter(named).take(rounds.unwrap_or(ROUNDS)) {
        let began = Instant::now();
        let mut log = Vec::new();
        let outcome = timeout(ROUND_LIMIT, play(&plan, release.as_deref(), &mut log))
            .await
            .context("it hangs")
            .flatten();
        let failures = report.failures().len();
        let line = report.add(&plan, began.elapsed(), &outcome);
        println!("{line}");
        if report.failures().len() > failures {
            let log = log.join("\n");
            let file = write(
                &format!("seed-{seed}-round-{}.log", plan.round),
                &format!("{plan:#?}\n{line}\n\n{log}\n"),
            )?;
            println!("      what tidegate said is in {}", file.display());
        }
    }
    println!("\n{}", report.markdown());
    if rounds.is_some() {
        println!("This report is in {}", write("report.md", &report.markdown())?.display());
    }
    let failures = report.failures();
    ensure!(failures.is_empty(), "{} rounds failed:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

/// Plays a round. `log` gets what tidegate said.
async fn play(plan: &Plan, release: Option<&Path>, log: &mut Vec<String>) -> anyhow::Result<Outcome> {
    let mut world = World::build(plan, release).await?;
    let outcome = play_in(&mut world, plan).await;
    *log = world.log();
    let (redis_lost, (deduplicated, dead), recovery) = outcome?;
    let receipts = world.receipts().await?;
    let documents = support::documents(world.database(), "documents").await?;
    let takeovers = log.iter().filter(|line| line.contains("took the queue over")).count();
    if plan.hot {
        let compared = hot::compare(&world, plan, &documents).await?;
        println!("      {compared} hot states are their documents");
    }
    let verdict = verdict::judge(&world.workload.record(), &documents);
    ensure!(verdict.events > 0, "nothing was pushed");
    ensure!(receipts.compared > 0, "no receipt came");
    Ok(Outcome { verdict, redis_lost, deduplicated, recovery, takeovers, dead, receipts })
}

async fn play_in(world: &mut World, plan: &Plan) -> anyhow::Result<(usize, (usize, Vec<Value>), Duration)> {
    world.owner().await?;
    let gateways = hot::gateways(world, plan).await?;
    sleep(plan.before).await;
    let over = faults::inject(world, plan).await?;
    let recovery = match over.recovery {
        Some(recovery) => recovery,
        None => world.recovery(over.since).await?,
    };
    world.workload.stop().await?;
    drop(gateways);
    // What has a window of half a minute is not to be waited for.
    world.workload.flush().await?;
    let settled = world.settle().await?;
    Ok((over.redis_lost, settled, recovery))
}

/// The release build of tidegate, beside this one's.
fn release_build() -> Option<PathBuf> {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("release").join("tidegate");
    file.is_file().then_some(file)
}

/// Writes a file into the folder `chaos` of Cargo's target folder.
fn write(name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("chaos");
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(name);
    std::fs::write(&file, text)?;
    Ok(file)
}

fn from_env<T: FromStr>(name: &str) -> anyhow::Result<Option<T>> {
    match std::env::var(name) {
        Ok(text) => {
            let value = text.parse().map_err(|_| anyhow!("{name} cannot be {text:?}"))?;
            Ok(Some(value))
        }
        Err(_) => Ok(None),
    }
}

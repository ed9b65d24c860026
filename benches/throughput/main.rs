//! Measures how fast it is, against what the servers alone allow and what people run today: `make bench`.
//!
//! Everything happens on this machine, in one run and in turn, so that what the machine does meanwhile concerns all
//! alike: ratios hold where figures do not. `QUICK=1` takes less than two minutes, `ONLY=hot,latency` some of the steps,
//! `ROUNDS=n` says how often. docs/performance.md tells what is measured, and how.

#[path = "../../tests/suite/support/mod.rs"]
mod support;
#[path = "../traces/mod.rs"]
mod traces;

mod backlog;
mod bare;
mod compare;
mod cpu;
mod daemon;
mod goals;
mod kind;
mod latency;
mod machine;
mod memory;
mod peers;
mod plan;
mod plots;
mod report;
mod results;
mod servers;
mod stats;
mod svg;
mod typing;
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;

use self::plan::Plan;
use self::results::Results;
use self::servers::Servers;
use self::workload::Workload;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nbench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// All there is to measure: the workloads by their names, and more.
const STEPS: &[&str] = &[
    "hot", "again", "one", "zipf", "distinct", "large", "small", "stream", "latency", "memory", "backlog",
    TYPING,
];
/// Only by its name. It takes its time by the clock, ten minutes, or half a minute of the two that a hurry has.
const TYPING: &str = "typing";

#[tokio::main]
async fn run() -> anyhow::Result<()> {
    let plan = Plan::from_env(STEPS)?;
    let began = Instant::now();
    let folder = folder()?;
    let mut servers = Servers::start().await?;
    let about = format!("{}. {} on the same machine.\n", machine::describe(), servers.describe().await?);
    let mut results = Results::default();
    for workload in Workload::all(&plan) {
        if plan.wants(workload.name) {
            // The others are about tidegate and its limits.
            let peers = if workload.name == "hot" { peers::all(&plan, &folder)? } else { Vec::new() };
            let comparison = compare::measure(&plan, &mut servers, workload, &peers).await?;
            results.comparisons.push(comparison);
            report::write(&folder, &plan, &about, &results)?;
        }
    }
    if plan.wants("latency") {
        results.latencies = latency::measure(&plan, &mut servers).await?;
        report::write(&folder, &plan, &about, &results)?;
    }
    if plan.wants("memory") {
        results.memory = Some(memory::measure(&plan, &mut servers).await?);
        report::write(&folder, &plan, &about, &results)?;
    }
    if plan.wants("backlog") {
        results.backlog = Some(backlog::measure(&plan, &mut servers).await?);
        report::write(&folder, &plan, &about, &results)?;
    }
    if plan.names(TYPING) {
        results.typing = Some(typing::measure(&plan, &mut servers).await?);
    }
    let text = report::write(&folder, &plan, &about, &results)?;
    let plots = plots::draw(&folder, &results)?.join(", ");
    println!(
        "\n{text}\nThis is {}, beside {plots}; it took {:.0} s",
        folder.join("report.md").display(),
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// `bench` in the folder of whatever is built.
fn folder() -> anyhow::Result<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("no target folder")?;
    let folder = target.join("bench");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

//! Measures how much memory it takes while MongoDB does not answer and a million events wait.

use std::time::{Duration, Instant};

use tidegate::format::number;

use super::daemon::{self, DEFAULT};
use super::plan::Plan;
use super::servers::Servers;
use super::stats::median;
use super::support::try_eventually;
use super::workload::Workload;

/// What came of an outage.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) events: u64,
    rounds: Vec<Round>,
}

/// MiB resident.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    /// Before there was an event.
    pub(crate) idle: f64,
    /// The most during the outage.
    pub(crate) outage: f64,
    /// The most until everything was written.
    pub(crate) after: f64,
}

impl Memory {
    pub(crate) fn of(&self, what: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(what))
    }
}

/// Measures outages. MongoDB is stopped by SIGSTOP: connections stay open, nothing answers.
pub(crate) async fn measure(plan: &Plan, servers: &mut Servers) -> anyhow::Result<Memory> {
    let workload = Workload::hot();
    println!("\nmemory: {} events wait while MongoDB does not answer", number(workload.events));
    servers.keep(&workload, workload.events).await?;
    let mut rounds = Vec::new();
    for number in 1..=plan.of(plan.rounds, 1) {
        let round = run(plan, servers, &workload).await?;
        let Round { idle, outage, after } = round;
        println!(
            "  round {number}  {idle:.1} MiB idle, {outage:.1} at most in the outage, {after:.1} after it"
        );
        rounds.push(round);
    }
    Ok(Memory { events: workload.events, rounds })
}

async fn run(plan: &Plan, servers: &mut Servers, workload: &Workload) -> anyhow::Result<Round> {
    let database = servers.database();
    servers.stage(workload).await?;
    let tidegate = daemon::start(servers, workload.kind, database.name(), DEFAULT).await?;
    let mib = |bytes: anyhow::Result<u64>| bytes.map(|bytes| bytes as f64 / f64::from(1 << 20));
    let idle = mib(tidegate.resident_bytes())?;
    servers.mongo.pause()?;
    servers.release(workload.kind).await?;
    // Longer than `mongodb.timeout`, so that commands are given up and sent again.
    let until = Instant::now() + plan.of(Duration::from_secs(15), Duration::from_secs(3));
    let mut read = (0, Instant::now());
    let ended = try_eventually(Duration::from_secs(120), "reading to pause", async || {
        let now = servers.read_ahead().await.map_err(|error| format!("{error:#}"))?;
        if now != read.0 {
            read = (now, Instant::now());
        }
        let rests = read.1.elapsed() > Duration::from_secs(1);
        if rests && Instant::now() > until { Ok(()) } else { Err(format!("{now} events read")) }
    });
    let outcome = ended.await.and_then(|()| mib(tidegate.peak_resident_bytes()));
    servers.mongo.resume()?;
    let outage = outcome?;
    servers.drained(workload.kind).await?;
    let after = mib(tidegate.peak_resident_bytes())?;
    servers.check(&database, workload.events + 1).await?;
    tidegate.terminate().await?;
    database.drop().await?;
    Ok(Round { idle, outage, after })
}

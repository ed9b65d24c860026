//! Measures whether events cost more when many wait.

use tidegate::format::number;

use super::daemon::{self, DEFAULT};
use super::plan::Plan;
use super::servers::Servers;
use super::stats::Series;
use super::workload::Workload;

/// Backlogs, in events.
const SIZES: [u64; 4] = [10_000, 100_000, 1_000_000, 10_000_000];
const QUICK: [u64; 3] = [10_000, 100_000, 1_000_000];

/// What came of it, by size.
#[derive(Debug)]
pub(crate) struct Backlog {
    pub(crate) sizes: Vec<(u64, Series)>,
}

impl Backlog {
    /// How much faster the longest backlog is drained than the one of that size.
    pub(crate) fn longest_against(&self, size: u64) -> Option<f64> {
        let (_, longest) = self.sizes.last()?;
        let (_, other) = self.sizes.iter().find(|(of, _)| *of == size)?;
        Some(longest.against(other))
    }

    /// Whether the longest one of all was measured.
    pub(crate) fn is_whole(&self) -> bool {
        self.sizes.len() == SIZES.len()
    }
}

/// Drains backlogs of each size, in turn.
pub(crate) async fn measure(plan: &Plan, servers: &mut Servers) -> anyhow::Result<Backlog> {
    println!("\nbacklog: events a second, by how many wait");
    let sizes: &[u64] = plan.of(&SIZES, &QUICK);
    let empty = |&size: &u64| (size, Series { name: number(size), runs: Vec::new() });
    let mut series: Vec<(u64, Series)> = sizes.iter().map(empty).collect();
    let longest = sizes.iter().copied().max().unwrap_or(0);
    servers.keep(&Workload::hot(), longest).await?;
    for round in 1..=plan.of(plan.rounds, 1) {
        for (size, series) in &mut series {
            let workload = Workload { events: *size, ..Workload::hot() };
            let run = daemon::drain(servers, &workload, DEFAULT).await?;
            println!(
                "  round {round}  {:>12} events {:>12} events/s",
                series.name,
                number(run.rate() as u64)
            );
            series.runs.push(run);
        }
    }
    // Gigabytes.
    servers.forget().await?;
    Ok(Backlog { sizes: series })
}

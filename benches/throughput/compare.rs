//! Has everybody who can drain a workload do so, in turn, round after round.

use tidegate::format::number;

use super::bare;
use super::daemon::{self, BEST, DEFAULT};
use super::kind::Kind;
use super::peers::Peer;
use super::plan::Plan;
use super::servers::Servers;
use super::stats::{Run, Series};
use super::workload::{Spread, Workload};

pub(crate) const BARE_DRAIN: &str = "bare drain";
pub(crate) const SOCKET_DRAIN: &str = "bare drain, plain socket";
/// One write of each document that the events leave.
const BARE_WRITES: &str = "bare writes";
/// The bare drain, and then the bare writes.
pub(crate) const SERIAL_IDEAL: &str = "serial ideal";
pub(crate) const BARE_UPSERTS: &str = "bare upserts";
pub(crate) const TIDEGATE: &str = "tidegate";
pub(crate) const TIDEGATE_BEST: &str = "tidegate, best";
pub(crate) const TIDEGATE_LIST: &str = "tidegate, a list";
pub(crate) const TIDEGATE_LIST_BEST: &str = "tidegate, best, a list";

/// What came of a workload.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) workload: Workload,
    pub(crate) series: Vec<Series>,
    /// Who could not be measured, and why.
    pub(crate) skipped: Vec<String>,
}

impl Comparison {
    pub(crate) fn series(&self, name: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.name == name)
    }

    /// How much faster one is than another.
    pub(crate) fn ratio(&self, of: &str, to: &str) -> Option<f64> {
        Some(self.series(of)?.against(self.series(to)?))
    }

    /// The limit that this workload runs into.
    pub(crate) fn limit(&self) -> &'static str {
        match self.workload.spread {
            Spread::Distinct => BARE_UPSERTS,
            _ => BARE_DRAIN,
        }
    }
}

enum Contender<'a> {
    BareDrain,
    SocketDrain,
    BareWrites,
    BareUpserts,
    Tidegate(&'static str, daemon::Settings<'static>),
    /// The same events in a list.
    OfList(&'static str, daemon::Settings<'static>),
    Peer(&'a Peer),
}

impl Contender<'_> {
    fn name(&self) -> &str {
        match self {
            Self::BareDrain => BARE_DRAIN,
            Self::SocketDrain => SOCKET_DRAIN,
            Self::BareWrites => BARE_WRITES,
            Self::BareUpserts => BARE_UPSERTS,
            Self::Tidegate(name, _) | Self::OfList(name, _) => name,
            Self::Peer(peer) => peer.name,
        }
    }

    async fn run(&self, servers: &mut Servers, workload: &Workload) -> anyhow::Result<Run> {
        match self {
            Self::BareDrain => bare::drain(servers, workload).await,
            Self::SocketDrain => bare::drain_by_socket(servers, workload).await,
            Self::BareWrites => bare::writes(servers, workload).await,
            Self::BareUpserts => bare::upserts(servers, workload).await,
            Self::Tidegate(_, settings) => daemon::drain(servers, workload, settings).await,
            Self::OfList(_, settings) => {
                daemon::drain(servers, &Workload { kind: Kind::List, ..*workload }, settings).await
            }
            Self::Peer(peer) => peer.drain(servers).await,
        }
    }
}

/// Measures a workload, against `peers` too.
pub(crate) async fn measure(
    plan: &Plan,
    servers: &mut Servers,
    workload: Workload,
    peers: &[Peer],
) -> anyhow::Result<Comparison> {
    println!("\n{}: {} events of {}", workload.name, number(workload.events), workload.says);
    servers.keep(&workload, workload.events).await?;
    let mut contenders = vec![Contender::BareDrain];
    if workload.kind == Kind::List {
        contenders.extend([Contender::SocketDrain, Contender::BareWrites]);
    }
    if let Spread::Distinct = workload.spread {
        contenders.push(Contender::BareUpserts);
    }
    contenders.push(Contender::Tidegate(TIDEGATE, DEFAULT));
    contenders.push(Contender::Tidegate(TIDEGATE_BEST, BEST));
    if workload.kind == Kind::Stream {
        let list = Workload { kind: Kind::List, ..workload };
        servers.keep(&list, list.events).await?;
        contenders.push(Contender::OfList(TIDEGATE_LIST, DEFAULT));
        contenders.push(Contender::OfList(TIDEGATE_LIST_BEST, BEST));
    }
    let mut skipped = Vec::new();
    for peer in peers {
        match peer.missing() {
            None => contenders.push(Contender::Peer(peer)),
            Some(reason) => {
                let line = format!("{} is left out: {reason}", peer.name);
                println!("  {line}");
                skipped.push(line);
            }
        }
    }
    let mut series: Vec<Series> = contenders
        .iter()
        .map(|contender| Series { name: contender.name().to_owned(), runs: Vec::new() })
        .collect();
    for round in 1..=plan.rounds {
        for (contender, series) in contenders.iter().zip(&mut series) {
            let run = contender.run(servers, &workload).await?;
            println!("  round {round}  {:<24} {:>12} events/s", series.name, number(run.rate() as u64));
            series.runs.push(run);
        }
    }
    series.extend(serial_ideal(&series));
    Ok(Comparison { workload, series, skipped })
}

/// What the bare drain and the bare writes take one after the other, round by round.
fn serial_ideal(series: &[Series]) -> Option<Series> {
    let find = |name: &str| series.iter().find(|series| series.name == name);
    let (drain, writes) = (find(BARE_DRAIN)?, find(BARE_WRITES)?);
    let runs = drain.runs.iter().zip(&writes.runs).map(|(drain, writes)| drain.then(*writes));
    Some(Series { name: SERIAL_IDEAL.to_owned(), runs: runs.collect() })
}

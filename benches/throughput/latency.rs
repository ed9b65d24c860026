//! Measures how long an event takes to be durable: from when it is due until Redis says that it is committed.
//!
//! Seen from outside, by asking Redis every tenth of a millisecond how far the queue's base has come. The base moves
//! after MongoDB has confirmed, so it tells a little more than the truth, never less. And the clock starts when an event
//! is due, not when it got through: a Redis that is held up makes its events late, rather than fewer.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tidegate::format::number;

use super::daemon;
use super::kind::Kind;
use super::plan::Plan;
use super::servers::{QUEUE, Servers};
use super::stats::{median, quantile};
use super::workload::Workload;

/// Events a second.
const RATES: [u64; 2] = [1_000, 20_000];
/// `batch.max_delay`, for the environment and in milliseconds.
const DELAYS: [(&str, f64); 3] = [("0ms", 0.0), ("5ms", 5.0), ("50ms", 50.0)];
const TICK: Duration = Duration::from_millis(1);
const TICKS_A_SECOND: u64 = 1_000;
const GLANCE: Duration = Duration::from_micros(100);
/// The first part of a run is not counted: connections are opened, windows grow.
const WARM_UP: Duration = Duration::from_millis(500);
/// After the last push.
const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];

/// What came of one rate and delay.
#[derive(Debug)]
pub(crate) struct Latency {
    pub(crate) rate: u64,
    pub(crate) max_delay: f64,
    delay: &'static str,
    /// Milliseconds, at each of `QUANTILES`, of each round.
    rounds: Vec<[f64; QUANTILES.len()]>,
}

impl Latency {
    /// Milliseconds at each of `QUANTILES`.
    pub(crate) fn quantiles(&self) -> [f64; QUANTILES.len()] {
        std::array::from_fn(|at| median(self.rounds.iter().map(|round| round[at])))
    }

    pub(crate) fn p99(&self) -> f64 {
        self.quantiles()[1]
    }
}

/// Measures every rate with every delay, in turn.
pub(crate) async fn measure(plan: &Plan, servers: &mut Servers) -> anyhow::Result<Vec<Latency>> {
    println!("\nlatency: from push to durable");
    let lasts = plan.of(Duration::from_secs(6), Duration::from_secs(2));
    let each = RATES.iter().flat_map(|&rate| DELAYS.map(|delay| (rate, delay)));
    let mut latencies: Vec<Latency> = each
        .map(|(rate, (delay, max_delay))| Latency { rate, max_delay, delay, rounds: Vec::new() })
        .collect();
    for round in 1..=plan.of(plan.rounds, 1) {
        for latency in &mut latencies {
            let measured = run(servers, latency.rate, latency.delay, lasts).await?;
            let [p50, p99, p999] = measured;
            println!(
                "  round {round}  {:>6} events/s  max_delay {:>4}  {p50:>7.2} {p99:>7.2} {p999:>7.2} ms (p50, p99, p99.9)",
                number(latency.rate),
                latency.delay,
            );
            latency.rounds.push(measured);
        }
    }
    Ok(latencies)
}

async fn run(
    servers: &mut Servers,
    rate: u64,
    delay: &'static str,
    lasts: Duration,
) -> anyhow::Result<[f64; QUANTILES.len()]> {
    let database = servers.database();
    let settings = [("TIDEGATE_BATCH__MAX_DELAY", delay)];
    let tidegate = daemon::start(servers, Kind::List, database.name(), &settings).await?;
    let per_tick = rate / TICKS_A_SECOND;
    let ticks = (lasts + WARM_UP).as_millis() as u64;
    let (url, total) = (servers.redis.url().to_owned(), per_tick * ticks);
    let began = Instant::now() + Duration::from_millis(20);
    let watcher = std::thread::spawn({
        let url = url.clone();
        move || watch(&url, total, began + lasts + WARM_UP + PATIENCE)
    });
    let producer = std::thread::spawn(move || produce(&url, began, ticks, per_tick));
    let seen = tokio::task::spawn_blocking(move || {
        producer.join().map_err(|_| anyhow::anyhow!("the producer panicked"))??;
        watcher.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))?
    });
    let seen = seen.await??;
    servers.drained(Kind::List).await?;
    servers.check(&database, total + 1).await?;
    tidegate.terminate().await?;
    database.drop().await?;

    let first = WARM_UP.as_millis() as u64 * per_tick;
    let mut moments = seen.iter();
    let mut moment = moments.next();
    let mut took = Vec::with_capacity((total - first) as usize);
    for event in 0..total {
        while moment.is_some_and(|(_, durable)| *durable <= event) {
            moment = moments.next();
        }
        let (at, _) = moment.context("an event without an end")?;
        let due = began + TICK * u32::try_from(event / per_tick)?;
        if event >= first {
            took.push(at.saturating_duration_since(due).as_secs_f64() * 1e3);
        }
    }
    Ok(QUANTILES.map(|at| quantile(took.iter().copied(), at)))
}

/// Pushes events when they are due, those of one tick at once.
fn produce(url: &str, began: Instant, ticks: u64, per_tick: u64) -> anyhow::Result<()> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    let mut events = Workload::trickle().generate();
    for tick in 0..ticks {
        let mut push = redis::cmd("RPUSH");
        push.arg(QUEUE);
        (0..per_tick).for_each(|_| {
            push.arg(events.next());
        });
        let due = began + TICK * u32::try_from(tick)?;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        push.exec(&mut connection)?;
    }
    Ok(())
}

/// When how many events were durable, until all are.
fn watch(url: &str, total: u64, limit: Instant) -> anyhow::Result<Vec<(Instant, u64)>> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    let mut ask = redis::cmd("GET");
    ask.arg(format!("tidegate:{{{QUEUE}}}:base"));
    let first: u64 = ask.query(&mut connection)?;
    let mut seen = Vec::new();
    let mut durable = 0;
    while durable < total {
        let base: u64 = ask.query(&mut connection)?;
        let now = Instant::now();
        if base - first > durable {
            durable = base - first;
            seen.push((now, durable));
        }
        ensure!(now < limit, "{durable} of {total} events became durable");
        std::thread::sleep(GLANCE);
    }
    Ok(seen)
}

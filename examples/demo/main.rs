//! Shows tidegate at work: `make demo`.
//!
//! Starts a Redis and a MongoDB server with their data in temporary folders, and tidegate with the shipped
//! `config.toml`. It lets many users type into a few thousand documents, and shows what has become of it. Beside that,
//! it serves the page of `examples/collab`, which people can type into.
//!
//! It runs until Ctrl-C, or for `DEMO_SECONDS`. Everything that it starts ends with it.

#[path = "../../tests/suite/support/mod.rs"]
mod support;

mod progress;
mod report;
mod together;
mod traffic;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use redis::aio::MultiplexedConnection;
use tidegate::format::number;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use self::progress::{Bar, StatusLine};
use self::support::{Aof, Launch, Metrics, Mongo, Redis, Tidegate, length, push, try_eventually};
use self::together::Together;
use self::traffic::Office;

/// What the shipped `config.toml` drains, and where to.
const QUEUE: &str = "collabQueue";
const DATABASE: &str = "collab";
const COLLECTION: &str = "documents";

/// A backlog to begin with, as after a night without tidegate.
const BACKLOG: u64 = 200_000;
const CHUNK: u64 = 2_000;
/// Then everyday traffic, with rush hours.
const EVENTS_PER_SECOND: u64 = 4_000;
const TICK: Duration = Duration::from_millis(20);
const DRAIN_LIMIT: Duration = Duration::from_secs(120);
const STUCK: &str = "tidegate does not get on";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run() -> anyhow::Result<()> {
    let steady = match std::env::var("DEMO_SECONDS") {
        Ok(text) => {
            Some(Duration::from_secs(text.parse().context("DEMO_SECONDS is not a number of seconds")?))
        }
        Err(_) => None,
    };
    let stop = stop_on_signals()?;
    tokio::select! {
        shown = show(steady, &stop) => shown,
        // A drain that takes too long for somebody who wants to leave.
        () = signalled_again(&stop) => Ok(()),
    }
}

async fn show(steady: Option<Duration>, stop: &CancellationToken) -> anyhow::Result<()> {
    let stage = Stage::build().await?;
    let mut demo = Demo::new(&stage).await?;
    demo.load(stop).await?;
    let loaded = stage.tidegate.metrics().await?;
    if !stop.is_cancelled() {
        demo.everyday(steady, stop, &loaded).await?;
        demo.drain().await?;
    }
    let metrics = stage.tidegate.metrics().await?;
    let database = stage.mongo.database(DATABASE).await?;
    let report = report::Report::gather(&demo.office, &database, &loaded, &metrics).await?;
    report.print(stage.tidegate.address());
    // While its servers are there, as in production.
    let exited = stage.tidegate.terminate().await?;
    ensure!(exited.status.success(), "tidegate ended with {}:\n{}", exited.status, exited.lines.join("\n"));
    stage.together.stop().await?;
    report.verdict()
}

/// Everything that was started. The daemons come first, so that they end first.
struct Stage {
    tidegate: Tidegate,
    together: Together,
    redis: Redis,
    mongo: Mongo,
}

impl Stage {
    async fn build() -> anyhow::Result<Self> {
        let redis = Redis::start_with(Aof::EverySecond).await?;
        println!("redis      {}", redis.url());
        let mongo = Mongo::start().await?;
        println!("mongodb    {}  ({}, which syncs every write to disk)", mongo.uri(), mongo.name());
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
        let launch = Launch::config_file(&config).redis(&redis).mongodb(&mongo, DATABASE);
        let tidegate = launch.start().await?;
        println!("tidegate   http://{}  ({})", tidegate.address(), config.display());
        let together = Together::start(&redis, &mongo, DATABASE).await?;
        println!("a page     http://{}  (open it in two windows and type)", together.address());
        Ok(Self { tidegate, together, redis, mongo })
    }
}

/// The producers' side, and a view of the queue.
struct Demo<'a> {
    tidegate: &'a Tidegate,
    page: SocketAddr,
    connection: MultiplexedConnection,
    office: Office,
}

impl<'a> Demo<'a> {
    async fn new(stage: &'a Stage) -> anyhow::Result<Self> {
        let connection = stage.redis.connect().await?;
        let page = stage.together.address();
        Ok(Self { tidegate: &stage.tidegate, page, connection, office: Office::new() })
    }

    /// Pushes the backlog as fast as Redis takes it, and waits until it is durable.
    async fn load(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        println!("\nA backlog of {} events, as fast as they can be pushed", number(BACKLOG));
        let began = Instant::now();
        let mut bar = Bar::new(BACKLOG);
        while self.office.pushed() < BACKLOG && !stop.is_cancelled() {
            self.push(CHUNK).await?;
            let queued = length(&mut self.connection, QUEUE).await? as u64;
            bar.show(self.office.pushed(), self.office.pushed().saturating_sub(queued));
        }
        let pushed = self.office.pushed();
        let (connection, bar) = (&mut self.connection, &mut bar);
        try_eventually(DRAIN_LIMIT, "the backlog to be drained", async || {
            let queued = length(connection, QUEUE).await? as u64;
            bar.show(pushed, pushed.saturating_sub(queued));
            ensure!(queued == 0, "{queued} events are still queued");
            Ok(())
        })
        .await
        .context(STUCK)?;
        bar.finish();
        let rate = pushed as f64 / began.elapsed().as_secs_f64();
        println!("  {} events a second, pushed and durable at the same time", number(rate as u64));
        Ok(())
    }

    /// Everyday traffic until `stop`, or for so long.
    async fn everyday(
        &mut self,
        limit: Option<Duration>,
        stop: &CancellationToken,
        loaded: &Metrics,
    ) -> anyhow::Result<()> {
        match limit {
            Some(limit) => println!("\nEveryday traffic for {} s", limit.as_secs()),
            None => println!("\nEveryday traffic until Ctrl-C"),
        }
        println!("  /metrics   http://{}/metrics", self.tidegate.address());
        println!("  /status    http://{}/status", self.tidegate.address());
        println!("  a page     http://{}  to type into, in two windows", self.page);
        let began = Instant::now();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut status = StatusLine::new();
        let mut pushed_before = (began, self.office.pushed());
        let mut owed = 0.0;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
            }
            let elapsed = began.elapsed();
            if limit.is_some_and(|limit| elapsed >= limit) {
                break;
            }
            owed += TICK.as_secs_f64() * rush(elapsed) * EVENTS_PER_SECOND as f64;
            self.push(owed as u64).await?;
            owed = owed.fract();
            if status.is_due() {
                let metrics = self.tidegate.metrics().await?.since(loaded);
                let queued = length(&mut self.connection, QUEUE).await? as u64;
                let (then, before) = pushed_before;
                let rate = (self.office.pushed() - before) as f64 / then.elapsed().as_secs_f64();
                pushed_before = (Instant::now(), self.office.pushed());
                status.show(elapsed, rate, queued, &report::Latency::of(&metrics));
            }
        }
        status.finish();
        Ok(())
    }

    async fn drain(&mut self) -> anyhow::Result<()> {
        let connection = &mut self.connection;
        try_eventually(DRAIN_LIMIT, "the queue to be drained", async || {
            let queued = length(connection, QUEUE).await?;
            ensure!(queued == 0, "{queued} events are still queued");
            Ok(())
        })
        .await
        .context(STUCK)
    }

    async fn push(&mut self, count: u64) -> anyhow::Result<()> {
        let events: Vec<String> = (0..count).map(|_| self.office.next_event()).collect();
        push(&mut self.connection, QUEUE, events).await
    }
}

/// A rush every ten seconds: three times the traffic for two seconds.
fn rush(elapsed: Duration) -> f64 {
    if elapsed.as_secs() % 10 >= 8 { 3.0 } else { 1.0 }
}

/// Cancelled by Ctrl-C or SIGTERM.
fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stopped = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stopped.cancel();
    });
    Ok(stop)
}

async fn signalled_again(stop: &CancellationToken) {
    stop.cancelled().await;
    // Without a handler it would be ignored from now on, so it does not matter if this fails.
    let _ = tokio::signal::ctrl_c().await;
}

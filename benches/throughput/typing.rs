//! Measures what a window buys where people type: real keystrokes, replayed at their real times.
//!
//! A document's receipt says up to which event it is durable. The queue's base says less: it waits for the document whose
//! window began first. As with the other latencies, the clock of an event starts when it is due to be pushed.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use serde_json::Value;
use tidegate::format::number;

use super::daemon;
use super::kind::Kind;
use super::plan::Plan;
use super::servers::{COLLECTION, QUEUE, Servers};
use super::stats::{Run, median, quantile};
use super::traces::{self, Key};

/// Each is typed into by one person.
const DOCUMENTS: usize = 300;
/// Documents from there on are clicked on, whose route has the default window: each so long after the one before.
const CLICKS: usize = 1_000;
const CLICK_EVERY: Duration = Duration::from_millis(10);
/// `max_delay` of the route.
const WINDOWS: [&str; 8] = ["50ms", "250ms", "500ms", "1s", "2s", "5s", "10s", "60s"];
const QUICK: [&str; 2] = ["50ms", SHIPPED];
/// That of the shipped configuration file.
pub(crate) const SHIPPED: &str = "2s";
/// Beyond the window, after the last key.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of it.
#[derive(Debug)]
pub(crate) struct Typing {
    pub(crate) events: usize,
    pub(crate) lasts: Duration,
    pub(crate) rounds: usize,
    pub(crate) windows: Vec<Window>,
    pub(crate) clicks: Clicks,
}

/// How long clicks took in the queue of the keys, and how long without them: milliseconds of each round, at the 99th
/// percentile.
#[derive(Debug, Default)]
pub(crate) struct Clicks {
    alone: Vec<f64>,
    beside: Vec<f64>,
}

impl Clicks {
    pub(crate) fn alone(&self) -> f64 {
        median(self.alone.iter().copied())
    }

    pub(crate) fn beside(&self) -> f64 {
        median(self.beside.iter().copied())
    }
}

/// What came of a window.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) name: &'static str,
    /// Events a write, by arithmetic.
    pub(crate) expected: f64,
    rounds: Vec<Round>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    run: Run,
    writes: f64,
    /// Milliseconds from push to durable.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Of what was clicked; NaN if nothing was.
    clicks_p99: f64,
}

impl Round {
    pub(crate) fn events_a_write(&self) -> f64 {
        self.run.events as f64 / self.writes
    }

    /// Tidegate's processor time for an event, in microseconds.
    pub(crate) fn cpu(&self) -> f64 {
        self.run.per_event(self.run.cpu.worker)
    }

    /// The MongoDB server's, for all of it, in seconds.
    pub(crate) fn mongodb(&self) -> f64 {
        self.run.cpu.mongodb.as_secs_f64()
    }
}

impl Window {
    pub(crate) fn of(&self, what: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(what))
    }
}

/// Replays the same minute with each window, in turn.
pub(crate) async fn measure(plan: &Plan, servers: &mut Servers) -> anyhow::Result<Typing> {
    let lasts = plan.of(Duration::from_secs(60), Duration::from_secs(15));
    let keys: Arc<[Key]> = traces::keys(DOCUMENTS, lasts)?.into();
    println!("\ntyping: {} keys into {DOCUMENTS} documents in {lasts:?}", number(keys.len() as u64));
    let names: &[&'static str] = plan.of(&WINDOWS, &QUICK);
    let mut windows = Vec::new();
    for name in names {
        let expected = keys.len() as f64 / traces::writes(&keys, duration(name)?) as f64;
        windows.push(Window { name, expected, rounds: Vec::new() });
    }
    // A round takes minutes on any machine, so one is usual.
    let rounds = plan.rounds_or(1);
    let clicks: Arc<[Key]> = clicks(lasts).collect();
    let mut both: Vec<Key> = keys.iter().chain(clicks.iter()).copied().collect();
    both.sort_unstable();
    let both: Arc<[Key]> = both.into();
    let mut clicked = Clicks::default();
    for round in 1..=rounds {
        let alone = run(servers, &clicks, SHIPPED).await?.p99;
        let beside = run(servers, &both, SHIPPED).await?.clicks_p99;
        println!("  round {round}  clicks {alone:>8.1} ms alone, {beside:.1} beside the keys (p99)");
        clicked.alone.push(alone);
        clicked.beside.push(beside);
        for window in &mut windows {
            let measured = run(servers, &keys, window.name).await?;
            println!(
                "  round {round}  max_delay {:>5}  {:>6.2} events a write  {:>4.0} µs an event  {:>5.1} s of MongoDB  \
                 {:>8.1} {:>8.1} ms (p50, p99)",
                window.name,
                measured.events_a_write(),
                measured.cpu(),
                measured.mongodb(),
                measured.p50,
                measured.p99,
            );
            window.rounds.push(measured);
        }
    }
    Ok(Typing { events: keys.len(), lasts, rounds, windows, clicks: clicked })
}

fn clicks(lasts: Duration) -> impl Iterator<Item = Key> {
    let clicks = (0..).map(|n| Key { at: CLICK_EVERY * n, document: DOCUMENTS + n as usize % CLICKS });
    clicks.take_while(move |key| key.at < lasts)
}

fn duration(text: &str) -> anyhow::Result<Duration> {
    humantime_serde::re::humantime::parse_duration(text).context("a window")
}

/// The shipped configuration file's route for typing, with another window, and one for the first event.
fn routes(window: &str) -> String {
    let all = format!(r#"collection = "{COLLECTION}", id = "payload.docId", inc = {{ edits = 1 }}"#);
    let set = r#"set = { text = "payload.text", updatedBy = "payload.userId" }"#;
    format!(
        r#"[{{ when = {{ type = "UPDATE_CONTENT" }}, {all}, {set}, max_delay = "{window}" }}, {{ {all} }}]"#
    )
}

fn event(key: Key, n: usize) -> String {
    let document = key.document;
    if document >= DOCUMENTS {
        return format!(r#"{{"type":"CLICK","payload":{{"docId":"doc-{document}"}}}}"#);
    }
    format!(
        r#"{{"type":"UPDATE_CONTENT","payload":{{"docId":"doc-{document}","userId":"u{document}","text":"what is in the document after the key that is number {n}"}}}}"#
    )
}

async fn run(servers: &mut Servers, keys: &Arc<[Key]>, window: &str) -> anyhow::Result<Round> {
    let database = servers.database();
    let routes = routes(window);
    let settings = [("TIDEGATE_ROUTES", routes.as_str()), ("TIDEGATE_RECEIPTS__ENABLED", "true")];
    let tidegate = daemon::start(servers, Kind::List, database.name(), &settings).await?;
    let written = async || -> anyhow::Result<f64> {
        Ok(tidegate.metrics().await?.sum("tidegate_writes_total", &[("collection", COLLECTION)]))
    };
    let (first, writes) = (servers.base().await?, written().await?);
    let before = servers.cpu(tidegate.id())?;
    let lasts = keys.last().context("no keys")?.at + duration(window)? + PATIENCE;
    let began = replay(servers.redis.url(), Arc::clone(keys), lasts);
    let (began, receipts) = tokio::task::spawn_blocking(began).await??;
    let run = servers.run(keys.len() as u64, began, before, tidegate.id())?;
    let writes = written().await? - writes;
    servers.drained(Kind::List).await?;
    servers.check(&database, keys.len() as u64 + 1).await?;
    tidegate.terminate().await?;
    database.drop().await?;
    let took = latencies(keys, began, first, &receipts)?;
    let [p50, p99] = [0.5, 0.99].map(|at| quantile(took.iter().map(|(_, ms)| *ms), at));
    let clicks = took.iter().filter(|(document, _)| *document >= DOCUMENTS).map(|(_, ms)| *ms);
    Ok(Round { run, writes, p50, p99, clicks_p99: quantile(clicks, 0.99) })
}

/// What says that a document is durable up to an offset.
struct Receipt {
    at: Instant,
    document: usize,
    offset: i64,
}

/// Types the keys, and listens until all are durable. Answers when it began, and what was heard.
fn replay(
    url: &str,
    keys: Arc<[Key]>,
    lasts: Duration,
) -> impl FnOnce() -> anyhow::Result<(Instant, Vec<Receipt>)> + use<> {
    let url = url.to_owned();
    move || {
        let (ready, is_ready) = mpsc::channel();
        let events = keys.len() as u64;
        let listener = std::thread::spawn({
            let url = url.clone();
            move || listen(&url, events, lasts, &ready)
        });
        // Without that, it tells why when it is joined.
        let _ = is_ready.recv();
        let began = Instant::now();
        push(&url, began, &keys)?;
        let receipts = listener.join().map_err(|_| anyhow!("the listener panicked"))??;
        Ok((began, receipts))
    }
}

/// Pushes each event when it is due.
fn push(url: &str, began: Instant, keys: &[Key]) -> anyhow::Result<()> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    let mut n = 0;
    while let Some(next) = keys.get(n) {
        std::thread::sleep((began + next.at).saturating_duration_since(Instant::now()));
        let now = began.elapsed();
        let mut push = redis::cmd("RPUSH");
        push.arg(QUEUE);
        while let Some(key) = keys.get(n).filter(|key| key.at <= now) {
            push.arg(event(*key, n));
            n += 1;
        }
        push.exec(&mut connection)?;
    }
    Ok(())
}

/// Hears receipts until they stand for so many events.
fn listen(url: &str, events: u64, lasts: Duration, ready: &mpsc::Sender<()>) -> anyhow::Result<Vec<Receipt>> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    let mut channel = connection.as_pubsub();
    channel.subscribe(format!("tidegate:durable:{COLLECTION}"))?;
    ready.send(())?;
    let (limit, mut receipts, mut durable) = (Instant::now() + lasts, Vec::new(), 0);
    while durable < events {
        let left = limit.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "there were receipts of {durable} events, of {events}");
        channel.set_read_timeout(Some(left))?;
        let message = channel.get_message()?;
        let at = Instant::now();
        let told: Value = serde_json::from_slice(message.get_payload_bytes())?;
        let id = told["id"].as_str().context("a receipt without an id")?;
        // The event that was sent first has another.
        let Some(document) = id.strip_prefix("doc-") else { continue };
        let offset = told["offset"].as_str().context("a receipt without an offset")?.parse()?;
        receipts.push(Receipt { at, document: document.parse()?, offset });
        durable += told["events"].as_u64().context("a receipt of no events")?;
    }
    Ok(receipts)
}

/// Each event's document, and how long it took, in milliseconds. The first has the offset `first`.
fn latencies(
    keys: &[Key],
    began: Instant,
    first: i64,
    receipts: &[Receipt],
) -> anyhow::Result<Vec<(usize, f64)>> {
    let mut waiting: Vec<Vec<(i64, Instant)>> = vec![Vec::new(); DOCUMENTS + CLICKS];
    // The last one in front.
    for (offset, key) in (first..).zip(keys).collect::<Vec<_>>().into_iter().rev() {
        waiting[key.document].push((offset, began + key.at));
    }
    let mut took = Vec::with_capacity(keys.len());
    for Receipt { at, document, offset } in receipts {
        let waiting = waiting.get_mut(*document).context("a receipt of another document")?;
        while let Some((_, due)) = waiting.pop_if(|(waits, _)| *waits <= *offset) {
            took.push((*document, at.saturating_duration_since(due).as_secs_f64() * 1e3));
        }
    }
    ensure!(took.len() == keys.len(), "{} of {} events have a receipt", took.len(), keys.len());
    Ok(took)
}

//! Tests more events than MongoDB takes: memory stays bounded, nothing is lost, and what waits is folded.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;

use crate::stage::{PATIENCE, Setting, Stage, assert_exact, logged, number, update};
use crate::support::{Metrics, documents};

type Outcome = anyhow::Result<()>;

/// What the daemon may have resident beyond `buffer.max_bytes`: itself, connections, a window, batches on their way.
const BESIDES: u64 = 64 << 20;
const MIB: u64 = 1 << 20;

/// Who loses the lease on a busy machine needs MongoDB to take the queue over again, and reads nothing until then.
async fn stage(config: &str) -> anyhow::Result<Stage> {
    set(Setting::new().with(config)).await
}

async fn set(setting: Setting) -> anyhow::Result<Stage> {
    let mut stage = setting.own_fast_servers().stage().await?;
    stage.launch = stage.launch.env("TIDEGATE_LEASE__TTL", "60s").env("TIDEGATE_REDIS__TIMEOUT", "60s");
    Ok(stage)
}

fn persisted(metrics: &Metrics) -> f64 {
    metrics.sum("tidegate_events_persisted_total", &[])
}

/// Producers push ten events for each that is persisted. MongoDB answers in short turns only, so that nothing folds
/// away what the buffer is for, and every document gets too few events for that, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_times_what_mongodb_takes() -> Outcome {
    const BUFFER: u64 = 16 * MIB;
    /// So many at least fill the buffer.
    const EVENTS: usize = 60_000;
    const DOCUMENTS: usize = 3_000;
    let seconds = std::env::var("OVERLOAD_SECONDS").map_or(Ok(0), |seconds| seconds.parse())?;
    let config = "buffer.max_bytes = \"16MiB\"\nbatch.max_bytes = \"1MiB\"\nbatch.max_ops = 20\n";
    let mut stage = stage(config).await?;
    let tidegate = stage.start().await?;
    let text = "x".repeat(1_000);
    // One after the other, so that the window read ahead has few events of each document.
    let event = |n: usize| {
        let (id, n) = (format!("doc{}", n % DOCUMENTS), n / DOCUMENTS);
        // Documents must not grow for ever.
        let fields = json!({"last": n, format!("text{}", n % 20): text});
        update(&id, json!({"$push": {"log": n}, "$inc": {"count": 1}, "$set": fields}))
    };

    let began = Instant::now();
    let (mut pushed, mut turns, mut full) = (0, 0, 0);
    while pushed < EVENTS || began.elapsed() < Duration::from_secs(seconds) {
        let before = persisted(&tidegate.metrics().await?);
        let next = pushed.max(before as usize * 10) + 500;
        stage.push((pushed..next).map(event)).await?;
        pushed = next;
        stage.mongo.resume()?;
        let some_more = |metrics: &Metrics| {
            let now = persisted(metrics);
            ensure!(now > before, "{now} are persisted");
            Ok(())
        };
        tidegate.metrics_when(PATIENCE, "an event to be persisted", some_more).await?;
        stage.mongo.pause()?;
        let buffered = tidegate.metrics().await?.sum("tidegate_buffer_bytes", &[]) as u64;
        full += usize::from(buffered >= BUFFER);
        turns += 1;
    }
    let (taken, lasted) = (persisted(&tidegate.metrics().await?), began.elapsed());
    stage.mongo.resume()?;
    // MongoDB has time for ten times as much now, but all of it is still to be written.
    tidegate.idle(&stage.queue, PATIENCE + lasted * 10).await?;
    let metrics = stage.settled(&tidegate).await?;

    let peak = tidegate.peak_resident_bytes()?;
    println!(
        "{turns} turns in {:.0} s, the buffer full after {full}; {taken} of {pushed} persisted meanwhile; \
         at most {} MiB resident; {} writes; {:.0} s in all",
        lasted.as_secs_f64(),
        peak / MIB,
        metrics.sum("tidegate_writes_total", &[]),
        began.elapsed().as_secs_f64(),
    );
    assert!(full > 0, "the buffer was never full: {turns} turns");
    assert!(peak < BUFFER + BESIDES, "{peak} bytes were resident");
    let found = documents(&stage.database, "documents").await?;
    assert_eq!(found.len(), DOCUMENTS);
    for n in 0..DOCUMENTS {
        // The first of its events is the `n`th of all.
        assert_exact(found.get(&format!("doc{n}")), (pushed - n).div_ceil(DOCUMENTS));
    }
    Ok(())
}

/// While the rest of a backlog is read, documents that it names again and again are not written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_costs_few_writes() -> Outcome {
    const EVENTS: usize = 100_000;
    const DOCUMENTS: usize = 500;
    let stage = stage("batch.backlog_delay = \"60s\"\n").await?;
    stage.push((0..EVENTS).map(|n| logged(&format!("doc{}", n % DOCUMENTS), n / DOCUMENTS))).await?;
    let tidegate = stage.start().await?;
    let metrics = stage.settled(&tidegate).await?;
    let writes = metrics.sum("tidegate_writes_total", &[]);
    println!("{EVENTS} events, {writes} writes");
    // One a document, and another one where it took long to see that they fold.
    assert!(writes <= 2.0 * DOCUMENTS as f64, "{writes} writes");
    let found = documents(&stage.database, "documents").await?;
    assert_eq!(found.len(), DOCUMENTS);
    found.values().for_each(|document| assert_exact(Some(document), EVENTS / DOCUMENTS));
    Ok(())
}

/// Drains large events under the default bounds. Little is resident besides the buffer, and what is pending of the documents
/// is folded although it is more than a batch may have.
async fn large_events(events: usize, of: usize, bytes: usize, writes: usize) -> Outcome {
    let besides = 48 * MIB;
    let stage = stage("batch.backlog_delay = \"60s\"\n").await?;
    let (text, mut random) = ("x".repeat(bytes), fastrand::Rng::with_seed(5));
    let mut expected = vec![0; of];
    // Few at a time: the test holds them, too.
    let some = (8 * MIB as usize / bytes).max(1);
    for first in (0..events).step_by(some) {
        let some = (first..events.min(first + some)).map(|n| {
            let document = random.usize(..of);
            expected[document] += 1;
            let fields = json!({"text": text, "n": n});
            update(&format!("doc{document}"), json!({"$set": fields, "$inc": {"count": 1}}))
        });
        stage.push(some).await?;
    }
    let tidegate = stage.start().await?;
    let metrics = stage.settled(&tidegate).await?;
    let (written, peak) = (metrics.sum("tidegate_writes_total", &[]), tidegate.peak_resident_bytes()?);
    println!("{events} events of {bytes}, {written} writes, at most {} MiB resident", peak / MIB);
    assert!(peak < 64 * MIB + besides, "{peak} bytes were resident");
    assert!(written <= writes as f64, "{written} writes");
    let found = documents(&stage.database, "documents").await?;
    for (document, count) in expected.iter().enumerate().filter(|(_, count)| **count > 0) {
        let found = found.get(&format!("doc{document}")).context("a document is missing")?;
        assert_eq!(number(&found["count"]), *count, "doc{document}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_8_kib_cost_few_writes_and_little_memory() -> Outcome {
    large_events(20_000, 2_000, 8 << 10, 8_000).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_256_kib_cost_little_memory() -> Outcome {
    large_events(1_000, 100, 256 << 10, 1_000).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_4_mib_cost_little_memory() -> Outcome {
    large_events(60, 20, 4 << 20, 60).await
}

/// A window sized for small events would be hundreds of MiB of the large ones behind them. `push` appends events, the
/// first of which is the n-th of all.
async fn large_behind_small(
    setting: Setting,
    push: impl AsyncFn(&Stage, usize, Vec<String>) -> Outcome,
) -> Outcome {
    const BUFFER: u64 = 16 * MIB;
    const SMALL: usize = 20_032;
    const LARGE: usize = 1_000;
    let stage = set(setting.with("buffer.max_bytes = \"16MiB\"\n")).await?;
    let text = "x".repeat(256 << 10);
    push(&stage, 0, (0..SMALL).map(|n| logged(&format!("doc{}", n % 50), n / 50)).collect()).await?;
    // Few at a time: the test holds them, too.
    for first in (0..LARGE).step_by(50) {
        let large = |n: usize| {
            update(&format!("large{}", n % 50), json!({"$set": {"text": text}, "$inc": {"count": 1}}))
        };
        push(&stage, SMALL + first, (first..first + 50).map(large).collect()).await?;
    }
    let tidegate = stage.start().await?;
    let metrics = stage.settled(&tidegate).await?;
    let peak = tidegate.peak_resident_bytes()?;
    println!("at most {} MiB resident", peak / MIB);
    assert!(peak < BUFFER + BESIDES, "{peak} bytes were resident");
    assert_eq!(metrics.sum("tidegate_events_persisted_total", &[]), (SMALL + LARGE) as f64);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_events_behind_small_ones() -> Outcome {
    large_behind_small(Setting::new(), async |stage, _, events| stage.push(events).await).await
}

/// Too few to be seen from afar, and more than there is memory for in one window.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bursts_of_large_events_among_small_ones() -> Outcome {
    const BUFFER: u64 = 16 * MIB;
    const SMALL: usize = 5_000;
    const LARGE: usize = 12;
    const BURSTS: usize = 3;
    let stage = set(Setting::new().with("buffer.max_bytes = \"16MiB\"\n")).await?;
    let text = "x".repeat(4 << 20);
    for burst in 0..BURSTS {
        let first = burst * SMALL;
        stage.push((first..first + SMALL).map(|n| logged(&format!("doc{}", n % 50), n / 50))).await?;
        for _ in 0..LARGE {
            stage.push([update("large", json!({"$set": {"text": text}, "$inc": {"count": 1}}))]).await?;
        }
    }
    let tidegate = stage.start().await?;
    let metrics = stage.settled(&tidegate).await?;
    let peak = tidegate.peak_resident_bytes()?;
    println!("at most {} MiB resident", peak / MIB);
    assert!(peak < BUFFER + BESIDES, "{peak} bytes were resident");
    let found = documents(&stage.database, "documents").await?;
    assert_eq!(found["large"].get_i32("count")?, (BURSTS * LARGE) as i32);
    (0..50).for_each(|n| assert_exact(found.get(&format!("doc{n}")), BURSTS * SMALL / 50));
    assert_eq!(metrics.sum("tidegate_takeovers_total", &[]), 1.0);
    Ok(())
}

/// Where entries come evenly, their ids tell where the next ones are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_entries_behind_small_ones_in_a_stream() -> Outcome {
    large_behind_small(Setting::new().stream(""), async |stage, first, events| {
        let mut pipe = redis::pipe();
        for (n, event) in (first + 1..).zip(events) {
            pipe.cmd("XADD").arg(&stage.queue).arg(format!("{n}-0")).arg("event").arg(event).ignore();
        }
        Ok(pipe.exec_async(&mut stage.producer().await?).await?)
    })
    .await
}

/// What is pushed while MongoDB is away costs one write a document, not one an event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_folded_while_mongodb_is_away() -> Outcome {
    const BUFFER: u64 = 32 * MIB;
    const EVENTS: usize = 300_000;
    const DOCUMENTS: usize = 5_000;
    let config = "buffer.max_bytes = \"32MiB\"\n";
    let mut stage = stage(config).await?;
    let mut tidegate = stage.start().await?;
    stage.mongo.stop().await?;
    tidegate.readiness(503, PATIENCE).await?;
    stage.push((0..EVENTS).map(|n| logged(&format!("doc{}", n % DOCUMENTS), n / DOCUMENTS))).await?;
    let all = |metrics: &Metrics| {
        let buffered = metrics.sum("tidegate_buffer_events", &[]);
        ensure!(buffered == EVENTS as f64, "{buffered} events are buffered");
        Ok(())
    };
    let before = tidegate.metrics_when(PATIENCE * 2, "all events to be read", all).await?;
    assert_eq!(before.sum("tidegate_writes_total", &[]), 0.0);
    let bytes = before.sum("tidegate_buffer_bytes", &[]);

    stage.mongo.restart().await?;
    tidegate.readiness(200, PATIENCE).await?;
    let metrics = stage.settled(&tidegate).await?;
    let writes = metrics.sum("tidegate_writes_total", &[]);
    let peak = tidegate.peak_resident_bytes()?;
    println!("{EVENTS} events in {bytes} bytes, {writes} writes, at most {} MiB resident", peak / MIB);
    assert_eq!(writes, DOCUMENTS as f64, "nothing was on its way when MongoDB went");
    assert!(peak < BUFFER + BESIDES, "{peak} bytes were resident");
    let found = documents(&stage.database, "documents").await?;
    assert_eq!(found.len(), DOCUMENTS);
    for document in found.values() {
        assert_exact(Some(document), EVENTS / DOCUMENTS);
    }
    Ok(())
}

//! Tests that documents are written when their routes say: windows, paces, flushes, and what goes early.

use anyhow::ensure;
use serde_json::json;

use crate::receipts::{Listener, fate, push_numbered};
use crate::stage::{PATIENCE, Setting, Stage, empty, number};
use crate::support::{Metrics, Tidegate, documents, try_eventually};

type Outcome = anyhow::Result<()>;

/// Nothing of the first route, and no second write of the third one, is due before a test ends.
const ROUTES: &str = r#"
receipts.enabled = true

[[routes]]
when = { type = "TYPED" }
collection = "pages"
id = "id"
push = { log = "n", padding = "padding" }
inc = { count = 1 }
max_delay = "1h"

[[routes]]
when = { type = "CLICKED" }
collection = "clicks"
id = "id"
inc = { count = 1 }

[[routes]]
when = { type = "MOVED" }
collection = "boards"
id = "id"
push = { log = "n" }
inc = { count = 1 }
pace = "1h"

[[routes]]
when = { type = "SAVED" }
collection = "pages"
id = "id"
inc = { saved = 1 }
flush = true

[[routes]]
when = { type = "LEFT" }
collection = "pages"
id = "id"
flush = true
"#;

fn event(kind: &str, id: impl ToString, n: usize) -> String {
    json!({ "type": kind, "id": id.to_string(), "n": n }).to_string()
}

/// Waits until so many events are `received`, or `persisted`.
async fn until(stage: &Stage, tidegate: &Tidegate, what: &str, events: f64) -> anyhow::Result<Metrics> {
    let (name, labels) = (format!("tidegate_events_{what}_total"), [("queue", stage.queue.as_str())]);
    tidegate
        .metrics_when(PATIENCE, "so many events", |metrics| {
            let found = metrics.sum(&name, &labels);
            ensure!(found >= events, "{found} of {events} are {what}");
            Ok(())
        })
        .await
}

fn writes(metrics: &Metrics, collection: &str) -> f64 {
    metrics.sum("tidegate_writes_total", &[("collection", collection)])
}

/// All documents of a collection have exactly the events `0..events`, in order.
async fn are_exact(stage: &Stage, collection: &str, count: usize, events: usize) -> Outcome {
    let found = documents(&stage.database, collection).await?;
    ensure!(found.len() == count, "{} of {count} documents", found.len());
    for document in found.values() {
        let log: Vec<i64> = document.get_array("log")?.iter().map(number).collect();
        ensure!(log.iter().copied().eq(0..events as i64), "{log:?} of {events}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typing_waits_while_clicks_of_the_same_queue_do_not() -> Outcome {
    let stage = Setting::new().with(ROUTES).stage().await?;
    let tidegate = stage.start().await?;
    let mut listener = Listener::new(&stage).await?;
    let mut producer = stage.producer().await?;
    let typed = push_numbered(&mut producer, &stage.queue, &event("TYPED", "p0", 0)).await?;
    for n in 1..40 {
        stage.push((0..10).map(|page| event("TYPED", format!("p{page}"), n))).await?;
        stage.push([event("CLICKED", n, n)]).await?;
    }
    // Clicks are durable, told so, and written although what is in front of them waits.
    listener.until("a receipt of each click", |heard| heard.len() == 39).await?;
    ensure!(
        listener.heard.iter().all(|(channel, _)| channel == "tidegate:durable:clicks"),
        "{:?}",
        listener.heard
    );
    ensure!(documents(&stage.database, "clicks").await?.len() == 39);
    ensure!(documents(&stage.database, "pages").await?.is_empty());
    assert_eq!(fate(&tidegate, &stage.queue, typed, "").await?, "pending");

    // An event that flushes has its own document written, with all that waits for it, and no other.
    stage.push([event("SAVED", "p0", 0)]).await?;
    listener
        .until("the page's receipt", |heard| heard.iter().any(|(_, message)| message["id"] == "p0"))
        .await?;
    let pages = documents(&stage.database, "pages").await?;
    ensure!(pages.len() == 1 && pages["p0"].get("count").map(number) == Some(40), "{pages:?}");
    let metrics = tidegate.metrics().await?;
    assert_eq!(writes(&metrics, "pages"), 1.0);

    // An event need not write anything itself. Where nothing waits, nothing is written.
    stage.push([event("LEFT", "nobody", 0), event("LEFT", "p1", 0)]).await?;
    listener
        .until("the page's receipt", |heard| heard.iter().any(|(_, message)| message["id"] == "p1"))
        .await?;
    let pages = documents(&stage.database, "pages").await?;
    ensure!(pages.keys().eq(["p0", "p1"]) && pages["p1"].get("count").map(number) == Some(39), "{pages:?}");
    let metrics = tidegate.metrics().await?;
    assert_eq!(writes(&metrics, "pages"), 2.0);
    assert_eq!(metrics.sum("tidegate_events_skipped_total", &[("queue", &stage.queue)]), 2.0);

    // What waits is written at the end.
    tidegate.terminate().await?;
    empty(&stage.redis, &stage.queue).await?;
    let pages = documents(&stage.database, "pages").await?;
    ensure!(pages.len() == 10, "{pages:?}");
    for (id, page) in pages {
        let log: Vec<i64> = page.get_array("log")?.iter().map(number).collect();
        let first = i64::from(id != "p0");
        ensure!(log.iter().copied().eq(first..40), "{page}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paced_document_is_written_at_once_and_then_at_its_pace() -> Outcome {
    let stage = Setting::new().with(ROUTES).stage().await?;
    let tidegate = stage.start().await?;
    stage.push([event("MOVED", "b", 0)]).await?;
    until(&stage, &tidegate, "persisted", 1.0).await?;
    for n in 1..20 {
        stage.push([event("MOVED", "b", n)]).await?;
    }
    // Another document's first write is not held up by what waits, and shows that it was read.
    stage.push([event("MOVED", "c", 0)]).await?;
    let metrics = until(&stage, &tidegate, "persisted", 2.0).await?;
    assert_eq!(writes(&metrics, "boards"), 2.0);
    let boards = documents(&stage.database, "boards").await?;
    ensure!(boards.values().all(|board| board.get("count").map(number) == Some(1)), "{boards:?}");
    tidegate.terminate().await?;
    let boards = documents(&stage.database, "boards").await?;
    let counts: Vec<_> = boards.values().filter_map(|board| board.get("count").map(number)).collect();
    ensure!(counts.contains(&20) && counts.contains(&1), "{boards:?}");
    Ok(())
}

/// Nothing is due, and yet reading never stops: what is oldest goes when a half of what may be held is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_oldest_goes_early_when_much_is_held() -> Outcome {
    for bound in ["max_events = 100", "max_bytes = '1MiB'"] {
        let bounds = format!("buffer.{bound}\nbatch.max_bytes = '1MiB'\n{ROUTES}");
        let stage = Setting::new().with(&bounds).stage().await?;
        let tidegate = stage.start().await?;
        // Either bound is reached five times.
        let padding = "x".repeat(if bound.contains("bytes") { 10_000 } else { 1 });
        for n in 0..50 {
            let events = (0..10).map(|page| {
                json!({ "type": "TYPED", "id": page.to_string(), "n": n, "padding": padding }).to_string()
            });
            stage.push(events).await?;
        }
        until(&stage, &tidegate, "received", 500.0).await?;
        let metrics = until(&stage, &tidegate, "persisted", 400.0).await?;
        let pressed = metrics.sum("tidegate_batches_total", &[("trigger", "pressure")]);
        ensure!(pressed >= 1.0, "{bound}: {pressed} batches");
        tidegate.terminate().await?;
        empty(&stage.redis, &stage.queue).await?;
        are_exact(&stage, "pages", 10, 50).await?;
    }
    Ok(())
}

/// A window that becomes shorter counts for what waits already; a killed owner's events are read again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_ends_a_window_nothing_is_lost_or_doubled() -> Outcome {
    let stage = Setting::new().with(ROUTES).stage().await?;
    let pages = |range: std::ops::Range<usize>| {
        let events = range.flat_map(|n| (0..10).map(move |page| event("TYPED", page, n)));
        events.collect::<Vec<_>>()
    };
    let first = stage.start().await?;
    stage.push(pages(0..20)).await?;
    until(&stage, &first, "received", 200.0).await?;
    first.kill9()?;
    let second = stage.start().await?;
    stage.push(pages(20..40)).await?;
    // Recovery is flushed: only what came later may wait.
    try_eventually(PATIENCE, "what was read before to be written", async || {
        let pages = documents(&stage.database, "pages").await?;
        let counts: Vec<_> = pages.values().filter_map(|page| page.get("count").map(number)).collect();
        ensure!(counts.len() == 10 && counts.iter().all(|count| *count >= 20), "{counts:?}");
        Ok(())
    })
    .await?;
    until(&stage, &second, "received", 400.0).await?;
    second.terminate().await?;
    empty(&stage.redis, &stage.queue).await?;
    are_exact(&stage, "pages", 10, 40).await
}

/// Commits are in order, so all else waits for what is first in the queue. Who names the document need not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_names_the_document_is_told_when_that_is_durable() -> Outcome {
    let stage = Setting::new().with(ROUTES).stage().await?;
    let tidegate = stage.start().await?;
    let mut listener = Listener::new(&stage).await?;
    let mut producer = stage.producer().await?;
    let mut push = async |event: String| push_numbered(&mut producer, &stage.queue, &event).await;
    let typed = push(event("TYPED", "p", 0)).await?;
    let clicked = push(event("CLICKED", "c", 0)).await?;
    // A dead letter before a click of the same document.
    let refused = push(json!({"type": "CLICKED", "id": "d", "n": 1}).to_string().replace('1', "01")).await?;
    let after = push(event("CLICKED", "d", 0)).await?;
    let numbered = push(json!({"type": "CLICKED", "id": 7}).to_string()).await?;
    listener
        .until("the receipts of three clicks", |heard| {
            heard.iter().filter(|(channel, _)| channel == "tidegate:durable:clicks").count() == 3
        })
        .await?;
    for (offset, query, state) in [
        (clicked, "", "pending"),
        (clicked, "?collection=clicks&id=c", "durable"),
        (clicked, "?collection=clicks&id=%22c%22&wait=1s", "durable"),
        (after, "?collection=clicks&id=d", "durable"),
        (numbered, "?collection=clicks&id=7", "durable"),
        (numbered, "?collection=clicks&id=%227%22", "pending"),
        (clicked, "?collection=clicks&id=nobody", "pending"),
        (clicked, "?collection=elsewhere&id=c", "pending"),
        // No operator, but a document that is nobody's id.
        (clicked, "?collection=clicks&id=%7B%22$eq%22:%22c%22%7D", "pending"),
        (typed, "?collection=pages&id=p", "pending"),
        (refused, "?collection=clicks&id=d", "pending"),
    ] {
        let told = fate(&tidegate, &stage.queue, offset, query).await?;
        assert_eq!(told, state, "{offset}{query}");
    }
    for query in ["?collection=clicks", "?id=c", "?collection=clicks&id=%7B%22$oid%22:1%7D", "?wait=soon"] {
        let (status, told) = tidegate.get_json(&format!("/durable/{}/{clicked}{query}", stage.queue)).await?;
        ensure!(status == 400 && told["error"].is_string(), "{query}: {status} {told}");
    }
    // A successor settles what was read before it does anything else.
    tidegate.kill9()?;
    let tidegate = stage.start().await?;
    for (offset, query) in [(typed, "?collection=pages&id=p"), (clicked, "?collection=clicks&id=c")] {
        try_eventually(PATIENCE, "the event to be durable", async || {
            let told = fate(&tidegate, &stage.queue, offset, query).await?;
            ensure!(told == "durable", "{told}");
            Ok(())
        })
        .await?;
    }
    assert_eq!(fate(&tidegate, &stage.queue, refused, "?collection=clicks&id=d").await?, "dead");
    Ok(())
}

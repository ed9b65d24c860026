//! Replays real typing, and holds how few writes it becomes.

#[path = "../../benches/traces/mod.rs"]
mod traces;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;

use self::traces::{Key, keys, writes};
use crate::stage::{Setting, number};
use crate::support::{documents, push};

const DOCUMENTS: usize = 300;
const LASTS: Duration = Duration::from_secs(4);
const WINDOW: Duration = Duration::from_secs(2);
const ROUTE: &str = r#"
[[routes]]
when = { type = "UPDATE_CONTENT" }
collection = "pages"
id = "page"
set = { text = "text" }
inc = { edits = 1 }
max_delay = "2s"
"#;
/// How much of what arithmetic promises has to come of it. On a loaded machine the clock of the test, or that of the
/// daemon, stands still at times.
const SHARE: f64 = 0.5;

fn event(key: &Key, n: usize) -> String {
    json!({ "type": "UPDATE_CONTENT", "page": key.document.to_string(), "text": n }).to_string()
}

/// What is pushed late is pushed at once with what is due then, so a slow machine makes no more writes of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_of_seconds_folds_what_people_type() -> anyhow::Result<()> {
    let keys = keys(DOCUMENTS, LASTS)?;
    let folding = |window| keys.len() as f64 / writes(&keys, window) as f64;
    let (expected, default) = (folding(WINDOW), folding(Duration::from_millis(50)));
    // Nothing but the window brings it about.
    ensure!(default < 1.1 && expected * SHARE > 2.5 * default, "{expected} and {default} events a write");

    let stage = Setting::new().with(ROUTE).stage().await?;
    let tidegate = stage.start().await?;
    let mut producer = stage.producer().await?;
    let (began, mut n) = (Instant::now(), 0);
    while let Some(next) = keys.get(n) {
        tokio::time::sleep((began + next.at).saturating_duration_since(Instant::now())).await;
        let now = began.elapsed();
        let due = keys[n..].iter().take_while(|key| key.at <= now).count();
        let events = keys[n..n + due].iter().zip(n..).map(|(key, n)| event(key, n));
        push(&mut producer, &stage.queue, events).await?;
        n += due;
    }
    let metrics = stage.settled(&tidegate).await?;
    let written = metrics.sum("tidegate_writes_total", &[("collection", "pages")]);
    let folded = keys.len() as f64 / written;
    ensure!(folded >= expected * SHARE, "{folded:.2} events a write, {expected:.2} by arithmetic");

    let pages = documents(&stage.database, "pages").await?;
    ensure!(pages.len() == DOCUMENTS, "{} documents", pages.len());
    let edits: i64 = pages.values().filter_map(|page| page.get("edits")).map(number).sum();
    ensure!(edits == keys.len() as i64, "{edits} of {} keys", keys.len());
    for (id, page) in pages {
        let last = keys.iter().rposition(|key| key.document.to_string() == id).context("nobody typed it")?;
        ensure!(page.get("text").map(number) == Some(last as i64), "{page} in place of {last}");
    }
    Ok(())
}

//! Tests that states are their documents under load, while gateways fill and read, whatever fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::filler::Filler;
use super::{Outcome, ROUTES, TTL, assert_fresh, load, outcomes};
use crate::stage::{Setting, logged};
use crate::support::Proxy;

const TOMBSTONES: &str = r#"
[[routes]]
when = { type = "DROP" }
collection = "documents"
id = "id"
delete = true
deletes = "tombstone"
hot_state = { ttl = "10m" }
"#;

/// Gateways that fill and read while events are on their way.
struct Gateways {
    end: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<anyhow::Result<usize>>>,
}

impl Gateways {
    fn start(filler: &Filler, ids: &[String]) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let gateway = |_| {
            let (mut filler, ids, end) = (filler.clone(), ids.to_vec(), Arc::clone(&end));
            tokio::spawn(async move {
                let (mut filled, mut seen) = (0, vec![0; ids.len()]);
                while !end.load(Ordering::Relaxed) {
                    let at = fastrand::usize(0..ids.len());
                    match filler.state(&ids[at]).await? {
                        Some(state) => assert_whole(&ids[at], &state, &mut seen[at]),
                        // MongoDB may be away.
                        None => filled += usize::from(filler.fill(&ids[at]).await.unwrap_or(false)),
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Ok(filled)
            })
        };
        Self { tasks: (0..3).map(gateway).collect(), end }
    }

    /// How many were filled.
    async fn stop(self) -> anyhow::Result<usize> {
        self.end.store(true, Ordering::Relaxed);
        let mut filled = 0;
        for task in self.tasks {
            filled += task.await??;
        }
        Ok(filled)
    }
}

/// Asserts that a state is what some of the events of `logged` have made, all before those that are missing; and that
/// it is no older than what was seen before.
fn assert_whole(id: &str, state: &Value, seen: &mut usize) {
    if !id.starts_with("logged") {
        return;
    }
    let events = state["log"].as_array().map_or(0, Vec::len);
    let expected: Vec<usize> = (0..events).collect();
    assert_eq!(*state, json!({"log": expected, "count": events, "last": events - 1}), "{id}");
    assert!(events >= *seen, "{id}: {events} events after {seen}");
    *seen = events;
}

/// What fails while events are pushed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    Kills,
    MongodbStops,
    CutOff,
}

async fn follows(setting: Setting, fault: Fault) -> Outcome {
    const ROUNDS: usize = 8;
    const EVENTS: usize = 20;
    let mut stage = setting.own_fast_servers().with(ROUTES).stage().await?;
    let proxy = Proxy::start(stage.redis.address()?).await?;
    let mut launch = stage.launch.clone();
    if fault == Fault::CutOff {
        launch = launch.env("TIDEGATE_REDIS__URL", format!("redis://{}/", proxy.address()));
    }
    let mut tidegate = launch.start().await?;
    let mut filler = Filler::new(stage.producer().await?, &stage.database, TTL);
    let ids: Vec<String> = (0..16).map(|n| format!("random{n}")).collect();
    let plain: Vec<String> = (0..8).map(|n| format!("logged{n}")).collect();
    let all = [&ids[..], &plain[..]].concat();
    let seed = std::env::var("SEED").map_or_else(|_| Ok(fastrand::u64(..)), |seed| seed.parse())?;
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut fresh, mut filled) = (0, 0);
    for round in 0..ROUNDS {
        let mut gateways = Some(Gateways::start(&filler, &all));
        for part in 0..EVENTS {
            // The last ones find what was filled before, so that there is something to compare.
            let last = part >= 3 * EVENTS / 4;
            if let Some(gateways) = gateways.take_if(|_| last) {
                filled += gateways.stop().await?;
            }
            let mut events: Vec<String> = ids.iter().map(|id| load::event(&mut random, id, last)).collect();
            events.extend(plain.iter().map(|id| logged(id, round * EVENTS + part)));
            stage.push(events).await?;
            if part % 5 != 4 {
                continue;
            }
            match fault {
                Fault::None => {}
                Fault::Kills => {
                    tidegate.kill9()?;
                    tidegate = launch.start().await?;
                }
                Fault::MongodbStops if part == 9 => {
                    stage.mongo.stop().await?;
                    stage.mongo.restart().await?;
                }
                Fault::MongodbStops => {}
                Fault::CutOff => proxy.cut(),
            }
            tokio::time::sleep(Duration::from_millis(random.u64(0..60))).await;
        }
        stage.settled(&tidegate).await?;
        for id in &all {
            fresh += usize::from(assert_fresh(&mut filler, id).await?);
        }
    }
    let metrics = tidegate.metrics().await?;
    println!("{fault:?}: {filled} filled, {fresh} compared, {} applied", outcomes(&metrics, "applied"));
    // Starts take their time on a busy machine, and states do not live long.
    let least = if fault == Fault::Kills { 5 } else { 20 };
    ensure!(filled > 20 && fresh > least, "{filled} filled, {fresh} compared");
    if fault != Fault::Kills {
        ensure!(outcomes(&metrics, "applied") > 100.0 && outcomes(&metrics, "deleted") > 20.0);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_is_its_document_whatever_is_written() -> Outcome {
    follows(Setting::new(), Fault::None).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_is_its_document_whoever_dies() -> Outcome {
    follows(Setting::new(), Fault::Kills).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_is_its_document_when_mongodb_stops() -> Outcome {
    follows(Setting::new(), Fault::MongodbStops).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_is_its_document_when_connections_are_cut() -> Outcome {
    follows(Setting::new(), Fault::CutOff).await
}

/// Whose offsets have more digits than a double can tell apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_is_its_document_where_the_queue_is_a_stream() -> Outcome {
    follows(Setting::new().stream("").with(TOMBSTONES), Fault::Kills).await
}

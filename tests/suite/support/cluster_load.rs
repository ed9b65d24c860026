//! Pushes to the partitions of a cluster whatever happens to it, and knows what must be in the documents then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use bson::{Bson, Document};
use mongodb::Database;
use parking_lot::Mutex;
use tokio::task::{JoinHandle, JoinSet};

use super::cluster::{Cluster, ClusterClient};
use super::documents::documents;
use super::wait::{eventually, try_eventually};

/// How long the cluster may take no event.
const LIMIT: Duration = Duration::from_secs(60);
/// Clients that push at once.
const PRODUCERS: usize = 4;
/// How often it is looked at what is written.
const LOOK: Duration = Duration::from_millis(50);

/// An event, and whether the cluster said that it is in its queue for good.
#[derive(Debug, Clone)]
struct Event {
    name: String,
    at: Instant,
    is_certain: bool,
}

/// Of each queue, what was pushed, in order. Its document is `doc` and its place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pushed {
    keys: Vec<String>,
    events: Vec<Vec<Event>>,
}

/// What documents are, against what was pushed.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// Events that were pushed for certain.
    pub(crate) events: usize,
    pub(crate) lost: usize,
    pub(crate) twice: usize,
    pub(crate) out_of_order: usize,
    /// The first ones, in words.
    pub(crate) faults: Vec<String>,
}

/// A load that runs.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    pushed: Arc<Mutex<Pushed>>,
    /// How often each producer has pushed to all of its queues.
    rounds: Vec<Arc<AtomicUsize>>,
    producers: JoinSet<anyhow::Result<()>>,
}

impl Load {
    /// Producers push to all queues in turn until told to stop. Each event is on so many replicas before the next.
    pub(crate) fn start(
        cluster: &Cluster,
        keys: Vec<String>,
        replicas: &Arc<AtomicUsize>,
    ) -> anyhow::Result<Self> {
        let pushed = Arc::new(Mutex::new(Pushed { events: vec![Vec::new(); keys.len()], keys }));
        let mut load = Load { stop: Arc::default(), pushed, rounds: Vec::new(), producers: JoinSet::new() };
        for first in 0..PRODUCERS {
            let rounds = Arc::new(AtomicUsize::new(0));
            load.rounds.push(Arc::clone(&rounds));
            let producer = Producer {
                client: ClusterClient::new(cluster)?,
                first,
                pushed: Arc::clone(&load.pushed),
                stop: Arc::clone(&load.stop),
                rounds,
                replicas: Arc::clone(replicas),
            };
            load.producers.spawn(producer.run());
        }
        Ok(load)
    }

    /// Waits until every queue got so many events more.
    pub(crate) async fn goes_on(&self, more: usize) {
        for rounds in &self.rounds {
            let until = rounds.load(Ordering::Relaxed) + more;
            eventually(LIMIT, "more to be pushed", async || {
                let rounds = rounds.load(Ordering::Relaxed);
                if rounds >= until { Ok(()) } else { Err(format!("{rounds} of {until}")) }
            })
            .await;
        }
    }

    /// Watches how long events wait, until stopped: the longest that one was in its queue and not in its document.
    pub(crate) fn watch(&self, database: Database) -> Watch {
        let (pushed, stop) = (Arc::clone(&self.pushed), Arc::new(AtomicBool::new(false)));
        let longest = Arc::new(Mutex::new(Wait::default()));
        let (stopped, found) = (Arc::clone(&stop), Arc::clone(&longest));
        let watching = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                let written = documents(&database, "documents").await?;
                let waits = pushed.lock().longest_wait(&written, began);
                if waits.longest > found.lock().longest {
                    *found.lock() = waits;
                }
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        });
        Watch { stop, longest, watching }
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<Pushed> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.producers.join_next().await {
            ended??;
        }
        Ok(self.pushed.lock().clone())
    }
}

/// Somebody who watches how long events wait.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    longest: Arc<Mutex<Wait>>,
    watching: JoinHandle<anyhow::Result<()>>,
}

impl Watch {
    pub(crate) async fn stop(self) -> anyhow::Result<Wait> {
        self.stop.store(true, Ordering::Relaxed);
        self.watching.await??;
        let longest = self.longest.lock().clone();
        Ok(longest)
    }
}

/// A client that pushes to every so many-th queue.
struct Producer {
    client: ClusterClient,
    first: usize,
    pushed: Arc<Mutex<Pushed>>,
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    replicas: Arc<AtomicUsize>,
}

impl Producer {
    async fn run(mut self) -> anyhow::Result<()> {
        let keys = self.pushed.lock().keys.clone();
        while !self.stop.load(Ordering::Relaxed) {
            for (queue, key) in keys.iter().enumerate().skip(self.first).step_by(PRODUCERS) {
                self.push(queue, key).await?;
            }
            self.rounds.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Pushes an event until that is certain. What may have been pushed before is another event.
    async fn push(&mut self, queue: usize, key: &str) -> anyhow::Result<()> {
        let (n, until) = (self.rounds.load(Ordering::Relaxed), Instant::now() + LIMIT);
        let mut attempt = 0;
        while Instant::now() < until {
            let name = format!("{n}/{attempt}");
            attempt += 1;
            let text = format!(
                r#"{{"collection":"documents","id":"doc{queue}","update":{{"$push":{{"log":"{name}"}}}}}}"#
            );
            let replicas = self.replicas.load(Ordering::Relaxed);
            let answer = self.client.ask::<usize>(key, redis::cmd("RPUSH").arg(key).arg(text)).await;
            let kept = match answer {
                Ok(_) if replicas == 0 => Ok(0),
                Ok(_) => self.client.ask::<usize>(key, redis::cmd("WAIT").arg(replicas).arg(400)).await,
                Err(error) => Err(error),
            };
            let is_certain = kept.is_ok_and(|kept| kept >= replicas);
            self.pushed.lock().events[queue].push(Event { name, at: Instant::now(), is_certain });
            if is_certain {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::bail!("{key} takes no event")
    }
}

/// What a document has in its log.
fn log(document: &Document) -> Vec<&str> {
    let log = document.get_array("log").map(Vec::as_slice).unwrap_or_default();
    log.iter().filter_map(Bson::as_str).collect()
}

impl Pushed {
    /// Waits until all queues are empty.
    pub(crate) async fn drained(&self, cluster: &Cluster, limit: Duration) -> anyhow::Result<()> {
        let mut client = ClusterClient::new(cluster)?;
        for key in &self.keys {
            try_eventually(limit, &format!("{key} to be empty"), async || {
                let left: usize = client.ask(key, redis::cmd("LLEN").arg(key)).await?;
                anyhow::ensure!(left == 0, "{left} are left");
                anyhow::Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Compares documents with what was pushed: what is certain is there once and in order, whatever else at most once.
    pub(crate) fn compare(&self, documents: &BTreeMap<String, Document>) -> Compared {
        let mut found = Compared::default();
        for (queue, events) in self.events.iter().enumerate() {
            let written = documents.get(&format!("doc{queue}")).map(log).unwrap_or_default();
            let places: BTreeMap<&str, usize> =
                events.iter().enumerate().map(|(at, event)| (&*event.name, at)).collect();
            let mut times = vec![0_usize; events.len()];
            let mut last = 0;
            for name in &written {
                let Some(at) = places.get(name) else {
                    found.faults.push(format!("doc{queue}: {name} was never pushed"));
                    continue;
                };
                times[*at] += 1;
                if *at < last && times[*at] == 1 {
                    found.out_of_order += 1;
                    found.faults.push(format!("doc{queue}: {name} comes behind {}", events[last].name));
                }
                last = last.max(*at);
            }
            for (event, times) in events.iter().zip(times) {
                found.events += usize::from(event.is_certain);
                if times == 0 && event.is_certain {
                    found.lost += 1;
                    found.faults.push(format!("doc{queue}: {} is missing", event.name));
                } else if times > 1 {
                    found.twice += 1;
                    found.faults.push(format!("doc{queue}: {} is there {times} times", event.name));
                }
            }
        }
        found.faults.truncate(20);
        found
    }

    /// How long the oldest event waits that is not in its document.
    fn longest_wait(&self, documents: &BTreeMap<String, Document>, now: Instant) -> Wait {
        let waits = self.events.iter().enumerate().filter_map(|(queue, events)| {
            let written = documents.get(&format!("doc{queue}")).map(log).unwrap_or_default();
            // The latest may not be known yet: an event is noted when it is certain.
            let mut latest = written.iter().rev();
            let last = latest.find_map(|name| events.iter().rposition(|event| event.name == *name));
            let first = events[last.map_or(0, |last| last + 1)..].iter().find(|event| event.is_certain)?;
            let (key, event) = (self.keys[queue].clone(), first.name.clone());
            Some(Wait { longest: now.saturating_duration_since(first.at), key, event })
        });
        waits.max_by_key(|wait| wait.longest).unwrap_or_default()
    }
}

/// How long an event was in its queue, and not in its document.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wait {
    pub(crate) longest: Duration,
    pub(crate) key: String,
    pub(crate) event: String,
}

impl Compared {
    /// What there is to say of it.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.faults.is_empty(), "{}", self.faults.join("\n"));
        self.events.checked_sub(1).map(drop).context("nothing was pushed")
    }
}

//! Tests what counts as a death over an event: that of a process that worked on it, and nothing else.

use std::time::{Duration, Instant};

use anyhow::Context;
use bson::{Document, doc};
use nix::sys::signal::Signal;
use redis::AsyncCommands;
use serde_json::json;

use crate::stage::{PATIENCE, Setting, Stage, assert_exact, logged};
use crate::support::{
    Forge, InForce, Metrics, On, Rule, Tidegate, command_error, try_eventually, write_error,
};

type Outcome = anyhow::Result<()>;

/// Events that are in the queue while there is trouble.
const EVENTS: usize = 20;
/// More lives than it took to condemn an event when each of them counted.
const LIVES: usize = 9;

/// The same events as [`logged`] makes, by a route that has a history.
const WITH_HISTORY: &str = r#"
[[routes]]
when = { type = "LOG" }
collection = "documents"
id = "id"
push = { log = "n" }
inc = { count = 1 }
set = { last = "n" }
history = "documents_history"
"#;

/// A stage whose MongoDB may be made to say anything.
struct Trouble {
    stage: Stage,
    forge: Forge,
    /// The n-th event.
    event: fn(usize) -> String,
}

fn native(n: usize) -> String {
    logged("doc", n)
}

fn routed(n: usize) -> String {
    json!({ "type": "LOG", "id": "doc", "n": n }).to_string()
}

impl Trouble {
    async fn new(setting: Setting, event: fn(usize) -> String) -> anyhow::Result<Self> {
        let mut stage = setting.stage().await?;
        let forge = Forge::start(&stage.mongo).await?;
        let launch = stage.launch.env("TIDEGATE_MONGODB__URI", forge.uri());
        let launch = launch.env("TIDEGATE_MONGODB__TIMEOUT", "1s");
        stage.launch = launch.env("TIDEGATE_SHUTDOWN__DEADLINE", "300ms");
        Ok(Trouble { stage, forge, event })
    }

    /// Puts the rule in force and pushes events that meet it.
    async fn begin(&self, rule: Rule) -> anyhow::Result<InForce> {
        let rule = self.forge.rule(rule);
        self.stage.push((0..EVENTS).map(self.event)).await?;
        Ok(rule)
    }

    /// The trouble ends: each event takes effect once, and none was ever condemned.
    async fn end(&self, rule: &InForce, instances: &[&Tidegate]) -> Outcome {
        rule.remove();
        self.until_taken().await?;
        for tidegate in instances {
            self.stage.settled(tidegate).await?;
        }
        assert_exact(self.stage.document("doc").await?.as_ref(), EVENTS);
        let letters = self.stage.dead_letters().await?;
        assert!(letters.is_empty(), "{letters:#?}");
        let refused: i64 = self.stage.producer().await?.zcard(self.key("refused")).await?;
        assert_eq!(refused, 0, "somebody was told that an event is dead");
        Ok(())
    }

    /// Waits until each event is somewhere: what waits for MongoDB may be parked, and the queue be empty.
    async fn until_taken(&self) -> Outcome {
        try_eventually(PATIENCE, "each event to be taken", async || {
            let parked: usize = self.stage.producer().await?.hlen(self.key("parked")).await?;
            let document = self.stage.document("doc").await?;
            let taken = document.as_ref().and_then(|d| d.get_array("log").ok()).map_or(0, Vec::len);
            let dead = self.stage.dead_letters().await?.len();
            anyhow::ensure!(
                parked == 0 && taken + dead >= EVENTS,
                "{parked} parked, {taken} taken, {dead} dead"
            );
            anyhow::Ok(())
        })
        .await
    }

    fn key(&self, name: &str) -> String {
        format!("tidegate:{{{}}}:{name}", self.stage.queue)
    }

    async fn field(&self, field: &str) -> anyhow::Result<Option<String>> {
        Ok(self.stage.producer().await?.hget(self.key("tries"), field).await?)
    }

    /// Waits until a field of what is known of deaths is there, or is not.
    async fn until_field(&self, field: &str, is_there: bool) -> Outcome {
        try_eventually(PATIENCE, &format!("{field} to be there: {is_there}"), async || {
            let found = self.field(field).await?;
            anyhow::ensure!(found.is_some() == is_there, "{found:?}");
            anyhow::Ok(())
        })
        .await
    }
}

async fn takeovers(instances: &[&Tidegate]) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for tidegate in instances {
        sum += tidegate.metrics().await?.sum("tidegate_takeovers_total", &[]);
    }
    Ok(sum)
}

async fn until_held(tidegate: &Tidegate) -> Outcome {
    let held = |metrics: &Metrics| {
        anyhow::ensure!(metrics.sum("tidegate_lease_held", &[]) == 1.0, "the queue is not held");
        Ok(())
    };
    tidegate.metrics_when(PATIENCE, "the queue to be held", held).await.map(drop)
}

/// Unauthorized, as mongod says it of a statement; of a whole command, of which it says it first.
fn unauthorized() -> Document {
    write_error(13, "not authorized on collab to execute command")
}

fn refuses_documents() -> Rule {
    On::writes().collection("documents").refuse(|_| Some(unauthorized()))
}

fn refuses_history() -> Rule {
    On::writes().collection("documents_history").answer(command_error(
        13,
        "Unauthorized",
        "not authorized on collab to execute command",
    ))
}

/// Two instances that fare alike: the queue stays where it is, and no takeover makes a death of what waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_mongodb_refuses_to_all_is_handed_to_none() -> Outcome {
    let refusal = || command_error(13, "Unauthorized", "not authorized on collab to execute command");
    // What they do is wait, so all of them may do it at once.
    tokio::try_join!(
        fare_alike(refuses_documents()),
        // OutOfDiskSpace: WiredTiger's, for one statement.
        fare_alike(
            On::writes().collection("documents").refuse(|_| Some(write_error(14031, "out of disk space")))
        ),
        fare_alike(On::writes().collection("documents").answer(refusal())),
        fare_alike(On::writes().collection("documents").delay(Duration::from_secs(3))),
    )?;
    Ok(())
}

async fn fare_alike(rule: Rule) -> Outcome {
    let trouble = Trouble::new(Setting::new(), native).await?;
    let first = trouble.stage.start().await?;
    let second = trouble.stage.launch.start().await?;
    let rule = trouble.begin(rule).await?;
    rule.hit(1, PATIENCE).await?;
    let before = takeovers(&[&first, &second]).await?;
    // A hand-over that could not flush took a lease, here a second.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let more = takeovers(&[&first, &second]).await? - before;
        assert!(more <= 2.0, "{more} takeovers within {:?}", began.elapsed());
    }
    trouble.end(&rule, &[&first, &second]).await
}

/// An instance that is restarted again and again, in good order, while nothing can be written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_in_an_outage_condemn_nothing() -> Outcome {
    tokio::try_join!(
        is_restarted(Setting::new(), false, refuses_documents()),
        is_restarted(Setting::new().stream(""), false, refuses_documents()),
        is_restarted(Setting::new().with(WITH_HISTORY), true, refuses_history()),
    )?;
    Ok(())
}

async fn is_restarted(setting: Setting, has_history: bool, rule: Rule) -> Outcome {
    let trouble = Trouble::new(setting, if has_history { routed } else { native }).await?;
    let rule = trouble.begin(rule).await?;
    for _ in 0..LIVES {
        let hits = rule.hits();
        let tidegate = trouble.stage.launch.spawn().await?;
        rule.hit(hits + 1, PATIENCE).await?;
        tidegate.signal(Signal::SIGTERM)?;
        tidegate.exited(PATIENCE).await?;
    }
    let last = trouble.stage.launch.spawn().await?;
    trouble.end(&rule, &[&last]).await?;
    let histories = trouble.stage.database.collection::<Document>("documents_history");
    let kept = histories.count_documents(doc! {}).await?;
    assert_eq!(kept, if has_history { EVENTS as u64 } else { 0 });
    Ok(())
}

/// A supervisor that kills what is not ready, while all that the process does is wait for MongoDB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_in_an_outage_condemn_nothing() -> Outcome {
    let no_reply = || On::writes().collection("documents").hold_request();
    tokio::try_join!(
        is_killed(Setting::new(), refuses_documents()),
        is_killed(Setting::new().stream(""), no_reply()),
        is_killed(Setting::new(), no_reply()),
    )?;
    Ok(())
}

async fn is_killed(setting: Setting, rule: Rule) -> Outcome {
    let trouble = Trouble::new(setting, native).await?;
    let rule = trouble.begin(rule).await?;
    for _ in 0..LIVES {
        let hits = rule.hits();
        let tidegate = trouble.stage.launch.spawn().await?;
        rule.hit(hits + 1, PATIENCE).await?;
        trouble.until_field("worker", false).await?;
        tidegate.kill9()?;
    }
    let last = trouble.stage.launch.spawn().await?;
    trouble.end(&rule, &[&last]).await
}

/// Owners that lose their lease, since they get no processor time, while nothing can be written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_lost_in_an_outage_condemn_nothing() -> Outcome {
    let trouble = Trouble::new(Setting::new(), native).await?;
    let mut owner = trouble.stage.start().await?;
    let mut other = trouble.stage.launch.start().await?;
    let rule = trouble.begin(refuses_documents()).await?;
    rule.hit(1, PATIENCE).await?;
    for _ in 0..LIVES {
        let hits = rule.hits();
        owner.signal(Signal::SIGSTOP)?;
        until_held(&other).await?;
        rule.hit(hits + 1, PATIENCE).await?;
        owner.signal(Signal::SIGCONT)?;
        std::mem::swap(&mut owner, &mut other);
    }
    trouble.end(&rule, &[&owner, &other]).await
}

/// What a process that was stopped while it worked is taken for, until it says that it lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_taken_for_dead_takes_that_back() -> Outcome {
    let trouble = Trouble::new(Setting::new(), native).await?;
    let former = trouble.stage.start().await?;
    let rule = trouble.begin(On::writes().collection("documents").hold_request()).await?;
    rule.hit(1, PATIENCE).await?;
    former.kill9()?;
    // It has the mark for a second: then it waits for MongoDB.
    let stalled = trouble.stage.launch.spawn().await?;
    trouble.until_field("worker", true).await?;
    stalled.signal(Signal::SIGSTOP)?;
    let death =
        format!("died:{}", trouble.field("worker").await?.context("it had time to take the mark away")?);

    let other = trouble.stage.launch.spawn().await?;
    trouble.until_field(&death, true).await?;
    stalled.signal(Signal::SIGCONT)?;
    trouble.until_field(&death, false).await?;
    trouble.end(&rule, &[&stalled, &other]).await
}

/// Two deaths over one event alone condemn it, if that is what they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_counts_if_its_process_is_not_heard_of() -> Outcome {
    // The fields of older versions: they counted takeovers.
    let older = ["process", "older", "count", "9", "part", "END", "alone", "5", "single", "1"];
    let marked =
        ["worker", "ghost", "works-to", "END", "works-alone", "1", "suspect", "END", "died:other", "END"];
    tokio::try_join!(
        is_condemned(&older, false, false),
        is_condemned(&marked, true, false),
        is_condemned(&marked, false, true),
        // One alone is not enough.
        is_condemned(&marked[..8], false, false),
    )?;
    Ok(())
}

async fn is_condemned(fields: &[&str], is_heard_of: bool, condemned: bool) -> Outcome {
    let trouble = Trouble::new(Setting::new(), native).await?;
    let former = trouble.stage.start().await?;
    let rule = trouble.begin(refuses_documents()).await?;
    rule.hit(1, PATIENCE).await?;
    former.kill9()?;
    rule.remove();

    let mut redis = trouble.stage.producer().await?;
    let base: String = redis.get(trouble.key("base")).await?;
    let end = (base.parse::<i64>()? + 1).to_string();
    let mut plant = redis::cmd("HSET");
    plant.arg(trouble.key("tries")).arg("base").arg(&base);
    for field in fields {
        plant.arg(if *field == "END" { &end } else { *field });
    }
    plant.exec_async(&mut redis).await?;
    if is_heard_of {
        let () = redis.zadd(trouble.key("instances"), "ghost", i64::MAX / 4096).await?;
        let () = redis.persist(trouble.key("instances")).await?;
    }
    let tidegate = trouble.stage.launch.spawn().await?;
    if !condemned {
        return trouble.end(&rule, &[&tidegate]).await;
    }
    trouble.until_taken().await?;
    trouble.stage.settled(&tidegate).await?;
    let letters = trouble.stage.dead_letters().await?;
    assert!(letters.len() == 1 && letters[0]["class"] == "crash", "{letters:#?}");
    let document = trouble.stage.document("doc").await?.expect("a document");
    assert_eq!(document.get_array("log")?.len(), EVENTS - 1);
    Ok(())
}

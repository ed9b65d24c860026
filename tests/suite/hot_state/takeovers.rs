//! Tests what is refreshed late, twice or by another, and what a filler has put there meanwhile.

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use redis::AsyncCommands;

use super::filler::{Filler, keys};
use super::{Outcome, ROUTES, TTL, assert_fresh, outcomes, stage};
use crate::stage::{PATIENCE, Setting, Stage, logged};
use crate::support::{Flow, Launch, Metrics, Proxy, eventually, length};

/// A tidegate whose calls about hot states do not arrive.
async fn held(stage: &Stage) -> anyhow::Result<(Proxy, Launch)> {
    let proxy = Proxy::start(stage.redis.address()?).await?;
    let launch = stage.launch.clone().env("TIDEGATE_REDIS__URL", format!("redis://{}/", proxy.address()));
    // It stands still for a while, and is to stay the owner.
    let launch = launch.env("TIDEGATE_LEASE__TTL", "120s").env("TIDEGATE_REDIS__TIMEOUT", "60s");
    Ok((proxy, launch))
}

/// Waits until MongoDB has so many events of `logged`.
async fn written(filler: &Filler, id: &str, events: i32) {
    eventually(PATIENCE, "the write", async || {
        let document = filler.read(id).await?.context("no document")?;
        ensure!(document.get("count") == Some(&events.into()), "{document}");
        anyhow::Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_of_another_numbering_does_not_stay_behind() -> Outcome {
    let (stage, mut filler) = stage().await?;
    let foreign = bson::doc! {"_id": "a", "count": 0, "_tidegate": { &stage.queue: 1_i64 << 57 }};
    stage.database.collection("documents").insert_one(foreign).await?;
    ensure!(filler.fill("a").await?);
    let (proxy, launch) = held(&stage).await?;
    let tidegate = stage.start_as(&launch.env("TIDEGATE_LEASE__TTL", "2s")).await?;
    // Written over the foreign watermark; its owner dies before the state has it.
    proxy.hold_connections_with("tidegate:fill:");
    stage.push([logged("a", 0)]).await?;
    written(&filler, "a", 1).await;
    tidegate.kill9()?;
    let tidegate = stage.start().await?;
    let metrics = stage.settled(&tidegate).await?;
    ensure!(!assert_fresh(&mut filler, "a").await?, "it cannot be known what it had");
    ensure!(outcomes(&metrics, "deleted") == 1.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_state_has_is_not_applied_again() -> Outcome {
    for setting in [Setting::new(), Setting::new().stream("")] {
        applied_once(setting).await?;
    }
    Ok(())
}

async fn applied_once(setting: Setting) -> Outcome {
    let stage = setting.with(ROUTES).stage().await?;
    let mut filler = Filler::new(stage.producer().await?, &stage.database, TTL);
    let (proxy, launch) = held(&stage).await?;
    let tidegate = stage.start_as(&launch).await?;
    stage.push([logged("a", 0), logged("b", 0)]).await?;
    stage.settled(&tidegate).await?;
    ensure!(filler.fill("a").await?);
    // Written, and not refreshed; then filled with what is written.
    proxy.hold_connections_with("tidegate:fill:");
    stage.push([logged("a", 1), logged("b", 1)]).await?;
    for id in ["a", "b"] {
        written(&filler, id, 2).await;
    }
    ensure!(filler.fill("b").await?);
    assert_eq!(filler.state("a").await?.context("a state")?["count"], 1);
    proxy.release_connections();
    let metrics = stage.settled(&tidegate).await?;
    for id in ["a", "b"] {
        assert!(assert_fresh(&mut filler, id).await?);
    }
    assert_eq!(["applied", "skipped", "deleted"].map(|outcome| outcomes(&metrics, outcome)), [1.0, 1.0, 0.0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_over_refreshes_what_is_found_to_be_written() -> Outcome {
    let (stage, mut filler) = stage().await?;
    let (proxy, launch) = held(&stage).await?;
    let tidegate = stage.start_as(&launch.clone().env("TIDEGATE_LEASE__TTL", "4s")).await?;
    stage.push([logged("a", 0)]).await?;
    stage.settled(&tidegate).await?;
    ensure!(filler.fill("a").await?);
    proxy.hold_connections_with("tidegate:fill:");
    stage.push([logged("a", 1)]).await?;
    written(&filler, "a", 2).await;
    tidegate.kill9()?;
    assert_eq!(filler.state("a").await?.context("a state")?["count"], 1);
    // Nothing is committed before it is refreshed.
    assert_eq!(length(&mut stage.producer().await?, &stage.queue).await?, 1);

    let tidegate = stage.start().await?;
    let metrics = stage.settled(&tidegate).await?;
    assert_eq!(metrics.sum("tidegate_events_deduplicated_total", &[]), 1.0);
    assert!(assert_fresh(&mut filler, "a").await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_former_owner_is_late_with_changes_nothing() -> Outcome {
    let (stage, mut filler) = stage().await?;
    let (proxy, launch) = held(&stage).await?;
    let former = stage.start_as(&launch.env("TIDEGATE_LEASE__TTL", "4s")).await?;
    stage.push([logged("a", 0)]).await?;
    stage.settled(&former).await?;
    ensure!(filler.fill("a").await?);
    proxy.hold_connections_with("tidegate:fill:");
    stage.push([logged("a", 1)]).await?;
    written(&filler, "a", 2).await;

    // Its lease ends. What it has sent arrives when another is the owner.
    former.signal(Signal::SIGSTOP)?;
    let tidegate = stage.start().await?;
    stage.push([logged("a", 2)]).await?;
    stage.settled(&tidegate).await?;
    assert!(assert_fresh(&mut filler, "a").await?);
    let token = filler.token("a").await?.context("nobody else fills")?;
    let mut redis = stage.producer().await?;
    ensure!(redis.pexpire::<_, bool>(keys("a").1, 60_000).await?, "it would end too soon on a slow machine");
    proxy.release_connections();
    former.signal(Signal::SIGCONT)?;
    let lost = |metrics: &Metrics| {
        let released = metrics.sum("tidegate_events_released_total", &[]);
        ensure!(released == 1.0, "{released}");
        Ok(())
    };
    let metrics = former.metrics_when(PATIENCE, "it to find that it is none", lost).await?;
    assert_eq!(["applied", "skipped", "deleted"].map(|outcome| outcomes(&metrics, outcome)), [0.0; 3]);
    // Its script was refused: it has not even taken the token.
    let document = filler.read("a").await?.context("the document")?;
    assert!(filler.put("a", &token, &document).await?);
    assert!(assert_fresh(&mut filler, "a").await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_found_applied_in_part_ends_the_state() -> Outcome {
    let (stage, mut filler) = stage().await?;
    let address = stage.mongo.address()?;
    let proxy = Proxy::start(address).await?;
    let uri = stage.mongo.uri().replace(&address.to_string(), &proxy.address().to_string());
    let tidegate = stage.launch.clone().env("TIDEGATE_MONGODB__URI", uri).start().await?;
    stage.push([logged("a", 0)]).await?;
    stage.settled(&tidegate).await?;
    ensure!(filler.fill("a").await?);
    // One event is written, which it does not hear of; others are read meanwhile, and not written.
    proxy.replies(Flow::Hold);
    stage.push([logged("a", 1)]).await?;
    written(&filler, "a", 2).await;
    stage.push((2..5).map(|n| logged("a", n))).await?;
    let read = |metrics: &Metrics| {
        let received = metrics.sum("tidegate_events_received_total", &[]);
        ensure!(received == 5.0, "{received}");
        Ok(())
    };
    tidegate.metrics_when(PATIENCE, "all to be read", read).await?;
    tidegate.kill9()?;

    // Its successor folds all of them into one.
    let tidegate = stage.start().await?;
    let metrics = stage.settled(&tidegate).await?;
    assert_eq!(metrics.sum("tidegate_events_deduplicated_total", &[]), 1.0);
    written(&filler, "a", 5).await;
    assert_eq!(filler.state("a").await?, None);
    assert_eq!(outcomes(&metrics, "deleted"), 1.0);
    Ok(())
}

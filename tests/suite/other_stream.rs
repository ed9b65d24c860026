//! Tests another stream in the place of the one that was read: deleted and made anew, or renamed onto its key.

use anyhow::ensure;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;

use crate::stage::{PATIENCE, Setting, Stage, assert_exact, logged};
use crate::support::{On, Tidegate, command_error, try_eventually};

type Outcome = anyhow::Result<()>;

/// Adds events `from..to` of one document, under ids from `ms` on.
async fn add(
    redis: &mut MultiplexedConnection,
    stream: &str,
    ms: usize,
    events: std::ops::Range<usize>,
) -> Outcome {
    let mut pipe = redis::pipe();
    pipe.atomic();
    for (at, n) in events.enumerate() {
        pipe.cmd("XADD").arg(stream).arg(format!("{}-0", ms + at)).arg("event").arg(logged("d", n)).ignore();
    }
    Ok(pipe.query_async(redis).await?)
}

/// Waits until the document has so many events; they must be exact, the account in order, and the change of streams told.
async fn until_read(stage: &Stage, tidegate: &mut Tidegate, events: usize) -> Outcome {
    try_eventually(PATIENCE, "the other stream to be read", async || {
        let document = stage.document("d").await?;
        let log = document.as_ref().map_or(0, |document| document.get_array("log").map_or(0, Vec::len));
        ensure!(log >= events, "{log} of {events}");
        Ok(())
    })
    .await?;
    assert_exact(stage.document("d").await?.as_ref(), events);
    let metrics = stage.settled(tidegate).await?;
    ensure!(metrics.sum("tidegate_foreign_pops_total", &[]) >= 1.0, "it is not counted");
    tidegate.logged("another stream is in the place of the former", PATIENCE).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_made_anew_is_read_from_its_beginning() -> Outcome {
    for trim in ["", "trim = \"delete\""] {
        let stage = Setting::new().stream(trim).stage().await?;
        let mut redis = stage.producer().await?;
        let mut tidegate = stage.start().await?;
        add(&mut redis, &stage.queue, 1000, 0..5).await?;
        stage.settled(&tidegate).await?;
        // While it runs: nothing that is unread is trimmed, though its ids are below the group's position.
        let () = redis.del(&stage.queue).await?;
        add(&mut redis, &stage.queue, 1, 5..10).await?;
        until_read(&stage, &mut tidegate, 10).await?;
        add(&mut redis, &stage.queue, 10, 10..15).await?;
        stage.settled(&tidegate).await?;
        assert_exact(stage.document("d").await?.as_ref(), 15);
        tidegate.terminate().await?;

        // While nobody looks, and beyond where the former one was.
        let () = redis.del(&stage.queue).await?;
        add(&mut redis, &stage.queue, 2, 15..20).await?;
        add(&mut redis, &stage.queue, 5000, 20..50).await?;
        let mut tidegate = stage.start().await?;
        until_read(&stage, &mut tidegate, 50).await?;
        let left: usize = redis::cmd("XLEN").arg(&stage.queue).query_async(&mut redis).await?;
        ensure!(left == if trim.is_empty() { 35 } else { 0 }, "{left} are left");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_renamed_onto_the_key_is_read_from_its_beginning() -> Outcome {
    for stopped in [false, true] {
        let stage = Setting::new().stream("trim = \"delete\"").stage().await?;
        let mut redis = stage.producer().await?;
        let mut tidegate = stage.start().await?;
        let other = format!("{}:other", stage.queue);
        // Its first entries are older than those that are read, its last ones newer.
        add(&mut redis, &other, 500, 5..10).await?;
        add(&mut redis, &other, 3000, 10..15).await?;
        add(&mut redis, &stage.queue, 1000, 0..5).await?;
        stage.settled(&tidegate).await?;
        if stopped {
            tidegate.terminate().await?;
            let () = redis.rename(&other, &stage.queue).await?;
            tidegate = stage.start().await?;
        } else {
            let () = redis.rename(&other, &stage.queue).await?;
        }
        until_read(&stage, &mut tidegate, 15).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_new_has_another_stream() -> Outcome {
    let stage = Setting::new().own_fast_servers().stream("").stage().await?;
    let mut redis = stage.producer().await?;
    let tidegate = stage.start().await?;
    add(&mut redis, &stage.queue, 1000, 0..5).await?;
    stage.settled(&tidegate).await?;
    tidegate.terminate().await?;
    let () = redis::cmd("FLUSHALL").query_async(&mut redis).await?;
    add(&mut redis, &stage.queue, 1, 5..10).await?;
    let tidegate = stage.start().await?;
    stage.settled(&tidegate).await?;
    assert_exact(stage.document("d").await?.as_ref(), 10);
    Ok(())
}

/// Nothing of the stream is committed, and nothing was known of it but that it was empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_replaced_before_its_first_commit_is_found() -> Outcome {
    for ms in [1, 200] {
        let stage = Setting::new().stream("").forged().stage().await?;
        let mut redis = stage.producer().await?;
        let mut tidegate = stage.start().await?;
        tidegate.logged("took the queue over", PATIENCE).await?;
        let held = stage.forge().rule(On::writes().collection("documents").hold_request());
        add(&mut redis, &stage.queue, 100, 0..12).await?;
        held.hit(1, PATIENCE).await?;
        let () = redis.del(&stage.queue).await?;
        add(&mut redis, &stage.queue, ms, 12..24).await?;
        held.remove();
        until_read(&stage, &mut tidegate, 24).await?;
    }
    Ok(())
}

/// Ids of the new stream are below those of what is parked, and must not pass for applied behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_parked_of_a_former_stream_is_written_before_what_is_new() -> Outcome {
    let stage = Setting::new().stream("").forged().stage().await?;
    let mut redis = stage.producer().await?;
    let refusal = command_error(13, "Unauthorized", "not authorized on test to execute command");
    let rights = stage.forge().rule(On::writes().collection("documents").answer(refusal));
    let mut tidegate = stage.start().await?;
    let are_parked = async |events: usize| {
        let (mut redis, parked) = (redis.clone(), format!("tidegate:{{{}}}:parked", stage.queue));
        try_eventually(PATIENCE, "the events to be parked", async || {
            let found: usize = redis.hlen(&parked).await?;
            ensure!(found == events, "{found} are parked");
            Ok(())
        })
        .await
    };
    let mut events = 0;
    for ms in [5000, 100, 1] {
        let () = redis.clone().del(&stage.queue).await?;
        add(&mut redis.clone(), &stage.queue, ms, events..events + 12).await?;
        events += 12;
        are_parked(events).await?;
    }
    rights.remove();
    are_parked(0).await?;
    add(&mut redis, &stage.queue, 50, events..events + 5).await?;
    until_read(&stage, &mut tidegate, events + 5).await
}

//! Does the faults: each does its harm, lasts a while, and ends with everything in working order.

use std::time::{Duration, Instant};

use anyhow::Context;
use fastrand::Rng;
use nix::sys::signal::Signal;
use tokio::time::sleep;

use crate::deck::{Fault, Side, Trouble};
use crate::history;
use crate::plan::{Plan, Stream};
use crate::refusals;
use crate::support::{Flow, Proxy};
use crate::workload::Closed;
use crate::world::{QUEUE, Replica, World};

const DELAY: Duration = Duration::from_secs(1);
const TRICKLE: usize = 1024;
/// Long enough for a batch to be sent and the next to gather.
const UNANSWERED: Duration = Duration::from_millis(150);

/// A fault that is over.
#[derive(Debug)]
pub(crate) struct Over {
    /// From when on tidegate could recover.
    pub(crate) since: Instant,
    /// How long it took, where that was before the end of the fault.
    pub(crate) recovery: Option<Duration>,
    /// Acknowledged events that Redis lost.
    pub(crate) redis_lost: usize,
}

/// Injects the round's fault.
pub(crate) async fn inject(world: &mut World, plan: &Plan) -> anyhow::Result<Over> {
    let mut rng = plan.stream(Stream::Faults);
    match plan.fault {
        Fault::KillTidegate | Fault::Restart => end_owner(world, plan, &mut rng).await,
        Fault::StallOwner => stall_owner(world, plan, false).await,
        Fault::StallOwnerLateWrites => stall_owner(world, plan, true).await,
        Fault::UselessLease => end_leases(world, plan, &mut rng).await,
        Fault::KillMongo => {
            leave_unanswered(world, plan).await?;
            world.mongo.kill()?;
            last(world, plan, &mut rng).await?;
            world.mongo.restart().await?;
            Ok(over(world))
        }
        Fault::FillMongo => {
            leave_unanswered(world, plan).await?;
            world.mongo.limit_disk(Some(1 << rng.u32(12..22)))?;
            world.mongo.until_full().await?;
            last(world, plan, &mut rng).await?;
            world.mongo.restart().await?;
            Ok(over(world))
        }
        Fault::KillRedis => {
            leave_unanswered(world, plan).await?;
            world.redis.kill()?;
            last(world, plan, &mut rng).await?;
            world.redis.restart().await?;
            Ok(over(world))
        }
        Fault::KillBoth => {
            leave_unanswered(world, plan).await?;
            if rng.bool() {
                world.redis.kill()?;
                world.mongo.kill()?;
            } else {
                world.mongo.kill()?;
                world.redis.kill()?;
            }
            last(world, plan, &mut rng).await?;
            let (redis, mongo) = tokio::join!(world.redis.restart(), world.mongo.restart());
            redis.and(mongo)?;
            Ok(over(world))
        }
        Fault::CutTail => cut_tail(world, plan, &mut rng).await,
        Fault::PromoteCurrent => promote_current(world, plan, &mut rng).await,
        Fault::PromoteLagging => promote_lagging(world, plan, &mut rng).await,
        Fault::Link(side, trouble) => trouble_link(world, plan, &mut rng, side, trouble).await,
        Fault::Forged(answer) => {
            refusals::forge(world, plan, &mut rng, answer).await?;
            Ok(over(world))
        }
        Fault::Refused(refusal) => {
            leave_unanswered(world, plan).await?;
            refusals::refuse(world, plan, &mut rng, refusal).await?;
            Ok(over(world))
        }
    }
}

/// If the plan wants it: what the owner has written last is in MongoDB, but it has not heard so, and is not going to until
/// the fault is over. It has read on meanwhile, so that what is read again is not folded as it was.
async fn leave_unanswered(world: &World, plan: &Plan) -> anyhow::Result<()> {
    if plan.unanswered {
        world.instances[world.owner().await?].mongo.replies(Flow::Hold);
        sleep(plan.max_delay + UNANSWERED).await;
    }
    Ok(())
}

/// Tidegate can recover from now on.
fn over(world: &World) -> Over {
    world.instances.iter().for_each(|instance| instance.mongo.heal());
    Over { since: Instant::now(), recovery: None, redis_lost: 0 }
}

/// Lets a fault last. If the plan wants it, the queue is taken over and an instance of tidegate killed meanwhile.
pub(crate) async fn last(world: &mut World, plan: &Plan, rng: &mut Rng) -> anyhow::Result<()> {
    let until = Instant::now() + plan.hold;
    if plan.taken_over {
        sleep(plan.hold.mul_f64(rng.f64() / 2.0)).await;
        world.instances.iter().for_each(|instance| instance.redis.cut());
    }
    if plan.kill_too {
        sleep(until.saturating_duration_since(Instant::now()).mul_f64(rng.f64())).await;
        let victim = rng.usize(..world.instances.len());
        world.instances[victim].kill_and_restart().await?;
    }
    sleep(until.saturating_duration_since(Instant::now())).await;
    Ok(())
}

async fn end_owner(world: &mut World, plan: &Plan, rng: &mut Rng) -> anyhow::Result<Over> {
    let mut ended = over(world);
    for time in 0..rng.usize(1..=3) {
        if time > 0 {
            // Its successor stands by, recovers or is at work again.
            sleep(Duration::from_millis(rng.u64(20..1600))).await;
        }
        leave_unanswered(world, plan).await?;
        let owner = world.owner().await?;
        sleep(Duration::from_millis(rng.u64(..100))).await;
        let since = Instant::now();
        if plan.fault == Fault::Restart {
            world.instances[owner].restart().await?;
        } else {
            world.instances[owner].kill_and_restart().await?;
        }
        ended = Over { since, ..over(world) };
    }
    Ok(ended)
}

async fn stall_owner(world: &mut World, plan: &Plan, late_writes: bool) -> anyhow::Result<Over> {
    let owner = world.owner().await?;
    let stalled = &world.instances[owner];
    if late_writes {
        stalled.mongo.requests(Flow::Hold);
        sleep(plan.max_delay + Duration::from_millis(100)).await;
    }
    if plan.unanswered {
        stalled.mongo.replies(Flow::Hold);
        sleep(plan.max_delay + UNANSWERED).await;
    }
    stalled.signal(Signal::SIGSTOP)?;
    let since = Instant::now();
    let recovery = Some(world.recovery(since).await.context("nobody takes over from a stopped owner")?);
    sleep(plan.hold / 2).await;
    let stalled = &world.instances[owner];
    stalled.mongo.heal();
    sleep(plan.hold / 4).await;
    stalled.signal(Signal::SIGCONT)?;
    sleep(plan.hold / 4).await;
    Ok(Over { since, recovery, redis_lost: 0 })
}

/// The configuration allows no lease below a second, so it is Redis that forgets it.
async fn end_leases(world: &mut World, plan: &Plan, rng: &mut Rng) -> anyhow::Result<Over> {
    let mut connection = world.connect().await?;
    let until = Instant::now() + plan.hold * 2;
    while Instant::now() < until {
        sleep(Duration::from_millis(rng.u64(5..150))).await;
        let owner = format!("tidegate:{{{QUEUE}}}:owner");
        let () = redis::cmd("PEXPIRE").arg(owner).arg(1).query_async(&mut connection).await?;
    }
    Ok(over(world))
}

async fn cut_tail(world: &mut World, plan: &Plan, rng: &mut Rng) -> anyhow::Result<Over> {
    let open = world.workload.close().await;
    let mark = world.workload.mark();
    let least = history::written(&world.redis).await?;
    drop(open);
    last(world, plan, rng).await?;

    leave_unanswered(world, plan).await?;
    world.instances.iter().for_each(|instance| instance.lose_redis());
    world.redis.kill()?;
    let closed = world.workload.close().await;
    // From a torn last command to all of the last second.
    let bytes = 1 << rng.u32(4..20);
    history::cut_tail(&world.redis, rng.u64(1..=bytes), least)?;
    world.redis.restart().await?;
    fall_back(world, &mark, closed).await
}

async fn promote_current(world: &mut World, plan: &Plan, rng: &mut Rng) -> anyhow::Result<Over> {
    let Replica { redis: replica, link: _link } = world.replica.take().context("no replica")?;
    last(world, plan, rng).await?;

    leave_unanswered(world, plan).await?;
    world.instances.iter().for_each(|instance| instance.lose_redis());
    let mut closed = world.workload.close().await;
    history::wait_for_replica(&world.redis).await?;
    world.redis.kill()?;
    history::promote(&replica).await?;
    replica.url().clone_into(&mut closed);
    world.redis = replica;
    find_redis(world)?;
    Ok(over(world))
}

async fn promote_lagging(world: &mut World, plan: &Plan, rng: &mut Rng) -> anyhow::Result<Over> {
    let Replica { redis: replica, link } = world.replica.take().context("no replica")?;
    let open = world.workload.close().await;
    let mark = world.workload.mark();
    history::wait_for_replica(&world.redis).await?;
    // It falls behind from now on, or gets ever less of what there is.
    link.replies(if rng.bool() { Flow::Hold } else { Flow::Trickle(1 << rng.u32(14..20)) });
    drop(open);
    last(world, plan, rng).await?;

    leave_unanswered(world, plan).await?;
    world.instances.iter().for_each(|instance| instance.lose_redis());
    world.redis.kill()?;
    link.refuse();
    link.cut();
    let mut closed = world.workload.close().await;
    history::promote(&replica).await?;
    replica.url().clone_into(&mut closed);
    world.redis = replica;
    fall_back(world, &mark, closed).await
}

/// Redis is back with less than it had. What it has is noted before anybody changes it.
async fn fall_back(world: &World, mark: &[usize], closed: Closed) -> anyhow::Result<Over> {
    let kept = history::elements(&world.redis, QUEUE).await?;
    let redis_lost = world.workload.fell_back(mark, &kept)?;
    drop(closed);
    find_redis(world)?;
    Ok(Over { redis_lost, ..over(world) })
}

/// Tidegate finds the Redis that there is now, at the address that it knows.
fn find_redis(world: &World) -> anyhow::Result<()> {
    let address = world.redis.address()?;
    for instance in &world.instances {
        instance.redis.retarget(address);
        instance.redis.heal();
    }
    Ok(())
}

async fn trouble_link(
    world: &mut World,
    plan: &Plan,
    rng: &mut Rng,
    side: Side,
    trouble: Trouble,
) -> anyhow::Result<Over> {
    leave_unanswered(world, plan).await?;
    let owner = world.owner().await?;
    let affected: Vec<usize> =
        if plan.owner_only { vec![owner] } else { (0..world.instances.len()).collect() };
    let each = |world: &World, act: &dyn Fn(&Proxy)| {
        affected.iter().for_each(|index| act(world.instances[*index].proxy(side)));
    };
    let both = |world: &World, flow: Flow| {
        each(world, &|proxy| {
            proxy.requests(flow);
            proxy.replies(flow);
        });
    };
    match trouble {
        Trouble::Cut => {
            for _ in 0..rng.usize(1..=4) {
                each(world, &Proxy::cut);
                sleep(Duration::from_millis(rng.u64(..300))).await;
            }
            each(world, &|proxy| {
                proxy.refuse();
                proxy.cut();
            });
        }
        Trouble::LoseRequests => each(world, &|proxy| proxy.requests(Flow::Swallow)),
        Trouble::LoseReplies => each(world, &|proxy| proxy.replies(Flow::Swallow)),
        Trouble::LoseBoth => both(world, Flow::Swallow),
        Trouble::HoldRequests => each(world, &|proxy| proxy.requests(Flow::Hold)),
        Trouble::Delay => both(world, Flow::Delay(DELAY)),
        Trouble::Trickle => both(world, Flow::Trickle(TRICKLE)),
    }
    last(world, plan, rng).await?;
    each(world, &Proxy::heal);
    Ok(over(world))
}

//! Commits what is settled, renews the lease, and looks now and then at how much is in the queue.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::beat;
use crate::ownership::Owned;
use crate::source::SourceError;

/// Commits until `done`, and then what is left.
pub(super) async fn commit(queue: Arc<Owned>, done: CancellationToken) -> Result<(), SourceError> {
    let tick = sleep_until(Instant::now());
    tokio::pin!(tick);
    loop {
        // Looked at before committing: all that was settled before `done` is committed below.
        let last = done.is_cancelled();
        commit_due(&queue).await?;
        if last {
            return Ok(());
        }
        tokio::select! {
            () = queue.progress.notified() => {}
            () = done.cancelled() => {}
            () = &mut tick => {
                let is_idle = look(&queue).await?;
                let lease = &queue.shared.config.lease;
                tick.as_mut().reset(beat::next(if is_idle { lease.idle_look_every() } else { lease.look_every() }));
            }
        }
    }
}

/// Dead letters that one commit moves, about: Redis serves nobody else meanwhile.
const DEAD_A_COMMIT: usize = 2000;

async fn commit_due(queue: &Owned) -> Result<(), SourceError> {
    loop {
        let turn = queue.parked.turn.lock().await;
        // A parked event's letter goes to the list with the event.
        let is_moved = |offset: &&i64| !queue.parked.has(**offset);
        let limit =
            queue.buried.lock().iter().filter(is_moved).nth(DEAD_A_COMMIT).copied().unwrap_or(i64::MAX);
        let Some(checkpoint) = queue.tracker.lock().due(limit) else { return Ok(()) };
        let dead: Vec<i64> = queue.buried.lock().range(..checkpoint.end).filter(is_moved).copied().collect();
        let depth = queue.source.commit(checkpoint, &dead).await?;
        queue.tracker.lock().committed(checkpoint.end);
        let mut buried = queue.buried.lock();
        dead.iter().for_each(|offset| {
            buried.remove(offset);
        });
        drop((buried, turn));
        queue.committed.notify_waiters();
        queue.gets_on();
        queue.clock.lock().forget_below(checkpoint.end);
        queue.status.set_committed(checkpoint.end);
        queue.status.saw(depth);
    }
}

/// Keeps the lease and the gauges fresh while nothing else happens; answers whether nothing does.
async fn look(queue: &Owned) -> Result<bool, SourceError> {
    queue.status.set_window(queue.mapping.timings.longest(queue.shared.live.policy().max_delay));
    // Other queues fill the buffer, too.
    queue.relieve();
    let settled_to = queue.tracker.lock().settled_to();
    let seen = queue.source.look(settled_to).await?;
    let depth = seen.depth;
    let is_drained = queue.recovered.is_cancelled() && queue.tracker.lock().is_drained();
    match depth.elements {
        0 if is_drained => queue.gets_on(),
        // Whoever waits for it is told sooner, unless nobody tells.
        1.. if is_drained => queue.seen.notify_waiters(),
        _ => {}
    }
    queue.sample(depth.tail);
    queue.status.saw(depth);
    if let Some(dead) = seen.dead {
        queue.status.set_dead_letters(dead);
    }
    let settled_to = queue.tracker.lock().settled_to();
    let oldest = queue.source.oldest(&seen, settled_to);
    let age = oldest.and_then(|oldest| queue.oldest_age(oldest));
    queue.status.set_oldest_age(age.unwrap_or_default());
    Ok(is_drained && depth.elements == 0)
}

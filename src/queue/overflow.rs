//! Keeps dead letters in Redis few and young: moves the oldest to MongoDB, and drops those that are too old.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::beat;
use crate::dead_letter::Outline;
use crate::ownership::Owned;
use crate::source::{Lease, Outgoing, SourceError, letter_key};

/// How often it is looked, in a flood, and at the oldest letter, which may be large.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_IN_FLOOD: Duration = Duration::from_millis(50);
const LOOK_AT_OLDEST: Duration = Duration::from_secs(60);
/// Letters too large to move that are passed over at one look, and old ones that are dropped in one step.
const TOO_LARGE: usize = 100;
const OLD: usize = 500;

/// Takes back what was told of the letters when the task ends: whoever owns the queue next tells of them.
struct Task {
    queue: Arc<Owned>,
    name: String,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.queue.shared.health.troubles.over(&self.name);
        self.queue.metrics.dead_letters_oldest_age.set(0.0);
        self.crowded(false);
    }
}

impl Task {
    /// Lets more letters wait, or no more.
    fn crowded(&self, is_crowded: bool) {
        let tell = |told: &mut bool| std::mem::replace(told, is_crowded) != is_crowded;
        self.queue.letters.crowded.send_if_modified(tell);
    }
}

/// Does it for as long as the queue is owned. `id` is the queue's name in MongoDB.
pub(super) async fn bound(queue: Arc<Owned>, id: String) {
    let Some(lease) = queue.source.lease() else { return };
    let name = format!("moving dead letters of {} to MongoDB", queue.key);
    let task = Task { queue: Arc::clone(&queue), name };
    let config = &queue.shared.config.dead_letter;
    // Some may be on their way from before.
    let mut is_first = true;
    let mut is_flood = false;
    let mut oldest: Option<(Instant, i64)> = None;
    loop {
        sleep_until(beat::next(if is_flood { LOOK_IN_FLOOD } else { LOOK })).await;
        if queue.status.dead_letters() == 0 {
            oldest = None;
        } else if oldest.is_none_or(|(asked, _)| asked.elapsed() >= LOOK_AT_OLDEST) {
            let letters = lease.oldest_letters(1).await.unwrap_or_default();
            oldest = letters.first().and_then(|kept| at_ms(kept)).map(|at| (Instant::now(), at));
        }
        let age = oldest.map_or(0, |(_, at)| (now_ms() - at).max(0));
        queue.metrics.dead_letters_oldest_age.set(Duration::from_millis(age.unsigned_abs()).as_secs_f64());
        if queue.status.dead_letters() > config.max_events || is_first || is_flood {
            // An error of Redis ends the ownership, which others find out.
            let moved = move_out(&task, lease, &id, config.max_events).await;
            // Who cannot move any lets all others go on.
            task.crowded(false);
            (is_first, is_flood) = (moved.is_err(), moved.is_ok_and(|moved| moved > 0));
        }
        if let Some(age) = config.max_age.limit() {
            let _ = drop_old(&queue, lease, age).await;
        }
    }
}

/// Moves letters out for as long as there are too many, and answers how many.
async fn move_out(task: &Task, lease: &Lease, id: &str, stay: u64) -> Result<usize, SourceError> {
    let Task { queue, name } = task;
    let max_age = queue.shared.config.dead_letter.max_age.limit();
    let (mut moved, mut too_large) = (0, 0);
    while too_large < TOO_LARGE {
        match lease.move_out(stay).await? {
            Outgoing::Nothing => break,
            Outgoing::TooLarge => too_large += 1,
            Outgoing::Letters(letters) => {
                let named: Vec<_> = letters.iter().map(|letter| (letter_key(letter), &letter[..])).collect();
                if let Err(error) = queue.shared.sink.keep_letters(id, &named, max_age).await {
                    queue.shared.health.troubles.met(name, &error);
                    return Err(SourceError::lost(error));
                }
                queue.shared.health.troubles.over(name);
                task.crowded(queue.status.dead_letters() > 2 * stay);
                lease.arrived(&letters).await?;
                moved += letters.len();
            }
        }
    }
    if moved > 0 {
        tracing::debug!(queue = queue.key, moved, "dead letters were moved to MongoDB");
    }
    Ok(moved)
}

/// Drops the oldest letters for as long as they are too old.
async fn drop_old(queue: &Owned, lease: &Lease, age: Duration) -> Result<(), SourceError> {
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let now = now_ms();
    let is_old = |kept: &Vec<u8>| at_ms(kept).is_some_and(|at| now.saturating_sub(at) > age);
    let mut dropped = 0;
    // Mostly the first is not, and may be large.
    let mut some = lease.oldest_letters(1).await?;
    while some.first().is_some_and(is_old) {
        some = lease.oldest_letters(OLD).await?;
        let old = some.iter().take_while(|kept| is_old(kept)).count();
        let Some(last) = old.checked_sub(1).and_then(|last| some.get(last)) else { break };
        if !lease.drop_oldest(old, last).await? {
            break;
        }
        dropped += old;
        some = lease.oldest_letters(1).await?;
    }
    if dropped > 0 {
        tracing::info!(
            queue = queue.key,
            dropped,
            "dead letters older than dead_letter.max_age were dropped"
        );
    }
    Ok(())
}

/// When a letter became one, if it says so.
fn at_ms(kept: &[u8]) -> Option<i64> {
    Outline::parse(kept).ok()?.at_ms()
}

fn now_ms() -> i64 {
    bson::DateTime::now().timestamp_millis()
}

//! Keeps dead letters in Redis few and young: moves the oldest to MongoDB, and drops those that are too old.

use std::sync::Arc;
use std::time::Duration;

use bson::DateTime;
use tokio::time::{Instant, sleep_until};

use crate::beat;
use crate::ownership::Owned;
use crate::source::{Lease, Outgoing, SourceError, letter_key};

/// How often it is looked, in a flood, and at the age of the oldest letter.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_IN_FLOOD: Duration = Duration::from_millis(50);
const LOOK_AT_OLDEST: Duration = Duration::from_secs(60);
/// Letters too large to move that are passed over at one look.
const TOO_LARGE: usize = 100;

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
    let mut oldest: Option<(Instant, DateTime)> = None;
    loop {
        sleep_until(beat::next(if is_flood { LOOK_IN_FLOOD } else { LOOK })).await;
        if queue.status.dead_letters() == 0 {
            oldest = None;
        } else if oldest.is_none_or(|(asked, _)| asked.elapsed() >= LOOK_AT_OLDEST) {
            let at = lease.oldest_letter_at().await.ok().flatten();
            oldest = at.map(|at| (Instant::now(), at));
        }
        let age = oldest.map_or(Duration::ZERO, |(_, at)| DateTime::now().saturating_duration_since(at));
        queue.metrics.dead_letters_oldest_age.set(age.as_secs_f64());
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
    let time = DateTime::from_millis(DateTime::now().timestamp_millis().saturating_sub(age));
    let mut dropped = 0;
    loop {
        match lease.drop_letters_before(time).await? {
            0 => break,
            some => dropped += some,
        }
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

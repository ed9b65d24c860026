//! Keeps dead letters in Redis few and young: moves the oldest to MongoDB, and drops those that are too old.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep_until;

use crate::beat;
use crate::dead_letter::Letter;
use crate::ownership::Owned;
use crate::source::{Lease, Outgoing, SourceError, letter_key};

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);
/// Letters too large to move that are passed over at one look, and old ones that are dropped in one step.
const TOO_LARGE: usize = 100;
const OLD: usize = 500;

/// Says when the task ends that letters cannot be moved no more: whoever owns the queue next says so itself.
struct Task {
    queue: Arc<Owned>,
    name: String,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.queue.shared.health.troubles.over(&self.name);
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
    loop {
        sleep_until(beat::next(LOOK)).await;
        if queue.status.dead_letters() > config.max_events || is_first {
            // An error of Redis ends the ownership, which others find out.
            is_first = move_out(&task, lease, &id, config.max_events).await.is_err();
        }
        if let Some(age) = config.max_age.limit() {
            let _ = drop_old(&queue, lease, age).await;
        }
    }
}

/// Moves letters out for as long as there are too many.
async fn move_out(task: &Task, lease: &Lease, id: &str, stay: u64) -> Result<(), SourceError> {
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
                lease.arrived(&letters).await?;
                moved += letters.len();
            }
        }
    }
    if moved > 0 {
        tracing::debug!(queue = queue.key, moved, "dead letters were moved to MongoDB");
    }
    Ok(())
}

/// Drops the oldest letters for as long as they are too old.
async fn drop_old(queue: &Owned, lease: &Lease, age: Duration) -> Result<(), SourceError> {
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let now = bson::DateTime::now().timestamp_millis();
    let is_old = |kept: &Vec<u8>| {
        let at = Letter::parse(kept).ok().and_then(|letter| letter.at_ms());
        at.is_some_and(|at| now.saturating_sub(at) > age)
    };
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

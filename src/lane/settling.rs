//! Settling a batch: writing it until every event of it is durable, known to be, or a dead letter.
//!
//! The sink tries once and answers a verdict a write; what a verdict asks for happens here.

use crate::backoff::Backoff;
use crate::coalesce::Update;
use crate::queue::Owned;
use crate::settle::Outcome;
use crate::sink::{Grown, Verdict, Watermark};
use crate::source::SourceError;

use super::isolate::{Doubt, isolate, refold};
use super::pending::Pending;
use crate::write::Write;

/// Settles every event of a batch.
///
/// # Errors
/// The ownership of the queue has ended. What is not settled then is handed back.
pub(super) async fn settle(queue: &Owned, batch: Pending) -> Result<(), SourceError> {
    // What an attempt leaves, folded anew, goes on top: it is older than what lies below, entity by entity.
    let mut stack = vec![batch];
    let mut retry: Vec<Write> = Vec::new();
    let mut backoff = Backoff::default();
    loop {
        // An entity's next segment must not overtake one that is to be sent again.
        let writes = if retry.is_empty() { next_segments(&mut stack) } else { std::mem::take(&mut retry) };
        if writes.is_empty() {
            return Ok(());
        }
        let round = attempt(queue, writes).await;
        queue.shared.sink.compact(round.grown).await;
        retry = round.retry;
        let (applied_in_part, raced) = examine(queue, round.conflicts, &mut retry).await;
        stack.extend(refold(queue, applied_in_part).await?);
        isolate(queue, round.refused).await?;
        if round.failed || raced {
            queue.shared.status.mongodb.back_or(backoff.wait()).await;
        } else {
            backoff.reset();
        }
    }
}

/// The next segments of what is on top of the stack; none if it is empty.
fn next_segments(stack: &mut Vec<Pending>) -> Vec<Write> {
    while let Some(pending) = stack.last_mut() {
        let writes = pending.next_segments();
        if !writes.is_empty() {
            return writes;
        }
        stack.pop();
    }
    Vec::new()
}

/// What is left of a batch after one attempt.
#[derive(Default)]
struct Round {
    grown: Vec<Grown>,
    conflicts: Vec<Write>,
    refused: Vec<Doubt>,
    retry: Vec<Write>,
    failed: bool,
}

async fn attempt(queue: &Owned, writes: Vec<Write>) -> Round {
    let verdicts = queue.shared.sink.write(&writes, queue.guard.as_ref(), false).await;
    let mut round = Round::default();
    let mut failure = None;
    for (write, verdict) in writes.into_iter().zip(verdicts) {
        match verdict {
            Verdict::Applied => {
                round.grown.extend(queue.shared.sink.grown(&write));
                queue.persisted(write);
            }
            Verdict::Conflict => round.conflicts.push(write),
            Verdict::Refused(rejection) => round.refused.push(Doubt::refused(write, rejection)),
            Verdict::Untried => round.retry.push(write),
            Verdict::Failed(error) => {
                failure = Some(error);
                round.retry.push(write);
            }
        }
    }
    if let Some(error) = failure {
        round.failed = true;
        queue.shared.metrics.retried_mongodb(error.class());
        tracing::debug!(%error, writes = round.retry.len(), "writes are to be tried again");
    }
    round
}

/// Reads the watermarks of writes that the guard held back. What was applied is settled; what was not is
/// to be tried again; what was in part is answered, with whether there was anything to try again.
async fn examine(queue: &Owned, conflicts: Vec<Write>, retry: &mut Vec<Write>) -> (Vec<Doubt>, bool) {
    let Some(guard) = queue.guard.as_ref().filter(|_| !conflicts.is_empty()) else {
        // Without a guard, only two upserts racing to insert the same document meet.
        let raced = !conflicts.is_empty();
        retry.extend(conflicts);
        return (Vec::new(), raced);
    };
    let watermarks = match queue.shared.sink.watermarks(&conflicts.iter().collect::<Vec<_>>(), guard).await {
        Ok(watermarks) => watermarks,
        Err(error) => {
            queue.shared.metrics.retried_mongodb(error.class());
            retry.extend(conflicts);
            return (Vec::new(), true);
        }
    };
    let mut doubts = Vec::new();
    let mut raced = false;
    for (write, watermark) in conflicts.into_iter().zip(watermarks) {
        let segment = &write.segment;
        match watermark {
            Some(Watermark(Some(w))) if w >= segment.last => write.unsettled.settle(Outcome::Deduplicated),
            Some(Watermark(Some(w))) if w >= segment.guard() => doubts.push(Doubt::applied_to(write, w)),
            // A deletion of a document that is not there.
            None if matches!(segment.update, Update::Delete) => queue.persisted(write),
            // Somebody inserted or deleted the document between write and look.
            _ => {
                raced = true;
                retry.push(write);
            }
        }
    }
    (doubts, raced)
}

//! Settling a batch: writing it until every event of it is durable, known to be, or a dead letter.
//!
//! The sink tries once and answers a verdict a write; what a verdict asks for happens here.

use crate::backoff::Backoff;
use crate::coalesce::Update;
use crate::queue::Owned;
use crate::settle::Outcome;
use crate::sink::{Found, Grown, Verdict};
use crate::source::SourceError;

use super::isolate::{Doubt, id_taken, isolate, refold};
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
        let mut round = attempt(queue, writes).await;
        queue.shared.sink.compact(round.grown).await;
        retry = round.retry;
        let examined = examine(queue, round.conflicts, &mut retry).await;
        stack.extend(refold(queue, examined.applied_in_part).await?);
        round.refused.extend(examined.refused);
        isolate(queue, round.refused).await?;
        if round.failed || examined.raced {
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

/// What the guard held back, looked at.
#[derive(Default)]
struct Examined {
    applied_in_part: Vec<Doubt>,
    refused: Vec<Doubt>,
    /// There is something to try again.
    raced: bool,
}

/// Reads the watermarks of writes that the guard held back. What was applied is settled; what was not is
/// to be tried again.
async fn examine(queue: &Owned, conflicts: Vec<Write>, retry: &mut Vec<Write>) -> Examined {
    let mut examined = Examined::default();
    if conflicts.is_empty() {
        return examined;
    }
    let writes: Vec<_> = conflicts.iter().collect();
    let found = match queue.shared.sink.watermarks(&writes, queue.guard.as_ref()).await {
        Ok(found) => found,
        Err(error) => {
            queue.shared.metrics.retried_mongodb(error.class());
            retry.extend(conflicts);
            examined.raced = true;
            return examined;
        }
    };
    for (write, found) in conflicts.into_iter().zip(found) {
        let segment = &write.segment;
        match found {
            Found::Watermark(w) if w >= segment.last => write.unsettled.settle(Outcome::Deduplicated),
            Found::Watermark(w) if w >= segment.guard() => {
                examined.applied_in_part.push(Doubt::applied_to(write, w));
            }
            // A deletion of a document that is not there.
            Found::Nothing if matches!(segment.update, Update::Delete) => queue.persisted(write),
            Found::Taken => examined.refused.push(Doubt::refused(write, id_taken())),
            // Somebody inserted or deleted the document between write and look.
            Found::Watermark(_) | Found::Unmarked | Found::Nothing => {
                examined.raced = true;
                retry.push(write);
            }
        }
    }
    examined
}

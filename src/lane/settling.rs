//! Settling a batch: writing it until every event of it is durable, known to be, or a dead letter.
//!
//! The sink tries once and answers a verdict a write; what a verdict asks for happens here.

use std::collections::BTreeMap;

use crate::backoff::Backoff;
use crate::coalesce::Update;
use crate::dead_letter::Rejection;
use crate::queue::Owned;
use crate::sink::{Found, Grown, SinkError, Verdict};
use crate::source::SourceError;
use crate::status::LaneStatus;

use super::durable::Durable;
use super::isolate::{Doubt, id_taken, isolate, refold};
use super::pending::Pending;
use crate::write::Write;

/// Settles every event of a batch.
///
/// # Errors
/// The ownership of the queue has ended. What is not settled then is handed back.
pub(super) async fn settle(queue: &Owned, status: &LaneStatus, batch: Pending) -> Result<(), SourceError> {
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
        let mut durable = Durable::new(queue);
        let round = attempt(queue, &mut durable, writes).await;
        status.attempted(round.failed);
        queue.shared.sink.compact(round.grown).await;
        retry = round.retry;
        let examined = examine(queue, &mut durable, round.held_back, &mut retry).await;
        // Before any later event of the same entities.
        durable.refresh().await?;
        stack.extend(refold(queue, examined.applied_in_part, &examined.recorded).await?);
        isolate(queue, status, examined.refused).await?;
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
    /// Writes that met a document, and writes that MongoDB refused, with why.
    held_back: Vec<(Write, Option<Rejection>)>,
    retry: Vec<Write>,
    failed: bool,
}

async fn attempt(queue: &Owned, durable: &mut Durable<'_>, writes: Vec<Write>) -> Round {
    let verdicts = queue.shared.sink.write(&writes, queue.guard.as_ref(), false).await;
    let mut round = Round::default();
    let mut failure = None;
    for (write, verdict) in writes.into_iter().zip(verdicts) {
        match verdict {
            Verdict::Applied => {
                round.grown.extend(queue.shared.sink.grown(&write));
                durable.persisted(write);
            }
            Verdict::Conflict => round.held_back.push((write, None)),
            Verdict::Refused(rejection) => round.held_back.push((write, Some(rejection))),
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

/// What was held back, looked at.
#[derive(Default)]
struct Examined {
    /// Dead letters on record among the events that were held back.
    recorded: BTreeMap<i64, Rejection>,
    applied_in_part: Vec<Doubt>,
    refused: Vec<Doubt>,
    /// There is something to try again.
    raced: bool,
}

/// Reads the watermarks of what was held back. What was applied is settled; what was not is refused, or to
/// be tried again.
///
/// A refusal says little before that: an upsert that the guard keeps from matching tries to insert, and the
/// server may hold that document against a validator or another unique index before it looks at `_id`.
async fn examine(
    queue: &Owned,
    durable: &mut Durable<'_>,
    held_back: Vec<(Write, Option<Rejection>)>,
    retry: &mut Vec<Write>,
) -> Examined {
    let mut examined = Examined::default();
    if held_back.is_empty() {
        return examined;
    }
    let (found, recorded) = match look(queue, &held_back).await {
        Ok(found) => found,
        Err(error) => {
            queue.shared.metrics.retried_mongodb(error.class());
            retry.extend(held_back.into_iter().map(|(write, _)| write));
            examined.raced = true;
            return examined;
        }
    };
    for ((write, rejection), found) in held_back.into_iter().zip(found) {
        let segment = &write.segment;
        let has_dead = recorded.range(segment.first..=segment.last).next().is_some();
        match (found, rejection) {
            (Found::Watermark(w), _) if w >= segment.last && !has_dead => {
                durable.found(write);
            }
            (Found::Watermark(w), _) if w >= segment.guard() => {
                durable.in_part(&write.entity);
                examined.applied_in_part.push(Doubt::applied_to(write, w));
            }
            (_, Some(rejection)) => examined.refused.push(Doubt::refused(write, rejection)),
            // A deletion of a document that is not there.
            (Found::Nothing, None) if matches!(segment.update, Update::Delete) => durable.persisted(write),
            (Found::Taken, None) => examined.refused.push(Doubt::refused(write, id_taken())),
            // Somebody inserted or deleted the document between write and look.
            (Found::Watermark(_) | Found::Unmarked | Found::Nothing, None) => {
                examined.raced = true;
                retry.push(write);
            }
        }
    }
    examined.recorded = recorded;
    examined
}

/// What is known of the documents, and the dead letters on record among the events, of writes that were held back.
async fn look(
    queue: &Owned,
    held_back: &[(Write, Option<Rejection>)],
) -> Result<(Vec<Found>, BTreeMap<i64, Rejection>), SinkError> {
    let writes: Vec<_> = held_back.iter().map(|(write, _)| write).collect();
    let found = queue.shared.sink.watermarks(&writes, queue.guard.as_ref()).await?;
    let applied = writes.iter().zip(&found).filter(|(write, found)| match found {
        Found::Watermark(w) => *w >= write.segment.guard(),
        _ => false,
    });
    let bounds = applied.fold(None, |bounds: Option<(i64, i64)>, (write, _)| {
        let (first, last) = bounds.unwrap_or((i64::MAX, i64::MIN));
        Some((first.min(write.segment.first), last.max(write.segment.last)))
    });
    let recorded = match bounds {
        Some((first, last)) => queue.shared.sink.recorded_dead(&queue.id, first, last).await?,
        None => BTreeMap::new(),
    };
    Ok((found, recorded))
}

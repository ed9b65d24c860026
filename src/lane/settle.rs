//! Settles a batch: writes it until every event of it is durable, known to be, or a dead letter.
//!
//! The sink tries once and answers a verdict a write; what a verdict asks for happens here.

use std::collections::BTreeMap;

use crate::dead_letter::Rejection;
use crate::ownership::Owned;
use crate::sink::{FoundWatermark, Grown, Refusal, SinkError, Verdict};
use crate::source::SourceError;
use crate::status::LaneStatus;

use super::durable::Durable;
use super::isolate::{Doubt, isolate, refold};
use super::pending::Pending;
use super::proof;
use super::quarantine::{Withheld, shared_name};
use super::resolve::{Resolution, resolve};
use crate::sink::Write;

/// Settles every event of a batch, but for documents that MongoDB refuses for something else than their content: these
/// are answered, with all of their events that are not settled.
///
/// # Errors
/// The ownership of the queue has ended. What is not settled then is handed back.
pub(super) async fn settle(
    queue: &Owned,
    status: &LaneStatus,
    batch: Pending,
) -> Result<Vec<Withheld>, SourceError> {
    // What an attempt leaves, folded anew, goes on top: it is older than what lies below, entity by entity.
    let mut stack = vec![batch];
    let mut all_withheld: Vec<Withheld> = Vec::new();
    let mut retry: Vec<Write> = Vec::new();
    let mut attempts = queue.shared.health.mongodb.attempts();
    loop {
        // An entity's next segment must not overtake one that is to be sent again.
        let writes = if retry.is_empty() { next_segments(&mut stack) } else { std::mem::take(&mut retry) };
        if writes.is_empty() {
            return Ok(all_withheld);
        }
        let mut durable = Durable::new(queue);
        let round = attempt(queue, &mut durable, writes).await;
        status.attempted(round.failed);
        queue.shared.sink.compact(round.grown).await;
        retry = round.retry;
        let mut withheld = round.withheld;
        let examined = examine(queue, &mut durable, round.held_back, &mut retry, &mut withheld).await;
        // Before any later event of the same entities.
        durable.refresh().await?;
        stack.extend(refold(queue, examined.applied_in_part, &examined.recorded).await?);
        withheld.extend(isolate(queue, status, examined.refused).await?);
        if !withheld.is_empty() {
            stack.iter_mut().rev().for_each(|pending| pending.give_way(&mut withheld));
            all_withheld.append(&mut withheld);
        }
        if round.failed || examined.raced {
            attempts.pause().await;
        } else {
            attempts.succeeded();
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
    held_back: Vec<(Write, Option<Refusal>)>,
    withheld: Vec<Withheld>,
    retry: Vec<Write>,
    failed: bool,
}

async fn attempt(queue: &Owned, durable: &mut Durable<'_>, writes: Vec<Write>) -> Round {
    let verdicts = queue.write(&writes, false).await;
    let mut round = Round::default();
    let mut failure = None;
    for (mut write, verdict) in writes.into_iter().zip(verdicts) {
        match verdict {
            Verdict::Applied => {
                round.grown.extend(queue.shared.sink.grown(&write));
                durable.persisted(write);
            }
            Verdict::Conflict => round.held_back.push((write, None)),
            Verdict::Refused(refusal) => {
                let refusal = write.refused(refusal);
                round.held_back.push((write, Some(refusal)));
            }
            Verdict::Untried => round.retry.push(write),
            Verdict::Failed(error) => {
                failure = Some(error);
                round.retry.push(write);
            }
            Verdict::Held(error) => match condemned(queue, &write, &error) {
                Some(refusal) => round.held_back.push((write, Some(refusal))),
                None => round.withheld.push(withhold(queue, write, error)),
            },
        }
    }
    if let Some(error) = failure {
        round.failed = true;
        queue.shared.metrics.retried_mongodb(error.class());
        tracing::debug!(%error, writes = round.retry.len(), "writes are to be tried again");
    }
    round
}

/// A write that MongoDB refuses for something else than its content: it waits with its document.
pub(super) fn withhold(queue: &Owned, write: Write, error: SinkError) -> Withheld {
    queue.shared.metrics.retried_mongodb(error.class());
    let collection = shared_name(&queue.mapping.collections, write.entity.get().collection);
    Withheld::new(write, error, collection)
}

/// Whether a document has waited long enough for a code that nobody knows: MongoDB will never take the write then. But where it
/// takes nothing else either, it is MongoDB that is in trouble.
pub(super) fn condemned(queue: &Owned, write: &Write, error: &SinkError) -> Option<Refusal> {
    let since = write.refused_since?;
    let patience = queue.shared.config.dead_letter.patience.limit()?;
    let others_pass = || {
        let collection = write.entity.get().collection;
        queue.status.held_back_documents() <= 1 || queue.shared.sink.has_written_since(collection, since)
    };
    let is_over = error.is_unknown() && since.elapsed() >= patience && others_pass();
    is_over.then(|| Refusal { rejection: error.rejection(), is_certain: true })
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

/// Reads the watermarks of what was held back, and does what the writes' fates ask for.
async fn examine(
    queue: &Owned,
    durable: &mut Durable<'_>,
    held_back: Vec<(Write, Option<Refusal>)>,
    retry: &mut Vec<Write>,
    withheld: &mut Vec<Withheld>,
) -> Examined {
    let mut examined = Examined::default();
    if held_back.is_empty() {
        return examined;
    }
    let writes: Vec<_> = held_back.iter().map(|(write, _)| write).collect();
    let (found, recorded) = match look(queue, &writes).await {
        Ok(found) => found,
        Err(error) if error.is_refusal() => {
            withheld.extend(held_back.into_iter().map(|(write, _)| withhold(queue, write, error.clone())));
            return examined;
        }
        Err(error) => {
            queue.shared.metrics.retried_mongodb(error.class());
            retry.extend(held_back.into_iter().map(|(write, _)| write));
            examined.raced = true;
            return examined;
        }
    };
    for ((write, refusal), found) in held_back.into_iter().zip(found) {
        let segment = &write.segment;
        let has_dead = recorded.range(segment.first..=segment.last).next().is_some();
        match resolve(segment, found, refusal.as_ref(), has_dead) {
            Resolution::Applied => durable.persisted(write),
            Resolution::AppliedBefore => durable.found(write),
            Resolution::InPart(w) => {
                durable.in_part(&write.entity);
                examined.applied_in_part.push(Doubt::applied_to(write, w));
            }
            Resolution::Refused(rejection) => examined.refused.push(Doubt::refused(write, rejection)),
            Resolution::Again => {
                examined.raced = true;
                retry.push(write);
            }
        }
    }
    examined.recorded = recorded;
    examined
}

/// What is known of the documents, and the dead letters on record among the events, of writes that were held back.
pub(super) async fn look(
    queue: &Owned,
    writes: &[&Write],
) -> Result<(Vec<FoundWatermark>, BTreeMap<i64, Rejection>), SinkError> {
    let found = proof::watermarks(queue, writes).await?;
    let applied = writes.iter().zip(&found).filter(|(write, found)| match found {
        FoundWatermark::Watermark(w) => *w >= write.segment.guard(),
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

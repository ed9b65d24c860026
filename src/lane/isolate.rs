//! Applies the events of a segment one by one. They are not committed, so the queue still has them.
//!
//! Two findings need it. A document whose watermark lies within a segment had the first part of it
//! applied: the rest is folded anew. And a segment that MongoDB refuses has a guilty event somewhere: its
//! events are applied one at a time, the guilty become dead letters, the innocent are applied.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use tokio::time::Instant;

use super::durable::Durable;
use super::pending::Pending;
use super::quarantine::Withheld;
use super::reread::{Reread, Span};
use super::resolve::{Resolution, resolve};
use super::settle::{condemned, look, withhold};
use crate::change::EntityRef;
use crate::coalesce::PendingUpdate;
use crate::dead_letter::{Dead, Rejection};
use crate::ledger::Outcome;
use crate::ownership::Owned;
use crate::sink::Write;
use crate::sink::{Refusal, SinkError, Verdict};
use crate::source::SourceError;
use crate::status::LaneStatus;
use crate::trace::Traceparent;

/// A write whose events must be looked at one by one.
#[derive(Debug)]
pub(super) struct Doubt {
    write: Write,
    /// Its events up to this offset were applied, but for those that are dead letters on record.
    applied_to: Option<i64>,
    /// Why MongoDB refused it.
    rejection: Option<Rejection>,
}

impl Doubt {
    pub(super) fn applied_to(write: Write, watermark: i64) -> Self {
        Doubt { write, applied_to: Some(watermark), rejection: None }
    }

    pub(super) fn refused(write: Write, rejection: Rejection) -> Self {
        Doubt { write, applied_to: None, rejection: Some(rejection) }
    }

    /// The writes of single events, with their events.
    fn singles(
        &mut self,
        singles: Vec<(PendingUpdate, Vec<u8>)>,
    ) -> Result<(Vec<Write>, VecDeque<Vec<u8>>), SourceError> {
        let (mut writes, mut events) = (Vec::new(), VecDeque::new());
        for (mut update, event) in singles {
            let Some(segment) = update.take_first() else { continue };
            if self.write.unsettled.events() == 0 {
                return Err(SourceError::ForeignPop);
            }
            let unsettled = self.write.unsettled.split(1);
            let Write { entity, hash, refused_since, .. } = &self.write;
            writes.push(Write::new(entity.clone(), *hash, segment, unsettled, *refused_since));
            events.push_back(event);
        }
        Ok((writes, events))
    }
}

impl Span for Doubt {
    fn hash(&self) -> u64 {
        self.write.hash
    }

    fn entity(&self) -> EntityRef<'_> {
        self.write.entity.get()
    }

    fn offsets(&self) -> RangeInclusive<i64> {
        self.write.segment.first..=self.write.segment.last
    }
}

/// Settles what was applied of each doubt, and folds the rest anew. What is on record as dead, and Redis has
/// forgotten, is buried again.
pub(super) async fn refold(
    queue: &Owned,
    doubts: Vec<Doubt>,
    recorded: &BTreeMap<i64, Rejection>,
) -> Result<Option<Pending>, SourceError> {
    if doubts.is_empty() {
        return Ok(None);
    }
    let mut again = Pending::new(&queue.ledger);
    let now = Instant::now();
    let max_bytes = queue.shared.live.policy().max_bytes;
    let (mut rest, mut seen) = (vec![0_u64; doubts.len()], vec![0_u64; doubts.len()]);
    let mut dead: Vec<Vec<&Rejection>> = doubts.iter().map(|_| Vec::new()).collect();
    let mut reread = Reread::new(queue, &doubts);
    while let Some(window) = reread.window().await? {
        let mut letters: Vec<(Vec<u8>, Dead<'_>)> = Vec::new();
        reread.changes(&window, &doubts, |at, placed, event| {
            seen[at] += 1;
            if doubts[at].applied_to.is_none_or(|applied| placed.offset > applied) {
                again.fold(placed, now, max_bytes);
                rest[at] += 1;
            } else if let Some(rejection) = recorded.get(&placed.offset) {
                let traceparent = placed.change.traceparent.map(Traceparent::from);
                let entity = Some(doubts[at].write.entity.get());
                let letter = Dead { offset: placed.offset, event: &[], rejection, traceparent, entity };
                letters.push((event.to_vec(), letter));
                dead[at].push(rejection);
            }
        });
        let letters: Vec<_> = letters.iter().map(|(event, letter)| Dead { event, ..*letter }).collect();
        if !letters.is_empty() {
            queue.bury(&letters).await?;
        }
    }
    for (((doubt, rest), seen), dead) in doubts.into_iter().zip(rest).zip(seen).zip(dead) {
        let mut unsettled = doubt.write.unsettled;
        if seen != unsettled.events() {
            // More or fewer than were there when they were folded: these are not the same elements.
            return Err(SourceError::ForeignPop);
        }
        dead.iter().for_each(|rejection| unsettled.split(1).settle(Outcome::Dead(rejection.reason)));
        again.take_on(unsettled.split(rest));
        if let (Some(applied), events @ 1..) = (doubt.applied_to, unsettled.events()) {
            let Write { entity, segment, .. } = doubt.write;
            queue.tell_durable(entity, applied.min(segment.last), events, None);
        }
        unsettled.settle(Outcome::Deduplicated);
    }
    Ok(Some(again))
}

/// Applies the events of each doubt one at a time. What MongoDB refuses for something else than its content is answered, with
/// all that comes behind it.
pub(super) async fn isolate(
    queue: &Owned,
    status: &LaneStatus,
    mut doubts: Vec<Doubt>,
) -> Result<Vec<Withheld>, SourceError> {
    if doubts.is_empty() {
        return Ok(Vec::new());
    }
    let mut withheld: Vec<Option<Withheld>> = doubts.iter().map(|_| None).collect();
    let mut reread = Reread::new(queue, &doubts);
    while let Some(window) = reread.window().await? {
        let mut found: Vec<Vec<(PendingUpdate, Vec<u8>)>> = doubts.iter().map(|_| Vec::new()).collect();
        reread.changes(&window, &doubts, |at, placed, event| {
            found[at].push((PendingUpdate::new(placed), event.to_vec()));
        });
        for ((doubt, singles), withheld) in doubts.iter_mut().zip(found).zip(&mut withheld) {
            let (writes, events) = doubt.singles(singles)?;
            match withheld {
                Some(withheld) => writes.into_iter().for_each(|write| withheld.add(write)),
                None => *withheld = one_by_one(queue, status, doubt, writes, events).await?,
            }
        }
    }
    if doubts.iter().any(|doubt| doubt.write.unsettled.events() > 0) {
        // Some of them are gone.
        return Err(SourceError::ForeignPop);
    }
    Ok(withheld.into_iter().flatten().collect())
}

/// Applies single events of one entity in order, each under its own watermark. A refused one is recorded
/// as a dead letter before any later one is written: its watermark would hide it from a next owner.
async fn one_by_one(
    queue: &Owned,
    status: &LaneStatus,
    doubt: &mut Doubt,
    mut writes: Vec<Write>,
    mut events: VecDeque<Vec<u8>>,
) -> Result<Option<Withheld>, SourceError> {
    let alone = doubt.write.segment.events == 1;
    let (mut attempts, mut durable) = (queue.shared.health.mongodb.attempts(), Durable::new(queue));
    while let Some(first) = writes.first() {
        let kind = std::mem::discriminant(&first.segment.update);
        let run = writes.iter().take_while(|w| std::mem::discriminant(&w.segment.update) == kind).count();
        let (verdicts, examined) = match doubt.rejection.take_if(|_| alone) {
            // The segment was this event: MongoDB has spoken.
            Some(rejection) => (vec![Verdict::Refused(Refusal { rejection, is_certain: true })], true),
            None => (queue.write(&writes[..run], true).await, false),
        };
        let (mut failed, mut stuck) = (false, None);
        for verdict in verdicts {
            let mut judged = match verdict {
                Verdict::Untried => break,
                Verdict::Refused(refusal) if examined => Judged::Refused(refusal.rejection),
                verdict => judge(queue, &mut writes[0], verdict).await,
            };
            if let Judged::Refused(rejection) = &judged
                && let Err(error) = record(queue, &writes[0], rejection).await
            {
                judged = Judged::Waits(error);
            }
            match judged {
                Judged::Applied => durable.persisted(writes.remove(0)),
                Judged::AppliedBefore => durable.found(writes.remove(0)),
                Judged::Refused(rejection) => bury(queue, &events, writes.remove(0), &rejection).await?,
                Judged::Again => stuck = Some(None),
                Judged::Waits(error) => {
                    queue.shared.metrics.retried_mongodb(error.class());
                    failed = true;
                    stuck = Some(Some(error).filter(SinkError::is_refusal));
                }
            }
            if stuck.is_some() {
                break;
            }
            events.pop_front();
        }
        durable.refresh().await?;
        status.attempted(failed);
        match stuck {
            None => {}
            Some(None) => attempts.pause().await,
            Some(Some(error)) => {
                let mut withheld = withhold(queue, writes.remove(0), error);
                writes.into_iter().for_each(|write| withheld.add(write));
                return Ok(Some(withheld));
            }
        }
    }
    Ok(None)
}

/// What became of a write of one event.
enum Judged {
    Applied,
    AppliedBefore,
    /// It is a dead letter, or is one on record already.
    Refused(Rejection),
    /// It met a race.
    Again,
    /// MongoDB does not answer, or refuses for something else than the content.
    Waits(SinkError),
}

/// Judges a write of one event by what MongoDB said of it.
async fn judge(queue: &Owned, write: &mut Write, verdict: Verdict) -> Judged {
    let refusal = match verdict {
        Verdict::Applied => return Judged::Applied,
        Verdict::Failed(error) => return Judged::Waits(error),
        Verdict::Held(error) => match condemned(queue, write, &error) {
            Some(refusal) => Some(refusal),
            None => return Judged::Waits(error),
        },
        Verdict::Refused(refusal) => Some(write.refused(refusal)),
        Verdict::Conflict | Verdict::Untried => None,
    };
    let (found, mut recorded) = match look(queue, &[write]).await {
        Ok(looked) => looked,
        Err(error) => return Judged::Waits(error),
    };
    let Some(found) = found.first() else { return Judged::Again };
    let offset = write.segment.first;
    match resolve(&write.segment, *found, refusal.as_ref(), recorded.contains_key(&offset)) {
        Resolution::Applied => Judged::Applied,
        Resolution::AppliedBefore => Judged::AppliedBefore,
        Resolution::Refused(rejection) => Judged::Refused(rejection),
        // Of one event that is: it was refused before, and Redis has forgotten it.
        Resolution::InPart(_) => recorded.remove(&offset).map_or(Judged::AppliedBefore, Judged::Refused),
        Resolution::Again => Judged::Again,
    }
}

/// Puts on record in MongoDB that a write of one event is a dead letter, where a watermark could hide it.
async fn record(queue: &Owned, write: &Write, rejection: &Rejection) -> Result<(), SinkError> {
    if queue.guard.is_none() {
        return Ok(());
    }
    let (offset, traceparent) = (write.segment.first, write.segment.traces.latest());
    let dead = Dead { offset, event: &[], rejection, traceparent, entity: None };
    queue.shared.sink.record_dead(&queue.id, &dead).await
}

/// Makes a write of one event, the first of `events`, a dead letter.
async fn bury(
    queue: &Owned,
    events: &VecDeque<Vec<u8>>,
    write: Write,
    rejection: &Rejection,
) -> Result<(), SourceError> {
    let event = events.front().map(Vec::as_slice).unwrap_or_default();
    let offset = write.segment.first;
    let (traceparent, entity) = (write.segment.traces.latest(), Some(write.entity.get()));
    queue.bury(&[Dead { offset, event, rejection, traceparent, entity }]).await?;
    write.unsettled.settle(Outcome::Dead(rejection.reason));
    Ok(())
}

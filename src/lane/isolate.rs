//! Going back to single events: they are not committed, so the queue still has them.
//!
//! Two findings need it. A document whose watermark lies within a segment had the first part of it
//! applied: the rest is folded anew. And a segment that MongoDB refuses has a guilty event somewhere: its
//! events are applied one at a time, the guilty become dead letters, the innocent are applied.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashTable;
use tokio::time::Instant;

use super::durable::Durable;
use super::pending::Pending;
use crate::backoff::Backoff;
use crate::change::Placed;
use crate::coalesce::{PendingUpdate, Update};
use crate::dead_letter::{Dead, Reason, Rejection};
use crate::event::Decoder;
use crate::queue::{Owned, WindowSize};
use crate::settle::Outcome;
use crate::sink::{Found, Verdict};
use crate::source::{SourceError, Window};
use crate::status::LaneStatus;
use crate::trace::Traceparent;
use crate::write::Write;

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

    fn covers(&self, placed: &Placed<'_>) -> bool {
        let segment = &self.write.segment;
        (segment.first..=segment.last).contains(&placed.offset)
            && self.write.hash == placed.hash
            && self.write.entity.get() == placed.change.entity
    }
}

/// The events of doubts, read again window by window.
struct Reread<'q> {
    queue: &'q Owned,
    by_entity: HashTable<usize>,
    decoder: Decoder,
    size: WindowSize,
    cursor: i64,
    last: i64,
}

impl<'q> Reread<'q> {
    fn new(queue: &'q Owned, doubts: &[Doubt]) -> Self {
        let mut by_entity = HashTable::with_capacity(doubts.len());
        for (at, doubt) in doubts.iter().enumerate() {
            by_entity.insert_unique(doubt.write.hash, at, |at| doubts[*at].write.hash);
        }
        let segments = || doubts.iter().map(|doubt| &doubt.write.segment);
        Reread {
            queue,
            by_entity,
            // They mean what they meant when they were folded.
            decoder: queue.mapping.decoder(),
            size: WindowSize::default(),
            cursor: segments().map(|segment| segment.first).min().unwrap_or(0),
            last: segments().map(|segment| segment.last).max().unwrap_or(-1),
        }
    }

    /// The next window; None behind the last event of any doubt.
    async fn window(&mut self) -> Result<Option<Window>, SourceError> {
        if self.cursor > self.last {
            return Ok(None);
        }
        // They are not committed, so they are there.
        let rest = self.cursor..self.last.saturating_add(1);
        let window = self.queue.source.reread(rest, self.size.events()).await?;
        if window.is_empty() {
            return Err(SourceError::ForeignPop);
        }
        self.size.saw(&window);
        self.cursor = window.end();
        Ok(Some(window))
    }

    /// Hands over each change of the window that belongs to a doubt, with the doubt's place.
    fn changes(
        &mut self,
        window: &Window,
        doubts: &[Doubt],
        mut change: impl FnMut(usize, &Placed<'_>, &[u8]),
    ) {
        let buried = self.queue.buried.lock();
        for (offset, event) in window.iter() {
            // Events that were refused before, then or by a former owner, are settled.
            if buried.contains(&offset) {
                continue;
            }
            let Ok(decoded) = self.decoder.decode(event) else { continue };
            let hash = decoded.entity.hash(&self.queue.shared.seed);
            let placed = Placed { offset, hash, change: decoded };
            if let Some(at) = self.by_entity.find(hash, |at| doubts[*at].covers(&placed)) {
                change(*at, &placed, event);
            }
        }
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

/// Applies the events of each doubt one at a time.
pub(super) async fn isolate(
    queue: &Owned,
    status: &LaneStatus,
    mut doubts: Vec<Doubt>,
) -> Result<(), SourceError> {
    if doubts.is_empty() {
        return Ok(());
    }
    let mut reread = Reread::new(queue, &doubts);
    while let Some(window) = reread.window().await? {
        let mut found: Vec<Vec<(PendingUpdate, Vec<u8>)>> = doubts.iter().map(|_| Vec::new()).collect();
        reread.changes(&window, &doubts, |at, placed, event| {
            found[at].push((PendingUpdate::new(placed), event.to_vec()));
        });
        for (doubt, singles) in doubts.iter_mut().zip(found) {
            one_by_one(queue, status, doubt, singles).await?;
        }
    }
    if doubts.iter().any(|doubt| doubt.write.unsettled.events() > 0) {
        // Some of them are gone.
        return Err(SourceError::ForeignPop);
    }
    Ok(())
}

/// Applies single events of one entity in order, each under its own watermark. A refused one is recorded
/// as a dead letter before any later one is written: its watermark would hide it from a next owner.
async fn one_by_one(
    queue: &Owned,
    status: &LaneStatus,
    doubt: &mut Doubt,
    singles: Vec<(PendingUpdate, Vec<u8>)>,
) -> Result<(), SourceError> {
    let alone = doubt.write.segment.events == 1;
    let (mut writes, mut events) = (Vec::new(), VecDeque::new());
    for (mut update, event) in singles {
        let Some(segment) = update.take_first() else { continue };
        if doubt.write.unsettled.events() == 0 {
            return Err(SourceError::ForeignPop);
        }
        let Write { ref entity, hash, .. } = doubt.write;
        let unsettled = doubt.write.unsettled.split(1);
        writes.push(Write { entity: entity.clone(), hash, segment, unsettled });
        events.push_back(event);
    }
    let (mut backoff, mut durable) = (Backoff::default(), Durable::new(queue));
    while let Some(first) = writes.first() {
        let kind = std::mem::discriminant(&first.segment.update);
        let run = writes.iter().take_while(|w| std::mem::discriminant(&w.segment.update) == kind).count();
        let (verdicts, examined) = match doubt.rejection.take_if(|_| alone) {
            // The segment was this event: MongoDB has spoken.
            Some(rejection) => (vec![Verdict::Refused(rejection)], true),
            None => (queue.shared.sink.write(&writes[..run], queue.guard.as_ref(), true).await, false),
        };
        let mut stuck = false;
        let mut failed = false;
        for verdict in verdicts {
            let fate = match verdict {
                Verdict::Applied => Fate::Applied,
                Verdict::Refused(rejection) if examined => Fate::Refused(rejection),
                Verdict::Refused(rejection) => look(queue, &writes[0], Some(rejection)).await,
                Verdict::Conflict => look(queue, &writes[0], None).await,
                Verdict::Failed(error) => {
                    queue.shared.metrics.retried_mongodb(error.class());
                    failed = true;
                    Fate::Unknown
                }
                Verdict::Untried => break,
            };
            match fate {
                Fate::Applied => durable.persisted(writes.remove(0)),
                Fate::AppliedBefore => durable.found(writes.remove(0)),
                Fate::Refused(rejection) => bury(queue, &events, writes.remove(0), &rejection).await?,
                Fate::Unknown => stuck = true,
            }
            if stuck {
                break;
            }
            events.pop_front();
        }
        durable.refresh().await?;
        status.attempted(failed);
        if stuck {
            queue.shared.status.mongodb.back_or(backoff.wait()).await;
        }
    }
    Ok(())
}

/// What became of a write of one event.
enum Fate {
    Applied,
    AppliedBefore,
    Refused(Rejection),
    /// It is to be tried again.
    Unknown,
}

/// What became of a write of one event that was held back, or refused for that reason: as `examine` in
/// `settling` has it.
async fn look(queue: &Owned, write: &Write, rejection: Option<Rejection>) -> Fate {
    let Ok(found) = queue.shared.sink.watermarks(&[write], queue.guard.as_ref()).await else {
        return Fate::Unknown;
    };
    match (found.first(), rejection) {
        (Some(Found::Watermark(w)), _) if *w >= write.segment.last => Fate::AppliedBefore,
        (_, Some(rejection)) => Fate::Refused(rejection),
        (Some(Found::Nothing), None) if matches!(write.segment.update, Update::Delete) => Fate::Applied,
        (Some(Found::Taken), None) => Fate::Refused(id_taken()),
        _ => Fate::Unknown,
    }
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
    let dead = Dead { offset, event, rejection, traceparent, entity };
    if queue.guard.is_some() {
        let mut backoff = Backoff::default();
        while let Err(error) = queue.shared.sink.record_dead(&queue.id, &dead).await {
            queue.shared.metrics.retried_mongodb(error.class());
            queue.shared.status.mongodb.back_or(backoff.wait()).await;
        }
    }
    queue.bury(&[dead]).await?;
    write.unsettled.settle(Outcome::Dead(rejection.reason));
    Ok(())
}

/// Why an entity can have no document: MongoDB said no more than that the `_id` is there.
pub(super) fn id_taken() -> Rejection {
    let text = "the _id is that of a document with another shard key".to_owned();
    Rejection { reason: Reason::UniqueIndex, text, code: Some(11000) }
}

//! Folds the changes of one entity into as few writes as leave the same document.
//!
//! The pending update of an entity is a list of segments, nearly always one. Segments are written one after another.
//!
//! A change is folded into the last segment if no document can tell the difference. The folded write must leave the
//! document that the two writes would have left one after the other. MongoDB must refuse it where it would have refused
//! one of the two. Otherwise the change opens a new segment.
//!
//! A later change may supersede an earlier one: a set over an increment, a deletion over anything. It takes the earlier
//! one's place only if no document could have made MongoDB refuse the earlier one. A refusal is a dead letter, and must
//! not vanish.

#[cfg(test)]
mod broken_rules;
mod by_path;
mod constant;
mod elements;
mod field_update;
mod fields;
mod merge;
mod number;
mod pipeline;

#[cfg(test)]
pub(crate) use broken_rules::{Wrong, with_wrong_rule};
pub(crate) use constant::Constant;
pub(crate) use elements::ArrayElements;
pub(crate) use field_update::FieldUpdate;
pub(crate) use fields::Fields;
pub(crate) use merge::merge_bytes;
pub(crate) use merge::{Merge, Merged};
pub(crate) use number::zero;
pub(crate) use pipeline::{can_be_piped, step_bytes};

use std::collections::VecDeque;

use crate::change::MAX_UPDATE;
use crate::change::{Effect, Placed};
use crate::trace::Traces;

/// One write: what the events of an entity from `first` to `last` fold to.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Offset of the first event covered.
    pub(crate) first: i64,
    /// Offset of the last event covered; the watermark once written.
    pub(crate) last: i64,
    /// Number of events covered.
    pub(crate) events: u64,
    /// The earliest time that the events covered give, milliseconds since the Unix epoch.
    pub(crate) ts: Option<i64>,
    /// The traces that the events covered belong to.
    pub(crate) traces: Traces,
    /// What to write.
    pub(crate) update: Update,
    /// Nothing can be folded in any more: it may have been applied, or has to stay as it is.
    pub(crate) is_closed: bool,
}

/// What a segment writes.
#[derive(Debug)]
pub(crate) enum Update {
    /// Operations on fields.
    Fields(Fields),
    /// The whole document, an object.
    Replace(Constant),
    /// Nothing: the document goes.
    Delete,
}

impl Update {
    /// Whether MongoDB takes it whatever fields the document has.
    fn is_infallible(&self) -> bool {
        match self {
            Update::Fields(fields) => fields.are_infallible(),
            Update::Replace(_) | Update::Delete => true,
        }
    }
}

impl Segment {
    fn new(placed: &Placed<'_>) -> Self {
        let update = match placed.change.effect {
            Effect::Update(ops) => {
                let mut fields = Fields::default();
                ops.for_each(|op| fields.add(op));
                Update::Fields(fields)
            }
            Effect::Replace(document) => Update::Replace(Constant::document(document)),
            Effect::Delete => Update::Delete,
        };
        let Placed { offset, change, .. } = placed;
        let mut traces = Traces::default();
        traces.add(change.traceparent);
        Segment { first: *offset, last: *offset, events: 1, ts: change.ts, traces, update, is_closed: false }
    }

    /// The offset from which the document's watermark forbids this write.
    ///
    /// Field operations must not be applied if any of their events was applied already. A replacement or deletion makes
    /// the same of every document. So it is too late only if its last event was applied.
    #[must_use]
    pub(crate) fn guard(&self) -> i64 {
        match self.update {
            Update::Fields(_) => self.first,
            Update::Replace(_) | Update::Delete => self.last,
        }
    }

    /// Bytes, about as many as the write takes.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        match &self.update {
            Update::Fields(fields) => fields.bytes(),
            Update::Replace(document) => document.bytes(),
            Update::Delete => 0,
        }
    }

    /// Bytes that are held in memory.
    fn held(&self) -> usize {
        self.bytes() + self.traces.bytes()
    }

    /// Covers one more event; what it writes is the caller's to fold.
    fn cover(&mut self, placed: &Placed<'_>) {
        self.last = placed.offset;
        self.events += 1;
        self.ts = match (self.ts, placed.change.ts) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.traces.add(placed.change.traceparent);
    }

    /// Folds a change in, if MongoDB could not tell the difference.
    fn fold(&mut self, placed: &Placed<'_>, max_bytes: usize) -> bool {
        if self.is_closed {
            return false;
        }
        let effect = placed.change.effect;
        // More than one update can hold would be refused.
        let most = max_bytes.min(MAX_UPDATE);
        if self.bytes() + effect.len() > most && matches!(effect, Effect::Update(_)) {
            return false;
        }
        match (&mut self.update, effect) {
            (Update::Fields(fields), Effect::Update(ops)) => {
                if !fields.fold(ops) {
                    return false;
                }
            }
            (Update::Replace(document), Effect::Update(ops)) => {
                if !ops.clone().all(|op| document.accepts(op.path, op)) {
                    return false;
                }
                ops.for_each(|op| document.apply(op.path, op, false));
            }
            // The update would make the document anew.
            (Update::Delete, Effect::Update(ops)) => {
                let mut document = Constant::empty();
                if !ops.clone().all(|op| document.accepts(op.path, op)) {
                    return false;
                }
                ops.for_each(|op| document.apply(op.path, op, true));
                self.update = Update::Replace(document);
            }
            (update, Effect::Replace(_) | Effect::Delete) if !update.is_infallible() => return false,
            (_, Effect::Replace(document)) => self.update = Update::Replace(Constant::document(document)),
            (_, Effect::Delete) => self.update = Update::Delete,
        }
        self.cover(placed);
        true
    }
}

/// The pending update of one entity.
#[derive(Debug)]
pub(crate) struct PendingUpdate {
    first: Option<Segment>,
    /// Mostly none, which takes no allocation.
    rest: VecDeque<Segment>,
    bytes: usize,
}

/// What became of a folded change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folded {
    /// It costs no write of its own.
    In,
    /// It opened a segment.
    Opened,
}

impl PendingUpdate {
    /// Nothing is pending.
    #[must_use]
    pub(crate) fn none() -> Self {
        PendingUpdate { first: None, rest: VecDeque::new(), bytes: 0 }
    }

    /// The pending update that one change makes.
    #[must_use]
    pub(crate) fn new(placed: &Placed<'_>) -> Self {
        let segment = Segment::new(placed);
        PendingUpdate { bytes: segment.held(), first: Some(segment), rest: VecDeque::new() }
    }

    /// Folds a change in. Updates of more than `max_bytes` are split rather than grown.
    pub(crate) fn fold(&mut self, placed: &Placed<'_>, max_bytes: usize) -> Folded {
        let Some(last) = self.rest.back_mut().or(self.first.as_mut()) else {
            *self = PendingUpdate::new(placed);
            return Folded::Opened;
        };
        let before = last.held();
        if last.fold(placed, max_bytes) {
            self.bytes = self.bytes - before + last.held();
            return Folded::In;
        }
        let segment = Segment::new(placed);
        self.bytes += segment.held();
        self.rest.push_back(segment);
        Folded::Opened
    }

    /// Takes the first segment to write it. The rest, if any, must wait until it is written.
    pub(crate) fn take_first(&mut self) -> Option<Segment> {
        let mut segment = self.first.take()?;
        self.first = self.rest.pop_front();
        self.bytes -= segment.held();
        segment.is_closed = true;
        if let Update::Fields(fields) = &mut segment.update {
            fields.seal();
        }
        Some(segment)
    }

    /// Puts segments back in front of what was folded since.
    pub(crate) fn put_back(&mut self, segments: impl DoubleEndedIterator<Item = Segment>) {
        for segment in segments.rev() {
            self.bytes += segment.held();
            if let Some(second) = self.first.replace(segment) {
                self.rest.push_front(second);
            }
        }
    }

    /// Splits off what comes behind `offset`.
    #[must_use]
    pub(crate) fn split_off_behind(&mut self, offset: i64) -> Self {
        let segments: Vec<Segment> = std::mem::replace(self, PendingUpdate::none()).into_segments().into();
        let (before, behind): (Vec<_>, Vec<_>) =
            segments.into_iter().partition(|segment| segment.first <= offset);
        let mut rest = PendingUpdate::none();
        self.put_back(before.into_iter());
        rest.put_back(behind.into_iter());
        rest
    }

    /// Closes all segments: what is folded in from now on opens another.
    pub(crate) fn close(&mut self) {
        self.first.iter_mut().chain(&mut self.rest).for_each(|segment| segment.is_closed = true);
    }

    /// The offset of the first event behind `offset`.
    #[must_use]
    pub(crate) fn first_behind(&self, offset: i64) -> Option<i64> {
        self.first.iter().chain(&self.rest).map(|segment| segment.first).find(|first| *first > offset)
    }

    /// The offset of the last event covered.
    #[must_use]
    pub(crate) fn last(&self) -> Option<i64> {
        self.rest.back().or(self.first.as_ref()).map(|segment| segment.last)
    }

    /// All segments, in the order in which they must be written.
    #[must_use]
    pub(crate) fn into_segments(self) -> VecDeque<Segment> {
        self.first.into_iter().chain(self.rest).collect()
    }

    /// The offset of the first event covered.
    #[must_use]
    pub(crate) fn first(&self) -> Option<i64> {
        self.first.as_ref().map(|segment| segment.first)
    }

    /// The earliest time that the events covered by the first segment give.
    #[must_use]
    pub(crate) fn ts(&self) -> Option<i64> {
        self.first.as_ref().and_then(|segment| segment.ts)
    }

    /// Number of events covered.
    #[must_use]
    pub(crate) fn events(&self) -> u64 {
        self.first.iter().chain(&self.rest).map(|segment| segment.events).sum()
    }

    /// Bytes pending.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod docs_tests;
#[cfg(test)]
mod tests;

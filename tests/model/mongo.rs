//! Models MongoDB: documents with watermarks, statements with guards, and the epoch.

use crate::state::{ENTITIES, INDEX_BITS, Plan, Segment, Set, Update, bit, members};
use crate::variants::{Deletes, Variant};

/// The database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Mongo {
    /// The queue's last epoch.
    pub(crate) epoch: u8,
    /// The epoch of the latest ownership.
    pub(crate) owner: u8,
    /// Documents that exist.
    exists: [bool; ENTITIES],
    /// Their watermarks; 0 is none.
    watermarks: [u8; ENTITIES],
    /// Events whose effect the documents show.
    pub(crate) shown: Set,
    /// Those of them whose effect they show more than once.
    pub(crate) twice: Set,
    /// Events ever applied.
    pub(crate) ever: Set,
    /// Dead letters recorded here; none, as the code has it.
    pub(crate) dead: Set,
}

/// The watermark of a document that was restored from elsewhere.
pub(crate) const FOREIGN: u8 = 5 << INDEX_BITS | 2;

/// What MongoDB says of a statement: `sink::Verdict`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Applied,
    /// E11000 on `_id`, or a deletion that found nothing.
    Conflict,
    /// A data error.
    Refused,
}

/// How statements behave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) variant: Variant,
    pub(crate) deletes: Deletes,
    /// Redis lost something, or a foreign client popped: events may come again, behind later ones.
    pub(crate) repeats: bool,
}

impl Rules<'_> {
    /// `Segment::guard`
    pub(crate) fn guard(&self, segment: &Segment) -> u8 {
        if segment.is_final() || self.variant == Variant::GuardOnLast { segment.last } else { segment.first }
    }

    /// Whether a statement removes a document, watermark and all.
    pub(crate) fn removes(&self, segment: &Segment) -> bool {
        segment.update == Update::Delete && self.deletes == Deletes::Hard
    }
}

impl Mongo {
    /// A database that has forgotten its epochs, or never had them, with a document from elsewhere.
    pub(crate) fn restored() -> Self {
        let mut mongo = Mongo::default();
        (mongo.exists[0], mongo.watermarks[0]) = (true, FOREIGN);
        mongo
    }

    /// Whether the restored document still has its watermark.
    pub(crate) fn is_foreign(&self) -> bool {
        self.watermarks[0] == FOREIGN
    }

    /// `Sink::claim`
    pub(crate) fn claim(&mut self, epoch: u8) -> bool {
        let is_latest = self.owner <= epoch;
        if is_latest {
            self.owner = epoch;
        }
        is_latest
    }

    /// `Sink::confirm`
    pub(crate) fn confirm(&mut self, epoch: u8, above: u8) -> bool {
        let is_latest = self.owner == epoch;
        if is_latest {
            self.epoch = self.epoch.max(above);
        }
        is_latest
    }

    /// A document's watermark, as the sink reads it: None where there is no document.
    pub(crate) fn watermark(&self, entity: usize) -> Option<u8> {
        self.exists[entity].then(|| self.watermarks[entity])
    }

    /// Whether the guard keeps a statement from its document.
    pub(crate) fn is_held_back(&self, segment: &Segment, rules: &Rules<'_>) -> bool {
        let watermark = self.watermark(segment.entity);
        if segment.replaces > 0 && rules.variant != Variant::UnprovenUncompared {
            return watermark != Some(segment.replaces);
        }
        segment.replaces == 0 && watermark.is_some_and(|w| w >= rules.guard(segment))
    }

    /// Executes a statement. Answers what becomes of it, and whether the order of events was broken.
    pub(crate) fn execute(&mut self, segment: &Segment, rules: &Rules<'_>) -> (Verdict, bool) {
        let entity = segment.entity;
        if self.is_held_back(segment, rules) || (rules.removes(segment) && !self.exists[entity]) {
            return (Verdict::Conflict, false);
        }
        if segment.events & rules.plan.bad != 0 {
            return (Verdict::Refused, false);
        }
        let disorder = self.show(segment, rules);
        self.exists[entity] = !rules.removes(segment);
        self.watermarks[entity] = if self.exists[entity] { segment.last } else { 0 };
        (Verdict::Applied, disorder)
    }

    /// Lets a document show a segment's events. Answers whether one came behind a later one.
    fn show(&mut self, segment: &Segment, rules: &Rules<'_>) -> bool {
        let of = rules.plan.of[segment.entity];
        let mut disorder = false;
        for id in members(segment.events) {
            let later = of & !(bit(id) | (bit(id) - 1));
            let first_time = self.ever & bit(id) == 0;
            disorder |= first_time && self.ever & later != 0;
            self.ever |= bit(id);
            if !segment.is_final() {
                disorder |= !rules.repeats && self.shown & later != 0;
                self.twice |= self.shown & bit(id);
                self.shown |= bit(id);
            }
        }
        if segment.is_final() {
            let later = of & !(u8::MAX >> segment.events.leading_zeros());
            disorder |= !rules.repeats && self.shown & later != 0;
            self.twice &= !of;
            self.shown = self.shown & !of | segment.leaves;
        }
        disorder
    }
}

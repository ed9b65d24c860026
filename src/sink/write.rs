//! Defines what a lane hands to the sink: a segment, its entity, and the duty to settle its events.

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::change::Entity;
use crate::coalesce::Segment;
use crate::ledger::Unsettled;
use crate::sink::{Refusal, Strange};

/// Refusals in a row that leave open whether a race is behind them, until they are believed.
const DOUBTFUL_REFUSALS: u8 = 3;

/// A segment to write, with the entity it is for.
#[derive(Debug)]
pub struct Write {
    /// The document.
    pub(crate) entity: Entity,
    /// [`EntityRef::hash`](crate::change::EntityRef::hash)
    pub(crate) hash: u64,
    /// What to write.
    pub(crate) segment: Segment,
    /// The duty to settle the events that the segment covers.
    pub(crate) unsettled: Unsettled,
    /// Since when MongoDB refuses it for something else than its content, if it does.
    pub(crate) refused_since: Option<Instant>,
    /// How often it was refused in doubt.
    pub(crate) doubtful_refusals: u8,
    /// What the document has for a watermark, where that proves nothing: the write is made where it is exactly this, and
    /// puts its own in its place. So of two such writes one is made.
    pub(crate) instead_of: Mutex<Option<Box<Strange>>>,
}

impl Write {
    /// A segment that was never sent; MongoDB has refused its document since then, if it has.
    #[must_use]
    pub(crate) fn new(
        entity: Entity,
        hash: u64,
        segment: Segment,
        unsettled: Unsettled,
        refused_since: Option<Instant>,
    ) -> Self {
        let instead_of = Mutex::default();
        Write { entity, hash, segment, unsettled, refused_since, doubtful_refusals: 0, instead_of }
    }

    /// Takes note of a refusal: one that leaves open whether a race is behind it becomes certain when it comes again.
    pub(crate) fn refused(&mut self, refusal: Refusal) -> Refusal {
        self.doubtful_refusals = self.doubtful_refusals.saturating_add(u8::from(!refusal.is_certain));
        let is_certain = refusal.is_certain || self.doubtful_refusals >= DOUBTFUL_REFUSALS;
        Refusal { is_certain, ..refusal }
    }
}

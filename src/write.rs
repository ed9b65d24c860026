//! What a lane hands to the sink: a segment, the entity it is for, and the duty to settle its events.

use crate::change::Entity;
use crate::coalesce::Segment;
use crate::settle::Unsettled;

/// A segment to write, with the entity it is for.
#[derive(Debug)]
pub struct Write {
    /// The document.
    pub entity: Entity,
    /// [`EntityRef::hash`](crate::change::EntityRef::hash)
    pub hash: u64,
    /// What to write.
    pub segment: Segment,
    /// The duty to settle the events that the segment covers.
    pub unsettled: Unsettled,
}

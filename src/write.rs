//! What a lane hands to the sink: a segment, the entity it is for, and the duty to settle its events.

use crate::change::{CollectionId, EntityRef};
use crate::coalesce::Segment;
use crate::raw::Value;
use crate::settle::Unsettled;

/// A segment to write, with the entity it is for.
#[derive(Debug)]
pub struct Write {
    /// The collection.
    pub collection: CollectionId,
    /// The `_id`.
    pub id: Value,
    /// [`EntityRef::hash`]
    pub hash: u64,
    /// What to write.
    pub segment: Segment,
    /// The duty to settle the events that the segment covers.
    pub unsettled: Unsettled,
}

impl Write {
    /// The entity.
    #[must_use]
    pub fn entity(&self) -> EntityRef<'_> {
        EntityRef { collection: self.collection, id: self.id.get() }
    }
}

//! Shows the commands that a change becomes by itself, for people to read.

use bson::Document;

use super::bulk_command::CommandLimits;
use super::command::{Encoder, Guard};
use super::{Tombstones, raw_to_document, write_concern};
use crate::change::Collections;
use crate::change::Placed;
use crate::coalesce::PendingUpdate;
use crate::config::Config;

/// What is sent for a change if it is alone in its batch. The bytes are the sink's, decoded.
#[must_use]
pub(crate) fn preview(
    placed: &Placed<'_>,
    collections: &Collections,
    config: &Config,
    guard: Option<&Guard>,
) -> Vec<Document> {
    let encoder = Encoder {
        collections,
        limits: CommandLimits { max_bytes: usize::MAX, max_statements: 1 },
        write_concern: &write_concern(&config.mongodb.write_concern),
        guard,
        tombstones: &Tombstones::new(config, collections),
        ordered: false,
    };
    let segments = PendingUpdate::new(placed).into_segments();
    segments
        .iter()
        .map(|segment| raw_to_document(&encoder.command(placed.change.entity, segment).body))
        .collect()
}

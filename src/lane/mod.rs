//! A lane: a worker that owns a share of a queue's entities, so that an entity's changes keep their order.

pub mod pending;

//! Holds the health of what an instance depends on, for delivery and for the status page.
//! Changes are logged here, once each.

mod dependency;
mod trouble;

use std::sync::Arc;
use std::time::Instant;

use serde::Serializer;

pub(crate) use self::dependency::{Attempts, Dependency, DependencyReport, DependencyState};
pub(crate) use self::trouble::{Trouble, Troubles};

/// What an instance depends on, and what fails of its own tasks.
#[derive(Debug)]
pub(crate) struct Health {
    /// Redis.
    pub(crate) redis: Arc<Dependency>,
    /// MongoDB.
    pub(crate) mongodb: Arc<Dependency>,
    /// Tasks that fail while the rest goes on.
    pub(crate) troubles: Troubles,
}

impl Health {
    /// Nothing is known yet.
    #[must_use]
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Health {
            redis: Arc::new(Dependency::new("redis")),
            mongodb: Arc::new(Dependency::new("mongodb")),
            troubles: Troubles::default(),
        })
    }
}

/// For a field that says how many seconds ago something was.
fn seconds_since<S: Serializer>(since: &Instant, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(since.elapsed().as_secs())
}

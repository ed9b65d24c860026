//! Tells which routes have histories: collections that keep each event of a route as it came.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::change::Entity;
use crate::config::Config;

/// An event to be kept.
#[derive(Debug)]
pub struct Record {
    /// Its offset.
    pub(crate) offset: i64,
    /// The collection that keeps it.
    pub(crate) into: Arc<str>,
    /// When it was read.
    pub(crate) at: bson::DateTime,
    /// The event's own time, milliseconds since the Unix epoch.
    pub(crate) ts: Option<i64>,
    /// The event.
    pub(crate) event: Box<[u8]>,
}

impl Record {
    /// Bytes it takes in memory.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Record>() + self.event.len()
    }
}

/// The events of one document that are to be kept, in queue order.
#[derive(Debug)]
pub struct Records {
    /// The document.
    pub(crate) entity: Entity,
    /// [`EntityRef::hash`](crate::change::EntityRef::hash)
    pub(crate) hash: u64,
    /// Its events.
    pub(crate) records: Vec<Record>,
    /// Since when they cannot be kept, if so.
    pub(crate) refused_since: Option<Instant>,
}

/// Where the events of each route are kept.
#[derive(Debug, Default)]
pub(crate) struct Histories(Vec<Option<Arc<str>>>);

impl Histories {
    /// What the routes say.
    #[must_use]
    pub(crate) fn new(config: &Config) -> Self {
        Histories(config.routes.iter().map(|route| route.history.as_deref().map(Arc::from)).collect())
    }

    /// The collection that keeps the events of a route, if one does.
    #[must_use]
    pub(crate) fn of(&self, route: Option<usize>) -> Option<&Arc<str>> {
        self.0.get(route?)?.as_ref()
    }

    /// For each collection that keeps events, how long it does; for ever without.
    #[must_use]
    pub(crate) fn kept_for(config: &Config) -> BTreeMap<&str, Option<Duration>> {
        let kept = |route: &'_ crate::config::Route| route.history_ttl;
        config.routes.iter().filter_map(|route| Some((route.history.as_deref()?, kept(route)))).collect()
    }
}

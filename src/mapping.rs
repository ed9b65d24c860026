//! Holds what events mean: how they are decoded, and what follows for the documents that they change.

use std::collections::HashMap;
use std::sync::Arc;

use crate::batch::Timings;
use crate::change::{CollectionId, Collections};
use crate::config::Config;
use crate::decode::{Decoder, Rules};
use crate::history::Histories;
use crate::hot_state::HotStates;

/// What events mean: the routes, the native collections, and what follows from them.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// How events are decoded.
    rules: Arc<Rules>,
    /// All collections ever named since the start, so that an id means the same to all mappings.
    pub(crate) collections: Collections,
    /// How many updates Yjs documents may hold.
    pub(crate) compaction: Compaction,
    /// How long changes may wait.
    pub(crate) timings: Timings,
    /// Where events are kept as they came.
    pub(crate) histories: Histories,
    /// Which documents are kept fresh in Redis.
    pub(crate) hot_states: HotStates,
}

impl Mapping {
    /// What a configuration says; `collections` are those ever named.
    #[must_use]
    pub(crate) fn new(config: &Config, collections: Collections) -> Self {
        Mapping {
            rules: Rules::new(config, collections.clone()),
            compaction: Compaction::new(config, &collections),
            timings: Timings::new(&config.routes),
            histories: Histories::new(config),
            hot_states: HotStates::new(config, &collections),
            collections,
        }
    }

    /// What takes this one's place.
    #[must_use]
    pub(crate) fn followed_by(&self, config: &Config) -> Self {
        Mapping::new(config, self.collections.extended(config))
    }

    /// A decoder of such events.
    #[must_use]
    pub(crate) fn decoder(&self) -> Decoder {
        Decoder::of(Arc::clone(&self.rules))
    }
}

/// How many updates the Yjs documents of each collection and field may hold.
#[derive(Debug, Default)]
pub(crate) struct Compaction(HashMap<CollectionId, HashMap<Box<str>, u32>>);

impl Compaction {
    /// What the routes say.
    #[must_use]
    pub(crate) fn new(config: &Config, collections: &Collections) -> Self {
        let mut all = Compaction::default();
        for route in &config.routes {
            let Some(yjs) = &route.yjs else { continue };
            let names = route.collection.iter().chain(&route.collections);
            for collection in names.filter_map(|name| collections.find(name)) {
                let fields = all.0.entry(collection).or_default();
                let limit = fields.entry(yjs.field.as_str().into()).or_insert(yjs.compact_above);
                *limit = yjs.compact_above.min(*limit);
            }
        }
        all
    }

    /// How many updates a field of a collection may hold, if there is a limit.
    #[must_use]
    pub(crate) fn limit(&self, collection: CollectionId, field: &str) -> Option<u32> {
        self.0.get(&collection)?.get(field).copied()
    }
}

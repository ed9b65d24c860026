//! What can change while an instance runs: the bounds of batches, and what events mean.

use std::sync::Arc;

use tokio::sync::watch;

use crate::batch::Policy;
use crate::config::Config;
use crate::event::{Collections, Decoder};
use crate::history::Histories;
use crate::hot_state::HotStates;
use crate::sink::Compaction;

/// What is in effect now, and a way to wait for something else.
#[derive(Debug)]
pub struct Live {
    policy: watch::Sender<Policy>,
    mapping: watch::Sender<Arc<Mapping>>,
}

impl Live {
    /// What the configuration says at the start.
    #[must_use]
    pub fn new(config: &Config) -> Arc<Self> {
        Arc::new(Live {
            policy: watch::Sender::new(Policy::from(&config.batch)),
            mapping: watch::Sender::new(Arc::new(Mapping::new(config, Collections::new(config)))),
        })
    }

    /// When a lane sends a batch.
    #[must_use]
    pub fn policy(&self) -> Policy {
        *self.policy.borrow()
    }

    /// The same, for whoever has to know of a change at once.
    #[must_use]
    pub fn watch_policy(&self) -> watch::Receiver<Policy> {
        self.policy.subscribe()
    }

    /// Other bounds from now on.
    pub fn set_policy(&self, policy: Policy) {
        self.policy.send_replace(policy);
    }

    /// What events mean by the newest routes. A queue takes it on when an ownership begins.
    #[must_use]
    pub fn mapping(&self) -> Arc<Mapping> {
        Arc::clone(&self.mapping.borrow())
    }

    /// Waits until there is another mapping than this.
    pub async fn mapping_other_than(&self, mapping: &Arc<Mapping>) {
        let mut mappings = self.mapping.subscribe();
        // Ends early only with the sender, which is here.
        let _ = mappings.wait_for(|newest| !Arc::ptr_eq(newest, mapping)).await;
    }

    /// Other routes and native collections from now on.
    pub fn set_mapping(&self, mapping: Mapping) {
        self.mapping.send_replace(Arc::new(mapping));
    }
}

/// What events mean: the routes, the native collections, and what follows from them.
#[derive(Debug)]
pub struct Mapping {
    /// Only routes and native collections count here.
    config: Config,
    /// All collections ever named since the start, so that an id means the same to all mappings.
    pub collections: Collections,
    /// How many updates Yjs documents may hold.
    pub compaction: Compaction,
    /// Where events are kept as they came.
    pub histories: Histories,
    /// Which documents are kept fresh in Redis.
    pub hot_states: HotStates,
}

impl Mapping {
    fn new(config: &Config, collections: Collections) -> Self {
        Mapping {
            config: config.clone(),
            compaction: Compaction::new(config, &collections),
            histories: Histories::new(config),
            hot_states: HotStates::new(config, &collections),
            collections,
        }
    }

    /// What takes this one's place.
    #[must_use]
    pub fn followed_by(&self, config: &Config) -> Self {
        Mapping::new(config, self.collections.extended(config))
    }

    /// A decoder of such events.
    #[must_use]
    pub fn decoder(&self) -> Decoder {
        Decoder::with_collections(&self.config, self.collections.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Native;

    #[test]
    fn collections_keep_their_ids_whatever_follows() {
        let config = |names: &[&str]| {
            let collections = names.iter().map(|name| (*name).to_owned()).collect();
            Config { native: Native { collections }, ..Config::default() }
        };
        let live = Live::new(&config(&["m", "z"]));
        let first = live.mapping().collections.clone();
        live.set_mapping(live.mapping().followed_by(&config(&["a"])));
        live.set_mapping(live.mapping().followed_by(&config(&["z", "a", "b"])));
        let last = live.mapping().collections.clone();
        assert_eq!(last.names(), ["m", "z", "a", "b"]);
        assert_eq!((last.find("m"), last.find("z")), (first.find("m"), first.find("z")));
    }
}

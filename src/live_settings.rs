//! Holds the settings that can change while an instance runs: the bounds of batches, and what events mean.

use std::sync::Arc;

use tokio::sync::watch;

use crate::batch::Policy;
use crate::change::Collections;
use crate::config::Config;
use crate::mapping::Mapping;

/// What is in effect now, and a way to wait for something else.
#[derive(Debug)]
pub(crate) struct LiveSettings {
    policy: watch::Sender<Policy>,
    mapping: watch::Sender<Arc<Mapping>>,
}

impl LiveSettings {
    /// What the configuration says at the start.
    #[must_use]
    pub(crate) fn new(config: &Config) -> Arc<Self> {
        Arc::new(LiveSettings {
            policy: watch::Sender::new(Policy::from(&config.batch)),
            mapping: watch::Sender::new(Arc::new(Mapping::new(config, Collections::new(config)))),
        })
    }

    /// When a lane sends a batch.
    #[must_use]
    pub(crate) fn policy(&self) -> Policy {
        *self.policy.borrow()
    }

    /// The same, for whoever has to know of a change at once.
    #[must_use]
    pub(crate) fn watch_policy(&self) -> watch::Receiver<Policy> {
        self.policy.subscribe()
    }

    /// Other bounds from now on.
    pub(crate) fn set_policy(&self, policy: Policy) {
        self.policy.send_replace(policy);
    }

    /// What events mean by the newest routes. A queue takes it on when an ownership begins.
    #[must_use]
    pub(crate) fn mapping(&self) -> Arc<Mapping> {
        Arc::clone(&self.mapping.borrow())
    }

    /// Waits until there is another mapping than this.
    pub(crate) async fn mapping_other_than(&self, mapping: &Arc<Mapping>) {
        let mut mappings = self.mapping.subscribe();
        // Ends early only with the sender, which is here.
        let _ = mappings.wait_for(|newest| !Arc::ptr_eq(newest, mapping)).await;
    }

    /// Other routes and native collections from now on.
    pub(crate) fn set_mapping(&self, mapping: Mapping) {
        self.mapping.send_replace(Arc::new(mapping));
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
        let live = LiveSettings::new(&config(&["m", "z"]));
        let first = live.mapping().collections.clone();
        live.set_mapping(live.mapping().followed_by(&config(&["a"])));
        live.set_mapping(live.mapping().followed_by(&config(&["z", "a", "b"])));
        let last = live.mapping().collections.clone();
        assert_eq!(last.names(), ["m", "z", "a", "b"]);
        assert_eq!((last.find("m"), last.find("z")), (first.find("m"), first.find("z")));
    }
}

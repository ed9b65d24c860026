//! Defines a route's `hot_state`, which keeps its collection's documents fresh in Redis.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Violations;
use super::{Config, Delivery, KeyPath, Span};

/// `hot_state = { ttl = "10m" }`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HotState {
    /// How long a hot state lives after it was filled, however often it is refreshed.
    #[serde(with = "Span")]
    pub ttl: Duration,
}

/// It bounds how old a state can be that nobody refreshes any more.
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30 * 24 * 3600));

impl Config {
    /// A collection has hot states or it has none: whatever writes to it has to keep them fresh.
    pub(super) fn check_hot_states(&self, found: &mut Violations) {
        let mut decided: BTreeMap<&String, (usize, Option<HotState>)> = BTreeMap::new();
        let unfit = self.queues.iter().find(|queue| queue.delivery != Delivery::ExactlyOnce);
        // A route that only flushes writes nothing.
        for (number, route) in self.routes.iter().enumerate().filter(|(_, route)| !route.only_flushes()) {
            let path = KeyPath::from("routes").join(number);
            let key = path.join("hot_state");
            for collection in route.collection.iter().chain(&route.collections) {
                let (earlier, state) = *decided.entry(collection).or_insert((number, route.hot_state));
                let message = format!("differs from that of `routes[{earlier}]` for the same collection");
                found.require(state == route.hot_state, key.clone(), message);
                let message = "needs a collection without `:` in its name: it would not be told from the id";
                found.require(route.hot_state.is_none() || !collection.contains(':'), key.clone(), message);
            }
            let Some(HotState { ttl }) = &route.hot_state else { continue };
            let message = "must be at least 1s, and at most 30 days";
            found.require((TTL.0..=TTL.1).contains(ttl), key.join("ttl"), message);
            if let Some(unfit) = unfit {
                let message = format!(
                    "queue {:?} is not exactly-once: without watermarks nothing tells what a hot state has",
                    unfit.key
                );
                found.require(false, key.clone(), message);
            }
            let message = "does not go together with `shard_key`: an `_id` alone is to name a document";
            found.require(route.shard_key.is_empty(), key, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::violations;
    use super::*;

    #[test]
    fn all_that_write_to_a_collection_agree_on_its_hot_states() {
        let found = violations(
            r#"
            queues = [{ key = "p" }, { key = "q", delivery = "at-least-once" }]
            [[routes]]
            when = { t = 1 }
            collection = "a"
            id = "id"
            delete = true
            hot_state = { ttl = "10m" }
            [[routes]]
            when = { t = 2 }
            collection = "a"
            id = "id"
            delete = true
            [[routes]]
            when = { t = 3 }
            collection_from = "kind"
            collections = ["a", "b", "c:d"]
            id = "id"
            delete = true
            shard_key = { s = "s" }
            hot_state = { ttl = "10ms" }
            "#,
        );
        insta::assert_snapshot!(found, @r#"
        `routes[0].hot_state`: queue "q" is not exactly-once: without watermarks nothing tells what a hot state has
        `routes[1].hot_state`: differs from that of `routes[0]` for the same collection
        `routes[2].hot_state`: differs from that of `routes[0]` for the same collection
        `routes[2].hot_state`: needs a collection without `:` in its name: it would not be told from the id
        `routes[2].hot_state.ttl`: must be at least 1s, and at most 30 days
        `routes[2].hot_state`: queue "q" is not exactly-once: without watermarks nothing tells what a hot state has
        `routes[2].hot_state`: does not go together with `shard_key`: an `_id` alone is to name a document
        "#);
        let wrong = toml::from_str::<Config>("routes = [{ id = 'a', hot_state = { tll = '1s' } }]");
        assert!(wrong.unwrap_err().to_string().contains("unknown field `tll`"));
    }
}

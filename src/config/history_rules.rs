//! Checks histories: each has a collection of its own, and routes that share one agree on it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::check::{Violations, check_collection};
use super::{Config, Delivery, KeyPath};

/// TTL indexes count in seconds, and in 32 bits.
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(i32::MAX as u64));

impl Config {
    /// Reports what is wrong with the routes' histories.
    pub(super) fn check_histories(&self, found: &mut Violations) {
        let of_routes =
            self.routes.iter().flat_map(|route| route.collection.iter().chain(&route.collections));
        let targets: BTreeSet<&String> = self.native.collections.iter().chain(of_routes).collect();
        let popped = self.queues.iter().find(|queue| queue.delivery == Delivery::AtMostOnce);
        let mut decided: BTreeMap<&String, (usize, Option<Duration>)> = BTreeMap::new();
        for (number, route) in self.routes.iter().enumerate() {
            let path = KeyPath::from("routes").join(number);
            let (key, ttl_key) = (path.join("history"), path.join("history_ttl"));
            let Some(history) = &route.history else {
                let message = "only means something together with `history`";
                found.require(route.history_ttl.is_none(), ttl_key, message);
                continue;
            };
            check_collection(history, key.clone(), found);
            let message = "is a collection that events write to; a history needs one of its own";
            found.require(!targets.contains(history), key.clone(), message);
            if let Some(popped) = popped {
                let message = format!(
                    "queue {:?} is at-most-once: its events have no offsets to tell them apart by",
                    popped.key
                );
                found.require(false, key, message);
            }
            if let Some(ttl) = route.history_ttl {
                let message = "must be at least 1s, and at most 68 years";
                found.require((TTL.0..=TTL.1).contains(&ttl), ttl_key.clone(), message);
            }
            let (earlier, ttl) = *decided.entry(history).or_insert((number, route.history_ttl));
            let message = format!("differs from that of `routes[{earlier}]` for the same history");
            found.require(ttl == route.history_ttl, ttl_key, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::violations;

    #[test]
    fn a_history_is_a_collection_of_its_own() {
        let found = violations(
            r#"
            queues = [{ key = "q", delivery = "at-most-once" }]
            native.collections = ["notes"]
            [[routes]]
            when = { t = 1 }
            collection = "a"
            id = "id"
            delete = true
            history = "notes"
            [[routes]]
            when = { t = 2 }
            collection = "b"
            id = "id"
            delete = true
            history = "tidegate"
            history_ttl = "10ms"
            [[routes]]
            when = { t = 3 }
            collection = "b"
            id = "id"
            delete = true
            history = "tidegate"
            [[routes]]
            collection = "b"
            id = "id"
            delete = true
            history_ttl = "30d"
            "#,
        );
        insta::assert_snapshot!(found, @r#"
        `routes[0].history`: is a collection that events write to; a history needs one of its own
        `routes[0].history`: queue "q" is at-most-once: its events have no offsets to tell them apart by
        `routes[1].history`: is a collection in which tidegate keeps its own state
        `routes[1].history`: queue "q" is at-most-once: its events have no offsets to tell them apart by
        `routes[1].history_ttl`: must be at least 1s, and at most 68 years
        `routes[2].history`: is a collection in which tidegate keeps its own state
        `routes[2].history`: queue "q" is at-most-once: its events have no offsets to tell them apart by
        `routes[2].history_ttl`: differs from that of `routes[1]` for the same history
        `routes[3].history_ttl`: only means something together with `history`
        "#);
    }
}

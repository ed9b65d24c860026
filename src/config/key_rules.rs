//! Checks that no two queues share a key in Redis, including the keys that tidegate keeps for them.

use std::collections::BTreeMap;

use super::Keys;
use super::check::Violations;
use super::{Config, Delivery, KeyPath};

/// What hot states and their tokens begin with.
const OF_HOT_STATES: [&str; 2] = ["tidegate:state:", "tidegate:fill:"];

impl Config {
    /// Whatever one queue keeps in Redis is none of another's.
    pub(super) fn check_keys(&self, found: &mut Violations) {
        let mut taken: BTreeMap<String, String> = BTreeMap::new();
        for (number, queue) in self.queues.iter().enumerate() {
            let path = KeyPath::from("queues").join(number).join("key");
            // What is wrong with the key itself is told elsewhere, and so is one that is there twice.
            for key in queue.keys().unwrap_or_default().into_iter().filter(|key| !key.is_empty()) {
                let message = format!("{key:?} is among the keys of hot states");
                let of_hot_states = OF_HOT_STATES.iter().any(|prefix| key.starts_with(prefix));
                found.require(!of_hot_states, path.clone(), message);
                let keys = self.keys_of(&key);
                let clash = keys.all().find_map(|name| Some((name, taken.get(name)?)));
                if let Some((name, other)) = clash.filter(|(_, other)| **other != key) {
                    found.require(false, path.clone(), clash_of(&keys, name, &self.keys_of(other)));
                }
                let popped = queue.delivery == Delivery::AtMostOnce;
                let own =
                    keys.all().filter(|name| !popped || [&*keys.queue, &*keys.dead_list].contains(name));
                for name in own {
                    taken.entry(name.to_owned()).or_insert_with(|| key.clone());
                }
            }
        }
    }
}

/// What is wrong with a queue that has the key `name` in common with another.
fn clash_of(keys: &Keys, name: &str, others: &Keys) -> String {
    let Keys { queue, dead_list, .. } = keys;
    let other = &others.queue;
    if name == queue && name == others.dead_list {
        format!("{queue:?} is the dead-letter list of queue {other:?}: give the queue another key")
    } else if name == dead_list && name == others.queue {
        format!("queue {other:?} is the dead-letter list of {queue:?}: give one of them another key")
    } else {
        format!(
            "{queue:?} and queue {other:?} would both keep {name:?} in Redis, and one of them would never be drained: \
             give one of them another key"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    fn violations(queues: &[&str]) -> String {
        let queues = queues.iter().map(|key| format!("{{ key = {key:?} }}")).collect::<Vec<_>>().join(", ");
        super::super::violations(&format!("queues = [{queues}]\nnative.collections = [\"x\"]\n"))
    }

    #[test]
    fn queues_that_share_a_key_are_refused() {
        insta::assert_snapshot!(violations(&["q", "{q}"]), @r#"
        `queues[1].key`: "{q}" and queue "q" would both keep "tidegate:{q}:base" in Redis, and one of them would never be drained: give one of them another key
        "#);
        insta::assert_snapshot!(violations(&["{q}", "q"]), @r#"
        `queues[1].key`: "q" and queue "{q}" would both keep "tidegate:{q}:base" in Redis, and one of them would never be drained: give one of them another key
        "#);
        insta::assert_snapshot!(violations(&["a", "a:dead"]), @r#"`queues[1].key`: "a:dead" is the dead-letter list of queue "a": give the queue another key"#);
        insta::assert_snapshot!(violations(&["a:dead", "a"]), @r#"`queues[1].key`: queue "a:dead" is the dead-letter list of "a": give one of them another key"#);
        insta::assert_snapshot!(violations(&["q", "tidegate:{q}:owner"]), @r#"
        `queues[1].key`: "tidegate:{q}:owner" and queue "q" would both keep "tidegate:{q}:owner" in Redis, and one of them would never be drained: give one of them another key
        "#);
        // Its dead-letter list is the other's hash of dead letters.
        insta::assert_snapshot!(violations(&["q", "tidegate:{q}"]), @r#"
        `queues[1].key`: "tidegate:{q}" and queue "q" would both keep "tidegate:{q}:dead" in Redis, and one of them would never be drained: give one of them another key
        "#);
        insta::assert_snapshot!(violations(&["p{0..2}", "{p1}"]), @r#"
        `queues[1].key`: "{p1}" and queue "p1" would both keep "tidegate:{p1}:base" in Redis, and one of them would never be drained: give one of them another key
        "#);
        insta::assert_snapshot!(violations(&["tidegate:state:documents:1"]), @r#"`queues[0].key`: "tidegate:state:documents:1" is among the keys of hot states"#);
    }

    #[test]
    fn queues_of_one_slot_are_no_clash() {
        assert_eq!(violations(&["{a}:1", "{a}:2", "a", "b:{a}", "tidegate:a"]), "");
    }

    #[test]
    fn what_is_popped_keeps_nothing() {
        let toml = r#"
            queues = [{ key = "q", delivery = "at-most-once" }, { key = "{q}" }]
            native.collections = ["x"]
        "#;
        let config: Config = toml::from_str(toml).unwrap();
        assert!(config.violations(crate::decode::check_literal).is_empty());
    }
}

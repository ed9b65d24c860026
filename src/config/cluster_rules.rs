//! Holds the rules for a Redis Cluster: what all its nodes have in common, and what there is none of in a cluster.

use super::check::Violations;
use super::keys::hash_tag;
use super::url_rules::check_url;
use super::{Config, KeyPath, Queue};

impl Config {
    /// How nodes are reached, and that all of a queue can be in one slot.
    pub(super) fn check_cluster(&self, found: &mut Violations) {
        let redis = &self.redis;
        if redis.cluster.is_empty() {
            return;
        }
        for (number, node) in redis.cluster.iter().enumerate() {
            check_url(node, KeyPath::from("redis.cluster").join(number), &["redis", "rediss"], found);
        }
        let message = "does not go together with `redis.sentinels`: a cluster has none";
        found.require(redis.sentinels.is_empty(), "redis.cluster", message);
        let message =
            "gives user, password and TLS of all nodes of `redis.cluster`: it must be redis:// or rediss://";
        found.require(redis.url.scheme() != Some("unix"), "redis.url", message);
        let message = "names a database other than 0: a Redis Cluster has no other";
        found.require(matches!(database(redis.url.expose()), None | Some(0)), "redis.url", message);
        for (number, queue) in self.queues.iter().enumerate() {
            let message = "has a `}` and no hash tag: nothing else could be in its slot of the Redis Cluster";
            let key = KeyPath::from("queues").join(number).join("key");
            found.require(!is_untagged(queue), key, message);
        }
        for (number, _) in self.routes.iter().enumerate().filter(|(_, route)| route.hot_state.is_some()) {
            let message =
                "does not go together with `redis.cluster`: hot states are not in the slots of their queues";
            found.require(false, KeyPath::from("routes").join(number).join("hot_state"), message);
        }
    }
}

/// The number of the database that a URL names.
fn database(url: &str) -> Option<u64> {
    let (_, rest) = url.split_once("://")?;
    rest.rsplit_once('/')?.1.parse().ok()
}

/// Whether what stands beside the queue cannot have a key in its slot: in braces, its key would end at the first `}`.
fn is_untagged(queue: &Queue) -> bool {
    let keys = queue.keys().unwrap_or_default();
    keys.iter().any(|key| key.contains('}') && hash_tag(key).is_none())
}

#[cfg(test)]
mod tests {
    use super::super::violations;

    fn of(redis: &str, route: &str) -> String {
        violations(&format!(
            "queues = [{{ key = 'a' }}]\nroutes = [{{ collection = 'c', id = 'id', set = {{ a = 'a' }}{route} }}]\n\
             redis = {{ cluster = ['redis://n1:7000', 'rediss://n2:7000']{redis} }}"
        ))
    }

    #[test]
    fn a_cluster_has_what_all_its_nodes_have() {
        for url in ["redis://x", "rediss://u:p@x/", "redis://x/0", "redis://10.0.0.1:7000"] {
            assert_eq!(of(&format!(", url = '{url}'"), ""), "", "{url}");
        }
        insta::assert_snapshot!(of(", url = 'redis://x/3'", ""), @"`redis.url`: names a database other than 0: a Redis Cluster has no other");
        insta::assert_snapshot!(of(", url = 'unix:///x'", ""), @"`redis.url`: gives user, password and TLS of all nodes of `redis.cluster`: it must be redis:// or rediss://");
        insta::assert_snapshot!(of(", sentinels = ['redis://s']", ""), @"`redis.cluster`: does not go together with `redis.sentinels`: a cluster has none");
        insta::assert_snapshot!(of("", ", hot_state = { ttl = '1m' }"), @"`routes[0].hot_state`: does not go together with `redis.cluster`: hot states are not in the slots of their queues");
        let none =
            violations("queues = [{ key = 'a' }]\nnative.collections = ['c']\nredis.cluster = ['http://x']");
        assert_eq!(none, "`redis.cluster[0]`: must begin with redis:// or rediss://");
    }

    #[test]
    fn a_key_can_have_others_in_its_slot() {
        for (key, can) in [
            ("a{}b", false),
            ("a}b", false),
            ("a}{0..1}", false),
            ("a{1}b", true),
            ("a{b", true),
            ("p{0..3}", true),
        ] {
            let told = violations(&format!(
                "queues = [{{ key = '{key}' }}]\nnative.collections = ['c']\nredis.cluster = ['redis://x']"
            ));
            assert_eq!(told.is_empty(), can, "{key}: {told}");
        }
    }
}

//! Names the Redis keys of a queue. All share the queue's hash slot; of a single server the dead-letter list does not.

use super::Config;

/// Key names; a contract with operators and other versions.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The queue itself.
    pub queue: String,
    /// Offset of the head element.
    pub base: String,
    /// Every element below this offset may have been sent to MongoDB.
    pub read: String,
    /// SHA-1 of the element at base; empty where the list was empty.
    pub head: String,
    /// Epoch of the owner; expires: the lease.
    pub owner: String,
    /// Name of the instance that owns the queue, for people.
    pub holder: String,
    /// Hash: which Redis it is, how the queue is called in MongoDB, and the epoch of the last takeover.
    pub identity: String,
    /// Sorted set: instances that drain the queue, by when they are forgotten.
    pub instances: String,
    /// Hash: how often the queue was taken over without a commit.
    pub tries: String,
    /// Hash, of a stream: where the consumer group was put, where it was found, and by which ownerships.
    pub stream: String,
    /// Hash: dead letters not yet committed, by offset.
    pub dead: String,
    /// Hash: events that MongoDB does not take now, by offset. The queue goes on without them.
    pub parked: String,
    /// List: what takeovers did to numbers, each as the offset before and the offset after.
    pub renumbered: String,
    /// Sorted set: offsets of the latest dead letters that are committed.
    pub refused: String,
    /// That a person has paused the queue, by whom and why. As long as it is there, nobody takes the queue over.
    pub paused: String,
    /// List: dead letters.
    pub dead_list: String,
    /// Name of the process that changes the letters in the list, for a person; expires.
    pub dead_owner: String,
    /// List: dead letters on their way to MongoDB.
    pub dead_moving: String,
    /// Hash: dead letters of MongoDB's whose events are back in the queue, until MongoDB knows.
    pub dead_taken: String,
}

/// One of a queue's keys.
pub(crate) type Key = fn(&Keys) -> &str;

impl Keys {
    /// All of them, by the names that scripts have for them.
    const ALL: [(&'static str, Key); 19] = [
        ("queue", |keys| &keys.queue),
        ("base", |keys| &keys.base),
        ("read", |keys| &keys.read),
        ("head", |keys| &keys.head),
        ("owner", |keys| &keys.owner),
        ("holder", |keys| &keys.holder),
        ("identity", |keys| &keys.identity),
        ("instances", |keys| &keys.instances),
        ("tries", |keys| &keys.tries),
        ("stream", |keys| &keys.stream),
        ("dead", |keys| &keys.dead),
        ("parked", |keys| &keys.parked),
        ("renumbered", |keys| &keys.renumbered),
        ("refused", |keys| &keys.refused),
        ("paused", |keys| &keys.paused),
        ("dead_list", |keys| &keys.dead_list),
        ("dead_owner", |keys| &keys.dead_owner),
        ("dead_moving", |keys| &keys.dead_moving),
        ("dead_taken", |keys| &keys.dead_taken),
    ];

    /// The one of that name.
    pub(crate) fn named(name: &str) -> Option<Key> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, key)| *key)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        Self::ALL.iter().map(|(_, key)| key(self))
    }

    /// The keys that belong to a queue of a single server.
    #[must_use]
    pub fn new(queue: &str, dead_suffix: &str) -> Self {
        let (tagged, dead_list) = (tagged(queue), format!("{queue}{dead_suffix}"));
        let key = |name| format!("tidegate:{tagged}:{name}");
        Keys {
            base: key("base"),
            read: key("read"),
            head: key("head"),
            owner: key("owner"),
            holder: key("holder"),
            tries: key("tries"),
            identity: key("identity"),
            instances: key("instances"),
            renumbered: key("renumbered"),
            refused: key("refused"),
            stream: key("stream"),
            dead: key("dead"),
            parked: key("parked"),
            paused: key("paused"),
            dead_owner: key("dead-owner"),
            dead_moving: key("dead-moving"),
            dead_taken: key("dead-taken"),
            dead_list,
            queue: queue.to_owned(),
        }
    }

    /// The keys that belong to a queue of a cluster, where the dead-letter list shares the queue's slot, too.
    #[must_use]
    pub fn in_cluster(queue: &str, dead_suffix: &str) -> Self {
        Keys { dead_list: format!("{}{dead_suffix}", tagged(queue)), ..Keys::new(queue, dead_suffix) }
    }
}

impl Config {
    /// The keys that belong to a queue.
    #[must_use]
    pub fn keys_of(&self, queue: &str) -> Keys {
        let suffix = &self.dead_letter.suffix;
        if self.redis.cluster.is_empty() { Keys::new(queue, suffix) } else { Keys::in_cluster(queue, suffix) }
    }
}

/// A key with a hash tag of its own keeps it; any other is its own tag.
fn tagged(queue: &str) -> String {
    if hash_tag(queue).is_some() { queue.to_owned() } else { format!("{{{queue}}}") }
}

/// The part of a key that names its slot, if it has one:
/// <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags>
pub(crate) fn hash_tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    rest.split_once('}').map(|(tag, _)| tag).filter(|tag| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_share_the_queues_slot() {
        assert_eq!(Keys::new("q", ":dead").base, "tidegate:{q}:base");
        assert_eq!(Keys::new("collab:{7}", ":dead").owner, "tidegate:collab:{7}:owner");
        assert_eq!(Keys::new("a{}b", ":dead").read, "tidegate:{a{}b}:read");
        assert_eq!(Keys::new("q", ":dead").dead_list, "q:dead");
        assert_eq!(Keys::in_cluster("q", ":dead").dead_list, "{q}:dead");
        assert_eq!(Keys::in_cluster("collab:{7}", ":dead").dead_list, "collab:{7}:dead");
        for queue in ["q", "collab:{7}", "{a}{b}", "a}{b}", "x{y"] {
            let keys = Keys::in_cluster(queue, ":dead");
            let tags: std::collections::BTreeSet<_> =
                keys.all().map(|key| hash_tag(key).unwrap_or(key)).collect();
            assert_eq!(tags.len(), 1, "{tags:?}");
        }
    }
}

//! Finds the primary of a queue's slot in a Redis Cluster, anew for each connection.
//!
//! All keys of a queue share a slot, so a queue talks to one node as to a single server. Once the slot is another
//! node's, that node refuses: the ownership ends, and the takeover that follows finds the slot where it is by then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use redis::{ConnectionAddr, Value};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::access::{Access, info};
use super::error::SourceError;
use super::node::{ask, at};
use crate::config::SecretUrl;
use crate::config::keys::hash_tag;

/// Slots of a cluster: <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#key-distribution-model>
const SLOTS: u16 = 16384;

/// For so long it is taken for granted which slots are whose. Many queues that lose their node at once ask once.
const KNOWN_FOR: Duration = Duration::from_millis(100);

/// Nodes that are asked, at most, and how long one has until the next is asked, too.
const ASKED: u32 = 16;
const STAGGER: Duration = Duration::from_millis(100);

/// The slot of a key.
pub(super) fn slot(key: &str) -> u16 {
    crc16::State::<crc16::XMODEM>::calculate(hash_tag(key).unwrap_or(key).as_bytes()) % SLOTS
}

/// A host and a port.
type Address = (String, u16);

/// A Redis Cluster, by some of its nodes.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    /// Addresses are read from these; everything else is as in `redis.url`.
    seeds: Arc<[Address]>,
    known: Arc<Mutex<Option<SlotMap>>>,
}

/// Which node has which slots, as one node said.
#[derive(Debug)]
struct SlotMap {
    asked: Instant,
    /// The first and the last slot, and their primary.
    ranges: Vec<(u16, u16, Address)>,
}

impl Cluster {
    /// Reads the URLs of nodes.
    ///
    /// # Errors
    /// Fatal: one cannot be used. It is not repeated in the text.
    pub(super) fn new(urls: &[SecretUrl]) -> Result<Self, SourceError> {
        let read = |url: &SecretUrl| match info("redis.cluster", url)?.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Ok((host.clone(), *port))
            }
            _ => Err(SourceError::Fatal("redis.cluster cannot be used: a node has a host and a port".into())),
        };
        let seeds = urls.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Cluster { seeds, known: Arc::default() })
    }

    /// `access`, with the address of the primary that has `slot`; of any primary, if none is asked for.
    ///
    /// # Errors
    /// Lost: no node answers, or none has the slot; fatal where the nodes are those of no cluster.
    pub(super) async fn resolve(
        &self,
        slot: Option<u16>,
        access: &Access,
        timeout: Duration,
    ) -> Result<Access, SourceError> {
        let mut known = self.known.lock().await;
        let map = match known.take() {
            Some(map) if map.asked.elapsed() < KNOWN_FOR => map,
            outdated => self.ask(outdated, access, timeout).await?,
        };
        let map = known.insert(map);
        let found = map
            .ranges
            .iter()
            .find(|(first, last, _)| slot.is_none_or(|slot| (*first..=*last).contains(&slot)));
        let Some((.., (host, port))) = found else {
            return Err(SourceError::Lost(match slot {
                Some(slot) => format!("slot {slot} of the Redis Cluster is no node's").into(),
                None => "no node of the Redis Cluster has any slots".into(),
            }));
        };
        Ok(at(access, host.clone(), *port))
    }

    /// Asks nodes which slots are whose, in any order: one that is cut off from the others may go on telling what was. The
    /// next is asked when one takes its time.
    async fn ask(
        &self,
        outdated: Option<SlotMap>,
        access: &Access,
        timeout: Duration,
    ) -> Result<SlotMap, SourceError> {
        let found = outdated.into_iter().flat_map(|map| map.ranges.into_iter().map(|(.., node)| node));
        // Each once, however many ranges it has.
        let nodes: BTreeSet<Address> = self.seeds.iter().cloned().chain(found).collect();
        let mut nodes: Vec<_> = nodes.into_iter().collect();
        fastrand::shuffle(&mut nodes);
        let mut asked = JoinSet::new();
        for (turn, (host, port)) in (0..ASKED).zip(nodes) {
            let node = at(access, host.clone(), port);
            asked.spawn(async move {
                tokio::time::sleep(STAGGER * turn).await;
                let began = Instant::now();
                let answer = ask(&node, redis::cmd("CLUSTER").arg("SLOTS"), timeout).await;
                answer
                    .map(|reply| SlotMap { asked: began, ranges: ranges(reply, &host) })
                    .map_err(|error| no_map(error, &host, port))
            });
        }
        let mut last = None;
        while let Some(answer) = asked.join_next().await {
            match answer.map_err(SourceError::lost)? {
                // One that is loading its data, say, is not the last to be asked.
                Err(error @ (SourceError::Lost(_) | SourceError::Refused(_))) => last = Some(error),
                answer => return answer,
            }
        }
        let last = match last {
            Some(SourceError::Lost(error)) => error,
            Some(refused) => return Err(refused),
            None => "redis.cluster is empty".into(),
        };
        let text = format!("no node of the Redis Cluster tells which slots are whose: {last}");
        Err(SourceError::Lost(last.saying(text)))
    }
}

/// Why a node does not tell of its cluster.
fn no_map(error: SourceError, host: &str, port: u16) -> SourceError {
    let text = error.to_string();
    match error {
        _ if text.contains("cluster support disabled") => SourceError::Fatal(
            format!("{host}:{port} is no node of a Redis Cluster: set redis.url to it, and redis.cluster to nothing").into(),
        ),
        SourceError::Lost(error) => SourceError::Lost(error.saying(format!("{host}:{port}: {text}"))),
        error => error,
    }
}

/// What `CLUSTER SLOTS` answers: for each range its first and last slot, its primary, and replicas. A node that does not
/// know how it is called leaves the name to whoever reached it.
fn ranges(reply: Vec<Value>, asked: &str) -> Vec<(u16, u16, Address)> {
    let range = |value: Value| {
        let Value::Array(parts) = value else { return None };
        let mut parts = parts.into_iter();
        let first = redis::from_redis_value(parts.next()?).ok()?;
        let last = redis::from_redis_value(parts.next()?).ok()?;
        let Value::Array(primary) = parts.next()? else { return None };
        let mut primary = primary.into_iter();
        let host: Option<String> = redis::from_redis_value(primary.next()?).ok()?;
        let host = host.filter(|host| !matches!(&**host, "" | "?")).unwrap_or_else(|| asked.to_owned());
        Some((first, last, (host, redis::from_redis_value(primary.next()?).ok()?)))
    };
    reply.into_iter().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#appendix-a-crc16-reference-implementation-in-ansi-c>
    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(slot("123456789"), 0x31C3 % SLOTS);
        assert_eq!(slot("{user1000}.following"), slot("{user1000}.followers"));
        assert_eq!(slot("foo{}{bar}"), crc16::State::<crc16::XMODEM>::calculate(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot("foo{{bar}}zap"), slot("{bar"));
    }

    #[test]
    fn nodes_are_read_as_any_version_names_them() {
        let node = |host: &str| format!("*3\r\n{host}:7001\r\n$2\r\nid\r\n");
        for (host, read) in [
            ("$9\r\n127.0.0.9\r\n", "127.0.0.9"),
            ("$-1\r\n", "seed"),
            ("$0\r\n\r\n", "seed"),
            ("$1\r\n?\r\n", "seed"),
        ] {
            let reply = format!("*1\r\n*3\r\n:0\r\n:5460\r\n{}", node(host));
            let Value::Array(reply) = redis::parse_redis_value(reply.as_bytes()).unwrap() else { panic!() };
            assert_eq!(ranges(reply, "seed"), [(0, 5460, (read.to_owned(), 7001))], "{host:?}");
        }
    }
}

//! Starts a Redis Cluster, moves its slots and ends its nodes; and does what a producer's cluster client does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue};

use super::process::{Process, command};
use super::redis::Redis;
use super::wait::try_eventually;

const LIMIT: Duration = Duration::from_secs(60);
/// How long a node is silent until the others call it dead.
const NODE_TIMEOUT: Duration = Duration::from_millis(1000);

/// A Redis Cluster. Its first nodes are primaries at the start.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts primaries, each with as many replicas.
    pub(crate) async fn start(primaries: usize, replicas: usize) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        for _ in 0..primaries * (replicas + 1) {
            nodes.push(Redis::start_node(NODE_TIMEOUT).await?);
        }
        let cluster = Cluster { nodes };
        let mut create = cluster.addresses()?;
        create.insert(0, "create".to_owned());
        create.extend(["--cluster-replicas".into(), replicas.to_string(), "--cluster-yes".into()]);
        redis_cli(&create).await?;
        cluster.settled(primaries * replicas).await?;
        Ok(cluster)
    }

    /// Where its nodes are.
    pub(crate) fn addresses(&self) -> anyhow::Result<Vec<String>> {
        self.nodes.iter().map(|node| Ok(node.address()?.to_string())).collect()
    }

    /// `redis.cluster`, as the environment has it.
    pub(crate) fn seeds(&self) -> String {
        let urls: Vec<_> = self.nodes.iter().map(|node| format!("{:?}", node.url())).collect();
        format!("[{}]", urls.join(", "))
    }

    /// Waits until all nodes agree that every slot is served, and so many replicas are in step.
    pub(crate) async fn settled(&self, replicas: usize) -> anyhow::Result<()> {
        try_eventually(LIMIT, "the cluster to be whole", async || {
            let mut in_step = 0;
            for node in &self.nodes {
                let mut connection = node.connect().await?;
                let info: String = redis::cmd("CLUSTER").arg("INFO").query_async(&mut connection).await?;
                ensure!(info.contains("cluster_state:ok"), "{info}");
                let info: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await?;
                in_step += usize::from(info.contains("master_link_status:up"));
            }
            ensure!(in_step == replicas, "{in_step} of {replicas} replicas");
            anyhow::Ok(())
        })
        .await
    }

    /// The slot of a key.
    pub(crate) fn slot_of(&self, key: &str) -> u16 {
        redis_slot(key)
    }

    /// Where the primary of a key's slot is among the nodes, as a node that runs tells.
    pub(crate) async fn primary_of(&self, key: &str) -> anyhow::Result<usize> {
        let client = ClusterClient::new(self)?;
        let address = client.find(key).await?;
        let at = self.addresses()?.iter().position(|known| *known == address);
        at.with_context(|| format!("{address} is none of the nodes"))
    }

    /// The nodes that are primaries with slots, as the first that runs and is in touch tells.
    pub(crate) async fn primaries(&self) -> anyhow::Result<Vec<usize>> {
        let addresses = self.addresses()?;
        let found = ClusterClient::new(self)?.ranges().await?;
        let at = |address: &String| addresses.iter().position(|known| known == address);
        let primaries: std::collections::BTreeSet<_> =
            found.iter().filter_map(|(.., address)| at(address)).collect();
        Ok(primaries.into_iter().collect())
    }

    /// Waits until another node has the place of this one.
    pub(crate) async fn until_replaced(&self, node: usize) -> anyhow::Result<()> {
        try_eventually(LIMIT, "a replica to take the place", async || {
            let primaries = self.primaries().await?;
            ensure!(primaries.len() >= 3 && !primaries.contains(&node), "{primaries:?}");
            anyhow::Ok(())
        })
        .await
    }

    /// Has the replica of a primary take its place in order: nothing is lost.
    pub(crate) async fn step_down(&self, primary: usize) -> anyhow::Result<()> {
        let port = self.nodes[primary].address()?.port();
        for node in &self.nodes {
            let mut connection = node.connect().await?;
            let info: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await?;
            if info.contains(&format!("master_port:{port}\r")) {
                let () = redis::cmd("CLUSTER").arg("FAILOVER").query_async(&mut connection).await?;
                return self.until_replaced(primary).await;
            }
        }
        bail!("node {primary} has no replica")
    }

    /// Moves so many slots of one node's to another, key by key, while both serve them.
    pub(crate) async fn move_slots(&self, from: usize, to: usize, slots: usize) -> anyhow::Result<()> {
        let address = self.nodes[from].address()?.to_string();
        let ranges = ClusterClient::new(self)?.ranges().await?;
        let of_node = ranges.into_iter().filter(|(.., node)| *node == address);
        let moved: Vec<u16> = of_node.flat_map(|(first, last, _)| first..=last).take(slots).collect();
        ensure!(moved.len() == slots, "node {from} has {} slots", moved.len());
        let mut mover = self.mover(from, to).await?;
        for slot in moved {
            mover.move_slot(slot, async || {}).await?;
        }
        Ok(())
    }

    /// Moves the slot of a key to another node; `halfway` happens when one key of the slot has moved.
    pub(crate) async fn move_slot_of(
        &self,
        key: &str,
        to: usize,
        halfway: impl AsyncFnOnce(),
    ) -> anyhow::Result<()> {
        let from = self.primary_of(key).await?;
        self.mover(from, to).await?.move_slot(redis_slot(key), halfway).await
    }

    async fn mover(&self, from: usize, to: usize) -> anyhow::Result<Mover> {
        Ok(Mover {
            source: self.nodes[from].connect().await?,
            target: self.nodes[to].connect().await?,
            ids: (self.id(from).await?, self.id(to).await?),
            address: self.nodes[to].address()?,
        })
    }

    async fn id(&self, node: usize) -> anyhow::Result<String> {
        let mut connection = self.nodes[node].connect().await?;
        Ok(redis::cmd("CLUSTER").arg("MYID").query_async(&mut connection).await?)
    }
}

/// Moves slots from a node to another as `redis-cli` does, only faster.
struct Mover {
    source: MultiplexedConnection,
    target: MultiplexedConnection,
    ids: (String, String),
    address: SocketAddr,
}

impl Mover {
    async fn move_slot(&mut self, slot: u16, halfway: impl AsyncFnOnce()) -> anyhow::Result<()> {
        let set = |state: &str, node: &str| {
            let mut set = redis::cmd("CLUSTER");
            set.arg("SETSLOT").arg(slot).arg(state).arg(node);
            set
        };
        let () = set("IMPORTING", &self.ids.0).query_async(&mut self.target).await?;
        let () = set("MIGRATING", &self.ids.1).query_async(&mut self.source).await?;
        let mut halfway = Some(halfway);
        loop {
            let mut keys = redis::cmd("CLUSTER");
            keys.arg("GETKEYSINSLOT").arg(slot).arg(1);
            let keys: Vec<String> = keys.query_async(&mut self.source).await?;
            if keys.is_empty() {
                break;
            }
            let mut migrate = redis::cmd("MIGRATE");
            migrate.arg(self.address.ip().to_string()).arg(self.address.port());
            migrate.arg("").arg(0).arg(5000).arg("KEYS").arg(&keys);
            let () = migrate.query_async(&mut self.source).await?;
            if let Some(halfway) = halfway.take() {
                halfway().await;
            }
        }
        let () = set("NODE", &self.ids.1).query_async(&mut self.target).await?;
        let () = set("NODE", &self.ids.1).query_async(&mut self.source).await?;
        Ok(())
    }
}

/// Runs `redis-cli --cluster`.
async fn redis_cli(args: &[String]) -> anyhow::Result<()> {
    let mut cli = command("redis-cli");
    cli.arg("--cluster").args(args);
    let mut process = Process::spawn("redis-cli", cli)?;
    let status = process.wait(LIMIT).await?;
    let lines = process.all_lines(LIMIT).await?;
    ensure!(status.success(), "redis-cli --cluster {args:?}: {}", lines.join("\n"));
    Ok(())
}

/// A client of a cluster: follows a key to where it is. Whatever else goes wrong is the caller's to know.
pub(crate) struct ClusterClient {
    urls: Vec<String>,
    open: BTreeMap<String, MultiplexedConnection>,
    found: BTreeMap<String, String>,
}

impl ClusterClient {
    /// Nothing is sent yet.
    pub(crate) fn new(cluster: &Cluster) -> anyhow::Result<Self> {
        let urls = cluster.nodes.iter().map(|node| node.url().to_owned()).collect();
        Ok(ClusterClient { urls, open: BTreeMap::new(), found: BTreeMap::new() })
    }

    /// The address of the primary that has a key.
    async fn find(&self, key: &str) -> anyhow::Result<String> {
        let slot = redis_slot(key);
        let found =
            self.ranges().await?.into_iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
        Ok(found.with_context(|| format!("no node has slot {slot} of {key}"))?.2)
    }

    /// The first and last slot of each range, and its primary, as the first node tells that is in touch with the others.
    async fn ranges(&self) -> anyhow::Result<Vec<(u16, u16, String)>> {
        for url in &self.urls {
            if let Ok(ranges) = ranges_of(url).await {
                return Ok(ranges);
            }
        }
        bail!("no node knows which slots are whose")
    }

    /// Sends a command to the node that has `key`, as far as is known; follows it if that sends it elsewhere.
    pub(crate) async fn ask<T: FromRedisValue>(&mut self, key: &str, command: &Cmd) -> anyhow::Result<T> {
        let address = match self.found.get(key) {
            Some(address) => address.clone(),
            None => self.find(key).await?,
        };
        let answer = self.ask_at(&address, command, false).await;
        let elsewhere = answer.as_ref().err().and_then(|error| {
            let error = error.downcast_ref::<redis::RedisError>()?;
            Some((error.redirect_node()?.0.to_owned(), error.code() == Some("ASK")))
        });
        let answer = match elsewhere {
            Some((elsewhere, is_asking)) => {
                self.found.remove(key);
                self.ask_at(&elsewhere, command, is_asking).await
            }
            None => answer,
        };
        match &answer {
            Ok(_) => drop(self.found.entry(key.to_owned()).or_insert(address)),
            Err(_) => drop((self.open.remove(&address), self.found.remove(key))),
        }
        answer
    }

    async fn ask_at<T: FromRedisValue>(
        &mut self,
        address: &str,
        command: &Cmd,
        is_asking: bool,
    ) -> anyhow::Result<T> {
        if !self.open.contains_key(address) {
            let client = redis::Client::open(format!("redis://{address}/"))?;
            self.open.insert(address.to_owned(), client.get_multiplexed_async_connection().await?);
        }
        let connection = self.open.get_mut(address).context("a connection")?;
        if !is_asking {
            return Ok(command.query_async(connection).await?);
        }
        let mut both = redis::pipe();
        both.cmd("ASKING").ignore().add_command(command.clone());
        let (answer,) = both.query_async(connection).await?;
        Ok(answer)
    }

    /// The same until the cluster has an answer. Only for what may be done twice.
    pub(crate) async fn ask_again<T: FromRedisValue>(
        &mut self,
        key: &str,
        command: &Cmd,
    ) -> anyhow::Result<T> {
        let this = tokio::sync::Mutex::new(self);
        try_eventually(LIMIT, "the cluster to answer", async || this.lock().await.ask(key, command).await)
            .await
    }
}

async fn ranges_of(url: &str) -> anyhow::Result<Vec<(u16, u16, String)>> {
    let mut node = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let info: String = redis::cmd("CLUSTER").arg("INFO").query_async(&mut node).await?;
    ensure!(info.contains("cluster_state:ok"), "{info}");
    let ranges: Vec<Vec<redis::Value>> = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut node).await?;
    let range = |range: &Vec<redis::Value>| {
        let [first, last, redis::Value::Array(primary), ..] = &range[..] else { bail!("{range:?}") };
        let number = |value| redis::from_redis_value_ref::<u16>(value);
        let host: String = redis::from_redis_value_ref(&primary[0])?;
        Ok((number(first)?, number(last)?, format!("{host}:{}", number(&primary[1])?)))
    };
    ranges.iter().map(range).collect()
}

/// The slot of a key, worked out bit by bit:
/// <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>.
fn redis_slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    let crc = hashed.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % 16384
}

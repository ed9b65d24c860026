//! Opens connections to Redis.

use std::sync::Arc;
use std::time::Duration;

use super::access::{Access, Credentials, is_same_place};
use super::cluster::{Cluster, slot};
use super::connection::Connection;
use super::error::SourceError;
use super::node::connect;
use super::sentinel::{Sentinels, check_primary};
use super::shared::{Ends, PerServer};
use super::watch::Watching;
use super::wire::Wire;
use crate::config::{self, QueueKind};

/// The first Redis that has `XACKDEL`.
const DELETES_AT_ONCE: (u32, u32) = (8, 2);

/// Where Redis is. Connections never reconnect by themselves: whoever loses one takes over again.
#[derive(Debug, Clone)]
pub(crate) struct Redis {
    credentials: Arc<Credentials>,
    servers: Servers,
    timeout: Duration,
    /// What all queues of a server use together.
    shared: Arc<Together>,
}

/// What all queues of a server use together.
#[derive(Debug, Default)]
struct Together {
    connections: PerServer<Connection>,
    watches: PerServer<Watching>,
}

impl Ends for Connection {
    fn has_ended(&self) -> bool {
        !self.is_open()
    }
}

/// Which servers there are.
#[derive(Debug, Clone)]
enum Servers {
    /// The one of the URL.
    Single,
    /// A primary, which sentinels know.
    Sentinels(Sentinels),
    /// Nodes, and the slot whose primary is meant.
    Cluster(Cluster, Option<u16>),
}

impl Redis {
    /// Reads the URL. Nothing is sent yet.
    ///
    /// # Errors
    /// Fatal: the URL cannot be used. It is not repeated in the text.
    pub(crate) fn new(config: &config::Redis) -> Result<Self, SourceError> {
        let credentials = Arc::new(Credentials::new(config)?);
        let servers = match (&*config.cluster, &*config.sentinels) {
            ([], []) => Servers::Single,
            ([], sentinels) => Servers::Sentinels(Sentinels::new(sentinels, &config.sentinel_primary)?),
            (nodes, _) => Servers::Cluster(Cluster::new(nodes)?, None),
        };
        Ok(Redis { credentials, servers, timeout: config.timeout, shared: Arc::default() })
    }

    /// The same, for what is in the slot of a queue.
    #[must_use]
    pub(crate) fn of_queue(&self, queue: &str) -> Self {
        let servers = match &self.servers {
            Servers::Cluster(cluster, _) => Servers::Cluster(cluster.clone(), Some(slot(queue))),
            other => other.clone(),
        };
        Redis { servers, ..self.clone() }
    }

    /// Whether queues may be on several servers.
    #[must_use]
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.servers, Servers::Cluster(..))
    }

    /// Which server it is now, by an address that is the same for all that share one.
    pub(crate) async fn server(&self) -> Result<String, SourceError> {
        if let Servers::Single = self.servers {
            // Nobody shares it with another, and nothing need be read to know that.
            return Ok(self.credentials.place().await);
        }
        Ok(self.found(&self.credentials.access().await?).await?.info.addr().to_string())
    }

    /// Who asks, as Redis knows it.
    pub(super) async fn user(&self) -> String {
        self.credentials.user().await
    }

    /// Whether a configuration is of the same server and database, so that what it is reached with may change by itself.
    #[must_use]
    pub(crate) fn is_same(one: &config::Redis, other: &config::Redis) -> bool {
        is_same_place(one, other)
    }

    /// Reaches the same server with what another configuration says, from the next connection on.
    pub(crate) async fn follow(&self, config: &config::Redis) {
        self.credentials.follow(config).await;
        self.leave_shared();
    }

    /// Opens a connection whose commands are answered within the configured time.
    ///
    /// # Errors
    /// Lost, or fatal where Redis refuses the credentials.
    pub(crate) async fn connect(&self) -> Result<Connection, SourceError> {
        self.open(self.timeout).await
    }

    /// The connection that all queues of the server use for what is small and does not block.
    ///
    /// # Errors
    /// Lost, or fatal where Redis refuses the credentials.
    pub(crate) async fn shared(&self) -> Result<Connection, SourceError> {
        let server = self.server().await?;
        let open = async || {
            // Whatever told of changes there may be another server's by now.
            self.shared.watches.forget();
            self.connect().await
        };
        self.shared.connections.get(&server, open).await
    }

    /// Has what is shared be opened anew when it is asked for the next time.
    pub(super) fn leave_shared(&self) {
        self.shared.connections.forget();
        self.shared.watches.forget();
    }

    /// What tells of the server's queues when they change, if it does that.
    ///
    /// # Errors
    /// Lost, or fatal where Redis refuses the credentials.
    pub(super) async fn watching(&self) -> Result<Watching, SourceError> {
        let server = self.server().await?;
        let open = async || {
            let access = self.found(&self.credentials.access().await?).await?;
            Watching::open(&access, self.timeout).await
        };
        self.shared.watches.get(&server, open).await
    }

    /// Opens a connection for commands that block up to `block` on the server. A response timeout that
    /// were shorter would end them from this side while the server still serves them.
    pub(crate) async fn connect_blocking(&self, block: Duration) -> Result<Connection, SourceError> {
        self.open(block + self.timeout).await
    }

    /// Opens a connection for large replies, which has the same time for its answers. Whether the server is the one that
    /// other connections found, it does not ask: whoever reads has the owner checked.
    pub(crate) async fn wire(&self) -> Result<Wire, SourceError> {
        let access = self.credentials.access().await?;
        match self.wire_with(&access).await {
            Err(error) => self.wire_with(&self.other_than(access, error).await?).await,
            opened => opened,
        }
    }

    async fn wire_with(&self, access: &Access) -> Result<Wire, SourceError> {
        let access = self.found(access).await?;
        let opened = Wire::open(&access, self.timeout).await;
        opened.map_err(|error| self.at(&access.info.addr().to_string(), error))
    }

    async fn open(&self, response: Duration) -> Result<Connection, SourceError> {
        let access = self.credentials.access().await?;
        let mut connection = match self.open_with(&access, response).await {
            Err(error) => self.open_with(&self.other_than(access, error).await?, response).await?,
            Ok(connection) => connection,
        };
        if matches!(self.servers, Servers::Sentinels(_)) {
            check_primary(&mut connection).await?;
        }
        Ok(connection)
    }

    async fn open_with(&self, access: &Access, response: Duration) -> Result<Connection, SourceError> {
        let access = self.found(access).await?;
        let opened = connect(&access, self.timeout, response).await;
        opened.map_err(|error| self.at(&access.info.addr().to_string(), error))
    }

    /// What to try at once after an error, if that is a refused login, and there is another one by now.
    async fn other_than(&self, access: Access, error: SourceError) -> Result<Access, SourceError> {
        match error {
            SourceError::LoginRefused(_) => self.credentials.other_than(&access).await?.ok_or(error),
            error => Err(error),
        }
    }

    /// An error of one server, with its name where there are several.
    fn at(&self, address: &str, error: SourceError) -> SourceError {
        match error {
            SourceError::Lost(told) if self.is_cluster() => {
                let text = format!("{address}: {told}");
                SourceError::Lost(told.saying(text))
            }
            error => error,
        }
    }

    /// Whether the server is what the configuration takes it for. A user who may not ask is told of that elsewhere.
    ///
    /// # Errors
    /// Fatal: it is a node of a cluster, and `redis.cluster` is not set.
    pub(super) async fn check_mode(&self, connection: &mut Connection) -> Result<(), SourceError> {
        let info = match connection.info().await {
            Ok(info) => info,
            Err(SourceError::Refused(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.is_cluster() || mode(info) != "cluster" {
            return Ok(());
        }
        let told =
            "redis.url names a node of a Redis Cluster: set redis.cluster to the URLs of some of its nodes";
        Err(SourceError::Fatal(told.into()))
    }

    /// The same access, to where Redis is now.
    async fn found(&self, access: &Access) -> Result<Access, SourceError> {
        match &self.servers {
            Servers::Single => Ok(access.clone()),
            Servers::Sentinels(sentinels) => sentinels.resolve(access, self.timeout).await,
            Servers::Cluster(cluster, slot) => cluster.resolve(*slot, access, self.timeout).await,
        }
    }
}

/// The server's version, `(major, minor)`.
pub(crate) async fn version(connection: &mut Connection) -> Result<(u32, u32), SourceError> {
    let mut parts =
        field(connection.info().await?, "redis_version:").split('.').map(|part| part.parse().unwrap_or(0));
    Ok((parts.next().unwrap_or(0), parts.next().unwrap_or(0)))
}

/// What a server is, by its `INFO`. Valkey has another name for it.
pub(super) fn mode(info: &str) -> &str {
    Some(field(info, "redis_mode:"))
        .filter(|mode| !mode.is_empty())
        .unwrap_or_else(|| field(info, "server_mode:"))
}

pub(super) fn field<'i>(info: &'i str, name: &str) -> &'i str {
    info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim()
}

/// Whether Redis acknowledges and deletes in one step.
#[must_use]
pub(super) fn deletes_at_once(found: (u32, u32)) -> bool {
    found >= DELETES_AT_ONCE
}

/// Whether Redis has what a kind of queue needs.
pub(crate) fn check_version(kind: QueueKind, found: (u32, u32)) -> Result<(), SourceError> {
    let (least, text) = of_kind!(kind, Queue => Queue::LEAST_REDIS);
    if found >= least {
        return Ok(());
    }
    Err(SourceError::Fatal(text.replace("FOUND", &format!("{}.{}", found.0, found.1)).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_old_is_named() {
        assert!(check_version(QueueKind::List, (6, 2)).is_ok());
        assert!(check_version(QueueKind::Stream, (7, 0)).is_ok());
        let text = |kind, found| match check_version(kind, found) {
            Err(SourceError::Fatal(told)) => told.to_string(),
            other => panic!("{other:?}"),
        };
        insta::assert_snapshot!(
            text(QueueKind::List, (6, 0)),
            @r#"Redis 6.2 or newer is needed for this delivery, this is 6.0; delivery = "at-most-once" works with any"#
        );
        insta::assert_snapshot!(
            text(QueueKind::Stream, (6, 2)),
            @"Redis 7.0 or newer is needed for streams, this is 6.2"
        );
    }
}

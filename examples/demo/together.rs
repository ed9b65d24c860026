//! Opens the page of `examples/collab` on the demo's servers, so that somebody can type along with the others.

#[path = "../collab/gateway/mod.rs"]
mod gateway;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::ensure;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use self::gateway::Servers;
use super::support::{Launch, Mongo, Redis, Tidegate};

/// A gateway, and a tidegate with the example's configuration.
pub(crate) struct Together {
    tidegate: Tidegate,
    address: SocketAddr,
    gateway: JoinHandle<anyhow::Result<()>>,
}

impl Together {
    pub(crate) async fn start(redis: &Redis, mongo: &Mongo, database: &str) -> anyhow::Result<Self> {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/collab/config.toml");
        let launch = Launch::config_file(&config).redis(redis).mongodb(mongo, database);
        let tidegate = launch.start().await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (redis, mongodb) = (redis.url().to_owned(), mongo.uri().to_owned());
        let servers = Servers { redis, mongodb, database: database.to_owned() };
        let gateway = tokio::spawn(gateway::serve(listener, servers));
        Ok(Self { tidegate, address, gateway })
    }

    /// Where the page is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it, after what was typed is saved.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.gateway.abort();
        let exited = self.tidegate.terminate().await?;
        let said = exited.lines.join("\n");
        ensure!(exited.status.success(), "the page's tidegate ended with {}:\n{said}", exited.status);
        Ok(())
    }
}

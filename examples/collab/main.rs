//! Serves a page that many people edit at once, with tidegate behind it: see the README.md beside this file.

mod gateway;

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tokio::net::TcpListener;

use self::gateway::Servers;

/// A gateway between browsers that edit the same page and Redis, from which tidegate moves their edits into MongoDB.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to serve the page. There is no login: keep it on this machine.
    #[arg(long, default_value = "127.0.0.1:9480")]
    listen: SocketAddr,
    /// The Redis that tidegate drains.
    #[arg(long, default_value = "redis://127.0.0.1:6379")]
    redis: String,
    /// The MongoDB that tidegate writes to.
    #[arg(long, default_value = "mongodb://127.0.0.1:27017")]
    mongodb: String,
    /// The database there.
    #[arg(long, default_value = "collab")]
    database: String,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("collab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let listener = TcpListener::bind(arguments.listen).await;
    let listener = listener.with_context(|| format!("cannot listen at {}", arguments.listen))?;
    println!("Open http://{}/ in two windows. Ctrl-C ends it.", listener.local_addr()?);
    let Arguments { redis, mongodb, database, .. } = arguments;
    tokio::select! {
        served = gateway::serve(listener, Servers { redis, mongodb, database }) => served,
        stopped = tokio::signal::ctrl_c() => Ok(stopped?),
    }
}

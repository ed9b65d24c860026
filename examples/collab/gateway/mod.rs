//! Connects browsers on one side with Redis and MongoDB on the other.
//!
//! An edit takes one way only: browser → WebSocket → Redis. There it is queued for tidegate and published to all gateways
//! in one step, so that both have the same order. Whoever shows the page, the one who typed too, applies what was
//! published, in that order. So all see in the end what the last edit of each paragraph says, and so does MongoDB.
//!
//! - [`page`] serves the page, [`socket`] talks with one browser that has it open, [`message`] is what they say.
//! - [`room`] is one page that somebody has open: its paragraphs, and how far MongoDB has them. It does no I/O.
//! - [`rooms`] holds all of them, and keeps them up to date.
//! - [`store`] asks Redis and MongoDB, [`hot_state`] says how a page is kept in Redis.

mod hot_state;
mod message;
mod page;
mod room;
mod rooms;
mod socket;
mod store;

use axum::routing::get;
use tokio::net::TcpListener;

use self::rooms::Rooms;
use self::store::Store;

/// Where Redis and MongoDB are.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    /// Redis' URL.
    pub(crate) redis: String,
    /// MongoDB's connection string.
    pub(crate) mongodb: String,
    /// The database that tidegate writes to.
    pub(crate) database: String,
}

/// Serves the page and its sockets for as long as it is polled. Servers that are away are waited for.
///
/// # Errors
/// Addresses that are none, and the listener's.
pub(crate) async fn serve(listener: TcpListener, servers: Servers) -> anyhow::Result<()> {
    let rooms = Rooms::new(Store::new(&servers).await?);
    let router = page::guard(page::routes().route("/socket/{page}", get(socket::open)));
    tokio::select! {
        served = axum::serve(listener, router.with_state(rooms.clone())) => Ok(served?),
        () = rooms.follow() => Ok(()),
    }
}

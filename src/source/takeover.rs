//! Takes a queue over: what is asked of Redis, and what comes of it.

use std::sync::Arc;
use std::time::Duration;

use super::connect::Redis;
use super::connection::Connection;
use super::error::SourceError;
use super::identity::KnownQueue;
use super::meddling::Interference;
use super::state::QueueState;
use super::{Recorded, Source};
use crate::config::{self, Keys};
use crate::epoch::Drawn;
use crate::metrics::QueueMetrics;

/// What a takeover goes by.
pub(crate) struct TakeoverRequest<'q> {
    /// Where windows will come from, over a connection of their own.
    pub(crate) redis: &'q Redis,
    /// For all else.
    pub(crate) connection: Connection,
    /// The server's.
    pub(crate) version: (u32, u32),
    /// The queue.
    pub(crate) queue: &'q config::Queue,
    pub(crate) keys: Keys,
    /// Its state, which has to be the same still.
    pub(crate) seen: &'q QueueState,
    /// What is known of it, which has to be the same still.
    pub(crate) known: &'q KnownQueue,
    /// The new epoch.
    pub(crate) drawn: Drawn,
    /// How the queue is called in MongoDB.
    pub(crate) id: &'q str,
    /// The epoch under which this very instance owned it last.
    pub(crate) previous: Option<i64>,
    /// How long the lease lasts.
    pub(crate) ttl: Duration,
    /// Where it is counted what other clients do to it.
    pub(crate) metrics: Arc<QueueMetrics>,
    pub(crate) letters: Arc<dyn Recorded>,
}

impl TakeoverRequest<'_> {
    /// The former epoch, as scripts take it.
    pub(super) fn previous(&self) -> String {
        self.previous.map(|epoch| epoch.to_string()).unwrap_or_default()
    }
}

/// A queue that was taken over.
pub(crate) struct Taken {
    pub(crate) source: Source,
    /// What another client was found to have done to it meanwhile, where that is still to be told.
    pub(crate) interference: Option<Interference>,
}

impl Source {
    /// Takes a queue over under a new epoch, if its state and what is known of it are still the same.
    pub(crate) async fn take(request: TakeoverRequest<'_>) -> Result<Taken, SourceError> {
        of_kind!(request.queue.kind, Queue => Queue::take(request).await)
    }
}

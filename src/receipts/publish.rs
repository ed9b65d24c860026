//! Publishes receipts, over a connection that carries nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::source::Connection;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Receipt;
use super::message::message;
use crate::config;
use crate::live_settings::LiveSettings;
use crate::metrics::ReceiptMetrics;
use crate::retry::Backoff;
use crate::source::{Redis, SourceError};
use crate::status::Status;

/// Receipts in one pipeline.
const BATCH: usize = 512;

/// Publishes the receipts that [`Receipts`](super::Receipts) sends.
pub(crate) struct Publisher {
    pub(super) receiver: mpsc::Receiver<Receipt>,
    pub(super) bytes: Arc<AtomicUsize>,
    pub(super) redis: Redis,
    pub(super) live: Arc<LiveSettings>,
    pub(super) channels: config::Receipts,
    pub(super) metrics: ReceiptMetrics,
    pub(super) status: Arc<Status>,
}

impl Publisher {
    /// Publishes until `end`, and then what is left, unless Redis is away.
    pub(crate) async fn run(mut self, end: CancellationToken) {
        let mut connection = None;
        let mut backoff = Backoff::default();
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                _ = self.receiver.recv_many(&mut batch, BATCH) => {}
                () = end.cancelled(), if !self.receiver.is_closed() => self.receiver.close(),
            }
            if batch.is_empty() {
                if self.receiver.is_closed() {
                    return;
                }
                continue;
            }
            let bytes = batch.iter().map(Receipt::bytes).sum();
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            let count = batch.len() as u64;
            // What is not on its way yet waits; meanwhile there is room for so many more, and the rest is dropped.
            let open = match connection.take() {
                Some(open) => Some(open),
                None => end.run_until_cancelled(self.connect(&mut backoff)).await,
            };
            let published = match open {
                Some(open) => self.publish(open, &batch).await,
                None => Err(SourceError::Lost("Redis is away".into())),
            };
            batch.clear();
            match published {
                Ok(open) => {
                    connection = Some(open);
                    backoff.reset();
                    self.status.receipts_refused(None);
                    self.metrics.published.increment(count);
                }
                // Some may have been told. None is told twice.
                Err(error) => {
                    tracing::debug!(%error, receipts = count, "receipts are dropped");
                    // That the connection is lost is told by who cannot do without.
                    if error.is_refusal() {
                        self.status.receipts_refused(Some(error.to_string()));
                    }
                    self.metrics.dropped.increment(count);
                }
            }
        }
    }

    /// Connects, however long that takes.
    async fn connect(&self, backoff: &mut Backoff) -> Connection {
        loop {
            match self.redis.connect().await {
                Ok(connection) => return connection,
                Err(error) => {
                    tracing::debug!(%error, "no connection for receipts");
                    if error.is_refusal() {
                        self.status.receipts_refused(Some(error.to_string()));
                    }
                }
            }
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    async fn publish(
        &self,
        mut connection: Connection,
        batch: &[Receipt],
    ) -> Result<Connection, SourceError> {
        let collections = self.live.mapping().collections.clone();
        let mut pipe = redis::pipe();
        for receipt in batch {
            let (channel, message) = message(receipt, &collections, &self.channels);
            pipe.cmd("PUBLISH").arg(channel).arg(message).ignore();
        }
        let () = pipe.query_async(&mut connection).await?;
        Ok(connection)
    }
}

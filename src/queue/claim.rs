//! Whether MongoDB, too, takes this ownership for the latest.
//!
//! Redis alone cannot tell: it may be one that was cut off while another took its place, or one of two whose queues have
//! the same id. What such an owner finds applied in a document may be another's.

use std::time::Duration;

use crate::sink::{Identity, Sink, SinkError};
use crate::source::SourceError;

/// An ownership, as it is on record in MongoDB.
#[derive(Debug)]
pub struct Claim {
    /// The id of the queue's document.
    pub(super) id: String,
    pub(super) epoch: i64,
    pub(super) identity: Identity,
}

/// Why an ownership is not confirmed.
#[derive(Debug)]
pub enum Unconfirmed {
    /// There is a later one.
    Ended(SourceError),
    /// MongoDB did not say.
    Unknown(SinkError),
}

impl Claim {
    /// Puts the ownership on record. Before that nothing may be written.
    ///
    /// # Errors
    /// There is a later one, or MongoDB did not say.
    pub(super) async fn record(&self, sink: &Sink) -> Result<(), Unconfirmed> {
        told(sink.claim(&self.id, self.epoch, &self.identity).await)
    }

    /// Has MongoDB confirm that the ownership is the latest, and give out no epoch up to `above` any more.
    ///
    /// # Errors
    /// There is a later one, or MongoDB did not say.
    pub async fn confirm(&self, sink: &Sink, above: i64) -> Result<(), Unconfirmed> {
        told(sink.confirm(&self.id, self.epoch, &self.identity, above.max(self.epoch)).await)
    }

    /// Looks every `period` whether there is a later ownership; answers when there is.
    pub(super) async fn until_ended(&self, sink: &Sink, period: Duration) -> SourceError {
        loop {
            tokio::time::sleep(period).await;
            // While MongoDB does not answer, nobody takes the queue over either.
            let Ok(known) = sink.claimed(&self.id).await else { continue };
            if known == Some((Some(self.identity.name.clone()), Some(self.epoch))) {
                continue;
            }
            // A node that was left behind may not know it yet.
            if let Err(Unconfirmed::Ended(error)) = self.confirm(sink, 0).await {
                return error;
            }
        }
    }
}

fn told(answer: Result<bool, SinkError>) -> Result<(), Unconfirmed> {
    match answer {
        Ok(true) => Ok(()),
        Ok(false) => Err(Unconfirmed::Ended(SourceError::Deposed)),
        Err(error) => Err(Unconfirmed::Unknown(error)),
    }
}

impl From<SourceError> for Unconfirmed {
    fn from(error: SourceError) -> Self {
        Unconfirmed::Ended(error)
    }
}

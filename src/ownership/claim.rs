//! Asks MongoDB whether this ownership is the latest.
//!
//! Redis alone cannot tell. It may have been cut off while another took its place, or it may be one of two whose queues
//! have the same id. What such an owner finds applied in a document may be another's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep_until;

use crate::beat;
use crate::config::EPOCHS;
use crate::epoch::{Identity, epoch_of};
use crate::sink::{Sink, SinkError, Strange};
use crate::source::SourceError;

/// An ownership, as it is on record in MongoDB.
#[derive(Debug)]
pub(crate) struct Claim {
    /// The id of the queue's document.
    pub(crate) id: String,
    pub(crate) epoch: i64,
    pub(crate) identity: Identity,
    /// Whether it was told that documents have watermarks which prove nothing.
    told: AtomicBool,
    /// MongoDB has denied it.
    denied: AtomicBool,
    /// Notified when it was denied, or another was found on record.
    doubted: Notify,
}

/// The ownerships of an instance. MongoDB is asked about all of them at once.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<Vec<Weak<Claim>>>);

impl Claims {
    /// Asks about an ownership, too, for as long as it lasts.
    pub(crate) fn add(&self, claim: &Arc<Claim>) {
        self.0.lock().push(Arc::downgrade(claim));
    }

    /// Looks every `period` whose queues they are. Never ends.
    pub(crate) async fn watch(&self, sink: &Sink, period: Duration) {
        loop {
            sleep_until(beat::next(period)).await;
            let claims = self.lasting();
            let ids: Vec<&str> = claims.iter().map(|claim| &*claim.id).collect();
            // While MongoDB does not answer, nobody takes a queue over either.
            let Ok(owners) = sink.owners(&ids).await else { continue };
            for claim in &claims {
                let expected = (Some(claim.identity.name.clone()), Some(claim.epoch));
                if owners.get(&claim.id) != Some(&expected) {
                    claim.doubted.notify_one();
                }
            }
        }
    }

    fn lasting(&self) -> Vec<Arc<Claim>> {
        let mut all = self.0.lock();
        all.retain(|claim| claim.strong_count() > 0);
        all.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Why an ownership is not confirmed.
#[derive(Debug)]
pub(crate) enum Unconfirmed {
    /// There is a later one.
    Ended(SourceError),
    /// MongoDB did not say.
    Unknown(SinkError),
}

impl Claim {
    pub(crate) fn new(id: &str, epoch: i64, identity: Identity) -> Self {
        Claim {
            id: id.to_owned(),
            epoch,
            identity,
            told: AtomicBool::new(false),
            denied: AtomicBool::new(false),
            doubted: Notify::new(),
        }
    }

    /// Tells that documents have watermarks which prove nothing, once.
    pub(crate) fn tell_of_strange_watermark(&self, queue: &str, found: &Strange) {
        if self.told.swap(true, Ordering::Relaxed) {
            return;
        }
        let epoch = self.epoch;
        match found.as_watermark() {
            Some(watermark) => tracing::warn!(
                queue,
                epoch,
                theirs = epoch_of(watermark),
                "documents have watermarks of another numbering, as from a database that was restored or copied without \
                 the collection {EPOCHS}, or from another Redis: they do not count, and what may have been written is \
                 written again"
            ),
            None => tracing::warn!(
                queue,
                "documents have watermarks that are no whole numbers: they do not count, and are overwritten"
            ),
        }
    }

    /// Puts the ownership on record. Before that nothing may be written.
    ///
    /// # Errors
    /// There is a later one, or MongoDB did not say.
    pub(crate) async fn record(&self, sink: &Sink, generation: i64) -> Result<(), Unconfirmed> {
        told(sink.claim(&self.id, self.epoch, &self.identity, generation).await)
    }

    /// Has MongoDB confirm that the ownership is the latest, and give out no epoch up to `above` any more.
    ///
    /// # Errors
    /// There is a later one, or MongoDB did not say.
    pub(crate) async fn confirm(&self, sink: &Sink, above: i64) -> Result<(), Unconfirmed> {
        let confirmed = told(sink.confirm(&self.id, self.epoch, &self.identity, above.max(self.epoch)).await);
        if matches!(confirmed, Err(Unconfirmed::Ended(_))) {
            self.denied.store(true, Ordering::Relaxed);
            self.doubted.notify_one();
        }
        confirmed
    }

    /// Answers when there is a later ownership. [`Claims::watch`] looks.
    pub(crate) async fn until_ended(&self, sink: &Sink) -> SourceError {
        loop {
            self.doubted.notified().await;
            if self.denied.load(Ordering::Relaxed) {
                return SourceError::Deposed;
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

//! Obeys a person who has paused a queue: whoever owns it flushes and gives it up, and nobody takes it over.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::drain::Queue;
use crate::source::{PauseNote, SourceError, state};
use crate::status::Phase;

/// How often it is looked whether a popped queue may go on.
const LOOK: Duration = Duration::from_millis(250);

impl Queue {
    /// Tells whether the queue is paused.
    pub(super) fn tell_paused(&self, note: Option<&PauseNote>) {
        if note.is_some() {
            self.status.set_obstacle(None);
            self.status.set_phase(Phase::Paused);
        }
        if !self.status.set_paused(note.cloned()) {
            return;
        }
        let queue = &*self.config.key;
        match note {
            Some(PauseNote { by, reason, .. }) => {
                tracing::info!(
                    queue,
                    by,
                    reason,
                    "the queue is paused: its events wait in Redis until it is resumed"
                );
            }
            None => {
                self.status.set_phase(Phase::Connecting);
                tracing::info!(queue, "the queue is resumed");
            }
        }
    }

    /// Waits until the queue, which is popped and has no owner, is not paused.
    pub(super) async fn until_resumed(&self, stop: &CancellationToken) -> Result<(), SourceError> {
        let mut connection = self.redis.shared().await?;
        while !stop.is_cancelled() {
            let seen = state(&mut connection, &self.keys, &self.config).await?;
            self.tell_paused(seen.paused.as_ref());
            if seen.paused.is_none() {
                break;
            }
            self.status.set_depth(seen.elements);
            stop.run_until_cancelled(tokio::time::sleep(LOOK)).await;
        }
        Ok(())
    }
}

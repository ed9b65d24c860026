//! Tells of dead letters that are on record in Redis, whoever recorded them.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::watch;

use super::Owned;
use crate::dead_letter::{Dead, Reason, RecentDeadLetters, Rejection, render, render_without_event};
use crate::ledger::{Ledger, Outcome};
use crate::receipts::Teller;
use crate::source::{DeadLetterRecord, Recorded, SourceError};

/// Tells of one queue's dead letters.
#[derive(Debug)]
pub(crate) struct Letters {
    pub(crate) key: String,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) recent: Arc<RecentDeadLetters>,
    pub(crate) receipts: Option<Teller>,
    /// Very many are in Redis, and are being moved to MongoDB: more of them wait for that.
    pub(crate) crowded: watch::Sender<bool>,
}

impl Letters {
    /// The letters are on record. Whoever holds the events settles them.
    fn recorded(&self, letters: &[Dead<'_>]) {
        self.recent.record(&self.key, letters);
        if let Some(receipts) = &self.receipts {
            receipts.dead(letters);
        }
    }

    /// Takes account of events that nobody holds.
    fn settle_unread(&self, letters: &[Dead<'_>]) {
        for Dead { rejection, .. } in letters {
            self.ledger.receive(1).settle(Outcome::Dead(rejection.reason));
        }
    }
}

impl Recorded for Letters {
    fn recorded_unread(&self, letters: &[Dead<'_>]) {
        // No receipt names them: an id that does not fit has no offset of its own.
        self.recent.record(&self.key, letters);
        self.settle_unread(letters);
    }
}

impl Owned {
    /// Records dead letters. Their events are settled only afterwards.
    pub(crate) async fn bury(&self, letters: &[Dead<'_>]) -> Result<(), SourceError> {
        // Whoever moves them takes that back when it ends, so no error is to be feared.
        let _ = self.letters.crowded.subscribe().wait_for(|crowded| !*crowded).await;
        let now = bson::DateTime::now();
        let kept: Vec<DeadLetterRecord> = letters
            .iter()
            .map(|dead| {
                let Dead { offset, rejection, traceparent, .. } = dead;
                let traceparent = traceparent.map(tracing::field::display);
                tracing::debug!(queue = self.key, offset, traceparent, reason = %rejection, "dead letter");
                DeadLetterRecord { offset: *offset, json: render(dead, &self.key, now) }
            })
            .collect();
        self.source.bury(&kept).await?;
        self.buried.lock().extend(kept.iter().map(|letter| letter.offset));
        self.letters.recorded(letters);
        Ok(())
    }

    /// Makes a dead letter of the one event of a range, which has killed. It is read by nobody any more.
    pub(crate) async fn set_aside(&self, range: Range<i64>) -> Result<(), SourceError> {
        let offset = range.end - 1;
        let text = "process after process ended while it was being worked on";
        let rejection = Rejection::new(Reason::Crash, text);
        let letter = render_without_event(&rejection, offset, &self.key, bson::DateTime::now());
        self.source.set_aside(range, &letter).await?;
        let dead = Dead { offset, event: b"", rejection: &rejection, traceparent: None, entity: None };
        self.letters.recorded(&[dead]);
        self.letters.settle_unread(&[dead]);
        self.tracker.lock().restart(offset + 1);
        tracing::error!(queue = self.key, offset, "an event was set aside as a dead letter: {text}");
        Ok(())
    }
}

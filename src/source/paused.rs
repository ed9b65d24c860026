//! Keeps beside a queue that a person has paused it. As long as that is there, no instance takes the queue over.

use std::time::Duration;

use bson::DateTime;
use serde::{Deserialize, Serialize};
use tokio::time::sleep_until;

use super::connect::Redis;
use super::connection::Connection;
use super::error::SourceError;
use super::watch::Watching;
use crate::beat;
use crate::config::Keys;

/// How often it is looked where Redis does not tell.
const LOOK: Duration = Duration::from_secs(1);

/// Who has paused a queue, since when, and why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct PauseNote {
    /// Who, as the person says or the system does.
    pub(crate) by: String,
    /// When, as RFC 3339 has it.
    pub(crate) at: String,
    /// Why, in words; empty if nobody said.
    #[serde(default)]
    pub(crate) reason: String,
}

impl PauseNote {
    /// What somebody does now.
    pub(crate) fn now(by: String, reason: String) -> Self {
        PauseNote { by, at: DateTime::now().try_to_rfc3339_string().unwrap_or_default(), reason }
    }

    /// Reads what is kept. Whatever it is, the queue is paused.
    pub(super) fn parse(kept: &str) -> Self {
        let reason = || PauseNote { reason: kept.to_owned(), ..PauseNote::default() };
        serde_json::from_str(kept).unwrap_or_else(|_| reason())
    }

    /// For how long it has been so.
    pub(crate) fn lasts(&self) -> Duration {
        let since = DateTime::parse_rfc3339_str(&self.at).ok();
        since.map_or(Duration::ZERO, |since| DateTime::now().saturating_duration_since(since))
    }
}

/// Whether a queue is paused, and by whom. Who may not read that has never paused it.
pub(crate) async fn paused(
    connection: &mut Connection,
    keys: &Keys,
) -> Result<Option<PauseNote>, SourceError> {
    let kept = redis::cmd("GET").arg(&keys.paused).query_async::<Option<String>>(connection).await;
    match kept.map_err(SourceError::from) {
        Err(error) if error.is_of_rights() => Ok(None),
        kept => Ok(kept?.as_deref().map(PauseNote::parse)),
    }
}

/// Pauses a queue. Answers who had paused it before.
pub(crate) async fn pause(
    connection: &mut Connection,
    keys: &Keys,
    note: &PauseNote,
) -> Result<Option<PauseNote>, SourceError> {
    let kept = serde_json::to_string(note).unwrap_or_default();
    let mut both = redis::pipe();
    both.atomic().get(&keys.paused).set(&keys.paused, kept).ignore();
    let (before,): (Option<String>,) = both.query_async(connection).await?;
    Ok(before.as_deref().map(PauseNote::parse))
}

/// Lets a queue go on. Answers whether it was paused.
pub(crate) async fn resume(connection: &mut Connection, keys: &Keys) -> Result<bool, SourceError> {
    Ok(redis::cmd("DEL").arg(&keys.paused).query_async::<u64>(connection).await? > 0)
}

impl Redis {
    /// Waits until somebody pauses the queue of these keys.
    pub(crate) async fn until_paused(&self, keys: &Keys) {
        loop {
            match self.is_paused_some_time(keys).await {
                Ok(true) => return,
                // Redis logs each refusal.
                Err(error) if error.is_of_rights() => return std::future::pending().await,
                // While Redis is away, nobody can.
                Ok(false) | Err(_) => sleep_until(beat::next(LOOK)).await,
            }
        }
    }

    async fn is_paused_some_time(&self, keys: &Keys) -> Result<bool, SourceError> {
        if let Watching::Told(watch) = self.watching().await? {
            // It may be told in vain.
            while !watch.until_there(&keys.paused).await? {}
            return Ok(true);
        }
        let look = redis::cmd("EXISTS").arg(&keys.paused).to_owned();
        Ok(look.query_async::<u64>(&mut self.shared().await?).await? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_kept_the_queue_is_paused() {
        let note = PauseNote::now("anna".into(), "a migration".into());
        assert_eq!(PauseNote::parse(&serde_json::to_string(&note).unwrap()), note);
        assert!(note.lasts() < Duration::from_secs(60));
        for kept in ["", "1", "by hand", "{}", r#"{"by":7}"#] {
            assert_eq!(PauseNote::parse(kept), PauseNote { reason: kept.into(), ..PauseNote::default() });
        }
    }
}

//! Holds the lease of a list or stream, records its dead letters, and gives it up.

use std::time::Duration;

use super::connection::Connection;
use redis::{RedisResult, Script};

use super::DeadLetterRecord;
use super::error::SourceError;
use super::hot_state;
use super::lua::whole;
use super::script;
use super::window::Window;
use crate::config::Keys;
use crate::epoch::first_offset;

/// A queue that this instance owns under an epoch, whatever its kind.
#[derive(Debug)]
pub(crate) struct Lease {
    keys: Keys,
    epoch: String,
    ttl_ms: u64,
    connection: Connection,
    bury: Script,
    park: Script,
    unpark: Script,
    release: Script,
    hot_states: hot_state::HotStateScripts,
}

/// Milliseconds, as Redis takes them.
pub(super) fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}

impl Lease {
    /// A queue that was just taken over under `epoch`.
    pub(super) fn new(connection: Connection, keys: Keys, epoch: i64, ttl: Duration) -> Self {
        Lease {
            keys,
            epoch: epoch.to_string(),
            ttl_ms: millis(ttl),
            connection,
            bury: Script::new(script::BURY),
            park: Script::new(script::PARK),
            unpark: Script::new(&whole(script::UNPARK)),
            release: Script::new(script::RELEASE),
            hot_states: hot_state::HotStateScripts::new(),
        }
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(super) fn hot_states(&self) -> &hot_state::HotStateScripts {
        &self.hot_states
    }

    /// The arguments by which scripts know the owner and extend its lease.
    pub(super) fn args(&self) -> (&str, u64) {
        (&self.epoch, self.ttl_ms)
    }

    /// The first offset of its epoch.
    ///
    /// # Errors
    /// Fatal where the epoch is out of range.
    pub(super) fn first_offset(&self) -> Result<i64, SourceError> {
        let first = self.epoch.parse().ok().and_then(first_offset);
        first.ok_or_else(|| SourceError::Fatal(format!("epoch {} is out of range", self.epoch).into()))
    }

    /// A handle to the connection.
    pub(super) fn connection(&self) -> Connection {
        self.connection.clone()
    }

    /// Runs a script that answers with a number, and errors if it was fenced off.
    pub(super) async fn invoke(&self, call: &redis::ScriptInvocation<'_>) -> Result<(), SourceError> {
        let answer: RedisResult<i64> = call.invoke_async(&mut self.connection()).await;
        fenced(answer?).map(drop)
    }

    /// The offsets of dead letters that were recorded and not committed.
    pub(crate) async fn buried(&self) -> Result<Vec<i64>, SourceError> {
        let fields: Vec<String> =
            redis::cmd("HKEYS").arg(&self.keys.dead).query_async(&mut self.connection()).await?;
        Ok(fields.iter().filter_map(|field| field.parse().ok()).collect())
    }

    /// Records dead letters.
    pub(crate) async fn bury(&self, letters: &[DeadLetterRecord]) -> Result<(), SourceError> {
        let mut call = self.bury.prepare_invoke();
        call.key(&self.keys.owner).key(&self.keys.dead).arg(self.args());
        for letter in letters {
            call.arg(letter.offset).arg(&letter.json);
        }
        self.invoke(&call).await
    }

    /// Parks events, each with its offset.
    pub(crate) async fn park(&self, events: &[(i64, &[u8])]) -> Result<(), SourceError> {
        let mut call = self.park.prepare_invoke();
        call.key(&self.keys.owner).key(&self.keys.parked).arg(self.args());
        for (offset, event) in events {
            call.arg(*offset).arg(*event);
        }
        self.invoke(&call).await
    }

    /// Forgets parked events that are settled. Of `dead` ones, which are below the base, the letters go to their list.
    pub(crate) async fn unpark(&self, dead: &[i64], others: &[i64]) -> Result<(), SourceError> {
        let keys = &self.keys;
        let mut call = self.unpark.prepare_invoke();
        call.key(&[&keys.owner, &keys.parked, &keys.dead, &keys.dead_list, &keys.refused]);
        call.arg(self.args()).arg(script::REFUSED_KEPT).arg(dead.len()).arg(dead).arg(others);
        self.invoke(&call).await
    }

    /// The offsets of what is parked, ascending.
    pub(crate) async fn parked(&self) -> Result<Vec<i64>, SourceError> {
        let fields: Vec<String> =
            redis::cmd("HKEYS").arg(&self.keys.parked).query_async(&mut self.connection()).await?;
        let mut offsets: Vec<i64> = fields.iter().filter_map(|field| field.parse().ok()).collect();
        offsets.sort_unstable();
        Ok(offsets)
    }

    /// The parked events at these offsets, which ascend.
    pub(crate) async fn parked_events(&self, offsets: Vec<i64>) -> Result<Window, SourceError> {
        let events: Vec<Option<Vec<u8>>> = redis::cmd("HMGET")
            .arg(&self.keys.parked)
            .arg(&offsets)
            .query_async(&mut self.connection())
            .await?;
        let (mut there, mut found) = (Vec::new(), Vec::new());
        for (offset, event) in offsets.into_iter().zip(events) {
            if let Some(event) = event {
                there.push(offset);
                found.push(event);
            }
        }
        Ok(Window::new(0, found).sparse(there, Vec::new()))
    }

    /// Gives the queue up, so that another instance need not wait for the lease to end.
    pub(crate) async fn release(&self) -> Result<(), SourceError> {
        let mut call = self.release.prepare_invoke();
        call.key(&self.keys.owner).arg(&self.epoch);
        self.invoke(&call).await
    }
}

/// What a fenced script answered.
pub(super) fn fenced(answer: i64) -> Result<u64, SourceError> {
    match answer {
        script::FENCED => Err(SourceError::Fenced),
        script::FOREIGN => Err(SourceError::ForeignPop),
        n => Ok(u64::try_from(n).unwrap_or(0)),
    }
}

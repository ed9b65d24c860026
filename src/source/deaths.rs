//! Records which processes died over what is unsettled, and sets the guilty event aside.
//!
//! A process marks in Redis, by its name, that it works. Every end of the work but the process's own takes the mark
//! away. A process that has lost Redis or the lease cannot do so. It says that it lives when it looks at the queue
//! again.

use super::connection::Connection;
use redis::Script;

use super::error::SourceError;
use super::lease::{Lease, fenced};
use super::list::List;
use super::lua::whole;
use super::script;
use crate::config::Keys;

/// What is known of processes that died over what is at the head of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deaths {
    /// Processes that died since the last commit.
    pub(crate) deaths: u64,
    /// The end of the part that the last of them was working on alone, if it was; it begins at the base.
    pub(crate) suspect: Option<i64>,
    /// How many of them were working on just that part, and it was one event.
    pub(crate) alone: u64,
}

/// A share of what is to be recovered, from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecoveryPart {
    /// Where it ends.
    pub(crate) end: i64,
    /// It is one event.
    pub(crate) is_one: bool,
}

impl Lease {
    /// What became of those that worked on this before. `process` is the caller's name.
    pub(crate) async fn tries(&self, process: &str) -> Result<Deaths, SourceError> {
        let keys = self.keys();
        let (deaths, suspect, alone): (i64, String, u64) = Script::new(script::TRIES)
            .key(&[&keys.owner, &keys.base, &keys.tries, &keys.instances])
            .arg(self.args())
            .arg(process)
            .invoke_async(&mut self.connection())
            .await?;
        Ok(Deaths { deaths: fenced(deaths)?, suspect: suspect.parse().ok(), alone })
    }

    /// Marks that this process is about to work on what is to be recovered: on all of it, or on a part alone.
    pub(crate) async fn works(&self, process: &str, part: Option<RecoveryPart>) -> Result<(), SourceError> {
        let answer: i64 = Script::new(script::WORK)
            .key(&[&self.keys().owner, &self.keys().base, &self.keys().tries])
            .arg(self.args())
            .arg(process)
            .arg(part.map(|part| part.end.to_string()).unwrap_or_default())
            .arg(u8::from(part.is_some_and(|part| part.is_one)))
            .invoke_async(&mut self.connection())
            .await?;
        fenced(answer).map(drop)
    }

    /// Takes the mark away: whatever ends this process now, it is not what it works on.
    pub(crate) async fn rests(&self, process: &str) -> Result<(), SourceError> {
        lives(&mut self.connection(), self.keys(), process).await
    }
}

/// Says of a process that it lives: its mark does not count.
pub(crate) async fn lives(
    connection: &mut Connection,
    keys: &Keys,
    process: &str,
) -> Result<(), SourceError> {
    let call = Script::new(script::LIVES).key(&keys.tries).arg(process).invoke_async::<i64>(connection).await;
    Ok(call.map(drop)?)
}

impl List {
    /// Makes a dead letter of the element at the base, without reading it. `letter` is the JSON object without its
    /// event.
    pub(super) async fn set_aside(&self, letter: &str) -> Result<(), SourceError> {
        let mut control = self.control().await;
        let new_base = (control.offset + 1).to_string();
        let keys = self.lease().keys();
        let answer: i64 = Script::new(&whole(script::SET_ASIDE))
            .key(&[
                &keys.queue,
                &keys.owner,
                &keys.base,
                &keys.head,
                &keys.dead_list,
                &keys.tries,
                &keys.refused,
            ])
            .arg(self.lease().args())
            .arg(&control.base)
            .arg(&new_base)
            .arg(letter.strip_prefix('{').unwrap_or(letter))
            .arg(script::padded(control.offset))
            .arg(script::REFUSED_KEPT)
            .invoke_async(&mut control.connection.clone())
            .await?;
        fenced(answer)?;
        control.offset += 1;
        control.base = new_base;
        Ok(())
    }
}

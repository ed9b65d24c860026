//! Events that kill: what is known of attempts that ended with the process, and setting the guilty aside.

use redis::Script;

use super::error::SourceError;
use super::lease::{Lease, fenced};
use super::list::List;
use super::script;

/// Attempts to settle what is at the head of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tries {
    /// Processes, this one included, that took the queue over since the last commit.
    pub count: u64,
    /// The end of the part that the last one was working on alone; it begins at the base.
    pub part: Option<i64>,
    /// Processes that were working on the one event at the base when their ownership ended.
    pub alone: u64,
}

impl Lease {
    /// Counts this process in.
    ///
    /// # Errors
    /// Fenced, or Redis's.
    pub async fn tries(&self, process: &str) -> Result<Tries, SourceError> {
        let (count, part, alone): (i64, String, u64) = Script::new(script::TRIES)
            .key(&[&self.keys().owner, &self.keys().base, &self.keys().tries])
            .arg(self.args())
            .arg(process)
            .invoke_async(&mut self.connection())
            .await?;
        Ok(Tries { count: fenced(count)?, part: part.parse().ok(), alone })
    }

    /// Notes that this process is about to work on the elements from the base to `end` alone, `single` if it is one.
    ///
    /// # Errors
    /// Fenced, or Redis's.
    pub async fn part(&self, process: &str, end: i64, single: bool, count: u64) -> Result<(), SourceError> {
        let answer: i64 = Script::new(script::PART)
            .key(&[&self.keys().owner, &self.keys().base, &self.keys().tries])
            .arg(self.args())
            .arg(process)
            .arg(end)
            .arg(count)
            .arg(u8::from(single))
            .invoke_async(&mut self.connection())
            .await?;
        fenced(answer).map(drop)
    }
}

impl List {
    /// Makes a dead letter of the element at the base, without reading it. `letter` is the JSON object without its event.
    ///
    /// # Errors
    /// Fenced, or Redis's.
    pub(super) async fn set_aside(&self, letter: &str) -> Result<(), SourceError> {
        let mut control = self.control().await;
        let new_base = (control.offset + 1).to_string();
        let keys = self.lease().keys();
        let answer: i64 = Script::new(script::SET_ASIDE)
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

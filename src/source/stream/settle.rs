//! Commits what is settled of a stream, and looks at it.

use redis::RedisResult;

use super::id::EntryId;
use super::{Commits, Counts, Stream, script};
use crate::commit::Checkpoint;
use crate::config::Trim;
use crate::source::error::SourceError;
use crate::source::lease::fenced;
use crate::source::window::{Depth, QueueLook};

/// Where the group is to be.
pub(super) struct CommitTarget {
    /// None: it stays, and what is pending up to this id is acknowledged.
    pub(super) position: Option<EntryId>,
    pub(super) to: EntryId,
    /// The entries that are settled by this.
    pub(super) entries: u64,
}

impl Stream {
    /// Puts the group behind everything below `checkpoint`, moves the dead letters among it to their list, and trims.
    pub(in crate::source) async fn commit(
        &self,
        checkpoint: Checkpoint,
        dead: &[i64],
    ) -> Result<Depth, SourceError> {
        let mut commits = self.commits.lock().await;
        let to = EntryId::before(checkpoint.end);
        let target = CommitTarget {
            position: (checkpoint.end > self.pending_end()).then_some(to),
            to,
            entries: checkpoint.events.saturating_sub(commits.events),
        };
        let counts = self.settle(&mut commits, &target, dead, &[]).await?;
        commits.events = checkpoint.events;
        Ok(self.depth(counts))
    }

    /// Runs the commit script.
    pub(super) async fn settle(
        &self,
        commits: &mut Commits,
        target: &CommitTarget,
        dead: &[i64],
        letters: &[String],
    ) -> Result<Counts, SourceError> {
        let keys = self.lease.keys();
        let mut call = self.scripts.commit.prepare_invoke();
        call.key(&[&keys.queue, &keys.owner, &keys.base, &keys.stream]);
        call.key(&[&keys.dead, &keys.dead_list, &keys.tries]);
        let end = target.to.nearest().saturating_add(1);
        let new_base = end.to_string();
        let position = target.position.map(|id| id.to_string()).unwrap_or_default();
        let count = commits.count.map(|count| count + target.entries);
        call.arg(self.lease.args()).arg(&[&commits.base, &new_base]).arg(&self.group).arg(&position);
        call.arg(count.map_or("-1".to_owned(), |count| count.to_string()));
        call.arg(target.to.to_string()).arg(script::CONSUMER);
        match self.trim {
            _ if target.position.is_none() => call.arg(self.acknowledge.how()).arg(""),
            Trim::MaxLen(bound) => call.arg("maxlen").arg(bound.maxlen),
            _ if self.trim == Trim::DELETE => call.arg("minid").arg(target.to.next().to_string()),
            _ => call.arg("").arg(""),
        };
        call.arg(dead.len()).arg(dead).arg(letters);
        type ScriptReply = (i64, i64, u64, u64, i64);
        let answer: RedisResult<ScriptReply> = call.invoke_async(&mut self.lease.connection()).await;
        let (answer, moved, lag, pending, added) = answer?;
        fenced(answer)?;
        if moved != 0 {
            self.was_moved();
        }
        if let Some(position) = target.position {
            (commits.base, commits.offset, commits.position) = (new_base, end, position);
            commits.count = count;
        }
        Ok((lag, pending, added))
    }

    /// Extends the lease, and looks at how much is there, and at the oldest entry that is not settled: the first from
    /// `settled_to` on.
    pub(in crate::source) async fn look(&self, settled_to: i64) -> Result<QueueLook, SourceError> {
        let keys = self.lease.keys();
        let mut commits = self.commits.lock().await;
        let from = EntryId::before(settled_to).max(commits.position);
        let mut call = self.scripts.look.prepare_invoke();
        call.key(&[&keys.queue, &keys.owner, &keys.stream, &keys.dead_list]);
        call.arg(self.lease.args()).arg(&self.group).arg(format!("({from}"));
        type LookReply = (i64, u64, u64, i64, i64, u64, u64, String);
        let (answer, lag, pending, added, count, removed, dead, oldest): LookReply =
            call.invoke_async(&mut self.lease.connection()).await?;
        self.wire.lock().await.rest(&keys.owner).await?;
        fenced(answer)?;
        commits.count = u64::try_from(count).ok();
        drop(commits);
        if removed > 0 {
            self.are_gone("they were not read");
        }
        // What was pending at first is older than all that is read.
        let oldest = if settled_to < self.pending_end() { Some(settled_to) } else { offset_of(&oldest) };
        Ok(QueueLook { depth: self.depth((lag, pending, added)), dead: Some(dead), oldest })
    }
}

fn offset_of(id: &str) -> Option<i64> {
    EntryId::parse(id).map(EntryId::nearest)
}

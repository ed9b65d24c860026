//! Handles entries that take another way: pending ones, those whose ids do not fit, and those that kill.

use std::ops::Range;

use super::entry::{Entries, PayloadForm};
use super::id::EntryId;
use super::settle::CommitTarget;
use super::{Reading, Stream, script};
use crate::dead_letter::{Dead, Reason, Rejection, render};
use crate::source::error::SourceError;
use crate::source::lease::fenced;

impl Stream {
    /// Claims what was pending when tidegate first found the group. What other consumers hold of that when tidegate
    /// `has_read` what is behind comes too late, and becomes a dead letter. Answers the offset of the first claimed.
    pub(super) async fn claim(&self, has_read: bool) -> Result<Option<i64>, SourceError> {
        let keys = self.lease.keys();
        let (mut from, mut first) = ("-".to_owned(), None);
        loop {
            let mut call = self.scripts.claim.prepare_invoke();
            call.key(&keys.queue).key(&keys.owner).arg(self.lease.args()).arg(&self.group).arg(&from);
            call.arg(self.adopted.to_string()).arg(u8::from(has_read)).arg(script::CONSUMER);
            type Claimed = (i64, String, Vec<String>, Vec<String>);
            let (answer, last, claimed, late): Claimed =
                call.invoke_async(&mut self.lease.connection()).await?;
            fenced(answer)?;
            if last.is_empty() {
                return Ok(first);
            }
            let offsets = claimed.iter().map(|id| EntryId::parse(id).and_then(EntryId::offset));
            first = first.or_else(|| offsets.clone().flatten().next());
            let misfits = claimed.iter().zip(offsets).filter(|(_, offset)| offset.is_none());
            for (id, _) in misfits {
                self.refuse(id, does_not_fit).await?;
            }
            for id in &late {
                self.refuse(id, out_of_order).await?;
            }
            from = format!("({last}");
        }
    }

    /// Makes a dead letter of a pending entry, if it still exists, and acknowledges it.
    async fn refuse(&self, id: &str, why: impl Fn(EntryId) -> Rejection) -> Result<(), SourceError> {
        let keys = self.lease.keys();
        let mut range = redis::pipe();
        range.cmd("XRANGE").arg(&keys.queue).arg(id).arg(id);
        let found = Entries::of_range(self.wire.lock().await.get().await?.ask(&range).await?, 0, &self.form)?;
        let refused = self.letters(&found, why);
        let mut call = self.scripts.refuse.prepare_invoke();
        call.key(&keys.queue).key(&keys.owner).key(&keys.dead_list).arg(self.lease.args());
        call.arg(&self.group).arg(self.acknowledge.how()).arg(id).arg(&refused.texts);
        self.lease.invoke(&call).await?;
        self.letters.recorded_unread(&refused.dead());
        Ok(())
    }

    /// Makes dead letters of entries whose ids do not fit, and puts the group behind them, if everything before is
    /// committed.
    pub(super) async fn pass_misfits(&self, reading: &mut Reading) -> Result<(), SourceError> {
        let mut commits = self.commits.lock().await;
        let Some(last) = reading.misfits.last().map(|entry| entry.id) else { return Ok(()) };
        if commits.position != reading.past {
            return Ok(());
        }
        let refused = self.letters(&reading.misfits, does_not_fit);
        let entries = reading.misfits.len() as u64;
        let target = CommitTarget { position: Some(last), to: last, entries };
        self.settle(&mut commits, &target, &[], &refused.texts).await?;
        self.letters.recorded_unread(&refused.dead());
        (reading.past, reading.misfits) = (last, Entries::default());
        Ok(())
    }

    fn letters<'e>(&self, entries: &'e Entries, why: impl Fn(EntryId) -> Rejection) -> RefusedEntries<'e> {
        let now = bson::DateTime::now();
        let entries = entries.iter().map(|(entry, event)| (entry.id, event, why(entry.id))).collect();
        let mut refused = RefusedEntries { texts: Vec::new(), entries };
        refused.texts =
            refused.dead().iter().map(|dead| render(dead, &self.lease.keys().queue, now)).collect();
        refused
    }

    /// Where the first `events` events of a range end.
    pub(in crate::source) async fn part_end(
        &self,
        range: Range<i64>,
        events: i64,
    ) -> Result<i64, SourceError> {
        let nth = self.nth(&range, events).await?.and_then(EntryId::offset);
        Ok(nth.map_or(range.end, |offset| range.end.min(offset.saturating_add(1))))
    }

    /// The id of the n-th entry of a range.
    async fn nth(&self, range: &Range<i64>, n: i64) -> Result<Option<EntryId>, SourceError> {
        let was_pending = range.start < self.pending_end();
        let mut from = EntryId::before(range.start);
        if !was_pending {
            from = from.max(self.commits.lock().await.position);
        }
        let mut call = self.scripts.nth.prepare_invoke();
        call.key(&self.lease.keys().queue).key(&self.lease.keys().owner).arg(self.lease.args());
        call.arg(&self.group).arg(format!("({from}")).arg(EntryId::before(range.end).to_string()).arg(n);
        call.arg(if was_pending { script::CONSUMER } else { "" });
        let (answer, id): (i64, String) = call.invoke_async(&mut self.lease.connection()).await?;
        fenced(answer)?;
        Ok(EntryId::parse(&id))
    }

    /// Makes a dead letter of the first entry of a range, without reading it.
    pub(in crate::source) async fn set_aside(
        &self,
        range: Range<i64>,
        letter: &str,
    ) -> Result<(), SourceError> {
        let Some(id) = self.nth(&range, 1).await? else { return Err(SourceError::ForeignPop) };
        let mut commits = self.commits.lock().await;
        let keys = self.lease.keys();
        let was_pending = range.start < self.pending_end();
        let end = id.nearest().saturating_add(1);
        let new_base = if was_pending { String::new() } else { end.to_string() };
        let count = commits.count.map(|count| count + 1);
        let field = match &self.form {
            PayloadForm::Field(field) => &field[..],
            PayloadForm::Flat => b"",
        };
        let mut call = self.scripts.set_aside.prepare_invoke();
        call.key(&[&keys.queue, &keys.owner, &keys.base, &keys.stream, &keys.dead_list, &keys.tries]);
        call.arg(self.lease.args()).arg(&[&commits.base, &new_base]).arg(&self.group).arg(id.to_string());
        call.arg(count.map_or("-1".to_owned(), |count| count.to_string())).arg(field);
        call.arg(letter.strip_prefix('{').unwrap_or(letter)).arg(self.acknowledge.how());
        self.lease.invoke(&call).await?;
        if !was_pending {
            (commits.base, commits.offset, commits.position) = (new_base, end, id);
            commits.count = count;
        }
        Ok(())
    }
}

/// Entries that never take effect, each with the reason, and their dead letters.
struct RefusedEntries<'e> {
    texts: Vec<String>,
    entries: Vec<(EntryId, &'e [u8], Rejection)>,
}

impl RefusedEntries<'_> {
    fn dead(&self) -> Vec<Dead<'_>> {
        let mut dead = Vec::with_capacity(self.entries.len());
        for (id, event, rejection) in &self.entries {
            let offset = id.nearest();
            dead.push(Dead { offset, event, rejection, traceparent: None, entity: None });
        }
        dead
    }
}

fn does_not_fit(id: EntryId) -> Rejection {
    let text = format!("the entry's id {id} does not fit into an offset: its parts may have 43 and 20 bits");
    Rejection::new(Reason::BadEvent, text)
}

fn out_of_order(id: EntryId) -> Rejection {
    let text = format!("out of order: another consumer held the entry {id} while later ones were read");
    Rejection::new(Reason::OutOfOrder, text)
}

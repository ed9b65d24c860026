//! Reads once more what a former owner, or other consumers, had read and not settled.

use std::ops::Range;

use super::entry::Entries;
use super::id::EntryId;
use super::{Fence, Stream, script};
use crate::source::Window;
use crate::source::error::SourceError;
use crate::source::lease::fenced;

impl Stream {
    /// Reads unsettled entries once more: of those that were pending at first, those that still are.
    pub(in crate::source) async fn reread(
        &self,
        range: Range<i64>,
        count: usize,
    ) -> Result<Window, SourceError> {
        let pending_to = self.pending_end();
        let mut past = EntryId::before(range.start);
        if range.start >= pending_to {
            past = past.max(self.commits.lock().await.position);
            let mut entries = self.ask_again(past, Some(EntryId::before(range.end)), count).await?;
            // Ids that do not fit were dealt with before anything behind them was read.
            entries.retain(|entry| entry.id.offset().is_some());
            return Ok(entries.into_window_at(range.start));
        }
        let end = range.end.min(pending_to);
        loop {
            let mut entries = self.ask_again(past, None, count).await?;
            if entries.gone() > 0 {
                self.are_gone("some that were pending are gone");
            }
            let seen = entries.seen();
            entries.retain(|entry| entry.id.offset().is_some_and(|offset| offset < end));
            match seen {
                // Behind those that are gone are others.
                Some(seen) if entries.is_empty() && seen.nearest() < end => past = seen,
                _ => return Ok(entries.into_window_at(range.start)),
            }
        }
    }

    /// Asks for entries that were read before, behind `past`: up to the id `to`, or else those that are pending.
    async fn ask_again(
        &self,
        past: EntryId,
        to: Option<EntryId>,
        count: usize,
    ) -> Result<Entries, SourceError> {
        let keys = self.lease.keys();
        let mut pipe = redis::pipe();
        pipe.cmd("EVALSHA").arg(self.scripts.read.get_hash()).arg(4);
        pipe.arg(&[&keys.queue, &keys.owner, &keys.read, &keys.stream]);
        pipe.arg(self.lease.args()).arg(&self.group).arg(&["", ""]);
        if let Some(to) = to {
            pipe.cmd("XRANGE").arg(&keys.queue).arg(format!("({past}")).arg(to.to_string());
            pipe.arg("COUNT").arg(count);
        } else {
            pipe.cmd("XREADGROUP").arg("GROUP").arg(&self.group).arg(script::CONSUMER);
            pipe.arg("COUNT").arg(count).arg("STREAMS").arg(&keys.queue).arg(past.to_string());
        }
        let reply = self.wire.lock().await.get().await?.ask(&pipe).await?;
        let fence: Fence = reply.value(0)?;
        fenced(fence.0)?;
        match to {
            Some(_) => Entries::of_range(reply, 1, &self.form),
            None => Entries::of_group(reply, 1, &self.form),
        }
    }
}

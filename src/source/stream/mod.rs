//! Reads and commits a Redis stream as a log.
//! Its ids are the numbers. It is read without removal and without its consumer group, whose position says what is
//! settled.

mod entry;
mod helpers;
mod id;
mod pending;
mod reread;
mod script;
mod settle;
mod take;

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use crate::source::connection::Connection;
use crate::source::on_demand::OnDemandWire;
use redis::{RedisResult, Script};
use tokio::sync::Mutex;

use self::entry::{Entries, PayloadForm};
use self::id::EntryId;
pub(crate) use self::id::ms_of;
pub(super) use self::script::ANOTHER;
use self::script::Acknowledge;
use super::Recorded;
use super::error::SourceError;
use super::lease::{Lease, fenced};
use super::lua::{calls, whole};
use super::paused::PauseNote;
use super::rights::Calls;
use super::state::QueueState;
use super::window::{Depth, Window};
use crate::config::{self, Keys, Trim};
use crate::metrics::QueueMetrics;

/// The calls of the scripts that are a stream's alone.
static CALLS: LazyLock<Calls> =
    LazyLock::new(|| calls(concat!(include_str!("helpers.rs"), include_str!("script.rs"))));

/// A stream that this instance owns.
#[derive(Debug)]
pub(super) struct Stream {
    lease: Lease,
    group: String,
    form: PayloadForm,
    trim: Trim,
    /// What becomes of entries that were pending.
    acknowledge: Acknowledge,
    scripts: StreamScripts,
    metrics: Arc<QueueMetrics>,
    letters: Arc<dyn Recorded>,
    /// For entries.
    wire: Mutex<OnDemandWire>,
    reading: Mutex<Reading>,
    commits: Mutex<Commits>,
    /// Where the group was when tidegate first found it. What is behind, tidegate reads itself; what is pending up to
    /// there, others were given.
    adopted: EntryId,
    /// The offset of the first entry that was pending then, and is not settled.
    pending_from: Option<i64>,
    /// Entries below this offset are to be recovered before anything else.
    recover_to: i64,
    /// How many streams were in this place, one after another, with this one.
    generation: i64,
    /// Entries from the base up to this offset may have been written by a former owner; the rest was only fetched.
    written_to: i64,
}

/// What was fetched, and not used yet: only when the next entries are fetched does Redis say that it may be.
#[derive(Debug, Default)]
struct Reading {
    /// The id of the last entry that was used.
    past: EntryId,
    ahead: Entries,
    /// Entries behind those, whose ids do not fit.
    misfits: Entries,
}

/// How far the queue is committed.
#[derive(Debug)]
struct Commits {
    base: String,
    offset: i64,
    /// Where the group is.
    position: EntryId,
    /// The number of entries that were ever added, up to there, if it is known.
    count: Option<u64>,
    /// Events committed under this ownership.
    events: u64,
}

#[derive(Debug)]
struct StreamScripts {
    claim: Script,
    refuse: Script,
    read: Script,
    commit: Script,
    look: Script,
    nth: Script,
    set_aside: Script,
}

impl StreamScripts {
    async fn load(connection: &mut Connection) -> RedisResult<Self> {
        let scripts = StreamScripts {
            claim: Script::new(script::CLAIM),
            refuse: Script::new(&whole(script::REFUSE)),
            read: Script::new(script::READ),
            commit: Script::new(&whole(script::COMMIT)),
            look: Script::new(script::LOOK),
            nth: Script::new(script::NTH),
            set_aside: Script::new(&whole(script::SET_ASIDE)),
        };
        // On the wire it is named by its hash.
        scripts.read.load_async(connection).await?;
        Ok(scripts)
    }
}

/// Entries behind the group's position, pending ones, and all that were ever added or -1: what the scripts answer.
type Counts = (u64, u64, i64);

/// What `READ` answers, with the bytes of the largest entry looked at before the counts.
type Fence = (i64, usize, u64, u64, i64);

impl Stream {
    /// The least Redis that counts what a consumer group has read; and what is said of an older one.
    pub(super) const LEAST_REDIS: ((u32, u32), &str) =
        ((7, 0), "Redis 7.0 or newer is needed for streams, this is FOUND");
    /// What is sent of a stream alone, beside scripts.
    pub(super) const COMMANDS: [&str; 3] = [
        "XRANGE queue - + COUNT 1",
        "XREAD COUNT 1 BLOCK 1 STREAMS queue 0",
        "XREADGROUP GROUP 0 0 COUNT 1 STREAMS queue 0",
    ];
    /// What its own scripts call.
    pub(super) const SCRIPTS: Option<&LazyLock<Calls>> = Some(&CALLS);

    /// Reads a stream's state.
    pub(super) async fn state(
        connection: &mut Connection,
        keys: &Keys,
        queue: &config::Queue,
    ) -> Result<QueueState, SourceError> {
        type StateReply = (String, String, String, String, i64, i64, u64, Option<String>);
        let (owner, base, read, position, epoch, reader, elements, paused): StateReply =
            Script::new(script::STATE)
                .key(&[&keys.queue, &keys.owner, &keys.base, &keys.read, &keys.stream, &keys.paused])
                .arg(queue.group())
                .invoke_async(connection)
                .await?;
        let owner = Some(owner).filter(|owner| !owner.is_empty());
        let paused = paused.as_deref().map(PauseNote::parse);
        Ok(QueueState { owner, base, read, position, elements, epoch, reader, paused })
    }

    /// What it has in common with other kinds of queue.
    #[must_use]
    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// How many streams were in this place, one after another, with this one. Each has ids of its own.
    #[must_use]
    pub(super) fn generation(&self) -> i64 {
        self.generation
    }

    /// The id behind which new entries are.
    pub(super) async fn past(&self) -> String {
        self.reading.lock().await.past.to_string()
    }

    /// The group is not where it was put. It is put back, and since entries are read by their ids, none is missed.
    fn was_moved(&self) {
        self.metrics.foreign_pops.increment(1);
        tracing::error!(
            queue = self.lease.keys().queue,
            group = self.group,
            "another client moves the consumer group's position, but tidegate needs the group to itself: \
             it is put back, nothing is lost"
        );
    }

    /// It is not the stream that was here at the last takeover.
    fn is_another(&self) {
        self.metrics.foreign_pops.increment(1);
        tracing::error!(
            queue = self.lease.keys().queue,
            generation = self.generation,
            "another stream is in the place of the former, which was deleted or renamed: it is read from its beginning; \
             what was not settled of the former is lost"
        );
    }

    /// Entries that were to be read again are gone.
    pub(super) fn lost_some(&self) {
        self.are_gone("some that were to be read again are gone");
    }

    /// Entries that were read, or were to be, are gone.
    fn are_gone(&self, text: &'static str) {
        self.metrics.foreign_pops.increment(1);
        tracing::error!(
            queue = self.lease.keys().queue,
            "another client removes entries before they are settled, be it by XADD with MAXLEN: {text}"
        );
    }

    fn depth(&self, (lag, pending, added): Counts) -> Depth {
        self.metrics.stream_lag.set(lag as f64);
        self.metrics.stream_pending.set(pending as f64);
        Depth { elements: lag + pending, tail: added, ..Depth::default() }
    }

    /// Reads up to `count` entries behind those read last. What is answered was fetched before: Redis has agreed that
    /// this is still the owner, and has noted that they may be written.
    pub(super) async fn read(&self, cursor: i64, count: usize) -> Result<(Window, Depth), SourceError> {
        let mut reading = self.reading.lock().await;
        loop {
            if reading.ahead.is_empty() && !reading.misfits.is_empty() {
                self.pass_misfits(&mut reading).await?;
            }
            let ready = std::mem::take(&mut reading.ahead);
            if let Some(last) = ready.last() {
                reading.past = last.id;
            }
            let fetched = reading.misfits.is_empty();
            let (counts, seen) = self.fetch(&mut reading, &ready, count).await?;
            let depth = Depth {
                ahead: reading.ahead.len() as u64,
                // What is in the way is passed when everything before it is committed.
                is_held: reading.ahead.is_empty() && !reading.misfits.is_empty(),
                ..self.depth(counts)
            };
            if !ready.is_empty() || reading.ahead.is_empty() && (!fetched || reading.misfits.is_empty()) {
                let largest = reading.ahead.largest().max(seen);
                return Ok((ready.into_window_at(cursor).with_ahead(largest), depth));
            }
        }
    }

    /// Tells Redis that the entries that are `ready` may be written, and fetches what is behind, unless that is known.
    /// Answers the bytes of the largest entry that was seen farther behind, too.
    async fn fetch(
        &self,
        reading: &mut Reading,
        ready: &Entries,
        count: usize,
    ) -> Result<(Counts, usize), SourceError> {
        let read = ready.last().map(|entry| entry.id.nearest().saturating_add(1).to_string());
        let keys = self.lease.keys();
        let mut pipe = redis::pipe();
        pipe.cmd("EVALSHA").arg(self.scripts.read.get_hash()).arg(4);
        pipe.arg(&[&keys.queue, &keys.owner, &keys.read, &keys.stream]);
        pipe.arg(self.lease.args()).arg(&self.group).arg(read.unwrap_or_default());
        let fetches = reading.misfits.is_empty();
        if fetches {
            let start = format!("({}", reading.past);
            pipe.arg(format!("{} {}", reading.past, count.max(1)));
            pipe.arg(samples(ready, count));
            pipe.cmd("XRANGE").arg(&keys.queue).arg(start).arg("+").arg("COUNT").arg(count.max(1));
        } else {
            pipe.arg("");
        }
        let reply = self.wire.lock().await.get().await?.ask(&pipe).await?;
        let (answer, largest, lag, pending, added): Fence = reply.value(0)?;
        fenced(answer)?;
        if fetches {
            reading.ahead = Entries::of_range(reply, 1, &self.form)?;
            reading.misfits = reading.ahead.split_off_misfits();
        }
        Ok(((lag, pending, added), largest))
    }

    /// What was pending, and what a former owner has read.
    pub(super) async fn unsettled(&self) -> Vec<Range<i64>> {
        let read = self.commits.lock().await.offset..self.recover_to;
        let pending = self.pending_from.map(|from| from..self.pending_end());
        pending.into_iter().chain([read]).collect()
    }

    /// Below this offset is what was pending when tidegate first found the group, and nothing that it read itself.
    fn pending_end(&self) -> i64 {
        self.adopted.nearest().saturating_add(1)
    }

    /// Whether a former owner may have decoded any of it.
    pub(super) async fn is_in_doubt(&self) -> bool {
        self.pending_from.is_some() || self.commits.lock().await.offset < self.written_to
    }

    /// Everything that was unsettled is settled; answers where new entries begin.
    pub(super) async fn recovered(&self) -> Result<i64, SourceError> {
        let commits = self.commits.lock().await;
        if commits.offset < self.recover_to {
            self.are_gone("of those that a former owner had read, the last are gone");
        }
        *self.reading.lock().await = Reading { past: commits.position, ..Reading::default() };
        Ok(commits.offset)
    }
}

/// Ids at which to look before entries are asked for, so that a window of large ones is not asked for in the size that
/// was right for small ones. A stream cannot be looked into by index: where entries are is told from how far apart the last
/// ones were. `count` are about to be fetched; the ids reach beyond those, and beyond twice as many behind them.
fn samples(ready: &Entries, count: usize) -> Vec<String> {
    const SAMPLES: i64 = 16;
    let (Some(first), Some(last)) = (ready.first(), ready.last()) else { return Vec::new() };
    let (first, last) = (first.id.nearest(), last.id.nearest());
    let (known, wanted) = (i64::try_from(ready.len()).unwrap_or(1), i64::try_from(count).unwrap_or(i64::MAX));
    let reach = ((last - first) / known).max(1).saturating_mul(wanted.saturating_mul(3));
    let at = |n: i64| EntryId::at(last.saturating_add((reach / SAMPLES * n).max(n))).to_string();
    (1..=SAMPLES).map(at).collect()
}

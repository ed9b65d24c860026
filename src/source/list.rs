//! Reads and commits a Redis list as a log: numbered, read without removal, trimmed once settled.

use std::sync::LazyLock;

use super::connection::Connection;
use super::paused::PauseNote;
use redis::{RedisResult, Script};
use sha1::{Digest, Sha1};
use tokio::sync::{Mutex, MutexGuard};

use super::error::SourceError;
use super::lease::{Lease, fenced, millis};
use super::lua::whole;
use super::meddling::Interference;
use super::on_demand::OnDemandWire;
use super::rights::Calls;
use super::script;
use super::state::QueueState;
use super::takeover::{Taken, TakeoverRequest};
use super::window::{Depth, MAX_WINDOW, MAX_WINDOW_BYTES, QueueLook, Window};
use super::{Kind, Source};
use crate::commit::Checkpoint;
use crate::config::{self, Keys};
use crate::epoch::epoch_of;

/// A list that this instance owns.
#[derive(Debug)]
pub(super) struct List {
    lease: Lease,
    scripts: ListScripts,
    /// Elements move under their indexes when the head is trimmed, so whoever reads or trims holds this.
    control: Mutex<Control>,
    /// Elements below this offset are to be recovered before anything else.
    recover_to: i64,
    /// Every element that was read and not committed was where it was.
    is_intact: bool,
}

#[derive(Debug)]
pub(super) struct Control {
    pub(super) connection: Connection,
    /// For windows.
    wire: OnDemandWire,
    /// The base as Redis has it; empty before the first numbering.
    pub(super) base: String,
    pub(super) offset: i64,
}

#[derive(Debug)]
struct ListScripts {
    read: Script,
    mark: Script,
    commit: Script,
    look: Script,
    renumber: Script,
}

impl ListScripts {
    async fn load(connection: &mut Connection) -> RedisResult<Self> {
        let scripts = ListScripts {
            read: Script::new(script::READ),
            mark: Script::new(script::MARK),
            commit: Script::new(&whole(script::COMMIT)),
            look: Script::new(script::LOOK),
            renumber: Script::new(&whole(script::RENUMBER)),
        };
        // On the wire they are named by their hashes.
        for script in [&scripts.read, &scripts.commit] {
            script.load_async(connection).await?;
        }
        Ok(scripts)
    }
}

impl List {
    /// The least Redis that has a blocking peek, `BLMOVE`; and what is said of an older one.
    pub(super) const LEAST_REDIS: ((u32, u32), &str) = (
        (6, 2),
        "Redis 6.2 or newer is needed for this delivery, this is FOUND; delivery = \"at-most-once\" works with any",
    );
    /// What is sent of a list alone, beside scripts.
    pub(super) const COMMANDS: [&str; 4] =
        ["MGET owner base read paused", "LLEN queue", "LRANGE queue 0 0", "BLMOVE queue queue LEFT LEFT 1"];
    /// All of its scripts are among the shared ones.
    pub(super) const SCRIPTS: Option<&LazyLock<Calls>> = None;

    /// Reads a list's state.
    pub(super) async fn state(
        connection: &mut Connection,
        keys: &Keys,
        _: &config::Queue,
    ) -> Result<QueueState, SourceError> {
        let (values, elements): (Vec<Option<String>>, u64) = redis::pipe()
            .cmd("MGET")
            .arg(&[&keys.owner, &keys.base, &keys.read, &keys.paused])
            .cmd("LLEN")
            .arg(&keys.queue)
            .query_async(connection)
            .await?;
        let mut values = values.into_iter();
        let mut next = || values.next().flatten();
        let (owner, base, read) = (next(), next().unwrap_or_default(), next().unwrap_or_default());
        let paused = next().as_deref().map(PauseNote::parse);
        let of_offset = |text: &str| epoch_of(text.parse().unwrap_or(0));
        let reader = of_offset(&base);
        let epoch = reader.max(of_offset(&read));
        Ok(QueueState { owner, base, read, elements, epoch, reader, paused, ..QueueState::default() })
    }

    /// Takes a queue over.
    pub(super) async fn take(mut request: TakeoverRequest<'_>) -> Result<Taken, SourceError> {
        let wire = OnDemandWire::beside(request.redis, &mut request.connection).await?;
        let previous = request.previous();
        let TakeoverRequest { mut connection, keys, seen, known, drawn, id, ttl, .. } = request;
        let (base, read) = seen.offsets();
        let (taken, place): (i64, i64) = Script::new(&whole(script::TAKE))
            .key(&[&keys.queue, &keys.owner, &keys.base, &keys.read, &keys.head, &keys.identity])
            .key(&keys.paused)
            .arg(drawn.epoch)
            .arg(millis(ttl))
            .arg(previous)
            .arg(&seen.base)
            .arg(&seen.read)
            .arg(read - base)
            .arg(&known.args())
            .arg(id)
            .invoke_async(&mut connection)
            .await?;
        let interference = match fenced(taken) {
            Ok(_) => None,
            Err(SourceError::ForeignPop) => Some(Interference::at(place)),
            Err(error) => return Err(error),
        };
        let is_intact = interference.is_none();
        let list = List {
            // Under numbers that mean nothing any more, events would pass for done. They get new ones.
            recover_to: if is_intact { read } else { base },
            is_intact,
            scripts: ListScripts::load(&mut connection).await?,
            control: Mutex::new(Control {
                connection: connection.clone(),
                wire,
                base: seen.base.clone(),
                offset: base,
            }),
            lease: Lease::new(connection, keys, drawn.epoch, ttl),
        };
        Ok(Taken { source: Source(Kind::List(Box::new(list))), interference })
    }

    /// The offsets, from base to read, that a former owner may have sent to MongoDB.
    pub(super) async fn unsettled(&self) -> std::ops::Range<i64> {
        self.control.lock().await.offset..self.recover_to
    }

    /// Reads `count` elements from `cursor` on, which are known to be there, or fewer where they are large; `raise` where they
    /// are read for the first time. With no count, only looks how much there is.
    pub(super) async fn read(
        &self,
        cursor: i64,
        count: usize,
        raise: bool,
    ) -> Result<(Window, Depth), SourceError> {
        let keys = self.lease.keys();
        let mut control = self.control.lock().await;
        let Control { wire, base, offset, .. } = &mut *control;
        let index = cursor - *offset;
        let end = index + i64::try_from(count).unwrap_or(i64::MAX);
        let mut pipe = redis::pipe();
        if count > 0 {
            pipe.cmd("LRANGE").arg(&keys.queue).arg(index).arg(end - 1);
        }
        pipe.cmd("EVALSHA").arg(self.scripts.read.get_hash()).arg(5);
        pipe.arg(&[&keys.queue, &keys.owner, &keys.base, &keys.read, &keys.head]);
        pipe.arg(self.lease.args()).arg(&*base).arg(end);
        pipe.arg(if raise && count > 0 { (*offset + end).to_string() } else { String::new() });
        let samples = Samples::behind(end);
        pipe.arg(samples.stride).arg(samples.first).arg(samples.last);
        if count == 0 && !wire.is_open() {
            // There may be nothing to open one for.
            let [(length, ahead)]: [(i64, usize); 1] = pipe.query_async(&mut self.lease.connection()).await?;
            let depth = Depth::of_list(fenced(length)?, *offset, cursor);
            return Ok((Window::new(cursor, [""; 0]).with_ahead(ahead), depth));
        }
        let answer = wire.get().await?.ask_for(&pipe, MAX_WINDOW_BYTES).await?;
        // The window is nobody's until the script has agreed.
        let (length, ahead): (i64, usize) = answer.value(usize::from(count > 0))?;
        let elements = fenced(length)?;
        let mut places = Vec::with_capacity(count);
        if count > 0 {
            let mut walk = answer.walk(0);
            if walk.array()? != Some(count) {
                return Err(SourceError::ForeignPop);
            }
            // Those that were passed over are read again. That Redis takes them for read does no harm: they are there, under
            // these numbers, and the next window says anew how far it goes.
            while !walk.is_at_end() {
                places.push(walk.bulk()?);
            }
        }
        let depth = Depth::of_list(elements, *offset, cursor + i64::try_from(places.len()).unwrap_or(0));
        Ok((Window::cut(cursor, answer.into_bytes(), places).with_ahead(ahead), depth))
    }

    /// Remembers, for the next takeover, that elements are not where they were.
    pub(super) async fn mark_moved(&self) -> Result<(), SourceError> {
        let mut call = self.scripts.mark.prepare_invoke();
        call.key(&self.lease.keys().owner).key(&self.lease.keys().head).arg(self.lease.args());
        self.lease.invoke(&call).await
    }

    /// Trims everything below `checkpoint` and moves the dead letters among it to their list.
    pub(super) async fn commit(&self, checkpoint: Checkpoint, dead: &[i64]) -> Result<Depth, SourceError> {
        let keys = self.lease.keys();
        let mut control = self.control.lock().await;
        let Control { wire, base, offset, .. } = &mut *control;
        let new_base = checkpoint.end.to_string();
        let mut call = redis::pipe();
        call.cmd("EVALSHA").arg(self.scripts.commit.get_hash()).arg(7);
        call.arg(&[&keys.queue, &keys.owner, &keys.base, &keys.head]);
        call.arg(&[&keys.dead, &keys.dead_list, &keys.refused]);
        call.arg(self.lease.args()).arg(&*base).arg(&new_base).arg(checkpoint.end - *offset);
        call.arg(hex(&checkpoint.sha1)).arg(script::REFUSED_KEPT).arg(dead);
        let elements = fenced(wire.get().await?.ask(&call).await?.value(0)?)?;
        *base = new_base;
        *offset = checkpoint.end;
        Ok(Depth::of_list(elements, checkpoint.end, i64::MAX))
    }

    /// Numbers all elements anew from the epoch's first offset, which is answered.
    pub(super) async fn renumber(&self) -> Result<i64, SourceError> {
        let first = self.lease.first_offset()?;
        let keys = self.lease.keys();
        let mut control = self.control.lock().await;
        let Control { connection, base, offset, .. } = &mut *control;
        let mut call = self.scripts.renumber.prepare_invoke();
        call.key(&keys.queue).key(&keys.owner).key(&keys.base).key(&keys.read);
        call.key(&keys.head).key(&keys.dead).key(&keys.dead_list).key(&keys.renumbered).key(&keys.parked);
        let new_base = first.to_string();
        call.arg(self.lease.args()).arg(&*base).arg(&new_base);
        call.arg(*offset).arg(if self.is_intact { &*new_base } else { "" }).arg(script::RENUMBERED_KEPT);
        fenced(call.invoke_async(connection).await?)?;
        *base = new_base;
        *offset = first;
        Ok(first)
    }

    /// Extends the lease, and looks at the number of elements, and of dead letters in their list.
    pub(super) async fn look(&self) -> Result<QueueLook, SourceError> {
        let keys = self.lease.keys();
        let mut control = self.control.lock().await;
        let mut call = self.scripts.look.prepare_invoke();
        call.key(&[&keys.queue, &keys.owner, &keys.dead_list]).arg(self.lease.args());
        let (length, dead) = call.invoke_async(&mut self.lease.connection()).await?;
        control.wire.rest(&keys.owner).await?;
        Ok(QueueLook {
            depth: Depth::of_list(fenced(length)?, control.offset, i64::MAX),
            dead: Some(dead),
            oldest: None,
        })
    }

    /// What it has in common with other kinds of queue.
    #[must_use]
    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    pub(super) async fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().await
    }
}

/// Which elements are looked at before they are asked for: every `stride`th, and the last. Else a window of large ones
/// would be asked for in the size that was right for small ones. A run of large elements longer than the stride is
/// always seen, and so is one that does not end.
struct Samples {
    stride: i64,
    first: i64,
    last: i64,
}

impl Samples {
    /// Samples the elements that may be in the next window, which begins at `index`.
    fn behind(index: i64) -> Self {
        // Redis walks to an index, node by node: the farther from the head, the fewer it is asked for.
        let stride = match index {
            ..20_000 => 64,
            20_000..100_000 => 256,
            _ => 1_024,
        };
        let most = i64::try_from(MAX_WINDOW).unwrap_or(i64::MAX);
        Samples { stride, first: index + fastrand::i64(0..stride), last: index.saturating_add(most - 1) }
    }
}

/// SHA-1 as Redis' scripts compute it.
#[must_use]
pub(super) fn sha1(element: &[u8]) -> [u8; 20] {
    Sha1::digest(element).into()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

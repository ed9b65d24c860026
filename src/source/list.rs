//! A Redis list as a log: numbered, read without removal, trimmed once settled.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Script};
use sha1::{Digest, Sha1};
use tokio::sync::{Mutex, MutexGuard};

use super::error::SourceError;
use super::keys::Keys;
use super::script;
use super::{Depth, Letter, MAX_WINDOW, Window};
use crate::commit::Checkpoint;

/// Bits of an offset below the epoch.
pub(super) const INDEX_BITS: u32 = 36;

/// Whether an epoch has few offsets left above this one, so that it is time for another.
pub(super) fn is_used_up(offset: i64) -> bool {
    const SPARE: i64 = 1 << 32;
    offset & ((1 << INDEX_BITS) - 1) > (1 << INDEX_BITS) - SPARE
}

/// The first offset of an epoch.
///
/// # Errors
/// Fatal, beyond 2^27 epochs.
pub(super) fn first_offset(epoch: i64) -> Result<i64, SourceError> {
    if (0..1 << (63 - INDEX_BITS)).contains(&epoch) {
        return Ok(epoch << INDEX_BITS);
    }
    Err(SourceError::Fatal(format!("epoch {epoch} is out of range")))
}

/// What Redis knows of a queue, before it is taken over.
#[derive(Debug, Clone, Default)]
pub struct State {
    owner: Option<String>,
    base: String,
    read: String,
    /// Elements in the queue.
    pub elements: u64,
}

impl State {
    /// Whether somebody else than the owner of `previous` owns the queue.
    #[must_use]
    pub fn is_owned(&self, previous: Option<i64>) -> bool {
        self.owner
            .as_ref()
            .is_some_and(|owner| Some(owner) != previous.map(|epoch| epoch.to_string()).as_ref())
    }

    /// The highest epoch that any offset or owner in Redis has.
    #[must_use]
    pub fn epoch(&self) -> i64 {
        let of_offset = |text: &str| epoch_of(text.parse().unwrap_or(0));
        let owner = self.owner.as_ref().and_then(|owner| owner.parse().ok()).unwrap_or(0);
        of_offset(&self.base).max(of_offset(&self.read)).max(owner)
    }
}

/// A list that this instance owns.
#[derive(Debug)]
pub struct List {
    keys: Keys,
    epoch: String,
    ttl_ms: u64,
    scripts: Scripts,
    /// Elements move under their indexes when the head is trimmed, so whoever reads or trims holds this.
    control: Mutex<Control>,
    /// Elements below this offset are to be recovered before anything else.
    recover_to: i64,
    intact: bool,
}

#[derive(Debug)]
pub(super) struct Control {
    pub(super) connection: MultiplexedConnection,
    /// The base as Redis has it; empty before the first numbering.
    pub(super) base: String,
    pub(super) offset: i64,
}

#[derive(Debug)]
struct Scripts {
    read: Script,
    mark: Script,
    commit: Script,
    renumber: Script,
    bury: Script,
    renew: Script,
    release: Script,
}

impl Scripts {
    async fn load(connection: &mut MultiplexedConnection) -> RedisResult<Self> {
        let scripts = Scripts {
            read: Script::new(script::READ),
            mark: Script::new(script::MARK),
            commit: Script::new(script::COMMIT),
            renumber: Script::new(script::RENUMBER),
            bury: Script::new(script::BURY),
            renew: Script::new(script::RENEW),
            release: Script::new(script::RELEASE),
        };
        // Pipelines name it by its hash.
        scripts.read.load_async(connection).await?;
        Ok(scripts)
    }
}

/// The number of the ownership under which an offset was given out.
#[must_use]
pub fn epoch_of(offset: i64) -> i64 {
    offset >> INDEX_BITS
}

/// Reads a queue's state.
///
/// # Errors
/// Redis's.
pub async fn state(connection: &mut MultiplexedConnection, keys: &Keys) -> Result<State, SourceError> {
    let (values, elements): (Vec<Option<String>>, u64) = redis::pipe()
        .cmd("MGET")
        .arg(&[&keys.owner, &keys.base, &keys.read])
        .cmd("LLEN")
        .arg(&keys.queue)
        .query_async(connection)
        .await?;
    let mut values = values.into_iter();
    let mut next = || values.next().flatten();
    Ok(State { owner: next(), base: next().unwrap_or_default(), read: next().unwrap_or_default(), elements })
}

impl List {
    /// Takes a queue over under a new epoch, if its state is still `seen`. `previous` is the epoch under
    /// which this very instance owned it last.
    ///
    /// # Errors
    /// Fenced if somebody was faster; Redis's.
    pub async fn take(
        mut connection: MultiplexedConnection,
        keys: Keys,
        seen: &State,
        epoch: i64,
        previous: Option<i64>,
        ttl: Duration,
    ) -> Result<Self, SourceError> {
        let previous = previous.map(|epoch| epoch.to_string()).unwrap_or_default();
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let base: i64 = seen.base.parse().unwrap_or(0);
        let read: i64 = seen.read.parse().unwrap_or(0).max(base);
        let taken: i64 = Script::new(script::TAKE)
            .key(&[&keys.queue, &keys.owner, &keys.base, &keys.read, &keys.head])
            .arg(epoch)
            .arg(ttl_ms)
            .arg(previous)
            .arg(&seen.base)
            .arg(&seen.read)
            .arg(read - base)
            .invoke_async(&mut connection)
            .await?;
        let intact = match fenced(taken) {
            Ok(_) => true,
            Err(SourceError::ForeignPop) => false,
            Err(error) => return Err(error),
        };
        Ok(List {
            // Under numbers that mean nothing any more, events would pass for done. They get new ones.
            recover_to: if intact { read } else { base },
            intact,
            epoch: epoch.to_string(),
            ttl_ms,
            scripts: Scripts::load(&mut connection).await?,
            control: Mutex::new(Control { connection, base: seen.base.clone(), offset: base }),
            keys,
        })
    }

    /// Whether every element that was read and not committed is still where it was.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.intact
    }

    /// The offsets, from base to read, that a former owner may have sent to MongoDB.
    pub async fn unsettled(&self) -> std::ops::Range<i64> {
        self.control.lock().await.offset..self.recover_to
    }

    /// Reads `count` elements from `cursor` on, which are known to be there; `raise` where they are read for
    /// the first time. With no count, only looks how much there is.
    ///
    /// # Errors
    /// Fenced, foreign pop, or Redis's.
    pub async fn read(&self, cursor: i64, count: usize, raise: bool) -> Result<(Window, Depth), SourceError> {
        let mut control = self.control.lock().await;
        let Control { connection, base, offset } = &mut *control;
        let index = cursor - *offset;
        let end = index + i64::try_from(count).unwrap_or(i64::MAX);
        let mut pipe = redis::pipe();
        if count > 0 {
            pipe.cmd("LRANGE").arg(&self.keys.queue).arg(index).arg(end - 1);
        }
        pipe.cmd("EVALSHA").arg(self.scripts.read.get_hash()).arg(5);
        pipe.arg(&[&self.keys.queue, &self.keys.owner, &self.keys.base, &self.keys.read, &self.keys.head]);
        pipe.arg(&self.epoch).arg(self.ttl_ms).arg(&*base).arg(end);
        pipe.arg(if raise && count > 0 { (*offset + end).to_string() } else { String::new() });
        let samples = Samples::behind(end);
        pipe.arg(samples.stride).arg(samples.first).arg(samples.last);
        // The window is nobody's until the script has agreed.
        type Fence = (i64, usize);
        let (events, (length, ahead)): (Vec<Vec<u8>>, Fence) = if count > 0 {
            pipe.query_async(connection).await?
        } else {
            let (fence,): (Fence,) = pipe.query_async(connection).await?;
            (Vec::new(), fence)
        };
        let elements = fenced(length)?;
        if events.len() != count {
            return Err(SourceError::ForeignPop);
        }
        let depth = Depth { elements, tail: *offset + i64::try_from(elements).unwrap_or(0) };
        Ok((Window::new(cursor, events).with_ahead(ahead), depth))
    }

    /// Remembers, for the next takeover, that elements are not where they were.
    ///
    /// # Errors
    /// Fenced, or Redis's.
    pub async fn mark_moved(&self) -> Result<(), SourceError> {
        let mut connection = self.connection().await;
        let mut call = self.scripts.mark.prepare_invoke();
        call.key(&self.keys.owner).key(&self.keys.head).arg(&self.epoch).arg(self.ttl_ms);
        fenced(call.invoke_async(&mut connection).await?).map(drop)
    }

    /// Trims everything below `checkpoint` and moves the dead letters among it to their list.
    ///
    /// # Errors
    /// Fenced, foreign pop, or Redis's.
    pub async fn commit(&self, checkpoint: Checkpoint, dead: &[i64]) -> Result<Depth, SourceError> {
        let mut control = self.control.lock().await;
        let Control { connection, base, offset } = &mut *control;
        let mut call = self.scripts.commit.prepare_invoke();
        call.key(&self.keys.queue).key(&self.keys.owner).key(&self.keys.base).key(&self.keys.head);
        call.key(&self.keys.dead).key(&self.keys.dead_list).key(&self.keys.refused);
        let new_base = checkpoint.end.to_string();
        call.arg(&self.epoch).arg(self.ttl_ms).arg(&*base).arg(&new_base).arg(checkpoint.end - *offset);
        call.arg(hex(&checkpoint.sha1)).arg(script::REFUSED_KEPT).arg(dead);
        let length: i64 = call.invoke_async(connection).await?;
        let elements = fenced(length)?;
        *base = new_base;
        *offset = checkpoint.end;
        Ok(Depth { elements, tail: checkpoint.end + i64::try_from(elements).unwrap_or(0) })
    }

    /// Numbers all elements anew from the epoch's first offset, which is answered.
    ///
    /// # Errors
    /// Fenced, or Redis's.
    pub async fn renumber(&self) -> Result<i64, SourceError> {
        let first = first_offset(self.epoch.parse().unwrap_or(-1))?;
        let mut control = self.control.lock().await;
        let Control { connection, base, offset } = &mut *control;
        let mut call = self.scripts.renumber.prepare_invoke();
        call.key(&self.keys.queue).key(&self.keys.owner).key(&self.keys.base).key(&self.keys.read);
        call.key(&self.keys.head).key(&self.keys.dead).key(&self.keys.dead_list).key(&self.keys.renumbered);
        let new_base = first.to_string();
        call.arg(&self.epoch).arg(self.ttl_ms).arg(&*base).arg(&new_base);
        call.arg(*offset).arg(if self.intact { &*new_base } else { "" }).arg(script::RENUMBERED_KEPT);
        fenced(call.invoke_async(connection).await?)?;
        *base = new_base;
        *offset = first;
        Ok(first)
    }

    /// The offsets of dead letters that were recorded and not committed.
    ///
    /// # Errors
    /// Redis's.
    pub async fn buried(&self) -> Result<Vec<i64>, SourceError> {
        let mut control = self.control.lock().await;
        let fields: Vec<String> =
            redis::cmd("HKEYS").arg(&self.keys.dead).query_async(&mut control.connection).await?;
        Ok(fields.iter().filter_map(|field| field.parse().ok()).collect())
    }

    /// Records dead letters.
    ///
    /// # Errors
    /// Fenced, or Redis's.
    pub async fn bury(&self, letters: &[Letter]) -> Result<(), SourceError> {
        let mut connection = self.connection().await;
        let mut call = self.scripts.bury.prepare_invoke();
        call.key(&self.keys.owner).key(&self.keys.dead).arg(&self.epoch).arg(self.ttl_ms);
        for letter in letters {
            call.arg(letter.offset).arg(&letter.json);
        }
        fenced(call.invoke_async(&mut connection).await?).map(drop)
    }

    /// Extends the lease.
    ///
    /// # Errors
    /// Fenced, or Redis's.
    pub async fn renew(&self) -> Result<(), SourceError> {
        let mut connection = self.connection().await;
        let mut call = self.scripts.renew.prepare_invoke();
        call.key(&self.keys.owner).arg(&self.epoch).arg(self.ttl_ms);
        fenced(call.invoke_async(&mut connection).await?).map(drop)
    }

    /// Gives the queue up, so that another instance need not wait for the lease to end.
    ///
    /// # Errors
    /// Fenced, or Redis's.
    pub async fn release(&self) -> Result<(), SourceError> {
        let mut connection = self.connection().await;
        let mut call = self.scripts.release.prepare_invoke();
        call.key(&self.keys.owner).arg(&self.epoch);
        fenced(call.invoke_async(&mut connection).await?).map(drop)
    }

    /// The number of elements, and of dead letters in their list.
    ///
    /// # Errors
    /// Redis's.
    pub async fn depth(&self) -> Result<(Depth, Option<u64>), SourceError> {
        let mut control = self.control.lock().await;
        let (elements, dead): (u64, u64) = redis::pipe()
            .cmd("LLEN")
            .arg(&self.keys.queue)
            .cmd("LLEN")
            .arg(&self.keys.dead_list)
            .query_async(&mut control.connection)
            .await?;
        Ok((Depth { elements, tail: control.offset + i64::try_from(elements).unwrap_or(0) }, Some(dead)))
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The arguments by which scripts know the owner and extend its lease.
    pub(super) fn lease(&self) -> (&str, u64) {
        (&self.epoch, self.ttl_ms)
    }

    pub(super) async fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().await
    }

    /// A handle to the connection for commands that do not depend on where elements are.
    pub(super) async fn connection(&self) -> MultiplexedConnection {
        self.control.lock().await.connection.clone()
    }
}

/// Which elements are looked at before they are asked for, so that a window of large ones is not asked for in the
/// size that was right for small ones. A run of large elements longer than the stride is always seen.
struct Samples {
    stride: i64,
    first: i64,
    last: i64,
}

impl Samples {
    /// Samples the elements that may be in the next window, which begins at `index`.
    fn behind(index: i64) -> Self {
        // Redis walks to an index. Far from the head it is asked to do so less often.
        const FAR: i64 = 20_000;
        let stride = if index < FAR { 64 } else { 256 };
        let most = i64::try_from(MAX_WINDOW).unwrap_or(i64::MAX);
        Samples { stride, first: index + fastrand::i64(0..stride), last: index.saturating_add(most - 1) }
    }
}

pub(super) fn fenced(answer: i64) -> Result<u64, SourceError> {
    match answer {
        script::FENCED => Err(SourceError::Fenced),
        script::FOREIGN => Err(SourceError::ForeignPop),
        n => Ok(u64::try_from(n).unwrap_or(0)),
    }
}

/// SHA-1 as Redis' scripts compute it.
#[must_use]
pub fn sha1(element: &[u8]) -> [u8; 20] {
    Sha1::digest(element).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

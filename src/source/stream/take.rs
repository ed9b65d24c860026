//! Takes a stream over, and claims what is pending.

use crate::source::connection::Connection;
use redis::Script;
use tokio::sync::Mutex;

use super::entry::PayloadForm;
use super::id::EntryId;
use super::script::Acknowledge;
use super::{Commits, Fence, Stream, StreamScripts, script};
use crate::config::{self, Keys, Trim};
use crate::source::connect::deletes_at_once;
use crate::source::error::SourceError;
use crate::source::lease::{Lease, fenced, millis};
use crate::source::lua::whole;
use crate::source::on_demand::OnDemandWire;
use crate::source::state::QueueState;
use crate::source::takeover::{Taken, TakeoverRequest};
use crate::source::{Kind, Source};

/// What `TAKE` answers.
struct TakeReply {
    found: FoundAs,
    /// Where the group is.
    position: EntryId,
    /// Where it was found at first.
    adopted: EntryId,
    /// The base, as Redis has it and as a number.
    base: String,
    offset: i64,
    /// Entries below this offset are read.
    read: i64,
    /// The number of entries that were ever added, up to the group's position.
    count: Option<u64>,
    pending: u64,
    /// The offset of the last entry of those fetched last.
    fetched: Option<i64>,
    generation: i64,
}

/// How the takeover found the stream.
#[derive(Clone, Copy)]
enum FoundAs {
    /// As tidegate left it.
    Left,
    /// Its group was moved.
    Moved,
    /// Another stream is in its place.
    Another,
}

impl TakeReply {
    fn decode(reply: redis::Value) -> Result<Self, SourceError> {
        type TakeFields = (i64, i64, String, String, String, String, i64, u64, String, i64);
        let fields: TakeFields = redis::from_redis_value(reply).map_err(redis::RedisError::from)?;
        let (answer, moved, position, adopted, base, read, count, pending, fetched, generation) = fields;
        fenced(answer)?;
        let numbers = QueueState { base, read, ..QueueState::default() };
        let (offset, read) = numbers.offsets();
        let known = |text: &str| {
            EntryId::parse(text)
                .ok_or_else(|| SourceError::Lost(format!("{text:?} is no id of an entry").into()))
        };
        Ok(TakeReply {
            found: match moved {
                0 => FoundAs::Left,
                2 => FoundAs::Another,
                _ => FoundAs::Moved,
            },
            position: known(&position)?,
            adopted: known(&adopted)?,
            base: numbers.base,
            offset,
            read,
            count: u64::try_from(count).ok(),
            pending,
            fetched: EntryId::parse(&fetched).and_then(EntryId::offset),
            generation,
        })
    }

    /// What was only fetched may have killed the former owner. An entry's number is its own, so to take more for read
    /// than was does no harm.
    fn recover_to(&self) -> i64 {
        self.fetched.map_or(self.read, |last| self.read.max(last.saturating_add(1)))
    }
}

impl Stream {
    /// Takes a queue over, and claims what is pending.
    pub(in crate::source) async fn take(mut request: TakeoverRequest<'_>) -> Result<Taken, SourceError> {
        let wire = OnDemandWire::beside(request.redis, &mut request.connection).await?;
        let reply = ask(&mut request).await?;
        let (found, pending) = (reply.found, reply.pending);
        let recover_to = reply.recover_to();
        let TakeoverRequest { mut connection, keys, queue, drawn, ttl, .. } = request;
        let mut stream = Stream {
            scripts: StreamScripts::load(&mut connection).await?,
            group: queue.group().to_owned(),
            form: form(queue),
            trim: queue.trim(),
            acknowledge: acknowledge(queue, request.version),
            metrics: request.metrics,
            letters: request.letters,
            wire: Mutex::new(wire),
            reading: Mutex::default(),
            commits: Mutex::new(Commits {
                base: reply.base,
                offset: reply.offset,
                position: reply.position,
                count: reply.count,
                events: 0,
            }),
            adopted: reply.adopted,
            pending_from: None,
            recover_to,
            written_to: reply.read,
            generation: reply.generation,
            lease: Lease::new(connection, keys, drawn.epoch, ttl),
        };
        match found {
            FoundAs::Left => {}
            FoundAs::Another => stream.is_another(),
            FoundAs::Moved => stream.was_moved(),
        }
        if recover_to > stream.written_to {
            stream.is_read_to(recover_to).await?;
        }
        if pending > 0 {
            stream.pending_from = stream.claim(stream.pending_end() < recover_to).await?;
        }
        Ok(Taken { source: Source(Kind::Stream(Box::new(stream))), interference: None })
    }

    /// Says that all entries below an offset are read. Once they are written, too, they must not look like what nobody has
    /// decoded yet.
    async fn is_read_to(&self, end: i64) -> Result<(), SourceError> {
        let mut call = self.scripts.read.prepare_invoke();
        let Keys { queue, owner, read, stream, .. } = self.lease.keys();
        call.key(&[queue, owner, read, stream]).arg(self.lease.args());
        call.arg(&self.group).arg(end).arg("");
        let fence: Fence = call.invoke_async(&mut self.lease.connection()).await?;
        fenced(fence.0).map(drop)
    }
}

/// Has Redis give the queue to this owner.
async fn ask(request: &mut TakeoverRequest<'_>) -> Result<TakeReply, SourceError> {
    let previous = request.previous();
    let TakeoverRequest { connection, keys, queue, seen, known, drawn, id, ttl, .. } = request;
    let connection: &mut Connection = connection;
    let position = EntryId::parse(&seen.position).unwrap_or_default();
    let reply = Script::new(&whole(script::TAKE))
        .key(&[&keys.queue, &keys.owner, &keys.base, &keys.read, &keys.stream, &keys.identity])
        .key(&[&keys.dead, &keys.dead_list, &keys.parked, &keys.paused])
        .arg(drawn.epoch)
        .arg(millis(*ttl))
        .arg(previous)
        .arg(&[&seen.base, &seen.read])
        .arg(queue.group())
        .arg(&seen.position)
        .arg(position.nearest().saturating_add(1))
        .arg(position.to_string())
        .arg(&known.args())
        .arg(*id)
        .arg(drawn.generation)
        .invoke_async(connection)
        .await?;
    TakeReply::decode(reply)
}

/// What of an entry is the event.
fn form(queue: &config::Queue) -> PayloadForm {
    if queue.flat { PayloadForm::Flat } else { PayloadForm::Field(queue.field().as_bytes().to_vec()) }
}

/// What becomes of entries that were pending, in a Redis of this version.
fn acknowledge(queue: &config::Queue, version: (u32, u32)) -> Acknowledge {
    match queue.trim() == Trim::DELETE {
        false => Acknowledge::Keep,
        true if deletes_at_once(version) => Acknowledge::DeleteAtOnce,
        true => Acknowledge::Delete,
    }
}

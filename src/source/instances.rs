//! Tells which instances drain a queue: each says so now and then, in the queue's own hash slot.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::Script;
use redis::aio::MultiplexedConnection;

use super::connect::Redis;
use super::error::SourceError;
use crate::config::Keys;

/// Forgets instances that were not heard of, notes the caller if it is able to drain, and, if it owns the queue,
/// that too. Answers the owner's name and all instances.
///
/// KEYS instances holder · ARGV name ttl-ms holds able
const HEARTBEAT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if ARGV[3] == '1' then redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2]) end
if ARGV[4] == '1' then
  redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return { redis.call('GET', KEYS[2]) or '', redis.call('ZRANGE', KEYS[1], 0, -1) }";

/// Who drains a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Instances {
    /// The instance that owns it, if one was heard of.
    pub(crate) holder: Option<String>,
    /// All instances that could.
    pub(crate) instances: BTreeSet<String>,
}

/// What an instance says of a queue.
#[derive(Debug)]
pub(crate) struct Beat<'k> {
    /// The queue's keys.
    pub(crate) keys: &'k Keys,
    /// It owns the queue.
    pub(crate) holds: bool,
    /// It could drain the queue.
    pub(crate) able: bool,
}

/// A connection over which an instance says what it drains.
#[derive(Debug)]
pub(crate) struct Roster {
    connection: MultiplexedConnection,
    heartbeat: Script,
}

impl Roster {
    /// Connects.
    pub(crate) async fn open(redis: &Redis) -> Result<Self, SourceError> {
        let mut connection = redis.connect().await?;
        let heartbeat = Script::new(HEARTBEAT);
        // Pipelines name it by its hash.
        heartbeat.load_async(&mut connection).await?;
        Ok(Roster { connection, heartbeat })
    }

    /// Says of each queue whether `name` is able to drain it, and whether it owns it; answers who is and does.
    pub(crate) async fn heartbeat(
        &mut self,
        name: &str,
        ttl: Duration,
        queues: &[Beat<'_>],
    ) -> Result<Vec<Instances>, SourceError> {
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let mut pipe = redis::pipe();
        for Beat { keys, holds, able } in queues {
            pipe.cmd("EVALSHA").arg(self.heartbeat.get_hash()).arg(2);
            pipe.arg(&keys.instances).arg(&keys.holder).arg(name).arg(ttl);
            pipe.arg(u8::from(*holds)).arg(u8::from(*able));
        }
        let answers: Vec<(String, BTreeSet<String>)> = pipe.query_async(&mut self.connection).await?;
        let members = |(holder, instances): (String, BTreeSet<String>)| Instances {
            holder: Some(holder).filter(|holder| !holder.is_empty()),
            instances,
        };
        Ok(answers.into_iter().map(members).collect())
    }

    /// Says of each queue that `name` drains it no more, so that nobody waits for it.
    pub(crate) async fn leave(&mut self, name: &str, queues: &[&Keys]) -> Result<(), SourceError> {
        let mut pipe = redis::pipe();
        for keys in queues {
            pipe.cmd("ZREM").arg(&keys.instances).arg(name).ignore();
        }
        Ok(pipe.query_async(&mut self.connection).await?)
    }
}

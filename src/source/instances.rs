//! Tells which instances drain a queue: each says so now and then, in the queue's own hash slot.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::connection::Connection;
use redis::Script;
use tokio::task::JoinSet;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Says {
    /// It owns the queue.
    pub(crate) holds: bool,
    /// It could drain the queue.
    pub(crate) able: bool,
}

/// What a heartbeat says of a queue.
#[derive(Debug)]
pub(crate) struct Beat<'k> {
    /// The queue's keys.
    pub(crate) keys: &'k Keys,
    pub(crate) says: Says,
    /// It is to be said this time.
    pub(crate) is_due: bool,
}

/// What a heartbeat heard of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It was not asked about.
    NotAsked,
    /// Its server did not answer.
    Nothing,
    /// Who drains it.
    Of(Instances),
}

/// What the script answers of each queue: the owner's name, and all instances.
type Answers = Vec<(String, BTreeSet<String>)>;

/// The connections over which an instance says what it drains: one to each server that has queues of it.
#[derive(Debug)]
pub(crate) struct Roster {
    heartbeat: Script,
    servers: Vec<RosterServer>,
    /// How long one server of several is waited for. Else all would forget this instance over one that hangs.
    patience: Duration,
    /// Every server answered last time.
    is_whole: bool,
}

/// A server, and which queues it has.
#[derive(Debug)]
struct RosterServer {
    connection: Connection,
    queues: Vec<usize>,
}

impl Roster {
    /// Connects to all servers that have these queues. They forget what they do not hear of for `ttl`.
    ///
    /// # Errors
    /// None of them can be reached, or one does not grant it.
    pub(crate) async fn open(redis: &Redis, queues: &[&Keys], ttl: Duration) -> Result<Self, SourceError> {
        let mut on: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut lost = None;
        for (at, keys) in queues.iter().enumerate() {
            match redis.of_queue(&keys.queue).server().await {
                Ok(server) => on.entry(server).or_default().push(at),
                // Its slot may be nobody's, and others are somebody's.
                Err(error) => lost = Some(error),
            }
        }
        if let Some(error) = lost.take_if(|_| on.is_empty()) {
            return Err(error);
        }
        let patience = if redis.is_cluster() { ttl / 4 } else { Duration::MAX };
        let heartbeat = Script::new(HEARTBEAT);
        let opening = on.into_values().map(|there| {
            let redis = redis.of_queue(there.first().map_or("", |at| &queues[*at].queue));
            let heartbeat = heartbeat.clone();
            async move {
                let mut connection = redis.connect().await?;
                // Pipelines name it by its hash.
                heartbeat.load_async(&mut connection).await?;
                Ok(RosterServer { connection, queues: there })
            }
        });
        let (servers, is_whole) = of_all(opening, patience).await?;
        Ok(Roster { heartbeat, servers, patience, is_whole: is_whole && lost.is_none() })
    }

    /// Whether every server answered last time. Else it is to be opened anew: slots may be elsewhere.
    #[must_use]
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Says of each queue that is due whether `name` is able to drain it, and whether it owns it; answers who is and does.
    ///
    /// # Errors
    /// No server answers, or one does not grant it.
    pub(crate) async fn heartbeat(
        &mut self,
        name: &str,
        ttl: Duration,
        queues: &[Beat<'_>],
    ) -> Result<Vec<Heard>, SourceError> {
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let asking = std::mem::take(&mut self.servers).into_iter().map(|mut server| {
            let mut pipe = redis::pipe();
            let there = server.queues.iter().filter_map(|at| Some((*at, queues.get(*at)?)));
            let mut asked = Vec::new();
            for (at, Beat { keys, says, .. }) in there.filter(|(_, beat)| beat.is_due) {
                pipe.cmd("EVALSHA").arg(self.heartbeat.get_hash()).arg(2);
                pipe.arg(&keys.instances).arg(&keys.holder).arg(name).arg(ttl);
                pipe.arg(u8::from(says.holds)).arg(u8::from(says.able));
                asked.push(at);
            }
            async move {
                let answers: Answers = if asked.is_empty() {
                    Vec::new()
                } else {
                    pipe.query_async(&mut server.connection).await?
                };
                Ok((server, asked, answers))
            }
        });
        let (answered, is_whole) = of_all(asking, self.patience).await?;
        self.is_whole &= is_whole;
        let unheard = |beat: &Beat<'_>| if beat.is_due { Heard::Nothing } else { Heard::NotAsked };
        let mut heard: Vec<_> = queues.iter().map(unheard).collect();
        for (server, asked, answers) in answered {
            for (at, (holder, instances)) in asked.into_iter().zip(answers) {
                let holder = Some(holder).filter(|holder| !holder.is_empty());
                heard[at] = Heard::Of(Instances { holder, instances });
            }
            self.servers.push(server);
        }
        Ok(heard)
    }

    /// Says of each queue that `name` drains it no more, so that nobody waits for it.
    pub(crate) async fn leave(&mut self, name: &str, queues: &[&Keys]) -> Result<(), SourceError> {
        let leaving = std::mem::take(&mut self.servers).into_iter().map(|mut server| {
            let mut pipe = redis::pipe();
            for keys in server.queues.iter().filter_map(|at| queues.get(*at)) {
                pipe.cmd("ZREM").arg(&keys.instances).arg(name).ignore();
            }
            async move { Ok(pipe.query_async::<()>(&mut server.connection).await?) }
        });
        of_all(leaving, self.patience).await.map(drop)
    }
}

/// What servers answer that are asked at once, and whether all did.
///
/// # Errors
/// One does not grant what is needed, or none answers.
async fn of_all<T: Send + 'static>(
    asked: impl Iterator<Item = impl Future<Output = Result<T, SourceError>> + Send + 'static>,
    patience: Duration,
) -> Result<(Vec<T>, bool), SourceError> {
    let hangs = |_| Err(SourceError::Lost(format!("no reply within {patience:?}").into()));
    let mut asking: JoinSet<_> =
        asked.map(|asked| async move { tokio::time::timeout(patience, asked).await }).collect();
    let (mut answers, mut last) = (Vec::with_capacity(asking.len()), None);
    while let Some(answer) = asking.join_next().await {
        match answer.map_err(SourceError::lost)?.unwrap_or_else(hangs) {
            Ok(answer) => answers.push(answer),
            Err(error) if error.is_of_rights() => return Err(error),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) if answers.is_empty() => Err(error),
        last => Ok((answers, last.is_none())),
    }
}

//! Shares queues with other instances.
//!
//! Each instance says of each queue that it drains it, and reads who else does. From that all of them work out the same
//! assignment, which spreads the queues evenly. An owner gives up a queue that is another's, and the other takes it. An
//! instance that does not reach MongoDB, or is given no epoch, says nothing. If that is so for all instances of a
//! queue, its owner keeps it.
//!
//! Nothing depends on them agreeing. The lease lets one own a queue, and fencing keeps a stalled one from doing harm.

mod ability;
mod assign;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::ability::{Fitness, Reach};
pub(crate) use self::assign::assign;
use self::turns::Turns;
use crate::beat;
use crate::config::Keys;
use crate::source::{Beat, Heard, Instances, Redis, Rights, Roster, Says, SourceError};
use crate::status::Status;

/// The longest time between two heartbeats. A queue that is given up is taken by the next owner after one or two.
const LONGEST_PERIOD: Duration = Duration::from_millis(250);

/// What Redis refuses where it refuses heartbeats.
const HEARTBEAT: &str = "heartbeat";

/// What this instance knows of its peers.
#[derive(Debug)]
pub(crate) struct Peers {
    name: String,
    period: Duration,
    ttl: Duration,
    /// The queues that have an owner, each with its place in the configuration.
    queues: Vec<(usize, Keys)>,
    /// What each of these needs of Redis.
    rights: Vec<Rights>,
    /// What is known of each of these queues. Who waits for a change is woken by one, and by nothing else.
    views: watch::Sender<Vec<View>>,
    /// Whether MongoDB gives this instance epochs of each of these queues.
    fitness: Vec<Mutex<Fitness>>,
    /// Whether MongoDB is in reach.
    reach: Mutex<Reach>,
}

/// Whose a queue should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// This instance's.
    Ours,
    /// Another live instance's.
    Theirs,
}

/// What is known of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct View {
    /// Whose it should be; None before anything is known, and if its server does not answer.
    share: Option<Share>,
    /// It should have been another's in the heartbeat before, too.
    is_certain: bool,
}

impl View {
    /// What is known after a heartbeat.
    fn followed_by(self, share: Option<Share>) -> Self {
        View { share, is_certain: share == self.share && share == Some(Share::Theirs) }
    }
}

impl Peers {
    /// An instance that is not heard of yet. `ttl` is the lease's.
    #[must_use]
    pub(crate) fn new(queues: Vec<(usize, Keys)>, ttl: Duration) -> Self {
        Peers {
            name: name(),
            period: (ttl / 8).min(LONGEST_PERIOD),
            // So that it is known before the lease of a dead one ends who is next.
            ttl: ttl / 2,
            fitness: queues.iter().map(|_| Fitness::new(ttl).into()).collect(),
            reach: Reach::new(ttl).into(),
            views: watch::Sender::new(vec![View::default(); queues.len()]),
            queues,
            rights: Vec::new(),
        }
    }

    /// The same, with what each queue needs of Redis, to tell what is missing.
    #[must_use]
    pub(crate) fn with_rights(self, rights: Vec<Rights>) -> Self {
        Peers { rights, ..self }
    }

    /// This instance's name: host, process, and a number drawn at the start.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How often peers are looked at.
    #[must_use]
    pub(crate) fn period(&self) -> Duration {
        self.period
    }

    /// Whose a queue should be, as far as is known.
    #[must_use]
    pub(crate) fn share(&self, queue: usize) -> Option<Share> {
        self.views.borrow()[self.at(queue)?].share
    }

    fn at(&self, queue: usize) -> Option<usize> {
        self.queues.binary_search_by_key(&queue, |(place, _)| *place).ok()
    }

    /// Notes that MongoDB answered, and gave no epoch of the queue. If it goes on like that, others may fare better.
    pub(crate) fn no_epoch(&self, queue: usize) {
        if let Some(at) = self.at(queue) {
            self.fitness[at].lock().refused(Instant::now());
        }
    }

    /// Notes that MongoDB gave an epoch of the queue.
    pub(crate) fn has_epoch(&self, queue: usize) {
        if let Some(at) = self.at(queue) {
            self.fitness[at].lock().given();
        }
    }

    /// Waits until a queue has been another's for two heartbeats in a row.
    pub(crate) async fn theirs(&self, queue: usize) {
        let Some(at) = self.at(queue) else { return std::future::pending().await };
        // What was seen before the queue was taken over led to that.
        tokio::time::sleep(self.period).await;
        let mut views = self.views.subscribe();
        if views.wait_for(|views| views[at].is_certain).await.is_err() {
            std::future::pending().await
        }
    }

    /// Heartbeats until stopped, and leaves then. `away` is whether MongoDB is out of reach.
    pub(crate) async fn run(
        self: Arc<Self>,
        redis: Redis,
        status: Arc<Status>,
        away: watch::Receiver<bool>,
        stop: CancellationToken,
    ) {
        let mut was_granted = false;
        while !stop.is_cancelled() {
            if let Err(error) = self.beat(&redis, &status, &away, &stop).await {
                tracing::debug!(%error, "no heartbeat");
                if let SourceError::Refused(_) = error {
                    let (error, is_granted) = self.named(&redis, error).await;
                    // A right that was granted meanwhile is no news, but what goes on is.
                    if !is_granted || was_granted {
                        status.health.redis.refuses(HEARTBEAT, &error);
                    }
                    was_granted = is_granted;
                }
                self.views.send_replace(vec![View::default(); self.queues.len()]);
            }
            stop.run_until_cancelled(sleep_until(beat::next(self.period))).await;
        }
    }

    /// A refusal, by the right that is missing if it is one; and whether that was granted meanwhile.
    async fn named(&self, redis: &Redis, error: SourceError) -> (SourceError, bool) {
        for rights in &self.rights {
            if let Err(better @ SourceError::Refused(_)) = rights.probe(redis).await {
                return (better, false);
            }
        }
        let is_granted = error.is_of_rights();
        (error, is_granted)
    }

    /// Heartbeats over one connection.
    async fn beat(
        &self,
        redis: &Redis,
        status: &Status,
        away: &watch::Receiver<bool>,
        stop: &CancellationToken,
    ) -> Result<(), SourceError> {
        let keys: Vec<&Keys> = self.queues.iter().map(|(_, keys)| keys).collect();
        let mut roster = Roster::open(redis, &keys, self.ttl).await?;
        let mut first = true;
        let mut turns = Turns::new(keys.len(), self.period, self.ttl);
        // What was heard last of queues whose server does not answer: that must not move other queues.
        let mut known = vec![Instances::default(); keys.len()];
        let mut shares = self.shares(&known);
        let mut said = Vec::new();
        while !stop.is_cancelled() {
            if !roster.is_whole() {
                roster = Roster::open(redis, &keys, self.ttl).await?;
            }
            let says = self.says(*away.borrow(), status);
            let beats = keys.iter().zip(&says).enumerate().map(|(at, (keys, says))| Beat {
                keys,
                says: *says,
                is_due: turns.has(at) || said.get(at) != Some(says),
            });
            let heard = roster.heartbeat(&self.name, self.ttl, &beats.collect::<Vec<_>>()).await?;
            said = says;
            status.health.redis.takes(HEARTBEAT);
            // Whoever waits for Redis to come back need not wait longer. Caused once a connection: how the others' fare
            // is theirs to tell.
            if std::mem::take(&mut first) {
                status.health.redis.up();
            }
            let mut changed = false;
            for (at, heard) in heard.iter().enumerate() {
                if let Heard::Of(heard) = heard
                    && known[at] != *heard
                {
                    changed = true;
                    known[at].clone_from(heard);
                    status.queues[self.queues[at].0].set_members(heard.clone());
                }
            }
            if changed {
                shares = self.shares(&known);
            }
            let is_partial = changed && turns.unsettle();
            turns.advance();
            // What a part of the queues says of a change is not how they will be shared: all are asked at once.
            if !is_partial {
                self.views.send_if_modified(|views| view(views, &heard, &shares));
                stop.run_until_cancelled(sleep_until(beat::next(self.period))).await;
            }
        }
        roster.leave(&self.name, &keys).await
    }

    /// What is to be said of each queue.
    fn says(&self, away: bool, status: &Status) -> Vec<Says> {
        let now = Instant::now();
        let reaches = self.reach.lock().is_there(away, now);
        let mut says = Vec::with_capacity(self.queues.len());
        for ((place, keys), fitness) in self.queues.iter().zip(&self.fitness) {
            let holds = status.queues[*place].is_held();
            let (is_fit, is_new) = fitness.lock().look(now);
            if is_new && !is_fit {
                let queue = &*keys.queue;
                tracing::warn!(
                    queue,
                    "MongoDB gives this instance no epoch; the queue is left to others that get one"
                );
            }
            says.push(Says { holds, able: reaches && is_fit });
        }
        says
    }

    fn shares(&self, members: &[Instances]) -> Vec<Share> {
        let queues: Vec<_> = self
            .queues
            .iter()
            .zip(members)
            .map(|((_, keys), members)| (keys.queue.as_str(), &members.instances))
            .collect();
        let ours = |instance: Option<&str>| match instance {
            Some(other) if other != self.name => Share::Theirs,
            _ => Share::Ours,
        };
        assign(&queues).into_iter().map(ours).collect()
    }
}

/// Takes account of what a heartbeat heard; answers whether anything has changed by that.
fn view(views: &mut [View], heard: &[Heard], shares: &[Share]) -> bool {
    let mut changed = false;
    for ((view, heard), share) in views.iter_mut().zip(heard).zip(shares) {
        let new = match heard {
            Heard::NotAsked if view.share.is_some() => {
                View { share: Some(*share), ..view.followed_by(Some(*share)) }
            }
            Heard::NotAsked => continue,
            Heard::Nothing => View::default(),
            Heard::Of(_) => view.followed_by(Some(*share)),
        };
        changed |= *view != new;
        *view = new;
    }
    changed
}

fn name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = Some(host.trim()).filter(|host| !host.is_empty()).unwrap_or("host");
    format!("{host}-{}-{:04x}", std::process::id(), fastrand::u16(..))
}

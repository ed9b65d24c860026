//! Takes a queue over: waits until it is free, draws an epoch, and tells Redis and MongoDB.

use std::sync::Arc;
use std::time::Duration;

use crate::source::Connection;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::drain::Queue;
use crate::config::Delivery;
use crate::epoch::Drawn;
use crate::ownership::{Claim, Unconfirmed};
use crate::peers::Share;
use crate::sink::SinkError;
use crate::source::{
    Interference, KnownQueue, QueueState, Source, SourceError, Taken, TakeoverRequest, check_version,
    identify, lives, state, version,
};
use crate::status::{Obstacle, Phase};

/// For so long what Redis grants is taken for granted.
const PROBED_FOR: Duration = Duration::from_secs(1);

/// A queue that was taken over.
pub(super) struct Takeover {
    pub(super) source: Source,
    /// How it is called in MongoDB.
    pub(super) id: String,
    pub(super) claim: Option<Arc<Claim>>,
}

impl Queue {
    /// Whether the queue, free for that long, is this instance's to take.
    fn may_take(&self, free_for: Duration) -> bool {
        let peers = &self.shared.peers;
        match peers.share(self.at) {
            Some(Share::Ours) => true,
            // The other should have come by now.
            Some(Share::Theirs) => free_for > self.shared.config.lease.ttl,
            None => free_for > peers.period() * 4,
        }
    }

    /// Waits until the queue is free and this instance's to take, and takes it over. None if stopped before.
    pub(super) async fn take_over(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<Option<Takeover>, SourceError> {
        self.probe().await?;
        let mut probed = Instant::now();
        let mut connection = self.redis.shared().await?;
        if self.previous.is_some() {
            // Another owner may have taken this process for dead.
            lives(&mut connection, &self.keys, self.shared.peers.name()).await?;
        }
        let version = version(&mut connection).await?;
        check_version(self.config.kind, version)?;
        let mut attempts = self.shared.health.mongodb.attempts();
        while let Some(seen) = self.until_free(&mut connection, stop).await? {
            // An epoch is taken for a queue that can be drained. What was granted long ago may be no more.
            if probed.elapsed() > PROBED_FOR {
                self.probe().await?;
                probed = Instant::now();
            }
            let known = identify(&mut connection, &self.keys).await?;
            let taken = match self.draw(&seen, &known).await {
                Ok(Some(drawn)) => {
                    self.status.set_obstacle(None);
                    self.take(&connection, version, (&seen, &known), drawn).await
                }
                Ok(None) => {
                    self.is_elsewhere();
                    stop.run_until_cancelled(attempts.pause()).await;
                    continue;
                }
                Err(error) => Err(Unconfirmed::Unknown(error)),
            };
            match taken {
                Ok(taken) => return Ok(Some(taken)),
                // Somebody was faster.
                Err(Unconfirmed::Ended(SourceError::Fenced)) => {}
                Err(Unconfirmed::Ended(error)) => return Err(error),
                Err(Unconfirmed::Unknown(error)) => {
                    tracing::debug!(queue = self.config.key, %error, "no epoch could be taken");
                    if !*self.shared.health.mongodb.watch_away().borrow() {
                        self.is_given_no_epoch(&error);
                        self.shared.peers.no_epoch(self.at);
                    }
                    self.shared.metrics.retried_mongodb(error.class());
                    // Then the queue is looked at again: it grows meanwhile, and may have got an owner.
                    stop.run_until_cancelled(attempts.pause()).await;
                }
            }
        }
        Ok(None)
    }

    /// Waits until the queue is free and this instance's to take; answers what Redis knows of it. None if stopped before.
    async fn until_free(
        &self,
        connection: &mut Connection,
        stop: &CancellationToken,
    ) -> Result<Option<QueueState>, SourceError> {
        let poll = (self.shared.config.lease.ttl / 16).min(Duration::from_millis(250));
        let mut standing_by = false;
        let mut free_since = None;
        while !stop.is_cancelled() {
            let seen = state(connection, &self.keys, &self.config).await?;
            // Only now: a Redis that is still loading its data answers to what came before.
            self.shared.health.redis.up();
            self.status.set_depth(seen.elements);
            self.tell_paused(seen.paused.as_ref());
            if seen.paused.is_some() {
                (free_since, standing_by) = (None, false);
                stop.run_until_cancelled(sleep(poll)).await;
                continue;
            }
            let owned = seen.is_owned(self.previous);
            if owned {
                free_since = None;
            }
            if !owned && self.may_take(free_since.get_or_insert_with(Instant::now).elapsed()) {
                return Ok(Some(seen));
            }
            if !standing_by && (owned || self.shared.peers.share(self.at).is_some()) {
                standing_by = true;
                self.status.set_obstacle(None);
                self.status.set_phase(Phase::Standby);
                tracing::info!(queue = self.config.key, "standing by: the queue is another instance's");
            }
            stop.run_until_cancelled(sleep(poll)).await;
        }
        Ok(None)
    }

    fn is_guarded(&self) -> bool {
        self.config.delivery == Delivery::ExactlyOnce
    }

    /// Draws an epoch, above all that Redis knows of. None where the queue of this id is in another Redis.
    async fn draw(&self, seen: &QueueState, known: &KnownQueue) -> Result<Option<Drawn>, SinkError> {
        let (sink, id) = (&self.shared.sink, self.config.id());
        let former = known.id(&self.config.key);
        if self.is_guarded() && former != id && !seen.is_unsettled() {
            // Else nobody could have that any more.
            sink.give_id_up(former, &known.identity).await?;
        }
        let least = seen.epoch().max(known.epoch());
        sink.next_epoch(id, least, self.is_guarded().then_some(&known.identity)).await
    }

    /// MongoDB answers, and gives no epoch: rights, mostly, on the collection that has them.
    fn is_given_no_epoch(&self, error: &SinkError) {
        let text = format!("MongoDB gives no epoch out for it: {error}");
        let advice =
            "tidegate must be able to read and write the collection tidegate; it tries again until it can.";
        if self.status.set_obstacle(Some(Obstacle { text: text.clone(), advice })) {
            tracing::warn!(
                queue = self.config.key,
                "the queue is not drained: {text}; trying again until it does"
            );
        }
    }

    /// The queue of this id is in another Redis. Each would take the other's events for applied: none of them is read.
    fn is_elsewhere(&self) {
        let (id, database) = (self.config.id(), &self.shared.config.mongodb.database);
        let text = format!("another Redis writes under the same id, {id:?}, to the database {database:?}");
        let advice =
            "Give one of the two queues an id of its own ([[queues]] id); docs/runbook.md has the choices.";
        let obstacle = Obstacle { text, advice };
        if self.status.set_obstacle(Some(obstacle.clone())) {
            tracing::error!(
                queue = self.config.key,
                "the queue is not drained: {}; give one of them another [[queues]] id",
                obstacle.text
            );
        }
    }

    /// Takes the queue over under an epoch.
    async fn take(
        &mut self,
        connection: &Connection,
        version: (u32, u32),
        (seen, known): (&QueueState, &KnownQueue),
        drawn: Drawn,
    ) -> Result<Takeover, Unconfirmed> {
        let epoch = drawn.epoch;
        // What was read under another id is settled under that: its watermarks tell what was applied.
        let is_former = self.is_guarded() && seen.is_unsettled();
        let id = if is_former { known.id(&self.config.key) } else { self.config.id() }.to_owned();
        let Taken { source, interference } = Source::take(TakeoverRequest {
            redis: &self.redis,
            connection: connection.clone(),
            version,
            queue: &self.config,
            keys: self.keys.clone(),
            seen,
            known,
            drawn,
            id: &id,
            previous: self.previous,
            // Shorter than its name says, so that by then another one has taken the queue.
            ttl: self.shared.config.lease.ttl * 7 / 8,
            metrics: Arc::clone(&self.metrics),
            letters: Arc::clone(&self.letters) as _,
        })
        .await?;
        let is_news = interference.is_none_or(|interference| self.tell_interference(interference));
        self.previous = Some(epoch);
        let claim = || Arc::new(Claim::new(self.config.id(), epoch, known.identity.clone()));
        let claim = self.is_guarded().then(claim);
        if let Some(claim) = &claim {
            claim.record(&self.shared.sink, source.generation()).await?;
            self.shared.claims.add(claim);
        }
        self.shared.peers.has_epoch(self.at);
        self.metrics.takeovers.increment(1);
        self.status.set_epoch(epoch);
        self.choose_mapping(source.is_in_doubt().await, seen.reader);
        let unsettled = source.unsettled().await;
        let recovering: Vec<_> = unsettled.iter().filter(|range| !range.is_empty()).collect();
        if is_news {
            tracing::info!(queue = self.config.key, epoch, ?recovering, "took the queue over");
        } else {
            tracing::debug!(queue = self.config.key, epoch, ?recovering, "took the queue over");
        }
        Ok(Takeover { source, id, claim })
    }

    /// Tells what another client has done to the list; answers whether that is news.
    fn tell_interference(&self, interference: Interference) -> bool {
        self.metrics.foreign_pops.increment(1);
        let Some(times) = self.status.meddled(interference) else { return false };
        tracing::error!(
            queue = self.config.key,
            times,
            "{}; this delivery needs the list to itself: all elements are numbered anew, some events may be applied twice",
            interference.text()
        );
        true
    }
}

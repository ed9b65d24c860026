//! Drains a queue: stands by, takes it over, runs until the ownership ends, and begins again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::overflow::bound;
use super::takeover::Takeover;
use super::tasks::run;
use crate::commit::Tracker;
use crate::config::{self, Delivery, Keys};
use crate::health::Attempts;
use crate::ledger::Ledger;
use crate::mapping::Mapping;
use crate::metrics::QueueMetrics;
use crate::ownership::{Letters, Owned, Parked, Pressure, Shared};
use crate::sink::Guard;
use crate::source::{Redis, Rights, Source, SourceError, Waiter};
use crate::status::{Phase, QueueStatus};
use crate::tail_clock::TailClock;

/// While Redis refuses something, it is asked at least so often.
const LONGEST_REFUSAL: Duration = Duration::from_secs(2);

/// While a node of a cluster does not answer, it is asked at least so often who has its slots.
const LONGEST_ELECTION: Duration = Duration::from_millis(500);

/// A queue of this instance, owned or not.
pub(super) struct Queue {
    /// Its place in the configuration.
    pub(super) at: usize,
    pub(super) config: config::Queue,
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: Arc<QueueMetrics>,
    pub(super) status: Arc<QueueStatus>,
    pub(super) keys: Keys,
    /// Who is told of its dead letters.
    pub(super) letters: Arc<Letters>,
    /// Where it is.
    pub(super) redis: Redis,
    /// What it needs of Redis.
    rights: Rights,
    /// Redis refused that, as was found by asking. Else it refused what it was to do, though it grants all that can be asked.
    lacks_rights: bool,
    /// Redis refused for want of a right, and granted all of them when it was asked.
    was_granted: bool,
    /// The last ownership got on.
    got_on: bool,
    /// The epoch under which this instance owned the queue last.
    pub(super) previous: Option<i64>,
    /// What the queue's events meant then.
    mapping: Arc<Mapping>,
    /// The epochs of all ownerships with that mapping.
    mapped: BTreeSet<i64>,
}

/// Drains a queue whenever this instance owns it, until stopped; then flushes, commits and hands over.
pub(crate) async fn drain(
    at: usize,
    shared: Arc<Shared>,
    metrics: Arc<QueueMetrics>,
    status: Arc<QueueStatus>,
    stop: CancellationToken,
) -> Result<(), SourceError> {
    let config = shared.config.queues[at].clone();
    let keys = shared.config.keys_of(&config.key);
    let (mapping, mapped) = (shared.live.mapping(), BTreeSet::new());
    let rights = Rights::of(&shared.config, &config, &keys);
    let redis = shared.redis.of_queue(&config.key);
    let letters = Arc::new(Letters {
        key: config.key.clone(),
        ledger: Ledger::new(Arc::clone(&metrics), Arc::clone(&shared.buffer)),
        recent: Arc::clone(&shared.status.letters),
        receipts: shared.receipts.as_ref().map(|receipts| receipts.of_queue(&config.key)),
        crowded: Default::default(),
    });
    let mut queue = Queue {
        at,
        config,
        shared,
        metrics,
        status,
        keys,
        letters,
        redis,
        rights,
        lacks_rights: false,
        was_granted: false,
        got_on: false,
        previous: None,
        mapping,
        mapped,
    };
    let mut attempts = queue.shared.health.redis.attempts();
    while !stop.is_cancelled() {
        queue.status.set_phase(Phase::Connecting);
        let ended = queue.own(&stop).await;
        queue.status.renumbered();
        queue.shared.health.mongodb.forget_failure();
        queue.status.set_phase(Phase::Connecting);
        queue.status.set_oldest_age(Duration::ZERO);
        // To have taken it over is no success: that alone could be done again and again.
        if std::mem::take(&mut queue.got_on) {
            queue.was_granted = false;
            attempts.succeeded();
        }
        match ended {
            Ok(()) => {}
            Err(error) if queue.previous.is_none() && error.is_fatal(&queue.shared.health.redis) => {
                return Err(error.about(&queue.config.key));
            }
            Err(error) => {
                let error = queue.named(error).await;
                // A right that was granted meanwhile is no news, but what goes on is.
                let is_granted = error.is_of_rights() && !queue.lacks_rights;
                if !is_granted || std::mem::replace(&mut queue.was_granted, true) {
                    queue.ended(&error);
                }
                stop.run_until_cancelled(queue.pause_after(&error, &mut attempts)).await;
            }
        }
    }
    queue.status.set_phase(Phase::Stopped);
    Ok(())
}

impl Queue {
    /// Tells how an ownership ended.
    fn ended(&self, error: &SourceError) {
        let queue = &*self.config.key;
        match error {
            SourceError::Lost(_) if self.redis.is_cluster() => {
                self.shared.health.redis.lacks(queue, &format!("queue {queue:?}: {error}"));
                self.shared.metrics.retried_redis();
            }
            SourceError::Lost(_) => {
                self.shared.health.redis.down(error);
                self.shared.metrics.retried_redis();
            }
            SourceError::Moved => {
                tracing::info!(queue, "the queue's slot has moved to another node; following it");
            }
            SourceError::Refused(told) | SourceError::Fatal(told) => {
                self.shared.health.redis.refuses(queue, &SourceError::Refused(told.clone()));
                self.shared.metrics.retried_redis();
            }
            SourceError::LoginRefused(_) => {
                self.shared.health.redis.refuses(queue, error);
                self.shared.metrics.retried_redis();
            }
            SourceError::Fenced => {
                tracing::warn!(queue, "the lease was lost; what was unsettled is left to the new owner");
            }
            SourceError::Deposed => tracing::warn!(
                queue,
                "MongoDB knows of a later owner; what was unsettled is left to it, or to the next takeover"
            ),
            SourceError::OtherId => tracing::info!(
                queue,
                id = self.config.id(),
                "what was read under the queue's former id is settled; going on under the one it has now"
            ),
            SourceError::UsedUp => tracing::info!(queue, "the epoch's offsets are used up; taking another"),
            // The takeover that follows finds the same, counts it and says what was done about it.
            SourceError::ForeignPop | SourceError::OtherStream => {}
        }
    }

    /// Waits before the queue is taken over again, as the error asks for.
    async fn pause_after(&self, error: &SourceError, attempts: &mut Attempts) {
        match error {
            // The later owner may be in the same Redis, and be seen there soon.
            SourceError::Deposed => tokio::time::sleep(self.shared.config.lease.ttl).await,
            // Asking costs little, and nobody tells when it is granted.
            error if error.is_refusal() && !self.redis.is_cluster() => {
                attempts.pause_at_most(LONGEST_REFUSAL).await
            }
            // Of an election nobody tells either, and other queues are drained meanwhile.
            _ if self.redis.is_cluster() => attempts.pause_at_most(LONGEST_ELECTION).await,
            _ => attempts.pause().await,
        }
    }

    /// A refusal, by the right that is missing if it is one.
    async fn named(&mut self, error: SourceError) -> SourceError {
        // What asks for rights comes first, and notices that it is over.
        self.lacks_rights |= matches!(error, SourceError::LoginRefused(_));
        if self.lacks_rights || !matches!(error, SourceError::Refused(_)) {
            return error;
        }
        match self.probe().await {
            Err(better @ SourceError::Refused(_)) => better,
            _ => error,
        }
    }

    /// Asks whether Redis grants all that is needed.
    pub(super) async fn probe(&mut self) -> Result<(), SourceError> {
        let probed = self.rights.probe(&self.redis).await;
        let lacks = probed.as_ref().is_err_and(SourceError::is_refusal);
        let lacked = std::mem::replace(&mut self.lacks_rights, lacks);
        if lacked && probed.is_ok() {
            self.shared.health.redis.takes(&self.config.key);
        }
        probed
    }

    /// Owns the queue once, if it becomes free before `stop`.
    async fn own(&mut self, stop: &CancellationToken) -> Result<(), SourceError> {
        let taken = match self.config.delivery {
            Delivery::AtMostOnce => {
                let shared = &self.shared;
                let (health, buffer) = (Arc::clone(&shared.health), Arc::clone(&shared.buffer));
                let (redis, keys) = (self.redis.clone(), self.keys.clone());
                self.until_resumed(stop).await?;
                if stop.is_cancelled() {
                    return Ok(());
                }
                self.probe().await?;
                tracing::warn!(queue = self.config.key, "at-most-once: events in memory at a crash are lost");
                let source = Source::pop(redis, keys, health, buffer).await?;
                self.previous.get_or_insert(0);
                self.choose_mapping(false, 0);
                Takeover { source, id: self.config.id().to_owned(), claim: None }
            }
            Delivery::ExactlyOnce | Delivery::AtLeastOnce => match self.take_over(stop).await? {
                Some(taken) => taken,
                None => return Ok(()),
            },
        };
        let unsettled = taken.source.unsettled().await;
        let from = unsettled.first().map_or(0, |range| range.start);
        let owned = Arc::new(self.owned(taken, from).await?);
        let ended = self.run_until_others_turn(&owned, stop).await;
        let is_flushed = owned.is_flushed(unsettled.last().map_or(from, |range| range.end));
        self.got_on = owned.got_on.load(Ordering::Relaxed);
        if let Some(lease) = owned.source.lease() {
            if matches!(ended, Err(SourceError::ForeignPop)) {
                owned.source.was_interfered_with().await?;
            }
            ended?;
            lease.release().await?;
            if is_flushed {
                tracing::info!(queue = self.config.key, "the queue is flushed and given up");
            } else {
                tracing::warn!(
                    queue = self.config.key,
                    "the queue is given up; what could not be flushed is in Redis, for its next owner"
                );
            }
        }
        Ok(())
    }

    /// The ownership of what was taken over, and is to be settled from the offset `from` on.
    async fn owned(&self, taken: Takeover, from: i64) -> Result<Owned, SourceError> {
        let Takeover { source, id, claim } = taken;
        let (buried, parked) = match source.lease() {
            Some(lease) => (lease.buried().await?.into_iter().collect(), lease.parked().await?),
            None => Default::default(),
        };
        let source_generation = source.generation();
        let guard = Guard::new(&id).in_generation(source_generation);
        Ok(Owned {
            source,
            mapping: Arc::clone(&self.mapping),
            recovered: CancellationToken::new(),
            guard: (self.config.delivery == Delivery::ExactlyOnce).then(|| guard.clone()),
            ledger: Arc::clone(&self.letters.ledger),
            letters: Arc::clone(&self.letters),
            metrics: Arc::clone(&self.metrics),
            status: Arc::clone(&self.status),
            receipts: self.shared.receipts.as_ref().map(|receipts| receipts.of_queue(&self.config.key)),
            tracker: Tracker::new(self.shared.config.lanes.count, from).into(),
            progress: tokio::sync::Notify::new(),
            committed: tokio::sync::Notify::new(),
            got_on: AtomicBool::new(false),
            buried: parking_lot::Mutex::new(buried),
            pressure: Pressure::default(),
            unread: AtomicU64::new(0),
            seen: tokio::sync::Notify::new(),
            parked: Parked::new(parked),
            clock: parking_lot::Mutex::new(TailClock::default()),
            held_ts: parking_lot::Mutex::new(vec![None; self.shared.config.lanes.count]),
            key: self.config.key.clone(),
            has_former_id: id != self.config.id(),
            // Offsets of another stream are no numbers of this one's.
            id: if source_generation > 1 { guard.id().to_owned() } else { id },
            claim,
            shared: Arc::clone(&self.shared),
        })
    }

    /// Decides what the queue's events mean from now on: what the newest routes say. But events that this process has
    /// read and not committed, and perhaps written, mean what they meant when it read them: under the epoch `reader`.
    pub(super) fn choose_mapping(&mut self, is_in_doubt: bool, reader: i64) {
        if !is_in_doubt || !self.mapped.contains(&reader) {
            self.mapping = self.shared.live.mapping();
            self.mapped.clear();
        }
        // What another process has read is decoded under this mapping from now on.
        self.mapped.extend(self.previous.into_iter().chain(is_in_doubt.then_some(reader)));
    }

    /// Runs an owned queue until stopped, or until it is another instance's turn; then flushes and commits.
    async fn run_until_others_turn(
        &self,
        owned: &Arc<Owned>,
        stop: &CancellationToken,
    ) -> Result<(), SourceError> {
        let leave = stop.child_token();
        let is_popped = owned.source.lease().is_none();
        let theirs = async {
            if is_popped {
                return std::future::pending().await;
            }
            self.shared.peers.theirs(self.at).await;
        };
        let others_turn = async {
            tokio::select! {
                () = theirs => tracing::info!(queue = self.config.key, "handing the queue over to another instance"),
                () = self.redis.until_paused(&self.keys) => {
                    tracing::info!(queue = self.config.key, "somebody pauses the queue: flushing what was read");
                }
            }
            leave.cancel();
            // What was popped is nowhere else.
            if stop.is_cancelled() || is_popped {
                return std::future::pending().await;
            }
            // Whoever cannot write cannot flush either. What is unsettled is in the queue, for the other.
            let mut away = self.shared.health.mongodb.watch_away();
            let is_away = async {
                if away.wait_for(|away| *away).await.is_err() {
                    std::future::pending().await
                }
            };
            let _ = tokio::time::timeout(self.shared.config.lease.ttl, is_away).await;
            if stop.is_cancelled() {
                std::future::pending().await
            }
        };
        let new_routes = async {
            self.shared.live.mapping_other_than(&owned.mapping).await;
            // Recovery is cut short by nothing but the end, or each ownership would begin it anew.
            owned.recovered.cancelled().await;
            tracing::info!(queue = self.config.key, "flushing, to go on with the new routes");
            leave.cancel();
            std::future::pending().await
        };
        let deposed = async {
            let Some(claim) = &owned.claim else { return std::future::pending().await };
            Err(claim.until_ended(&self.shared.sink).await)
        };
        let bounded = tokio::spawn(bound(Arc::clone(owned), self.config.id().to_owned()));
        let _bounded = AbortOnDropHandle::new(bounded);
        tokio::select! {
            ended = run(owned, Waiter::new(self.redis.clone(), Arc::new(self.keys.clone())), &leave) => ended,
            () = others_turn => Ok(()),
            ended = new_routes => ended,
            ended = deposed => ended,
        }
    }
}

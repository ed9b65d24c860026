//! Runs a whole instance: starts its tasks in order, and ends them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::beat;
use crate::buffer::Buffer;
use crate::config::{Config, Delivery, Keys, Queue};
use crate::health::Health;
use crate::http::{Asked, serve};
use crate::live_settings::LiveSettings;
use crate::metrics::{Exporter, QueueMetrics, ReceiptMetrics, WriteMetrics};
use crate::ownership::{Claims, Shared};
use crate::peers::Peers;
use crate::queue::drain;
use crate::receipts::Receipts;
use crate::reload::{self, Reloader};
use crate::retry::Class;
use crate::sink::{Connections, Sink, SinkError};
use crate::source::{Redis, Rights, SourceError, state};
use crate::status::Status;

/// Runs until `stop`, then flushes and commits.
///
/// # Errors
/// What no retry can overcome, at the start; or that the end came before everything was flushed.
pub async fn run(
    config: Config,
    reload: reload::ReloadSource,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let listener = listen(&config).await?;
    let exporter = Exporter::install()?;
    let live = LiveSettings::new(&config);
    let metrics = Arc::new(WriteMetrics::new(live.mapping().collections.names()));
    let queue_metrics = queue_metrics(&config, &live, &exporter);
    let receipt_metrics = ReceiptMetrics::new();
    let buffer = Buffer::new(&config.buffer);
    let peers = Arc::new(Peers::new(owned_queues(&config), config.lease.ttl).with_rights(rights(&config)));
    let status = Status::new(&config, peers.name(), Arc::clone(&buffer), &queue_metrics);
    tracing::info!("listening on http://{}", listener.local_addr()?);
    let mut background = JoinSet::new();
    background.spawn(exporter.clone().upkeep());
    background.spawn(Arc::clone(&status).watch());
    let (redis, mongodb) = (Redis::new(&config.redis).map_err(ended)?, Connections::new(&config.mongodb));
    let asked = Asked::new(redis.clone(), &config);
    background.spawn(serve(listener, Arc::clone(&status), exporter, asked.clone()));
    let reloader = Reloader {
        source: reload,
        config: config.clone(),
        live: Arc::clone(&live),
        servers: (redis.clone(), Arc::clone(&mongodb)),
        buffer: Arc::clone(&buffer),
        status: Arc::clone(&status),
        metrics: (Arc::clone(&metrics), queue_metrics.clone()),
    };
    background.spawn(reloader.run());

    let sink = tokio::select! {
        sink = connect(&mongodb, &config, &live, &status.health, &metrics, &stop) => sink.map_err(ended)?,
        error = look_at_queues(&redis, &config, &status) => return Err(ended(error)),
    };
    let Some(sink) = sink else { return Ok(()) };
    let (receipts, publisher) =
        Receipts::new(&config.receipts, &redis, &live, receipt_metrics, &status).unzip();
    let told = CancellationToken::new();
    let publishing = publisher.map(|publisher| tokio::spawn(publisher.run(told.clone())));
    let shared = Arc::new(Shared {
        redis,
        sink,
        buffer,
        write_rate: Mutex::default(),
        live,
        seed: foldhash::quality::RandomState::default(),
        metrics,
        health: Arc::clone(&status.health),
        status,
        peers,
        receipts,
        claims: Claims::default(),
        config,
    });
    asked.reaches_mongodb(Arc::clone(&shared));
    let gathering = tokio::spawn(gather(Arc::clone(&shared), stop.clone()));
    watch_mongodb(&mut background, &shared);
    let fatal = until_drained(drain_all(&shared, queue_metrics, &stop), &shared, &stop).await?;
    told.cancel();
    if let Some(publishing) = publishing {
        // Receipts are notices; what Redis does not take now nobody waits for.
        let _ = tokio::time::timeout(Duration::from_secs(1), publishing).await;
    }
    shared.sink.close().await;
    // Peers that were not told wait for a moment longer.
    let _ = tokio::time::timeout(Duration::from_secs(1), gathering).await;
    fatal.map_or(Ok(()), |error| Err(ended(error)))
}

async fn listen(config: &Config) -> anyhow::Result<TcpListener> {
    let address = config.http.listen;
    TcpListener::bind(address).await.with_context(|| format!("http.listen: {address}"))
}

/// The metrics of each queue, shown from now on.
fn queue_metrics(config: &Config, live: &LiveSettings, exporter: &Exporter) -> Vec<Arc<QueueMetrics>> {
    let collections = live.mapping().collections.clone();
    let of = |queue: &Queue| Arc::new(QueueMetrics::new(&queue.key, collections.names()));
    let metrics: Vec<_> = config.queues.iter().map(of).collect();
    metrics.iter().for_each(|queue| exporter.add(Arc::clone(queue)));
    for (queue, pattern) in config.queues.iter().filter_map(|queue| Some((queue, queue.aggregated()?))) {
        exporter.aggregate(&queue.key, pattern);
    }
    metrics
}

/// Drains each queue whenever it is this instance's.
fn drain_all(
    shared: &Arc<Shared>,
    metrics: Vec<Arc<QueueMetrics>>,
    stop: &CancellationToken,
) -> JoinSet<Result<(), SourceError>> {
    let drained = metrics.into_iter().zip(&shared.status.queues).enumerate();
    let drained = drained.map(|(at, (metrics, status))| {
        drain(at, Arc::clone(shared), metrics, Arc::clone(status), stop.clone())
    });
    drained.collect()
}

/// What ends the process. The text of such an error tells all that may be told of those that it came from.
fn ended(error: impl std::error::Error + Send + Sync + 'static) -> anyhow::Error {
    anyhow::Error::msg(error)
}

/// Waits until all queues are drained, and answers the first error that no retry can overcome.
async fn until_drained(
    mut queues: JoinSet<Result<(), SourceError>>,
    shared: &Shared,
    stop: &CancellationToken,
) -> anyhow::Result<Option<SourceError>> {
    let deadline = shared.config.shutdown.deadline;
    let overdue = async {
        stop.cancelled().await;
        shared.status.stopping();
        tokio::time::sleep(deadline).await;
    };
    tokio::pin!(overdue);
    let mut fatal = None;
    loop {
        tokio::select! {
            ended = queues.join_next() => match ended {
                Some(Ok(Ok(()))) => {}
                // The others are still given the time to flush.
                Some(Ok(Err(error))) => {
                    fatal.get_or_insert(error);
                    stop.cancel();
                }
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(fatal),
            },
            () = &mut overdue => {
                let events = shared.buffer.events();
                anyhow::bail!(
                    "{events} events could not be flushed within {deadline:?}; they stay in Redis, unless their \
                     queue is at-most-once"
                );
            }
        }
    }
}

/// The queues that have one owner at a time: those that are popped need none.
fn owned_queues(config: &Config) -> Vec<(usize, Keys)> {
    let owned = config.queues.iter().enumerate().filter(|(_, queue)| queue.delivery != Delivery::AtMostOnce);
    owned.map(|(at, queue)| (at, config.keys_of(&queue.key))).collect()
}

/// What each of these needs of Redis.
fn rights(config: &Config) -> Vec<Rights> {
    owned_queues(config).iter().map(|(at, keys)| Rights::of(config, &config.queues[*at], keys)).collect()
}

/// Connects to MongoDB, however long that takes. None if stopped meanwhile.
async fn connect(
    mongodb: &Arc<Connections>,
    config: &Config,
    live: &Arc<LiveSettings>,
    health: &Arc<Health>,
    metrics: &Arc<WriteMetrics>,
    stop: &CancellationToken,
) -> Result<Option<Sink>, SinkError> {
    let connect = || async {
        let (live, health, metrics) = (Arc::clone(live), Arc::clone(health), Arc::clone(metrics));
        let sink = Sink::connect(Arc::clone(mongodb), config, live, health, metrics).await?;
        sink.check_collections(config).await.map(|()| sink)
    };
    let attempt = || async {
        match connect().await {
            Err(error) if error.class() != Class::Fatal => {
                health.mongodb.down(&error);
                None
            }
            answered => Some(answered),
        }
    };
    stop.run_until_cancelled(health.mongodb.until(attempt)).await.transpose()
}

/// Tells of Redis and the queues for as long as no queue can be taken over, since MongoDB was not reached yet.
/// Ends only with an error that no retry can overcome.
async fn look_at_queues(redis: &Redis, config: &Config, status: &Status) -> SourceError {
    loop {
        match look(redis, config, status).await {
            Ok(()) => status.health.redis.up(),
            Err(error) if error.is_fatal(&status.health.redis) => return error,
            Err(error) => status.health.redis.down(&error),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn look(redis: &Redis, config: &Config, servers: &Status) -> Result<(), SourceError> {
    let mut connections = BTreeMap::new();
    for (queue, status) in config.queues.iter().zip(&servers.queues) {
        let redis = redis.of_queue(&queue.key);
        let connection = match connections.entry(redis.server().await?) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(none) => none.insert(redis.connect().await?),
        };
        let keys = config.keys_of(&queue.key);
        let seen = async {
            Rights::of(config, queue, &keys).probe(&redis).await?;
            state(connection, &keys, queue).await
        };
        match seen.await {
            Ok(seen) => {
                servers.health.redis.takes(&queue.key);
                status.set_depth(seen.elements);
            }
            // Whoever takes the queue over goes on to tell.
            Err(error @ SourceError::Refused(_)) => servers.health.redis.refuses(&queue.key, &error),
            Err(error) => return Err(error.about(&queue.key)),
        }
    }
    Ok(())
}

/// Keeps in touch with the other instances until stopped.
async fn gather(shared: Arc<Shared>, stop: CancellationToken) {
    let (peers, status) = (Arc::clone(&shared.peers), Arc::clone(&shared.status));
    let away = shared.health.mongodb.watch_away();
    peers.run(shared.redis.clone(), status, away, stop).await;
}

/// Makes indexes beside everything else.
async fn make_indexes(shared: Arc<Shared>) -> std::io::Result<()> {
    shared.sink.make_indexes(&shared.config).await;
    Ok(())
}

/// What MongoDB is asked, and told, beside the queues.
fn watch_mongodb(background: &mut JoinSet<std::io::Result<()>>, shared: &Arc<Shared>) {
    background.spawn(check_health(Arc::clone(shared)));
    background.spawn(make_indexes(Arc::clone(shared)));
    background.spawn(watch_claims(Arc::clone(shared)));
}

/// Notices ownerships that another followed.
async fn watch_claims(shared: Arc<Shared>) -> std::io::Result<()> {
    shared.claims.watch(&shared.sink, shared.config.lease.look_every()).await;
    Ok(())
}

/// Notices an outage of MongoDB that no write meets, and the end of any.
async fn check_health(shared: Arc<Shared>) -> std::io::Result<()> {
    const SELDOM: Duration = Duration::from_secs(2);
    const OFTEN: Duration = Duration::from_millis(200);
    let mut away = shared.health.mongodb.watch_away();
    loop {
        shared.sink.ping().await;
        if *away.borrow_and_update() {
            // Lanes send nothing meanwhile.
            tokio::time::sleep(OFTEN).await;
        } else {
            // The time passes, or a write finds an outage.
            let _ = tokio::time::timeout_at(beat::next(SELDOM), away.changed()).await;
        }
    }
}

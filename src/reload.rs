//! Reads the configuration again on SIGHUP.
//!
//! A configuration that is wrong changes nothing. Of one that is right, what can change while the instance runs
//! changes. The rest is named, and stays as it was until a restart.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::signal::unix::Signal;
use tracing::Level;

use crate::batch::Policy;
use crate::buffer::Buffer;
use crate::config::{self, Config, ConfigError, Log};
use crate::history::Histories;
use crate::live_settings::LiveSettings;
use crate::log::Filter;
use crate::metrics::{QueueMetrics, WriteMetrics};
use crate::sink::{Connections, Tombstones};
use crate::source::Redis;
use crate::status::Status;

/// Where another configuration comes from.
pub struct ReloadSource {
    /// SIGHUP.
    pub asked: Signal,
    /// Loads it as at the start.
    pub load: Box<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>,
    /// What is logged.
    pub filter: Filter,
}

/// What follows the configuration.
pub(crate) struct Reloader {
    /// Where another configuration comes from.
    pub(crate) source: ReloadSource,
    /// The one in effect.
    pub(crate) config: Config,
    /// Batches and routes.
    pub(crate) live: Arc<LiveSettings>,
    /// Reach the servers.
    pub(crate) servers: (Redis, Arc<Connections>),
    /// Bounds of memory.
    pub(crate) buffer: Arc<Buffer>,
    /// Shows the configuration.
    pub(crate) status: Arc<Status>,
    /// Have to know of new collections.
    pub(crate) metrics: (Arc<WriteMetrics>, Vec<Arc<QueueMetrics>>),
}

impl Reloader {
    /// Re-reads the configuration whenever asked.
    pub(crate) async fn run(mut self) -> std::io::Result<()> {
        loop {
            match self.source.asked.recv().await {
                Some(()) => self.reload().await,
                None => std::future::pending().await,
            }
        }
    }

    async fn reload(&mut self) {
        let new = match (self.source.load)() {
            Ok(new) => new,
            Err(error) => {
                for line in error.to_string().lines() {
                    tracing::error!("the configuration stays as it is; the new one is wrong: {line}");
                }
                return;
            }
        };
        let plan = ReloadPlan::new(&self.config, &new);
        let line = plan.line(self.source.filter.is_from_environment());
        let refused = !plan.restart.is_empty();
        let is_heard =
            || if refused { tracing::enabled!(Level::WARN) } else { tracing::enabled!(Level::INFO) };
        let tell = || if refused { tracing::warn!("{line}") } else { tracing::info!("{line}") };
        // Caused once, under the old level or the new one, whichever lets it be heard.
        let heard = is_heard();
        if heard {
            tell();
        }
        self.apply(plan).await;
        if !heard {
            tell();
        }
    }

    async fn apply(&mut self, plan: ReloadPlan) {
        let ReloadPlan { config, changed, .. } = plan;
        if changed.contains(&"log.level")
            && let Err(error) = self.source.filter.set_level(&config.log.level)
        {
            tracing::error!("log.level stays as it is: {error:#}");
        }
        // Even if nothing else has changed, a program may print another password by now.
        self.servers.0.follow(&config.redis).await;
        self.servers.1.follow(&config.mongodb).await;
        self.live.set_policy(Policy::from(&config.batch));
        self.buffer.set_bounds(&config.buffer);
        if changed.iter().any(|key| is_of_mapping(key)) {
            let mapping = self.live.mapping().followed_by(&config);
            // Before any event goes there.
            let names = mapping.collections.names();
            self.metrics.0.extend(names);
            self.metrics.1.iter().for_each(|queue| queue.extend(names));
            self.live.set_mapping(mapping);
        }
        self.status.set_config(&config);
        self.config = config;
    }
}

/// Whether the mapping is made of a key.
fn is_of_mapping(key: &str) -> bool {
    matches!(key, "routes" | "native.collections")
}

/// What is to become of a new configuration.
struct ReloadPlan {
    /// The configuration in effect afterwards.
    config: Config,
    /// The keys that change.
    changed: Vec<&'static str>,
    /// What would have to change and cannot.
    restart: Vec<String>,
}

impl ReloadPlan {
    fn new(old: &Config, new: &Config) -> Self {
        let (before, after) = (Tombstones::names(old), Tombstones::names(new));
        let differ: Vec<_> = before.symmetric_difference(&after).map(|name| format!("{name:?}")).collect();
        let mut whys = Vec::new();
        if !differ.is_empty() {
            whys.push(format!("deletes = \"tombstone\" begins or ends for {}", differ.join(", ")));
        }
        let (before, after) = (Histories::kept_for(old), Histories::kept_for(new));
        let changes =
            |name: &&&str| before.get(*name).copied().flatten() != after.get(*name).copied().flatten();
        let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
        let differ: Vec<_> = names.iter().filter(changes).map(|name| format!("{name:?}")).collect();
        if !differ.is_empty() {
            whys.push(format!("history_ttl changes for {}", differ.join(", ")));
        }
        // All who write to a collection have to agree on tombstones, and MongoDB needs indexes.
        // Routes and native collections are checked together, so they stay together.
        let mapping = if whys.is_empty() { new } else { old };
        // Whatever else is needed to reach the same server may change.
        let redis = match Redis::is_same(&old.redis, &new.redis) {
            true => config::Redis {
                sentinels: old.redis.sentinels.clone(),
                sentinel_primary: old.redis.sentinel_primary.clone(),
                cluster: old.redis.cluster.clone(),
                timeout: old.redis.timeout,
                ..new.redis.clone()
            },
            false => old.redis.clone(),
        };
        let mongodb = match Connections::is_same(&old.mongodb, &new.mongodb) {
            true => config::Mongodb {
                uri: new.mongodb.uri.clone(),
                uri_file: new.mongodb.uri_file.clone(),
                ..old.mongodb.clone()
            },
            false => old.mongodb.clone(),
        };
        // What a running instance follows; the rest needs a restart.
        let config = Config {
            redis,
            mongodb,
            log: Log { level: new.log.level.clone(), ..old.log.clone() },
            batch: new.batch.clone(),
            buffer: new.buffer.clone(),
            routes: mapping.routes.clone(),
            native: mapping.native.clone(),
            ..old.clone()
        };
        let mut restart = config.changes(new);
        restart.sort_by_key(|key| is_of_mapping(key));
        let restart = restart.into_iter().map(|key| match key {
            "routes" => format!("{key} ({})", whys.join("; ")),
            "native.collections" => format!("{key} (as long as routes do)"),
            key => key.to_owned(),
        });
        let restart = restart.collect();
        ReloadPlan { changed: old.changes(&config), restart, config }
    }

    fn line(&self, filter_is_fixed: bool) -> String {
        let shown = |key: &&'static str| match *key {
            "log.level" if filter_is_fixed => "log.level (RUST_LOG wins)",
            key => key,
        };
        let changed: Vec<_> = self.changed.iter().map(shown).collect();
        let changed = if changed.is_empty() { "nothing changed".to_owned() } else { changed.join(", ") };
        match self.restart.is_empty() {
            true => format!("configuration re-read: {changed}"),
            false => {
                format!("configuration re-read: {changed}; needs a restart: {}", self.restart.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Deletes, Route, SecretUrl};
    use std::time::Duration;

    fn deletion(collection: &str, deletes: Deletes) -> Route {
        Route {
            collection: Some(collection.into()),
            id: "id".into(),
            delete: true,
            deletes,
            ..Route::default()
        }
    }

    #[test]
    fn what_can_change_does_and_the_rest_is_named() {
        let old = Config::default();
        let mut new = old.clone();
        new.log.level = "debug".into();
        new.batch.max_delay = Duration::from_secs(1);
        new.routes = vec![deletion("a", Deletes::Hard)];
        new.redis.url = SecretUrl::new("redis://:hunter2@elsewhere");
        new.lanes.count = 9;
        let plan = ReloadPlan::new(&old, &new);
        let line = "configuration re-read: batch.max_delay, log.level, routes; needs a restart: lanes.count, redis.url";
        assert_eq!(plan.line(false), line);
        assert!(plan.line(true).contains("log.level (RUST_LOG wins)"));
        assert_eq!(plan.config.changes(&new), ["lanes.count", "redis.url"]);
        assert_eq!(
            ReloadPlan::new(&plan.config, &plan.config).line(false),
            "configuration re-read: nothing changed"
        );
    }

    #[test]
    fn what_the_same_server_is_reached_with_can_change() {
        let mut old = Config::default();
        old.redis.url = SecretUrl::new("redis://:one@cache/1");
        let mut new = old.clone();
        new.redis.url = SecretUrl::new("redis://app@cache:6379/1");
        new.redis.password_file = Some("/run/secrets/password".into());
        new.redis.cluster = vec![SecretUrl::new("redis://cache")];
        let line = "configuration re-read: redis.password_file, redis.url; needs a restart: redis.cluster";
        assert_eq!(ReloadPlan::new(&old, &new).line(false), line);
        for elsewhere in ["redis://other/1", "redis://cache/2", "rediss://cache/1", "redis://cache:6380/1"] {
            new.redis.url = SecretUrl::new(elsewhere);
            let line = "configuration re-read: nothing changed; needs a restart: redis.cluster, redis.password_file, redis.url";
            assert_eq!(ReloadPlan::new(&old, &new).line(false), line);
        }
    }

    #[test]
    fn tombstones_begin_and_end_with_a_restart() {
        let with = |deletes| Config { routes: vec![deletion("a", deletes)], ..Config::default() };
        for (old, new) in [(Deletes::Hard, Deletes::Tombstone), (Deletes::Tombstone, Deletes::Hard)] {
            let plan = ReloadPlan::new(&with(old), &with(new));
            assert_eq!(plan.config, with(old));
            let why = "routes (deletes = \"tombstone\" begins or ends for \"a\")";
            assert_eq!(
                plan.line(false),
                format!("configuration re-read: nothing changed; needs a restart: {why}")
            );
        }
        // What leaves the tombstones as they are is free to change.
        let mut more = with(Deletes::Tombstone);
        more.routes.push(deletion("b", Deletes::Hard));
        assert_eq!(ReloadPlan::new(&with(Deletes::Tombstone), &more).config, more);
    }

    #[test]
    fn how_long_events_are_kept_changes_with_a_restart() {
        let with = |history: Option<&str>, seconds: Option<u64>| {
            let mut route = deletion("a", Deletes::Hard);
            route.history = history.map(str::to_owned);
            route.history_ttl = seconds.map(Duration::from_secs);
            Config { routes: vec![route], ..Config::default() }
        };
        for (old, new) in [(Some(1), Some(2)), (None, Some(2)), (Some(1), None)] {
            let plan = ReloadPlan::new(&with(Some("h"), old), &with(Some("h"), new));
            assert_eq!(plan.config, with(Some("h"), old));
            let why = "needs a restart: routes (history_ttl changes for \"h\")";
            assert_eq!(plan.line(false), format!("configuration re-read: nothing changed; {why}"));
        }
        // One without needs no index.
        let new = with(Some("h"), None);
        assert_eq!(ReloadPlan::new(&with(None, None), &new).config, new);
    }
}

//! Finds out what a Redis is like, for `tidegate check --connect`. It changes nothing there.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::connect::{Redis, check_version, field, mode};
use super::connection::Connection;
use super::error::SourceError;
use super::rights::Rights;
use super::state::state;
use crate::config::Config;
use crate::finding::{Finding, clock};

/// What there is to say of Redis: of each server that has queues, and of each queue.
pub(crate) async fn inspect(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    let redis = match Redis::new(&config.redis) {
        Ok(redis) => redis,
        Err(error) => return vec![Finding::fatal("redis", error.to_string())],
    };
    let mut servers = BTreeMap::new();
    for queue in &config.queues {
        let redis = redis.of_queue(&queue.key);
        let server = match redis.server().await {
            Ok(server) => server,
            Err(error) => {
                let told = failed("redis", &error);
                // What ails one queue often ails all.
                if !found.contains(&told) {
                    found.push(told);
                }
                continue;
            }
        };
        if let Some(is_reached) = servers.get(&server) {
            if !is_reached {
                continue;
            }
        } else {
            let told = match redis.connect().await {
                Ok(connection) => inspect_server(&redis, connection, &server).await,
                Err(error) => Err(error),
            };
            servers.insert(server.clone(), told.is_ok());
            match told {
                Ok(told) => found.extend(told),
                Err(error) => {
                    found.push(failed(&format!("redis {server}"), &error));
                    continue;
                }
            }
        }
        let about = format!("queue {}", queue.key);
        let seen = async {
            let keys = config.keys_of(&queue.key);
            let mut connection = redis.connect().await?;
            check_version(queue.kind, super::version(&mut connection).await?)?;
            Rights::of(config, queue, &keys).probe(&redis).await?;
            state(&mut connection, &keys, queue).await
        };
        found.push(match seen.await {
            Ok(seen) => Finding::fine(about, format!("all rights are granted; {} elements", seen.elements)),
            Err(error) => failed(&about, &error),
        });
    }
    found
}

/// What cannot be done, and whether the start would wait for it.
fn failed(about: &str, error: &SourceError) -> Finding {
    match error {
        SourceError::Fatal(_) | SourceError::LoginRefused(_) => Finding::fatal(about, error.to_string()),
        _ => Finding::warning(about, format!("{error}; tidegate would wait until that is put right")),
    }
}

/// What there is to say of a server. One that does not tell about itself, as rented ones do, says so.
async fn inspect_server(
    redis: &Redis,
    mut connection: Connection,
    server: &str,
) -> Result<Vec<Finding>, SourceError> {
    redis.check_mode(&mut connection).await?;
    let about = format!("redis {server}");
    let info =
        match redis::cmd("INFO").query_async::<String>(&mut connection).await.map_err(SourceError::from) {
            Ok(info) => info,
            Err(error @ SourceError::Refused(_)) => return Ok(vec![failed(&about, &error)]),
            Err(error) => return Err(error),
        };
    let mut found = told_by(&about, &info);
    let asked = SystemTime::now();
    if let Ok((seconds, micros)) = redis::cmd("TIME").query_async::<(u64, u64)>(&mut connection).await {
        let theirs = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros);
        found.extend(clock(&about, theirs, asked));
    }
    Ok(found)
}

/// What `INFO` says that matters.
fn told_by(about: &str, info: &str) -> Vec<Finding> {
    let number = |name| field(info, name).parse::<u64>().ok();
    let kind = match (mode(info), field(info, "role:")) {
        ("cluster", _) => "a node of a cluster".to_owned(),
        (_, "slave") => "a replica".to_owned(),
        _ => format!("a primary with {} replicas", number("connected_slaves:").unwrap_or(0)),
    };
    // Valkey tells the Redis that it is compatible with, too.
    let version = match field(info, "valkey_version:") {
        "" => field(info, "redis_version:").to_owned(),
        version => format!("Valkey {version}"),
    };
    let mut found = vec![Finding::fine(about, format!("version {version}, {kind}"))];
    let (policy, limit) = (field(info, "maxmemory_policy:"), number("maxmemory:").unwrap_or(0));
    if !matches!(policy, "noeviction" | "") {
        let text =
            format!("maxmemory-policy is {policy}: events and their numbers may be evicted; set noeviction");
        // Without a limit, nothing is evicted yet.
        found.push(if limit > 0 { Finding::warning(about, text) } else { Finding::note(about, text) });
    } else if limit > 0 {
        found.push(Finding::fine(
            about,
            "maxmemory-policy is noeviction: a full Redis refuses events, and keeps those it has",
        ));
    }
    found.push(match field(info, "aof_enabled:") {
        "1" => Finding::fine(about, "the append-only file is on: what it acknowledged outlives a restart"),
        "0" => Finding::warning(
            about,
            "no append-only file: a restart loses events that it acknowledged; set appendonly yes",
        ),
        _ => Finding::note(about, "it does not tell whether it keeps events over a restart"),
    });
    if field(info, "aof_last_write_status:") == "err" {
        found.push(Finding::warning(about, "its append-only file could not be written last time"));
    }
    if field(info, "role:") == "slave" {
        found.push(Finding::warning(about, "it is a replica: nothing can be drained there"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(info: &str) -> String {
        told_by("redis", info).iter().map(|found| format!("{found}\n")).collect()
    }

    #[test]
    fn what_would_lose_events_is_a_warning() {
        let valkey = told("redis_version:7.2.4\nvalkey_version:9.1.2\nserver_mode:cluster\naof_enabled:1");
        assert!(valkey.starts_with("ok      redis: version Valkey 9.1.2, a node of a cluster\n"), "{valkey}");
        insta::assert_snapshot!(told("redis_version:7.2.4\r\nredis_mode:standalone\r\nrole:master\r\nconnected_slaves:1\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n"), @"
        ok      redis: version 7.2.4, a primary with 1 replicas
        ok      redis: the append-only file is on: what it acknowledged outlives a restart
        ");
        insta::assert_snapshot!(told("redis_version:8.0.0\nredis_mode:cluster\nrole:slave\nmaxmemory:5\nmaxmemory_policy:allkeys-lru\naof_enabled:0\naof_last_write_status:err"), @"
        ok      redis: version 8.0.0, a node of a cluster
        warning redis: maxmemory-policy is allkeys-lru: events and their numbers may be evicted; set noeviction
        warning redis: no append-only file: a restart loses events that it acknowledged; set appendonly yes
        warning redis: its append-only file could not be written last time
        warning redis: it is a replica: nothing can be drained there
        ");
        insta::assert_snapshot!(told("redis_version:7.0.0\nmaxmemory:0\nmaxmemory_policy:volatile-ttl"), @"
        ok      redis: version 7.0.0, a primary with 0 replicas
        note    redis: maxmemory-policy is volatile-ttl: events and their numbers may be evicted; set noeviction
        note    redis: it does not tell whether it keeps events over a restart
        ");
    }
}

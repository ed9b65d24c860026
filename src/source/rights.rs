//! Asks whether Redis grants what a queue needs.
//! It is asked before an epoch is taken, so that no queue is taken over that cannot be drained.
//!
//! `MULTI` begins a dry run. Redis checks what is sent behind it as if it were to be done: rights, write commands on a
//! replica, a full disk, too few replicas. Then it waits for an `EXEC` that never comes, since the connection is
//! closed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use super::connection::Connection;
use redis::Value;

use super::connect::Redis;
use super::error::{RedisRefusal, SourceError};
use super::lua::{Call, Word, calls, kind_of};
use crate::config::Keys;
use crate::config::{self, Delivery};

/// What is sent beside scripts, whatever the kind of queue. Words of small letters are names of keys.
const OWNED: [&str; 9] = [
    "INFO server",
    "SCRIPT LOAD 0",
    "EVALSHA 0 0",
    "TYPE queue",
    "HKEYS dead",
    "ZREM instances 0",
    "HKEYS parked",
    "HMGET parked 0",
    "LRANGE dead_list 0 0",
];
/// What is asked of a list that is popped.
const OF_POPPED: [&str; 7] = [
    "INFO server",
    "TYPE queue",
    "LLEN queue",
    "LLEN dead_list",
    "BLPOP queue 1",
    "LPOP queue 1",
    "RPUSH dead_list 0",
];
/// What `/durable` asks, whoever owns the queue.
#[cfg(test)]
const OF_DURABLE: [&str; 9] =
    ["MULTI", "EXEC", "GET", "HMGET", "LRANGE", "HEXISTS", "ZSCORE", "ZRANGE", "ZCARD"];
/// What is asked so that one connection tells of all queues; without it, each waits over one of its own.
#[cfg(test)]
const OF_WATCH: [&str; 2] = ["CLIENT TRACKING", "HELLO"];
/// What `tidegate dead` asks.
#[cfg(test)]
const OF_DEAD: [&str; 9] =
    ["TYPE", "HGET", "HKEYS", "LLEN", "LRANGE", "LINDEX", "SET", "EVALSHA", "SCRIPT LOAD"];
/// What `tidegate pause` and `resume` ask.
#[cfg(test)]
const OF_PAUSE: [&str; 6] = ["MULTI", "EXEC", "GET", "SET", "EXISTS", "DEL"];
/// What is said of a transaction within one: by Redis, and by Valkey 9.
const NESTED: [&str; 2] = ["nested", "not allowed inside a transaction"];
/// Refusals that are named.
const NAMED: usize = 3;

pub(super) type Calls = Vec<(Vec<String>, Call)>;

/// The calls of all scripts of a file, each with the keys of its script.
static SHARED: LazyLock<Calls> = LazyLock::new(|| calls(include_str!("script.rs")));
static MEMBERS: LazyLock<Calls> = LazyLock::new(|| calls(include_str!("instances.rs")));
static IDENTITY: LazyLock<Calls> = LazyLock::new(|| calls(include_str!("identity.rs")));
static OVERFLOW: LazyLock<Calls> = LazyLock::new(|| calls(include_str!("overflow.rs")));
static HOT_STATE: LazyLock<Calls> = LazyLock::new(|| calls(include_str!("hot_state.rs")));

/// What a queue needs of Redis.
#[derive(Debug, Clone)]
pub(crate) struct Rights {
    /// Commands, and the key of each.
    commands: BTreeSet<(Vec<String>, String)>,
    /// The type that a key must have, if it is there.
    kinds: BTreeMap<String, &'static str>,
}

impl Rights {
    /// What the queue with these keys needs.
    #[must_use]
    pub(crate) fn of(config: &config::Config, queue: &config::Queue, keys: &Keys) -> Self {
        let mut rights = Rights { commands: BTreeSet::new(), kinds: BTreeMap::new() };
        if queue.delivery == Delivery::AtMostOnce {
            rights.add_plain(&OF_POPPED, keys);
            return rights;
        }
        rights.add_plain(&OWNED, keys);
        rights.add_calls(&MEMBERS, |_| true, keys);
        rights.add_calls(&IDENTITY, |_| true, keys);
        rights.add_calls(&OVERFLOW, |_| true, keys);
        let (commands, scripts) = of_kind!(queue.kind, Queue => (&Queue::COMMANDS[..], Queue::SCRIPTS));
        rights.add_plain(commands, keys);
        // What has the queue among its keys takes it for a list.
        let shared = |script: &[String]| scripts.is_none() || !script.iter().any(|key| key == "queue");
        rights.add_calls(&SHARED, shared, keys);
        scripts.into_iter().for_each(|scripts| rights.add_calls(scripts, |_| true, keys));
        let hot = config.routes.iter().filter(|route| route.hot_state.is_some());
        for collection in hot.flat_map(|route| route.collection.iter().chain(&route.collections)) {
            let of_document = |name: &str| match name {
                "state" | "fill" => Some(format!("tidegate:{name}:{collection}:")),
                _ => Keys::named(name).map(|key| key(keys).to_owned()),
            };
            for (_, call) in &*HOT_STATE {
                rights.add(&call.words, of_document);
            }
        }
        rights
    }

    fn add_plain(&mut self, commands: &[&str], keys: &Keys) {
        for command in commands {
            let word = |word: &str| match Keys::named(word) {
                Some(_) => Word::Key(word.to_owned()),
                None => Word::Text(word.to_owned()),
            };
            let words: Vec<Word> = command.split(' ').map(word).collect();
            self.add_with_kind(&words, keys);
        }
    }

    fn add_calls(&mut self, calls: &Calls, wanted: impl Fn(&[String]) -> bool, keys: &Keys) {
        for (_, call) in calls.iter().filter(|(script, _)| wanted(script)) {
            self.add_with_kind(&call.words, keys);
        }
    }

    fn add_with_kind(&mut self, words: &[Word], keys: &Keys) {
        let key = self.add(words, |name| Keys::named(name).map(|key| key(keys).to_owned()));
        if let (Some(Word::Text(command)), false) = (words.first(), key.is_empty())
            && let Some(kind) = kind_of(command)
        {
            self.kinds.insert(key, kind);
        }
    }

    /// Adds a command, and answers its key.
    fn add(&mut self, words: &[Word], named: impl Fn(&str) -> Option<String>) -> String {
        let mut key = String::new();
        let mut sent = Vec::with_capacity(words.len());
        for word in words {
            sent.push(match word {
                Word::Text(text) => text.clone(),
                Word::Key(name) => {
                    let found = named(name).unwrap_or_default();
                    if key.is_empty() {
                        key.clone_from(&found);
                    }
                    found
                }
                Word::Other => "0".to_owned(),
            });
        }
        self.commands.insert((sent, key.clone()));
        key
    }

    /// Asks Redis whether it would do all of it.
    ///
    /// # Errors
    /// Refused, with what and why; fatal, where a key has another type; Redis's.
    pub(crate) async fn probe(&self, redis: &Redis) -> Result<(), SourceError> {
        let mut connection = redis.connect().await?;
        redis.check_mode(&mut connection).await?;
        self.probe_kinds(&mut connection, &redis.user().await).await?;
        let mut multi = redis::pipe();
        multi.cmd("MULTI").cmd("MULTI").ignore_errors();
        let begun: Vec<Value> = multi.query_async(&mut connection).await?;
        let told = begun.iter().map(|value| refusal(value).unwrap_or_default()).collect::<Vec<_>>();
        if let Some(refusal) = told.first().filter(|first| first.is_right()) {
            return Err(self.refused(&[("MULTI", "", refusal)], &redis.user().await));
        }
        // That it cannot be nested is said only within one. Whatever else this server has, nothing may be tried on it.
        let is_nested = |text: &str| NESTED.iter().any(|told| text.contains(told));
        if !told.get(1).is_some_and(|second| is_nested(&second.text)) {
            tracing::debug!(
                ?begun,
                "Redis has no transactions; rights are not looked at before the queue is taken over"
            );
            return Ok(());
        }
        let mut all = redis::pipe();
        for (words, _) in &self.commands {
            let mut command = redis::Cmd::new();
            words.iter().for_each(|word| {
                command.arg(word);
            });
            all.add_command(command);
        }
        let answers: Vec<Value> = all.ignore_errors().query_async(&mut connection).await?;
        let answers: Vec<_> = answers.iter().map(refusal).collect();
        let asked = self.commands.iter().zip(&answers);
        let refused = asked.filter_map(|((words, key), answer)| {
            let refusal = answer.as_ref().filter(|refusal| refusal.counts())?;
            Some((name(words), key, refusal))
        });
        let refused: Vec<_> = refused.collect();
        if refused.is_empty() {
            return Ok(());
        }
        let refused: Vec<_> =
            refused.iter().map(|(name, key, refusal)| (&**name, &***key, *refusal)).collect();
        Err(self.refused(&refused, &redis.user().await))
    }

    /// Whether the keys are of the types that they must have.
    async fn probe_kinds(&self, connection: &mut Connection, user: &str) -> Result<(), SourceError> {
        let mut pipe = redis::pipe();
        for key in self.kinds.keys() {
            pipe.cmd("TYPE").arg(key);
        }
        let found: Vec<Value> = pipe.ignore_errors().query_async(connection).await?;
        for ((key, kind), value) in self.kinds.iter().zip(&found) {
            if let Some(refusal) = refusal(value).filter(RedisRefusal::counts) {
                return Err(self.refused(&[("TYPE", key.as_str(), &refusal)], user));
            }
            let found: String = redis::from_redis_value_ref(value).unwrap_or_default();
            if !found.is_empty() && found != "none" && found != *kind {
                let text = format!("a key has another type than its queue: {key} is a {found}, not a {kind}");
                return Err(SourceError::Fatal(text.into()));
            }
        }
        Ok(())
    }

    /// What is said of commands that are refused, each with its key and the reason.
    fn refused(&self, refused: &[(&str, &str, &RedisRefusal)], user: &str) -> SourceError {
        // Of all but rights, the first says it all.
        if let Some((.., refusal)) = refused.iter().find(|(.., refusal)| !refusal.is_right()) {
            return SourceError::Refused(refusal.text.clone().into());
        }
        let mut names: Vec<String> = Vec::new();
        for (name, key, _) in refused {
            let on = if key.is_empty() { (*name).to_owned() } else { format!("{name} on {key}") };
            if !names.contains(&on) {
                names.push(on);
            }
        }
        let more = names.len().saturating_sub(NAMED);
        names.truncate(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        SourceError::Refused(format!("user {user} may not {}{more}", names.join(", ")).into())
    }
}

/// What a server's answer says is refused.
fn refusal(value: &Value) -> Option<RedisRefusal> {
    match value {
        Value::ServerError(error) => Some(RedisRefusal::of(&error.clone().into())),
        _ => None,
    }
}

/// A command's name, with the word behind it where that is a part of it.
fn name(words: &[String]) -> String {
    const CONTAINERS: [&str; 3] = ["SCRIPT", "XGROUP", "XINFO"];
    let parts =
        if CONTAINERS.iter().any(|name| words.first().is_some_and(|word| word == name)) { 2 } else { 1 };
    words[..parts.min(words.len())].join(" ")
}

#[cfg(test)]
#[path = "rights_docs_tests.rs"]
mod docs_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{List, Stream};

    fn rights(toml: &str) -> Rights {
        let config: config::Config = toml::from_str(toml).unwrap();
        let keys = Keys::new(&config.queues[0].key, ":dead");
        Rights::of(&config, &config.queues[0], &keys)
    }

    #[test]
    fn a_list_and_a_stream_need_what_their_scripts_call() {
        let list = rights("queues = [{ key = \"q\" }]");
        let has = |rights: &Rights, words: &str| {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            rights.commands.iter().any(|(known, _)| *known == words)
        };
        for command in [
            "ZREMRANGEBYRANK tidegate:{q}:refused 0 0",
            "LTRIM q 0 0",
            "HDEL tidegate:{q}:dead 0",
            "RPUSH q:dead 0",
            "ZADD tidegate:{q}:instances 0 0",
            "TIME",
        ] {
            assert!(has(&list, command), "{command}: {:?}", list.commands);
        }
        assert_eq!(
            (list.kinds["q"], list.kinds["q:dead"], list.kinds["tidegate:{q}:dead"]),
            ("list", "list", "hash")
        );
        let stream = rights("queues = [{ key = \"q\", kind = \"stream\" }]");
        for command in ["XGROUP SETID q 0 0 ENTRIESREAD 0", "XDEL q 0", "HSET tidegate:{q}:dead 0 0"] {
            assert!(has(&stream, command), "{command}: {:?}", stream.commands);
        }
        assert_eq!((stream.kinds["q"], stream.kinds["q:dead"]), ("stream", "list"));
        assert!(!has(&stream, "LTRIM q 0 0"));
    }

    #[test]
    fn hot_states_need_more() {
        let toml = r#"
            queues = [{ key = "q" }]
            routes = [{ collection = "docs", id = "id", set = { a = "a" }, hot_state = { ttl = "1m" } }]
        "#;
        let keys: BTreeSet<String> = rights(toml).commands.into_iter().map(|(_, key)| key).collect();
        assert!(keys.contains("tidegate:state:docs:") && keys.contains("tidegate:fill:docs:"), "{keys:?}");
    }

    /// What is sent beside scripts is looked for in the code: a command that is new there has to be listed here.
    #[test]
    fn every_command_in_the_code_is_listed() {
        // Said while connecting, where a refusal ends the attempt and is told; or by `check --connect` alone.
        const ELSEWHERE: [&str; 6] = ["AUTH", "CLUSTER", "SELECT", "ROLE", "SENTINEL", "TIME"];
        let listed: BTreeSet<&str> = [&OWNED[..], &List::COMMANDS, &Stream::COMMANDS, &OF_POPPED]
            .iter()
            .flat_map(|commands| commands.iter().filter_map(|command| command.split(' ').next()))
            .chain(ELSEWHERE)
            .chain(OF_DURABLE)
            .chain(OF_WATCH.map(|command| command.split(' ').next().unwrap()))
            .chain(OF_DEAD)
            .chain(OF_PAUSE)
            .collect();
        let mut folders = vec![std::path::PathBuf::from("src/source")];
        let mut found = BTreeSet::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                for (_, rest) in
                    text.split("cmd(\"").skip(1).filter_map(|rest| Some((rest, rest.split_once('"')?.0)))
                {
                    found.insert(rest.to_owned());
                }
            }
        }
        assert!(found.len() > 10, "{found:?}");
        let missing: Vec<_> = found.iter().filter(|command| !listed.contains(&***command)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn what_is_refused_is_told_by_name() {
        let of = |text: &str| RedisRefusal {
            code: text.split(' ').next().map(str::to_owned),
            text: text.to_owned(),
        };
        let list = rights("queues = [{ key = \"q\" }]");
        let no = of("NOPERM this user has no permissions");
        let told =
            list.refused(&[("HDEL", "tidegate:{q}:dead", &no), ("TIME", "", &no)], "worker").to_string();
        assert_eq!(told, "Redis refuses: user worker may not HDEL on tidegate:{q}:dead, TIME");
        let told =
            list.refused(&[("A", "", &no), ("B", "", &no), ("C", "", &no), ("D", "", &no)], "w").to_string();
        assert_eq!(told, "Redis refuses: user w may not A, B, C and 1 more");
        let full = of("MISCONF Errors writing to the AOF file");
        let told = list.refused(&[("A", "", &no), ("B", "", &full)], "w").to_string();
        assert_eq!(told, "Redis refuses: MISCONF Errors writing to the AOF file");
    }
}

//! Lists what ends the ownership of a queue.

use std::error::Error;

use redis::{ErrorKind, RedisError};

use super::stream::ANOTHER;
use crate::caused::Caused;
use crate::health::Dependency;
use crate::tls::{TlsNames, explained};

/// What the settings of connections to Redis are called.
pub(super) const TLS: TlsNames = TlsNames {
    url: "redis.url",
    mark: "begins with rediss://",
    ca: "redis.tls.ca_file",
    certificate: "redis.tls.cert_file",
};

/// Why a queue cannot be read or committed to by this owner any more.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The connection is gone, or what it answers cannot be trusted. Take over again.
    #[error(transparent)]
    Lost(Caused),
    /// Redis answers, and does not do what it is asked: what is missing is for somebody to grant, or passes. Take over again.
    #[error("Redis refuses: {0}")]
    Refused(#[source] Caused),
    /// The queue's slot is another node's by now. Take over there.
    #[error("the queue's slot is another node's")]
    Moved,
    /// Another owner has the queue, or the lease ran out.
    #[error("the lease was lost")]
    Fenced,
    /// Elements are not where they were: somebody else pops or inserts.
    #[error("another client removes or inserts elements")]
    ForeignPop,
    /// Another stream is in the place of the one that was taken over.
    #[error("another stream is in its place")]
    OtherStream,
    /// MongoDB knows of a later owner, which is in another Redis, or in one that this one was copied to.
    #[error("MongoDB knows of a later owner of the queue")]
    Deposed,
    /// What was read under the id that the queue had in MongoDB is settled. Take over again, under the one it has now.
    #[error("the queue has another id")]
    OtherId,
    /// The epoch's offsets are used up. Take over again, under the next.
    #[error("the epoch's offsets are used up")]
    UsedUp,
    /// The login is refused. No start can overcome that; once there was one, credentials may be on their way.
    #[error("Redis refuses the credentials: {0}")]
    LoginRefused(#[source] Caused),
    /// No start can overcome it.
    #[error(transparent)]
    Fatal(Caused),
}

impl SourceError {
    /// What an error on the way has ended.
    pub(crate) fn lost(cause: impl Error + Send + Sync + 'static) -> Self {
        SourceError::Lost(Caused::of(explained(&cause.to_string(), &TLS), cause))
    }

    /// The same, with the queue that it is about where it ends the process.
    #[must_use]
    pub(crate) fn about(self, queue: &str) -> Self {
        match self {
            SourceError::Fatal(told) => {
                let text = format!("queue {queue:?}: {told}");
                SourceError::Fatal(told.saying(text))
            }
            other => other,
        }
    }

    /// Whether the user may not do what was asked.
    #[must_use]
    pub(crate) fn is_of_rights(&self) -> bool {
        let SourceError::Refused(refusal) = self else { return false };
        let text = refusal.to_string();
        text.contains("NOPERM") || NO_RIGHT.iter().any(|known| text.contains(known))
    }

    /// Whether Redis answers, and does not do what it is asked.
    #[must_use]
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, SourceError::Refused(_) | SourceError::LoginRefused(_) | SourceError::Fatal(_))
    }

    /// Whether it ends a start.
    #[must_use]
    pub(crate) fn is_fatal(&self, redis: &Dependency) -> bool {
        match self {
            SourceError::Fatal(_) => true,
            SourceError::LoginRefused(_) => !redis.has_answered(),
            _ => false,
        }
    }
}

/// Redis' words for what it does not do now, whoever asks, and for what this user may not do.
const REFUSALS: [&str; 12] = [
    "NOPERM",
    "MISCONF",
    "READONLY",
    "NOREPLICAS",
    "OOM",
    "LOADING",
    "MASTERDOWN",
    "BUSY",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "ASK",
    // What a command that waits is told when its server becomes a replica.
    "UNBLOCKED",
];

/// A cluster's node's word for a slot that is another's.
const MOVED: &str = "MOVED";

/// What a script says that called what its user may not: up to 7.0, and since.
const NO_RIGHT: [&str; 3] = [
    "The user executing the script can't run this command",
    "The user executing the script can't access at least one of the keys",
    "ACL failure in script",
];

/// What a server says is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RedisRefusal {
    /// Its word for that.
    pub(super) code: Option<String>,
    /// All that it says.
    pub(super) text: String,
}

impl RedisRefusal {
    /// Of a pipeline, what its first command that failed met. Before 7.0, what a script met is only in the text.
    pub(super) fn of(error: &RedisError) -> Self {
        let first = error.clone().into_server_errors().and_then(|errors| Some(errors.first()?.1.clone()));
        let (code, detail) = match &first {
            Some(first) => (Some(first.code()), first.details()),
            None => (error.code(), error.detail()),
        };
        let text = match (code, detail) {
            // Where in a script it was is no news to anybody, and differs.
            (Some(code), Some(detail)) => {
                let at = detail.rsplit_once(" script: ").filter(|(_, at)| at.contains("@user_script"));
                format!("{code} {}", at.map_or(detail, |(told, _)| told).trim_end())
            }
            _ => error.to_string(),
        };
        let within = REFUSALS.into_iter().chain(["WRONGTYPE", MOVED]).find(|word| in_script(&text, word));
        let no_right = NO_RIGHT.iter().any(|known| text.contains(known)).then_some("NOPERM");
        let code = no_right.or(within).or(code).map(str::to_owned);
        RedisRefusal { code, text }
    }

    /// Whether Redis does not do it now, or not for this user. One that is full does let scripts drain a queue.
    pub(super) fn counts(&self) -> bool {
        self.is(&REFUSALS) && !self.is(&["OOM"])
    }

    /// Whether the user lacks a right.
    pub(super) fn is_right(&self) -> bool {
        self.is(&["NOPERM"])
    }

    /// Whether the server takes no writes: another one is the primary by now, or will be.
    pub(super) fn is_of_no_primary(&self) -> bool {
        self.is(&["READONLY", "MASTERDOWN", "UNBLOCKED"])
    }

    fn is(&self, codes: &[&str]) -> bool {
        self.code.as_deref().is_some_and(|code| codes.contains(&code))
    }
}

/// Whether a script met an error with this word.
fn in_script(text: &str, word: &str) -> bool {
    text.contains("Error running script")
        && (text.contains(&format!(": {word} ")) || text.contains(&format!(": -{word} ")))
}

impl From<RedisError> for SourceError {
    fn from(error: RedisError) -> Self {
        let fatal = |what: &str| format!("{what}: {error}");
        match error.kind() {
            ErrorKind::AuthenticationFailed => {
                return SourceError::LoginRefused(Caused::of(error.to_string(), error));
            }
            ErrorKind::InvalidClientConfig => {
                return SourceError::Fatal(Caused::of(fatal("Redis cannot be connected to"), error));
            }
            _ => {}
        }
        let refusal = RedisRefusal::of(&error);
        match refusal.code.as_deref() {
            Some("NOAUTH" | "WRONGPASS") => SourceError::LoginRefused(Caused::of(refusal.text, error)),
            Some("WRONGTYPE") => {
                SourceError::Fatal(Caused::of(fatal("a key has another type than its queue"), error))
            }
            Some(ANOTHER) => SourceError::OtherStream,
            Some(MOVED) => SourceError::Moved,
            Some(code) if REFUSALS.contains(&code) => SourceError::Refused(Caused::of(refusal.text, error)),
            _ => SourceError::lost(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reply: &str) -> SourceError {
        redis::parse_redis_value(reply.as_bytes()).unwrap().extract_error().unwrap_err().into()
    }

    #[test]
    fn what_an_error_came_from_is_kept() {
        let lost = SourceError::lost(std::io::Error::other("no way"));
        assert_eq!(
            (lost.to_string(), lost.source().unwrap().to_string()),
            ("no way".into(), "no way".into())
        );
        let wrong = read("-WRONGTYPE no list\r\n").about("q");
        assert!(wrong.to_string().starts_with("queue \"q\": a key has another type than its queue: "));
        assert!(wrong.source().unwrap().is::<RedisError>());
    }

    #[test]
    fn a_wrong_type_is_known_by_any_servers_words() {
        let wrong = "WRONGTYPE Operation against a key holding the wrong kind of value";
        for reply in [
            format!("-{wrong}\r\n"),
            format!("-{wrong} script: 7a, on @user_script:47.\r\n"),
            // Redis 6.2
            format!("-ERR Error running script (call to f_7a): @user_script:47: {wrong}\r\n"),
        ] {
            assert!(matches!(read(&reply), SourceError::Fatal(_)), "{reply}");
        }
        let other = "-ERR Error running script (call to f_7a): @user_script:1: ERR no such key\r\n";
        assert!(matches!(read(other), SourceError::Lost(_)));
    }

    /// Texts of 7.0.15 and 8.2.3 as they gave them, those of 6.2 from its `src/scripting.c` and `src/server.c`.
    #[test]
    fn every_refusal_is_known_by_any_servers_words() {
        for word in REFUSALS {
            let reply = format!("-{word} says the server\r\n");
            assert!(
                matches!(read(&reply), SourceError::Refused(told) if told.text().starts_with(word)),
                "{reply}"
            );
        }
        for reply in [
            "-NOREPLICAS Not enough good replicas to write. script: 5fe6, on @user_script:1.\r\n",
            "-ERR The user executing the script can't run this command or subcommand script: b2d0, on @user_script:1.\r\n",
            "-ERR The user executing the script can't access at least one of the keys mentioned in the command arguments script: 77b6, on @user_script:1.\r\n",
            "-ERR ACL failure in script: User worker has no permissions to run the 'pexpire' command script: c542, on @user_script:4.\r\n",
            // Redis 6.2
            "-ERR Error running script (call to f_7a): @user_script:3: -READONLY You can't write against a read only replica. \r\n",
            "-ERR Error running script (call to f_7a): @user_script:3: -MISCONF Redis is configured to save RDB snapshots \r\n",
            "-ERR Error running script (call to f_7a): @user_script:3: -OOM command not allowed when used memory > 'maxmemory'. \r\n",
            "-ERR Error running script (call to f_7a): @user_script:3: The user executing the script can't run this command or subcommand\r\n",
        ] {
            assert!(matches!(read(reply), SourceError::Refused(_)), "{reply}");
            let error = redis::parse_redis_value(reply.as_bytes()).unwrap().extract_error().unwrap_err();
            let is_of_no_primary = RedisRefusal::of(&error).is_of_no_primary();
            assert_eq!(is_of_no_primary, reply.contains("READONLY"), "{reply}");
        }
    }
}

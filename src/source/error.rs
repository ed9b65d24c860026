//! What ends the ownership of a queue.

use redis::{ErrorKind, RedisError};

use super::stream::ANOTHER;

/// Why a queue cannot be read or committed to by this owner any more.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The connection is gone, or what it answers cannot be trusted. Take over again.
    #[error("{0}")]
    Lost(String),
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
    /// No start can overcome it.
    #[error("{0}")]
    Fatal(String),
}

impl SourceError {
    /// The same, with the queue that it is about where it ends the process.
    #[must_use]
    pub fn about(self, queue: &str) -> Self {
        match self {
            SourceError::Fatal(text) => SourceError::Fatal(format!("queue {queue:?}: {text}")),
            other => other,
        }
    }

    /// Whether Redis itself is the trouble, rather than who owns the queue.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, SourceError::Lost(_))
    }
}

/// Redis' word for what is wrong; of a pipeline, with its first command that failed. Before 7.0, what a script met is only in
/// the text.
fn code(error: &RedisError) -> Option<String> {
    const WRONG_TYPE: &str = "WRONGTYPE";
    let text = error.to_string();
    if text.contains("Error running script") && text.contains(&format!(": {WRONG_TYPE} ")) {
        return Some(WRONG_TYPE.to_owned());
    }
    let of_first = || Some(error.clone().into_server_errors()?.first()?.1.code().to_owned());
    error.code().map(str::to_owned).or_else(of_first)
}

impl From<RedisError> for SourceError {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => {
                SourceError::Fatal(format!("Redis refuses the connection: {error}"))
            }
            _ => match code(&error).as_deref() {
                Some("NOAUTH" | "WRONGPASS") => {
                    SourceError::Fatal(format!("Redis refuses the credentials: {error}"))
                }
                Some("WRONGTYPE") => {
                    SourceError::Fatal(format!("a key has another type than its queue: {error}"))
                }
                Some(ANOTHER) => SourceError::OtherStream,
                _ => SourceError::Lost(error.to_string()),
            },
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
}

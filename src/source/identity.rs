//! Reads and records which Redis a queue is in, and how it was called in MongoDB.

use super::connection::Connection;
use redis::Script;

use super::error::SourceError;
use crate::config::Keys;
use crate::epoch::Identity;

/// What the hash `identity` holds: the identity; whether it is new; the id under which what is unsettled was read; and
/// the epoch of the last takeover. Makes an identity where there is none. It frees first, so that a full Redis does not
/// refuse it.
///
/// KEYS identity · ARGV new-identity
const IDENTIFY: &str = r"
if redis.call('HEXISTS', KEYS[1], 'identity') == 0 then
  redis.call('HDEL', KEYS[1], 'new')
  redis.call('HSET', KEYS[1], 'identity', ARGV[1], 'new', '1')
end
local function get(field) return redis.call('HGET', KEYS[1], field) or '' end
return { get('identity'), get('new'), get('id'), get('epoch') }";

/// What is known of a queue besides its numbers.
#[derive(Debug, Clone)]
pub(crate) struct KnownQueue {
    /// Which Redis it is in.
    pub(crate) identity: Identity,
    /// How it was called in MongoDB when it was taken over last; empty if that is not known.
    pub(super) id: String,
    /// The epoch of the last takeover, or nothing.
    pub(super) epoch: String,
}

impl KnownQueue {
    /// The epoch of the last takeover.
    #[must_use]
    pub(crate) fn epoch(&self) -> i64 {
        self.epoch.parse().unwrap_or(0)
    }

    /// How the queue was called in MongoDB when it was taken over last. Before ids were on record, they were the keys.
    #[must_use]
    pub(crate) fn id<'k>(&'k self, key: &'k str) -> &'k str {
        if self.id.is_empty() { key } else { &self.id }
    }

    /// The arguments by which a takeover finds all of this as it was.
    pub(super) fn args(&self) -> [&str; 3] {
        [&self.identity.name, &self.id, &self.epoch]
    }
}

/// Asks what is known of a queue; gives it an identity if it has none.
pub(crate) async fn identify(connection: &mut Connection, keys: &Keys) -> Result<KnownQueue, SourceError> {
    let made = format!("{:032x}", fastrand::u128(..));
    let (name, new, id, epoch): (String, String, String, String) =
        Script::new(IDENTIFY).key(&keys.identity).arg(made).invoke_async(connection).await?;
    Ok(KnownQueue { identity: Identity { name, is_new: !new.is_empty() }, id, epoch })
}

//! Tells whether the ownership that a Redis has on record is the latest that MongoDB knows of.
//!
//! A Redis that was cut off goes on to answer its clients. What it says of a queue counts only while no other has
//! the queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::Shared;
use crate::sink::{NamedDocument, Owner};
use crate::source::RecordedOwnership;

/// For so long an answer of MongoDB serves all who ask.
const FRESH: Duration = Duration::from_secs(1);
/// The longest that MongoDB may take to answer somebody who waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// What MongoDB said last of each queue.
#[derive(Debug)]
pub(crate) struct Confirmations {
    shared: Arc<Shared>,
    /// By the id of the queue.
    owners: Mutex<HashMap<String, (Instant, Option<Owner>)>>,
}

impl Confirmations {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Confirmations { shared, owners: Mutex::default() }
    }

    /// Whether MongoDB knows of no other owner of the queue `id` than `seen`. What it said within `lease.ttl` counts
    /// where it does not answer now. None: nobody knows.
    pub(crate) async fn is_latest(&self, id: &str, seen: &RecordedOwnership) -> Option<bool> {
        // One asks, the others wait for its answer.
        let mut owners = timeout(PATIENCE, self.owners.lock()).await.ok()?;
        let known = owners.get(id);
        let age = known.map(|(at, _)| at.elapsed());
        if age.is_none_or(|age| age > FRESH) {
            match timeout(PATIENCE, self.shared.sink.owners(&[id])).await {
                Ok(Ok(mut found)) => {
                    owners.insert(id.to_owned(), (Instant::now(), found.remove(id)));
                }
                _ if age.is_some_and(|age| age < self.shared.config.lease.ttl) => {}
                _ => return None,
            }
        }
        owners.get(id).map(|(_, owner)| is_no_other(owner.as_ref(), seen))
    }

    /// Whether the events of the queue `id` for a document are applied up to an offset, and its hot state has them, if it has
    /// any. None: nobody knows.
    pub(crate) async fn has_applied(&self, id: &str, document: &NamedDocument, offset: i64) -> Option<bool> {
        let mapping = self.shared.live.mapping();
        let collection = mapping.collections.find(&document.collection)?;
        if mapping.hot_states.ttl(collection).is_some() {
            // Its document may be ahead of it.
            return Some(false);
        }
        let asked = timeout(PATIENCE, self.shared.sink.has_applied(id, document, offset));
        asked.await.ok()?.ok()
    }
}

/// A takeover is on record in Redis first, so MongoDB may still have the one before. Deliveries without watermarks put
/// no owner on record.
fn is_no_other(owner: Option<&Owner>, seen: &RecordedOwnership) -> bool {
    owner.is_some_and(|(identity, epoch)| {
        identity.as_ref().is_none_or(|identity| *identity == seen.identity)
            && epoch.is_none_or(|epoch| epoch <= seen.epoch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_later_owner_or_another_redis_speaks_against_what_redis_says() {
        let seen = RecordedOwnership { identity: "here".to_owned(), epoch: 7 };
        let owner = |identity: Option<&str>, epoch| Some((identity.map(str::to_owned), epoch));
        for (owner, expected) in [
            (owner(Some("here"), Some(7)), true),
            (owner(Some("here"), Some(6)), true),
            (owner(Some("here"), None), true),
            (owner(None, None), true),
            (owner(Some("here"), Some(8)), false),
            (owner(Some("there"), Some(6)), false),
            (owner(Some("there"), None), false),
            (None, false),
        ] {
            assert_eq!(is_no_other(owner.as_ref(), &seen), expected, "{owner:?}");
        }
    }
}

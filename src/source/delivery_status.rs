//! Answers what has become of an event, by the number that its producer worked out, as far as Redis knows.
//!
//! `base` tells: everything below it is settled. A takeover gives other numbers to what was not read, so each
//! renumbering is on record, and a number of an earlier epoch is followed from one to the next.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use super::connection::Connection;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::connect::Redis;
use super::error::SourceError;
use super::script::{REFUSED_KEPT, padded};
use crate::config::Keys;
use crate::epoch::epoch_of;

/// The longest that Redis may take to answer somebody who waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// What has become of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeliveryStatus {
    /// It is in MongoDB.
    Durable,
    /// It is a dead letter.
    Dead,
    /// One of the two, too many dead letters ago to tell which.
    Settled,
    /// It is in the queue, under this number by now.
    Pending(i64),
    /// The number means nothing any more, or not yet.
    Unknown,
}

/// The ownership that Redis has on record last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordedOwnership {
    /// Which Redis the queue is in.
    pub(crate) identity: String,
    pub(crate) epoch: i64,
}

/// Asks Redis what has become of events, whoever owns their queue.
#[derive(Debug)]
pub(crate) struct DeliveryStatuses {
    redis: Redis,
    /// One to each server that has a queue which was asked for.
    connections: Mutex<BTreeMap<String, Connection>>,
}

impl DeliveryStatuses {
    /// Nothing is sent yet.
    #[must_use]
    pub(crate) fn new(redis: Redis) -> Self {
        DeliveryStatuses { redis, connections: Mutex::default() }
    }

    /// What has become of the event at `offset`, and whose word that is.
    pub(crate) async fn of(
        &self,
        keys: &Keys,
        offset: i64,
    ) -> Result<(DeliveryStatus, RecordedOwnership), SourceError> {
        self.asked(keys, async |mut connection| ask(&mut connection, keys, offset).await).await
    }

    /// Whether an event that is not settled is going to be a dead letter.
    pub(crate) async fn is_buried(&self, keys: &Keys, offset: i64) -> Result<bool, SourceError> {
        self.asked(keys, async |mut connection| {
            Ok(redis::cmd("HEXISTS").arg(&keys.dead).arg(offset).query_async(&mut connection).await?)
        })
        .await
    }

    async fn asked<T>(
        &self,
        keys: &Keys,
        ask: impl AsyncFnOnce(Connection) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let redis = self.redis.of_queue(&keys.queue);
        let server = redis.server().await?;
        let mut open = self.connections.lock().await;
        let connection = match open.entry(server.clone()) {
            Entry::Occupied(open) => open.get().clone(),
            Entry::Vacant(none) => none.insert(redis.connect().await?).clone(),
        };
        drop(open);
        let asked = timeout(PATIENCE, ask(connection)).await;
        let answer =
            asked.unwrap_or_else(|_| Err(SourceError::Lost(format!("no reply within {PATIENCE:?}").into())));
        if answer.is_err() {
            self.connections.lock().await.remove(&server);
        }
        answer
    }
}

async fn ask(
    connection: &mut Connection,
    keys: &Keys,
    offset: i64,
) -> Result<(DeliveryStatus, RecordedOwnership), SourceError> {
    let mut both = redis::pipe();
    both.atomic().cmd("GET").arg(&keys.base);
    both.cmd("HMGET").arg(&keys.identity).arg("identity").arg("epoch");
    let (base, (identity, epoch)): (Option<String>, (Option<String>, Option<String>)) =
        both.query_async(connection).await?;
    let owner = RecordedOwnership { identity: identity.unwrap_or_default(), epoch: number(epoch.as_deref()) };
    let status = look_up(connection, keys, offset, number(base.as_deref())).await?;
    Ok((status, owner))
}

async fn look_up(
    connection: &mut Connection,
    keys: &Keys,
    offset: i64,
    mut base: i64,
) -> Result<DeliveryStatus, SourceError> {
    let mut renumberings = Vec::new();
    if epoch_of(offset) != epoch_of(base) {
        let mut both = redis::pipe();
        both.atomic().cmd("GET").arg(&keys.base);
        both.cmd("LRANGE").arg(&keys.renumbered).arg(0).arg(-1);
        let (found, entries): (Option<String>, Vec<String>) = both.query_async(connection).await?;
        base = number(found.as_deref());
        renumberings = entries.iter().filter_map(|entry| Renumbering::read(entry)).collect();
    }
    let offset = match place(offset, base, &renumberings) {
        NumberedPlace::Settled(offset) => offset,
        NumberedPlace::Pending(offset) => return Ok(DeliveryStatus::Pending(offset)),
        NumberedPlace::Unknown => return Ok(DeliveryStatus::Unknown),
    };
    let settled = padded(offset);
    let mut dead = redis::pipe();
    dead.atomic().cmd("ZSCORE").arg(&keys.refused).arg(&settled);
    // What is parked is committed, and not settled.
    dead.cmd("HEXISTS").arg(&keys.parked).arg(offset);
    dead.cmd("ZRANGE").arg(&keys.refused).arg(0).arg(0).cmd("ZCARD").arg(&keys.refused);
    let (score, is_parked, first, count): (Option<f64>, bool, Vec<String>, usize) =
        dead.query_async(connection).await?;
    Ok(match score {
        _ if is_parked => DeliveryStatus::Pending(offset),
        Some(_) => DeliveryStatus::Dead,
        // Earlier ones have been forgotten.
        None if count >= REFUSED_KEPT && first.first().is_some_and(|first| settled < *first) => {
            DeliveryStatus::Settled
        }
        None => DeliveryStatus::Durable,
    })
}

/// An offset as Redis has it; before the first takeover there is none, and numbers begin at 0.
fn number(text: Option<&str>) -> i64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// What a takeover did to numbers: those below `from` were settled, and `count` from there became `to` and following.
/// What was numbered above is of a Redis that this one has replaced, and was lost with it. Without `to` nobody knows.
#[derive(Debug, Clone, Copy)]
struct Renumbering {
    from: i64,
    to: Option<i64>,
    count: i64,
}

impl Renumbering {
    /// Earlier versions wrote no count.
    fn read(entry: &str) -> Option<Self> {
        let (from, rest) = entry.split_once(' ')?;
        let (to, count) = rest.split_once(' ').unwrap_or((rest, ""));
        Some(Renumbering {
            from: number(Some(from)),
            to: to.parse().ok(),
            count: count.parse().unwrap_or(i64::MAX),
        })
    }
}

#[derive(Debug, PartialEq, Eq)]
enum NumberedPlace {
    /// Settled under this number.
    Settled(i64),
    /// Not settled, under this number.
    Pending(i64),
    Unknown,
}

/// Where the event is that had the number `offset` once, by all renumberings since, the oldest first.
fn place(mut offset: i64, base: i64, renumberings: &[Renumbering]) -> NumberedPlace {
    for Renumbering { from, to, count } in renumberings {
        if epoch_of(*from) != epoch_of(offset) {
            continue;
        }
        match to {
            _ if offset < *from => return NumberedPlace::Settled(offset),
            Some(to) if offset - from < *count => offset = to + (offset - from),
            _ => return NumberedPlace::Unknown,
        }
    }
    if epoch_of(offset) != epoch_of(base) {
        NumberedPlace::Unknown
    } else if offset < base {
        NumberedPlace::Settled(offset)
    } else {
        NumberedPlace::Pending(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch::first_offset;
    use proptest::prelude::*;

    fn at(epoch: i64, index: i64) -> i64 {
        first_offset(epoch).unwrap() + index
    }

    #[test]
    fn an_old_number_is_followed_to_where_its_event_is() {
        let entries =
            [format!("0 {}", at(1, 0)), format!("{} {} 9", at(1, 5), at(3, 0)), format!("{}  2", at(3, 4))];
        let all: Vec<_> = entries.iter().filter_map(|entry| Renumbering::read(entry)).collect();
        // Pushed before anybody owned the queue, as its seventh and its eleventh element.
        assert_eq!(place(4, at(3, 0), &all[..2]), NumberedPlace::Settled(at(1, 4)));
        assert_eq!(place(10, at(3, 2), &all[..2]), NumberedPlace::Pending(at(3, 5)));
        assert_eq!(place(10, at(3, 6), &all[..2]), NumberedPlace::Settled(at(3, 5)));
        // Nine were renumbered; this Redis never had the next.
        assert_eq!(place(at(1, 13), at(3, 0), &all[..2]), NumberedPlace::Pending(at(3, 8)));
        assert_eq!(place(at(1, 14), at(3, 40), &all[..2]), NumberedPlace::Unknown);
        // Then somebody else took elements: what was not settled is anywhere.
        assert_eq!(place(8, at(7, 2), &all), NumberedPlace::Settled(at(3, 3)));
        assert_eq!(place(9, at(7, 2), &all), NumberedPlace::Unknown);
        // Epochs that were never given out, or whose renumbering is forgotten.
        assert_eq!(place(at(2, 0), at(7, 2), &all), NumberedPlace::Unknown);
        assert_eq!(place(at(9, 0), at(7, 2), &all), NumberedPlace::Unknown);
    }

    proptest! {
        /// A list that is pushed to, trimmed and renumbered: each event's first number tells whether it was trimmed.
        #[test]
        fn every_event_is_found_again(steps in prop::collection::vec(0_u8..5, 1..200)) {
            let (mut base, mut epoch) = (0, 0);
            let mut renumberings = Vec::new();
            // The numbers that producers have worked out; how many of them are trimmed.
            let (mut numbers, mut trimmed) = (Vec::new(), 0);
            for step in steps {
                let length = i64::try_from(numbers.len() - trimmed).unwrap();
                match step {
                    0..3 => numbers.push(base + length),
                    3 => if length > 0 {
                        base += 1;
                        trimmed += 1;
                    },
                    _ => {
                        epoch += 1 + epoch % 2;
                        renumberings.push(Renumbering { from: base, to: Some(at(epoch, 0)), count: length });
                        base = at(epoch, 0);
                    }
                }
                for (event, number) in numbers.iter().enumerate() {
                    let settled = matches!(place(*number, base, &renumberings), NumberedPlace::Settled(_));
                    prop_assert_eq!(settled, event < trimmed);
                    prop_assert_ne!(place(*number, base, &renumberings), NumberedPlace::Unknown);
                }
            }
        }
    }
}

//! Does what a producer does, and the person who looks after dead letters.

use std::collections::HashMap;

use anyhow::Context;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use serde_json::Value;

/// Events in one RPUSH.
const CHUNK: usize = 1_000;

/// Appends events to a queue, in order.
pub(crate) async fn push<E: AsRef<[u8]>>(
    connection: &mut MultiplexedConnection,
    queue: &str,
    events: impl IntoIterator<Item = E>,
) -> anyhow::Result<()> {
    let mut events = events.into_iter().peekable();
    while events.peek().is_some() {
        let mut rpush = redis::cmd("RPUSH");
        rpush.arg(queue);
        for event in events.by_ref().take(CHUNK) {
            rpush.arg(event.as_ref());
        }
        let () = rpush.query_async(connection).await?;
    }
    Ok(())
}

/// Appends events to a stream, in order, each as the field `event` of an entry.
pub(crate) async fn add<E: AsRef<[u8]>>(
    connection: &mut MultiplexedConnection,
    stream: &str,
    events: impl IntoIterator<Item = E>,
) -> anyhow::Result<()> {
    let mut events = events.into_iter().peekable();
    while events.peek().is_some() {
        add_at_once(connection, stream, events.by_ref().take(CHUNK)).await?;
    }
    Ok(())
}

/// The same in one transaction: all of them or none.
pub(crate) async fn add_at_once<E: AsRef<[u8]>>(
    connection: &mut MultiplexedConnection,
    stream: &str,
    events: impl IntoIterator<Item = E>,
) -> anyhow::Result<()> {
    let mut pipe = redis::pipe();
    pipe.atomic();
    for event in events {
        pipe.cmd("XADD").arg(stream).arg("*").arg("event").arg(event.as_ref()).ignore();
    }
    Ok(pipe.query_async(connection).await?)
}

/// Events that are in the queue; of a stream, those that are not durable. None is left once all of them are.
pub(crate) async fn length(connection: &mut MultiplexedConnection, queue: &str) -> anyhow::Result<usize> {
    let kind: String = redis::cmd("TYPE").arg(queue).query_async(connection).await?;
    if kind != "stream" {
        return Ok(connection.llen(queue).await?);
    }
    match group(connection, queue).await {
        // A lag that Redis does not know is the largest number.
        Ok(group) => Ok(group.lag.saturating_add(group.pending)),
        // Nobody has read it yet.
        Err(_) => Ok(redis::cmd("XLEN").arg(queue).query_async(connection).await?),
    }
}

/// What Redis says of the consumer group `tidegate`.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) pending: usize,
    pub(crate) lag: usize,
    pub(crate) position: String,
}

/// Looks at the consumer group of a stream.
pub(crate) async fn group(connection: &mut MultiplexedConnection, stream: &str) -> anyhow::Result<Group> {
    let groups: Vec<HashMap<String, redis::Value>> =
        redis::cmd("XINFO").arg("GROUPS").arg(stream).query_async(connection).await?;
    let ours = |group: &&HashMap<String, redis::Value>| {
        group.get("name").is_some_and(|name| *name == redis::Value::BulkString(b"tidegate".to_vec()))
    };
    let group = groups.iter().find(ours).context("no such group yet")?;
    let number = |name: &str| -> anyhow::Result<usize> {
        let value = group.get(name).with_context(|| format!("no {name}"))?;
        Ok(redis::from_redis_value_ref(value)?)
    };
    let position = group.get("last-delivered-id").context("no position")?;
    Ok(Group {
        pending: number("pending")?,
        lag: number("lag")?,
        position: redis::from_redis_value_ref(position)?,
    })
}

/// The dead letters of a queue, oldest first.
pub(crate) async fn dead_letters(
    connection: &mut MultiplexedConnection,
    queue: &str,
) -> anyhow::Result<Vec<Value>> {
    let letters: Vec<Vec<u8>> = connection.lrange(format!("{queue}:dead"), 0, -1).await?;
    let parsed = letters.iter().map(|letter| serde_json::from_slice(letter));
    parsed.collect::<Result<_, _>>().context("a dead letter that is not JSON")
}

//! What a producer does, and the person who looks after dead letters.

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

/// Events that are in the queue. None is left once all of them are durable.
pub(crate) async fn length(connection: &mut MultiplexedConnection, queue: &str) -> anyhow::Result<usize> {
    Ok(connection.llen(queue).await?)
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

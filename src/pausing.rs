//! Pauses and resumes queues, for a person: `tidegate pause` and `tidegate resume`.

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};

use crate::cli::{Pause, Resume};
use crate::config::{Config, Delivery, Queue};
use crate::source::{Connection, PauseNote, Redis, pause as pause_queue, resume as resume_queue, state};

/// So long it is waited for what was read to be written.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);

/// Pauses a queue, and waits until what was read is written, or a while.
///
/// # Errors
/// There is no such queue, or Redis's.
pub async fn pause(config: &Config, asked: &Pause, out: &mut impl Write) -> anyhow::Result<bool> {
    let (queue, mut connection) = reach(config, &asked.queue).await?;
    let (key, keys) = (&queue.key, config.keys_of(&queue.key));
    let user = || std::env::var("USER").unwrap_or_default();
    let note = PauseNote::now(asked.by.clone().unwrap_or_else(user), asked.reason.clone());
    match pause_queue(&mut connection, &keys, &note).await? {
        Some(PauseNote { by, at, .. }) if !by.is_empty() => {
            writeln!(out, "{key} was paused by {by} at {at}.")?
        }
        Some(_) => writeln!(out, "{key} was paused before.")?,
        None => writeln!(out, "{key} is paused: its events wait in Redis.")?,
    }
    out.flush()?;
    if queue.delivery == Delivery::AtMostOnce {
        writeln!(out, "What was popped is being written.")?;
        return Ok(true);
    }
    let begun = Instant::now();
    while state(&mut connection, &keys, queue).await?.is_owned(None) {
        if begun.elapsed() > PATIENCE {
            writeln!(out, "What was read is still being written. When the status says \"paused\", it is.")?;
            return Ok(true);
        }
        sleep(LOOK).await;
    }
    writeln!(out, "No instance has the queue: nothing is written of it any more.")?;
    Ok(true)
}

/// Lets a queue go on.
///
/// # Errors
/// There is no such queue, or Redis's.
pub async fn resume(config: &Config, asked: &Resume, out: &mut impl Write) -> anyhow::Result<bool> {
    let (queue, mut connection) = reach(config, &asked.queue).await?;
    match resume_queue(&mut connection, &config.keys_of(&queue.key)).await? {
        true => writeln!(out, "{} goes on.", queue.key)?,
        false => writeln!(out, "{} was not paused.", queue.key)?,
    }
    Ok(true)
}

async fn reach<'c>(config: &'c Config, key: &str) -> anyhow::Result<(&'c Queue, Connection)> {
    let queue = config.queues.iter().find(|queue| queue.key == key);
    let queue = queue.with_context(|| format!("no queue {key:?} is configured"))?;
    Ok((queue, Redis::new(&config.redis)?.of_queue(key).connect().await?))
}

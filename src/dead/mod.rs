//! Looks after dead letters, for a person: `tidegate dead`.

mod chosen;
mod plan;
mod progress;
mod replay;
mod shelf;
mod tell;
mod transfer;

use std::io::Write;

use anyhow::bail;

use self::chosen::{Desk, ReadLetter};
use self::shelf::{Shelf, Walk, reachable};
use crate::cli::dead::{DeadCommand, Show};
use crate::config::{Config, Queue};
use crate::sample::Explainer;

/// Does what is asked; answers whether all of it was done.
///
/// # Errors
/// It cannot be done, or no further. What was done is done, and asking again does the rest.
pub async fn look_after(config: &Config, asked: &DeadCommand, out: &mut impl Write) -> anyhow::Result<bool> {
    match asked {
        DeadCommand::Stats(asked) => tell::stats(config, asked, out).await.map(|()| true),
        DeadCommand::List(asked) => tell::list(config, asked, out).await.map(|()| true),
        DeadCommand::Show(asked) => show(config, asked, out).await.map(|()| true),
        DeadCommand::Export(asked) => transfer::export(config, asked, out).await.map(|()| true),
        DeadCommand::Import(asked) => transfer::import(config, asked, out).await.map(|()| true),
        DeadCommand::Drop(asked) => replay::drop_letters(config, asked, out).await,
        DeadCommand::Replay(asked) => replay::replay(config, asked, out).await,
    }
}

/// The queues that are meant.
fn queues<'c>(config: &'c Config, key: Option<&str>) -> anyhow::Result<Vec<&'c Queue>> {
    let meant: Vec<_> = config.queues.iter().filter(|queue| key.is_none_or(|key| queue.key == key)).collect();
    match key {
        Some(key) if meant.is_empty() => bail!("no queue {key:?} is configured"),
        _ => Ok(meant),
    }
}

/// Finds the letter of an offset. Where there are several, the first is meant.
async fn find(shelf: &mut Shelf<'_>, desk: &mut Desk, offset: i64) -> anyhow::Result<Option<ReadLetter>> {
    let mut walk = Walk::begin(shelf).await?;
    while let Some(window) = walk.next(shelf).await? {
        for (place, kept) in window {
            let read = desk.read(place, kept);
            if let Some(read) = read.filter(|read| read.letter.offset == offset) {
                return Ok(Some(read));
            }
        }
    }
    Ok(None)
}

async fn show(config: &Config, asked: &Show, out: &mut impl Write) -> anyhow::Result<()> {
    let (mut desk, sink) = (Desk::new(config), reachable(config).await);
    for queue in queues(config, asked.queue.as_deref())? {
        let found =
            find(&mut Shelf::open(config, queue, sink.as_ref()).await?, &mut desk, asked.offset).await?;
        let Some(ReadLetter { letter, .. }) = found else { continue };
        if asked.event {
            out.write_all(&letter.event)?;
            return Ok(());
        }
        let code = letter.code.map(|code| format!(" (MongoDB's code {code})")).unwrap_or_default();
        writeln!(out, "queue   {}\noffset  {}\ndead    {}", letter.queue, letter.offset, letter.at)?;
        writeln!(out, "class   {}{code}\nreason  {}", letter.class, letter.reason)?;
        if let Some(trace) = &letter.traceparent {
            writeln!(out, "trace   {trace}")?;
        }
        writeln!(out, "event")?;
        out.write_all(&letter.event)?;
        writeln!(out, "\n")?;
        Explainer::new(config, Some(queue)).explain("now", &letter.event, out)?;
        return Ok(());
    }
    bail!("no dead letter has the offset {}", asked.offset)
}

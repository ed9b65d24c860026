//! Prints letters as JSON lines, and puts such lines back among the dead letters of their queues.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;

use anyhow::{Context, bail};
use sha1::{Digest, Sha1};
use tokio_util::task::AbortOnDropHandle;

use super::chosen::{Chosen, Desk};
use super::progress::{ProgressLine, ask};
use super::queues;
use super::shelf::{Shelf, Walk, reachable};
use super::tell::amount;
use crate::cli::dead::{Export, Extent, Import};
use crate::config::{Config, Queue};
use crate::dead_letter::Letter;
use crate::sample;
use crate::sink::Sink;

/// Letters that are put back in one step.
const AT_ONCE: usize = 500;

pub(super) async fn export(config: &Config, asked: &Export, out: &mut impl Write) -> anyhow::Result<()> {
    let chosen = Chosen::new(&asked.which, None);
    let (mut desk, sink) = (Desk::new(config), reachable(config).await);
    for queue in queues(config, asked.which.queue.as_deref())? {
        let mut shelf = Shelf::open(config, queue, sink.as_ref()).await?;
        let mut walk = Walk::begin(&mut shelf).await?;
        while let Some(window) = walk.next(&mut shelf).await? {
            let read = window.into_iter().filter_map(|(place, kept)| desk.read(place, kept));
            for read in read.filter(|read| chosen.has(read)) {
                writeln!(out, "{}", read.letter.line())?;
            }
        }
    }
    out.flush()?;
    Ok(())
}

pub(super) async fn import(config: &Config, asked: &Import, out: &mut impl Write) -> anyhow::Result<()> {
    let text = sample::read(&asked.file).with_context(|| format!("cannot read {}", asked.file.display()))?;
    let mut by_queue: BTreeMap<String, Vec<Letter>> = BTreeMap::new();
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let letter = Letter::parse(line).with_context(|| format!("line {} is no dead letter", number + 1))?;
        by_queue.entry(letter.queue.clone()).or_default().push(letter);
    }
    // Without it, letters there would not be known.
    let sink = Sink::alone(config).await?;
    let mut extent = asked.extent.clone();
    for (key, letters) in by_queue {
        let Some(queue) = config.queues.iter().find(|queue| queue.key == key) else {
            bail!("{} are of the queue {key:?}, which is not configured", amount(letters.len() as u64));
        };
        let imported = import_into(config, (queue, &sink), letters, &extent, out).await?;
        extent.limit = extent.limit.map(|limit| limit.saturating_sub(imported));
    }
    Ok(())
}

/// Puts those back that are not there, and answers how many.
async fn import_into(
    config: &Config,
    (queue, sink): (&Queue, &Sink),
    given: Vec<Letter>,
    extent: &Extent,
    out: &mut impl Write,
) -> anyhow::Result<u64> {
    let mut shelf = Shelf::open(config, queue, Some(sink)).await?;
    shelf.hold().await?;
    let _keeper = AbortOnDropHandle::new(tokio::spawn(shelf.letters.holder().keep()));
    let mut desk = Desk::new(config);
    let mut there = HashSet::new();
    let mut walk = Walk::begin(&mut shelf).await?;
    while let Some(window) = walk.next(&mut shelf).await? {
        let read = window.into_iter().filter_map(|(place, kept)| desk.read(place, kept));
        there.extend(read.map(|read| identity(&read.letter)));
    }
    let all = given.len() as u64;
    let mut missing = given;
    missing.retain(|letter| there.insert(identity(letter)));
    missing.truncate(extent.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)));
    let count = missing.len() as u64;
    let (key, known) = (&queue.key, amount(all - count));
    if extent.dry_run {
        writeln!(out, "{key}: {} would be imported; {known} left", amount(count))?;
        shelf.letters.let_go().await?;
        return Ok(count);
    }
    ask("import", count, extent).await?;
    let mut progress = ProgressLine::new("import", count, extent.rate);
    for some in missing.chunks(AT_ONCE) {
        shelf.letters.import(&some.iter().map(Letter::line).collect::<Vec<_>>()).await?;
        progress.add(some.len() as u64).await;
    }
    drop(progress);
    shelf.letters.let_go().await?;
    writeln!(out, "{key}: imported {}; {known} were there, or are beyond the limit", amount(count))?;
    Ok(count)
}

/// What tells letters apart, however their events are written down.
fn identity(letter: &Letter) -> [u8; 20] {
    let mut digest = Sha1::new();
    digest.update(letter.offset.to_le_bytes());
    digest.update(letter.at.as_bytes());
    digest.update(&letter.event);
    digest.finalize().into()
}

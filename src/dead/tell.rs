//! LetterCounts letters, and lists them.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::json;

use super::chosen::{Chosen, Desk, ReadLetter};
use super::queues;
use super::shelf::{Shelf, Walk, reachable};
use crate::cli::dead::{ListLetters, Stats};
use crate::config::Config;
use crate::format::{cut, number, table};

/// Reasons told of a queue; there may be as many as letters.
const REASONS: usize = 20;
/// Bytes of a reason in a table.
const WIDTH: usize = 80;

/// What letters are counted by.
#[derive(Debug, Default)]
struct LetterCounts {
    letters: u64,
    oldest: Option<String>,
    newest: Option<String>,
    class: BTreeMap<String, u64>,
    reason: BTreeMap<String, u64>,
    collection: BTreeMap<String, u64>,
    hour: BTreeMap<String, u64>,
}

impl LetterCounts {
    fn add(&mut self, read: &ReadLetter) {
        let ReadLetter { letter, document, .. } = read;
        let count = |counts: &mut BTreeMap<String, u64>, of: &str| match counts.get_mut(of) {
            Some(n) => *n += 1,
            None => drop(counts.insert(of.to_owned(), 1)),
        };
        self.letters += 1;
        count(&mut self.class, &letter.class);
        count(&mut self.reason, &letter.reason_without_values());
        count(&mut self.collection, document.as_ref().map_or("unknown", |document| &document.collection));
        count(&mut self.hour, letter.at.get(..13).unwrap_or(&letter.at));
        if self.oldest.as_ref().is_none_or(|at| letter.at < *at) {
            self.oldest = Some(letter.at.clone());
        }
        if self.newest.as_ref().is_none_or(|at| letter.at > *at) {
            self.newest = Some(letter.at.clone());
        }
    }

    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        for (name, counts) in
            [("class", &self.class), ("reason", &self.reason), ("collection", &self.collection)]
        {
            let mut counts: Vec<_> = counts.iter().map(|(of, n)| (*n, of)).collect();
            counts.sort_unstable_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.cmp(y)));
            writeln!(out, "  by {name}")?;
            for (n, of) in counts.iter().take(REASONS) {
                writeln!(out, "    {:>12}  {}", number(*n), cut(of, WIDTH))?;
            }
            if counts.len() > REASONS {
                writeln!(out, "    and {} more", number((counts.len() - REASONS) as u64))?;
            }
        }
        writeln!(out, "  by hour")?;
        for (hour, n) in &self.hour {
            writeln!(out, "    {:>12}  {hour}", number(*n))?;
        }
        Ok(())
    }
}

pub(super) async fn stats(config: &Config, asked: &Stats, out: &mut impl Write) -> anyhow::Result<()> {
    let (chosen, sink) = (Chosen::new(&asked.which, None), reachable(config).await);
    let mut told = Vec::new();
    for queue in queues(config, asked.which.queue.as_deref())? {
        let (mut desk, mut counts) = (Desk::new(config), LetterCounts::default());
        let mut shelf = Shelf::open(config, queue, sink.as_ref()).await?;
        let mut walk = Walk::begin(&mut shelf).await?;
        while let Some(window) = walk.next(&mut shelf).await? {
            let read = window.into_iter().filter_map(|(place, kept)| desk.read(place, kept));
            read.filter(|read| chosen.has(read)).for_each(|read| counts.add(&read));
        }
        let LetterCounts { letters: n, oldest, newest, class, reason, collection, hour } = &counts;
        if asked.json {
            told.push(json!({
                "queue": queue.key, "letters": n, "unreadable": desk.unreadable, "oldest": oldest, "newest": newest,
                "class": class, "reason": reason, "collection": collection, "hour": hour,
            }));
            continue;
        }
        writeln!(out, "{}: {}", queue.key, amount(*n))?;
        if let (Some(oldest), Some(newest)) = (oldest, newest) {
            writeln!(out, "  from {oldest} to {newest}")?;
            counts.write(out)?;
        }
        if desk.unreadable > 0 {
            writeln!(out, "  and {} elements that are no dead letters", number(desk.unreadable))?;
        }
    }
    if asked.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&told)?)?;
    }
    Ok(())
}

pub(super) async fn list(config: &Config, asked: &ListLetters, out: &mut impl Write) -> anyhow::Result<()> {
    let chosen = Chosen::new(&asked.which, None);
    let first = (asked.page - 1).saturating_mul(asked.limit);
    let page = first..first.saturating_add(asked.limit);
    let (mut desk, sink) = (Desk::new(config), reachable(config).await);
    let mut seen = 0_u64;
    let mut rows = Vec::new();
    for queue in queues(config, asked.which.queue.as_deref())? {
        let mut shelf = Shelf::open(config, queue, sink.as_ref()).await?;
        let mut walk = Walk::begin(&mut shelf).await?;
        while let Some(window) = walk.next(&mut shelf).await? {
            let read = window.into_iter().filter_map(|(place, kept)| desk.read(place, kept));
            for read in read.filter(|read| chosen.has(read)) {
                if page.contains(&seen) {
                    rows.push(read);
                }
                seen += 1;
            }
        }
    }
    if asked.json {
        for ReadLetter { letter, document, .. } in &rows {
            let (collection, id) =
                document.as_ref().map(|document| (&document.collection, &document.id)).unzip();
            let row = json!({
                "queue": letter.queue, "offset": letter.offset, "at": letter.at, "class": letter.class,
                "code": letter.code, "reason": letter.reason, "collection": collection, "id": id,
                "bytes": letter.event.len(),
            });
            writeln!(out, "{row}")?;
        }
        return Ok(());
    }
    letters(&rows, out)?;
    let last = page.end.min(seen);
    match rows.len() as u64 {
        0 => writeln!(out, "none of {}", amount(seen))?,
        shown if shown < seen => {
            writeln!(out, "{} to {} of {}", number(first + 1), number(last), amount(seen))?;
            if last < seen {
                writeln!(out, "the next: --page {}", asked.page + 1)?;
            }
        }
        _ => writeln!(out, "{}", amount(seen))?,
    }
    Ok(())
}

fn letters(rows: &[ReadLetter], out: &mut impl Write) -> std::io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut cells = vec![["QUEUE", "OFFSET", "DEAD SINCE", "CLASS", "DOCUMENT", "REASON"].map(str::to_owned)];
    cells.extend(rows.iter().map(|ReadLetter { letter, document, .. }| {
        let named = document.as_ref().map(|document| format!("{} {}", document.collection, document.id));
        [
            letter.queue.clone(),
            letter.offset.to_string(),
            letter.at.clone(),
            letter.class.clone(),
            cut(&named.unwrap_or_else(|| "unknown".into()), WIDTH / 2),
            cut(&letter.reason, WIDTH),
        ]
    }));
    for line in table(&cells, [false; 6]) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// `1 dead letter`, `31,204 dead letters`
pub(super) fn amount(n: u64) -> String {
    if n == 1 { "1 dead letter".to_owned() } else { format!("{} dead letters", number(n)) }
}

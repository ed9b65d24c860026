//! Reads when people typed their keys, and counts how few writes a window can make of that.

use std::time::Duration;

use anyhow::Context;

/// Whose they are, the README beside them says.
const TYPING: &str = include_str!("typing.txt");

/// A key that somebody typed into a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Since the first one.
    pub(crate) at: Duration,
    pub(crate) document: usize,
}

/// What is typed into so many documents in a time, in order. Each has one person's piece. There are 204: more documents
/// have the first ones again.
pub(crate) fn keys(documents: usize, lasts: Duration) -> anyhow::Result<Vec<Key>> {
    let mut keys = Vec::new();
    for (document, piece) in TYPING.lines().cycle().take(documents).enumerate() {
        for number in piece.split_whitespace() {
            let at = Duration::from_millis(number.parse().context("a time of a key")?);
            keys.push(Key { at, document });
        }
    }
    keys.retain(|key| key.at < lasts);
    keys.sort_unstable();
    Ok(keys)
}

/// How many writes these keys need, by arithmetic, where a document is written so long after the first that is not.
pub(crate) fn writes(keys: &[Key], window: Duration) -> usize {
    let documents = keys.iter().map(|key| key.document + 1).max().unwrap_or(0);
    let mut due = vec![Duration::ZERO; documents];
    let mut writes = 0;
    for key in keys {
        let due = &mut due[key.document];
        if key.at >= *due {
            *due = key.at + window;
            writes += 1;
        }
    }
    writes
}

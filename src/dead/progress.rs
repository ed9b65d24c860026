//! Shows a person how far something is, and asks before much is done.

use std::io::{IsTerminal, Write, stderr, stdin};
use std::time::{Duration, Instant};

use anyhow::bail;

use super::tell::amount;
use crate::cli::dead::Extent;
use crate::format::number;

/// More than so many letters are changed only if a person says yes.
const ASKED_ABOVE: u64 = 100;
/// How often the line changes.
const EVERY: Duration = Duration::from_millis(200);
/// Characters of the bar.
const BAR: u64 = 30;

/// A line on a terminal. What is no terminal gets none.
#[derive(Debug)]
pub(super) struct ProgressLine {
    doing: &'static str,
    all: u64,
    done: u64,
    begun: Instant,
    told: Option<Instant>,
    is_terminal: bool,
    rate: Option<u64>,
}

impl ProgressLine {
    pub(super) fn new(doing: &'static str, all: u64, rate: Option<u64>) -> Self {
        let is_terminal = stderr().is_terminal();
        ProgressLine { doing, all, done: 0, begun: Instant::now(), told: None, is_terminal, rate }
    }

    /// So many more are done. Waits where it would be too many a second.
    pub(super) async fn add(&mut self, n: u64) {
        self.done += n;
        if self.is_terminal && self.told.is_none_or(|told| told.elapsed() >= EVERY) {
            self.told = Some(Instant::now());
            let filled = (self.done * BAR / self.all.max(1)).min(BAR) as usize;
            let bar = "#".repeat(filled) + &".".repeat(BAR as usize - filled);
            let (doing, done, all) = (self.doing, number(self.done), number(self.all));
            let _ = write!(stderr(), "\r{doing} [{bar}] {done} of {all} ");
        }
        if let Some(rate) = self.rate {
            let due = self.begun + Duration::from_secs_f64(self.done as f64 / rate as f64);
            tokio::time::sleep_until(due.into()).await;
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.told.is_some() {
            let _ = write!(stderr(), "\r{:80}\r", "");
        }
    }
}

/// Asks whether so many letters may be changed, if they are many.
///
/// # Errors
/// Nobody is there to ask, or says no.
pub(super) async fn ask(what: &str, n: u64, extent: &Extent) -> anyhow::Result<()> {
    if n <= ASKED_ABOVE || extent.yes {
        return Ok(());
    }
    let question = format!("{what} {}", amount(n));
    if !stdin().is_terminal() {
        bail!("to {question}, say --yes: nobody can be asked here");
    }
    let answer = tokio::task::spawn_blocking(move || {
        let mut answer = String::new();
        let _ = write!(stderr(), "{question}? [y/N] ");
        stdin().read_line(&mut answer).map(|_| answer)
    });
    match answer.await??.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => bail!("nothing was done"),
    }
}

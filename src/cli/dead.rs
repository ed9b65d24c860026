//! Defines the arguments of `tidegate dead`.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use humantime_serde::re::humantime::parse_duration;

use super::Options;

/// What is to be done with dead letters.
#[derive(Debug, Clone, Subcommand)]
pub enum DeadCommand {
    /// Count them by queue, class, reason, collection and hour
    Stats(Stats),
    /// List them, oldest first
    List(ListLetters),
    /// Show one: its event byte for byte, what was wrong, and what the routes make of it now
    Show(Show),
    /// Print them as JSON lines, which `import` takes
    Export(Export),
    /// Put exported letters back among the dead letters of their queues
    Import(Import),
    /// Remove them for good
    Drop(Drop),
    /// Put their events back into their queues
    ///
    /// A letter whose document has moved on is listed and left: its event would overwrite what is newer. Letters of one
    /// document go in their order. May be interrupted at any point and run again. Exits with 1 if letters were left.
    Replay(Replay),
}

impl DeadCommand {
    /// What is said of the configuration.
    #[must_use]
    pub fn options(&self) -> &Options {
        match self {
            DeadCommand::Stats(Stats { which, .. })
            | DeadCommand::List(ListLetters { which, .. })
            | DeadCommand::Export(Export { which })
            | DeadCommand::Drop(Drop { which, .. })
            | DeadCommand::Replay(Replay { which, .. }) => &which.options,
            DeadCommand::Show(Show { options, .. }) | DeadCommand::Import(Import { options, .. }) => options,
        }
    }
}

/// Which letters are meant: those for which all of this is so.
#[derive(Debug, Clone, Default, Args)]
pub struct Which {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub options: Options,
    /// Of this queue
    #[arg(long, value_name = "KEY")]
    pub queue: Option<String>,
    /// Of this class, such as bad-id
    #[arg(long)]
    pub class: Option<String>,
    /// With this text in the reason
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Whose events are for this collection, as the routes are now
    #[arg(long, value_name = "NAME")]
    pub collection: Option<String>,
    /// Whose events are for the document of this id, as the routes are now
    #[arg(long)]
    pub id: Option<String>,
    /// Dead since then: a time as RFC 3339 has it, or how long ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<i64>,
    /// Dead before then
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<i64>,
}

/// Arguments of `dead stats`.
#[derive(Debug, Clone, Args)]
pub struct Stats {
    /// Which letters
    #[command(flatten)]
    pub which: Which,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `dead list`.
#[derive(Debug, Clone, Args)]
pub struct ListLetters {
    /// Which letters
    #[command(flatten)]
    pub which: Which,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
    /// Letters on a page
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,
    /// Which page
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub page: u64,
}

/// Arguments of `dead show`.
#[derive(Debug, Clone, Args)]
pub struct Show {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub options: Options,
    /// Its offset
    pub offset: i64,
    /// Of this queue
    #[arg(long, value_name = "KEY")]
    pub queue: Option<String>,
    /// Print the event and nothing else, as `replay --event` takes it
    #[arg(long)]
    pub event: bool,
}

/// Arguments of `dead export`.
#[derive(Debug, Clone, Args)]
pub struct Export {
    /// Which letters
    #[command(flatten)]
    pub which: Which,
}

/// Arguments of `dead import`.
#[derive(Debug, Clone, Args)]
pub struct Import {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub options: Options,
    /// A file of letters, one a line; - is standard input
    pub file: PathBuf,
    /// How much of it, and how
    #[command(flatten)]
    pub extent: Extent,
}

/// Arguments of `dead drop`.
#[derive(Debug, Clone, Args)]
pub struct Drop {
    /// Only the letter of this offset
    pub offset: Option<i64>,
    /// Which letters
    #[command(flatten)]
    pub which: Which,
    /// How many, and how
    #[command(flatten)]
    pub extent: Extent,
}

/// Arguments of `dead replay`.
#[derive(Debug, Clone, Args)]
pub struct Replay {
    /// Only the letter of this offset
    pub offset: Option<i64>,
    /// Which letters
    #[command(flatten)]
    pub which: Which,
    /// How many, and how
    #[command(flatten)]
    pub extent: Extent,
    /// Put the event in this file in place of the letter's; - is standard input
    #[arg(long, value_name = "FILE", requires = "offset")]
    pub event: Option<PathBuf>,
    /// Also letters whose documents have moved on
    #[arg(long)]
    pub even_if_newer: bool,
}

/// How many letters are changed, and how.
#[derive(Debug, Clone, Default, Args)]
pub struct Extent {
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// No more than so many
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// No more than so many a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Do not ask, however many there are
    #[arg(long)]
    pub yes: bool,
}

/// A time, milliseconds since the Unix epoch.
fn time(text: &str) -> Result<i64, String> {
    if let Ok(time) = bson::DateTime::parse_rfc3339_str(text) {
        return Ok(time.timestamp_millis());
    }
    let ago = parse_duration(text)
        .map_err(|_| "needs a time such as 2026-01-02T03:04:05Z, or how long ago, such as 2h".to_owned())?;
    let then = SystemTime::now().checked_sub(ago).and_then(|then| then.duration_since(UNIX_EPOCH).ok());
    Ok(then.and_then(|then| i64::try_from(then.as_millis()).ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_points_or_how_long_ago() {
        assert_eq!(time("1970-01-01T00:00:01Z"), Ok(1000));
        let now = bson::DateTime::now().timestamp_millis();
        let ago = time("2h").unwrap();
        assert!((now - 7_200_000 - ago).abs() < 60_000, "{ago}");
        assert!(time("yesterday").is_err());
    }
}

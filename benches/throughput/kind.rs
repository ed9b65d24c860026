//! Lists the kinds of queue, as far as they matter to who measures them.

use redis::Cmd;

use super::servers::QUEUE;

/// What the events are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    List,
    Stream,
}

/// Ids of entries that are kept are in the year 2096, behind any that Redis gives out: what tidegate has settled before it
/// finds them is before them.
const FIRST_MS: u64 = 4_000_000_000_000;
/// Entries of one millisecond.
const A_MS: u64 = 100;

impl Kind {
    pub(crate) const ALL: [Kind; 2] = [Kind::List, Kind::Stream];

    /// Where events wait that are kept for the next run.
    pub(crate) fn kept(self) -> &'static str {
        match self {
            Kind::List => "bench:kept",
            Kind::Stream => "bench:kept:stream",
        }
    }

    /// More of `[[queues]]`. Settled entries go, as a list's elements do.
    pub(crate) fn config(self) -> &'static str {
        match self {
            Kind::List => "",
            Kind::Stream => "kind = \"stream\"\ntrim = \"delete\"\n",
        }
    }

    /// Appends the `n`th event to what is kept.
    pub(crate) fn keep(self, n: u64, event: &str) -> Cmd {
        match self {
            Kind::List => append("RPUSH", self.kept(), &[], event),
            Kind::Stream => {
                let id = format!("{}-{}", FIRST_MS + n / A_MS, n % A_MS);
                append("XADD", self.kept(), &[&id, "event"], event)
            }
        }
    }

    /// Appends an event to the queue.
    pub(crate) fn push(self, event: &str) -> Cmd {
        match self {
            Kind::List => append("RPUSH", QUEUE, &[], event),
            Kind::Stream => append("XADD", QUEUE, &["*", "event"], event),
        }
    }

    /// Leaves `count` events of what is staged.
    pub(crate) fn cut(self, staged: &str, count: u64) -> Cmd {
        let mut cut = match self {
            Kind::List => redis::cmd("LTRIM"),
            Kind::Stream => redis::cmd("XTRIM"),
        };
        match self {
            Kind::List => cut.arg(staged).arg(0).arg(count - 1),
            Kind::Stream => cut.arg(staged).arg("MAXLEN").arg(count),
        };
        cut
    }

    /// How many events are in the queue.
    pub(crate) fn length(self) -> Cmd {
        let mut length = redis::cmd(match self {
            Kind::List => "LLEN",
            Kind::Stream => "XLEN",
        });
        length.arg(QUEUE);
        length
    }
}

fn append(name: &str, key: &str, more: &[&str], event: &str) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(key).arg(more).arg(event);
    command
}

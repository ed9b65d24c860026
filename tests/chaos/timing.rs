//! Spreads timings over the documents, so that windows of all lengths are open whatever fails.

use std::fmt::Write;

/// How long changes wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timing {
    /// As long as the round's policy says: native events.
    Policy,
    /// So long, as `max_delay`.
    Window(&'static str),
    /// As `pace`.
    Pace(&'static str),
    /// Not at all, nor does what waits.
    Flush,
}

/// Longer than a round.
const LONG: &str = "30s";

/// What an event has as `timing` that writes nothing, but has written what waits for its document.
pub(crate) const LEFT: &str = "left";

/// One document in six has each.
const ALL: [Timing; 6] = [
    Timing::Policy,
    Timing::Window("0s"),
    Timing::Window("50ms"),
    Timing::Window("2s"),
    Timing::Window(LONG),
    Timing::Pace("1s"),
];

/// Of documents that wait for longer than a round, one event in so many flushes.
const FLUSHES: usize = 32;

impl Timing {
    /// That of a document's events. Each producer has documents of every kind.
    pub(crate) fn of(entity: usize) -> Self {
        ALL[entity / 3 % ALL.len()]
    }

    /// That of its event `n`.
    pub(crate) fn of_event(entity: usize, n: usize) -> Self {
        let timing = Self::of(entity);
        if timing.outlasts_a_round() && n % FLUSHES == FLUSHES - 1 { Timing::Flush } else { timing }
    }

    /// Whether nothing but a flush, a takeover or the end has the document written within a round.
    pub(crate) fn outlasts_a_round(self) -> bool {
        self == Timing::Window(LONG)
    }

    /// What its events have as `timing`. Native events say nothing.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Timing::Policy => None,
            Timing::Window(name) | Timing::Pace(name) => Some(name),
            Timing::Flush => Some("flush"),
        }
    }
}

/// The routes of all timings, with `more` in each.
pub(crate) fn routes(more: &str) -> String {
    let mut routes = format!(
        "[[routes]]\n\
         when = {{ timing = \"{LEFT}\" }}\n\
         collection = \"documents\"\n\
         id = \"id\"\n\
         flush = true\n"
    );
    for timing in ALL.into_iter().chain([Timing::Flush]) {
        let Some(name) = timing.name() else { continue };
        let key = match timing {
            Timing::Pace(pace) => format!("pace = \"{pace}\""),
            Timing::Flush => "flush = true".to_owned(),
            Timing::Policy | Timing::Window(_) => format!("max_delay = \"{name}\""),
        };
        // Writing to a String cannot fail.
        let _ = write!(
            routes,
            "[[routes]]\n\
             when = {{ timing = \"{name}\" }}\n\
             collection = \"documents\"\n\
             id = \"id\"\n\
             push = {{ log = \"n\" }}\n\
             inc = {{ count = 1 }}\n\
             set = {{ last = \"n\" }}\n\
             {key}\n{more}"
        );
    }
    routes
}

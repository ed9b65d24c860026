//! Says what was found out of a server before anything is drained.

use std::fmt;
use std::time::{Duration, SystemTime};

/// Clocks that differ by more than this make ages wrong that people look at.
const CLOCKS: Duration = Duration::from_secs(1);

/// What a finding means for whoever is about to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// As it should be.
    Fine,
    /// Worth knowing.
    Note,
    /// It would cost a promise, or nothing would be drained until it is put right.
    Warning,
    /// Tidegate would refuse to start.
    Fatal,
}

/// One thing that was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) weight: Weight,
    /// What of: a server, a queue, a collection.
    about: String,
    text: String,
}

impl Finding {
    pub(crate) fn new(weight: Weight, about: impl Into<String>, text: impl Into<String>) -> Self {
        Finding { weight, about: about.into(), text: text.into() }
    }

    pub(crate) fn fine(about: impl Into<String>, text: impl Into<String>) -> Self {
        Finding::new(Weight::Fine, about, text)
    }

    pub(crate) fn note(about: impl Into<String>, text: impl Into<String>) -> Self {
        Finding::new(Weight::Note, about, text)
    }

    pub(crate) fn warning(about: impl Into<String>, text: impl Into<String>) -> Self {
        Finding::new(Weight::Warning, about, text)
    }

    pub(crate) fn fatal(about: impl Into<String>, text: impl Into<String>) -> Self {
        Finding::new(Weight::Fatal, about, text)
    }

    /// What it says, without its weight.
    pub(crate) fn told(&self) -> String {
        format!("{}: {}", self.about, self.text)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = match self.weight {
            Weight::Fine => "ok",
            Weight::Note => "note",
            Weight::Warning => "warning",
            Weight::Fatal => "error",
        };
        write!(f, "{weight:<8}{}", self.told())
    }
}

/// Whether a server's clock is another than this machine's.
pub(crate) fn clock(about: &str, theirs: SystemTime, ours: SystemTime) -> Option<Finding> {
    let difference = theirs.duration_since(ours).unwrap_or_else(|behind| behind.duration()).as_secs_f64();
    let text = format!("its clock differs from this machine's by {difference:.1} s: ages are off by that");
    (difference > CLOCKS.as_secs_f64()).then(|| Finding::note(about, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_differ_by_a_second() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(clock("x", now + Duration::from_millis(900), now), None);
        let behind = clock("x", now - Duration::from_secs(90), now).map(|found| found.to_string());
        let told = "note    x: its clock differs from this machine's by 90.0 s: ages are off by that";
        assert_eq!(behind.as_deref(), Some(told));
    }
}

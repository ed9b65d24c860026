//! Says how much is measured: all of it, or in a hurry.

use anyhow::ensure;

/// What a run does.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Fewer events, fewer rounds.
    pub(crate) quick: bool,
    /// Names of the only steps wanted; empty: all.
    only: Vec<String>,
    /// How often everything is measured, in turn.
    pub(crate) rounds: usize,
    /// The same, if somebody said so.
    asked: Option<usize>,
}

impl Plan {
    /// From `QUICK`, `ONLY` (names of `steps`, with commas) and `ROUNDS`.
    pub(crate) fn from_env(steps: &[&str]) -> anyhow::Result<Self> {
        let text = |name: &str| std::env::var(name).unwrap_or_default();
        let quick = !matches!(text("QUICK").as_str(), "" | "0");
        let only: Vec<String> = text("ONLY")
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        for name in &only {
            ensure!(
                steps.contains(&name.as_str()),
                "ONLY={name}: no such step, there are {}",
                steps.join(", ")
            );
        }
        let asked = match text("ROUNDS").as_str() {
            "" => None,
            rounds => Some(rounds.parse()?),
        };
        ensure!(asked != Some(0), "ROUNDS=0 measures nothing");
        Ok(Self { quick, only, rounds: asked.unwrap_or(if quick { 1 } else { 5 }), asked })
    }

    pub(crate) fn wants(&self, step: &str) -> bool {
        self.only.is_empty() || self.names(step)
    }

    /// Whether a step is wanted by its name.
    pub(crate) fn names(&self, step: &str) -> bool {
        self.only.iter().any(|name| name == step)
    }

    /// Rounds of a step that has so many where nobody says how many.
    pub(crate) fn rounds_or(&self, usual: usize) -> usize {
        self.asked.unwrap_or(usual)
    }

    /// The first, or if there is no time the second.
    pub(crate) fn of<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

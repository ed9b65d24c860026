//! Reads what `/status` says. What an instance of another version does not tell is left out.

use std::time::Duration;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    pub(super) summary: ToldSummary,
    #[serde(default)]
    pub(super) version: String,
    #[serde(default)]
    pub(super) instance: String,
    #[serde(default)]
    pub(super) uptime_seconds: f64,
    #[serde(default)]
    pub(super) dependencies: ToldDependencies,
    #[serde(default)]
    pub(super) buffer: ToldBuffer,
    #[serde(default)]
    pub(super) queues: Vec<ToldQueue>,
    #[serde(default)]
    pub(super) dead_letter_groups: Vec<ToldLetterGroup>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ToldSummary {
    /// A text, so that a level of a later version is none that passes for well.
    pub(super) level: String,
    pub(super) text: String,
    #[serde(default)]
    pub(super) advice: String,
    #[serde(default)]
    pub(super) error: String,
}

impl ToldSummary {
    /// Whether events get on, and none is late or lost to a dead letter.
    pub(super) fn is_well(&self) -> bool {
        matches!(self.level.as_str(), "ok" | "notice")
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ToldDependencies {
    pub(super) redis: ToldDependency,
    pub(super) mongodb: ToldDependency,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ToldDependency {
    pub(super) state: String,
    pub(super) for_seconds: Option<f64>,
    pub(super) error: Option<String>,
    pub(super) last_outage: Option<ToldOutage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ToldOutage {
    pub(super) error: String,
    pub(super) ended_seconds_ago: f64,
    pub(super) lasted_seconds: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ToldBuffer {
    pub(super) events: u64,
    pub(super) bytes: u64,
    pub(super) max_events: u64,
    pub(super) max_bytes: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ToldQueue {
    pub(super) key: String,
    pub(super) phase: String,
    pub(super) phase_seconds: f64,
    pub(super) obstacle: Option<String>,
    pub(super) pause: Option<ToldPause>,
    pub(super) owner: Option<String>,
    pub(super) depth: u64,
    pub(super) oldest_age_seconds: f64,
    pub(super) window_seconds: f64,
    pub(super) held_back: Vec<ToldHeldBack>,
    pub(super) last_commit_seconds_ago: Option<f64>,
    pub(super) dead_letters: u64,
    pub(super) dead_letter_list: String,
    pub(super) recent: ToldRecent,
    pub(super) lanes: Vec<ToldLane>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ToldPause {
    pub(super) by: String,
    pub(super) reason: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ToldHeldBack {
    pub(super) queue: String,
    pub(super) collection: String,
    pub(super) documents: u64,
    pub(super) events: u64,
    pub(super) for_seconds: f64,
    pub(super) error: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ToldRecent {
    pub(super) arrived_per_second: f64,
    pub(super) settled_per_second: f64,
    pub(super) events_per_write: Option<f64>,
    pub(super) durable_within: ToldDurableWithin,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ToldDurableWithin {
    pub(super) p99: Option<ToldWithin>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ToldWithin {
    /// None is beyond all that is measured.
    pub(super) seconds: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ToldLane {
    pub(super) doing: String,
    pub(super) for_seconds: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ToldLetterGroup {
    pub(super) queue: String,
    pub(super) class: String,
    pub(super) reason: String,
    pub(super) count: u64,
    pub(super) seconds_ago: f64,
}

/// Seconds as they came from outside: any number at all.
pub(super) fn time(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

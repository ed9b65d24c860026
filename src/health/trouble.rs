//! Tracks what keeps a part of the work from being done while the rest goes on.
//! The log has a line when it comes and one when it goes; the status has it for as long as it is there.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Instant;

use parking_lot::Mutex;
use serde::Serialize;

use super::seconds_since;
use crate::format::cut;

/// Bytes of an error that are kept.
const ERROR: usize = 500;

/// The troubles that there are, by the task that fails. Tasks come from the configuration, so that there are few.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<BTreeMap<String, Trouble>>);

/// A task that fails, and goes on failing until it works.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Trouble {
    task: String,
    error: String,
    #[serde(rename = "for_seconds", serialize_with = "seconds_since")]
    since: Instant,
}

impl Troubles {
    /// A task failed. Only the first time is logged.
    pub(crate) fn met(&self, task: &str, error: &dyn Display) {
        let mut all = self.0.lock();
        let error = cut(&error.to_string(), ERROR);
        match all.get_mut(task) {
            Some(trouble) => trouble.error = error,
            None => {
                tracing::warn!("{task} failed: {error}; trying again until it works");
                all.insert(task.to_owned(), Trouble { task: task.to_owned(), error, since: Instant::now() });
            }
        }
    }

    /// A task is done, or has become needless.
    pub(crate) fn over(&self, task: &str) {
        if let Some(trouble) = self.0.lock().remove(task) {
            tracing::info!("{task} works after {:.1} s", trouble.since.elapsed().as_secs_f64());
        }
    }

    /// Whether there are none.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// How many there are; of the one that is there for longest, the task and what it met.
    #[must_use]
    pub(crate) fn worst(&self) -> Option<(usize, String, String)> {
        let all = self.0.lock();
        let worst = all.values().min_by_key(|trouble| trouble.since)?;
        Some((all.len(), worst.task.clone(), worst.error.clone()))
    }

    /// What `/status` says of them.
    #[must_use]
    pub(crate) fn all(&self) -> Vec<Trouble> {
        self.0.lock().values().cloned().collect()
    }
}

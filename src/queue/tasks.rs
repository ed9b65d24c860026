//! Runs the tasks of an owned queue: one reads, lanes write, one commits.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::committer::commit;
use super::dispatcher::Dispatcher;
use super::reader::Reader;
use crate::lane::Lane;
use crate::ownership::Owned;
use crate::source::{SourceError, Waiter};

/// Chunks a lane may have waiting. Lanes fold while they write, so few suffice.
const LANE_INPUTS: usize = 8;

/// Runs an owned queue's tasks until stopped and everything is settled and committed, or until the
/// ownership ends. All of them end with this.
pub(super) async fn run(
    owned: &Arc<Owned>,
    waiter: Waiter,
    stop: &CancellationToken,
) -> Result<(), SourceError> {
    let (inputs, lanes): (Vec<_>, Vec<_>) =
        (0..owned.shared.config.lanes.count).map(|_| mpsc::channel(LANE_INPUTS)).unzip();

    let mut working = JoinSet::new();
    let dispatcher = Dispatcher::new(Arc::clone(owned), inputs);
    working.spawn(Reader::new(Arc::clone(owned), dispatcher, stop.clone(), waiter).run());
    for (index, input) in lanes.into_iter().enumerate() {
        working.spawn(Lane::new(index, Arc::clone(owned), input).run());
    }
    let settled = CancellationToken::new();
    let mut committing = JoinSet::new();
    committing.spawn(commit(Arc::clone(owned), settled.clone()));

    // The reader ends when stopped; that ends the lanes, and that the committer.
    loop {
        tokio::select! {
            Some(ended) = working.join_next() => joined(ended)?,
            Some(ended) = committing.join_next() => return joined(ended),
            else => return Ok(()),
        }
        if working.is_empty() {
            settled.cancel();
        }
    }
}

fn joined(ended: Result<Result<(), SourceError>, tokio::task::JoinError>) -> Result<(), SourceError> {
    match ended {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(SourceError::lost(error)),
    }
}

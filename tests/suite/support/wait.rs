//! Waits for a condition: polls with a limit, and fails with what was seen last.

use std::fmt::Display;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep, timeout_at};

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Asks again and again until `check` answers `Ok`; what it answers instead is the state it saw.
///
/// # Panics
/// When `limit` is over, with `what` was awaited and the state seen last.
pub(crate) async fn eventually<T, E: Display>(
    limit: Duration,
    what: &str,
    check: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    match try_eventually(limit, what, check).await {
        Ok(value) => value,
        Err(error) => panic!("{error:#}"),
    }
}

/// [`eventually`] with an error instead of a panic.
pub(crate) async fn try_eventually<T, E: Display>(
    limit: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    let mut seen = String::from("nothing yet");
    let mut pause = FIRST_PAUSE;
    loop {
        match timeout_at(deadline, check()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(state)) => seen = format!("{state:#}"),
            Err(_) => {
                bail!("waited {limit:?} for {what}; the last question got no answer, seen before: {seen}")
            }
        }
        if Instant::now() + pause >= deadline {
            bail!("waited {limit:?} for {what}; seen last: {seen}");
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

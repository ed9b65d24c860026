//! Tests an event that kills whoever works on it.

use std::time::Duration;

use anyhow::ensure;

use crate::stage::{PATIENCE, Setting, assert_exact, logged};
use crate::support::{Exited, Metrics, length};

type Outcome = anyhow::Result<()>;

/// What the daemon may have. It takes some dozen MiB; reading the event that kills takes more than is left.
const MEMORY: u64 = 96 << 20;
const KILLER: usize = 40 << 20;

/// More would mean that the event is never found.
const MOST_DEATHS: usize = 14;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_kills_is_set_aside() -> Outcome {
    is_set_aside(Setting::new()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_of_a_stream_that_kills_is_set_aside() -> Outcome {
    is_set_aside(Setting::new().stream("")).await
}

async fn is_set_aside(setting: Setting) -> Outcome {
    let stage = setting.stage().await?;
    let killer = format!(r#"{{"collection":"documents","id":"big","text":"{}"}}"#, "x".repeat(KILLER));
    let before = (0..40).map(|n| logged(&format!("doc{}", n % 4), n / 4));
    let after = (40..80).map(|n| logged(&format!("doc{}", n % 4), n / 4));
    stage.push(before.chain([killer]).chain(after)).await?;

    // Redis is busy with such an event for long, on a busy machine for longer than a short lease.
    let launch = stage.launch.clone().memory(MEMORY).env("TIDEGATE_LEASE__TTL", "3s");
    let mut deaths = 0;
    let tidegate = loop {
        let tidegate = launch.spawn().await?;
        let drained = async {
            let mut producer = stage.producer().await?;
            while length(&mut producer, &stage.queue).await? > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        let died = {
            let id = tidegate.id();
            async move {
                while is_alive(id) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        tokio::select! {
            drained = drained => {
                drained?;
                break tidegate;
            }
            () = died => {
                deaths += 1;
                let Exited { status, lines } = tidegate.exited(PATIENCE).await?;
                assert!(!status.success() && deaths <= MOST_DEATHS, "death {deaths}: {status} {lines:?}");
            }
        }
    };
    println!("it died {deaths} times");
    assert!(deaths >= 4, "it died {deaths} times only");
    stage.settled(&tidegate).await?;
    for id in 0..4 {
        assert_exact(stage.document(format!("doc{id}")).await?.as_ref(), 20);
    }
    // Nor does its dead letter kill whoever looks at its age.
    let has_age = |metrics: &Metrics| {
        ensure!(metrics.sum("tidegate_dead_letters_oldest_age_seconds", &[]) > 0.0, "it has no age");
        Ok(())
    };
    tidegate.metrics_when(PATIENCE, "the age of the dead letter", has_age).await?;
    let letters = stage.dead_letters().await?;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["class"], "crash");
    let event = letters[0]["event_text"].as_str().unwrap_or_default();
    assert!(event.starts_with(r#"{"collection":"documents","id":"big""#) && event.len() > KILLER);
    Ok(())
}

/// Whether the process runs: one that has ended and was not waited for does not.
fn is_alive(id: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    status.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

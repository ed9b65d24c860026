//! Starts tidegate for a measurement: the real binary, as users run it.

use super::kind::Kind;
use super::servers::{QUEUE, Servers};
use super::stats::Run;
use super::support::{Launch, Tidegate};
use super::workload::Workload;

/// Keys of the configuration, from the environment.
pub(crate) type Settings<'a> = &'a [(&'a str, &'a str)];

pub(crate) const DEFAULT: Settings<'static> = &[];
/// What serves throughput best on two cores.
pub(crate) const BEST: Settings<'static> =
    &[("TIDEGATE_LANES__COUNT", "1"), ("TIDEGATE_BATCH__MAX_OPS", "5000")];

/// As in the shipped configuration file, with a route for small events behind it. But that file's route has
/// `max_delay = "2s"`, and this one deliberately none: what drains backlogs is compared with what was measured before there
/// were windows, and the last batch of a run is not to wait for two seconds.
const CONFIG: &str = r#"
[[routes]]
when = { type = "UPDATE_CONTENT" }
collection = "documents"
id = "payload.docId"
ts = "ts"
set = { text = "payload.text", updatedBy = "payload.userId" }
inc = { edits = 1 }

[[routes]]
when = { type = "EDIT" }
collection = "documents"
id = "payload.docId"
set = { text = "payload.text" }
inc = { edits = 1 }
"#;
/// Sent first, so that everything is connected and every collection there when the clock starts.
const FIRST: &str = r#"{"type":"EDIT","payload":{"docId":"first","text":""}}"#;

/// Starts it on an empty queue and waits until it waits for events.
pub(crate) async fn start(
    servers: &mut Servers,
    kind: Kind,
    database: &str,
    settings: Settings<'_>,
) -> anyhow::Result<Tidegate> {
    servers.clear().await?;
    let config = format!("{CONFIG}\n[[queues]]\nkey = \"{QUEUE}\"\n{}", kind.config());
    let mut launch = Launch::config(&config).redis(&servers.redis).mongodb(&servers.mongo, database);
    for (name, value) in settings {
        launch = launch.env(name, *value);
    }
    let tidegate = launch.start().await?;
    servers.taken().await?;
    servers.push(kind, FIRST).await?;
    servers.drained(kind).await?;
    Ok(tidegate)
}

/// From the moment when the events are there until the last one has left the list, which is after it is durable.
pub(crate) async fn drain(
    servers: &mut Servers,
    workload: &Workload,
    settings: Settings<'_>,
) -> anyhow::Result<Run> {
    let database = servers.database();
    servers.stage(workload).await?;
    servers.make(&database, workload).await?;
    let tidegate = start(servers, workload.kind, database.name(), settings).await?;
    let before = servers.cpu(tidegate.id())?;
    let began = servers.release(workload.kind).await?;
    servers.drained(workload.kind).await?;
    let run = servers.run(workload.events, began, before, tidegate.id())?;
    let run = Run { peak: Some(tidegate.peak_resident_bytes()?), ..run };
    // With the first one.
    servers.check(&database, workload.events + 1).await?;
    let exited = tidegate.terminate().await?;
    anyhow::ensure!(exited.status.success(), "tidegate ended with {} on {QUEUE}", exited.status);
    database.drop().await?;
    Ok(run)
}

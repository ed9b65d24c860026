//! Fills hot states as gateways do meanwhile, and checks what these have come to in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use bson::Document;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::filler::{Filler, shown};
use crate::plan::Plan;
use crate::workload::document_id;
use crate::world::World;

const GATEWAYS: usize = 2;
const TTL: Duration = Duration::from_secs(600);
const PATIENCE: Duration = Duration::from_secs(2);

/// Has gateways fill what has no hot state, until what is answered is dropped. They reach both servers without a proxy.
pub(crate) async fn gateways(world: &World, plan: &Plan) -> anyhow::Result<JoinSet<()>> {
    let mut gateways = JoinSet::new();
    for _ in 0..if plan.hot { GATEWAYS } else { 0 } {
        let (mut filler, entities) =
            (Filler::new(world.connect().await?, world.database(), TTL), plan.entities);
        gateways.spawn(async move {
            loop {
                let id = document_id(fastrand::usize(..entities));
                // What fails or hangs is tried again, with another document.
                let fill = async {
                    if let Ok(None) = filler.state(&id).await {
                        let _ = filler.fill(&id).await;
                    }
                };
                let _ = timeout(PATIENCE, fill).await;
                sleep(Duration::from_millis(1)).await;
            }
        });
    }
    Ok(gateways)
}

/// Everything is settled: each hot state is its document. Answers how many there are.
pub(crate) async fn compare(
    world: &World,
    plan: &Plan,
    documents: &BTreeMap<String, Document>,
) -> anyhow::Result<usize> {
    let mut filler = Filler::new(world.connect().await?, world.database(), TTL);
    let mut compared = 0;
    for id in (0..plan.entities).map(document_id) {
        let Some(state) = filler.state(&id).await? else { continue };
        compared += 1;
        let document = documents.get(&id).map(shown);
        ensure!(
            Some(&state) == document.as_ref(),
            "the hot state of {id} is {state}, and the document {document:?}"
        );
    }
    Ok(compared)
}

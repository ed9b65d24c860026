//! Tests Yjs documents: the real client loads what tidegate has stored.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bson::{Bson, Document};
use serde_json::Value as Json;

use crate::node::Node;
use crate::stage::{PATIENCE, Setting, Stage};
use crate::support::eventually;

type Outcome = anyhow::Result<()>;

const ROUTE: &str = r#"
[[routes]]
when = { type = "TYPED" }
collection = "pages"
id = "page"
yjs = { update = "update", field = "body.text", compact_above = 8, max_bytes = "2KiB" }
"#;

/// The events that two clients make by typing, and what they see in the end.
fn typed(node: &Node, edits: usize) -> anyhow::Result<(Vec<String>, Json)> {
    let printed = node.run("type.js", &[&edits.to_string(), "7"], b"")?;
    let mut lines: Vec<String> = printed.lines().map(str::to_owned).collect();
    let seen: Json = serde_json::from_str(&lines.pop().unwrap_or_default())?;
    Ok((lines, seen["seen"].clone()))
}

/// What a client sees that loads the stored updates; and how many there are.
fn loaded(node: &Node, page: &Document) -> anyhow::Result<(Json, usize)> {
    let text = page.get_document("body")?.get_document("text")?;
    let updates = text.get_array("updates")?;
    let encoded: Vec<String> = updates
        .iter()
        .filter_map(|update| match update {
            Bson::Binary(binary) => Some(STANDARD.encode(&binary.bytes)),
            _ => None,
        })
        .collect();
    assert_eq!(encoded.len(), updates.len(), "every update is a binary");
    assert_eq!(text.get_i32("count")?, i32::try_from(updates.len())?);
    let printed = node.run("load.js", &[], serde_json::to_string(&encoded)?.as_bytes())?;
    Ok((serde_json::from_str(&printed)?, updates.len()))
}

async fn page(stage: &Stage) -> anyhow::Result<Option<Document>> {
    crate::support::document(&stage.database, "pages", "p1").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_clients_type_at_once_is_what_a_client_loads() -> Outcome {
    let node = Node::programs("tests/yjs")?;
    let (events, seen) = typed(&node, 1500)?;
    let stage = Setting::new().with(ROUTE).stage().await?;
    stage.push(&events).await?;
    let tidegate = stage.launch.start().await?;

    let metrics = stage.settled(&tidegate).await?;
    let stored = page(&stage).await?.expect("the page");
    let (loads, updates) = loaded(&node, &stored)?;
    assert_eq!(loads, seen);
    assert!(updates < events.len() / 50, "{} events make {updates} updates", events.len());
    assert_eq!(metrics.sum("tidegate_dead_letters", &[]), 0.0);
    Ok(())
}

/// Update by update, through crashes, and with an array that is compacted all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_loses_nothing_whatever_dies() -> Outcome {
    let node = Node::programs("tests/yjs")?;
    let (events, seen) = typed(&node, 400)?;
    let stage = Setting::new().with(ROUTE).with("[batch]\nmax_delay = \"0ms\"\n").stage().await?;
    let mut tidegate = stage.launch.start().await?;
    for (round, some) in events.chunks(20).enumerate() {
        for event in some {
            stage.push([event]).await?;
        }
        if round % 5 == 4 {
            tidegate.kill9()?;
            tidegate = stage.launch.start().await?;
        }
    }

    stage.settled(&tidegate).await?;
    let (loads, _) = loaded(&node, &page(&stage).await?.expect("the page"))?;
    assert_eq!(loads, seen);
    // Short again, once somebody types: adding nothing is enough.
    let nothing = r#"{"type":"TYPED","page":"p1","update":"AAA="}"#;
    eventually(PATIENCE, "the array to be short", async || {
        stage.push([nothing]).await?;
        let metrics = stage.settled(&tidegate).await?;
        let (loads, updates) = loaded(&node, &page(&stage).await?.expect("the page"))?;
        assert_eq!(loads, seen);
        let compactions = metrics.sum("tidegate_writes_total", &[("op", "compact")]);
        anyhow::ensure!(updates <= 8 && compactions > 0.0, "{updates} updates, {compactions} compactions");
        anyhow::Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_update_is_a_dead_letter() -> Outcome {
    let node = Node::programs("tests/yjs")?;
    let (events, seen) = typed(&node, 50)?;
    let stage = Setting::new().with(ROUTE).stage().await?;
    let deep = [&[1, 1, 1, 0, 8, 1, 1, b't', 1][..], &[117, 1].repeat(800), &[126, 0]].concat();
    let bad = [
        "not base64".to_owned(),
        STANDARD.encode("no update"),
        STANDARD.encode(deep),
        STANDARD.encode(vec![0; 3000]),
    ];
    let bad = bad.map(|update| format!(r#"{{"type":"TYPED","page":"p1","update":"{update}"}}"#));
    stage.push(events.iter().chain(&bad)).await?;
    let tidegate = stage.launch.start().await?;

    stage.settled(&tidegate).await?;
    let letters = stage.dead_letters().await?;
    let reasons: Vec<&str> = letters.iter().filter_map(|letter| letter["reason"].as_str()).collect();
    let told = ["is not base64", "is no Yjs update", "nest too deep", "more than yjs.max_bytes"];
    assert_eq!(reasons.len(), told.len(), "{reasons:?}");
    for (reason, told) in reasons.iter().zip(told) {
        assert!(reason.contains(told), "{reason}");
    }
    let (loads, _) = loaded(&node, &page(&stage).await?.expect("the page"))?;
    assert_eq!(loads, seen);
    Ok(())
}

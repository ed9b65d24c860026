//! Tests routes with a shard key. The server is not sharded; the commands are those of a sharded one.

use serde_json::Value;

use crate::stage::{Setting, number};
use crate::support::document;

type Outcome = anyhow::Result<()>;

const ROUTES: &str = r#"
[[routes]]
when = { type = "COUNT" }
collection = "boards"
id = "id"
shard_key = { "place.region" = "region" }
inc = { n = 1 }

[[routes]]
when = { type = "STATE" }
collection = "boards"
id = "id"
shard_key = { "place.region" = "region" }
replace = "state"

[[routes]]
when = { type = "DELETE" }
collection = "boards"
id = "id"
shard_key = { "place.region" = "region" }
delete = true
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_keeps_its_shard_key() -> Outcome {
    let stage = Setting::new().with(ROUTES).stage().await?;
    stage
        .push([
            r#"{"type":"COUNT","id":1,"region":"eu"}"#,
            r#"{"type":"COUNT","id":2,"region":"us"}"#,
            r#"{"type":"STATE","id":2,"region":"us","state":{"n":5}}"#,
            r#"{"type":"COUNT","id":2,"region":"us"}"#,
            r#"{"type":"COUNT","id":3,"region":"us"}"#,
            r#"{"type":"DELETE","id":3,"region":"us"}"#,
        ])
        .await?;
    let tidegate = stage.start().await?;
    stage.settled(&tidegate).await?;
    for (id, n, region) in [(1, 1, "eu"), (2, 6, "us")] {
        let board = document(&stage.database, "boards", id).await?.expect("a board");
        assert_eq!(number(board.get("n").expect("a count")), n);
        assert_eq!(board.get_document("place")?.get_str("region")?, region, "{board}");
    }
    assert_eq!(document(&stage.database, "boards", 3).await?, None);
    Ok(())
}

/// Where the same id comes with another key, no document can be both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_is_taken_makes_dead_letters_of_its_events_only() -> Outcome {
    for delivery in ["exactly-once", "at-least-once"] {
        let stage = Setting::new().delivery(delivery).with(ROUTES).stage().await?;
        let tidegate = stage.start().await?;
        stage.push([r#"{"type":"COUNT","id":1,"region":"eu"}"#]).await?;
        stage.settled(&tidegate).await?;
        stage
            .push([
                r#"{"type":"COUNT","id":1,"region":"us"}"#,
                r#"{"type":"COUNT","id":1,"region":"eu"}"#,
                r#"{"type":"COUNT","id":1,"region":"us"}"#,
            ])
            .await?;
        stage.settled(&tidegate).await?;
        let board = document(&stage.database, "boards", 1).await?.expect("a board");
        assert_eq!(number(board.get("n").expect("a count")), 2, "{delivery}");
        let letters = stage.dead_letters().await?;
        let reason = |letter: &Value| letter["reason"].as_str().unwrap_or_default().to_owned();
        let reasons: Vec<String> = letters.iter().map(reason).collect();
        assert_eq!(reasons.len(), 2, "{delivery}: {reasons:?}");
        assert!(reasons.iter().all(|reason| reason.contains("another shard key")), "{reasons:?}");
        assert!(letters.iter().all(|letter| letter["code"] == 11000), "{letters:?}");
    }
    Ok(())
}

/// What was applied before a crash is found by id and key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_costs_nothing() -> Outcome {
    let stage = Setting::new().with(ROUTES).with("[batch]\nmax_delay = \"0ms\"\n").stage().await?;
    let mut tidegate = stage.start().await?;
    for _ in 0..4 {
        for n in 0..300 {
            stage.push([format!(r#"{{"type":"COUNT","id":{},"region":"eu"}}"#, n % 10)]).await?;
        }
        tidegate.kill9()?;
        tidegate = stage.launch.start().await?;
    }
    stage.settled(&tidegate).await?;
    for id in 0..10 {
        let board = document(&stage.database, "boards", id).await?.expect("a board");
        assert_eq!(number(board.get("n").expect("a count")), 120);
    }
    Ok(())
}

//! Tests that every expression of every panel answers something when a real Prometheus scrapes a daemon at work.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::stage::{PATIENCE, Setting, Stage, update};
use crate::support::{Prometheus, push, try_eventually};

type Outcome = anyhow::Result<()>;

const DASHBOARDS: [(&str, &str); 2] = [
    ("overview", include_str!("../../dashboards/overview.json")),
    ("internals", include_str!("../../dashboards/internals.json")),
];

/// What Grafana would ask: panel and expression, with all values of all variables chosen.
fn questions() -> anyhow::Result<Vec<(String, String)>> {
    let mut questions = Vec::new();
    for (name, text) in DASHBOARDS {
        let dashboard: Value = serde_json::from_str(text)?;
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        for variable in list(&dashboard["templating"]["list"]) {
            if let Some(query) = variable["definition"].as_str() {
                let series = query.strip_prefix("label_values(").and_then(|query| query.rsplit_once(','));
                questions.push((
                    format!("{name}, variable {}", variable["name"]),
                    series.context("label_values")?.0.to_owned(),
                ));
            }
        }
        for panel in list(&dashboard["panels"]) {
            for target in list(&panel["targets"]) {
                let expression = target["expr"].as_str().context("a target without an expression")?;
                questions.push((format!("{name}, panel {}", panel["title"]), expression.to_owned()));
            }
        }
    }
    for (_, question) in &mut questions {
        *question = question.replace("$__rate_interval", "10s");
        for variable in ["$job", "$instance", "$queue"] {
            *question = question.replace(variable, ".*");
        }
        ensure!(!question.contains('$'), "a variable that is not known here: {question}");
    }
    Ok(questions)
}

/// Produces until dropped: events that fold, and now and then one that is bad.
async fn producing(stage: &Stage) -> Outcome {
    let mut producer = stage.producer().await?;
    for round in 0_usize.. {
        let events = (0..100).map(|n| update(&format!("doc{}", n % 20), json!({ "$inc": { "n": 1 } })));
        push(&mut producer, &stage.queue, events).await?;
        push(&mut producer, &stage.queue, [format!("no JSON {round}")]).await?;
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_shows_something_of_a_daemon_at_work() -> Outcome {
    let stage = Setting::new().stage().await?;
    let tidegate = stage.start().await?;
    let prometheus = Prometheus::start(&[tidegate.address()], None).await?;
    let questions = questions()?;
    assert!(questions.len() > 40, "{} questions", questions.len());
    let asking = async {
        for (panel, question) in &questions {
            try_eventually(PATIENCE, panel, async || {
                let answer = prometheus.query(question).await?;
                let number = |series: &Value| series["value"][1].as_str().is_some_and(|value| value != "NaN");
                ensure!(answer.iter().any(number), "{question} answers {answer:?}");
                Ok(())
            })
            .await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        outcome = asking => outcome?,
        ended = producing(&stage) => return ended,
    }
    stage.settled(&tidegate).await?;
    Ok(())
}

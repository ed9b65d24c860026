//! Says whether an instance lives or is ready, in one line: `tidegate healthcheck`.

use std::io::Write;

use anyhow::Context;
use hyper::StatusCode;
use serde_json::Value;

use super::endpoint;
use crate::cli::remote::Healthcheck;
use crate::cli::{Cli, EXIT_FAILED, EXIT_OK};
use crate::format::{cut, printable};

/// Bytes of the line. Docker keeps 4,096 of it.
const LINE: usize = 1000;

/// Asks, prints one line, and gives the exit code. Containers know 0 and 1 only, so a configuration that cannot be
/// loaded gives 1 here.
pub async fn healthcheck(cli: &Cli, asked: &Healthcheck, out: &mut impl Write) -> u8 {
    let (is_well, line) = match ask(cli, asked).await {
        Ok(told) => told,
        Err(error) => (false, format!("unhealthy: {error:#}")),
    };
    // If nobody reads the line, the code says it all the same.
    let _ = writeln!(out, "{}", printable(&cut(&line, LINE)));
    if is_well { EXIT_OK } else { EXIT_FAILED }
}

async fn ask(cli: &Cli, asked: &Healthcheck) -> anyhow::Result<(bool, String)> {
    let at = endpoint(cli, &asked.place).map_err(|error| anyhow::anyhow!(error.replace('\n', "; ")))?;
    let (code, body) = at.get(if asked.ready { "/readyz" } else { "/livez" }).await?;
    Ok(match (code, asked.ready) {
        (StatusCode::OK, false) => (true, format!("alive: {}", at.authority())),
        (StatusCode::OK, true) => (true, format!("ready: {}", at.authority())),
        (StatusCode::SERVICE_UNAVAILABLE, true) => {
            let told = serde_json::from_slice(&body).context("an answer that is not tidegate's")?;
            (false, format!("not ready: {}", reasons(&told).join("; ")))
        }
        _ => (false, format!("unhealthy: {} answers with {code}", at.authority())),
    })
}

/// Why an instance is not ready, by what `/readyz` says.
fn reasons(told: &Value) -> Vec<String> {
    let mut reasons = Vec::new();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if told["stopping"] == true {
        reasons.push("it is stopping".to_owned());
    }
    for (name, key) in [("Redis", "redis"), ("MongoDB", "mongodb")] {
        let server = &told["dependencies"][key];
        let error = text(&server["error"]);
        match server["state"].as_str() {
            Some("up") => {}
            Some("unknown") | None => reasons.push(format!("{name} has not answered yet")),
            Some(state) if error.is_empty() => reasons.push(format!("{name} {state}")),
            Some("down") => reasons.push(format!("{name} is down: {error}")),
            Some(state) => reasons.push(format!("{name} {state}: {error}")),
        }
    }
    for held in told["held_back"].as_array().into_iter().flatten() {
        let (collection, error) = (text(&held["collection"]), text(&held["error"]));
        reasons.push(format!("MongoDB refuses documents of {collection}: {error}"));
    }
    for trouble in told["troubles"].as_array().into_iter().flatten() {
        reasons.push(format!("{} fails: {}", text(&trouble["task"]), text(&trouble["error"])));
    }
    if reasons.is_empty() {
        reasons.push("something keeps a queue from being drained; tidegate status says what".to_owned());
    }
    reasons
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_keeps_it_from_being_ready_is_named() {
        let up = json!({ "state": "up" });
        let told = |value: Value| reasons(&value).join("; ");
        let dependencies = json!({ "redis": up, "mongodb": { "state": "down", "error": "no primary" } });
        let both = json!({ "stopping": true, "dependencies": dependencies });
        assert_eq!(told(both), "it is stopping; MongoDB is down: no primary");
        let dependencies = json!({ "redis": up, "mongodb": up });
        let held = json!([{ "collection": "notes", "error": "not authorized" }]);
        let troubles = json!([{ "task": "making an index", "error": "too many" }]);
        assert_eq!(
            told(json!({ "dependencies": dependencies, "held_back": held, "troubles": troubles })),
            "MongoDB refuses documents of notes: not authorized; making an index fails: too many"
        );
        assert!(told(json!({ "dependencies": dependencies })).contains("tidegate status"));
    }
}

//! Tests the command line, and what the daemon says of itself.

use std::process::Command;
use std::time::Duration;

use crate::stage::{PATIENCE, Setting, logged};
use crate::support::{Launch, Redis, tidegate_command};

type Outcome = anyhow::Result<()>;

fn tidegate() -> Command {
    tidegate_command().expect("the binary")
}

#[test]
fn check_prints_the_effective_configuration_without_secrets() -> Outcome {
    let output = tidegate()
        .args(["check", "--config", concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml")])
        .args(["--set", "batch.max_delay=7ms"])
        .env("TIDEGATE_MONGODB__URI", "mongodb://app:hunter22@db.example:27017/?tls=true")
        .output()?;
    let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    assert!(output.status.success(), "{err}");
    assert!(out.contains("max_delay = \"7ms\"") && out.contains("app:***@db.example"), "{out}");
    assert!(!out.contains("hunter22") && !err.contains("hunter22"));
    Ok(())
}

#[test]
fn check_shows_what_sample_events_become() -> Outcome {
    let folder = tempfile::tempdir()?;
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/routes/socketio");
    let events = folder.path().join("events.jsonl");
    let check = |event: &std::path::Path| {
        let config = format!("{sample}/config.toml");
        tidegate().args(["check", "--config", &config, "--event"]).arg(event).output()
    };

    let output = check(&std::path::Path::new(sample).join("events.jsonl"))?;
    let out = String::from_utf8(output.stdout)?;
    assert_eq!(output.status.code(), Some(0), "{out}");
    assert!(out.contains(r#"event 3: routes[2], when = { 0 = "leave" }"#), "{out}");
    assert!(out.contains("\"delete\": \"presence\"") && !out.contains("[redis]"), "{out}");

    std::fs::write(&events, "[\"edit\",\n{\"docId\": \"d1\"}]\n")?;
    assert_eq!(check(&events)?.status.code(), Some(0));
    std::fs::write(&events, "[\"edit\",{\"docId\":\"d1\"}]\n[\"edit\",{\"docId\":true}]\n")?;
    let output = check(&events)?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout)?.contains("dead letter: bad-id: "));
    let output = check(&folder.path().join("none"))?;
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8(output.stderr)?.contains("cannot read the events"));
    Ok(())
}

/// The schema is what an editor checks the shipped file by: all of it has to be allowed, and a wrong key must not be.
#[test]
fn the_schema_allows_what_is_shipped_and_nothing_that_is_wrong() -> Outcome {
    let output = tidegate().arg("schema").output()?;
    assert!(output.status.success(), "{output:?}");
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let validator = jsonschema::validator_for(&schema)?;
    let root = env!("CARGO_MANIFEST_DIR");
    let mut files = vec![std::path::PathBuf::from(root).join("config.toml")];
    for example in std::fs::read_dir(format!("{root}/examples/routes"))? {
        files.push(example?.path().join("config.toml"));
    }
    assert!(files.len() > 5, "{files:?}");
    for file in files {
        let value: toml::Value = toml::from_str(&std::fs::read_to_string(&file)?)?;
        let errors: Vec<_> =
            validator.iter_errors(&serde_json::to_value(value)?).map(|error| error.to_string()).collect();
        assert_eq!(errors, [""; 0], "{}", file.display());
    }
    for wrong in [
        serde_json::json!({ "batch": { "max_opps": 1 } }),
        serde_json::json!({ "batch": { "max_ops": "many" } }),
        serde_json::json!({ "queues": [{ "kind": "list" }] }),
        serde_json::json!({ "queues": [{ "key": "q", "kind": "heap" }] }),
        serde_json::json!({ "routes": [{ "set": { "a": { "path": "a", "as": "number" } } }] }),
    ] {
        assert!(!validator.is_valid(&wrong), "{wrong}");
    }
    Ok(())
}

#[test]
fn shells_and_man_are_told_of_the_command_line() -> Outcome {
    for shell in ["bash", "zsh", "fish"] {
        let output = tidegate().args(["completions", shell]).output()?;
        assert!(output.status.success() && String::from_utf8(output.stdout)?.contains("check"), "{shell}");
    }
    let output = tidegate().arg("man").output()?;
    let page = String::from_utf8(output.stdout)?;
    assert!(
        output.status.success() && page.contains(".TH tidegate") && page.contains("Exit codes"),
        "{page}"
    );
    Ok(())
}

#[test]
fn a_wrong_key_stops_the_start_with_file_key_and_suggestion() -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("tidegate.toml");
    std::fs::write(&file, "[batch]\nmax_opps = 5\n[[queues]]\nkey = \"q\"\n")?;
    for arguments in [vec!["check"], vec![]] {
        let output = tidegate().args(arguments).arg("--config").arg(&file).output()?;
        let err = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(64), "{err}");
        for part in ["tidegate.toml", "batch.max_opps", "batch.max_ops"] {
            assert!(err.contains(part), "{part} is missing: {err}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_appear_nowhere() -> Outcome {
    let redis = Redis::start().await?;
    let () = redis::cmd("CONFIG")
        .arg(&["SET", "requirepass", "hunter22"])
        .query_async(&mut redis.connect().await?)
        .await?;
    let with_password = redis.url().replace("redis://", "redis://:hunter22@");
    let config = "native.collections = [\"documents\"]\nmongodb.uri = \"mongodb://app:hunter33@127.0.0.1:1/\"\n\
                  mongodb.timeout = \"1s\"\n[log]\nlevel = \"debug\"\nformat = \"json\"\n[[queues]]\nkey = \"q\"\n";
    let launch = Launch::config(config).env("TIDEGATE_REDIS__URL", with_password);
    let mut tidegate = launch.spawn().await?;
    tidegate.logged("mongodb is down", PATIENCE).await?;
    let mut told = String::new();
    for page in ["/status", "/readyz", "/metrics"] {
        told.push_str(&tidegate.get(page).await?.1);
    }
    told.push_str(&tidegate.terminate().await?.lines.join("\n"));
    assert!(told.contains("app:***@127.0.0.1"), "{told}");
    assert!(!told.contains("hunter"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_end_the_start_with_one_line() -> Outcome {
    let stage = Setting::new().stage().await?;
    let redis = Redis::start().await?;
    let () = redis::cmd("CONFIG")
        .arg(&["SET", "requirepass", "right"])
        .query_async(&mut redis.connect().await?)
        .await?;
    for url in [redis.url().to_owned(), redis.url().replace("redis://", "redis://:wrong@")] {
        let exited =
            stage.launch.clone().env("TIDEGATE_REDIS__URL", url).until_exit(Duration::from_secs(30)).await?;
        assert!(!exited.status.success());
        let errors: Vec<_> = exited.lines.iter().filter(|line| line.contains("ERROR")).collect();
        assert_eq!(errors.len(), 1, "{:#?}", exited.lines);
        assert!(errors[0].contains("credentials") || errors[0].contains("refuses"), "{}", errors[0]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_quiet_and_json_if_asked_for() -> Outcome {
    let stage = Setting::new().with("log.format = \"json\"\n").stage().await?;
    let tidegate = stage.launch.start().await?;
    stage.push((0..5000).map(|n| logged("doc", n))).await?;
    stage.settled(&tidegate).await?;
    let (_, status) = tidegate.get_json("/status").await?;
    assert_eq!(status["queues"][0]["phase"], "active");
    assert_eq!(status["dependencies"]["mongodb"]["state"], "up");
    assert_eq!(tidegate.get("/nowhere").await?.0, 404);
    let exited = tidegate.terminate().await?;
    assert!(exited.lines.len() < 12, "{:#?}", exited.lines);
    for line in &exited.lines {
        let json: serde_json::Value = serde_json::from_str(line)?;
        assert!(json["timestamp"].is_string() && json["level"].is_string(), "{line}");
    }
    Ok(())
}

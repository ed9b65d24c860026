//! Starts a Prometheus of one's own.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::http;
use super::port;
use super::process::{Process, command, on_path};
use super::wait::try_eventually;

const START_LIMIT: Duration = Duration::from_secs(30);
const PORTS_TRIED: usize = 5;

/// A running Prometheus, which scrapes and evaluates once a second. Killed on drop, with its data.
pub(crate) struct Prometheus {
    process: Process,
    address: SocketAddr,
    /// Holds its configuration and data.
    _folder: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes `targets` under the job's name, and evaluates the text of a file of rules, if any.
    pub(crate) async fn start(targets: &[SocketAddr], rules: Option<&str>) -> anyhow::Result<Self> {
        let mut tries = 0;
        loop {
            tries += 1;
            match Self::run(targets, rules).await {
                Err(_) if tries < PORTS_TRIED => {}
                outcome => return outcome,
            }
        }
    }

    async fn run(targets: &[SocketAddr], rules: Option<&str>) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut config =
            "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n".to_owned();
        if let Some(rules) = rules {
            std::fs::write(folder.path().join("rules.yaml"), rules)?;
            config.push_str("rule_files: [rules.yaml]\n");
        }
        let targets: Vec<_> = targets.iter().map(|target| format!("'{target}'")).collect();
        let targets = targets.join(", ");
        writeln!(
            config,
            "scrape_configs: [{{job_name: tidegate, static_configs: [{{targets: [{targets}]}}]}}]"
        )?;
        let file = folder.path().join("prometheus.yaml");
        std::fs::write(&file, config)?;

        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()?));
        let mut prometheus = command(installed("prometheus")?);
        prometheus.arg(format!("--config.file={}", file.display()));
        prometheus.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        prometheus.arg(format!("--web.listen-address={address}"));
        let mut process = Process::spawn("prometheus", prometheus)?;
        process
            .until(START_LIMIT, "Prometheus to be ready", async |process| {
                // Only our own process can have printed this, so it is not another one that took the port.
                let ready = process.lines().iter().any(|line| line.contains("Server is ready"));
                ready.then_some(()).context("it is not ready yet")
            })
            .await?;
        Ok(Self { process, address, _folder: folder })
    }

    /// The result of an instant query: `data.result`.
    pub(crate) async fn query(&self, expression: &str) -> anyhow::Result<Vec<Value>> {
        let data = self.get(&format!("/api/v1/query?query={}", encode(expression))).await;
        let mut data = data.with_context(|| expression.to_owned())?;
        match data["result"].take() {
            Value::Array(result) => Ok(result),
            other => bail!("{expression} answers {other}"),
        }
    }

    /// The alerts that are pending or firing: `data.alerts`.
    pub(crate) async fn alerts(&self) -> anyhow::Result<Vec<Value>> {
        match self.get("/api/v1/alerts").await?["alerts"].take() {
            Value::Array(alerts) => Ok(alerts),
            other => bail!("alerts: {other}"),
        }
    }

    /// Waits until a query answers something, and returns it.
    pub(crate) async fn answers(&self, limit: Duration, expression: &str) -> anyhow::Result<Vec<Value>> {
        try_eventually(limit, &format!("data of {expression}"), async || {
            let result = self.query(expression).await?;
            ensure!(!result.is_empty(), "nothing");
            anyhow::Ok(result)
        })
        .await
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let (status, body) = http::get(self.address, path).await?;
        let mut answer: Value = serde_json::from_str(&body).with_context(|| format!("{status} {body}"))?;
        ensure!(answer["status"] == "success", "{status} {body}");
        Ok(answer["data"].take())
    }
}

/// Prometheus' own checker.
pub(crate) fn promtool_command() -> anyhow::Result<Command> {
    Ok(command(installed("promtool")?))
}

fn installed(program: &str) -> anyhow::Result<PathBuf> {
    on_path(program).with_context(|| format!("no {program} on the PATH: run `make servers` first"))
}

/// For a query's value in a URL.
fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

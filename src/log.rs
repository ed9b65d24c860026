//! Logs go to standard error: one line a change of state, none an event at `info`.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

use crate::config::{Log, LogFormat};

/// Starts logging. `RUST_LOG` wins over the configuration.
///
/// # Errors
/// The filter cannot be read.
pub fn init(config: &Log) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => EnvFilter::try_new(&filter).context("RUST_LOG cannot be read")?,
        _ => EnvFilter::try_new(&config.level).context("log.level cannot be read")?,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(SystemTime)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match config.format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).init(),
    }
    Ok(())
}

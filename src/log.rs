//! Writes logs to standard error: one line a change of state, none an event at `info`.

use std::io::IsTerminal;

use anyhow::Context;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// Crates whose `debug` drowns ours. `log.level` may name one to hear it nevertheless.
const QUIET: &str = "hyper=info,hyper_util=info,mongodb=info,redis=info,rustls=info,mio=info";

/// What is logged, to be changed while it is.
pub struct Filter {
    set: SetFilter,
    environment: Option<String>,
}

impl Filter {
    /// Whether `RUST_LOG` decides, whatever the configuration says.
    #[must_use]
    pub fn is_from_environment(&self) -> bool {
        self.environment.is_some()
    }

    /// Logs what `log.level` says from now on, unless `RUST_LOG` decides.
    ///
    /// # Errors
    /// The filter cannot be read.
    pub fn set_level(&self, level: &str) -> anyhow::Result<()> {
        if !self.is_from_environment() {
            (self.set)(filter(None, level)?)?;
        }
        Ok(())
    }
}

/// Starts logging. `RUST_LOG` wins over the configuration, and is taken as it stands.
///
/// # Errors
/// The filter cannot be read, or logs go elsewhere already.
pub fn init(config: &Log) -> anyhow::Result<Filter> {
    let environment = std::env::var("RUST_LOG").ok().filter(|filter| !filter.trim().is_empty());
    let filter = filter(environment.as_deref(), &config.level)?;
    let ansi = std::io::stderr().is_terminal();
    let (subscriber, set) = subscriber(config.format, filter, ansi, std::io::stderr);
    subscriber.try_init().context("logs go elsewhere already")?;
    Ok(Filter { set, environment })
}

type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;

fn filter(environment: Option<&str>, level: &str) -> anyhow::Result<EnvFilter> {
    match environment.map(str::trim) {
        Some(filter) if !filter.is_empty() => {
            EnvFilter::try_new(filter).with_context(|| format!("RUST_LOG: {filter:?} is no filter"))
        }
        _ => {
            let level = level.trim();
            // The latter of two directives for the same crate counts.
            EnvFilter::try_new(format!("{QUIET},{level}"))
                .with_context(|| format!("log.level: {level:?} is no filter"))
        }
    }
}

fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    ansi: bool,
    writer: W,
) -> (Box<dyn Subscriber + Send + Sync>, SetFilter)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_timer(SystemTime).with_writer(writer);
    match format {
        LogFormat::Text => {
            let builder = builder.with_ansi(ansi).with_target(false).with_filter_reloading();
            let handle = builder.reload_handle();
            (Box::new(builder.finish()), Box::new(move |filter| handle.reload(filter)))
        }
        LogFormat::Json => {
            let builder = builder.with_ansi(false).json().flatten_event(true).with_current_span(false);
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            (Box::new(builder.finish()), Box::new(move |filter| handle.reload(filter)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Lines;

    fn logged(format: LogFormat, filter: EnvFilter, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, _) = subscriber(format, filter, false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, log);
        lines.text()
    }

    fn chatter() {
        tracing::info!(queue = "edits", "ours");
        tracing::debug!("ours in detail");
        tracing::debug!(target: "hyper::proto", "theirs in detail");
    }

    #[test]
    fn json_lines_are_flat_and_their_time_is_utc() {
        let text = logged(LogFormat::Json, filter(None, "info").unwrap(), chatter);
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["message"], "ours");
        assert_eq!(line["queue"], "edits");
        assert_eq!(line["level"], "INFO");
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.ends_with('Z') && bson::DateTime::parse_rfc3339_str(time).is_ok(), "{time}");
    }

    #[test]
    fn text_lines_have_no_colours_without_a_terminal() {
        let text = logged(LogFormat::Text, filter(None, "info").unwrap(), chatter);
        assert!(text.ends_with("INFO ours queue=\"edits\"\n") && !text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn debug_means_ours_unless_another_crate_is_named() {
        let text = |level| logged(LogFormat::Text, filter(None, level).unwrap(), chatter);
        assert_eq!(text(" debug ").lines().count(), 2);
        assert!(text("debug,hyper=debug").contains("theirs"));
        assert_eq!(text("warn"), "");
    }

    #[test]
    fn the_environment_wins_unless_it_is_empty() {
        let text =
            |environment| logged(LogFormat::Text, filter(Some(environment), "error").unwrap(), chatter);
        assert_eq!(text("debug").lines().count(), 3);
        assert_eq!(text(" "), "");
    }

    #[test]
    fn the_level_changes_while_it_runs_unless_the_environment_decides() {
        for (format, environment, expected) in [
            (LogFormat::Text, None, 2),
            (LogFormat::Json, None, 2),
            (LogFormat::Text, Some("info".to_owned()), 1),
        ] {
            let lines = Lines::default();
            let writer = lines.clone();
            let (subscriber, set) =
                subscriber(format, filter(None, "info").unwrap(), false, move || writer.clone());
            let filter = Filter { set, environment };
            tracing::subscriber::with_default(subscriber, || {
                filter.set_level("debug").unwrap();
                chatter();
            });
            assert_eq!(lines.text().lines().count(), expected, "{}", lines.text());
        }
    }

    #[test]
    fn a_bad_filter_is_named() {
        let error = |result: anyhow::Result<EnvFilter>| format!("{:#}", result.unwrap_err());
        assert!(error(filter(Some("a=b=c"), "info")).starts_with("RUST_LOG: \"a=b=c\" is no filter"));
        assert!(
            error(filter(None, "tidegate=loud")).starts_with("log.level: \"tidegate=loud\" is no filter")
        );
    }
}

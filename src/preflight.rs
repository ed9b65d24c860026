//! Looks at both servers as a start would, and tells line by line: `tidegate check --connect`.

use std::io::Write;

use crate::cli::{EXIT_CONFIG, EXIT_LOSES, EXIT_OK};
use crate::config::Config;
use crate::finding::{Finding, Weight};
use crate::retry::Class;
use crate::sink::{Sink, check_uri};
use crate::source::inspect;

/// Tells what is found; answers the exit code.
pub async fn preflight(config: &Config, out: &mut impl Write) -> u8 {
    let mut worst = Weight::Fine;
    let of_uri = check_uri(&config.mongodb).ok().flatten();
    let doubts = config.warnings().into_iter().chain(of_uri);
    let doubts: Vec<_> = doubts.map(|doubt| Finding::note("configuration", doubt)).collect();
    for finding in [doubts, inspect(config).await, mongodb(config).await].into_iter().flatten() {
        worst = worst.max(finding.weight);
        // Whoever closed the pipe does not want to know.
        let _ = writeln!(out, "{finding}");
    }
    match worst {
        Weight::Fine | Weight::Note => EXIT_OK,
        Weight::Warning => EXIT_LOSES,
        Weight::Fatal => EXIT_CONFIG,
    }
}

async fn mongodb(config: &Config) -> Vec<Finding> {
    match Sink::alone(config).await {
        Ok(sink) => {
            let found = sink.inspect(config).await;
            sink.close().await;
            found
        }
        Err(error) if error.class() == Class::Fatal => vec![Finding::fatal("mongodb", error.to_string())],
        Err(error) => {
            vec![Finding::warning("mongodb", format!("{error}; tidegate would wait until that is put right"))]
        }
    }
}

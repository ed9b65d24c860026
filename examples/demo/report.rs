//! Tells what has become of it: the numbers, one document, and whether everything is there exactly once.

use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context, ensure};
use bson::{Bson, Document};
use mongodb::Database;
use tidegate::format::number;

use super::support::{Metrics, documents};
use super::traffic::Office;
use super::{COLLECTION, QUEUE};

const LATENCY: &str = "tidegate_persist_latency_seconds";
const LONGEST_VALUE: usize = 90;

/// How long events took to become durable.
pub(crate) struct Latency {
    p50: Option<f64>,
    p99: Option<f64>,
}

impl Latency {
    pub(crate) fn of(metrics: &Metrics) -> Self {
        let quantile = |at| metrics.quantile(LATENCY, &[("queue", QUEUE)], at);
        Self { p50: quantile(0.5), p99: quantile(0.99) }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.p50, self.p99) {
            (Some(p50), Some(p99)) => write!(f, "{:.0} ms (p50), {:.0} ms (p99)", p50 * 1e3, p99 * 1e3),
            _ => f.write_str("nothing measured"),
        }
    }
}

/// All of it.
pub(crate) struct Report {
    pushed: u64,
    documents: u64,
    edits: u64,
    /// Documents whose text is not the one sent last, or whose count is wrong.
    wrong: Vec<String>,
    events_per_write: Option<f64>,
    backlog: Latency,
    everyday: Latency,
    example: Document,
}

impl Report {
    pub(crate) async fn gather(
        office: &Office,
        database: &Database,
        loaded: &Metrics,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let found = documents(database, COLLECTION).await?;
        let mut wrong = Vec::new();
        let mut busiest = None;
        for (id, text, edits) in office.written() {
            let document = found.get(&id);
            if !document
                .is_some_and(|document| text_of(document) == Some(text) && edits_of(document) == edits)
            {
                wrong.push(id);
            } else if busiest.is_none_or(|(most, _)| edits > most) {
                busiest = document.map(|document| (edits, document));
            }
        }
        let persisted = metrics.get("tidegate_events_persisted_total", &[("queue", QUEUE)]);
        let writes = metrics.get("tidegate_writes_total", &[]).filter(|writes| *writes > 0.0);
        Ok(Self {
            pushed: office.pushed(),
            documents: found.len() as u64,
            edits: found.values().map(edits_of).sum(),
            wrong,
            events_per_write: persisted.zip(writes).map(|(events, writes)| events / writes),
            backlog: Latency::of(loaded),
            everyday: Latency::of(&metrics.since(loaded)),
            example: busiest.context("no document in MongoDB is as it was sent")?.1.clone(),
        })
    }

    pub(crate) fn print(&self, address: SocketAddr) {
        let per_write =
            self.events_per_write.map_or_else(|| "not measured".to_owned(), |n| format!("{n:.1}"));
        println!("\nWhat happened");
        println!("  events pushed            {:>12}", number(self.pushed));
        println!("  documents in MongoDB     {:>12}", number(self.documents));
        println!("  sum of their edits       {:>12}", number(self.edits));
        println!("  events a write           {per_write:>12}");
        println!("  durable after, backlog   {}", self.backlog);
        println!("  durable after, everyday  {}", self.everyday);
        println!("  metrics, while it ran    http://{address}/metrics");
        println!("  status, while it ran     http://{address}/status");
        println!("\nThe busiest document, as it now stands in MongoDB");
        for (key, value) in &self.example {
            println!("  {key:<12} {}", shorten(value));
        }
    }

    /// Prints it, or says what is wrong as an error.
    pub(crate) fn verdict(&self) -> anyhow::Result<()> {
        ensure!(
            self.pushed == self.edits && self.wrong.is_empty(),
            "{} events were pushed, {} counted; {} documents are not as they were sent, such as {:?}",
            self.pushed,
            self.edits,
            self.wrong.len(),
            self.wrong.first()
        );
        println!(
            "\nEvery event took effect exactly once, and every document has the text that was sent last."
        );
        Ok(())
    }
}

fn text_of(document: &Document) -> Option<&str> {
    document.get_str("text").ok()
}

fn edits_of(document: &Document) -> u64 {
    let edits = match document.get("edits") {
        Some(Bson::Int32(edits)) => i64::from(*edits),
        Some(Bson::Int64(edits)) => *edits,
        _ => 0,
    };
    u64::try_from(edits).unwrap_or(0)
}

fn shorten(value: &Bson) -> String {
    let text = value.to_string();
    if text.chars().count() <= LONGEST_VALUE {
        return text;
    }
    text.chars().take(LONGEST_VALUE).chain("...".chars()).collect()
}

//! Makes the events that are measured.

use std::fmt::Write;

use super::kind::Kind;
use super::plan::Plan;

/// Which documents the events are for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Spread {
    /// Any of so many, each as likely.
    Even(u64),
    /// Any of so many, the k-th with a likelihood of 1/k.
    Zipf(u64),
    /// Each event for another.
    Distinct,
}

/// A list of events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) says: &'static str,
    pub(crate) kind: Kind,
    pub(crate) spread: Spread,
    /// Bytes of an event.
    pub(crate) bytes: usize,
    pub(crate) events: u64,
    /// Events that a bare loop reads at once.
    pub(crate) window: usize,
    /// Whether the documents are there before.
    pub(crate) existing: bool,
}

/// The workload that says what a stream costs beside a list.
pub(crate) const STREAM: &str = "stream";
const MILLION: u64 = 1_000_000;
const HOT: Spread = Spread::Even(5_000);

impl Workload {
    pub(crate) fn hot() -> Self {
        Self {
            name: "hot",
            says: "150 bytes, over 5,000 documents",
            kind: Kind::List,
            spread: HOT,
            bytes: 150,
            // Not fewer in a hurry: how many events one write of a document stands for depends on it.
            events: MILLION,
            window: 2_000,
            existing: false,
        }
    }

    /// Hot events that are pushed while it runs, as many as it takes.
    pub(crate) fn trickle() -> Self {
        Self { name: "trickle", says: "", events: 0, ..Self::hot() }
    }

    pub(crate) fn all(plan: &Plan) -> [Self; 8] {
        let hot = Self::hot();
        [
            hot,
            Self {
                name: "again",
                says: "150 bytes, over 5,000 documents that are there already",
                existing: true,
                ..hot
            },
            Self { name: "one", says: "150 bytes, one document", spread: Spread::Even(1), ..hot },
            Self {
                name: "zipf",
                says: "150 bytes, Zipf-distributed over 100,000 documents",
                spread: Spread::Zipf(100_000),
                events: plan.of(MILLION, MILLION / 4),
                ..hot
            },
            Self {
                name: "distinct",
                says: "150 bytes, every event another document",
                spread: Spread::Distinct,
                events: plan.of(200_000, 30_000),
                ..hot
            },
            Self {
                name: "large",
                says: "8 KiB, over 5,000 documents",
                bytes: 8 << 10,
                events: plan.of(60_000, 10_000),
                // As many as tidegate reads: about 4 MiB.
                window: 500,
                ..hot
            },
            Self { name: "small", says: "60 bytes, over 5,000 documents", bytes: 60, ..hot },
            Self {
                name: STREAM,
                says: "150 bytes, over 5,000 documents, in a stream",
                kind: Kind::Stream,
                ..hot
            },
        ]
    }

    /// The ids of the documents that are there before.
    pub(crate) fn existing(&self) -> impl Iterator<Item = String> {
        let documents = match self.spread {
            Spread::Even(documents) if self.existing => documents,
            _ => 0,
        };
        (0..documents).map(|document| format!("doc-{document}"))
    }

    /// Its events, the same ones each time.
    pub(crate) fn generate(&self) -> Events {
        let likelihoods = match self.spread {
            Spread::Zipf(documents) => {
                let sums = (1..=documents).scan(0.0, |sum, rank| {
                    *sum += 1.0 / rank as f64;
                    Some(*sum)
                });
                sums.collect()
            }
            _ => Vec::new(),
        };
        Events {
            workload: *self,
            likelihoods,
            random: fastrand::Rng::with_seed(6),
            made: 0,
            text: String::new(),
        }
    }
}

/// Makes events.
#[derive(Debug)]
pub(crate) struct Events {
    workload: Workload,
    /// Of the documents up to each, for Zipf.
    likelihoods: Vec<f64>,
    random: fastrand::Rng,
    made: u64,
    text: String,
}

/// What is typed, over and over.
const TEXT: &str = "the tide comes in and the tide goes out and what was written in the sand is kept ";

impl Events {
    /// The next one.
    pub(crate) fn next(&mut self) -> &str {
        let document = self.document();
        let Workload { bytes, .. } = self.workload;
        self.made += 1;
        let (user, text) = (document % 100, &mut self.text);
        text.clear();
        // Writing to a string cannot fail.
        let _ = if bytes < 128 {
            write!(text, r#"{{"type":"EDIT","payload":{{"docId":"{document}","text":""#)
        } else {
            write!(
                text,
                r#"{{"type":"UPDATE_CONTENT","ts":1700000000000,"payload":{{"docId":"doc-{document}","userId":"u{user}","text":""#
            )
        };
        let end = r#""}}"#;
        let _ = write!(text, "{}", self.made % 10_000);
        while text.len() < bytes - end.len() {
            let room = bytes - end.len() - text.len();
            text.push_str(&TEXT[..room.min(TEXT.len())]);
        }
        text.push_str(end);
        text
    }

    fn document(&mut self) -> u64 {
        match self.workload.spread {
            Spread::Even(documents) => self.random.u64(..documents),
            Spread::Distinct => self.made,
            Spread::Zipf(_) => {
                let total = self.likelihoods.last().copied().unwrap_or(0.0);
                let drawn = self.random.f64() * total;
                self.likelihoods.partition_point(|sum| *sum < drawn) as u64
            }
        }
    }
}

//! Reads what `/metrics` says.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail, ensure};

/// A label's name and value.
pub(crate) type Label<'a> = (&'a str, &'a str);

/// One scrape.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads Prometheus' text format.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples =
            lines.map(|line| Sample::parse(line).with_context(|| format!("in the metrics: {line}")));
        Ok(Self { samples: samples.collect::<Result<_, _>>()? })
    }

    /// The sum of all samples of this name that have these labels, perhaps among others. None if there is none.
    pub(crate) fn get(&self, name: &str, labels: &[Label<'_>]) -> Option<f64> {
        self.matching(name, labels).map(|sample| sample.value).reduce(|sum, value| sum + value)
    }

    /// [`Self::get`], for metrics that must be there.
    ///
    /// # Panics
    /// If it is not.
    pub(crate) fn sum(&self, name: &str, labels: &[Label<'_>]) -> f64 {
        match self.get(name, labels) {
            Some(value) => value,
            None => panic!("no metric {name} with {labels:?} among {:?}", self.names()),
        }
    }

    /// The names of all samples.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.samples.iter().map(|sample| sample.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// All series: names with their labels.
    pub(crate) fn series(&self) -> BTreeSet<String> {
        self.samples.iter().map(|sample| format!("{}{:?}", sample.name, sample.labels)).collect()
    }

    /// What has been counted since `earlier`; for counters and histograms.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.clone();
        for sample in &mut difference.samples {
            let before =
                earlier.samples.iter().find(|old| old.name == sample.name && old.labels == sample.labels);
            sample.value -= before.map_or(0.0, |old| old.value);
        }
        difference
    }

    /// A quantile of a histogram, interpolated within its bucket as Prometheus does. None if nothing was observed.
    pub(crate) fn quantile(&self, histogram: &str, labels: &[Label<'_>], quantile: f64) -> Option<f64> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self.matching(&format!("{histogram}_bucket"), labels) {
            let bound: f64 = sample.labels.get("le")?.parse().ok()?;
            match buckets.iter_mut().find(|bucket| bucket.0 == bound) {
                Some(bucket) => bucket.1 += sample.value,
                None => buckets.push((bound, sample.value)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total = buckets.last()?.1;
        if total <= 0.0 {
            return None;
        }
        let rank = quantile * total;
        let at = buckets.iter().position(|bucket| bucket.1 >= rank)?;
        let (low, below) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
        let (high, up_to) = buckets[at];
        if high.is_infinite() || up_to <= below {
            return Some(low);
        }
        Some(low + (high - low) * (rank - below) / (up_to - below))
    }

    fn matching(&self, name: &str, labels: &[Label<'_>]) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(label, value)| sample.labels.get(*label).is_some_and(|has| has == value))
        })
    }
}

impl Sample {
    /// `name{label="value",...} value`
    fn parse(line: &str) -> anyhow::Result<Self> {
        let end = line.find(['{', ' ']).context("no value")?;
        let (name, mut rest) = line.split_at(end);
        let mut labels = BTreeMap::new();
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner;
            while !rest.starts_with('}') {
                let (label, after) = rest.split_once("=\"").context("a label without a value")?;
                let (value, after) = unquote(after)?;
                labels.insert(label.to_owned(), value);
                rest = after.strip_prefix(',').unwrap_or(after);
            }
            rest = &rest[1..];
        }
        let value = rest.split_whitespace().next().context("no value")?.parse()?;
        Ok(Self { name: name.to_owned(), labels, value })
    }
}

/// A label's value up to its closing quote, and what follows.
fn unquote(text: &str) -> anyhow::Result<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped)) => value.push(escaped),
                None => break,
            },
            _ => value.push(character),
        }
    }
    bail!("a label's value without an end")
}

/// The accounting equation: every event received went one way, and none is on its way any more.
///
/// # Panics
/// If something is unaccounted for, or the daemon is not idle.
pub(crate) fn assert_accounting(metrics: &Metrics, queue: &str) {
    if let Err(error) = check_accounting(metrics, queue) {
        panic!("{error:#}");
    }
}

/// [`assert_accounting`] with an error instead of a panic.
pub(crate) fn check_accounting(metrics: &Metrics, queue: &str) -> anyhow::Result<()> {
    let counted = |name: &str| metrics.get(&format!("tidegate_events_{name}_total"), &[("queue", queue)]);
    let of = |name: &str| counted(name).unwrap_or(0.0);
    let gauge =
        |name: &str, labels: &[Label<'_>]| metrics.get(name, labels).with_context(|| format!("no {name}"));
    let received = counted("received").with_context(|| format!("no events_received_total for {queue}"))?;
    let (persisted, deduplicated) = (of("persisted"), of("deduplicated"));
    let (dead_lettered, released) = (of("dead_lettered"), of("released"));
    let buffered = gauge("tidegate_buffer_events", &[])?;
    let accounted = persisted + deduplicated + dead_lettered + released + buffered;
    ensure!(
        received == accounted,
        "{queue}: {received} received, but {accounted} accounted for: {persisted} persisted + {deduplicated} \
         deduplicated + {dead_lettered} dead-lettered + {released} released + {buffered} buffered"
    );
    ensure!(buffered == 0.0, "{queue}: {buffered} events are still buffered");
    let pending = gauge("tidegate_pending_entities", &[])?;
    ensure!(pending == 0.0, "{queue}: {pending} entities are still pending");
    let depth = gauge("tidegate_queue_depth", &[("queue", queue)])?;
    ensure!(depth == 0.0, "{queue}: {depth} events are still in the queue");
    Ok(())
}

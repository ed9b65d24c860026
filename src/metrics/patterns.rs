//! Makes one series of those of all partitions of a pattern, for queues with `aggregate`.

use std::collections::HashMap;
use std::fmt::Write;

use indexmap::IndexMap;

use super::list::Metric;
use super::workarounds::escape;

/// The patterns of queues, by their keys, both as they stand in labels.
#[derive(Debug, Default)]
pub(super) struct Patterns(HashMap<String, String>);

/// Of these, a pattern has what the partition has that has most of it. Of all others it has the sum.
const OF_THE_FIRST: [Metric; 3] = [Metric::QueueOldestAge, Metric::QueueWindow, Metric::LastCommitTimestamp];

/// Of several queues together, it says nothing.
const LEFT_OUT: Metric = Metric::Epoch;

impl Patterns {
    pub(super) fn add(&mut self, key: &str, pattern: &str) {
        self.0.insert(escape(key), escape(pattern));
    }

    /// The same text, with one series for each pattern in place of those of its partitions.
    pub(super) fn fold(&self, text: String) -> String {
        if self.0.is_empty() {
            return text;
        }
        let mut folded = String::with_capacity(text.len() / 8);
        // Of one metric, whose samples are behind its head.
        let mut sums: IndexMap<String, f64, foldhash::fast::RandomState> = IndexMap::default();
        for line in text.lines() {
            if line.starts_with('#') {
                write_sums(&mut folded, &mut sums);
            }
            match self.sample(line) {
                Some((series, _)) if is_of(LEFT_OUT, &series) => {}
                Some((series, value)) => {
                    let is_first = OF_THE_FIRST.iter().any(|metric| is_of(*metric, &series));
                    let sum = sums.entry(series).or_default();
                    *sum = if is_first { sum.max(value) } else { *sum + value };
                }
                None => {
                    folded.push_str(line);
                    folded.push('\n');
                }
            }
        }
        write_sums(&mut folded, &mut sums);
        folded
    }

    /// The series of a pattern that a line is a sample of, and its value.
    fn sample(&self, line: &str) -> Option<(String, f64)> {
        const LABEL: &str = "queue=\"";
        let start = line.find(LABEL)? + LABEL.len();
        let (before, rest) = line.split_at(start);
        // No label has a quote that is not escaped.
        let mut escaped = false;
        let end = rest.find(|c| {
            let is_end = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            is_end
        })?;
        let pattern = self.0.get(&rest[..end])?;
        let (labels, value) = rest[end..].rsplit_once(' ')?;
        Some((format!("{before}{pattern}{labels}"), value.parse().ok()?))
    }
}

fn is_of(metric: Metric, series: &str) -> bool {
    series.strip_prefix(metric.spec().name).is_some_and(|rest| rest.starts_with('{'))
}

fn write_sums(folded: &mut String, sums: &mut IndexMap<String, f64, foldhash::fast::RandomState>) {
    for (series, value) in sums.drain(..) {
        // Writing to a string cannot fail.
        let _ = writeln!(folded, "{series} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_what_its_partitions_have() {
        let mut patterns = Patterns::default();
        for key in ["q:0", "q:1", "odd\"\\:0", "odd\"\\:1"] {
            patterns.add(key, &key.replace(['0', '1'], "{0..1}"));
        }
        let text = "\
            # TYPE tidegate_queue_depth gauge\n\
            tidegate_queue_depth{queue=\"q:0\"} 3\n\
            tidegate_queue_depth{queue=\"other\"} 7\n\
            tidegate_queue_depth{queue=\"q:1\"} 4\n\
            tidegate_queue_depth{queue=\"odd\\\"\\\\:0\"} 1\n\
            tidegate_queue_depth{queue=\"odd\\\"\\\\:1\"} 1\n\
            # TYPE tidegate_queue_oldest_age_seconds gauge\n\
            tidegate_queue_oldest_age_seconds{queue=\"q:0\"} 1.5\n\
            tidegate_queue_oldest_age_seconds{queue=\"q:1\"} 0.5\n\
            # TYPE tidegate_persist_latency_seconds histogram\n\
            tidegate_persist_latency_seconds_bucket{queue=\"q:0\",le=\"0.5\"} 2\n\
            tidegate_persist_latency_seconds_sum{queue=\"q:0\"} 0.25\n\
            tidegate_persist_latency_seconds_bucket{queue=\"q:1\",le=\"0.5\"} 1\n\
            tidegate_persist_latency_seconds_sum{queue=\"q:1\"} 0.5\n\
            # TYPE tidegate_epoch gauge\n\
            tidegate_epoch{queue=\"q:0\"} 7\n\
            tidegate_epoch{queue=\"other\"} 9\n\
            # TYPE tidegate_up gauge\n\
            tidegate_up{dependency=\"redis\"} 1\n";
        insta::assert_snapshot!(patterns.fold(text.to_owned()), @r#"
# TYPE tidegate_queue_depth gauge
tidegate_queue_depth{queue="other"} 7
tidegate_queue_depth{queue="q:{0..1}"} 7
tidegate_queue_depth{queue="odd\"\\:{0..1}"} 2
# TYPE tidegate_queue_oldest_age_seconds gauge
tidegate_queue_oldest_age_seconds{queue="q:{0..1}"} 1.5
# TYPE tidegate_persist_latency_seconds histogram
tidegate_persist_latency_seconds_bucket{queue="q:{0..1}",le="0.5"} 3
tidegate_persist_latency_seconds_sum{queue="q:{0..1}"} 0.75
# TYPE tidegate_epoch gauge
tidegate_epoch{queue="other"} 9
# TYPE tidegate_up gauge
tidegate_up{dependency="redis"} 1
"#);
        assert_eq!(Patterns::default().fold(text.to_owned()), text);
    }
}

//! Holds `docs/status.md` equal to what `/status` says.

use std::collections::BTreeSet;

use super::tests::as_json;
use super::*;
use crate::dead_letter::{Dead, Reason, Rejection};
use crate::source::{Instances, PauseNote};
use crate::trace::{TraceRef, Traceparent};

const PAGE: &str = include_str!("../../docs/status.md");

/// What the page quotes beside fields: their values, paths, and names from elsewhere.
const NO_FIELDS: &str = "up down refuses unknown connecting standby paused recovering active draining stopped idle gathering \
                         writing limited retrying ok notice warning bad at-most-once /readyz ?since=N http.show_payloads \
                         persist_latency_seconds";

/// A report in which no field is left out or empty.
fn full() -> Value {
    let config = r#"{ "queues": [{ "key": "edits" }], "http": { "show_payloads": true } }"#;
    let config: Config = serde_json::from_str(config).unwrap();
    let metrics = [Arc::new(QueueMetrics::new("edits", &["documents".to_owned()]))];
    let status = Status::new(&config, "here", Buffer::new(&config.buffer), &metrics);
    for dependency in [&status.health.redis, &status.health.mongodb] {
        dependency.down(&"connection refused");
        dependency.up();
        dependency.down(&"connection refused");
    }
    status.health.troubles.met("making an index", &"no right");
    status.receipts_refused(Some("no right".to_owned()));
    let queue = &status.queues[0];
    queue.set_obstacle(Some(Obstacle { text: "another Redis".to_owned(), advice: "decide" }));
    queue.set_paused(Some(PauseNote::now("anna".to_owned(), "a migration".to_owned())));
    queue.set_members(Instances { holder: Some("here".to_owned()), instances: ["here".to_owned()].into() });
    queue.set_committed(7);
    let held = HeldBack {
        collection: "documents".into(),
        documents: 1,
        events: 1,
        since: Instant::now(),
        error: "no right".to_owned(),
    };
    queue.holds_back(0, vec![held]);
    let trace = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let traceparent = TraceRef::new(trace).map(Traceparent::from);
    let rejection = Rejection { reason: Reason::UniqueIndex, text: "refused".to_owned(), code: Some(11000) };
    let dead = Dead { offset: 0, event: b"{}", rejection: &rejection, traceparent, entity: None };
    status.letters.record("edits", &[dead]);
    status.look();
    metrics[0].received.increment(1);
    metrics[0].persisted_after(Duration::from_millis(30), 1);
    status.look();
    as_json(&status.report(Some(0)))
}

/// The names of all fields in a part of a report.
fn fields(told: &Value) -> BTreeSet<&str> {
    match told {
        Value::Object(parts) => {
            let named = parts.keys().map(String::as_str);
            named.chain(parts.values().flat_map(fields)).collect()
        }
        Value::Array(parts) => parts.iter().flat_map(fields).collect(),
        _ => BTreeSet::new(),
    }
}

/// The fields that a text names: what it has in backticks, a path's dots aside.
fn named(text: &str) -> BTreeSet<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let names = quoted.filter(|word| !NO_FIELDS.split_whitespace().any(|known| known == *word));
    names.flat_map(|word| word.split('.')).filter(|name| !name.is_empty()).collect()
}

/// The rows of the first table of a section.
fn rows(section: &str) -> impl Iterator<Item = (BTreeSet<&str>, &str)> {
    let rows = section.split_once("| --- | --- |\n").unwrap().1.lines();
    rows.map_while(|row| {
        let (keys, _) = row.strip_prefix("| ")?.split_once(" | ")?;
        Some((named(keys), row))
    })
}

/// Each row names the fields that its keys have, and no other.
fn hold(section: &str, told: &Value, elsewhere: &[&str]) {
    let mut seen = BTreeSet::new();
    for (keys, row) in rows(section) {
        let mut known: BTreeSet<&str> = keys.clone();
        for key in &keys {
            let Some(part) = told.get(key) else { continue };
            seen.insert(*key);
            if !elsewhere.contains(key) {
                known.extend(fields(part));
            }
        }
        assert_eq!(named(row), known, "{row}");
        assert!(keys.iter().any(|key| told.get(key).is_some()), "there is no {keys:?}");
    }
    let all: BTreeSet<_> = told.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(seen, all);
}

#[test]
fn the_status_page_names_the_fields_there_are_and_all_of_them() {
    let told = full();
    let [head, summary, queue] = PAGE.split("\n## ").collect::<Vec<_>>().try_into().unwrap();
    hold(head, &told, &["summary", "queues", "config"]);
    hold(queue, &told["queues"][0], &[]);
    let words = summary.split_once("\n| ").unwrap().0;
    assert_eq!(named(words), fields(&told["summary"]));
}

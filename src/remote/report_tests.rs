//! Tests what is put on lines: the words, what fits, and that nothing steers a terminal.

use serde_json::{Value, json};

use super::*;

fn answer(value: Value) -> Answer {
    serde_json::from_value(value).unwrap()
}

fn well() -> Value {
    json!({
        "summary": { "level": "ok", "text": "Everything is durable within 60 ms.", "advice": "There is nothing to do." },
        "version": "0.1.0", "instance": "host-1", "uptime_seconds": 200,
        "dependencies": {
            "redis": { "state": "up", "for_seconds": 200 },
            "mongodb": { "state": "up", "for_seconds": 12, "last_outage":
                { "error": "no primary", "ended_seconds_ago": 12.7, "lasted_seconds": 2.5 } },
        },
        "buffer": { "events": 1204, "max_events": 50_000, "bytes": 1_258_291, "max_bytes": 67_108_864 },
        "queues": [],
    })
}

fn queue(key: &str, depth: u64) -> Value {
    json!({
        "key": key, "phase": "active", "depth": depth, "oldest_age_seconds": 0.06, "last_commit_seconds_ago": 0.2,
        "recent": { "arrived_per_second": 1204.4, "settled_per_second": 0.42, "events_per_write": 4.5,
            "durable_within": { "p99": { "seconds": 0.06 } } },
    })
}

#[test]
fn it_says_what_the_page_says() {
    let mut value = well();
    let mut refused = queue("refused", 1);
    refused["held_back"] = json!([{ "queue": "refused", "collection": "notes", "documents": 1, "events": 1204,
        "for_seconds": 75, "error": "not authorized" }]);
    let mut away = queue("away", 0);
    (away["phase"], away["oldest_age_seconds"]) = (json!("standby"), json!(0));
    (away["dead_letters"], away["dead_letter_list"]) = (json!(3), json!("away:dead"));
    value["queues"] = json!([queue("small", 7), queue("large", 31_204), away, refused]);
    value["dead_letter_groups"] = json!([{ "queue": "small", "class": "bad-id", "reason": "the id is no text",
        "count": 1204, "seconds_ago": 200 }]);
    insta::assert_snapshot!(report(&answer(value), "127.0.0.1:9464", None).join("\n"), @"
    ok: Everything is durable within 60 ms.
    There is nothing to do.

    host-1 0.1.0 at 127.0.0.1:9464, up 3 min 20 s
    Redis    up for 3 min 20 s: no outage since the start
    MongoDB  up for 12 s: last outage 12 s ago, for 2.5 s: no primary
    Buffer   2 % in use: 1,204 of 50,000 events, 1.2 MiB of 64 MiB

    QUEUE    WAITING  OLDEST   IN/S  OUT/S  99 % WITHIN   FOLDING  LAST COMMIT  STATE
    refused        1   60 ms  1,204    0.4        60 ms  4.5 to 1     just now  owned by this instance, 1 document held back
    large     31,204   60 ms  1,204    0.4        60 ms  4.5 to 1     just now  owned by this instance
    small          7   60 ms  1,204    0.4        60 ms  4.5 to 1     just now  owned by this instance
    away           0       –      –      –        60 ms  4.5 to 1     just now  standing by: another instance owns it

    Documents that MongoDB refuses, held back:
      1 document of notes from refused: 1,204 events wait for 1 min 15 s: not authorized

    Dead letters since the start of this instance:
      1,204 × bad-id of small: the id is no text (3 min 20 s ago)

    Dead letters that are kept; to read them: tidegate dead list
      away:dead holds 3
    ");
}

#[test]
fn what_does_not_fit_is_counted() {
    let mut value = well();
    value["queues"] = (0..300).map(|n| queue(&format!("queue{n}"), n)).collect();
    value["queues"][7]["obstacle"] = json!("another Redis writes under the same id");
    let answer = answer(value);
    let piped = report(&answer, "h:1", None);
    assert_eq!(piped.iter().filter(|line| line.starts_with("queue")).count(), QUEUES);
    assert!(piped.contains(&"and 260 queues more; --json has all of them".to_owned()), "{piped:#?}");
    for (columns, rows) in [(80, 24), (200, 50), (60, 12)] {
        let drawn = report(&answer, "h:1", Some(Screen { columns, rows }));
        assert!(rows < 20 || drawn.len() == rows - 1, "{rows}: {drawn:#?}");
        assert!(drawn.iter().all(|line| line.chars().count() <= columns), "{columns}: {drawn:#?}");
        let first = drawn.iter().position(|line| line.starts_with("QUEUE")).unwrap() + 1;
        assert!(
            drawn[first].starts_with("queue7 ") && drawn[first + 1].starts_with("queue299 "),
            "{drawn:#?}"
        );
    }
}

/// Makes every text of a value end with what would steer a terminal.
fn poison(value: &mut Value) {
    match value {
        Value::String(text) => text.push_str("\u{1b}[31m\r\n\u{7}\u{9b}2J\u{202e}"),
        Value::Array(values) => values.iter_mut().for_each(poison),
        Value::Object(values) => values.values_mut().for_each(poison),
        _ => {}
    }
}

#[test]
fn nothing_from_outside_steers_a_terminal() {
    let mut value = well();
    let mut odd = queue("odd", 1);
    odd["held_back"] = json!([{ "queue": "q", "collection": "notes", "documents": 1, "error": "no" }]);
    (odd["obstacle"], odd["owner"]) = (json!("another Redis"), json!("host-2"));
    (odd["dead_letters"], odd["dead_letter_list"]) = (json!(3), json!("away:dead"));
    value["queues"] = json!([odd]);
    value["summary"]["error"] = json!("no");
    value["dead_letter_groups"] = json!([{ "queue": "q", "class": "bad-id", "reason": "why", "count": 1 }]);
    poison(&mut value);
    for screen in [None, Some(Screen { columns: 80, rows: 24 })] {
        let lines = report(&answer(value.clone()), "h:1", screen);
        assert!(lines.concat().contains("\\u{1b}[31m\\u{d}\\u{a}"), "{lines:#?}");
        assert!(!lines.concat().contains(crate::format::steers), "{lines:#?}");
    }
}

#[test]
fn numbers_from_outside_may_be_any() {
    let mut value = well();
    value["queues"] = json!([{ "key": "q", "oldest_age_seconds": -1.0, "last_commit_seconds_ago": 1e300,
        "recent": { "durable_within": { "p99": { "seconds": null } } } }]);
    assert!(report(&answer(value), "h:1", None).join("\n").contains("over 1 min"));
}

#[test]
fn who_has_paused_a_queue_is_said() {
    let mut value = well();
    value["queues"] = json!([{ "key": "q", "phase": "paused", "phase_seconds": 90.0,
        "pause": { "by": "anna", "at": "2026-11-29T09:00:00Z", "reason": "moving house" } }]);
    let lines = report(&answer(value), "h:1", None).join("\n");
    assert!(lines.contains("paused by anna for 1 min 30 s: moving house"), "{lines}");
}

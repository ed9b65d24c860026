//! Tests which values are picked out of an event, and which events are refused.

use bson::spec::ElementType;

use super::extract::Extracted;
use super::paths::{Paths, Slot};
use super::transcode::KeyRule;
use crate::dead_letter::Reason;

fn texts(paths: &Paths, slots: &[Slot], event: &str) -> Vec<Option<String>> {
    let mut extracted = Extracted::default();
    extracted.extract(paths, event).unwrap();
    slots.iter().map(|slot| extracted.get(*slot)?.text().map(str::to_owned)).collect()
}

fn reason(paths: &Paths, event: &str) -> Reason {
    let mut extracted = Extracted::default();
    let read = extracted.extract(paths, event).and_then(|()| extracted.check_keys(&paths.reads));
    read.unwrap_err().reason
}

#[test]
fn values_are_found_at_any_depth_and_in_arrays() {
    let mut paths = Paths::default();
    let slots = ["type", "payload.docId", "payload.list.1", "absent.x"].map(|p| paths.add(p, KeyRule::Data));
    let event = r#"{"skip":{"deep":[[{}]]},"type":"T","payload":{"docId":"d","list":["a","b"],"x":1}}"#;
    assert_eq!(texts(&paths, &slots, event), [Some("T".into()), Some("d".into()), Some("b".into()), None]);
    assert_eq!(texts(&paths, &slots, r#"{"payload":"scalar"}"#), [None, None, None, None]);
}

#[test]
fn a_value_and_a_value_inside_it_are_both_found() {
    let mut paths = Paths::default();
    let whole = paths.add("p", KeyRule::Merge);
    let inner = paths.add("p.in.id", KeyRule::Data);
    let mut extracted = Extracted::default();
    extracted.extract(&paths, r#"{"p":{"in":{"id":"x"},"n":1}}"#).unwrap();
    assert_eq!(extracted.get(inner).unwrap().text(), Some("x"));
    assert_eq!(extracted.get(whole).unwrap().kind, ElementType::EmbeddedDocument);
}

#[test]
fn a_stricter_rule_below_a_laxer_one_is_kept() {
    let mut paths = Paths::default();
    paths.add("p", KeyRule::Data);
    paths.add("p.m", KeyRule::Merge);
    assert_eq!(reason(&paths, r#"{"p":{"m":{"x":{"a.b":1}}}}"#), Reason::BadKey);
}

#[test]
fn what_is_no_event_is_refused_with_its_reason() {
    let mut paths = Paths::default();
    paths.add("a.b", KeyRule::Data);
    for (event, expected) in [
        ("", Reason::NotJson),
        ("  ", Reason::NotJson),
        ("{", Reason::NotJson),
        ("{\"a\":1} x", Reason::NotJson),
        ("hello", Reason::NotJson),
        ("[1,2]", Reason::BadEvent),
        ("\"text\"", Reason::BadEvent),
        ("17", Reason::BadEvent),
        ("null", Reason::BadEvent),
        (r#"{"a":{"b":1},"a":2}"#, Reason::DuplicateKey),
        (r#"{"a":{"b":123456789012345678901234567890}}"#, Reason::BadNumber),
        (r#"{"a":{"b":1e999}}"#, Reason::BadNumber),
    ] {
        assert_eq!(reason(&paths, event), expected, "{event}");
    }
    let deep = format!("{}{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    assert!(matches!(reason(&paths, &deep), Reason::NotJson | Reason::TooDeep));
}

#[test]
fn arrays_are_events_where_paths_ask_for_them() {
    let mut paths = Paths::default();
    let slots = ["0", "1.id"].map(|p| paths.add(p, KeyRule::Data));
    assert_eq!(texts(&paths, &slots, r#"["save",{"id":"x"}]"#), [Some("save".into()), Some("x".into())]);
}

#[test]
fn strict_paths_refuse_other_top_level_keys() {
    let mut paths = Paths::strict();
    paths.add("id", KeyRule::Data);
    assert_eq!(reason(&paths, r#"{"id":"a","upsert":false}"#), Reason::BadEvent);
}

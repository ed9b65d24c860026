//! Tests that the shipped `config.toml` shows every key, with its default value.

use std::collections::BTreeMap;

use super::*;

const SHIPPED: &str = include_str!("../../config.toml");

fn shipped() -> Config {
    toml::from_str(SHIPPED).unwrap()
}

/// Whether a line of `text` sets `key`, be it commented out or as an inline table's first key.
fn shows(text: &str, key: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim_start_matches(['#', ' ']);
        line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
    })
}

/// The text below every `[name]` or `[[name]]` up to the next table.
fn section(name: &str) -> String {
    let mut inside = false;
    let is_inside = |line: &&str| {
        let bare = line.trim_start_matches(['#', ' ']);
        if bare.starts_with('[') {
            inside = bare == format!("[{name}]") || bare == format!("[[{name}]]");
        }
        inside
    };
    SHIPPED.lines().filter(is_inside).collect::<Vec<_>>().join("\n")
}

#[test]
fn its_values_are_the_defaults() {
    let shipped = Config { queues: Vec::new(), routes: Vec::new(), ..shipped() };
    assert_eq!(shipped, Config::default());
}

#[test]
fn it_is_fit_to_start_with() {
    let config = shipped();
    assert_eq!(config.violations(crate::decode::check_literal), []);
    assert_eq!(config.warnings(), [""; 0]);
    let queue: Queue = toml::from_str("key = 'collabQueue'").unwrap();
    assert_eq!(config.queues, [queue]);
}

#[test]
fn it_maps_the_usual_events() {
    let when = BTreeMap::from([("type".to_owned(), Scalar::String("UPDATE_CONTENT".into()))]);
    let text = ("text".to_owned(), Source::from("payload.text"));
    let documents = Route {
        when: when.clone(),
        collection: Some("documents".into()),
        id: "payload.docId".into(),
        ts: Some("ts".into()),
        set: [text.clone(), ("updatedBy".into(), "payload.userId".into())].into(),
        inc: [("edits".into(), Amount::Int(1))].into(),
        max_delay: Some(Duration::from_secs(2)),
        ..Route::default()
    };
    let drafts = Route {
        when,
        collection: Some("drafts".into()),
        id: "payload.userId".into(),
        ts: Some("ts".into()),
        set: [text].into(),
        max_delay: Some(Duration::from_secs(2)),
        ..Route::default()
    };
    assert_eq!(shipped().routes, [documents, drafts]);
}

#[test]
fn it_shows_every_key() {
    for (key, _) in schema::KEYS.iter() {
        match key.split_once('.') {
            Some((name, key)) => assert!(shows(&section(name), key), "[{name}] {key}"),
            None => assert!(SHIPPED.contains(&format!("[[{key}]]")), "{key}"),
        }
    }
    for (table, place) in [("queues", "queues.0"), ("routes", "routes.0")] {
        for key in schema::names_below(place) {
            assert!(shows(&section(table), key), "[[{table}]] {key}");
        }
    }
    for key in schema::names_below("routes.0.yjs") {
        assert!(section("routes").contains(&format!(" {key}  ")), "yjs: {key}");
    }
}

#[test]
fn its_examples_work() {
    // What is commented out with one `# ` and looks like TOML, up to the end of its block.
    let mut examples = Vec::new();
    let mut block: Vec<&str> = Vec::new();
    for line in SHIPPED.lines().chain([""]) {
        match line.strip_prefix("# ") {
            Some(text) if text.starts_with("[[") || !block.is_empty() => block.push(text),
            _ if block.is_empty() => {}
            _ => examples.push(std::mem::take(&mut block).join("\n")),
        }
    }
    assert_eq!(examples.len(), 12, "{examples:?}");
    let all = format!("{SHIPPED}\n{}", examples.join("\n"));
    let config: Config = toml::from_str(&all).unwrap();
    assert_eq!(config.violations(crate::decode::check_literal), []);
    assert_eq!(config.warnings(), [""; 0]);
    assert_eq!((config.queues.len(), config.routes.len()), (3, 12));
}

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
    for (key, _) in load::KEYS.iter() {
        match key.split_once('.') {
            Some((name, key)) => assert!(shows(&section(name), key), "[{name}] {key}"),
            None => assert!(SHIPPED.contains(&format!("[[{key}]]")), "{key}"),
        }
    }
    let queue = Queue {
        key: String::new(),
        id: Some(String::new()),
        kind: QueueKind::default(),
        delivery: Delivery::default(),
        group: Some(String::new()),
        field: Some(String::new()),
        flat: true,
        trim: Some(Trim::KEEP),
        aggregate: true,
        pattern: None,
    };
    for key in toml::Table::try_from(queue).unwrap().keys() {
        assert!(shows(&section("queues"), key), "[[queues]] {key}");
    }
    let path = || Some("x".to_owned());
    let field = || BTreeMap::from([("x".to_owned(), Source::from("x"))]);
    let yjs: Yjs = toml::from_str("update = 'x'").unwrap();
    for key in toml::Table::try_from(&yjs).unwrap().keys() {
        assert!(section("routes").contains(&format!(" {key}  ")), "yjs: {key}");
    }
    // Every field by name, so that a new one has to be shown before this compiles.
    let route = Route {
        when: [("x".to_owned(), Scalar::Bool(true))].into(),
        collection: path(),
        collection_from: path(),
        collections: vec![String::new()],
        skip: Some(Skip::Matching(true)),
        id: Id::One(Source::Path("id".into())),
        id_separator: path(),
        ts: path(),
        traceparent: path(),
        set: field(),
        unset: vec![String::new()],
        inc: [("x".to_owned(), Amount::Int(1))].into(),
        push: field(),
        add_to_set: field(),
        min: field(),
        max: field(),
        mul: field(),
        set_on_insert: field(),
        pull: field(),
        pull_all: field(),
        pop: [("x".to_owned(), 1)].into(),
        rename: [("x".to_owned(), "y".to_owned())].into(),
        current_date: vec![String::new()],
        shard_key: field(),
        yjs: Some(yjs.clone()),
        patch: path(),
        merge: path(),
        replace: path(),
        delete: true,
        deletes: Deletes::Tombstone,
        max_delay: Some(Duration::from_secs(1)),
        pace: Some(Duration::from_secs(1)),
        flush: true,
        history: path(),
        history_ttl: Some(Duration::from_secs(1)),
        hot_state: Some(HotState { ttl: Duration::from_secs(1) }),
    };
    for key in toml::Table::try_from(route).unwrap().keys() {
        assert!(shows(&section("routes"), key), "[[routes]] {key}");
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

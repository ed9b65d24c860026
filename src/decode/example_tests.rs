//! Tests every folder of `examples/routes`: sample events become what the folder's `expected` says.
//! `expected` has one line for each event: route, entity, effect.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::raw::{begin_document, end_document, write};
use crate::sample::{self, ExtJson};

fn folders() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/routes");
    let mut folders: Vec<_> = fs::read_dir(all).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    folders
}

fn json(value: ValueRef<'_>) -> String {
    let mut bytes = Vec::new();
    let start = begin_document(&mut bytes);
    write(&mut bytes, "v", value);
    end_document(&mut bytes, start);
    let document: bson::Document = bson::deserialize_from_slice(&bytes).unwrap();
    serde_json::to_string(&ExtJson(document.get("v").unwrap())).unwrap()
}

fn line(decoder: &mut Decoder, collections: &Collections, event: &[u8]) -> String {
    let (change, route) = match decoder.decode_routed(event) {
        Ok(routed) => routed,
        Err(refused) if refused.rejection.reason == Reason::Skipped => {
            return format!("routes[{}] skipped", refused.route.unwrap());
        }
        Err(refused) => return format!("{}: {refused}", refused.rejection.reason.label()),
    };
    let effect = match change.effect {
        Effect::Update(ops) => {
            let ops: Vec<_> = ops.map(|op| format!("{:?} {} {}", op.op, op.path, json(op.value))).collect();
            ops.join(", ")
        }
        Effect::Replace(bytes) => {
            format!("Replace {}", json(ValueRef { kind: ElementType::EmbeddedDocument, bytes }))
        }
        Effect::Delete => "Delete".to_owned(),
    };
    let (name, id) = (collections.name(change.entity.collection), json(change.entity.id));
    format!("routes[{}] {name}/{id}: {effect}", route.unwrap())
}

#[test]
fn examples_do_what_they_say() {
    let folders = folders();
    assert!(folders.len() >= 5, "{folders:?}");
    for folder in folders {
        let config =
            Config::load_from(&folder.join("config.toml"), [], &[], crate::decode::check_literal).unwrap();
        assert_eq!(config.warnings(), [""; 0], "{}", folder.display());
        let (mut decoder, collections) = (Decoder::new(&config), Collections::new(&config));
        let events = fs::read(folder.join("events.jsonl")).unwrap();
        let lines: Vec<_> =
            sample::events(&events).into_iter().map(|e| line(&mut decoder, &collections, e)).collect();
        let expected = fs::read_to_string(folder.join("expected")).unwrap();
        assert_eq!(lines.join("\n"), expected.trim_end(), "{}", folder.display());

        let mut out = Vec::new();
        assert!(sample::explain(&config, &events, &mut out).unwrap(), "{}", folder.display());
        for number in 0..config.routes.len() {
            let own = format!("routes[{number}] ");
            assert!(lines.iter().any(|line| line.starts_with(&own)), "{}: {own}", folder.display());
        }
    }
}

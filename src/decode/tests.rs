//! Tests what events become through routes.

use super::*;
use crate::config::{Amount, Id, Route as RouteConfig, Scalar};
use crate::raw::{begin_document, end_document, write};

fn route(collection: &str, id: &str) -> RouteConfig {
    RouteConfig { collection: Some(collection.into()), id: id.into(), ..RouteConfig::default() }
}

fn typed(mut route: RouteConfig, kind: &str) -> RouteConfig {
    route.when.insert("type".into(), Scalar::String(kind.into()));
    route
}

fn routed(routes: Vec<RouteConfig>) -> Decoder {
    Decoder::new(&Config { routes, ..Config::default() })
}

/// `collection/id: effect` in words, or the reason and text of the refusal.
pub(super) fn told(decoder: &mut Decoder, event: &str) -> String {
    let collections = decoder.rules.collections.clone();
    match decoder.decode(event.as_bytes()) {
        Err(refused) => format!("{}: {refused}", refused.rejection.reason.label()),
        Ok(change) => {
            let effect = match change.effect {
                Effect::Update(ops) => {
                    let ops: Vec<_> =
                        ops.map(|op| format!("{:?} {} {}", op.op, op.path, plain(op.value))).collect();
                    ops.join(", ")
                }
                Effect::Replace(bytes) => {
                    format!("Replace {}", plain(ValueRef { kind: ElementType::EmbeddedDocument, bytes }))
                }
                Effect::Delete => "Delete".into(),
            };
            let entity = change.entity;
            let ts = change.ts.map(|ts| format!(" @{ts}")).unwrap_or_default();
            format!("{}/{}: {effect}{ts}", collections.name(entity.collection), plain(entity.id))
        }
    }
}

fn plain(value: ValueRef<'_>) -> String {
    let mut bytes = Vec::new();
    let start = begin_document(&mut bytes);
    write(&mut bytes, "v", value);
    end_document(&mut bytes, start);
    let document: serde_json::Value = bson::deserialize_from_slice(&bytes).unwrap();
    document["v"].to_string()
}

fn article() -> Decoder {
    let mut documents = typed(route("documents", "payload.docId"), "UPDATE_CONTENT");
    documents.ts = Some("ts".into());
    documents.set =
        [("text", "payload.text"), ("updatedBy", "payload.userId")].map(|(a, b)| (a.into(), b.into())).into();
    documents.inc = [("edits".into(), Amount::Int(1))].into();
    let mut drafts = typed(route("drafts", "payload.userId"), "UPDATE_CONTENT");
    drafts.set = [("text".into(), "payload.text".into())].into();
    routed(vec![documents, drafts])
}

#[test]
fn an_event_follows_its_route() {
    let mut decoder = article();
    let event = r#"{"type":"UPDATE_CONTENT","ts":17,"payload":{"docId":"d1","userId":"u1","text":"Hello"}}"#;
    assert_eq!(
        told(&mut decoder, event),
        r#"documents/"d1": Set text "Hello", Set updatedBy "u1", Inc edits 1 @17"#
    );
}

#[test]
fn an_event_without_the_first_routes_id_falls_back() {
    let mut decoder = article();
    for event in [
        r#"{"type":"UPDATE_CONTENT","payload":{"userId":"u1","text":"Hello"}}"#,
        r#"{"type":"UPDATE_CONTENT","payload":{"docId":null,"userId":"u1","text":"Hello"}}"#,
    ] {
        assert_eq!(told(&mut decoder, event), r#"drafts/"u1": Set text "Hello""#);
    }
    let event = r#"{"type":"UPDATE_CONTENT","payload":{"text":"Hello"}}"#;
    assert_eq!(told(&mut decoder, event), r#"missing-id: the event has no id at "payload.docId""#);
    assert_eq!(told(&mut decoder, r#"{"type":"LEAVE"}"#), "no-route: no route matches the event");
}

#[test]
fn values_that_an_event_lacks_are_left_out() {
    let mut decoder = article();
    let event = r#"{"type":"UPDATE_CONTENT","payload":{"userId":"u1"}}"#;
    assert_eq!(
        told(&mut decoder, event),
        "bad-event: the event has none of the values that its route writes"
    );
    let event = r#"{"type":"UPDATE_CONTENT","payload":{"docId":5,"text":null}}"#;
    assert_eq!(told(&mut decoder, event), r#"documents/5: Set text null, Inc edits 1"#);
}

#[test]
fn ids_are_text_or_integers() {
    let mut decoder = article();
    for id in ["{}", "[]", "true", "1.5"] {
        let event = format!(r#"{{"type":"UPDATE_CONTENT","payload":{{"docId":{id},"text":"x"}}}}"#);
        assert!(told(&mut decoder, &event).starts_with("bad-id: "), "{id}");
    }
    let event = r#"{"type":"UPDATE_CONTENT","payload":{"docId":"","text":"x"}}"#;
    assert!(told(&mut decoder, event).starts_with("missing-id: "));
}

#[test]
fn every_kind_of_route_makes_its_change() {
    let mut log = typed(route("documents", "id"), "log");
    log.push = [("log".into(), "entry".into())].into();
    log.inc = [("n".into(), "by".into())].into();
    log.unset = vec!["draft".into()];
    let mut merged = typed(route("documents", "p.id"), "merge");
    merged.merge = Some("p.changes".into());
    let mut replaced = typed(route("documents", "p.id"), "replace");
    replaced.replace = Some("p.state".into());
    let mut deleted = typed(route("documents", "p.id"), "delete");
    deleted.delete = true;
    let mut from = typed(route("x", "id"), "from");
    from.collection = None;
    from.collection_from = Some("kind".into());
    from.collections = vec!["a".into(), "b".into()];
    from.set = [("v".into(), "v".into())].into();
    let mut decoder = routed(vec![log, merged, replaced, deleted, from]);
    let mut told = |event| told(&mut decoder, event);

    assert_eq!(
        told(r#"{"type":"log","id":"d","entry":{"a":1},"by":2.5}"#),
        r#"documents/"d": Unset draft null, Inc n 2.5, Push log {"a":1}"#
    );
    assert_eq!(
        told(r#"{"type":"log","id":"d","entry":1,"by":"2"}"#),
        "bad-number: \"n\" can only be incremented by a number"
    );
    assert_eq!(
        told(r#"{"type":"merge","p":{"id":"d","changes":{"a":{"b":1,"c":null},"d":[1]}}}"#),
        r#"documents/"d": Merge a {"b":1,"c":null}, Set d [1]"#
    );
    assert!(
        told(r#"{"type":"merge","p":{"id":"d","changes":{"_id":"e"}}}"#).starts_with("protected-field: ")
    );
    assert_eq!(
        told(r#"{"type":"merge","p":{"id":"d","changes":{"a":{},"b":null}}}"#),
        r#"documents/"d": Merge a {}, Unset b null"#
    );
    let long = "k".repeat(40_000);
    let many = (0..500).map(|n| format!(r#""{n}":1"#)).collect::<Vec<_>>().join(",");
    let event = format!(r#"{{"type":"merge","p":{{"id":"d","changes":{{"{long}":{{{many}}}}}}}}}"#);
    assert!(told(&event).starts_with("too-large: merging into "));
    assert!(told(r#"{"type":"merge","p":{"id":"d","changes":{"a.b":1}}}"#).starts_with("bad-key: "));
    assert_eq!(
        told(r#"{"type":"replace","p":{"id":"d","state":{"a":{"_id":1}}}}"#),
        r#"documents/"d": Replace {"a":{"_id":1}}"#
    );
    assert!(
        told(r#"{"type":"replace","p":{"id":"d","state":{"_tidegate":1}}}"#).starts_with("protected-field: ")
    );
    assert!(told(r#"{"type":"replace","p":{"id":"d","state":[1]}}"#).starts_with("bad-event: "));
    assert_eq!(told(r#"{"type":"delete","p":{"id":7}}"#), "documents/7: Delete");
    assert_eq!(told(r#"{"type":"from","id":"d","kind":"b","v":1}"#), r#"b/"d": Set v 1"#);
    assert!(told(r#"{"type":"from","id":"d","kind":"c","v":1}"#).starts_with("unknown-collection: "));
}

#[test]
fn numbers_compare_by_value_in_when() {
    let mut v = route("c", "id");
    v.when.insert("v".into(), Scalar::Int(2));
    v.delete = true;
    let mut decoder = routed(vec![v]);
    assert_eq!(told(&mut decoder, r#"{"id":1,"v":2.0}"#), "c/1: Delete");
    assert!(told(&mut decoder, r#"{"id":1,"v":"2"}"#).starts_with("no-route"));
}

/// A route to `c` as TOML.
fn parsed(route: &str) -> Decoder {
    routed(vec![toml::from_str(&format!("collection = \"c\"\n{route}")).unwrap()])
}

#[test]
fn values_can_be_literals_defaults_and_converted() {
    let mut decoder = parsed(
        r#"
        id = "id"
        set = { a = { value = ["x"] }, b = { path = "b", default = 0 }, c = { path = "c", as = "string" } }
        inc = { n = { path = "n", as = "int", default = "1" } }
        push = { l = { path = "l", as = "double" } }
        "#,
    );
    let mut told = |event| told(&mut decoder, event);
    assert_eq!(
        told(r#"{"id":1,"b":null,"c":5,"n":"2","l":1}"#),
        r#"c/1: Set a ["x"], Set b 0, Set c "5", Inc n 2, Push l 1.0"#
    );
    assert_eq!(
        told(r#"{"id":1,"b":false,"c":null}"#),
        r#"c/1: Set a ["x"], Set b false, Set c null, Inc n 1"#
    );
    assert_eq!(
        told(r#"{"id":1,"c":[1]}"#),
        r#"bad-event: "c" holds an array that cannot be converted to "string": that needs text, a number, true or false"#
    );
    assert_eq!(
        told(r#"{"id":1,"n":"x"}"#),
        r#"bad-number: "n" holds a string that cannot be converted to "int": that needs a whole number of 64 bits, or its text"#
    );
}

#[test]
fn now_is_the_time_of_decoding() {
    let mut decoder = parsed("id = \"id\"\nset = { at = { now = true } }");
    let before = bson::DateTime::now().timestamp_millis();
    let change = decoder.decode(br#"{"id":1}"#).unwrap();
    let Effect::Update(mut ops) = change.effect else { panic!("an update") };
    let value = ops.next().unwrap().value;
    assert_eq!(value.kind, ElementType::DateTime);
    let now = i64::from_le_bytes(value.bytes.try_into().unwrap());
    assert!((before..=bson::DateTime::now().timestamp_millis()).contains(&now));
}

#[test]
fn ids_can_be_converted() {
    let mut decoder = parsed("id = { path = \"id\", as = \"objectId\" }\ndelete = true");
    let hex = "65a0b1c2d3e4f5a6b7c8d9e0";
    assert_eq!(
        told(&mut decoder, &format!(r#"{{"id":"{hex}"}}"#)),
        format!(r#"c/{{"$oid":"{hex}"}}: Delete"#)
    );
    assert!(told(&mut decoder, r#"{"id":"x"}"#).starts_with("bad-id: \"id\" holds a string"));
    assert!(told(&mut decoder, r#"{"id":null}"#).starts_with("missing-id: "));
    let mut decoder = parsed("id = { value = \"only\" }\ndelete = true");
    assert_eq!(told(&mut decoder, "{}"), r#"c/"only": Delete"#);
}

#[test]
fn ids_can_have_parts() {
    let mut whole = route("c", "id");
    whole.delete = true;
    let mut parts = route("c", "");
    parts.id = Id::Parts(vec!["w".into(), "p.d".into()]);
    parts.delete = true;
    let mut decoder = routed(vec![parts, whole]);
    let mut told = |event| told(&mut decoder, event);
    assert_eq!(told(r#"{"w":"a","p":{"d":7}}"#), r#"c/"a:7": Delete"#);
    assert_eq!(told(r#"{"w":"a","p":{},"id":2}"#), "c/2: Delete");
    assert_eq!(told(r#"{"w":"a","p":{}}"#), r#"missing-id: the event has no id at "p.d""#);
    assert_eq!(told(r#"{"w":"","p":{"d":7}}"#), r#"missing-id: the id at "w" is empty"#);
    assert!(told(r#"{"w":true,"p":{"d":7}}"#).starts_with("bad-id: "));
    let event = r#"{"w":"a:b","p":{"d":7}}"#;
    assert_eq!(told(event), r#"bad-id: the part of the id at "w" contains the separator ":""#);
}

#[test]
fn joined_ids_are_never_ambiguous() {
    let mut decoder = parsed("id = [\"a\", \"b\"]\nid_separator = \"--\"\ndelete = true");
    let mut seen = std::collections::HashMap::new();
    let texts = ["x", "-", "-x", "x-", "x-x", "x--", "--", "x-y-"];
    for (a, b) in texts.iter().flat_map(|a| texts.map(|b| (*a, b))) {
        let told = told(&mut decoder, &format!(r#"{{"a":"{a}","b":"{b}"}}"#));
        if told.starts_with("c/") {
            assert_eq!(seen.insert(told.clone(), (a, b)), None, "{told}");
        }
    }
    assert!(seen.len() >= 9);
}

#[test]
fn a_decoder_tells_which_route_took_an_event() {
    let mut decoder = article();
    for (event, expected) in [
        (r#"{"type":"UPDATE_CONTENT","payload":{"docId":"d","text":"x"}}"#, Some(0)),
        (r#"{"type":"UPDATE_CONTENT","payload":{"userId":"u","text":"x"}}"#, Some(1)),
        (r#"{"type":"UPDATE_CONTENT","payload":{"userId":[],"text":"x"}}"#, Some(1)),
        (r#"{"type":"LEAVE"}"#, None),
        ("{", None),
    ] {
        let route =
            decoder.decode_routed(event.as_bytes()).map_or_else(|refused| refused.route, |taken| taken.1);
        assert_eq!(route, expected, "{event}");
    }
}

#[test]
fn routes_have_mongodbs_operators_and_patches() {
    let mut all = typed(route("documents", "id"), "all");
    let from = |field: &str, path: &str| [(field.to_owned(), path.into())].into();
    all.add_to_set = from("tags", "tag");
    all.min = from("low", "n");
    all.max = from("high", "n");
    all.mul = from("product", "n");
    all.set_on_insert = from("made", "by");
    let mut patched = typed(route("documents", "id"), "patch");
    patched.patch = Some("ops".into());
    let mut decoder = routed(vec![all, patched]);
    assert_eq!(
        told(&mut decoder, r#"{"type":"all","id":1,"tag":"x","n":2,"by":"u"}"#),
        r#"documents/1: AddToSet tags ["x"], Min low 2, Max high 2, Mul product 2, SetOnInsert made "u""#
    );
    assert!(told(&mut decoder, r#"{"type":"all","id":1,"n":"2"}"#).starts_with("bad-number: "));
    assert_eq!(
        told(&mut decoder, r#"{"type":"patch","id":1,"ops":[{"op":"add","path":"/l/-","value":1}]}"#),
        r#"documents/1: Patch  [{"op":"add","path":"/l/-","value":1}]"#
    );
}

/// MongoDB takes a pipeline or operators.
#[test]
fn what_goes_along_with_a_merge_or_a_patch_can_be_said_in_a_pipeline() {
    let told = |route: &str, event: &str| {
        let toml =
            format!("[[routes]]\ncollection = 'documents'\nid = 'id'\nmerge = 'm'\npatch = 'p'\n{route}");
        let config: Config = toml::from_str(&format!("queues = [{{ key = 'q' }}]\n{toml}")).unwrap();
        told(&mut Decoder::new(&config), event)
    };
    let nested = r#"{"id":1,"v":1,"m":{"a":{"b":1}}}"#;
    let patch = r#"{"id":1,"v":1,"p":[{"op":"remove","path":"/a"}]}"#;
    let flat = r#"{"id":1,"v":1,"m":{"a":1}}"#;
    for piped in [
        "set = { 'x.y' = 'v' }",
        "unset = ['x']",
        "inc = { n = 1 }",
        "mul = { n = 'v' }",
        "min = { n = 'v' }",
        "push = { l = { path = 'v', slice = -9 } }",
        "add_to_set = { l = 'v' }",
        "pull = { l = 'v' }",
        "set_on_insert = { made = 'v' }",
        "current_date = ['at']",
    ] {
        for event in [nested, patch, flat] {
            assert!(told(piped, event).starts_with("documents/1: "), "{piped} {event}");
        }
    }
    for other in [
        "set = { 'x.0' = 'v' }",
        "pop = { l = 1 }",
        "rename = { x = 'y' }",
        "push = { l = { path = 'v', sort = 1 } }",
    ] {
        for event in [nested, patch] {
            assert!(told(other, event).starts_with("bad-event: one update cannot do "), "{other} {event}");
        }
        assert!(told(other, flat).starts_with("documents/1: "), "{other}");
    }
    assert!(told("set = { a = 'v' }", patch).starts_with("path-conflict: "));
    assert!(told("set = { 'a.c' = 'v' }", nested).starts_with("path-conflict: "));
}

//! Tests what each operator of a route makes of an event.

use super::tests::told;
use super::*;

fn decoder(route: &str) -> Decoder {
    let toml = format!("queues = [{{ key = 'q' }}]\n[[routes]]\ncollection = 'c'\nid = 'id'\n{route}");
    let config: Config = toml::from_str(&toml).unwrap();
    assert_eq!(config.violations(crate::decode::check_literal), [], "{route}");
    Decoder::new(&config)
}

#[test]
fn operators_take_their_operands() {
    let event = r#"{"id":1,"one":"x","list":[1,2]}"#;
    for (route, expected) in [
        ("push = { l = 'one' }", r#"Push l "x""#),
        ("push = { l = { path = 'list', each = true } }", "PushEach l [1,2]"),
        ("push = { l = { path = 'one', slice = -9 } }", r#"PushWith l {"$each":["x"],"$slice":-9}"#),
        (
            "push = { l = { path = 'list', each = true, position = 0, slice = 3, sort = { a = -1 } } }",
            r#"PushWith l {"$each":[1,2],"$position":0,"$slice":3,"$sort":{"a":-1}}"#,
        ),
        ("add_to_set = { l = 'list' }", "AddToSet l [[1,2]]"),
        ("add_to_set = { l = { path = 'list', each = true } }", "AddToSet l [1,2]"),
        ("pull = { l = 'one' }", r#"PullAll l ["x"]"#),
        ("pull_all = { l = 'list' }", "PullAll l [1,2]"),
        ("pop = { l = -1, m = 1 }", "Pop l -1, Pop m 1"),
        ("rename = { old = 'new' }", r#"Rename old "new""#),
        ("current_date = ['at']", "CurrentDate at true"),
    ] {
        assert_eq!(told(&mut decoder(route), event), format!("c/1: {expected}"), "{route}");
    }
    for route in ["pull_all = { l = 'one' }", "push = { l = { path = 'one', each = true } }"] {
        let told = told(&mut decoder(route), event);
        assert_eq!(told, r#"bad-event: what is written to "l" must be an array"#, "{route}");
    }
}

#[test]
fn a_shard_key_is_part_of_the_entity() {
    let mut decoder =
        decoder("delete = true\nshard_key = { region = 'r', \"t.id\" = { path = 't', as = 'int' } }");
    let seed = foldhash::quality::RandomState::default();
    let mut hash = |event: &str| decoder.decode(event.as_bytes()).unwrap().entity.hash(&seed);
    let eu = hash(r#"{"id":1,"r":"eu","t":"7"}"#);
    assert_eq!(eu, hash(r#"{"id":1,"r":"eu","t":7}"#));
    assert_ne!(eu, hash(r#"{"id":1,"r":"us","t":7}"#));
    let mut reason = |event: &str| told(&mut decoder, event);
    assert_eq!(
        reason(r#"{"id":1,"r":"eu"}"#),
        r#"missing-id: the event has no value for the shard key "t.id""#
    );
    assert_eq!(
        reason(r#"{"id":1,"r":["eu"],"t":7}"#),
        r#"bad-id: the shard key "region" must be a single value"#
    );
}

#[test]
fn yjs_updates_are_bytes() {
    let mut base64 = decoder("yjs = { update = 'u', max_bytes = 40 }");
    let mut bytes = decoder("yjs = { update = 'u', encoding = 'bytes', field = 'text' }");
    // Nothing inserted, nothing deleted.
    assert_eq!(base64.decode(br#"{"id":1,"u":"AAA="}"#).unwrap().effect.len(), 10 + 3 + 7);
    assert_eq!(bytes.decode(br#"{"id":1,"u":[0,0]}"#).unwrap().effect.len(), 10 + 4 + 7);
    for (encoding, update, reason) in [
        ("base64", "[0,0]", "bad-event: the Yjs update at \"u\" is not base64"),
        ("bytes", "\"AAA=\"", "bad-event: the Yjs update at \"u\" is not an array of bytes"),
        ("bytes", "[0,256]", "bad-event: the Yjs update at \"u\" is not an array of bytes"),
        ("bytes", "[1]", "bad-event: what is at \"u\" is no Yjs update: it ends too early"),
        (
            "base64",
            &format!("\"{}\"", "A".repeat(60)),
            "too-large: the Yjs update at \"u\" has 45 bytes, more than yjs.max_bytes, 40",
        ),
        ("base64", "null", "bad-event: the Yjs update at \"u\" is not base64"),
    ] {
        let decoder = if encoding == "base64" { &mut base64 } else { &mut bytes };
        assert_eq!(told(decoder, &format!(r#"{{"id":1,"u":{update}}}"#)), reason);
    }
}

#[test]
fn routes_skip_what_they_are_told_to() {
    let toml = "queues = [{ key = 'q' }]\nnative.collections = ['n']\n\
        [[routes]]\nwhen = { t = 'PING' }\nskip = true\n[[routes]]\nskip = 'empty'\n\
        [[routes]]\nwhen = { t = 'set' }\ncollection = 'c'\nid = 'id'\nset = { v = 'value' }\n";
    let config: Config = toml::from_str(toml).unwrap();
    assert_eq!((config.violations(crate::decode::check_literal), config.warnings()), (vec![], vec![]));
    let mut decoder = Decoder::new(&config);
    let by = |decoder: &mut Decoder, event: &str| match decoder.decode_routed(event.as_bytes()) {
        Ok((_, route)) => (route, None),
        Err(refused) => (refused.route, Some(refused.rejection.reason)),
    };
    for event in ["{\"t\":\"PING\"}", "{\"t\":\"PING\",\"id\":1,\"value\":{\"$x\":1}}"] {
        assert_eq!(by(&mut decoder, event), (Some(0), Some(Reason::Skipped)), "{event}");
    }
    for event in ["", " ", "null", "\n null\t"] {
        assert_eq!(by(&mut decoder, event), (Some(1), Some(Reason::Skipped)), "{event:?}");
    }
    for event in ["nul", "[]", "0", "{}", "\"null\"", "{\"t\":null}"] {
        assert_ne!(by(&mut decoder, event).1, Some(Reason::Skipped), "{event}");
    }
    for _ in 0..100 {
        assert_eq!(by(&mut decoder, "{\"t\":\"set\",\"id\":1,\"value\":2}"), (Some(2), None));
    }
    // Without a route that says so, what is empty is no event.
    let mut other = Decoder::new(&Config { routes: config.routes[2..].to_vec(), ..Config::default() });
    assert_eq!(by(&mut other, "null"), (None, Some(Reason::BadEvent)));
    assert_eq!(by(&mut other, ""), (None, Some(Reason::NotJson)));
}

#[test]
fn a_route_that_skips_does_nothing_else() {
    let violations = |route: &str| {
        let config: Config =
            toml::from_str(&format!("queues = [{{ key = 'q' }}]\n[[routes]]\n{route}")).unwrap();
        config
            .violations(crate::decode::check_literal)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    };
    assert_eq!(violations("when = { a = 1 }\nskip = true"), "");
    assert!(violations("skip = true").contains("needs a `when`"));
    assert!(violations("when = { a = 1 }\nskip = 'empty'").contains("nothing for `when`"));
    assert!(violations("when = { a = 1 }\nskip = false").contains("must be true"));
    assert!(violations("when = { a = 1 }\nskip = true\nid = 'x'").contains("goes with `when` only"));
    assert!(violations("when = { 'a..b' = 1 }\nskip = true").contains("is no path"));
    assert!(violations("collection = 'c'\ndelete = true").contains("is missing, or empty"));
    assert!(toml::from_str::<Config>("[[routes]]\nskip = 'all'").is_err());
}

#[test]
fn halves_of_surrogate_pairs_are_replaced_in_values_only() {
    let half = r"\ud83d";
    let toml = "native.collections = ['n']\nqueues = [{ key = 'q' }]\n\
        [[routes]]\nwhen = { t = 'set' }\ncollection = 'c'\nid = 'id'\nset = { v = 'value', w = 'deep.w' }\n\
        [[routes]]\nwhen = { t = 'merge' }\ncollection = 'c'\nid = ['id', 'value']\nmerge = 'm'\npatch = 'p'\n";
    let config: Config = toml::from_str(toml).unwrap();
    let mut decoder = Decoder::new(&config);
    // Learnt from one without.
    assert_eq!(
        told(&mut decoder, r#"{"t":"set","id":"a","value":"x","deep":{"w":"y"}}"#),
        r#"c/"a": Set v "x", Set w "y""#
    );
    for (event, expected) in [
        (
            r#"{"t":"set","id":"a","value":"x H","deep":{"w":"H\ud83d\ude00"}}"#,
            "c/\"a\": Set v \"x \u{fffd}\", Set w \"\u{fffd}\u{1f600}\"",
        ),
        (
            r#"{"t":"set","id":"a","value":[{"k":"H"}],"not read":"H","H":1}"#,
            "c/\"a\": Set v [{\"k\":\"\u{fffd}\"}]",
        ),
        (r#"{"t":"merge","id":"a","value":"b","m":{"x":"H"}}"#, "c/\"a:b\": Set x \"\u{fffd}\""),
        (r#"{"collection":"n","id":1,"update":{"$set":{"x":"H"}}}"#, "n/1: Set x \"\u{fffd}\""),
        (r#"{"t":"set","id":"H","value":"x"}"#, "bad-id: the id"),
        (r#"{"t":"merge","id":"a","value":"H","m":{"x":1}}"#, "bad-id: the id"),
        (r#"{"collection":"n","id":"H","delete":true}"#, "bad-id: the id"),
        (r#"{"t":"set","id":"a","value":{"H":1}}"#, "bad-key: a key has half"),
        (r#"{"t":"merge","id":"a","value":"b","m":{"x":[{"H":1}]}}"#, "bad-key: a key has half"),
        (r#"{"collection":"n","id":1,"update":{"$set":{"H":1}}}"#, "bad-key: "),
        (r#"{"collection":"n","id":1,"update":{"$rename":{"a":"H"}}}"#, "bad-key: the path"),
        (r#"{"collection":"n","id":1,"patch":[{"op":"add","path":"/H","value":1}]}"#, "bad-key: the path"),
        (r#"{"collection":"n","id":1,"patch":[{"op":"remove","path":"/a/H"}]}"#, "bad-key: the path"),
        (r#"{"t":"set","id":"a","value":"H"#, "not-json: "),
    ] {
        let told = told(&mut decoder, &event.replace('H', half));
        assert!(told.starts_with(expected), "{event}\n  {told}");
    }
    assert_eq!(decoder.take_mended(), 4);
    // A whole one is nobody's concern, wherever it is.
    assert_eq!(
        told(&mut decoder, "{\"t\":\"set\",\"id\":\"\u{fffd}\",\"value\":1}"),
        "c/\"\u{fffd}\": Set v 1"
    );
    assert_eq!(decoder.take_mended(), 0);
}

/// What one route takes for data may be paths or operators to another.
#[test]
fn a_routes_rules_are_for_its_own_events() {
    let toml = "queues = [{ key = 'q' }]\nnative.collections = ['n']\n\
        [[routes]]\nwhen = { t = 'typed' }\ncollection = 'c'\nid = 'id'\nset = { u = 'update' }\n\
        [[routes]]\nwhen = { t = 'merged' }\ncollection = 'c'\nid = 'id'\nmerge = 'value'\n\
        [[routes]]\nwhen = { t = 'set' }\ncollection = 'c'\nid = 'id'\nset = { v = 'value' }\n";
    let config: Config = toml::from_str(toml).unwrap();
    assert_eq!(config.violations(crate::decode::check_literal), []);
    let mut decoder = Decoder::new(&config);
    for (event, expected) in [
        (r#"{"collection":"n","id":1,"update":{"$inc":{"a.b":1}}}"#, "n/1: Inc a.b 1"),
        (r#"{"t":"typed","id":1,"update":{"a":1}}"#, r#"c/1: Set u {"a":1}"#),
        (r#"{"t":"set","id":1,"value":{"a.b":1}}"#, r#"c/1: Set v {"a.b":1}"#),
        (r#"{"t":"merged","id":1,"value":{"a":{"b":1}}}"#, r#"c/1: Merge a {"b":1}"#),
        (r#"{"t":"typed","id":1,"update":{"$inc":1}}"#, r#"bad-key: the key "$inc" starts with "$""#),
        (
            r#"{"t":"merged","id":1,"value":{"a.b":1}}"#,
            r#"bad-key: the key "a.b" contains ".", which would make it a path"#,
        ),
    ] {
        assert_eq!(told(&mut decoder, event), expected, "{event}");
    }
    let (_, route) = decoder.decode_routed(br#"{"t":"set","id":1,"value":{"a.b":1}}"#).unwrap();
    assert_eq!(route, Some(2));
}

#[test]
fn a_refusal_tells_route_entity_and_trace() {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let toml = "native.collections = ['n']\nqueues = [{ key = 'q' }]\n\
        [[routes]]\nwhen = { t = 'PING' }\nskip = true\n\
        [[routes]]\nwhen = { t = 'set' }\ncollection = 'c'\nid = ['id', 'of']\nset = { v = 'value' }\ntraceparent = 'trace'\n";
    let mut decoder = Decoder::new(&toml::from_str(toml).unwrap());
    for (event, reason, route, entity, has_trace) in [
        (r#"{"t":"set","id":7,"of":8,"value":{"$x":1},"trace":"T"}"#, "bad-key", Some(1), Some("7:8"), true),
        (r#"{"trace":"T","t":"set","id":{"$x":1},"of":8,"value":1}"#, "bad-key", Some(1), None, true),
        (r#"{"t":"set","id":7,"of":8,"trace":"T","value":1,"value":2}"#, "duplicate-key", None, None, true),
        (r#"{"t":"set","id":7,"of":8}"#, "bad-event", Some(1), Some("7:8"), false),
        (
            r#"{"collection":"n","update":{"$set":{"":1}},"id":"a","trace":"T"}"#,
            "bad-event",
            None,
            Some("a"),
            true,
        ),
        (r#"{"t":"PING","id":7,"of":8,"trace":"T"}"#, "skipped", Some(0), None, false),
        // Nobody reads it.
        (r#"{"t":"other","value":{"$x":1}}"#, "bad-event", None, None, false),
    ] {
        let refused = decoder.decode(event.replace("\"T\"", &format!("{trace:?}")).as_bytes()).unwrap_err();
        let told = refused.entity.as_ref().and_then(|entity| entity.get().id.text());
        assert_eq!(
            (refused.rejection.reason.label(), refused.route, told),
            (reason, route, entity),
            "{event}"
        );
        assert_eq!(refused.traceparent.map(|trace| trace.to_string()), has_trace.then(|| trace.to_owned()));
    }
}

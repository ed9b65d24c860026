//! Tests which trace an event belongs to, also where it is refused.

use super::Decoder;
use crate::config::Config;
use crate::dead_letter::Reason;
use crate::trace::Traceparent;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER: &str = "00-aaf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

const ROUTES: &str = r#"
native.collections = ["notes"]
[[routes]]
when = { type = "A" }
collection = "a"
id = "id"
set = { x = "x", deep = "data.in.x" }
traceparent = "meta.trace"
[[routes]]
when = { type = "B" }
collection = "b"
id = "id"
merge = "data"
traceparent = "data.in.trace"
[[routes]]
when = { type = "C" }
collection = "b"
id = "id"
set = { x = "x" }
[[routes]]
when = { type = "D" }
collection = "b"
id = "id"
set = { trace = "trace", deep = "text.deep" }
traceparent = "trace"
[[routes]]
when = { type = "E" }
collection = "b"
id = "id"
set = { x = "x" }
traceparent = "text"
"#;

fn decoder() -> Decoder {
    let config: Config = toml::from_str(&format!("queues = [{{ key = \"q\" }}]\n{ROUTES}")).unwrap();
    assert_eq!(config.violations(crate::decode::check_literal), []);
    Decoder::new(&config)
}

/// The trace of an event that is decoded.
fn trace(event: &str) -> Option<String> {
    let mut decoder = decoder();
    let change = decoder.decode(event.as_bytes()).unwrap_or_else(|why| panic!("{event}: {why}"));
    change.traceparent.map(|trace| Traceparent::from(trace).to_string())
}

/// Why an event is refused, and its trace.
fn refused(event: &str) -> (Reason, Option<String>) {
    let refused = decoder().decode(event.as_bytes()).unwrap_err();
    (refused.rejection.reason, refused.traceparent.map(|trace| trace.to_string()))
}

#[test]
fn a_trace_is_taken_from_where_the_route_says() {
    let native = r#"{"collection":"notes","id":1,"delete":true,"traceparent":"T"}"#;
    let in_between = r#"{"traceparent":"T","collection":"notes","id":1,"merge":{"x":1}}"#;
    for event in [
        native,
        in_between,
        r#"{"type":"A","id":1,"x":1,"meta":{"trace":"T"}}"#,
        r#"{"meta":{"trace":"T","more":[{}]},"type":"A","id":1,"x":1}"#,
        r#"{"type":"B","id":1,"data":{"in":{"trace":"T"}}}"#,
        r#"{"type":"D","id":1,"trace":"T"}"#,
        r#"{"type":"E","id":1,"x":1,"text":"T"}"#,
    ] {
        assert_eq!(trace(&event.replace("\"T\"", &format!("{TRACE:?}"))).as_deref(), Some(TRACE), "{event}");
        assert_eq!(trace(&event.replace("\"T\"", "\"00-00\"")), None, "{event}");
        assert_eq!(trace(&event.replace("\"T\"", "7")), None, "{event}");
    }
    // Of a route without one, and at another route's place.
    assert_eq!(trace(&format!(r#"{{"type":"C","id":1,"x":1,"meta":{{"trace":{TRACE:?}}}}}"#)), None);
}

#[test]
fn what_is_no_trace_costs_no_event() {
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    for wrong in [
        "null",
        "{}",
        "[]",
        r#"{"$bad":1,"a":{"":2},"x":1,"x":2}"#,
        r#"{"trace":{"trace":{"a.b":1}}}"#,
        "1e999",
        "123456789012345678901234567890",
        r#""\ud800""#,
        &deep,
    ] {
        assert_eq!(
            trace(&format!(r#"{{"collection":"notes","id":1,"delete":true,"traceparent":{wrong}}}"#)),
            None
        );
        assert_eq!(trace(&format!(r#"{{"type":"A","id":1,"x":1,"meta":{wrong}}}"#)), None);
        assert_eq!(trace(&format!(r#"{{"type":"A","id":1,"x":1,"meta":{{"trace":{wrong}}}}}"#)), None);
        assert_eq!(trace(&format!(r#"{{"type":"C","id":1,"x":1,"meta":{wrong}}}"#)), None);
    }
    // The last of two keys is taken, as by most parsers.
    let twice =
        format!(r#"{{"type":"A","id":1,"x":1,"meta":{{"trace":{OTHER:?}}},"meta":{{"trace":{TRACE:?}}}}}"#);
    assert_eq!(trace(&twice).as_deref(), Some(TRACE));
    // What a route reads for something else is held to the rules as before.
    assert_eq!(refused(r#"{"type":"A","id":1,"data":{"in":{"x":{"$bad":1}}}}"#).0, Reason::BadKey);
    assert_eq!(refused(r#"{"type":"A","id":1,"data":{},"data":{}}"#).0, Reason::DuplicateKey);
}

#[test]
fn an_event_that_is_refused_has_its_trace_all_the_same() {
    let some = Some(TRACE.to_owned());
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    for (event, reason, expected) in [
        (r#"{"collection":"notes","delete":true,"traceparent":"T"}"#, Reason::MissingId, &some),
        (
            r#"{"collection":"notes","id":1,"merge":{"a":1,"a":2},"traceparent":"T"}"#,
            Reason::DuplicateKey,
            &some,
        ),
        (
            r#"{"collection":"other","id":1,"delete":true,"traceparent":"T"}"#,
            Reason::UnknownCollection,
            &some,
        ),
        (r#"{"collection":"notes","id":1,"merge":{"a":DEEP},"traceparent":"T"}"#, Reason::TooDeep, &some),
        (r#"{"type":"A","id":{},"meta":{"trace":"T"}}"#, Reason::BadId, &some),
        (r#"{"type":"A","id":1,"x":{"":1},"meta":{"trace":"T"}}"#, Reason::BadKey, &some),
        // No route takes it, and any may have its trace.
        (r#"{"type":"Z","meta":{"trace":"T"}}"#, Reason::BadEvent, &some),
        // A route takes it that says nothing of traces.
        (r#"{"type":"C","id":{},"meta":{"trace":"T"}}"#, Reason::BadId, &None),
        (r#"{"type":"Z","meta":{"trace":"T"}"#, Reason::NotJson, &None),
        (r#"{"type":"Z","meta":{"trace":"no"}}"#, Reason::BadEvent, &None),
        (r#"["T"]"#, Reason::BadEvent, &None),
        ("", Reason::NotJson, &None),
    ] {
        let event = event.replace("\"T\"", &format!("{TRACE:?}")).replace("DEEP", &deep);
        assert_eq!(refused(&event), (reason, expected.clone()), "{event}");
    }
}

//! Tests what native events become.

use super::tests::told;
use super::*;
use crate::config::Native as NativeConfig;

fn native() -> Decoder {
    let native = NativeConfig { collections: vec!["documents".into(), "other".into()] };
    Decoder::new(&Config { native, ..Config::default() })
}

#[test]
fn native_events_say_everything_themselves() {
    let mut decoder = native();
    let mut told = |event| told(&mut decoder, event);
    assert_eq!(
        told(
            r#"{"collection":"documents","id":"doc:1","ts":"1970-01-01T00:00:01Z","update":{"$set":{"a.b":{"x.y":1}},"$inc":{"n":1},"$push":{"l":{"$each":[1,{"a":2}]},"m":{"a":1}},"$unset":{"u":""}}}"#
        ),
        r#"documents/"doc:1": Set a.b {"x.y":1}, Inc n 1, PushEach l [1,{"a":2}], Push m {"a":1}, Unset u null @1000"#
    );
    assert_eq!(
        told(r#"{"collection":"documents","id":1,"merge":{"a":1,"b":null}}"#),
        "documents/1: Set a 1, Unset b null"
    );
    assert_eq!(told(r#"{"collection":"other","id":1,"replace":{"a":1}}"#), r#"other/1: Replace {"a":1}"#);
    assert_eq!(told(r#"{"collection":"other","id":1,"delete":true}"#), "other/1: Delete");
}

#[test]
fn bad_native_events_are_refused_with_their_reason() {
    let mut decoder = native();
    for (event, reason) in [
        (r#"{"collection":"users","id":1,"delete":true}"#, "unknown-collection"),
        (r#"{"collection":"documents","delete":true}"#, "missing-id"),
        (r#"{"collection":"documents","id":{"$gt":""},"delete":true}"#, "bad-key"),
        (r#"{"collection":"documents","id":{"a":1},"delete":true}"#, "bad-id"),
        (r#"{"collection":"documents","id":1}"#, "bad-event"),
        (r#"{"collection":"documents","id":1,"delete":false}"#, "bad-event"),
        (r#"{"collection":"documents","id":1,"delete":true,"merge":{}}"#, "bad-event"),
        (r#"{"collection":"documents","id":1,"delete":true,"filter":{}}"#, "bad-event"),
        (r#"{"collection":"documents","id":1,"id":2,"delete":true}"#, "duplicate-key"),
        (r#"{"collection":"documents","id":1,"update":{}}"#, "bad-event"),
        (r#"{"collection":"documents","id":1,"update":{"$set":{}}}"#, "bad-event"),
        (r#"{"collection":"documents","id":1,"update":{"$set":{"_id":2}}}"#, "protected-field"),
        (r#"{"collection":"documents","id":1,"update":{"$set":{"_tidegate.q":2}}}"#, "protected-field"),
        (r#"{"collection":"documents","id":1,"update":{"$set":{"a..b":2}}}"#, "bad-key"),
        (r#"{"collection":"documents","id":1,"update":{"$set":{"a.$[].b":2}}}"#, "bad-key"),
        (r#"{"collection":"documents","id":1,"update":{"$set":{"a":{"$each":1}}}}"#, "bad-key"),
        (r#"{"collection":"documents","id":1,"update":{"$set":{"a":1},"$inc":{"a.b":1}}}"#, "path-conflict"),
        (r#"{"collection":"documents","id":1,"update":{"$where":{"a":1}}}"#, "bad-event"),
        (r#"{"collection":"documents","id":1,"update":{"a":1}}"#, "bad-event"),
        (r#"{"collection":"documents","id":1,"update":{"$inc":{"a":"1"}}}"#, "bad-number"),
        (r#"{"collection":"documents","id":1,"update":{"$push":{"a":{"$each":1}}}}"#, "bad-event"),
        (
            r#"{"collection":"documents","id":1,"update":{"$push":{"a":{"$each":[],"$slice":"x"}}}}"#,
            "bad-event",
        ),
        (r#"{"collection":"documents","id":1,"merge":[1]}"#, "bad-event"),
        (r#"{"collection":"documents","id":1,"replace":{"_id":1}}"#, "protected-field"),
    ] {
        let told = told(&mut decoder, event);
        assert!(told.starts_with(&format!("{reason}: ")), "{event}\n  {told}");
    }
}

#[test]
fn a_json_patch_becomes_operations_on_fields() {
    let mut decoder = native();
    let mut told =
        |patch: &str| told(&mut decoder, &format!(r#"{{"collection":"documents","id":1,"patch":{patch}}}"#));
    assert_eq!(
        told(
            r#"[{"op":"add","path":"/a/b","value":1},{"op":"replace","path":"/c~1d","value":{"x":1}},{"op":"remove","path":"/e"}]"#
        ),
        r#"documents/1: Patch  [{"op":"add","path":"/a/b","value":1},{"op":"replace","path":"/c~1d","value":{"x":1}},{"op":"remove","path":"/e"}]"#
    );
    // What fits every document needs not be looked at by a pipeline.
    assert_eq!(
        told(r#"[{"op":"add","path":"/a","value":1},{"op":"add","path":"/c~1d","value":{"x":1}}]"#),
        r#"documents/1: Set a 1, Set c/d {"x":1}"#
    );
    for patch in [
        r#"[{"op":"add","path":"/a","value":1},{"op":"add","path":"/a","value":2}]"#,
        r#"[{"op":"add","path":"/a","value":{}},{"op":"add","path":"/a/b","value":1}]"#,
        r#"[{"op":"remove","path":"/a/0"},{"from":"/b","op":"copy","path":"/a"},{"op":"add","path":"/l/-","value":1}]"#,
        r#"[{"from":"/n","op":"move","path":"/o/p"}]"#,
    ] {
        assert_eq!(told(patch), format!("documents/1: Patch  {patch}"));
    }
    assert_eq!(told("[]"), "documents/1: ");
    for (patch, reason) in [
        (
            r#"[{"op":"test","path":"/a","value":1}]"#,
            "bad-event: operation 0 of the patch is \"test\", which tidegate does not do",
        ),
        (
            r#"[{"op":"move","from":"/a","path":"/a/b"}]"#,
            "bad-event: operation 0 of the patch moves \"/a\" into itself",
        ),
        (r#"[{"op":"copy","path":"/a"}]"#, "bad-event: operation 0 of the patch has no \"from\""),
        (r#"[{"op":"copy","path":"/a","from":"/_tidegate/q"}]"#, "protected-field: "),
        (r#"[{"op":"remove","path":"/1/2/3/4/5/6/7/8/9/10/11"}]"#, "too-deep: "),
        (r#"[{"op":"add","path":"","value":{}}]"#, "bad-event: a patch's path \"\" is the whole document"),
        (r#"[{"op":"add","path":"/a.b","value":1}]"#, "bad-key: "),
        (r#"[{"op":"add","path":"/a/$b","value":1}]"#, "bad-key: "),
        (r#"[{"op":"add","path":"/_id","value":1}]"#, "protected-field: "),
        (r#"[{"op":"add","path":"/a"}]"#, "bad-event: operation 0 of the patch has no \"value\""),
        (r#"[{"op":"grow","path":"/a"}]"#, "bad-event: operation 0 of the patch is \"grow\""),
        (r#"{"op":"add"}"#, "bad-event: \"patch\" must be an array"),
    ] {
        let told = told(patch);
        assert!(told.starts_with(reason), "{patch}\n  {told}");
    }
}

#[test]
fn every_operator_of_mongodb_is_read_and_its_operand_checked() {
    let mut decoder = native();
    let mut told = |update: &str| {
        told(&mut decoder, &format!(r#"{{"collection":"documents","id":1,"update":{update}}}"#))
    };
    assert_eq!(
        told(
            r#"{"$mul":{"a":2},"$min":{"b":1},"$max":{"c":"x"},"$addToSet":{"d":1,"e":{"$each":[1,2]}},"$pullAll":{"f":[1]}}"#
        ),
        "documents/1: Mul a 2, Min b 1, Max c \"x\", AddToSet d [1], AddToSet e [1,2], PullAll f [1]"
    );
    assert_eq!(
        told(
            r#"{"$pull":{"a":{"$gte":5}},"$pop":{"b":-1},"$rename":{"c":"d"},"$setOnInsert":{"e":1},"$currentDate":{"f":true}}"#
        ),
        "documents/1: Pull a {\"$gte\":5}, Pop b -1, Rename c \"d\", SetOnInsert e 1, CurrentDate f true"
    );
    for (update, reason) in [
        (r#"{"$mul":{"a":"2"}}"#, "bad-number"),
        (r#"{"$pull":{"a":{"$where":"1"}}}"#, "bad-event"),
        (r#"{"$pop":{"a":2}}"#, "bad-event"),
        (r#"{"$rename":{"a":"_id"}}"#, "protected-field"),
        (r#"{"$rename":{"a":"a.b"}}"#, "path-conflict"),
        (r#"{"$rename":{"a":"b"},"$set":{"b":1}}"#, "path-conflict"),
        (r#"{"$addToSet":{"a":{"$each":1}}}"#, "bad-event"),
        (r#"{"$pullAll":{"a":1}}"#, "bad-event"),
        (r#"{"$currentDate":{"a":"now"}}"#, "bad-event"),
        (r#"{"$push":{"a":{"$each":[1],"$sort":{"x":2}}}}"#, "bad-event"),
    ] {
        let told = told(update);
        assert!(told.starts_with(&format!("{reason}: ")), "{update}\n  {told}");
    }
}

#[test]
fn bytes_that_are_no_text_and_updates_that_are_too_large_are_refused() {
    let mut decoder = native();
    assert_eq!(decoder.decode(b"{\"a\":\"\xff\"}").unwrap_err().rejection.reason, Reason::NotUtf8);
    let event = format!(r#"{{"collection":"documents","id":1,"merge":{{"a":"{}"}}}}"#, "x".repeat(20 << 20));
    assert_eq!(decoder.decode(event.as_bytes()).unwrap_err().rejection.reason, Reason::TooLarge);
    let path = vec!["a"; 200].join(".");
    let event = format!(r#"{{"collection":"documents","id":1,"update":{{"$set":{{"{path}":1}}}}}}"#);
    assert_eq!(decoder.decode(event.as_bytes()).unwrap_err().rejection.reason, Reason::TooDeep);
}

//! Tests what each place can say, which one wins, and how each mistake is worded.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use proptest::prelude::*;

use super::*;

/// A file that lacks nothing.
const ENOUGH: &str = r#"
queues = [{ key = "q" }]
native.collections = ["notes"]
"#;

/// Loads `toml` from a file, which errors call `config.toml`.
fn load(toml: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, toml).unwrap();
    let environment: Vec<(OsString, OsString)> =
        environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let flags: Vec<_> = flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Config::load_from(&file, environment, &flags, crate::decode::check_literal)
        .map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

fn error(toml: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> String {
    load(toml, environment, flags).unwrap_err()
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let toml = format!("{ENOUGH}\n[batch]\nmax_ops = 1\nmax_delay = \"1ms\"\nmax_bytes = \"1MiB\"\n");
    let config = load(
        &toml,
        &[("TIDEGATE_BATCH__MAX_OPS", "2"), ("TIDEGATE_BATCH__MAX_DELAY", "2ms")],
        &[("batch.max_ops", "3"), ("batch.max_ops", "4")],
    )
    .unwrap();
    assert_eq!(config.batch.max_ops, 4);
    assert_eq!(config.batch.max_delay, Duration::from_millis(2));
    assert_eq!(config.batch.max_bytes, ByteSize::mib(1));
    assert_eq!(config.lanes, Lanes::default());
}

#[test]
fn text_is_never_guessed_into_another_type() {
    for text in ["000123", "true", "{a=1}", "[1]", "1e3", "\"quoted\"", " spaced ", "a=b", "ünï"] {
        let config = load(ENOUGH, &[("TIDEGATE_DEAD_LETTER__SUFFIX", text)], &[]).unwrap();
        assert_eq!(config.dead_letter.suffix, text);
        let url = format!("redis://:{text}@host");
        let config = load(ENOUGH, &[], &[("redis.url", &url)]).unwrap();
        assert_eq!(config.redis.url.expose(), url);
    }
}

#[test]
fn lists_come_as_toml() {
    let config = load(
        ENOUGH,
        &[("TIDEGATE_QUEUES", r#" [{ key = "a" }, { key = "b", delivery = "at-least-once" }] "#)],
        &[
            (
                "routes",
                r#"[{ collection = "c", id = "id", inc = { n = 1, f = 0.5, p = "x" }, when = { v = 1 } }]"#,
            ),
            ("native.collections", "[]"),
        ],
    )
    .unwrap();
    assert_eq!(config.queues.len(), 2);
    assert_eq!(config.queues[1].delivery, Delivery::AtLeastOnce);
    assert_eq!(config.routes[0].inc["n"], Amount::Int(1));
    assert_eq!(config.routes[0].inc["f"], Amount::Float(0.5));
    assert_eq!(config.routes[0].inc["p"], Amount::from("x"));
    assert_eq!(config.routes[0].when["v"], Scalar::Int(1));
    assert!(config.native.collections.is_empty());
}

#[test]
fn a_truth_is_true_or_false() {
    let shown = |value| load(ENOUGH, &[("TIDEGATE_HTTP__SHOW_PAYLOADS", value)], &[]);
    assert!(shown("true").unwrap().http.show_payloads && !shown("false").unwrap().http.show_payloads);
    let error = shown("yes").unwrap_err().to_string();
    assert!(
        error.contains("`http.show_payloads`: expected true or false, found the string \"yes\""),
        "{error}"
    );
}

#[test]
fn a_size_may_be_a_number_of_bytes() {
    let toml = format!("{ENOUGH}\n[batch]\nmax_bytes = 2048\n");
    let config = load(&toml, &[("TIDEGATE_BUFFER__MAX_BYTES", "4096")], &[]).unwrap();
    assert_eq!((config.batch.max_bytes, config.buffer.max_bytes), (ByteSize::kib(2), ByteSize::kib(4)));
}

#[test]
fn variables_of_others_are_left_alone() {
    let others = [
        ("PATH", "/bin"),
        ("TIDEGATE", "x"),
        ("TIDEGATE_TEST_REDIS_URL", "redis://x"),
        ("TIDEGATE_SERVICE_HOST", "10.0.0.1"),
        ("TIDEGATE_SERVICE_PORT", "9464"),
        ("TIDEGATE_SERVICE_PORT_HTTP", "9464"),
        ("TIDEGATE_PORT", "tcp://10.0.0.1:9464"),
        ("TIDEGATE_PORT_9464_TCP_ADDR", "10.0.0.1"),
        ("TIDEGATE_METRICS_SERVICE_HOST", "10.0.0.1"),
        ("TIDEGATE_METRICS_PORT_9464_TCP", "tcp://10.0.0.1:9464"),
    ];
    assert_eq!(load(ENOUGH, &others, &[]).unwrap(), load(ENOUGH, &[], &[]).unwrap());
}

#[test]
fn unknown_keys() {
    insta::assert_snapshot!(error(
        r#"
        redis_url = "redis://:hunter2@host"
        [[queues]]
        key = "q"
        deliver = "exactly-once"
        [batch]
        max_opps = 1
        count = 4
        [zebra]
        stripes = 9
        [[routes]]
        id = "id"
        collection = "a"
        delete = true
        [[routes]]
        idd = "id"
        collection = "a"
        "redis://:hunter2@host" = 1
        "#,
        &[
            ("TIDEGATE_MONGODB_URI", "mongodb://:hunter2@host"),
            ("TIDEGATE_BATCH__MAX_OPPS", "1"),
            ("TIDEGATE_REDIS", "redis://:hunter2@host"),
            ("TIDEGATE_ZEBRA", "1"),
        ],
        &[("batch.max_opps", "1"), ("redis://:hunter2@host/?a", "1"), ("", "1")],
    ), @r#"
    environment variable TIDEGATE_BATCH__MAX_OPPS: unknown key `batch.max_opps`; did you mean TIDEGATE_BATCH__MAX_OPS?
    environment variable TIDEGATE_MONGODB_URI: unknown key `mongodb_uri`; did you mean TIDEGATE_MONGODB__URI?
    environment variable TIDEGATE_REDIS: unknown key `redis`; did you mean TIDEGATE_REDIS__URL?
    environment variable TIDEGATE_ZEBRA: unknown key `zebra`
    --set: unknown key `batch.max_opps`; did you mean `batch.max_ops`?
    --set: unknown key `"..."`
    --set: unknown key `""`
    config.toml: unknown key `batch.count`; did you mean `lanes.count`?
    config.toml: unknown key `batch.max_opps`; did you mean `batch.max_ops`?
    config.toml: unknown key `queues[0].deliver`; did you mean `queues[0].delivery`?
    config.toml: unknown key `redis_url`; did you mean `redis.url`?
    config.toml: unknown key `routes[1].idd`; did you mean `routes[1].id`?
    config.toml: unknown key `routes[1]."..."`; known here: `when`, `collection`, `collection_from`, `collections`, `skip`, `id`, `id_separator`, `shard_key`, `ts`, `traceparent`, `set`, `unset`, `inc`, `push`, `add_to_set`, `min`, `max`, `mul`, `set_on_insert`, `pull`, `pull_all`, `pop`, `rename`, `current_date`, `yjs`, `merge`, `patch`, `replace`, `delete`, `deletes`, `max_delay`, `pace`, `flush`, `history`, `history_ttl`, `hot_state`
    config.toml: unknown key `zebra`; known here: `redis`, `mongodb`, `queues`, `batch`, `buffer`, `lanes`, `native`, `routes`, `tombstones`, `dead_letter`, `receipts`, `lease`, `http`, `log`, `shutdown`
    "#);
}

#[test]
fn sources_of_every_kind_load_and_are_printed() {
    let toml = r#"
        queues = [{ key = "q" }]
        [[routes]]
        id = ["a", { path = "b", as = "int" }]
        id_separator = "/"
        collection = "a"
        set = { a = { value = [1, 2.5, true, "x", { k = "v" }] }, b = { value = 2024-01-31T12:00:00+01:00 }, c = { now = true }, d = { path = "d", as = "objectId" } }
        inc = { n = 1, f = 0.5, p = "p", e = { path = "e", default = 0 } }
        push = { l = { value = { z = 1, a = 2 } } }
        [[routes]]
        id = { path = "id", as = "uuid" }
        collection = "a"
        delete = true
        "#;
    let config = load(toml, &[], &[]).unwrap();
    assert_eq!(config, toml::from_str(toml).unwrap());
    assert_eq!(load(&config.redacted_toml(), &[], &[]).unwrap(), config);
    let Source::Table(time) = &config.routes[0].set["b"] else { panic!("a table") };
    assert!(time.value.as_ref().is_some_and(toml::Value::is_datetime));
}

#[test]
fn unknown_keys_of_sources() {
    insta::assert_snapshot!(error(
        r#"
        queues = [{ key = "q" }]
        [[routes]]
        id = { path = "id", az = "int" }
        collection = "a"
        set = { meta.title = "title", a = { paht = "x" }, b = { path = "x", as = "number" } }
        [[routes]]
        id = 5
        collection = "a"
        push = { a = { path = 1 }, b = { now = "yes" } }
        "#,
        &[],
        &[],
    ), @r#"
    config.toml: unknown key `routes[0].id.az`; did you mean `routes[0].id.as`?
    config.toml: unknown key `routes[0].set.a.paht`; did you mean `routes[0].set.a.path`?
    config.toml: `routes[0].set.b.as`: expected "date" or "objectId" or "int" or "double" or "decimal" or "string" or "binary" or "uuid", found the string "number"
    config.toml: unknown key `routes[0].set.meta.title`; if a field is meant, quote it: "meta.title"
    config.toml: `routes[1].id`: expected a path, a table such as { path = "id", as = "objectId" }, or a list of them, found the number 5
    config.toml: `routes[1].push.a.path`: expected a string, found the number 1
    config.toml: `routes[1].push.b.now`: expected true or false, found the string "yes"
    "#);
}

#[test]
fn missing_keys() {
    insta::assert_snapshot!(error("[[queues]]\nkind = \"list\"", &[], &[]), @"config.toml: `queues[0].key`: missing");
    let route = "[{ collection = \"a\", delete = true }]";
    insta::assert_snapshot!(error(ENOUGH, &[], &[("routes", route)]), @"--set: `routes[0].id`: is missing, or empty: which document is it?");
}

#[test]
fn ill_typed_values() {
    insta::assert_snapshot!(error(
        r#"
        redis = "redis://:hunter2@host"
        native = { collections = "notes" }
        [mongodb]
        uri = 123456
        uri_file = true
        timeout = 10
        write_concern = 1
        [[queues]]
        key = 1
        kind = 0
        delivery = "twice"
        [batch]
        max_ops = -1
        max_bytes = "8 apples"
        max_delay = "soon"
        [buffer]
        max_bytes = -5
        max_events = 1.5
        [log]
        format = "redis://:hunter2@host"
        [http]
        listen = "localhost"
        [[routes]]
        id = "id"
        collection = "a"
        when = { payload.kind = "x" }
        set = { "a.b" = 1, c = [1] }
        inc = { n = true }
        unset = "x"
        delete = "yes"
        "#,
        &[("TIDEGATE_LANES__COUNT", "four")],
        &[("lease.ttl", "10")],
    ), @r#"
    config.toml: `batch.max_bytes`: expected a size such as "8MiB", or a number of bytes, found the string "8 apples"
    config.toml: `batch.max_delay`: expected a duration such as "50ms" or "10s", found the string "soon"
    config.toml: `batch.max_ops`: expected a whole number, found the number -1
    config.toml: `buffer.max_bytes`: expected a size such as "8MiB", or a number of bytes, found the number -5
    config.toml: `buffer.max_events`: expected a whole number, found the number 1.5
    config.toml: `http.listen`: expected an address and port such as "127.0.0.1:9464", found the string "localhost"
    environment variable TIDEGATE_LANES__COUNT: `lanes.count`: expected a whole number, found the string "four"
    --set: `lease.ttl`: expected a duration such as "50ms" or "10s", found the string "10"
    config.toml: `log.format`: expected "text" or "json", found a string
    config.toml: `mongodb.timeout`: expected a duration such as "50ms" or "10s", found the number 10
    config.toml: `mongodb.uri`: expected a string, found a number
    config.toml: `mongodb.uri_file`: expected a string, found true or false
    config.toml: `mongodb.write_concern`: expected a string such as "majority" or "1", found a number
    config.toml: `native.collections`: expected a list, found the string "notes"
    config.toml: `queues[0].delivery`: expected "exactly-once" or "at-least-once" or "at-most-once", found the string "twice"
    config.toml: `queues[0].key`: expected a string, found the number 1
    config.toml: `queues[0].kind`: expected a string, found the number 0
    config.toml: `redis`: expected a table, found a string
    config.toml: `routes[0].delete`: expected true or false, found the string "yes"
    config.toml: `routes[0].inc.n`: expected a number or the path to one (quote a dotted field: "a.b"), found true
    config.toml: `routes[0].set."a.b"`: expected a path or a table such as { value = 1 } (quote a dotted field: "a.b"), found the number 1
    config.toml: `routes[0].set.c`: expected a path or a table such as { value = 1 } (quote a dotted field: "a.b"), found a list
    config.toml: `routes[0].unset`: expected a list, found the string "x"
    config.toml: `routes[0].when.payload`: expected a string, a number, true or false (quote a dotted path: "a.b"), found a table
    "#);
    insta::assert_snapshot!(error("queues = 1", &[], &[("routes", "[1]")]), @"
    config.toml: `queues`: expected a list of tables, found the number 1
    --set: `routes[0]`: expected a table, found the number 1
    ");
}

#[test]
fn lists_that_are_no_toml() {
    insta::assert_snapshot!(error(
        ENOUGH,
        &[("TIDEGATE_QUEUES", "collabQueue"), ("TIDEGATE_NATIVE__COLLECTIONS", "[\"a\"")],
        &[("routes", "[{ id = redis://:hunter2@host }]")],
    ), @r#"
    environment variable TIDEGATE_NATIVE__COLLECTIONS: `native.collections`: expected a TOML value such as ["documents"]: invalid array, expected `]`
    environment variable TIDEGATE_QUEUES: `queues`: expected a TOML value such as [{ key = "collabQueue" }]: invalid string, expected `"`, `'`
    --set: `routes`: expected a TOML value such as [{ collection = "documents", id = "id", replace = "state" }]: invalid string, expected `"`, `'`
    "#);
}

#[test]
fn a_file_that_is_no_toml() {
    insta::assert_snapshot!(error("[redis]\nurl = redis://:hunter2@host\n", &[], &[]), @r#"config.toml:2:7: invalid string, expected `"`, `'`"#);
    insta::assert_snapshot!(error("[batch]\nmax_ops = 1\nmax_ops = 2\n", &[], &[]), @"config.toml:3:1: duplicate key `max_ops` in table `batch`");
    insta::assert_snapshot!(error("[redis]\n\"redis://:hunter2@host\" = 1\n\"redis://:hunter2@host\" = 1", &[], &[]), @"config.toml:3:1: invalid TOML");
    insta::assert_snapshot!(error("[redis\n", &[], &[]), @"config.toml:1:7: invalid table header, expected `.`, `]`");
}

#[test]
fn a_file_that_is_not_there() {
    let error =
        Config::load_from(Path::new("no/such.toml"), [], &[], crate::decode::check_literal).unwrap_err();
    insta::assert_snapshot!(error, @"cannot read the configuration file no/such.toml: No such file or directory (os error 2)");
}

#[test]
fn broken_rules_name_where_the_value_came_from() {
    insta::assert_snapshot!(error(
        "[[routes]]\nid = \"id\"\ncollection = \"tidegate\"\ndelete = true\n[batch]\nmax_ops = 0",
        &[("TIDEGATE_LANES__COUNT", "0")],
        &[("redis.url", "http://:hunter2@host")],
    ), @"
    --set: `redis.url`: must begin with redis:// or rediss:// or unix://
    config.toml: `queues`: at least one queue is needed
    config.toml: `batch.max_ops`: must be from 1 to 100000, is 0
    environment variable TIDEGATE_LANES__COUNT: `lanes.count`: must be from 1 to 64, is 0
    config.toml: `routes[0].collection`: is a collection in which tidegate keeps its own state
    ");
}

#[test]
fn a_url_from_a_file_wins() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    fs::write(&file, "  redis://:hunter2@host\n").unwrap();
    let path = file.to_str().unwrap();
    let config = load(
        ENOUGH,
        &[("TIDEGATE_REDIS__URL_FILE", path), ("TIDEGATE_MONGODB__URI_FILE", "")],
        &[("redis.url", "redis://other")],
    )
    .unwrap();
    assert_eq!(config.redis.url.expose(), "redis://:hunter2@host");
    assert_eq!(config.mongodb.uri, Mongodb::default().uri);
    assert_eq!(config.mongodb.uri_file, None);

    fs::write(&file, " \n").unwrap();
    let error = error(
        ENOUGH,
        &[("TIDEGATE_REDIS__URL_FILE", path)],
        &[("mongodb.uri_file", "mongodb://:hunter2@host")],
    );
    insta::assert_snapshot!(error.replace(path, "/secrets/url"), @"
    environment variable TIDEGATE_REDIS__URL_FILE: `redis.url_file`: /secrets/url is empty
    --set: `mongodb.uri_file`: cannot read it (No such file or directory (os error 2)); it must be a path, not a URL
    ");
}

#[test]
fn a_missing_secret_file_is_named() {
    insta::assert_snapshot!(error(ENOUGH, &[], &[("mongodb.uri_file", "/no/such/file")]), @"--set: `mongodb.uri_file`: cannot read /no/such/file: No such file or directory (os error 2)");
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, ENOUGH).unwrap();
    let variable = ("TIDEGATE_LOG__LEVEL".into(), OsString::from_vec(vec![0xff]));
    insta::assert_snapshot!(Config::load_from(&file, [variable], &[], crate::decode::check_literal).unwrap_err(), @"environment variable TIDEGATE_LOG__LEVEL: not UTF-8");
}

#[test]
fn what_check_prints_loads_again() {
    let toml = fs::read_to_string("config.toml").unwrap();
    let config = load(&toml, &[("TIDEGATE_REDIS__URL", "redis://:hunter2@host")], &[]).unwrap();
    let printed = config.redacted_toml();
    assert!(!printed.contains("hunter2"));
    let mut again = load(&printed, &[], &[]).unwrap();
    assert_eq!(again.redis.url.expose(), "redis://:***@host");
    again.redis.url = config.redis.url.clone();
    assert_eq!(again, config);
}

#[test]
fn a_keys_text_is_read_as_its_default_is_written() {
    let keys = ["redis.url_file", "lanes.count", "http.show_payloads", "queues"];
    let form = |key| load::KEYS.iter().find(|(known, _)| known == key).map(|(_, form)| *form);
    let forms = [load::Form::Text, load::Form::Number, load::Form::Bool, load::Form::Toml];
    assert_eq!(keys.map(form), forms.map(Some));
    assert_eq!(load::KEYS.len(), 32);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A secret given in any place, right or wrong, is in no message.
    #[test]
    fn no_message_shows_a_password(place in 0..load::KEYS.len(), password in "[A-Z]{6}[0-9]{6}", broken: bool) {
        let scheme = if broken { "http" } else { "redis" };
        let url = format!("{scheme}://user:{password}@host");
        let key = load::KEYS[place].0.as_str();
        let variable = format!("TIDEGATE_{}", key.replace('.', "__").to_uppercase());
        for (environment, flags) in [
            (vec![], vec![(key, url.as_str())]),
            (vec![(variable.as_str(), url.as_str())], vec![]),
            (vec![], vec![(url.as_str(), key)]),
        ] {
            if let Err(message) = load(ENOUGH, &environment, &flags) {
                prop_assert!(!message.contains(&password), "{}", message);
            }
        }
        for toml in [format!("{key} = \"{url}\""), format!("{key} = {url}"), format!("\"{url}\" = 1")] {
            if let Err(message) = load(&toml, &[], &[]) {
                prop_assert!(!message.contains(&password), "{}", message);
            }
        }
    }
}

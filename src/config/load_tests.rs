//! Tests what each place of a configuration can say, and which one wins.

use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use bytesize::ByteSize;
use proptest::prelude::*;

use super::*;

/// A file that lacks nothing.
pub(super) const ENOUGH: &str = r#"
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

pub(super) fn error(toml: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> String {
    load(toml, environment, flags).unwrap_err()
}

/// What breaks a rule in a configuration, a line each.
pub(super) fn violations(toml: &str) -> String {
    let config: Config = toml::from_str(toml).unwrap();
    let found = config.violations(crate::decode::check_literal);
    found.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
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
    let form = |key| schema::KEYS.iter().find(|(known, _)| known == key).map(|(_, form)| *form);
    let forms = [schema::Form::Text, schema::Form::Number, schema::Form::Bool, schema::Form::Toml];
    assert_eq!(keys.map(form), forms.map(Some));
    assert_eq!(schema::KEYS.len(), 42);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A secret given in any place, right or wrong, is in no message.
    #[test]
    fn no_message_shows_a_password(place in 0..schema::KEYS.len(), password in "[A-Z]{6}[0-9]{6}", broken: bool) {
        let scheme = if broken { "http" } else { "redis" };
        let url = format!("{scheme}://user:{password}@host");
        let key = schema::KEYS[place].0.as_str();
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

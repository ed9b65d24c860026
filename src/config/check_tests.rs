//! Breaks each rule across keys, and reads what is said of it.

use super::super::{Route, violations};
use super::*;

#[test]
fn the_default_needs_a_queue_and_something_to_accept() {
    insta::assert_snapshot!(violations(""), @"
    `queues`: at least one queue is needed
    `routes`: no routes, and `native.collections` is empty too: no event could be accepted
    ");
}

#[test]
fn tombstones_stay_as_long_as_mongodb_can_count() {
    let ttl = |ttl: &str| {
        violations(&format!(
            "queues = [{{ key = 'a' }}]\nnative.collections = ['c']\ntombstones.ttl = '{ttl}'"
        ))
    };
    assert_eq!(ttl("68years"), "");
    assert_eq!(ttl("69years"), "`tombstones.ttl`: must be at most 68 years: MongoDB cannot count further");
}

#[test]
fn what_redis_is_reached_with_goes_together() {
    let tls = |redis: &str| {
        violations(&format!("queues = [{{ key = 'a' }}]\nnative.collections = ['c']\nredis = {{ {redis} }}"))
    };
    assert_eq!(tls("url = 'rediss://a', tls = { ca_file = 'a', cert_file = 'b', key_file = 'c' }"), "");
    assert_eq!(
        tls("url = 'redis://a', tls.ca_file = 'a'"),
        "`redis.tls`: only means something where `redis.url` begins with rediss://"
    );
    assert_eq!(
        tls("password_file = 'a', password_command = ['b']"),
        "`redis.password_command`: does not go together with `redis.password_file`: which is right is not guessed"
    );
    for (there, other) in [("cert_file", "key_file"), ("key_file", "cert_file")] {
        let message = "is needed, too: a certificate and its private key go together";
        assert_eq!(
            tls(&format!("url = 'rediss://a', tls.{there} = 'a'")),
            format!("`redis.tls.{other}`: {message}")
        );
    }
}

#[test]
fn every_bound_is_kept() {
    insta::assert_snapshot!(violations(r#"
        queues = [{ key = "a" }, { key = "" }, { key = "a" }]
        native.collections = ["", "a$b", "a\u0000b", "system.users", "tidegate", "fine"]
        redis = { url = "http://:hunter2@cache", timeout = "0s" }
        mongodb = { uri = "mongodb://", database = "a b", write_concern = "0", timeout = "0s" }
        batch = { max_ops = 0, max_bytes = "49MiB" }
        buffer = { max_bytes = "1MiB", max_events = 0 }
        lanes = { count = 65 }
        lease = { ttl = "999ms" }
        dead_letter = { suffix = "" }
        shutdown = { deadline = "0s" }
        log = { level = "inof" }
    "#), @r#"
    `redis.url`: must begin with redis:// or rediss:// or unix://
    `mongodb.uri`: must name a server
    `mongodb.database`: must not contain NUL, a space or any of /\."$*<>:|?
    `mongodb.write_concern`: must be at least 1: writes have to be acknowledged
    `queues[1].key`: must not be empty
    `queues[2].key`: "a" is there twice
    `dead_letter.suffix`: must not be empty: dead letters would go back into the queue
    `batch.max_ops`: must be from 1 to 100000, is 0
    `batch.max_bytes`: must be from 1KiB to 48MiB, is 49MiB
    `buffer.max_bytes`: must hold at least one batch (`batch.max_bytes` = 49MiB), is 1MiB
    `buffer.max_events`: must be at least 1
    `lanes.count`: must be from 1 to 64, is 65
    `lease.ttl`: must be at least 1s
    `redis.timeout`: must be longer than 0s
    `mongodb.timeout`: must be longer than 0s
    `shutdown.deadline`: must be longer than 0s
    `log.level`: must be off, error, warn, info, debug or trace, or a filter such as "info,tidegate=debug"
    `native.collections[0]`: must not be empty
    `native.collections[1]`: must not contain `$`
    `native.collections[2]`: must not contain NUL
    `native.collections[3]`: must not begin with `system.`: those collections are MongoDB's own
    `native.collections[4]`: is a collection in which tidegate keeps its own state
    "#);
}

#[test]
fn names_of_databases() {
    let check = |name: &str| {
        let mut config = Config::default();
        config.mongodb.database = name.into();
        config
            .violations(crate::decode::check_literal)
            .into_iter()
            .filter(|v| v.key == KeyPath::from("mongodb.database"))
            .count()
    };
    assert_eq!(check("collab-2"), 0);
    for name in ["", "a.b", "a\0b", "admin", &"x".repeat(64)] {
        assert_eq!(check(name), 1, "{name:?}");
    }
}

#[test]
fn levels() {
    for (level, good) in
        [("warn", true), ("info,tidegate=debug", true), ("Info", true), ("", false), ("a=b=c", false)]
    {
        let mut config = Config::default();
        config.log.level = level.into();
        let found = config
            .violations(crate::decode::check_literal)
            .iter()
            .any(|v| v.key == KeyPath::from("log.level"));
        assert_eq!(found, !good, "{level:?}");
    }
}

#[test]
fn warns_of_what_is_probably_not_meant() {
    let config: Config = toml::from_str(
        r#"
        queues = [{ key = "a", delivery = "at-most-once" }]
        native.collections = ["notes"]
        [[routes]]
        when = { type = "A" }
        collection = "x"
        id = "docId"
        delete = true
        [[routes]] # the same and more
        when = { type = "A", v = 2 }
        collection = "x"
        id = "docId"
        delete = true
        [[routes]] # another id
        when = { type = "A" }
        collection = "x"
        id = "id"
        delete = true
        [[routes]]
        collection = "x"
        id = "id"
        delete = true
        "#,
    )
    .unwrap();
    insta::assert_snapshot!(config.warnings().join("\n"), @r#"
    queue "a" is drained at-most-once: events in memory are lost in a crash
    `routes[1]` can never be reached: `routes[0]` matches all of its events
    native events can never be reached: `routes[3]` matches every event with an `id`
    "#);
    assert!(Config { routes: vec![Route::default()], ..Config::default() }.warnings().is_empty());
}

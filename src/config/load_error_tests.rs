//! Tests how what is wrong with a configuration is told when it is loaded.

use super::load_tests::{ENOUGH, error};
use std::path::Path;

use super::*;

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
fn a_missing_secret_file_is_named() {
    insta::assert_snapshot!(error(ENOUGH, &[], &[("mongodb.uri_file", "/no/such/file")]), @"--set: `mongodb.uri_file`: cannot read /no/such/file: No such file or directory (os error 2)");
}

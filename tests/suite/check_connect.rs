//! Tests `tidegate check --connect`: both servers are looked at as a start would, and nothing is changed there.
//! It also tests that a start refuses collections in which an `_id` could get two documents.

use bson::doc;
use redis::aio::MultiplexedConnection;

use crate::stage::{PATIENCE, Setting, Stage};
use crate::support::{On, command_error};

type Outcome = anyhow::Result<()>;

/// What is told, and the exit code.
async fn checked(stage: &Stage, env: &[(&str, &str)]) -> anyhow::Result<(String, i32)> {
    let launch = stage.launch.clone().arg("check").arg("--connect");
    let launch = env.iter().fold(launch, |launch, (name, value)| launch.env(name, *value));
    let exited = launch.until_exit(PATIENCE).await?;
    Ok((exited.lines.join("\n"), exited.status.code().unwrap_or(-1)))
}

async fn set(connection: &mut MultiplexedConnection, words: &[&str]) -> Outcome {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    Ok(command.query_async(connection).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_found_is_told_line_by_line() -> Outcome {
    let stage = Setting::new().own_servers().stage().await?;
    stage.push(["1", "2"]).await?;
    let (told, code) = checked(&stage, &[]).await?;
    for line in [
        "ok      redis 127.0.0.1:",
        "the append-only file is on",
        &format!("ok      queue {}: all rights are granted; 2 elements", stage.queue),
        "ok      mongodb: version ",
        "ok      mongodb: write_concern \"majority\" can be reached",
        "ok      collection documents: is not there yet",
        "note    collection tidegate_dead: the index at is to be made",
        "ok      mongodb: this user may read and write all of them",
    ] {
        assert!(told.contains(line), "{line:?} is not in\n{told}");
    }
    assert_eq!(code, 0, "{told}");
    // Nothing was changed.
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut stage.producer().await?).await?;
    assert_eq!(keys, [stage.queue.as_str()]);
    assert!(stage.database.list_collection_names().await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_cost_a_promise_ends_with_1() -> Outcome {
    let stage = Setting::new().own_servers().forged().stage().await?;
    let mut redis = stage.producer().await?;
    let warns = async |line: &str, env: &[(&str, &str)]| -> Outcome {
        let (told, code) = checked(&stage, env).await?;
        assert!(
            told.lines().any(|told| told.starts_with("warning ") && told.contains(line)),
            "{line}: {told}"
        );
        assert_eq!(code, 1, "{told}");
        Ok(())
    };
    set(&mut redis, &["CONFIG", "SET", "maxmemory", "1gb"]).await?;
    set(&mut redis, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await?;
    warns("maxmemory-policy is allkeys-lru", &[]).await?;
    set(&mut redis, &["CONFIG", "SET", "maxmemory", "0"]).await?;
    set(&mut redis, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await?;

    set(&mut redis, &["CONFIG", "SET", "appendonly", "no"]).await?;
    warns("no append-only file", &[]).await?;
    set(&mut redis, &["CONFIG", "SET", "appendonly", "yes"]).await?;

    set(&mut redis, &["ACL", "SETUSER", "some", "on", ">secret", "~*", "&*", "+@all", "-ltrim"]).await?;
    let url = stage.redis.url().replace("redis://", "redis://some:secret@");
    warns("user some may not LTRIM", &[("TIDEGATE_REDIS__URL", &url)]).await?;
    warns(
        "tidegate would wait until that is put right",
        &[("TIDEGATE_MONGODB__URI", "mongodb://127.0.0.1:1/?directConnection=true")],
    )
    .await?;
    warns("tidegate would wait until that is put right", &[("TIDEGATE_REDIS__URL", "redis://127.0.0.1:1")])
        .await?;

    // As mongod answers: https://www.mongodb.com/docs/manual/reference/command/listCollections/
    for (listed, line) in [
        (doc! {"type": "view", "options": {"viewOn": "x"}}, "collection documents: is a view"),
        (
            doc! {"type": "timeseries", "options": {"timeseries": {"timeField": "t"}}},
            "collection documents: is a time series",
        ),
        (doc! {"type": "collection", "options": {"capped": true}}, "collection documents: is capped"),
        (
            doc! {"type": "collection", "options": {"collation": {"locale": "en", "strength": 2}}},
            "would be one document",
        ),
    ] {
        let mut listed = listed;
        listed.insert("name", "documents");
        let cursor = doc! {"id": 0_i64, "ns": "test.$cmd.listCollections", "firstBatch": [listed]};
        let rule =
            stage.forge().rule(On::command("listCollections").answer(doc! {"ok": 1.0, "cursor": cursor}));
        warns(line, &[]).await?;
        rule.remove();
    }

    // https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml: Unauthorized
    let no = command_error(13, "Unauthorized", "not authorized on test to execute command");
    let rule = stage.forge().rule(
        On::command("explain")
            .when(|command| command.get_document("explain").is_ok_and(|of| of.contains_key("update")))
            .answer(no),
    );
    warns("this user may not insert and update there", &[]).await?;
    rule.remove();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_stop_the_start_ends_with_64() -> Outcome {
    let stage = Setting::new().own_servers().stage().await?;
    let url = stage.redis.url().replace("redis://", "redis://some:hunter2@");
    let (told, code) = checked(&stage, &[("TIDEGATE_REDIS__URL", &url)]).await?;
    assert!(
        told.contains("error   redis 127.0.0.1:") && told.contains("Password authentication failed"),
        "{told}"
    );
    assert!(!told.contains("hunter2"), "{told}");
    assert_eq!(code, 64, "{told}");
    set(&mut stage.producer().await?, &["SET", &stage.queue, "no list"]).await?;
    let (told, code) = checked(&stage, &[]).await?;
    assert!(told.contains(&format!("error   queue {}: ", stage.queue)), "{told}");
    assert_eq!(code, 64, "{told}");
    let (told, code) = checked(&stage, &[("TIDEGATE_LANES__COUNT", "0")]).await?;
    assert!(told.contains("lanes.count") && code == 64, "{told}");
    Ok(())
}

/// Has the server answer as a mongos whose collection `documents` has this shard key, with one that is dropped beside it.
/// <https://www.mongodb.com/docs/manual/reference/config-database/#config.collections>
fn as_mongos(stage: &Stage, key: bson::Document) {
    stage.forge().rule(On::commands(&["hello", "isMaster", "ismaster"]).rewrite(|_, reply| {
        reply.insert("msg", "isdbgrid");
        for replica_set in ["setName", "hosts", "me", "primary", "setVersion"] {
            reply.remove(replica_set);
        }
    }));
    let database = stage.database.name().to_owned();
    stage.forge().rule(On::command("find").database("config").collection("collections").answer_with(
        move |_| {
            let sharded = doc! {"_id": format!("{database}.documents"), "key": key.clone(), "unique": false};
            let cursor = doc! {"id": 0_i64, "ns": "config.collections", "firstBatch": [sharded]};
            Some(doc! {"ok": 1.0, "cursor": cursor})
        },
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_is_refused_that_is_sharded_by_what_a_route_does_not_name() -> Outcome {
    let routes = "[[routes]]\ncollection = \"documents\"\nid = \"id\"\nshard_key = { region = \"region\" }\nset = { v = \"v\" }\n";
    for (native, key, is_refused) in [
        (true, doc! {"region": 1}, true),
        (true, doc! {"_id": "hashed"}, false),
        (false, doc! {"region": 1, "_id": 1}, false),
        (false, doc! {"region": 1, "team": 1}, true),
    ] {
        let stage = Setting::new().with(if native { "" } else { routes }).forged().stage().await?;
        as_mongos(&stage, key.clone());
        let mut stage = stage;
        if !native {
            stage.launch = stage.launch.env("TIDEGATE_NATIVE__COLLECTIONS", "[]");
        }
        let (told, code) = checked(&stage, &[]).await?;
        assert_eq!(told.contains("the same _id could get a second document"), is_refused, "{key}: {told}");
        if !is_refused {
            assert!(told.contains("a mongos of a sharded cluster"), "{told}");
            stage.start().await?;
            continue;
        }
        assert_eq!(code, 64, "{told}");
        let exited = stage.launch.until_exit(PATIENCE).await?;
        let told = exited.lines.join("\n");
        assert!(
            !exited.status.success() && told.contains("the same _id could get a second document"),
            "{told}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_look_at_collections_starts_all_the_same() -> Outcome {
    // Unauthorized; CommandNotFound; and a code that nobody knows.
    for code in [13, 59, 40_573] {
        let stage = Setting::new().forged().stage().await?;
        let answer = command_error(code, "No", "no");
        let rule = stage.forge().rule(On::command("listCollections").answer(answer));
        let tidegate = stage.start().await?;
        rule.hit(1, PATIENCE).await?;
        stage.push([crate::stage::logged("d", 0)]).await?;
        stage.settled(&tidegate).await?;
    }
    Ok(())
}

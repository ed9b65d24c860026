//! Tests that what MongoDB refuses for something else than its content waits, and nothing else does.
//! No server here answers so: the answers are forged, after the server's `error_codes.yml` and what DocumentDB and
//! Cosmos DB were seen to say.

use std::collections::HashMap;
use std::time::Duration;

use bson::doc;
use redis::AsyncCommands;
use serde_json::{Value, json};

use crate::stage::{PATIENCE, Setting, Stage, assert_exact, logged, update};
use crate::support::{
    On, Rule, Statement, Tidegate, command_error, document, length, try_eventually, write_error,
};

type Outcome = anyhow::Result<()>;

/// Trouble of the server that mongod, mongos, Atlas and Cosmos DB tell of single statements.
const TROUBLE: [i32; 22] = [
    1, 8, 13, 70, 82, 96, 112, 175, 215, 249, 264, 319, 365, 371, 388, 402, 433, 450, 8000, 10107, 14031,
    16500,
];

/// Refuses the statements of documents, each so many times, with the code that its id ends with.
fn coded(times: usize) -> impl FnMut(&Statement<'_>) -> Option<bson::Document> + Send {
    let mut refused: HashMap<String, usize> = HashMap::new();
    move |statement| {
        let code = statement.id_text().strip_prefix("code-")?.parse().ok()?;
        let refused = refused.entry(statement.id_text().to_owned()).or_default();
        *refused += 1;
        (*refused <= times).then(|| write_error(code, "forged"))
    }
}

async fn applied(stage: &Stage, id: &str, events: usize) -> Outcome {
    try_eventually(PATIENCE, &format!("{id} to be written"), async || {
        let found = stage.document(id).await?;
        let count = found.as_ref().and_then(|found| found.get_array("log").ok()).map_or(0, Vec::len);
        anyhow::ensure!(count == events, "{count} of {events} events");
        assert_exact(found.as_ref(), events);
        Ok(())
    })
    .await
}

async fn held_back(tidegate: &mut Tidegate) -> anyhow::Result<Value> {
    let told = tidegate.readiness(503, PATIENCE).await?;
    Ok(serde_json::from_str::<Value>(&told)?["held_back"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_of_the_server_condemns_no_event_and_holds_up_no_other_document() -> Outcome {
    let stage = Setting::new().forged().with("dead_letter.patience = \"50s\"\n").stage().await?;
    let trouble = stage.forge().rule(On::writes().refuse(coded(usize::MAX)));
    let tidegate = stage.start().await?;
    let ids: Vec<String> = TROUBLE.iter().map(|code| format!("code-{code}")).collect();
    let events = |n: usize| ids.iter().map(move |id| logged(id, n));
    stage.push((0..3).flat_map(events).chain((0..3).map(|n| logged("healthy", n)))).await?;
    applied(&stage, "healthy", 3).await?;
    // What comes meanwhile waits behind what waits.
    trouble.hit(3, PATIENCE).await?;
    stage.push((3..5).flat_map(events).chain([logged("healthy", 3)])).await?;
    applied(&stage, "healthy", 4).await?;
    trouble.remove();
    for id in &ids {
        applied(&stage, id, 5).await?;
    }
    stage.settled(&tidegate).await?;
    assert_eq!(stage.dead_letters().await?, [] as [Value; 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_collection_is_parked_and_the_queue_goes_on() -> Outcome {
    parks(Setting::new()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_a_stream_are_parked_too() -> Outcome {
    parks(Setting::new().stream("")).await
}

/// Parks what MongoDB refuses, kills the owner, and heals.
async fn parks(setting: Setting) -> Outcome {
    let mut stage = setting.forged().stage().await?;
    stage.launch = stage.launch.env("TIDEGATE_NATIVE__COLLECTIONS", r#"["documents", "orders"]"#);
    let refusal = command_error(13, "Unauthorized", "not authorized on test to execute command");
    let rights = stage.forge().rule(On::writes().collection("orders").answer(refusal));
    let mut tidegate = stage.start().await?;
    let order = |id: &str, n: usize| logged(id, n).replace("\"documents\"", "\"orders\"");
    let both = |n: usize| [order("a", n), order("b", n), logged("d", n)];
    stage.push((0..4).flat_map(both)).await?;
    applied(&stage, "d", 4).await?;
    let held = held_back(&mut tidegate).await?;
    assert_eq!((&held[0]["collection"], &held[0]["documents"]), (&json!("orders"), &json!(2)), "{held}");
    assert!(held[0]["error"].as_str().is_some_and(|error| error.contains("code 13")), "{held}");
    tidegate.logged("MongoDB refuses to write documents of \"orders\"", PATIENCE).await?;
    let parked = format!("tidegate:{{{}}}:parked", stage.queue);
    let mut redis = stage.producer().await?;
    let is_trimmed = async |redis: &mut redis::aio::MultiplexedConnection, events: usize| {
        let mut redis = redis.clone();
        try_eventually(PATIENCE, "the queue to go on", async || {
            let (waiting, left): (usize, usize) = (
                redis.hlen(&parked).await?,
                match stage.is_stream {
                    true => redis::cmd("XPENDING")
                        .arg(&stage.queue)
                        .arg("tidegate")
                        .query_async::<redis::Value>(&mut redis)
                        .await
                        .map(|_| 0)?,
                    false => length(&mut redis, &stage.queue).await? as usize,
                },
            );
            anyhow::ensure!((waiting, left) == (events, 0), "{waiting} are parked, {left} are in the queue");
            Ok(())
        })
        .await
    };
    is_trimmed(&mut redis, 8).await?;

    // Whoever comes next tries them again, in order, before what came later.
    tidegate.kill9()?;
    let tidegate = stage.launch.spawn().await?;
    stage.push((4..6).flat_map(both)).await?;
    applied(&stage, "d", 6).await?;
    is_trimmed(&mut redis, 12).await?;
    rights.remove();
    for id in ["a", "b"] {
        try_eventually(PATIENCE, "orders to be written", async || {
            let found = document(&stage.database, "orders", id).await?;
            let count = found.as_ref().and_then(|found| found.get_array("log").ok()).map_or(0, Vec::len);
            anyhow::ensure!(count == 6, "{count} of 6 events");
            assert_exact(found.as_ref(), 6);
            Ok(())
        })
        .await?;
    }
    is_trimmed(&mut redis, 0).await?;
    stage.settled(&tidegate).await?;
    assert_eq!(stage.dead_letters().await?, [] as [Value; 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_that_nobody_knows_condemns_after_a_while() -> Outcome {
    let stage = Setting::new().forged().with("dead_letter.patience = \"1s\"\n").stage().await?;
    stage.forge().rule(On::writes().refuse(coded(usize::MAX)));
    let tidegate = stage.start().await?;
    stage.push([logged("code-96", 0), logged("healthy", 0), logged("code-96", 1)]).await?;
    applied(&stage, "healthy", 1).await?;
    stage.settled(&tidegate).await?;
    let letters = stage.dead_letters().await?;
    let told: Vec<_> = letters.iter().map(|letter| (&letter["class"], &letter["code"])).collect();
    assert_eq!(told, [(&json!("refused"), &json!(96)); 2]);
    assert!(stage.document("code-96").await?.is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_mongodb_takes_nothing_nobody_is_condemned() -> Outcome {
    let stage = Setting::new().forged().with("dead_letter.patience = \"300ms\"\n").stage().await?;
    let broken =
        stage.forge().rule(On::writes().collection("documents").refuse(|_| Some(write_error(1, "engine"))));
    let tidegate = stage.start().await?;
    stage.push(["a", "b", "c"].map(|id| logged(id, 0))).await?;
    // Each wait is a hundred milliseconds and more, so that patience is over with the last of these.
    broken.hit(12, PATIENCE).await?;
    broken.remove();
    for id in ["a", "b", "c"] {
        applied(&stage, id, 1).await?;
    }
    stage.settled(&tidegate).await?;
    assert_eq!(stage.dead_letters().await?, [] as [Value; 0]);
    Ok(())
}

/// DocumentDB and Cosmos DB do not say which index a duplicate key is of, and mongod races where upserts meet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_duplicate_key_without_its_index_is_looked_at_and_tried_again() -> Outcome {
    let stage = Setting::new().another_queue(&crate::support::unique("other")).forged().stage().await?;
    let texts = [
        "Duplicate key violation on the requested collection: Index '_id_'",
        "Failed _id or unique index constraint",
        "E11000 duplicate key error collection: test.documents index: user_id_1 dup key: { user_id: 1 }",
    ];
    let mut refused: HashMap<String, usize> = HashMap::new();
    stage.forge().rule(On::writes().refuse(move |statement| {
        let times = refused.entry(statement.id_text().to_owned()).or_default();
        *times += 1;
        (*times <= 2).then(|| write_error(11000, texts[*times % texts.len()]))
    }));
    // A real one of another index, told in the same words.
    stage
        .database
        .collection::<bson::Document>("documents")
        .create_index(
            mongodb::IndexModel::builder()
                .keys(doc! {"email": 1})
                .options(mongodb::options::IndexOptions::builder().unique(true).sparse(true).build())
                .build(),
        )
        .await?;
    stage.forge().rule(On::writes().rewrite(|_, reply| {
        let Ok(errors) = reply.get_array_mut("writeErrors") else { return };
        for error in errors.iter_mut().filter_map(bson::Bson::as_document_mut) {
            for key in ["keyPattern", "keyValue"] {
                error.remove(key);
            }
        }
    }));
    let tidegate = stage.start().await?;
    let ids: Vec<String> = (0..50).map(|n| format!("d{n}")).collect();
    stage.push(ids.iter().map(|id| logged(id, 0))).await?;
    let mail = |id: &str| update(id, json!({"$set": {"email": "a@b"}}));
    stage.push([mail("first")]).await?;
    stage.settled(&tidegate).await?;
    stage.push([mail("second")]).await?;
    stage.settled(&tidegate).await?;
    for id in &ids {
        applied(&stage, id, 1).await?;
    }
    let letters = stage.dead_letters().await?;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(
        (&letters[0]["class"], &letters[0]["event"]["id"]),
        (&json!("unique-index"), &json!("second"))
    );
    Ok(())
}

/// DocumentDB refuses a whole command for one `_id` of 3,600 characters, with code 1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_refused_for_one_statement_is_split_until_it_is_alone() -> Outcome {
    let stage = Setting::new().forged().with("dead_letter.patience = \"2s\"\n").stage().await?;
    let long = "x".repeat(3600);
    let is_long = |command: &bson::Document| command.to_string().contains(&"x".repeat(3600));
    let text = "index row size 3616 exceeds btree version 4 maximum 2704 for index \"_id_\"";
    stage.forge().rule(On::writes().when(is_long).answer(command_error(1, "InternalError", text)));
    let neighbours: Vec<String> = (0..64).map(|n| format!("n{n}")).collect();
    stage.push(neighbours.iter().map(|id| logged(id, 0)).chain([logged(&long, 0)])).await?;
    let mut tidegate = stage.start().await?;
    for id in &neighbours {
        applied(&stage, id, 1).await?;
    }
    tidegate.logged("index row size 3616 exceeds", PATIENCE).await?;
    stage.settled(&tidegate).await?;
    let letters = stage.dead_letters().await?;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!((&letters[0]["code"], &letters[0]["event"]["id"]), (&json!(1), &json!(long)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_durable_while_the_write_concern_is_not_met() -> Outcome {
    let stage = Setting::new().forged().stage().await?;
    // UnsatisfiableWriteConcern, as a set with too few members says for ever.
    let unmet = stage.forge().rule(On::writes().collection("documents").rewrite(|_, reply| {
        reply.insert("writeConcernError", doc! {"code": 100, "errmsg": "Not enough data-bearing nodes"});
    }));
    let tidegate = stage.start().await?;
    let offset = {
        stage.push([logged("a", 0)]).await?;
        unmet.hit(4, PATIENCE).await?;
        let mut redis = stage.producer().await?;
        let base: i64 = redis.get(format!("tidegate:{{{}}}:base", stage.queue)).await?;
        assert_eq!(length(&mut redis, &stage.queue).await?, 1, "it is committed");
        base
    };
    let (_, told) = tidegate.get_json(&format!("/durable/{}/{offset}", stage.queue)).await?;
    assert_eq!(told["durable"], json!(false), "{told}");
    unmet.remove();
    applied(&stage, "a", 1).await?;
    stage.settled(&tidegate).await?;
    Ok(())
}

const KEPT: &str = r#"
[[routes]]
when = { type = "kept" }
collection = "documents"
id = "id"
inc = { count = 1 }
push = { log = "n" }
set = { last = "n" }
history = "edits"
"#;

fn kept(n: usize) -> String {
    json!({"type": "kept", "id": "a", "n": n}).to_string()
}

/// A history that may not be written to holds back the commit of its own documents' events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_without_rights_is_waited_for() -> Outcome {
    let stage = Setting::new().forged().with(KEPT).stage().await?;
    let rights = stage
        .forge()
        .rule(On::command("insert").collection("edits").refuse(|_| Some(write_error(13, "no rights"))));
    let mut tidegate = stage.start().await?;
    stage.push((0..3).map(kept)).await?;
    applied(&stage, "a", 3).await?;
    let held = held_back(&mut tidegate).await?;
    assert_eq!(held[0]["collection"], json!("edits"), "{held}");
    stage.push([logged("other", 0), kept(3)]).await?;
    applied(&stage, "other", 1).await?;
    applied(&stage, "a", 4).await?;
    rights.remove();
    stage.forge().rule(On::command("insert").collection("edits").times(1).close_after());
    // DocumentDB says no more than that of a record that is there already: the reply to the one before was lost.
    stage.forge().rule(On::command("insert").collection("edits").rewrite(|_, reply| {
        let text = "Duplicate key violation on the requested collection: Index '_id_'";
        if let Ok(errors) = reply.get_array_mut("writeErrors") {
            errors
                .iter_mut()
                .for_each(|error| *error = doc! {"index": 0, "code": 11000, "errmsg": text}.into());
        }
    }));
    stage.settled(&tidegate).await?;
    assert!(!tidegate.log().iter().any(|line| line.contains("does not take an event")));
    let edits = stage.database.collection::<bson::Document>("edits");
    assert_eq!(edits.count_documents(doc! {}).await?, 4);
    assert_eq!(stage.dead_letters().await?, [] as [Value; 0]);
    Ok(())
}

/// Refuses the writes of document `a` from its n-th event on.
fn refuse_a(code: i32, from: i64) -> Rule {
    On::writes().collection("documents").refuse(move |statement: &Statement<'_>| {
        let update = statement.document.get_document("u").and_then(|u| u.get_document("$set"));
        let n = update.unwrap_or(statement.document).get("last").map(crate::stage::number);
        (statement.id_text() == "a" && n >= Some(from)).then(|| write_error(code, "forged"))
    })
}

/// Between the moment at which a parked event is found to be dead and that at which it is forgotten, its queue is committed and
/// numbered anew, and its owner is killed: its letter comes once, and who asks by its number is told that it is dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_event_that_dies_while_its_queue_goes_on_is_dead_once() -> Outcome {
    for _ in 0..6 {
        if dies_while_numbered_anew().await? {
            return Ok(());
        }
    }
    panic!("of 64 lanes, two documents went to the same six times");
}

/// Answers false where chance had both documents in the same lane, so that nothing was shown.
async fn dies_while_numbered_anew() -> anyhow::Result<bool> {
    let lanes = format!("lanes.count = 64\n{KEPT}");
    let stage = Setting::new().forged().with(&lanes).stage().await?;
    let key = |name: &str| format!("tidegate:{{{}}}:{name}", stage.queue);
    let redis = stage.producer().await?;
    let rights = stage.forge().rule(refuse_a(13, 0));
    let tidegate = stage.start().await?;
    stage.push([kept(0), kept(1)]).await?;
    try_eventually(PATIENCE, "the events to be parked", async || {
        let mut redis = redis.clone();
        let (parked, left): (usize, usize) =
            (redis.hlen(key("parked")).await?, redis.llen(&stage.queue).await?);
        anyhow::ensure!((parked, left) == (2, 0), "{parked} are parked, {left} are left");
        Ok(())
    })
    .await?;
    let mut offsets: Vec<i64> = redis.clone().hkeys(key("parked")).await?;
    offsets.sort_unstable();

    // Recovery waits for the other document, and what is parked for the history of its first event.
    let is_other = |command: &bson::Document| command.to_string().contains("\"_id\": \"b\"");
    let recovery = stage.forge().rule(On::writes().when(is_other).hold_request());
    stage.push([logged("b", 0)]).await?;
    recovery.hit(1, PATIENCE).await?;
    tidegate.kill9()?;
    rights.remove();
    stage.forge().rule(refuse_a(121, 1));
    let history = stage.forge().rule(On::command("insert").collection("edits").hold_request());
    let tidegate = stage.launch.spawn().await?;
    recovery.hit(2, PATIENCE).await?;
    if history.hit(1, Duration::from_secs(3)).await.is_err() {
        return Ok(false);
    }
    let dead: usize = redis.clone().hlen(key("dead")).await?;
    assert_eq!(dead, 1, "it is dead, and not yet forgotten");
    let base: String = redis.clone().get(key("base")).await?;
    recovery.remove();
    try_eventually(PATIENCE, "the queue to be numbered anew", async || {
        let mut redis = redis.clone();
        let (now, left): (String, usize) = (redis.get(key("base")).await?, redis.llen(&stage.queue).await?);
        let is_later = now.parse::<i64>()? >> 36 > base.parse::<i64>()? >> 36;
        anyhow::ensure!(left == 0 && is_later, "the base is {now}, {left} are left");
        Ok(())
    })
    .await?;
    // Whoever comes next finds it dead, and does not try it again.
    tidegate.kill9()?;
    history.remove();
    let tidegate = stage.launch.spawn().await?;
    try_eventually(PATIENCE, "the event to be forgotten", async || {
        let mut redis = redis.clone();
        let (parked, dead): (usize, usize) =
            (redis.hlen(key("parked")).await?, redis.hlen(key("dead")).await?);
        anyhow::ensure!((parked, dead) == (0, 0), "{parked} are parked, {dead} are dead");
        Ok(())
    })
    .await?;
    for (offset, state) in offsets.into_iter().zip(["durable", "dead"]) {
        let (_, told) = tidegate.get_json(&format!("/durable/{}/{offset}", stage.queue)).await?;
        assert_eq!(told["state"], json!(state), "{told}");
    }
    assert_eq!(stage.dead_letters().await?.len(), 1);
    applied(&stage, "a", 1).await?;
    Ok(true)
}

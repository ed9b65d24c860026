//! Tests that the forge does what it says: in front of the real server, for a driver and for the daemon.

use std::time::Duration;

use bson::{Bson, Document, doc};
use mongodb::Database;
use mongodb::options::ClientOptions;
use serde_json::json;

use crate::stage::{PATIENCE, Setting, assert_exact, logged};
use crate::support::{Forge, Mongo, On, command_error, count, write_error};

type Outcome = anyhow::Result<()>;

/// For what must not come. On a busy machine this could only let a test pass that should fail.
const NEVER: Duration = Duration::from_millis(200);

/// A server, the forge before it, and the same database through both.
struct Scene {
    forge: Forge,
    forged: Database,
    real: Database,
    _mongo: Mongo,
}

impl Scene {
    async fn new() -> anyhow::Result<Self> {
        let mut mongo = Mongo::shared().await?;
        let forge = Forge::start(&mongo).await?;
        let name = mongo.database_name("forge");
        let options = ClientOptions::parse(forge.uri()).await?;
        let forged = mongodb::Client::with_options(options)?.database(&name);
        let real = mongo.database(&name).await?;
        Ok(Scene { forge, forged, real, _mongo: mongo })
    }

    /// The ids that the server has.
    async fn ids(&self) -> anyhow::Result<Vec<String>> {
        Ok(crate::support::documents(&self.real, "d").await?.into_keys().collect())
    }
}

fn upsert(id: &str) -> Document {
    doc! {"q": {"_id": id}, "u": {"$inc": {"n": 1}}, "upsert": true}
}

fn update(ids: &[&str]) -> Document {
    let updates: Vec<_> = ids.iter().map(|id| upsert(id)).collect();
    doc! {"update": "d", "updates": updates, "ordered": false}
}

/// Places and codes of the `writeErrors`.
fn errors(reply: &Document) -> Vec<(i32, i32)> {
    let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    let pair = |error: &Document| (error.get_i32("index").unwrap(), error.get_i32("code").unwrap());
    errors.iter().filter_map(Bson::as_document).map(pair).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_rule_everything_passes() -> Outcome {
    let scene = Scene::new().await?;
    let large = "x".repeat(1 << 20);
    // A driver's own insert has its documents in a sequence beside the command.
    let documents = (0..20).map(|n| doc! {"_id": n.to_string(), "text": &large});
    scene.forged.collection("d").insert_many(documents).await?;
    assert_eq!(count(&scene.forged, "d").await?, 20);
    assert_eq!(scene.ids().await?.len(), 20);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_statements_are_not_applied_and_the_others_are() -> Outcome {
    let scene = Scene::new().await?;
    // What the server itself refuses keeps its place.
    scene.real.run_command(update(&["bad"])).await?;
    scene
        .real
        .run_command(doc! {"update": "d", "updates": [{"q": {"_id": "bad"}, "u": {"$set": {"n": "x"}}}]})
        .await?;
    let rule = scene.forge.rule(On::writes().collection("d").times(2).refuse(|statement| {
        statement.id_text().starts_with("no").then(|| write_error(371, "user writes blocked"))
    }));
    let reply = scene.forged.run_command(update(&["no1", "a", "no2", "bad", "b"])).await?;
    assert_eq!(errors(&reply), [(0, 371), (2, 371), (3, 14)], "{reply}");
    let made = reply.get_array("upserted")?.iter().filter_map(Bson::as_document);
    let made: Vec<_> =
        made.map(|entry| (entry.get_i32("index").unwrap(), entry.get_str("_id").unwrap())).collect();
    assert_eq!(made, [(1, "a"), (4, "b")], "{reply}");
    assert_eq!(reply.get_i32("n")?, 2, "{reply}");
    assert_eq!(scene.ids().await?, ["a", "b", "bad"]);

    // All of them; the next time the rule is used up.
    let reply = scene.forged.run_command(update(&["no1"])).await?;
    assert_eq!((errors(&reply), reply.get_i32("n")?), (vec![(0, 371)], 0), "{reply}");
    assert_eq!(rule.hits(), 2);
    let reply = scene.forged.run_command(update(&["no1"])).await?;
    assert_eq!(errors(&reply), [], "{reply}");
    assert_eq!(rule.hits(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_behind_a_refused_statement_of_an_ordered_command_is_not_tried() -> Outcome {
    let scene = Scene::new().await?;
    scene.forge.rule(
        On::command("insert")
            .refuse(|statement| (statement.id_text() > "a").then(|| write_error(13, "not authorized"))),
    );
    let reply = scene
        .forged
        .run_command(doc! {"insert": "d", "documents": [{"_id": "a"}, {"_id": "b"}, {"_id": "a2"}]});
    let reply = reply.await?;
    assert_eq!((errors(&reply), reply.get_i32("n")?), (vec![(1, 13)], 1), "{reply}");
    // A driver's sequence is as good as an array in the command.
    let inserted = scene.forged.collection("d").insert_many([doc! {"_id": "c"}, doc! {"_id": "d"}]).await;
    assert!(inserted.is_err_and(|error| error.to_string().contains("not authorized")));
    assert_eq!(scene.ids().await?, ["a"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_answered_rewritten_and_overtaken() -> Outcome {
    let scene = Scene::new().await?;
    let asleep = command_error(8000, "AtlasError", "over your space quota");
    scene.forge.rule(On::command("update").when(|c| c.contains_key("comment")).answer(asleep));
    let mut command = update(&["a"]);
    command.insert("comment", "x");
    let error = scene.forged.run_command(command).await.unwrap_err();
    assert!(error.to_string().contains("space quota"), "{error}");
    assert_eq!(scene.ids().await?.len(), 0);

    let unmet = scene.forge.rule(On::command("update").rewrite(|_, reply| {
        reply.insert("writeConcernError", doc! {"code": 100, "errmsg": "not enough nodes"});
    }));
    let reply = scene.forged.run_command(update(&["a"])).await?;
    assert_eq!(reply.get_document("writeConcernError")?.get_i32("code")?, 100);
    unmet.remove();

    let first = scene.real.clone();
    scene.forge.rule(On::command("insert").times(1).race(move |_| {
        let first = first.clone();
        async move { drop(first.collection("d").insert_one(doc! {"_id": "b", "first": true}).await) }
    }));
    let reply = scene.forged.run_command(doc! {"insert": "d", "documents": [{"_id": "b"}]}).await?;
    assert_eq!(errors(&reply), [(0, 11000)]);
    assert_eq!(scene.ids().await?, ["a", "b"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_and_requests_are_held_dropped_and_cut() -> Outcome {
    let scene = Scene::new().await?;
    let send = |id: &'static str| {
        let forged = scene.forged.clone();
        tokio::spawn(async move { forged.run_command(update(&[id])).await })
    };
    let held = scene.forge.rule(On::command("update").times(1).hold_reply());
    let mut reply = send("a");
    held.hit(1, PATIENCE).await?;
    assert!(tokio::time::timeout(NEVER, &mut reply).await.is_err(), "it was not held");
    assert_eq!(scene.ids().await?, ["a"], "the server has not done it");
    held.remove();
    reply.await??;

    // It arrives although nobody waits for it any more.
    let held = scene.forge.rule(On::command("update").times(1).hold_request());
    let request = send("b");
    held.hit(1, PATIENCE).await?;
    request.abort();
    assert_eq!(scene.ids().await?, ["a"]);
    held.remove();
    crate::support::try_eventually(PATIENCE, "the late one", async || match scene.ids().await {
        Ok(ids) if ids == ["a", "b"] => Ok(()),
        ids => Err(format!("{ids:?}")),
    })
    .await?;

    let dropped = scene.forge.rule(On::command("update").times(1).drop_reply());
    let mut reply = send("c");
    dropped.hit(1, PATIENCE).await?;
    assert!(tokio::time::timeout(NEVER, &mut reply).await.is_err(), "it was answered");
    reply.abort();

    scene.forge.rule(On::command("update").times(1).close());
    assert!(send("d").await?.is_err());
    scene.forge.rule(On::command("update").times(1).close_after());
    assert!(send("e").await?.is_err());
    scene.forge.rule(On::command("update").times(1).delay(NEVER));
    let began = std::time::Instant::now();
    send("f").await??;
    assert!(began.elapsed() >= NEVER);
    assert_eq!(scene.ids().await?, ["a", "b", "c", "e", "f"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_goes_through_it() -> Outcome {
    let stage = Setting::new().forged().stage().await?;
    let not_primary = command_error(10107, "NotWritablePrimary", "not primary");
    let rule = stage.forge().rule(On::writes().collection("documents").times(2).answer(not_primary));
    let tidegate = stage.start().await?;
    stage.push((0..10).map(|n| logged("d", n))).await?;
    stage.settled(&tidegate).await?;
    assert_eq!(rule.hits(), 2);
    assert_exact(stage.document("d").await?.as_ref(), 10);
    assert_eq!(json!(stage.dead_letters().await?), json!([]));
    Ok(())
}

//! Tests the indexes by which MongoDB removes what is old.
//! Whatever is in the way of one, events are written, and it is told.

use bson::{Bson, Document, doc};
use mongodb::Database;

use crate::stage::{PATIENCE, Setting};
use crate::support::{On, Tidegate, command_error, count, try_eventually};

type Outcome = anyhow::Result<()>;

/// Refusals that `createIndexes` meets: <https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml>, and
/// 8000 of Atlas, 59 of servers that lack the command.
const CODES: [(i32, &str); 10] = [
    (166, "CommandNotSupportedOnView"),
    (67, "CannotCreateIndex"),
    (86, "IndexKeySpecsConflict"),
    (8000, "AtlasError"),
    (13, "Unauthorized"),
    (2, "BadValue"),
    (59, "CommandNotFound"),
    (117, "ConflictingOperationInProgress"),
    (371, "UserWritesBlocked"),
    (10107, "NotWritablePrimary"),
];

/// A route that writes to a collection and one that deletes there.
fn routes(collection: &str, more: &str) -> String {
    format!(
        "[[routes]]\nwhen = {{ c = \"{collection}\", t = \"count\" }}\ncollection = \"{collection}\"\nid = \"id\"\n\
         inc = {{ n = 1 }}\n{more}\n\
         [[routes]]\nwhen = {{ c = \"{collection}\", t = \"delete\" }}\ncollection = \"{collection}\"\nid = \"id\"\n\
         delete = true\ndeletes = \"tombstone\"\n"
    )
}

fn event(collection: &str, what: &str, id: i32) -> String {
    format!(r#"{{"c":"{collection}","t":"{what}","id":{id}}}"#)
}

/// The index of that name.
async fn index(database: &Database, collection: &str, name: &str) -> anyhow::Result<Option<Document>> {
    let reply = database.run_command(doc! {"listIndexes": collection}).await?;
    let indexes = reply.get_document("cursor")?.get_array("firstBatch")?;
    let mut indexes = indexes.iter().filter_map(Bson::as_document);
    Ok(indexes.find(|index| index.get_str("name").is_ok_and(|found| found == name)).cloned())
}

/// Lines of the log about a task.
fn lines(tidegate: &Tidegate, task: &str) -> Vec<String> {
    tidegate.log().into_iter().filter(|line| line.contains(task)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_refuses_an_index_is_told_once_and_keeps_no_event_from_being_written() -> Outcome {
    let name = |code: i32| format!("c{code}");
    let all: String = CODES.iter().map(|(code, _)| routes(&name(*code), "")).collect();
    let stage = Setting::new().with(&all).forged().stage().await?;
    let rules: Vec<_> = CODES
        .iter()
        .map(|(code, what)| {
            let refused = command_error(*code, what, &format!("forged {code}"));
            stage.forge().rule(On::command("createIndexes").collection(&name(*code)).answer(refused))
        })
        .collect();
    let mut tidegate = stage.launch.spawn().await?;
    for (code, _) in CODES {
        stage.push([event(&name(code), "count", 1), event(&name(code), "delete", 2)]).await?;
    }
    stage.settled(&tidegate).await?;
    for (rule, (code, _)) in rules.iter().zip(CODES) {
        assert_eq!(count(&stage.database, &name(code)).await?, 2, "{code}");
        rule.hit(3, PATIENCE).await?;
    }
    let body = tidegate.readiness(503, PATIENCE).await?;
    let (_, status) = tidegate.get_json("/status").await?;
    let summary = &status["summary"];
    assert_eq!((&summary["kind"], &summary["level"]), (&"trouble".into(), &"warning".into()), "{summary}");
    for (code, _) in CODES {
        let cause = format!("forged {code}");
        let task = format!("making the index tidegate_tombstones of \"c{code}\"");
        assert!(body.contains(&cause), "{body}");
        let told = lines(&tidegate, &task);
        assert!(told.len() == 1 && told[0].contains(&cause), "{told:#?}");
    }

    rules.iter().for_each(|rule| rule.remove());
    tidegate.readiness(200, PATIENCE).await?;
    for (code, _) in CODES {
        let found = index(&stage.database, &name(code), "tidegate_tombstones").await?;
        assert!(found.is_some_and(|index| index.get("expireAfterSeconds").is_some()), "{code}");
        assert_eq!(lines(&tidegate, &format!("tombstones of \"c{code}\"")).len(), 2, "{code}");
    }
    assert_eq!(stage.dead_letters().await?.len(), 0);
    Ok(())
}

/// The same with the real server's own refusals, which a person ends while it waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_or_another_index_of_the_name_is_in_the_way_until_it_is_dropped() -> Outcome {
    let history = "history = \"seen\"\nhistory_ttl = \"30d\"";
    let stage = Setting::new().with(&routes("boards", history)).stage().await?;
    let database = &stage.database;
    let other = doc! {"key": {"x": 1}, "name": "tidegate_tombstones"};
    database.run_command(doc! {"createIndexes": "boards", "indexes": [other]}).await?;
    database.run_command(doc! {"create": "documents", "viewOn": "boards", "pipeline": []}).await?;
    let mut tidegate = stage.launch.spawn().await?;
    tidegate.logged("making the index tidegate_tombstones of \"boards\" failed", PATIENCE).await?;
    tidegate.readiness(503, PATIENCE).await?;
    stage.push([event("boards", "count", 1), event("boards", "delete", 2)]).await?;
    stage.settled(&tidegate).await?;
    assert_eq!(count(database, "boards").await?, 2);
    assert!(index(database, "seen", "tidegate_history").await?.is_some());

    database.run_command(doc! {"dropIndexes": "boards", "index": "tidegate_tombstones"}).await?;
    tidegate.readiness(200, PATIENCE).await?;
    let found = index(database, "boards", "tidegate_tombstones").await?.expect("the index");
    assert_eq!(found.get_document("key")?, &doc! {"_tidegateDeleted": 1});
    Ok(())
}

/// DocumentDB refuses `collMod` by `keyPattern` (measured on 0.108); somebody's own index of the key has another name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_is_there_gets_the_time_that_is_configured() -> Outcome {
    let stage =
        Setting::new().with(&routes("boards", "")).with(&routes("cards", "")).forged().stage().await?;
    let database = &stage.database;
    let key = doc! {"_tidegateDeleted": 1};
    for (collection, name) in [("boards", "tidegate_tombstones"), ("cards", "mine")] {
        let index = doc! {"key": key.clone(), "name": name, "expireAfterSeconds": 5};
        database.run_command(doc! {"createIndexes": collection, "indexes": [index]}).await?;
    }
    let by_key =
        |command: &Document| command.get_document("index").is_ok_and(|i| i.contains_key("keyPattern"));
    let refused = command_error(72, "InvalidOptions", "keyPattern is not supported");
    stage.forge().rule(On::command("collMod").collection("boards").when(by_key).answer(refused));
    // What mongod says of an index that is there under another name; secantusd-rs says nothing.
    let there = command_error(85, "IndexOptionsConflict", "Index already exists with a different name: mine");
    stage.forge().rule(On::command("createIndexes").collection("cards").answer(there));
    let tidegate = stage.start().await?;
    for (collection, name) in [("boards", "tidegate_tombstones"), ("cards", "mine")] {
        try_eventually(PATIENCE, "the time to live", async || {
            let index = index(database, collection, name).await?.expect("the index");
            let seconds = index.get("expireAfterSeconds").map(crate::stage::number);
            anyhow::ensure!(seconds == Some(24 * 3600), "{index}");
            anyhow::Ok(())
        })
        .await?;
    }
    tidegate.terminate().await?;
    Ok(())
}

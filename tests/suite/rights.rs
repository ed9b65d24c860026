//! Tests that the rights in docs/security.md suffice, and that MongoDB is asked nothing else than it says.

use std::collections::BTreeSet;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;

use crate::stage::{PATIENCE, Setting, Stage, assert_exact, logged};
use crate::support::{
    Cluster, ClusterClient, Launch, Mongo, Tidegate, dead_letters, document, eventually, unique,
};

type Outcome = anyhow::Result<()>;

/// What docs/security.md says.
fn page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md")).expect("the page")
}

/// The rules of the line behind this heading of the page, for this queue.
fn line(heading: &str, queue: &str) -> Vec<String> {
    let page = page();
    let (_, rest) = page.split_once(heading).expect("such a line");
    let (_, rest) = rest.split_once("ACL SETUSER tidegate ").expect("its rules");
    let rules = rest.split("\n\n").next().expect("its end").split_whitespace();
    rules.map(|rule| rule.replace("collabQueue", queue)).collect()
}

/// The rules of a row of the table.
fn row(name: &str, queue: &str) -> Vec<String> {
    let page = page();
    let row = page.lines().find(|line| line.starts_with(&format!("| {name} | "))).expect("such a row");
    let rules = row.split('`').skip(1).step_by(2).filter(|rule| rule.starts_with(['+', '~', '&']));
    rules.map(|rule| rule.replace("\\|", "|").replace("collabQueue", queue)).collect()
}

/// Makes the user, with these rules and no others.
async fn user(redis: &mut MultiplexedConnection, rules: &[String]) -> Outcome {
    let rules: Vec<_> =
        rules.iter().map(|rule| if rule.starts_with('>') { ">sesame" } else { rule }).collect();
    let () = redis::cmd("ACL").arg(&["SETUSER", "tidegate", "reset"]).arg(&rules).query_async(redis).await?;
    Ok(())
}

/// What was refused so far. The client's name for itself is told in vain.
async fn refused(redis: &mut MultiplexedConnection, optional: &[&str]) -> anyhow::Result<Vec<String>> {
    let log: Vec<Vec<redis::Value>> = redis::cmd("ACL").arg("LOG").query_async(redis).await?;
    let mut refused = Vec::new();
    for entry in log {
        let entry: Vec<String> =
            entry.iter().map(|value| redis::from_redis_value_ref(value).unwrap_or_default()).collect();
        let object = entry.iter().skip_while(|field| *field != "object").nth(1).cloned().unwrap_or_default();
        if object != "client|setinfo" && !optional.contains(&&*object) {
            refused.push(entry.join(" "));
        }
    }
    Ok(refused)
}

/// What is refused where the user may not have Redis tell of changes. Then each queue waits by itself.
const WITHOUT_WATCH: [&str; 2] = ["client|tracking", "hello"];

/// Drains events, a bad one among them, is killed with some unsettled, and drains those.
async fn drains(stage: &Stage, launch: &Launch) -> anyhow::Result<Tidegate> {
    let mut redis = stage.producer().await?;
    let first = launch.start().await?;
    stage.push((0..40).map(|n| logged("doc", n))).await?;
    stage.push(["no event"]).await?;
    stage.settled(&first).await?;
    assert_eq!(dead_letters(&mut redis, &stage.queue).await?.len(), 1);
    first.kill9()?;
    stage.push((40..80).map(|n| logged("doc", n))).await?;
    let second = launch.start().await?;
    stage.settled(&second).await?;
    assert_exact(stage.document("doc").await?.as_ref(), 80);
    Ok(second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_feature_works_with_the_rights_of_the_page() -> Outcome {
    const HOT: &str = "[[routes]]\nwhen = { t = \"state\" }\ncollection = \"states\"\nid = \"id\"\nset = { v = \"v\" }\nhot_state = { ttl = \"1m\" }\n";
    const WATCH: &str = "one connection that waits for all queues, in place of one for each";
    for (heading, rows, setting) in [
        ("A list:", vec![], Setting::new()),
        ("A list:", vec![WATCH], Setting::new()),
        ("A stream (", vec![WATCH], Setting::new().stream("")),
        ("A list:", vec!["receipts"], Setting::new().with("receipts.enabled = true\n")),
        ("A list:", vec!["hot states"], Setting::new().with(HOT)),
        ("A list:", vec!["`/durable`"], Setting::new()),
        ("A stream (", vec![], Setting::new().stream("")),
        (
            "A stream (",
            vec!["receipts"],
            Setting::new().stream("trim = \"delete\"").with("receipts.enabled = true\n"),
        ),
        ("A list that is popped", vec![], Setting::new().delivery("at-most-once")),
    ] {
        let stage = setting.own_servers().stage().await?;
        let mut redis = stage.producer().await?;
        let mut rules = line(heading, &stage.queue);
        rows.iter().for_each(|name| rules.extend(row(name, &stage.queue)));
        user(&mut redis, &rules).await?;
        if heading.starts_with("A stream") {
            // An earlier Redis has no such command.
            let mut newest = redis::cmd("ACL");
            newest.arg(&["SETUSER", "tidegate", "+xackdel"]);
            if let Err(error) = newest.query_async::<()>(&mut redis).await {
                anyhow::ensure!(error.to_string().to_lowercase().contains("unknown command"), "{error}");
            }
        }
        let url = stage.redis.url().replace("redis://", "redis://tidegate:sesame@");
        let launch = stage.launch.clone().env("TIDEGATE_REDIS__URL", url);
        let tidegate = if heading.starts_with("A list that is popped") {
            let tidegate = launch.start().await?;
            stage.push((0..40).map(|n| logged("doc", n))).await?;
            stage.push(["no event"]).await?;
            stage.settled(&tidegate).await?;
            assert_exact(stage.document("doc").await?.as_ref(), 40);
            tidegate
        } else {
            drains(&stage, &launch).await?
        };
        if rows.contains(&"hot states") {
            // A gateway has made the state; the next write refreshes it.
            let state = "tidegate:state:states:s";
            let () = redis.hset(state, "_v", "x").await?;
            stage.push([r#"{"t":"state","id":"s","v":1}"#]).await?;
            stage.settled(&tidegate).await?;
        }
        if rows.contains(&"`/durable`") {
            let (status, _) = tidegate.get_json(&format!("/durable/{}/3", stage.queue)).await?;
            assert_eq!(status, 200);
        }
        let optional = if rows.contains(&WATCH) { [""; 2] } else { WITHOUT_WATCH };
        assert_eq!(refused(&mut redis, &optional).await?, [""; 0], "{heading} {rows:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_needs_the_rights_of_the_page() -> Outcome {
    let cluster = Cluster::start(3, 0).await?;
    let mut mongo = Mongo::shared().await?;
    let (queue, database) = (unique("rights"), mongo.database_name("test"));
    let mut rules = line("A list:", &queue);
    rules.extend(row("Redis Cluster", &queue));
    for node in &cluster.nodes {
        user(&mut node.connect().await?, &rules).await?;
    }
    let config = format!("native.collections = [\"documents\"]\n[[queues]]\nkey = \"{queue}\"\n");
    let launch = Launch::config(config)
        .env("TIDEGATE_REDIS__CLUSTER", cluster.seeds())
        .env("TIDEGATE_REDIS__URL", "redis://tidegate:sesame@127.0.0.1:1/")
        .mongodb(&mongo, &database);
    let _tidegate = launch.start().await?;
    let mut client = ClusterClient::new(&cluster)?;
    for event in (0..20).map(|n| logged("doc", n)).chain(["no event".to_owned()]) {
        let () = client.ask(&queue, redis::cmd("RPUSH").arg(&queue).arg(event)).await?;
    }
    let database = mongo.database(&database).await?;
    eventually(PATIENCE, "the queue to be drained", async || {
        let left: usize = client.ask(&queue, redis::cmd("LLEN").arg(&queue)).await?;
        anyhow::ensure!(left == 0, "{left}");
        anyhow::Ok(())
    })
    .await;
    assert_exact(document(&database, "documents", "doc").await?.as_ref(), 20);
    for node in &cluster.nodes {
        assert_eq!(refused(&mut node.connect().await?, &WITHOUT_WATCH).await?, [""; 0]);
    }
    Ok(())
}

/// Every command that MongoDB gets is one whose rights are in the page's table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mongodb_is_asked_nothing_that_the_page_does_not_have() -> Outcome {
    const ROUTES: &str = "[[routes]]\nwhen = { t = \"set\" }\ncollection = \"notes\"\nid = \"id\"\nset = { v = \"v\" }\nhistory = \"events\"\nhistory_ttl = \"1h\"\n\
        [[routes]]\nwhen = { t = \"delete\" }\ncollection = \"notes\"\nid = \"id\"\ndelete = true\ndeletes = \"tombstone\"\n\
        [[routes]]\nwhen = { t = \"drop\" }\ncollection = \"drafts\"\nid = \"id\"\ndelete = true\n";
    let stage = Setting::new().with(ROUTES).forged().stage().await?;
    let tidegate = stage.start().await?;
    stage.push((0..2_000).map(|n| logged(&format!("doc{}", n % 900), n))).await?;
    for n in 0..50 {
        stage
            .push([
                format!(r#"{{"t":"set","id":{n},"v":1}}"#),
                format!(r#"{{"t":"delete","id":{n}}}"#),
                format!(r#"{{"t":"drop","id":{n}}}"#),
                r#"{"collection":"documents","id":"doc1","update":{"$inc":{"last":"x"}}}"#.to_owned(),
            ])
            .await?;
    }
    stage.settled(&tidegate).await?;
    tidegate.kill9()?;
    stage.push((0..10).map(|n| logged("again", n))).await?;
    let tidegate = stage.start().await?;
    stage.settled(&tidegate).await?;
    tidegate.terminate().await?;
    let heard = stage.forge().heard();
    let table: BTreeSet<String> = page()
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| `")?.split_once("` | ").map(|(commands, _)| commands.to_owned())
        })
        .flat_map(|commands| commands.split("`, `").map(str::to_lowercase).collect::<Vec<_>>())
        .collect();
    // These need no right.
    const FREE: [&str; 6] = ["hello", "ismaster", "ping", "endsessions", "killcursors", "buildinfo"];
    let missing: Vec<_> =
        heard.iter().filter(|name| !table.contains(*name) && !FREE.contains(&&***name)).collect();
    assert!(missing.is_empty(), "{missing:?} of {heard:?} are not in {table:?}");
    for name in ["find", "update", "insert", "delete", "findandmodify", "createindexes", "listcollections"] {
        assert!(heard.contains(name), "{name} was not tried: {heard:?}");
    }
    Ok(())
}

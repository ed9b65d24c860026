//! Tests every error code there is, answered for events that are healthy.
//! The event waits until the code has passed, unless the code speaks of what is in it.

use std::collections::BTreeMap;

use bson::{Document, doc};
use parking_lot::Mutex;
use serde_json::json;

use crate::stage::{PATIENCE, Setting, Stage, assert_exact, logged};
use crate::support::{Code, On, Rule, Statement, command_error, documents, write_error};

type Outcome = anyhow::Result<()>;

/// Events of each document.
const EVENTS: usize = 4;

/// The document for which a code is answered.
fn document_of(code: Code) -> String {
    format!("code{}", code.number)
}

/// Which code a document is to be refused with, and for how long.
struct Trouble {
    codes: BTreeMap<String, Code>,
    /// Attempts so far.
    attempts: Mutex<BTreeMap<String, usize>>,
}

impl Trouble {
    fn new() -> Self {
        let codes = Code::all().map(|code| (document_of(code), code)).collect();
        Trouble { codes, attempts: Mutex::default() }
    }

    /// The code for an attempt at a document. One that speaks of the content stays; the others pass after one attempt or two.
    fn attempt(&self, id: &str) -> Option<Code> {
        let code = *self.codes.get(id)?;
        let mut attempts = self.attempts.lock();
        let attempts = attempts.entry(id.to_owned()).or_default();
        *attempts += 1;
        (code.is_of_content() || *attempts <= 1 + (code.number % 2) as usize).then_some(code)
    }
}

/// A statement's refusal. Without a key pattern a duplicate key could be a race.
fn refusal(code: Code) -> Document {
    let mut error = write_error(code.number, code.name);
    if matches!(code.number, 11000 | 11001) {
        error.extend(doc! {"keyPattern": {"email": 1}, "keyValue": {"email": "x"}});
    }
    error
}

fn statement_by_statement() -> Rule {
    let trouble = Trouble::new();
    On::writes()
        .collection("documents")
        .refuse(move |s: &Statement<'_>| trouble.attempt(s.id_text()).map(refusal))
}

/// Of each command that has a document in trouble: how a server answers that refuses all of it for one statement.
fn command_by_command() -> Rule {
    let trouble = Trouble::new();
    On::writes().collection("documents").answer_with(move |statements| {
        let code = statements.iter().find_map(|s| trouble.attempt(s.id_text()))?;
        Some(command_error(code.number, code.name, "forged"))
    })
}

/// Pushes events for every code, some of them once the first are in trouble.
async fn push_around(stage: &Stage, rule: Rule) -> Outcome {
    let rule = stage.forge().rule(rule);
    let ids: Vec<String> = Code::all().map(document_of).collect();
    let events = |numbers: std::ops::Range<usize>| {
        let each = numbers.flat_map(|n| ids.iter().map(move |id| logged(id, n)));
        stage.push(each)
    };
    events(0..EVENTS / 2).await?;
    rule.hit(1, PATIENCE).await?;
    events(EVENTS / 2..EVENTS).await
}

/// All events of a document are applied once and in order, or, if its code speaks of the content, are dead letters.
async fn assert_judged(stage: &Stage) -> Outcome {
    let found = documents(&stage.database, "documents").await?;
    let mut dead: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for letter in stage.dead_letters().await? {
        let of = dead.entry(letter["event"]["id"].as_str().unwrap_or_default().to_owned()).or_default();
        of.push(letter["code"].as_i64().unwrap_or(-1));
    }
    for code in Code::all() {
        let id = document_of(code);
        let letters = dead.remove(&id).unwrap_or_default();
        if code.is_of_content() {
            assert_eq!(letters, [i64::from(code.number); EVENTS], "{code:?}");
            assert!(!found.contains_key(&id), "{code:?}: {:?}", found.get(&id));
        } else {
            assert_eq!(json!(letters), json!([]), "{code:?} condemned a healthy event");
            assert_exact(found.get(&id), EVENTS);
        }
    }
    assert!(dead.is_empty(), "{dead:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_code_but_one_of_content_condemns_a_statement() -> Outcome {
    for delivery in ["exactly-once", "at-least-once"] {
        let stage = Setting::new().delivery(delivery).forged().stage().await?;
        let tidegate = stage.start().await?;
        push_around(&stage, statement_by_statement()).await?;
        stage.settled(&tidegate).await?;
        assert_judged(&stage).await?;
    }
    Ok(())
}

/// With many lanes and small batches, since every answer costs its lane a wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_code_but_one_of_content_condemns_a_command() -> Outcome {
    let small = "lanes.count = 32\nbatch.max_ops = 8\n";
    let stage = Setting::new().with(small).forged().stage().await?;
    let tidegate = stage.start().await?;
    push_around(&stage, command_by_command()).await?;
    stage.settled(&tidegate).await?;
    assert_judged(&stage).await
}

const HISTORY: &str = r#"
[[routes]]
collection = "documents"
id = "id"
push = { log = "n" }
set = { last = "n" }
inc = { count = 1 }
history = "documents_history"
"#;

/// A history's trouble is no event's: its document is written, and the record waits, but for one that can never be kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_code_but_one_of_content_keeps_an_event_out_of_its_history() -> Outcome {
    let stage = Setting::new().with(HISTORY).forged().stage().await?;
    let tidegate = stage.start().await?;
    let trouble = Trouble::new();
    stage.forge().rule(On::command("insert").collection("documents_history").refuse(
        move |s: &Statement<'_>| trouble.attempt(s.document.get_str("id").unwrap_or_default()).map(refusal),
    ));
    let ids: Vec<String> = Code::all().map(document_of).collect();
    let edit = |id: &String, n: usize| json!({"id": id, "n": n}).to_string();
    stage.push((0..EVENTS).flat_map(|n| ids.iter().map(move |id| edit(id, n)))).await?;
    stage.settled(&tidegate).await?;
    assert!(stage.dead_letters().await?.is_empty());
    let found = documents(&stage.database, "documents").await?;
    let mut kept: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let records = stage.database.collection::<Document>("documents_history");
    let mut cursor = records.find(doc! {}).sort(doc! {"_id": 1}).await?;
    while cursor.advance().await? {
        let record = cursor.deserialize_current()?;
        kept.entry(record.get_str("id")?.to_owned()).or_default().push(record.get_str("event")?.to_owned());
    }
    for code in Code::all() {
        let id = document_of(code);
        assert_exact(found.get(&id), EVENTS);
        let all: Vec<String> = (0..EVENTS).map(|n| edit(&id, n)).collect();
        let expected = if code.is_of_content() { Vec::new() } else { all };
        assert_eq!(kept.remove(&id).unwrap_or_default(), expected, "{code:?}");
    }
    Ok(())
}

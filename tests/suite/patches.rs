//! Tests merge patches (RFC 7396) and JSON Patches (RFC 6902): the RFC's outcome, or one dead letter.

use bson::{Bson, Document, doc};
use serde_json::{Value, json};

use crate::stage::{Setting, Stage, update};

type Outcome = anyhow::Result<()>;

/// A document of each `before`, what is pushed for it, and what it is then.
async fn hold(stage: &Stage, cases: &[(Option<Document>, Value, Document)]) -> Outcome {
    let documents = stage.database.collection::<Document>("documents");
    let mut events = Vec::new();
    for (n, (before, patch, _)) in cases.iter().enumerate() {
        let id = format!("d{n}");
        if let Some(before) = before {
            let mut before = before.clone();
            before.insert("_id", &id);
            documents.insert_one(before).await?;
        }
        let kind = if patch.is_array() { "patch" } else { "merge" };
        events.push(json!({"collection": "documents", "id": id, kind: patch}).to_string());
    }
    let tidegate = stage.start().await?;
    stage.push(&events).await?;
    stage.settled(&tidegate).await?;
    for (n, (before, patch, after)) in cases.iter().enumerate() {
        let mut found = stage.document(format!("d{n}")).await?.unwrap_or_default();
        found.remove("_id");
        found.remove("_tidegate");
        assert_eq!(&found, after, "{before:?} and {patch}");
    }
    assert!(tidegate.terminate().await?.status.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_patch_makes_what_the_rfc_says() -> Outcome {
    let stage = Setting::new().stage().await?;
    let cases = [
        (Some(doc! {"w": [1, 2]}), json!({"w": {"0": null}}), doc! {"w": {}}),
        (Some(doc! {"w": [1, 2]}), json!({"w": {"0": "x"}}), doc! {"w": {"0": "x"}}),
        (Some(doc! {"w": "text"}), json!({"w": {"c": null}}), doc! {"w": {}}),
        (Some(doc! {}), json!({"a": {"bb": {"ccc": null}}}), doc! {"a": {"bb": {}}}),
        (Some(doc! {"a": Bson::Null}), json!({"a": {"d": true}}), doc! {"a": {"d": true}}),
        (Some(doc! {}), json!({"a": {}}), doc! {"a": {}}),
        // The same where there is no document, and where the target has what stays.
        (None, json!({"a": {"bb": {"ccc": null}, "d": 1}, "e": null}), doc! {"a": {"bb": {}, "d": 1}}),
        (None, json!({"a": {}}), doc! {"a": {}}),
        (
            Some(doc! {"a": {"x": {"y": 1, "z": 2}, "k": [1]}, "b": 1}),
            json!({"a": {"x": {"y": null, "n": {"m": "$t"}}, "k": [2]}}),
            doc! {"a": {"x": {"z": 2, "n": {"m": "$t"}}, "k": [2]}, "b": 1},
        ),
        (Some(doc! {"a": {"x": [1]}}), json!({"a": {"x": {"0": {"1": null}}}}), doc! {"a": {"x": {"0": {}}}}),
        (Some(doc! {"a": {"b": 1}}), json!({"a": {}}), doc! {"a": {"b": 1}}),
        (Some(doc! {"a": {"b": 1}}), json!({"a": [{"b": 2}], "c": "x"}), doc! {"a": [{"b": 2}], "c": "x"}),
    ];
    hold(&stage, &cases).await?;
    assert_eq!(stage.dead_letters().await?, [Value::Null; 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_json_patch_makes_what_the_rfc_says_or_one_dead_letter() -> Outcome {
    let stage = Setting::new().stage().await?;
    let list = || Some(doc! {"l": [1, 2, 3]});
    let op = |op: &str, path: &str, value: Value| json!([{"op": op, "path": path, "value": value}]);
    let moved = |op: &str, from: &str, path: &str| json!([{"op": op, "from": from, "path": path}]);
    let fit = [
        (Some(doc! {"a": {}}), op("add", "/a/b", json!(1)), doc! {"a": {"b": 1}}),
        (None, op("add", "/a", json!({})), doc! {"a": {}}),
        (list(), op("add", "/l/1", json!("x")), doc! {"l": [1, "x", 2, 3]}),
        (list(), op("add", "/l/3", json!("x")), doc! {"l": [1, 2, 3, "x"]}),
        (list(), op("add", "/l/-", json!("x")), doc! {"l": [1, 2, 3, "x"]}),
        (list(), op("replace", "/l/0", json!("x")), doc! {"l": ["x", 2, 3]}),
        (list(), op("remove", "/l/1", Value::Null), doc! {"l": [1, 3]}),
        (Some(doc! {"l": [{"a": 1}]}), op("add", "/l/0/b", json!(2)), doc! {"l": [{"a": 1, "b": 2}]}),
        (
            Some(doc! {"o": {"0": 1, "01": 2}}),
            op("replace", "/o/01", json!(3)),
            doc! {"o": {"0": 1, "01": 3}},
        ),
        (Some(doc! {"a": 1}), moved("move", "/a", "/b"), doc! {"b": 1}),
        (Some(doc! {"l": [1, 2, 3]}), moved("move", "/l/0", "/l/2"), doc! {"l": [2, 3, 1]}),
        (Some(doc! {"a": [1]}), moved("copy", "/a", "/b"), doc! {"a": [1], "b": [1]}),
    ];
    // The issue's, and what else has a target that does not fit: nothing happens.
    let misfit = [
        (Some(doc! {"b": 1}), op("add", "/a/b", json!(1))),
        (list(), op("add", "/l/8", json!(1))),
        (list(), op("add", "/l/01", json!(1))),
        (list(), op("add", "/l/3/a", json!(1))),
        (Some(doc! {"b": 1}), op("add", "/users/17", json!(1))),
        (None, op("add", "/users/-", json!(1))),
        (Some(doc! {"b": 1}), op("replace", "/a", json!(1))),
        (Some(doc! {"b": 1}), op("remove", "/a", Value::Null)),
        (Some(doc! {"a": {}}), op("remove", "/a/b", Value::Null)),
        (Some(doc! {"a": "text"}), op("add", "/a/b", json!(1))),
        (list(), op("remove", "/l/3", Value::Null)),
        (list(), op("replace", "/l/-", json!(1))),
        (Some(doc! {"b": 1}), moved("move", "/a", "/c")),
        // All of a patch or nothing.
        (
            Some(doc! {"a": 1}),
            json!([{"op": "replace", "path": "/a", "value": 2}, {"op": "remove", "path": "/nothing"}]),
        ),
    ];
    let mut cases = fit.to_vec();
    cases.extend(
        misfit
            .iter()
            .map(|(before, patch)| (before.clone(), patch.clone(), before.clone().unwrap_or_default())),
    );
    hold(&stage, &cases).await?;

    let letters = stage.dead_letters().await?;
    assert_eq!(letters.len(), misfit.len(), "{letters:?}");
    for (letter, (_, patch)) in letters.iter().zip(&misfit) {
        assert_eq!(letter["event"]["patch"], *patch);
        let reason = letter["reason"].as_str().unwrap_or_default();
        assert!(
            reason.starts_with("the patch's ") && reason.contains("does not fit the document at"),
            "{reason}"
        );
        assert_eq!(letter["class"], "type-mismatch");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_takes_nothing_else_with_it() -> Outcome {
    let stage = Setting::new().stage().await?;
    let patch = |path: &str| {
        let patch = json!([{"op": "replace", "path": path, "value": 5}]);
        json!({"collection": "documents", "id": "d", "patch": patch}).to_string()
    };
    let merge = |merge: Value| json!({"collection": "documents", "id": "d", "merge": merge}).to_string();
    stage
        .push([
            update("d", json!({"$set": {"n": 1}})),
            patch("/n"),
            patch("/none"),
            merge(json!({"o": {"k": {"x": 1}}})),
            update("d", json!({"$inc": {"count": 1}})),
            merge(json!({"o": {"k": {"x": null, "y": [2]}}})),
            patch("/o/none"),
            patch("/o/k/y"),
        ])
        .await?;
    let tidegate = stage.launch.start().await?;
    stage.settled(&tidegate).await?;
    let mut found = stage.document("d").await?.expect("the document");
    found.remove("_tidegate");
    assert_eq!(found, doc! {"_id": "d", "n": 5, "o": {"k": {"y": 5}}, "count": 1});
    let letters = stage.dead_letters().await?;
    assert_eq!(letters.len(), 2, "{letters:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_go_along_with_a_merge() -> Outcome {
    let route = "[[routes]]\nwhen = { t = 'm' }\ncollection = 'documents'\nid = 'id'\nmerge = 'm'\n\
        set = { 'at.last' = 'n' }\ninc = { count = 1, 'stats.n' = 'n' }\npush = { log = { path = 'n', slice = -2 }, all = 'n' }\n\
        add_to_set = { seen = 'n' }\nmax = { most = 'n' }\nmul = { product = 'n' }\npull = { left = 'n' }\n\
        set_on_insert = { made = 'n' }\nunset = ['draft', 'at.draft']\n";
    let stage = Setting::new().with(route).stage().await?;
    let documents = stage.database.collection::<Document>("documents");
    documents
        .insert_one(doc! {"_id": "old", "m": [1], "draft": 1, "at": {"draft": 1, "x": 1}, "left": [1, 2, 5], "product": 3})
        .await?;
    documents.insert_one(doc! {"_id": "wrong", "stats": "text"}).await?;
    let event = |id: &str, n: i32| json!({"t": "m", "id": id, "n": n, "m": {"m": {"k": {}}}}).to_string();
    let tidegate = stage.start().await?;
    stage.push([event("new", 1), event("old", 1), event("wrong", 1)]).await?;
    stage.settled(&tidegate).await?;
    stage.push([event("new", 2), event("old", 2), event("new", 3)]).await?;
    stage.settled(&tidegate).await?;

    let mut new = stage.document("new").await?.expect("new");
    assert!(new.remove("_tidegate").is_some());
    let mut expected = doc! {
        "_id": "new", "m": {"k": {}}, "at": {"last": 3}, "count": 3, "stats": {"n": 6}, "log": [2, 3], "all": [1, 2, 3],
        "seen": [1, 2, 3], "most": 3, "product": 0, "made": 1,
    };
    let sorted = |document: &mut Document| {
        let mut fields: Vec<_> = std::mem::take(document).into_iter().collect();
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        *document = fields.into_iter().collect();
    };
    [&mut new, &mut expected].into_iter().for_each(sorted);
    assert_eq!(new, expected);
    let mut old = stage.document("old").await?.expect("old");
    old.remove("_tidegate");
    let mut expected = doc! {
        "_id": "old", "m": {"k": {}}, "at": {"x": 1, "last": 2}, "left": [5], "product": 6, "count": 2,
        "stats": {"n": 3}, "log": [1, 2], "all": [1, 2], "seen": [1, 2], "most": 2,
    };
    [&mut old, &mut expected].into_iter().for_each(sorted);
    assert_eq!(old, expected);
    assert_eq!(stage.document("wrong").await?, Some(doc! {"_id": "wrong", "stats": "text"}));
    assert_eq!(stage.dead_letters().await?.len(), 1);
    Ok(())
}

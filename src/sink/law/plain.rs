//! The changes applied one by one by the plain server, knowing nothing of tidegate.

use std::collections::BTreeSet;

use bson::{Bson, Document, doc};
use serde_json::Value as Json;

use super::{Case, Court, Outcome};

impl Court {
    pub(super) async fn plain(&self, cases: &[Case]) -> anyhow::Result<Vec<Outcome>> {
        self.start("plain", cases).await?;
        let mut refused: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); cases.len()];
        let rounds = cases.iter().map(|case| case.changes.len()).max().unwrap_or(0);
        for round in 0..rounds {
            let (mut updates, mut places, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
            for (at, case) in cases.iter().enumerate() {
                let Some(change) = case.changes.get(round) else { continue };
                let id = doc! {"_id": at as i32};
                match update(change) {
                    Some(u) => {
                        updates.push(doc! {"q": id, "u": u, "upsert": true});
                        places.push(at);
                    }
                    None => deletes.push(doc! {"q": id, "limit": 1}),
                }
            }
            if !deletes.is_empty() {
                let command = doc! {"delete": "plain", "deletes": deletes, "ordered": false};
                self.database.run_command(command).await?;
            }
            if updates.is_empty() {
                continue;
            }
            let command = doc! {"update": "plain", "updates": updates, "ordered": false};
            let reply = self.database.run_command(command).await?;
            let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
            for error in errors.iter().filter_map(Bson::as_document) {
                let place = places[usize::try_from(error.get_i32("index")?)?];
                refused[place].insert(round);
            }
        }
        self.finish("plain", refused).await
    }
}

/// The update that a change is; None for a deletion.
fn update(change: &Json) -> Option<Document> {
    if let Some(update) = change.get("update") {
        return Some(document(update));
    }
    if let Some(replace) = change.get("replace") {
        return Some(document(replace));
    }
    let patch = change.get("merge")?;
    let (mut set, mut unset) = (doc! {}, doc! {});
    merge(patch, "", &mut set, &mut unset);
    let mut update = doc! {};
    if !set.is_empty() {
        update.insert("$set", set);
    }
    if !unset.is_empty() {
        update.insert("$unset", unset);
    }
    Some(update)
}

fn merge(patch: &Json, above: &str, set: &mut Document, unset: &mut Document) {
    for (key, value) in patch.as_object().into_iter().flatten() {
        let path = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
        match value {
            Json::Null => drop(unset.insert(path, "")),
            Json::Object(_) => merge(value, &path, set, unset),
            other => drop(set.insert(path, plain(other))),
        }
    }
}

fn document(json: &Json) -> Document {
    json.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), plain(value))).collect()
}

/// JSON as drivers store it: nothing in it is special, integers take 32 bits where they fit.
fn plain(json: &Json) -> Bson {
    match json {
        Json::Null => Bson::Null,
        Json::Bool(b) => Bson::Boolean(*b),
        Json::String(text) => Bson::String(text.clone()),
        Json::Array(values) => Bson::Array(values.iter().map(plain).collect()),
        Json::Object(_) => Bson::Document(document(json)),
        Json::Number(n) => match n.as_i64() {
            Some(n) => i32::try_from(n).map_or(Bson::Int64(n), Bson::Int32),
            None => Bson::Double(n.as_f64().unwrap_or_default()),
        },
    }
}

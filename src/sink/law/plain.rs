//! Has the plain server apply changes one by one, knowing nothing of tidegate. Patches are done to what is read.

use std::collections::BTreeSet;

use bson::{Bson, Document, doc};
use serde_json::Value as Json;

use super::{Case, Court, Outcome, rfc};

impl Court {
    pub(super) async fn plain(&self, cases: &[Case]) -> anyhow::Result<Vec<Outcome>> {
        self.start("plain", cases).await?;
        let mut refused: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); cases.len()];
        let rounds = cases.iter().map(|case| case.changes.len()).max().unwrap_or(0);
        for round in 0..rounds {
            let (mut updates, mut places, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
            let documents = self.documents("plain").await?;
            for (at, case) in cases.iter().enumerate() {
                let Some(change) = case.changes.get(round) else { continue };
                let id = doc! {"_id": at as i32};
                if let Some(patched) = patched(change, documents.get(&at)) {
                    match patched {
                        Some(mut u) => {
                            u.remove("_id");
                            updates.push(doc! {"q": id, "u": u, "upsert": true});
                            places.push(at);
                        }
                        None => drop(refused[at].insert(round)),
                    }
                    continue;
                }
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
    None
}

/// What a merge patch or a JSON Patch makes of a document; nothing, where it is refused.
fn patched(change: &Json, before: Option<&Document>) -> Option<Option<Document>> {
    let before = before.cloned().unwrap_or_default();
    if let Some(patch) = change.get("patch") {
        return Some(rfc::patched(before, patch));
    }
    let patch = change.get("merge")?;
    match rfc::merged(Some(Bson::Document(before)), patch) {
        Bson::Document(document) => Some(Some(document)),
        other => panic!("{other} is no document"),
    }
}

fn document(json: &Json) -> Document {
    json.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), plain(value))).collect()
}

/// JSON as drivers store it: nothing in it is special, integers take 32 bits where they fit.
pub(super) fn plain(json: &Json) -> Bson {
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

//! Tells which statements of a write command are refused, and makes one reply of the server's and the forge's.

use bson::{Bson, Document, doc};

/// One statement of an `insert`, `update` or `delete`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Statement<'c> {
    pub(crate) command: &'c str,
    pub(crate) collection: &'c str,
    pub(crate) index: usize,
    /// `{q, u, ...}`, or the document to be inserted.
    pub(crate) document: &'c Document,
}

impl Statement<'_> {
    /// The `_id` of the document that it is about.
    pub(crate) fn id(&self) -> Option<&Bson> {
        match self.command {
            "insert" => self.document.get("_id"),
            _ => self.document.get_document("q").ok()?.get("_id"),
        }
    }

    /// The `_id`, if it is a text; else an empty one.
    pub(crate) fn id_text(&self) -> &str {
        self.id().and_then(Bson::as_str).unwrap_or_default()
    }
}

/// The key of a command's statements.
fn key(command: &str) -> Option<&'static str> {
    match command {
        "insert" => Some("documents"),
        "update" => Some("updates"),
        "delete" => Some("deletes"),
        _ => None,
    }
}

/// The statements of a command; none of one that has none.
pub(super) fn statements(command: &Document) -> Vec<Statement<'_>> {
    let Some((name, collection)) = command.iter().next() else { return Vec::new() };
    let all = key(name).and_then(|key| command.get_array(key).ok()).map(Vec::as_slice).unwrap_or_default();
    let documents = all.iter().filter_map(Bson::as_document).enumerate();
    let collection = collection.as_str().unwrap_or_default();
    documents.map(|(index, document)| Statement { command: name, collection, index, document }).collect()
}

/// A write command of which some statements are refused.
#[derive(Debug)]
pub(super) struct Split {
    /// What the server gets to see. None: nothing is left for it.
    pub(super) forwarded: Option<Document>,
    /// The places, in the whole command, of the statements that the server sees.
    places: Vec<usize>,
    refused: Vec<(usize, Document)>,
    ordered: bool,
    is_update: bool,
}

impl Split {
    /// Takes statements out of a command. What is behind a refused one of an ordered command is not tried.
    pub(super) fn new(command: &Document, mut refused: Vec<(usize, Document)>) -> Self {
        let name = command.keys().next().map(String::as_str).unwrap_or_default();
        let key = key(name).unwrap_or_default();
        let ordered = command.get_bool("ordered").unwrap_or(true);
        if ordered {
            refused.truncate(1);
        }
        let all = command.get_array(key).map(Vec::as_slice).unwrap_or_default();
        let end = if ordered { refused.first().map_or(all.len(), |(at, _)| *at) } else { all.len() };
        let is_refused = |place: &usize| refused.iter().any(|(at, _)| at == place);
        let places: Vec<usize> = (0..end).filter(|place| !is_refused(place)).collect();
        let mut forwarded = command.clone();
        forwarded.insert(key, places.iter().map(|place| all[*place].clone()).collect::<Vec<_>>());
        let forwarded = (!places.is_empty()).then_some(forwarded);
        Split { forwarded, places, refused, ordered, is_update: name == "update" }
    }

    /// The whole command's reply, from the server's for what it saw.
    pub(super) fn reply(self, server: Option<Document>) -> Document {
        let mut reply = match server {
            Some(reply) if !is_ok(&reply) => return reply,
            Some(reply) => reply,
            None if self.is_update => doc! { "n": 0, "nModified": 0, "ok": 1.0 },
            None => doc! { "n": 0, "ok": 1.0 },
        };
        let mut errors = self.mapped(&reply, "writeErrors");
        // A server that stopped earlier never came to what the forge would refuse.
        if !self.ordered || errors.is_empty() {
            errors.extend(self.refused.iter().map(|(at, error)| {
                let mut entry = doc! { "index": *at as i32 };
                entry.extend(error.clone());
                entry
            }));
        }
        errors.sort_by_key(|error| error.get_i32("index").unwrap_or(i32::MAX));
        reply.insert("writeErrors", errors);
        let made = self.mapped(&reply, "upserted");
        if !made.is_empty() {
            reply.insert("upserted", made);
        }
        reply
    }

    /// Entries of the server's reply, with the places of the whole command.
    fn mapped(&self, reply: &Document, key: &str) -> Vec<Document> {
        let entries = reply.get_array(key).map(Vec::as_slice).unwrap_or_default();
        let mapped = entries.iter().filter_map(Bson::as_document).map(|entry| {
            let mut entry = entry.clone();
            let place = number(entry.get("index")).and_then(|at| self.places.get(at));
            if let Some(place) = place {
                entry.insert("index", *place as i32);
            }
            entry
        });
        mapped.collect()
    }
}

/// Whether the server carried a command out.
pub(super) fn is_ok(reply: &Document) -> bool {
    number(reply.get("ok")) == Some(1)
}

fn number(value: Option<&Bson>) -> Option<usize> {
    match value? {
        Bson::Int32(n) => usize::try_from(*n).ok(),
        Bson::Int64(n) => usize::try_from(*n).ok(),
        Bson::Double(n) => Some(*n as usize),
        _ => None,
    }
}

//! Applies RFC 7396 and RFC 6902 as they are written, on a document that has been read.

use bson::{Bson, Document};
use serde_json::Value as Json;

use super::plain::plain;
use super::same_value;

/// RFC 7396, section 2.
pub(super) fn merged(target: Option<Bson>, patch: &Json) -> Bson {
    let Json::Object(patch) = patch else { return plain(patch) };
    let mut target = match target {
        Some(Bson::Document(target)) => target,
        _ => Document::new(),
    };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            let value = merged(target.get(key).cloned(), value);
            target.insert(key, value);
        }
    }
    target.into()
}

/// RFC 6902: all of the operations, or nothing.
pub(super) fn patched(document: Document, patch: &Json) -> Option<Document> {
    let mut document = Bson::Document(document);
    for operation in patch.as_array()? {
        let pointer = |name: &str| {
            let text = operation[name].as_str()?;
            Some(text.split('/').skip(1).map(|t| t.replace("~1", "/").replace("~0", "~")).collect::<Vec<_>>())
        };
        let path = pointer("path")?;
        match operation["op"].as_str()? {
            "add" => add(&mut document, &path, plain(&operation["value"]))?,
            "remove" => drop(remove(&mut document, &path)?),
            "replace" => {
                remove(&mut document, &path)?;
                add(&mut document, &path, plain(&operation["value"]))?;
            }
            "move" => {
                let value = remove(&mut document, &pointer("from")?)?;
                add(&mut document, &path, value)?;
            }
            "copy" => {
                let value = get(&mut document, &pointer("from")?)?.clone();
                add(&mut document, &path, value)?;
            }
            "test" => {
                same_value(get(&mut document, &path)?, &plain(&operation["value"])).then_some(())?;
            }
            _ => return None,
        }
    }
    match document {
        Bson::Document(document) => Some(document),
        _ => None,
    }
}

fn index(token: &str) -> Option<usize> {
    (token.bytes().all(|b| b.is_ascii_digit()) && (token == "0" || !token.starts_with('0')))
        .then(|| token.parse().ok())?
}

fn get<'b>(value: &'b mut Bson, path: &[String]) -> Option<&'b mut Bson> {
    let Some((token, rest)) = path.split_first() else { return Some(value) };
    match value {
        Bson::Document(document) => get(document.get_mut(token)?, rest),
        Bson::Array(elements) => get(elements.get_mut(index(token)?)?, rest),
        _ => None,
    }
}

fn add(document: &mut Bson, path: &[String], value: Bson) -> Option<()> {
    let (last, parents) = path.split_last()?;
    match get(document, parents)? {
        Bson::Document(document) => drop(document.insert(last, value)),
        Bson::Array(elements) => {
            let at = if last == "-" { elements.len() } else { index(last)? };
            (at <= elements.len()).then(|| elements.insert(at, value))?;
        }
        _ => return None,
    }
    Some(())
}

fn remove(document: &mut Bson, path: &[String]) -> Option<Bson> {
    let (last, parents) = path.split_last()?;
    match get(document, parents)? {
        Bson::Document(document) => document.remove(last),
        Bson::Array(elements) => {
            let at = index(last)?;
            (at < elements.len()).then(|| elements.remove(at))
        }
        _ => None,
    }
}

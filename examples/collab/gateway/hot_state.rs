//! Keeps a page's hot state: what MongoDB has of it, kept in Redis. The gateway makes it when it loads a page that has
//! none. From then on tidegate keeps it fresh; see `docs/hot-state.md`. So a page that was open lately needs no MongoDB.

use std::collections::HashMap;
use std::time::Duration;

use bson::{Bson, Document};

use super::store::Stored;

/// As long as `config.toml` says.
pub(super) const TTL: Duration = Duration::from_secs(600);

/// So long may MongoDB take to answer who is about to fill a state.
pub(super) const FILLING: Duration = Duration::from_secs(5);

/// Fills a state, unless tidegate has written the page since the token was set: what was read before that is too old.
///
/// KEYS state token · ARGV token ttl-ms, and for each leaf its path and its value
pub(super) const FILL: &str = r"
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1";

/// Where a page's state is.
pub(super) fn state_key(page: &str) -> String {
    format!("tidegate:state:pages:{page}")
}

/// Where the token is of who fills it.
pub(super) fn fill_key(page: &str) -> String {
    format!("tidegate:fill:pages:{page}")
}

/// A document as its state has it: the dotted path of each leaf, and its value as JSON. None if it cannot be kept so.
pub(super) fn leaves(document: &Document) -> Option<Vec<(String, String)>> {
    let mut leaves = Vec::new();
    let fields = document.iter().filter(|(key, _)| *key != "_id");
    for (key, value) in fields {
        if !is_component(key) {
            return None;
        }
        add(&mut leaves, key.clone(), value);
    }
    Some(leaves)
}

fn add(leaves: &mut Vec<(String, String)>, path: String, value: &Bson) {
    match value {
        Bson::Document(inner) if !inner.is_empty() && inner.keys().all(|key| is_component(key)) => {
            inner.iter().for_each(|(key, value)| add(leaves, format!("{path}.{key}"), value));
        }
        _ => leaves.push((path, value.clone().into_relaxed_extjson().to_string())),
    }
}

fn is_component(key: &str) -> bool {
    !key.is_empty() && !key.contains('.') && !key.starts_with('$')
}

/// The page that a state shows. None if there is no state.
pub(super) fn read(fields: &HashMap<String, String>) -> Option<Stored> {
    if fields.is_empty() {
        return None;
    }
    let number = |name| fields.get(name).and_then(|number| number.parse().ok()).unwrap_or(0);
    let paragraph = |(path, text): (&String, &String)| {
        Some((path.strip_prefix("paragraphs.")?.to_owned(), serde_json::from_str(text).ok()?))
    };
    let paragraphs = fields.iter().filter_map(paragraph).collect();
    Some(Stored { last: number("lastEdit"), edits: number("edits"), paragraphs })
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn a_state_shows_the_page_it_was_filled_with() {
        let page = doc! {
            "_id": "welcome", "paragraphs": { "m-first": "Hello \"w\"", "n": "" }, "lastEdit": 8, "edits": 7_i64,
            "lastBy": "c", "_tidegate": { "pageEdits": 481_036_337_155_i64 }, "none": {}, "odd": { "a.b": [1] },
        };
        let fields: HashMap<_, _> = leaves(&page).expect("leaves").into_iter().collect();
        let field = |path: &str| fields.get(path).map(String::as_str);
        assert_eq!(field("paragraphs.m-first"), Some(r#""Hello \"w\"""#));
        assert_eq!(field("_tidegate.pageEdits"), Some("481036337155"));
        assert_eq!((field("none"), field("odd"), field("_id")), (Some("{}"), Some(r#"{"a.b":[1]}"#), None));
        assert_eq!(read(&fields), Some(Stored { edits: 7, ..Stored::from(&page) }));
        assert_eq!(read(&HashMap::new()), None);
        assert_eq!(leaves(&doc! { "a.b": 1 }), None);
    }
}

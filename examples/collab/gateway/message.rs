//! Defines what is said: by a browser, on Redis' channels, and to a browser. All of it is JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Of a paragraph, in bytes.
const LONGEST_TEXT: usize = 8 * 1024;
const LONGEST_NAME: usize = 40;
const LONGEST_KEY: usize = 80;
/// Of a message from a browser, in bytes. JSON may write a character in six.
pub(super) const LONGEST_MESSAGE: usize = 6 * LONGEST_TEXT + 1024;

/// Paragraphs by their keys, in which order they are read. None: it is removed.
pub(super) type Paragraphs = BTreeMap<String, Option<String>>;

/// An edit, as a browser sends it: what the whole paragraph now says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    pub(super) paragraph: String,
    pub(super) text: Option<String>,
    /// The browser's own number of the edit, by which it knows it again.
    pub(super) own: u32,
}

impl Said {
    /// Reads it. The error says what is wrong with it, for people.
    pub(super) fn read(message: &str) -> Result<Self, &'static str> {
        let said: Self = serde_json::from_str(message).map_err(|_| "that is no edit")?;
        // The key becomes the name of a field in MongoDB, where dots and dollars mean something.
        if !is_plain(&said.paragraph, LONGEST_KEY) {
            return Err("that is no key of a paragraph");
        }
        match &said.text {
            Some(text) if text.len() > LONGEST_TEXT => Err("that paragraph is too long"),
            _ => Ok(said),
        }
    }
}

/// Whether a page may have this name.
pub(super) fn is_page_name(name: &str) -> bool {
    is_plain(name, LONGEST_NAME)
}

fn is_plain(text: &str, longest: usize) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !text.is_empty() && text.len() <= longest && text.bytes().all(plain)
}

/// The event in the queue, which is published as well.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Edit {
    pub(super) page: String,
    /// Which edit of the page this is, from 1.
    pub(super) number: u64,
    pub(super) by: String,
    pub(super) own: u32,
    pub(super) changes: Changes,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Changes {
    pub(super) paragraphs: Paragraphs,
}

/// What tidegate says on `tidegate:durable:pages`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Receipt {
    pub(super) id: Value,
    /// How many events the write stood for.
    pub(super) events: u64,
    /// Milliseconds until the oldest of them was durable, where that is known.
    pub(super) ms: Option<f64>,
}

/// What tidegate says on `tidegate:dead:pages`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Refusal {
    #[serde(default)]
    pub(super) id: Value,
    pub(super) reason: String,
}

/// What a browser is told.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Told<'a> {
    /// The page cannot be shown yet.
    Waiting { why: &'a str },
    /// All of it. `you` is what the browser's own edits are marked with.
    Page { you: &'a str, paragraphs: BTreeMap<&'a str, &'a str>, last: u64, saved: u64, lost: u64 },
    /// An edit, in the order in which all get them.
    Edit { number: u64, by: &'a str, own: u32, paragraphs: &'a Paragraphs },
    /// MongoDB has dealt with all edits up to `saved`, and did not take `lost` of them. The rest is of the write.
    Saved {
        saved: u64,
        lost: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        ms: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        events: Option<u64>,
    },
    /// An edit can never be written.
    Refused { reason: &'a str },
    /// How many have the page open here.
    People { people: usize },
}

impl Told<'_> {
    pub(super) fn to_json(&self) -> String {
        // Maps with text for keys and plain values, which always become JSON.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_edits_of_bounded_size_with_plain_keys_are_read() {
        let said = Said::read(r#"{"paragraph":"m-1","text":"a.$b","own":3}"#).expect("an edit");
        assert_eq!((said.paragraph.as_str(), said.text.as_deref(), said.own), ("m-1", Some("a.$b"), 3));
        assert_eq!(Said::read(r#"{"paragraph":"m-1","text":null,"own":3}"#).expect("an edit").text, None);
        let long = |length| format!(r#"{{"paragraph":"m","text":"{}","own":1}}"#, "x".repeat(length));
        assert!(Said::read(&long(LONGEST_TEXT)).is_ok() && Said::read(&long(LONGEST_TEXT + 1)).is_err());
        for bad in [
            "",
            "7",
            "null",
            r#"{"paragraph":"","text":"","own":1}"#,
            r#"{"paragraph":"a.b","text":"","own":1}"#,
            r#"{"paragraph":"$a","text":"","own":1}"#,
            r#"{"paragraph":"a","text":7,"own":1}"#,
            r#"{"paragraph":"a","text":"","own":-1}"#,
            r#"{"paragraph":"a","text":"","own":1,"page":"b"}"#,
        ] {
            assert!(Said::read(bad).is_err(), "{bad}");
        }
    }
}

//! Defines dead letters: events that can never be applied, and why.

mod groups;
mod letter;
mod recent;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

pub use self::groups::LetterGroup;
pub(crate) use self::letter::Outline;
pub use self::letter::{EntryField, Letter, fields_of};
pub use self::recent::{RecentDeadLetter, RecentDeadLetters};
use crate::change::EntityRef;
use crate::trace::Traceparent;

/// What is said of a stream's entry that has no event: all of its fields are kept in place of one.
pub const NO_EVENT_FIELD: &str = "the entry does not have the field that is the event";

labelled! {
    /// The closed set of reasons, as the metric's label; the dead letter itself carries a sentence.
    pub enum Reason {
        /// Not valid UTF-8.
        NotUtf8 => "not-utf8",
        /// Not valid JSON.
        NotJson => "not-json",
        /// JSON of another shape than an event has.
        BadEvent => "bad-event",
        /// Nested too deep.
        TooDeep => "too-deep",
        /// Larger than a document may be.
        TooLarge => "too-large",
        /// The same key twice in one object.
        DuplicateKey => "duplicate-key",
        /// A key that is empty, contains NUL, starts with `$`, or contains `.` where it would become a path.
        BadKey => "bad-key",
        /// An integer beyond 64 bits, or an amount that is no number.
        BadNumber => "bad-number",
        /// No id.
        MissingId => "missing-id",
        /// An id that is neither text nor an integer.
        BadId => "bad-id",
        /// An attempt to write `_id` or the watermark.
        ProtectedField => "protected-field",
        /// A collection that is not configured.
        UnknownCollection => "unknown-collection",
        /// No route matches.
        NoRoute => "no-route",
        /// One event writes a path and its parent.
        PathConflict => "path-conflict",
        /// MongoDB: the collection's validator refused the document.
        Validation => "validation",
        /// MongoDB: a unique index on another field than `_id`.
        UniqueIndex => "unique-index",
        /// MongoDB: the update does not fit the type of a field.
        TypeMismatch => "type-mismatch",
        /// MongoDB refused for another reason.
        Refused => "refused",
        /// Process after process ended while it was being worked on.
        Crash => "crash",
        /// Another consumer of its stream held it while later ones took effect.
        OutOfOrder => "out-of-order",
        ;
        /// None: a route skips the event. It makes no change, and no dead letter.
        Skipped => "skipped",
    }
}

/// Why one event was refused: the class for the metric and a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Rejection {
    /// The class.
    pub reason: Reason,
    /// What is wrong, in words; goes into the dead letter.
    pub text: String,
    /// MongoDB's error code, where MongoDB refused.
    pub code: Option<i32>,
}

impl Rejection {
    /// A rejection that MongoDB has no part in.
    #[must_use]
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Rejection { reason, text: text.into(), code: None }
    }

    /// What is wrong, without what MongoDB says of it: that quotes values of the event and of the document.
    #[must_use]
    pub fn without_values(&self) -> &str {
        match self.reason {
            Reason::Validation
            | Reason::UniqueIndex
            | Reason::TypeMismatch
            | Reason::TooLarge
            | Reason::Refused => self.text.split_once(": ").map_or(&*self.text, |(what, _)| what),
            _ => &self.text,
        }
    }
}

/// An event that can never be applied, on its way to the dead letters.
#[derive(Debug, Clone, Copy)]
pub struct Dead<'a> {
    /// Its offset in the queue.
    pub offset: i64,
    /// The event; empty where it is not at hand.
    pub event: &'a [u8],
    /// Why.
    pub rejection: &'a Rejection,
    /// The trace that it belongs to.
    pub traceparent: Option<Traceparent>,
    /// The document that it is about, where that is known and somebody is told.
    pub entity: Option<EntityRef<'a>>,
}

/// The JSON object that is kept of a dead letter.
#[derive(Serialize)]
struct DeadLetter<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_base64: Option<String>,
    reason: &'a str,
    class: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i32>,
    offset: i64,
    queue: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    at: String,
}

/// Renders a dead letter. An event that is JSON is kept as it is, any other as base64.
#[must_use]
pub fn render(dead: &Dead<'_>, queue: &str, now: bson::DateTime) -> String {
    let Dead { offset, event, rejection, traceparent, .. } = dead;
    // One nested too deep for us is for whoever reads the letter.
    let text = std::str::from_utf8(event).ok().filter(|_| rejection.reason != Reason::TooDeep);
    let json = text.filter(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    let event_json = json.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    let event_base64 = event_json.is_none().then(|| STANDARD.encode(event));
    let traceparent = traceparent.as_ref().map(Traceparent::as_str);
    let letter = DeadLetter::new(rejection, *offset, queue, now);
    DeadLetter { event: event_json, event_base64, traceparent, ..letter }.json()
}

/// Renders a dead letter whose event is put in by Redis.
#[must_use]
pub fn render_without_event(rejection: &Rejection, offset: i64, queue: &str, now: bson::DateTime) -> String {
    DeadLetter::new(rejection, offset, queue, now).json()
}

impl<'a> DeadLetter<'a> {
    fn new(rejection: &'a Rejection, offset: i64, queue: &'a str, now: bson::DateTime) -> Self {
        DeadLetter {
            event: None,
            event_base64: None,
            reason: &rejection.text,
            class: rejection.reason.label(),
            code: rejection.code,
            offset,
            queue,
            traceparent: None,
            at: now.try_to_rfc3339_string().unwrap_or_default(),
        }
    }

    fn json(&self) -> String {
        // Strings, numbers and JSON that was just read: there is nothing in it that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(event: &[u8], rejection: &Rejection) -> serde_json::Value {
        let now = bson::DateTime::from_millis(0);
        let dead = Dead { offset: 7, event, rejection, traceparent: None, entity: None };
        serde_json::from_str(&render(&dead, "q", now)).unwrap()
    }

    #[test]
    fn json_is_kept_as_it_is_and_bytes_as_base64() {
        let rejection = Rejection { reason: Reason::TypeMismatch, text: "no".into(), code: Some(14) };
        assert_eq!(
            rendered(br#"{"a":[1]}"#, &rejection),
            serde_json::json!({
                "event": {"a": [1]}, "reason": "no", "class": "type-mismatch", "code": 14, "offset": 7,
                "queue": "q", "at": "1970-01-01T00:00:00Z",
            })
        );
        let rejection = Rejection::new(Reason::NotUtf8, "no text");
        assert_eq!(rendered(b"\xff", &rejection)["event_base64"], "/w==");
        assert_eq!(rendered(b"", &rejection)["event_base64"], "");
    }
}

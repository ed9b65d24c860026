//! Keeps the latest dead letters for the status: a few, cut short. All of them are in Redis, or in MongoDB.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::Mutex;
use serde::{Serialize, Serializer};

use super::Dead;
use super::groups::{LetterGroup, LetterGroups};
use crate::format::cut;

/// Letters kept. With the bounds below, that is at most 50 KiB.
const KEPT: usize = 20;
/// Bytes of a reason.
const REASON: usize = 400;
/// Bytes of an event.
const EVENT: usize = 2048;

/// The latest dead letters of all queues.
#[derive(Debug)]
pub struct RecentDeadLetters {
    with_events: bool,
    latest: Mutex<VecDeque<RecentDeadLetter>>,
    groups: Mutex<LetterGroups>,
    started: Instant,
}

/// A dead letter as `/status` says it.
#[derive(Debug, Clone, Serialize)]
pub struct RecentDeadLetter {
    queue: String,
    /// As text: it has more digits than a JavaScript number.
    offset: String,
    class: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i32>,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    at: String,
    #[serde(rename = "seconds_ago", serialize_with = "seconds_since")]
    recorded: Instant,
}

pub(super) fn seconds_since<S: Serializer>(recorded: &Instant, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(recorded.elapsed().as_secs())
}

impl RecentDeadLetters {
    /// None yet; `with_events` where their events may be shown.
    #[must_use]
    pub fn new(with_events: bool) -> Self {
        let (latest, groups) = Default::default();
        RecentDeadLetters { with_events, latest, groups, started: Instant::now() }
    }

    /// Remembers dead letters of a queue.
    pub fn record(&self, queue: &str, letters: &[Dead<'_>]) {
        self.groups.lock().add(queue, letters, self.started.elapsed());
        let mut latest = self.latest.lock();
        for Dead { offset, event, rejection, traceparent, .. } in
            &letters[letters.len().saturating_sub(KEPT)..]
        {
            if latest.len() == KEPT {
                latest.pop_front();
            }
            let reason = if self.with_events { &rejection.text } else { rejection.without_values() };
            latest.push_back(RecentDeadLetter {
                queue: queue.to_owned(),
                offset: offset.to_string(),
                class: rejection.reason.label(),
                code: rejection.code,
                reason: cut(reason, REASON),
                event: (self.with_events && !event.is_empty()).then(|| {
                    // One byte more than is shown, so that the cut is seen.
                    cut(&String::from_utf8_lossy(&event[..event.len().min(EVENT + 1)]), EVENT)
                }),
                traceparent: traceparent.map(|trace| trace.as_str().to_owned()),
                at: bson::DateTime::now().try_to_rfc3339_string().unwrap_or_default(),
                recorded: Instant::now(),
            });
        }
    }

    /// How many were recorded within the last five minutes.
    #[must_use]
    pub fn lately(&self) -> u64 {
        self.groups.lock().lately(self.started.elapsed())
    }

    /// All since the start, by what is wrong with them.
    #[must_use]
    pub fn groups(&self) -> Vec<LetterGroup> {
        self.groups.lock().all()
    }

    /// What the log is to say of those that it has not told, if it is time for that.
    pub(crate) fn news(&self) -> Option<String> {
        self.groups.lock().news()
    }

    /// All that are kept, the latest first.
    #[must_use]
    pub fn latest(&self) -> Vec<RecentDeadLetter> {
        self.latest.lock().iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letter::{Reason, Rejection};
    use crate::trace::{TraceRef, Traceparent};
    use serde_json::{Value, json};

    fn told(letters: &RecentDeadLetters) -> Value {
        serde_json::to_value(letters.latest()).unwrap()
    }

    fn unique() -> Rejection {
        let text = "a unique index refuses the document: E11000 dup key: { email: \"ann@example.org\" }";
        Rejection { reason: Reason::UniqueIndex, text: text.into(), code: Some(11000) }
    }

    fn dead<'a>(offset: i64, event: &'a [u8], rejection: &'a Rejection) -> Dead<'a> {
        Dead { offset, event, rejection, traceparent: None, entity: None }
    }

    #[test]
    fn a_trace_is_shown_where_there_is_one() {
        let letters = RecentDeadLetters::new(false);
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let traceparent = TraceRef::new(text.as_bytes()).map(Traceparent::from);
        letters.record("q", &[dead(0, b"", &unique()), Dead { traceparent, ..dead(1, b"", &unique()) }]);
        let shown = told(&letters);
        assert_eq!((&shown[0]["traceparent"], shown[1].get("traceparent")), (&json!(text), None));
    }

    #[test]
    fn values_are_shown_only_where_they_may_be() {
        let event: &[u8] = br#"{"email":"ann@example.org"}"#;
        let hidden = RecentDeadLetters::new(false);
        hidden.record("q", &[dead(7 << 36, event, &unique())]);
        let shown = told(&hidden);
        assert!(!shown.to_string().contains("ann@"), "{shown}");
        assert_eq!(shown[0]["reason"], "a unique index refuses the document");
        assert_eq!((&shown[0]["code"], &shown[0]["offset"]), (&json!(11000), &json!("481036337152")));
        let open = RecentDeadLetters::new(true);
        open.record("q", &[dead(0, event, &unique())]);
        assert_eq!(told(&open)[0]["event"], r#"{"email":"ann@example.org"}"#);
        assert!(told(&open)[0]["reason"].as_str().unwrap().contains("ann@example.org"));
    }

    #[test]
    fn a_flood_of_large_ones_leaves_few_short_ones() {
        let letters = RecentDeadLetters::new(true);
        let event = vec![b'\xc3'; 1 << 20];
        let rejection = Rejection::new(Reason::NotUtf8, "é".repeat(10_000));
        let flood: Vec<_> = (0..5000).map(|n| dead(n, &event[..], &rejection)).collect();
        letters.record("q", &flood);
        letters.record("q", &flood[..1]);
        let shown = told(&letters);
        let offsets: Vec<_> = shown.as_array().unwrap().iter().map(|l| l["offset"].clone()).collect();
        assert_eq!((offsets.len(), &offsets[..3]), (KEPT, &[json!("0"), json!("4999"), json!("4998")][..]));
        let size = shown.to_string().len();
        assert!(size < 80_000, "{size} bytes");
        assert_eq!((letters.lately(), letters.groups().len()), (5001, 1));
    }
}

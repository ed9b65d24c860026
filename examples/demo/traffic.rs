//! Plays users who type into documents: what they send, and what should have become of it.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

const DOCUMENTS: usize = 3_000;
const USERS: usize = 500;
/// Users who type at the same moment.
const WRITERS: usize = 60;
const LONGEST_TEXT: usize = 400;
const WORDS: [&str; 32] = [
    "the", "harbour", "tide", "comes", "in", "slowly", "and", "boats", "lift", "from", "mud", "while",
    "gulls", "argue", "over", "nothing", "on", "quay", "a", "keeper", "counts", "each", "gate", "twice",
    "before", "night", "falls", "writes", "it", "down", "once", "more",
];

/// All documents and who is at them.
pub(crate) struct Office {
    texts: Vec<String>,
    edits: Vec<u64>,
    writers: Vec<Writer>,
    pushed: u64,
    random: fastrand::Rng,
}

/// Somebody who types into one document for a while, then turns to another.
#[derive(Clone, Copy)]
struct Writer {
    user: usize,
    document: usize,
    keystrokes_left: u32,
}

impl Office {
    /// Nothing is written yet. The same traffic every time.
    pub(crate) fn new() -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let writers = (0..WRITERS).map(|_| Writer::sit_down(&mut random)).collect();
        Self { texts: vec![String::new(); DOCUMENTS], edits: vec![0; DOCUMENTS], writers, pushed: 0, random }
    }

    /// Somebody types some more: the event that an editor's server would push.
    pub(crate) fn next_event(&mut self) -> String {
        let seat = self.random.usize(..WRITERS);
        if self.writers[seat].keystrokes_left == 0 {
            self.writers[seat] = Writer::sit_down(&mut self.random);
        }
        let writer = &mut self.writers[seat];
        writer.keystrokes_left -= 1;
        self.pushed += 1;
        self.edits[writer.document] += 1;
        let text = &mut self.texts[writer.document];
        type_on(text, &mut self.random);
        let (document, user) = (document_id(writer.document), format!("user-{:03}", writer.user));
        json!({
            "type": "UPDATE_CONTENT",
            "ts": now_ms(),
            "payload": { "docId": document, "userId": user, "text": text },
        })
        .to_string()
    }

    /// Events so far.
    pub(crate) fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Documents that somebody has typed into: id, text as last sent, number of events.
    pub(crate) fn written(&self) -> impl Iterator<Item = (String, &str, u64)> {
        let all = self.texts.iter().zip(&self.edits).enumerate();
        all.filter(|(_, (_, edits))| **edits > 0)
            .map(|(number, (text, edits))| (document_id(number), text.as_str(), *edits))
    }
}

impl Writer {
    fn sit_down(random: &mut fastrand::Rng) -> Self {
        // The cube crowds people around few documents: half of them are at an eighth of all.
        let at = random.f64().powi(3) * DOCUMENTS as f64;
        Self { user: random.usize(..USERS), document: at as usize, keystrokes_left: random.u32(1..30) }
    }
}

/// A word more; a text that has become too long is begun anew.
fn type_on(text: &mut String, random: &mut fastrand::Rng) {
    if text.len() >= LONGEST_TEXT {
        text.clear();
    }
    let word = WORDS[random.usize(..WORDS.len())];
    if !text.is_empty() {
        text.push(' ');
    }
    text.push_str(word);
}

fn document_id(number: usize) -> String {
    format!("doc-{number:04}")
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

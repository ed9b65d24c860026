//! Makes events of a stream's entries: one of their fields, or all of them as a JSON object of strings.

use std::ops::Range;

use super::id::EntryId;
use crate::source::Window;
use crate::source::error::SourceError;
use crate::source::wire::{ReplyPart, ReplyWalk, WireReply};

/// What of an entry is the event.
#[derive(Debug, Clone)]
pub(super) enum PayloadForm {
    /// The field of this name.
    Field(Vec<u8>),
    /// All fields.
    Flat,
}

/// Entries, in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct Entries {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// The id of the last one that Redis answered, be it gone.
    seen: Option<EntryId>,
    /// How many are gone.
    gone: usize,
}

/// An entry.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) id: EntryId,
    /// Where the event is; of an entry that has none, its fields.
    event: Range<usize>,
    is_malformed: bool,
    /// Bytes of all of it, as Redis answered it.
    size: usize,
}

impl Entries {
    /// Reads what `XRANGE` answered as the n-th. Entries that are gone, as a pending list may have them, are left out.
    pub(super) fn of_range(answer: WireReply, nth: usize, form: &PayloadForm) -> Result<Self, SourceError> {
        let mut read = EntryReader::new(&answer, nth, form);
        read.entries()?;
        let EntryReader { made, found, .. } = read;
        Ok(found.within(answer, made, form))
    }

    /// Reads what `XREADGROUP` answered of its one stream.
    pub(super) fn of_group(answer: WireReply, nth: usize, form: &PayloadForm) -> Result<Self, SourceError> {
        let mut read = EntryReader::new(&answer, nth, form);
        if read.walk.array()?.is_some() {
            // The stream, and its name.
            read.walk.array()?;
            read.walk.bulk()?;
            read.entries()?;
        }
        let EntryReader { made, found, .. } = read;
        Ok(found.within(answer, made, form))
    }

    /// The same, with the memory that they are in.
    fn within(self, answer: WireReply, made: Vec<u8>, form: &PayloadForm) -> Self {
        let bytes = match form {
            PayloadForm::Flat => made,
            PayloadForm::Field(_) => {
                let mut bytes = answer.into_bytes();
                bytes.extend_from_slice(&made);
                bytes
            }
        };
        Entries { bytes, ..self }
    }

    /// The id of the last one that Redis answered, be it gone.
    pub(super) fn seen(&self) -> Option<EntryId> {
        self.seen
    }

    /// How many Redis answered that are gone.
    pub(super) fn gone(&self) -> usize {
        self.gone
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn first(&self) -> Option<&Entry> {
        self.entries.first()
    }

    pub(super) fn last(&self) -> Option<&Entry> {
        self.entries.last()
    }

    /// Entries and their events.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Entry, &[u8])> {
        self.entries.iter().map(|entry| (entry, self.bytes.get(entry.event.clone()).unwrap_or_default()))
    }

    /// Bytes of the largest entry, with what of it is not the event.
    pub(super) fn largest(&self) -> usize {
        self.entries.iter().map(|entry| entry.size).max().unwrap_or(0)
    }

    /// Leaves out what is not wanted.
    pub(super) fn retain(&mut self, wanted: impl FnMut(&Entry) -> bool) {
        self.entries.retain(wanted);
    }

    /// Takes those off whose ids do not fit, if any are behind those whose do; what is behind them is left out.
    pub(super) fn split_off_misfits(&mut self) -> Self {
        let fits = |entry: &Entry| entry.id.offset().is_some();
        let Some(fitting) = self.entries.iter().position(|entry| !fits(entry)) else {
            return Self::default();
        };
        let mut entries = self.entries.split_off(fitting);
        entries.truncate(entries.iter().take_while(|entry| !fits(entry)).count());
        Entries { bytes: self.bytes.clone(), entries, ..Entries::default() }
    }

    /// Entries, whose ids all fit, as a window; without any, the next is at `cursor`.
    pub(super) fn into_window_at(self, cursor: i64) -> Window {
        if self.is_empty() {
            return Window::none(cursor);
        }
        let largest = self.largest();
        let offsets: Vec<_> = self.entries.iter().map(|entry| entry.id.nearest()).collect();
        let malformed = self.entries.iter().filter(|entry| entry.is_malformed);
        let malformed = malformed.map(|entry| entry.id.nearest()).collect();
        let places = self.entries.into_iter().map(|entry| entry.event).collect();
        Window::cut(0, self.bytes, places).sparse(offsets, malformed).with_ahead(largest)
    }
}

/// Reads entries where they lie.
struct EntryReader<'a> {
    walk: ReplyWalk<'a>,
    form: &'a PayloadForm,
    /// Events that had to be made.
    made: Vec<u8>,
    /// Bytes of the answer.
    kept: usize,
    /// What was found, without its memory.
    found: Entries,
}

impl<'a> EntryReader<'a> {
    fn new(answer: &'a WireReply, nth: usize, form: &'a PayloadForm) -> Self {
        let (walk, kept) = (answer.walk(nth), answer.len());
        EntryReader { walk, form, made: Vec::new(), kept, found: Entries::default() }
    }

    fn entries(&mut self) -> Result<(), SourceError> {
        let items = self.walk.array()?.unwrap_or(0);
        self.found.entries.reserve(items);
        for _ in 0..items {
            match self.entry()? {
                Some(entry) => self.found.entries.push(entry),
                None => self.found.gone += 1,
            }
        }
        Ok(())
    }

    fn entry(&mut self) -> Result<Option<Entry>, SourceError> {
        let begin = self.walk.at();
        self.walk.array()?;
        let id = self.walk.bulk()?;
        let id =
            std::str::from_utf8(self.walk.text(id)).ok().and_then(EntryId::parse).ok_or_else(unexpected)?;
        self.found.seen = Some(id);
        let values = match self.walk.next()? {
            ReplyPart::Array(values) => values,
            ReplyPart::Nil => return Ok(None),
            ReplyPart::Bulk(_) | ReplyPart::Other => return Err(unexpected()),
        };
        if let PayloadForm::Field(wanted) = self.form {
            let (mut event, start) = (None, self.walk.clone());
            for _ in 0..values / 2 {
                let (name, value) = (self.walk.bulk()?, self.walk.bulk()?);
                if event.is_none() && self.walk.text(name) == wanted {
                    event = Some(value);
                }
            }
            if let Some(event) = event {
                let size = self.walk.at() - begin;
                return Ok(Some(Entry { id, event, is_malformed: false, size }));
            }
            self.walk = start;
        }
        let event = self.flat(values / 2)?;
        let (is_malformed, size) = (matches!(self.form, PayloadForm::Field(_)), self.walk.at() - begin);
        Ok(Some(Entry { id, event, is_malformed, size }))
    }

    /// Makes a JSON object of strings, of so many fields. Bytes that are no UTF-8 stay as they are: whoever decodes it
    /// says so.
    fn flat(&mut self, fields: usize) -> Result<Range<usize>, SourceError> {
        let kept = if matches!(self.form, PayloadForm::Flat) { 0 } else { self.kept };
        let start = kept + self.made.len();
        self.made.push(b'{');
        for at in 0..fields {
            if at > 0 {
                self.made.push(b',');
            }
            for end in [&b":"[..], b""] {
                let text = self.walk.bulk()?;
                quote(&mut self.made, self.walk.text(text));
                self.made.extend_from_slice(end);
            }
        }
        self.made.push(b'}');
        Ok(start..kept + self.made.len())
    }
}

fn unexpected() -> SourceError {
    SourceError::Lost("Redis answers with what is no entry of a stream".into())
}

fn quote(out: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', *byte]),
            0..0x20 => {
                out.extend(b"\\u00");
                out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> String {
        format!("${}\r\n{text}\r\n", text.len())
    }

    fn item(id: &str, fields: &[&str]) -> String {
        let texts: String = fields.iter().map(|field| bulk(field)).collect();
        format!("*2\r\n{}*{}\r\n{texts}", bulk(id), fields.len())
    }

    fn range(items: &[String]) -> String {
        format!("*{}\r\n{}", items.len(), items.concat())
    }

    fn parse(reply: &str, form: &PayloadForm) -> Result<Entries, SourceError> {
        Entries::of_range(WireReply::of(reply, 1), 0, form)
    }

    fn read(fields: &[&str], form: &PayloadForm) -> (String, bool) {
        // Another one before it, so that places are told apart.
        let reply = range(&[item("4-0", &["event", "before"]), item("5-1", fields)]);
        let entries = parse(&reply, form).unwrap();
        let (entry, event) = entries.iter().last().unwrap();
        assert_eq!(entry.id.to_string(), "5-1");
        (String::from_utf8(event.to_vec()).unwrap(), entry.is_malformed)
    }

    #[test]
    fn the_event_is_one_field_or_all_of_them() {
        let field = PayloadForm::Field(b"event".to_vec());
        assert_eq!(read(&["a", "1", "event", "{}"], &field), ("{}".into(), false));
        assert_eq!(read(&["event", "1", "event", "2"], &field), ("1".into(), false), "the first counts");
        assert_eq!(read(&["a", "1"], &field), (r#"{"a":"1"}"#.into(), true));
        let (text, malformed) = read(&["a\"\\", "\u{1}\nü", "", "2"], &PayloadForm::Flat);
        assert!(!malformed);
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed, serde_json::json!({"a\"\\": "\u{1}\nü", "": "2"}));
    }

    #[test]
    fn entries_that_are_gone_are_left_out_and_nonsense_is_refused() {
        let gone = range(&[format!("*2\r\n{}*-1\r\n", bulk("5-1")), item("6-0", &[])]);
        let entries = parse(&gone, &PayloadForm::Flat).unwrap();
        assert_eq!((entries.len(), entries.gone(), entries.seen()), (1, 1, EntryId::parse("6-0")));
        let gone = range(&["6-0", "7-1"].map(|id| format!("*2\r\n{}*-1\r\n", bulk(id))));
        let entries = parse(&gone, &PayloadForm::Flat).unwrap();
        assert_eq!((entries.len(), entries.gone(), entries.seen()), (0, 2, EntryId::parse("7-1")));
        assert!(parse("*-1\r\n", &PayloadForm::Flat).unwrap().is_empty());
        assert!(parse(":1\r\n", &PayloadForm::Flat).is_err());
        assert!(parse(&range(&[item("5", &[])]), &PayloadForm::Flat).is_err());
        let of_group =
            |reply: &str| Entries::of_group(WireReply::of(reply, 1), 0, &PayloadForm::Flat).unwrap();
        assert!(of_group("*-1\r\n").is_empty());
        let stream = format!("*1\r\n*2\r\n{}{}", bulk("q"), range(&[item("5-1", &["a", "b"])]));
        assert_eq!(of_group(&stream).len(), 1);
    }

    #[test]
    fn a_window_keeps_offsets_and_knows_what_is_no_event() {
        let field = PayloadForm::Field(b"event".to_vec());
        let reply = range(&[item("5-1", &["event", "x"]), item("9-0", &["y", "z"])]);
        let window = parse(&reply, &field).unwrap().into_window_at(0);
        let events: Vec<_> = window.iter().collect();
        assert_eq!(events, [(5 << 20 | 1, &b"x"[..]), (9 << 20, br#"{"y":"z"}"#)]);
        assert_eq!((window.end(), window.len()), ((9 << 20) + 1, 2));
        assert!(!window.is_malformed(5 << 20 | 1) && window.is_malformed(9 << 20));
        let other = "o".repeat(1000);
        let reply = range(&[item("5-1", &["event", "x", "other", &other])]);
        let window = parse(&reply, &field).unwrap().into_window_at(0);
        assert!(window.largest() > 1000, "what is no event was read, too");
    }

    #[test]
    fn misfits_and_what_is_behind_them_are_taken_off() {
        let field = PayloadForm::Field(b"event".to_vec());
        let items = ["5-1", "6-1048576", "6-1048577", "7-0"].map(|id| item(id, &["event", id]));
        let mut entries = parse(&range(&items), &field).unwrap();
        let misfits = entries.split_off_misfits();
        let texts = |entries: &Entries| entries.iter().map(|(_, event)| event.to_vec()).collect::<Vec<_>>();
        assert_eq!(texts(&entries), [b"5-1"]);
        assert_eq!(texts(&misfits), [b"6-1048576", b"6-1048577"]);
        assert!(entries.split_off_misfits().is_empty());
    }
}

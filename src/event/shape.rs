//! Reading events whose shape is known: the same keys in the same order as in an event before, and other values.
//!
//! Producers write all events of a type with the same code. So what stands between the values of such an event is
//! compared to what stood there before, in one piece, rather than parsed and looked up. Whatever is different in any
//! way is left to the parser, which also has the say on what is wrong with it; so a shape never changes what an event
//! means, only how long it takes to read.

use std::ops::Range;

use bson::spec::ElementType;
use serde::Deserialize;
use serde::de::{DeserializeSeed, IgnoredAny, Visitor};

use super::extract::{Place, Values};
use super::memory::Memory;
use super::paths::{Node, Paths, Slot};
use super::transcode::{Keys, Transcode};
use crate::raw;

/// Values of an event that has a shape, and levels they may be nested.
const MOST_VALUES: usize = 64;
const MOST_DEEP: usize = 32;

/// The shapes of events so far.
pub(super) type Shapes = Memory<Shape>;

impl Shapes {
    /// Reads an event that has a known shape. If it has none, or anything in it asks for a closer look, that is false, and
    /// what was read is worth nothing.
    pub(super) fn read(&mut self, paths: &Paths, event: &str, into: &mut Values) -> bool {
        let read = |shape: &Shape| {
            into.forget(paths);
            shape.read(event, into)
        };
        self.recall(read).is_some()
    }
}

/// What all events of a shape have in common.
#[derive(Debug, PartialEq)]
pub(super) struct Shape {
    values: Vec<Expected>,
    /// What stands before the values, one behind the other, and behind the last.
    text: String,
    end: Range<usize>,
}

/// A value, and what stands before it.
#[derive(Debug, PartialEq)]
pub(super) struct Expected {
    pub(super) before: Range<usize>,
    pub(super) slot: Option<(Slot, Keys)>,
    pub(super) trace: Option<Slot>,
    /// Whether it may be an object or an array. Else what is in it would have to be looked at.
    may_nest: bool,
    /// Whether nobody looks at it. Else a parser has to, where it is not plain, even if only to refuse it.
    pub(super) is_skipped: bool,
}

impl Shape {
    /// The shape of an event that was read along `paths`.
    pub(super) fn of(paths: &Paths, event: &str) -> Option<Self> {
        let mut survey = Survey::of(paths, event)?;
        let end = survey.take_text();
        Some(Shape { values: survey.values, text: survey.text, end })
    }

    fn read(&self, event: &str, into: &mut Values) -> Option<()> {
        let (bytes, text) = (event.as_bytes(), self.text.as_bytes());
        let mut at = 0;
        for expected in &self.values {
            let before = &text[expected.before.clone()];
            if !bytes.get(at..)?.starts_with(before) {
                return None;
            }
            at = expected.read(event, at + before.len(), into)?;
        }
        (bytes.get(at..)? == &text[self.end.clone()] && !into.out.wide_number).then_some(())
    }
}

impl Expected {
    /// Reads the value at a place in an event; answers where it ends.
    #[inline]
    fn read(&self, event: &str, at: usize, into: &mut Values) -> Option<usize> {
        let rest = event.as_bytes().get(at..)?;
        let first = *rest.first()?;
        if first == b'"'
            && let Some(text) = plain_text(&rest[1..])
        {
            match (self.slot, self.trace) {
                (Some((slot, _)), trace) => {
                    let start = into.out.bytes.len();
                    raw::write_text_value(&mut into.out.bytes, text);
                    let place = Place { kind: ElementType::String, start, end: into.out.bytes.len() };
                    into.put(slot, trace, place);
                }
                (None, Some(slot)) => into.add_trace(slot, text),
                (None, None) => {}
            }
            return Some(at + text.len() + 2);
        }
        self.read_parsed(event, at, first, into)
    }

    /// The same of what is no plain text.
    fn read_parsed(&self, event: &str, at: usize, first: u8, into: &mut Values) -> Option<usize> {
        let Some((slot, keys)) = self.slot else {
            return match first {
                b'{' | b'[' => None,
                // A text that is not plain may yet be a trace.
                b'"' if self.trace.is_some() => None,
                _ if self.is_skipped => parsed(event, at, skip),
                _ => plain_integer(&event.as_bytes()[at..]).map(|(_, length)| at + length),
            };
        };
        let start = into.out.bytes.len();
        let out = Transcode { out: &mut into.out, keys, depth: 0 };
        let mut kind = None;
        let end = if let Some((integer, length)) = plain_integer(&event.as_bytes()[at..]) {
            kind = out.visit_i64::<serde_json::Error>(integer).ok();
            Some(at + length)
        } else if self.may_nest || !matches!(first, b'{' | b'[') {
            parsed(event, at, |json| {
                kind = out.deserialize(json).ok();
                kind.is_some()
            })
        } else {
            None
        };
        let place = Place { kind: kind?, start, end: into.out.bytes.len() };
        into.put(slot, self.trace, place);
        end
    }
}

/// Has a parser read the value at a place in an event; answers where it ends.
pub(super) fn parsed<'e>(
    event: &'e str,
    at: usize,
    read: impl FnOnce(&mut serde_json::Deserializer<serde_json::de::StrRead<'e>>) -> bool,
) -> Option<usize> {
    let mut json = serde_json::Deserializer::from_str(event.get(at..)?);
    read(&mut json).then(|| at + json.into_iter::<IgnoredAny>().byte_offset())
}

pub(super) fn skip<'e>(json: &mut serde_json::Deserializer<serde_json::de::StrRead<'e>>) -> bool {
    IgnoredAny::deserialize(json).is_ok()
}

/// The text up to a quotation mark, if there is nothing in it that JSON has a second way of writing.
#[inline]
pub(super) fn plain_text(bytes: &[u8]) -> Option<&[u8]> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    // Eight bytes at a time: the highest bit of each that is zero, and perhaps of some behind it.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
    let special = |word: u64| {
        let quotes = zeros(word ^ (ONES * u64::from(b'"')));
        let escapes = zeros(word ^ (ONES * u64::from(b'\\')));
        let controls = word.wrapping_sub(ONES * 0x20) & !word;
        (quotes | escapes | controls) & (ONES << 7)
    };
    let (words, last) = bytes.as_chunks::<8>();
    let found = words.iter().enumerate().find_map(|(n, word)| match special(u64::from_le_bytes(*word)) {
        0 => None,
        special => Some(n * 8 + special.trailing_zeros() as usize / 8),
    });
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | ..0x20);
    let end = match found {
        Some(end) => end,
        None => words.len() * 8 + last.iter().position(is_special)?,
    };
    (bytes[end] == b'"').then(|| &bytes[..end])
}

/// An integer at the beginning, if JSON has no second way of writing it, and its length.
pub(super) fn plain_integer(bytes: &[u8]) -> Option<(i64, usize)> {
    // More may not fit.
    const MOST: usize = 18;
    let sign = usize::from(bytes.first() == Some(&b'-'));
    let (mut sum, mut end) = (0_i64, sign);
    let behind = loop {
        let byte = *bytes.get(end)?;
        if !byte.is_ascii_digit() {
            break byte;
        }
        if end - sign == MOST {
            return None;
        }
        sum = sum * 10 + i64::from(byte - b'0');
        end += 1;
    };
    let first = bytes[sign];
    // `-0` is a double, and `01` is nothing.
    let is_plain = end > sign && (first != b'0' || end == 1) && !matches!(behind, b'.' | b'e' | b'E');
    is_plain.then_some((if sign == 1 { -sum } else { sum }, end))
}

/// Finds out what is where in an event, which is known to be JSON.
pub(super) struct Survey<'e> {
    event: &'e str,
    at: usize,
    /// Up to where the text is taken, or belongs to a value.
    taken: usize,
    pub(super) values: Vec<Expected>,
    /// Where the values are.
    pub(super) places: Vec<Range<usize>>,
    pub(super) text: String,
}

impl<'e> Survey<'e> {
    /// None if the event has no shape, or none that is worth it.
    pub(super) fn of(paths: &Paths, event: &'e str) -> Option<Self> {
        let (values, places) = (Vec::new(), Vec::new());
        let mut survey = Survey { event, at: 0, taken: 0, values, places, text: String::new() };
        survey.space();
        survey.object(Some(&paths.root), 0)?;
        survey.at = event.len();
        Some(survey)
    }

    fn object(&mut self, node: Option<&Node>, depth: usize) -> Option<()> {
        self.entered(b'{', depth)?;
        while self.peek()? != b'}' {
            let key = self.string()?;
            // A key with an escape may be a path's key.
            if key.contains('\\') {
                return None;
            }
            let child = node.and_then(|node| Some(&node.children[node.child(key)?].1));
            self.space();
            self.at += 1;
            self.value(child, depth + 1)?;
            self.next_item();
        }
        self.at += 1;
        Some(())
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.entered(b'[', depth)?;
        while self.peek()? != b']' {
            self.value(None, depth + 1)?;
            self.next_item();
        }
        self.at += 1;
        Some(())
    }

    fn value(&mut self, node: Option<&Node>, depth: usize) -> Option<()> {
        self.space();
        let is_read_whole = node.is_some_and(|node| node.slot.is_some() || !node.has_data);
        match self.peek()? {
            b'{' if !is_read_whole => return self.object(node, depth),
            // Places in an array can be a path's keys.
            b'[' if node.is_some_and(|node| !node.children.is_empty()) => return None,
            b'[' if !is_read_whole => return self.array(depth),
            _ => {}
        }
        if self.values.len() == MOST_VALUES {
            return None;
        }
        let before = self.take_text();
        self.values.push(Expected {
            before,
            slot: node.and_then(|node| node.slot),
            trace: node.and_then(|node| node.trace),
            may_nest: node.is_some_and(|node| node.slot.is_some() && node.children.is_empty()),
            is_skipped: node.is_none_or(|node| !node.has_data),
        });
        let start = self.at;
        self.at = parsed(self.event, start, skip)?;
        self.places.push(start..self.at);
        self.taken = self.at;
        Some(())
    }

    /// What stands here that belongs to the shape, and was not taken yet.
    fn take_text(&mut self) -> Range<usize> {
        let start = self.text.len();
        self.text.push_str(&self.event[self.taken..self.at]);
        start..self.text.len()
    }

    fn entered(&mut self, bracket: u8, depth: usize) -> Option<()> {
        if self.peek()? != bracket || depth == MOST_DEEP {
            return None;
        }
        self.at += 1;
        self.space();
        Some(())
    }

    /// Goes on to the next item of an object or array, or to its end.
    fn next_item(&mut self) {
        self.space();
        if self.peek() == Some(b',') {
            self.at += 1;
            self.space();
        }
    }

    /// What is between the quotation marks, as it is written.
    fn string(&mut self) -> Option<&'_ str> {
        let end = parsed(self.event, self.at, skip)?;
        let text = self.event.get(self.at + 1..end - 1);
        self.at = end;
        text
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.event.as_bytes().get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::super::extract::Extracted;
    use super::*;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const VALUES: &[&str] = &[
        "\"plain\"",
        "\"a somewhat longer text, of more than eight bytes\"",
        "\"\"",
        "\"with \\n and \\u00e9\"",
        "\"é\"",
        "\"12345678\\\"\"",
        "\"no end",
        "\"control \u{1}\"",
        "\"\\ud800\"",
        "0",
        "-0",
        "-7",
        "01",
        "-",
        "1.5",
        "1e2",
        "1e999",
        "123456789012345678",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        "123456789012345678901234567890",
        "true",
        "null",
        "tru",
        "{}",
        "[]",
        "[1,{\"b\":2}]",
        "{\"b\":\"x\",\"a\":{\"c\":[1]}}",
        "{\"$bad\":1}",
        "{\"a.b\":1}",
        "{\"a\":1,\"a\":2}",
        "",
    ];

    /// An event with a `\u{0}` for each value.
    fn template(random: &mut fastrand::Rng, depth: usize, out: &mut String) {
        let keys = ["a", "b", "c", "d", "traceparent", "0", "e\\u0066", "g h"];
        let space = |random: &mut fastrand::Rng| if random.u8(..9) == 0 { " \n" } else { "" };
        out.push('{');
        for n in 0..random.usize(..4) {
            if n > 0 {
                out.push(',');
            }
            let key = keys[random.usize(..keys.len())];
            *out += &format!("{}\"{key}\"{}:{}", space(random), space(random), space(random));
            match random.u8(..8) {
                0 | 1 if depth < 3 => template(random, depth + 1, out),
                2 => *out += "[\0,\0]",
                _ => out.push('\0'),
            }
            *out += space(random);
        }
        out.push('}');
    }

    fn fill(template: &str, random: &mut fastrand::Rng) -> String {
        let mut event = String::new();
        for part in template.split_inclusive('\0') {
            let text = part.trim_end_matches('\0');
            event += text;
            if text.len() < part.len() {
                // Mostly what differs in nothing but its text.
                let among = if random.u8(..4) > 0 { 3 } else { VALUES.len() };
                let trace = format!("\"{TRACE}\"");
                event += if random.u8(..8) == 0 { &trace } else { VALUES[random.usize(..among)] };
            }
        }
        if random.u8(..12) == 0 {
            let gone = random.usize(..event.chars().count());
            event = event.chars().enumerate().filter(|(at, _)| *at != gone).map(|(_, c)| c).collect();
        }
        event
    }

    fn paths(random: &mut fastrand::Rng) -> Paths {
        let mut paths = if random.u8(..8) == 0 { Paths::strict() } else { Paths::default() };
        let keys = [Keys::Data, Keys::Merge, Keys::Document, Keys::Update];
        for path in ["a", "a.b", "b.a", "b.c", "c", "c.0", "d.a.b", "ef", "0"] {
            if random.bool() {
                paths.add(path, keys[random.usize(..keys.len())]);
            }
        }
        for path in ["traceparent", "b.traceparent", "c.d", "a"] {
            if random.u8(..3) == 0 {
                paths.add_trace(path);
            }
        }
        paths
    }

    /// All that an event comes to.
    fn outcome(extracted: &mut Extracted, paths: &Paths, event: &str) -> String {
        let result = extracted.extract(paths, event);
        let slots = (0..paths.slots).map(Slot);
        let read = |slot| (extracted.get(slot), extracted.trace(slot));
        let values: Vec<_> = if result.is_ok() { slots.map(read).collect() } else { Vec::new() };
        format!("{result:?} {values:?}")
    }

    #[test]
    fn an_event_means_the_same_whether_or_not_its_shape_is_known() {
        let (mut known, mut all) = (0, 0);
        for seed in 0..3_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let paths = paths(&mut random);
            let mut shapes = [String::new(), String::new(), String::new()];
            shapes.iter_mut().for_each(|shape| template(&mut random, 0, shape));
            let mut experienced = Extracted::default();
            for _ in 0..30 {
                let event = fill(&shapes[random.usize(..shapes.len())], &mut random);
                let expected = outcome(&mut Extracted::default(), &paths, &event);
                assert_eq!(outcome(&mut experienced, &paths, &event), expected, "seed {seed}: {event}");
                known += u32::from(experienced.shapes.recalled);
                all += 1;
            }
        }
        assert!(known > all / 4, "only {known} of {all} events had a known shape");
    }

    fn knows(first: &str, then: &str) -> bool {
        let mut paths = Paths::default();
        paths.add("p.id", Keys::Data);
        paths.add("p.data", Keys::Data);
        let mut extracted = Extracted::default();
        extracted.extract(&paths, first).unwrap();
        extracted.extract(&paths, then).unwrap();
        extracted.shapes.recalled
    }

    #[test]
    fn events_that_differ_in_values_only_are_known() {
        let first = r#"{"type":"EDIT","p":{"id":"doc-1","data":"x","n":[1,"a"]},"ok":true}"#;
        for then in [
            first,
            r#"{"type":"a type of some length","p":{"id":"","data":"x\ny","n":[-2.5,"b"]},"ok":false}"#,
            r#"{"type":7,"p":{"id":4711,"data":{"any":["thing"]},"n":[null,"\""]},"ok":"é"}"#,
        ] {
            assert!(knows(first, then), "{then}");
        }
        for then in [
            r#"{"type":"EDIT","p":{"id":"doc-1","data":"x","n":[1,"a"]},"ok":true} "#,
            r#"{"type":"EDIT","p":{"id":"doc-1","data":"x","n":[1]},"ok":true}"#,
            r#"{"type":"EDIT","p":{"data":"x","id":"doc-1","n":[1,"a"]},"ok":true}"#,
            r#"{"type":{},"p":{"id":"doc-1","data":"x","n":[1,"a"]},"ok":true}"#,
        ] {
            assert!(!knows(first, then), "{then}");
        }
    }

    #[test]
    fn the_end_of_a_plain_text_is_found_wherever_it_is() {
        for length in 0..40 {
            let text = "x".repeat(length);
            for (end, plain) in [("\"", true), ("\\", false), ("\u{1f}", false), ("", false)] {
                let behind = if end.is_empty() { text.clone() } else { format!("{text}{end}é\"\\") };
                let expected = plain.then_some(text.as_bytes());
                assert_eq!(plain_text(behind.as_bytes()), expected, "{behind:?}");
            }
        }
    }

    #[test]
    fn plain_integers_are_read_and_others_left_alone() {
        assert_eq!(plain_integer(b"0,"), Some((0, 1)));
        assert_eq!(plain_integer(b"-123456789012345678}"), Some((-123_456_789_012_345_678, 19)));
        for other in ["1234567890123456789,", "-0,", "01,", "1.0,", "1e1,", "-,", "x", "12"] {
            assert_eq!(plain_integer(other.as_bytes()), None, "{other}");
        }
    }
}

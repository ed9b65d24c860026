//! Picks the values that routes name out of an event, in one pass over its text.
//!
//! The paths of all routes form one tree. The parser is steered by it: what no route names is skipped,
//! what one names is transcoded to BSON into a scratch buffer and found again by its slot.

use bson::spec::ElementType;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny};

use super::KEPT;
use super::descend::Descend;
use super::paths::{Node, Paths, Slot};
use super::surrogates::{self, REPLACEMENT};
use super::transcode::{KeyRule, Output, Transcode, has_wide_integer};
use crate::dead_letter::{Reason, Rejection};
use crate::raw::{self, ValueRef};
use crate::trace::TraceRef;

/// The values extracted from one event; reused from event to event.
#[derive(Debug, Default)]
pub(super) struct Extracted {
    pub(super) out: Output,
    /// The event's number. What has another is of an earlier event, and has not to be cleared.
    event: u64,
    slots: Vec<SlotPlace>,
    /// Nodes, by number, and the last event that has them.
    seen: Vec<u64>,
    /// The event had halves of surrogate pairs, which were replaced.
    is_mended: bool,
    /// No data is read, so that nothing in it can hide a trace.
    pub(super) only_traces: bool,
}

/// Where a slot's value is, and of which event.
#[derive(Debug, Clone, Copy)]
struct SlotPlace {
    event: u64,
    kind: ElementType,
    start: usize,
    end: usize,
}

impl Extracted {
    /// What takes only the traces out of events.
    pub(super) fn of_traces() -> Self {
        Extracted { only_traces: true, ..Extracted::default() }
    }

    /// Extracts the values at `paths` from the JSON text `event`. Whoever reads them [checks](Self::check_keys) their keys.
    ///
    /// # Errors
    /// The event is not JSON, is not of an event's shape, or a value named by a path breaks another rule for data.
    pub(super) fn extract(&mut self, paths: &Paths, event: &str) -> Result<(), Rejection> {
        let refused = match self.extract_as_it_is(paths, event) {
            Err(rejection) if rejection.reason == Reason::NotJson => rejection,
            done => return done,
        };
        let mended = surrogates::mended(event).ok_or(refused)?;
        let read = self.extract_as_it_is(paths, &mended);
        self.is_mended = true;
        read
    }

    /// Whether a value may have a bad key.
    pub(super) fn is_suspect(&self) -> bool {
        self.is_mended || self.out.bad_key
    }

    /// Checks the keys of the values in these slots, which are to be read under these rules. Another reader may have
    /// other rules, so until then a bad key is nobody's concern.
    ///
    /// # Errors
    /// One is bad.
    #[inline]
    pub(super) fn check_keys(&self, reads: &[(Slot, KeyRule)]) -> Result<(), Rejection> {
        if self.is_suspect() { self.check_suspect_keys(reads) } else { Ok(()) }
    }

    fn check_suspect_keys(&self, reads: &[(Slot, KeyRule)]) -> Result<(), Rejection> {
        for (value, keys) in reads.iter().filter_map(|(slot, keys)| Some((self.get(*slot)?, keys))) {
            keys.check_encoded(value)?;
            // Where texts differ in what was replaced, they are the same now: keys must not be.
            if self.is_mended && has_mended_key(value) {
                return Err(Rejection::new(Reason::BadKey, "a key has half of a surrogate pair"));
            }
        }
        Ok(())
    }

    /// Whether the event had halves of surrogate pairs, which were replaced.
    #[must_use]
    pub(super) fn is_mended(&self) -> bool {
        self.is_mended
    }

    fn extract_as_it_is(&mut self, paths: &Paths, event: &str) -> Result<(), Rejection> {
        self.begin(paths);
        if event.len() > KEPT {
            // What doubles would take much more.
            self.out.bytes.reserve_exact(event.len());
        }
        match event.trim_start().as_bytes().first() {
            None => return Err(Rejection::new(Reason::NotJson, "the event is empty")),
            Some(b'{') => {}
            Some(b'[') if paths.takes_arrays() => {}
            Some(_) if serde_json::from_str::<IgnoredAny>(event).is_ok() => {
                return Err(Rejection::new(Reason::BadEvent, "the event is not a JSON object"));
            }
            Some(_) => {}
        }
        let mut json = serde_json::Deserializer::from_str(event);
        let descend = Descend { node: &paths.root, into: self, strict: paths.strict };
        let done = descend.deserialize(&mut json).and_then(|()| json.end());
        if let Err(error) = done {
            return Err(self.out.rejection.take().unwrap_or_else(|| not_json(&error)));
        }
        if self.out.wide_number && has_wide_integer(event) {
            return Err(Rejection::new(Reason::BadNumber, "an integer does not fit 64 bits"));
        }
        Ok(())
    }

    /// Gives back what large events took.
    pub(super) fn shrink(&mut self) {
        self.out.bytes.clear();
        self.out.bytes.shrink_to(KEPT);
    }

    /// Begins with another event.
    #[inline]
    fn begin(&mut self, paths: &Paths) {
        self.event += 1;
        self.is_mended = false;
        self.out.clear();
        self.slots.resize(paths.slots, SlotPlace { event: 0, kind: ElementType::Null, start: 0, end: 0 });
        self.seen.resize(paths.nodes, 0);
    }

    /// Begins with another event, whose plain values are encoded where they stand: over the text before them.
    #[inline]
    pub(super) fn begin_with(&mut self, paths: &Paths, event: &str) {
        self.begin(paths);
        self.out.bytes.extend_from_slice(event.as_bytes());
    }

    /// Takes the text of so many bytes that stands at a place, behind a key, and has no escapes.
    #[inline]
    pub(super) fn take_text(&mut self, slots: [Option<Slot>; 2], at: usize, len: usize) -> Option<()> {
        if let [None, None] = slots {
            return Some(());
        }
        let (start, end) = (at.checked_sub(size_of::<i32>())?, at + len + 1);
        raw::make_text_value(self.out.bytes.get_mut(start..end)?);
        self.put(slots, SlotPlace { event: self.event, kind: ElementType::String, start, end });
        Some(())
    }

    /// Takes the integer that stands behind a key, and ends at a place.
    #[inline]
    pub(super) fn take_integer(&mut self, slots: [Option<Slot>; 2], end: usize, n: i64) -> Option<()> {
        if let [None, None] = slots {
            return Some(());
        }
        // A long one has more digits than bytes.
        let (kind, len) =
            if i32::try_from(n).is_ok() { (ElementType::Int32, 4) } else { (ElementType::Int64, 8) };
        let start = end.checked_sub(len)?;
        self.out.bytes.get_mut(start..end)?.copy_from_slice(&n.to_le_bytes()[..len]);
        self.put(slots, SlotPlace { event: self.event, kind, start, end });
        Some(())
    }

    /// Takes a value from a parser.
    pub(super) fn take_json<'de, D: Deserializer<'de>>(
        &mut self,
        slots: [Option<Slot>; 2],
        keys: KeyRule,
        json: D,
    ) -> Result<ElementType, D::Error> {
        let start = self.out.bytes.len();
        let kind = Transcode { out: &mut self.out, keys, depth: 0 }.deserialize(json)?;
        self.fill(slots, kind, start);
        Ok(kind)
    }

    /// Puts what was written from `start` on into slots.
    fn fill(&mut self, slots: [Option<Slot>; 2], kind: ElementType, start: usize) {
        self.put(slots, SlotPlace { event: self.event, kind, start, end: self.out.bytes.len() });
    }

    #[inline]
    fn put(&mut self, slots: [Option<Slot>; 2], place: SlotPlace) {
        let [slot, trace] = slots;
        if let Some(slot) = slot {
            self.slots[slot.0] = place;
        }
        if let Some(slot) = trace {
            self.slots[slot.0] = place;
        }
    }

    /// The value of a slot, if the event has one.
    #[inline]
    #[must_use]
    pub(super) fn get(&self, slot: Slot) -> Option<ValueRef<'_>> {
        let place = self.slots[slot.0];
        (place.event == self.event).then(|| self.value(place))
    }

    /// Whether a number is so large that all of the event's had to be looked at.
    #[must_use]
    pub(super) fn has_wide_number(&self) -> bool {
        self.out.wide_number
    }

    fn value(&self, place: SlotPlace) -> ValueRef<'_> {
        ValueRef { kind: place.kind, bytes: &self.out.bytes[place.start..place.end] }
    }

    /// The trace in a slot, if there is a valid one.
    #[must_use]
    pub(super) fn trace(&self, slot: Slot) -> Option<TraceRef<'_>> {
        TraceRef::new(self.get(slot)?.text()?.as_bytes())
    }

    pub(super) fn add_trace(&mut self, slot: Slot, text: &str) {
        let start = self.out.bytes.len();
        raw::write_text_value(&mut self.out.bytes, text);
        self.fill([Some(slot), None], ElementType::String, start);
    }

    /// Takes the traces from a value that is read for nothing else, whatever else is in it.
    pub(super) fn take_traces(&mut self, node: &Node, json: &str) {
        // A trace has no characters that are ever escaped.
        let text = json.strip_prefix('"').and_then(|json| json.strip_suffix('"'));
        if let Some(slot) = node.trace
            && let Some(text) = text.filter(|text| TraceRef::new(text.as_bytes()).is_some())
        {
            self.add_trace(slot, text);
        }
        if !node.children.is_empty() {
            let mut json = serde_json::Deserializer::from_str(json);
            // What is wrong with it is nobody's concern.
            let _ = Descend { node, into: self, strict: false }.deserialize(&mut json);
        }
    }

    /// Whether the event has a node for a second time.
    pub(super) fn has_seen(&mut self, node: &Node) -> bool {
        std::mem::replace(&mut self.seen[node.number], self.event) == self.event
    }

    /// Fills the slots below a value that was transcoded whole.
    pub(super) fn fill_below(&mut self, node: &Node, slot: Slot) {
        self.fill_below_place(node, self.slots[slot.0]);
    }

    fn fill_below_place(&mut self, node: &Node, parent: SlotPlace) {
        if !matches!(parent.kind, ElementType::EmbeddedDocument | ElementType::Array) {
            return;
        }
        for (key, child) in &node.children {
            let Some(value) = raw::find(self.value(parent).bytes, key) else { continue };
            let is_stricter = |keys: &KeyRule| matches!(keys, KeyRule::Merge | KeyRule::Document);
            let keys = child.slot.map(|(_, keys)| keys).filter(is_stricter);
            let bad_key = keys.is_some_and(|keys| keys.check_encoded(value).is_err());
            let kind = value.kind;
            let start = value.bytes.as_ptr() as usize - self.out.bytes.as_ptr() as usize;
            let place = SlotPlace { kind, start, end: start + value.bytes.len(), ..parent };
            self.out.bad_key |= bad_key;
            self.put([child.slot.map(|(slot, _)| slot), child.trace], place);
            self.fill_below_place(child, place);
        }
    }
}

fn has_mended_key(value: ValueRef<'_>) -> bool {
    let nests =
        |value: ValueRef<'_>| matches!(value.kind, ElementType::EmbeddedDocument | ElementType::Array);
    nests(value)
        && raw::elements(value.bytes).any(|(key, value)| key.contains(REPLACEMENT) || has_mended_key(value))
}

fn not_json(error: &serde_json::Error) -> Rejection {
    let text = error.to_string();
    if text.starts_with("recursion limit") {
        return Rejection::new(Reason::TooDeep, format!("the event is nested too deep: {text}"));
    }
    if text.starts_with("number out of range") {
        return Rejection::new(Reason::BadNumber, format!("a number is out of range: {text}"));
    }
    Rejection::new(Reason::NotJson, format!("the event is not JSON: {text}"))
}

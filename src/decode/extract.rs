//! Picks the values that routes name out of an event, in one pass over its text.
//!
//! The paths of all routes form one tree. The parser is steered by it: what no route names is skipped,
//! what one names is transcoded to BSON into a scratch buffer and found again by its slot.

use std::fmt;

use bson::spec::ElementType;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::paths::{Node, Paths, Slot};
use super::surrogates::{self, REPLACEMENT};
use super::transcode::{KeyRule, Output, Transcode, has_wide_integer};
use crate::dead_letter::{Reason, Rejection};
use crate::raw::{self, ValueRef};
use crate::trace::TraceRef;

/// The values extracted from one event; reused from event to event.
#[derive(Debug, Default)]
pub(super) struct Extracted {
    out: Output,
    slots: Vec<Option<SlotPlace>>,
    /// Nodes that were come across, by number.
    seen: Vec<bool>,
    /// The event had halves of surrogate pairs, which were replaced.
    is_mended: bool,
    /// No data is read, so that nothing in it can hide a trace.
    only_traces: bool,
}

#[derive(Debug, Clone, Copy)]
struct SlotPlace {
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
        self.is_mended = false;
        let refused = match self.extract_as_it_is(paths, event) {
            Err(rejection) if rejection.reason == Reason::NotJson => rejection,
            done => return done,
        };
        let mended = surrogates::mended(event).ok_or(refused)?;
        self.is_mended = true;
        self.extract_as_it_is(paths, &mended)
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
    pub(super) fn check_keys(&self, reads: &[(Slot, KeyRule)]) -> Result<(), Rejection> {
        if !self.is_suspect() {
            return Ok(());
        }
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
        self.out.clear();
        self.slots.clear();
        self.slots.resize(paths.slots, None);
        self.seen.clear();
        self.seen.resize(paths.nodes, false);
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

    /// The value of a slot, if the event has one.
    #[must_use]
    pub(super) fn get(&self, slot: Slot) -> Option<ValueRef<'_>> {
        self.slots[slot.0].map(|place| self.value(place))
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

    fn add_trace(&mut self, slot: Slot, text: &str) {
        let start = self.out.bytes.len();
        raw::write_text_value(&mut self.out.bytes, text);
        self.slots[slot.0] = Some(SlotPlace { kind: ElementType::String, start, end: self.out.bytes.len() });
    }

    /// Takes the traces from a value that is read for nothing else, whatever else is in it.
    fn take_traces(&mut self, node: &Node, json: &str) {
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

    /// Fills the slots below a value that was transcoded whole.
    fn fill_below(&mut self, node: &Node, parent: SlotPlace) {
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
            let place = SlotPlace { kind, start, end: start + value.bytes.len() };
            self.out.bad_key |= bad_key;
            for slot in child.slot.map(|(slot, _)| slot).into_iter().chain(child.trace) {
                self.slots[slot.0] = Some(place);
            }
            self.fill_below(child, place);
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

/// Visits the part of an event that lies on the way to a path's value.
struct Descend<'p, 'x> {
    node: &'p Node,
    into: &'x mut Extracted,
    strict: bool,
}

impl<'de> DeserializeSeed<'de> for Descend<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'p> Descend<'p, '_> {
    /// The seed for the value of child `at`.
    fn value(&mut self, at: usize) -> ChildValue<'p, '_> {
        ChildValue { node: &self.node.children[at].1, into: self.into }
    }
}

impl<'de> Visitor<'de> for Descend<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(found) = map.next_key_seed(ChildKey { node: self.node, strict: self.strict })? {
            match found {
                Step::Child(at) => {
                    let (key, child) = &self.node.children[at];
                    if std::mem::replace(&mut self.into.seen[child.number], true)
                        && child.has_data
                        && !self.into.only_traces
                    {
                        let text = format!("the key {key:?} occurs twice");
                        return Err(self.into.out.stop(Rejection::new(Reason::DuplicateKey, text)));
                    }
                    map.next_value_seed(self.value(at))?;
                }
                Step::Unnamed => {
                    map.next_value::<IgnoredAny>()?;
                }
                Step::Unknown(key) => {
                    let text = format!("a native event has no field {key:?}");
                    return Err(self.into.out.stop(Rejection::new(Reason::BadEvent, text)));
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        for index in 0_usize.. {
            let more = match self.node.child(&index.to_string()) {
                Some(at) => seq.next_element_seed(self.value(at))?.is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if let Some(slot) = self.node.trace
            && TraceRef::new(text.as_bytes()).is_some()
        {
            self.into.add_trace(slot, text);
        }
        Ok(())
    }
}

/// Which child of the node a key names.
struct ChildKey<'p> {
    node: &'p Node,
    strict: bool,
}

enum Step {
    Child(usize),
    Unnamed,
    Unknown(String),
}

impl<'de> DeserializeSeed<'de> for ChildKey<'_> {
    type Value = Step;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Step, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for ChildKey<'_> {
    type Value = Step;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Step, E> {
        Ok(match self.node.child(key) {
            Some(at) => Step::Child(at),
            None if self.strict => Step::Unknown(key.to_owned()),
            None => Step::Unnamed,
        })
    }
}

/// Takes the value of a node: transcodes it if a path ends here, descends otherwise.
struct ChildValue<'p, 'x> {
    node: &'p Node,
    into: &'x mut Extracted,
}

impl<'de> DeserializeSeed<'de> for ChildValue<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if !self.node.has_data || self.into.only_traces {
            let json = <&RawValue>::deserialize(deserializer)?;
            self.into.take_traces(self.node, json.get());
            return Ok(());
        }
        let Some((slot, keys)) = self.node.slot else {
            return Descend { node: self.node, into: self.into, strict: false }.deserialize(deserializer);
        };
        let start = self.into.out.bytes.len();
        let kind = Transcode { out: &mut self.into.out, keys, depth: 0 }.deserialize(deserializer)?;
        let place = SlotPlace { kind, start, end: self.into.out.bytes.len() };
        for slot in [slot].into_iter().chain(self.node.trace) {
            self.into.slots[slot.0] = Some(place);
        }
        if !self.node.children.is_empty() {
            self.into.fill_below(self.node, place);
        }
        Ok(())
    }
}

//! What a route makes of events of one type, worked out once.
//!
//! In the events of a type the keys are where they were in the one before, and what `when` asks for has the same value. So the
//! route is the same, and what is left to do is to put the few other values where they belong. A plan knows plain texts
//! and integers only. Whatever else an event has, and whatever would have it refused, is left to those who work without a plan; so
//! plans never change what an event means.

use std::ops::Range;

use bson::spec::ElementType;
use smallvec::SmallVec;

use super::extract::Extracted;
use super::field::{Field, Operand};
use super::memory::Memory;
use super::ops::Ops;
use super::paths::{Paths, Slot};
use super::route::{Route, RouteEffect, Target};
use super::shape::{Survey, parsed, plain_integer, plain_text, skip};
use super::source::{At, Id, Source};
use super::text_time;
use crate::change::{Change, CollectionId, Effect, EntityRef, FieldOp, FieldOps, Op};
use crate::raw::{self, Number, Value, ValueRef};

/// Larger events may be larger than what MongoDB takes.
const LARGEST: usize = 1 << 20;

/// The plans for a decoder's events.
pub(super) type Plans = Memory<Plan>;

/// A plan.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    /// The route's place among all.
    route: usize,
    collection: CollectionId,
    values: Vec<Expected>,
    /// What stands before the values, one behind the other, and behind the last.
    text: String,
    end: Range<usize>,
    /// Which of the values is the id.
    id: usize,
    ts: Option<usize>,
    writes: Vec<Write>,
}

/// A value, and what stands before it.
#[derive(Debug, PartialEq)]
struct Expected {
    before: Range<usize>,
    /// Nobody looks at it.
    is_skipped: bool,
}

#[derive(Debug, PartialEq)]
enum Write {
    Fixed {
        op: Op,
        path: String,
        value: Value,
    },
    /// Of the value at this place.
    Event {
        op: Op,
        path: String,
        value: usize,
    },
}

/// What an event has in the place of a value.
#[derive(Debug, Clone, Copy)]
enum Found<'e> {
    Text(&'e [u8]),
    Integer(i64),
    Skipped,
}

/// Where a planned change is put together.
#[derive(Debug)]
pub(super) struct Draft {
    id_kind: ElementType,
    id: Vec<u8>,
    ts: Option<i64>,
    collection: CollectionId,
}

impl Default for Draft {
    fn default() -> Self {
        Draft { id_kind: ElementType::Null, id: Vec::new(), ts: None, collection: CollectionId(0) }
    }
}

impl Draft {
    /// The change; its operations are in `ops`.
    pub(super) fn change<'a>(&'a self, ops: &'a Ops) -> Change<'a> {
        let id = ValueRef { kind: self.id_kind, bytes: &self.id };
        let entity = EntityRef { collection: self.collection, id, shard_key: &[] };
        Change { entity, effect: Effect::Update(FieldOps::new(&ops.bytes)), ts: self.ts, traceparent: None }
    }
}

impl Plan {
    /// A plan for events like `event`, of which `routes[route]` made a change. None if it takes more than a plan can do.
    pub(super) fn new(
        paths: &Paths,
        event: &str,
        extracted: &Extracted,
        routes: &[Route],
        route: usize,
    ) -> Option<Self> {
        let before = &routes[..route];
        let number = route;
        let route = &routes[route];
        let (Target::Fixed(collection), Id::One(Source::Event(id))) = (&route.collection, &route.id) else {
            return None;
        };
        let RouteEffect::Update { fields, yjs: None, merge: None, patch: None } = &route.effect else {
            return None;
        };
        // One that would have taken the event, had it an id, may find one in another.
        if !route.shard_key.is_empty() || before.iter().any(|route| route.holds(extracted)) {
            return None;
        }
        let asked = |slot: Slot| {
            before.iter().chain([route]).flat_map(|route| &route.when).any(|(at, _)| at.slot == slot)
        };

        let survey = Survey::of(paths, event)?;
        let (mut values, mut slots, mut text) = (Vec::new(), Vec::new(), String::new());
        let mut start = 0;
        for (value, place) in survey.values.iter().zip(&survey.places) {
            if value.trace.is_some() && value.trace == route.traceparent {
                return None;
            }
            text.push_str(&survey.text[value.before.clone()]);
            let slot = value.slot.map(|(slot, _)| slot);
            if slot.is_some_and(asked) {
                text.push_str(&event[place.clone()]);
                continue;
            }
            values.push(Expected { before: start..text.len(), is_skipped: value.is_skipped });
            slots.push(slot);
            start = text.len();
        }
        text.push_str(&event[survey.places.last().map_or(0, |place| place.end)..]);

        let place_of = |at: &At| slots.iter().position(|slot| *slot == Some(at.slot));
        let mut writes = Vec::new();
        for Field { op, path, source, operand } in fields {
            let (op, path) = (*op, path.clone());
            match (source, operand) {
                (Source::Fixed(value), Operand::Value) => {
                    writes.push(Write::Fixed { op, path, value: value.clone() });
                }
                (Source::Event(at), Operand::Value) => match place_of(at) {
                    Some(value) => writes.push(Write::Event { op, path, value }),
                    // What `when` asks for has its place in the text; what the event has not is not written.
                    None if asked(at.slot) || extracted.get(at.slot).is_some() => return None,
                    None => {}
                },
                _ => return None,
            }
        }
        let ts = match &route.ts {
            None => None,
            Some(at) => match place_of(at) {
                None if extracted.get(at.slot).is_some() => return None,
                place => place,
            },
        };
        let end = start..text.len();
        Some(Plan {
            route: number,
            collection: *collection,
            values,
            id: place_of(id)?,
            ts,
            writes,
            text,
            end,
        })
    }

    /// Makes the change of an event that is like the one that the plan was made for. Answers the route.
    pub(super) fn follow(&self, event: &str, draft: &mut Draft, ops: &mut Ops) -> Option<usize> {
        let (bytes, text) = (event.as_bytes(), self.text.as_bytes());
        if bytes.len() > LARGEST {
            return None;
        }
        let mut found: SmallVec<[Found<'_>; 16]> = SmallVec::new();
        let mut at = 0;
        for expected in &self.values {
            let before = &text[expected.before.clone()];
            let rest = bytes.get(at..)?.strip_prefix(before)?;
            at += before.len();
            let (value, length) = match rest.first()? {
                b'"' if let Some(text) = plain_text(&rest[1..]) => (Found::Text(text), text.len() + 2),
                _ => match plain_integer(rest) {
                    Some((integer, length)) => (Found::Integer(integer), length),
                    None if expected.is_skipped && !matches!(rest.first(), Some(b'{' | b'[')) => {
                        (Found::Skipped, parsed(event, at, skip)? - at)
                    }
                    None => return None,
                },
            };
            found.push(value);
            at += length;
        }
        if bytes.get(at..)? != &text[self.end.clone()] {
            return None;
        }
        self.write(&found, draft, ops)?;
        Some(self.route)
    }

    fn write(&self, found: &[Found<'_>], draft: &mut Draft, ops: &mut Ops) -> Option<()> {
        draft.collection = self.collection;
        draft.id.clear();
        draft.id_kind = match found[self.id] {
            Found::Text([]) | Found::Skipped => return None,
            Found::Text(text) => {
                raw::write_text_value(&mut draft.id, text);
                ElementType::String
            }
            Found::Integer(integer) => {
                let id = Value::from(Number::int(integer));
                draft.id.extend_from_slice(id.get().bytes);
                id.get().kind
            }
        };
        draft.ts = match self.ts.map(|at| found[at]) {
            None => None,
            Some(Found::Integer(ms)) => Some(ms),
            Some(Found::Text(text)) => std::str::from_utf8(text).ok().and_then(text_time),
            Some(Found::Skipped) => return None,
        };
        ops.clear();
        for write in &self.writes {
            match write {
                Write::Fixed { op, path, value } => {
                    ops.add(FieldOp { op: *op, path, value: value.get() }).ok()?;
                }
                Write::Event { op, path, value } => match found[*value] {
                    Found::Text(text) => ops.add_text(*op, path, text)?,
                    Found::Integer(integer) => {
                        let value = Value::from(Number::int(integer));
                        ops.add(FieldOp { op: *op, path, value: value.get() }).ok()?;
                    }
                    Found::Skipped => return None,
                },
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Decoder;
    use super::*;
    use crate::config::Config;

    const ROUTES: &[&str] = &[
        "when = { type = 'A' }\ncollection = 'a'\nid = 'p.id'\nts = 'ts'\nset = { t = 'p.t', u = 'p.u' }\ninc = { n = 1 }",
        "when = { type = 'B', 'p.u' = 7 }\ncollection = 'b'\nid = 'p.id'\ninc = { n = 'p.t' }\nunset = ['x']",
        "when = { type = 'B' }\ncollection = 'b'\nid = { path = 'p.id', as = 'int' }\nset = { n = 'p.t' }",
        "when = { type = 'C' }\ncollection = 'a'\nid = 'p.other'\nset = { t = 'type' }",
        "when = { type = 'C' }\ncollection = 'a'\nid = 'p.id'\ntraceparent = 'trace'\nset = { t = 'p.t' }\nmax = { m = 'ts' }",
        "when = { type = 'D' }\ncollection_from = 'p.u'\ncollections = ['a', 'b']\nid = 'p.id'\nset = { t = 'p.t' }",
        "when = { flag = true }\ncollection = 'a'\nid = ['p.id', 'p.u']\nmerge = 'p.t'",
        "when = { type = 'E' }\ncollection = 'a'\nid = 'p.id'\nset = { t = 'p.t', d = { value = 'fixed' } }\npush = { log = 'p.u' }",
        "collection = 'b'\nid = 'id'\nset = { whole = 'p' }",
    ];

    const VALUES: &[&str] = &[
        "\"text\"",
        "\"a longer text of some words\"",
        "7",
        "1700000000000",
        "\"\"",
        "\"with \\n\"",
        "\"2026-01-02T03:04:05Z\"",
        "\"a\"",
        "-0",
        "0.5",
        "null",
        "true",
        "123456789012345678901",
        "{\"x\":1}",
        "{\"$x\":1}",
        "[1]",
        "\"no end",
    ];

    fn config(random: &mut fastrand::Rng) -> Config {
        let mut toml = "queues = [{ key = 'q' }]\n".to_owned();
        if random.bool() {
            toml += "native.collections = ['documents']\n";
        }
        // The last one has everything read whole.
        let (last, most) = ROUTES.split_last().unwrap();
        let mut routes: Vec<&str> = most.iter().copied().filter(|_| random.u8(..3) > 0).collect();
        routes.extend((random.u8(..6) == 0).then_some(last));
        if random.u8(..4) == 0 {
            random.shuffle(&mut routes);
        }
        routes.iter().for_each(|route| toml += &format!("[[routes]]\n{route}\n"));
        toml::from_str(&toml).unwrap()
    }

    fn event(random: &mut fastrand::Rng) -> String {
        let mut value = || {
            let among = if random.u8(..12) > 0 { 4 } else { VALUES.len() };
            VALUES[random.usize(..among)]
        };
        let (id, text, user, ts, more) = (value(), value(), value(), value(), value());
        let kind = ["A", "B", "C", "D", "E", "F"][random.usize(..6)];
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        match random.u8(..8) {
            0 => format!(r#"{{"type":"{kind}","p":{{"id":{id},"u":{user}}},"ts":{ts}}}"#),
            1 => format!(r#"{{"type":"{kind}","p":{{"id":{id},"t":{text}}},"trace":"{trace}"}}"#),
            2 => format!(r#"{{"flag":true,"p":{{"t":{text},"u":{user},"id":{id}}}}}"#),
            3 => format!(r#"{{"collection":"documents","id":{id},"update":{{"$set":{{"t":{text}}}}}}}"#),
            4 => format!(r#"{{"type":{more},"p":{{"id":{id},"t":{text},"u":{user}}},"ts":{ts}}}"#),
            _ => format!(
                r#"{{"type":"{kind}","ts":{ts},"p":{{"id":{id},"t":{text},"u":{user}}},"more":{more}}}"#
            ),
        }
    }

    fn outcome(decoder: &mut Decoder, event: &str) -> String {
        let mut route = None;
        let change = format!("{:?}", decoder.decode_routed(event.as_bytes(), &mut route));
        format!("{change} by {route:?}")
    }

    #[test]
    fn an_event_means_the_same_whether_or_not_there_is_a_plan() {
        let (mut planned, mut all) = (0, 0);
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let config = config(&mut random);
            let (mut experienced, mut fresh) = (Decoder::new(&config), Decoder::new(&config));
            for _ in 0..1_000 {
                let event = event(&mut random);
                fresh.plans = Plans::default();
                let expected = outcome(&mut fresh, &event);
                assert_eq!(outcome(&mut experienced, &event), expected, "seed {seed}: {event}\n{config:?}");
                planned += u32::from(experienced.plans.recalled);
                all += 1;
            }
        }
        // Of ten events one is of a kind that can be planned.
        assert!(planned > all / 20, "only {planned} of {all} events were planned");
    }

    #[test]
    fn events_of_the_usual_kind_are_planned() {
        let routes =
            format!("queues = [{{ key = 'q' }}]\n[[routes]]\n{}\n[[routes]]\n{}", ROUTES[0], ROUTES[7]);
        let mut decoder = Decoder::new(&toml::from_str(&routes).unwrap());
        let mut planned = |event: &str| {
            outcome(&mut decoder, event);
            decoder.plans.recalled
        };
        assert!(!planned(r#"{"type":"A","ts":1,"p":{"id":"x","t":"some","u":5}}"#));
        assert!(planned(r#"{"type":"A","ts":2,"p":{"id":7,"t":"text","u":"é"}}"#));
        assert!(!planned(r#"{"type":"E","more":null,"p":{"id":"x","t":"some"}}"#));
        assert!(planned(r#"{"type":"E","more":0.5,"p":{"id":"y","t":"thing"}}"#));
        for other in [
            r#"{"type":"B","ts":2,"p":{"id":7,"t":"text","u":5}}"#,
            r#"{"type":"A","ts":2,"p":{"id":"","t":"text","u":5}}"#,
            r#"{"type":"A","ts":2,"p":{"id":"x","t":{"a":1},"u":5}}"#,
            r#"{"type":"A","p":{"id":"x","t":"some","u":5}}"#,
        ] {
            assert!(!planned(other), "{other}");
        }
    }
}

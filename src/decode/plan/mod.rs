//! Decodes events of one type by a plan that was worked out once.
//!
//! Producers write all events of a type with the same code. The keys are where they were in the event before, and what
//! `when` asks for has the same value. So the text between the values is compared with the text that stood there
//! before, in one piece, rather than parsed and looked up. If it is the same, so is the route, and the values only have
//! to be put where they belong.
//!
//! Whatever is different in any other way is left to the general way, and so is whatever would have the event refused.
//! So plans never change what an event means, only how long it takes to find out.

mod memory;
mod plain;
#[cfg(test)]
mod random;
mod survey;
#[cfg(test)]
mod tests;

use std::ops::Range;

use bson::spec::ElementType;
use serde::de::DeserializeSeed;
use smallvec::SmallVec;

use self::memory::Memory;
use self::plain::{parsed, plain_integer, plain_text, skip};
use self::survey::{PathSurvey, PlanSurveyed};
use super::extract::Extracted;
use super::field::{Field, Operand};
use super::ops::Ops;
use super::paths::{Paths, Slot};
use super::route::{Route, RouteEffect, Target};
use super::source::{At, IdSource, ValueSource};
use super::transcode::{KeyRule, Output, Transcode};
use super::{check_size, entity_id, event_time, text_time};
use crate::change::{Change, CollectionId, Effect, EntityRef, FieldOp, FieldOps, Op};
use crate::raw::{self, Number, Value, ValueRef};

/// The largest event that is planned, or learnt from, bytes: a plan keeps its keys.
const LARGEST: usize = 64 * 1024;

/// The plans for a decoder's events.
#[derive(Debug, Default)]
pub(super) struct Plans {
    known: Memory<Plan>,
    draft: Draft,
}

impl Plans {
    /// Makes the [`change`](Self::change) of an event that is like others. Answers its route.
    #[inline]
    pub(super) fn follow(&mut self, event: &str, ops: &mut Ops) -> Option<usize> {
        if event.len() > LARGEST {
            return None;
        }
        let Plans { known, draft } = self;
        known.recall(|plan| plan.follow(event, draft, ops))
    }

    /// What was made last, with the operations that were then written.
    pub(super) fn change<'a>(&'a self, ops: &'a Ops) -> Change<'a> {
        self.draft.change(ops)
    }

    /// Makes a plan for events like this one, of which `routes[number]` has just made a change, if that can be planned.
    pub(super) fn learn(
        &mut self,
        paths: &Paths,
        event: &str,
        extracted: &Extracted,
        routes: &[Route],
        number: usize,
    ) {
        self.known.learn(|| {
            if event.len() > LARGEST { None } else { Plan::new(paths, event, extracted, routes, number) }
        });
    }
}

/// A plan.
#[derive(Debug, PartialEq)]
struct Plan {
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
    writes: Vec<PlanWrite>,
}

/// A value, and what stands before it.
#[derive(Debug, PartialEq)]
struct Expected {
    before: Range<usize>,
    kind: ValueKind,
}

/// What may be in the place of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
enum ValueKind {
    /// Anything but objects and arrays. Nobody looks at it.
    Skipped,
    /// Plain texts and integers. A path leads through here.
    Plain,
    /// Anything that routes can read, with such keys, objects and arrays or not.
    Read { keys: KeyRule, may_nest: bool },
}

#[derive(Debug, PartialEq)]
enum PlanWrite {
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
#[derive(Debug, Clone)]
enum MatchedNode<'e> {
    Text(&'e [u8]),
    Integer(i64),
    /// Something else, encoded in the scratch buffer.
    Encoded(ElementType, Range<usize>),
    Skipped,
}

/// Where a planned change is put together.
#[derive(Debug)]
struct Draft {
    id_kind: ElementType,
    id: Vec<u8>,
    ts: Option<i64>,
    collection: CollectionId,
    scratch: Output,
}

impl Default for Draft {
    fn default() -> Self {
        Draft {
            id_kind: ElementType::Null,
            id: Vec::new(),
            ts: None,
            collection: CollectionId(0),
            scratch: Output::default(),
        }
    }
}

impl Draft {
    /// The change; its operations are in `ops`.
    fn change<'a>(&'a self, ops: &'a Ops) -> Change<'a> {
        let id = ValueRef { kind: self.id_kind, bytes: &self.id };
        let entity = EntityRef { collection: self.collection, id, shard_key: &[] };
        Change { entity, effect: Effect::Update(FieldOps::new(&ops.bytes)), ts: self.ts, traceparent: None }
    }
}

/// The collection, the id and the fields of a route that plans can follow: it updates one collection, by values of the event.
fn planned_parts(route: &Route) -> Option<(CollectionId, &At, &[Field])> {
    let Target::Fixed(collection) = &route.collection else { return None };
    let IdSource::One(ValueSource::Event(id)) = &route.id else { return None };
    let RouteEffect::Update { fields, yjs: None, merge: None, patch: None } = &route.effect else {
        return None;
    };
    Some((*collection, id, fields))
}

/// What a plan writes. `place_of` tells where a value is among those read, if it is there.
fn writes(fields: &[Field], place_of: impl Fn(&At) -> Result<Option<usize>, ()>) -> Option<Vec<PlanWrite>> {
    let mut writes = Vec::new();
    for Field { op, path, source, operand } in fields {
        let (op, path) = (*op, path.clone());
        writes.push(match (source, operand) {
            (ValueSource::Fixed(value), Operand::Value) => {
                PlanWrite::Fixed { op, path, value: value.clone() }
            }
            (ValueSource::Event(at), Operand::Value) => match place_of(at).ok()? {
                Some(value) => PlanWrite::Event { op, path, value },
                None => continue,
            },
            _ => return None,
        });
    }
    Some(writes)
}

impl Plan {
    /// A plan for events like `event`, of which `routes[number]` made a change. None if it takes more than a plan can
    /// do.
    fn new(
        paths: &Paths,
        event: &str,
        extracted: &Extracted,
        routes: &[Route],
        number: usize,
    ) -> Option<Self> {
        let (before, route) = (&routes[..number], &routes[number]);
        let (collection, id, fields) = planned_parts(route)?;
        // One that would have taken the event, had it an id, may find one in another.
        if !route.shard_key.is_empty() || before.iter().any(|route| route.holds(extracted)) {
            return None;
        }
        // A trace would have to be read, wherever it is. Where a number is a very large one, all others are looked at.
        if route.traceparent.is_some_and(|slot| extracted.get(slot).is_some()) || extracted.has_wide_number()
        {
            return None;
        }
        let survey = PathSurvey::of(paths, event)?;
        // What is read inside of another value is not seen.
        let is_out_of_sight = |slot: Slot| extracted.get(slot).is_some() && !survey.has(slot);
        let asked: Vec<Slot> =
            before.iter().chain([route]).flat_map(|route| &route.when).map(|(at, _)| at.slot).collect();
        if asked.iter().any(|slot| is_out_of_sight(*slot)) {
            return None;
        }

        let (mut values, mut slots, mut text) = (Vec::new(), Vec::new(), String::new());
        let (mut start, mut taken) = (0, 0);
        for PlanSurveyed { place, slot, trace, may_nest, is_skipped } in &survey.values {
            if trace.is_some() && *trace == route.traceparent {
                return None;
            }
            text.push_str(&event[taken..place.start]);
            taken = place.end;
            let kind = match slot {
                Some((slot, _)) if asked.contains(slot) => {
                    text.push_str(&event[place.clone()]);
                    continue;
                }
                Some((_, keys)) => ValueKind::Read { keys: *keys, may_nest: *may_nest },
                None if *is_skipped => ValueKind::Skipped,
                None => ValueKind::Plain,
            };
            values.push(Expected { before: start..text.len(), kind });
            slots.push(slot.map(|(slot, _)| slot));
            start = text.len();
        }
        text.push_str(&event[taken..]);

        // None: the event has nothing there.
        let place_of = |at: &At| match slots.iter().position(|slot| *slot == Some(at.slot)) {
            None if extracted.get(at.slot).is_some() => Err(()),
            place => Ok(place),
        };
        Some(Plan {
            route: number,
            collection,
            values,
            end: start..text.len(),
            text,
            id: place_of(id).ok()??,
            ts: route.ts.as_ref().map_or(Ok(None), place_of).ok()?,
            writes: writes(fields, place_of)?,
        })
    }

    /// Makes the change of an event that is like the one that the plan was made for. Answers the route.
    fn follow(&self, event: &str, draft: &mut Draft, ops: &mut Ops) -> Option<usize> {
        let (bytes, text) = (event.as_bytes(), self.text.as_bytes());
        draft.scratch.clear();
        let mut found: SmallVec<[MatchedNode<'_>; 16]> = SmallVec::new();
        let mut at = 0;
        for Expected { before, kind } in &self.values {
            let before = &text[before.clone()];
            let rest = bytes.get(at..)?.strip_prefix(before)?;
            at += before.len();
            let (value, length) = match rest.first()? {
                b'"' if let Some(text) = plain_text(&rest[1..]) => (MatchedNode::Text(text), text.len() + 2),
                // A parser would skip it, and come to what nobody expects here.
                b' ' | b'\t' | b'\n' | b'\r' => return None,
                first => match plain_integer(rest) {
                    Some((integer, length)) => (MatchedNode::Integer(integer), length),
                    None => kind.read(event, at, matches!(first, b'{' | b'['), &mut draft.scratch)?,
                },
            };
            found.push(value);
            at += length;
        }
        if bytes.get(at..)? != &text[self.end.clone()] || draft.scratch.wide_number || draft.scratch.bad_key {
            return None;
        }
        self.write(&found, draft, ops)?;
        check_size(&draft.change(ops)).ok()?;
        Some(self.route)
    }

    fn write(&self, found: &[MatchedNode<'_>], draft: &mut Draft, ops: &mut Ops) -> Option<()> {
        let Draft { id_kind, id, ts, collection, scratch } = draft;
        let encoded = |kind: &ElementType, at: &Range<usize>| ValueRef {
            kind: *kind,
            bytes: &scratch.bytes[at.clone()],
        };
        *collection = self.collection;
        id.clear();
        *id_kind = match &found[self.id] {
            MatchedNode::Text([]) | MatchedNode::Skipped => return None,
            MatchedNode::Text(text) => {
                raw::write_text_value(id, text);
                ElementType::String
            }
            MatchedNode::Integer(integer) => {
                let value = Value::from(Number::int(*integer));
                id.extend_from_slice(value.get().bytes);
                value.get().kind
            }
            MatchedNode::Encoded(kind, at) => {
                let value = entity_id(encoded(kind, at), "").ok()?;
                id.extend_from_slice(value.bytes);
                value.kind
            }
        };
        *ts = match self.ts.map(|at| &found[at]) {
            None | Some(MatchedNode::Skipped) => None,
            Some(MatchedNode::Integer(ms)) => Some(*ms),
            Some(MatchedNode::Text(text)) => std::str::from_utf8(text).ok().and_then(text_time),
            Some(MatchedNode::Encoded(kind, at)) => event_time(encoded(kind, at)),
        };
        ops.clear();
        for write in &self.writes {
            let (op, path, value) = match write {
                PlanWrite::Fixed { op, path, value } => {
                    ops.add(FieldOp { op: *op, path, value: value.get() }).ok()?;
                    continue;
                }
                PlanWrite::Event { op, path, value } => (*op, path, &found[*value]),
            };
            match value {
                MatchedNode::Text(text) => ops.add_text(op, path, text)?,
                MatchedNode::Integer(integer) => {
                    let value = Value::from(Number::int(*integer));
                    ops.add(FieldOp { op, path, value: value.get() }).ok()?;
                }
                MatchedNode::Encoded(kind, at) => {
                    ops.add(FieldOp { op, path, value: encoded(kind, at) }).ok()?;
                }
                MatchedNode::Skipped => return None,
            }
        }
        Some(())
    }
}

impl ValueKind {
    /// Reads what is not plain; answers its length, too.
    fn read<'e>(
        self,
        event: &'e str,
        at: usize,
        is_nested: bool,
        scratch: &mut Output,
    ) -> Option<(MatchedNode<'e>, usize)> {
        match self {
            ValueKind::Skipped if !is_nested => Some((MatchedNode::Skipped, parsed(event, at, skip)? - at)),
            ValueKind::Read { keys, may_nest } if may_nest || !is_nested => {
                let start = scratch.bytes.len();
                let mut kind = None;
                let end = parsed(event, at, |json| {
                    kind = Transcode { out: &mut *scratch, keys, depth: 0 }.deserialize(json).ok();
                    kind.is_some()
                })?;
                Some((MatchedNode::Encoded(kind?, start..scratch.bytes.len()), end - at))
            }
            ValueKind::Skipped | ValueKind::Plain | ValueKind::Read { .. } => None,
        }
    }
}

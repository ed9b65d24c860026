//! Reads events of one type by a plan that was worked out once.
//!
//! Producers write all events of a type with the same code. The keys are where they were in the event before, and what
//! `when` asks for has the same value. So the text between the values is compared with the text that stood there
//! before, in one piece, rather than parsed and looked up. If it is the same, so is the route, and the values only have
//! to be put into their slots.
//!
//! Whatever is different in any other way is left to the general way. What the values mean, and whether the event is
//! refused, the route says in either case. So plans never change that, only how long it takes to find out.

mod memory;
mod plain;
#[cfg(test)]
mod random;
mod survey;
#[cfg(test)]
mod tests;

use bson::spec::ElementType;

use self::memory::Memory;
use self::plain::{parsed, plain_integer, plain_text, skip};
use self::survey::{PathSurvey, PlanSurveyed};
use super::extract::Extracted;
use super::paths::{Paths, Slot};
use super::route::Route;
use super::transcode::KeyRule;

/// The largest event that is planned, or learnt from, bytes: a plan keeps its keys.
const LARGEST: usize = 64 * 1024;

/// The plans for a decoder's events.
#[derive(Debug, Default)]
pub(super) struct Plans {
    known: Memory<Plan>,
}

impl Plans {
    /// Reads what its route asks for out of an event that is like others. Answers the route.
    #[inline]
    pub(super) fn read(&mut self, paths: &Paths, event: &str, into: &mut Extracted) -> Option<usize> {
        if event.len() > LARGEST {
            return None;
        }
        self.known.recall(|plan| plan.read(paths, event, into))
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
    /// What stands before the first value.
    start: Box<[u8]>,
    values: Vec<Expected>,
}

/// A value, and what stands behind it.
#[derive(Debug, PartialEq)]
struct Expected {
    kind: ValueKind,
    /// Where the route reads it: as data, and as a trace.
    slots: [Option<Slot>; 2],
    behind: Box<[u8]>,
}

/// What may be in the place of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
enum ValueKind {
    /// Anything but objects and arrays. Nobody looks at it, but for the trace that a plain text may be.
    Skipped,
    /// Plain texts and integers. A path leads through here.
    Plain,
    /// Anything that routes can read, with such keys, objects and arrays or not, null or not.
    Read { keys: KeyRule, may_nest: bool, may_be_null: bool },
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
        // One that would have taken the event, had it an id, may find one in another. Where a number is a very large
        // one, all others are looked at.
        if before.iter().any(|route| route.holds(extracted)) || extracted.has_wide_number() {
            return None;
        }
        let survey = PathSurvey::of(paths, event)?;
        let asked: Vec<Slot> =
            before.iter().chain([route]).flat_map(|route| &route.when).map(|(at, _)| at.slot).collect();
        let read: Vec<Slot> = route.reads_for_change().chain(route.traceparent).collect();
        // What is read inside of another value is not seen.
        let is_out_of_sight = |slot: &&Slot| extracted.get(**slot).is_some() && !survey.has(**slot);
        if asked.iter().chain(&read).any(|slot| is_out_of_sight(&slot)) {
            return None;
        }

        let (mut values, mut texts, mut taken) = (Vec::new(), Vec::new(), 0);
        for PlanSurveyed { place, slot, trace, may_nest, is_skipped } in &survey.values {
            let slots =
                [slot.map(|(slot, _)| slot), *trace].map(|slot| slot.filter(|slot| read.contains(slot)));
            let kind = match slot {
                Some((slot, _)) if asked.contains(slot) => match slots {
                    [None, None] => continue,
                    // What is compared is not read.
                    _ => return None,
                },
                // Without an id the event is perhaps another route's.
                Some((slot, keys)) => ValueKind::Read {
                    keys: *keys,
                    may_nest: *may_nest,
                    may_be_null: !route.id.slots().any(|part| part == *slot),
                },
                None if *is_skipped => ValueKind::Skipped,
                None => ValueKind::Plain,
            };
            // Of two traces at one path the valid one counts.
            if slots[1].is_some() && values.iter().any(|(_, before)| *before == slots) {
                return None;
            }
            values.push((kind, slots));
            texts.push(&event[taken..place.start]);
            taken = place.end;
        }
        texts.push(&event[taken..]);
        let mut texts = texts.into_iter().map(|text| text.as_bytes().into());
        let start = texts.next()?;
        let values = values.into_iter().zip(texts);
        let values = values.map(|((kind, slots), behind)| Expected { kind, slots, behind }).collect();
        Some(Plan { route: number, start, values })
    }

    /// Reads an event that is like the one that the plan was made for. Answers the route.
    fn read(&self, paths: &Paths, event: &str, into: &mut Extracted) -> Option<usize> {
        let mut rest = event.as_bytes().strip_prefix(&*self.start)?;
        into.begin_with(paths, event);
        for Expected { kind, slots, behind } in &self.values {
            let at = event.len() - rest.len();
            let length = match *rest.first()? {
                b'"' if let Some(text) = plain_text(&rest[1..]) => {
                    into.take_text(*slots, at + 1, text.len())?;
                    text.len() + 2
                }
                // A parser would skip it, and come to what nobody expects here.
                b' ' | b'\t' | b'\n' | b'\r' => return None,
                first => match plain_integer(rest) {
                    Some((integer, length)) => {
                        into.take_integer(*slots, at + length, integer)?;
                        length
                    }
                    None => kind.read(event, at, matches!(first, b'{' | b'['), *slots, into)?,
                },
            };
            rest = rest.get(length..)?.strip_prefix(&**behind)?;
        }
        (rest.is_empty() && !into.has_wide_number() && !into.is_suspect()).then_some(self.route)
    }
}

impl ValueKind {
    /// Reads what is not plain. Answers its length.
    fn read(
        self,
        event: &str,
        at: usize,
        is_nested: bool,
        slots: [Option<Slot>; 2],
        into: &mut Extracted,
    ) -> Option<usize> {
        let end = match self {
            ValueKind::Skipped if !is_nested => parsed(event, at, skip)?,
            ValueKind::Read { keys, may_nest, may_be_null } if may_nest || !is_nested => {
                parsed(event, at, |json| {
                    let kind = into.take_json(slots, keys, json);
                    kind.is_ok_and(|kind| may_be_null || kind != ElementType::Null)
                })?
            }
            ValueKind::Skipped | ValueKind::Plain | ValueKind::Read { .. } => return None,
        };
        Some(end - at)
    }
}

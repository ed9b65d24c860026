//! Defines the world that is modelled: a queue in Redis, its documents in MongoDB, and two instances.
//! What is still under way between them is a part of it.
//!
//! Everything is a small number, so that millions of states fit into memory: an event is named by its
//! place in the plan of what producers push, a set of events is a mask, and an offset has
//! [`INDEX_BITS`] bits below its epoch where the real one has 36.

use crate::mongo::Mongo;
use crate::owner::Owner;
use crate::redis::Redis;

/// The most events a plan has.
pub(crate) const EVENTS: usize = 4;
/// Documents. Events that cannot be decoded belong to none.
pub(crate) const ENTITIES: usize = 2;
/// Instances of tidegate.
pub(crate) const OWNERS: usize = 2;
/// The most requests that may be late at once.
pub(crate) const LATE: usize = 2;
/// Bits of an offset below the epoch.
pub(crate) const INDEX_BITS: u8 = 3;

/// Events as bits.
pub(crate) type Set = u8;

/// The bit of an event, or of a place in a window.
pub(crate) fn bit(at: u8) -> Set {
    1 << at
}

/// The members of a set, in order.
pub(crate) fn members(set: Set) -> impl Iterator<Item = u8> {
    (0..8).filter(move |at| set & bit(*at) != 0)
}

/// What an event asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An update that MongoDB refuses for no document.
    Set,
    /// An update that it may refuse, but does not.
    Inc,
    /// An update that it refuses: a data error.
    Bad,
    /// The whole document.
    Replace,
    /// No document.
    Delete,
    /// Nothing that could be decoded.
    Junk,
}

/// What a producer pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its document; that of junk is none.
    pub(crate) entity: usize,
    /// What it asks for.
    pub(crate) kind: Kind,
}

/// What producers push, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The events.
    pub(crate) events: Vec<Event>,
    /// Events of each document.
    pub(crate) of: [Set; ENTITIES],
    /// Those that leave nothing of what was before: replacements and deletions.
    pub(crate) final_: Set,
    /// Those that can never be applied.
    pub(crate) bad: Set,
    /// Documents that are deleted at some time.
    pub(crate) deleted: [bool; ENTITIES],
}

impl Plan {
    /// Reads a plan: a letter for the document, `a` or `b`, and one for what is asked for. `s` sets, `i`
    /// increments, `x` is refused, `r` replaces, `d` deletes; `--` is junk.
    pub(crate) fn new(text: &str) -> Self {
        let event = |word: &str| {
            let entity = usize::from(word.starts_with('b'));
            let kind = match word.as_bytes()[1] {
                b's' => Kind::Set,
                b'i' => Kind::Inc,
                b'x' => Kind::Bad,
                b'r' => Kind::Replace,
                b'd' => Kind::Delete,
                _ => return Event { entity: ENTITIES, kind: Kind::Junk },
            };
            Event { entity, kind }
        };
        let events: Vec<Event> = text.split_whitespace().map(event).collect();
        assert!(events.len() <= EVENTS, "{text:?} is too long");
        let which = |is: &dyn Fn(&Event) -> bool| {
            events.iter().enumerate().filter(|(_, e)| is(e)).fold(0, |set, (at, _)| set | bit(at as u8))
        };
        Plan {
            of: std::array::from_fn(|entity| which(&|e| e.entity == entity)),
            final_: which(&|e| matches!(e.kind, Kind::Replace | Kind::Delete)),
            bad: which(&|e| matches!(e.kind, Kind::Bad | Kind::Junk)),
            deleted: std::array::from_fn(|entity| {
                events.iter().any(|e| e.entity == entity && e.kind == Kind::Delete)
            }),
            events,
        }
    }

    pub(crate) fn event(&self, id: u8) -> Event {
        self.events[usize::from(id)]
    }

    pub(crate) fn kind(&self, id: u8) -> Kind {
        self.event(id).kind
    }
}

/// A state of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// The plan's number.
    pub(crate) plan: u8,
    /// How many of its events were pushed.
    pub(crate) pushed: u8,
    /// The Redis that is the master.
    pub(crate) redis: Redis,
    /// An earlier state of it, which it may fall back to.
    pub(crate) saved: Option<Redis>,
    /// The former master, while an instance is still connected to it.
    pub(crate) deposed: Option<Redis>,
    /// MongoDB.
    pub(crate) mongo: Mongo,
    /// The instances. They are alike, so they are kept sorted where nobody asks which is which.
    pub(crate) owners: [Owner; OWNERS],
    /// Requests to MongoDB that nobody waits for any more, and that may still arrive, ever again.
    pub(crate) late: [Option<Request>; LATE],
    /// Redis has lost what it acknowledged.
    pub(crate) fell_back: bool,
    /// Elements that a foreign client popped.
    pub(crate) popped: Set,
    /// Takeovers found elements gone or moved.
    pub(crate) alarm: bool,
    /// An event took effect behind a later one of its document.
    pub(crate) disorder: bool,
    /// Events that were to be recovered by a process that died.
    pub(crate) died_over: Set,
    /// Events that were set aside for it.
    pub(crate) aside: Set,
}

/// A segment, or a run of single events, on its way to MongoDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Request {
    /// Its document.
    pub(crate) entity: u8,
    /// Whether it is an ordered command with a statement an event, rather than one statement.
    pub(crate) run: bool,
    /// Its number of events.
    pub(crate) len: u8,
    /// Their offsets.
    pub(crate) offsets: [u8; EVENTS],
    /// Which they are.
    pub(crate) ids: [u8; EVENTS],
    /// The watermark of another numbering that the first of them is to replace; 0 is none.
    pub(crate) replaces: u8,
}

impl Request {
    pub(crate) fn push(&mut self, offset: u8, id: u8) {
        self.offsets[usize::from(self.len)] = offset;
        self.ids[usize::from(self.len)] = id;
        self.len += 1;
    }

    /// Its events below an offset.
    pub(crate) fn below(&self, offset: u8) -> Set {
        let len = usize::from(self.len);
        let below = self.offsets[..len].iter().zip(&self.ids).filter(|(at, _)| **at < offset);
        below.fold(0, |set, (_, id)| set | bit(*id))
    }

    /// The statement that is executed first.
    pub(crate) fn statement(&self, plan: &Plan) -> Segment {
        let len = if self.run { 1 } else { usize::from(self.len) };
        let events = self.ids[..len].iter().fold(0, |set, id| set | bit(*id));
        // Only the last of those that leave nothing of what was before counts, and what comes behind it.
        let last_final = (events & plan.final_).checked_ilog2().map(|id| id as u8);
        let behind = last_final.map_or(events, |id| events & !(bit(id) | (bit(id) - 1)));
        let (update, leaves) = match last_final {
            None => (Update::Fields, events),
            Some(id) if plan.kind(id) == Kind::Replace => (Update::Replace, behind | bit(id)),
            Some(_) if behind == 0 => (Update::Delete, 0),
            Some(_) => (Update::Replace, behind),
        };
        Segment {
            entity: usize::from(self.entity),
            first: self.offsets[0],
            last: self.offsets[len - 1],
            events,
            leaves,
            update,
            replaces: self.replaces,
        }
    }

    /// What is left of a run behind its first statement.
    pub(crate) fn rest(&self) -> Option<Request> {
        if !self.run || self.len < 2 {
            return None;
        }
        let mut rest = Request { entity: self.entity, run: true, ..Request::default() };
        (1..usize::from(self.len)).for_each(|at| rest.push(self.offsets[at], self.ids[at]));
        Some(rest)
    }
}

/// What a segment is: `coalesce::Update`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Update {
    /// Operations on fields.
    Fields,
    /// The whole document.
    Replace,
    /// No document.
    Delete,
}

/// What one statement writes: `coalesce::Segment`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) entity: usize,
    /// Offset of the first event covered.
    pub(crate) first: u8,
    /// Offset of the last.
    pub(crate) last: u8,
    /// The events covered.
    pub(crate) events: Set,
    /// Those of them that a document shows in the end.
    pub(crate) leaves: Set,
    /// What they come to.
    pub(crate) update: Update,
    /// The watermark that must be there, if it is one of another numbering; 0 if the guard is the usual one.
    pub(crate) replaces: u8,
}

impl Segment {
    /// Whether it makes the same of every document.
    pub(crate) fn is_final(&self) -> bool {
        self.update != Update::Fields
    }
}

//! Models an instance of tidegate, as far as one ownership goes: what it read, and its lanes.
//!
//! It has a lane for each document. One that is down, or stands by, remembers nothing.

use crate::redis::Redis;
use crate::state::{ENTITIES, EVENTS, Kind, Plan, Request, Set, bit};
use crate::variants::Variant;

/// How far an instance has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) enum Phase {
    /// Down, or without a connection.
    #[default]
    Idle,
    /// It has seen the queue's state and taken an epoch.
    Drawn,
    /// It owns the queue, as Redis has it, and MongoDB does not know yet.
    Taken,
    /// It owns the queue, and processes what a former owner may have sent.
    Recovering,
    /// It has numbered the elements anew and reads on.
    Active,
}

/// What a lane is doing about its oldest segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) enum Mode {
    /// Nothing is sent.
    #[default]
    Idle,
    /// A request waits for its reply.
    Sent,
    /// The guard held it back: the watermark is to be looked at.
    Conflict,
    /// It was refused, and the watermark is to be looked at before that is believed.
    Suspect,
    /// It was refused, and its events are to be read again.
    Refused,
    /// A single event was refused, and is to be recorded as a dead letter.
    Dead,
    /// The watermark is one of another numbering: MongoDB is to say whether the ownership is the latest.
    Unproven,
}

/// A lane: the pending events of one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Lane {
    pub(crate) mode: Mode,
    /// The place of the last event sent.
    pub(crate) last: u8,
    /// Events at places below are applied one at a time.
    pub(crate) singles: u8,
    /// The watermark of another numbering that the next write replaces; 0 is none.
    pub(crate) replaces: u8,
}

/// An instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Owner {
    pub(crate) phase: Phase,
    pub(crate) epoch: u8,
    /// The offset of the head, as it knows.
    pub(crate) base: u8,
    /// The end of what is to be recovered.
    pub(crate) recover_to: u8,
    /// The offset of the first event held.
    pub(crate) start: u8,
    /// The number of events held.
    pub(crate) len: u8,
    /// The events read and not committed.
    view: [u8; EVENTS],
    /// Places of those that are settled.
    settled: Set,
    /// Places where a window ended.
    ends: Set,
    /// Dead letters recorded.
    buried: Set,
    pub(crate) lanes: [Lane; ENTITIES],
    /// It is connected to the former master.
    pub(crate) deposed: bool,
}

impl Owner {
    /// Whether it believes that it owns the queue.
    pub(crate) fn owns(&self) -> bool {
        self.phase >= Phase::Recovering
    }

    /// It has seen base and read, and has an epoch.
    pub(crate) fn drawn(epoch: u8, base: u8, read: u8) -> Self {
        Owner { phase: Phase::Drawn, epoch, base, recover_to: read, ..Owner::default() }
    }

    /// What it holds from taking the queue over: `List::take` and `Lease::buried`.
    pub(crate) fn took(&mut self, is_intact: bool, redis: &Redis) {
        self.phase = Phase::Taken;
        // Under numbers that mean nothing any more, events would pass for done.
        self.recover_to = if is_intact { self.recover_to.max(self.base) } else { self.base };
        self.start = self.base;
        self.buried = redis.dead;
    }

    /// Whether all that a former owner left is committed: `Tracker::is_drained`.
    pub(crate) fn is_recovered(&self) -> bool {
        self.phase == Phase::Recovering && self.len == 0 && self.base >= self.recover_to
    }

    /// Goes on under numbers from `base` on.
    pub(crate) fn renumbered(&mut self, base: u8) {
        self.phase = Phase::Active;
        (self.base, self.start, self.recover_to) = (base, base, 0);
        // What was buried has a number that means nothing any more.
        self.buried = 0;
    }

    /// The offset from which it reads on.
    pub(crate) fn cursor(&self) -> u8 {
        self.start + self.len
    }

    /// `dispatcher::decode`: takes on a window.
    pub(crate) fn receive(&mut self, window: impl Iterator<Item = u8>) {
        for id in window {
            self.view[usize::from(self.len)] = id;
            if self.buried & bit(id) != 0 {
                self.settled |= bit(self.len);
            }
            self.len += 1;
        }
        self.ends |= bit(self.len - 1);
    }

    /// Events that could not be decoded and are not recorded.
    pub(crate) fn junk(&self, plan: &Plan) -> Set {
        (0..self.len).filter(|at| self.is_pending(*at)).fold(0, |set, at| {
            let id = self.view[usize::from(at)];
            if plan.kind(id) == Kind::Junk { set | bit(id) } else { set }
        })
    }

    /// Dead letters are recorded.
    pub(crate) fn buried(&mut self, letters: Set) {
        self.buried |= letters;
        for at in 0..self.len {
            if letters & bit(self.view[usize::from(at)]) != 0 {
                self.settled |= bit(at);
            }
        }
    }

    fn is_pending(&self, at: u8) -> bool {
        self.settled & bit(at) == 0
    }

    /// Places of a document's events that are not settled.
    fn pending(&self, entity: usize, plan: &Plan) -> impl Iterator<Item = u8> + use<'_> {
        let of = plan.of[entity];
        (0..self.len).filter(move |at| self.is_pending(*at) && of & bit(self.view[usize::from(*at)]) != 0)
    }

    /// The lane's first event not settled.
    pub(crate) fn oldest(&self, entity: usize, plan: &Plan) -> Option<u8> {
        self.pending(entity, plan).next().map(|at| self.view[usize::from(at)])
    }

    /// `Pending::next_segments`: sends as many of the lane's events as fold into one write; or, where they
    /// are looked at one by one, a run of one kind.
    pub(crate) fn send(&mut self, entity: usize, plan: &Plan) -> bool {
        let lane = self.lanes[entity];
        let mut last: Option<u8> = None;
        let mut fold = Fold::default();
        for at in self.pending(entity, plan) {
            let id = self.view[usize::from(at)];
            let is_single = at < lane.singles;
            let goes = match last {
                None => true,
                // What comes behind the refused segment waits until that is settled.
                Some(_) if lane.singles > 0 && !is_single => false,
                Some(last) if is_single => is_alike(self.view[usize::from(last)], id, plan),
                Some(_) => fold.takes(plan.kind(id)),
            };
            if !goes {
                break;
            }
            fold.cover(plan.kind(id));
            last = Some(at);
        }
        let Some(last) = last else { return false };
        self.lanes[entity] = Lane { mode: Mode::Sent, last, ..lane };
        true
    }

    /// What the lane has sent.
    pub(crate) fn request(&self, entity: usize, plan: &Plan) -> Request {
        let lane = self.lanes[entity];
        let (entity, run, replaces) = (entity as u8, lane.singles > 0, lane.replaces);
        let mut request = Request { entity, run, replaces, ..Request::default() };
        let entity = usize::from(entity);
        for at in self.pending(entity, plan).take_while(|at| *at <= lane.last) {
            request.push(self.start + at, self.view[usize::from(at)]);
        }
        request
    }

    /// The lane's events below `offset` are settled.
    pub(crate) fn settle_below(&mut self, entity: usize, offset: u8, plan: &Plan) {
        let below = self.pending(entity, plan).take_while(|at| self.start + *at < offset);
        self.settled |= below.fold(0, |set, at| set | bit(at));
        let lane = self.lanes[entity];
        let left = |to: u8| self.pending(entity, plan).any(|at| at < to);
        let (sent, singles) = (left(lane.last + 1), left(lane.singles));
        let lane = &mut self.lanes[entity];
        lane.replaces = 0;
        lane.mode = if sent { Mode::Sent } else { Mode::Idle };
        if !sent {
            lane.last = 0;
        }
        if !singles {
            lane.singles = 0;
        }
    }

    /// The lane's refused segment is applied event by event: `lane::isolate`.
    pub(crate) fn isolate(&mut self, entity: usize) {
        let lane = &mut self.lanes[entity];
        *lane = Lane { mode: Mode::Idle, last: 0, singles: lane.last + 1, replaces: lane.replaces };
    }

    /// `Tracker::due`: elements that may be trimmed, the last of them, and the dead letters among them.
    pub(crate) fn due(&self, variant: Variant) -> Option<(u8, u8, Set)> {
        let settled = match variant {
            Variant::CommitWhatIsRead => self.len,
            _ => (self.settled.trailing_ones() as u8).min(self.len),
        };
        let behind = (0..settled).rev().find(|at| self.ends & bit(*at) != 0)? + 1;
        let count = (self.start + behind).checked_sub(self.base).filter(|count| *count > 0)?;
        let among = self.view[..usize::from(behind)].iter().fold(0, |set, id| set | bit(*id));
        Some((count, self.view[usize::from(behind - 1)], self.buried & among))
    }

    /// The element at the base was set aside.
    pub(crate) fn set_aside(&mut self) {
        self.base += 1;
        self.start = self.base;
    }

    /// `Tracker::committed`: elements below `base` are trimmed.
    pub(crate) fn committed(&mut self, base: u8, letters: Set) {
        self.base = base;
        self.buried &= !letters;
        self.forget_committed();
    }

    /// Forgets what is both settled and trimmed.
    pub(crate) fn forget_committed(&mut self) {
        while self.len > 0 && self.start < self.base && !self.is_pending(0) {
            self.view.rotate_left(1);
            self.view[EVENTS - 1] = 0;
            self.start += 1;
            self.len -= 1;
            self.settled >>= 1;
            self.ends >>= 1;
            for lane in &mut self.lanes {
                lane.last = lane.last.saturating_sub(1);
                lane.singles = lane.singles.saturating_sub(1);
            }
        }
    }
}

/// `Segment::fold`: what a segment takes in.
#[derive(Default)]
struct Fold {
    /// It replaces or deletes the document.
    is_final: bool,
    /// MongoDB may refuse it.
    is_fallible: bool,
}

impl Fold {
    fn takes(&self, next: Kind) -> bool {
        match next {
            Kind::Replace | Kind::Delete => !self.is_fallible,
            // Into a document that is known, only what surely succeeds is folded.
            Kind::Set => true,
            _ => !self.is_final,
        }
    }

    fn cover(&mut self, event: Kind) {
        self.is_final |= matches!(event, Kind::Replace | Kind::Delete);
        self.is_fallible |= matches!(event, Kind::Inc | Kind::Bad);
    }
}

/// Whether two events go into one ordered command.
fn is_alike(one: u8, other: u8, plan: &Plan) -> bool {
    let discriminant = |id: u8| match plan.kind(id) {
        Kind::Replace => 1,
        Kind::Delete => 2,
        _ => 0,
    };
    discriminant(one) == discriminant(other)
}

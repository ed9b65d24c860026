//! Models what a watermark proves, and who may go by one: a lane looks at what held its write back.

use crate::actions::{redis_mut, refused};
use crate::mongo::FOREIGN;
use crate::owner::{Mode, Phase};
use crate::scenario::Scenario;
use crate::state::{INDEX_BITS, Segment, State, Update};
use crate::variants::Variant;

/// In place of a watermark: MongoDB has confirmed the ownership, and whatever is read next is replaced.
const WHATEVER: u8 = u8::MAX;

impl Scenario {
    /// The highest epoch, which bounds takeovers. One that was raised above the foreign one has a few more.
    pub(crate) fn most_epochs(&self, s: &State) -> u8 {
        let foreign = FOREIGN >> INDEX_BITS;
        if self.restored && s.mongo.epoch >= foreign { foreign + 1 } else { self.epochs }
    }

    /// Puts the ownership on record; only then may it write.
    pub(crate) fn claim(&self, s: &mut State, o: usize) {
        let owner = s.owners[o];
        if !s.mongo.claim(owner.epoch) {
            return self.end(s, o);
        }
        s.owners[o].phase = Phase::Recovering;
        if self.deaths && owner.recover_to > owner.base {
            let epochs = s.owners.map(|owner| owner.epoch);
            // That a process which lives is heard of.
            redis_mut(s, o).work(owner.epoch, |epoch| epochs.contains(&epoch));
        }
    }

    /// `settle::examine` and `isolate::refold`.
    pub(crate) fn look(&self, s: &mut State, o: usize, x: usize) -> Option<()> {
        let plan = self.plan(s);
        let segment = s.owners[o].request(x, plan).statement(plan);
        let guard = self.rules(s, plan).guard(&segment);
        let watermark = s.mongo.watermark(x);
        let lane = s.owners[o].lanes[x];
        let unproven = watermark.filter(|w| self.is_unproven(*w, &segment, s.owners[o].epoch));
        if let Some(w) = unproven.filter(|w| *w != lane.replaces) {
            self.found_unproven(s, o, x, w);
            return Some(());
        }
        let proven = watermark.filter(|_| unproven.is_none());
        let done_below = match proven {
            Some(w) if w >= segment.last => segment.last + 1,
            Some(w) if w >= guard => {
                self.reread(s, o)?;
                w + 1
            }
            // There was nothing to delete.
            None if segment.update == Update::Delete && watermark.is_none() => {
                s.mongo.ever |= segment.events;
                segment.last + 1
            }
            _ if lane.mode == Mode::Suspect => {
                s.owners[o].lanes[x].mode = refused(&segment);
                return Some(());
            }
            _ => 0,
        };
        let dead = s.owners[o].request(x, plan).below(done_below) & s.mongo.dead;
        if dead != 0 {
            self.bury(s, o, dead)?;
        }
        s.owners[o].settle_below(x, done_below, plan);
        s.owners[o].forget_committed();
        Some(())
    }

    /// Whether a watermark says nothing of a segment's events: it has a later numbering than theirs, which is either another
    /// queue's or that of a later ownership.
    fn is_unproven(&self, watermark: u8, segment: &Segment, owner: u8) -> bool {
        let epoch = watermark >> INDEX_BITS;
        match self.variant {
            Variant::UnprovenIsDone => false,
            Variant::UnprovenAboveOwner => epoch > owner,
            _ => epoch > segment.first >> INDEX_BITS,
        }
    }

    fn found_unproven(&self, s: &mut State, o: usize, x: usize, watermark: u8) {
        let lane = &mut s.owners[o].lanes[x];
        match self.variant {
            Variant::ConfirmedBeforeLook if lane.replaces != WHATEVER => lane.mode = Mode::Unproven,
            Variant::ConfirmedBeforeLook | Variant::UnprovenUnconfirmed => {
                (lane.replaces, lane.mode) = (watermark, Mode::Sent);
            }
            _ => (lane.replaces, lane.mode) = (watermark, Mode::Unproven),
        }
    }

    /// Has MongoDB confirm that the ownership is the latest. Then the watermark is of another numbering, and the write goes
    /// out in its place; no epoch up to that one is given out any more.
    pub(crate) fn confirm(&self, s: &mut State, o: usize, x: usize) {
        let lane = s.owners[o].lanes[x];
        let above = s.mongo.watermark(x).map_or(0, |w| w >> INDEX_BITS);
        let above = if lane.replaces == 0 { above } else { lane.replaces >> INDEX_BITS };
        if !s.mongo.confirm(s.owners[o].epoch, above) {
            return self.end(s, o);
        }
        let lane = &mut s.owners[o].lanes[x];
        match self.variant {
            Variant::ConfirmedBeforeLook => (lane.replaces, lane.mode) = (WHATEVER, Mode::Conflict),
            _ => lane.mode = Mode::Sent,
        }
    }
}

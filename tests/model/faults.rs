//! Models what goes wrong: crashes, lost replies, late requests, and a Redis that falls back.

use crate::mongo::{Mongo, Rules, Verdict};
use crate::owner::{Mode, Owner, Phase};
use crate::scenario::{Fall, Scenario};
use crate::state::{ENTITIES, INDEX_BITS, OWNERS, Request, State, bit};
use crate::variants::{Deletes, Variant};

impl Scenario {
    pub(crate) fn fall(&self, s: &mut State) -> Option<()> {
        let saved = s.saved.take()?;
        if saved == s.redis {
            return None;
        }
        let former = std::mem::replace(&mut s.redis, saved);
        s.fell_back = true;
        for o in 0..OWNERS {
            if s.owners[o].phase == Phase::Idle {
                continue;
            }
            if self.fall == Fall::Split {
                s.owners[o].deposed = true;
                s.deposed = Some(former);
            } else {
                self.end(s, o);
            }
        }
        Some(())
    }

    pub(crate) fn time_out(&self, s: &mut State, o: usize, x: usize) -> Option<()> {
        let plan = self.plan(s);
        let request = s.owners[o].request(x, plan);
        if self.late > 0 {
            return self.delay(s, request).then_some(());
        }
        // The reply is lost; nothing is late.
        let (verdict, disorder) = s.mongo.execute(&request.statement(plan), &self.rules(s, plan));
        s.disorder |= disorder;
        (verdict == Verdict::Applied).then_some(())
    }

    /// The process dies, and what it worked on may be why.
    pub(crate) fn die(&self, s: &mut State, o: usize) {
        let Owner { phase, epoch, base, recover_to, .. } = s.owners[o];
        if self.deaths && phase == Phase::Recovering && s.redis.mark == epoch {
            s.died_over |=
                (0..recover_to - base).filter_map(|at| s.redis.at(at)).fold(0, |all, id| all | bit(id));
        }
        self.end(s, o);
    }

    /// The ownership is given up though something could not be flushed.
    pub(crate) fn hand_over(&self, s: &mut State, o: usize) {
        let Owner { epoch, base, .. } = s.owners[o];
        if self.variant == Variant::HandOverCommits
            && let Some((count, last, letters)) = s.owners[o].due(Variant::CommitWhatIsRead)
        {
            // Fenced or not, it is over.
            let _ = s.redis.commit((epoch, base), (count, last), letters, self.variant);
        }
        if self.variant != Variant::MarkOutlivesHandOver {
            s.redis.rest(epoch);
        }
        self.end(s, o);
    }

    /// Makes a dead letter of the element at the base, for the process that died over it.
    pub(crate) fn set_aside(&self, s: &mut State, o: usize) -> Option<()> {
        let Owner { epoch, base, .. } = s.owners[o];
        let id = s.redis.set_aside(epoch, base).ok()?;
        s.aside |= bit(id);
        s.owners[o].set_aside();
        Some(())
    }

    /// An ownership ends, however.
    pub(crate) fn end(&self, s: &mut State, o: usize) {
        let plan = self.plan(s);
        for x in 0..ENTITIES {
            if s.owners[o].lanes[x].mode == Mode::Sent {
                // Where there is no room it is lost.
                self.delay(s, s.owners[o].request(x, plan));
            }
        }
        s.owners[o] = Owner::default();
        if !s.owners.iter().any(|owner| owner.deposed) {
            s.deposed = None;
        }
    }

    /// Nobody waits for a request any more. Answers whether that is news.
    fn delay(&self, s: &mut State, request: Request) -> bool {
        let late = &mut s.late[..self.late];
        if late.contains(&Some(request)) || self.is_over(&request, &s.mongo, s.plan) {
            return false;
        }
        let Some(slot) = late.iter_mut().find(|slot| slot.is_none()) else { return false };
        *slot = Some(request);
        true
    }

    /// Whether a request can never again have an effect.
    fn is_over(&self, request: &Request, mongo: &Mongo, plan: u8) -> bool {
        let plan = &self.plans[usize::from(plan)];
        let segment = request.statement(plan);
        if segment.events & plan.bad != 0 {
            return true;
        }
        let watermark_stays = self.deletes == Deletes::Tombstone || !plan.deleted[segment.entity];
        let rules = Rules { plan, variant: self.variant, deletes: self.deletes, repeats: false };
        // One of a later numbering may yet be replaced by one of this.
        let may_fall = self.restored || self.fall != Fall::Never;
        let is_above = |w: u8| w >> INDEX_BITS > segment.first >> INDEX_BITS;
        let watermark_stays =
            watermark_stays && !(may_fall && mongo.watermark(segment.entity).is_some_and(is_above));
        watermark_stays && mongo.is_held_back(&segment, &rules)
    }

    pub(crate) fn arrive(&self, s: &mut State, slot: usize) -> Option<()> {
        let plan = self.plan(s);
        let request = s.late[slot]?;
        let (verdict, disorder) = s.mongo.execute(&request.statement(plan), &self.rules(s, plan));
        s.disorder |= disorder;
        if request.run && verdict == Verdict::Applied {
            s.late[slot] = request.rest();
        }
        (verdict == Verdict::Applied).then_some(())
    }

    /// Forgets what cannot matter, so that fewer states differ.
    pub(crate) fn normalise(&self, s: &mut State) {
        for slot in 0..self.late {
            if s.late[slot].is_some_and(|request| self.is_over(&request, &s.mongo, s.plan)) {
                s.late[slot] = None;
            }
        }
        s.late.sort_unstable_by(|one, other| other.cmp(one));
        if self.symmetric {
            s.owners.sort_unstable();
        }
    }
}

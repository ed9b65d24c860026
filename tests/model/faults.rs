//! What goes wrong: crashes, lost replies, late requests, and a Redis that falls back to an earlier state.

use crate::mongo::{Mongo, Rules, Verdict};
use crate::owner::{Mode, Owner, Phase};
use crate::scenario::{Fall, Scenario};
use crate::state::{ENTITIES, OWNERS, Request, State};
use crate::variants::Deletes;

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
                self.crash(s, o);
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

    pub(crate) fn crash(&self, s: &mut State, o: usize) {
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

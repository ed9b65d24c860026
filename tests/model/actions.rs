//! Lists what can happen in one step: what instances do, what the network does to them, and what others do.

use crate::mongo::{Rules, Verdict};
use crate::owner::{Mode, Owner, Phase};
use crate::redis::{Redis, Refused};
use crate::scenario::{Fall, Scenario};
use crate::state::{ENTITIES, LATE, OWNERS, Plan, Segment, Set, State, bit};
use crate::variants::Variant;

/// A step. Instances, and their lanes by document, are named by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// A producer: RPUSH.
    Push,
    /// Another client: LPOP.
    ForeignPop,
    /// A replica has got as far as the master.
    Save,
    /// That replica becomes the master: all since is lost.
    Fall,
    /// See the queue's state, take an epoch.
    Draw(usize),
    /// The script TAKE.
    Take(usize),
    /// MongoDB puts the ownership on record.
    Claim(usize),
    /// LRANGE of so many elements, and the script READ.
    Read(usize, u8),
    /// The script RENUMBER.
    Renumber(usize),
    /// A lane sends its next segment.
    Send(usize, usize),
    /// MongoDB carries a statement out and the reply arrives.
    Reply(usize, usize),
    /// The same, where MongoDB looks at the data before it looks at the `_id` index.
    ReplyRefused(usize, usize),
    /// No reply arrives in time: the request is sent again, the first one is late.
    TimeOut(usize, usize),
    /// A lane looks at the watermark after a conflict, and folds the rest anew.
    Look(usize, usize),
    /// MongoDB confirms the ownership to a lane that found a watermark of another numbering.
    Confirm(usize, usize),
    /// A lane reads a refused segment's events again.
    Reread(usize, usize),
    /// The script BURY, for a lane's refused event.
    Bury(usize, usize),
    /// The script BURY, for what could not be decoded.
    BuryJunk(usize),
    /// The script COMMIT.
    Commit(usize),
    /// A crash, or the connection to Redis is lost, or a script refuses: the ownership ends.
    Crash(usize),
    /// The ownership is given up with what could not be flushed; the process lives.
    HandOver(usize),
    /// The script SET_ASIDE, for the element at the base.
    SetAside(usize),
    /// MongoDB carries a late request out.
    Arrive(usize),
}

impl Scenario {
    /// What may happen, about: a step that cannot be taken leads nowhere.
    pub(crate) fn list(&self, state: &State, actions: &mut Vec<Action>) {
        let plan = self.plan(state);
        if usize::from(state.pushed) < plan.events.len() {
            actions.push(Action::Push);
        }
        if state.popped.count_ones() < u32::from(self.pops) && state.redis.len > 0 {
            actions.push(Action::ForeignPop);
        }
        if self.fall != Fall::Never && !state.fell_back {
            actions.push(if state.saved.is_some() { Action::Fall } else { Action::Save });
        }
        for (o, owner) in state.owners.iter().enumerate() {
            match owner.phase {
                Phase::Idle => {
                    actions.push(Action::Draw(o));
                    continue;
                }
                Phase::Drawn => actions.push(Action::Take(o)),
                Phase::Taken => actions.push(Action::Claim(o)),
                Phase::Recovering | Phase::Active => self.list_of_owner(state, o, actions),
            }
            actions.push(Action::Crash(o));
            if self.deaths && owner.owns() {
                actions.push(Action::HandOver(o));
            }
        }
        actions.extend((0..LATE).filter(|slot| state.late[*slot].is_some()).map(Action::Arrive));
    }

    fn list_of_owner(&self, state: &State, o: usize, actions: &mut Vec<Action>) {
        let (owner, plan) = (&state.owners[o], self.plan(state));
        if owner.is_recovered() {
            actions.push(Action::Renumber(o));
        }
        if self.deaths && redis_of(state, o).death && owner.phase == Phase::Recovering && owner.len == 0 {
            actions.push(Action::SetAside(o));
        }
        let index = owner.cursor() - owner.base;
        let there = match owner.phase {
            Phase::Recovering => owner.recover_to.saturating_sub(owner.cursor()),
            // No more is asked for than was seen there; a foreign client may have popped it since.
            _ => (redis_of(state, o).len + state.popped.count_ones() as u8).saturating_sub(index),
        };
        actions.extend((1..=there).map(|count| Action::Read(o, count)));
        if owner.junk(plan) != 0 {
            actions.push(Action::BuryJunk(o));
        }
        if owner.due(self.variant).is_some() {
            actions.push(Action::Commit(o));
        }
        for x in 0..ENTITIES {
            match owner.lanes[x].mode {
                Mode::Idle if owner.oldest(x, plan).is_some() => actions.push(Action::Send(o, x)),
                Mode::Idle => {}
                Mode::Sent => {
                    actions.extend([Action::Reply(o, x), Action::ReplyRefused(o, x), Action::TimeOut(o, x)]);
                }
                Mode::Conflict | Mode::Suspect => actions.push(Action::Look(o, x)),
                Mode::Refused => actions.push(Action::Reread(o, x)),
                Mode::Unproven => actions.push(Action::Confirm(o, x)),
                Mode::Dead => actions.push(Action::Bury(o, x)),
            }
        }
    }

    /// The state that a step leads to.
    pub(crate) fn step(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        let s = &mut next;
        match action {
            Action::Push => {
                s.redis.push(s.pushed);
                s.pushed += 1;
            }
            Action::ForeignPop => {
                s.popped |= bit(s.redis.at(0)?);
                s.redis.trim(1);
            }
            Action::Save => s.saved = Some(s.redis),
            Action::Fall => self.fall(s)?,
            Action::Draw(o) => self.draw(s, o)?,
            Action::Take(o) => self.take(s, o)?,
            Action::Claim(o) => self.claim(s, o),
            Action::Read(o, count) => self.read(s, o, count)?,
            Action::Renumber(o) => {
                let Owner { epoch, base, .. } = s.owners[o];
                let renumbers = self.variant != Variant::NotRenumbered || base == 0;
                let base = if renumbers { redis_mut(s, o).renumber(epoch, base).ok()? } else { base };
                s.owners[o].renumbered(base);
            }
            Action::Send(o, x) => {
                if !s.owners[o].send(x, self.plan(state)) {
                    return None;
                }
            }
            Action::Reply(o, x) => self.reply(s, o, x, false)?,
            Action::ReplyRefused(o, x) => self.reply(s, o, x, true)?,
            Action::TimeOut(o, x) => self.time_out(s, o, x)?,
            Action::Look(o, x) => self.look(s, o, x)?,
            Action::Confirm(o, x) => self.confirm(s, o, x),
            Action::Reread(o, x) => {
                self.reread(s, o)?;
                s.owners[o].isolate(x);
            }
            Action::Bury(o, x) => {
                let plan = self.plan(state);
                let id = s.owners[o].oldest(x, plan)?;
                self.bury(s, o, bit(id))?;
                s.owners[o].settle_below(x, 0, plan);
            }
            Action::BuryJunk(o) => self.bury(s, o, s.owners[o].junk(self.plan(state)))?,
            Action::Commit(o) => self.commit(s, o)?,
            Action::Crash(o) => self.die(s, o),
            Action::HandOver(o) => self.hand_over(s, o),
            Action::SetAside(o) => self.set_aside(s, o)?,
            Action::Arrive(slot) => self.arrive(s, slot)?,
        }
        self.normalise(s);
        Some(next)
    }

    fn draw(&self, s: &mut State, o: usize) -> Option<()> {
        let seen = s.redis.epoch();
        let epoch = if self.variant == Variant::EpochFromRedis { seen } else { s.mongo.epoch.max(seen) } + 1;
        if epoch > self.most_epochs(s) {
            return None;
        }
        s.mongo.epoch = s.mongo.epoch.max(epoch);
        let Redis { base, read, .. } = s.redis;
        s.owners[o] = Owner::drawn(epoch, base, read);
        Some(())
    }

    fn take(&self, s: &mut State, o: usize) -> Option<()> {
        let Owner { epoch, base, recover_to: read, .. } = s.owners[o];
        let is_intact = redis_mut(s, o).take(epoch, (base, read), self.variant).ok()?;
        s.alarm |= !is_intact;
        let redis = *redis_of(s, o);
        s.owners[o].took(is_intact, &redis);
        if self.late == 0 {
            // No request outlives the lease, and nobody who lost it acts.
            (0..OWNERS).filter(|other| *other != o).for_each(|other| s.owners[other] = Owner::default());
        }
        if !self.restored {
            // Nothing else looks at this then, so one step is enough.
            self.claim(s, o);
        }
        Some(())
    }

    fn read(&self, s: &mut State, o: usize, count: u8) -> Option<()> {
        let Owner { phase, epoch, base, .. } = s.owners[o];
        let index = s.owners[o].cursor() - base;
        let end = index + count;
        let read = match self.variant {
            Variant::ReadUnrecorded => None,
            Variant::ReadInexact => Some(base + end + 1),
            _ => Some(base + end),
        };
        let redis = redis_mut(s, o);
        let raise = read.filter(|_| phase == Phase::Active);
        match redis.read((epoch, base), end, raise, self.variant) {
            Ok(()) => {
                let redis = *redis;
                s.owners[o].receive((index..end).filter_map(|index| redis.at(index)));
                Some(())
            }
            refused => self.ended(s, o, refused.err()?),
        }
    }

    /// READ without raising `read`. It answers the same elements: its checks see to that.
    pub(crate) fn reread(&self, s: &mut State, o: usize) -> Option<()> {
        let Owner { epoch, base, .. } = s.owners[o];
        redis_mut(s, o).read((epoch, base), 0, None, self.variant).ok()
    }

    fn reply(&self, s: &mut State, o: usize, x: usize, data_first: bool) -> Option<()> {
        let plan = self.plan(s);
        let rules = self.rules(s, plan);
        let segment = s.owners[o].request(x, plan).statement(plan);
        let verdict = if data_first {
            let is_bad = segment.events & plan.bad != 0 || self.validator;
            let could = is_bad && !segment.is_final();
            if !could || !s.mongo.is_held_back(&segment, &rules) {
                return None;
            }
            Verdict::Refused
        } else {
            let (verdict, disorder) = s.mongo.execute(&segment, &rules);
            s.disorder |= disorder;
            verdict
        };
        let owner = &mut s.owners[o];
        match verdict {
            Verdict::Applied => owner.settle_below(x, segment.last + 1, plan),
            Verdict::Conflict if self.variant == Variant::ConflictIsDone => {
                owner.settle_below(x, segment.last + 1, plan);
            }
            Verdict::Conflict => owner.lanes[x].mode = Mode::Conflict,
            Verdict::Refused if self.variant == Variant::RefusalBelieved => {
                owner.lanes[x].mode = refused(&segment);
            }
            Verdict::Refused => owner.lanes[x].mode = Mode::Suspect,
        }
        owner.forget_committed();
        Some(())
    }

    pub(crate) fn bury(&self, s: &mut State, o: usize, letters: Set) -> Option<()> {
        let epoch = s.owners[o].epoch;
        if !matches!(self.variant, Variant::LettersInRedisAlone | Variant::LettersInMemory) {
            s.mongo.dead |= letters;
        }
        if self.variant != Variant::LettersInMemory && redis_mut(s, o).bury(epoch, letters).is_err() {
            self.end(s, o);
            return Some(());
        }
        s.owners[o].buried(letters);
        s.owners[o].forget_committed();
        Some(())
    }

    fn commit(&self, s: &mut State, o: usize) -> Option<()> {
        let Owner { epoch, base, .. } = s.owners[o];
        let (count, last, letters) = s.owners[o].due(self.variant)?;
        match redis_mut(s, o).commit((epoch, base), (count, last), letters, self.variant) {
            Ok(()) => s.owners[o].committed(base + count, letters),
            Err(refused) => self.ended(s, o, refused)?,
        }
        Some(())
    }

    /// A script refused. Being fenced changes nothing but the instance, so that is left to a crash.
    fn ended(&self, s: &mut State, o: usize, refused: Refused) -> Option<()> {
        match refused {
            Refused::Fenced => None,
            Refused::Foreign => {
                self.end(s, o);
                Some(())
            }
        }
    }

    /// What producers push.
    pub(crate) fn plan(&self, state: &State) -> &Plan {
        &self.plans[usize::from(state.plan)]
    }

    pub(crate) fn rules<'a>(&self, s: &State, plan: &'a Plan) -> Rules<'a> {
        let repeats = s.fell_back || s.popped != 0;
        Rules { plan, variant: self.variant, deletes: self.deletes, repeats }
    }
}

/// What is done about a refused segment. One of a single event needs no second opinion.
pub(crate) fn refused(segment: &Segment) -> Mode {
    if segment.events.count_ones() == 1 { Mode::Dead } else { Mode::Refused }
}

/// The Redis that an instance is connected to.
pub(crate) fn redis_of(s: &State, o: usize) -> &Redis {
    if s.owners[o].deposed { s.deposed.as_ref().unwrap_or(&s.redis) } else { &s.redis }
}

pub(crate) fn redis_mut(s: &mut State, o: usize) -> &mut Redis {
    if s.owners[o].deposed { s.deposed.as_mut().unwrap_or(&mut s.redis) } else { &mut s.redis }
}

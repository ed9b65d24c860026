//! States what must hold, and what must be reached so that it does not hold for want of anything happening.

use stateright::Property;

use crate::mongo::Rules;
use crate::owner::{Mode, Owner, Phase};
use crate::scenario::{Fall, Scenario};
use crate::state::{ENTITIES, INDEX_BITS, Kind, Plan, State, bit, members};

/// I1
pub(crate) const LOSS: &str = "I1: every event trimmed was applied or is a dead letter";
/// I2
pub(crate) const TWICE: &str = "I2: no event is applied twice, none dead twice, none both";
/// I3
pub(crate) const ORDER: &str = "I3: a document shows events in queue order";
/// A death is counted where a process died.
pub(crate) const DEATHS: &str = "an event is set aside only if a process died over it";
/// Nobody pops, so nobody is blamed.
pub(crate) const BLAME: &str = "no foreign pop is found where there was none";

/// The properties that matter to a scenario.
pub(crate) fn properties(scenario: &Scenario) -> Vec<Property<Scenario>> {
    let mut all = vec![
        Property::<Scenario>::always(LOSS, |model, state| !is_lost(model, state)),
        Property::<Scenario>::always(TWICE, |model, state| !is_twice(model, state)),
        Property::<Scenario>::always(ORDER, |model, state| !state.disorder && !is_resurrected(model, state)),
        Property::<Scenario>::always(BLAME, |_, state| !state.alarm || state.popped != 0),
        Property::<Scenario>::sometimes("a new owner recovers", |_, state| {
            state.owners.iter().any(|owner| owner.phase == Phase::Recovering && owner.len > 0)
        }),
        Property::<Scenario>::sometimes("everything is committed", |model, state| {
            usize::from(state.pushed) == model.plan(state).events.len() && state.redis.len == 0
        }),
    ];
    if scenario.plans.iter().any(has_parts) {
        all.push(Property::<Scenario>::sometimes("a document has a part of a write already", in_part));
    }
    if scenario.late > 0 {
        all.push(Property::<Scenario>::sometimes("a request outlives its ownership", |_, state| {
            let under_way = |owner: &Owner| owner.lanes.iter().any(|lane| lane.mode == Mode::Sent);
            let of_former = |owner: &Owner| owner.epoch != state.redis.owner && under_way(owner);
            let is_renumbered = state.redis.base >> INDEX_BITS > 1;
            is_renumbered && (state.late[0].is_some() || state.owners.iter().any(of_former))
        }));
        all.push(Property::<Scenario>::sometimes("two instances believe to own the queue", |_, state| {
            state.owners.iter().all(|owner| owner.owns() && owner.len > 0)
        }));
    }
    if scenario.plans.iter().any(|plan| plan.bad != 0) {
        all.push(Property::<Scenario>::sometimes("a dead letter is committed", |_, state| {
            state.redis.dead_list != 0
        }));
        all.push(Property::<Scenario>::sometimes("a dead letter is recovered", |_, state| {
            state.redis.dead != 0 && state.owners.iter().any(|o| o.phase == Phase::Recovering && o.len > 0)
        }));
    }
    if scenario.deaths {
        all.push(Property::<Scenario>::always(DEATHS, |_, state| state.aside & !state.died_over == 0));
        all.push(Property::<Scenario>::sometimes("an event is set aside", |_, state| state.aside != 0));
        all.push(Property::<Scenario>::sometimes("one that was died over is applied", |_, state| {
            state.died_over & state.mongo.ever & !state.aside != 0
        }));
    }
    if scenario.restored {
        all.push(Property::<Scenario>::sometimes("a watermark from elsewhere is replaced", |_, state| {
            !state.mongo.is_foreign() && state.redis.len == 0
        }));
        all.push(Property::<Scenario>::sometimes(
            "one finds a watermark of a later ownership",
            |_, state| {
                let stale = |owner: &Owner| owner.epoch != state.mongo.owner && !state.mongo.is_foreign();
                let unproven = |owner: &Owner| owner.lanes[0].mode == Mode::Unproven;
                state.owners.iter().any(|owner| stale(owner) && unproven(owner))
            },
        ));
    }
    if scenario.fall != Fall::Never {
        all.push(Property::<Scenario>::sometimes("events come again after Redis fell back", |_, state| {
            state.fell_back && state.mongo.twice != 0
        }));
    }
    if scenario.fall == Fall::Split {
        all.push(Property::<Scenario>::sometimes("two masters have an owner each", |_, state| {
            state.owners.iter().all(|owner| owner.owns()) && state.owners.iter().any(|owner| owner.deposed)
        }));
    }
    if scenario.pops > 0 {
        all.push(Property::<Scenario>::sometimes("a foreign pop is found", |_, state| state.alarm));
    }
    all
}

/// Whether a plan has events that fold into a write of which a part may have been applied.
fn has_parts(plan: &Plan) -> bool {
    plan.of.iter().any(|of| {
        let events: Vec<u8> = members(*of).collect();
        let is_update = |id: u8| plan.final_ & bit(id) == 0;
        events.windows(2).any(|two| is_update(two[0]) && is_update(two[1]) && plan.bad & bit(two[0]) == 0)
    })
}

/// Whether an event is gone from Redis and its effect from MongoDB, with nothing that accounts for it.
fn is_lost(model: &Scenario, state: &State) -> bool {
    let plan = model.plan(state);
    members(state.redis.trimmed(state.popped)).any(|id| {
        let is_applied = state.mongo.ever & bit(id) != 0;
        let event = plan.event(id);
        let shows = match event.kind {
            Kind::Junk => false,
            Kind::Delete => is_applied,
            _ => {
                let ending = plan.of[event.entity] & plan.final_ & state.mongo.ever;
                is_applied && (state.mongo.shown & bit(id) != 0 || ending >> id > 1)
            }
        };
        !shows && !state.redis.is_dead(id)
    })
}

fn is_twice(model: &Scenario, state: &State) -> bool {
    let exempt = state.fell_back || state.popped != 0;
    // Who died over an event may have applied it first.
    let both = state.redis.innocent_dead(model.plan(state)) & state.mongo.ever & !state.aside != 0;
    !exempt && (state.mongo.twice != 0 || state.redis.dead_twice != 0 || both)
}

/// Whether a document shows what came before a deletion or replacement that is committed.
fn is_resurrected(model: &Scenario, state: &State) -> bool {
    let plan = model.plan(state);
    let committed = state.redis.trimmed(state.popped);
    (0..ENTITIES).any(|entity| {
        let ended = plan.of[entity] & plan.final_ & committed;
        let below = if ended == 0 { 0 } else { bit(ended.ilog2() as u8) - 1 };
        plan.of[entity] & state.mongo.shown & below != 0
    })
}

fn in_part(model: &Scenario, state: &State) -> bool {
    let plan = model.plan(state);
    let rules = Rules { plan, variant: model.variant, deletes: model.deletes, repeats: false };
    state.owners.iter().any(|owner| {
        (0..ENTITIES).any(|x| {
            let segment = || owner.request(x, plan).statement(plan);
            owner.lanes[x].mode == Mode::Conflict
                && state.mongo.watermark(x).is_some_and(|w| w < segment().last)
                && state.mongo.is_held_back(&segment(), &rules)
        })
    })
}

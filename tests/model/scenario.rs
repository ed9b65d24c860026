//! Defines a scenario, which is what is checked: a protocol, what is pushed, and how much may go wrong.

use stateright::{Model, Property};

use crate::actions::Action;
use crate::mongo::Mongo;
use crate::properties::properties;
use crate::state::{Plan, State};
use crate::variants::{Deletes, Variant};

/// Whether Redis falls back to an earlier state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fall {
    /// It keeps what it acknowledged.
    Never,
    /// Once, and every connection ends.
    Cut,
    /// Once, and who is connected to the former master goes on with that.
    Split,
}

/// A scenario.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) variant: Variant,
    /// What producers push; one of these.
    pub(crate) plans: Vec<Plan>,
    /// The highest epoch, which bounds takeovers.
    pub(crate) epochs: u8,
    /// The most requests that are late at once. With none, a request is carried out before its sender's
    /// next step or never, and a former owner does nothing after a takeover.
    pub(crate) late: usize,
    pub(crate) fall: Fall,
    /// Elements that a foreign client may pop.
    pub(crate) pops: u8,
    pub(crate) deletes: Deletes,
    /// The collection has a validator that an upsert of most updates alone would not pass.
    pub(crate) validator: bool,
    /// Ownerships are handed over, and processes that die over what is to be recovered are counted.
    pub(crate) deaths: bool,
    /// The first document was restored from elsewhere: it has a watermark of an epoch above every one given out.
    pub(crate) restored: bool,
    /// Instances are alike; without this a trace keeps their names.
    pub(crate) symmetric: bool,
}

impl Scenario {
    /// The protocol as it is coded, on a good day but for crashes and late requests.
    pub(crate) fn new(plans: &[&str]) -> Self {
        Scenario {
            variant: Variant::Coded,
            plans: plans.iter().map(|text| Plan::new(text)).collect(),
            epochs: 3,
            late: 1,
            fall: Fall::Never,
            pops: 0,
            deletes: Deletes::Hard,
            validator: false,
            deaths: false,
            restored: false,
            symmetric: true,
        }
    }
}

impl Model for Scenario {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        (0..self.plans.len())
            .map(|plan| State {
                plan: plan as u8,
                pushed: 0,
                redis: Default::default(),
                saved: None,
                deposed: None,
                mongo: if self.restored { Mongo::restored() } else { Mongo::default() },
                owners: Default::default(),
                late: Default::default(),
                fell_back: false,
                popped: 0,
                alarm: false,
                disorder: false,
                died_over: 0,
                aside: 0,
            })
            .collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.list(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.step(state, action).filter(|next| next != state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties(self)
    }
}

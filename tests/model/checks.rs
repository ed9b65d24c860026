//! Checks every state that a scenario reaches, and finds the shortest way to where a wrong protocol fails.

use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};

use crate::actions::Action;
use crate::scenario::Scenario;
use crate::state::State;

/// How far is checked: `MODEL_BOUNDS` is `small`, as it is without, or `large`.
pub(crate) fn is_large() -> bool {
    match std::env::var("MODEL_BOUNDS").as_deref() {
        Err(_) | Ok("" | "small") => false,
        Ok("large") => true,
        Ok(other) => panic!("MODEL_BOUNDS is small or large, not {other:?}"),
    }
}

/// Checks that a protocol keeps its promises in every state, and that what a scenario is for is reached.
pub(crate) fn holds(name: &str, scenario: Scenario) {
    let properties = scenario.properties();
    let began = Instant::now();
    let checker = scenario.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    println!(
        "{name}: {} states, {} steps, {} deep, {:.0?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed()
    );
    for property in properties {
        let found = checker.discovery(property.name);
        match property.expectation {
            Expectation::Always => {
                if let Some(path) = found {
                    panic!("{name}: not so: {}\n{}", property.name, told(path));
                }
            }
            _ => assert!(found.is_some(), "{name}: never reached: {}", property.name),
        }
    }
}

/// Checks that a promise is broken, and tells the shortest way there.
pub(crate) fn refuted(name: &str, scenario: Scenario, promise: &'static str) {
    let mut shortest: Option<Vec<Action>> = None;
    let mut states = 0;
    loop {
        let mut checker =
            scenario.clone().checker().finish_when(HasDiscoveries::AnyOf([promise].into_iter().collect()));
        if let Some(steps) = &shortest {
            // The checker counts states rather than steps, and goes up to below the number it is given.
            checker = checker.target_max_depth(steps.len() + 1);
        }
        let checker = checker.spawn_bfs().join();
        if shortest.is_none() {
            states = checker.unique_state_count();
        }
        let Some(path) = checker.discovery(promise) else { break };
        shortest = Some(path.into_actions());
    }
    let Some(steps) = shortest else {
        panic!("{name}: nothing breaks {promise:?} in {states} states");
    };
    println!("{name}: refuted within {states} states, by {} steps: {promise}\n  {steps:?}", steps.len());
}

fn told(path: Path<State, Action>) -> String {
    let last = format!("{:?}", path.last_state());
    let steps: Vec<String> = path.into_actions().iter().map(|action| format!("{action:?}")).collect();
    format!("{}\nleads to {last}", steps.join("\n"))
}

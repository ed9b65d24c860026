//! Which instance should have which queue: a pure function, so that instances that see the same peers agree
//! without a word.

use std::collections::{BTreeMap, BTreeSet};

use sha1::{Digest, Sha1};

/// What is assigned: for each queue, in the order given, the instance that should have it. None where no instance is
/// known that could.
///
/// No instance gets more than one queue more than another, if all of them can have all queues. Of those that
/// may still get one, the one is taken that rendezvous hashing ranks first, so that few queues move when an
/// instance comes or goes.
#[must_use]
pub fn assign<'i>(queues: &[(&str, &'i BTreeSet<String>)]) -> Vec<Option<&'i str>> {
    let instances: BTreeSet<&str> =
        queues.iter().flat_map(|(_, instances)| instances.iter()).map(String::as_str).collect();
    let Some(each) = queues.len().checked_div(instances.len()) else { return vec![None; queues.len()] };
    let mut one_more = queues.len() % instances.len();
    let mut loads: BTreeMap<&str, usize> = instances.into_iter().map(|instance| (instance, 0)).collect();

    // The order of the configuration may differ between instances.
    let mut order: Vec<usize> = (0..queues.len()).collect();
    order.sort_by_key(|at| queues[*at].0);
    let mut assigned = vec![None; queues.len()];
    for at in order {
        let (queue, candidates) = queues[at];
        let rank = |instance: &&str| (loads[instance] + 1).saturating_sub(each + usize::from(one_more > 0));
        let best = candidates
            .iter()
            .map(String::as_str)
            .min_by_key(|instance| (rank(instance), std::cmp::Reverse(weight(queue, instance))));
        if let Some(best) = best {
            let load = loads.entry(best).or_default();
            *load += 1;
            if *load == each + 1 {
                one_more = one_more.saturating_sub(1);
            }
            assigned[at] = Some(best);
        }
    }
    assigned
}

fn weight(queue: &str, instance: &str) -> [u8; 20] {
    Sha1::new().chain_update(queue).chain_update([0]).chain_update(instance).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("queue:{n}")).collect()
    }

    fn instances(numbers: impl IntoIterator<Item = usize>) -> BTreeSet<String> {
        numbers.into_iter().map(|n| format!("host-{n}")).collect()
    }

    fn assigned(keys: &[String], instances: &BTreeSet<String>) -> Vec<String> {
        let queues: Vec<_> = keys.iter().map(|key| (key.as_str(), instances)).collect();
        assign(&queues).into_iter().map(|instance| instance.unwrap().to_owned()).collect()
    }

    #[test]
    fn without_instances_nothing_is_assigned() {
        assert_eq!(assign(&[("q", &BTreeSet::new())]), [None]);
        assert_eq!(assign(&[]), []);
    }

    #[test]
    fn only_those_that_have_a_queue_get_it() {
        let (a, b) = (instances([1]), instances([1, 2]));
        assert_eq!(assign(&[("p", &a), ("q", &b)]), [Some("host-1"), Some("host-2")]);
    }

    #[test]
    fn few_queues_move_when_an_instance_comes() {
        let keys = keys(60);
        let before = assigned(&keys, &instances(0..5));
        let after = assigned(&keys, &instances(0..6));
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        // A sixth has to; caps make some more of them.
        assert!((10..=25).contains(&moved), "{moved} of 60 moved");
    }

    proptest! {
        #[test]
        fn queues_are_spread_evenly(queues in 1_usize..40, live in prop::collection::btree_set(0_usize..30, 1..12), shuffle: u64) {
            let live = instances(live);
            let mut keys = keys(queues);
            let expected: BTreeMap<String, String> =
                keys.iter().cloned().zip(assigned(&keys, &live)).collect();
            let mut loads: BTreeMap<&String, usize> = live.iter().map(|instance| (instance, 0)).collect();
            for instance in expected.values() {
                *loads.get_mut(instance).unwrap() += 1;
            }
            let (least, most) = (loads.values().min().unwrap(), loads.values().max().unwrap());
            prop_assert!(most - least <= 1, "{:?}", loads);
            fastrand::Rng::with_seed(shuffle).shuffle(&mut keys);
            for (key, instance) in keys.iter().zip(assigned(&keys, &live)) {
                prop_assert_eq!(&expected[key], &instance);
            }
        }
    }
}

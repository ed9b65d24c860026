//! Assigns queues to instances by a pure function, so that instances that see the same peers agree without a word.
//!
//! Instances need not have the same queues, as in a roll-out that adds one. Each sees the members of its own queues
//! only. So a queue's instance is worked out from what all of that queue's instances see, and from nothing else.

use std::collections::{BTreeMap, BTreeSet};

use sha1::{Digest, Sha1};

/// What is assigned: for each queue, in the order given, the instance that should have it. None where no instance is
/// known that could.
///
/// Queues of the same instances are spread over them together: each of these instances has all of them, so all see the
/// same. Of them, none gets more than one queue more than another. Of those that may still get one, the one is taken
/// that rendezvous hashing ranks first, so that few queues move when an instance comes or goes.
#[must_use]
pub(crate) fn assign<'i>(queues: &[(&str, &'i BTreeSet<String>)]) -> Vec<Option<&'i str>> {
    let mut groups: BTreeMap<&'i BTreeSet<String>, Vec<usize>> = BTreeMap::new();
    for (at, (_, instances)) in queues.iter().enumerate() {
        groups.entry(*instances).or_default().push(at);
    }
    let mut assigned = vec![None; queues.len()];
    for (instances, mut group) in groups {
        // The order of the configuration may differ between instances.
        group.sort_by_key(|at| queues[*at].0);
        let keys: Vec<&str> = group.iter().map(|at| queues[*at].0).collect();
        for (at, instance) in group.into_iter().zip(spread(&keys, instances)) {
            assigned[at] = Some(instance);
        }
    }
    assigned
}

/// Spreads queues evenly over instances that have all of them; over none, nothing.
fn spread<'i>(queues: &[&str], instances: &'i BTreeSet<String>) -> Vec<&'i str> {
    let Some(each) = queues.len().checked_div(instances.len()) else { return Vec::new() };
    let mut one_more = queues.len() % instances.len();
    let mut loads: BTreeMap<&str, usize> = instances.iter().map(|instance| (instance.as_str(), 0)).collect();
    let mut spread = Vec::with_capacity(queues.len());
    for queue in queues {
        let room = each + usize::from(one_more > 0);
        let rank = |load: usize| (load + 1).saturating_sub(room);
        let best = loads
            .iter_mut()
            .min_by_key(|(instance, load)| (rank(**load), std::cmp::Reverse(weight(queue, instance))));
        let Some((instance, load)) = best else { break };
        *load += 1;
        if *load == each + 1 {
            one_more = one_more.saturating_sub(1);
        }
        spread.push(*instance);
    }
    spread
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
        for n in 0..20 {
            let q = format!("q{n}");
            let owners = assign(&[("p", &a), (&q, &b)]);
            assert_eq!(owners[0], Some("host-1"));
            // What else an instance has is nothing that all of the queue's instances see.
            assert_eq!(owners[1], assign(&[(&q, &b)])[0]);
        }
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

    /// The owner of each queue as one instance works it out, which sees the members of its own queues.
    fn as_seen_by<'c>(
        instance: usize,
        has: &[BTreeSet<usize>],
        members: &'c BTreeMap<String, BTreeSet<String>>,
    ) -> BTreeMap<String, Option<&'c str>> {
        let queues: Vec<_> = has[instance].iter().map(|n| format!("queue:{n}")).collect();
        let seen: Vec<_> = queues.iter().map(|queue| (queue.as_str(), &members[queue])).collect();
        queues.iter().cloned().zip(assign(&seen)).collect()
    }

    proptest! {
        /// Whatever subset of the queues each instance has, all that have a queue agree on whose it is.
        #[test]
        fn instances_with_different_queues_agree(
            has in prop::collection::vec(prop::collection::btree_set(0_usize..12, 0..12), 1..8),
        ) {
            let mut members: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (instance, queues) in has.iter().enumerate() {
                for queue in queues {
                    members.entry(format!("queue:{queue}")).or_default().insert(format!("host-{instance}"));
                }
            }
            let mut owners: BTreeMap<String, &str> = BTreeMap::new();
            for instance in 0..has.len() {
                for (queue, owner) in as_seen_by(instance, &has, &members) {
                    let Some(owner) = owner else { return Err(TestCaseError::fail(format!("{queue} has no owner"))) };
                    prop_assert!(members[&queue].contains(owner));
                    let agreed = *owners.entry(queue.clone()).or_insert(owner);
                    prop_assert_eq!(agreed, owner, "{} as seen by host-{}", queue, instance);
                }
            }
            prop_assert_eq!(owners.len(), members.len());
            // And evenly among those that have the same.
            let mut loads: BTreeMap<&BTreeSet<String>, BTreeMap<&str, usize>> = BTreeMap::new();
            for (queue, owner) in &owners {
                let group = &members[queue];
                let loads = loads.entry(group).or_insert_with(|| group.iter().map(|i| (i.as_str(), 0)).collect());
                *loads.get_mut(owner).unwrap() += 1;
            }
            for loads in loads.values() {
                let (least, most) = (loads.values().min().unwrap(), loads.values().max().unwrap());
                prop_assert!(most - least <= 1, "{:?}", loads);
            }
        }

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

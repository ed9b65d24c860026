//! Tests that every change is written by its deadline, in order, and with no more writes than one window for all makes.

use super::*;
use crate::batch::{Policy, Trigger};
use crate::buffer::Buffer;
use crate::change::{Change, CollectionId, Effect, FieldOp, FieldOps, Op, write_field_op};
use crate::raw::{Number, Value};
use proptest::prelude::*;

const POLICY: Policy = Policy {
    max_ops: 4,
    max_bytes: 1 << 20,
    max_delay: Duration::from_millis(50),
    backlog_delay: Duration::from_secs(2),
    max_writes_per_second: 0,
};

/// A change: how long after the one before, of which document, how long it may wait where it has a timing of its own.
type Step = (u64, i64, Option<u64>);

fn empty(deadlines: bool) -> Pending {
    let buffer = Buffer::new(&crate::config::Buffer::default());
    let ledger = Ledger::new(Arc::new(crate::metrics::QueueMetrics::new("q", &[])), buffer);
    if deadlines { Pending::with_deadlines(&ledger, POLICY.max_delay) } else { Pending::new(&ledger) }
}

fn fold(pending: &mut Pending, offset: i64, id: i64, since: Instant, deadline: Deadline) {
    pending.unsettled.absorb(pending.unsettled.ledger().receive(1));
    let (id, one) = (Value::from(Number::int(id)), Value::from(Number::int(1)));
    let mut body = Vec::new();
    write_field_op(&mut body, FieldOp { op: Op::Inc, path: "n", value: one.get() });
    let entity = EntityRef { collection: CollectionId(0), id: id.get(), shard_key: &[] };
    let change = Change { entity, effect: Effect::Update(FieldOps::new(&body)), ts: None, traceparent: None };
    let hash = u64::from(id.get().bytes[0]);
    pending.fold_until(&Placed { offset, hash, change }, since, deadline, POLICY.max_bytes);
}

/// Sends what is due as a lane does whose batches take no time, until `to`. Answers each write: when, and its offsets.
fn send_until(pending: &mut Pending, now: &mut Instant, to: Instant, written: &mut Vec<(Instant, i64, i64)>) {
    loop {
        let held = pending.held(i64::MIN, *now);
        match (POLICY.due(&held, false), POLICY.patience(&held, false)) {
            (Some(trigger), _) => {
                let with_prompt =
                    trigger != Trigger::Delay || held.first_due.is_some_and(|first| first.is_prompt);
                let by = *now + POLICY.max_delay;
                let mut batch = pending.split_off_due(by, with_prompt, POLICY.max_ops, POLICY.max_bytes);
                assert!(batch.entities() > 0, "a batch has something in it");
                written.extend(batch.next_segments().iter().map(|w| (*now, w.segment.first, w.segment.last)));
                assert_eq!(batch.entities(), 0);
            }
            (None, Some(patience)) if *now + patience <= to => *now += patience,
            _ => break,
        }
    }
    *now = to;
}

/// The writes of one window for all, as long as the shortest: all that is pending goes once the oldest has waited so long.
fn naive_writes(steps: &[Step], window: Duration) -> usize {
    let (mut at, mut writes, mut opened) = (Duration::ZERO, 0, None);
    let mut pending = std::collections::HashSet::new();
    for (after, id, _) in steps {
        at += Duration::from_millis(*after);
        if opened.is_some_and(|opened| at >= opened + window) {
            writes += pending.len();
            pending.clear();
            opened = None;
        }
        opened.get_or_insert(at);
        pending.insert(id);
    }
    writes + pending.len()
}

proptest! {
    #[test]
    fn every_change_is_written_by_its_deadline_in_order_and_seldom(
        steps in prop::collection::vec(
            (0_u64..400, 0_i64..6, prop::option::weighted(0.7, prop::sample::select(vec![50_u64, 300, 2000]))),
            1..80,
        ),
    ) {
        let start = Instant::now();
        let (mut pending, mut now, mut written) = (empty(true), start, Vec::new());
        // Since when each has waited, its document, and its deadline.
        let mut changes = Vec::new();
        let mut at = start;
        for (offset, (after, id, window)) in steps.iter().enumerate() {
            at += Duration::from_millis(*after);
            send_until(&mut pending, &mut now, at, &mut written);
            let due = at + window.map_or(POLICY.max_delay, Duration::from_millis);
            let deadline = if window.is_some() { Deadline::At(due) } else { Deadline::Default };
            fold(&mut pending, offset as i64, *id, at, deadline);
            changes.push((*id, due));
        }
        send_until(&mut pending, &mut now, at + Duration::from_secs(3), &mut written);

        prop_assert_eq!((pending.entities(), pending.bytes(), pending.prompt_ops, pending.prompt_bytes), (0, 0, 0, 0));
        let mut last = std::collections::HashMap::new();
        let mut seen = 0;
        for (when, first, to) in &written {
            let (id, _) = changes[usize::try_from(*first).unwrap()];
            prop_assert!(last.insert(id, *to).is_none_or(|before| before < *first), "in order");
            for offset in *first..=*to {
                let (other, due) = changes[usize::try_from(offset).unwrap()];
                if other == id {
                    prop_assert!(*when <= due, "{offset} is {:?} late", *when - due);
                    seen += 1;
                }
            }
        }
        prop_assert_eq!(seen, changes.len(), "each once");
        let naive = naive_writes(&steps, POLICY.max_delay);
        // Windows begin at other times, which may cost a write or two.
        prop_assert!(written.len() <= naive + 2, "{} writes, {naive} of one window for all", written.len());
    }
}

#[test]
fn a_flush_makes_due_what_waits_for_the_document_and_nothing_else() {
    let (mut pending, now) = (empty(true), Instant::now());
    let hour = Duration::from_secs(3600);
    for (offset, id) in [(0, 1), (1, 2), (2, 1)] {
        fold(&mut pending, offset, id, now, Deadline::At(now + hour));
    }
    assert_eq!(POLICY.patience(&pending.held(i64::MIN, now), false), Some(hour));
    fold(&mut pending, 3, 1, now, Deadline::At(now));
    assert_eq!(POLICY.due(&pending.held(i64::MIN, now), false), Some(Trigger::Delay));
    let mut batch = pending.split_off_due(now + POLICY.max_delay, true, 9, 1 << 20);
    let writes = batch.next_segments();
    assert_eq!((writes.len(), writes[0].segment.first, writes[0].segment.last), (1, 0, 3));
    assert_eq!((pending.entities(), pending.first()), (1, Some(1)));
}

#[test]
fn another_delay_counts_for_what_waits_already() {
    let (mut pending, now) = (empty(true), Instant::now());
    let minute = Duration::from_secs(60);
    pending.set_max_delay(minute);
    fold(&mut pending, 0, 1, now, Deadline::Default);
    fold(&mut pending, 1, 2, now, Deadline::At(now + 2 * minute));
    assert_eq!(POLICY.patience(&pending.held(i64::MIN, now), false), Some(minute));
    assert_eq!(pending.prompt_ops, 1);
    pending.set_max_delay(2 * minute);
    assert_eq!(POLICY.patience(&pending.held(i64::MIN, now), false), Some(2 * minute));
    assert_eq!(pending.prompt_ops, 2);
    pending.set_max_delay(Duration::ZERO);
    assert_eq!(POLICY.due(&pending.held(i64::MIN, now), false), Some(Trigger::Delay));
    assert_eq!((pending.prompt_ops, pending.prompt_bytes > 0), (1, true));
}

#[test]
fn what_is_oldest_goes_first_where_it_has_to() {
    let (mut pending, now) = (empty(true), Instant::now());
    for (offset, id) in [(0_i64, 1), (1, 2), (2, 3), (3, 1)] {
        let due = now + Duration::from_secs(100 - offset.unsigned_abs());
        fold(&mut pending, offset, id, now, Deadline::At(due));
    }
    assert_eq!(POLICY.due(&pending.held(0, now), false), None);
    assert_eq!(POLICY.due(&pending.held(2, now), false), Some(Trigger::Pressure));
    let mut batch = pending.split_off_below(2, 9, 1 << 20);
    let offsets: Vec<_> = batch.next_segments().iter().map(|w| (w.segment.first, w.segment.last)).collect();
    assert_eq!(offsets, [(0, 3), (1, 1)]);
    assert_eq!((pending.entities(), pending.first()), (1, Some(2)));
}

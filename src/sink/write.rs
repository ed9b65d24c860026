//! One attempt at writing a batch.

use std::ops::Range;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::Sink;
use super::command::{Command, Encoder, Guard, Kind};
use super::novelty::SAMPLE;
use super::reply::{Verdict, made, verdicts};
use crate::class::Class;
use crate::coalesce::Update;
use crate::metrics::Op;
use crate::write::Write;

impl Sink {
    /// Tries once to apply `writes`, each to another entity; or, `ordered`, one after another up to the
    /// first that is not applied, all of them of one kind. Answers a verdict for each.
    pub async fn write(&self, writes: &[Write], guard: Option<&Guard>, ordered: bool) -> Vec<Verdict> {
        let mapping = self.live.mapping();
        let encoder = Encoder {
            collections: &mapping.collections,
            limits: self.limits,
            write_concern: &self.write_concern,
            guard,
            tombstones: &self.tombstones,
            ordered,
        };
        let attempt = Attempt { sink: self, encoder, writes };
        let mut all = vec![Verdict::Untried; writes.len()];
        if !ordered && self.may_insert {
            let may_make = |write: &&Write| !matches!(write.segment.update, Update::Delete);
            let first = writes.iter().take(SAMPLE).filter(may_make);
            let sample = self.novelty.sample(writes.len(), first.map(|write| write.entity.get().collection));
            attempt.update(0..sample, &mut all).await;
            attempt.insert(&mut all).await;
        }
        attempt.update(0..writes.len(), &mut all).await;
        let failure = all.iter().find_map(|verdict| match verdict {
            Verdict::Failed(error) => Some(error),
            _ => None,
        });
        self.writes_fail.store(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(error) => self.status.mongodb.down(error),
            None => self.status.mongodb.up(),
        }
        all
    }
}

struct Attempt<'a> {
    sink: &'a Sink,
    encoder: Encoder<'a>,
    writes: &'a [Write],
}

impl Attempt<'_> {
    /// Inserts documents that are likely to be new. What is refused is as good as untried: the guarded update decides.
    async fn insert(&self, all: &mut [Verdict]) {
        let novelty = &self.sink.novelty;
        let likely: Vec<_> = untried(all, 0..all.len())
            .filter(|at| novelty.is_likely(self.writes[*at].entity.get().collection))
            .collect();
        for command in self.encoder.inserts(likely.into_iter().map(|at| (at, &self.writes[at]))) {
            let (collection, places) = (command.collection, command.writes.clone());
            let verdicts = self.send(command).await;
            let inserted = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Applied)).count();
            let told =
                verdicts.iter().filter(|verdict| !matches!(verdict, Verdict::Failed(_) | Verdict::Untried));
            novelty.learn(collection, inserted, told.count());
            for (at, verdict) in places.into_iter().zip(verdicts) {
                if !matches!(verdict, Verdict::Conflict | Verdict::Refused(_)) {
                    all[at] = verdict;
                }
            }
        }
    }

    /// Writes what is untried, each under its guard.
    async fn update(&self, places: Range<usize>, all: &mut [Verdict]) {
        let untried: Vec<_> = untried(all, places).collect();
        for command in self.encoder.commands(untried.into_iter().map(|at| (at, &self.writes[at]))) {
            let places = command.writes.clone();
            let verdicts = self.send(command).await;
            let complete = verdicts.iter().all(|verdict| matches!(verdict, Verdict::Applied));
            for (at, verdict) in places.into_iter().zip(verdicts) {
                all[at] = verdict;
            }
            if self.encoder.ordered && !complete {
                break;
            }
        }
    }

    async fn send(&self, mut command: Command) -> Vec<Verdict> {
        let Attempt { sink, encoder, .. } = self;
        let body = std::mem::take(&mut command.body);
        let started = Instant::now();
        let verdicts = match sink.run(body).await {
            Ok(reply) => {
                // What was tried to be inserted before is known not to be new.
                if command.kind == Kind::Update && !sink.novelty.is_likely(command.collection) {
                    sink.novelty.learn(command.collection, made(&reply), command.writes.len());
                }
                verdicts(&command, encoder.ordered, encoder.guard.is_some(), &reply)
            }
            Err(error) if error.class() == Class::Data => {
                vec![Verdict::Refused(error.rejection()); command.writes.len()]
            }
            Err(error) => vec![Verdict::Failed(error); command.writes.len()],
        };
        sink.metrics.write_duration(command.collection, started.elapsed());
        self.count(&command, &verdicts);
        verdicts
    }

    fn count(&self, command: &Command, verdicts: &[Verdict]) {
        let mut counts = [0_u64; Op::ALL.len()];
        for (at, verdict) in command.writes.iter().zip(verdicts) {
            if matches!(verdict, Verdict::Applied) {
                let op = match (command.kind, &self.writes[*at].segment.update) {
                    (Kind::Insert, _) => Op::Insert,
                    (_, Update::Fields(_)) => Op::Update,
                    (_, Update::Replace(_)) => Op::Replace,
                    (_, Update::Delete) => Op::Delete,
                };
                counts[op as usize] += 1;
            }
        }
        for op in Op::ALL {
            self.sink.metrics.writes(command.collection, op, counts[op as usize]);
        }
    }
}

fn untried(all: &[Verdict], places: Range<usize>) -> impl Iterator<Item = usize> {
    places.filter(|at| matches!(all[*at], Verdict::Untried))
}

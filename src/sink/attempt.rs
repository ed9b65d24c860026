//! Tries once to write a batch.

use std::collections::VecDeque;
use std::ops::Range;

use tokio::time::Instant;

use super::Write;
use super::bulk_command::StatementKind;
use super::command::{Command, Encoder, Guard};
use super::insert_rate::SAMPLE;
use super::reply::{Refusal, Verdict, made, verdicts};
use super::{Sink, SinkError};
use crate::change::CollectionId;
use crate::coalesce::Update;
use crate::metrics::WriteOp;
use crate::retry::Class;

impl Sink {
    /// Whether anything was written to a collection since then.
    #[must_use]
    pub(crate) fn has_written_since(&self, collection: CollectionId, since: Instant) -> bool {
        self.written.lock().get(&collection).is_some_and(|written| *written > since)
    }

    /// Tries once to apply `writes`, each to another entity; or, `ordered`, one after another up to the
    /// first that is not applied, all of them of one kind. Answers a verdict for each.
    pub(crate) async fn write(&self, writes: &[Write], guard: Option<&Guard>, ordered: bool) -> Vec<Verdict> {
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
            let sample =
                self.insert_rate.sample(writes.len(), first.map(|write| write.entity.get().collection));
            attempt.update(0..sample, &mut all).await;
            attempt.insert(&mut all).await;
        }
        attempt.update(0..writes.len(), &mut all).await;
        let is_there = |(write, verdict): &(&Write, &Verdict)| {
            matches!(verdict, Verdict::Applied) && !matches!(write.segment.update, Update::Delete)
        };
        self.insert_rate.wrote(writes.iter().zip(&all).filter(is_there).map(|(write, _)| write));
        let failure = all.iter().find_map(|verdict| match verdict {
            Verdict::Failed(error) => Some(error),
            _ => None,
        });
        self.health.mongodb.wrote(failure.map(|error| error as &dyn std::fmt::Display));
        all
    }
}

/// Commands that are sent in one attempt to find the statement for which a command is refused: enough for three among
/// thousands.
const SPLITS: usize = 64;

struct Attempt<'a> {
    sink: &'a Sink,
    encoder: Encoder<'a>,
    writes: &'a [Write],
}

impl Attempt<'_> {
    /// Inserts documents that are likely to be new. What is refused is as good as untried: the guarded update decides.
    async fn insert(&self, all: &mut [Verdict]) {
        let insert_rate = &self.sink.insert_rate;
        let likely: Vec<_> =
            untried(all, 0..all.len()).filter(|at| insert_rate.makes(&self.writes[*at])).collect();
        for command in self.encoder.inserts(likely.into_iter().map(|at| (at, &self.writes[at]))) {
            let (collection, places) = (command.collection, command.writes.clone());
            let verdicts = match self.send(command).await {
                CommandReply::Each(verdicts) => verdicts,
                CommandReply::Refused(error) => vec![of_statement(error); places.len()],
            };
            let inserted = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Applied)).count();
            let told = verdicts.iter().filter(|verdict| {
                !matches!(verdict, Verdict::Failed(_) | Verdict::Held(_) | Verdict::Untried)
            });
            insert_rate.learn(collection, inserted, told.count());
            for (at, verdict) in places.into_iter().zip(verdicts) {
                if matches!(verdict, Verdict::Applied | Verdict::Failed(_)) {
                    all[at] = verdict;
                }
            }
        }
    }

    /// Writes what is untried, each under its guard.
    async fn update(&self, places: Range<usize>, all: &mut [Verdict]) {
        let untried: Vec<_> = untried(all, places).collect();
        for command in self.commands(&untried) {
            let places = command.writes.clone();
            match self.send(command).await {
                CommandReply::Each(verdicts) => note(all, &places, verdicts),
                CommandReply::Refused(error) => self.split(&places, error, all).await,
            }
            let complete = places.iter().all(|at| matches!(all[*at], Verdict::Applied));
            if self.encoder.ordered && !complete {
                break;
            }
        }
    }

    fn commands<'w>(&'w self, places: &'w [usize]) -> impl Iterator<Item = Command> + 'w {
        self.encoder.commands(places.iter().map(|at| (*at, &self.writes[*at])))
    }

    /// Finds the statements for which a whole command is refused, and writes the others: some servers refuse all of a command
    /// for one of its statements. What is refused twice with the same code is halved.
    async fn split(&self, places: &[usize], refused: SinkError, all: &mut [Verdict]) {
        // Of an ordered command nothing may be tried before what comes first.
        let whole = if self.encoder.ordered { &places[..1] } else { places };
        if places.len() == 1 || refused.is_of_server() {
            let verdicts = vec![of_statement(refused); whole.len()];
            return note(all, whole, verdicts);
        }
        let mut parts = VecDeque::from([whole]);
        let mut tries = SPLITS;
        while let Some(part) = parts.pop_front() {
            let command = self.commands(part).next().filter(|_| tries > 0);
            tries = tries.saturating_sub(1);
            let answer = match command {
                Some(command) => self.send(command).await,
                None => CommandReply::Each(vec![Verdict::Held(refused.clone()); part.len()]),
            };
            match answer {
                CommandReply::Refused(again) if part.len() > 1 && again.code() == refused.code() => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([first, second]);
                }
                CommandReply::Refused(again) if part.len() > 1 => {
                    note(all, part, vec![Verdict::Held(again); part.len()]);
                }
                CommandReply::Refused(again) => note(all, part, vec![of_statement(again)]),
                CommandReply::Each(verdicts) => {
                    let is_away = verdicts.iter().any(|verdict| matches!(verdict, Verdict::Failed(_)));
                    note(all, part, verdicts);
                    if is_away {
                        break;
                    }
                }
            }
        }
        // Those that nobody came to are tried with the next attempt.
        for part in parts {
            note(all, part, vec![Verdict::Held(refused.clone()); part.len()]);
        }
    }

    async fn send(&self, mut command: Command) -> CommandReply {
        let Attempt { sink, encoder, .. } = self;
        let body = std::mem::take(&mut command.body);
        let started = Instant::now();
        let verdicts = match sink.run_for_documents(body).await {
            Ok(reply) => {
                // What was tried to be inserted before is known not to be new.
                if command.kind == StatementKind::Update && !sink.insert_rate.is_likely(command.collection) {
                    let firsts = sink.insert_rate.firsts(command.writes.iter().map(|at| &self.writes[*at]));
                    sink.insert_rate.learn(command.collection, made(&reply).min(firsts), firsts);
                }
                verdicts(&command, encoder.ordered, encoder.guard.is_some(), &reply)
            }
            Err(error) if error.is_refusal() => {
                sink.metrics.write_duration(command.collection, started.elapsed());
                return CommandReply::Refused(error);
            }
            Err(error) => vec![Verdict::Failed(error); command.writes.len()],
        };
        sink.metrics.write_duration(command.collection, started.elapsed());
        self.count(&command, &verdicts);
        CommandReply::Each(verdicts)
    }

    fn count(&self, command: &Command, verdicts: &[Verdict]) {
        let mut counts = [0_u64; WriteOp::ALL.len()];
        for (at, verdict) in command.writes.iter().zip(verdicts) {
            if matches!(verdict, Verdict::Applied) {
                let op = match (command.kind, &self.writes[*at].segment.update) {
                    (StatementKind::Insert, _) => WriteOp::Insert,
                    (_, Update::Fields(_)) => WriteOp::Update,
                    (_, Update::Replace(_)) => WriteOp::Replace,
                    (_, Update::Delete) => WriteOp::Delete,
                };
                counts[op as usize] += 1;
            }
        }
        if counts.iter().any(|count| *count > 0) {
            self.sink.written.lock().insert(command.collection, Instant::now());
        }
        for op in WriteOp::ALL {
            self.sink.metrics.writes(command.collection, op, counts[op as usize]);
        }
    }
}

/// What was answered to a command.
enum CommandReply {
    /// A verdict for each of its statements.
    Each(Vec<Verdict>),
    /// It is refused as a whole, by a server that can write.
    Refused(SinkError),
}

/// What the refusal of a command says of its only statement, or of each.
fn of_statement(error: SinkError) -> Verdict {
    match error.class() {
        Class::Data => Verdict::Refused(Refusal { rejection: error.rejection(), is_certain: true }),
        Class::Transient | Class::Fatal => Verdict::Held(error),
    }
}

fn note(all: &mut [Verdict], places: &[usize], verdicts: Vec<Verdict>) {
    for (at, verdict) in places.iter().zip(verdicts) {
        all[*at] = verdict;
    }
}

fn untried(all: &[Verdict], places: Range<usize>) -> impl Iterator<Item = usize> {
    places.filter(|at| matches!(all[*at], Verdict::Untried))
}

//! Reports what the campaign found, for people.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use crate::deck::Fault;
use crate::plan::Plan;
use crate::receipts::Found;
use crate::verdict::Verdict;

/// A round that came to its end.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) redis_lost: usize,
    /// Events that were read again, and found applied.
    pub(crate) deduplicated: usize,
    pub(crate) recovery: Duration,
    pub(crate) takeovers: usize,
    /// Dead letters: no event of a round deserves it.
    pub(crate) dead: Vec<Value>,
    pub(crate) receipts: Found,
}

#[derive(Debug, Default)]
pub(crate) struct Report {
    seed: u64,
    faults: BTreeMap<Fault, Tally>,
    failures: Vec<String>,
    duration: Duration,
}

#[derive(Debug, Default, Clone)]
struct Tally {
    rounds: usize,
    failed: usize,
    takeovers: usize,
    events: usize,
    redis_lost: usize,
    deduplicated: usize,
    lost: usize,
    doubled: usize,
    out_of_order: usize,
    /// Whatever else was wrong with a document.
    other: usize,
    dead: usize,
    receipts: usize,
    untrue: usize,
    releases: usize,
    recovery: Duration,
}

impl Report {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Adds a round, and says in a line how it went.
    pub(crate) fn add(
        &mut self,
        plan: &Plan,
        duration: Duration,
        outcome: &anyhow::Result<Outcome>,
    ) -> String {
        self.duration += duration;
        let tally = self.faults.entry(plan.fault).or_default();
        tally.rounds += 1;
        tally.releases += usize::from(plan.release);
        let (line, failed) = match outcome {
            Ok(outcome) => {
                let Outcome { verdict, redis_lost, deduplicated, recovery, takeovers, dead, receipts } =
                    outcome;
                tally.takeovers += takeovers;
                tally.events += verdict.events;
                tally.redis_lost += redis_lost;
                tally.deduplicated += deduplicated;
                tally.lost += verdict.lost;
                tally.doubled += verdict.doubled;
                tally.out_of_order += verdict.out_of_order;
                tally.other += verdict.foreign + verdict.torn;
                // What Redis lost is settled again, under earlier numbers.
                let untrue = if plan.fault.redis_keeps_its_word() { receipts.untrue } else { 0 };
                tally.dead += dead.len();
                tally.receipts += receipts.compared;
                tally.untrue += untrue;
                tally.recovery = tally.recovery.max(*recovery);
                let mut line = format!(
                    "{:>6} events, recovered in {:>4.1} s, round took {:>4.1} s",
                    verdict.events,
                    recovery.as_secs_f64(),
                    duration.as_secs_f64()
                );
                if *redis_lost + verdict.doubled > 0 {
                    let _ = write!(line, ", Redis lost {redis_lost}, {} twice", verdict.doubled);
                }
                let good =
                    verdict.is_good(plan.fault.redis_keeps_its_word()) && dead.is_empty() && untrue == 0;
                if !good {
                    let (first, told) = (dead.first(), &receipts.told);
                    let _ = write!(
                        line,
                        "  FAILED: {verdict:#?}, {} dead, the first is {first:?}, {untrue} false receipts: {told:#?}",
                        dead.len()
                    );
                }
                (line, !good)
            }
            Err(error) => (format!("FAILED: {error:#}"), true),
        };
        let line = format!("{:<80} {line}", plan.to_string());
        if failed {
            tally.failed += 1;
            self.failures.push(line.clone());
        }
        line
    }

    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// The whole of it, as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut all = Tally::default();
        let mut rows = String::new();
        for (fault, tally) in &self.faults {
            tally.row(&mut rows, &fault.to_string());
            all.add(tally);
        }
        all.row(&mut rows, "**All**");
        let mut text = format!(
            "`make chaos ROUNDS={} SEED={}`: {} rounds in {:.0} s, {} of them with a release build, {} failed; {} receipts \
             compared.\n\n\
             | Fault | Rounds | Takeovers | Events | Seen again | Lost by Redis | Lost | Twice | Out of order | Otherwise wrong | Healthy dead | False receipts | \
             Longest recovery |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n{rows}",
            all.rounds,
            self.seed,
            all.rounds,
            self.duration.as_secs_f64(),
            all.releases,
            all.failed,
            all.receipts,
        );
        if !self.failures.is_empty() {
            let _ = write!(text, "\nFailed:\n\n    {}\n", self.failures.join("\n").replace('\n', "\n    "));
        }
        text
    }
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.rounds += other.rounds;
        self.failed += other.failed;
        self.takeovers += other.takeovers;
        self.events += other.events;
        self.redis_lost += other.redis_lost;
        self.deduplicated += other.deduplicated;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.out_of_order += other.out_of_order;
        self.other += other.other;
        self.dead += other.dead;
        self.receipts += other.receipts;
        self.untrue += other.untrue;
        self.releases += other.releases;
        self.recovery = self.recovery.max(other.recovery);
    }

    fn row(&self, rows: &mut String, name: &str) {
        let Self {
            rounds,
            takeovers,
            events,
            deduplicated,
            redis_lost,
            lost,
            doubled,
            out_of_order,
            other,
            dead,
            untrue,
            ..
        } = self;
        // Writing to a String cannot fail.
        let _ = writeln!(
            rows,
            "| {name} | {rounds} | {takeovers} | {events} | {deduplicated} | {redis_lost} | {lost} | {doubled} | {out_of_order} | \
             {other} | {dead} | {untrue} | {:.1} s |",
            self.recovery.as_secs_f64()
        );
    }
}

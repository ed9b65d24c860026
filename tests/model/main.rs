//! Models the delivery protocol for lists, and checks it exhaustively within bounds.
//! `docs/model.md` tells what the model leaves out. Nothing here runs the daemon: each step names the function that it
//! stands for.

mod actions;
mod checks;
mod faults;
mod mongo;
mod numbering;
mod owner;
mod properties;
mod redis;
mod scenario;
mod state;
mod variants;

use crate::checks::{holds, is_large, refuted};
use crate::properties::{DEATHS, LOSS, ORDER, TWICE};
use crate::scenario::{Fall, Scenario};
use crate::variants::{Deletes, Variant};

/// Plans to check: some always, the others only with large bounds.
fn plans(always: &[&'static str], large: &[&'static str]) -> Scenario {
    let all: Vec<&str> = if is_large() { [always, large].concat() } else { always.to_vec() };
    Scenario::new(&all)
}

/// A protocol that fails, with as much going wrong as that takes.
fn wrong(variant: Variant, plan: &str) -> Scenario {
    // Instances keep their names, so that the trace can be read.
    Scenario { variant, symmetric: false, epochs: 2, ..Scenario::new(&[plan]) }
}

#[test]
fn events_of_one_document() {
    let plans = plans(&["as ai as", "as ax ai", "as ar ai", "-- as ax"], &[]);
    holds("one document", Scenario { epochs: if is_large() { 4 } else { 3 }, ..plans });
}

#[test]
fn events_of_two_documents() {
    let plans = plans(&["as bi ax"], &["as bi as", "ax bi as"]);
    holds("two documents", plans);
}

#[test]
fn two_late_requests() {
    holds("two late requests", Scenario { late: 2, ..plans(&["as ai"], &["as ai as", "ai ax as"]) });
}

#[test]
fn deletions_that_leave_the_watermark() {
    let plans = plans(&["ai ad as", "ai ax ad"], &["as ad bi", "ai ad ar"]);
    holds("tombstones", Scenario { deletes: Deletes::Tombstone, ..plans });
}

#[test]
fn deletions_while_nothing_is_late() {
    let plans = plans(&["ai ad as", "ai ax ad as"], &["ai ad ai ad", "as ad bi ad"]);
    holds("hard deletions", Scenario { late: 0, epochs: 4, ..plans });
}

#[test]
fn redis_falls_back() {
    let plans = plans(&["as ai"], &["-- as", "as ar"]);
    holds("two masters", Scenario { fall: Fall::Split, ..plans });
}

#[test]
fn a_foreign_client_pops() {
    let plans = plans(&["as ai as"], &["ax as ai"]);
    holds("foreign pops", Scenario { pops: if is_large() { 2 } else { 1 }, ..plans });
}

#[test]
fn a_hard_deletion_can_be_undone_by_a_late_request() {
    refuted("known: hard deletions", wrong(Variant::Coded, "ai ad"), ORDER);
}

#[test]
fn a_dead_letter_that_redis_lost_is_not_lost() {
    let plans = plans(&["ax as"], &["as ax"]);
    let epochs = if is_large() { 3 } else { 2 };
    holds("dead letters that Redis lost", Scenario { fall: Fall::Split, epochs, ..plans });
}

#[test]
fn wrong_dead_letter_in_redis_alone() {
    let scenario = Scenario { fall: Fall::Cut, ..wrong(Variant::LettersInRedisAlone, "ax as") };
    refuted("dead letter in Redis alone", scenario, LOSS);
}

#[test]
fn a_validator_hides_nothing() {
    holds("a validator", Scenario { validator: true, ..plans(&["as ai", "ax ai"], &["as ax ai"]) });
}

#[test]
fn wrong_refusal_believed() {
    let scenario = Scenario { validator: true, ..wrong(Variant::RefusalBelieved, "as ai") };
    refuted("refusal believed", scenario, TWICE);
}

#[test]
fn only_what_a_process_died_over_is_set_aside() {
    let plans = plans(&["as ai"], &["as ai as"]);
    holds("deaths and hand-overs", Scenario { deaths: true, ..plans });
}

#[test]
fn wrong_hand_over_that_commits() {
    let scenario = Scenario { deaths: true, ..wrong(Variant::HandOverCommits, "as") };
    refuted("hand-over that commits", scenario, LOSS);
}

#[test]
fn wrong_mark_that_outlives_a_hand_over() {
    let scenario = Scenario { deaths: true, epochs: 3, ..wrong(Variant::MarkOutlivesHandOver, "as") };
    refuted("mark that outlives a hand-over", scenario, DEATHS);
}

#[test]
fn wrong_deaths_that_outlive_a_commit() {
    let scenario =
        Scenario { deaths: true, epochs: 4, late: 0, ..wrong(Variant::DeathsOutliveCommit, "as bs") };
    refuted("deaths that outlive a commit", scenario, DEATHS);
}

#[test]
fn a_document_from_elsewhere_is_written_once() {
    let plans = plans(&["as ai"], &["as ax ai", "as bi as"]);
    holds("a watermark of another numbering", Scenario { restored: true, epochs: 2, ..plans });
}

fn wrong_numbering(variant: Variant) -> Scenario {
    Scenario { restored: true, ..wrong(variant, "as ai") }
}

#[test]
fn wrong_watermark_from_elsewhere_taken_for_done() {
    refuted("watermark from elsewhere is done", wrong_numbering(Variant::UnprovenIsDone), LOSS);
}

#[test]
fn wrong_watermark_compared_with_the_owner() {
    refuted("watermark below the owner is done", wrong_numbering(Variant::UnprovenAboveOwner), LOSS);
}

#[test]
fn wrong_ownership_unconfirmed() {
    refuted("ownership unconfirmed", wrong_numbering(Variant::UnprovenUnconfirmed), TWICE);
}

#[test]
fn wrong_ownership_confirmed_too_early() {
    refuted("ownership confirmed too early", wrong_numbering(Variant::ConfirmedBeforeLook), TWICE);
}

#[test]
fn wrong_watermark_from_elsewhere_not_compared() {
    refuted("watermark from elsewhere not compared", wrong_numbering(Variant::UnprovenUncompared), TWICE);
}

#[test]
fn wrong_guard_on_the_last_offset() {
    refuted("guard on the last offset", wrong(Variant::GuardOnLast, "as ai"), TWICE);
}

#[test]
fn wrong_commit_of_what_is_only_read() {
    refuted("commit of what is read", wrong(Variant::CommitWhatIsRead, "as"), LOSS);
}

#[test]
fn wrong_conflict_taken_for_done() {
    refuted("conflict taken for done", wrong(Variant::ConflictIsDone, "as ai"), LOSS);
}

#[test]
fn wrong_dead_letter_in_memory() {
    refuted("dead letter in memory", wrong(Variant::LettersInMemory, "ax as"), LOSS);
}

#[test]
fn wrong_read_not_recorded() {
    refuted("read not recorded", wrong(Variant::ReadUnrecorded, "as"), TWICE);
}

#[test]
fn wrong_read_beyond_what_was_answered() {
    let scenario = wrong(Variant::ReadInexact, "as ai as");
    refuted("read beyond what was answered", Scenario { fall: Fall::Cut, late: 0, ..scenario }, LOSS);
}

#[test]
fn wrong_numbers_kept() {
    let scenario = wrong(Variant::NotRenumbered, "as ai");
    refuted("not renumbered", Scenario { fall: Fall::Cut, ..scenario }, LOSS);
}

#[test]
fn wrong_epoch_from_redis_alone() {
    let scenario = wrong(Variant::EpochFromRedis, "as ai");
    refuted("epoch from Redis alone", Scenario { fall: Fall::Cut, ..scenario }, LOSS);
}

#[test]
fn wrong_trim_without_a_look() {
    let scenario = wrong(Variant::LastTrimmedUnchecked, "as ai");
    refuted("last trimmed element unchecked", Scenario { pops: 1, ..scenario }, LOSS);
}

#[test]
fn wrong_head_unchecked() {
    let scenario = wrong(Variant::HeadUnchecked, "as ai");
    refuted("head unchecked", Scenario { pops: 1, ..scenario }, LOSS);
}

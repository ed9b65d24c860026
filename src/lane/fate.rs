//! The fate of a write that its guard held back or MongoDB refused, by what its document's watermark says. Pure.
//!
//! A refusal says little before the watermark was looked at: an upsert that the guard keeps from matching tries to
//! insert, and the server may hold that document against a validator or another unique index before it looks at `_id`.

use crate::coalesce::{Segment, Update};
use crate::dead_letter::{Reason, Rejection};
use crate::sink::{Found, Refusal};

/// What is to be done with a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is settled as applied: it deletes a document that is not there.
    Applied,
    /// All of its events were applied before.
    AppliedBefore,
    /// Its events up to this watermark were applied before, but for those that are dead letters on record.
    InPart(i64),
    /// None of its events was applied, and MongoDB refuses it.
    Refused(Rejection),
    /// None of its events was applied, and it may be now: it is written again.
    Again,
}

/// Judges a write that was held back; or refused, with that `refusal`. `has_dead` tells whether some of its events are
/// dead letters on record.
pub(super) fn fate(segment: &Segment, found: Found, refusal: Option<&Refusal>, has_dead: bool) -> Fate {
    match (found, refusal) {
        // It is written over exactly that; then a refusal can be believed.
        (Found::Strange, _) => Fate::Again,
        (Found::Watermark(w), _) if w >= segment.last && !has_dead => Fate::AppliedBefore,
        (Found::Watermark(w), _) if w >= segment.guard() => Fate::InPart(w),
        (_, Some(refusal)) if refusal.is_certain => Fate::Refused(refusal.rejection.clone()),
        (Found::Nothing, None) if matches!(segment.update, Update::Delete) => Fate::Applied,
        (Found::Taken, _) => Fate::Refused(id_taken()),
        // Somebody inserted, changed or deleted the document between the write and the look.
        (Found::Watermark(_) | Found::Unmarked | Found::Nothing, _) => Fate::Again,
    }
}

/// Why an entity can have no document: MongoDB said no more than that the `_id` is there.
fn id_taken() -> Rejection {
    let text = "the _id is that of a document with another shard key".to_owned();
    Rejection { reason: Reason::UniqueIndex, text, code: Some(11000) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coalesce::Fields;
    use crate::trace::Traces;

    const FOUND: [Found; 8] = [
        Found::Nothing,
        Found::Unmarked,
        Found::Taken,
        Found::Watermark(9),
        Found::Watermark(10),
        Found::Watermark(15),
        Found::Watermark(20),
        Found::Strange,
    ];

    fn segment(update: Update) -> Segment {
        Segment {
            first: 10,
            last: 20,
            events: 3,
            ts: None,
            traces: Traces::default(),
            update,
            is_closed: false,
        }
    }

    fn refusal(is_certain: bool) -> Refusal {
        Refusal { rejection: Rejection::new(Reason::Refused, "no"), is_certain }
    }

    /// Every state of a document, with and without dead letters on record, for one kind of write and of answer.
    fn fates(update: fn() -> Update, refusal: Option<&Refusal>) -> Vec<String> {
        let short = |fate: Fate| match fate {
            Fate::Applied => "applied".to_owned(),
            Fate::AppliedBefore => "before".to_owned(),
            Fate::InPart(w) => format!("to {w}"),
            Fate::Refused(rejection) => rejection.reason.label().to_owned(),
            Fate::Again => "again".to_owned(),
        };
        let segment = segment(update());
        let fates = |has_dead| FOUND.iter().map(move |found| (*found, has_dead));
        let all = fates(false).chain(fates(true));
        all.map(|(found, has_dead)| short(fate(&segment, found, refusal, has_dead))).collect()
    }

    #[test]
    fn every_state_of_a_document_has_its_fate() {
        let update: fn() -> Update = || Update::Fields(Fields::default());
        let delete: fn() -> Update = || Update::Delete;
        let replace: fn() -> Update = || Update::Replace(crate::coalesce::Known::empty());
        // In the order of FOUND; first without dead letters on record, then with some.
        let held_back = [
            "again",
            "again",
            "unique-index",
            "again",
            "to 10",
            "to 15",
            "before",
            "again",
            "again",
            "again",
            "unique-index",
            "again",
            "to 10",
            "to 15",
            "to 20",
            "again",
        ];
        assert_eq!(fates(update, None), held_back);
        // A doubtful refusal is as good as none.
        assert_eq!(fates(update, Some(&refusal(false))), held_back);
        let refused = [
            "refused", "refused", "refused", "refused", "to 10", "to 15", "before", "again", "refused",
            "refused", "refused", "refused", "to 10", "to 15", "to 20", "again",
        ];
        assert_eq!(fates(update, Some(&refusal(true))), refused);
        // What makes the same of every document is only too late once its last event was applied.
        let held_back = [
            "again",
            "again",
            "unique-index",
            "again",
            "again",
            "again",
            "before",
            "again",
            "again",
            "again",
            "unique-index",
            "again",
            "again",
            "again",
            "to 20",
            "again",
        ];
        assert_eq!(fates(replace, None), held_back);
        let deleted = [
            "applied",
            "again",
            "unique-index",
            "again",
            "again",
            "again",
            "before",
            "again",
            "applied",
            "again",
            "unique-index",
            "again",
            "again",
            "again",
            "to 20",
            "again",
        ];
        assert_eq!(fates(delete, None), deleted);
    }
}

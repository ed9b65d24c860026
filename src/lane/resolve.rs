//! Judges a write that its guard held back or MongoDB refused, by its document's watermark. It does no I/O.
//!
//! A refusal says little before the watermark was looked at. An upsert that the guard keeps from matching tries to
//! insert. The server may hold that document against a validator or another unique index before it looks at `_id`.

use crate::coalesce::{Segment, Update};
use crate::dead_letter::{Reason, Rejection};
use crate::sink::{FoundWatermark, Refusal};

/// What is to be done with a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resolution {
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
pub(super) fn resolve(
    segment: &Segment,
    found: FoundWatermark,
    refusal: Option<&Refusal>,
    has_dead: bool,
) -> Resolution {
    match (found, refusal) {
        // It is written over exactly that; then a refusal can be believed.
        (FoundWatermark::Strange, _) => Resolution::Again,
        (FoundWatermark::Watermark(w), _) if w >= segment.last && !has_dead => Resolution::AppliedBefore,
        (FoundWatermark::Watermark(w), _) if w >= segment.guard() => Resolution::InPart(w),
        (_, Some(refusal)) if refusal.is_certain => Resolution::Refused(refusal.rejection.clone()),
        (FoundWatermark::Nothing, None) if matches!(segment.update, Update::Delete) => Resolution::Applied,
        (FoundWatermark::Taken, _) => Resolution::Refused(id_taken()),
        // Somebody inserted, changed or deleted the document between the write and the look.
        (FoundWatermark::Watermark(_) | FoundWatermark::Unmarked | FoundWatermark::Nothing, _) => {
            Resolution::Again
        }
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

    const FOUND: [FoundWatermark; 8] = [
        FoundWatermark::Nothing,
        FoundWatermark::Unmarked,
        FoundWatermark::Taken,
        FoundWatermark::Watermark(9),
        FoundWatermark::Watermark(10),
        FoundWatermark::Watermark(15),
        FoundWatermark::Watermark(20),
        FoundWatermark::Strange,
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
        let short = |fate: Resolution| match fate {
            Resolution::Applied => "applied".to_owned(),
            Resolution::AppliedBefore => "before".to_owned(),
            Resolution::InPart(w) => format!("to {w}"),
            Resolution::Refused(rejection) => rejection.reason.label().to_owned(),
            Resolution::Again => "again".to_owned(),
        };
        let segment = segment(update());
        let fates = |has_dead| FOUND.iter().map(move |found| (*found, has_dead));
        let all = fates(false).chain(fates(true));
        all.map(|(found, has_dead)| short(resolve(&segment, found, refusal, has_dead))).collect()
    }

    #[test]
    fn every_state_of_a_document_has_its_fate() {
        let update: fn() -> Update = || Update::Fields(Fields::default());
        let delete: fn() -> Update = || Update::Delete;
        let replace: fn() -> Update = || Update::Replace(crate::coalesce::Constant::empty());
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

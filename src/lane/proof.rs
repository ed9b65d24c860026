//! Judges whether a watermark proves anything.
//!
//! A next owner gives out new numbers when it has committed the old ones. So while Redis keeps what it acknowledged, an
//! event is settled before its document can have a watermark of a later numbering.
//!
//! Such a watermark is from elsewhere: from a database that was restored or copied without the epochs, from another
//! Redis, or from a successor that this owner does not know of. MongoDB is asked whether this owner is the latest. If
//! it is, the event was not applied under its number. Then the write is made where the document still has exactly that
//! watermark.

use crate::caused::Caused;
use crate::ownership::{Owned, Unconfirmed};
use crate::sink::Write;
use crate::sink::{FoundWatermark, SinkError, Strange};

/// No queue comes to so many numberings. What has a higher one is rubbish, which must not use them up.
const CREDIBLE: i64 = 1 << 26;

/// Looks up the watermarks of writes that were held back. Those that prove nothing are told apart, and noted in the
/// writes.
pub(super) async fn watermarks(queue: &Owned, writes: &[&Write]) -> Result<Vec<FoundWatermark>, SinkError> {
    let entities: Vec<_> = writes.iter().map(|write| write.entity.get()).collect();
    let found = queue.shared.sink.watermarks(&entities, queue.guard.as_ref()).await?;
    let judged: Vec<_> = writes.iter().zip(found).map(|(write, found)| judge(queue, write, found)).collect();
    if let (Some((first, above)), Some(claim)) = (strange(queue, &judged), &queue.claim) {
        claim.tell_of_strange_watermark(&queue.key, &first);
        match claim.confirm(&queue.shared.sink, above).await {
            Ok(()) => {}
            Err(Unconfirmed::Ended(error)) => {
                return Err(SinkError::transient(Caused::of(error.to_string(), error)));
            }
            Err(Unconfirmed::Unknown(error)) => return Err(error),
        }
    }
    let note = |(write, (found, strange)): (&&Write, (FoundWatermark, Option<Strange>))| {
        let mut noted = write.instead_of.lock();
        // What was tried on exactly this watermark, and failed, speaks for itself.
        let was_tried = strange.is_some() && noted.as_deref() == strange.as_ref();
        *noted = strange.map(Box::new);
        if was_tried { FoundWatermark::Unmarked } else { found }
    };
    Ok(writes.iter().zip(judged).map(note).collect())
}

/// The first of those that prove nothing, and the highest epoch among them: others are given out above it.
fn strange(queue: &Owned, judged: &[(FoundWatermark, Option<Strange>)]) -> Option<(Strange, i64)> {
    let strange = || judged.iter().filter_map(|(_, strange)| strange.as_ref());
    let epochs = strange().filter_map(|strange| queue.source.numbering(strange.as_watermark()?));
    Some((strange().next()?.clone(), epochs.filter(|epoch| *epoch < CREDIBLE).max().unwrap_or(0)))
}

/// Tells a watermark of a later numbering from one that proves something.
fn judge(
    queue: &Owned,
    write: &Write,
    (found, strange): (FoundWatermark, Option<Strange>),
) -> (FoundWatermark, Option<Strange>) {
    // What was parked may be of an earlier numbering than the rest of its segment.
    let numbering = queue.source.numbering(write.segment.last);
    match found {
        FoundWatermark::Watermark(w) if queue.source.numbering(w) > numbering => {
            (FoundWatermark::Strange, strange)
        }
        FoundWatermark::Strange => (found, strange),
        _ => (found, None),
    }
}

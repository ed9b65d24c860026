//! Parks what MongoDB does not take for long beside the queue, so that the queue can be trimmed.

use super::quarantine::Unparked;
use super::reread::Reread;
use crate::ownership::Owned;
use crate::source::SourceError;

/// Parks the events of documents that wait, as far as there is room. Answers which, by document: all or none of it.
pub(super) async fn park(
    queue: &Owned,
    mut spans: Vec<Unparked>,
) -> Result<Vec<(Unparked, Vec<i64>)>, SourceError> {
    let mut offsets: Vec<Vec<i64>> = spans.iter().map(|_| Vec::new()).collect();
    let mut reread = Reread::new(queue, &spans);
    let mut is_full = false;
    while !is_full && let Some(window) = reread.window().await? {
        let mut events: Vec<(i64, Vec<u8>)> = Vec::new();
        reread.changes(&window, &spans, |at, placed, event| {
            if !queue.parked.has(placed.offset) {
                events.push((placed.offset, event.to_vec()));
            }
            offsets[at].push(placed.offset);
        });
        let borrowed: Vec<_> = events.iter().map(|(offset, event)| (*offset, &**event)).collect();
        queue.park(&borrowed).await?;
        is_full = !queue.parked.has_room();
    }
    let seen_to = reread.seen_to();
    let mut parked = Vec::with_capacity(spans.len());
    for (span, offsets) in spans.drain(..).zip(offsets) {
        if span.last < seen_to {
            parked.push((span, offsets));
        } else {
            // What is parked in part would be neither here nor there.
            queue.unpark(&offsets).await?;
        }
    }
    tracing::debug!(queue = queue.key, documents = parked.len(), "events that wait for MongoDB are parked");
    Ok(parked)
}

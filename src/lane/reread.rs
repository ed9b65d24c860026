//! Reads events again that are not settled: from the queue, or from where they are parked.

use std::ops::RangeInclusive;

use hashbrown::HashTable;

use crate::change::{EntityRef, Placed};
use crate::decode::Decoder;
use crate::ownership::{Owned, WindowSize};
use crate::source::{SourceError, Window};

/// Parked events that are read at once.
const PARKED_AT_ONCE: usize = 200;

/// The events of one entity between two offsets.
pub(super) trait Span {
    /// The entity's hash.
    fn hash(&self) -> u64;
    /// The entity.
    fn entity(&self) -> EntityRef<'_>;
    /// The first and the last offset.
    fn offsets(&self) -> RangeInclusive<i64>;
}

/// The events of spans, read again window by window: those that are parked first.
pub(super) struct Reread<'q> {
    queue: &'q Owned,
    by_entity: HashTable<usize>,
    decoder: Decoder,
    size: WindowSize,
    /// Offsets of what is parked, the last one first.
    parked: Vec<i64>,
    cursor: i64,
    last: i64,
}

impl<'q> Reread<'q> {
    pub(super) fn new<S: Span>(queue: &'q Owned, spans: &[S]) -> Self {
        let mut by_entity = HashTable::with_capacity(spans.len());
        for (at, span) in spans.iter().enumerate() {
            by_entity.insert_unique(span.hash(), at, |at| spans[*at].hash());
        }
        // A segment is parked whole or not at all.
        let bounds = |is_parked: bool| {
            let all = spans
                .iter()
                .map(Span::offsets)
                .filter(move |all| queue.parked.has(*all.start()) == is_parked);
            all.fold((i64::MAX, -1), |(first, last), all| (first.min(*all.start()), last.max(*all.end())))
        };
        let ((first_parked, last_parked), (cursor, last)) = (bounds(true), bounds(false));
        let mut parked = queue.parked.within(first_parked, last_parked);
        parked.reverse();
        Reread {
            queue,
            by_entity,
            // They mean what they meant when they were folded.
            decoder: queue.mapping.decoder(),
            size: WindowSize::default(),
            parked,
            cursor,
            last,
        }
    }

    /// The next window; None behind the last event of any span.
    pub(super) async fn window(&mut self) -> Result<Option<Window>, SourceError> {
        if let (Some(lease), false) = (self.queue.source.lease(), self.parked.is_empty()) {
            let some = self.parked.split_off(self.parked.len().saturating_sub(PARKED_AT_ONCE));
            return lease.parked_events(some.into_iter().rev().collect()).await.map(Some);
        }
        if self.cursor > self.last {
            return Ok(None);
        }
        // They are not committed, so they are there.
        let rest = self.cursor..self.last.saturating_add(1);
        let window = self.queue.source.reread(rest, self.size.events()).await?;
        if window.is_empty() {
            return Err(SourceError::ForeignPop);
        }
        self.size.saw(&window);
        self.cursor = window.end();
        Ok(Some(window))
    }

    /// Hands over each change of the window that belongs to a span, with the span's place.
    pub(super) fn changes<S: Span>(
        &mut self,
        window: &Window,
        spans: &[S],
        mut change: impl FnMut(usize, &Placed<'_>, &[u8]),
    ) {
        let buried = self.queue.buried.lock();
        for (offset, event) in window.iter() {
            // Events that were refused before, then or by a former owner, are settled.
            if buried.contains(&offset) {
                continue;
            }
            let Ok((decoded, route)) = self.decoder.decode_routed(event) else { continue };
            if self.queue.mapping.timings.only_flush(route) {
                continue;
            }
            let hash = decoded.entity.hash(&self.queue.shared.seed);
            let placed = Placed { offset, hash, change: decoded };
            if let Some(at) = self.by_entity.find(hash, |at| covers(&spans[*at], &placed)) {
                change(*at, &placed, event);
            }
        }
    }

    /// The offset up to which all was seen.
    pub(super) fn seen_to(&self) -> i64 {
        self.parked.last().copied().unwrap_or(self.cursor)
    }
}

fn covers<S: Span>(span: &S, placed: &Placed<'_>) -> bool {
    span.offsets().contains(&placed.offset)
        && span.hash() == placed.hash
        && span.entity() == placed.change.entity
}

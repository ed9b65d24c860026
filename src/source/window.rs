//! Defines windows, events as they are read, and how much there is.

use std::ops::Range;
use std::sync::Arc;

use super::list::sha1;
use crate::commit::Checkpoint;

/// The most events that are read at once: windows of this size move as many events a second as larger ones, and
/// cost less memory.
pub(crate) const MAX_WINDOW: usize = 2000;

/// What is kept of an answer, bytes and one event: a window of events that turn out to be large ends before all that were asked
/// for.
pub(super) const MAX_WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// Events read at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Window {
    first: i64,
    /// Where offsets are not consecutive: each event's.
    sparse: Option<Arc<Vec<i64>>>,
    /// Offsets of what was found to be no event: ascending, and hardly ever any.
    malformed: Vec<i64>,
    events: Arc<Events>,
    ahead: usize,
}

/// Events in one piece of memory.
#[derive(Debug, Default)]
struct Events {
    bytes: Vec<u8>,
    places: Vec<Range<usize>>,
}

impl Events {
    fn get(&self, place: &Range<usize>) -> &[u8] {
        self.bytes.get(place.clone()).unwrap_or_default()
    }
}

impl Window {
    /// Events at consecutive offsets from `first` on.
    #[must_use]
    pub(crate) fn new<E: AsRef<[u8]>>(first: i64, events: impl IntoIterator<Item = E>) -> Self {
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        for event in events {
            let start = bytes.len();
            bytes.extend_from_slice(event.as_ref());
            places.push(start..bytes.len());
        }
        Window::cut(first, bytes, places)
    }

    /// No events; the next one is at `first`.
    #[must_use]
    pub(super) fn none(first: i64) -> Self {
        Window { first, ..Window::default() }
    }

    /// Events, at consecutive offsets from `first` on, that are in `bytes` at these places.
    #[must_use]
    pub(super) fn cut(first: i64, bytes: Vec<u8>, places: Vec<Range<usize>>) -> Self {
        Window { first, events: Arc::new(Events { bytes, places }), ..Window::default() }
    }

    /// The same events, at these offsets, which ascend; and the offsets of those that are none.
    #[must_use]
    pub(super) fn sparse(self, offsets: Vec<i64>, malformed: Vec<i64>) -> Self {
        debug_assert_eq!(offsets.len(), self.len(), "each event has an offset");
        let first = offsets.first().copied().unwrap_or_default();
        Window { first, sparse: Some(Arc::new(offsets)), malformed, ..self }
    }

    /// Whether what is at an offset is no event, however it looks.
    #[must_use]
    pub(crate) fn is_malformed(&self, offset: i64) -> bool {
        !self.malformed.is_empty() && self.malformed.binary_search(&offset).is_ok()
    }

    /// The same window, with or behind which an element of so many bytes was seen.
    #[must_use]
    pub(super) fn with_ahead(self, ahead: usize) -> Self {
        Window { ahead: self.ahead.max(ahead), ..self }
    }

    /// Bytes of the largest event among it and what was seen behind it.
    #[must_use]
    pub(crate) fn largest(&self) -> usize {
        self.events.places.iter().map(Range::len).max().unwrap_or(0).max(self.ahead)
    }

    /// The number of events.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.events.places.len()
    }

    /// Whether there are none.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.events.places.is_empty()
    }

    /// The offset behind the last event.
    #[must_use]
    pub(crate) fn end(&self) -> i64 {
        match self.sparse.as_ref().map(|offsets| offsets.last()) {
            None => self.first + i64::try_from(self.len()).unwrap_or(0),
            Some(last) => last.map_or(0, |last| last.saturating_add(1)),
        }
    }

    /// Offsets and events.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &[u8])> {
        let sparse = self.sparse.as_deref();
        let offsets = (self.first..)
            .zip(0..)
            .map(move |(dense, at)| sparse.map_or(dense, |offsets: &Vec<i64>| offsets[at]));
        // The events end first, so that no offset behind them is asked for.
        self.events.places.iter().zip(offsets).map(|(place, offset)| (offset, self.events.get(place)))
    }

    /// Bytes that all of it takes.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.events.bytes.capacity() + self.len() * size_of::<Range<usize>>()
    }

    /// Where the queue may be trimmed once the window is settled. None if it is empty.
    #[must_use]
    pub(crate) fn checkpoint(&self) -> Option<Checkpoint> {
        Some(Checkpoint {
            end: self.end(),
            events: self.len() as u64,
            sha1: sha1(self.events.get(self.events.places.last()?)),
        })
    }
}

/// How much is in a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Depth {
    /// Events that are not committed: of a list, its elements.
    pub(crate) elements: u64,
    /// A number that grows by one with each event that arrives: of a list, the offset that the next one will have.
    pub(crate) tail: i64,
    /// Events known to be there behind what was just read.
    pub(crate) ahead: u64,
    /// Whether a blocking peek would not block, though there is nothing to read: what is in the way has to be committed
    /// first.
    pub(crate) is_held: bool,
}

impl Depth {
    /// A list of so many elements, the first of them at `base`, read up to `cursor`.
    pub(super) fn of_list(elements: u64, base: i64, cursor: i64) -> Self {
        let tail = base + i64::try_from(elements).unwrap_or(0);
        let ahead = u64::try_from(tail.saturating_sub(cursor)).unwrap_or(0);
        // What is read and not committed is still there, so the list is not empty.
        Depth { elements, tail, ahead, is_held: elements > 0 }
    }
}

/// What is seen of a queue now and then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLook {
    /// How much is in it.
    pub(crate) depth: Depth,
    /// Dead letters in their list, if they could be counted.
    pub(crate) dead: Option<u64>,
    /// The offset of the oldest event that is not settled, where that can be told.
    pub(crate) oldest: Option<i64>,
}

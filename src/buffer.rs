//! Bounds what is read ahead of MongoDB, for all queues of an instance together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::Gauge;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::config;
use crate::metrics::{Metric, gauge};

/// Counts events and bytes held in memory, and makes readers wait while there are too many. `/status` says the counts and
/// their bounds.
#[derive(serde::Serialize)]
pub struct Buffer {
    max_events: AtomicU64,
    max_bytes: AtomicU64,
    events: AtomicU64,
    bytes: AtomicU64,
    #[serde(skip)]
    changed: Notify,
    /// Who copies what is large: one at a time.
    #[serde(skip)]
    copying: Semaphore,
    #[serde(skip)]
    gauges: [Gauge; 2],
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer")
            .field("events", &self.events)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Buffer {
    /// An empty buffer with the configured bounds.
    #[must_use]
    pub fn new(config: &config::Buffer) -> Arc<Self> {
        let buffer = Buffer {
            max_events: AtomicU64::new(0),
            max_bytes: AtomicU64::new(0),
            events: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            changed: Notify::new(),
            copying: Semaphore::new(1),
            gauges: [gauge(Metric::BufferEvents, &[]), gauge(Metric::BufferBytes, &[])],
        };
        buffer.set_bounds(config);
        Arc::new(buffer)
    }

    /// Sets other bounds. What is held above them stays until it is settled.
    pub fn set_bounds(&self, config: &config::Buffer) {
        gauge(Metric::BufferMaxEvents, &[]).set(config.max_events as f64);
        gauge(Metric::BufferMaxBytes, &[]).set(config.max_bytes.as_u64() as f64);
        self.max_events.store(config.max_events, Ordering::Relaxed);
        self.max_bytes.store(config.max_bytes.as_u64(), Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// The most events that are to be held.
    #[must_use]
    pub fn max_events(&self) -> u64 {
        self.max_events.load(Ordering::Relaxed)
    }

    /// Events held.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many events fit, if another window may be read. Each queue may exceed the bounds by that window.
    #[must_use]
    pub fn room(&self) -> Option<u64> {
        let free = self.max_events().saturating_sub(self.events());
        (free > 0 && self.bytes() < self.max_bytes.load(Ordering::Relaxed)).then_some(free)
    }

    /// How much is held, as a share of the nearer bound.
    #[must_use]
    pub fn fullness(&self) -> f64 {
        let share = |held: u64, most: u64| held as f64 / most.max(1) as f64;
        let bytes = share(self.bytes(), self.max_bytes.load(Ordering::Relaxed));
        bytes.max(share(self.events(), self.max_events()))
    }

    /// Waits until there may be more room than at the call, or the bounds have changed.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// Waits for its turn to copy so many bytes again and again, as the driver does on their way to MongoDB. The copies
    /// count until what is answered is dropped.
    pub(crate) async fn copies(self: &Arc<Self>, bytes: usize) -> Copies<'_> {
        // It is never closed.
        let turn = self.copying.acquire().await.ok();
        Copies { _held: Reserved::new(self, bytes * COPIES), _turn: turn }
    }

    pub(crate) fn add_events(&self, n: u64) {
        self.events.fetch_add(n, Ordering::Relaxed);
        // The gauge is counted along, not set: of two who set it at once, the older value might stay.
        self.gauges[0].increment(n as f64);
    }

    pub(crate) fn remove_events(&self, n: u64) {
        self.events.fetch_sub(n, Ordering::Relaxed);
        self.gauges[0].decrement(n as f64);
        self.changed.notify_waiters();
    }
}

/// Copies of a statement that are in memory at once: the command's, and three that the driver makes of it.
const COPIES: usize = 4;

/// The turn to copy what is large, and the copies.
#[derive(Debug)]
pub(crate) struct Copies<'a> {
    _held: Reserved,
    _turn: Option<SemaphorePermit<'a>>,
}

/// Bytes held in a buffer, given back when dropped.
#[derive(Debug)]
pub struct Reserved {
    buffer: Arc<Buffer>,
    bytes: u64,
}

impl Reserved {
    /// Holds `bytes`.
    #[must_use]
    pub fn new(buffer: &Arc<Buffer>, bytes: usize) -> Self {
        let mut reserved = Reserved { buffer: Arc::clone(buffer), bytes: 0 };
        reserved.resize(bytes);
        reserved
    }

    /// Holds `bytes` instead.
    pub fn resize(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        if bytes >= self.bytes {
            self.buffer.bytes.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            self.buffer.bytes.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            self.buffer.changed.notify_waiters();
        }
        self.buffer.gauges[1].increment(bytes as f64 - self.bytes as f64);
        self.bytes = bytes;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytesize::ByteSize;
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    /// Whether what `happens` to the buffer is told to who waits for a change.
    fn is_told(buffer: &Buffer, happens: impl FnOnce()) -> bool {
        let mut changed = std::pin::pin!(buffer.changed());
        happens();
        matches!(changed.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()))
    }

    #[test]
    fn either_bound_leaves_no_room() {
        let buffer = Buffer::new(&config::Buffer { max_bytes: ByteSize::b(100), max_events: 10 });
        buffer.add_events(4);
        let mut full = Reserved::new(&buffer, 120);
        assert_eq!(buffer.room(), None);
        assert!(is_told(&buffer, || full.resize(99)));
        assert_eq!(buffer.room(), Some(6));
        assert!(!is_told(&buffer, || buffer.add_events(6)));
        assert_eq!(buffer.room(), None);
        assert!(is_told(&buffer, || drop(full)));
        assert_eq!(buffer.room(), None);
        assert!(is_told(&buffer, || buffer.remove_events(1)));
        assert_eq!(buffer.room(), Some(1));
        assert_eq!((buffer.events(), buffer.bytes()), (9, 0));
    }

    #[test]
    fn other_bounds_count_at_once() {
        let buffer = Buffer::new(&config::Buffer { max_bytes: ByteSize::b(100), max_events: 10 });
        let set = |max_events| buffer.set_bounds(&config::Buffer { max_bytes: ByteSize::b(100), max_events });
        buffer.add_events(10);
        assert_eq!(buffer.room(), None);
        assert!(is_told(&buffer, || set(11)));
        assert_eq!(buffer.room(), Some(1));
        set(5);
        assert_eq!(buffer.room(), None);
        buffer.remove_events(6);
        assert_eq!(buffer.room(), Some(1));
    }
}

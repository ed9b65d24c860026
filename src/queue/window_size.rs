//! How many events to read at once, bounded in count and, by what recent ones weighed, in bytes.

/// Adapts the size of windows. Redis has no `LRANGE` bounded in bytes, so the first windows are small and
/// grow while events stay small.
#[derive(Debug)]
pub(super) struct WindowSize {
    events: usize,
}

/// Larger windows gain nothing: see the figures in docs/architecture.md.
const MAX_EVENTS: usize = 2000;
/// What a window may weigh, if its events are like the last window's.
const MAX_BYTES: usize = 4 * 1024 * 1024;

impl Default for WindowSize {
    fn default() -> Self {
        WindowSize { events: 16 }
    }
}

impl WindowSize {
    /// Events to ask for.
    pub(super) fn events(&self) -> usize {
        self.events
    }

    /// Learns from a window: its events, and the bytes of the largest.
    pub(super) fn saw(&mut self, events: usize, largest: usize) {
        let by_bytes = (MAX_BYTES / largest.max(1)).clamp(1, MAX_EVENTS);
        let grown = if events >= self.events { self.events * 2 } else { self.events };
        self.events = grown.min(by_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_grow_with_full_windows_and_shrink_with_large_events() {
        let mut size = WindowSize::default();
        for _ in 0..20 {
            size.saw(size.events(), 150);
        }
        assert_eq!(size.events(), MAX_EVENTS);
        size.saw(MAX_EVENTS, 8 * 1024);
        assert_eq!(size.events(), 512);
        size.saw(512, 20 * 1024 * 1024);
        assert_eq!(size.events(), 1);
        size.saw(1, 100);
        assert_eq!(size.events(), 2);
        size.saw(1, 100);
        assert_eq!(size.events(), 2);
    }
}

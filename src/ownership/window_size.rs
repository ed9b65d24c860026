//! Decides how many events to read at once, bounded in count and in the bytes that they are likely to have.

use crate::source::{MAX_WINDOW, Window};

/// Adapts the size of windows. Redis has no `LRANGE` bounded in bytes, so the first windows are small and
/// grow while events stay small: those read, and those seen behind them.
#[derive(Debug)]
pub(crate) struct WindowSize {
    events: usize,
}

/// What a window may weigh, if its events are like the last window's.
const MAX_BYTES: usize = 2 * 1024 * 1024;

impl Default for WindowSize {
    fn default() -> Self {
        WindowSize { events: 4 }
    }
}

impl WindowSize {
    /// Events to ask for.
    #[must_use]
    pub(crate) fn events(&self) -> usize {
        self.events
    }

    /// Learns from a window, be it empty.
    pub(crate) fn saw(&mut self, window: &Window) {
        self.learn(window.len(), window.largest());
    }

    /// Learns from a number of events, and the bytes of the largest.
    fn learn(&mut self, events: usize, largest: usize) {
        let by_bytes = (MAX_BYTES / largest.max(1)).clamp(1, MAX_WINDOW);
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
            size.learn(size.events(), 150);
        }
        assert_eq!(size.events(), MAX_WINDOW);
        size.learn(MAX_WINDOW, 8 * 1024);
        assert_eq!(size.events(), 256);
        size.learn(256, 20 * 1024 * 1024);
        assert_eq!(size.events(), 1);
        size.learn(1, 100);
        assert_eq!(size.events(), 2);
        size.learn(1, 100);
        assert_eq!(size.events(), 2);
    }
}

//! Decides what has to be written though it might wait: the oldest, where so much is held that reading would stop.

use tokio::sync::watch;

use super::Owned;

/// Of a bound, so much may be taken by what waits.
const HALF: f64 = 0.5;

/// The offset below which everything has to go.
#[derive(Debug)]
pub(crate) struct Pressure(watch::Sender<i64>);

impl Default for Pressure {
    fn default() -> Self {
        Pressure(watch::Sender::new(i64::MIN))
    }
}

impl Pressure {
    /// The offset, for those who have to know of a change at once.
    pub(crate) fn watch(&self) -> watch::Receiver<i64> {
        self.0.subscribe()
    }
}

impl Owned {
    /// Looks at how full the buffer is, and how much is read and not committed. Where that is more than half of what may be, the
    /// oldest have to go, as many as are too many.
    pub(crate) fn relieve(&self) {
        let buffer = &self.shared.buffer;
        let tracker = self.tracker.lock();
        let uncommitted = tracker.uncommitted_events();
        let held = (uncommitted as f64 / buffer.max_events() as f64).max(buffer.fullness());
        let to_go = match uncommitted as f64 * surplus(held) {
            events if events >= 1.0 => tracker.end_of(events as u64),
            _ => i64::MIN,
        };
        drop(tracker);
        self.pressure.0.send_if_modified(|known| std::mem::replace(known, to_go) != to_go);
    }
}

/// The share of what is held that is too much, where `held` is the share of what may be.
fn surplus(held: f64) -> f64 {
    if held > HALF { 1.0 - HALF / held } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_a_half_is_too_much() {
        for (held, expected) in [(0.0, 0.0), (0.5, 0.0), (0.625, 0.2), (1.0, 0.5), (2.0, 0.75)] {
            assert!((surplus(held) - expected).abs() < 1e-9, "{held}");
        }
    }
}

//! stub
use std::time::Instant;
/// c
#[derive(Debug, Default)]
pub struct TailClock;
impl TailClock {
    /// c
    pub fn sample(&mut self, _t: i64, _at: Instant) {}
    /// c
    pub fn reset(&mut self) {}
    /// c
    pub fn forget_below(&mut self, _o: i64) {}
    /// c
    pub fn enqueued_at(&self, _o: i64) -> Option<Instant> {
        None
    }
}

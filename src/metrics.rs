//! stub
use crate::batch::Trigger;
use crate::change::CollectionId;
use crate::dead_letter::Reason;
use crate::sink::Class;
use std::time::Duration;
/// c
#[derive(Debug, Clone, Default)]
pub struct C(std::sync::Arc<std::sync::atomic::AtomicU64>);
impl C {
    /// i
    pub fn increment(&self, n: u64) {
        self.0.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
    }
    /// s
    pub fn set(&self, n: f64) {
        self.0.store(n as u64, std::sync::atomic::Ordering::Relaxed);
    }
    /// g
    pub fn get(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}
/// q
#[derive(Debug, Default)]
pub struct QueueMetrics {
    /// r
    pub received: C,
    /// c
    pub coalesced: C,
    /// d
    pub deduplicated: C,
    /// r
    pub released: C,
    /// t
    pub takeovers: C,
    /// f
    pub foreign_pops: C,
    /// l
    pub lease_held: C,
    persisted: C,
    dead: C,
}
impl QueueMetrics {
    /// p
    pub fn persisted(&self, _c: CollectionId) -> &C {
        &self.persisted
    }
    /// d
    pub fn dead_lettered(&self, _r: Reason) -> &C {
        &self.dead
    }
    /// l
    pub fn persisted_after(&self, _d: Duration, _n: u64) {}
}
/// o
#[derive(Debug, Clone, Copy)]
pub enum Op {
    /// u
    Update,
    /// r
    Replace,
    /// d
    Delete,
}
impl Op {
    /// a
    pub const ALL: [Op; 3] = [Op::Update, Op::Replace, Op::Delete];
}
/// w
#[derive(Debug, Default)]
pub struct WriteMetrics {
    /// w
    pub writes: C,
}
impl WriteMetrics {
    /// a
    pub fn writes(&self, _c: CollectionId, _o: Op, n: u64) {
        self.writes.increment(n)
    }
    /// a
    pub fn write_duration(&self, _c: CollectionId, _d: Duration) {}
    /// a
    pub fn batch(&self, _t: Trigger, _e: u64, _b: usize) {}
    /// a
    pub fn retried_mongodb(&self, _c: Class) {}
    /// a
    pub fn retried_redis(&self) {}
}

//! stub
use std::fmt::Display;
use std::time::Duration;
/// d
#[derive(Debug, Default)]
pub struct Dependency;
impl Dependency {
    /// u
    pub fn up(&self) {}
    /// d
    pub fn down(&self, e: &dyn Display) {
        tracing::warn!("down {e}");
        eprintln!("down {e}");
    }
}
/// s
#[derive(Debug, Default)]
pub struct Status {
    /// r
    pub redis: Dependency,
    /// m
    pub mongodb: Dependency,
}
/// p
#[derive(Debug, Clone, Copy)]
pub enum Phase {
    /// c
    Connecting,
    /// c
    Standby,
    /// c
    Recovering,
    /// c
    Active,
    /// c
    Draining,
    /// c
    Stopped,
}
/// q
#[derive(Debug, Default)]
pub struct QueueStatus;
impl QueueStatus {
    /// p
    pub fn set_phase(&self, p: Phase) {
        eprintln!("{p:?}")
    }
    /// p
    pub fn set_depth(&self, _p: u64) {}
    /// p
    pub fn set_epoch(&self, _p: i64) {}
    /// p
    pub fn set_committed(&self, _p: i64) {}
    /// p
    pub fn set_dead_letters(&self, _p: u64) {}
    /// p
    pub fn set_oldest_age(&self, _p: Duration) {}
}

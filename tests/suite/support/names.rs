//! Makes names that no other test uses, for servers that are shared.

use std::sync::atomic::{AtomicU32, Ordering};

/// `<prefix>_<process>_<count>_<random>`: distinct within a run and between runs.
pub(crate) fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}_{}_{count}_{:06x}", std::process::id(), fastrand::u32(..0x100_0000))
}

//! Reads the processor time of processes from `/proc`.

use std::time::Duration;

use anyhow::Context;

/// Linux counts processor time for user space in hundredths of a second, on all common architectures.
const TICK: Duration = Duration::from_millis(10);

/// User and system time that a process has used so far, in all its threads.
pub(crate) fn used(process: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is the program's name in brackets, which may contain anything.
    let (_, fields) = stat.rsplit_once(')').context("no name in /proc/*/stat")?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || -> anyhow::Result<u32> { Ok(fields.next().context("no times")?.parse()?) };
    Ok(TICK * (ticks()? + ticks()?))
}

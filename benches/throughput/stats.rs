//! Computes medians.

use std::time::Duration;

/// One measured run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) events: u64,
    pub(crate) elapsed: Duration,
    /// Processor time of the measured process, and of both servers.
    pub(crate) cpu: Cpu,
    /// The most memory that was resident in the measured process, if it is tidegate.
    pub(crate) peak: Option<u64>,
}

/// Processor time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    /// Of the process that drains.
    pub(crate) worker: Duration,
    pub(crate) redis: Duration,
    pub(crate) mongodb: Duration,
}

impl Run {
    /// Events a second.
    pub(crate) fn rate(&self) -> f64 {
        self.events as f64 / self.elapsed.as_secs_f64()
    }

    /// This run and another of the same events, as one.
    pub(crate) fn then(self, next: Self) -> Self {
        let (own, other) = (self.cpu, next.cpu);
        let cpu = Cpu {
            worker: own.worker + other.worker,
            redis: own.redis + other.redis,
            mongodb: own.mongodb + other.mongodb,
        };
        Self { events: self.events, elapsed: self.elapsed + next.elapsed, cpu, peak: None }
    }

    /// Microseconds an event.
    pub(crate) fn per_event(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.events as f64
    }
}

/// The runs of one contender, one each round.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) runs: Vec<Run>,
}

impl Series {
    pub(crate) fn rate(&self) -> f64 {
        median(self.runs.iter().map(Run::rate))
    }

    /// Lowest and highest rate.
    pub(crate) fn range(&self) -> (f64, f64) {
        let rates = || self.runs.iter().map(Run::rate);
        (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max))
    }

    /// Microseconds of processor time an event, of whom `of` picks.
    pub(crate) fn cpu(&self, of: impl Fn(&Cpu) -> Duration) -> f64 {
        median(self.runs.iter().map(|run| run.per_event(of(&run.cpu))))
    }

    /// The most MiB that were resident in a run, if that was looked at.
    pub(crate) fn peak(&self) -> Option<f64> {
        let most = self.runs.iter().filter_map(|run| run.peak).max()?;
        Some(most as f64 / f64::from(1 << 20))
    }

    /// How much faster it is than `other`: the median of the rounds' ratios. What the machine did during a round
    /// concerned both.
    pub(crate) fn against(&self, other: &Self) -> f64 {
        median(self.runs.iter().zip(&other.runs).map(|(own, other)| own.rate() / other.rate()))
    }
}

/// The median; NaN of nothing.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// The value below which so much of them is, interpolated; NaN of nothing.
pub(crate) fn quantile(values: impl IntoIterator<Item = f64>, at: f64) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = at * last as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

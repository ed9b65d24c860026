//! Shows progress: one line that changes on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tidegate::format::number;
use tokio::time::Instant;

use super::report::Latency;

const WIDTH: u64 = 40;
const FRAME: Duration = Duration::from_millis(50);
const LINE: Duration = Duration::from_secs(2);
const SECOND: Duration = Duration::from_secs(1);

/// How much of a known number is pushed (`-`) and durable (`#`).
pub(crate) struct Bar {
    total: u64,
    line: Line,
    last: String,
}

impl Bar {
    pub(crate) fn new(total: u64) -> Self {
        Self { total, line: Line::new(FRAME, LINE), last: String::new() }
    }

    pub(crate) fn show(&mut self, pushed: u64, durable: u64) {
        let filled = |count: u64| count.min(self.total) * WIDTH / self.total.max(1);
        let (hashes, dashes) = (filled(durable), filled(pushed).saturating_sub(filled(durable)));
        let blanks = WIDTH - hashes - dashes;
        let draw = |mark: &str, count: u64| mark.repeat(usize::try_from(count).unwrap_or(0));
        let bar = draw("#", hashes) + &draw("-", dashes) + &draw(" ", blanks);
        self.last = format!("  [{bar}] {:>9} pushed {:>9} durable", number(pushed), number(durable));
        if self.line.is_due() {
            self.line.write(&self.last);
        }
    }

    pub(crate) fn finish(&mut self) {
        self.line.write(&self.last);
        self.line.end();
    }
}

/// How the traffic goes, once a second.
pub(crate) struct StatusLine(Line);

impl StatusLine {
    pub(crate) fn new() -> Self {
        let mut line = Line::new(SECOND, LINE);
        // The first one after a second, when there is something to say.
        line.written = Some(Instant::now());
        Self(line)
    }

    pub(crate) fn is_due(&self) -> bool {
        self.0.is_due()
    }

    pub(crate) fn show(&mut self, elapsed: Duration, rate: f64, queued: u64, latency: &Latency) {
        let (seconds, rate, queued) = (elapsed.as_secs(), number(rate as u64), number(queued));
        self.0.write(&format!(
            "  {seconds:>4} s  {rate:>7} events/s  {queued:>7} queued  durable after {latency}"
        ));
    }

    pub(crate) fn finish(&mut self) {
        self.0.end();
    }
}

struct Line {
    terminal: bool,
    every: Duration,
    written: Option<Instant>,
}

impl Line {
    fn new(on_terminal: Duration, elsewhere: Duration) -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { terminal, every: if terminal { on_terminal } else { elsewhere }, written: None }
    }

    fn is_due(&self) -> bool {
        self.written.is_none_or(|written| written.elapsed() >= self.every)
    }

    fn write(&mut self, text: &str) {
        self.written = Some(Instant::now());
        if self.terminal {
            print!("\r\x1b[K{text}");
            // Only a picture; the next one comes soon.
            let _ = std::io::stdout().flush();
        } else {
            println!("{text}");
        }
    }

    fn end(&mut self) {
        if self.terminal && self.written.is_some() {
            println!();
        }
        self.written = None;
    }
}

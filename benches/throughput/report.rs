//! Writes the report: what the terminal shows and `report.md` says.

use std::fmt::Write;
use std::path::Path;

use tidegate::format::number;

use super::compare::{Comparison, SERIAL_IDEAL};
use super::goals::goals;
use super::latency::Latency;
use super::plan::Plan;
use super::results::Results;
use super::stats::Series;
use super::typing::Typing;

/// Writes `report.md`, from what was measured so far, and returns it.
pub(crate) fn write(folder: &Path, plan: &Plan, about: &str, results: &Results) -> anyhow::Result<String> {
    let text = text(plan, about, results);
    std::fs::write(folder.join("report.md"), &text)?;
    Ok(text)
}

fn text(plan: &Plan, about: &str, results: &Results) -> String {
    let mut text = String::new();
    if plan.quick {
        text += "**A quick run**: few events, few rounds. Its figures are rough.\n\n";
    }
    text += about;
    let rounds = match plan.rounds {
        1 => "One round".to_owned(),
        rounds => format!("Medians of {rounds} rounds, in which everything takes its turn"),
    };
    let _ = write!(text, "\n{rounds}; a ratio is the median of the rounds' ratios.\n");
    let goals = goals(results);
    if !goals.is_empty() {
        text += "\n### Goals\n\n";
        let rows = goals.iter().map(|goal| {
            let verdict = if goal.met { "reached" } else { "**missed**" };
            vec![goal.says.clone(), goal.wanted.clone(), goal.reached.clone(), verdict.into()]
        });
        table(&mut text, &["", "Goal", "Measured", ""], rows);
    }
    for comparison in &results.comparisons {
        throughput(&mut text, comparison);
    }
    if !results.latencies.is_empty() {
        latency(&mut text, &results.latencies);
    }
    if let Some(memory) = &results.memory {
        let _ = write!(
            text,
            "\n### Memory\n\n{} hot events wait while MongoDB does not answer. Resident: {:.1} MiB before, at most {:.1} MiB \
             in the outage, at most {:.1} MiB until all of it was written.\n",
            number(memory.events),
            memory.of(|round| round.idle),
            memory.of(|round| round.outage),
            memory.of(|round| round.after),
        );
    }
    if let Some(backlog) = &results.backlog {
        text += "\n### Backlog\n\n";
        let rows = backlog.sizes.iter().map(|(_, series)| {
            let (low, high) = series.range();
            let range = format!("{} to {}", rate(low), rate(high));
            vec![series.name.clone(), rate(series.rate()), range, micros(series, |cpu| cpu.worker)]
        });
        table(&mut text, &["Hot events waiting", "Events/s", "Lowest to highest", "CPU µs an event"], rows);
    }
    if let Some(typing) = &results.typing {
        typed(&mut text, typing);
    }
    text
}

fn typed(text: &mut String, typing: &Typing) {
    let _ = write!(
        text,
        "\n### Typing: {} keys in {:?}, by the `max_delay` of their route; rounds: {}\n\n",
        number(typing.events as u64),
        typing.lasts,
        typing.rounds
    );
    let rows = typing.windows.iter().map(|window| {
        vec![
            window.name.into(),
            format!("{:.2}", window.of(|round| round.events_a_write())),
            format!("{:.2}", window.expected),
            format!("{:.1}", window.of(|round| round.mongodb())),
            format!("{:.0}", window.of(|round| round.cpu())),
            format!("{:.0}", window.of(|round| round.p50)),
            format!("{:.0}", window.of(|round| round.p99)),
        ]
    });
    let heads = [
        "Window",
        "Events a write",
        "By arithmetic",
        "MongoDB's CPU, s",
        "CPU µs an event",
        "p50, ms",
        "p99, ms",
    ];
    table(text, &heads, rows);
    let _ = write!(
        text,
        "\nClicks of the same queue, whose route has the default window, take {:.0} ms at the 99th percentile, and {:.0} ms \
         without the keys.\n",
        typing.clicks.beside(),
        typing.clicks.alone()
    );
}

fn latency(text: &mut String, latencies: &[Latency]) {
    *text += "\n### Latency: milliseconds from push to durable\n\n";
    let rows = latencies.iter().map(|latency| {
        let mut row = vec![number(latency.rate), format!("{} ms", latency.max_delay)];
        row.extend(latency.quantiles().map(|milliseconds| format!("{milliseconds:.1}")));
        row
    });
    table(text, &["Events/s", "`max_delay`", "p50", "p99", "p99.9"], rows);
}

fn throughput(text: &mut String, comparison: &Comparison) {
    let workload = &comparison.workload;
    let _ =
        write!(text, "\n### {}: {} events, {}\n\n", workload.name, number(workload.events), workload.says);
    let limit = comparison.limit();
    let (limits, ideal) = (comparison.series(limit), comparison.series(SERIAL_IDEAL));
    let rows = comparison.series.iter().map(|series| {
        let (low, high) = series.range();
        let against = |other: Option<&Series>| other.map_or_else(String::new, |o| ratio(series.against(o)));
        vec![
            series.name.clone(),
            rate(series.rate()),
            format!("{} to {}", rate(low), rate(high)),
            against(limits),
            against(ideal),
            micros(series, |cpu| cpu.worker),
            micros(series, |cpu| cpu.redis),
            micros(series, |cpu| cpu.mongodb),
            series.peak().map_or_else(String::new, |peak| format!("{peak:.0}")),
        ]
    });
    let against = format!("Against {limit}");
    let heads = [
        "",
        "Events/s",
        "Lowest to highest",
        &against,
        "Against serial ideal",
        "CPU µs an event",
        "Redis'",
        "MongoDB's",
        "Peak MiB",
    ];
    table(text, &heads, rows);
    for line in &comparison.skipped {
        let _ = write!(text, "\n{line}\n");
    }
}

fn micros(series: &Series, of: impl Fn(&super::stats::Cpu) -> std::time::Duration) -> String {
    match series.cpu(of) {
        micros if micros >= 10.0 => format!("{micros:.0}"),
        micros => format!("{micros:.2}"),
    }
}

fn ratio(ratio: f64) -> String {
    if ratio >= 0.01 { format!("{ratio:.2}") } else { format!("{ratio:.4}") }
}

/// Three digits are all that such figures have.
pub(crate) fn rate(rate: f64) -> String {
    let mut unit = 1.0;
    while rate / unit >= 1_000.0 {
        unit *= 10.0;
    }
    number(((rate / unit).round() * unit) as u64)
}

/// A table in Markdown that can also be read as it is.
pub(crate) fn table(text: &mut String, heads: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let heads: Vec<String> = heads.iter().map(|&head| head.to_owned()).collect();
    let rows: Vec<Vec<String>> = rows.collect();
    let width = |column: usize| {
        std::iter::once(&heads).chain(&rows).map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let mut line = |cells: &[String]| {
        for (at, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
            let _ =
                if at == 0 { write!(text, "| {cell:<width$} ") } else { write!(text, "| {cell:>width$} ") };
        }
        text.push_str("|\n");
    };
    line(&heads);
    let rule = |(at, &width): (usize, &usize)| {
        if at == 0 { "-".repeat(width) } else { format!("{}:", "-".repeat(width.saturating_sub(1))) }
    };
    line(&widths.iter().enumerate().map(rule).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
}

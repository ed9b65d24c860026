//! Draws the report's pictures.

use std::path::Path;

use tidegate::format::number;

use super::compare::{Comparison, TIDEGATE, TIDEGATE_BEST};
use super::latency::{Latency, QUANTILES};
use super::report::rate;
use super::results::Results;
use super::svg::{Bar, Scale, chart};

/// Draws what there is, into `folder`, and returns the files' names.
pub(crate) fn draw(folder: &Path, results: &Results) -> anyhow::Result<Vec<&'static str>> {
    let mut drawn = Vec::new();
    let mut save = |name: &'static str, svg: String| {
        drawn.push(name);
        std::fs::write(folder.join(name), svg)
    };
    if let Some(hot) = results.comparison("hot") {
        save("hot.svg", rates(hot))?;
    }
    if !results.comparisons.is_empty() {
        save("limits.svg", limits(&results.comparisons))?;
    }
    if !results.latencies.is_empty() {
        save("latency.svg", latencies(&results.latencies))?;
    }
    if let Some(backlog) = &results.backlog {
        let bars = backlog.sizes.iter().map(|(_, series)| Bar {
            label: format!("{} waiting", series.name),
            value: series.rate(),
            figure: rate(series.rate()),
            ours: true,
        });
        let bars: Vec<Bar> = bars.collect();
        save("backlog.svg", chart("Backlog", "hot events a second", Scale::Linear, &bars))?;
    }
    Ok(drawn)
}

fn rates(comparison: &Comparison) -> String {
    let bars = comparison.series.iter().map(|series| Bar {
        label: series.name.clone(),
        value: series.rate(),
        figure: rate(series.rate()),
        ours: is_ours(&series.name),
    });
    let bars: Vec<Bar> = bars.collect();
    let subtitle = format!("events a second, {}, on a logarithmic scale", comparison.workload.says);
    chart("Hot documents", &subtitle, Scale::Logarithmic, &bars)
}

fn limits(comparisons: &[Comparison]) -> String {
    let bars = comparisons.iter().flat_map(|comparison| {
        let (name, limit) = (comparison.workload.name, comparison.limit());
        [TIDEGATE, TIDEGATE_BEST].into_iter().filter_map(move |ours| {
            let ratio = comparison.ratio(ours, limit)?;
            let label = format!("{name}: {ours}");
            Some(Bar { label, value: ratio, figure: format!("{ratio:.2}"), ours: ours == TIDEGATE_BEST })
        })
    });
    let bars: Vec<Bar> = bars.collect();
    let subtitle = "against the bare drain; of distinct, against bare upserts";
    chart("How near to the limit", subtitle, Scale::Linear, &bars)
}

fn latencies(latencies: &[Latency]) -> String {
    let bars = latencies.iter().flat_map(|latency| {
        let values = latency.quantiles();
        (0..QUANTILES.len()).map(move |at| Bar {
            label: format!(
                "{}/s, max_delay {} ms: p{}",
                number(latency.rate),
                latency.max_delay,
                QUANTILES[at] * 100.0
            ),
            value: values[at],
            figure: format!("{:.1}", values[at]),
            ours: at == 1,
        })
    });
    let bars: Vec<Bar> = bars.collect();
    let subtitle = "milliseconds, on a logarithmic scale";
    chart("From push to durable", subtitle, Scale::Logarithmic, &bars)
}

fn is_ours(name: &str) -> bool {
    [TIDEGATE, TIDEGATE_BEST].contains(&name)
}

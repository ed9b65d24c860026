//! Holds the dashboards to the list of metrics, and to what makes a dashboard usable.

use std::collections::BTreeSet;

use serde_json::Value;

use super::promtool::promtool;
use super::{Metric, MetricKind};

const DASHBOARDS: [(&str, &str); 2] = [
    ("overview", include_str!("../../dashboards/overview.json")),
    ("internals", include_str!("../../dashboards/internals.json")),
];

/// Process metrics that an expression may name.
const PROCESS: [&str; 6] = [
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_threads",
    "process_start_time_seconds",
];

fn dashboards() -> impl Iterator<Item = (&'static str, Value)> {
    DASHBOARDS.into_iter().map(|(name, text)| (name, serde_json::from_str(text).unwrap()))
}

/// All panels, those inside collapsed rows included.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let mut panels = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        panels.push(panel);
        panels.extend(panel["panels"].as_array().into_iter().flatten());
    }
    panels
}

fn expressions(dashboard: &Value) -> Vec<String> {
    let targets = panels(dashboard).into_iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// The metrics that an expression names.
pub(super) fn metrics_named(expression: &str) -> BTreeSet<&str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("tidegate_") || word.starts_with("process_")).collect()
}

/// The metric that has a series of this name.
pub(super) fn metric_of(series: &str) -> Option<Metric> {
    Metric::ALL.into_iter().find(|metric| {
        let spec = metric.spec();
        match spec.kind {
            MetricKind::Counter | MetricKind::Gauge => series == spec.name,
            MetricKind::Histogram(_) => series
                .strip_prefix(spec.name)
                .is_some_and(|suffix| ["_bucket", "_sum", "_count"].contains(&suffix)),
        }
    })
}

#[test]
fn dashboards_name_the_metrics_there_are_and_all_of_them() {
    let mut shown = BTreeSet::new();
    for (name, dashboard) in dashboards() {
        let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
        let queries = variables.filter_map(|variable| variable["definition"].as_str()).map(str::to_owned);
        let panels = expressions(&dashboard);
        for expression in panels.iter().cloned().chain(queries) {
            for series in metrics_named(&expression) {
                let known = metric_of(series).is_some() || PROCESS.contains(&series);
                assert!(known, "{name}: there is no {series}: {expression}");
            }
        }
        let on_panels = panels.iter().flat_map(|expression| metrics_named(expression));
        shown.extend(on_panels.filter_map(metric_of).map(|metric| metric.spec().name));
    }
    for metric in Metric::ALL {
        assert!(shown.contains(metric.spec().name), "no dashboard shows {}", metric.spec().name);
    }
}

#[test]
fn dashboards_can_be_imported_as_they_are() {
    for (name, dashboard) in dashboards() {
        assert!(dashboard["id"].is_null(), "{name}: an id belongs to one Grafana only");
        assert_eq!(dashboard["uid"], format!("tidegate-{name}"));
        let variables: Vec<_> = dashboard["templating"]["list"]
            .as_array()
            .unwrap()
            .iter()
            .map(|variable| variable["name"].as_str().unwrap())
            .collect();
        assert_eq!(variables, ["datasource", "job", "instance", "queue"]);
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap();
            if panel["type"] == "row" {
                continue;
            }
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{name}: {title}");
            assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{name}: {title}");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{name}: {title} has no unit");
        }
        for expression in expressions(&dashboard) {
            assert!(expression.contains("instance=~\"$instance\""), "{name}: {expression}");
            let fixed = expression.split('[').skip(1).any(|rest| !rest.starts_with("$__rate_interval]"));
            assert!(!fixed, "{name}: an interval that does not follow the zoom: {expression}");
        }
    }
}

#[test]
fn the_runbook_speaks_of_panels_there_are() {
    let titles: BTreeSet<_> = dashboards()
        .flat_map(|(_, dashboard)| {
            let panels = panels(&dashboard);
            panels.iter().map(|panel| panel["title"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        })
        .collect();
    let text = include_str!("../../docs/runbook.md").replace("**", "").replace('\n', " ");
    // Code has stars of its own.
    let prose: String = text.split('`').step_by(2).collect();
    let named: Vec<_> = prose.split('*').skip(1).step_by(2).collect();
    assert!(named.len() > 5, "{named:?}");
    for title in named {
        assert!(titles.contains(title), "no panel is called {title:?}");
    }
}

#[test]
fn panels_have_their_own_ids_and_places() {
    for (name, dashboard) in dashboards() {
        let panels = panels(&dashboard);
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "{name}: an id is there twice");
        let mut taken = BTreeSet::new();
        for panel in panels {
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
            assert!(w > 0 && h > 0 && x + w <= 24, "{name}: {}", panel["title"]);
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{name}: {} lies on another panel", panel["title"]);
            }
        }
    }
}

#[test]
fn prometheus_understands_every_expression() {
    let mut rules = "groups:\n- name: dashboards\n  rules:\n".to_owned();
    for (_, dashboard) in dashboards() {
        for (at, expression) in expressions(&dashboard).into_iter().enumerate() {
            // JSON strings are YAML strings, too.
            let expression = Value::from(expression.replace("$__rate_interval", "1m"));
            rules.push_str(&format!("  - record: panel{at}\n    expr: {expression}\n"));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    std::fs::write(&file, rules).unwrap();
    let (content, said) = promtool(&["check", "rules", file.to_str().unwrap()], "");
    assert!(content, "{said}");
}

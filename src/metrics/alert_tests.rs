//! Holds the alerts to the list of metrics, to their own tests and to the runbook.

use std::collections::BTreeSet;

use super::dashboard_tests::{metric_of, metrics_named};
use super::promtool::promtool;

const ALERTS: &str = include_str!("../../dashboards/alerts.yaml");
const TESTS: &str = include_str!("../../dashboards/alerts.test.yaml");
const RUNBOOK: &str = include_str!("../../docs/runbook.md");

/// Alert's name to its lines. The files' shape is one that lines suffice for; promtool reads them as YAML.
fn alerts() -> Vec<(&'static str, Vec<&'static str>)> {
    let blocks = ALERTS.split("  - alert: ").skip(1);
    let alerts: Vec<_> = blocks
        .map(|block| {
            let (name, rest) = block.split_once('\n').unwrap();
            (name, rest.lines().collect())
        })
        .collect();
    assert!(!alerts.is_empty());
    alerts
}

#[test]
fn alerts_fire_and_keep_silent_as_their_tests_say() {
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/dashboards/alerts.test.yaml");
    let (content, said) = promtool(&["test", "rules", tests], "");
    assert!(content, "{said}");
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/dashboards/alerts.yaml");
    let (content, said) = promtool(&["check", "rules", rules], "");
    assert!(content && said.contains(&format!("{} rules found", alerts().len())), "{said}");
}

#[test]
fn every_alert_is_tested_for_both() {
    for (name, _) in alerts() {
        let silent = format!("alertname: {name}, exp_alerts: []");
        assert!(TESTS.contains(&silent), "no test for when {name} is silent");
        let firing = format!("alertname: {name}\n    exp_alerts:\n    - exp_labels:");
        assert!(TESTS.contains(&firing), "no test for when {name} fires");
    }
}

#[test]
fn every_alert_says_what_it_is_about_and_where_to_read_on() {
    for (name, lines) in alerts() {
        let has = |start: &str| lines.iter().any(|line| line.trim_start().starts_with(start));
        assert!(has("summary: '") && has("description: '"), "{name}");
        assert!(has("severity: critical") || has("severity: warning"), "{name}");
        let runbook = format!("runbook_url: 'docs/runbook.md#{}'", name.to_lowercase());
        assert!(has(&runbook), "{name} wants {runbook}");
    }
}

#[test]
fn the_runbook_has_a_section_for_every_alert_and_for_nothing_else() {
    let sections: Vec<_> =
        RUNBOOK.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap()).collect();
    let headings: Vec<_> = sections.iter().map(|(heading, _)| *heading).collect();
    let names: Vec<_> = alerts().into_iter().map(|(name, _)| name).collect();
    assert_eq!(headings, names);
    for (heading, text) in sections {
        for part in ["**What it means.**", "**What to look at.**", "**What to do.**", "**What not to do.**"] {
            assert!(text.contains(part), "{heading} lacks {part}");
        }
    }
}

#[test]
fn alerts_name_the_metrics_there_are() {
    let mut named = BTreeSet::new();
    for (name, lines) in alerts() {
        for line in lines.into_iter().filter(|line| !line.trim_start().starts_with('#')) {
            // Anchors and texts may speak of tidegate, too; metrics are lower case with underscores.
            let series = metrics_named(line);
            for series in series.into_iter().filter(|series| series.starts_with("tidegate_")) {
                assert!(metric_of(series).is_some(), "{name}: there is no {series}");
                named.insert(series);
            }
        }
    }
    assert!(named.len() > 8, "{named:?}");
}

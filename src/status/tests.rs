//! Tests that outages are told once each, and that figures go to people and to Prometheus alike.

use std::io::Write;
use std::sync::Barrier;

use serde::Serialize;
use serde_json::json;

use super::*;
use crate::health::Dependency;
use crate::source::Depth;

/// What was logged.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What is told, as a program reads it.
pub(super) fn as_json(told: &impl Serialize) -> Value {
    serde_json::to_value(told).unwrap()
}

/// Where lines go, and what sends them there.
fn capture() -> (Lines, tracing::Dispatch) {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .finish();
    (lines, tracing::Dispatch::new(subscriber))
}

#[test]
fn a_refusal_lasts_until_what_was_refused_is_taken() {
    let (lines, dispatch) = capture();
    let redis = Dependency::new("redis");
    tracing::dispatcher::with_default(&dispatch, || {
        redis.up();
        for _ in 0..5 {
            redis.refuses("q", &"Redis refuses: READONLY");
            // Something else works, the one queue does, or the connection is lost meanwhile.
            redis.up();
            redis.takes("other");
            redis.refuses("heartbeat", &"Redis refuses: READONLY");
            redis.down(&"connection reset");
            redis.up();
            assert_eq!(as_json(&redis.report())["state"], "refuses");
            redis.takes("heartbeat");
            assert!(!redis.is_up());
        }
        redis.takes("q");
        assert!(redis.is_up());
        // An outage that begins as one and ends as a refusal is one outage, too.
        redis.down(&"connection refused");
        redis.refuses("q", &"Redis refuses: LOADING");
        redis.takes("q");
        redis.up();
    });
    let text = lines.text();
    let told: Vec<_> = text.lines().map(str::trim).collect();
    assert_eq!(
        told,
        [
            "INFO redis is reached",
            "WARN Redis refuses: READONLY; trying again until it does not",
            "INFO redis refuses no more, after 0.0 s",
            "WARN redis is down: connection refused; trying again until it is back",
            "WARN Redis refuses: LOADING; trying again until it does not",
            "INFO redis is back after 0.0 s",
        ]
    );
}

#[test]
fn an_outage_is_two_lines_however_often_it_is_met() {
    let (lines, dispatch) = capture();
    let dependency = Dependency::new("mongodb");
    tracing::dispatcher::with_default(&dispatch, || {
        dependency.up();
        dependency.up();
        for attempt in 0..5 {
            dependency.down(&format!("refused, attempt {attempt}"));
        }
        assert_eq!(as_json(&dependency.report())["error"], "refused, attempt 4");
        dependency.up();
    });
    let text = lines.text();
    let told: Vec<_> = text.lines().map(str::trim).collect();
    assert_eq!(
        told,
        [
            "INFO mongodb is reached",
            "WARN mongodb is down: refused, attempt 0; trying again until it is back",
            "INFO mongodb is back after 0.0 s",
        ]
    );
}

#[test]
fn an_outage_that_many_meet_at_once_is_told_once() {
    const CALLERS: usize = 8;
    let (lines, dispatch) = capture();
    let dependency = Dependency::new("redis");
    let barrier = Barrier::new(CALLERS);
    let all = |call: &(dyn Fn() + Sync)| {
        std::thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| {
                    tracing::dispatcher::with_default(&dispatch, || {
                        barrier.wait();
                        call();
                    });
                });
            }
        });
    };
    all(&|| dependency.up());
    for _ in 0..50 {
        all(&|| dependency.down(&"connection refused"));
        assert!(!dependency.is_up());
        all(&|| dependency.up());
        assert!(dependency.is_up());
    }
    let text = lines.text();
    let count = |what: &str| text.matches(what).count();
    assert_eq!((count("is reached"), count("is down"), count("is back after")), (1, 50, 50), "{text}");
}

#[test]
fn a_first_attempt_that_fails_is_an_outage() {
    let (lines, dispatch) = capture();
    let dependency = Dependency::new("redis");
    assert_eq!(as_json(&dependency.report())["state"], "unknown");
    tracing::dispatcher::with_default(&dispatch, || {
        dependency.down(&"refused");
        dependency.up();
    });
    assert_eq!(lines.text().lines().count(), 2, "{}", lines.text());
    assert_eq!(as_json(&dependency.report())["state"], "up");
    assert_eq!(as_json(&dependency.report())["last_outage"]["error"], "refused");
}

#[test]
fn an_instance_is_ready_while_its_dependencies_answer() {
    let status = Status::new(&Config::default(), "here", Buffer::new(&Default::default()), &[]);
    assert!(!status.is_ready());
    status.health.redis.up();
    assert!(!status.is_ready());
    status.health.mongodb.up();
    assert!(status.is_ready());
    status.health.mongodb.down(&"no");
    assert!(!status.is_ready());
    assert_eq!(as_json(&status.readiness())["dependencies"]["mongodb"]["error"], "no");
    status.health.mongodb.up();
    status.stopping();
    assert!(!status.is_ready());
}

#[test]
fn what_people_read_is_what_prometheus_scrapes() {
    let config: Config = serde_json::from_str(r#"{ "queues": [{ "key": "edits" }] }"#).unwrap();
    let (recorder, exporter) = crate::metrics::recorder().unwrap();
    metrics::with_local_recorder(&recorder, || {
        let metrics = [Arc::new(QueueMetrics::new("edits", &[]))];
        let status = Status::new(&config, "here", Buffer::new(&config.buffer), &metrics);
        let queue = &status.queues[0];
        queue.set_epoch(3);
        queue.set_depth(41);
        queue.set_dead_letters(2);
        queue.set_oldest_age(Duration::from_millis(1500));
        queue.set_committed(3 << 36);
        status.health.mongodb.up();
        for (phase, name, held) in [
            (Phase::Connecting, "connecting", 0),
            (Phase::Standby, "standby", 0),
            (Phase::Recovering, "recovering", 1),
            (Phase::Active, "active", 1),
            (Phase::Draining, "draining", 1),
            (Phase::Stopped, "stopped", 0),
        ] {
            queue.set_phase(phase);
            assert_eq!(as_json(&status.report(None))["queues"][0]["phase"], name);
            let text = exporter.render();
            assert!(text.contains(&format!("tidegate_lease_held{{queue=\"edits\"}} {held}\n")), "{name}");
        }
        let shown = &as_json(&status.report(None))["queues"][0];
        assert_eq!(shown["epoch"], 3);
        assert_eq!(shown["depth"], 41);
        assert_eq!(shown["dead_letters"], 2);
        assert_eq!(shown["oldest_age_seconds"], 1.5);
        assert_eq!(shown["committed"], 3_i64 << 36);
        let text = exporter.render();
        for line in [
            "tidegate_epoch{queue=\"edits\"} 3\n",
            "tidegate_queue_depth{queue=\"edits\"} 41\n",
            "tidegate_dead_letters{queue=\"edits\"} 2\n",
            "tidegate_queue_oldest_age_seconds{queue=\"edits\"} 1.5\n",
            "tidegate_up{dependency=\"mongodb\"} 1\n",
            "tidegate_up{dependency=\"redis\"} 0\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert!(!text.contains("tidegate_last_commit_timestamp_seconds{queue=\"edits\"} 0\n"), "{text}");
    });
}

#[test]
fn figures_of_the_last_seconds_are_told() {
    let config: Config = serde_json::from_str(r#"{ "queues": [{ "key": "edits" }] }"#).unwrap();
    let metrics = [Arc::new(QueueMetrics::new("edits", &["documents".to_owned()]))];
    let status = Status::new(&config, "here", Buffer::new(&config.buffer), &metrics);
    let (queue, counts) = (&status.queues[0], &metrics[0]);
    status.health.redis.up();
    status.health.mongodb.up();
    queue.set_phase(Phase::Active);
    // What was there before, and what gets other numbers, did not arrive just now.
    queue.saw(Depth { elements: 500, tail: 500, ..Depth::default() });
    queue.renumbered();
    queue.saw(Depth { elements: 500, tail: 1 << 36, ..Depth::default() });
    status.look();
    queue.saw(Depth { elements: 520, tail: (1 << 36) + 20, ..Depth::default() });
    // An answer that was overtaken.
    queue.saw(Depth { elements: 510, tail: (1 << 36) + 10, ..Depth::default() });
    queue.saw(Depth { elements: 530, tail: (1 << 36) + 30, ..Depth::default() });
    counts.received.increment(100);
    counts.coalesced.increment(80);
    counts.persisted(crate::change::CollectionId(0), 60);
    counts.persisted_after(Duration::from_millis(30), 59);
    counts.persisted_after(Duration::from_millis(70), 1);
    counts.deduplicated.increment(3);
    counts.dead_lettered(crate::dead_letter::Reason::NoRoute, 2);
    counts.released.increment(5);
    status.look();
    let told = as_json(&status.report(Some(0)));
    let shown = &told["queues"][0];
    assert_eq!((&shown["totals"]["arrived"], &shown["held"]), (&json!(30), &json!(30)));
    assert_eq!(shown["recent"]["events_per_write"], 98.0 / 18.0);
    let within = &shown["recent"]["durable_within"];
    assert_eq!((&within["half"]["seconds"], &within["all"]["seconds"]), (&json!(0.05), &json!(0.1)));
    assert_eq!(told["summary"]["text"], "Everything is durable within 100 ms.");
    assert_eq!(told["history"]["looks"][1]["queues"][0], json!([30, 100, 65, 80, 530, 0]));
    assert_eq!(as_json(&status.report(Some(1)))["history"]["looks"].as_array().unwrap().len(), 1);
}

#[test]
fn a_lane_says_what_it_waits_for() {
    let lane = LaneStatus::default();
    let doing = || as_json(&lane.now())["doing"].as_str().unwrap().to_owned();
    assert_eq!(doing(), "idle");
    lane.holds(3);
    assert_eq!(doing(), "gathering");
    lane.writes(40, 0, true);
    lane.attempted(true);
    // It goes on gathering meanwhile; that is no news of the batch.
    lane.writes(40, 2, false);
    assert_eq!((doing().as_str(), lane.retrying().is_some(), lane.is_writing()), ("retrying", true, true));
    assert_eq!(as_json(&lane.now())["writing_events"], 40);
    lane.attempted(false);
    assert_eq!((doing().as_str(), lane.retrying()), ("writing", None));
    lane.holds(0);
    assert_eq!(doing(), "idle");
}

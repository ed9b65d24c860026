//! Outages are told once each, and figures go to people and to Prometheus alike.

use std::io::Write;
use std::sync::Barrier;

use super::*;

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
fn an_outage_is_two_lines_however_often_it_is_met() {
    let (lines, dispatch) = capture();
    let dependency = Dependency::new("mongodb");
    tracing::dispatcher::with_default(&dispatch, || {
        dependency.up();
        dependency.up();
        for attempt in 0..5 {
            dependency.down(&format!("refused, attempt {attempt}"));
        }
        assert_eq!(dependency.to_json()["error"], "refused, attempt 4");
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
    assert_eq!(dependency.to_json()["state"], "unknown");
    tracing::dispatcher::with_default(&dispatch, || {
        dependency.down(&"refused");
        dependency.up();
    });
    assert_eq!(lines.text().lines().count(), 2, "{}", lines.text());
    assert_eq!(dependency.to_json()["state"], "up");
}

#[test]
fn an_instance_is_ready_while_its_dependencies_answer() {
    let status = Status::new(&Config::default(), "here", Buffer::new(&Default::default()), &[]);
    assert!(!status.is_ready());
    status.redis.up();
    assert!(!status.is_ready());
    status.mongodb.up();
    assert!(status.is_ready());
    status.mongodb.down(&"no");
    assert!(!status.is_ready());
    assert_eq!(status.readiness()["dependencies"]["mongodb"]["error"], "no");
    status.mongodb.up();
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
        status.mongodb.up();
        for (phase, name, held) in [
            (Phase::Connecting, "connecting", 0),
            (Phase::Standby, "standby", 0),
            (Phase::Recovering, "recovering", 1),
            (Phase::Active, "active", 1),
            (Phase::Draining, "draining", 1),
            (Phase::Stopped, "stopped", 0),
        ] {
            queue.set_phase(phase);
            assert_eq!(status.to_json()["queues"][0]["phase"], name);
            let text = exporter.render();
            assert!(text.contains(&format!("tidegate_lease_held{{queue=\"edits\"}} {held}\n")), "{name}");
        }
        let shown = &status.to_json()["queues"][0];
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

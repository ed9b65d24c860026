//! Tests the real listener on a port of its own, over TCP.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::buffer::Buffer;
use crate::config::Config;
use crate::metrics::{QueueMetrics, WriteMetrics};
use crate::source::Redis;

/// A listener that serves until dropped, in a runtime of its own so that tests may block.
struct Served {
    address: SocketAddr,
    status: Arc<Status>,
    _runtime: tokio::runtime::Runtime,
}

fn served(limits: ConnectionLimits) -> Served {
    let text = r#"{ "queues": [{ "key": "edits" }], "redis": { "url": "redis://:hunter2@localhost" } }"#;
    let config: Config = serde_json::from_str(text).unwrap();
    let asked = Asked::new(Redis::new(&config.redis).unwrap(), &config);
    let (recorder, exporter) = crate::metrics::recorder().unwrap();
    let status = metrics::with_local_recorder(&recorder, || {
        let collections = ["documents".to_owned()];
        let _ = WriteMetrics::new(&collections);
        let queues = [Arc::new(QueueMetrics::new("edits", &collections))];
        queues.iter().for_each(|queue| exporter.add(Arc::clone(queue)));
        Status::new(&config, "here", Buffer::new(&config.buffer), &queues)
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(serve_within(limits, listener, Arc::clone(&status), exporter, asked));
    Served { address, status, _runtime: runtime }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    // Only so that a failure of the test is told instead of hanging.
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

fn request(address: SocketAddr, method: &str, path: &str, headers: &str) -> (u16, String, String) {
    let mut stream = connect(address);
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, head.to_lowercase(), body.to_owned())
}

fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
    request(address, "GET", path, "")
}

fn get_json(address: SocketAddr, path: &str) -> (u16, Value) {
    let (code, head, body) = get(address, path);
    assert!(head.contains("content-type: application/json"), "{head}");
    (code, serde_json::from_str(&body).unwrap())
}

/// Reads until the server closes the connection, in whichever way it does.
fn wait_until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    match stream.read_to_end(&mut got) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    got
}

#[test]
fn metrics_are_prometheus_text() {
    let served = served(ConnectionLimits::default());
    let (code, head, body) = get(served.address, "/metrics");
    assert_eq!(code, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("tidegate_events_received_total{queue=\"edits\"} 0\n"), "{body}");
    assert!(body.contains("tidegate_up{dependency=\"redis\"} 0\n"), "{body}");
    served.status.health.redis.up();
    let (_, _, body) = get(served.address, "/metrics");
    assert!(body.contains("tidegate_up{dependency=\"redis\"} 1\n"), "{body}");
}

#[test]
fn readiness_follows_the_dependencies_and_liveness_does_not() {
    let served = served(ConnectionLimits::default());
    let ready = || get_json(served.address, "/readyz");
    let (code, body) = ready();
    assert_eq!((code, &body["ready"]), (503, &Value::from(false)));
    assert_eq!(body["dependencies"]["mongodb"]["state"], "unknown");
    served.status.health.redis.up();
    served.status.health.mongodb.up();
    let (code, body) = ready();
    assert_eq!((code, &body["dependencies"]["redis"]["state"]), (200, &Value::from("up")));
    served.status.health.mongodb.down(&"no primary");
    let (code, body) = ready();
    assert_eq!(code, 503);
    assert_eq!(body["dependencies"]["mongodb"]["state"], "down");
    assert_eq!(body["dependencies"]["mongodb"]["error"], "no primary");
    assert_eq!(get_json(served.address, "/livez").0, 200);
    served.status.health.mongodb.up();
    assert_eq!(ready().0, 200);
    served.status.stopping();
    let (code, body) = ready();
    assert_eq!((code, &body["stopping"]), (503, &Value::from(true)));
    assert_eq!(get_json(served.address, "/livez").0, 200);
}

#[test]
fn the_status_tells_queues_and_configuration_but_no_password() {
    let served = served(ConnectionLimits::default());
    let (code, body) = get_json(served.address, "/status");
    assert_eq!(code, 200);
    assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(body["queues"][0]["key"], "edits");
    assert_eq!(body["queues"][0]["phase"], "connecting");
    assert_eq!(body["config"]["batch"]["max_ops"], 1000);
    assert!(body["config"]["redis"]["url"].is_string());
    assert!(!body.to_string().contains("hunter2"), "{body}");
}

#[test]
fn the_status_tells_the_history_from_where_it_is_asked_for() {
    let served = served(ConnectionLimits::default());
    let (_, body) = get_json(served.address, "/status");
    assert!(body.get("history").is_none(), "{body}");
    let (_, body) = get_json(served.address, "/status?x=1&since=0");
    assert_eq!((&body["history"]["next"], &body["history"]["looks"]), (&json!(0), &json!([])));
    assert_eq!(get_json(served.address, "/status?since=yesterday").0, 400);
}

#[test]
fn the_configuration_is_shown_as_it_is_written_but_for_the_password() {
    let served = served(ConnectionLimits::default());
    let (code, head, body) = get(served.address, "/config");
    assert_eq!(code, 200);
    assert!(head.contains("content-type: text/plain"), "{head}");
    assert!(body.contains("url = \"redis://:***@localhost\"") && !body.contains("hunter2"), "{body}");
}

#[test]
fn the_page_is_whole_by_itself_and_may_do_nothing_else() {
    let served = served(ConnectionLimits::default());
    let (_, _, page) = get(served.address, "/");
    for attribute in ["src=\"", "href=\""] {
        let named: Vec<_> = page.split(attribute).skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(!named.is_empty(), "{page}");
        for path in named {
            assert_ne!(get(served.address, path).0, 404, "{path}");
        }
    }
    for inline in
        ["<style", " style=", "<script>", " onclick=", " onload=", "javascript:", "http://", "https://"]
    {
        assert!(!page.contains(inline), "{inline}");
    }
    for (path, content_type) in [
        ("/", "text/html"),
        ("/page.js", "text/javascript"),
        ("/page.css", "text/css"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let (code, head, body) = get(served.address, path);
        assert_eq!(code, 200);
        assert!(head.contains(&format!("content-type: {content_type}")), "{path}: {head}");
        // A namespace is a name; nothing is fetched from there.
        let links = body.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !links.contains("http://") && !links.contains("https://") && !links.contains("@import"),
            "{path}"
        );
        assert!(!body.contains("innerHTML") && !body.contains("insertAdjacentHTML"), "{path}");
    }
}

#[test]
fn every_answer_is_guarded() {
    let served = served(ConnectionLimits::default());
    for path in ["/", "/page.css", "/page.js", "/metrics", "/livez", "/readyz", "/status", "/config", "/none"]
    {
        let (_, head, _) = request(served.address, "GET", path, "Origin: http://evil.example\r\n");
        let policy = head.lines().find_map(|line| line.strip_prefix("content-security-policy: "));
        let policy = policy.unwrap_or_else(|| panic!("{path}: {head}"));
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        for line in [
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
            "x-frame-options: deny",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(head.lines().any(|told| told == line), "{path}: {line}: {head}");
        }
        assert!(!head.contains("access-control-allow"), "{path}: {head}");
    }
}

#[test]
fn other_pages_and_methods_are_refused() {
    let served = served(ConnectionLimits::default());
    let (code, body) = get_json(served.address, "/favicon.ico");
    assert_eq!((code, &body["error"]), (404, &Value::from("no such page")));
    for path in ["/", "/metrics", "/status", "/config"] {
        assert_eq!(request(served.address, "POST", path, "").0, 405, "{path}");
    }
}

#[test]
fn endless_headers_are_refused() {
    let served = served(ConnectionLimits::default());
    let mut stream = connect(served.address);
    let line = format!("X: {}\r\n", "x".repeat(8000));
    let mut sent = write!(stream, "GET /livez HTTP/1.1\r\nHost: t\r\n");
    let mut lines = 0;
    while sent.is_ok() && lines < 1000 {
        sent = stream.write_all(line.as_bytes());
        lines += 1;
    }
    wait_until_closed(&mut stream);
    assert_eq!(get(served.address, "/livez").0, 200);
}

#[test]
fn a_client_that_never_ends_its_request_is_cut_off() {
    let served = served(ConnectionLimits { request: Duration::from_secs(1), ..ConnectionLimits::default() });
    let mut silent = connect(served.address);
    assert!(wait_until_closed(&mut silent).is_empty());
    let mut trickling = connect(served.address);
    trickling.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    // Far fewer bytes than would be refused for their number, so only time can end this.
    let closed = (0..3000).any(|_| {
        let _ = trickling.write_all(b"G");
        match trickling.read(&mut [0; 16]) {
            Ok(n) => n == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    });
    assert!(closed);
    assert_eq!(get(served.address, "/livez").0, 200);
}

#[test]
fn an_idle_connection_is_closed_and_a_kept_one_answers_again() {
    let served = served(ConnectionLimits { idle: Duration::from_secs(2), ..ConnectionLimits::default() });
    let mut kept = connect(served.address);
    for _ in 0..2 {
        write!(kept, "GET /livez HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
        let mut answer = [0; 4096];
        let n = kept.read(&mut answer).unwrap();
        assert!(answer[..n].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..n]));
    }
    wait_until_closed(&mut kept);
}

#[test]
fn too_many_connections_wait_for_a_place() {
    let served = served(ConnectionLimits {
        connections: 2,
        request: Duration::from_secs(1),
        idle: Duration::from_secs(60),
    });
    let hogs = [connect(served.address), connect(served.address)];
    // Answered once a hog has had its time.
    assert_eq!(get(served.address, "/livez").0, 200);
    drop(hogs);
}

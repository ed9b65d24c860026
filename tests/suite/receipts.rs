//! Tests receipts over Pub/Sub, and `/durable` for those who must be certain.

use anyhow::{Context, ensure};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

use crate::stage::{PATIENCE, Setting, Stage, assert_exact, logged, update};
use crate::support::{Metrics, Proxy, Tidegate, try_eventually};

type Outcome = anyhow::Result<()>;

const ON: &str = "receipts.enabled = true\n";

/// Listens to channels, and keeps what comes.
pub(crate) struct Listener {
    messages: tokio::sync::mpsc::UnboundedReceiver<(String, Value)>,
    pub(crate) heard: Vec<(String, Value)>,
    listening: tokio::task::AbortHandle,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Listener {
    /// Listens to all that has to do with tidegate; a shared server has messages of other tests, which are left out.
    pub(crate) async fn new(stage: &Stage) -> anyhow::Result<Self> {
        let (sender, messages) = tokio::sync::mpsc::unbounded_channel();
        let client = redis::Client::open(stage.redis.url())?;
        let config = redis::AsyncConnectionConfig::new();
        let (pushed, mut pushes) = tokio::sync::mpsc::unbounded_channel();
        let info = client.get_connection_info().clone();
        let settings = info.redis_settings().clone().set_protocol(redis::ProtocolVersion::RESP3);
        let client = redis::Client::open(info.set_redis_settings(settings))?;
        let mut connection =
            client.get_multiplexed_async_connection_with_config(&config.set_push_sender(pushed)).await?;
        connection.psubscribe("tidegate:*").await?;
        let queue = stage.queue.clone();
        let listening = tokio::spawn(async move {
            let _connection = connection;
            while let Some(push) = pushes.recv().await {
                let Some(message) = redis::Msg::from_push_info(push) else { continue };
                let text: Vec<u8> = message.get_payload().unwrap();
                let value: Value = serde_json::from_slice(&text).unwrap();
                if value["queue"] == json!(queue) {
                    let _ = sender.send((message.get_channel_name().to_owned(), value));
                }
            }
        });
        Ok(Listener { messages, heard: Vec::new(), listening: listening.abort_handle() })
    }

    /// Listens until what was heard satisfies `check`.
    pub(crate) async fn until(&mut self, what: &str, check: impl Fn(&[(String, Value)]) -> bool) -> Outcome {
        let listen = async {
            while !check(&self.heard) {
                self.heard.push(self.messages.recv().await.expect("the connection"));
            }
        };
        let listened = tokio::time::timeout(PATIENCE, listen).await;
        listened.ok().with_context(|| {
            format!("{what}; heard {} messages: {:?}", self.heard.len(), self.heard.iter().take(20))
        })
    }
}

pub(crate) fn events(heard: &[(String, Value)]) -> u64 {
    heard.iter().filter_map(|(_, message)| message["events"].as_u64()).sum()
}

/// Pushes an event as docs/receipts.md tells, and answers its offset.
pub(crate) async fn push_numbered(
    producer: &mut MultiplexedConnection,
    queue: &str,
    event: &str,
) -> anyhow::Result<i64> {
    let base = format!("tidegate:{{{queue}}}:base");
    let (length, base): (i64, Option<i64>) =
        redis::pipe().atomic().rpush(queue, event).get(base).query_async(producer).await?;
    Ok(base.unwrap_or(0) + length - 1)
}

pub(crate) async fn fate(
    tidegate: &Tidegate,
    queue: &str,
    offset: i64,
    query: &str,
) -> anyhow::Result<String> {
    let (status, told) = tidegate.get_json(&format!("/durable/{queue}/{offset}{query}")).await?;
    ensure!(status == 200, "{status} {told}");
    assert_eq!(told["durable"], json!(told["state"] == "durable"));
    assert_eq!((&told["queue"], &told["offset"]), (&json!(queue), &json!(offset.to_string())));
    Ok(told["state"].as_str().context("no state")?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_becomes_of_an_event_is_told() -> Outcome {
    let routes = "[[routes]]\nwhen = { type = \"count\" }\ncollection = \"counters\"\nid = \"of\"\ninc = { n = \"n\" }\n";
    let stage = Setting::new().with(ON).with(routes).stage().await?;
    let mut listener = Listener::new(&stage).await?;
    let tidegate = stage.start().await?;
    let mut producer = stage.producer().await?;
    let pushed = [
        update("a", json!({"$set": {"x": "text"}})),
        update("a", json!({"$set": {"y": 1}})),
        json!({"collection": "documents", "id": 7, "replace": {"x": 1}}).to_string(),
        json!({"collection": "documents", "id": "gone", "delete": true}).to_string(),
        // MongoDB refuses it.
        update("a", json!({"$inc": {"x": 1}})),
        // It is refused before.
        update("b", json!({"$set": {"": 1}})),
        json!({"type": "count", "of": "c", "n": "many"}).to_string(),
        json!({"type": "count", "of": "c", "n": 2}).to_string(),
        "no event".to_owned(),
    ];
    let mut offsets = Vec::new();
    for event in &pushed {
        offsets.push(push_numbered(&mut producer, &stage.queue, event).await?);
    }
    let whole = |heard: &[(String, Value)]| {
        events(heard) == 5 && heard.iter().filter(|(_, message)| message["reason"].is_string()).count() == 4
    };
    listener.until("five events and four dead letters", whole).await?;
    stage.settled(&tidegate).await?;

    let durable: Vec<_> = listener.heard.iter().filter(|(_, message)| message["events"].is_u64()).collect();
    for (channel, id, offset) in [
        ("tidegate:durable:documents", json!("a"), offsets[1]),
        ("tidegate:durable:documents", json!(7), offsets[2]),
        ("tidegate:durable:documents", json!("gone"), offsets[3]),
        ("tidegate:durable:counters", json!("c"), offsets[7]),
    ] {
        let of_entity = durable.iter().filter(|(_, message)| message["id"] == id);
        let (on, last) =
            of_entity.max_by_key(|(_, message)| message["offset"].to_string()).expect("a receipt");
        assert_eq!((&**on, &last["offset"]), (channel, &json!(offset.to_string())), "{:?}", listener.heard);
        let ms = last["ms"].as_u64().expect("a latency");
        assert!(ms < 60_000, "{last}");
    }
    for (channel, id, offset, class) in [
        ("tidegate:dead:documents", json!("a"), offsets[4], "type-mismatch"),
        ("tidegate:dead:documents", json!("b"), offsets[5], "bad-key"),
        ("tidegate:dead:counters", json!("c"), offsets[6], "bad-number"),
        ("tidegate:dead", Value::Null, offsets[8], "not-json"),
    ] {
        let is_its = |(_, message): &&(String, Value)| {
            message["offset"] == json!(offset.to_string()) && message["reason"].is_string()
        };
        let (on, message) = listener.heard.iter().find(is_its).expect("a dead letter");
        assert_eq!((&**on, &message["id"], &message["class"]), (channel, &id, &json!(class)));
        assert!(!message.to_string().contains("text"), "no values: {message}");
        assert_eq!(fate(&tidegate, &stage.queue, offset, "").await?, "dead");
    }
    for offset in [0, 1, 2, 3, 7] {
        assert_eq!(fate(&tidegate, &stage.queue, offsets[offset], "").await?, "durable");
    }
    let metrics = tidegate.metrics().await?;
    assert_eq!(metrics.sum("tidegate_receipts_published_total", &[]), listener.heard.len() as f64);
    assert_eq!(metrics.sum("tidegate_receipts_dropped_total", &[]), 0.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_told_where_nobody_asked_for_it() -> Outcome {
    let stage = Setting::new().stage().await?;
    let mut listener = Listener::new(&stage).await?;
    let tidegate = stage.start().await?;
    stage.push([update("a", json!({"$set": {"x": 1}})), "no event".into()]).await?;
    stage.settled(&tidegate).await?;
    // Whatever was published before this was heard before this.
    let mark = json!({ "queue": stage.queue });
    let () = stage.producer().await?.publish("tidegate:mark", mark.to_string()).await?;
    listener.until("the mark", |heard| !heard.is_empty()).await?;
    assert_eq!(listener.heard, [("tidegate:mark".to_owned(), mark)]);
    assert_eq!(tidegate.metrics().await?.sum("tidegate_receipts_published_total", &[]), 0.0);
    Ok(())
}

/// The successor of a crashed owner tells what it finds to be durable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_kept_from_being_told_is_told_after_it() -> Outcome {
    let stage = Setting::new().with(ON).stage().await?;
    let tidegate = stage.start().await?;
    stage.push((0..5).map(|n| logged("a", n))).await?;
    stage.settled(&tidegate).await?;
    tidegate.kill9()?;
    // As if it had ended between write and commit: the events are there again, under the same numbers.
    let mut producer = stage.producer().await?;
    let base: i64 = producer.get(format!("tidegate:{{{}}}:base", stage.queue)).await?;
    let () = producer.set(format!("tidegate:{{{}}}:base", stage.queue), base - 5).await?;
    let () = producer.set(format!("tidegate:{{{}}}:head", stage.queue), "").await?;
    stage.push((0..5).map(|n| logged("a", n))).await?;
    let mut listener = Listener::new(&stage).await?;
    let tidegate = stage.start().await?;
    listener.until("five events", |heard| events(heard) >= 5).await?;
    let metrics = stage.settled(&tidegate).await?;
    assert_eq!(metrics.sum("tidegate_events_deduplicated_total", &[]), 5.0);
    let (channel, last) = listener.heard.last().expect("a receipt");
    assert_eq!(&**channel, "tidegate:durable:documents");
    assert_eq!((&last["id"], &last["offset"]), (&json!("a"), &json!((base - 1).to_string())));
    assert_eq!(last["ms"], Value::Null);
    assert_exact(stage.document("a").await?.as_ref(), 5);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn persistence_does_not_wait_for_receipts() -> Outcome {
    const DOCUMENTS: usize = 100_000;
    let mut stage =
        Setting::new().own_fast_servers().with(ON).with("redis.timeout = \"60s\"\n").stage().await?;
    let proxy = Proxy::start(stage.redis.address()?).await?;
    // From then on, nothing of a connection that publishes passes.
    proxy.hold_connections_with("PUBLISH");
    stage.launch = stage.launch.env("TIDEGATE_REDIS__URL", format!("redis://{}", proxy.address()));
    let mut listener = Listener::new(&stage).await?;
    let tidegate = stage.start().await?;
    for some in (0..DOCUMENTS).collect::<Vec<_>>().chunks(10_000) {
        stage.push(some.iter().map(|n| update(&n.to_string(), json!({"$set": {"n": n}})))).await?;
    }
    let metrics = stage.settled(&tidegate).await?;
    assert_eq!(metrics.sum("tidegate_events_persisted_total", &[]), DOCUMENTS as f64);
    assert_eq!(metrics.sum("tidegate_receipts_published_total", &[]), 0.0);
    let dropped = metrics.sum("tidegate_receipts_dropped_total", &[]) as usize;
    assert!((30_000..DOCUMENTS).contains(&dropped), "{dropped} dropped");
    assert_eq!(metrics.sum("tidegate_takeovers_total", &[]), 1.0);

    // What waits is told when Redis takes it, and what is new, too.
    proxy.release_connections();
    let told = |metrics: &Metrics| {
        let published = metrics.sum("tidegate_receipts_published_total", &[]);
        let dropped = metrics.sum("tidegate_receipts_dropped_total", &[]);
        ensure!(published + dropped == DOCUMENTS as f64, "{published} + {dropped}");
        Ok(())
    };
    let metrics = tidegate.metrics_when(PATIENCE, "all receipts to be published or dropped", told).await?;
    let published = metrics.sum("tidegate_receipts_published_total", &[]) as usize;
    stage.push([update("after", json!({"$set": {"n": 1}}))]).await?;
    listener.until("what was published, and one more", |heard| heard.len() > published).await?;
    assert_eq!(listener.heard.len(), published + 1);
    assert_eq!(listener.heard[published].1["id"], json!("after"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certainty_is_to_be_had_across_a_takeover() -> Outcome {
    let mut stage = Setting::new().own_servers().stage().await?;
    let mut producer = stage.producer().await?;
    // Before any owner.
    let mut offsets = vec![push_numbered(&mut producer, &stage.queue, &logged("a", 0)).await?];
    let tidegate = stage.start().await?;
    stage.settled(&tidegate).await?;
    offsets.push(push_numbered(&mut producer, &stage.queue, &logged("a", 1)).await?);
    stage.settled(&tidegate).await?;
    for offset in &offsets {
        assert_eq!(fate(&tidegate, &stage.queue, *offset, "").await?, "durable");
    }

    // Two are read and cannot be written; the others nobody has read when the owner dies.
    stage.mongo.pause()?;
    for n in 2..4 {
        offsets.push(push_numbered(&mut producer, &stage.queue, &logged("a", n)).await?);
    }
    let read = |metrics: &Metrics| {
        ensure!(metrics.sum("tidegate_events_received_total", &[]) == 4.0);
        Ok(())
    };
    tidegate.metrics_when(PATIENCE, "the events to be read", read).await?;
    assert_eq!(fate(&tidegate, &stage.queue, offsets[3], "").await?, "pending");
    assert_eq!(fate(&tidegate, &stage.queue, offsets[3], "?wait=50ms").await?, "pending");
    tidegate.kill9()?;
    for n in 4..7 {
        offsets.push(push_numbered(&mut producer, &stage.queue, &logged("a", n)).await?);
    }
    let tidegate = stage.launch.spawn().await?;
    for offset in &offsets[2..] {
        assert_eq!(fate(&tidegate, &stage.queue, *offset, "").await?, "pending");
    }
    stage.mongo.resume()?;
    // The moment that it is told is the moment that it is true.
    for (n, offset) in offsets.iter().enumerate() {
        try_eventually(PATIENCE, "the event to be durable", async || {
            let state = fate(&tidegate, &stage.queue, *offset, "?wait=2s").await?;
            ensure!(state == "durable", "{state}");
            Ok(())
        })
        .await?;
        let log = stage.document("a").await?.context("the document")?.get_array("log")?.len();
        assert!(log > n, "{log} events are in the document, and event {n} is told to be durable");
    }
    assert_exact(stage.document("a").await?.as_ref(), 7);
    // Their new numbers are other ones, and nobody has these.
    let ahead = offsets[6] + (9 << 36);
    assert_eq!(fate(&tidegate, &stage.queue, ahead, "?wait=2s").await?, "unknown");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_wrongly_is_told_so() -> Outcome {
    let stage = Setting::new().delivery("at-least-once").another_queue("tidegate-popped").stage().await?;
    let tidegate = stage.start().await?;
    let code = async |path: String| anyhow::Ok(tidegate.get_json(&path).await?.0);
    let queue = &stage.queue;
    assert_eq!(code("/durable/nobodys/1".into()).await?, 404);
    for bad in ["x", "-1", "1.5", "99999999999999999999", "0?wait=2", "0?wait=soon"] {
        assert_eq!(code(format!("/durable/{queue}/{bad}")).await?, 400, "{bad}");
    }
    assert_eq!(code(format!("/durable/{queue}/0")).await?, 200);
    Ok(())
}

/// However many wait, scrapes are answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_leave_room_for_others() -> Outcome {
    let mut stage = Setting::new().own_fast_servers().stage().await?;
    let tidegate = stage.start().await?;
    stage.mongo.pause()?;
    let offset = push_numbered(&mut stage.producer().await?, &stage.queue, &logged("a", 0)).await?;
    let path = format!("/durable/{}/{offset}?wait=2s", stage.queue);
    let asked = (0..40).map(|_| tidegate.get_json(&path));
    let asked: Vec<_> = tokio_join_all(asked).await;
    let refused = asked.iter().flatten().filter(|(status, _)| *status == 503).count();
    let pending = asked.iter().flatten().filter(|(_, told)| told["state"] == "pending").count();
    assert_eq!((refused, pending), (8, 32), "{asked:?}");
    stage.mongo.resume()?;
    stage.settled(&tidegate).await?;
    assert_eq!(fate(&tidegate, &stage.queue, offset, "").await?, "durable");
    Ok(())
}

async fn tokio_join_all<F: std::future::Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(cx)
            {
                *output = Some(ready);
            }
        }
        if outputs.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

//! Tests the ways to Redis that a URL can name: sockets, databases, credentials and TLS; and how many connections there are.

use anyhow::ensure;
use tokio::io::AsyncReadExt;

use crate::stage::{PATIENCE, Setting, Stage, assert_exact, logged};
use crate::support::{Metrics, Proxy, Redis, Tidegate, add, documents, free_port, push, try_eventually};

type Outcome = anyhow::Result<()>;

/// Events of each run: more than a window has.
const EVENTS: usize = 5_000;

async fn stage(setting: Setting) -> anyhow::Result<Stage> {
    setting.own_fast_servers().stage().await
}

/// Pushes events to the queue through the URL `producer`, and waits until the daemon has made documents of them.
async fn drains(stage: &Stage, daemon: &Tidegate, producer: &str) -> Outcome {
    let mut producer = redis::Client::open(producer)?.get_multiplexed_async_connection().await?;
    let events = (0..EVENTS).map(|n| logged(&format!("doc{}", n % 7), n / 7));
    if stage.is_stream {
        add(&mut producer, &stage.queue, events).await?;
    } else {
        push(&mut producer, &stage.queue, events).await?;
    }
    let all = |metrics: &Metrics| {
        let persisted = metrics.sum("tidegate_events_persisted_total", &[]);
        ensure!(persisted == EVENTS as f64, "{persisted} events are persisted");
        Ok(())
    };
    daemon.metrics_when(PATIENCE, "all events to be persisted", all).await?;
    let found = documents(&stage.database, "documents").await?;
    assert_eq!(found.len(), 7);
    for n in 0..7 {
        assert_exact(found.get(&format!("doc{n}")), (EVENTS - n).div_ceil(7));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_another_database_and_a_user() -> Outcome {
    for setting in [Setting::new(), Setting::new().stream("")] {
        let stage = stage(setting).await?;
        let mut connection = stage.producer().await?;
        let rights = ["on", ">open sesame", "~*", "&*", "+@all"];
        redis::cmd("ACL").arg(&["SETUSER", "worker"]).arg(&rights).exec_async(&mut connection).await?;
        let socket = stage.redis.socket()?;
        let url = format!("unix://{}?db=3&user=worker&pass=open%20sesame", socket.display());
        let daemon = stage.launch.clone().env("TIDEGATE_REDIS__URL", &url).start().await?;
        drains(&stage, &daemon, &format!("{}3", stage.redis.url())).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_alone() -> Outcome {
    let stage = stage(Setting::new()).await?;
    let mut connection = stage.producer().await?;
    redis::cmd("CONFIG").arg(&["SET", "requirepass", "sesame"]).exec_async(&mut connection).await?;
    let url = stage.redis.url().replace("redis://", "redis://:sesame@");
    let daemon = stage.launch.clone().env("TIDEGATE_REDIS__URL", &url).start().await?;
    drains(&stage, &daemon, &url).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_a_certificate_that_the_system_trusts() -> Outcome {
    for setting in [Setting::new(), Setting::new().stream("")] {
        let stage = stage(setting).await?;
        let port = free_port()?.to_string();
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let file =
            |name: &str| Ok::<_, anyhow::Error>(stage.redis.folder()?.join(name).display().to_string());
        let (certificate, key) = (file("cert.pem")?, file("key.pem")?);
        std::fs::write(&certificate, certified.cert.pem())?;
        std::fs::write(&key, certified.signing_key.serialize_pem())?;
        redis::cmd("CONFIG")
            .arg("SET")
            .arg(&["tls-cert-file", &certificate, "tls-key-file", &key, "tls-ca-cert-file", &certificate])
            .arg(&["tls-auth-clients", "no", "tls-port", &port])
            .exec_async(&mut stage.producer().await?)
            .await?;
        let launch = stage.launch.clone().env("TIDEGATE_REDIS__URL", format!("rediss://localhost:{port}/2"));
        let daemon = launch.clone().env("SSL_CERT_FILE", &certificate).start().await?;
        drains(&stage, &daemon, &format!("{}2", stage.redis.url())).await?;
        daemon.terminate().await?;

        // Whoever is not trusted is not talked to.
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        std::fs::write(&certificate, other.cert.pem())?;
        let mut daemon = launch.env("SSL_CERT_FILE", &certificate).spawn().await?;
        daemon.logged("redis is down", PATIENCE).await?;
        daemon.readiness(503, PATIENCE).await?;
    }
    Ok(())
}

/// Redis closes what is idle, and nothing can be read while MongoDB is away and the buffer is full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_nothing_is_read_through_are_kept() -> Outcome {
    for setting in [Setting::new(), Setting::new().stream("")] {
        let mut stage = stage(setting.with("buffer.max_events = 100\n")).await?;
        let daemon = stage.start().await?;
        stage.push((0..10).map(|n| logged("doc", n))).await?;
        stage.settled(&daemon).await?;
        stage.mongo.pause()?;
        stage.push((10..EVENTS).map(|n| logged("doc", n))).await?;
        let full = |metrics: &Metrics| {
            let buffered = metrics.sum("tidegate_buffer_events", &[]);
            ensure!(buffered >= 100.0, "{buffered} are buffered");
            Ok(())
        };
        daemon.metrics_when(PATIENCE, "the buffer to be full", full).await?;

        // One that is idle from now on tells when the others would have been closed.
        let mut idle = tokio::net::TcpStream::connect(stage.redis.address()?).await?;
        redis::cmd("CONFIG").arg(&["SET", "timeout", "2"]).exec_async(&mut stage.producer().await?).await?;
        let mut byte = [0];
        assert_eq!(tokio::time::timeout(PATIENCE, idle.read(&mut byte)).await??, 0);

        stage.mongo.resume()?;
        let metrics = stage.settled(&daemon).await?;
        assert_eq!(metrics.sum("tidegate_takeovers_total", &[]), 1.0);
        assert_exact(stage.document("doc").await?.as_ref(), EVENTS);
    }
    Ok(())
}

/// What Redis says of itself, by name.
async fn told(connection: &mut redis::aio::MultiplexedConnection, name: &str) -> anyhow::Result<u64> {
    let info: String = redis::cmd("INFO").query_async(connection).await?;
    let found = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(found.unwrap_or_default().trim().parse()?)
}

/// A queue that is idle has no connection of its own: one waits for all of them, and one does the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_queues_need_few_connections() -> Outcome {
    for kind in ["list", "stream"] {
        let queues = format!("[[queues]]\nkey = \"many:{{0..63}}\"\nkind = \"{kind}\"\n");
        let stage = stage(Setting::new().with(&queues)).await?;
        let daemon = stage.launch.clone().start().await?;
        let owned = |metrics: &Metrics| {
            let held = metrics.sum("tidegate_lease_held", &[]);
            ensure!(held == 65.0, "{held} queues are owned");
            Ok(())
        };
        daemon.metrics_when(PATIENCE, "all queues to be owned", owned).await?;
        let mut producer = stage.producer().await?;
        // A stream's reader looks for entries as soon as it owns the stream.
        let most = if kind == "list" { 8 } else { 8 + 64 };
        try_eventually(PATIENCE, "few connections", async || {
            let clients = told(&mut producer.clone(), "connected_clients").await?;
            ensure!(clients <= most, "{clients} connections");
            Ok(())
        })
        .await?;
        for n in 0..64 {
            let (queue, event) = (format!("many:{n}"), logged(&format!("doc{n}"), 0));
            if kind == "list" {
                push(&mut producer, &queue, [event]).await?;
            } else {
                add(&mut producer, &queue, [event]).await?;
            }
        }
        try_eventually(PATIENCE, "a document of each queue", async || {
            let found = documents(&stage.database, "documents").await?;
            ensure!(found.len() == 64, "{} documents", found.len());
            Ok(())
        })
        .await?;
        let metrics = daemon.metrics().await?;
        assert_eq!(metrics.sum("tidegate_takeovers_total", &[]), 65.0);
        assert!(told(&mut producer, "blocked_clients").await? == 0, "nobody blocks");
    }
    Ok(())
}

/// One that is opened later may lead elsewhere: to a copy, that was promoted behind the same address. Numbers mean nothing
/// there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_opened_later_leads_to_the_same_server() -> Outcome {
    let stage = stage(Setting::new()).await?;
    let copy = Redis::start().await?;
    let (mut first, mut second) = (stage.producer().await?, copy.connect().await?);
    redis::cmd("CONFIG").arg(&["SET", "repl-diskless-sync-delay", "0"]).exec_async(&mut first).await?;
    let place = stage.redis.address()?;
    let of = (place.ip().to_string(), place.port());
    redis::cmd("REPLICAOF").arg(of.0).arg(of.1).exec_async(&mut second).await?;

    let proxy = Proxy::start(place).await?;
    let url = format!("redis://{}", proxy.address());
    let mut daemon = stage.start_as(&stage.launch.clone().env("TIDEGATE_REDIS__URL", url)).await?;
    let base = format!("tidegate:{{{}}}:base", stage.queue);
    try_eventually(PATIENCE, "the copy to have the owner's numbers", async || {
        let of = async |connection: &redis::aio::MultiplexedConnection| {
            redis::cmd("GET").arg(&base).query_async::<Option<String>>(&mut connection.clone()).await
        };
        let (is, should) = (of(&second).await?, of(&first).await?);
        ensure!(is.is_some() && is == should, "{is:?} for {should:?}");
        Ok(())
    })
    .await?;
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec_async(&mut second).await?;
    proxy.retarget(copy.address()?);

    stage.push([logged("doc", 7)]).await?;
    daemon.logged("another server answers", PATIENCE).await?;
    push(&mut second, &stage.queue, [logged("doc", 0)]).await?;
    try_eventually(PATIENCE, "the copy's event to be applied", async || {
        ensure!(stage.document("doc").await?.is_some(), "it is not");
        Ok(())
    })
    .await?;
    assert_exact(stage.document("doc").await?.as_ref(), 1);
    Ok(())
}

/// Redis does not answer when it is asked to tell of changes, or the user may not ask: then each queue waits by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_tells_nothing_is_waited_for_in_another_way() -> Outcome {
    for setting in [Setting::new(), Setting::new().stream("")] {
        let stage = stage(setting.with("redis.timeout = \"1s\"\n")).await?;
        let proxy = Proxy::start(stage.redis.address()?).await?;
        proxy.hold_connections_with("TRACKING");
        let url = format!("redis://{}", proxy.address());
        let daemon = stage.start_as(&stage.launch.clone().env("TIDEGATE_REDIS__URL", url)).await?;
        let producer = stage.producer().await?;
        try_eventually(PATIENCE, "the queue to be waited for", async || {
            ensure!(told(&mut producer.clone(), "blocked_clients").await? == 1, "nobody blocks");
            Ok(())
        })
        .await?;
        stage.push([logged("doc", 0)]).await?;
        stage.settled(&daemon).await?;
        assert_exact(stage.document("doc").await?.as_ref(), 1);
    }
    Ok(())
}

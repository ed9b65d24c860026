//! Tests `examples/collab`: people with real browsers, the gateway, and tidegate with the example's configuration.

#[path = "../../examples/collab/gateway/mod.rs"]
mod gateway;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use bson::Document;
use redis::AsyncCommands;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use self::gateway::Servers;
use crate::stage::{PATIENCE, number};
use crate::support::{
    Browser, Durability, Launch, Mongo, Redis, Tab, Tidegate, document, free_port, try_eventually,
};

type Outcome = anyhow::Result<()>;

const DATABASE: &str = "collab";
const CONFIG: &str = include_str!("../../examples/collab/config.toml");

/// All that is between two browsers and a document.
struct World {
    gateway: Option<Runtime>,
    address: SocketAddr,
    tidegate: Option<Tidegate>,
    launch: Launch,
    redis: Redis,
    mongo: Mongo,
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        Self::start_with(CONFIG).await
    }

    async fn start_with(config: &str) -> anyhow::Result<Self> {
        let redis = Redis::start().await?;
        let mongo = Mongo::start_with(Durability::Synced).await?;
        let launch = Launch::config(config.to_owned()).redis(&redis).mongodb(&mongo, DATABASE);
        let tidegate = Some(launch.start().await?);
        let address = (Ipv4Addr::LOCALHOST, free_port()?).into();
        let mut world = Self { gateway: None, address, tidegate, launch, redis, mongo };
        world.start_gateway().await?;
        Ok(world)
    }

    /// On a runtime of its own, so that all of it can end at once.
    async fn start_gateway(&mut self) -> Outcome {
        let bind = async || TcpListener::bind(self.address).await;
        let listener =
            try_eventually(PATIENCE, "the gateway's address to be free", bind).await?.into_std()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (redis, mongodb) = (self.redis.url().to_owned(), self.mongo.uri().to_owned());
        let servers = Servers { redis, mongodb, database: DATABASE.to_owned() };
        runtime.spawn(async move {
            let served = gateway::serve(TcpListener::from_std(listener).expect("a listener"), servers).await;
            panic!("the gateway has ended: {served:?}");
        });
        self.gateway = Some(runtime);
        Ok(())
    }

    fn stop_gateway(&mut self) {
        if let Some(runtime) = self.gateway.take() {
            runtime.shutdown_background();
        }
    }

    /// No page is open in the new one before a browser is back.
    async fn restart_gateway(&mut self, tab: &Tab) -> Outcome {
        self.stop_gateway();
        marked(tab, "not connected").await?;
        self.start_gateway().await?;
        marked(tab, "saved").await
    }

    async fn open(&self, browser: &Browser) -> anyhow::Result<Tab> {
        let tab = browser.open(&format!("http://{}/?page=tides", self.address), 800, 600).await?;
        tab.has_focus().await?;
        Ok(tab)
    }

    async fn stored(&self) -> anyhow::Result<Document> {
        let database = self.mongo.database(DATABASE).await?;
        document(&database, "pages", "tides").await?.context("the page is not in MongoDB")
    }

    /// Asserts that MongoDB has these paragraphs, and that every edit was applied.
    async fn assert_stored(&self, expected: &[&str]) -> Outcome {
        let stored = self.stored().await?;
        let texts: Vec<_> =
            stored.get_document("paragraphs")?.values().filter_map(|text| text.as_str()).collect();
        let (mut texts, mut expected) = (texts, expected.to_vec());
        // A document's fields are in no order that matters.
        texts.sort_unstable();
        expected.sort_unstable();
        assert_eq!(texts, expected);
        let field = |name| number(stored.get(name).expect(name));
        let pushed: i64 = self.redis.connect().await?.get("collab:number:tides").await?;
        assert_eq!((field("edits"), field("lastEdit")), (pushed, pushed));
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop_gateway();
    }
}

/// Waits until an element's text is as `check` wants it.
async fn shows(tab: &Tab, selector: &str, check: impl Fn(&str) -> bool) -> anyhow::Result<String> {
    try_eventually(PATIENCE, &format!("{selector} to show what it should"), async || {
        let text = tab.text(selector).await?;
        ensure!(check(&text), "{text:?}, and {:?}", tab.text("#mark").await?);
        anyhow::Ok(text)
    })
    .await
}

async fn marked(tab: &Tab, mark: &str) -> Outcome {
    shows(tab, "#mark-text", |text| text == mark).await.map(drop)
}

/// Waits until a browser shows these paragraphs.
async fn reads(tab: &Tab, expected: &[&str]) -> Outcome {
    try_eventually(PATIENCE, "the paragraphs", async || {
        let areas = "[...document.querySelectorAll('#text textarea')].map((area) => area.value)";
        let shown = tab.evaluate(areas).await?;
        ensure!(shown == json!(expected), "{shown}, and {:?}", tab.text("#mark").await?);
        anyhow::Ok(())
    })
    .await
}

/// Puts the cursor at the end of a paragraph.
async fn turn_to(tab: &Tab, paragraph: usize) -> Outcome {
    let focus = format!(
        "{{ const area = document.querySelectorAll('#text textarea')[{paragraph}]; area.focus();
            area.setSelectionRange(area.value.length, area.value.length); }}"
    );
    tab.evaluate(&focus).await.map(drop)
}

/// Key by key, as people do.
async fn types(tab: &Tab, text: &str) -> Outcome {
    for key in text.chars() {
        tab.write(&key.to_string()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_types_the_other_sees_and_both_see_that_it_is_saved() -> Outcome {
    let world = World::start().await?;
    let browser = Browser::start().await?;
    let (ann, ben) = (world.open(&browser).await?, world.open(&browser).await?);
    for tab in [&ann, &ben] {
        shows(tab, "#people", |text| text == "2 windows have it open").await?;
        reads(tab, &[""]).await?;
    }

    turn_to(&ann, 0).await?;
    types(&ann, "The tide comes in").await?;
    reads(&ben, &["The tide comes in"]).await?;
    for tab in [&ann, &ben] {
        marked(tab, "saved").await?;
        // Known from the receipt alone.
        shows(tab, "#mark-more", |text| text.contains("in MongoDB after")).await?;
    }
    world.assert_stored(&["The tide comes in"]).await?;

    // Both at once, in different paragraphs.
    turn_to(&ben, 0).await?;
    ben.press("Enter").await?;
    reads(&ann, &["The tide comes in", ""]).await?;
    let (a, b) = tokio::join!(types(&ann, ", they say, slowly"), types(&ben, "Größe 🌊 <b>.$x"));
    a.and(b)?;
    let both = ["The tide comes in, they say, slowly", "Größe 🌊 <b>.$x"];
    for tab in [&ann, &ben] {
        reads(tab, &both).await?;
        marked(tab, "saved").await?;
    }
    world.assert_stored(&both).await?;

    // And both in the same one: somebody wins, and it is the same for all.
    turn_to(&ann, 1).await?;
    let (a, b) = tokio::join!(types(&ann, "aaaaaaaaaaaa"), types(&ben, "bbbbbbbbbbbb"));
    a.and(b)?;
    for tab in [&ann, &ben] {
        marked(tab, "saved").await?;
    }
    let won = ann.evaluate("document.querySelectorAll('#text textarea')[1].value").await?;
    let won = [both[0], won.as_str().context("a text")?];
    reads(&ben, &won).await?;
    world.assert_stored(&won).await?;

    // Emptied and removed; who comes later sees it as it is.
    ann.evaluate("{ const area = document.activeElement; area.select(); }").await?;
    ann.press("Backspace").await?;
    reads(&ben, &[both[0], ""]).await?;
    ann.press("Backspace").await?;
    reads(&ben, &both[..1]).await?;
    marked(&ann, "saved").await?;
    let cat = world.open(&browser).await?;
    reads(&cat, &both[..1]).await?;
    marked(&cat, "saved").await?;
    world.assert_stored(&both[..1]).await?;
    for tab in [ann, ben, cat] {
        assert_eq!(tab.complaints(), [""; 0]);
    }
    Ok(())
}

/// What was typed may wait for an hour: only leaving can have saved it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_typed_is_saved_when_the_last_one_leaves() -> Outcome {
    let config = CONFIG.replace("max_delay = \"2s\"", "max_delay = \"1h\"");
    ensure!(config != CONFIG);
    let world = World::start_with(&config).await?;
    let browser = Browser::start().await?;
    let (ann, ben) = (world.open(&browser).await?, world.open(&browser).await?);
    reads(&ann, &[""]).await?;
    turn_to(&ann, 0).await?;
    types(&ann, "The tide").await?;
    reads(&ben, &["The tide"]).await?;
    ann.evaluate("location.href = 'about:blank'").await?;
    shows(&ben, "#people", |text| text == "nobody else is here").await?;
    marked(&ben, "saving…").await?;
    ensure!(world.stored().await.is_err(), "who is left can wait");
    ben.evaluate("location.href = 'about:blank'").await?;
    try_eventually(PATIENCE, "the page to be saved", async || world.stored().await).await?;
    world.assert_stored(&["The tide"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn editing_goes_on_without_mongodb_and_nobody_is_told_that_it_is_saved() -> Outcome {
    let mut world = World::start().await?;
    let browser = Browser::start().await?;
    let (ann, ben) = (world.open(&browser).await?, world.open(&browser).await?);
    reads(&ann, &[""]).await?;
    turn_to(&ann, 0).await?;
    types(&ann, "before").await?;
    marked(&ann, "saved").await?;
    reads(&ben, &["before"]).await?;

    world.mongo.kill()?;
    types(&ann, " and meanwhile").await?;
    reads(&ben, &["before and meanwhile"]).await?;
    let level = "document.getElementById('mark').dataset.level";
    for tab in [&ann, &ben] {
        shows(tab, "#mark", |text| text.contains("saving…") && text.contains("safe in Redis")).await?;
    }
    try_eventually(PATIENCE, "the mark to say that it lasts", async || {
        let level = ann.evaluate(level).await?;
        ensure!(level == "late", "{level}");
        anyhow::Ok(())
    })
    .await?;
    // Who comes in now gets it from the gateway.
    let cat = world.open(&browser).await?;
    reads(&cat, &["before and meanwhile"]).await?;
    for tab in [&ann, &ben, &cat] {
        marked(tab, "saving…").await?;
    }

    world.mongo.restart().await?;
    for tab in [&ann, &ben, &cat] {
        marked(tab, "saved").await?;
    }
    world.assert_stored(&["before and meanwhile"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_gateway_nor_redis_nor_tidegate_takes_what_was_typed_along() -> Outcome {
    let mut world = World::start().await?;
    let browser = Browser::start().await?;
    let (ann, ben) = (world.open(&browser).await?, world.open(&browser).await?);
    reads(&ann, &[""]).await?;
    turn_to(&ann, 0).await?;
    types(&ann, "one").await?;
    marked(&ann, "saved").await?;

    // Kept by the browser while there is no gateway.
    world.stop_gateway();
    marked(&ann, "not connected").await?;
    types(&ann, " two").await?;
    shows(&ann, "#mark-more", |text| text.contains("one paragraph is only in this window")).await?;
    world.start_gateway().await?;
    marked(&ann, "saved").await?;
    reads(&ben, &["one two"]).await?;

    // The same without Redis.
    world.redis.kill()?;
    marked(&ann, "not connected").await?;
    types(&ann, " three").await?;
    world.redis.restart().await?;
    marked(&ann, "saved").await?;
    reads(&ben, &["one two three"]).await?;

    // And what was pushed but is not in MongoDB yet is not shown as it was before to those who come now.
    world.tidegate.take().context("it runs")?.kill9()?;
    types(&ann, " four").await?;
    reads(&ben, &["one two three four"]).await?;
    marked(&ben, "saving…").await?;
    world.stop_gateway();
    marked(&ann, "not connected").await?;
    world.start_gateway().await?;
    let cat = world.open(&browser).await?;
    shows(&cat, "#mark", |text| text.contains("its latest edits are on their way to MongoDB")).await?;
    assert_eq!(cat.evaluate("document.querySelectorAll('#text textarea').length").await?, 0);
    world.tidegate = Some(world.launch.start().await?);
    for tab in [&ann, &ben, &cat] {
        reads(tab, &["one two three four"]).await?;
        marked(tab, "saved").await?;
    }
    world.assert_stored(&["one two three four"]).await
}

/// What was loaded once is in Redis, and what is written to it since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_was_open_lately_opens_without_mongodb() -> Outcome {
    let mut world = World::start().await?;
    let browser = Browser::start().await?;
    let ann = world.open(&browser).await?;
    reads(&ann, &[""]).await?;
    turn_to(&ann, 0).await?;
    types(&ann, "one").await?;
    marked(&ann, "saved").await?;
    world.restart_gateway(&ann).await?;
    types(&ann, " two").await?;
    ann.press("Enter").await?;
    types(&ann, "Größe \"🌊\"").await?;
    marked(&ann, "saved").await?;

    world.mongo.kill()?;
    world.restart_gateway(&ann).await?;
    let ben = world.open(&browser).await?;
    reads(&ben, &["one two", "Größe \"🌊\""]).await?;
    marked(&ben, "saved").await?;
    // And on it goes.
    types(&ann, " three").await?;
    reads(&ben, &["one two", "Größe \"🌊\" three"]).await?;
    marked(&ben, "saving…").await?;
    world.mongo.restart().await?;
    for tab in [&ann, &ben] {
        marked(tab, "saved").await?;
    }
    world.assert_stored(&["one two", "Größe \"🌊\" three"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_that_is_refused_is_told_and_not_forgotten() -> Outcome {
    let world = World::start().await?;
    let browser = Browser::start().await?;
    let ann = world.open(&browser).await?;
    reads(&ann, &[""]).await?;
    // As if the gateway had pushed something that cannot be written.
    let mut redis = world.redis.connect().await?;
    let () = redis.set("collab:number:tides", 1).await?;
    let event = json!({ "type": "EDIT", "page": "tides", "number": 1, "by": "c", "own": 1, "changes": 7 });
    let () = redis.rpush("pageEdits", event.to_string()).await?;
    shows(&ann, "#refused", |text| text.starts_with("An edit was refused and is not saved: ")).await?;

    turn_to(&ann, 0).await?;
    types(&ann, "x").await?;
    marked(&ann, "saved in part").await?;
    shows(&ann, "#mark-more", |text| text == "1 of 2 edits were refused").await?;
    let ben = world.open(&browser).await?;
    marked(&ben, "saved in part").await
}

/// Opens a socket from the page, says something, and answers how the gateway ended it: the code and the reason.
const HOSTILE: &str = "(said, page) => new Promise((resolve) => {
  const socket = new WebSocket(`ws://${location.host}/socket/${page}`);
  socket.onmessage = (event) => { if (JSON.parse(event.data).type === 'page') socket.send(said); };
  socket.onclose = (event) => resolve(`${event.code} ${event.reason}`);
})";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_client_sends_only_its_own_socket_ends() -> Outcome {
    let world = World::start().await?;
    let browser = Browser::start().await?;
    let ann = world.open(&browser).await?;
    reads(&ann, &[""]).await?;
    let long = json!({ "paragraph": "m", "text": "x".repeat(9000), "own": 1 }).to_string();
    for (said, ending) in [
        (json!("nonsense"), "1013 that is no edit"),
        (json!(r#"{"paragraph":"a.$b","text":"x","own":1}"#), "1013 that is no key of a paragraph"),
        (json!(r#"{"paragraph":"m","text":{"$ne":1},"own":1}"#), "1013 that is no edit"),
        (json!(long), "1013 that paragraph is too long"),
        (json!("[".repeat(40_000)), "1013 that is no edit"),
    ] {
        let ended = ann.evaluate(&format!("({HOSTILE})({said}, 'tides')")).await?;
        assert_eq!(ended, ending);
    }
    // Too long to be read at all; whether the browser still hears of it depends on how much it has sent by then.
    let ended = ann.evaluate(&format!("({HOSTILE})('x'.repeat(1 << 20), 'tides')")).await?;
    assert!(ended == "1013 " || ended == "1006 ", "{ended}");
    let binary = ann.evaluate(&format!("({HOSTILE})(new Uint8Array([0, 255]), 'tides')")).await?;
    assert_eq!(binary, "1008 that is no edit");

    for (path, origin, status) in [
        ("/socket/tides", "http://elsewhere.example", "403"),
        ("/socket/tides", "null", "403"),
        ("/socket/a.$b", &*format!("http://{}", world.address), "404"),
        ("/socket/tides", &*format!("http://{}", world.address), "101"),
    ] {
        assert_eq!(handshake(world.address, path, origin).await?, status, "{path} {origin}");
    }
    turn_to(&ann, 0).await?;
    types(&ann, "all is well").await?;
    marked(&ann, "saved").await?;
    world.assert_stored(&["all is well"]).await
}

/// The status with which a socket is opened, or not.
async fn handshake(address: SocketAddr, path: &str, origin: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let asked = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nOrigin: {origin}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(asked.as_bytes()).await?;
    let mut head = [0; 12];
    tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut head)).await??;
    Ok(String::from_utf8_lossy(&head[9..]).into_owned())
}

/// A picture of the page, for the README.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "checks nothing: `make screenshots`"]
async fn screenshots() -> Outcome {
    let folder = std::env::var_os("SCREENSHOTS").context("SCREENSHOTS must name a folder")?;
    std::fs::create_dir_all(&folder)?;
    let world = World::start().await?;
    let browser = Browser::start().await?;
    let (ann, ben) = (world.open(&browser).await?, world.open(&browser).await?);
    reads(&ann, &[""]).await?;
    turn_to(&ann, 0).await?;
    types(&ann, "The tide comes in slowly, and the boats lift from the mud.").await?;
    ann.press("Enter").await?;
    reads(&ben, &["The tide comes in slowly, and the boats lift from the mud.", ""]).await?;
    turn_to(&ben, 1).await?;
    types(&ben, "The keeper counts each gate twice, before night falls.").await?;
    for tab in [&ann, &ben] {
        marked(tab, "saved").await?;
    }
    // For the colour of what was just typed to fade.
    tokio::time::sleep(Duration::from_secs(2)).await;
    ann.resize(800, 440, 1.5).await?;
    ann.screenshot(&Path::new(&folder).join("collab.png")).await
}

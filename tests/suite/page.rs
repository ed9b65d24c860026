//! Tests the status page, in a real browser.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;

use crate::stage::{PATIENCE, Setting, logged, update};
use crate::support::{Browser, Tab, Tidegate, dead_letters, try_eventually};

type Outcome = anyhow::Result<()>;

/// Waits until what an element shows satisfies `check`, and returns it.
async fn shows(
    tab: &Tab,
    selector: &str,
    what: &str,
    check: impl Fn(&str) -> bool,
) -> anyhow::Result<String> {
    try_eventually(PATIENCE, &format!("{selector} to show {what}"), async || {
        let text = tab.text(selector).await?;
        ensure!(check(&text), "{text:?}");
        anyhow::Ok(text)
    })
    .await
}

async fn open(browser: &Browser, tidegate: &Tidegate) -> anyhow::Result<Tab> {
    browser.open(&format!("http://{}/", tidegate.address()), 1280, 900).await
}

fn assert_no_complaints(tab: &Tab) {
    let complaints = tab.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// The first number in a text such as `1,204 in`.
fn leading(text: &str) -> f64 {
    let number: String = text.chars().take_while(|c| c.is_ascii_digit() || ".,".contains(*c)).collect();
    number.replace(',', "").parse().unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_move_under_load() -> Outcome {
    let stage = Setting::new().stage().await?;
    let tidegate = stage.start().await?;
    let browser = Browser::start().await?;
    let tab = open(&browser, &tidegate).await?;
    shows(&tab, "h1", "that all is well", |text| text == "Everything is durable, and nothing waits.").await?;
    shows(&tab, "#queues .key", "the queue", |text| text == stage.queue).await?;
    shows(&tab, "#queues", "its owner", |text| {
        text.contains("owned by this instance") && text.contains("exactly-once, epoch")
    })
    .await?;
    let flow = "document.querySelector('.chart .line.out').getAttribute('d')";
    let still = tab.evaluate(flow).await?;

    let mut pushed = 0;
    try_eventually(PATIENCE, "rates and folding", async || {
        // Load for as long as is looked at.
        stage.push((pushed..pushed + 300).map(|n| logged(&format!("doc{}", n % 10), n / 10))).await?;
        pushed += 300;
        let (into, out) = (tab.text(".figure.in").await?, tab.text(".figure.out").await?);
        ensure!(leading(&into) > 10.0 && leading(&out) > 10.0, "{into}, {out}");
        let folding = tab.text("[data-label=Folding]").await?;
        ensure!(leading(&folding) > 1.0, "{folding}");
        let headline = tab.text("h1").await?;
        ensure!(headline.starts_with("Everything is durable within "), "{headline}");
        // A line takes two looks at the figures.
        let moved = tab.evaluate(flow).await?;
        let is_line = moved.as_str().is_some_and(|path| path.contains('L'));
        ensure!(is_line && moved != still, "{still} {moved}");
        anyhow::Ok(())
    })
    .await?;
    let advice = tab.text("#state-advice").await?;
    assert!(advice.contains("events arrive a second") && advice.contains("nothing to do"), "{advice}");
    shows(&tab, "[data-label='Last commit']", "a commit", |text| {
        text.contains("now") || text.contains("ago")
    })
    .await?;

    stage.settled(&tidegate).await?;
    shows(&tab, ".waiting .figure", "an empty queue", |text| text == "0").await?;
    shows(&tab, "[data-label=Lanes]", "idle lanes", |text| text.contains("4 idle")).await?;
    shows(&tab, "h1", "that nothing waits", |text| text.ends_with("nothing waits.")).await?;
    assert_no_complaints(&tab);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_mongodb_is_told_in_words_and_goes_away() -> Outcome {
    let mut stage = Setting::new().own_servers().stage().await?;
    let tidegate = stage.start().await?;
    let browser = Browser::start().await?;
    let tab = open(&browser, &tidegate).await?;
    stage.push((0..100).map(|n| logged("doc", n))).await?;
    shows(&tab, "h1", "that all is well", |text| text.starts_with("Everything is durable")).await?;

    stage.mongo.kill()?;
    stage.push((100..1334).map(|n| logged("doc", n))).await?;
    let told = "1,234 events wait in Redis, nothing is lost.";
    let headline = shows(&tab, "h1", told, |text| text.contains(told)).await?;
    assert!(headline.starts_with("MongoDB has been down for "), "{headline}");
    shows(&tab, "#state-error", "the error", |text| text.contains("The error: ")).await?;
    shows(&tab, "#mongodb", "the outage", |text| text.contains("down for")).await?;
    shows(&tab, "[data-label=Lanes]", "a retry", |text| text.contains("retrying MongoDB for")).await?;
    shows(&tab, ".waiting", "an age", |text| text.contains("oldest")).await?;
    assert_eq!(tab.evaluate("document.getElementById('state').dataset.level").await?, "bad");
    // Said once, without the seconds that go by.
    let said = tab.text("#announce").await?;
    assert!(said.starts_with("MongoDB has been down for "), "{said}");
    assert!(tab.evaluate("document.title").await?.as_str().is_some_and(|t| t.starts_with("mongodb down")));

    stage.mongo.restart().await?;
    stage.settled(&tidegate).await?;
    shows(&tab, "h1", "that all is well again", |text| text.starts_with("Everything is durable")).await?;
    shows(&tab, "#mongodb", "the past outage", |text| {
        text.contains("up for") && text.contains("last outage")
    })
    .await?;
    assert_no_complaints(&tab);
    Ok(())
}

/// An event with a secret, and with markup where a reason quotes it.
fn malicious(id: &str) -> String {
    let key = "<img src=x onerror=document.title='pwned'>";
    json!({ "collection": "documents", "id": id, "note": "s3cret", key: 1 }).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_shown_with_reason_and_without_payload() -> Outcome {
    let stage = Setting::new().stage().await?;
    let tidegate = stage.start().await?;
    let browser = Browser::start().await?;
    let tab = open(&browser, &tidegate).await?;
    shows(&tab, "#letters-none", "that there are none", |text| text == "None.").await?;

    let good = update("doc", json!({ "$set": { "text": "s3cret" } }));
    let misfit = update("doc", json!({ "$inc": { "text": 1 } }));
    let key = json!({ "collection": "documents", "id": "d", "merge": { "<b>.x": "s3cret" } }).to_string();
    stage.push([good, "s3cret".to_owned(), malicious("doc"), misfit, key]).await?;
    stage.settled(&tidegate).await?;
    assert_eq!(dead_letters(&mut stage.producer().await?, &stage.queue).await?.len(), 4);
    let rows = "[...document.querySelectorAll('#letters tbody tr')].length";
    try_eventually(PATIENCE, "four letters", async || {
        let shown = tab.evaluate(rows).await?;
        ensure!(shown == 4, "{shown}");
        anyhow::Ok(())
    })
    .await?;
    let letters = tab.text("#letters").await?;
    for reason in [
        "the event is not JSON",
        "does not fit the field it meets",
        "type-mismatch, code 14",
        "contains \".\", which would make it a path",
        "<b>",
    ] {
        assert!(letters.contains(reason), "{reason}: {letters}");
    }
    shows(&tab, "h1", "the dead letters", |text| {
        text.contains("4 dead letters") && !text.contains("Everything is durable")
    })
    .await?;
    shows(&tab, "#letters-groups", "what is wrong", |text| text.contains("1 × type-mismatch")).await?;
    shows(&tab, "#letters-where", "where they are", |text| {
        text.contains(&format!("{}:dead holds 4", stage.queue)) && text.contains("tidegate dead list")
    })
    .await?;
    let whole = tab.evaluate("document.documentElement.outerHTML").await?;
    assert!(!whole.to_string().contains("s3cret"), "{whole}");
    let (_, status) = tidegate.get("/status?since=0").await?;
    assert!(!status.contains("s3cret"), "{status}");
    assert_eq!(tab.evaluate("document.querySelector('#letters img, #letters b')").await?, json!(null));
    assert_no_complaints(&tab);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_are_shown_as_text_where_they_are_asked_for() -> Outcome {
    let stage = Setting::new().with("http.show_payloads = true\n").stage().await?;
    let tidegate = stage.start().await?;
    stage.push([malicious("doc")]).await?;
    stage.settled(&tidegate).await?;
    let browser = Browser::start().await?;
    let tab = open(&browser, &tidegate).await?;
    shows(&tab, "#letters pre", "the event", |text| text.contains("s3cret") && text.contains("<img src=x"))
        .await?;
    assert_eq!(tab.evaluate("document.querySelector('#letters img')").await?, json!(null));
    assert_no_complaints(&tab);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_gone_is_noticed_and_so_is_its_return() -> Outcome {
    let stage = Setting::new().stage().await?;
    let tidegate = stage.start().await?;
    let address = tidegate.address();
    let browser = Browser::start().await?;
    let tab = open(&browser, &tidegate).await?;
    shows(&tab, "h1", "that all is well", |text| text.starts_with("Everything is durable")).await?;

    tidegate.kill9()?;
    let lost = "The connection to tidegate has been lost for ";
    shows(&tab, "h1", lost, |text| text.starts_with(lost)).await?;
    shows(&tab, "#state-advice", "how old all is", |text| text.contains("What is below was said at "))
        .await?;
    shows(&tab, "#announce", lost, |text| text.starts_with(lost)).await?;

    let launch = stage.launch.clone().env("TIDEGATE_HTTP__LISTEN", address.to_string());
    let tidegate = launch.start().await?;
    stage.push((0..10).map(|n| logged("doc", n))).await?;
    stage.settled(&tidegate).await?;
    shows(&tab, "h1", "that all is well again", |text| text.starts_with("Everything is durable")).await?;
    // Each question that found nobody is a complaint of the browser's; the page must not add to them.
    let thrown: Vec<_> = tab.complaints().into_iter().filter(|c| !c.contains("ERR_CONNECTION")).collect();
    assert!(thrown.is_empty(), "{thrown:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phone_shows_all_of_it_and_a_keyboard_reaches_it() -> Outcome {
    let stage = Setting::new().another_queue(&"long".repeat(40)).stage().await?;
    let tidegate = stage.start().await?;
    let unbroken = "k".repeat(300);
    let key = json!({ "collection": "documents", "id": "d", "merge": { format!("{unbroken}.x"): 1 } });
    stage.push([key.to_string()]).await?;
    stage.settled(&tidegate).await?;
    let browser = Browser::start().await?;
    let tab = open(&browser, &tidegate).await?;
    shows(&tab, "#letters tbody", "the letter", |text| text.contains("kkk")).await?;
    for width in [320, 360, 600, 900, 961, 1280] {
        tab.resize(width, 780, 1.0).await?;
        for scheme in ["light", "dark"] {
            tab.colours(scheme).await?;
            let wide = tab.evaluate("document.documentElement.scrollWidth").await?;
            assert_eq!(wide, width, "the page is wider than the {width} pixels of the window");
        }
    }
    tab.resize(360, 780, 1.0).await?;
    let cells =
        "[...document.querySelectorAll('#queues tbody td')].every(cell => cell.innerText.trim() !== '')";
    assert_eq!(tab.evaluate(cells).await?, true);

    let focus = "document.activeElement.tagName";
    try_eventually(PATIENCE, "the focus on the configuration", async || {
        tab.press("Tab").await?;
        let at = tab.evaluate(focus).await?;
        ensure!(at == "SUMMARY", "{at}");
        anyhow::Ok(())
    })
    .await?;
    tab.press("Enter").await?;
    shows(&tab, "#config pre", "the configuration", |text| text.contains("show_payloads = false")).await?;
    let wide = tab.evaluate("document.documentElement.scrollWidth").await?;
    assert_eq!(wide, 360);
    assert_no_complaints(&tab);
    Ok(())
}

/// Elements whose text stands out too little from what is behind it: less than 4.5 to 1.
const FAINT: &str = r#"
(() => {
  const dot = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const colour = (css) => {
    dot.clearRect(0, 0, 1, 1);
    dot.fillStyle = css;
    dot.fillRect(0, 0, 1, 1);
    return [...dot.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = colour(getComputedStyle(at).backgroundColor);
      if (found[3] === 255) return found;
    }
    throw new Error("nothing opaque is behind it");
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim() !== "");
    if (!own || element.closest("noscript") || !element.checkVisibility()) continue;
    const two = [light(colour(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => a - b);
    const contrast = (two[1] + 0.05) / (two[0] + 0.05);
    if (contrast < 4.5) faint.push(`${element.tagName}.${element.className} ${contrast.toFixed(2)}: ${element.textContent}`);
  }
  return faint;
})()"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_text_can_be_read_in_light_and_dark() -> Outcome {
    let stage = Setting::new().stage().await?;
    let tidegate = stage.start().await?;
    stage.push(["no event"]).await?;
    stage.settled(&tidegate).await?;
    let browser = Browser::start().await?;
    let tab = open(&browser, &tidegate).await?;
    shows(&tab, "#letters tbody", "the letter", |text| text.contains("not JSON")).await?;
    // As an outage would have it; the next answer takes it back.
    let worst = "document.querySelectorAll('.card').forEach(card => { card.dataset.state = 'down' });
                 document.querySelectorAll('.more').forEach(more => more.classList.toggle('late'));";
    for scheme in ["light", "dark"] {
        tab.colours(scheme).await?;
        for level in ["ok", "notice", "warning", "bad", "lost"] {
            let set = format!("document.getElementById('state').dataset.level = '{level}'; {worst} {FAINT}");
            let faint = tab.evaluate(&set).await?;
            assert_eq!(faint, json!([]), "{scheme}, {level}");
        }
    }
    Ok(())
}

/// Pictures of the page, for the README and for whoever changes it: `make screenshots`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes two and a half minutes and checks nothing: `make screenshots`"]
async fn screenshots() -> Outcome {
    let folder = std::env::var_os("SCREENSHOTS").context("SCREENSHOTS must name a folder")?;
    let folder = std::path::PathBuf::from(folder);
    std::fs::create_dir_all(&folder)?;
    let mut stage =
        Setting::new().own_fast_servers().named("collabQueue").another_queue("presenceQueue").stage().await?;
    stage.launch = stage.launch.env("TIDEGATE_HTTP__LISTEN", "127.0.0.1:9464");
    let tidegate = stage.start().await?;
    let browser = Browser::start().await?;
    let tab = open(&browser, &tidegate).await?;
    let bad = [
        json!({ "collection": "documents", "id": { "a": 1 }, "delete": true }),
        json!({ "collection": "users", "id": "u17", "merge": { "name": "Ann" } }),
        json!({ "collection": "documents", "id": "doc3", "update": { "$inc": { "log": 1 } } }),
    ];
    let mut producer = stage.producer().await?;
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let mut counts = vec![0; 400];
    for step in 0..2600_usize {
        tick.tick().await;
        let busy = |period: f64| 1.0 + (step as f64 / period).sin() * 0.6 + fastrand::f64() * 0.3;
        let mut events = |most: f64| -> Vec<String> {
            let some = (0..(most * busy(190.0)) as usize).map(|_| {
                // Some documents are everybody's.
                let doc = (fastrand::f64().powi(6) * counts.len() as f64) as usize;
                counts[doc] += 1;
                let set = json!({ "$inc": { "count": 1 }, "$set": { "last": counts[doc] } });
                update(&format!("doc{doc}"), set)
            });
            some.collect()
        };
        stage.push(events(45.0)).await?;
        crate::support::push(&mut producer, "presenceQueue", events(12.0)).await?;
        if step == 300 {
            stage.push([logged("doc3", 0)]).await?;
        }
        if let Some(bad) = step.checked_sub(2000).filter(|n| n % 150 == 0).and_then(|n| bad.get(n / 150)) {
            stage.push([bad.to_string()]).await?;
        }
        if step == 2450 {
            for (name, scheme, width, height) in [
                ("status-page", "light", 1280, 935),
                ("dark", "dark", 1280, 830),
                ("phone", "light", 360, 1500),
                ("phone-dark", "dark", 360, 780),
            ] {
                tab.colours(scheme).await?;
                tab.resize(width, height, 1.0).await?;
                tab.screenshot(&folder.join(format!("{name}.png"))).await?;
            }
            tab.resize(1280, 830, 1.0).await?;
            stage.mongo.stop().await?;
        }
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    for scheme in ["light", "dark"] {
        tab.colours(scheme).await?;
        tab.screenshot(&folder.join(format!("outage-{scheme}.png"))).await?;
    }
    stage.mongo.restart().await?;
    stage.settled(&tidegate).await?;
    tidegate.kill9()?;
    shows(&tab, "h1", "the loss", |text| text.contains("lost for 3\u{a0}s")).await?;
    tab.colours("light").await?;
    tab.screenshot(&folder.join("lost.png")).await?;
    Ok(())
}

//! Drives a real browser without a window, over the pipe that it offers for that.
//! The pipe speaks the DevTools protocol: JSON, each message ended by a zero byte.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::process::{Process, command, on_path};

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// Its start takes one to two seconds on a quiet machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A browser. Killed on drop.
pub(crate) struct Browser {
    line: Arc<Line>,
    process: Process,
    /// Its profile: it knows nothing, and leaves nothing behind.
    _folder: TempDir,
}

/// A page that is open in the browser.
pub(crate) struct Tab {
    line: Arc<Line>,
    session: String,
}

struct Line {
    input: Mutex<ChildStdin>,
    next: AtomicU64,
    asked: Mutex<HashMap<u64, oneshot::Sender<Value>>>,
    events: Mutex<Vec<Value>>,
}

impl Browser {
    /// Starts one with an empty profile.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let program = program()?;
        let folder = tempfile::tempdir()?;
        // It wants its pipe at descriptors 3 and 4, where only a shell can put it without unsafe code.
        let mut shell = command("sh");
        shell.args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null"#]).arg(program);
        shell.args(["--headless", "--remote-debugging-pipe", "--disable-gpu", "--hide-scrollbars"]);
        // It must not fetch anything by itself.
        shell.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        shell.args([
            "--no-first-run",
            "--disable-default-apps",
            "--disable-extensions",
            "--disable-breakpad",
        ]);
        // Pages that are in the background would be slowed down; here all are.
        shell.args(["--disable-renderer-backgrounding", "--disable-background-timer-throttling"]);
        // Its sandbox works neither for root nor in most containers, and the pages are ours.
        shell.arg("--no-sandbox");
        shell.arg(format!("--user-data-dir={}", folder.path().display()));
        shell.arg("about:blank").env("HOME", folder.path()).env("TMPDIR", folder.path());
        let (process, input, output) = Process::spawn_to_talk("the browser", shell)?;
        let line = Arc::new(Line {
            input: Mutex::new(input),
            next: AtomicU64::new(1),
            asked: Mutex::default(),
            events: Mutex::default(),
        });
        listen(output, Arc::clone(&line));
        let browser = Self { line, process, _folder: folder };
        let version = browser.line.call(None, "Browser.getVersion", json!({})).await;
        version.with_context(|| format!("the browser said:\n  {}", browser.process.lines().join("\n  ")))?;
        Ok(browser)
    }

    /// Opens a page of that size in a tab.
    pub(crate) async fn open(&self, url: &str, width: u32, height: u32) -> anyhow::Result<Tab> {
        let target = self.line.call(None, "Target.createTarget", json!({ "url": "about:blank" })).await?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.line.call(None, "Target.attachToTarget", attach).await?;
        let session = attached["sessionId"].as_str().context("no session")?.to_owned();
        let tab = Tab { line: Arc::clone(&self.line), session };
        for domain in ["Page", "Runtime", "Log"] {
            tab.call(&format!("{domain}.enable"), json!({})).await?;
        }
        tab.resize(width, height, 1.0).await?;
        tab.go(url).await?;
        Ok(tab)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // All of its processes, before the folder that they write to goes. There is nothing to be done about an error.
        let _ = self.process.kill_group();
    }
}

impl Tab {
    async fn call(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        self.line.call(Some(&self.session), method, params).await
    }

    /// Goes to a page. It need not be complete yet.
    pub(crate) async fn go(&self, url: &str) -> anyhow::Result<()> {
        let went = self.call("Page.navigate", json!({ "url": url })).await?;
        ensure!(went.get("errorText").is_none(), "{url}: {went}");
        Ok(())
    }

    /// The size of the window, and how many dots a pixel has.
    pub(crate) async fn resize(&self, width: u32, height: u32, scale: f64) -> anyhow::Result<()> {
        let mobile = width < 500;
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile });
        self.call("Emulation.setDeviceMetricsOverride", metrics).await.map(drop)
    }

    /// Has the user prefer `dark` or `light` colours.
    pub(crate) async fn colours(&self, scheme: &str) -> anyhow::Result<()> {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [feature] })).await.map(drop)
    }

    /// What an expression comes to; a promise's result.
    pub(crate) async fn evaluate(&self, expression: &str) -> anyhow::Result<Value> {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", params).await?;
        if let Some(details) = answer.get("exceptionDetails") {
            bail!("{expression}: {details}");
        }
        Ok(answer["result"]["value"].clone())
    }

    /// The text that an element shows; empty if there is no such element.
    pub(crate) async fn text(&self, selector: &str) -> anyhow::Result<String> {
        let expression = format!("document.querySelector({})?.innerText ?? ''", json!(selector));
        Ok(self.evaluate(&expression).await?.as_str().unwrap_or_default().to_owned())
    }

    /// Presses and releases a key: `Tab`, `Enter` or `Backspace`.
    pub(crate) async fn press(&self, key: &str) -> anyhow::Result<()> {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Backspace" => (8, ""),
            other => bail!("no such key here: {other}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let event = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text,
            });
            self.call("Input.dispatchKeyEvent", event).await?;
        }
        Ok(())
    }

    /// Has the page believe that its window is the one in front, even if others are open.
    pub(crate) async fn has_focus(&self) -> anyhow::Result<()> {
        self.call("Emulation.setFocusEmulationEnabled", json!({ "enabled": true })).await.map(drop)
    }

    /// Types into what has the focus.
    pub(crate) async fn write(&self, text: &str) -> anyhow::Result<()> {
        self.call("Input.insertText", json!({ "text": text })).await.map(drop)
    }

    /// What is seen now, as a PNG file.
    pub(crate) async fn screenshot(&self, file: &Path) -> anyhow::Result<()> {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" })).await?;
        let png = STANDARD.decode(shot["data"].as_str().context("no picture")?)?;
        std::fs::write(file, png).with_context(|| file.display().to_string())
    }

    /// Exceptions, errors and warnings, the browser's own (such as a policy that was offended) and the page's.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let is_complaint = |event: &&Value| {
            let params = &event["params"];
            event["sessionId"] == self.session.as_str()
                && match event["method"].as_str() {
                    Some("Runtime.exceptionThrown") => true,
                    Some("Runtime.consoleAPICalled") => {
                        matches!(params["type"].as_str(), Some("error" | "warning" | "assert"))
                    }
                    Some("Log.entryAdded") => {
                        matches!(params["entry"]["level"].as_str(), Some("error" | "warning"))
                    }
                    _ => false,
                }
        };
        self.line.events.lock().iter().filter(is_complaint).map(Value::to_string).collect()
    }
}

impl Line {
    async fn call(&self, session: Option<&str>, method: &str, params: Value) -> anyhow::Result<Value> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let (answer, answered) = oneshot::channel();
        self.asked.lock().insert(id, answer);
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.input.lock().write_all(&bytes).context("the browser is gone")?;
        let mut answer = timeout(LIMIT, answered)
            .await
            .with_context(|| format!("{method}: no answer in {LIMIT:?}"))?
            .with_context(|| format!("{method}: the browser has ended"))?;
        if let Some(error) = answer.get("error") {
            bail!("{method}: {error}");
        }
        Ok(answer["result"].take())
    }
}

/// Reads all that the browser says, until it ends.
fn listen(output: impl Read + Send + 'static, line: Arc<Line>) {
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut message = Vec::new();
        while output.read_until(0, &mut message).is_ok_and(|read| read > 0) {
            message.pop();
            if let Ok(said) = serde_json::from_slice::<Value>(&message) {
                match said["id"].as_u64().and_then(|id| line.asked.lock().remove(&id)) {
                    // Who asked may have lost patience.
                    Some(asked) => drop(asked.send(said)),
                    None => line.events.lock().push(said),
                }
            }
            message.clear();
        }
        // Nobody else will be answered.
        line.asked.lock().clear();
    });
}

fn program() -> anyhow::Result<PathBuf> {
    let found = NAMES.into_iter().find_map(on_path);
    found.context("no chromium on the PATH: run `make servers` first")
}

//! A headless Chromium that opens one page at a time, driven over its DevTools pipe.
//!
//! Whatever goes wrong inside the page is kept as a problem: an exception, an error or warning on
//! the console, a violated content security policy, a dialog, and any request but for the page.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use serde_json::{Value, json};

/// No page takes nearly that long. timeout(1) ends the browser then, and reading its pipe with it.
const LONGEST_SECONDS: &str = "240";

/// The browser that `cargo xtask setup` unpacks, else one on PATH.
pub fn find() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/chromium/chromium");
    let path = env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-headless-shell", "chromium-browser", "google-chrome"];
    let on_path = env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|file| file.is_file());
    Some(own).filter(|own| own.is_file()).or(on_path)
}

/// How a page is shown.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub width: u32,
    pub height: u32,
    pub dark: bool,
}

/// What the mouse does at a place.
#[derive(Clone, Copy, Debug)]
pub enum Mouse {
    Hovers,
    Clicks,
    /// By so many pixels, with the button held.
    DragsLeft(u16),
    /// Turns its wheel with Ctrl held.
    ZoomsIn,
}

#[derive(Debug)]
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    last_id: u64,
    session: Option<String>,
    /// The page that may be requested.
    page: String,
    loaded: bool,
    problems: Vec<String>,
}

impl Browser {
    /// Starts it with its profile in `folder`. As root, in a network namespace of its own, where
    /// there is nothing that a page could reach, and in a pid namespace, none of whose processes
    /// outlives the browser.
    pub fn start(program: &Path, folder: &Path) -> Result<Browser> {
        let mut command = Command::new("sh");
        // Chromium reads commands from descriptor 3 and writes answers to 4.
        command.args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh"]);
        if rustix::process::geteuid().is_root() {
            command.args(["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        }
        command.args(["timeout", "--kill-after=5", LONGEST_SECONDS]).arg(program);
        command.args([
            "--headless",
            "--remote-debugging-pipe",
            // Its sandbox cannot be used by root; what it opens is a file of our own.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-extensions",
            "--disable-background-networking",
            "--no-first-run",
            "--hide-scrollbars",
            "--force-color-profile=srgb",
            "--font-render-hinting=none",
        ]);
        command.arg(format!("--user-data-dir={}", folder.join("profile").display()));
        command.env("HOME", folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start a shell for the browser")?;
        let to = child.stdin.take().context("no pipe to the browser")?;
        let from = BufReader::new(child.stdout.take().context("no pipe from the browser")?);
        let mut browser = Browser {
            child,
            to,
            from,
            last_id: 0,
            session: None,
            page: String::new(),
            loaded: false,
            problems: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach)?;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(browser)
    }

    /// Opens a page and waits until it is loaded. Problems of the page before are forgotten.
    pub fn open(&mut self, page: &Path, view: View) -> Result<()> {
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": view.width, "height": view.height, "deviceScaleFactor": 1, "mobile": false }),
        )?;
        let scheme = if view.dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }))?;
        self.problems.clear();
        self.loaded = false;
        self.page = format!("file://{}", page.display());
        let page = self.page.clone();
        let opened = self.call("Page.navigate", json!({ "url": page }))?;
        ensure!(opened["errorText"].is_null(), "cannot open {page}: {}", opened["errorText"]);
        while !self.loaded {
            let message = self.read()?;
            self.note(&message);
        }
        Ok(())
    }

    /// The value of an expression in the page, as JSON.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({
            "expression": expression, "returnByValue": true, "awaitPromise": true,
            // As for a script of the page.
            "allowUnsafeEvalBlockedByCSP": false
        });
        let answer = self.call("Runtime.evaluate", parameters)?;
        if !answer["exceptionDetails"].is_null() {
            bail!("{expression}: {}", answer["exceptionDetails"]["exception"]["description"]);
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Presses and releases a key: `ArrowDown`, `+`, ...
    pub fn key(&mut self, key: &str) -> Result<()> {
        // A key that stands for a character also types it.
        let text = if key.chars().count() == 1 { key } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "text": text });
            self.call("Input.dispatchKeyEvent", event)?;
        }
        self.drawn()
    }

    /// Moves the mouse to the middle of the element that a selector names, and there does what is
    /// asked for.
    pub fn mouse(&mut self, selector: &str, does: Mouse) -> Result<()> {
        let place = self.evaluate(&format!(
            "(() => {{ const box = document.querySelector({}).getBoundingClientRect();
               return [box.x + box.width / 2, box.y + box.height / 2]; }})()",
            json!(selector)
        ))?;
        let (x, y) = (place[0].as_f64().unwrap_or(0.0), place[1].as_f64().unwrap_or(0.0));
        let mut event = |kind: &str, x: f64, more: Value| -> Result<()> {
            let mut event = json!({ "type": kind, "x": x, "y": y });
            for (name, value) in more.as_object().into_iter().flatten() {
                event[name] = value.clone();
            }
            self.call("Input.dispatchMouseEvent", event).map(|_| ())
        };
        let left = json!({ "button": "left", "buttons": 1, "clickCount": 1 });
        event("mouseMoved", x, json!({}))?;
        match does {
            Mouse::Hovers => {}
            Mouse::Clicks => {
                event("mousePressed", x, left.clone())?;
                event("mouseReleased", x, left)?;
            }
            Mouse::DragsLeft(pixels) => {
                event("mousePressed", x, left.clone())?;
                event("mouseMoved", x - f64::from(pixels), left.clone())?;
                event("mouseReleased", x - f64::from(pixels), left)?;
            }
            Mouse::ZoomsIn => {
                const CTRL: u32 = 2;
                let wheel = json!({ "deltaX": 0, "deltaY": -100, "modifiers": CTRL });
                event("mouseWheel", x, wheel)?;
            }
        }
        self.drawn()
    }

    /// Waits until what was changed is drawn, which is with the next frame.
    fn drawn(&mut self) -> Result<()> {
        self.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")?;
        Ok(())
    }

    /// What is in view, as PNG.
    pub fn screenshot(&mut self) -> Result<Vec<u8>> {
        let answer = self.call("Page.captureScreenshot", json!({ "format": "png" }))?;
        let data = answer["data"].as_str().context("no picture")?;
        Ok(base64::prelude::BASE64_STANDARD.decode(data)?)
    }

    /// The page as it would be printed.
    pub fn pdf(&mut self) -> Result<Vec<u8>> {
        let answer = self.call("Page.printToPDF", json!({ "printBackground": true }))?;
        let data = answer["data"].as_str().context("no document")?;
        Ok(base64::prelude::BASE64_STANDARD.decode(data)?)
    }

    /// What went wrong in the page so far.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.last_id += 1;
        let mut message = json!({ "id": self.last_id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.to.write_all(&bytes).context("the browser has gone")?;
        loop {
            let mut answer = self.read()?;
            if answer["id"].as_u64() == Some(self.last_id) {
                ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]["message"]);
                return Ok(answer["result"].take());
            }
            self.note(&answer);
        }
    }

    fn read(&mut self) -> Result<Value> {
        let mut bytes = Vec::new();
        self.from.read_until(0, &mut bytes)?;
        ensure!(bytes.pop() == Some(0), "the browser has gone, or did not answer in time");
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Takes note of what happened in the page.
    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Page.loadEventFired" => self.loaded = true,
            "Runtime.exceptionThrown" => {
                self.problems.push(format!("exception: {}", parameters["exceptionDetails"]));
            }
            "Runtime.consoleAPICalled" => {
                self.problems
                    .push(format!("console {}: {}", parameters["type"], parameters["args"]));
            }
            "Log.entryAdded" => self.problems.push(format!("log: {}", parameters["entry"])),
            "Page.javascriptDialogOpening" => {
                self.problems.push(format!("dialog: {}", parameters["message"]));
            }
            "Network.requestWillBeSent" => {
                let url = parameters["request"]["url"].as_str().unwrap_or_default();
                if url != self.page {
                    self.problems.push(format!("request: {url}"));
                }
            }
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.session = None;
        // Asked to close, it takes all its processes with it. It can be gone already.
        let _ = self.call("Browser.close", json!({}));
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // With it goes what it started.
                if let Some(pid) =
                    i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw)
                {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                }
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

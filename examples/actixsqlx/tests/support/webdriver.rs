//! A real Chromium without a screen, driven over WebDriver.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::program::Program;
use super::{PATIENCE, client};

/// The name under which WebDriver hands out elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one page. Its processes end with it.
pub(crate) struct Browser {
    addr: String,
    session: String,
    _driver: Program,
    // After the driver, whose browser writes to it: fields are dropped in order.
    _profile: TempDir,
}

impl Browser {
    /// Starts one with a window of this size.
    pub(crate) fn start(width: u32, height: u32) -> Self {
        let chromium = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
        let (driver, chromium) = (installed(&["chromedriver"]), installed(&chromium));
        let driver = Program::start(&driver, &["--port=0"], &[]);
        let line = driver.line(|line| line.contains("started successfully on port"));
        let port: String = line.chars().filter(char::is_ascii_digit).collect();
        let addr = format!("127.0.0.1:{port}");
        let profile = tempfile::tempdir().unwrap();
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            // It ends when the driver does, however that comes about.
            "--remote-debugging-pipe",
            &format!("--window-size={width},{height}"),
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": chromium, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let mut browser = Self { addr, session: String::new(), _driver: driver, _profile: profile };
        let session = browser.ask("POST", "/session", &capabilities);
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        browser
    }

    pub(crate) fn open(&self, url: &str) {
        self.command("url", &json!({"url": url}));
    }

    pub(crate) fn click(&self, selector: &str) {
        let element = self.command("element", &json!({"using": "css selector", "value": selector}));
        self.command(&format!("element/{}/click", element[ELEMENT].as_str().unwrap()), &json!({}));
    }

    /// What a script returns.
    pub(crate) fn script(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({"script": script, "args": []}))
    }

    /// The text of an element; nothing if it is not there yet.
    pub(crate) fn text(&self, selector: &str) -> String {
        let text = self.script(&format!("return document.querySelector({selector:?})?.textContent ?? ''"));
        text.as_str().unwrap().to_owned()
    }

    /// Waits until the text of an element is as wanted, and returns it.
    pub(crate) fn wait_for(&self, selector: &str, wanted: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let text = self.text(selector);
            if wanted(&text) {
                return text;
            }
            assert!(begun.elapsed() < PATIENCE, "{selector} still says {text:?}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// A command of Chromium's own protocol.
    pub(crate) fn chromium(&self, command: &str, parameters: &Value) -> Value {
        self.command("goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    /// What the page has written to the console since the last look, the browser's own complaints included.
    pub(crate) fn console(&self) -> Vec<String> {
        let lines = self.command("se/log", &json!({"type": "browser"}));
        lines.as_array().unwrap().iter().map(Value::to_string).collect()
    }

    /// Saves what it shows as a picture, under the directory of the tests' own files.
    pub(crate) fn picture(&self, name: &str) {
        let whole = self.chromium("Page.captureScreenshot", &json!({"captureBeyondViewport": true}));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(path, base64(whole["data"].as_str().unwrap())).unwrap();
    }

    fn command(&self, path: &str, body: &Value) -> Value {
        self.ask("POST", &format!("{}/{path}", self.session), body)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let headers = [("content-type", "application/json")];
        let reply = client::send(&self.addr, method, path, &headers, &body.to_string()).unwrap();
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply.json()["value"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser; the driver is ended by itself.
        let _ = client::send(&self.addr, "DELETE", &self.session, &[], "");
    }
}

/// A program on the path, by the first of its names that is there, or in the variable `CACHE_KIT_…` of its first name.
fn installed(names: &[&str]) -> PathBuf {
    let program = names[0];
    let variable = format!("CACHE_KIT_{}", program.to_uppercase());
    if let Some(path) = std::env::var_os(&variable).filter(|path| !path.is_empty()) {
        return path.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = |name| std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file());
    names.iter().find_map(on_path).unwrap_or_else(|| {
        panic!(
            "no {program} on the PATH; this test needs a real Chromium and its driver.\n\
             install them:  apt-get install chromium chromium-driver   |   dnf install chromium chromedriver   |   \
             brew install chromium chromedriver\n\
             or let xtask:  cargo xtask test --install\n\
             or name a program with {variable}=<path>"
        )
    })
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for value in text.bytes().filter_map(digit) {
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    bytes
}

//! The live page in a real browser.

use cache_kit_test_support::RedisServer;
use serde_json::json;

use super::support::{App, Browser, until};

const DONE: &str = "#done";

/// The page, with its first numbers.
fn opened(app: &App, width: u32, height: u32) -> Browser {
    let browser = Browser::start(width, height);
    browser.open(&app.url());
    browser.wait_for("#backend", |text| text != "–");
    browser
}

fn is_silent(browser: &Browser) {
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn every_button_does_what_it_says() {
    let app = App::start(&[]);
    let browser = opened(&app, 1200, 900);
    assert_eq!(browser.text("#backend"), "memory");
    assert_eq!(browser.text("#database"), "SQLite (temporary)");
    assert!(browser.text("#delay").contains("5 ms to stand for a database across a network"));
    browser.wait_for("#status", |text| text == "cache: memory");

    browser.click("[data-action=read]");
    browser.wait_for(DONE, |text| text.starts_with("Read ") && text.contains(" from the source in "));
    let explained = browser.wait_for("#recent li small", |text| text.starts_with("load: "));
    assert_eq!(explained, "load: found nothing, took the lease, asked the source, stored it");

    browser.click("[data-action=page]");
    browser.wait_for(DONE, |text| {
        text.starts_with("Read 20 products in ") && text.contains("1 query for their ids")
    });
    browser.click("[data-action=update]");
    browser.wait_for(DONE, |text| text.starts_with("Product ") && text.ends_with("is confirmed."));
    browser.click("[data-action=invalidate]");
    browser.wait_for(DONE, |text| text.starts_with("All products of “") && text.ends_with("confirmed."));

    browser.click("[data-action=flood]");
    browser.wait_for(DONE, |text| text.starts_with("500 readers, 1 source query, in "));
    assert_eq!(app.queries("flood"), 1);
    browser.click("#cache");
    browser.wait_for(DONE, |text| text.starts_with("The cache is off"));
    assert_eq!(browser.wait_for("#hit-rate", |text| text == "off"), "off");
    browser.wait_for("#status", |text| text == "cache: off");
    browser.click("[data-action=flood]");
    browser.wait_for(DONE, |text| text.starts_with("500 readers, 500 source queries, in "));
    browser.click("[data-action=page]");
    browser.wait_for("#recent li small", |text| text == "load: did not ask the cache");
    browser.click("#cache");
    browser.wait_for(DONE, |text| text == "The cache is on.");
    is_silent(&browser);
}

#[test]
fn steady_traffic_moves_the_numbers_and_the_cache_lowers_the_queries() {
    let app = App::start(&[]);
    let browser = opened(&app, 1200, 900);
    let number = |selector: &str| browser.text(selector).parse::<u64>().unwrap_or_default();
    browser.click("#traffic");
    until("reads", || number("#reads") > 50);
    until("hits", || {
        browser.text("#hit-rate").trim_end_matches('%').parse::<f64>().is_ok_and(|rate| rate > 50.0)
    });
    until("fewer queries than reads", || number("#queries") * 3 < number("#reads"));
    for selector in ["#cache-median", "#source-median", "#cache-p95", "#source-p95"] {
        browser.wait_for(selector, |text| text.ends_with("µs") || text.ends_with("ms"));
    }
    browser.picture("live-desktop.png");
    browser.click("#cache");
    until("as many queries as reads", || number("#reads") > 50 && number("#queries") + 5 > number("#reads"));
    browser.click("#cache");
    until("few again", || number("#reads") > 50 && number("#queries") * 3 < number("#reads"));

    // Without motion nothing is halfway in the picture.
    let features = [("prefers-color-scheme", "dark"), ("prefers-reduced-motion", "reduce")];
    let dark = json!({"features": features.map(|(name, value)| json!({"name": name, "value": value}))});
    browser.chromium("Emulation.setEmulatedMedia", &dark);
    browser.picture("live-dark.png");
    browser.click("#traffic");
    until("rest", || number("#reads") == 0);
    is_silent(&browser);
}

#[test]
fn a_phone_shows_all_of_it_without_scrolling_sideways() {
    let app = App::start(&[]);
    let browser = opened(&app, 800, 900);
    let phone = json!({"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": true});
    browser.chromium("Emulation.setDeviceMetricsOverride", &phone);
    browser.click("#traffic");
    browser.click("[data-action=flood]");
    browser.wait_for(DONE, |text| text.starts_with("500 readers, 1 source query, in "));
    until("all lines", || browser.script("return document.querySelectorAll('#recent li').length") == 6);
    assert_eq!(browser.script("return innerWidth"), 360);
    assert_eq!(browser.script("return document.documentElement.scrollWidth"), 360);
    let cut = browser.script(
        "return [...document.querySelectorAll('h1, h2, p, button, dd')]
            .filter((e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline')
            .map((e) => e.outerHTML)",
    );
    assert_eq!(cut, json!([]));
    browser.picture("live-phone.png");
    is_silent(&browser);
}

#[test]
fn numbers_do_not_move_what_is_around_them() {
    let app = App::start(&[]);
    let browser = opened(&app, 1200, 900);
    let places = || {
        [1200, 360].map(|width| {
            let screen =
                json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500});
            browser.chromium("Emulation.setDeviceMetricsOverride", &screen);
            browser.script(
                "return ['#pulse', '#done', '#recent', '#ranges', '#delay'].map((at) => {
                    const box = document.querySelector(at).getBoundingClientRect();
                    return [box.left, box.top + scrollY, box.width];
                })",
            )
        })
    };
    let before = places();
    browser.click("#traffic");
    browser.click("[data-action=flood]");
    browser.wait_for(DONE, |text| text.starts_with("500 readers"));
    until("all lines", || browser.script("return document.querySelectorAll('#recent li').length") == 6);
    browser.wait_for("#source-p95", |text| text.ends_with("ms"));
    assert_eq!(places(), before);
}

#[test]
fn the_page_is_for_keyboards_and_readers_of_screens_too() {
    let app = App::start(&[]);
    let browser = opened(&app, 1200, 900);
    let unnamed = browser.script(
        "return [...document.querySelectorAll('button, canvas, section')].filter((e) => !e.textContent.trim()
            && !e.getAttribute('aria-label')).length",
    );
    assert_eq!(unnamed, 0);
    assert_eq!(browser.script("return document.documentElement.lang"), "en");
    assert_eq!(browser.script("return document.querySelector('#done').ariaLive"), "polite");
    // A switch says what it is, and the space bar turns it.
    browser.script("document.querySelector('#cache').focus()");
    let key =
        json!({"type": "keyDown", "key": " ", "code": "Space", "text": " ", "windowsVirtualKeyCode": 32});
    browser.chromium("Input.dispatchKeyEvent", &key);
    let key = json!({"type": "keyUp", "key": " ", "code": "Space", "windowsVirtualKeyCode": 32});
    browser.chromium("Input.dispatchKeyEvent", &key);
    browser.wait_for(DONE, |text| text.starts_with("The cache is off"));
    assert_eq!(browser.script("return document.querySelector('#cache').ariaChecked"), "false");
    is_silent(&browser);
}

#[test]
fn a_cache_server_that_dies_is_shown_and_reads_go_on() {
    let server = RedisServer::start();
    let app = App::start(&[("CACHE_URL", &server.url())]);
    let browser = opened(&app, 1200, 900);
    browser.wait_for("#status", |text| text == "cache: redis");
    server.kill();
    browser.wait_for("#status", |text| text.starts_with("cache: unreachable, reads answered by the source"));
    browser.click("[data-action=read]");
    browser.wait_for(DONE, |text| text.starts_with("Read ") && text.contains(" from the source in "));
    browser.click("[data-action=update]");
    browser.wait_for(DONE, |text| text.ends_with("Its invalidation is queued."));
    browser.wait_for("#status", |text| text.contains(" queued"));
    browser.picture("live-down.png");
    server.restart();
    browser.wait_for("#status", |text| text == "cache: redis");
    is_silent(&browser);
}

#[test]
fn the_page_can_be_left_out() {
    let app = App::start(&[("LIVE", "off")]);
    for path in ["/", "/live/state", "/live/app.js"] {
        assert_eq!(app.get(path).status, 404, "{path}");
    }
    assert_eq!(app.send("POST", "/live/cache", &json!({"on": false})).status, 404);
    assert_eq!(app.get("/users/1").status, 200);
}

#[test]
fn the_page_asks_nobody_else_and_takes_orders_from_nobody_else() {
    let app = App::start(&[]);
    let page = app.get("/");
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for path in ["/", "/live/app.js", "/live/style.css"] {
        assert!(!app.get(path).text().contains("https://"), "{path}");
    }
    // What a form of another site can send.
    assert_eq!(app.send_untyped("POST", "/live/cache", "{\"on\": false}").status, 415);
    assert_eq!(app.send("POST", "/live/flood", &json!({"readers": 2001})).status, 400);
}

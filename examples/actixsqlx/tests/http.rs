//! The whole API over HTTP, the same on each backend.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use cache_kit_test_support::{MemcachedServer, RedisServer};
use serde_json::{Value, json};
use socket2::SockRef;

use super::support::{App, Reply, until};

#[test]
fn the_api_over_memory() {
    whole_api(&App::start(&[("CACHE_BACKEND", "memory")]));
}

#[test]
fn the_api_over_redis() {
    let server = RedisServer::start();
    let port = server.port().to_string();
    let variables = [("CACHE_BACKEND", "redis"), ("REDIS_HOST", "127.0.0.1"), ("REDIS_PORT", port.as_str())];
    whole_api(&App::start(&variables));
}

#[test]
fn the_api_over_memcached() {
    let server = MemcachedServer::start();
    whole_api(&App::start(&[("CACHE_BACKEND", "memcached"), ("MEMCACHED_SERVERS", &server.addr())]));
}

/// Needs a database without tables of another run.
pub(crate) fn whole_api(app: &App) {
    a_page_is_one_query_for_ids_and_one_for_rows(app);
    an_update_is_seen_everywhere(app);
    what_is_created_was_not_there_before(app);
    a_change_of_a_category_reaches_all_of_it(app);
    a_product_moves_from_one_category_to_another(app);
    what_is_deleted_is_gone(app);
    a_price_has_a_bound(app);
    bad_input_is_told_why(app);
    duplicates_are_conflicts(app);
    the_process_tells_of_itself(app);
    metrics_are_text_for_prometheus(app);
}

/// The queries for ids, rows and batches that `act` costs.
fn cost(app: &App, act: impl FnOnce()) -> [u64; 3] {
    let queries = || ["ids", "row", "batch"].map(|of| app.queries(of));
    let before = queries();
    act();
    let after = queries();
    [0, 1, 2].map(|at| after[at] - before[at])
}

fn items(reply: &Reply) -> Vec<Value> {
    reply.good()["items"].as_array().unwrap().clone()
}

fn confirmed(reply: &Reply) -> &Reply {
    assert_eq!(reply.header("cache-invalidation"), Some("confirmed"), "{reply:?}");
    reply
}

fn a_page_is_one_query_for_ids_and_one_for_rows(app: &App) {
    for path in ["/users?limit=20", "/products?limit=20"] {
        let mut cold = Vec::new();
        assert_eq!(cost(app, || cold = items(&app.get(path))), [1, 0, 1], "{path}");
        assert_eq!(cold.len(), 20);
        let mut warm = Vec::new();
        assert_eq!(cost(app, || warm = items(&app.get(path))), [1, 0, 0], "{path}");
        assert_eq!(cold, warm);
    }
    // Half of it is cached: one query for the other half.
    assert_eq!(cost(app, || assert_eq!(items(&app.get("/users?after=10")).len(), 20)), [1, 0, 1]);
    // One of a page is cached too, and what is read alone is for pages.
    assert_eq!(cost(app, || assert_eq!(app.get("/users/20").good()["id"], 20)), [0, 0, 0]);
    assert_eq!(cost(app, || assert_eq!(app.get("/users/31").good()["id"], 31)), [0, 1, 0]);
    assert_eq!(cost(app, || assert_eq!(items(&app.get("/users?after=30&limit=1"))[0]["id"], 31)), [1, 0, 0]);
    // The pages follow one another, up to the last.
    let first = app.get("/users?limit=100").good();
    let second = app.get(&format!("/users?limit=100&after={}", first["next"])).good();
    assert_eq!((&second["items"][99]["id"], &second["next"]), (&json!(200), &json!(200)));
    assert_eq!(app.get("/users?limit=100&after=200").good(), json!({"items": [], "next": null}));
    for product in items(&app.get("/products?category=garden&after=500")) {
        assert_eq!(product["category"], "garden");
    }
}

fn an_update_is_seen_everywhere(app: &App) {
    app.get("/users/3").good();
    let body = json!({"name": "Barbara Neu", "email": "barbara.neu@example.org"});
    let reply = app.send("PUT", "/users/3", &body);
    assert_eq!(confirmed(&reply).good()["name"], "Barbara Neu");
    assert_eq!(app.get("/users/3").good()["email"], "barbara.neu@example.org");
    assert_eq!(items(&app.get("/users?limit=3"))[2]["name"], "Barbara Neu");
    // The others of the page are still cached, and this one is again.
    assert_eq!(cost(app, || drop(items(&app.get("/users?limit=20")))), [1, 0, 0]);
    assert_eq!(app.send("PUT", "/users/99999", &body).status, 404);
}

fn what_is_created_was_not_there_before(app: &App) {
    // That there is no such row is remembered.
    assert_eq!(cost(app, || assert_eq!(app.get("/users/201").status, 404)), [0, 1, 0]);
    assert_eq!(cost(app, || assert_eq!(app.get("/users/201").status, 404)), [0, 0, 0]);
    let reply = app.send("POST", "/users", &json!({"name": "Zoë", "email": "zoe@example.org"}));
    assert_eq!((confirmed(&reply).status, reply.header("location")), (201, Some("/users/201")));
    assert_eq!(app.get("/users/201").good(), reply.json());

    let before = app.get("/categories/tools").good()["products"].as_i64().unwrap();
    let body = json!({"name": "golden spanner", "category": "tools", "price_cents": 0});
    assert_eq!(confirmed(&app.send("POST", "/products", &body)).good()["id"], 1001);
    let tools = app.get("/categories/tools").good();
    assert_eq!((&tools["products"], &tools["lowest_price_cents"]), (&json!(before + 1), &json!(0)));
}

fn a_change_of_a_category_reaches_all_of_it(app: &App) {
    let lamps = || items(&app.get("/products?category=lamps&limit=100"));
    let price = |product: &Value| product["price_cents"].as_i64().unwrap();
    let before = lamps();
    let summary = app.get("/categories/lamps").good();
    assert_eq!(cost(app, || assert_eq!(app.get("/categories/lamps").good(), summary)), [0, 0, 0]);
    app.get("/products?limit=20").good();
    assert_eq!(cost(app, || assert_eq!(lamps(), before)), [1, 0, 0]);

    let reply = app.send("POST", "/categories/lamps/prices", &json!({"percent": 50}));
    assert_eq!(confirmed(&reply).good(), json!({"products": before.len()}));
    for (old, new) in before.iter().zip(lamps()) {
        assert_eq!(price(&new), price(old) * 150 / 100);
        assert_eq!(app.get(&format!("/products/{}", new["id"])).good(), new);
    }
    let dearest = summary["highest_price_cents"].as_i64().unwrap() * 150 / 100;
    assert_eq!(app.get("/categories/lamps").good()["highest_price_cents"], dearest);
    // Other categories are as cached as before.
    assert_eq!(cost(app, || drop(items(&app.get("/products?limit=20")))), [1, 0, 0]);
    assert_eq!(app.send("POST", "/categories/nothing/prices", &json!({"percent": 1})).status, 404);
}

fn a_product_moves_from_one_category_to_another(app: &App) {
    let counts = || {
        ["seats", "music"]
            .map(|name| app.get(&format!("/categories/{name}")).good()["products"].as_i64().unwrap())
    };
    let [seats, music] = counts();
    let stool = items(&app.get("/products?category=seats&limit=1")).remove(0);
    let path = format!("/products/{}", stool["id"]);
    let body = json!({"name": stool["name"], "category": "music", "price_cents": 1});
    confirmed(&app.send("PUT", &path, &body)).good();
    assert_eq!(counts(), [seats - 1, music + 1]);
    assert_eq!(app.get(&path).good()["category"], "music");

    // It goes with its new category, and not with its old one.
    confirmed(&app.send("POST", "/categories/music/prices", &json!({"percent": 100}))).good();
    assert_eq!(app.get(&path).good()["price_cents"], 2);
    confirmed(&app.send("POST", "/categories/seats/prices", &json!({"percent": 100}))).good();
    assert_eq!(app.get(&path).good()["price_cents"], 2);

    // A category that is new is in the list of all.
    let names = app.get("/categories").good()["items"].clone();
    assert!(!names.as_array().unwrap().contains(&json!("antiques")));
    let body = json!({"name": stool["name"], "category": "antiques", "price_cents": 1});
    confirmed(&app.send("PUT", &path, &body)).good();
    assert_eq!(app.get("/categories").good()["items"][0], "antiques");
}

fn what_is_deleted_is_gone(app: &App) {
    for path in ["/users/150", "/products/777"] {
        let name = app.get(path).good()["name"].clone();
        assert_eq!(confirmed(&app.send_untyped("DELETE", path, "")).status, 204);
        assert_eq!(app.get(path).status, 404);
        assert_eq!(app.send_untyped("DELETE", path, "").status, 404);
        let (kind, id) = path[1..].split_once('/').unwrap();
        let after = id.parse::<i64>().unwrap() - 1;
        assert_ne!(items(&app.get(&format!("/{kind}?after={after}&limit=1")))[0]["name"], name);
    }
}

fn a_price_has_a_bound(app: &App) {
    let body = json!({"name": "crown", "category": "treasure", "price_cents": 10_000_000});
    let id = app.send("POST", "/products", &body).good()["id"].clone();
    app.send("POST", "/categories/treasure/prices", &json!({"percent": 100})).good();
    assert_eq!(app.get(&format!("/products/{id}")).good()["price_cents"], 10_000_000);
}

/// Method, path and body; status, code and field.
type Case<'a> = (&'a str, &'a str, Value, u16, &'a str, Option<&'a str>);

fn bad_input_is_told_why(app: &App) {
    let long = "x".repeat(81);
    let cases: &[Case<'_>] = &[
        ("POST", "/users", json!({"name": long, "email": "a@b.c"}), 400, "invalid_input", Some("name")),
        ("POST", "/users", json!({"name": "  ", "email": "a@b.c"}), 400, "invalid_input", Some("name")),
        ("POST", "/users", json!({"name": "a\u{0}b", "email": "a@b.c"}), 400, "invalid_input", Some("name")),
        ("POST", "/users", json!({"name": 7, "email": "a@b.c"}), 400, "invalid_input", Some("name")),
        ("POST", "/users", json!({"name": "A", "email": "nobody"}), 400, "invalid_input", Some("email")),
        ("POST", "/users", json!({"name": "A"}), 400, "invalid_input", Some("email")),
        ("POST", "/users", json!({"name": "A", "email": "a@b.c", "x": 1}), 400, "invalid_input", Some("x")),
        ("POST", "/users", json!([1, 2]), 400, "malformed_json", None),
        ("PUT", "/users/1", json!({}), 400, "invalid_input", Some("name")),
        ("PUT", "/users/one", json!({}), 400, "invalid_input", Some("id")),
        ("GET", "/users/one", Value::Null, 400, "invalid_input", Some("id")),
        ("GET", "/users/9223372036854775808", Value::Null, 400, "invalid_input", Some("id")),
        ("GET", "/users/-1", Value::Null, 404, "not_found", None),
        ("GET", "/users?limit=101", Value::Null, 400, "invalid_input", Some("limit")),
        ("GET", "/users?limit=", Value::Null, 400, "invalid_input", Some("limit")),
        ("GET", "/users?page=2", Value::Null, 400, "invalid_input", Some("page")),
        ("GET", "/users?after=-1", Value::Null, 400, "invalid_input", Some("after")),
        ("GET", "/users?category=tools", Value::Null, 400, "invalid_input", Some("category")),
        ("GET", "/products?category=A%20B", Value::Null, 400, "invalid_input", Some("category")),
        ("GET", "/products/99999", Value::Null, 404, "not_found", None),
        ("GET", "/categories/nothing", Value::Null, 404, "not_found", None),
        ("GET", "/categories/No", Value::Null, 400, "invalid_input", Some("category")),
        ("POST", "/categories/bags/prices", json!({"percent": 101}), 400, "invalid_input", Some("percent")),
        ("POST", "/categories/bags/prices", json!({"percent": 0.5}), 400, "invalid_input", Some("percent")),
        ("GET", "/elsewhere", Value::Null, 404, "not_found", None),
        ("PATCH", "/users/1", json!({}), 405, "method_not_allowed", None),
        ("POST", "/healthz", json!({}), 405, "method_not_allowed", None),
    ];
    for (method, path, body, status, code, field) in cases {
        told_why(&app.send(method, path, body), *status, code, *field);
    }
    for price in [json!(-1), json!(10_000_001), json!(1.5), json!("1"), json!(null), json!(1e30)] {
        let body = json!({"name": "thing", "category": "bags", "price_cents": price});
        told_why(&app.send("POST", "/products", &body), 400, "invalid_input", Some("price_cents"));
    }
    told_why(&app.send_text("POST", "/users", "{\"name\":"), 400, "malformed_json", None);
    told_why(&app.send_text("POST", "/users", ""), 400, "malformed_json", None);
    told_why(&app.send_untyped("POST", "/users", "{}"), 415, "not_json", None);
    told_why(&app.send_text("POST", "/users", &" ".repeat(20_000)), 413, "too_large", None);
    assert_eq!(app.send("PATCH", "/users/1", &json!({})).header("allow"), Some("GET, PUT, DELETE"));
}

fn told_why(reply: &Reply, status: u16, code: &str, field: Option<&str>) {
    let error = &reply.json()["error"];
    assert_eq!((reply.status, error["code"].as_str()), (status, Some(code)), "{error}");
    assert_eq!(error["field"].as_str(), field, "{error}");
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
}

fn duplicates_are_conflicts(app: &App) {
    let ada = json!({"name": "Another Ada", "email": "ADA.ABE@example.org"});
    told_why(&app.send("POST", "/users", &ada), 409, "duplicate", Some("email"));
    told_why(&app.send("PUT", "/users/2", &ada), 409, "duplicate", Some("email"));
    let pouch = json!({"name": "ash pouch", "category": "bags", "price_cents": 1});
    told_why(&app.send("POST", "/products", &pouch), 409, "duplicate", Some("name"));
    told_why(&app.send("PUT", "/products/2", &pouch), 409, "duplicate", Some("name"));
    // What was not changed is as it was.
    assert_eq!(app.get("/products/2").good()["name"], "ash tote");
}

fn the_process_tells_of_itself(app: &App) {
    assert_eq!(app.get("/healthz").good()["alive"], true);
    let ready = app.get("/readyz").good();
    assert_eq!((&ready["ready"], &ready["degraded"]), (&json!(true), &json!(false)));
}

fn metrics_are_text_for_prometheus(app: &App) {
    let reply = app.get("/metrics");
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = reply.text();
    assert!(text.ends_with('\n'));
    let mut family = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split_once(' ').unwrap().0.to_owned();
            let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {family} ")).unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok_and(|value| value >= 0.0), "{line}");
        let (bare, labels) = name.split_once('{').unwrap_or((name, ""));
        let suffix =
            bare.strip_prefix(&family).unwrap_or_else(|| panic!("{line} after the head of {family}"));
        assert!(["", "_bucket", "_sum", "_count"].contains(&suffix), "{line}");
        for label in labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty()) {
            let (name, _) = label.split_once("=\"").unwrap();
            assert!(["query", "route", "status", "le"].contains(&name), "{line}");
        }
    }
    for present in [
        "\ncache_kit_hits_total ",
        "\ncache_kit_tag_invalidations_total ",
        "shop_http_request_duration_seconds_bucket{route=\"/users/{id}\",le=\"+Inf\"} ",
        "shop_http_requests_total{route=\"/products\",status=\"4xx\"} ",
    ] {
        assert!(text.contains(present), "{present}");
    }
    assert_eq!(app.metric("cache_kit_backend_errors_total"), 0);
    // A key, an id or a path of somebody's choice is never a label.
    assert!(!text.contains("elsewhere") && !text.contains("/users/1\""), "{text}");
}

#[test]
fn processes_share_a_cache_and_a_restart_finds_it() {
    let server = RedisServer::start();
    let directory = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}?mode=rwc", directory.path().join("shop.db").display());
    let variables = [("CACHE_URL", server.url()), ("DATABASE_URL", database)];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));

    let first = App::start(&variables);
    let products = items(&first.get("/products"));
    first.signal("TERM");
    assert_eq!(first.wait().0.code(), Some(0));

    let second = App::start(&variables);
    assert_eq!(cost(&second, || assert_eq!(items(&second.get("/products")), products)), [1, 0, 0]);
    let third = App::start(&variables);
    assert_eq!(cost(&third, || assert_eq!(items(&third.get("/products")), products)), [1, 0, 0]);
    let body = json!({"name": "ash sack", "category": "bags", "price_cents": 5});
    confirmed(&second.send("PUT", "/products/1", &body)).good();
    assert_eq!(third.get("/products/1").good()["name"], "ash sack");
}

#[test]
fn the_url_of_the_cache_carries_its_settings_to_both_doors() {
    let server = RedisServer::start();
    let app = App::start(&[("CACHE_URL", &format!("{}?namespace=corner&ttl=1h", server.url()))]);
    app.get("/users/1").good();
    app.get("/products/1").good();
    app.get("/categories/tools").good();
    let lives = ["user:1", "product:1", "category:tools"]
        .map(|key| server.command(&format!("PTTL corner/{key}")).parse::<i64>().unwrap());
    let [user, product, category] = lives.map(|life| life / 60_000);
    // What says nothing else lives as long as the URL has it, less a little at random.
    assert!((45..60).contains(&user) && (45..60).contains(&category), "{lives:?}");
    assert!((3..5).contains(&product), "{lives:?}");
}

#[test]
fn a_change_whose_client_hangs_up_is_made_and_invalidated() {
    let app = App::start(&[("SOURCE_DELAY", "300ms")]);
    let before = app.get("/products/1").good()["price_cents"].as_i64().unwrap();
    let body = json!({"percent": 100}).to_string();
    let mut client = TcpStream::connect(app.addr()).unwrap();
    let head = "POST /categories/bags/prices HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json";
    write!(client, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    until("the change is under way", || app.queries("write") == 1);
    // Not only closed but reset, which ends the connection's handler.
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    // It is cached for minutes: only the invalidation makes it new.
    until("the new price", || app.get("/products/1").good()["price_cents"] == 2 * before);
}

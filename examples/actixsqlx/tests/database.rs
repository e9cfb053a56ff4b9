//! The database: PostgreSQL instead of SQLite, and one that fails.

use cache_kit_test_support::PostgresServer;
use serde_json::json;
use sqlx::{AnyConnection, Connection as _, Executor as _};

use super::http::whole_api;
use super::support::{App, PATIENCE, until};

#[test]
fn the_api_over_postgresql() {
    let server = PostgresServer::start();
    let app = App::start(&[("DATABASE_URL", &server.url())]);
    assert_eq!(app.get("/readyz").json()["database"]["name"], "PostgreSQL");
    whole_api(&app);
    assert_eq!(server.command("SELECT count(*) FROM shop_users"), "200");
}

#[test]
fn what_is_cached_is_answered_while_postgresql_is_down_and_all_of_it_when_it_is_back() {
    let server = PostgresServer::start();
    let app = App::start(&[("DATABASE_URL", &server.url())]);
    let page = "/products?limit=5";
    let (ada, tools, products) =
        (app.get("/users/1").good(), app.get("/categories/tools").good(), app.get(page).good());

    server.kill();
    until("it is not ready", || app.get("/readyz").status == 503);
    let ready = app.get("/readyz").json();
    assert_eq!((&ready["ready"], &ready["cache"]["answers"]), (&json!(false), &json!(true)));
    assert_eq!(app.get("/healthz").status, 200);
    assert_eq!(app.get("/users/1").good(), ada);
    assert_eq!(app.get("/categories/tools").good(), tools);
    let change = json!({"name": "Ada Neu", "email": "ada.neu@example.org"});
    for reply in [app.get("/users/2"), app.get(page), app.send("PUT", "/users/3", &change)] {
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (503, &"unavailable".into()));
    }

    server.restart();
    until("it is ready", || app.get("/readyz").status == 200);
    assert_eq!(app.get("/users/2").good()["id"], 2);
    assert_eq!(app.get(page).good(), products);
    app.send("PUT", "/users/3", &change).good();
    assert_eq!(app.get("/users/3").good()["name"], "Ada Neu");
    assert_eq!(server.command("SELECT name FROM shop_users WHERE id = 3"), "Ada Neu");
}

#[test]
fn a_query_that_postgresql_breaks_off_as_it_does_when_it_is_stopped_is_answered_as_unavailable() {
    let server = PostgresServer::start();
    let app = App::start(&[("DATABASE_URL", &server.url())]);
    std::thread::scope(|scope| {
        let lock = "BEGIN; LOCK TABLE shop_users; SELECT pg_sleep(60)";
        scope.spawn(|| server.try_command(lock, PATIENCE).unwrap_err());
        let waiting = |of: &str| {
            server.command(&format!("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = '{of}'")) == "1"
        };
        until("the table is locked", || waiting("Timeout"));
        let read = scope.spawn(|| app.get("/users/1"));
        until("the query is under way", || waiting("Lock"));
        server
            .command("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
        assert_eq!(read.join().unwrap().status, 503);
        server.kill();
    });
}

#[test]
fn an_error_of_the_database_tells_the_client_nothing_of_it_and_what_is_cached_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", directory.path().join("shop.db").display());
    let app = App::start(&[("DATABASE_URL", &url)]);
    let ada = app.get("/users/1").good();
    execute(&url, "ALTER TABLE shop_users RENAME TO elsewhere");

    assert_eq!(app.get("/users/1").good(), ada);
    let replies = [
        app.get("/users/2"),
        app.get("/users"),
        app.send("PUT", "/users/1", &json!({"name": "A", "email": "a@example.org"})),
    ];
    for reply in replies {
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (500, &"internal".into()));
        let text = reply.text();
        assert!(!["shop_users", "SELECT", "table"].iter().any(|word| text.contains(word)), "{text}");
    }
    execute(&url, "ALTER TABLE elsewhere RENAME TO shop_users");
    assert_eq!(app.get("/users/2").good()["id"], 2);
    assert_eq!(app.get("/users/1").good(), ada);
}

fn execute(url: &str, statement: &'static str) {
    sqlx::any::install_default_drivers();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = AnyConnection::connect(url).await.unwrap();
        connection.execute(statement).await.unwrap();
        connection.close().await.unwrap();
    });
}

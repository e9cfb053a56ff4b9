//! The database: PostgreSQL instead of SQLite, and one that fails.

use sqlx::{AnyConnection, Connection as _, Executor as _};

use super::http::whole_api;
use super::support::App;

#[test]
#[ignore = "needs an empty PostgreSQL database: TEST_DATABASE_URL=postgres://… cargo test -p actixsqlx -- --ignored"]
fn the_api_over_postgresql() {
    let url = std::env::var("TEST_DATABASE_URL").expect("TEST_DATABASE_URL names an empty database");
    let app = App::start(&[("DATABASE_URL", &url)]);
    assert_eq!(app.get("/readyz").json()["database"]["name"], "PostgreSQL");
    whole_api(&app);
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
        app.send("PUT", "/users/1", &serde_json::json!({"name": "A", "email": "a@example.org"})),
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

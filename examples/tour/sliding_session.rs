//! Sessions that end half an hour after the last request, and after eight hours in any case.
//!
//! `cargo run -q --example sliding_session`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::time::Duration;

use cache_kit::backend::InMemoryBackend;
use cache_kit::{Cache, ManualClock, Policy};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Session {
    user: String,
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread")]
async fn main() -> cache_kit::Result<()> {
    let time = ManualClock::new();
    let policy = Policy::default().with_ttl(8 * 60 * MINUTE).with_idle(30 * MINUTE).with_ttl_jitter(0.0);
    let sessions = Cache::builder()
        .namespace("session")
        .policy(policy)
        .clock(time.clock())
        .build(InMemoryBackend::builder().clock(time.clock()).build()?)?;

    for (token, user) in [("a1", "Ada"), ("b2", "Bob")] {
        sessions.set(token, &Session { user: user.to_owned() }).await?;
    }
    println!("both log in; Ada makes a request every 20 minutes, Bob none");
    let (mut minutes, mut ada) = (0, true);
    while ada {
        time.advance(20 * MINUTE);
        minutes += 20;
        ada = is_open(&sessions, "a1").await?;
        if minutes % 120 == 0 || !ada {
            let bob =
                if minutes == 120 && !is_open(&sessions, "b2").await? { "; Bob's has ended" } else { "" };
            let hours = minutes / 60;
            println!("after {hours} h: Ada's session {}{bob}", if ada { "lives" } else { "has ended" });
        }
    }
    Ok(())
}

async fn is_open(sessions: &Cache, token: &str) -> cache_kit::Result<bool> {
    let session = sessions.get::<Session>(token).await?;
    // What lives on because it was read is written behind the reader.
    tokio::task::yield_now().await;
    Ok(session.is_some_and(|session| !session.user.is_empty()))
}

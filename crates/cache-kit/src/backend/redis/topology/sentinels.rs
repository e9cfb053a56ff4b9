//! Sentinels: who is the primary now, and who are its replicas.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use cache_kit_net::{Address, Permit};
use redis::{Cmd, Value, cmd};
use tokio::time::{sleep, timeout};

use super::super::NAME;
use super::super::conn::{Conn, Purpose};
use super::super::greeting::Role;
use super::super::line::Line;
use super::super::node::Common;
use super::super::settings::{SentinelSettings, Settings};
use super::first::first;
use crate::error::{Error, ErrorKind, Result};

/// Bounds the question to one sentinel.
const ANSWER: Duration = Duration::from_secs(1);
/// Bounds the question to one that has answered before.
const SAME_AGAIN: Duration = Duration::from_millis(250);
/// While a connection to the primary is being made, they are asked this often whether it still is.
const STILL: Duration = Duration::from_millis(100);

/// The sentinels that know a primary.
pub(in super::super) struct Sentinels {
    settings: SentinelSettings,
    /// A connection to the one that has answered last.
    line: Mutex<Option<Arc<Line>>>,
}

/// Sentinels, by whose word a server is the primary.
pub(in super::super) struct Witness {
    pub(in super::super) sentinels: Arc<Sentinels>,
    pub(in super::super) common: Arc<Common>,
    address: Address,
}

impl Witness {
    /// Whether it still is, as far as they can be asked. A server that another one has replaced may take a while to learn
    /// of it, and answers meanwhile.
    pub(in super::super) async fn confirms(&self) -> bool {
        match self.sentinels.primary(&self.common.settings).await {
            Ok(primary) => primary == self.address,
            Err(_) => true,
        }
    }
}

impl Sentinels {
    pub(super) fn new(settings: SentinelSettings) -> Self {
        Self { settings, line: Mutex::new(None) }
    }

    /// Connects to the primary. Whom the sentinels give up meanwhile is given up.
    pub(in super::super) async fn dial_primary(
        self: &Arc<Self>,
        common: &Arc<Common>,
        purpose: &Purpose,
        permit: Arc<Permit>,
    ) -> Result<Conn> {
        let settings = &common.settings;
        loop {
            let address = self.primary(settings).await?;
            {
                let mut dialing = pin!(Conn::dial(&address, settings, purpose, Arc::clone(&permit)));
                let mut replaced = pin!(self.replaced(&address, settings));
                let conn = poll_fn(|cx| {
                    if let Poll::Ready(conn) = dialing.as_mut().poll(cx) {
                        return Poll::Ready(Some(conn));
                    }
                    replaced.as_mut().poll(cx).map(|()| None)
                });
                match conn.await {
                    // A failover is under way, or the sentinel has not heard of one.
                    Some(Ok(conn)) if conn.greeting().role == Role::Replica => {
                        return Err(unavailable(format!("{address} is a replica, not the primary")));
                    }
                    Some(Ok(conn)) => {
                        let (sentinels, common) = (Arc::clone(self), Arc::clone(common));
                        let address = address.clone();
                        return Ok(conn.with_witness(Witness { sentinels, common, address }));
                    }
                    Some(Err(error)) => return Err(error),
                    None => {}
                }
            }
            // What was given up closes its socket in a moment, and only then is there room for the next.
            while Arc::strong_count(&permit) > 1 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Returns when the sentinels name another primary.
    async fn replaced(&self, address: &Address, settings: &Settings) {
        loop {
            sleep(STILL).await;
            if self.primary(settings).await.is_ok_and(|now| now != *address) {
                return;
            }
        }
    }

    /// The primary's address.
    async fn primary(&self, settings: &Settings) -> Result<Address> {
        let mut command = cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.settings.name);
        match self.ask(settings, &command).await? {
            Value::Array(parts) => match &parts[..] {
                [host, port] => address(host, port).ok_or_else(nonsense),
                _ => Err(nonsense()),
            },
            Value::Nil => {
                Err(Error::config(format!("the sentinels know no primary named `{}`", self.settings.name))
                    .with_backend(NAME)
                    .with_operation("connect")
                    .with_hint("the name is the one after `sentinel monitor` in their configuration"))
            }
            _ => Err(nonsense()),
        }
    }

    /// The addresses of the replicas that are up and in touch with the primary.
    pub(super) async fn replicas(&self, settings: &Settings) -> Result<Vec<Address>> {
        let mut command = cmd("SENTINEL");
        command.arg("REPLICAS").arg(&self.settings.name);
        let Value::Array(replicas) = self.ask(settings, &command).await? else { return Err(nonsense()) };
        Ok(replicas.iter().filter_map(replica).collect())
    }

    /// Asks the one that has answered last; if that fails, whichever of them answers first.
    async fn ask(&self, settings: &Settings, command: &Cmd) -> Result<Value> {
        let known = self.lock_line().clone();
        if let Some(line) = known {
            if let Ok(Ok(answer)) = timeout(SAME_AGAIN, line.ask("connect", command)).await {
                return Ok(answer);
            }
            self.lock_line().take();
        }
        let mut sentinels = self.settings.sentinels.clone();
        fastrand::shuffle(&mut sentinels);
        let ask = |sentinel: Address| async move {
            let credentials = self.settings.credentials.clone();
            let asked = timeout(ANSWER, async {
                let line = Line::open(&sentinel, settings, credentials).await?;
                let answer = line.ask("connect", command).await?;
                Ok((line, answer))
            });
            asked
                .await
                .unwrap_or_else(|_| Err(unavailable(format!("the sentinel {sentinel} does not answer"))))
        };
        let answer = first(sentinels.into_iter().map(ask)).await;
        let (line, answer) =
            answer.unwrap_or_else(|| Err(unavailable("no sentinel was asked".to_owned())))?;
        *self.lock_line() = Some(Arc::new(line));
        Ok(answer)
    }

    fn lock_line(&self) -> MutexGuard<'_, Option<Arc<Line>>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}

fn address(host: &Value, port: &Value) -> Option<Address> {
    let (host, port) = (text(host)?, text(port)?.parse().ok()?);
    super::redirect::node_address(host, port, None)
}

/// One entry of `SENTINEL REPLICAS`, if it is fit to be read from.
fn replica(entry: &Value) -> Option<Address> {
    let pairs: Vec<(&str, &str)> = match entry {
        Value::Array(parts) => {
            parts.chunks_exact(2).filter_map(|pair| Some((text(&pair[0])?, text(&pair[1])?))).collect()
        }
        Value::Map(pairs) => {
            pairs.iter().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect()
        }
        _ => return None,
    };
    let field = |wanted: &str| pairs.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
    let flags = field("flags")?;
    let is_down = ["s_down", "o_down", "disconnected"].iter().any(|flag| flags.contains(flag));
    let in_touch = field("master-link-status").is_none_or(|status| status == "ok");
    if is_down || !in_touch {
        return None;
    }
    super::redirect::node_address(field("ip")?, field("port")?.parse().ok()?, None)
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

fn unavailable(message: String) -> Error {
    Error::new(ErrorKind::Unavailable, message).with_backend(NAME).with_operation("connect")
}

fn nonsense() -> Error {
    unavailable("the sentinel's answer makes no sense".to_owned()).with_hint("is it a Sentinel?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_that_are_down_or_out_of_touch_are_left_out() {
        let entry = |flags: &str, link: &str| {
            let fields = ["ip", "10.0.0.1", "port", "7", "flags", flags, "master-link-status", link];
            Value::Array(fields.map(|field| Value::BulkString(field.into())).to_vec())
        };
        let there = Some(Address::Tcp { host: "10.0.0.1".to_owned(), port: 7 });
        assert_eq!(replica(&entry("slave", "ok")), there);
        for (flags, link) in [("s_down,slave", "ok"), ("slave,disconnected", "ok"), ("slave", "err")] {
            assert_eq!(replica(&entry(flags, link)), None, "{flags} {link}");
        }
    }
}

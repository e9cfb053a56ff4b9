//! Sentinels: who is the primary now, and who are its replicas.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use cache_kit_net::{Address, Permit};
use redis::{Cmd, Value, cmd};
use tokio::time::{sleep, timeout};

use super::super::NAME;
use super::super::conn::{Conn, ask_once};
use super::super::greeting::Role;
use super::super::settings::{SentinelSettings, Settings};
use super::first::first;
use crate::error::{Error, ErrorKind, Result};

/// Bounds the question to one sentinel.
const ANSWER: Duration = Duration::from_secs(1);
/// While a connection to the primary is being made, they are asked this often whether it still is.
const STILL: Duration = Duration::from_millis(100);

/// The sentinels that know a primary.
#[derive(Debug)]
pub(in super::super) struct Sentinels(SentinelSettings);

impl Sentinels {
    pub(super) fn new(settings: SentinelSettings) -> Self {
        Self(settings)
    }

    /// Connects to the primary. Whom the sentinels give up meanwhile is given up.
    pub(in super::super) async fn dial_primary(
        &self,
        settings: &Settings,
        permit: Arc<Permit>,
    ) -> Result<Conn> {
        loop {
            let address = self.primary(settings).await?;
            {
                let mut dialing = pin!(Conn::dial(&address, settings, false, Arc::clone(&permit)));
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
                    Some(conn) => return conn,
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
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.0.name);
        match self.ask(settings, &command).await? {
            Value::Array(parts) => match &parts[..] {
                [host, port] => address(host, port).ok_or_else(nonsense),
                _ => Err(nonsense()),
            },
            Value::Nil => {
                Err(Error::config(format!("the sentinels know no primary named `{}`", self.0.name))
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
        command.arg("REPLICAS").arg(&self.0.name);
        let Value::Array(replicas) = self.ask(settings, &command).await? else { return Err(nonsense()) };
        Ok(replicas.iter().filter_map(replica).collect())
    }

    async fn ask(&self, settings: &Settings, command: &Cmd) -> Result<Value> {
        let mut sentinels = self.0.sentinels.clone();
        fastrand::shuffle(&mut sentinels);
        let ask = |sentinel: Address| async move {
            let credentials = self.0.credentials.clone();
            let asked = timeout(ANSWER, ask_once(&sentinel, settings, credentials, command)).await;
            asked.unwrap_or_else(|_| Err(unavailable(format!("the sentinel {sentinel} does not answer"))))
        };
        let answer = first(sentinels.into_iter().map(ask)).await;
        answer.unwrap_or_else(|| Err(unavailable("no sentinel was asked".to_owned())))
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

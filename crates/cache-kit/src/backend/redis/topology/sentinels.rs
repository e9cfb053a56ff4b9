//! Sentinels: who is the primary now, and who are its replicas.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use cache_kit_net::{Address, Permit};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
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
const ANSWER: Duration = Duration::from_millis(500);
/// While a connection to the primary is being made, they are asked this often whether it still is.
const STILL: Duration = Duration::from_millis(100);

/// The sentinels that know a primary.
pub(in super::super) struct Sentinels {
    settings: SentinelSettings,
    /// A connection to each.
    lines: Vec<Mutex<Option<Arc<Line>>>>,
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
        let lines = settings.sentinels.iter().map(|_| Mutex::new(None)).collect();
        Self { settings, lines }
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

    /// The address that most of the sentinels name; of those that answer, where too few do.
    async fn primary(&self, settings: &Settings) -> Result<Address> {
        let mut command = cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.settings.name);
        let all = self.settings.sentinels.len();
        let mut asked: FuturesUnordered<_> =
            (0..all).map(|sentinel| self.ask_one(sentinel, settings, &command)).collect();
        let (mut votes, mut failed): (Vec<(Option<Address>, usize)>, Option<Error>) = (Vec::new(), None);
        while let Some(answer) = asked.next().await {
            let named = match answer.and_then(|answer| named(&answer)) {
                Ok(named) => named,
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            let known = votes.iter().position(|(address, _)| *address == named);
            let at = known.unwrap_or_else(|| {
                votes.push((named, 0));
                votes.len() - 1
            });
            votes[at].1 += 1;
            // One that has forgotten its configuration does not decide anything.
            if votes[at].1 > all / 2 && votes[at].0.is_some() {
                break;
            }
        }
        let most = votes.iter().filter(|(address, _)| address.is_some()).max_by_key(|(_, count)| *count);
        match (most, failed) {
            (Some((Some(address), _)), _) => Ok(address.clone()),
            (_, Some(error)) => Err(error),
            _ => Err(self.unknown()),
        }
    }

    fn unknown(&self) -> Error {
        Error::config(format!("the sentinels know no primary named `{}`", self.settings.name))
            .with_backend(NAME)
            .with_operation("connect")
            .with_hint("the name is the one after `sentinel monitor` in their configuration")
    }

    /// The addresses of the replicas that are up and in touch with the primary.
    pub(super) async fn replicas(&self, settings: &Settings) -> Result<Vec<Address>> {
        let mut command = cmd("SENTINEL");
        command.arg("REPLICAS").arg(&self.settings.name);
        let mut sentinels: Vec<usize> = (0..self.settings.sentinels.len()).collect();
        fastrand::shuffle(&mut sentinels);
        let asking = sentinels.into_iter().map(|sentinel| self.ask_one(sentinel, settings, &command));
        match first(asking).await {
            Some(Ok(Value::Array(replicas))) => Ok(replicas.iter().filter_map(replica).collect()),
            Some(Err(error)) => Err(error),
            _ => Err(nonsense()),
        }
    }

    /// Asks one of them, over a connection that is kept.
    async fn ask_one(&self, sentinel: usize, settings: &Settings, command: &Cmd) -> Result<Value> {
        let address = &self.settings.sentinels[sentinel];
        let known = self.lock_line(sentinel).clone();
        let asked = timeout(ANSWER, async {
            if let Some(line) = known
                && let Ok(answer) = line.ask("connect", command).await
            {
                return Ok(answer);
            }
            let line = Line::open(address, settings, self.settings.credentials.clone()).await?;
            let answer = line.ask("connect", command).await?;
            *self.lock_line(sentinel) = Some(Arc::new(line));
            Ok(answer)
        });
        asked.await.unwrap_or_else(|_| {
            self.lock_line(sentinel).take();
            Err(unavailable(format!("the sentinel {address} does not answer")))
        })
    }

    fn lock_line(&self, sentinel: usize) -> MutexGuard<'_, Option<Arc<Line>>> {
        self.lines[sentinel].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom a sentinel names; nobody, where it does not know the name.
fn named(answer: &Value) -> Result<Option<Address>> {
    match answer {
        Value::Array(parts) => match &parts[..] {
            [host, port] => address(host, port).map(Some).ok_or_else(nonsense),
            _ => Err(nonsense()),
        },
        Value::Nil => Ok(None),
        _ => Err(nonsense()),
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

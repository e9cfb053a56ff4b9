//! What the sentinels say, and waiting until they say something else.

use std::collections::HashMap;
use std::time::Duration;

use crate::process::wait_until;
use crate::redis::Redis;
use crate::redis::reply::Reply;
use crate::redis::sentinels::{NAME, RedisSentinels};
use crate::server::Server;

/// For one reply; who is silent for so long does not count in this round.
const REPLY: Duration = Duration::from_secs(1);

/// What a sentinel says of a server, by name.
type Fields = HashMap<String, String>;

impl RedisSentinels {
    /// How long anything is waited for. With Redis 6 it takes 20 seconds until a primary that came back after it was
    /// replaced is a replica that could take over, with later versions 3.
    pub const LIMIT: Duration = Duration::from_secs(60);

    /// The server that the sentinels advertise as primary; the one of the latest failover if they do not agree yet.
    ///
    /// # Panics
    ///
    /// When no sentinel answers.
    #[must_use]
    pub fn primary(&self) -> usize {
        let epoch = |fields: &Fields| fields.get("config-epoch").and_then(|epoch| epoch.parse::<u64>().ok());
        let latest = self.advertised().into_iter().max_by_key(epoch);
        match latest.and_then(|fields| self.index(&fields)) {
            Some(server) => server,
            None => self.give_up("a primary"),
        }
    }

    /// Kills the primary and returns which one that was; see [`Server::kill`].
    ///
    /// # Panics
    ///
    /// As [`primary`](Self::primary).
    #[expect(clippy::must_use_candidate, reason = "a test may know")]
    pub fn kill_primary(&self) -> usize {
        let primary = self.primary();
        self.servers[primary].kill();
        primary
    }

    /// Makes the sentinels replace a primary that lives, waits as
    /// [`wait_for_new_primary`](Self::wait_for_new_primary), and returns the old and the new one.
    ///
    /// The old one does not know for some seconds: until then it serves as a primary whoever is connected to it.
    ///
    /// # Panics
    ///
    /// When the sentinels refuse, as they do while there is no replica that could take over, and when it does not come
    /// about in time.
    #[expect(clippy::must_use_candidate, reason = "a test may know")]
    pub fn fail_over(&self) -> (usize, usize) {
        let old = self.primary();
        let Some(sentinel) = self.sentinels.iter().find(|sentinel| said(sentinel, &[b"PING"]).is_some())
        else {
            self.give_up("a sentinel that answers")
        };
        let reply = sentinel.command(&format!("SENTINEL FAILOVER {NAME}"));
        assert_eq!(reply, "OK", "{}", self.described());
        (old, self.wait_for_new_primary(old))
    }

    /// Waits until each sentinel that answers advertises the same other server than `old`, and that one says that it is
    /// a primary; returns which one.
    ///
    /// # Panics
    ///
    /// When that does not come about in time.
    #[expect(clippy::must_use_candidate, reason = "a test may only want to wait")]
    pub fn wait_for_new_primary(&self, old: usize) -> usize {
        let mut new = old;
        self.wait_for(&format!("another primary than server {old}"), || match self.agreed() {
            Some(primary) => {
                new = primary;
                new != old && says(&self.servers[new], "role:master")
            }
            None => false,
        });
        new
    }

    /// Waits until the sentinels that answer advertise the same primary, which lives, and know each other; and until
    /// the other server, if it lives, follows it and is seen to do so, so that it could take over.
    ///
    /// # Panics
    ///
    /// When that does not come about in time.
    pub fn wait_until_ok(&self) {
        self.wait_for("the sentinels are ready", || {
            let Some(primary) = self.agreed() else { return false };
            let followers: Vec<&Server<Redis>> =
                self.servers.iter().filter(|server| server.is_alive()).collect();
            let follows = |server: &Server<Redis>| {
                says(server, &format!("master_port:{}", self.servers[primary].port()))
                    && says(server, "master_link_status:up")
            };
            let others = followers.iter().filter(|server| server.port() != self.servers[primary].port());
            says(&self.servers[primary], "role:master")
                && others.clone().all(|server| follows(server))
                && self.advertised().iter().all(|fields| self.is_well(fields))
                && self.answering().all(|sentinel| fit_replicas(sentinel) == others.clone().count())
        });
    }

    /// The primary, if there is a sentinel that answers and no two disagree.
    fn agreed(&self) -> Option<usize> {
        let primaries: Vec<_> = self.advertised().iter().map(|fields| self.index(fields)).collect();
        let first = *primaries.first()?;
        if primaries.iter().all(|primary| *primary == first) { first } else { None }
    }

    /// What each sentinel that answers says of the primary.
    fn advertised(&self) -> Vec<Fields> {
        let primary = [&b"SENTINEL"[..], b"MASTER", NAME.as_bytes()];
        self.sentinels.iter().filter_map(|sentinel| said(sentinel, &primary)).map(fields).collect()
    }

    fn answering(&self) -> impl Iterator<Item = &Server<Redis>> {
        self.sentinels.iter().filter(|sentinel| said(sentinel, &[b"PING"]).is_some())
    }

    /// True when nothing stands against the primary, and the sentinel that says so knows the others.
    fn is_well(&self, fields: &Fields) -> bool {
        let others = (self.sentinels.len() - 1).to_string();
        fields.get("flags").is_some_and(|flags| flags == "master")
            && fields.get("num-other-sentinels") == Some(&others)
    }

    fn index(&self, fields: &Fields) -> Option<usize> {
        let port = fields.get("port")?;
        self.servers.iter().position(|server| server.port().to_string() == *port)
    }

    fn wait_for(&self, what: &str, condition: impl FnMut() -> bool) {
        if !wait_until(Self::LIMIT, condition) {
            self.give_up(what);
        }
    }

    fn give_up(&self, what: &str) -> ! {
        panic!("not in {:?}: {what}\n{}", Self::LIMIT, self.described())
    }

    fn described(&self) -> String {
        let describe = |sentinel: &Server<Redis>| {
            let of = |what: &[u8]| said(sentinel, &[b"SENTINEL", what, NAME.as_bytes()]);
            format!(
                "-- sentinel {} --\n{:?}\n{:?}",
                sentinel.addr(),
                of(b"MASTER").map(fields),
                of(b"REPLICAS")
            )
        };
        self.sentinels.iter().map(describe).collect::<Vec<_>>().join("\n")
    }
}

/// How many replicas the sentinel knows that could take over.
fn fit_replicas(sentinel: &Server<Redis>) -> usize {
    let Some(Reply::Array(replicas)) = said(sentinel, &[b"SENTINEL", b"REPLICAS", NAME.as_bytes()]) else {
        return 0;
    };
    let is = |fields: &Fields, name: &str, value: &str| fields.get(name).is_some_and(|other| other == value);
    let fit = |fields: &Fields| is(fields, "flags", "slave") && is(fields, "master-link-status", "ok");
    replicas.into_iter().map(fields).filter(fit).count()
}

fn said(server: &Server<Redis>, words: &[&[u8]]) -> Option<Reply> {
    if server.is_alive() { server.try_ask(words, REPLY).ok() } else { None }
}

/// True when this is a line of what the server says of its replication.
fn says(server: &Server<Redis>, expected: &str) -> bool {
    said(server, &[b"INFO", b"replication"])
        .is_some_and(|reply| String::from_utf8_lossy(&reply.rendered()).lines().any(|line| line == expected))
}

fn fields(reply: Reply) -> Fields {
    let Reply::Array(items) = reply else { return Fields::new() };
    let texts: Vec<String> =
        items.into_iter().map(|item| String::from_utf8_lossy(&item.rendered()).into_owned()).collect();
    texts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

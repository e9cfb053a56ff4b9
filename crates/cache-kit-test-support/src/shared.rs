//! Tests that only talk to a server may talk to one that runs already.

use crate::kind::Kind;
use crate::locate::variable;
use crate::memcached::Memcached;
use crate::redis::Redis;
use crate::server::Server;

/// The URL of a running Redis, from `CACHE_KIT_TEST_REDIS_URL`.
#[must_use]
pub fn external_redis_url() -> Option<String> {
    external::<Redis>()
}

/// `host:port` of a running Memcached, from `CACHE_KIT_TEST_MEMCACHED`.
#[must_use]
pub fn external_memcached() -> Option<String> {
    external::<Memcached>()
}

fn external<K: Kind>() -> Option<String> {
    variable(K::EXTERNAL_VAR).map(|value| value.to_string_lossy().into_owned())
}

/// A server that the test may use but not control: its own, or one that the environment names.
///
/// On a server of the environment there may be keys of others: use key prefixes that no other test has.
#[derive(Debug)]
pub enum Shared<K: Kind> {
    /// Started for this test, stopped when dropped.
    Own(Server<K>),
    /// Named by the environment, as a URL.
    External(String),
}

impl<K: Kind> Shared<K> {
    pub(crate) fn find_or_start() -> Self {
        match external::<K>() {
            Some(name) if name.contains("://") => Self::External(name),
            Some(name) => Self::External(format!("{}://{name}", K::SCHEME)),
            None => Self::Own(Server::start()),
        }
    }

    /// The server's URL.
    #[must_use]
    pub fn url(&self) -> String {
        match self {
            Self::Own(server) => server.url(),
            Self::External(url) => url.clone(),
        }
    }

    /// `host:port` of the server.
    #[must_use]
    pub fn addr(&self) -> String {
        authority(&self.url()).to_owned()
    }
}

/// `host:port` of a URL.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    rest.rsplit_once('@').map_or(rest, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::authority;

    #[test]
    fn the_address_is_the_url_without_credentials_and_path() {
        assert_eq!(authority("redis://user:p@ss@cache:6379/2?x=1"), "cache:6379");
        assert_eq!(authority("memcached://127.0.0.1:11211"), "127.0.0.1:11211");
        assert_eq!(authority("127.0.0.1:11211"), "127.0.0.1:11211");
    }
}

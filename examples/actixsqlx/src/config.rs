//! What the environment says. An error names the variable.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use cache_kit::Cache;

/// What stands for a network between the application and an embedded database.
const EMBEDDED_DELAY: Duration = Duration::from_millis(5);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// Where the rows are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Database {
    /// SQLite in a temporary directory, gone with the process.
    Temporary,
    /// SQLite or PostgreSQL by URL, which may hold a password: not to be printed.
    Url(String),
}

/// The settings of a process.
#[non_exhaustive]
pub struct Config {
    /// Where to listen; port 0 is any free one.
    pub addr: SocketAddr,
    /// Where the rows are.
    pub database: Database,
    /// Where and how to cache.
    pub cache: Cache,
    /// By how much each query is delayed; `None` is as the kind of database has it.
    pub source_delay: Option<Duration>,
    /// Whether there is the live page.
    pub live: bool,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// One line that names the variable.
    pub fn from_env() -> Result<Self, String> {
        // So that other applications can use the same server; a `CACHE_URL` can name another namespace.
        let cache = Cache::builder().namespace("shop").build_env().map_err(|error| error.to_string())?;
        Self::read(|name| std::env::var_os(name).map(std::ffi::OsString::into_string), cache)
    }

    fn read(
        var: impl Fn(&str) -> Option<Result<String, std::ffi::OsString>>,
        cache: Cache,
    ) -> Result<Self, String> {
        // Empty counts as unset, as it does for the variables of the cache.
        let var = |name: &str| match var(name) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value).filter(|value| !value.is_empty())),
            Some(Err(_)) => Err(format!("{name} is not UTF-8")),
        };
        let bind = match var("BIND")? {
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Some(text) => text.parse().map_err(|_| format!("BIND is not an IP address: `{text}`"))?,
        };
        let port = match var("PORT")? {
            None => 8080,
            Some(text) => text.parse().map_err(|_| format!("PORT is not a port number: `{text}`"))?,
        };
        let database = match var("DATABASE_URL")? {
            None => Database::Temporary,
            Some(url)
                if url.starts_with("sqlite:")
                    && (url.contains(":memory:") || url.contains("mode=memory")) =>
            {
                // Each connection of the pool would have one of its own.
                return Err(
                    "DATABASE_URL names a database in memory; without it there is a temporary one".to_owned()
                );
            }
            Some(url) if ["sqlite:", "postgres://", "postgresql://"].iter().any(|s| url.starts_with(s)) => {
                Database::Url(url)
            }
            Some(_) => {
                return Err("DATABASE_URL begins with neither `sqlite:` nor `postgres://`".to_owned());
            }
        };
        let source_delay = match var("SOURCE_DELAY")? {
            None => None,
            Some(text) => Some(delay(&text).ok_or_else(|| {
                format!("SOURCE_DELAY is neither 0 nor milliseconds up to 5000, such as `5ms`: `{text}`")
            })?),
        };
        let live = match var("LIVE")?.as_deref() {
            None | Some("on") => true,
            Some("off") => false,
            Some(text) => return Err(format!("LIVE is neither `on` nor `off`: `{text}`")),
        };
        Ok(Self { addr: SocketAddr::new(bind, port), database, cache, source_delay, live })
    }
}

impl Database {
    /// The delay of a query where nothing is said.
    pub(crate) fn usual_delay(&self) -> Duration {
        match self {
            Self::Url(url) if url.starts_with("postgres") => Duration::ZERO,
            _ => EMBEDDED_DELAY,
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("addr", &self.addr).field("live", &self.live).finish_non_exhaustive()
    }
}

/// `0`, or milliseconds such as `5ms`.
fn delay(text: &str) -> Option<Duration> {
    let number = text.strip_suffix("ms").or((text == "0").then_some(text))?;
    let delay = Duration::from_millis(number.parse().ok()?);
    (delay <= LONGEST_DELAY).then_some(delay)
}

#[cfg(test)]
mod tests {
    use cache_kit::backend::InMemoryBackend;

    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Config, String> {
        let value =
            |name: &str| vars.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).into());
        Config::read(|name| value(name).map(Ok), Cache::new(InMemoryBackend::new()))
    }

    #[test]
    fn nothing_said_is_loopback_and_embedded() {
        let config = read(&[("PORT", "")]).unwrap();
        assert_eq!(config.addr.to_string(), "127.0.0.1:8080");
        assert_eq!((config.database.clone(), config.live), (Database::Temporary, true));
        assert_eq!(config.database.usual_delay(), Duration::from_millis(5));
    }

    #[test]
    fn every_variable_is_heard() {
        let config = read(&[
            ("BIND", "::1"),
            ("PORT", "9"),
            ("DATABASE_URL", "postgres://u:p@h/shop"),
            ("SOURCE_DELAY", "12ms"),
            ("LIVE", "off"),
        ])
        .unwrap();
        assert_eq!((config.addr.to_string().as_str(), config.live), ("[::1]:9", false));
        assert_eq!(config.source_delay, Some(Duration::from_millis(12)));
        assert_eq!(config.database.usual_delay(), Duration::ZERO);
        assert_eq!(read(&[("SOURCE_DELAY", "0")]).unwrap().source_delay, Some(Duration::ZERO));
    }

    #[test]
    fn an_error_names_the_variable_and_no_password() {
        for (name, value) in [
            ("BIND", "localhost"),
            ("PORT", "70000"),
            ("DATABASE_URL", "mysql://me:secret@h/shop"),
            ("DATABASE_URL", "sqlite::memory:"),
            ("SOURCE_DELAY", "5"),
            ("SOURCE_DELAY", "6000ms"),
            ("LIVE", "yes"),
        ] {
            let problem = read(&[(name, value)]).unwrap_err();
            assert!(problem.starts_with(name) && !problem.contains("secret"), "{problem}");
        }
    }
}

//! The URLs that select a backend: `scheme://user:password@host:port,host:port/path?name=value`.
//!
//! Several hosts in one authority are beyond what URL libraries read, and they are the common case here.

use std::fmt;

use crate::error::{Error, Result};

/// A URL in its parts. `Debug` prints neither user nor password.
#[cfg_attr(
    not(any(feature = "inmemory", feature = "redis", feature = "memcached")),
    expect(dead_code, reason = "only backends of ours need it")
)]
pub(crate) struct ServiceUrl<'a> {
    pub(crate) scheme: &'a str,
    /// User and password as written, still percent-encoded.
    pub(crate) userinfo: Option<&'a str>,
    pub(crate) hosts: &'a str,
    pub(crate) path: &'a str,
    query: &'a str,
}

impl<'a> ServiceUrl<'a> {
    /// Splits a URL. The error never repeats it: it may hold a password.
    pub(crate) fn parse(url: &'a str) -> Result<Self> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(Error::config("the cache URL has no scheme")
                .with_hint("a cache URL looks like memory:// or scheme://host:port?name=value"));
        };
        if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) {
            return Err(Error::config("the scheme of the cache URL is not a name"));
        }
        let rest = rest.split_once('#').map_or(Ok(rest), |_| {
            Err(Error::config("the cache URL has a fragment (`#…`)")
                .with_hint("write a `#` in a password as %23"))
        })?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if query.contains('@') || rest.split_once('/').is_some_and(|(_, path)| path.contains('@')) {
            // What stands in front of it is the rest of a password, and must not be taken for something to name.
            return Err(Error::config("the cache URL has an `@` after the server")
                .with_hint("in a password write `@` as %40, `/` as %2F and `?` as %3F"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (userinfo, hosts) = match authority.rsplit_once('@') {
            Some((userinfo, hosts)) => (Some(userinfo), hosts),
            None => (None, authority),
        };
        Ok(Self { scheme, userinfo, hosts, path, query })
    }

    /// The parameters, to be taken one by one.
    pub(crate) fn params(&self) -> Result<Params<'a>> {
        Params::parse(self.query)
    }
}

impl fmt::Debug for ServiceUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceUrl")
            .field("scheme", &self.scheme)
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

/// The parameters of a URL. What nobody has taken in the end is an error that names it.
#[derive(Debug)]
pub(crate) struct Params<'a> {
    left: Vec<(&'a str, String)>,
    known: Vec<&'static str>,
}

impl<'a> Params<'a> {
    fn parse(query: &'a str) -> Result<Self> {
        let mut left: Vec<(&str, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
                // Not repeated: it may be the rest of a password with a `?` in it.
                return Err(Error::config("a URL parameter has a name that no parameter has")
                    .with_hint("write a `?` in a password as %3F"));
            }
            let Some(value) = percent_decode(value) else {
                return Err(Error::config(format!("URL parameter `{name}` is not valid percent-encoding")));
            };
            if left.iter().any(|(other, _)| *other == name) {
                return Err(Error::config(format!("URL parameter `{name}` is given twice")));
            }
            left.push((name, value));
        }
        Ok(Self { left, known: Vec::new() })
    }

    /// Takes a parameter, if it is there, and reads its value, which should look as `like` says.
    pub(crate) fn take<T>(
        &mut self,
        name: &'static str,
        like: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>> {
        self.known.push(name);
        let Some(at) = self.left.iter().position(|(other, _)| *other == name) else { return Ok(None) };
        let (_, value) = self.left.swap_remove(at);
        read(&value)
            .map(Some)
            .ok_or_else(|| Error::config(format!("URL parameter `{name}` cannot be read")).with_hint(like))
    }

    /// An error if a parameter is left that nobody knows; `elsewhere` says where some others belong.
    pub(crate) fn finish(self, elsewhere: &[(&str, &'static str)]) -> Result<()> {
        let Some((name, _)) = self.left.first() else { return Ok(()) };
        let error = Error::config(format!("unknown URL parameter `{name}`"));
        Err(match elsewhere.iter().find(|(other, _)| other == name) {
            Some((_, hint)) => error.with_hint(*hint),
            None if self.known.is_empty() => error.with_hint("this URL takes no parameters"),
            None => error.with_hint(format!("known here: {}", self.known.join(", "))),
        })
    }
}

/// `%41` becomes `A`; `None` if a `%` is not followed by two hexadecimal digits or the result is not UTF-8.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
            let (high, low) = (digit()?, digit()?);
            decoded.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::text;

    #[test]
    fn a_url_is_split_into_its_parts() {
        let url = ServiceUrl::parse("redis+cluster://me:p%40ss@a:1,b:2/3?ttl=5m&x=a%26b").unwrap();
        assert_eq!(
            (url.scheme, url.userinfo, url.hosts, url.path),
            ("redis+cluster", Some("me:p%40ss"), "a:1,b:2", "3")
        );
        let mut params = url.params().unwrap();
        assert_eq!(params.take("x", "", |v| Some(v.to_owned())).unwrap().unwrap(), "a&b");
        assert_eq!(params.take("absent", "", |v| Some(v.to_owned())).unwrap(), None);
        assert!(params.finish(&[]).unwrap_err().to_string().contains("`ttl`"));
    }

    #[test]
    fn no_error_and_no_debug_repeats_a_secret() {
        for url in [
            "hunter2",
            "://hunter2",
            "re dis://hunter2@h",
            "redis://u:hunter2@h#x",
            "redis://hunter2@h?a=%zz",
            "memory://u:x?hunter2=%zz",
            "redis://u:12?hunter=x@h",
            "redis://u:1/hunter@h",
        ] {
            let text = match ServiceUrl::parse(url) {
                Err(error) => format!("{error} {error:?}"),
                Ok(parsed) => format!("{parsed:?} {:?}", parsed.params()),
            };
            assert!(!text.contains("hunter"), "{text}");
        }
    }

    #[test]
    fn a_parameter_is_refused_by_name() {
        let refused = |query: &str| {
            let url = format!("memory://?{query}");
            let url = ServiceUrl::parse(&url).unwrap();
            let mut params = match url.params() {
                Ok(params) => params,
                Err(error) => return error.to_string(),
            };
            match params.take("size", text::SIZE, text::size) {
                Ok(_) => params.finish(&[("ttl", "belongs elsewhere")]).unwrap_err().to_string(),
                Err(error) => error.to_string(),
            }
        };
        assert!(refused("size=1&size=2").contains("`size` is given twice"));
        assert!(refused("size=ten").contains("`size` cannot be read"));
        assert!(refused("size=%1").contains("`size` is not valid percent-encoding"));
        assert!(refused("zise=1").contains("unknown URL parameter `zise`; known here: size"));
        assert!(refused("ttl=5m").contains("belongs elsewhere"));
    }
}

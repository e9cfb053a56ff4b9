//! How a connection is made, so that a dead peer shows and an absent one is not mistaken for a server.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::stream::Stream;

/// How long the kernel keeps sending into silence before it gives a connection up.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_millis(1_500);

/// After so long without an answer another attempt to connect is made beside those that wait.
const NEXT_ATTEMPT: Duration = Duration::from_millis(250);
/// So many wait at once, at most. The first that is answered is used, and the others are closed.
const MOST_ATTEMPTS: usize = 4;

/// Where a server is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Address {
    /// A host name or IP address, and a port. The name is resolved anew for each connection.
    Tcp {
        /// Name or address; an IPv6 address without brackets.
        host: String,
        /// Never 0.
        port: u16,
    },
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Reads `host`, `host:port`, `[v6]:port`, an IPv6 address, or the path of a unix socket (absolute, or behind
    /// `unix:`).
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, &'static str> {
        let text = text.trim();
        let path = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text));
        if let Some(path) = path {
            if !path.starts_with('/') {
                return Err("the path of a unix socket is absolute");
            }
            return Ok(Self::Unix(path.into()));
        }
        let (host, port) = split(text)?;
        if host.is_empty() {
            return Err("it has no host");
        }
        if host.chars().any(|c| c.is_whitespace() || c.is_control() || "/@?#".contains(c)) {
            return Err("write host:port");
        }
        let port = match port {
            None => default_port,
            Some(port) => match port.parse() {
                Ok(port) if port > 0 => port,
                _ => return Err("the port is a number from 1 to 65535"),
            },
        };
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

fn split(text: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(rest) = text.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((host, "")) => Ok((host, None)),
            Some((host, port)) if port.starts_with(':') => Ok((host, Some(&port[1..]))),
            _ => Err("the bracket does not end"),
        };
    }
    match text.rsplit_once(':') {
        // More than one colon, and no brackets: an IPv6 address alone.
        Some((host, _)) if host.contains(':') => Ok((text, None)),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub enum DialError {
    /// The host name cannot be resolved.
    Resolve(io::Error),
    /// No address of the host could be connected to; the error of the last one.
    Connect(io::Error),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve(_) => "the host name cannot be resolved",
            Self::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused => "connection refused",
            Self::Connect(_) => "no connection",
        })
    }
}

impl std::error::Error for DialError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resolve(error) | Self::Connect(error) => Some(error),
        }
    }
}

/// Connects: for TCP without delay (`TCP_NODELAY`), with keep-alive after a second, and on Linux with a user timeout
/// of 1.5 s. The caller bounds the time.
///
/// # Errors
/// Why none of the addresses could be connected to.
pub async fn dial(address: &Address) -> Result<Stream, DialError> {
    let (host, port) = match address {
        Address::Tcp { host, port } => (host.as_str(), *port),
        Address::Unix(path) => {
            return UnixStream::connect(path).await.map(Stream::unix).map_err(DialError::Connect);
        }
    };
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host((host, port)).await.map_err(DialError::Resolve)?.collect();
    let mut last = io::Error::other("the host name has no address");
    for address in addresses {
        let made = match connect(address).await {
            Ok(stream) => prepare(&stream).map(|()| stream),
            Err(error) => Err(error),
        };
        match made {
            Ok(stream) => return Ok(Stream::tcp(stream)),
            Err(error) => last = error,
        }
    }
    Err(DialError::Connect(last))
}

/// Connects, and tries again beside the first attempt when that takes long: where a link was down, the kernel waits a second
/// and longer before it tries again.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    loop {
        if attempts.len() < MOST_ATTEMPTS {
            attempts.spawn(TcpStream::connect(address));
        }
        match timeout(NEXT_ATTEMPT, attempts.join_next()).await {
            Ok(Some(Ok(ended))) => return ended,
            // With its runtime.
            Ok(Some(Err(_)) | None) => return Err(io::Error::other("the attempt to connect was given up")),
            Err(_) => {}
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    // A port without a server, among those that the kernel gives to clients, can connect to itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::Error::other("connected to itself: no server is there"));
    }
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(Duration::from_secs(1)).with_interval(Duration::from_secs(1)),
    )?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_to_itself_is_none() {
        // What the kernel does when the port that it picks for a client is the one that the client asks for.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let own = socket.local_addr().unwrap();
        let stream = socket.connect(own).await.unwrap();
        assert!(prepare(&stream).unwrap_err().to_string().contains("itself"));
    }

    #[test]
    fn addresses_are_written_as_people_write_them() {
        let tcp = |host: &str| Address::Tcp { host: host.to_owned(), port: 1 }.to_string();
        assert_eq!((tcp("h").as_str(), tcp("::1").as_str()), ("h:1", "[::1]:1"));
        assert_eq!(Address::Unix("/run/s".into()).to_string(), "/run/s");
    }
}

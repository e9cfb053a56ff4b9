//! Ports that nobody else uses, and that stay ours while their server is down.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use socket2::{Domain, Socket, Type};

/// Where the search for a port starts; below are the ports of well-known services.
const FIRST: u16 = 15_000;
/// The system's range where it does not say: the default of Linux, and above the ports that are handed out.
const USUAL_EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;
/// Fewer candidates than this make collisions between test processes likely.
const ENOUGH: u16 = 1_000;
const ATTEMPTS: usize = 500;

/// Never handed out twice in one process: a client that an earlier test left behind, still reconnecting, must not
/// reach the server of another test.
static HANDED_OUT: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// The ports that the system gives to outgoing connections.
#[must_use]
pub fn ephemeral_range() -> RangeInclusive<u16> {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| parse_range(&text))
        .unwrap_or(USUAL_EPHEMERAL)
}

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse::<u16>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(low)), Some(Ok(high))) if low <= high => Some(low..=high),
        _ => None,
    }
}

/// Ports that are outside the ephemeral range, and are so too `second` above. A client that connects again and again to
/// a dead port inside that range can be given this very port as its own, and then talks to itself.
fn candidates(ephemeral: &RangeInclusive<u16>, second: u16) -> RangeInclusive<u16> {
    let (low, high) = (*ephemeral.start(), *ephemeral.end());
    let needed = ENOUGH + second;
    if low >= FIRST + needed {
        FIRST..=low - 1 - second
    } else if high <= u16::MAX - needed {
        high + 1..=u16::MAX - second
    } else {
        // The range was widened to nearly everything: there is no safe port, so take a usual one.
        FIRST..=USUAL_EPHEMERAL.start() - 1 - second
    }
}

/// Says whether a server could listen on the port. The socket listens to nobody: the copy of it that a child process has
/// until it becomes another program would keep the port from the server.
fn is_free(number: u16) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, number)).into())
}

/// A port, kept from other test processes even while no server listens on it.
///
/// The hold is a UDP socket on the same number: the servers are started without UDP, the kernel frees it when the
/// process ends, and every process that uses this crate looks for it.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _holds: Vec<UdpSocket>,
}

impl Port {
    /// Finds a port where nothing listens and that no other test holds.
    pub(crate) fn reserve() -> Result<Self, String> {
        Self::reserve_with(None)
    }

    /// [`reserve`](Self::reserve) for a server that also listens on the port that is `second` above, if any.
    pub(crate) fn reserve_with(second: Option<u16>) -> Result<Self, String> {
        let range = candidates(&ephemeral_range(), second.unwrap_or_default());
        for _ in 0..ATTEMPTS {
            let number = fastrand::u16(range.clone());
            let mut handed_out = HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner);
            let handed_out = handed_out.get_or_insert_default();
            let numbers: Vec<u16> =
                [Some(number), second.map(|second| number + second)].into_iter().flatten().collect();
            if numbers.iter().any(|number| handed_out.contains(number)) {
                continue;
            }
            let hold = |number: &u16| {
                let hold = UdpSocket::bind((Ipv4Addr::LOCALHOST, *number))?;
                is_free(*number).map(|()| hold)
            };
            if let Ok(holds) = numbers.iter().map(hold).collect() {
                handed_out.extend(numbers);
                return Ok(Self { number, _holds: holds });
            }
        }
        Err(format!("no free port among {range:?} after {ATTEMPTS} attempts"))
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const SECOND: u16 = 10_000;

    #[test]
    fn candidates_avoid_the_ephemeral_range_wherever_it_lies() {
        for range in [32_768..=60_999, 16_000..=65_535, 10_000..=60_000, 1_024..=50_000] {
            let candidates = candidates(&range, 0);
            assert!(candidates.end() < range.start() || candidates.start() > range.end(), "{range:?}");
            assert!(candidates.len() >= usize::from(ENOUGH), "{range:?}");
        }
        for range in [32_768..=60_999, 27_000..=65_535, 10_000..=50_000] {
            let first = candidates(&range, SECOND);
            let last = first.end() + SECOND;
            assert!(last < *range.start() || first.start() > range.end(), "{range:?}");
            assert!(first.len() >= usize::from(ENOUGH), "{range:?}");
        }
    }

    #[test]
    fn a_range_without_room_outside_still_gives_ports() {
        assert_eq!(candidates(&(1_024..=65_535), 0), 15_000..=32_767);
        assert_eq!(candidates(&(1_024..=65_535), SECOND), 15_000..=22_767);
    }

    #[test]
    fn the_system_file_is_understood() {
        assert_eq!(parse_range("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(parse_range("5 x"), None);
        assert_eq!(parse_range(""), None);
    }

    #[test]
    fn a_reserved_port_is_held_and_never_given_twice() {
        let port = Port::reserve().unwrap();
        assert!(UdpSocket::bind((Ipv4Addr::LOCALHOST, port.number())).is_err());
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).is_ok());
        let number = port.number();
        drop(port);
        assert!(HANDED_OUT.lock().unwrap().as_ref().unwrap().contains(&number));
    }

    #[test]
    fn a_second_port_is_held_as_the_first_is() {
        let port = Port::reserve_with(Some(SECOND)).unwrap();
        for number in [port.number(), port.number() + SECOND] {
            assert!(UdpSocket::bind((Ipv4Addr::LOCALHOST, number)).is_err());
            assert!(is_free(number).is_ok());
            assert!(HANDED_OUT.lock().unwrap().as_ref().unwrap().contains(&number));
        }
    }

    #[test]
    fn a_port_where_somebody_listens_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(is_free(listener.local_addr().unwrap().port()).is_err());
    }
}

//! What can be done to a connection.

use std::time::Duration;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server: requests.
    ToServer,
    /// From the server to the client: replies.
    ToClient,
}

impl Direction {
    pub(super) const BOTH: [Self; 2] = [Self::ToServer, Self::ToClient];
}

/// How a connection ends, seen from both of its sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// As a program closes a connection: the other end reads what was sent and then the end of the stream. What it
    /// writes afterwards is answered with a reset.
    Fin,
    /// As a crashed host or a strict firewall ends one: the other end gets `ConnectionReset`.
    Rst,
}

/// What the proxy does to the bytes of one direction.
///
/// A chunk is what one read from the sender gave: a whole reply when requests are sent one by one, several replies when
/// they are pipelined. What counts bytes or bits counts for each connection apart, from its start or, if it was open
/// already, from the moment the fault was set. What happens once happens on the connection that has the next chunk,
/// and leaves the proxy forwarding as if there were no fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Each chunk arrives this much later. As on a longer line, any number of chunks can be under way: latency grows,
    /// throughput does not fall. The end of the stream is late by as much.
    Delay(Duration),
    /// A narrow line: this many bytes per second and connection, in pieces of a hundredth of a second. The sender
    /// feels it once the system's buffers are full.
    Throttle {
        /// Bytes per second; 0 is taken as 1.
        bytes_per_second: u64,
    },
    /// At most this many bytes per write, each of which leaves at once.
    Slice {
        /// Bytes per write; 0 is taken as 1.
        bytes: usize,
    },
    /// The connection ends on both sides after exactly this many bytes in this direction, without waiting for another.
    CutAfter {
        /// Bytes that still arrive. With 0 the connection ends when the first byte would have been forwarded, so that
        /// a reply can be cut before its first byte but after its request.
        bytes: u64,
        /// How it ends.
        how: Cut,
    },
    /// Nothing arrives, and the connection stays open: the end of the server's stream is not passed on either. The
    /// connection ends when the client closes it, as far as the proxy reads from the client and so can know.
    Blackhole {
        /// True: what the sender writes is taken and lost. False: the sender's buffers fill up, and what is in them
        /// arrives when another fault is set or the faults are cleared; so does the end of the stream, which the
        /// proxy has not seen before.
        keep_reading: bool,
    },
    /// As [`Blackhole`](Self::Blackhole), but everything is taken, kept in memory, and sent when another fault is set
    /// or the faults are cleared.
    Stall,
    /// The next chunk is sent twice. Once.
    DuplicateReply,
    /// The next chunk is kept and sent after the one that follows on the same connection. Once. It is sent alone when
    /// the stream ends, another fault is set or the faults are cleared.
    SwapReplies,
    /// These bytes are sent before the next chunk. Once.
    Inject(Vec<u8>),
    /// This bit of the stream is inverted: bit 0 is the lowest of the first byte, bit 8 the lowest of the second.
    FlipBit {
        /// Index of the bit.
        at: u64,
    },
    /// New connections are accepted and reset at once, whichever direction it is set for. Open ones work on.
    RefuseAccept,
}

impl Fault {
    /// True when the receiver is to notice nothing, not even the end of the stream.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self, Self::Blackhole { .. } | Self::Stall)
    }
}

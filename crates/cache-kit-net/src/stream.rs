//! The bytes of a connection, whatever carries them.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// What a stream can be inside of another one, such as TLS.
trait Wrapped: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Wrapped for T {}

/// A connected byte stream: TCP, a unix socket, or something around one of them.
pub struct Stream(Kind);

enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
    Wrapped(Box<dyn Wrapped>),
}

/// What the driver of a pipe reads from and writes to.
pub(crate) enum Io {
    Tcp(tokio::net::tcp::OwnedReadHalf),
    Unix(tokio::net::unix::OwnedReadHalf),
    Wrapped(Stream),
}

/// A way for callers to write without the driver.
pub(crate) enum Direct {
    Tcp(tokio::net::tcp::OwnedWriteHalf),
    Unix(tokio::net::unix::OwnedWriteHalf),
}

impl Stream {
    pub(crate) fn tcp(stream: TcpStream) -> Self {
        Self(Kind::Tcp(stream))
    }

    pub(crate) fn unix(stream: UnixStream) -> Self {
        Self(Kind::Unix(stream))
    }

    /// A stream around another one, such as TLS over TCP.
    pub fn wrapped(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Kind::Wrapped(Box::new(stream)))
    }

    pub(crate) fn into_parts(self) -> (Io, Option<Direct>) {
        match self.0 {
            Kind::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (Io::Tcp(read), Some(Direct::Tcp(write)))
            }
            Kind::Unix(stream) => {
                let (read, write) = stream.into_split();
                (Io::Unix(read), Some(Direct::Unix(write)))
            }
            Kind::Wrapped(_) => (Io::Wrapped(self), None),
        }
    }
}

impl Direct {
    /// Writes what the socket takes at once; `WouldBlock` if that is nothing.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(half) => half.try_write(bytes),
            Self::Unix(half) => half.try_write(bytes),
        }
    }
}

impl Io {
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // The half to write with belongs to the callers; but of a socket, either half can do both.
        match self {
            Self::Tcp(half) => {
                let socket: &TcpStream = half.as_ref();
                write_when_ready(bytes, || socket.poll_write_ready(cx), |bytes| socket.try_write(bytes))
            }
            Self::Unix(half) => {
                let socket: &UnixStream = half.as_ref();
                write_when_ready(bytes, || socket.poll_write_ready(cx), |bytes| socket.try_write(bytes))
            }
            Self::Wrapped(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    /// Sees to it that what was written leaves.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            // A socket keeps nothing back.
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Wrapped(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(half) => Pin::new(half).poll_read(cx, buf),
            Self::Unix(half) => Pin::new(half).poll_read(cx, buf),
            Self::Wrapped(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

fn write_when_ready(
    bytes: &[u8],
    mut ready: impl FnMut() -> Poll<io::Result<()>>,
    write: impl Fn(&[u8]) -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(ready())?;
        match write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return Poll::Ready(done),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Kind::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Kind::Wrapped(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Kind::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Kind::Wrapped(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Kind::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Kind::Wrapped(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Kind::Tcp(stream) => stream.is_write_vectored(),
            Kind::Unix(stream) => stream.is_write_vectored(),
            Kind::Wrapped(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Kind::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Kind::Wrapped(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Kind::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Kind::Wrapped(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Tcp(_) => "Stream::Tcp",
            Kind::Unix(_) => "Stream::Unix",
            Kind::Wrapped(_) => "Stream::Wrapped",
        })
    }
}

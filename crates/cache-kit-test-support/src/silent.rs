//! A server that takes everything and says nothing.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::acceptor::Acceptor;
use crate::open::Open;

#[derive(Debug, Default)]
struct State {
    open: Open<TcpStream>,
    received: AtomicU64,
}

/// A server that accepts, reads and discards, and never answers or closes.
///
/// Dropping it closes its connections and waits for its threads.
#[derive(Debug)]
pub struct SilentServer {
    acceptor: Acceptor,
    state: Arc<State>,
}

impl SilentServer {
    /// Starts the server on a port of its own.
    ///
    /// # Panics
    ///
    /// When there is no port or no thread to be had.
    #[must_use]
    pub fn start() -> Self {
        let state = Arc::new(State::default());
        let served = Arc::clone(&state);
        match Acceptor::start("silent-server", move |stream| serve(&served, stream)) {
            Ok(acceptor) => Self { acceptor, state },
            Err(problem) => panic!("no silent server: {problem}"),
        }
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.acceptor.port()
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state.open.count()
    }

    /// Bytes read, over all connections.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.state.received.load(Ordering::SeqCst)
    }
}

impl Drop for SilentServer {
    fn drop(&mut self) {
        let state = Arc::clone(&self.state);
        self.acceptor.stop(|| {
            state.open.close(|stream| {
                // An error means that the client has closed already.
                let _ = stream.shutdown(Shutdown::Both);
            });
        });
    }
}

fn serve(state: &State, stream: TcpStream) {
    let stream = Arc::new(stream);
    if state.open.enter(&stream) {
        let mut counted = Counted(&state.received);
        // However it ends, it has ended.
        let _ = io::copy(&mut &*stream, &mut counted);
        state.open.leave(stream);
    }
}

struct Counted<'a>(&'a AtomicU64);

impl io::Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

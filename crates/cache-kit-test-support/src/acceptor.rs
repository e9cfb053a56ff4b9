//! A listening port with a thread for each connection, and a way to end them all.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::ports::Port;

/// Ports that are tried; somebody outside this crate can take one between the check and the bind.
const ATTEMPTS: usize = 5;
/// For one attempt to wake the accepting thread.
const WAKE: Duration = Duration::from_millis(100);
/// Before the next attempt to accept, when the system has no descriptor for the connection.
const PAUSE: Duration = Duration::from_millis(5);

/// The accepting thread and, through it, the threads of the connections.
#[derive(Debug)]
pub(crate) struct Acceptor {
    port: Port,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<JoinHandle<()>>>>,
}

impl Acceptor {
    /// Listens on a port of its own and calls `serve` for each connection, in a thread with this name.
    pub(crate) fn start(
        name: &'static str,
        serve: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let (port, listener) = listen()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, serve) = (Arc::clone(&stop), Arc::new(serve));
        let accept = move || {
            let mut threads: Vec<JoinHandle<()>> = Vec::new();
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let serve = Arc::clone(&serve);
                let started = stream
                    .and_then(|stream| Builder::new().name(name.to_owned()).spawn(move || serve(stream)));
                threads.retain(|thread| !thread.is_finished());
                match started {
                    Ok(thread) => threads.push(thread),
                    Err(_) => std::thread::sleep(PAUSE),
                }
            }
            threads
        };
        let thread = Builder::new().name(name.to_owned()).spawn(accept).map_err(|error| error.to_string())?;
        Ok(Self { port, stop, thread: Some(thread) })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// Accepts nothing more, lets `end` tell the connections to end, and waits for their threads.
    pub(crate) fn stop(&mut self, end: impl FnOnce()) {
        self.stop.store(true, Ordering::SeqCst);
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port()));
        let Some(thread) = self.thread.take() else { return };
        while !thread.is_finished() {
            // Only a connection wakes a thread that accepts, on every system.
            let _ = TcpStream::connect_timeout(&addr, WAKE);
        }
        end();
        // A thread that panicked has said so on stderr.
        for thread in thread.join().unwrap_or_default() {
            let _ = thread.join();
        }
    }
}

fn listen() -> Result<(Port, TcpListener), String> {
    let mut problem = String::new();
    for _ in 0..ATTEMPTS {
        let port = Port::reserve()?;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())) {
            Ok(listener) => return Ok((port, listener)),
            Err(error) => problem = format!("port {}: {error}", port.number()),
        }
    }
    Err(format!("gave up after {ATTEMPTS} attempts; the last: {problem}"))
}

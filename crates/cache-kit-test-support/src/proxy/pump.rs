//! Carries the bytes of one direction of one connection, and does to them what the fault in force says.

use std::io::{self, Read};
use std::net::Shutdown;
use std::sync::Arc;
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::fault::{Cut, Direction, Fault};
use super::line::Chunk;
use super::script::{Lane, Script};
use super::{BUFFER, THREAD};

/// The connection is over, and so is the work of the pump.
struct Over;

type Step<T> = Result<T, Over>;

pub(super) struct Pump<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    connection: &'scope Connection,
    direction: Direction,
    lane: &'scope Lane,
    version: u64,
    fault: Option<Arc<Fault>>,
    /// Bytes since the fault was set.
    passed: u64,
    /// When a narrow line has carried what was given to it.
    free_at: Instant,
    line_started: bool,
    /// A chunk is in the line for the next one to overtake it.
    swapping: bool,
}

impl<'scope, 'env> Pump<'scope, 'env> {
    pub(super) fn new(
        scope: &'scope Scope<'scope, 'env>,
        connection: &'scope Connection,
        script: &'scope Script,
        direction: Direction,
    ) -> Self {
        let lane = script.lane(direction);
        let (version, fault) = lane.current();
        let free_at = Instant::now();
        Self {
            scope,
            connection,
            direction,
            lane,
            version,
            fault,
            passed: 0,
            free_at,
            line_started: false,
            swapping: false,
        }
    }

    /// Works until the stream ends or the connection is over.
    pub(super) fn run(mut self) {
        // The error says only what the connection knows already.
        let _ = self.carry();
        self.connection.line(self.direction).close();
    }

    fn carry(&mut self) -> Step<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = self.connection.source(self.direction).read(&mut buffer);
            if self.connection.is_over() {
                return Err(Over);
            }
            match read {
                Ok(0) => return self.finish(Cut::Fin),
                Ok(length) => {
                    self.lane.count_received(length);
                    self.forward(&mut buffer[..length])?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.finish(Cut::Rst),
            }
        }
    }

    /// Looks after each read and each wait whether another fault is in force.
    fn refresh(&mut self) {
        if self.lane.version() != self.version {
            (self.version, self.fault) = self.lane.current();
            self.passed = 0;
            self.free_at = Instant::now();
        }
    }

    fn forward(&mut self, mut chunk: &mut [u8]) -> Step<()> {
        while !chunk.is_empty() {
            self.refresh();
            let done = match self.fault.clone() {
                None => {
                    self.send(chunk)?;
                    chunk.len()
                }
                Some(fault) => self.suffer(&fault, chunk)?,
            };
            self.passed += done as u64;
            chunk = &mut chunk[done..];
        }
        Ok(())
    }

    /// Does what the fault says to the start of the chunk; returns how much of it needs no more attention.
    fn suffer(&mut self, fault: &Fault, chunk: &mut [u8]) -> Step<usize> {
        let whole = chunk.len();
        match *fault {
            Fault::Delay(by) => self.queue(chunk, Instant::now().checked_add(by))?,
            Fault::Stall => self.queue(chunk, None)?,
            Fault::Throttle { bytes_per_second } => return self.throttle(chunk, bytes_per_second.max(1)),
            Fault::Slice { bytes } => {
                let piece = bytes.clamp(1, whole);
                self.send(&chunk[..piece])?;
                return Ok(piece);
            }
            Fault::CutAfter { bytes, how } => {
                let left = bytes.saturating_sub(self.passed);
                match usize::try_from(left) {
                    Ok(left) if left <= whole => {
                        self.send(&chunk[..left])?;
                        self.connection.end(how);
                        return Err(Over);
                    }
                    _ => self.send(chunk)?,
                }
            }
            Fault::Blackhole { keep_reading: true } => {}
            Fault::Blackhole { keep_reading: false } => {
                self.wait_for_change()?;
                return Ok(0);
            }
            Fault::DuplicateReply => {
                if self.take_fault() {
                    self.send(chunk)?;
                }
                self.send(chunk)?;
            }
            Fault::SwapReplies => {
                if !self.take_fault() {
                    return Ok(0);
                }
                // As of its version, it is let go as soon as the test sets or clears anything.
                self.queue(chunk, None)?;
                self.swapping = true;
            }
            Fault::Inject(ref bytes) => {
                if self.take_fault() {
                    self.send(bytes)?;
                }
                return Ok(0);
            }
            Fault::FlipBit { at } => {
                if let Ok(index) = usize::try_from((at / 8).wrapping_sub(self.passed))
                    && let Some(byte) = chunk.get_mut(index)
                {
                    *byte ^= 1 << (at % 8);
                }
                self.send(chunk)?;
            }
            Fault::RefuseAccept => self.send(chunk)?,
        }
        Ok(whole)
    }

    /// Takes a fault that happens once; from here on this pump forwards.
    fn take_fault(&mut self) -> bool {
        self.fault = None;
        self.lane.take(self.version)
    }

    fn throttle(&mut self, chunk: &[u8], bytes_per_second: u64) -> Step<usize> {
        let piece = usize::try_from(bytes_per_second / 100).unwrap_or(usize::MAX).clamp(1, chunk.len());
        let time = Duration::from_secs_f64(piece as f64 / bytes_per_second as f64);
        let free_at = self.free_at.max(Instant::now()) + time;
        self.lane.wait(self.version, Some(free_at), || self.connection.is_over());
        if self.lane.version() != self.version {
            return Ok(0);
        }
        self.free_at = free_at;
        self.send(&chunk[..piece])?;
        Ok(piece)
    }

    /// Puts a copy into the line, whose thread writes it.
    fn queue(&mut self, bytes: &[u8], due: Option<Instant>) -> Step<()> {
        let (connection, direction) = (self.connection, self.direction);
        let line = connection.line(direction);
        if !self.line_started {
            let write = move || line.run(|bytes| connection.write(direction, bytes));
            if Builder::new().name(THREAD.to_owned()).spawn_scoped(self.scope, write).is_err() {
                connection.end(Cut::Rst);
                return Err(Over);
            }
            self.line_started = true;
        }
        line.push(Chunk { bytes: bytes.to_vec(), version: self.version, due });
        Ok(())
    }

    /// Writes after everything that is in the line, but before the chunk that is there to be overtaken.
    fn send(&mut self, bytes: &[u8]) -> Step<()> {
        let overtaken = self.take_overtaken();
        if self.line_started {
            self.connection.line(self.direction).drain();
        }
        let done = self.connection.write(self.direction, bytes)
            && overtaken.is_none_or(|overtaken| self.connection.write(self.direction, &overtaken));
        if done { Ok(()) } else { Err(Over) }
    }

    fn take_overtaken(&mut self) -> Option<Vec<u8>> {
        if std::mem::take(&mut self.swapping) {
            self.connection.line(self.direction).take_back()
        } else {
            None
        }
    }

    /// Waits until the test sets or clears something. Ends the connection when the client gives up before.
    fn wait_for_change(&mut self) -> Step<()> {
        let given_up = || self.direction == Direction::ToClient && self.connection.has_client_closed();
        self.lane.wait(self.version, None, || self.connection.is_over() || given_up());
        if given_up() {
            self.connection.end(Cut::Fin);
        }
        if self.connection.is_over() {
            return Err(Over);
        }
        self.refresh();
        Ok(())
    }

    /// Passes the end of the stream on, as what it was, after everything else.
    fn finish(&mut self, how: Cut) -> Step<()> {
        if self.direction == Direction::ToServer {
            self.connection.client_has_closed();
        }
        self.refresh();
        while self.fault.as_ref().is_some_and(|fault| fault.is_silent()) {
            if self.direction == Direction::ToServer {
                self.connection.end(how);
                return Err(Over);
            }
            self.wait_for_change()?;
        }
        if let Some(Fault::Delay(by)) = self.fault.as_deref() {
            // An empty chunk, for the end of the stream to be late too.
            self.queue(&[], Instant::now().checked_add(*by))?;
        }
        if let Some(overtaken) = self.take_overtaken() {
            self.send(&overtaken)?;
        }
        if self.line_started {
            self.connection.line(self.direction).drain();
        }
        match how {
            Cut::Rst => self.connection.end(Cut::Rst),
            // An error means that the receiver was faster.
            Cut::Fin => drop(self.connection.target(self.direction).shutdown(Shutdown::Write)),
        }
        Ok(())
    }
}

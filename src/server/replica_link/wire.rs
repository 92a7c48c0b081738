//! The socket of a link, and what was read from it and not used yet.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol as Ip, SockRef, Socket, TcpKeepalive, Type};

use crate::command::engine::Engine;
use crate::config::table::Config;
use crate::observe::stats::Counter;
use crate::replication::arrived::Comes;
use crate::server::outbound::Outbound;
use crate::server::tls::Tls;

/// How often a link that waits looks whether it is still wanted.
pub const LOOK: Duration = Duration::from_millis(50);
/// How often the primary is told that we are there.
pub const SHOW_EVERY: Duration = Duration::from_secs(1);
/// How long one attempt to connect takes: it cannot be interrupted.
const CONNECT: Duration = Duration::from_secs(5);
/// So much is read at once.
pub const READ_BYTES: usize = 64 * 1024;
/// A line of the handshake is no longer.
const LINE_BYTES: usize = 64 * 1024;

/// Connects to a primary, and agrees on TLS where there is to be some.
///
/// # Errors
/// What is to be logged.
pub fn connect(config: &Config, host: &str, port: u16, tls: &Tls) -> Result<Outbound, String> {
    let tls = config.tls_replication.then_some(tls);
    connect_plain(config, host, port)
        .and_then(|socket| Outbound::begin(socket, host, tls, CONNECT))
        .map_err(|error| format!("Error condition on socket for SYNC: {error}"))
}

fn connect_plain(config: &Config, host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::from(ErrorKind::NotFound);
    for addr in (host, port).to_socket_addrs()? {
        match connect_to(config, addr) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect_to(config: &Config, addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Ip::TCP))?;
    if let Some(from) = config.bind_source_addr.as_deref().filter(|from| !from.is_empty()) {
        let from = String::from_utf8_lossy(from);
        let mut addrs = (&*from, 0).to_socket_addrs()?;
        let from = addrs.find(|from| from.is_ipv4() == addr.is_ipv4());
        socket.bind(&from.ok_or(ErrorKind::AddrNotAvailable)?.into())?;
    }
    socket.connect_timeout(&addr.into(), CONNECT)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LOOK))?;
    let patience = Duration::from_secs(config.repl_timeout.into());
    stream.set_write_timeout(Some(patience))?;
    if config.tcp_keepalive > 0 {
        let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(config.tcp_keepalive.into()));
        // Without it a dead primary is noticed later.
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    }
    Ok(stream)
}

/// Whether a socket has something to read, or has within this time; where the system does not say, it may.
fn has_come(socket: &TcpStream, within: Duration) -> bool {
    let within = Timespec { tv_sec: 0, tv_nsec: within.subsec_nanos().into() };
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&within)).map_or(true, |ready| ready > 0)
}

/// The socket, and what was read from it and not used yet.
pub struct Wire<'e> {
    /// The socket.
    pub stream: Outbound,
    /// What is read into.
    chunk: Box<[u8]>,
    /// What was read.
    pub buf: Vec<u8>,
    /// So much of it is used.
    pub at: usize,
    /// What was read before it is wanted.
    ahead: VecDeque<Vec<u8>>,
    /// Whose link it is.
    pub engine: &'e Arc<Engine>,
    /// The link's time.
    pub turn: u64,
    stop: &'e AtomicBool,
    /// That another connection of the link has ended, for a second one.
    other_ended: Option<&'e AtomicBool>,
    /// When the primary was shown that we are there.
    newline: Instant,
}

impl<'e> Wire<'e> {
    /// For a connection that has just been made; it is to end with `stop`.
    pub fn new(stream: Outbound, engine: &'e Arc<Engine>, turn: u64, stop: &'e AtomicBool) -> Wire<'e> {
        let chunk = vec![0; READ_BYTES].into();
        let (ahead, newline) = (VecDeque::new(), Instant::now());
        Wire { stream, chunk, buf: Vec::new(), at: 0, ahead, engine, turn, stop, other_ended: None, newline }
    }

    /// For a second connection of this one's link; it is to end with the first, which `ended` tells.
    pub fn second<'s>(&self, stream: Outbound, ended: &'s AtomicBool) -> Wire<'s>
    where
        'e: 's,
    {
        Wire { other_ended: Some(ended), ..Wire::new(stream, self.engine, self.turn, self.stop) }
    }

    /// Whether the link is still wanted.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self) -> Result<(), String> {
        let ended = self.stop.load(Ordering::Acquire) || self.engine.replication.turn() != self.turn;
        if ended || self.other_ended.is_some_and(|other| other.load(Ordering::Acquire)) {
            return Err("The link to the master was ended".into());
        }
        Ok(())
    }

    /// Sends all of these.
    ///
    /// # Errors
    /// What is to be logged.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).map_err(|error| format!("Error writing to the master: {error}"))
    }

    /// Reads what is there, for `LOOK` at most; returns how many bytes came.
    ///
    /// # Errors
    /// The link has ended, or is to: what is to be logged.
    pub fn read_some(&mut self) -> Result<usize, String> {
        self.buf.drain(..self.at);
        self.at = 0;
        if let Some(block) = self.ahead.pop_front() {
            self.buf.extend_from_slice(&block);
            let primary = &mut self.engine.replication.state().primary;
            primary.ahead_bytes = primary.ahead_bytes.saturating_sub(block.len() as u64);
            return self.check().map(|()| block.len());
        }
        let n = self.fill_chunk(READ_BYTES)?;
        self.buf.extend_from_slice(&self.chunk[..n]);
        Ok(n)
    }

    /// Waits until something has come, for `LOOK` at most; returns whether it may have.
    pub fn await_some(&self) -> bool {
        // Of what is secured some may have been read from the socket already.
        !self.ahead.is_empty() || self.stream.is_secured() || has_come(self.stream.socket(), LOOK)
    }

    /// What says whether something has come that was not read, where that can be seen from outside.
    pub fn watch(&self) -> Option<Box<Comes>> {
        let socket = self.stream.socket().try_clone().ok().filter(|_| !self.stream.is_secured())?;
        Some(Box::new(move || has_come(&socket, Duration::ZERO)))
    }

    /// Reads what is there before it is wanted, `most` bytes of it and for `LOOK` at most; returns how many bytes came.
    ///
    /// # Errors
    /// As of [`Wire::read_some`].
    pub fn read_ahead(&mut self, most: usize) -> Result<usize, String> {
        let n = self.fill_chunk(most.min(READ_BYTES))?;
        let mut rest = &self.chunk[..n];
        while !rest.is_empty() {
            let full = self.ahead.back().is_none_or(|block| block.len() == READ_BYTES);
            if full {
                self.ahead.push_back(Vec::with_capacity(READ_BYTES));
            }
            let Some(block) = self.ahead.back_mut() else { break };
            let (now, later) = rest.split_at(rest.len().min(READ_BYTES - block.len()));
            block.extend_from_slice(now);
            rest = later;
        }
        let primary = &mut self.engine.replication.state().primary;
        primary.ahead_bytes += n as u64;
        primary.ahead_peak_bytes = primary.ahead_peak_bytes.max(primary.ahead_bytes);
        Ok(n)
    }

    /// Reads `most` bytes into the chunk.
    fn fill_chunk(&mut self, most: usize) -> Result<usize, String> {
        let read = self.stream.read(&mut self.chunk[..most]);
        self.check()?;
        match read {
            Ok(0) => Err("Connection with master lost.".into()),
            Ok(n) => {
                self.engine.stats.add(Counter::NetReplInputBytes, n as u64);
                Ok(n)
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
            {
                Ok(0)
            }
            Err(error) => Err(format!("I/O error reading from the master: {error}")),
        }
    }

    /// Reads until something comes.
    ///
    /// # Errors
    /// As of [`Wire::read_some`], or nothing came for too long.
    pub fn read(&mut self) -> Result<usize, String> {
        let began = Instant::now();
        loop {
            match self.read_some()? {
                // As it is configured by now.
                0 if began.elapsed().as_secs() >= self.engine.config.load().repl_timeout.into() => {
                    // In the words of old and new: somebody may look for either.
                    return Err("Timeout connecting to the MASTER... (Timeout connecting to the PRIMARY)".into());
                }
                0 => {}
                n => return Ok(n),
            }
        }
    }

    /// The next line, without its end.
    ///
    /// # Errors
    /// As of [`Wire::read`], or it has no end.
    pub fn line(&mut self) -> Result<Vec<u8>, String> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buf[self.at..]) {
                let line = &self.buf[self.at..self.at + end];
                let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                self.at += end + 1;
                return Ok(line);
            }
            if self.buf.len() - self.at > LINE_BYTES {
                return Err("The master sent a line without an end".into());
            }
            self.read()?;
        }
    }

    /// Shows the primary, now and then, that we are there while we are busy.
    pub fn show(&mut self) {
        // By a second connection nothing more is said: it is closed by the primary, who would throw away what it has yet to send
        // where something came that was not read.
        if self.other_ended.is_none() && self.newline.elapsed() >= SHOW_EVERY {
            self.newline = Instant::now();
            // What is wrong with the link shows when it is read.
            let _ = self.stream.write_all(b"\n");
        }
    }
}

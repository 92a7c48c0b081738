//! Other servers that keys are sent to: connections that are kept for a while, and what is said over them.
//!
//! What must stay true: a connection that is used is nobody else's; one on which anything went wrong is never used
//! again, because nobody knows what is still to come over it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::command::migrate::peer::{Answers, Break, Peer};
use crate::observe::log::verbose;
use crate::resp::reply::{Output, Protocol};
use crate::server::outbound::Outbound;
use crate::server::tls::Tls;

/// How many connections are kept at most.
const KEPT: usize = 64;
/// How long a connection is kept that nobody uses.
const KEPT_FOR: Duration = Duration::from_secs(10);
/// The longest line that is read of an answer.
const LINE_BYTES: usize = 64 * 1024;

/// A connection to another server.
struct Line {
    host: String,
    port: u16,
    stream: Outbound,
    /// The database that is selected there, as far as is known.
    db: i64,
    /// What we have logged in with.
    login: Vec<Vec<u8>>,
    used: Instant,
    /// Bytes that were read beyond the last answer.
    read: Vec<u8>,
}

/// The connections that are kept.
#[derive(Default)]
pub struct Peers {
    idle: Mutex<Vec<Line>>,
}

/// A new connection has database 0 selected, and yet whoever wants that one says so: as Redis does.
const NO_DB: i64 = -1;

impl Line {
    fn connect(peer: &Peer, tls: &Tls) -> Result<Line, Break> {
        let addresses = (peer.host.as_str(), peer.port).to_socket_addrs().map_err(|_| Break::Connecting)?;
        let mut stream = Err(Break::Connecting);
        for address in addresses {
            stream = TcpStream::connect_timeout(&address, peer.timeout).map_err(|_| Break::Writing);
            if stream.is_ok() {
                break;
            }
        }
        let stream = stream?;
        // Without it answers come a little later, and that is all.
        let _ = stream.set_nodelay(true);
        let tls = peer.tls.then_some(tls);
        let stream = Outbound::begin(stream, &peer.host, tls, peer.timeout).map_err(|error| {
            verbose!("No TLS with {}:{}: {error}", peer.host, peer.port);
            Break::Writing
        })?;
        Ok(Line {
            host: peer.host.clone(),
            port: peer.port,
            stream,
            db: NO_DB,
            login: Vec::new(),
            used: Instant::now(),
            read: Vec::new(),
        })
    }

    /// One line of an answer, without its end.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.read[searched..].windows(2).position(|two| two == b"\r\n").map(|at| at + searched) {
                let rest = self.read.split_off(end + 2);
                let mut line = std::mem::replace(&mut self.read, rest);
                line.truncate(end);
                return Ok(line);
            }
            searched = self.read.len().saturating_sub(1);
            if self.read.len() > LINE_BYTES {
                return Err(ErrorKind::InvalidData.into());
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.read.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// One answer: nothing, or the error in it.
    fn answer(&mut self) -> io::Result<Result<(), Vec<u8>>> {
        let line = self.line()?;
        match line.first() {
            Some(b'-') => Ok(Err(line[1..].to_vec())),
            Some(b'+' | b':') => Ok(Ok(())),
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }

    /// Sends requests and hears `count` answers; returns whether this connection may have been closed before, by the
    /// other side.
    fn exchange(
        &mut self,
        requests: &[u8],
        count: usize,
        answers: &mut Answers,
        mut hear: impl FnMut(&mut Answers, Result<(), Vec<u8>>),
    ) -> bool {
        let is_closed = |error: &io::Error| !matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock);
        if let Err(error) = self.stream.write_all(requests) {
            answers.broken = Some(Break::Writing);
            return is_closed(&error);
        }
        for answered in 0..count {
            match self.answer() {
                Ok(reply) => hear(answers, reply),
                Err(error) => {
                    answers.broken = Some(Break::Reading);
                    return is_closed(&error) && answered == 0;
                }
            }
        }
        false
    }

    /// Says everything and hears what is answered; returns whether it may have broken off only because this connection
    /// is an old one.
    fn talk(&mut self, peer: &Peer, requests: &[u8], count: usize, answers: &mut Answers) -> bool {
        let timeout = Some(peer.timeout);
        let socket = self.stream.socket();
        if socket.set_read_timeout(timeout).and_then(|()| socket.set_write_timeout(timeout)).is_err() {
            answers.broken = Some(Break::Writing);
            return true;
        }
        let (mut greeting, mut words) = (Output::new(Protocol::Resp2), 0);
        // Every time, for the password may have become another one since.
        if !peer.login.is_empty() {
            greeting.array(1 + peer.login.len());
            greeting.bulk(b"AUTH");
            peer.login.iter().for_each(|word| greeting.bulk(word));
            words += 1;
        }
        if self.db != peer.db {
            greeting.array(2);
            greeting.bulk(b"SELECT");
            greeting.bulk_integer(peer.db);
            words += 1;
        }
        if words > 0 {
            // Redis sends the keys with it, which puts them into another database where this one is refused.
            let hear = |answers: &mut Answers, reply: Result<(), Vec<u8>>| {
                if let Err(words) = reply {
                    answers.refused.get_or_insert(words);
                }
            };
            let closed = self.exchange(&greeting.to_vec(), words, answers, hear);
            if answers.broken.is_some() || answers.refused.is_some() {
                return closed;
            }
            (self.login, self.db) = (peer.login.clone(), peer.db);
        }
        self.exchange(requests, count, answers, |answers, reply| answers.replies.push(reply))
    }
}

impl Peers {
    /// Sends `requests`, `count` of them, and waits for the answers.
    ///
    /// Over a connection that was kept it is tried once more over a new one if the other side has closed it meanwhile
    /// and answered nothing.
    pub fn ask(&self, peer: &Peer, tls: &Tls, requests: &[u8], count: usize) -> Answers {
        if let Some(mut line) = self.take(peer) {
            let mut answers = Answers::default();
            if !line.talk(peer, requests, count, &mut answers) {
                self.keep(line, &answers);
                return answers;
            }
        }
        let mut answers = Answers::default();
        match Line::connect(peer, tls) {
            Ok(mut line) => {
                line.talk(peer, requests, count, &mut answers);
                self.keep(line, &answers);
            }
            Err(broken) => answers.broken = Some(broken),
        }
        answers
    }

    fn take(&self, peer: &Peer) -> Option<Line> {
        let mut idle = self.idle.lock();
        // Who has logged in as somebody cannot become nobody again.
        let fits = |line: &Line| {
            let same = line.host == peer.host && line.port == peer.port;
            same && line.stream.is_secured() == peer.tls && (line.login.is_empty() || !peer.login.is_empty())
        };
        let at = idle.iter().rposition(fits)?;
        Some(idle.swap_remove(at))
    }

    fn keep(&self, mut line: Line, answers: &Answers) {
        if answers.broken.is_some() || answers.refused.is_some() {
            return;
        }
        line.used = Instant::now();
        let mut idle = self.idle.lock();
        if idle.len() >= KEPT
            && let Some(oldest) = (0..idle.len()).min_by_key(|at| idle[*at].used)
        {
            idle.swap_remove(oldest);
        }
        idle.push(line);
    }

    /// How many connections are kept.
    pub fn kept(&self) -> usize {
        self.idle.lock().len()
    }

    /// Closes those that nobody has used for ten seconds.
    pub fn tidy(&self) {
        self.idle.lock().retain(|line| line.used.elapsed() < KEPT_FOR);
    }
}

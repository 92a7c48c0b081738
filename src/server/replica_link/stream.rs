//! The stream of a primary: its commands are run, and acknowledged.
//!
//! What must stay true: the bytes of a command become part of our stream in the same hold as its effects.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::Wake;
use std::time::{Duration, Instant};

use super::wire::{SHOW_EVERY, Wire};
use crate::client::session::{Follow, Session};
use crate::client::shared::{Link as Kind, Mark, Shared};
use crate::command::dispatch::{Batch, Executor, Request, Stop};
use crate::command::engine::{Engine, Refusal};
use crate::config::choice::PropagationErrorBehavior;
use crate::observe::log::warning;
use crate::observe::stats::Counter;
use crate::persist::aof::State as AofState;
use crate::persist::log::encode;
use crate::replication::Stage;
use crate::resp::reply::{Output, Protocol};
use crate::resp::request::{Limits, Parser, Span, Step as Parsed};
use crate::resp::value::Value;

/// So many requests are run together.
const BATCH_REQUESTS: usize = 512;

/// Ends what a link waits for, when it was told to close.
struct HangUp {
    stream: TcpStream,
    shared: Weak<Shared>,
}

impl Wake for HangUp {
    fn wake(self: Arc<Self>) {
        if self.shared.upgrade().is_some_and(|shared| shared.is_closing()) {
            // It fails only where the connection has ended already.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
    }
}

/// Follows the stream until the link ends.
///
/// # Errors
/// Why it did: what is to be logged.
pub fn run(engine: &Arc<Engine>, mut wire: Wire<'_>) -> Result<(), String> {
    let addr = |addr: io::Result<SocketAddr>| addr.map_or_else(|_| String::new(), |addr| addr.to_string());
    let socket = wire.stream.socket();
    let (peer, local) = (addr(socket.peer_addr()), addr(socket.local_addr()));
    let now_ms = engine.clock.now_ms();
    let id = engine.clients.next_id();
    let shared = Arc::new(Shared::new(id, Kind::Tcp, peer, local, socket.as_raw_fd(), now_ms));
    shared.mark(Mark::Primary, true);
    if let Ok(stream) = socket.try_clone() {
        shared.set_waker(&Arc::new(HangUp { stream, shared: Arc::downgrade(&shared) }).into());
    }
    let mut session = Session::new(shared.clone(), engine.users.owner().clone());
    session.authenticated = true;
    session.follows = Some(Box::new(Follow { turn: wire.turn, pending: Vec::new() }));
    {
        let mut state = engine.replication.state();
        wire.check()?;
        session.db = engine.replication.db.load(Ordering::Relaxed);
        let primary = &mut state.primary;
        primary.stage = Stage::Connected;
        primary.resumes = true;
        primary.client = Some(shared.clone());
        primary.heard_ms = now_ms;
        primary.read_offset = engine.replication.offset();
    }
    engine.clients.add(shared.clone());
    let _listed = Listed(engine, id);
    engine.replication.arrived.follow(wire.watch());
    engine.refuse(Refusal::CutOff, false);
    let mut stream = Stream {
        engine,
        executor: Executor::new(engine, None),
        session,
        out: Output::new(Protocol::Resp2),
        parser: Parser::new(),
        spans: Vec::new(),
        requests: Vec::new(),
    };
    let mut acked = Instant::now();
    let mut heard = Instant::now();
    ack(engine, &mut wire)?;
    loop {
        wire.at += stream.run(&wire.buf[wire.at..])?;
        engine.replication.arrived.end();
        if engine.replication.take_ack_wanted() || acked.elapsed() >= SHOW_EVERY {
            acked = Instant::now();
            ack(engine, &mut wire)?;
        }
        let came = match wire.await_some() {
            true => {
                engine.replication.arrived.begin();
                wire.read_some()
            }
            false => wire.check().map(|()| 0),
        };
        if shared.is_closing() {
            return Err("Connection with master lost: it was closed by a client.".into());
        }
        let came = came?;
        shared.take_nudge();
        if came > 0 {
            heard = Instant::now();
            let now_ms = engine.clock.now_ms();
            shared.figures.active_ms.store(now_ms, Ordering::Relaxed);
            shared.figures.net_input.fetch_add(came as u64, Ordering::Relaxed);
            let mut state = engine.replication.state();
            state.primary.heard_ms = now_ms;
            state.primary.read_offset = engine.replication.offset() + (wire.buf.len() - wire.at) as u64;
            drop(state);
        } else {
            let patience = Duration::from_secs(engine.config.load().repl_timeout.into());
            if heard.elapsed() > patience {
                return Err("MASTER timeout: no data nor PING received...".into());
            }
        }
    }
}

/// The primary among the clients, as long as this is there.
struct Listed<'e>(&'e Engine, u64);

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.0.replication.arrived.follow(None);
        self.0.clients.remove(self.1);
    }
}

/// Tells the primary how far we are.
fn ack(engine: &Engine, wire: &mut Wire<'_>) -> Result<(), String> {
    let offset = engine.replication.offset().to_string().into_bytes();
    let mut words = vec![b"REPLCONF".to_vec(), b"ACK".to_vec(), offset];
    if engine.aof.state() == AofState::On {
        let on_disk = engine.replication.on_disk(engine.aof.appender.synced());
        words.extend([b"FACK".to_vec(), on_disk.to_string().into_bytes()]);
    }
    let mut bytes = Vec::new();
    encode(&mut bytes, &words);
    engine.stats.add(Counter::NetReplOutputBytes, bytes.len() as u64);
    wire.send(&bytes)
}

/// What runs the stream's commands.
struct Stream<'e> {
    engine: &'e Arc<Engine>,
    executor: Executor,
    session: Session,
    out: Output,
    parser: Parser,
    spans: Vec<Span>,
    requests: Vec<Request>,
}

impl Stream<'_> {
    /// Runs the requests in `buf` that are whole; returns how many bytes are done with.
    fn run(&mut self, buf: &[u8]) -> Result<usize, String> {
        let limits = Limits { max_bulk: usize::MAX, authenticated: true };
        let mut done = 0;
        loop {
            self.spans.clear();
            self.requests.clear();
            let mut end = done;
            let mut whole = false;
            while self.requests.len() < BATCH_REQUESTS {
                // Nobody types what a primary sends: what does not begin as a request is not one.
                if buf.get(end).is_some_and(|byte| !matches!(byte, b'*' | b'\r' | b'\n')) {
                    return Err("Protocol error from master: an inline command".into());
                }
                match self.parser.next(buf, end, &limits, &mut self.spans) {
                    Ok(Parsed::Request { args, consumed }) => {
                        // What stands between requests counts with the one behind it.
                        let start = self.requests.is_empty().then_some(done);
                        if args > 0 {
                            let first = self.spans.len() - args;
                            self.requests.push(Request { first, args, start: start.unwrap_or(end) });
                        }
                        end += consumed;
                    }
                    Ok(Parsed::Incomplete) => {
                        whole = true;
                        break;
                    }
                    Ok(Parsed::Inline { .. }) => return Err("Protocol error from master: an inline command".into()),
                    Err(error) => return Err(format!("Protocol error from master: {error}")),
                }
            }
            if end > done {
                self.run_batch(&buf[..end], done)?;
            }
            done = end;
            if whole {
                return Ok(done);
            }
        }
    }

    /// Runs the requests that were found in `buf`, from `from` on to its end.
    fn run_batch(&mut self, buf: &[u8], from: usize) -> Result<(), String> {
        if self.requests.is_empty() {
            self.engine.replication.append(&buf[from..]);
            return Ok(());
        }
        let mut done = 0;
        while done < self.requests.len() {
            let requests = &self.requests[done..];
            let from_batch = done;
            let (ran, mut stop) = self.executor.run(
                self.engine,
                &mut self.session,
                &mut self.out,
                Batch { buf, spans: &self.spans, requests },
            );
            done += ran;
            while let Stop::Pending(pending) = stop {
                let rest = self.executor.resume(self.engine, &mut self.session, &mut self.out, pending);
                stop = rest.map_or(Stop::Done, Stop::Pending);
            }
            self.look_at_replies(buf, from_batch..done);
            if matches!(stop, Stop::Close) {
                return Err("The link to the master was ended".into());
            }
            if ran == 0 {
                // A script keeps the server busy.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if self.engine.is_refusing(Refusal::LogFailed) && !self.engine.config.load().replica_ignore_disk_write_errors {
            // What it would acknowledge from here on is not on its disk, which it was asked to see to.
            panic!("Replica was unable to write command to disk.");
        }
        if self.engine.aof.is_on() {
            self.engine.replication.note_logged(self.session.logged, self.engine.replication.offset());
        }
        Ok(())
    }

    /// Nobody reads replies, but an error means that we are no longer what the primary takes us for.
    fn look_at_replies(&mut self, buf: &[u8], ran: std::ops::Range<usize>) {
        if self.out.is_empty() {
            return;
        }
        let name = |request: &Request| {
            let span = self.spans[request.first];
            String::from_utf8_lossy(&buf[span.start..span.start + span.len]).to_ascii_lowercase()
        };
        // Each has one reply, but for this.
        let mut names = self.requests[ran].iter().map(name).filter(|name| name != "replconf");
        let replies = self.out.to_vec();
        self.out.advance(replies.len());
        let mut rest = &replies[..];
        while let Ok(Some((reply, size))) = Value::decode(rest) {
            let name = names.next();
            if let Value::Error(line) = &reply {
                let line = String::from_utf8_lossy(line);
                self.engine.stats.add(Counter::UnexpectedErrorReplies, 1);
                let known = name.filter(|name| self.engine.commands.resolve(name.as_bytes(), None).is_ok());
                let name = known.as_deref().unwrap_or("<unknown>");
                warning!(
                    "== CRITICAL == This replica is sending an error to its master: '{line}' after processing the command '{name}'"
                );
                let config = self.engine.config.load();
                // Where clients write, too, data differ in any case.
                assert!(
                    config.propagation_error_behavior == PropagationErrorBehavior::Ignore || !config.replica_read_only,
                    "propagation-error-behavior says to stop where a command of the master fails"
                );
            }
            rest = &rest[size..];
        }
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        crate::command::transaction::forget_watched(&mut self.engine.keyspace.hold_none(), &mut self.session);
    }
}

//! The link of a replica to its primary: a thread that connects, asks, takes the data set over, and follows the stream.
//!
//! What is said and what comes of the answers is decided in [`replication`](crate::replication); here are the socket
//! and the clock. What must stay true: the bytes of a command become part of our stream in the same hold as its effects;
//! a link that was told to end runs no further command.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::Wake;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol as Ip, SockRef, Socket, TcpKeepalive, Type};

use crate::client::session::{Follow, Session};
use crate::client::shared::{Link as Kind, Mark, Shared};
use crate::command::aof;
use crate::command::dispatch::{Batch, Executor, Request, Stop};
use crate::command::engine::{Engine, Refusal};
use crate::command::replication::failover;
use crate::command::replication::role::{Arrival, Taking, check, take};
use crate::config::choice::{PropagationErrorBehavior, ReplDisklessLoad};
use crate::config::table::Config;
use crate::observe::crash;
use crate::observe::log::{notice, warning};
use crate::observe::stats::Counter;
use crate::persist::aof::State as AofState;
use crate::persist::disk::{self, Temporary};
use crate::persist::log::encode;
use crate::replication::Stage;
use crate::replication::handshake::{Handshake, Introduction, Step};
use crate::replication::transfer::{Cutter, End};
use crate::resp::reply::{Output, Protocol};
use crate::resp::request::{Limits, Parser, Span, Step as Parsed};
use crate::resp::value::Value;
use crate::server::outbound::Outbound;
use crate::server::tls::Tls;

/// How often a link that waits looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);
/// How long after a link that was up began the next one is tried, at the least.
const BRIEF: Duration = Duration::from_millis(100);
/// How long a link that failed rests before the next.
const REST: Duration = Duration::from_secs(1);
/// How often the primary is told how far we are.
const ACK_EVERY: Duration = Duration::from_secs(1);
/// How long one attempt to connect takes: it cannot be interrupted.
const CONNECT: Duration = Duration::from_secs(5);
/// So much is read at once.
const READ_BYTES: usize = 64 * 1024;
/// So many requests are run together.
const BATCH_REQUESTS: usize = 512;
/// A line of the handshake is no longer.
const LINE_BYTES: usize = 64 * 1024;
/// A data set is synced every few megabytes while it is written to a file.
const SYNC_EVERY_BYTES: u64 = 8 << 20;

/// The link's thread; dropped, it ends.
pub struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic there was reported where it happened.
            let _ = thread.join();
        }
    }
}

/// Starts the thread, which follows a primary whenever there is one to follow.
///
/// # Errors
/// Where the system refuses another thread.
pub fn start(engine: Arc<Engine>, tls: Arc<Tls>) -> io::Result<Running> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    let thread = std::thread::Builder::new().name("replica".into()).spawn(move || {
        crash::prepare_thread();
        while !asked.load(Ordering::Acquire) {
            let turn = engine.replication.turn();
            if !engine.replication.is_following() || engine.is_refusing(Refusal::Loading) {
                std::thread::park_timeout(LOOK);
                continue;
            }
            let began = Instant::now();
            let ended = follow(&engine, &tls, turn, &asked);
            let was_connected = note_end(&engine, turn);
            if let Err(reason) = ended {
                warning!("{reason}");
            }
            // What was up is tried again at once, and so is another primary: the longer nobody asks, the less of the
            // stream is still held.
            let until = if was_connected { began + BRIEF } else { Instant::now() + REST };
            while Instant::now() < until {
                if asked.load(Ordering::Acquire) || engine.replication.turn() != turn {
                    break;
                }
                std::thread::park_timeout(LOOK);
            }
        }
    })?;
    Ok(Running { stop, thread: Some(thread) })
}

/// Says that the link is down; returns whether it was up.
fn note_end(engine: &Engine, turn: u64) -> bool {
    let mut state = engine.replication.state();
    // Else what is there is of another link.
    if engine.replication.turn() != turn || !engine.replication.is_following() {
        return false;
    }
    let primary = &mut state.primary;
    primary.client = None;
    let was_up = primary.stage == Stage::Connected;
    if was_up {
        primary.down_since_ms = engine.clock.now_ms();
    }
    primary.stage = Stage::Connect;
    drop(state);
    engine.refuse(Refusal::CutOff, true);
    was_up
}

/// One link, from its beginning to its end.
fn follow(engine: &Arc<Engine>, tls: &Tls, turn: u64, stop: &AtomicBool) -> Result<(), String> {
    let config = engine.config.load_full();
    let going = failover::is_going(engine);
    let introduced = introduce(engine, &config, tls, turn, stop, going);
    if going {
        failover::answered(engine, matches!(introduced, Ok((_, Step::Full(_) | Step::Continue(_)))));
    }
    let (mut wire, step) = introduced?;
    match step {
        Step::Continue(id) => {
            let mut state = engine.replication.state();
            notice!("Successful partial resynchronization with master.");
            if let Some(id) = id.filter(|id| *id != state.history.id) {
                notice!("Master replication ID changed to {id}");
                let offset = engine.replication.offset();
                state.history.rename(&id, offset);
                // They learn the name when they come back, and go on where they are.
                state.replicas.iter().for_each(|replica| replica.client.close());
            }
            drop(state);
            notice!("MASTER <-> REPLICA sync: Master accepted a Partial Resynchronization.");
        }
        Step::Full(stream) => {
            let result = receive(engine, &config, &mut wire, stream);
            let kept = result.is_err() && engine.replication.state().primary.resumes;
            if !kept {
                // What the log held was of another data set: it begins anew with this one.
                aof::begin_anew(engine);
            }
            result?;
        }
        Step::Later(reason) | Step::Failed(reason) => return Err(reason),
        Step::Await | Step::Send(_) | Step::SendForFull(_) => return Err("The handshake ended early".into()),
    }
    run_stream(engine, wire)
}

/// Connects and introduces us; returns the link and how it is to go on.
fn introduce<'e>(
    engine: &'e Arc<Engine>,
    config: &Config,
    tls: &Tls,
    turn: u64,
    stop: &'e AtomicBool,
    failover: bool,
) -> Result<(Wire<'e>, Step), String> {
    let (host, port, has) = {
        let mut state = engine.replication.state();
        state.primary.stage = Stage::Connecting;
        let has = state.primary.resumes.then(|| (state.history.id.clone(), engine.replication.offset()));
        (state.primary.host.clone(), state.primary.port, has)
    };
    notice!("Connecting to MASTER {host}:{port}");
    let tls = config.tls_replication.then_some(tls);
    let stream = connect(config, &host, port)
        .and_then(|socket| Outbound::begin(socket, &host, tls, CONNECT))
        .map_err(|error| format!("Error condition on socket for SYNC: {error}"))?;
    notice!("MASTER <-> REPLICA sync started");
    set_stage(engine, turn, Stage::Handshake)?;
    let chunk = vec![0; READ_BYTES].into();
    let mut wire = Wire { stream, chunk, buf: Vec::new(), at: 0, engine, turn, stop, newline: Instant::now() };
    if let Some((id, offset)) = &has {
        notice!("Trying a partial resynchronization (request {id}:{}).", offset + 1);
    } else {
        notice!("Partial resynchronization not possible (no cached master)");
    }
    let me = Introduction {
        auth: config.masterauth.clone().map(|password| (config.masteruser.clone(), password)),
        port: match (config.replica_announce_port, config.tls_replication, config.tls_port) {
            (0, true, port @ 1..) => port,
            (0, ..) => engine.host.port(),
            (port, ..) => port,
        },
        ip: config.replica_announce_ip.clone().filter(|ip| !ip.is_empty()),
        has,
        failover,
    };
    let (mut handshake, first) = Handshake::begin(me);
    wire.send(&first)?;
    loop {
        let line = wire.line()?;
        match handshake.line(&line) {
            Step::Await => {}
            Step::Send(bytes) => wire.send(&bytes)?,
            Step::SendForFull(bytes) => {
                notice!(
                    "Master does not support PSYNC or is in error state (reply: {})",
                    String::from_utf8_lossy(&line)
                );
                notice!("Retrying with SYNC...");
                wire.send(&bytes)?;
                return Ok((wire, Step::Full(None)));
            }
            Step::Full(Some((id, offset))) => {
                notice!("Full resync from master: {id}:{offset}");
                return Ok((wire, Step::Full(Some((id, offset)))));
            }
            step => return Ok((wire, step)),
        }
    }
}

fn set_stage(engine: &Engine, turn: u64, stage: Stage) -> Result<(), String> {
    let mut state = engine.replication.state();
    if engine.replication.turn() != turn {
        return Err("The link was ended".into());
    }
    state.primary.stage = stage;
    Ok(())
}

fn connect(config: &Config, host: &str, port: u16) -> io::Result<TcpStream> {
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

/// The socket, and what was read from it and not used yet.
struct Wire<'e> {
    stream: Outbound,
    /// What is read into.
    chunk: Box<[u8]>,
    buf: Vec<u8>,
    at: usize,
    engine: &'e Arc<Engine>,
    turn: u64,
    stop: &'e AtomicBool,
    /// When the primary was shown that we are there.
    newline: Instant,
}

impl Wire<'_> {
    /// Whether the link is still wanted.
    ///
    /// # Errors
    /// It is not.
    fn check(&self) -> Result<(), String> {
        let ended = self.stop.load(Ordering::Acquire) || self.engine.replication.turn() != self.turn;
        if ended { Err("The link to the master was ended".into()) } else { Ok(()) }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).map_err(|error| format!("Error writing to the master: {error}"))
    }

    /// Reads what is there, for `LOOK` at most; returns how many bytes came.
    fn read_some(&mut self) -> Result<usize, String> {
        self.buf.drain(..self.at);
        self.at = 0;
        let read = self.stream.read(&mut self.chunk);
        self.buf.extend_from_slice(&self.chunk[..*read.as_ref().unwrap_or(&0)]);
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
    fn read(&mut self) -> Result<usize, String> {
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
    fn line(&mut self) -> Result<Vec<u8>, String> {
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
    fn show(&mut self) {
        if self.newline.elapsed() >= ACK_EVERY {
            self.newline = Instant::now();
            // What is wrong with the link shows when it is read.
            let _ = self.stream.write_all(b"\n");
        }
    }
}

/// A data set as it comes over the link.
struct Incoming<'w, 'e> {
    wire: &'w mut Wire<'e>,
    cutter: Cutter,
    ready: Vec<u8>,
    given: usize,
}

impl Read for Incoming<'_, '_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.given == self.ready.len() {
            if self.cutter.is_over() {
                return Ok(0);
            }
            self.ready.clear();
            self.given = 0;
            let wire = &mut *self.wire;
            if wire.at == wire.buf.len() {
                wire.read().map_err(io::Error::other)?;
            }
            let used = self.cutter.take(&wire.buf[wire.at..], &mut self.ready);
            wire.at += used;
            let now_ms = wire.engine.clock.now_ms();
            let mut state = wire.engine.replication.state();
            state.primary.read_bytes = self.cutter.taken();
            state.primary.read_ms = now_ms;
            drop(state);
            wire.show();
        }
        let n = to.len().min(self.ready.len() - self.given);
        to[..n].copy_from_slice(&self.ready[self.given..self.given + n]);
        self.given += n;
        Ok(n)
    }
}

/// A file that is read while the primary is shown that we are there.
struct Shown<'w, 'e> {
    file: File,
    wire: &'w mut Wire<'e>,
}

impl Read for Shown<'_, '_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.wire.check().map_err(io::Error::other)?;
        self.wire.show();
        self.file.read(to)
    }
}

/// Takes over the data set that follows.
fn receive(
    engine: &Arc<Engine>,
    config: &Config,
    wire: &mut Wire<'_>,
    stream: Option<(String, u64)>,
) -> Result<(), String> {
    {
        let mut state = engine.replication.state();
        state.primary.stage = Stage::Transfer;
        state.primary.total_bytes = None;
        state.primary.read_bytes = 0;
        state.primary.read_ms = engine.clock.now_ms();
    }
    let end = loop {
        if let Some(end) = End::parse(&wire.line()?)? {
            break end;
        }
        engine.replication.state().primary.read_ms = engine.clock.now_ms();
    };
    let total = match end {
        End::Length(length) => Some(length),
        End::Mark(_) => None,
    };
    engine.replication.state().primary.total_bytes = total;
    let empty = || {
        let mut hold = engine.keyspace.hold_none();
        engine.keyspace.counts(&mut hold, 0).is_empty() && engine.scripts.libraries.load().is_empty()
    };
    let same = stream.as_ref().is_some_and(|(id, _)| *id == engine.replication.state().history.id);
    let taking = match config.repl_diskless_load {
        ReplDisklessLoad::Disabled => None,
        ReplDisklessLoad::OnEmptyDb => empty().then_some(Taking::Emptied),
        // What is there may be read meanwhile where it is an earlier state of what comes.
        ReplDisklessLoad::SwapDb => Some(if same { Taking::Aside } else { Taking::AsideInSilence }),
        ReplDisklessLoad::FlushBeforeLoad => Some(Taking::Emptied),
    };
    let to = if taking.is_some() { "parser" } else { "disk" };
    match total {
        Some(length) => notice!("MASTER <-> REPLICA sync: receiving {length} bytes from master to {to}"),
        None => notice!("MASTER <-> REPLICA sync: receiving streamed RDB from master with EOF to {to}"),
    }
    let turn = wire.turn;
    let mut incoming = Incoming { wire, cutter: Cutter::new(end), ready: Vec::new(), given: 0 };
    if let Some(taking) = taking {
        let arrival = Arrival { source: &mut incoming, taking, stream, turn, total_bytes: total.unwrap_or(0) };
        take(engine, arrival)?;
        // What stands between the last key and the end is nothing, or the data set was not what it seemed.
        let mut rest = [0; 1];
        return match incoming.read(&mut rest) {
            Ok(0) => Ok(()),
            _ => Err("Replication stream EOF marker is broken".into()),
        };
    }
    let received = save_to_file(engine, config, &mut incoming)?;
    let wire = incoming.wire;
    if !empty() {
        // Nothing is given up for a data set that cannot be read.
        let opened = disk::open(received.path()).ok().flatten();
        let (file, _) = opened.ok_or("Failed trying to open the RDB file that was received")?;
        check(engine, &mut Shown { file, wire: &mut *wire })?;
    }
    let path = crate::command::save::path(config);
    received.commit(&path).map_err(|error| {
        format!(
            "Failed trying to rename the temp DB into {} in MASTER <-> REPLICA synchronization: {error}",
            String::from_utf8_lossy(&config.dbfilename)
        )
    })?;
    let (file, length) =
        disk::open(&path).ok().flatten().ok_or("Failed trying to open the RDB file that was received")?;
    let mut shown = Shown { file, wire };
    take(engine, Arrival { source: &mut shown, taking: Taking::Emptied, stream, turn, total_bytes: length })?;
    if config.rdb_del_sync_files && config.save.0.is_empty() && !config.appendonly {
        notice!("Removing the RDB file obtained from the master. This replica has persistence disabled");
        disk::remove(&path);
    }
    Ok(())
}

/// Writes a data set to a file beside that which saves are written to.
fn save_to_file(engine: &Engine, config: &Config, incoming: &mut Incoming<'_, '_>) -> Result<Temporary, String> {
    use std::os::unix::ffi::OsStrExt;
    let say = |error: io::Error| {
        format!(
            "Write error or short write writing to the DB dump file needed for MASTER <-> REPLICA synchronization: {error}"
        )
    };
    let dir = Path::new(std::ffi::OsStr::from_bytes(&config.dir.0));
    let name = format!("temp-{}.{}.rdb", engine.clock.now_ms() / 1000, std::process::id());
    let mut file = Temporary::create(&dir.join(name), Some(SYNC_EVERY_BYTES)).map_err(say)?;
    let mut bytes = vec![0; READ_BYTES];
    loop {
        match incoming.read(&mut bytes) {
            Ok(0) => break,
            Ok(n) => file.write_all(&bytes[..n]).map_err(say)?,
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(file)
}

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
fn run_stream(engine: &Arc<Engine>, mut wire: Wire<'_>) -> Result<(), String> {
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
        if engine.replication.take_ack_wanted() || acked.elapsed() >= ACK_EVERY {
            acked = Instant::now();
            ack(engine, &mut wire)?;
        }
        let came = wire.read_some();
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

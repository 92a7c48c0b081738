//! A connection: reads requests, has them run in batches, writes their replies.
//!
//! Its worker polls it when its socket has news, or somebody woke it. What must stay true: requests run in the order they came;
//! bytes that others push go out between whole replies; nothing is kept of a request once its reply is
//! written, so an idle connection has no buffers.

use std::hint::cold_path;
use std::io::{self, IoSlice};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::event::epoll::EventFlags;

use crate::client::feed::Next;
use crate::client::session::{Fate, Session};
use crate::client::shared::{Mark, Shared};
use crate::command::blocking::Waiting;
use crate::command::client::{self, eviction, tracking};
use crate::command::cluster::migration::import;
use crate::command::dispatch::{Batch, NO_DATA, Pending, Request, Stop, is_data_command};
use crate::command::engine::Engine;
use crate::command::pubsub;
use crate::command::transaction::forget_watched;
use crate::observe::log::{notice, verbose, warning};
use crate::observe::stats::Counter;
use crate::resp::reply::{Mark as Place, Output, Protocol};
use crate::resp::request::{Limits, Parser, ProtocolError, Span, Step};
use crate::server::debug_line::DebugLine;
use crate::server::reactor::{Alarm, crowd};
use crate::server::stream::{Stream, send_now};
use crate::server::worker::{Tools, with_tools};
use crate::stdx::ticks::Ticks;

/// At most so many requests run before their replies are sent.
const BATCH_REQUESTS: usize = 1024;
/// At most so many bytes are sent before other connections have their turn.
const TURN_BYTES: usize = 256 * 1024;
/// At most so many reads before other connections have their turn.
const TURN_READS: usize = 8;
/// After so long, in microseconds, there is no further read before other connections have their turn: one
/// read may hold a thousand requests.
const TURN_US: u64 = 250;
/// A replica that has taken nothing for so long is not waited for.
const STUCK_MS: u64 = 1000;
/// Where no more sockets than these have news at once, each change is sent to replicas by itself. With more of them that
/// took two thirds of the requests a second (SET, 50 clients, pipelines of 16, one replica, all on two cores).
const CALM: usize = 2;
/// How much room is made for a request that comes in pieces.
const READ_BYTES: usize = 16 * 1024;

/// The largest buffer for replies that a worker keeps for the next connection.
const KEPT_BYTES: usize = 1024 * 1024;
/// The most buffers that it keeps.
const KEPT_BUFFERS: usize = 64;

/// What a connection does next.
enum State {
    /// It reads.
    Open,
    /// It waits for the end of CLIENT PAUSE.
    Paused(Alarm),
    /// A command works in pieces.
    Working(Box<Pending>),
    /// A command waits for a key, for so long at most.
    Blocked(Box<Waiting>, Option<Alarm>),
    /// Its last reply is on its way.
    Closing,
}

/// One connection.
pub struct Connection {
    engine: Arc<Engine>,
    stream: Stream,
    session: Session,
    out: Output,
    parser: Parser,
    /// What was read and not yet run: a request that is not whole, or those behind one that waits.
    input: Vec<u8>,
    state: State,
    /// When it last took something, if it is a replica.
    took_ms: u64,
    /// The connections of its worker.
    count: Arc<AtomicUsize>,
    /// Where its worker finds it.
    place: usize,
}

/// So much of what goes to a replica is taken at once.
const FEED_BYTES: usize = 64 * 1024;

/// Replies up to this size are not looked at: what Redis keeps in a client's own buffer.
const UNLIMITED_BYTES: usize = 16 * 1024;

impl Connection {
    /// A connection that was just accepted, for a worker with `count` connections, at a place there.
    pub fn new(
        engine: Arc<Engine>,
        stream: Stream,
        shared: Arc<Shared>,
        count: Arc<AtomicUsize>,
        place: usize,
    ) -> Connection {
        let account = engine.users.default_account().clone();
        Connection {
            engine,
            stream,
            session: Session::new(shared, account),
            out: Output::new(Protocol::Resp2),
            parser: Parser::new(),
            input: Vec::new(),
            state: State::Open,
            took_ms: 0,
            count,
            place,
        }
    }

    /// Sends what waits, as far as the socket takes it; `Err` where the peer is gone.
    fn flush(&mut self, cx: &mut Context<'_>, tools: &mut Tools) -> io::Result<()> {
        tools.executor.commit_all(&self.engine);
        let Some(feed) = self.session.feed.clone() else { return self.flush_alone(cx, tools) };
        cold_path();
        let mut outlet = feed.outlet();
        let flushed = self.flush_alone(cx, tools);
        outlet.is_idle = self.out.is_empty() && flushed.is_ok();
        flushed
    }

    /// The same while nobody else has the socket, nor anything that was not seen to.
    fn flush_alone(&mut self, cx: &mut Context<'_>, tools: &mut Tools) -> io::Result<()> {
        if self.waits_for_disk(cx) {
            cold_path();
            return Ok(());
        }
        if self.session.feed.is_some() {
            cold_path();
            self.take_from_feed();
        }
        if self.out.len() > UNLIMITED_BYTES {
            // Redis looks before it writes: a reply beyond the limit ends the connection however fast it reads.
            self.check_output_limit();
            if self.session.shared.is_closing() {
                return Ok(());
            }
        }
        let mut left = TURN_BYTES;
        while !self.out.is_empty() {
            if left == 0 {
                cold_path();
                give_way(cx);
                break;
            }
            // Counted before it is sent: who has read a reply finds it in CLIENT LIST.
            let figure = &self.session.shared.figures.net_output;
            let before = figure.load(Ordering::Relaxed);
            let written = match self.out.only_piece() {
                Some(piece) if piece.len() <= left => {
                    figure.store(before + piece.len() as u64, Ordering::Relaxed);
                    self.stream.write(&[IoSlice::new(piece)])
                }
                _ => {
                    let mut slices = [IoSlice::new(&[]); 16];
                    let count = self.out.slices(&mut slices, left);
                    let bytes = slices[..count].iter().map(|slice| slice.len() as u64).sum::<u64>();
                    figure.store(before + bytes, Ordering::Relaxed);
                    self.stream.write(&slices[..count])
                }
            };
            let sent = if let Poll::Ready(Ok(n)) = written { n as u64 } else { 0 };
            if sent > 0 && self.session.feed.as_ref().is_some_and(|feed| feed.is_streaming()) {
                cold_path();
                self.took_ms = self.engine.clock.now_ms();
            }
            figure.store(before + sent, Ordering::Relaxed);
            match written {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => {
                    self.out.advance(n);
                    left = left.saturating_sub(n);
                    let counter = match &self.session.feed {
                        None => Counter::NetOutputBytes,
                        Some(_) => Counter::NetReplOutputBytes,
                    };
                    let stats = self.engine.stats.worker(tools.number);
                    stats.add(counter, n as u64);
                    stats.add(Counter::WritesProcessed, 1);
                    if self.out.is_empty() && self.session.feed.is_some() {
                        self.take_from_feed();
                    }
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        if self.stream.has_unsent() {
            cold_path();
            self.stream.push()?;
        }
        if self.session.feed.is_some()
            || !self.out.is_empty()
            || self.session.shared.figures.output_bytes.load(Ordering::Relaxed) != 0
        {
            self.check_output_limit();
        }
        Ok(())
    }

    /// Lets those who change data send the stream themselves. What TLS makes of it only the connection's worker knows.
    fn let_hurry(&self) {
        let (Some(feed), Ok(socket)) = (&self.session.feed, self.stream.share()) else { return };
        let (engine, shared) = (Arc::downgrade(&self.engine), self.session.shared.clone());
        feed.let_hurry(move |bytes| {
            let sent = send_now(&socket, bytes)?;
            shared.figures.net_output.fetch_add(sent as u64, Ordering::Relaxed);
            if let Some(engine) = engine.upgrade() {
                engine.stats.add(Counter::NetReplOutputBytes, sent as u64);
            }
            Ok(sent)
        });
    }

    /// Has what goes to a replica beside replies follow these.
    fn take_from_feed(&mut self) {
        let Some(feed) = &self.session.feed else { return };
        while self.out.len() < FEED_BYTES {
            match feed.next() {
                Next::Nothing => return,
                Next::Piece(piece) => self.out.raw_bytes(piece),
                Next::Stream(at) => match self.engine.replication.read(at) {
                    Some(bytes) if bytes.is_empty() => return,
                    Some(bytes) => {
                        feed.advance(bytes.len() as u64);
                        self.out.raw_bytes(bytes);
                    }
                    // Another stream began.
                    None => return self.session.shared.close(),
                },
                Next::End if self.out.is_empty() => return self.session.shared.close(),
                Next::End => return,
            }
        }
    }

    /// Whether replies wait until the disk has what they acknowledge; the connection is woken then.
    fn waits_for_disk(&self, cx: &Context<'_>) -> bool {
        let (appender, logged) = (&self.engine.aof.appender, self.session.logged);
        logged > 0 && !appender.is_durable(logged) && !appender.wait(logged, cx.waker())
    }

    /// Closes the connection where too much waits for it. Before a replica is cut off that still takes something, those who
    /// write wait for it.
    #[cold]
    fn check_output_limit(&self) {
        let shared = &self.session.shared;
        // What a replica has yet to be sent of the stream waits for it as well, though it is there but once.
        let position = self.session.feed.as_ref().and_then(|feed| feed.position());
        let behind = position.map_or(0, |at| self.engine.replication.offset().saturating_sub(at));
        let waiting = self.out.len() + usize::try_from(behind).unwrap_or(usize::MAX);
        let figures = &shared.figures;
        let config = self.engine.config.load();
        let limits = config.client_output_buffer_limit;
        let mut limit = match () {
            () if shared.has(Mark::Monitor) || shared.has(Mark::Replica) => limits.replica,
            () if figures.is_subscribed() => limits.pubsub,
            () => limits.normal,
        };
        if shared.has(Mark::Replica) && limit.hard_bytes != 0 {
            // Who comes back may be given all of the backlog at once.
            limit.hard_bytes = limit.hard_bytes.max(config.repl_backlog_size);
        }
        let over = |bytes: u64| bytes != 0 && waiting as u64 >= bytes;
        let mut close = over(limit.hard_bytes);
        let mut near = over(limit.hard_bytes / 4 * 3);
        if over(limit.soft_bytes) {
            let now = self.engine.clock.now_ms();
            let since = figures.over_soft_limit_ms.load(Ordering::Relaxed);
            if since == 0 {
                figures.over_soft_limit_ms.store(now, Ordering::Relaxed);
            } else {
                close |= now.saturating_sub(since) > limit.soft_seconds * 1000;
                near |= now.saturating_sub(since) > limit.soft_seconds * 500;
            }
        } else {
            figures.over_soft_limit_ms.store(0, Ordering::Relaxed);
        }
        // What comes while a data set is on its way, or loaded, is sent no sooner by waiting.
        if near && !close && self.session.feed.as_ref().is_some_and(|feed| feed.is_streaming()) {
            let now = self.engine.clock.now_ms();
            if now.saturating_sub(self.took_ms) < STUCK_MS && self.engine.replication.pace(now) {
                notice!("Clients that write wait for replica {}, which is {behind} bytes behind.", shared.addr);
            }
        }
        if close && !shared.is_closing() {
            self.engine.stats.add(Counter::OutputBufferDisconnections, 1);
            warning!(
                "Client id={} addr={} scheduled to be closed ASAP for overcoming of output buffer limits.",
                shared.id,
                shared.addr
            );
            shared.close();
        }
        // Who goes for this is not weighed any more, and nobody has to go in its place.
        figures.output_bytes.store(self.out.len(), Ordering::Relaxed);
        figures.output_capacity.store(self.out.capacity(), Ordering::Relaxed);
    }

    /// Runs every whole request in `buf`; returns how many bytes are done with.
    fn process(&mut self, tools: &mut Tools, buf: &[u8]) -> usize {
        let mut at = 0;
        loop {
            tools.spans.clear();
            tools.requests.clear();
            let authenticated = self.session.authenticated;
            let max_bulk = usize::try_from(tools.executor.newest_config().proto_max_bulk_len).unwrap_or(usize::MAX);
            let limits = Limits { max_bulk, authenticated };
            // One request at a time until the client has logged in: the next may be read by other limits.
            let most = if authenticated { BATCH_REQUESTS } else { 1 };
            let mut end = at;
            let mut after = After::Nothing;
            while tools.requests.len() < most {
                match self.parser.next(buf, end, &limits, &mut tools.spans) {
                    Ok(Step::Request { args, consumed }) => {
                        end += consumed;
                        if args > 0 {
                            tools.requests.push(Request {
                                first: tools.spans.len() - args,
                                args,
                                start: end - consumed,
                            });
                        } else if self.session.feed.is_some() {
                            cold_path();
                            let now_ms = self.engine.clock.now_ms();
                            self.engine.replication.state().replicas.hear(self.session.shared.id, now_ms);
                        }
                    }
                    Ok(Step::Inline { words, consumed }) => {
                        after = After::Inline(words, consumed);
                        break;
                    }
                    Ok(Step::Incomplete) => {
                        after = After::More;
                        break;
                    }
                    Err(error) => {
                        after = After::Broken(error);
                        break;
                    }
                }
            }
            let has_run = !tools.requests.is_empty();
            if let Some(done) = self.run_batch(tools, buf, end) {
                cold_path();
                if !matches!(self.state, State::Open) {
                    return done;
                }
                at = done;
                continue;
            }
            at = end;
            match after {
                After::Nothing => {}
                After::More => return at,
                After::Inline(words, consumed) => {
                    cold_path();
                    at += consumed;
                    if self.run_inline(tools, &words) {
                        return at;
                    }
                }
                After::Broken(_) if has_run => {
                    cold_path();
                    // What was run before it may have raised the limits. It stands here from its beginning.
                    self.parser = Parser::new();
                }
                After::Broken(error) => {
                    cold_path();
                    verbose!("Protocol error ({error}) from client id={}.", self.session.shared.id);
                    self.out.error(format_args!("ERR {error}"));
                    self.state = State::Closing;
                    return buf.len();
                }
            }
        }
    }

    /// Runs the requests that were found, which end at `parsed`; where they stop early, returns how many
    /// bytes are done with.
    fn run_batch(&mut self, tools: &mut Tools, buf: &[u8], parsed: usize) -> Option<usize> {
        if tools.requests.is_empty() {
            return None;
        }
        let before = self.session.feed.is_some().then(|| (self.out.len(), self.out.mark()));
        let batch = Batch { buf, spans: &tools.spans, requests: &tools.requests };
        tools.executor.is_calm = crowd() <= CALM;
        let (ran, stop) = tools.executor.run(&self.engine, &mut self.session, &mut self.out, batch);
        if before.is_none() && self.session.feed.is_some() {
            cold_path();
            // Where that fails the stream comes in other packets, and the same.
            let _ = self.stream.set_nodelay(!tools.executor.newest_config().repl_disable_tcp_nodelay);
            self.let_hurry();
        }
        if let Some((_, mark)) = before.filter(|(before, _)| self.out.len() > *before) {
            // Among the stream a reply would be taken for a part of it.
            self.end_replica_with_reply(mark, &batch, ran);
        }
        // One that waits counts when it is over.
        let waits = matches!(stop, Stop::Waiting(_));
        self.session.shared.figures.add_commands(ran as u64 - u64::from(waits));
        tools.ran += ran as u64;
        if matches!(stop, Stop::Done) {
            return None;
        }
        cold_path();
        // Requests behind the one that stopped are read again when their time comes.
        let end = tools.requests.get(ran).map_or(parsed, |request| request.start);
        self.parser = Parser::new();
        self.stop(stop);
        Some(if matches!(self.state, State::Closing) { buf.len() } else { end })
    }

    /// Ends the connection of a replica whose last request had a reply.
    #[cold]
    fn end_replica_with_reply(&mut self, mark: Place, batch: &Batch<'_>, ran: usize) {
        let args = batch.requests[..ran].last().map(|request| batch.args(*request));
        let entry = args.and_then(|args| self.engine.commands.resolve(args.at(0), args.opt(1)).ok());
        let name = entry.map_or("", |entry| &entry.full_name);
        let client = client::described(&self.engine, &self.session.shared);
        let client = String::from_utf8_lossy(&client);
        self.out.truncate(mark);
        if entry.is_some_and(is_data_command) {
            warning!(
                "== CRITICAL == This master is sending an error to its replica: '{}' after processing the command '{name}'",
                NO_DATA.trim_start_matches("ERR ")
            );
        }
        warning!("Replica generated a reply to command '{name}', disconnecting it: {client}");
        self.session.shared.close();
    }

    /// Notes why requests do not go on.
    fn stop(&mut self, stop: Stop) {
        self.state = match stop {
            Stop::Done => State::Open,
            Stop::Paused { until_ms } => {
                self.engine.pause.wait(self.session.shared.clone());
                let wait = until_ms.saturating_sub(self.engine.clock.now_ms());
                State::Paused(Alarm::after(Duration::from_millis(wait), self.place))
            }
            Stop::Pending(pending) => State::Working(pending),
            Stop::Waiting(waiting) => {
                let wait = |until: u64| Duration::from_millis(until.saturating_sub(self.engine.clock.now_ms()));
                let alarm = waiting.until_ms().map(|until| Alarm::after(wait(until), self.place));
                State::Blocked(waiting, alarm)
            }
            Stop::Attach => {
                self.attach();
                State::Open
            }
            Stop::Close => {
                if self.session.fate == Fate::Close {
                    self.session.shared.close();
                }
                State::Closing
            }
        };
    }

    /// Runs an inline command whose words had quotes; returns whether requests stop there.
    fn run_inline(&mut self, tools: &mut Tools, words: &[Vec<u8>]) -> bool {
        let (buf, spans) = joined(words);
        let requests = [Request { first: 0, args: spans.len(), start: 0 }];
        let batch = Batch { buf: &buf, spans: &spans, requests: &requests };
        let (ran, stop) = tools.executor.run(&self.engine, &mut self.session, &mut self.out, batch);
        if ran == 0 {
            // It waits for the end of a pause, so it goes back to where it came from, spelled out.
            let mut again = Output::new(Protocol::Resp2);
            again.array(words.len());
            words.iter().for_each(|word| again.bulk(word));
            self.input = again.to_vec();
        }
        let stopped = !matches!(stop, Stop::Done);
        if stopped {
            self.stop(stop);
        }
        stopped && !matches!(self.state, State::Open)
    }

    /// Gives the session a line to its client, for the debugger.
    fn attach(&mut self) {
        let Some(debugging) = &mut self.session.debugging else { return };
        match self.stream.share() {
            Ok(socket) => debugging.line = Some(Box::new(DebugLine::new(socket))),
            Err(error) => {
                warning!("No debugger for client id={}: {error}", self.session.shared.id);
                self.session.shared.close();
            }
        }
    }

    /// Whether another process has its socket as well.
    pub fn is_shared(&self) -> bool {
        self.session.debugging.as_ref().is_some_and(|debugging| debugging.is_copied)
    }

    /// Runs what was kept of earlier reads.
    fn process_input(&mut self, tools: &mut Tools) {
        let mut input = std::mem::take(&mut self.input);
        let done = self.process(tools, &input);
        input.drain(..done);
        if self.input.is_empty() {
            self.input = if input.is_empty() { Vec::new() } else { input };
        } else {
            // An inline command that waits comes before what followed it.
            self.input.extend_from_slice(&input);
        }
    }

    /// Closes the connection where more has come than it may keep, also where its request is whole by now. What is queued
    /// for EXEC is kept too.
    fn check_query_limit(&self, tools: &mut Tools) {
        let shared = &self.session.shared;
        let most = tools.executor.newest_config().client_query_buffer_limit;
        let queued = self.session.transaction.as_ref().map_or(0, |queued| queued.sent_bytes);
        if self.input.len() as u64 + queued > most && !shared.is_closing() {
            warning!("Closing client id={} addr={} that reached max query buffer length", shared.id, shared.addr);
            self.engine.stats.add(Counter::QueryBufferDisconnections, 1);
            shared.close();
        }
    }

    /// Reads once and runs what came.
    fn read(&mut self, tools: &mut Tools) -> Poll<io::Result<Came>> {
        let mut drained = false;
        let n = if self.input.is_empty() {
            let mut scratch = std::mem::take(&mut tools.scratch);
            let read = self.stream.read(&mut scratch);
            let n = if let Poll::Ready(Ok(n)) = read { n } else { 0 };
            drained = n < scratch.len();
            if n > 0 {
                self.note_input(tools, n);
                let done = self.process(tools, &scratch[..n]);
                self.input.extend_from_slice(&scratch[done..n]);
            }
            tools.scratch = scratch;
            match read {
                Poll::Ready(read) => read?,
                Poll::Pending => return Poll::Pending,
            }
        } else {
            let missing = self.parser.missing(self.input.len());
            let room = if missing > 0 { missing } else { READ_BYTES };
            if self.input.capacity() - self.input.len() < room {
                // What a header promises is not reserved: room grows with what has arrived.
                self.input.reserve_exact(room.min(self.input.len().max(READ_BYTES)));
            }
            let read = self.stream.append(&mut self.input);
            let n = match read {
                Poll::Ready(read) => read?,
                Poll::Pending => return Poll::Pending,
            };
            if n > 0 {
                self.note_input(tools, n);
                self.check_query_limit(tools);
                // Looked at before a large request runs: who takes too much is closed instead.
                self.note_query();
                eviction::note(&self.engine, &self.session.shared);
                if !self.session.shared.is_closing() {
                    self.process_input(tools);
                }
            }
            n
        };
        self.note_query();
        self.check_query_limit(tools);
        Poll::Ready(Ok(match n {
            0 => Came::End,
            _ if drained => Came::All,
            _ => Came::Part,
        }))
    }

    /// Notes how much is kept of what was read.
    fn note_query(&self) {
        let figures = &self.session.shared.figures;
        // What stands before a long argument was read as arguments already.
        let awaited = self.input.len() - self.parser.awaited_from().min(self.input.len());
        figures.query_bytes.store(awaited, Ordering::Relaxed);
        figures.argument_bytes.store(self.input.len() - awaited, Ordering::Relaxed);
        figures.query_free.store(self.input.capacity() - self.input.len(), Ordering::Relaxed);
    }

    fn note_input(&self, tools: &Tools, n: usize) {
        let stats = self.engine.stats.worker(tools.number);
        stats.add(Counter::NetInputBytes, n as u64);
        stats.add(Counter::ReadsProcessed, 1);
        self.session.shared.figures.add_net_input(n as u64);
    }

    /// One turn; ready when the connection has ended.
    fn turn(&mut self, cx: &mut Context<'_>, tools: &mut Tools, began: Ticks) -> Poll<()> {
        for read in 0..TURN_READS {
            if read > 0 && began.elapsed_us() >= TURN_US {
                break;
            }
            // The reply of a command that works in pieces is not torn apart by what others push.
            // Nor does it come before the reply of one that was blocked, which brought it about.
            let replies = match &self.state {
                State::Working(_) => true,
                State::Blocked(waiting, _) => waiting.is_over(),
                _ => false,
            };
            let nudged = !replies && self.session.shared.take_nudge();
            if nudged {
                cold_path();
                pubsub::settle(&mut self.session);
                self.session.shared.outbox.drain(&mut self.out);
            }
            if !matches!(self.state, State::Open) {
                match self.resume(cx, tools, nudged) {
                    ControlFlow::Continue(()) => continue,
                    ControlFlow::Break(ends) => return ends,
                }
            }
            if self.session.shared.is_closing() {
                return Poll::Ready(());
            }
            let to_send = !self.out.is_empty() || self.session.feed.is_some() || self.stream.has_unsent();
            if to_send && self.flush(cx, tools).is_err() || self.session.shared.is_closing() {
                return Poll::Ready(());
            }
            // What comes behind waits with its replies: else they might never leave.
            if !self.out.is_empty() && self.waits_for_disk(cx) {
                cold_path();
                return Poll::Pending;
            }
            let came = match self.read(tools) {
                Poll::Ready(Ok(Came::End)) if self.out.is_empty() && !self.stream.has_unsent() => {
                    return Poll::Ready(());
                }
                // Who has said all may still want to read what was answered.
                Poll::Ready(Ok(Came::End)) => {
                    self.state = State::Closing;
                    continue;
                }
                Poll::Ready(Ok(came)) => came,
                Poll::Ready(Err(error)) => {
                    cold_path();
                    if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) {
                        let addr = &self.session.shared.addr;
                        verbose!("Error accepting a client connection: {error} (addr={addr})");
                    }
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            };
            if matches!(self.state, State::Open) && !self.out.is_empty() {
                if !tools.answering && tools.executor.would_write(&self.engine) {
                    tools.unanswered.push(self.place);
                    return Poll::Pending;
                }
                // Otherwise sent at once: kept until all connections that were ready had been read, replies cost as
                // much and came a fifth later (GET, 50 clients, no pipeline).
                if self.flush(cx, tools).is_err() {
                    return Poll::Ready(());
                }
            }
            // Another read would find nothing; it is enough to be told of what comes.
            let idle = came == Came::All && matches!(self.state, State::Open);
            if idle && !self.stream.is_readable() {
                return Poll::Pending;
            }
        }
        go_on_later(cx);
        Poll::Pending
    }

    /// Goes on with what its client waits for, if its time has come: then there may be more to do. Otherwise this turn
    /// ends so.
    #[cold]
    fn resume(&mut self, cx: &mut Context<'_>, tools: &mut Tools, nudged: bool) -> ControlFlow<Poll<()>> {
        match std::mem::replace(&mut self.state, State::Open) {
            State::Open => {}
            State::Paused(alarm) => {
                if !alarm.has_rung() && !nudged {
                    self.state = State::Paused(alarm);
                    return ControlFlow::Break(self.flush_or_end(cx, tools));
                }
                self.engine.pause.forget(self.session.shared.id);
                self.process_input(tools);
            }
            State::Working(pending) => {
                match tools.executor.resume(&self.engine, &mut self.session, &mut self.out, pending) {
                    Some(pending) => {
                        self.state = State::Working(pending);
                        give_way(cx);
                        return ControlFlow::Break(self.flush_or_end(cx, tools));
                    }
                    None => self.process_input(tools),
                }
            }
            State::Blocked(waiting, alarm) => {
                if alarm.as_ref().is_some_and(Alarm::has_rung) {
                    waiting.time_out();
                }
                if !waiting.is_over() {
                    self.state = State::Blocked(waiting, alarm);
                    return ControlFlow::Break(self.read_aside(cx, tools));
                }
                tools.executor.resume_wait(&self.engine, &mut self.session, &mut self.out, &waiting);
                self.session.shared.figures.add_commands(1);
                self.process_input(tools);
            }
            State::Closing => {
                self.state = State::Closing;
                if self.session.shared.is_closing() || self.flush(cx, tools).is_err() {
                    return ControlFlow::Break(Poll::Ready(()));
                }
                let has_sent = self.out.is_empty() && !self.stream.has_unsent();
                return ControlFlow::Break(if has_sent { Poll::Ready(()) } else { Poll::Pending });
            }
        }
        ControlFlow::Continue(())
    }

    /// While a command waits: keeps what is sent meanwhile, and sees when the client goes.
    fn read_aside(&mut self, cx: &mut Context<'_>, tools: &mut Tools) -> Poll<()> {
        if self.session.shared.is_closing() || self.flush(cx, tools).is_err() {
            return Poll::Ready(());
        }
        while self.stream.is_readable() {
            self.input.reserve(READ_BYTES);
            let read = self.stream.append(&mut self.input);
            if self.input.is_empty() {
                self.input = Vec::new();
            }
            match read {
                Poll::Ready(Ok(n)) if n > 0 => {
                    self.note_input(tools, n);
                    self.note_query();
                    self.check_query_limit(tools);
                    if self.session.shared.is_closing() {
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    fn flush_or_end(&mut self, cx: &mut Context<'_>, tools: &mut Tools) -> Poll<()> {
        if self.session.shared.is_closing() || self.flush(cx, tools).is_err() {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

/// Has the connection polled again once the others had their turn, those included whose requests have yet
/// to be read from their sockets.
fn go_on_later(cx: &Context<'_>) {
    cx.waker().wake_by_ref();
}

/// The same for what is long, where there are more threads than cores as well: without it the system lets
/// another worker, woken by a request on the same core, wait for some milliseconds.
fn give_way(cx: &Context<'_>) {
    go_on_later(cx);
    std::thread::yield_now();
}

/// What a read brought.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    /// All that the socket had.
    All,
    /// As much as there was room for: there may be more.
    Part,
    /// The end of the stream.
    End,
}

/// What follows the requests of a batch in the read buffer.
enum After {
    Nothing,
    More,
    Inline(Vec<Vec<u8>>, usize),
    Broken(ProtocolError),
}

/// Words as one buffer with spans.
pub fn joined<W: AsRef<[u8]>>(words: &[W]) -> (Vec<u8>, Vec<Span>) {
    let (mut buf, mut spans) = (Vec::new(), Vec::with_capacity(words.len()));
    for word in words {
        let word = word.as_ref();
        spans.push(Span { start: buf.len(), len: word.len() });
        buf.extend_from_slice(word);
    }
    (buf, spans)
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Connection {
    /// Notes what the system told of its socket.
    pub fn note(&mut self, flags: EventFlags) {
        self.stream.note(flags);
    }

    /// Has its say while a script keeps the worker: reads what has come, and answers what may be answered meanwhile.
    /// Sockets are read and written directly, since the runtime does not get to look at them.
    pub fn serve_while_busy(&mut self, tools: &mut Tools) {
        if !matches!(self.state, State::Open) || self.session.shared.is_closing() {
            return;
        }
        let mut scratch = std::mem::take(&mut tools.scratch);
        loop {
            match self.stream.read_now(&mut scratch) {
                Ok(n @ 1..) => {
                    self.note_input(tools, n);
                    self.input.extend_from_slice(&scratch[..n]);
                    self.process_input(tools);
                    if n < scratch.len() || !matches!(self.state, State::Open) {
                        break;
                    }
                }
                // An end of the stream is found again when its own turn comes.
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // What TLS has found wrong is not: it has taken it in.
                Err(_) => {
                    self.session.shared.close();
                    break;
                }
            }
        }
        tools.scratch = scratch;
        tools.executor.commit_all(&self.engine);
        while !self.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); 16];
            let count = self.out.slices(&mut slices, TURN_BYTES);
            let Ok(n @ 1..) = self.stream.write_now(&slices[..count]) else { break };
            self.out.advance(n);
            self.engine.stats.worker(tools.number).add(Counter::NetOutputBytes, n as u64);
            self.session.shared.figures.net_output.fetch_add(n as u64, Ordering::Relaxed);
        }
        // What could not be sent yet is, once the worker is free.
        self.session.shared.wake();
    }

    /// Does what there is to do; ready when the connection has ended.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let this = self;
        with_tools(|tools| {
            if this.out.is_empty() {
                this.out.lend(tools.replies.pop().unwrap_or_default());
            }
            let started = Ticks::now();
            let turn = this.turn(cx, tools, started);
            eviction::note(&this.engine, &this.session.shared);
            tools.count_turn(&this.engine, started);
            // A buffer that one large reply has made large is not kept.
            let back = this.out.take_back().filter(|buf| (1..=KEPT_BYTES).contains(&buf.capacity()));
            if tools.replies.len() < KEPT_BUFFERS {
                tools.replies.extend(back);
            }
            turn
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let id = self.session.shared.id;
        import::closed(&self.engine, &self.session);
        pubsub::leave(&self.engine, &mut self.session);
        tracking::stop(&self.engine, &mut self.session);
        if let State::Blocked(waiting, _) = &self.state {
            waiting.leave(&self.engine.keyspace);
        }
        forget_watched(&mut self.engine.keyspace.hold_none(), &mut self.session);
        self.engine.monitors.remove(id);
        self.engine.pause.forget(id);
        self.engine.clients.remove(id);
        self.engine.replication.forget(id, self.engine.clock.now_ms());
        if let Some(feed) = &self.session.feed {
            feed.leave();
            warning!("Connection with replica client id={id} addr={} lost.", self.session.shared.addr);
        }
        self.engine.weights.forget(&self.session.shared);
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

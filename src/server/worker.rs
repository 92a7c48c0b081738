//! A worker: a thread with an event loop of its own, on which its connections live from first to last.

use std::cell::RefCell;
use std::hint::cold_path;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::epoll;

use crate::client::shared::Shared;
use crate::command::dispatch::{Executor, Request};
use crate::command::engine::Engine;
use crate::observe::crash;
use crate::observe::stats::{Counter, Peak};
use crate::resp::request::Span;
use crate::server::connection::Connection;
use crate::server::reactor::{Cause, Letters, Mailbox, Reactor, Sleeper};
use crate::server::stream::{Socket, Stream};
use crate::server::tls::Layer;
use crate::stdx::ticks::Ticks;
use crate::stdx::turns::take_short_turns;

/// What a worker reads into: one buffer for all its connections, which stays in the cache.
const SCRATCH_BYTES: usize = 64 * 1024;

/// What a worker's connections share; each has it while it is polled.
pub struct Tools {
    /// Runs requests.
    pub executor: Executor,
    /// The worker's number.
    pub number: usize,
    /// What is read into while a connection has no partial request.
    pub scratch: Box<[u8]>,
    /// The arguments of a batch.
    pub spans: Vec<Span>,
    /// The requests of a batch.
    pub requests: Vec<Request>,
    /// Buffers for replies, lent to connections that have some to send.
    pub replies: Vec<Vec<u8>>,
    /// The places of connections whose replies leave once what they acknowledge is in the log's file.
    pub unanswered: Vec<usize>,
    /// These are being polled, and wait no more.
    pub answering: bool,
    /// How many requests ran since the last turn was counted.
    pub ran: u64,
    /// What turns took beyond whole microseconds.
    spare_ns: u64,
}

/// At most so many connections wait for each other with their replies.
const ANSWERED_TOGETHER: usize = 8;

/// Room for more arguments than this is given back: a batch of a thousand MSETs of ten keys has fewer.
const KEPT_SPANS: usize = 1 << 15;

impl Tools {
    /// Counts a connection's turn, which is what Redis calls a cycle of the event loop, if it ran anything.
    pub fn count_turn(&mut self, engine: &Engine, started: Ticks) {
        if self.spans.capacity() > KEPT_SPANS {
            // A request of a hundred thousand arguments comes once; the next one has its own.
            self.spans = Vec::new();
        }
        let ran = std::mem::take(&mut self.ran);
        if ran == 0 {
            return;
        }
        let ns = started.elapsed_ns() + self.spare_ns;
        self.spare_ns = ns % 1000;
        let stats = engine.stats.worker(self.number);
        stats.add(Counter::LoopCycles, 1);
        stats.add(Counter::LoopUs, ns / 1000);
        stats.peak(Peak::LoopUs, ns / 1000);
        stats.peak(Peak::CommandsPerCycle, ran);
    }
}

impl Tools {
    fn new(engine: &Engine, number: usize) -> Tools {
        Tools {
            executor: Executor::new(engine, Some(number)),
            number,
            scratch: vec![0; SCRATCH_BYTES].into(),
            spans: Vec::new(),
            requests: Vec::new(),
            replies: Vec::new(),
            unanswered: Vec::new(),
            answering: false,
            ran: 0,
            spare_ns: 0,
        }
    }
}

/// A connection at its place.
struct Seat {
    connection: RefCell<Connection>,
    waker: Waker,
}

/// A worker's connections, which it must reach also while a script keeps it.
struct Station {
    engine: Arc<Engine>,
    number: usize,
    mailbox: Arc<Mailbox<Accepted>>,
    /// What tells of sockets.
    epoll: Arc<OwnedFd>,
    count: Arc<AtomicUsize>,
    seats: Vec<Option<Rc<Seat>>>,
    free: Vec<usize>,
    /// Those that have yet to be watched: they came while a script kept the worker.
    unwatched: Vec<usize>,
    /// Tools for that time: the others are in use.
    tools: Option<Tools>,
    /// When connections are looked at again.
    next_look: Instant,
}

thread_local! {
    static TOOLS: RefCell<Option<Tools>> = const { RefCell::new(None) };
    static STATION: RefCell<Option<Station>> = const { RefCell::new(None) };
}

/// How often a busy worker looks at its connections at most.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The part of its time that it spends on them at most.
const LOOK_SHARE: u32 = 10;

/// Has the calling worker's connections answered while a script keeps it, those included that are new. What is not a
/// worker has no others to answer.
pub fn serve_while_busy() {
    STATION.with_borrow_mut(|station| {
        let Some(station) = station else { return };
        let began = Instant::now();
        if began < station.next_look {
            return;
        }
        for accepted in station.mailbox.take_given() {
            station.take_in(accepted);
        }
        let mut tools = station.tools.take().unwrap_or_else(|| Tools::new(&station.engine, station.number));
        for seat in station.seats.iter().flatten() {
            // The one whose script it is is being polled.
            if let Ok(mut connection) = seat.connection.try_borrow_mut() {
                connection.serve_while_busy(&mut tools);
            }
        }
        station.tools = Some(tools);
        station.next_look = Instant::now() + LOOK_EVERY.max(began.elapsed() * LOOK_SHARE);
    });
}

impl Station {
    /// Begins a connection.
    fn take_in(&mut self, Accepted { socket, tls, shared }: Accepted) {
        let place = self.free.pop().unwrap_or(self.seats.len());
        match Stream::new(socket, tls) {
            Ok(stream) => {
                let waker = Waker::from(Arc::new(Sleeper::new(place, self.mailbox.clone())));
                // Whoever wants something of the client has it polled from here on.
                shared.set_waker(&waker);
                let connection = Connection::new(self.engine.clone(), stream, shared, self.count.clone(), place);
                let seat = Some(Rc::new(Seat { connection: RefCell::new(connection), waker }));
                match self.seats.get_mut(place) {
                    Some(free) => *free = seat,
                    None => self.seats.push(seat),
                }
                self.unwatched.push(place);
            }
            Err(_) => {
                self.engine.clients.remove(shared.id);
                self.count.fetch_sub(1, Ordering::Relaxed);
                self.free.push(place);
            }
        }
    }

    /// Has the system tell of the sockets of new connections; one that it does not take ends.
    fn watch_new(&mut self, reactor: &Reactor<Accepted>) -> Vec<Rc<Seat>> {
        let new = std::mem::take(&mut self.unwatched);
        let refused = |place: &usize| {
            let seat = self.seats[*place].as_ref()?;
            reactor.watch(&*seat.connection.borrow(), *place).err().map(|_| *place)
        };
        let refused: Vec<usize> = new.iter().filter_map(refused).collect();
        refused.into_iter().filter_map(|place| self.leave(place)).collect()
    }

    /// Frees a place.
    fn leave(&mut self, place: usize) -> Option<Rc<Seat>> {
        let seat = self.seats.get_mut(place)?.take()?;
        if let Ok(connection) = seat.connection.try_borrow()
            && connection.is_shared()
        {
            // The system forgets a socket by itself only when nobody has it any more.
            let _ = epoll::delete(&*self.epoll, &*connection);
        }
        self.free.push(place);
        if self.free.len() == self.seats.len() {
            // After a crowd has left.
            (self.seats, self.free) = (Vec::new(), Vec::new());
        }
        Some(seat)
    }
}

fn with_station<R>(f: impl FnOnce(&mut Station) -> R) -> R {
    STATION.with_borrow_mut(|station| f(station.as_mut().expect("a worker has its station until it ends")))
}

/// Has the connection at `place` do what there is to do, if there is still one.
fn poll(place: usize, cause: Cause) {
    let Some(seat) = with_station(|station| station.seats.get(place).cloned().flatten()) else { return };
    let turn = || {
        let mut connection = seat.connection.borrow_mut();
        if let Cause::Socket(flags) = cause {
            connection.note(flags);
        }
        connection.poll(&mut Context::from_waker(&seat.waker)).is_ready()
    };
    // Within a program that unwinds, a broken invariant ends its connection and no other.
    if catch_unwind(AssertUnwindSafe(turn)).unwrap_or(true) {
        // What ends with it may need the station again.
        let left = with_station(|station| station.leave(place));
        drop(left);
    }
}

/// Writes what the log was told, once for all connections that wait for it, and has their replies leave.
fn answer() {
    let mut unanswered = with_tools(|tools| {
        with_station(|station| tools.executor.commit_all(&station.engine));
        tools.answering = true;
        std::mem::take(&mut tools.unanswered)
    });
    unanswered.drain(..).for_each(|place| poll(place, Cause::Call));
    with_tools(|tools| (tools.answering, tools.unanswered) = (false, unanswered));
}

/// Runs `f` with the tools of the calling worker.
pub fn with_tools<R>(f: impl FnOnce(&mut Tools) -> R) -> R {
    TOOLS.with_borrow_mut(|tools| f(tools.as_mut().expect("connections are polled by workers only")))
}

/// A socket that was accepted, on its way to its worker.
pub struct Accepted {
    /// The socket.
    pub socket: Socket,
    /// TLS on it.
    pub tls: Option<Box<Layer>>,
    /// Its half of the client.
    pub shared: Arc<Shared>,
}

/// The way to a worker, which ends when the last of its ways is dropped.
#[derive(Clone)]
pub struct WorkerHandle {
    way: Arc<Way>,
    connections: Arc<AtomicUsize>,
}

struct Way(Arc<Mailbox<Accepted>>);

impl Drop for Way {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl WorkerHandle {
    /// How many connections it has.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Hands it a connection.
    pub fn give(&self, accepted: Accepted) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.way.0.give(accepted);
    }
}

/// Starts worker `number`.
///
/// # Errors
/// What the system says where it refuses a thread or a descriptor.
pub fn start(engine: Arc<Engine>, number: usize) -> std::io::Result<(WorkerHandle, JoinHandle<()>)> {
    let mailbox = Arc::new(Mailbox::new()?);
    let epoll = Arc::new(mailbox.open()?);
    let connections = Arc::new(AtomicUsize::new(0));
    let handle = WorkerHandle { way: Arc::new(Way(mailbox.clone())), connections: connections.clone() };
    let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        crash::prepare_thread();
        // Clients wait for it, and it mostly for them.
        take_short_turns();
        TOOLS.set(Some(Tools::new(&engine, number)));
        STATION.set(Some(Station {
            engine,
            number,
            mailbox: mailbox.clone(),
            epoll: epoll.clone(),
            count: connections,
            seats: Vec::new(),
            free: Vec::new(),
            unwatched: Vec::new(),
            tools: None,
            next_look: Instant::now(),
        }));
        run(&mut Reactor::new(epoll, mailbox));
        let station = STATION.take();
        drop(station);
        TOOLS.set(None);
    })?;
    Ok((handle, thread))
}

fn run(reactor: &mut Reactor<Accepted>) {
    let mut letters = Letters::default();
    let replication = with_station(|station| station.engine.replication.clone());
    while !letters.closed {
        let mut first = true;
        reactor.turn(&mut letters, |place, cause| {
            if std::mem::take(&mut first) && replication.is_following() {
                cold_path();
                replication.arrived.catch_up();
            }
            poll(place, cause);
            if with_tools(|tools| tools.unanswered.len() >= ANSWERED_TOGETHER) {
                answer();
            }
        });
        answer();
        let refused = with_station(|station| {
            letters.given.drain(..).for_each(|accepted| station.take_in(accepted));
            if station.unwatched.is_empty() { Vec::new() } else { station.watch_new(reactor) }
        });
        drop(refused);
    }
}

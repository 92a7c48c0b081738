//! A worker: a thread with a runtime of its own, on which its connections live from first to last.

use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::client::shared::Shared;
use crate::command::dispatch::{Executor, Request};
use crate::command::engine::Engine;
use crate::observe::crash;
use crate::observe::stats::{Counter, Peak};
use crate::resp::request::Span;
use crate::server::connection::{Connection, Polled};
use crate::server::stream::Stream;
use crate::stdx::ticks::Ticks;

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
    /// How many requests ran since the last turn was counted.
    pub ran: u64,
    /// What turns took beyond whole microseconds.
    spare_ns: u64,
}

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
            ran: 0,
            spare_ns: 0,
        }
    }
}

/// What a worker must reach while a script keeps it.
struct Station {
    engine: Arc<Engine>,
    number: usize,
    receiver: UnboundedReceiver<Accepted>,
    count: Arc<AtomicUsize>,
    connections: Vec<Weak<Mutex<Connection>>>,
    /// How many of them have ended since they were looked through.
    ended: usize,
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
        while let Ok(accepted) = station.receiver.try_recv() {
            station.take_in(accepted);
        }
        let mut tools = station.tools.take().unwrap_or_else(|| Tools::new(&station.engine, station.number));
        for connection in station.connections.iter().filter_map(Weak::upgrade) {
            // The one whose script it is is being polled.
            if let Some(mut connection) = connection.try_lock() {
                connection.serve_while_busy(&mut tools);
            }
        }
        station.tools = Some(tools);
        station.next_look = Instant::now() + LOOK_EVERY.max(began.elapsed() * LOOK_SHARE);
    });
}

/// Notes that a connection of the calling worker ends. Whatever still finds it keeps its memory, so that those that
/// have ended are forgotten, half of all at a time.
pub fn note_end() {
    STATION.with(|station| {
        // While the worker itself ends there is none.
        if let Ok(mut station) = station.try_borrow_mut()
            && let Some(station) = &mut *station
        {
            station.ended += 1;
            if station.ended * 2 > station.connections.len() {
                station.connections.retain(|connection| connection.strong_count() > 0);
                station.connections.shrink_to(station.connections.len() * 2);
                station.ended = 0;
            }
        }
    });
}

impl Station {
    /// Begins a connection.
    fn take_in(&mut self, Accepted { socket, shared, .. }: Accepted) {
        let stream = match socket {
            Socket::Tcp(socket) => tokio::net::TcpStream::from_std(socket).map(Stream::Tcp),
            Socket::Unix(socket) => tokio::net::UnixStream::from_std(socket).map(Stream::Unix),
        };
        match stream {
            Ok(stream) => {
                let (polled, weak) =
                    Polled::new(Connection::new(self.engine.clone(), stream, shared, self.count.clone()));
                self.connections.push(weak);
                tokio::spawn(polled);
            }
            Err(_) => {
                self.engine.clients.remove(shared.id);
                self.count.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// Runs `f` with the tools of the calling worker.
pub fn with_tools<R>(f: impl FnOnce(&mut Tools) -> R) -> R {
    TOOLS.with_borrow_mut(|tools| f(tools.as_mut().expect("connections are polled by workers only")))
}

/// A socket that was accepted, on its way to its worker.
pub struct Accepted {
    /// The socket.
    pub socket: Socket,
    /// Its half of the client.
    pub shared: Arc<Shared>,
}

/// A socket that is not yet part of a runtime.
pub enum Socket {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixStream),
}

/// The way to a worker.
#[derive(Clone)]
pub struct WorkerHandle {
    sender: UnboundedSender<Accepted>,
    connections: Arc<AtomicUsize>,
}

impl WorkerHandle {
    /// How many connections it has.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Hands it a connection.
    pub fn give(&self, accepted: Accepted) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        // A worker that has ended closes the socket, which is what it would do with it.
        let _ = self.sender.send(accepted);
    }
}

/// Starts worker `number`.
///
/// # Errors
/// What the system says where it refuses a thread or a runtime.
pub fn start(engine: Arc<Engine>, number: usize) -> std::io::Result<(WorkerHandle, JoinHandle<()>)> {
    let (sender, receiver) = unbounded_channel();
    let connections = Arc::new(AtomicUsize::new(0));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Sockets are looked at after so many polls of tasks: often enough under load, seldom enough
        // that one epoll serves a whole round of connections.
        .event_interval(61)
        .build()?;
    let theirs = connections.clone();
    let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        crash::prepare_thread();
        TOOLS.set(Some(Tools::new(&engine, number)));
        STATION.set(Some(Station {
            engine,
            number,
            receiver,
            count: theirs,
            connections: Vec::new(),
            ended: 0,
            tools: None,
            next_look: Instant::now(),
        }));
        runtime.block_on(run());
        drop(runtime);
        TOOLS.set(None);
        STATION.set(None);
    })?;
    Ok((WorkerHandle { sender, connections }, thread))
}

async fn run() {
    let with_station = |f: &mut dyn FnMut(&mut Station)| {
        STATION.with_borrow_mut(|station| f(station.as_mut().expect("a worker has its station until it ends")));
    };
    loop {
        let accepted = poll_fn(|cx| {
            let mut polled = Poll::Pending;
            with_station(&mut |station| polled = station.receiver.poll_recv(cx));
            polled
        });
        let Some(accepted) = accepted.await else { break };
        let mut accepted = Some(accepted);
        with_station(&mut |station| accepted.take().into_iter().for_each(|accepted| station.take_in(accepted)));
    }
}

//! What others see of a connection, and how they reach it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::client::outbox::Outbox;
use crate::client::tracking::Tracked;
use crate::client::weights::Weighed;
use crate::keyspace::listen::Watch;
use crate::resp::reply::Protocol;

/// How a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Over TCP.
    Tcp,
    /// Over TCP with TLS.
    Tls,
    /// Over a Unix socket.
    Unix,
    /// By calls in this process.
    InProcess,
}

/// What CLIENT LIST shows in `flags`, and what CLIENT KILL's TYPE selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Mark {
    /// `O`: follows MONITOR.
    Monitor = 1 << 0,
    /// `e`: never evicted.
    NoEvict = 1 << 1,
    /// `T`: its reads do not count as accesses.
    NoTouch = 1 << 2,
    /// `c`: closed once its reply is sent.
    Closing = 1 << 3,
    /// `b`: waits.
    Blocked = 1 << 4,
    /// `U`: connected by a Unix socket.
    Unix = 1 << 5,
    /// `S`: a replica.
    Replica = 1 << 6,
    /// `M`: the primary.
    Primary = 1 << 7,
    /// `r`: reads on a replica, of a cluster or otherwise.
    ReadOnly = 1 << 8,
    /// It knows what a redirection is: CLIENT CAPA REDIRECT.
    Redirect = 1 << 9,
    /// `i`: sends slots that are on their way here.
    Imports = 1 << 10,
    /// It waits, and not for ever.
    Timed = 1 << 11,
}

/// Names that a client gave itself.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// CLIENT SETNAME.
    pub name: Vec<u8>,
    /// CLIENT SETINFO LIB-NAME.
    pub library: Vec<u8>,
    /// CLIENT SETINFO LIB-VER.
    pub version: Vec<u8>,
    /// The user it logged in as.
    pub user: Vec<u8>,
}

impl Names {
    /// Whether a client may give itself this name: printable ASCII without blanks, or nothing at all.
    pub fn allow(name: &[u8]) -> bool {
        name.iter().all(|byte| (b'!'..=b'~').contains(byte))
    }
}

/// Figures that the connection's task keeps and anyone may read.
#[derive(Debug)]
pub struct Figures {
    /// Unix milliseconds of the last request.
    pub active_ms: AtomicU64,
    /// The selected database.
    pub db: AtomicU32,
    /// 2 or 3.
    pub protocol: AtomicU8,
    /// The number of the last command plus one; 0 before the first.
    pub command: AtomicU16,
    /// Channels that it is subscribed to.
    pub channels: AtomicU32,
    /// Patterns that it is subscribed to.
    pub patterns: AtomicU32,
    /// Shard channels that it is subscribed to.
    pub shard_channels: AtomicU32,
    /// Bytes of the list of all these, names not counted.
    pub subscription_bytes: AtomicUsize,
    /// Bytes of the prefixes that it follows.
    pub prefix_bytes: AtomicUsize,
    /// Commands queued since MULTI; -1 outside of it.
    pub queued: AtomicI32,
    /// Bytes of the arguments of these.
    pub queued_bytes: AtomicUsize,
    /// Keys under WATCH.
    pub watched: AtomicU32,
    /// Bytes that it takes to watch these.
    pub watched_bytes: AtomicUsize,
    /// Bytes of requests that wait.
    pub query_bytes: AtomicUsize,
    /// Capacity of its own read buffer beyond that.
    pub query_free: AtomicUsize,
    /// Bytes of the arguments of the current command.
    pub argument_bytes: AtomicUsize,
    /// Capacity of its output buffer.
    pub output_capacity: AtomicUsize,
    /// Bytes of replies that wait to be sent.
    pub output_bytes: AtomicUsize,
    /// Bytes read.
    pub net_input: AtomicU64,
    /// Bytes written.
    pub net_output: AtomicU64,
    /// Commands run.
    pub commands: AtomicU64,
    /// Unix milliseconds since when output is over its soft limit; 0 while it is not.
    pub over_soft_limit_ms: AtomicU64,
}

impl Figures {
    /// Those of a connection that begins at `now_ms`.
    fn new(now_ms: u64) -> Figures {
        Figures {
            active_ms: AtomicU64::new(now_ms),
            db: AtomicU32::new(0),
            protocol: AtomicU8::new(2),
            command: AtomicU16::new(0),
            channels: AtomicU32::new(0),
            patterns: AtomicU32::new(0),
            shard_channels: AtomicU32::new(0),
            subscription_bytes: AtomicUsize::new(0),
            prefix_bytes: AtomicUsize::new(0),
            queued: AtomicI32::new(-1),
            queued_bytes: AtomicUsize::new(0),
            watched: AtomicU32::new(0),
            watched_bytes: AtomicUsize::new(0),
            query_bytes: AtomicUsize::new(0),
            query_free: AtomicUsize::new(0),
            argument_bytes: AtomicUsize::new(0),
            output_capacity: AtomicUsize::new(0),
            output_bytes: AtomicUsize::new(0),
            net_input: AtomicU64::new(0),
            net_output: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            over_soft_limit_ms: AtomicU64::new(0),
        }
    }

    /// Notes which command it sent last, by its number; `None` for one that is not known.
    #[inline]
    pub fn note_command(&self, index: Option<u16>) {
        self.command.store(index.map_or(0, |index| index + 1), Ordering::Relaxed);
    }

    /// Counts commands of its own; nobody else does.
    #[inline]
    pub fn add_commands(&self, n: u64) {
        add_alone(&self.commands, n);
    }

    /// Counts bytes that it read; nobody else does.
    #[inline]
    pub fn add_net_input(&self, n: u64) {
        add_alone(&self.net_input, n);
    }

    /// Whether it is subscribed to anything.
    pub fn is_subscribed(&self) -> bool {
        [&self.channels, &self.patterns, &self.shard_channels].iter().any(|n| n.load(Ordering::Relaxed) > 0)
    }
}

/// Adds to a figure that one thread at a time writes.
#[inline]
fn add_alone(figure: &AtomicU64, by: u64) {
    figure.store(figure.load(Ordering::Relaxed) + by, Ordering::Relaxed);
}

/// A command that is blocked, as others may end it. Each returns whether it did: it may be over already.
pub trait Unblock: Send + Sync {
    /// As if its time were up.
    fn time_out(&self) -> bool;

    /// With an error, which begins with its code.
    fn fail(&self, text: &str) -> bool;

    /// The first of the keys that it waits for, if it waits for any.
    fn first_key(&self) -> Option<Vec<u8>> {
        None
    }

    /// Whether its command may write.
    fn writes(&self) -> bool {
        false
    }
}

impl std::fmt::Debug for dyn Unblock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unblock")
    }
}

/// A connection as others see it.
#[derive(Debug)]
pub struct Shared {
    /// Unique in the life of the process, growing.
    pub id: u64,
    /// How it is connected.
    pub link: Link,
    /// The peer's address, `ip:port` or the socket's path with `:0`.
    pub addr: String,
    /// Our address.
    pub laddr: String,
    /// The file descriptor, -1 for none.
    pub fd: i32,
    /// Unix milliseconds of its beginning.
    pub created_ms: u64,
    /// Names that it gave itself.
    pub names: Mutex<Names>,
    /// Figures.
    pub figures: Figures,
    /// Messages that others pushed.
    pub outbox: Outbox,
    /// Whether and how it is told of changes to keys.
    pub tracked: Tracked,
    /// Shard channels that it was subscribed to until their slot left, which it has yet to be told.
    pub revoked: Mutex<Vec<Arc<[u8]>>>,
    /// What it waits for, while a command of it is blocked.
    pub wait: Mutex<Option<Arc<dyn Unblock>>>,
    /// What hears of changes to the keys that it watches.
    pub watch: Mutex<Option<Arc<Watch>>>,
    /// What was noted of its memory, where that is limited.
    pub weighed: Mutex<Weighed>,
    marks: AtomicU32,
    closing: AtomicBool,
    nudged: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Shared {
    /// A connection of its own id.
    pub fn new(id: u64, link: Link, addr: String, laddr: String, fd: i32, created_ms: u64) -> Shared {
        Shared {
            id,
            link,
            addr,
            laddr,
            fd,
            created_ms,
            names: Mutex::new(Names { user: "default".into(), ..Names::default() }),
            figures: Figures::new(created_ms),
            outbox: Outbox::default(),
            tracked: Tracked::default(),
            revoked: Mutex::new(Vec::new()),
            wait: Mutex::new(None),
            watch: Mutex::default(),
            weighed: Mutex::default(),
            marks: AtomicU32::new(if link == Link::Unix { Mark::Unix as u32 } else { 0 }),
            closing: AtomicBool::new(false),
            nudged: AtomicBool::new(false),
            waker: Mutex::new(None),
        }
    }

    /// Sets or clears a mark.
    pub fn mark(&self, mark: Mark, on: bool) {
        if on {
            self.marks.fetch_or(mark as u32, Ordering::Relaxed);
        } else {
            self.marks.fetch_and(!(mark as u32), Ordering::Relaxed);
        }
    }

    /// Whether a mark is set.
    pub fn has(&self, mark: Mark) -> bool {
        self.marks.load(Ordering::Relaxed) & mark as u32 != 0
    }

    /// The memory it takes, in bytes: itself, what it sent and what waits to be sent to it, what it follows and watches.
    pub fn memory(&self) -> usize {
        let load = |figure: &AtomicUsize| figure.load(Ordering::Relaxed);
        let figures = &self.figures;
        let names = self.names.lock();
        let texts = [self.addr.capacity(), self.laddr.capacity(), names.user.capacity()].iter().sum::<usize>()
            + [&names.name, &names.library, &names.version].iter().map(|name| name.capacity()).sum::<usize>();
        let input = [&figures.query_bytes, &figures.query_free, &figures.argument_bytes, &figures.queued_bytes];
        let interests = [&figures.subscription_bytes, &figures.prefix_bytes, &figures.watched_bytes];
        size_of::<Shared>()
            + texts
            + input.into_iter().map(load).sum::<usize>()
            + interests.into_iter().map(load).sum::<usize>()
            + load(&figures.output_capacity).max(load(&figures.output_bytes))
            + self.outbox.bytes()
    }

    /// Whether it comes from this machine: over a Unix socket, from 127.0.0.1 or ::1, or from this process.
    pub fn is_local(&self) -> bool {
        matches!(self.link, Link::Unix | Link::InProcess)
            || self.addr.starts_with("127.0.0.1:")
            || self.addr.starts_with("[::1]:")
    }

    /// Asks the connection to close at once.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether it was asked to close.
    #[inline]
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Pushes a message that is the same in every protocol; returns how many bytes of pushed messages wait now.
    pub fn push(&self, message: Bytes) -> usize {
        self.push_as(|_| Some(&message))
    }

    /// Pushes a message, which `encoded` gives in the protocol that the client speaks, if it has that form; returns
    /// how many bytes of pushed messages wait now.
    pub fn push_as<'a>(&self, encoded: impl FnOnce(Protocol) -> Option<&'a Bytes>) -> usize {
        let waiting = self.outbox.push_as(encoded);
        self.wake();
        waiting
    }

    /// Wakes the connection's task, so that it looks at its outbox and at [`Shared::is_closing`].
    pub fn wake(&self) {
        // Whoever was first has it woken, and it has yet to look.
        if !self.nudged.swap(true, Ordering::AcqRel)
            && let Some(waker) = &*self.waker.lock()
        {
            waker.wake_by_ref();
        }
    }

    /// Whether the connection was woken since the last time it asked.
    #[inline]
    pub fn take_nudge(&self) -> bool {
        self.nudged.load(Ordering::Relaxed) && self.nudged.swap(false, Ordering::AcqRel)
    }

    /// Says what is to be woken: the connection's task.
    pub fn set_waker(&self, waker: &Waker) {
        let mut mine = self.waker.lock();
        if !mine.as_ref().is_some_and(|old| old.will_wake(waker)) {
            *mine = Some(waker.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_unix_sockets_and_this_process_are_local() {
        let local = |link, addr: &str| Shared::new(1, link, addr.into(), String::new(), -1, 0).is_local();
        assert!(local(Link::Tcp, "127.0.0.1:7") && local(Link::Tcp, "[::1]:7"));
        assert!(local(Link::Unix, "/tmp/socket:0") && local(Link::InProcess, ""));
        assert!(!local(Link::Tcp, "127.0.0.10:7") && !local(Link::Tcp, "1.2.3.4:5") && !local(Link::Tcp, "[::2]:5"));
    }
}

//! What others see of a connection, and how they reach it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::client::outbox::Outbox;

/// How a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Over TCP.
    Tcp,
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
    pub user: String,
}

/// Figures that the connection's task keeps and anyone may read.
#[derive(Debug, Default)]
pub struct Figures {
    /// Unix milliseconds of the last request.
    pub active_ms: AtomicU64,
    /// The selected database.
    pub db: AtomicU32,
    /// 2 or 3.
    pub protocol: AtomicU8,
    /// The number of the last command plus one; 0 before the first.
    pub command: AtomicU16,
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
    marks: AtomicU32,
    closing: AtomicBool,
    nudged: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Shared {
    /// A connection of its own id.
    pub fn new(id: u64, link: Link, addr: String, laddr: String, fd: i32, created_ms: u64) -> Shared {
        let figures = Figures::default();
        figures.active_ms.store(created_ms, Ordering::Relaxed);
        figures.protocol.store(2, Ordering::Relaxed);
        Shared {
            id,
            link,
            addr,
            laddr,
            fd,
            created_ms,
            names: Mutex::new(Names { user: "default".into(), ..Names::default() }),
            figures,
            outbox: Outbox::default(),
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

    /// Whether it comes from this machine: over a Unix socket, from 127.0.0.1 or ::1, or from this process.
    pub fn is_local(&self) -> bool {
        self.link != Link::Tcp || self.addr.starts_with("127.0.0.1:") || self.addr.starts_with("[::1]:")
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

    /// Pushes a message; returns how many bytes of pushed messages wait now.
    pub fn push(&self, message: Bytes) -> usize {
        let waiting = self.outbox.push(message);
        self.wake();
        waiting
    }

    /// Wakes the connection's task, so that it looks at its outbox and at [`Shared::is_closing`].
    pub fn wake(&self) {
        self.nudged.store(true, Ordering::Release);
        if let Some(waker) = &*self.waker.lock() {
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

//! What goes to a replica beside replies: pieces that another thread hands over, then a stream.
//!
//! The thread that makes a data set waits for room, so that what is on its way takes little memory however slow the
//! replica is. What must stay true: pieces leave in the order in which they came, and the stream begins behind the
//! last of them; of its connection's worker and those who hurry, one at a time has the socket, and what one of them began to
//! send is what the next goes on with.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};

/// What its connection sends next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing, for now.
    Nothing,
    /// This.
    Piece(Bytes),
    /// The stream, from this offset on.
    Stream(u64),
    /// Nothing any more: the connection is to be closed.
    End,
}

/// What follows the pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Then {
    #[default]
    Nothing,
    Stream,
    End,
}

/// Sends what the socket takes at once; returns how many bytes.
type Send = Box<dyn Fn(&[u8]) -> io::Result<usize> + std::marker::Send>;

/// The socket of a replica, for who may use it beside its worker.
#[derive(Default)]
pub struct Outlet {
    send: Option<Send>,
    /// Its worker has nothing left to send but the stream.
    pub is_idle: bool,
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outlet").field("is_idle", &self.is_idle).finish_non_exhaustive()
    }
}

/// At most so many bytes are sent by who hurries: the rest can wait for the worker of the connection.
const HURRIED_BYTES: usize = 256 * 1024;

/// What goes to one replica.
#[derive(Debug)]
pub struct Feed {
    outlet: Mutex<Outlet>,
    queue: Mutex<Queue>,
    room: Condvar,
    /// How many bytes of the stream it has been given; `u64::MAX` as long as it needs none of it.
    position: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    then: Then,
    /// Nobody takes anything any more.
    gone: bool,
}

impl Default for Feed {
    fn default() -> Feed {
        Feed {
            outlet: Mutex::default(),
            queue: Mutex::default(),
            room: Condvar::new(),
            position: AtomicU64::new(u64::MAX),
        }
    }
}

impl Feed {
    /// Adds a piece; returns whether somebody will take it.
    pub fn push(&self, piece: Bytes) -> bool {
        let mut queue = self.queue.lock();
        if !queue.gone {
            queue.bytes += piece.len();
            queue.pieces.push_back(piece);
        }
        !queue.gone
    }

    /// Waits until at most `bytes` wait to be taken, for `patience` after the last that was taken; returns whether that
    /// is so.
    pub fn wait_for_room(&self, bytes: usize, patience: Duration) -> bool {
        let mut queue = self.queue.lock();
        let mut deadline = Instant::now() + patience;
        while queue.bytes > bytes && !queue.gone {
            let before = queue.bytes;
            let late = self.room.wait_until(&mut queue, deadline).timed_out();
            if queue.bytes < before {
                deadline = Instant::now() + patience;
            } else if late {
                return false;
            }
        }
        !queue.gone
    }

    /// Bytes of pieces that wait.
    pub fn waiting(&self) -> usize {
        self.queue.lock().bytes
    }

    /// Says that the stream will follow from `at` on; it has to be kept from there.
    pub fn keep_from(&self, at: u64) {
        self.position.store(at, Ordering::Release);
    }

    /// Has the stream follow the pieces.
    pub fn stream(&self) {
        self.queue.lock().then = Then::Stream;
    }

    /// Has the connection close behind the pieces.
    pub fn close_behind(&self) {
        self.queue.lock().then = Then::End;
    }

    /// Says that it needs none of the stream any more: another connection is given it.
    pub fn release(&self) {
        self.position.store(u64::MAX, Ordering::Release);
    }

    /// How many bytes of the stream it has been given; `None` as long as it needs none of it.
    pub fn position(&self) -> Option<u64> {
        Some(self.position.load(Ordering::Acquire)).filter(|at| *at != u64::MAX)
    }

    /// Notes that `bytes` of the stream were taken.
    pub fn advance(&self, bytes: u64) {
        self.position.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Takes what is to be sent next.
    pub fn next(&self) -> Next {
        let mut queue = self.queue.lock();
        if let Some(piece) = queue.pieces.pop_front() {
            queue.bytes -= piece.len();
            drop(queue);
            self.room.notify_all();
            return Next::Piece(piece);
        }
        match queue.then {
            Then::Nothing => Next::Nothing,
            Then::Stream => self.position().map_or(Next::Nothing, Next::Stream),
            Then::End => Next::End,
        }
    }

    /// Lets others send as well, by `send`.
    pub fn let_hurry(&self, send: impl Fn(&[u8]) -> io::Result<usize> + std::marker::Send + 'static) {
        self.outlet.lock().send = Some(Box::new(send));
    }

    /// The socket, for the connection's worker.
    pub fn outlet(&self) -> MutexGuard<'_, Outlet> {
        self.outlet.lock()
    }

    /// Sends what there is of the stream, which `read` gives from an offset on, without waiting for the connection's
    /// worker; returns whether there is nothing left for that one to do.
    pub fn hurry(&self, read: impl Fn(u64) -> Option<Bytes>) -> bool {
        let mut outlet = self.outlet.lock();
        let mut left = HURRIED_BYTES;
        while left > 0 && outlet.is_idle {
            let (Some(send), Some(at)) = (&outlet.send, self.stream_from()) else { return false };
            let Some(bytes) = read(at) else { return false };
            if bytes.is_empty() {
                return true;
            }
            let sent = send(&bytes).unwrap_or(0);
            self.advance(sent as u64);
            // Where the socket took less, its worker is to be told of room.
            outlet.is_idle = sent == bytes.len();
            left = left.saturating_sub(sent);
        }
        false
    }

    /// Whether there is nothing to send but the stream.
    pub fn is_streaming(&self) -> bool {
        self.stream_from().is_some()
    }

    /// From where on the stream is wanted; `None` while there is something before it, or nothing to follow.
    fn stream_from(&self) -> Option<u64> {
        let queue = self.queue.lock();
        let is_next = queue.pieces.is_empty() && queue.then == Then::Stream;
        drop(queue);
        self.position().filter(|_| is_next)
    }

    /// Whether nobody takes anything any more.
    pub fn is_gone(&self) -> bool {
        self.queue.lock().gone
    }

    /// Says so.
    pub fn leave(&self) {
        *self.outlet.lock() = Outlet::default();
        let mut queue = self.queue.lock();
        (queue.gone, queue.bytes) = (true, 0);
        queue.pieces.clear();
        self.release();
        drop(queue);
        self.room.notify_all();
    }
}

/// What a replica has said of itself before it asks for data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Introduction {
    /// The port that clients are to reach it at.
    pub port: u16,
    /// The address that clients are to reach it at, where the connection's is another.
    pub ip: Option<Vec<u8>>,
    /// It can read a data set that ends by a mark.
    pub eof: bool,
    /// It knows that a stream may change its name.
    pub psync2: bool,
    /// It understands what the stream tells of slots on their way, and takes it for an order of its primary.
    pub follows_slots: bool,
    /// It wants the data set and no stream.
    pub rdb_only: bool,
    /// Which parts of the data set it wants.
    pub parts: Parts,
    /// It can take the data set by a second connection, and the stream by the first meanwhile.
    pub two_channels: bool,
    /// This is such a second connection.
    pub is_second: bool,
    /// This is the first, and its second has this number.
    pub second: Option<u64>,
}

/// Parts of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Keys.
    pub keys: bool,
    /// Functions.
    pub functions: bool,
}

impl Default for Parts {
    fn default() -> Parts {
        Parts { keys: true, functions: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn pieces_come_first_and_the_stream_behind_them() {
        let feed = Feed::default();
        assert_eq!(feed.next(), Next::Nothing);
        feed.push(Bytes::from_static(b"abc"));
        feed.keep_from(10);
        feed.stream();
        feed.push(Bytes::from_static(b"d"));
        assert_eq!((feed.waiting(), feed.position()), (4, Some(10)));
        assert_eq!(feed.next(), Next::Piece(Bytes::from_static(b"abc")));
        assert_eq!(feed.next(), Next::Piece(Bytes::from_static(b"d")));
        assert_eq!(feed.next(), Next::Stream(10));
        feed.advance(5);
        assert_eq!(feed.next(), Next::Stream(15));
        feed.close_behind();
        assert_eq!(feed.next(), Next::End);
    }

    #[test]
    fn who_hurries_sends_what_its_worker_would_and_leaves_the_rest_to_it() {
        let feed = Feed::default();
        let sent = Arc::new(Mutex::new((Vec::new(), 0)));
        let stream = Bytes::from_static(b"0123456789");
        let read = |at: u64| usize::try_from(at).ok().filter(|at| *at <= stream.len()).map(|at| stream.slice(at..));
        feed.keep_from(4);
        assert!(!feed.hurry(read), "there is no way");
        let theirs = sent.clone();
        feed.let_hurry(move |bytes| {
            let (sent, room) = &mut *theirs.lock();
            let n = bytes.len().min(*room);
            *room -= n;
            sent.extend_from_slice(&bytes[..n]);
            if n == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
        });
        feed.push(Bytes::from_static(b"piece"));
        feed.stream();
        feed.outlet().is_idle = true;
        assert!(!feed.hurry(read) && sent.lock().0.is_empty(), "a piece comes first");
        assert_eq!(feed.next(), Next::Piece(Bytes::from_static(b"piece")));
        sent.lock().1 = 4;
        assert!(!feed.hurry(read), "the socket is full");
        assert_eq!((sent.lock().0.as_slice(), feed.position()), (b"4567".as_slice(), Some(8)));
        sent.lock().1 = 100;
        assert!(!feed.hurry(read), "its worker goes on");
        assert_eq!(feed.next(), Next::Stream(8));
        feed.outlet().is_idle = true;
        assert!(feed.hurry(read));
        assert_eq!((sent.lock().0.as_slice(), feed.position()), (b"456789".as_slice(), Some(10)));
        feed.leave();
        assert!(!feed.hurry(read) && Arc::strong_count(&sent) == 1, "nobody has the socket any more");
    }

    #[test]
    fn who_makes_pieces_waits_for_room_and_not_for_who_is_gone() {
        let feed = Arc::new(Feed::default());
        feed.push(Bytes::from_static(b"abc"));
        assert!(!feed.wait_for_room(2, Duration::from_millis(1)));
        let theirs = feed.clone();
        let taker = std::thread::spawn(move || theirs.next());
        assert!(feed.wait_for_room(2, Duration::from_secs(60)));
        taker.join().unwrap();
        feed.push(Bytes::from_static(b"abc"));
        let theirs = feed.clone();
        let leaver = std::thread::spawn(move || theirs.leave());
        assert!(!feed.wait_for_room(0, Duration::from_secs(60)));
        leaver.join().unwrap();
        assert!(feed.is_gone() && !feed.push(Bytes::from_static(b"x")));
    }
}

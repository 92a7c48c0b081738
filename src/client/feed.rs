//! What goes to a replica beside replies: pieces that another thread hands over, then a stream.
//!
//! The thread that makes a data set waits for room, so that what is on its way takes little memory however slow the
//! replica is. What must stay true: pieces leave in the order in which they came, and the stream begins behind the
//! last of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

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

/// What goes to one replica.
#[derive(Debug)]
pub struct Feed {
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
        Feed { queue: Mutex::default(), room: Condvar::new(), position: AtomicU64::new(u64::MAX) }
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

    /// Whether nobody takes anything any more.
    pub fn is_gone(&self) -> bool {
        self.queue.lock().gone
    }

    /// Says so.
    pub fn leave(&self) {
        let mut queue = self.queue.lock();
        (queue.gone, queue.bytes) = (true, 0);
        queue.pieces.clear();
        self.position.store(u64::MAX, Ordering::Release);
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

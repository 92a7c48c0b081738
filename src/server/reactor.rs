//! What a worker waits for: its sockets, the next deadline of its connections, and other threads.
//!
//! In place of a runtime's: on a request that comes alone a runtime's tasks and readiness cost a quarter of the
//! instructions spent outside the system. What must stay true: who is woken is polled once for it, by the worker, however
//! often it was woken before; a thread that leaves something for a sleeping worker wakes it; a poll costs no allocation.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

use crate::observe::traces::{self, Thread};

/// At most so many sockets are told of at once.
const EVENTS: usize = 512;

/// The place of the bell among those of connections.
const BELL: usize = usize::MAX;

/// What other threads leave for a worker, with a bell by its bed.
pub struct Mailbox<T> {
    letters: Mutex<Letters<T>>,
    /// The worker sleeps, or is about to look a last time before it does.
    asleep: AtomicBool,
    bell: OwnedFd,
}

/// What was left.
pub struct Letters<T> {
    /// Given to it.
    pub given: Vec<T>,
    /// Who is to be polled.
    pub woken: Vec<Arc<Sleeper<T>>>,
    /// Nothing more will be given, and it may end.
    pub closed: bool,
}

impl<T> Default for Letters<T> {
    fn default() -> Letters<T> {
        Letters { given: Vec::new(), woken: Vec::new(), closed: false }
    }
}

impl<T> Letters<T> {
    fn is_empty(&self) -> bool {
        self.given.is_empty() && self.woken.is_empty() && !self.closed
    }
}

impl<T> Mailbox<T> {
    /// An empty one.
    ///
    /// # Errors
    /// What the system says where it has no descriptor left.
    pub fn new() -> io::Result<Mailbox<T>> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Mailbox { letters: Mutex::default(), asleep: AtomicBool::new(false), bell })
    }

    /// What the worker sleeps on, which the bell wakes.
    ///
    /// # Errors
    /// What the system says where it has no descriptor left.
    pub fn open(&self) -> io::Result<OwnedFd> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &self.bell, EventData::new_u64(BELL as u64), EventFlags::IN | EventFlags::ET)?;
        Ok(epoll)
    }

    /// Gives the worker something.
    pub fn give(&self, what: T) {
        self.letters.lock().given.push(what);
        self.ring();
    }

    /// Tells it to end.
    pub fn close(&self) {
        self.letters.lock().closed = true;
        self.ring();
    }

    /// Takes what was given, while the worker is kept from everything else.
    pub fn take_given(&self) -> Vec<T> {
        std::mem::take(&mut self.letters.lock().given)
    }

    /// Takes everything, into `letters`, which must hold nothing; what it has room for is used again.
    fn take(&self, letters: &mut Letters<T>) {
        let mut left = self.letters.lock();
        std::mem::swap(&mut *left, letters);
        left.closed = letters.closed;
    }

    fn ring(&self) {
        // Whoever left something before the worker's last look is found by that look; everybody else finds it asleep.
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            // It fails only where the bell has been rung already.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }
}

/// Who can be woken: the one at `place` of a worker.
pub struct Sleeper<T> {
    place: usize,
    mailbox: Arc<Mailbox<T>>,
    woken: AtomicBool,
}

impl<T> Sleeper<T> {
    /// The one at `place` of the worker with this mailbox.
    pub fn new(place: usize, mailbox: Arc<Mailbox<T>>) -> Sleeper<T> {
        Sleeper { place, mailbox, woken: AtomicBool::new(false) }
    }

    /// Its place, to be asked when it is about to be polled: from then on it can be woken again.
    pub fn rise(&self) -> usize {
        self.woken.store(false, Ordering::SeqCst);
        self.place
    }
}

impl<T: Send> Wake for Sleeper<T> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::SeqCst) {
            self.mailbox.letters.lock().woken.push(self.clone());
            self.mailbox.ring();
        }
    }
}

thread_local! {
    static CROWD: Cell<usize> = const { Cell::new(0) };
    static ALARMS: RefCell<BTreeSet<(Instant, usize)>> = const { RefCell::new(BTreeSet::new()) };
}

/// Has the connection at a place of the calling worker polled at some time; forgotten when dropped.
#[derive(Debug)]
pub struct Alarm {
    at: Instant,
    place: usize,
}

impl Alarm {
    /// Sets one, `after` from now. A place has one at a time.
    pub fn after(after: Duration, place: usize) -> Alarm {
        // Beyond what the clock can tell nobody waits.
        let now = Instant::now();
        let at = now.checked_add(after).unwrap_or(now + Duration::from_secs(u64::from(u32::MAX)));
        ALARMS.with_borrow_mut(|alarms| alarms.insert((at, place)));
        Alarm { at, place }
    }

    /// Whether its time has come.
    pub fn has_rung(&self) -> bool {
        Instant::now() >= self.at
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // While the thread ends there may be none left.
        let _ = ALARMS.try_with(|alarms| alarms.borrow_mut().remove(&(self.at, self.place)));
    }
}

/// How many sockets had news when the calling worker woke up last.
#[inline]
pub fn crowd() -> usize {
    CROWD.get()
}

/// Notes in `places` whose time has come.
fn note_rung(places: &mut Vec<usize>) {
    ALARMS.with_borrow(|alarms| {
        if !alarms.is_empty() {
            let now = Instant::now();
            places.extend(alarms.iter().take_while(|(at, _)| *at <= now).map(|(_, place)| *place));
        }
    });
}

/// What a worker sleeps on.
pub struct Reactor<T> {
    epoll: Arc<OwnedFd>,
    mailbox: Arc<Mailbox<T>>,
    events: Vec<Event>,
    rung: Vec<usize>,
    /// The thread, which the watchdog looks at.
    thread: Option<Arc<Thread>>,
}

/// Why somebody is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Something is new about its socket.
    Socket(EventFlags),
    /// Its alarm has rung, or it was woken.
    Call,
}

impl<T> Reactor<T> {
    /// One for the calling thread, a worker with this mailbox, on what [`Mailbox::open`] gave.
    pub fn new(epoll: Arc<OwnedFd>, mailbox: Arc<Mailbox<T>>) -> Reactor<T> {
        Reactor { epoll, mailbox, events: Vec::with_capacity(EVENTS), rung: Vec::new(), thread: traces::this_thread() }
    }

    /// Watches a socket until it is closed.
    ///
    /// # Errors
    /// What the system says.
    pub fn watch(&self, socket: impl AsFd, place: usize) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&*self.epoll, socket, EventData::new_u64(place as u64), flags)?)
    }

    /// Sleeps until there is something to do, then has `poll` called for each to be polled, those first whose sockets have
    /// news; `letters` gets what was left. They must hold nothing.
    pub fn turn(&mut self, letters: &mut Letters<T>, mut poll: impl FnMut(usize, Cause)) {
        let timeout = self.timeout();
        self.events.clear();
        if let Some(thread) = &self.thread {
            thread.rest();
        }
        // Interrupted it has nothing to tell.
        let _ = epoll::wait(&*self.epoll, rustix::buffer::spare_capacity(&mut self.events), timeout.as_ref());
        if let Some(thread) = &self.thread {
            thread.work();
        }
        self.mailbox.asleep.store(false, Ordering::SeqCst);
        CROWD.set(self.events.len());
        for event in &self.events {
            let place = usize::try_from(event.data.u64()).unwrap_or(BELL);
            if place != BELL {
                poll(place, Cause::Socket(event.flags));
            }
        }
        note_rung(&mut self.rung);
        for place in self.rung.drain(..) {
            poll(place, Cause::Call);
        }
        self.mailbox.take(letters);
        for sleeper in letters.woken.drain(..) {
            poll(sleeper.rise(), Cause::Call);
        }
    }

    /// How long it may sleep; `None` for as long as nothing happens. In whole milliseconds, the next one, so that nobody
    /// is polled before his time.
    fn timeout(&self) -> Option<Timespec> {
        self.mailbox.asleep.store(true, Ordering::SeqCst);
        if !self.mailbox.letters.lock().is_empty() {
            self.mailbox.asleep.store(false, Ordering::SeqCst);
            return Some(Timespec { tv_sec: 0, tv_nsec: 0 });
        }
        let next = ALARMS.with_borrow(|alarms| alarms.first().map(|(at, _)| *at))?;
        let left = next.saturating_duration_since(Instant::now()).min(Duration::from_secs(3600));
        let ms = i64::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i64::MAX);
        Some(Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::task::Waker;
    use std::thread;

    use super::*;

    fn reactor() -> (Reactor<u8>, Arc<Mailbox<u8>>) {
        let mailbox = Arc::new(Mailbox::new().unwrap());
        (Reactor::new(Arc::new(mailbox.open().unwrap()), mailbox.clone()), mailbox)
    }

    fn turn(reactor: &mut Reactor<u8>) -> (Vec<(usize, Cause)>, Letters<u8>) {
        let (mut polled, mut letters) = (Vec::new(), Letters::default());
        reactor.turn(&mut letters, |place, cause| polled.push((place, cause)));
        (polled, letters)
    }

    #[test]
    fn who_is_woken_often_is_polled_once_and_can_be_woken_again() {
        let (mut reactor, mailbox) = reactor();
        let waker = Waker::from(Arc::new(Sleeper::new(7, mailbox)));
        for _ in 0..2 {
            waker.wake_by_ref();
            waker.wake_by_ref();
            assert_eq!(turn(&mut reactor).0, [(7, Cause::Call)]);
        }
    }

    #[test]
    fn a_sleeping_worker_is_woken_by_what_other_threads_leave() {
        let (mut reactor, mailbox) = reactor();
        for n in 0..200 {
            thread::scope(|scope| {
                scope.spawn(|| {
                    if n % 2 == 0 {
                        thread::yield_now();
                    }
                    mailbox.give(n);
                });
                let mut given = Vec::new();
                while given.is_empty() {
                    given = turn(&mut reactor).1.given;
                }
                assert_eq!(given, [n]);
            });
        }
        mailbox.close();
        assert!(turn(&mut reactor).1.closed);
        assert!(turn(&mut reactor).1.closed, "it stays closed");
    }

    #[test]
    fn alarms_ring_in_their_order_and_not_before_their_time() {
        let (mut reactor, _mailbox) = reactor();
        let began = Instant::now();
        let late = Alarm::after(Duration::from_millis(30), 1);
        let early = Alarm::after(Duration::from_millis(10), 2);
        drop(Alarm::after(Duration::ZERO, 3));
        let mut rung = Vec::new();
        while rung.is_empty() {
            rung = turn(&mut reactor).0;
        }
        assert_eq!(rung, [(2, Cause::Call)]);
        assert!(early.has_rung() && began.elapsed() >= Duration::from_millis(10));
        drop(early);
        let mut rung = Vec::new();
        while rung.is_empty() {
            rung = turn(&mut reactor).0;
        }
        assert_eq!(rung, [(1, Cause::Call)]);
        assert!(late.has_rung() && began.elapsed() >= Duration::from_millis(30));
    }

    #[test]
    fn a_socket_is_told_of_once_for_what_came() {
        let (mut reactor, mailbox) = reactor();
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        reactor.watch(&theirs, 5).unwrap();
        let (polled, _) = turn(&mut reactor);
        assert!(matches!(polled[..], [(5, Cause::Socket(flags))] if flags == EventFlags::OUT), "{polled:?}");
        ours.write_all(b"x").unwrap();
        let (polled, _) = turn(&mut reactor);
        assert!(matches!(polled[..], [(5, Cause::Socket(flags))] if flags.contains(EventFlags::IN)), "{polled:?}");
        mailbox.give(1);
        assert_eq!(turn(&mut reactor).0, [], "nothing is new");
        drop(ours);
        let (polled, _) = turn(&mut reactor);
        assert!(matches!(polled[..], [(5, Cause::Socket(flags))] if flags.contains(EventFlags::RDHUP)), "{polled:?}");
    }
}

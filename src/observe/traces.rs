//! What threads are doing, for who asks a server that goes on: stack traces on SIGALRM, and of a worker that does not come
//! back to its event loop (the software watchdog, `watchdog-period`).
//!
//! For the server binary, which calls [`install`]. A trace is taken by the thread itself, in a signal handler that neither
//! locks nor allocates: it notes where it returns to, and a thread of this module's finds the names and writes the log.
#![allow(unsafe_code, reason = "a thread finds itself by a raw pointer, and walks its stack in a handler")]

use std::cell::Cell;
use std::fmt::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::observe::log::{self, warning};
use crate::observe::system;

/// A trace has at most so many frames.
const FRAMES: usize = 64;

/// A thread that has not answered after this long is not waited for.
const PATIENCE: Duration = Duration::from_millis(100);

/// A worker is looked at so often within the period that it may take.
const LOOKS: u32 = 4;

/// The bell by which signal handlers and a new period wake the thread that writes traces.
static BELL: OnceLock<OwnedFd> = OnceLock::new();
/// Somebody sent SIGALRM.
static ASKED: AtomicBool = AtomicBool::new(false);
/// In milliseconds; 0 for none.
static PERIOD_MS: AtomicU32 = AtomicU32::new(0);
static THREADS: Mutex<Vec<Arc<Thread>>> = Mutex::new(Vec::new());

thread_local! {
    // Constant and without a destructor, so that a signal handler can read it at any time.
    static MINE: Cell<*const Thread> = const { Cell::new(std::ptr::null()) };
}

/// A thread that can be asked.
pub struct Thread {
    name: String,
    id: i32,
    /// Grows with whatever it begins and ends: odd while it is at work.
    turn: AtomicU64,
    /// How many frames it has noted and one more; 0 while it has yet to.
    answer: AtomicUsize,
    frames: [AtomicUsize; FRAMES],
}

impl Thread {
    /// Says that it begins something; to be called by the thread itself.
    #[inline]
    pub fn work(&self) {
        self.turn.store(self.turn.load(Ordering::Relaxed) | 1, Ordering::Relaxed);
    }

    /// Says that it has come to the end of that; to be called by the thread itself.
    #[inline]
    pub fn rest(&self) {
        self.turn.store((self.turn.load(Ordering::Relaxed) | 1) + 1, Ordering::Relaxed);
    }

    fn is_at_work(&self) -> bool {
        self.turn.load(Ordering::Relaxed) % 2 == 1
    }
}

/// The calling thread as it is known here, until this is dropped, which that thread must do.
pub struct Registered(Arc<Thread>);

impl Drop for Registered {
    fn drop(&mut self) {
        // Whoever asks it holds the lock until it has answered.
        THREADS.lock().retain(|thread| !Arc::ptr_eq(thread, &self.0));
        MINE.set(std::ptr::null());
    }
}

/// Makes the calling thread known; `None` where traces are not installed.
pub fn register() -> Option<Registered> {
    BELL.get()?;
    let thread = Arc::new(Thread {
        name: std::thread::current().name().unwrap_or("unnamed").to_owned(),
        id: system::thread_id(),
        turn: AtomicU64::new(0),
        answer: AtomicUsize::new(0),
        frames: [const { AtomicUsize::new(0) }; FRAMES],
    });
    MINE.set(Arc::as_ptr(&thread));
    THREADS.lock().push(thread.clone());
    Some(Registered(thread))
}

/// The calling thread, if it is known.
pub fn this_thread() -> Option<Arc<Thread>> {
    let mine = MINE.get();
    THREADS.lock().iter().find(|thread| std::ptr::eq(Arc::as_ptr(thread), mine)).cloned()
}

/// Has SIGALRM write the traces of all threads that register from now on. A second call changes nothing.
///
/// # Errors
/// What the system says where it has no descriptor or thread left.
pub fn install() -> std::io::Result<()> {
    if BELL.get().is_some() {
        return Ok(());
    }
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    if BELL.set(bell).is_ok() {
        std::thread::Builder::new().name("watchdog".into()).spawn(write_when_asked)?;
        system::catch_alarm(on_alarm);
    }
    Ok(())
}

/// Has the traces of all threads written when a worker takes longer than so many milliseconds for what it does at once; 0
/// for never.
pub fn set_period(ms: u32) {
    PERIOD_MS.store(ms, Ordering::Relaxed);
    ring();
}

fn ring() {
    if let Some(bell) = BELL.get() {
        system::write_all(bell.as_raw_fd(), &1u64.to_ne_bytes());
    }
}

/// In a signal handler: answers our own question, or passes on somebody else's.
fn on_alarm(ours: bool) {
    if !ours {
        ASKED.store(true, Ordering::Relaxed);
        return ring();
    }
    // SAFETY: what it points to lives until the thread has set it to null.
    let Some(mine) = (unsafe { MINE.get().as_ref() }) else { return };
    let mut count = 0;
    let note = |frame: &backtrace::Frame| {
        mine.frames[count].store(frame.ip().addr(), Ordering::Relaxed);
        count += 1;
        count < FRAMES
    };
    // SAFETY: threads are asked one after the other, and nobody else walks a stack but who reports a crash, after which
    // nothing matters. The walk neither locks nor allocates: the unwinder finds its tables without a lock.
    unsafe { backtrace::trace_unsynchronized(note) };
    mine.answer.store(count + 1, Ordering::Release);
}

/// What was seen last of a worker.
struct Seen {
    id: i32,
    turn: u64,
    since: Instant,
    told: bool,
}

/// The thread that writes traces.
fn write_when_asked() {
    let Some(bell) = BELL.get() else { return };
    let mut seen: Vec<Seen> = Vec::new();
    loop {
        let period_ms = PERIOD_MS.load(Ordering::Relaxed);
        let look_ms = i64::from((period_ms / LOOKS).max(1));
        let timeout = Timespec { tv_sec: look_ms / 1000, tv_nsec: look_ms % 1000 * 1_000_000 };
        // Interrupted it looks once more.
        let _ = poll(&mut [PollFd::new(bell, PollFlags::IN)], (period_ms > 0).then_some(&timeout));
        let _ = rustix::io::read(bell, &mut [0; 8]);
        if ASKED.swap(false, Ordering::Relaxed) {
            warning!("Received SIGALRM");
            write_traces();
        }
        if period_ms == 0 {
            seen.clear();
        } else if look_for_the_late(&mut seen, Duration::from_millis(period_ms.into())) {
            warning!("--- WATCHDOG TIMER EXPIRED ---");
            write_traces();
        }
    }
}

/// Whether a worker has been at one thing for longer than `period`, and that was not said yet.
fn look_for_the_late(seen: &mut Vec<Seen>, period: Duration) -> bool {
    let now = Instant::now();
    let mut late = false;
    let threads = THREADS.lock();
    seen.retain(|seen| threads.iter().any(|thread| thread.id == seen.id));
    for thread in threads.iter() {
        let turn = thread.turn.load(Ordering::Relaxed);
        match seen.iter_mut().find(|seen| seen.id == thread.id) {
            Some(seen) if seen.turn == turn => {
                if thread.is_at_work() && !seen.told && now.duration_since(seen.since) >= period {
                    (seen.told, late) = (true, true);
                }
            }
            Some(seen) => (seen.turn, seen.since, seen.told) = (turn, now, false),
            None => seen.push(Seen { id: thread.id, turn, since: now, told: false }),
        }
    }
    late
}

fn write_traces() {
    let mut text = String::from("------ STACK TRACE ------\n");
    // Held until all have answered: no thread ends meanwhile.
    for thread in THREADS.lock().iter() {
        let state = if thread.is_at_work() { ", at work" } else { "" };
        let _ = writeln!(text, "\nthread {}: {}{state}", thread.id, thread.name);
        thread.answer.store(0, Ordering::Relaxed);
        let asked = Instant::now();
        if !system::alarm_thread(thread.id) {
            continue;
        }
        while thread.answer.load(Ordering::Acquire) == 0 && asked.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_micros(200));
        }
        let count = thread.answer.load(Ordering::Acquire).saturating_sub(1);
        for frame in &thread.frames[..count] {
            name_frame(frame.load(Ordering::Relaxed), &mut text);
        }
    }
    text.push_str("------ STACK TRACE DONE ------\n--------\n");
    log::raw(&text);
}

fn name_frame(address: usize, to: &mut String) {
    let mut named = false;
    backtrace::resolve(std::ptr::without_provenance_mut(address), |symbol| {
        let Some(name) = symbol.name() else { return };
        named = true;
        let _ = write!(to, "  {address:#x} {name:#}");
        if let (Some(file), Some(line)) = (symbol.filename(), symbol.lineno()) {
            let _ = write!(to, " ({}:{line})", file.display());
        }
        to.push('\n');
    });
    if !named {
        let _ = writeln!(to, "  {address:#x}");
    }
}

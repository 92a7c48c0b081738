//! Scripts that take long: who they are, whether others are told to come back later, and how they are ended.
//!
//! A script that ends within a fraction of a millisecond is never entered here. Once one has run for longer than
//! `busy-reply-threshold` the server is busy until it ends: everybody else hears so at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// By which command a script was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// EVAL and its kin.
    Script,
    /// FCALL.
    Function,
}

/// Why a script is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// SCRIPT KILL or FUNCTION KILL.
    Killed,
    /// The server goes down.
    Shutdown,
}

/// A script that runs.
#[derive(Debug)]
pub struct Run {
    /// By which command.
    pub kind: Kind,
    /// The function's name, or the script's SHA.
    pub name: Vec<u8>,
    /// The command and its arguments.
    pub command: Vec<Vec<u8>>,
    started: Instant,
    overdue: AtomicBool,
    state: AtomicU8,
}

/// It goes on and has changed nothing yet.
const CLEAN: u8 = 0;
/// It has changed data.
const WROTE: u8 = 1;
/// It is to end.
const KILLED: u8 = 2;
/// It is to end whatever it did.
const SHUT_DOWN: u8 = 3;

impl Run {
    /// One that began at `started`.
    pub fn new(kind: Kind, name: Vec<u8>, command: Vec<Vec<u8>>, started: Instant) -> Run {
        Run { kind, name, command, started, overdue: AtomicBool::new(false), state: AtomicU8::new(CLEAN) }
    }

    /// How long it has run.
    pub fn lasts(&self) -> Duration {
        self.started.elapsed()
    }

    /// Notes that it changes data: from now on it can be ended only together with the server.
    ///
    /// Returns whether it may: not where it was told to end before.
    pub fn write(&self) -> bool {
        match self.state.compare_exchange(CLEAN, WROTE, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(state) => state == WROTE,
        }
    }

    /// Why it is to end.
    pub fn end(&self) -> Option<End> {
        match self.state.load(Ordering::Acquire) {
            KILLED => Some(End::Killed),
            SHUT_DOWN => Some(End::Shutdown),
            _ => None,
        }
    }
}

/// Why a script was not killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unkilled {
    /// None runs.
    NotBusy,
    /// It changed data.
    Wrote,
    /// It was called by the other kind of command.
    OtherKind(Kind),
}

/// The scripts that run and take long.
#[derive(Debug, Default)]
pub struct Running {
    runs: Mutex<Vec<Arc<Run>>>,
    overdue: AtomicUsize,
    ending: AtomicBool,
    reaching: AtomicUsize,
    /// How many are there who wait for sessions of the debugger to end.
    interrupting: AtomicUsize,
}

impl Running {
    /// Enters a script.
    pub fn enter(&self, run: Arc<Run>) {
        let mut runs = self.runs.lock();
        if self.ending.load(Ordering::Acquire) {
            run.state.store(SHUT_DOWN, Ordering::Release);
        }
        runs.push(run);
    }

    /// The server is busy with it from now on; returns whether it was not before.
    pub fn note_overdue(&self, run: &Run) -> bool {
        let first = !run.overdue.swap(true, Ordering::AcqRel);
        if first {
            self.overdue.fetch_add(1, Ordering::AcqRel);
        }
        first
    }

    /// Takes a script out that has ended.
    pub fn leave(&self, run: &Arc<Run>) {
        self.runs.lock().retain(|other| !Arc::ptr_eq(other, run));
        if run.overdue.load(Ordering::Acquire) {
            self.overdue.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Whether a script keeps the server busy.
    #[inline]
    pub fn is_busy(&self) -> bool {
        self.overdue.load(Ordering::Relaxed) != 0
    }

    /// Whether others should not wait for shards now: a script keeps the server busy, or reaches for more of them.
    #[inline]
    pub fn is_in_need(&self) -> bool {
        self.is_busy() || self.is_reaching()
    }

    /// Whether a script that runs beside others reaches for shards of keys that it did not declare.
    #[inline]
    pub fn is_reaching(&self) -> bool {
        self.reaching.load(Ordering::Relaxed) != 0
    }

    /// Has others let go of what they hold while they wait for more, as long as `f` tries to get it all.
    pub fn reach<R>(&self, f: impl FnOnce() -> R) -> R {
        self.reaching.fetch_add(1, Ordering::AcqRel);
        let reached = f();
        self.reaching.fetch_sub(1, Ordering::AcqRel);
        reached
    }

    /// By what kind of script the server is kept busy.
    #[inline]
    pub fn busy(&self) -> Option<Kind> {
        if self.is_busy() { self.first_overdue().map(|run| run.kind) } else { None }
    }

    #[cold]
    fn first_overdue(&self) -> Option<Arc<Run>> {
        self.runs.lock().iter().find(|run| run.overdue.load(Ordering::Acquire)).cloned()
    }

    /// The script that runs longest.
    pub fn oldest(&self) -> Option<Arc<Run>> {
        self.runs.lock().iter().max_by_key(|run| run.lasts()).cloned()
    }

    /// Tells the script of this kind that runs longest to end.
    ///
    /// # Errors
    /// Why it goes on.
    pub fn kill(&self, kind: Kind) -> Result<(), Unkilled> {
        let runs = self.runs.lock();
        let oldest = |wanted: Option<Kind>| {
            let fits = |run: &&Arc<Run>| wanted.is_none_or(|kind| run.kind == kind);
            runs.iter().filter(fits).max_by_key(|run| run.lasts())
        };
        let Some(run) = oldest(Some(kind)).or_else(|| oldest(None)) else { return Err(Unkilled::NotBusy) };
        if run.kind != kind {
            let wrote = run.state.load(Ordering::Acquire) == WROTE;
            return Err(if wrote { Unkilled::Wrote } else { Unkilled::OtherKind(run.kind) });
        }
        match run.state.compare_exchange(CLEAN, KILLED, Ordering::AcqRel, Ordering::Acquire) {
            Err(WROTE) => Err(Unkilled::Wrote),
            _ => Ok(()),
        }
    }

    /// Has sessions of the debugger end as long as `f` runs, which is to end the server: otherwise it would wait for their
    /// clients.
    pub fn interrupt<R>(&self, f: impl FnOnce() -> R) -> R {
        self.interrupting.fetch_add(1, Ordering::AcqRel);
        let done = f();
        self.interrupting.fetch_sub(1, Ordering::AcqRel);
        done
    }

    /// Whether sessions of the debugger are to end.
    pub fn is_interrupted(&self) -> bool {
        self.interrupting.load(Ordering::Acquire) != 0
    }

    /// Tells all scripts to end, whatever they have done, and those that are yet to be entered: the server goes down.
    pub fn end_all(&self) {
        self.ending.store(true, Ordering::Release);
        self.runs.lock().iter().for_each(|run| run.state.store(SHUT_DOWN, Ordering::Release));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kind: Kind) -> Arc<Run> {
        Arc::new(Run::new(kind, b"f".to_vec(), Vec::new(), Instant::now()))
    }

    #[test]
    fn what_wrote_is_not_killed_and_each_kind_has_its_own_command() {
        let running = Running::default();
        assert_eq!(running.kill(Kind::Script), Err(Unkilled::NotBusy));
        let one = run(Kind::Function);
        running.enter(one.clone());
        assert_eq!(running.busy(), None);
        assert!(running.note_overdue(&one) && !running.note_overdue(&one));
        assert_eq!(running.busy(), Some(Kind::Function));
        assert_eq!(running.kill(Kind::Script), Err(Unkilled::OtherKind(Kind::Function)));
        assert!(one.write());
        assert_eq!(running.kill(Kind::Function), Err(Unkilled::Wrote));
        assert_eq!(one.end(), None);
        running.end_all();
        assert_eq!(one.end(), Some(End::Shutdown));
        running.leave(&one);
        assert_eq!((running.busy(), running.kill(Kind::Function)), (None, Err(Unkilled::NotBusy)));
    }

    #[test]
    fn who_was_killed_may_not_begin_to_write() {
        let running = Running::default();
        let one = run(Kind::Script);
        running.enter(one.clone());
        assert_eq!(running.kill(Kind::Script), Ok(()));
        assert!(!one.write());
        assert_eq!(one.end(), Some(End::Killed));
    }
}

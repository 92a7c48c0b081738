//! What has come of a primary's stream and is not applied yet.
//!
//! Who reads from a replica right behind the answer to a write expects to find it: the change was sent before the
//! answer. A server that reads its sockets one after the other sees to that by itself. Here the link has a thread of
//! its own, so workers that have something to do let it go first, for a moment: it is no promise, and whoever needs
//! one asks by WAIT. What must stay true: a worker is never held up for long, however much there is to apply.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use crate::stdx::ticks::Ticks;

/// So long a worker waits at most, in microseconds: some times what it takes a thread to wake up and apply a change.
const PATIENCE_US: u64 = 200;
/// After a wait that was too long, so many times nobody waits: the link has more to do than can be waited for.
const SKIPPED: u32 = 64;

/// Says whether something has come that was not read yet.
pub type Comes = dyn Fn() -> bool + Send + Sync;

/// How far a link is with what has come.
#[derive(Default)]
pub struct Arrived {
    comes: ArcSwapOption<Box<Comes>>,
    /// Odd while the link reads and applies.
    turns: AtomicU64,
    /// So many times nobody waits.
    skipped: AtomicU32,
}

impl fmt::Debug for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrived").field("turns", &self.turns).finish_non_exhaustive()
    }
}

impl Arrived {
    /// Says how to ask for what has come; `None` where there is no link.
    pub fn follow(&self, comes: Option<Box<Comes>>) {
        self.comes.store(comes.map(Arc::new));
    }

    /// Called by the link alone, before it reads what has come.
    pub fn begin(&self) {
        self.turns.fetch_or(1, Ordering::AcqRel);
    }

    /// Called by the link alone, when all that it has read is applied.
    pub fn end(&self) {
        let turns = self.turns.load(Ordering::Relaxed);
        self.turns.store(turns + (turns & 1), Ordering::Release);
    }

    /// Waits until what has come by now is applied, unless that takes long.
    pub fn catch_up(&self) {
        let comes = self.comes.load();
        let Some(comes) = &*comes else { return };
        // In this order: what is not there any more was taken by a turn that had begun before.
        let waits = comes();
        let turns = self.turns.load(Ordering::Acquire);
        if !waits && turns & 1 == 0 {
            return;
        }
        let skipped = self.skipped.load(Ordering::Relaxed);
        if skipped > 0 {
            // Others may count at the same time: then it is some turns more.
            return self.skipped.store(skipped - 1, Ordering::Relaxed);
        }
        // The present turn may have read before the last of it came.
        let until = if waits { turns.next_multiple_of(2) + 2 } else { turns + 1 };
        let began = Ticks::now();
        while self.turns.load(Ordering::Acquire) < until {
            if began.elapsed_us() > PATIENCE_US {
                return self.skipped.store(SKIPPED, Ordering::Relaxed);
            }
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use super::*;

    #[test]
    fn where_nothing_comes_nobody_waits() {
        let arrived = Arrived::default();
        arrived.begin();
        arrived.catch_up();
        assert_eq!(arrived.skipped.load(Ordering::Relaxed), 0, "without a link there is nothing to wait for");
        arrived.follow(Some(Box::new(|| false)));
        arrived.end();
        arrived.catch_up();
        assert_eq!(arrived.skipped.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_has_come_is_applied_first() {
        let arrived = Arc::new(Arrived::default());
        let (came, applied) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let theirs = came.clone();
        arrived.follow(Some(Box::new(move || theirs.load(Ordering::Acquire))));
        let mut found = 0;
        for _ in 0..200 {
            applied.store(false, Ordering::Release);
            arrived.skipped.store(0, Ordering::Relaxed);
            came.store(true, Ordering::Release);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    arrived.begin();
                    came.store(false, Ordering::Release);
                    std::thread::yield_now();
                    applied.store(true, Ordering::Release);
                    arrived.end();
                });
                arrived.catch_up();
                // On a busy machine the other may take longer than is waited.
                found += usize::from(applied.load(Ordering::Acquire) || arrived.skipped.load(Ordering::Relaxed) > 0);
            });
        }
        assert_eq!(found, 200);
    }

    #[test]
    fn nobody_waits_long_or_again_and_again() {
        let arrived = Arrived::default();
        arrived.follow(Some(Box::new(|| true)));
        let began = std::time::Instant::now();
        for _ in 0..=SKIPPED {
            arrived.catch_up();
        }
        assert_eq!(arrived.skipped.load(Ordering::Relaxed), 0);
        assert!(began.elapsed() < Duration::from_secs(1), "it waited once");
    }
}

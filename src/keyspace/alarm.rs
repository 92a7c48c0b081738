//! The alarm of whoever removes due keys: it sleeps until the next of them is due, and is woken where one is
//! set that is due before that.
//!
//! What must stay true: a deadline that is published before [`Alarm::note`] is either seen by the sleeper before it
//! sleeps, or wakes it. Nobody is woken for a deadline that the sleeper will be awake for.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::thread::{self, Thread};
use std::time::Duration;

/// The alarm. There is one sleeper at most.
#[derive(Debug, Default)]
pub struct Alarm {
    /// Deadlines before this one, in Unix milliseconds, ring; 0 while the sleeper is awake.
    rings_before: AtomicU64,
    sleeper: OnceLock<Thread>,
}

impl Alarm {
    /// Says that a key is due at `deadline`, Unix milliseconds, where the sleeper will find it.
    #[inline]
    pub fn note(&self, deadline: u64) {
        // Either the sleeper sees the deadline, or we see that it sleeps.
        fence(Ordering::SeqCst);
        if deadline < self.rings_before.load(Ordering::Relaxed) {
            self.ring();
        }
    }

    #[cold]
    fn ring(&self) {
        self.rings_before.store(0, Ordering::Relaxed);
        if let Some(sleeper) = self.sleeper.get() {
            sleeper.unpark();
        }
    }

    /// Sleeps until what `next` finds is due, for `least` at least and for `most` at most; an unpark ends it
    /// early. To be called by one thread only.
    ///
    /// `next` returns a time in Unix milliseconds before which nothing is due, `None` where nothing ever is.
    pub fn sleep(&self, now_ms: u64, next: impl FnOnce() -> Option<u64>, least: Duration, most: Duration) {
        self.sleeper.get_or_init(thread::current);
        self.rings_before.store(u64::MAX, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        // A key is due in the millisecond after its deadline.
        let due = next().map_or(most, |next| Duration::from_millis(next.saturating_sub(now_ms).saturating_add(1)));
        let time = due.min(most).max(least);
        let awake_at = now_ms + (time - least).as_millis() as u64;
        if self.rings_before.swap(awake_at, Ordering::Relaxed) != 0 {
            thread::park_timeout(time);
        }
        self.rings_before.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn a_deadline_is_seen_or_wakes_whenever_it_is_set() {
        let rounds = if cfg!(miri) { 5 } else { 2000 };
        for round in 0..rounds {
            let (alarm, deadline, done) = (Alarm::default(), AtomicU64::new(u64::MAX), AtomicBool::new(false));
            thread::scope(|scope| {
                let sleeper = scope.spawn(|| {
                    // Ten minutes each time, had the deadline been missed.
                    while !done.load(Ordering::Acquire) {
                        let next = || Some(deadline.load(Ordering::Relaxed)).filter(|next| *next < u64::MAX);
                        alarm.sleep(1000, next, Duration::ZERO, LONG);
                        if deadline.load(Ordering::Relaxed) < u64::MAX {
                            done.store(true, Ordering::Release);
                        }
                    }
                });
                for _ in 0..round % 97 {
                    std::hint::spin_loop();
                }
                deadline.store(1000, Ordering::Relaxed);
                alarm.note(1000);
                sleeper.join().unwrap();
            });
        }
    }

    #[test]
    fn only_deadlines_before_the_time_it_wakes_ring() {
        let alarm = Alarm::default();
        alarm.note(1);
        assert!(alarm.sleeper.get().is_none(), "nobody sleeps");
        alarm.rings_before.store(50, Ordering::Relaxed);
        alarm.note(50);
        assert_eq!(alarm.rings_before.load(Ordering::Relaxed), 50);
        alarm.note(49);
        assert_eq!(alarm.rings_before.load(Ordering::Relaxed), 0);
    }
}

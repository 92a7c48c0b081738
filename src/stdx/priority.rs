//! Threads that let others go first.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{getpriority_process, setpriority_process};

/// The lowest priority there is.
const LAST: i32 = 19;
/// The steps by which a background thread stands behind others. Each is worth a tenth of the time where there are more
/// threads than cores.
const BEHIND: i32 = 10;

/// Has the calling thread get less time than others where they want all there is. Not to be called by one that others
/// wait for.
pub fn stand_back() {
    // On Linux the priority of a process is that of a thread. Refused, it is as important as the others.
    let _ = getpriority_process(None).and_then(|now| setpriority_process(None, (now + BEHIND).min(LAST)));
}

/// A thread's way to let others onto its core while it has much to do. Some schedulers let a thread run for milliseconds
/// before one that has just been woken, however little that one wants.
#[derive(Debug)]
pub struct Courtesy {
    every: Duration,
    since: Instant,
}

impl Courtesy {
    /// Gives way after so much time at work, about.
    pub fn every(every: Duration) -> Courtesy {
        Courtesy { every, since: Instant::now() }
    }

    /// Gives way where it is time to. Call it often, and with no lock held.
    pub fn give_way(&mut self) {
        if self.since.elapsed() >= self.every {
            thread::yield_now();
            self.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_gives_way_when_it_is_time_to() {
        let mut patient = Courtesy::every(Duration::from_secs(3600));
        let begun = patient.since;
        patient.give_way();
        assert_eq!(patient.since, begun);
        let mut hasty = Courtesy::every(Duration::ZERO);
        let begun = hasty.since;
        hasty.give_way();
        assert!(hasty.since > begun);
    }

    #[test]
    #[cfg_attr(miri, ignore = "there are no priorities")]
    fn one_thread_stands_back_and_no_other() {
        let before = getpriority_process(None).unwrap();
        let there = std::thread::spawn(|| {
            stand_back();
            getpriority_process(None).unwrap()
        });
        assert_eq!(there.join().unwrap(), (before + BEHIND).min(LAST));
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}

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

/// Who runs for a reply comes back sooner.
const LONG: Duration = Duration::from_millis(5);
/// After a long wait so many times that are none: of them the others take their part as well.
const PAUSES: u32 = 4;

/// A thread's way to let others onto its core while it has much to do. Some schedulers let a thread run for milliseconds
/// before one that has just been woken, however little that one wants. Who is kept waiting for long by others, who want all they
/// can get, does not give way again for a multiple of that: else he would come to nothing beside them.
#[derive(Debug)]
pub struct Courtesy {
    every: Duration,
    waited: Duration,
    since: Instant,
}

impl Courtesy {
    /// Gives way after so much time at work, about.
    pub fn every(every: Duration) -> Courtesy {
        Courtesy { every, waited: Duration::ZERO, since: Instant::now() }
    }

    /// Gives way where it is time to. Call it often, and with no lock held.
    pub fn give_way(&mut self) {
        let now = Instant::now();
        let pause = if self.waited >= LONG { self.waited * PAUSES } else { self.every };
        if now - self.since >= pause {
            thread::yield_now();
            self.since = Instant::now();
            self.waited = self.since - now;
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
        // It was kept waiting, and does not wait again as soon.
        hasty.waited = Duration::from_secs(3600);
        let begun = hasty.since;
        hasty.give_way();
        assert_eq!(hasty.since, begun);
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

//! Threads that let others go first.

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

#[cfg(test)]
mod tests {
    use super::*;

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

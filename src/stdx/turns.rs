//! How long a thread runs before others have their turn, which on Linux 6.12 and later also says how soon it has its own:
//! one that is woken goes before those whose turns are longer.
#![allow(unsafe_code)] // no library has these system calls

use std::time::Duration;

use libc::{SCHED_OTHER, SYS_sched_getattr, SYS_sched_setattr, c_long, sched_attr, syscall};

/// The shortest turn that there is.
const SHORTEST: Duration = Duration::from_micros(100);

/// Has the calling thread, and those that it starts, take short turns and have them soon: for threads that wait most of the
/// time, and others for them. Where the system refuses, or does not know of it, nothing changes.
pub fn take_short_turns() {
    set(SHORTEST);
}

/// Has the calling thread take turns as long as is usual, whoever started it.
pub fn take_usual_turns() {
    set(Duration::ZERO);
}

/// Sets how long turns are; zero stands for what is usual.
fn set(length: Duration) {
    let Some(mut now) = current() else { return };
    // Who was given another policy keeps it.
    if now.sched_policy != SCHED_OTHER.cast_unsigned() {
        return;
    }
    now.sched_runtime = length.as_nanos() as u64;
    let none: c_long = 0;
    // SAFETY: reads as many bytes as `size` says, which the system has set, and which are all there.
    let _ = unsafe { syscall(SYS_sched_setattr, none, &raw const now, none) };
}

/// How the calling thread is scheduled.
fn current() -> Option<sched_attr> {
    let mut attr = sched_attr {
        size: 0,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    let (none, size): (c_long, c_long) = (0, size_of::<sched_attr>() as c_long);
    // SAFETY: writes at most `size` bytes, all of which are there and may have any value.
    let done = unsafe { syscall(SYS_sched_getattr, none, &raw mut attr, size, none) };
    (done == 0).then_some(attr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "there are no turns")]
    fn turns_are_as_long_as_they_were_set() {
        std::thread::spawn(|| {
            let before = current().unwrap();
            take_short_turns();
            let short = current().unwrap();
            // Older systems do not tell, and leave all as it is.
            let is_known = before.sched_runtime > 0;
            assert_eq!(short.sched_runtime, if is_known { 100_000 } else { 0 });
            assert_eq!((short.sched_policy, short.sched_nice), (before.sched_policy, before.sched_nice));
            let inherited = std::thread::spawn(|| current().unwrap().sched_runtime).join().unwrap();
            assert_eq!(inherited, short.sched_runtime);
            take_usual_turns();
            assert_eq!(current().unwrap().sched_runtime, before.sched_runtime);
        })
        .join()
        .unwrap();
    }
}

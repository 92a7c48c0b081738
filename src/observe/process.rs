//! What the system knows of this process and its machine: memory, processor time, names.
//!
//! Each figure is read when it is asked for. Where the system does not tell, it is zero or empty.
#![allow(unsafe_code, reason = "std offers neither getrusage nor sysconf nor uname")]

use std::ffi::CStr;
use std::fs;
use std::mem::MaybeUninit;
use std::time::Duration;

/// Processor time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// Spent in the system for us.
    pub system: Duration,
    /// Spent by our own code.
    pub user: Duration,
}

/// Whose processor time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// All threads of this process.
    Process,
    /// The calling thread.
    Thread,
    /// Child processes that have ended.
    Children,
    /// The thread that `main` runs on.
    MainThread,
}

/// Processor time used since the start.
pub fn cpu_time(whose: Whose) -> CpuTime {
    match whose {
        Whose::Process => rusage(libc::RUSAGE_SELF),
        Whose::Thread => rusage(libc::RUSAGE_THREAD),
        Whose::Children => rusage(libc::RUSAGE_CHILDREN),
        Whose::MainThread => main_thread_time().unwrap_or_default(),
    }
}

fn rusage(who: libc::c_int) -> CpuTime {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a live local of the right type, for which all zeros is a valid value.
    let usage = unsafe {
        libc::getrusage(who, usage.as_mut_ptr());
        usage.assume_init()
    };
    let duration = |time: libc::timeval| {
        let (seconds, micros) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_usec));
        Duration::from_secs(seconds.unwrap_or(0)) + Duration::from_micros(micros.unwrap_or(0))
    };
    CpuTime { system: duration(usage.ru_stime), user: duration(usage.ru_utime) }
}

/// Any thread may ask, so getrusage does not help; the kernel tells it in hundredths of a second.
fn main_thread_time() -> Option<CpuTime> {
    let id = std::process::id();
    let text = fs::read_to_string(format!("/proc/self/task/{id}/stat")).ok()?;
    // The second field is a name in parentheses that may contain anything; user and system time are
    // the twelfth and thirteenth after it.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let per_second = system_value(libc::_SC_CLK_TCK).max(1);
    let mut next = || -> Option<Duration> {
        Some(Duration::from_nanos(fields.next()?.parse::<u64>().ok()?.saturating_mul(1_000_000_000 / per_second)))
    };
    let user = next()?;
    Some(CpuTime { user, system: next()? })
}

fn system_value(name: libc::c_int) -> u64 {
    // SAFETY: no precondition; an unknown name is answered with -1.
    u64::try_from(unsafe { libc::sysconf(name) }).unwrap_or(0)
}

/// Bytes of this process that are in memory.
pub fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok())
        .unwrap_or(0);
    pages * system_value(libc::_SC_PAGESIZE)
}

/// Bytes of memory that this process may use: the machine's, or less where its control group says so.
pub fn usable_memory_bytes() -> u64 {
    // Version 2 of control groups, then version 1; `max` is no limit, and so is a number larger than any machine.
    let files = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits = files.iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    limits.fold(machine_memory_bytes(), u64::min)
}

/// Bytes of memory that the machine has.
pub fn machine_memory_bytes() -> u64 {
    system_value(libc::_SC_PHYS_PAGES) * system_value(libc::_SC_PAGESIZE)
}

/// The operating system: its name, release and machine, `Linux 6.1.0 x86_64`.
pub fn operating_system() -> String {
    let mut names = MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: the pointer is to a live local of the right type; all zeros are valid empty strings.
    let names = unsafe {
        libc::uname(names.as_mut_ptr());
        names.assume_init()
    };
    let text = |field: &[libc::c_char]| {
        // SAFETY: uname ends each name with NUL within its field, and before the call all were NUL.
        unsafe { CStr::from_ptr(field.as_ptr()) }.to_string_lossy().into_owned()
    };
    format!("{} {} {}", text(&names.sysname), text(&names.release), text(&names.machine))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_plausible_figures() {
        assert!(resident_bytes() > 1 << 20 && resident_bytes() < machine_memory_bytes());
        assert!(operating_system().ends_with(std::env::consts::ARCH));
    }

    #[test]
    fn work_takes_processor_time() {
        let before = cpu_time(Whose::Process);
        let mut sum = 0u64;
        while cpu_time(Whose::Process).user <= before.user {
            (0..100_000u64).for_each(|n| sum = std::hint::black_box(sum.wrapping_add(n)));
        }
        let main = cpu_time(Whose::MainThread);
        assert!(main_thread_time().is_some());
        assert!(main.user <= cpu_time(Whose::Process).user + Duration::from_millis(20));
    }
}

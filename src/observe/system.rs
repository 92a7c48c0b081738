//! What the log and the crash report ask of the C library: local time, syslog, writing to a
//! descriptor, signals. Each call is wrapped so that nothing above needs `unsafe`.
#![allow(unsafe_code, reason = "std has neither local time nor syslog nor signal handlers")]

use std::ffi::{CStr, CString, c_int};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A broken-down time of the local zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LocalTime {
    pub year: i32,
    /// 0 is January.
    pub month: usize,
    pub day: i32,
    pub hour: i32,
    pub minute: i32,
    pub second: i32,
    /// East of Greenwich, daylight saving included.
    pub offset_s: i64,
}

/// The local time of a unix time; that of 1970 if it is beyond what the library can express.
pub(super) fn local_time(unix_s: u64) -> LocalTime {
    let time = unix_s as libc::time_t;
    let mut parts = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to live locals of the right types. All zeros is a valid `tm`
    // (its only pointer may be null), so it is initialised even where the call fails.
    let parts = unsafe {
        libc::localtime_r(&raw const time, parts.as_mut_ptr());
        parts.assume_init()
    };
    LocalTime {
        year: parts.tm_year + 1900,
        month: parts.tm_mon.clamp(0, 11) as usize,
        day: parts.tm_mday,
        hour: parts.tm_hour,
        minute: parts.tm_min,
        second: parts.tm_sec,
        offset_s: parts.tm_gmtoff,
    }
}

/// Connects to syslog under a name. The name is kept for ever, because the library goes on reading it.
pub(super) fn open_syslog(ident: &str, facility: c_int) {
    let ident = CString::new(ident.replace('\0', "")).unwrap_or_default();
    // SAFETY: the string is never freed, which is what openlog asks for.
    unsafe { libc::openlog(ident.into_raw(), libc::LOG_PID | libc::LOG_NDELAY | libc::LOG_NOWAIT, facility) };
}

/// Sends one message; a NUL byte ends it.
pub(super) fn write_syslog(priority: c_int, message: &str) {
    let end = message.find('\0').unwrap_or(message.len());
    if let Ok(message) = CString::new(&message[..end]) {
        // SAFETY: the format takes one string, and one is given, ended by NUL.
        unsafe { libc::syslog(priority, c"%s".as_ptr(), message.as_ptr()) };
    }
}

/// Writes all of `bytes` to a descriptor, without a lock or an allocation: for signal handlers.
/// Stops silently where the descriptor does not take them.
pub(super) fn write_all(fd: c_int, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the pointer and length are those of a live slice.
        let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(written) {
            Ok(n) if n > 0 => bytes = &bytes[n..],
            _ if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

/// What a signal handler is told: the signal, its code, and the address at fault.
pub(super) type OnSignal = fn(c_int, c_int, usize);

static ON_SIGNAL: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let on_signal = ON_SIGNAL.load(Ordering::Acquire);
    // SAFETY: the kernel passes a valid siginfo to handlers set with SA_SIGINFO. The pointer was
    // stored from an `OnSignal` before any handler was set.
    unsafe {
        let on_signal: OnSignal = std::mem::transmute(on_signal);
        on_signal(signal, (*info).si_code, (*info).si_addr() as usize);
    }
}

/// Calls `on_signal` for these signals, on the thread's alternate stack where it has one. The
/// signals are not blocked meanwhile: a fault inside of it calls it again.
pub(super) fn catch(signals: &[c_int], on_signal: OnSignal) {
    ON_SIGNAL.store(on_signal as *mut (), Ordering::Release);
    for signal in signals {
        // SAFETY: the action is fully initialised (zeros, then the fields that matter), and the
        // handler has the signature that SA_SIGINFO promises.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(*signal, &raw const action, std::ptr::null_mut());
        }
    }
}

static ON_ALARM: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn handle_alarm(_signal: c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let on_alarm = ON_ALARM.load(Ordering::Acquire);
    // SAFETY: as in `handle`; the sender is there for the codes that are sent by somebody. What is interrupted finds errno
    // as it was.
    unsafe {
        let errno = *libc::__errno_location();
        let ours = (*info).si_code == libc::SI_TKILL && (*info).si_pid() == libc::getpid();
        let on_alarm: fn(bool) = std::mem::transmute(on_alarm);
        on_alarm(ours);
        *libc::__errno_location() = errno;
    }
}

/// Calls `on_alarm` for SIGALRM, with whether it comes from [`alarm_thread`]. System calls go on afterwards.
pub(super) fn catch_alarm(on_alarm: fn(bool)) {
    ON_ALARM.store(on_alarm as *mut (), Ordering::Release);
    // SAFETY: as in `catch`.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle_alarm as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut());
    }
}

/// Sends SIGALRM to a thread of this process; returns whether there is one.
pub(super) fn alarm_thread(id: i32) -> bool {
    // SAFETY: no precondition: the signal has a handler, and who is not there any more is not found.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), id, libc::SIGALRM) == 0 }
}

/// The system's number of the calling thread.
pub(super) fn thread_id() -> i32 {
    // SAFETY: no precondition.
    unsafe { libc::gettid() }
}

/// Gives these signals their default effect.
pub(super) fn release(signals: &[c_int]) {
    for signal in signals {
        // SAFETY: SIG_DFL is always a valid disposition.
        unsafe { libc::signal(*signal, libc::SIG_DFL) };
    }
}

/// Ends the process by `signal`, whose default effect must have been restored; aborts if it survives.
pub(super) fn die_by(signal: c_int) -> ! {
    // SAFETY: raising a signal has no precondition; abort does not return.
    unsafe {
        libc::raise(signal);
        libc::abort()
    }
}

/// Lets SIGALRM end the process in `seconds`.
pub(super) fn die_after(seconds: u32) {
    release(&[libc::SIGALRM]);
    // SAFETY: no precondition.
    unsafe { libc::alarm(seconds) };
}

/// A number that tells live threads apart; never 0.
pub(super) fn thread_number() -> usize {
    // SAFETY: no precondition.
    unsafe { libc::pthread_self() as usize }
}

/// Sleeps until a signal ends the process.
pub(super) fn wait_for_the_end() -> ! {
    loop {
        // SAFETY: no precondition.
        unsafe { libc::pause() };
    }
}

/// A thread's alternate stack for signal handlers, until it is dropped, which that thread must do. Its pages are not touched
/// before a signal needs them.
pub(super) struct AlternateStack {
    base: *mut libc::c_void,
    bytes: usize,
}

impl AlternateStack {
    /// Gives the calling thread one of `bytes`; `None` if the system refuses, then it keeps what there was.
    pub fn set(bytes: usize) -> Option<AlternateStack> {
        let (read_write, private) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh anonymous mapping touches no memory that is in use.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, read_write, private, -1, 0) };
        if base == libc::MAP_FAILED {
            return None;
        }
        let (stack, own) = (libc::stack_t { ss_sp: base, ss_flags: 0, ss_size: bytes }, AlternateStack { base, bytes });
        // SAFETY: the mapping is our own, of this size, and stays until the thread has another stack or none.
        (unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) } == 0).then_some(own)
    }
}

impl Drop for AlternateStack {
    fn drop(&mut self) {
        let none = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        // SAFETY: no handler runs on it, for it would have to return first; once the thread has none nobody uses the
        // mapping, which is our own. Where another took its place none is the safe choice.
        unsafe {
            libc::sigaltstack(&raw const none, std::ptr::null_mut());
            libc::munmap(self.base, self.bytes);
        }
    }
}

/// The system's name of a signal ("Segmentation fault"); empty if it has none.
pub(super) fn signal_name(signal: c_int) -> &'static str {
    // SAFETY: the result is null or a string that lives as long as the process: only standard
    // signals are asked for, whose names are constants of the library.
    unsafe {
        let name = libc::strsignal(signal);
        if name.is_null() { "" } else { CStr::from_ptr(name).to_str().unwrap_or("") }
    }
}

/// The description of an error without Rust's `(os error N)`, as Redis' messages have it.
pub(super) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

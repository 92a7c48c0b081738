//! What a server process asks of the system: its title, its limits, going into the background, signals.
//!
//! For the binary; a library changes nothing of its host's process.
#![allow(unsafe_code, reason = "std offers none of these calls")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use parking_lot::Mutex;

use crate::script::debugger::Side;

/// The memory that holds the arguments the process was started with, and its environment.
struct TitleArea {
    start: usize,
    len: usize,
}

static TITLE: Mutex<Option<TitleArea>> = Mutex::new(None);

/// Whether the calling thread is the only one.
fn is_alone() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// Makes room for a title of one's own, which takes the place of arguments and environment.
///
/// To be called before any other thread runs (else nothing happens), and after the arguments have been
/// read: the environment is copied, and what [`std::env::args`] returns afterwards is the title.
pub fn prepare_title() {
    if !is_alone() {
        return;
    }
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
    // After the name in parentheses: field 3 of proc(5) comes first, arg_start is field 48, env_end 51.
    let Some((_, rest)) = stat.rsplit_once(')') else { return };
    let fields: Vec<usize> = rest.split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
    let (Some(&start), Some(&end)) = (fields.get(45), fields.get(48)) else { return };
    if start == 0 || end <= start {
        return;
    }
    for (name, value) in std::env::vars_os() {
        // SAFETY: no other thread runs, so nobody reads the environment meanwhile.
        unsafe { std::env::set_var(name, value) };
    }
    *TITLE.lock() = Some(TitleArea { start, len: end - start });
}

/// Shows `title` in `ps` and `top`; cut to the room there is. Nothing happens without [`prepare_title`].
pub fn set_title(title: &[u8]) {
    if let Some(area) = &*TITLE.lock() {
        let text = &title[..title.len().min(area.len - 1)];
        let at = std::ptr::with_exposed_provenance_mut::<u8>(area.start);
        // SAFETY: the kernel gave this area to the process for its arguments and environment, both
        // were copied by `prepare_title`, and the lock makes us its only writer.
        unsafe {
            std::ptr::write_bytes(at, 0, area.len);
            std::ptr::copy_nonoverlapping(text.as_ptr(), at, text.len());
        }
    }
}

/// Detaches from the terminal and goes on in a child process in the background.
///
/// # Errors
/// What the system says, or that other threads run already: the child would not have them.
pub fn daemonize() -> io::Result<()> {
    if !is_alone() {
        return Err(io::Error::other("other threads run already"));
    }
    // SAFETY: one thread only, so the child is whole.
    if unsafe { libc::daemon(1, 0) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How many files the process may open; raised to `wanted` where that is allowed.
pub fn raise_open_files(wanted: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live local of the right type.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return 1024;
    }
    if limit.rlim_cur < wanted {
        let more = libc::rlimit { rlim_cur: wanted, rlim_max: limit.rlim_max.max(wanted) };
        let most = libc::rlimit { rlim_cur: wanted.min(limit.rlim_max), rlim_max: limit.rlim_max };
        for attempt in [more, most] {
            // SAFETY: as above.
            if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const attempt) } == 0 {
                return attempt.rlim_cur;
            }
        }
    }
    limit.rlim_cur
}

/// Gives a file to a group, by name or number, or to that of the process.
///
/// # Errors
/// Where there is no such group, or the system refuses.
pub fn change_group(path: &Path, group: Option<&[u8]>) -> io::Result<()> {
    let gid = match group {
        Some(group) => group_id(group)?,
        // SAFETY: asks for a number.
        None => unsafe { libc::getegid() },
    };
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the string lives through the call; a user id of -1 means that the owner stays.
    if unsafe { libc::chown(path.as_ptr(), u32::MAX, gid) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The number of a group, which is given by its name or is that number.
fn group_id(group: &[u8]) -> io::Result<libc::gid_t> {
    let name = CString::new(group).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the string lives through the call; the answer is read before anyone else may ask.
    let entry = unsafe { libc::getgrnam(name.as_ptr()) };
    if entry.is_null() {
        let number = std::str::from_utf8(group).ok().and_then(|g| g.parse().ok());
        return number.ok_or_else(|| io::ErrorKind::NotFound.into());
    }
    // SAFETY: not null, so it points to the library's static entry.
    Ok(unsafe { (*entry).gr_gid })
}

/// The copies of this process that have not ended yet.
static COPIES: Mutex<Vec<libc::pid_t>> = Mutex::new(Vec::new());

/// Copies the process, as it is at this moment, with the calling thread only. The copy keeps standard input, output and
/// error and `keep`, closes all other files, takes signals as any program does, and is killed when this process ends.
///
/// Locks that other threads hold stay locked in the copy for ever: it must know what it touches, and set itself an end
/// ([`end_after`]) where it does not. It must never return to where other threads would be needed; [`leave`] ends it.
///
/// # Errors
/// What the system says.
pub fn copy(keep: BorrowedFd<'_>) -> io::Result<Side> {
    let parent = std::process::id();
    // SAFETY: the copy has this thread and its stack, all memory, and an allocator that has seen to its own locks; what
    // it must not do with them is said above.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            become_copy(keep, parent);
            Ok(Side::Copy)
        }
        pid => {
            COPIES.lock().push(pid);
            // Without the thread it is remembered by the system until the server ends.
            let _ = std::thread::Builder::new().name("reaper".into()).spawn(move || reap(pid));
            Ok(Side::Server)
        }
    }
}

fn become_copy(keep: BorrowedFd<'_>, parent: u32) {
    // SAFETY: none of the calls touches memory of ours but the local set.
    unsafe {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGALRM, libc::SIGCHLD] {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid().unsigned_abs() != parent {
            // It ended before it was to be told of.
            libc::_exit(1);
        }
    }
    close_all_but(keep);
}

/// Closes all files but standard input, output and error and `keep`: as long as a copy has a socket, its peer does not
/// learn that the server has closed it.
fn close_all_but(keep: BorrowedFd<'_>) {
    let keep = keep.as_raw_fd();
    let close = |from: i32, to: i32| {
        // SAFETY: the files belong to values that a copy never drops, since it ends by `leave`.
        from > to || unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) } == 0
    };
    if close(3, keep - 1) && close(keep.max(2) + 1, i32::MAX) {
        return;
    }
    // Where the system does not know that call, or does not permit it. The list is whole before the first is closed.
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .filter_map(|file| file.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for file in open.into_iter().filter(|file| *file > 2 && *file != keep) {
        // SAFETY: as above.
        unsafe { libc::close(file) };
    }
}

/// Waits until a copy has ended, so that nothing is left of it.
fn reap(pid: libc::pid_t) {
    // SAFETY: the record is a live local of the right type; the copy is this process' own, and nobody else waits for it.
    unsafe {
        let mut record: libc::siginfo_t = std::mem::zeroed();
        let id = pid.unsigned_abs();
        // It keeps its number until it is out of the list: no other process is killed in its place.
        while libc::waitid(libc::P_PID, id, &raw mut record, libc::WEXITED | libc::WNOWAIT) != 0 {
            if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                break;
            }
        }
        let mut copies = COPIES.lock();
        libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG);
        copies.retain(|copy| *copy != pid);
    }
}

/// Kills the copies of this process that have not ended yet.
pub fn end_copies() {
    for pid in COPIES.lock().iter() {
        // SAFETY: it is our own process, and as long as it is in the list nobody else has its number.
        unsafe { libc::kill(*pid, libc::SIGKILL) };
    }
}

/// Ends the calling process after so many seconds, unless it is told otherwise; 0 takes that back. For a copy.
pub fn end_after(seconds: u32) {
    // SAFETY: the call takes a number; what an alarm does is up to the process, and a copy is ended by it.
    unsafe { libc::alarm(seconds) };
}

/// Ends the calling process at once: nothing is dropped, no handler runs. For a copy.
pub fn leave() -> ! {
    // SAFETY: it does not return.
    unsafe { libc::_exit(0) }
}

/// Sends a signal to the own process.
pub fn raise(signal: i32) {
    // SAFETY: the call takes a number and touches no memory of ours.
    unsafe { libc::raise(signal) };
}

/// Ignores a signal from now on.
pub fn ignore(signal: i32) {
    // SAFETY: no handler is installed, the signal is only dropped.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Whether standard output is a terminal.
pub fn stdout_is_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stdout())
}

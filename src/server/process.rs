//! What a server process asks of the system: its title, its limits, going into the background, signals.
//!
//! For the binary; a library changes nothing of its host's process.
#![allow(unsafe_code, reason = "std offers none of these calls")]

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use parking_lot::Mutex;

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

/// Gives a file to a group, by name or number.
///
/// # Errors
/// Where there is no such group, or the system refuses.
pub fn change_group(path: &Path, group: &[u8]) -> io::Result<()> {
    let name = CString::new(group).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the string lives through the call; the answer is read before anyone else may ask.
    let entry = unsafe { libc::getgrnam(name.as_ptr()) };
    let gid = if entry.is_null() {
        std::str::from_utf8(group).ok().and_then(|g| g.parse().ok()).ok_or(io::ErrorKind::NotFound)?
    } else {
        // SAFETY: not null, so it points to the library's static entry.
        unsafe { (*entry).gr_gid }
    };
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the string lives through the call; a user id of -1 means that the owner stays.
    if unsafe { libc::chown(path.as_ptr(), u32::MAX, gid) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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

//! What the allocator tells of itself, and what it can be told.
//!
//! With the feature `jemalloc` these are jemalloc's own figures, if it is the allocator of this program
//! ([`memory::installed`]); a program that embeds the library may have another one, of which nothing is
//! known. Options are read and written as DEBUG MALLCTL asks, but only in ways that cannot break memory:
//! numbers are read as such, text is read only where an option is known to be text, and what may be
//! written is listed.
#![cfg_attr(feature = "jemalloc", allow(unsafe_code, reason = "jemalloc is a C library"))]

use crate::stdx::memory;

/// How an allocator uses memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// What it has given out.
    pub allocated: u64,
    /// The pages that this is in.
    pub active: u64,
    /// What it holds of the machine's memory.
    pub resident: u64,
}

/// The allocator's name and version as INFO has it: `jemalloc-5.3.1`, `libc`.
pub fn name() -> String {
    match jemalloc::version() {
        Some(version) if memory::installed() => format!("jemalloc-{version}"),
        _ => "libc".to_owned(),
    }
}

/// Whether memory comes from jemalloc.
pub fn is_jemalloc() -> bool {
    memory::installed() && jemalloc::version().is_some()
}

/// How it uses memory at the moment; `None` where it does not tell.
pub fn figures() -> Option<Figures> {
    if is_jemalloc() { jemalloc::figures() } else { None }
}

/// Gives unused pages back to the system. Returns whether the allocator can do that.
pub fn purge() -> bool {
    is_jemalloc() && jemalloc::purge()
}

/// Has a thread of the allocator's own give unused pages back, or not.
///
/// Without it whoever allocates next pays for that: after a flush of 1.5 GB, and a rest, one SET took 400 ms.
/// Call it after the last fork: the thread does not survive one.
pub fn set_background_thread(on: bool) {
    if is_jemalloc() {
        // Where the system has no such threads, nothing is lost but the figure above.
        let _ = jemalloc::number(b"background_thread", Some(i64::from(on)));
    }
}

/// All that the allocator knows, for people; `None` where it does not tell.
pub fn report() -> Option<String> {
    if is_jemalloc() { jemalloc::report() } else { None }
}

/// Reads the number behind an option and then, if there is a `new` value, writes it.
///
/// # Errors
/// The system's words: no such option, it is no number, it must not be written.
pub fn number(option: &[u8], new: Option<i64>) -> Result<i64, String> {
    jemalloc::number(option, new)
}

/// Reads the text behind an option.
///
/// # Errors
/// The system's words: no such option, or it is no text.
pub fn text(option: &[u8]) -> Result<Vec<u8>, String> {
    jemalloc::text(option)
}

#[cfg(feature = "jemalloc")]
mod jemalloc {
    use std::ffi::{CStr, CString, c_char, c_int, c_void};
    use std::io;
    use std::ptr::null_mut;

    use tikv_jemalloc_sys::{mallctl, malloc_stats_print};

    use super::Figures;

    /// Stands for all arenas in names of options.
    const ALL_ARENAS: u32 = 4096;

    /// Options that may be written: a number out of bounds is refused by jemalloc itself.
    const WRITABLE: &[&str] = &[
        "background_thread",
        "max_background_threads",
        "arenas.dirty_decay_ms",
        "arenas.muzzy_decay_ms",
        "arena.*.dirty_decay_ms",
        "arena.*.muzzy_decay_ms",
        "arena.*.retain_grow_limit",
        "thread.tcache.enabled",
        "thread.arena",
    ];

    /// Options whose value is text; reading another one as text would follow a number as a pointer.
    const TEXT: &[&str] = &[
        "version",
        "config.malloc_conf",
        "opt.dss",
        "opt.metadata_thp",
        "opt.percpu_arena",
        "opt.stats_print_opts",
        "opt.stats_interval_opts",
        "opt.junk",
        "opt.thp",
        "opt.zero_realloc",
        "arena.*.dss",
    ];

    /// Whether an option is in a list, in which `*` stands for the number of an arena.
    fn listed(list: &[&str], option: &[u8]) -> bool {
        let Ok(option) = std::str::from_utf8(option) else { return false };
        list.iter().any(|name| {
            let (mut known, mut given) = (name.split('.'), option.split('.'));
            let fits = known.by_ref().zip(given.by_ref()).all(|(known, given)| {
                known == given || known == "*" && !given.is_empty() && given.bytes().all(|b| b.is_ascii_digit())
            });
            fits && name.split('.').count() == option.split('.').count()
        })
    }

    fn words(code: c_int) -> String {
        crate::observe::system::plain(&io::Error::from_raw_os_error(code))
    }

    fn option_name(option: &[u8]) -> Result<CString, String> {
        CString::new(option).map_err(|_| words(libc::ENOENT))
    }

    /// Reads `size` (8 at most) bytes of an option as a little-endian number.
    fn read(name: &CStr, size: usize) -> Result<u64, c_int> {
        let (mut value, mut len) = (0u64, size);
        // SAFETY: jemalloc writes as many bytes as the option has, and refuses if that is not `len`,
        // which is at most the size of `value`.
        let code = unsafe { mallctl(name.as_ptr(), (&raw mut value).cast(), &raw mut len, null_mut(), 0) };
        if code == 0 { Ok(u64::from_le(value)) } else { Err(code) }
    }

    fn write(name: &CStr, value: u64, size: usize) -> Result<(), c_int> {
        let mut value = value.to_le();
        // SAFETY: jemalloc reads `size` bytes, at most that of `value`, or refuses.
        let code = unsafe { mallctl(name.as_ptr(), null_mut(), null_mut(), (&raw mut value).cast(), size) };
        if code == 0 { Ok(()) } else { Err(code) }
    }

    pub(super) fn version() -> Option<String> {
        let text = text(b"version").ok()?;
        Some(String::from_utf8_lossy(text.split(|byte| *byte == b'-').next()?).into_owned())
    }

    pub(super) fn figures() -> Option<Figures> {
        // Figures are those of the last epoch: begin another one.
        write(c"epoch", 1, 8).ok()?;
        let of = |name| read(name, 8).ok();
        Some(Figures {
            allocated: of(c"stats.allocated")?,
            active: of(c"stats.active")?,
            resident: of(c"stats.resident")?,
        })
    }

    pub(super) fn purge() -> bool {
        let name = CString::new(format!("arena.{ALL_ARENAS}.purge")).expect("no NUL in it");
        // SAFETY: nothing is read or written.
        unsafe { mallctl(name.as_ptr(), null_mut(), null_mut(), null_mut(), 0) == 0 }
    }

    unsafe extern "C" fn append(to: *mut c_void, text: *const c_char) {
        // SAFETY: `to` is the vector that `report` lends for the time of the call, `text` a C string.
        unsafe { (*to.cast::<Vec<u8>>()).extend_from_slice(CStr::from_ptr(text).to_bytes()) };
    }

    pub(super) fn report() -> Option<String> {
        let mut text: Vec<u8> = Vec::new();
        // SAFETY: the callback gets the vector back, on this thread and during this call only.
        unsafe { malloc_stats_print(Some(append), (&raw mut text).cast(), std::ptr::null()) };
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    pub(super) fn number(option: &[u8], new: Option<i64>) -> Result<i64, String> {
        let name = option_name(option)?;
        if new.is_some() && !listed(WRITABLE, option) {
            return Err(words(if read(&name, 8) == Err(libc::ENOENT) { libc::ENOENT } else { libc::EPERM }));
        }
        // A number has 8, 4 or, as a boolean, 1 byte: jemalloc refuses the wrong size.
        let found = [8, 4, 1].into_iter().find_map(|size| match read(&name, size) {
            Err(libc::EINVAL) => None,
            other => Some(other.map(|value| (value, size))),
        });
        let (was, size) = found.unwrap_or(Err(libc::EINVAL)).map_err(words)?;
        if let Some(new) = new {
            write(&name, new as u64, size).map_err(words)?;
        }
        let was = if size == 4 { i64::from(was as u32) } else { was as i64 };
        Ok(was)
    }

    pub(super) fn text(option: &[u8]) -> Result<Vec<u8>, String> {
        let name = option_name(option)?;
        let (mut value, mut len) = (std::ptr::null::<c_char>(), size_of::<*const c_char>());
        if !listed(TEXT, option) {
            return Err(words(if read(&name, 8) == Err(libc::ENOENT) { libc::ENOENT } else { libc::EINVAL }));
        }
        // SAFETY: the option is one whose value is a pointer to a string of jemalloc's own, or null.
        unsafe {
            match mallctl(name.as_ptr(), (&raw mut value).cast(), &raw mut len, null_mut(), 0) {
                0 if value.is_null() => Ok(Vec::new()),
                0 => Ok(CStr::from_ptr(value).to_bytes().to_vec()),
                code => Err(words(code)),
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn figures_fit_into_each_other() {
            assert!(version().is_some_and(|version| version.starts_with("5.")));
            let figures = figures().unwrap();
            assert!(figures.allocated <= figures.active && figures.active <= figures.resident, "{figures:?}");
            assert!(purge());
            assert!(report().unwrap().contains("jemalloc statistics"));
        }

        #[test]
        fn options_are_read_and_written_by_name() {
            assert_eq!(number(b"arenas.page", None), Ok(4096));
            assert_eq!(number(b"nonsense", None), Err("No such file or directory".into()));
            assert_eq!(number(b"nonsense", Some(1)), Err("No such file or directory".into()));
            assert_eq!(number(b"arenas.page", Some(5)), Err("Operation not permitted".into()));
            assert_eq!(number(b"arena.0.extent_hooks", Some(5)), Err("Operation not permitted".into()));
            let before = number(b"arena.0.dirty_decay_ms", Some(1234)).unwrap();
            assert_eq!(number(b"arena.0.dirty_decay_ms", Some(before)), Ok(1234));
            assert!(matches!(number(b"config.stats", None), Ok(0 | 1)));
            assert_eq!(text(b"arena.0.dss").map(|text| text.is_empty()), Ok(false));
            assert_eq!(text(b"stats.allocated"), Err("Invalid argument".into()));
            assert_eq!(text(b"arenas.nonsense"), Err("No such file or directory".into()));
            assert_eq!(text(b"a\0b"), Err("No such file or directory".into()));
        }
    }
}

#[cfg(not(feature = "jemalloc"))]
mod jemalloc {
    use super::Figures;

    pub(super) fn version() -> Option<String> {
        None
    }

    pub(super) fn figures() -> Option<Figures> {
        None
    }

    pub(super) fn purge() -> bool {
        false
    }

    pub(super) fn report() -> Option<String> {
        None
    }

    pub(super) fn number(_: &[u8], _: Option<i64>) -> Result<i64, String> {
        Err("MALLCTL needs jemalloc".into())
    }

    pub(super) fn text(_: &[u8]) -> Result<Vec<u8>, String> {
        Err("MALLCTL needs jemalloc".into())
    }
}

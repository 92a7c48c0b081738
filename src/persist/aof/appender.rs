//! Writing: what the log tells goes into a buffer, from there into the file, and from there onto the disk.
//!
//! Under `everysec` and `no` a worker writes what its batch has changed before the replies leave, so that what was
//! answered survives the end of the process. Under `always` a thread writes and syncs, for all connections at once, and
//! replies wait for it: [`Appender::is_durable`]. While that thread syncs, nobody else writes, because a write to a
//! file that is being synced may take as long as the sync.
//!
//! What must stay true: bytes reach the file in the log's order, whole commands at a time, as far as the disk lets
//! them; what could not be written is kept and tried again, and until that has succeeded [`Appender::trouble`] says so.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::config::choice::AppendFsync;
use crate::observe::log::{notice, warning};
use crate::persist::aof::crowd::Crowd;
use crate::persist::disk::{Append, plain};

/// How often `everysec` syncs.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// How soon what failed is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// A thread that sleeps sleeps for as long as this.
const SHORTEST_NAP: Duration = Duration::from_micros(50);
/// A failure is told as often as this.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// A buffer that was larger is given back.
const KEPT_BYTES: usize = 1 << 20;

/// What the log has told and nobody has taken yet.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// The offset in the log that it reaches to.
    end: u64,
    /// When the last annotation with a time was written: Unix seconds.
    stamped_s: u64,
}

/// The file, and what is on its way into it.
#[derive(Default)]
struct Files {
    current: Option<Arc<Append>>,
    /// Bytes of whole commands in the current file.
    size: u64,
    /// Files that were left, and have yet to be synced.
    left: Vec<Arc<Append>>,
    /// What was taken from the buffer and is not in the file.
    rest: Vec<u8>,
    /// The offset in the log that `rest` reaches to.
    end: u64,
    /// What was written since the last sync, where replies wait for one.
    unsynced: Vec<u8>,
    /// The offset in the log at which that begins.
    unsynced_from: u64,
    /// That could not be synced, and is to be written once more before another sync: the system tells of a failure once, and takes
    /// for clean from then on what never got to the disk.
    is_doubtful: bool,
    told: Option<Instant>,
}

/// Why nothing can be written at the moment.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// What the system says.
    pub reason: String,
}

/// Writes the log to a file.
#[derive(Default)]
pub struct Appender {
    buffer: Mutex<Buffer>,
    files: Mutex<Files>,
    /// The offset in the log up to which the file has it.
    written: AtomicU64,
    /// The offset in the log up to which the disk has it.
    synced: AtomicU64,
    always: AtomicBool,
    /// Times are written: `aof-timestamp-enabled`.
    pub stamps: AtomicBool,
    /// One syncs at a time: of two the system tells one of a failure.
    turn: Mutex<()>,
    /// Somebody syncs.
    syncing: AtomicBool,
    since: Mutex<Option<Instant>>,
    waiting: Mutex<Vec<(u64, Waker)>>,
    crowd: Mutex<Crowd>,
    trouble: Mutex<Option<Trouble>>,
    in_trouble: AtomicBool,
    bell: Mutex<bool>,
    rung: Condvar,
    /// How often a write was put off because of a sync.
    pub delayed: AtomicU64,
    /// Bytes in the current file.
    pub size: AtomicU64,
    /// How long to wait before each write, in microseconds: for tests of what happens meanwhile.
    pub delay_us: AtomicU64,
}

/// What the thread goes by.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// When to sync.
    pub sync: AppendFsync,
    /// Do not sync now, whatever `sync` says: something else writes much.
    pub hold: bool,
}

impl Appender {
    /// Takes what the log tells: called under the log's lock. `stamp_s` is the time in Unix seconds, where times are to
    /// be written.
    pub fn push(&self, bytes: &[u8], stamp_s: Option<u64>) {
        let mut buffer = self.buffer.lock();
        if let Some(now_s) = stamp_s
            && buffer.stamped_s < now_s
        {
            buffer.stamped_s = now_s;
            buffer.bytes.extend_from_slice(format!("#TS:{now_s}\r\n").as_bytes());
        }
        buffer.bytes.extend_from_slice(bytes);
        buffer.end += bytes.len() as u64;
    }

    /// Begins to write to `file`, which has `size` bytes, from offset `from` of the log on. What came before belongs to
    /// the file before it. To be called between two commands ([`WriteLog::cut`](crate::persist::log::WriteLog::cut)).
    pub fn switch(&self, file: Append, size: u64, from: u64) {
        let mut files = self.files.lock();
        self.write_locked(&mut files);
        let mut buffer = self.buffer.lock();
        if files.current.is_none() {
            buffer.bytes.clear();
            buffer.end = from;
            files.rest.clear();
            files.end = from;
            self.written.store(from, Ordering::Release);
            self.synced.store(from, Ordering::Release);
        }
        buffer.stamped_s = 0;
        let old = files.current.replace(Arc::new(file));
        files.left.extend(old);
        files.unsynced.clear();
        files.size = size;
        self.size.store(size, Ordering::Relaxed);
    }

    /// Ends it: what is there is written and synced. Nothing may be pushed meanwhile.
    ///
    /// # Errors
    /// What the system says; it has ended in any case.
    pub fn close(&self) -> io::Result<()> {
        let result = self.flush();
        let mut files = self.files.lock();
        *files = Files::default();
        *self.buffer.lock() = Buffer::default();
        drop(files);
        self.settle(None);
        self.synced.store(u64::MAX, Ordering::Release);
        let _ = self.wake();
        result
    }

    /// Whether a file is open.
    pub fn is_open(&self) -> bool {
        self.files.lock().current.is_some()
    }

    /// Writes and syncs all that was pushed.
    ///
    /// # Errors
    /// What the system says.
    pub fn flush(&self) -> io::Result<()> {
        self.write_locked(&mut self.files.lock());
        let trouble = self.trouble.lock().clone();
        match trouble {
            Some(trouble) => Err(io::Error::other(trouble.reason)),
            None => self.sync(),
        }
    }

    /// Says when replies may leave: at once, or when their changes are on the disk.
    pub fn set_always(&self, always: bool) {
        self.always.store(always, Ordering::Release);
        if !always {
            self.wake_all();
        }
    }

    /// Sees to it that what was pushed up to `offset` is written, or will be: called by whoever changed something,
    /// before his replies leave.
    pub fn commit(&self, offset: u64) {
        if self.always.load(Ordering::Acquire) {
            return self.ring();
        }
        if self.written.load(Ordering::Acquire) >= offset {
            return;
        }
        if self.syncing.load(Ordering::Acquire) || self.in_trouble.load(Ordering::Acquire) {
            // Whoever syncs writes afterwards.
            self.delayed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.write_locked(&mut self.files.lock());
    }

    /// Whether a [`commit`](Appender::commit) of `offset` would write now.
    #[inline]
    pub fn would_write(&self, offset: u64) -> bool {
        self.written.load(Ordering::Acquire) < offset
            && !self.always.load(Ordering::Acquire)
            && !self.syncing.load(Ordering::Acquire)
            && !self.in_trouble.load(Ordering::Acquire)
    }

    /// Whether replies to changes up to `offset` may leave.
    #[inline]
    pub fn is_durable(&self, offset: u64) -> bool {
        !self.always.load(Ordering::Acquire) || self.synced.load(Ordering::Acquire) >= offset
    }

    /// The offset in the log up to which the disk has it.
    pub fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// Wakes `waker` when the disk has the log up to `offset`; returns whether it has it already.
    pub fn wait(&self, offset: u64, waker: &Waker) -> bool {
        let mut waiting = self.waiting.lock();
        if self.synced.load(Ordering::Acquire) >= offset {
            return true;
        }
        waiting.retain(|(_, known)| !known.will_wake(waker));
        waiting.push((offset, waker.clone()));
        drop(waiting);
        self.ring();
        false
    }

    /// Returns once replies to changes up to `offset` may leave.
    pub fn block_until_durable(&self, offset: u64) {
        struct Unpark(Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        if self.is_durable(offset) {
            return;
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        while !self.is_durable(offset) && !self.wait(offset, &waker) {
            thread::park();
        }
    }

    /// What keeps changes from the disk, if something does.
    pub fn trouble(&self) -> Option<Trouble> {
        if !self.in_trouble.load(Ordering::Acquire) {
            return None;
        }
        self.trouble.lock().clone()
    }

    /// How many bytes wait to be written.
    pub fn buffered(&self) -> usize {
        self.files.lock().rest.len() + self.buffer.lock().bytes.len()
    }

    /// About the same, without waiting for a write that goes on.
    pub fn unwritten(&self) -> u64 {
        self.buffer.lock().end.saturating_sub(self.written.load(Ordering::Acquire))
    }

    /// Whether a sync goes on.
    pub fn is_syncing(&self) -> bool {
        self.syncing.load(Ordering::Acquire)
    }

    /// Has the thread look at once.
    pub fn ring(&self) {
        *self.bell.lock() = true;
        self.rung.notify_one();
    }

    /// One round of the thread: waits until there may be something to do, and does it.
    pub fn round(&self, policy: impl Fn() -> Policy) {
        let failing = self.in_trouble.load(Ordering::Acquire);
        let nap = if failing { RETRY } else { SYNC_EVERY / 10 };
        {
            let mut bell = self.bell.lock();
            if !*bell || failing {
                self.rung.wait_for(&mut bell, nap);
            }
            *bell = false;
        }
        let Policy { sync, hold } = policy();
        if sync == AppendFsync::Always && !hold {
            self.gather();
        }
        self.write_locked(&mut self.files.lock());
        let (written, synced) = (self.written.load(Ordering::Acquire), self.synced.load(Ordering::Acquire));
        let asked = !self.waiting.lock().is_empty();
        let due = match sync {
            AppendFsync::Always => true,
            AppendFsync::EverySec => {
                let mut since = self.since.lock();
                let due = since.is_none_or(|since| since.elapsed() >= SYNC_EVERY);
                if due && written > synced {
                    *since = Some(Instant::now());
                }
                due
            }
            AppendFsync::No => false,
        };
        let left = self.files.lock().left.clone();
        if hold && sync == AppendFsync::Always {
            // Who wants no syncs now wants replies nevertheless.
            self.synced.fetch_max(written, Ordering::AcqRel);
            let _ = self.wake();
        }
        // What goes wrong is told, and tried again.
        if !hold && written > synced && (due || asked) {
            let _ = self.sync();
            if sync != AppendFsync::Always {
                self.write_locked(&mut self.files.lock());
            }
        } else if !hold && !left.is_empty() {
            let _ = self.sync_left(&left);
        }
    }

    /// Waits a little for those who are expected to wait for the next sync.
    fn gather(&self) {
        let mut crowd = self.crowd.lock();
        let here = || self.waiting.lock().len();
        let before = here();
        let Some((expected, patience)) = crowd.missing(before) else { return };
        let began = Instant::now();
        let mut after = before;
        while after < expected && began.elapsed() < patience {
            match patience / 8 {
                nap if nap >= SHORTEST_NAP => thread::sleep(nap),
                _ => thread::yield_now(),
            }
            after = here();
        }
        crowd.awaited(before, after);
    }

    /// Waits until what was written is on the disk.
    fn sync(&self) -> io::Result<()> {
        let _turn = self.turn.lock();
        let (current, left, end, unsynced) = {
            let mut files = self.files.lock();
            self.write_doubtful(&mut files)?;
            let (end, unsynced) = (self.written.load(Ordering::Acquire), files.unsynced.len());
            (files.current.clone(), files.left.clone(), end, unsynced)
        };
        let Some(current) = current else { return Ok(()) };
        self.sync_left(&left)?;
        self.syncing.store(true, Ordering::Release);
        let began = Instant::now();
        let synced = current.sync();
        let took = began.elapsed();
        self.syncing.store(false, Ordering::Release);
        match &synced {
            Ok(()) => {
                let mut files = self.files.lock();
                if files.rest.is_empty() {
                    self.settle(None);
                }
                // Another file may have been begun meanwhile.
                let unsynced = unsynced.min(files.unsynced.len());
                files.unsynced.drain(..unsynced);
                files.unsynced_from = end;
                drop(files);
                self.synced.fetch_max(end, Ordering::AcqRel);
                let (served, left) = self.wake();
                self.crowd.lock().served(took, served, left);
            }
            Err(error) => {
                self.files.lock().is_doubtful = true;
                self.sync_failed(error);
            }
        }
        synced
    }

    /// Takes what could not be synced out of the file, and writes it anew.
    fn write_doubtful(&self, files: &mut Files) -> io::Result<()> {
        if !files.is_doubtful {
            return Ok(());
        }
        let Some(file) = files.current.clone().filter(|_| !files.unsynced.is_empty()) else {
            files.is_doubtful = false;
            return Ok(());
        };
        let size = files.size - files.unsynced.len() as u64;
        file.truncate(size)?;
        (files.size, files.is_doubtful) = (size, false);
        let rest = std::mem::take(&mut files.rest);
        files.rest = std::mem::take(&mut files.unsynced);
        files.rest.extend_from_slice(&rest);
        self.written.store(files.unsynced_from, Ordering::Release);
        self.write_locked(files);
        match files.rest.is_empty() {
            true => Ok(()),
            false => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Waits until what was written to files that were left is on the disk. Nobody has to wait with writing to the
    /// current one for that.
    fn sync_left(&self, left: &[Arc<Append>]) -> io::Result<()> {
        let synced = left.iter().try_for_each(|file| file.sync());
        match &synced {
            Ok(()) => self.files.lock().left.retain(|file| !left.iter().any(|done| Arc::ptr_eq(done, file))),
            Err(error) => self.sync_failed(error),
        }
        synced
    }

    fn sync_failed(&self, error: &io::Error) {
        self.complain(&mut self.files.lock(), &format!("Fail to fsync the AOF file: {}", plain(error)));
        self.settle(Some(plain(error)));
    }

    /// Writes what is there; what cannot be written stays.
    fn write_locked(&self, files: &mut Files) {
        {
            let mut buffer = self.buffer.lock();
            if files.rest.is_empty() {
                std::mem::swap(&mut files.rest, &mut buffer.bytes);
            } else {
                files.rest.append(&mut buffer.bytes);
            }
            files.end = buffer.end;
        }
        let Some(file) = files.current.clone() else { return };
        let delay_us = self.delay_us.load(Ordering::Relaxed);
        if delay_us > 0 && !files.rest.is_empty() {
            std::thread::sleep(Duration::from_micros(delay_us));
        }
        let mut done = 0;
        let result = loop {
            if done == files.rest.len() {
                break Ok(());
            }
            match file.write(&files.rest[done..]) {
                Ok(0) => break Err(io::Error::from(io::ErrorKind::WriteZero)),
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        match result {
            Ok(()) => {
                files.size += done as u64;
                if self.always.load(Ordering::Acquire) {
                    if files.unsynced.is_empty() {
                        files.unsynced_from = self.written.load(Ordering::Acquire);
                    }
                    let Files { unsynced, rest, .. } = files;
                    unsynced.extend_from_slice(rest);
                } else {
                    files.unsynced = Vec::new();
                }
                files.rest.clear();
                if files.rest.capacity() > KEPT_BYTES {
                    files.rest = Vec::new();
                }
                self.size.store(files.size, Ordering::Relaxed);
                self.written.store(files.end, Ordering::Release);
                if self.in_trouble.load(Ordering::Acquire) && done > 0 {
                    notice!("AOF write error looks solved. The server can write again.");
                    self.settle(None);
                }
            }
            Err(error) => {
                self.complain(files, &format!("Error writing to the AOF file: {}", plain(&error)));
                if done > 0 {
                    // Half a command would be in the way of the next one.
                    match file.truncate(files.size) {
                        Ok(()) => {}
                        Err(again) => {
                            self.complain(
                                files,
                                &format!(
                                    "Could not remove short write from the append-only file. The server may refuse to load the AOF the next time it starts. ftruncate: {}",
                                    plain(&again)
                                ),
                            );
                            files.size += done as u64;
                            let Files { unsynced, rest, .. } = &mut *files;
                            unsynced.extend(rest.drain(..done));
                        }
                    }
                }
                self.settle(Some(plain(&error)));
            }
        }
    }

    fn complain(&self, files: &mut Files, line: &str) {
        if files.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            files.told = Some(Instant::now());
            warning!("{line}");
        }
    }

    fn settle(&self, reason: Option<String>) {
        let mut trouble = self.trouble.lock();
        self.in_trouble.store(reason.is_some(), Ordering::Release);
        *trouble = reason.map(|reason| Trouble { reason });
    }

    /// Wakes those who wait no longer; returns how many these are, and how many go on waiting.
    fn wake(&self) -> (usize, usize) {
        let synced = self.synced.load(Ordering::Acquire);
        let mut waiting = self.waiting.lock();
        let ready: Vec<_> = waiting.extract_if(.., |(offset, _)| *offset <= synced).collect();
        let counts = (ready.len(), waiting.len());
        drop(waiting);
        ready.into_iter().for_each(|(_, waker)| waker.wake());
        counts
    }

    fn wake_all(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persist::disk::faults::{self, Plan};
    use std::fs;
    use std::path::PathBuf;
    use std::sync::atomic::AtomicU32;

    struct Dir(PathBuf);

    impl Dir {
        fn new() -> Dir {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let dir = std::env::temp_dir().join(format!("spinel-appender-{}-{n}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Dir(dir)
        }

        fn open(&self, name: &str) -> (Append, u64) {
            Append::open(&self.0.join(name)).unwrap()
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).unwrap()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            faults::set(&self.0, None);
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    struct Bell(AtomicBool);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Release);
        }
    }

    /// An appender that writes to the file `one`.
    fn begun() -> (Dir, Appender) {
        let dir = Dir::new();
        let appender = Appender::default();
        let (file, size) = dir.open("one");
        appender.switch(file, size, 0);
        (dir, appender)
    }

    fn round(appender: &Appender, sync: AppendFsync) {
        appender.ring();
        appender.round(|| Policy { sync, hold: false });
    }

    #[test]
    fn what_is_pushed_is_in_the_file_before_replies_leave_and_each_file_gets_its_own() {
        let dir = Dir::new();
        let appender = Appender::default();
        let (file, size) = dir.open("one");
        appender.switch(file, size, 100);
        appender.push(b"abc", None);
        appender.commit(103);
        assert_eq!(dir.read("one"), "abc");
        appender.push(b"def", None);
        let (file, size) = dir.open("two");
        appender.switch(file, size, 106);
        appender.push(b"ghi", Some(5));
        appender.push(b"jkl", Some(5));
        appender.commit(112);
        assert_eq!((dir.read("one"), dir.read("two")), ("abcdef".into(), "#TS:5\r\nghijkl".into()));
        appender.push(b"m", Some(6));
        appender.close().unwrap();
        assert!(dir.read("two").ends_with("#TS:6\r\nm"));
    }

    #[test]
    fn replies_wait_for_the_disk_where_they_are_told_to() {
        let (_dir, appender) = begun();
        appender.set_always(true);
        appender.push(b"abc", None);
        appender.commit(3);
        assert!(!appender.is_durable(3));
        let bell = Arc::new(Bell(AtomicBool::new(false)));
        assert!(!appender.wait(3, &Waker::from(bell.clone())));
        round(&appender, AppendFsync::Always);
        assert!(bell.0.load(Ordering::Acquire) && appender.is_durable(3));
        assert!(appender.wait(3, &Waker::from(bell)));
    }

    #[test]
    fn a_full_disk_leaves_whole_commands_and_is_recovered_from() {
        let (dir, appender) = begun();
        appender.push(b"abc", None);
        appender.commit(3);
        faults::set(&dir.0, Some(Plan { room: Some(2), ..Plan::default() }));
        appender.push(b"defgh", None);
        appender.commit(8);
        assert_eq!(dir.read("one"), "abc", "what was begun was cut off again");
        assert_eq!(appender.trouble().unwrap().reason, "No space left on device");
        round(&appender, AppendFsync::EverySec);
        assert!(appender.trouble().is_some());
        faults::set(&dir.0, None);
        round(&appender, AppendFsync::EverySec);
        assert!(appender.trouble().is_none());
        assert_eq!(dir.read("one"), "abcdefgh");
    }

    #[test]
    fn who_holds_syncs_back_does_not_hold_replies_back() {
        let (dir, appender) = begun();
        appender.set_always(true);
        appender.push(b"abc", None);
        appender.ring();
        appender.round(|| Policy { sync: AppendFsync::Always, hold: true });
        assert!(appender.is_durable(3));
        assert_eq!(dir.read("one"), "abc");
    }

    #[test]
    fn short_writes_are_gone_on_with() {
        let (dir, appender) = begun();
        faults::set(&dir.0, Some(Plan { short: Some(7), ..Plan::default() }));
        let text = "0123456789".repeat(100);
        appender.push(text.as_bytes(), None);
        appender.commit(1000);
        assert_eq!(dir.read("one"), text);
    }

    #[test]
    fn nothing_is_said_to_be_durable_that_could_not_be_synced() {
        let (dir, appender) = begun();
        appender.set_always(true);
        faults::set(&dir.0, Some(Plan { no_sync: true, ..Plan::default() }));
        appender.push(b"abc", None);
        round(&appender, AppendFsync::Always);
        assert!(!appender.is_durable(3) && appender.trouble().is_some());
        faults::set(&dir.0, None);
        round(&appender, AppendFsync::Always);
        assert!(appender.is_durable(3) && appender.trouble().is_none());
    }

    #[test]
    fn what_could_not_be_synced_is_written_once_more() {
        let (dir, appender) = begun();
        appender.set_always(true);
        appender.push(b"abc", None);
        round(&appender, AppendFsync::Always);
        assert!(appender.is_durable(3));
        faults::set(&dir.0, Some(Plan { no_sync: true, ..Plan::default() }));
        appender.push(b"defgh", None);
        round(&appender, AppendFsync::Always);
        assert!(!appender.is_durable(8));
        // As the system leaves it: what it could not write is gone, though nobody is told so again.
        std::fs::write(dir.0.join("one"), "abc\0\0\0\0\0").unwrap();
        faults::set(&dir.0, None);
        appender.push(b"ijk", None);
        round(&appender, AppendFsync::Always);
        assert!(appender.is_durable(11) && appender.trouble().is_none());
        assert_eq!(dir.read("one"), "abcdefghijk");
        assert_eq!(appender.size.load(Ordering::Relaxed), 11);
        appender.push(b"lm", None);
        round(&appender, AppendFsync::Always);
        assert!(appender.is_durable(13));
        assert_eq!(dir.read("one"), "abcdefghijklm");
    }
}

//! The one door to files.
//!
//! Tests can have the disk fail: see `faults`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The contents of a file, nothing where there is none.
///
/// # Errors
/// What the system says, but for a missing file.
pub fn read_or_empty(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// The contents of a file.
///
/// # Errors
/// What the system says, a missing file included.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path)
}

/// Replaces a file's contents at once: whoever reads it sees the old bytes or the new ones, also after
/// a crash. Its permissions stay.
///
/// # Errors
/// What the system says; the file is then what it was.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = write_synced(&temporary, bytes, fs::metadata(path).ok().map(|m| m.permissions().mode()));
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        // What is left of the attempt is of no use to anyone.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_directory_of(path)
}

/// The same, but that a crash of the machine may leave the old bytes, or none.
///
/// # Errors
/// What the system says; the file is then what it was.
pub fn replace_unsynced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| {
        // What is left of the attempt is of no use to anyone.
        let _ = fs::remove_file(&temporary);
    })
}

/// Makes sure that the names in a file's directory outlive a crash.
fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// Opens a file, made where there is none, and keeps others from locking it for as long as what is returned lives;
/// `None` where somebody else has locked it.
///
/// # Errors
/// What the system says.
pub fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o644).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// A file that is written under another name first, and is gone unless [`Temporary::commit`] is reached.
pub struct Temporary {
    file: File,
    path: PathBuf,
    /// Sync after so many bytes, so that the last sync is no long one; `None` for never.
    sync_every: Option<u64>,
    unsynced: u64,
}

impl Temporary {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(path: &Path, sync_every: Option<u64>) -> io::Result<Temporary> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o666).open(path)?;
        Ok(Temporary { file, path: path.to_owned(), sync_every, unsynced: 0 })
    }

    /// Waits until all that was written is on the disk. [`Temporary::commit`] does so too; whoever commits under a lock
    /// calls this before he takes it.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&mut self) -> io::Result<()> {
        self.unsynced = 0;
        self.file.sync_all()
    }

    /// Where it is until it has its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its name, in the place of what had it: whoever reads it sees the old bytes or the new ones,
    /// also after a crash.
    ///
    /// # Errors
    /// What the system says; what had the name still has it.
    pub fn commit(self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, path)?;
        sync_directory_of(path)
    }
}

impl Write for Temporary {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.unsynced += n as u64;
        if self.sync_every.is_some_and(|every| self.unsynced >= every) {
            self.unsynced = 0;
            self.file.sync_data()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a commit the name is gone already.
        remove(&self.path);
    }
}

/// A file that only grows, but for what is cut off its end.
#[derive(Debug)]
pub struct Append {
    file: File,
    #[cfg(test)]
    path: PathBuf,
}

impl Append {
    /// Opens the file, creates it where it is missing; also returns its length.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<(Append, u64)> {
        let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path)?;
        let len = file.metadata()?.len();
        let append = Append {
            file,
            #[cfg(test)]
            path: path.to_owned(),
        };
        Ok((append, len))
    }

    /// Writes at the end, maybe not all of it; returns how many bytes.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(test)]
        let bytes = &bytes[..faults::room(&self.path, bytes.len())?];
        (&self.file).write(bytes)
    }

    /// Cuts the file off behind `len` bytes.
    ///
    /// # Errors
    /// What the system says.
    pub fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    /// Waits until what was written is on the disk.
    ///
    /// # Errors
    /// What the system says; nobody knows then what is on the disk.
    pub fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        faults::sync(&self.path)?;
        self.file.sync_data()
    }
}

/// Disks that fail, for tests: a plan for all files in a directory.
#[cfg(test)]
pub mod faults {
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU64, Ordering};

    use parking_lot::Mutex;

    /// How a disk fails.
    #[derive(Debug, Clone, Default)]
    pub struct Plan {
        /// The disk has room for so many more bytes.
        pub room: Option<u64>,
        /// Writes end early, at places that follow from this seed.
        pub short: Option<u64>,
        /// Nothing gets to the disk.
        pub no_sync: bool,
    }

    static PLANS: Mutex<Vec<(PathBuf, Plan)>> = Mutex::new(Vec::new());
    static SYNCS: AtomicU64 = AtomicU64::new(0);

    /// Has the disk fail below `dir` from now on; `None` repairs it.
    pub fn set(dir: &Path, plan: Option<Plan>) {
        let mut plans = PLANS.lock();
        plans.retain(|(known, _)| known != dir);
        plans.extend(plan.map(|plan| (dir.to_owned(), plan)));
    }

    /// How many of `len` bytes are written.
    pub fn room(path: &Path, len: usize) -> io::Result<usize> {
        let mut plans = PLANS.lock();
        let Some((_, plan)) = plans.iter_mut().find(|(dir, _)| path.starts_with(dir)) else { return Ok(len) };
        let mut n = len;
        if let Some(seed) = &mut plan.short {
            let mut rng = fastrand::Rng::with_seed(*seed);
            n = rng.usize(1..=len.max(1));
            *seed = rng.u64(..);
        }
        if let Some(room) = &mut plan.room {
            if *room == 0 {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            n = n.min(usize::try_from(*room).unwrap_or(usize::MAX));
            *room -= n as u64;
        }
        Ok(n)
    }

    /// Counts a sync, or refuses it.
    pub fn sync(path: &Path) -> io::Result<()> {
        SYNCS.fetch_add(1, Ordering::Relaxed);
        let plans = PLANS.lock();
        match plans.iter().find(|(dir, _)| path.starts_with(dir)) {
            Some((_, plan)) if plan.no_sync => Err(io::Error::from_raw_os_error(libc::EIO)),
            _ => Ok(()),
        }
    }
}

/// Makes a directory, which may be there already, and sees to it that it outlives a crash.
///
/// # Errors
/// What the system says.
pub fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_directory_of(path),
    }
}

/// Whether there is something of this name.
pub fn exists(path: &Path) -> bool {
    path.exists()
}

/// The length of a file, 0 where there is none.
pub fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |about| about.len())
}

/// Gives a file another name, also after a crash.
///
/// # Errors
/// What the system says.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_directory_of(to)
}

/// Cuts a file off behind `len` bytes.
///
/// # Errors
/// What the system says.
pub fn truncate(path: &Path, len: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(len)?;
    file.sync_all()
}

/// Opens a file to be read, with its length; `None` where there is none.
///
/// # Errors
/// What the system says, but for a missing file.
pub fn open(path: &Path) -> io::Result<Option<(File, u64)>> {
    match File::open(path) {
        Ok(file) => {
            let len = file.metadata()?.len();
            Ok(Some((file, len)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A path that stays right when the working directory changes.
///
/// # Errors
/// Where it does not exist.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    fs::canonicalize(path)
}

fn write_synced(path: &Path, bytes: &[u8], mode: Option<u32>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path)?;
    if let Some(mode) = mode {
        file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

/// Writes a small file such as the one with the process id.
///
/// # Errors
/// What the system says.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(path, bytes)
}

/// What the system says, without its number.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// Removes a file, which need not exist.
pub fn remove(path: &Path) {
    // It may be gone already, and there is nothing to be done if it cannot be removed.
    let _ = fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_file_takes_its_name_at_the_end_or_is_gone() {
        let dir = std::env::temp_dir().join(format!("spinel-temporary-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (path, temporary) = (dir.join("dump.rdb"), dir.join("temp-1.rdb"));
        assert!(open(&path).unwrap().is_none());
        for (text, commit) in [(&b"one"[..], true), (b"three", false)] {
            let mut file = Temporary::create(&temporary, Some(2)).unwrap();
            file.write_all(text).unwrap();
            if commit {
                file.commit(&path).unwrap();
            } else {
                drop(file);
            }
            assert!(!temporary.exists());
            assert_eq!((read_or_empty(&path).unwrap(), open(&path).unwrap().unwrap().1), (b"one".to_vec(), 3));
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_keeps_its_permissions() {
        let dir = std::env::temp_dir().join(format!("spinel-disk-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a.conf");
        assert_eq!(read_or_empty(&path).unwrap(), b"");
        replace(&path, b"one").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(read_or_empty(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(replace(&dir.join("missing/a.conf"), b"x").is_err());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(&dir).unwrap();
    }
}

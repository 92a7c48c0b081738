//! Where the files of the log are.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::config::table::Config;
use crate::persist::aof::manifest::{Manifest, Part};
use crate::persist::disk;

/// A path as the configuration has it.
pub fn as_path(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// The directory of the log.
pub fn directory(config: &Config) -> PathBuf {
    as_path(&config.dir.0).join(as_path(&config.appenddirname))
}

/// One of its files.
pub fn file(config: &Config, part: &Part) -> PathBuf {
    directory(config).join(as_path(&part.name))
}

/// What says which these are.
pub fn manifest_path(config: &Config) -> PathBuf {
    directory(config).join(as_path(&[&config.appendfilename[..], b".manifest"].concat()))
}

/// Where changes go until the log has its first base.
pub fn waiting_path(config: &Config) -> PathBuf {
    directory(config).join(as_path(&[b"temp-", &config.appendfilename[..], b".incr"].concat()))
}

/// Where a base is written until it is whole.
pub fn temporary_path(config: &Config) -> PathBuf {
    as_path(&config.dir.0).join(format!("temp-rewriteaof-bg-{}.aof", std::process::id()))
}

/// Puts a manifest in the place of the one before.
///
/// # Errors
/// It cannot be written; the one before is still there.
pub fn persist(config: &Config, manifest: &Manifest) -> io::Result<()> {
    disk::replace(&manifest_path(config), &manifest.text())
}

//! The append only file: every change since a base, as commands that are run again when the server starts.
//!
//! It is several files in a directory of its own. A base is the data set at one time, as a snapshot or as commands;
//! increments hold what changed since; the [`manifest`] says which files count, in which order. [`appender`] writes,
//! [`records`] reads, [`commands`] makes commands of entries for a base that is no snapshot.
//!
//! What must stay true: whatever the manifest on the disk names is there, and the files that it names are, one after
//! the other, the data set as it was acknowledged. So a file is made before the manifest names it, and removed after
//! the manifest has forgotten it.

pub mod appender;
pub mod commands;
pub mod manifest;
pub mod records;

//! RDB: data sets and single values in Redis' own format.
//!
//! A file is a magic word with a version, then records, each of an opcode or a type and what belongs to it, then a
//! checksum ([`mod@file`]); [`save`] makes one of a snapshot, [`load`] keys of one. DUMP's payload is one value with a footer of its own ([`payload`]). [`reader`] and
//! [`writer`] know lengths, strings and numbers, [`value`] the types ([`stream`] the largest of them), [`packed`] the runs of bytes that older
//! versions kept small collections in.
//!
//! Every version from 1 to 12 is read. What is written is the lowest form that can hold it: the types of Redis 7.0
//! but for what only a newer one knows.
//!
//! What must stay true: bytes from outside never cost memory before they are there, are checked from end to end
//! before anything relies on them, and lead to an [`Error`] with an offset, never to a panic.

pub mod file;
pub mod load;
pub mod packed;
pub mod payload;
pub mod reader;
pub mod save;
pub mod stream;
pub mod value;
pub mod writer;

use std::borrow::Cow;
use std::fmt;
use std::io;

/// The version that what is written says: that of Redis 7.0.
pub const VERSION: u32 = 10;
/// The version of what only Redis 7.2 knows: streams whose consumers were active at another time than seen.
pub const VERSION_7_2: u32 = 11;
/// The version of what only Redis 7.4 knows: hashes whose fields have deadlines.
pub const VERSION_7_4: u32 = 12;
/// The newest version that is read, that of Redis 7.4.
pub const NEWEST: u32 = 12;
/// Valkey counts its own versions from here; those between are nobody's.
pub const VALKEY_FIRST: u32 = 80;
/// The newest of Valkey's.
pub const VALKEY_NEWEST: u32 = 80;

/// Bytes that introduce what is no value.
#[allow(missing_docs, reason = "each is the opcode of its name")]
pub mod opcode {
    pub const SLOT_INFO: u8 = 244;
    pub const FUNCTION2: u8 = 245;
    pub const FUNCTION_PRE_GA: u8 = 246;
    pub const MODULE_AUX: u8 = 247;
    pub const IDLE: u8 = 248;
    pub const FREQ: u8 = 249;
    pub const AUX: u8 = 250;
    pub const RESIZEDB: u8 = 251;
    pub const EXPIRETIME_MS: u8 = 252;
    pub const EXPIRETIME: u8 = 253;
    pub const SELECTDB: u8 = 254;
    pub const EOF: u8 = 255;
}

/// The dialect of a file or payload: some numbers mean one thing to Redis and another to Valkey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Redis, and Valkey before its versions parted.
    Redis,
    /// Valkey 9 and on.
    Valkey,
}

impl Dialect {
    /// The dialect of a version that can be read; `None` for one that cannot.
    pub fn of_version(version: u32) -> Option<Dialect> {
        match version {
            1..=NEWEST => Some(Dialect::Redis),
            VALKEY_FIRST..=VALKEY_NEWEST => Some(Dialect::Valkey),
            _ => None,
        }
    }
}

/// Why something cannot be read.
#[derive(Debug)]
pub struct Error {
    /// How many bytes had been read.
    pub offset: u64,
    /// What is wrong there.
    pub reason: Reason,
}

/// What is wrong with what is read.
#[derive(Debug)]
pub enum Reason {
    /// It cannot be read at all.
    Io(io::Error),
    /// It ends too soon.
    End,
    /// Its bytes are not what the format says.
    Corrupt(Cow<'static, str>),
    /// The file is no RDB.
    Signature,
    /// It is of a version that is not known.
    Version(u32),
    /// It holds what a module has written; the module's name and its version.
    Module(String, u64),
    /// A collection without elements, which old versions could write.
    Empty,
    /// The checksum is another one: what was found, and what it should be.
    Checksum(u64, u64),
    /// Whoever wanted it wants it no longer.
    Stopped,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::Io(error) => write!(f, "{error}")?,
            Reason::End => f.write_str("Unexpected EOF reading RDB file")?,
            Reason::Corrupt(what) => f.write_str(what)?,
            Reason::Signature => f.write_str("Wrong signature trying to load DB from file")?,
            Reason::Version(version) => write!(f, "Can't handle RDB format version {version}")?,
            Reason::Module(name, version) => write!(
                f,
                "The RDB file contains module data I can't load: no matching module type '{name}' (version {version})"
            )?,
            Reason::Empty => f.write_str("A collection without elements")?,
            Reason::Checksum(found, expected) => {
                write!(
                    f,
                    "Wrong RDB checksum expected: ({expected:x}) but got ({found:x}). Aborting now. RDB CRC error"
                )?;
            }
            Reason::Stopped => f.write_str("Stopped")?,
        }
        write!(f, " (offset {})", self.offset)
    }
}

impl std::error::Error for Error {}

/// What reading comes to.
pub type Result<T> = std::result::Result<T, Error>;

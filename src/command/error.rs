//! The client's mistakes: one variant per error text, which is the line on the wire.

use std::borrow::Cow;
use std::fmt;

use crate::script::running::Kind;

/// What a command replies instead of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The key holds another type.
    WrongType,
    /// The options make no sense.
    Syntax,
    /// Not a 64-bit integer in decimal digits.
    NotInteger,
    /// Not a floating point number.
    NotFloat,
    /// An integer where only some are allowed.
    OutOfRange,
    /// An integer where only positive ones are allowed.
    NotPositive,
    /// A sum beyond 64 bits.
    Overflow,
    /// A sum that is infinite or no number.
    NotFinite,
    /// The key does not exist, but must.
    NoSuchKey,
    /// A time to live that is zero, negative or too far away; the command's name.
    InvalidExpire(&'static str),
    /// Too few or too many arguments; the command's name, `config|get` for a subcommand.
    WrongArity(String),
    /// No such command; its name and what follows, as they are quoted in the reply.
    UnknownCommand(Vec<u8>),
    /// No such subcommand; its name and the container's.
    UnknownSubcommand(Vec<u8>, String),
    /// The client has not logged in.
    NoAuth,
    /// A string would become longer than `proto-max-bulk-len`.
    StringTooLong,
    /// A negative offset.
    OffsetOutOfRange,
    /// No database of that number.
    DbOutOfRange,
    /// Not the number of a database.
    InvalidDbIndex,
    /// A cursor that is no number.
    InvalidCursor,
    /// COPY or MOVE onto itself.
    SameObject,
    /// A script of this kind runs and takes too long.
    Busy(Kind),
    /// What a script failed with: any bytes, and whether statistics know of it already.
    Line {
        /// The line, its code included.
        line: Vec<u8>,
        /// Whether it was counted as it arose.
        counted: bool,
    },
    /// Data is being loaded.
    Loading,
    /// The last snapshot could not be saved, and writes are refused until one is.
    SaveFailed,
    /// The append only file cannot be written, for this reason, and writes are refused until it can.
    LogFailed(String),
    /// Too few replicas were heard of to write.
    FewReplicas,
    /// Clients may not write to this replica.
    ReadOnly,
    /// The link to the primary is down, and what is here may be out of date.
    MasterDown,
    /// Memory is at its limit and nothing can make room.
    OutOfMemory,
    /// Any other text, its code included.
    Text(Cow<'static, str>),
    /// The same with a client's own words in it, which may be any bytes.
    Bytes(Vec<u8>),
}

impl Error {
    /// A text of its own, written `CODE words`.
    pub fn text(text: impl Into<Cow<'static, str>>) -> Error {
        Error::Text(text.into())
    }

    /// The line on the wire without its `-`: as `Display` has it, but a client's own words come back to it
    /// as they were sent.
    pub fn line(&self) -> Vec<u8> {
        match self {
            Error::UnknownCommand(words) => [b"ERR unknown command ", &words[..]].concat(),
            Error::UnknownSubcommand(name, container) => {
                [b"ERR unknown subcommand '", &name[..], b"'. Try ", container.as_bytes(), b" HELP."].concat()
            }
            Error::Line { line, .. } => line.clone(),
            Error::Bytes(text) => text.clone(),
            other => other.to_string().into_bytes(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::WrongType => "WRONGTYPE Operation against a key holding the wrong kind of value",
            Error::Syntax => "ERR syntax error",
            Error::NotInteger => "ERR value is not an integer or out of range",
            Error::NotFloat => "ERR value is not a valid float",
            Error::OutOfRange => "ERR value is out of range",
            Error::NotPositive => "ERR value is out of range, must be positive",
            Error::Overflow => "ERR increment or decrement would overflow",
            Error::NotFinite => "ERR increment would produce NaN or Infinity",
            Error::NoSuchKey => "ERR no such key",
            Error::InvalidExpire(name) => return write!(f, "ERR invalid expire time in '{name}' command"),
            Error::WrongArity(name) => return write!(f, "ERR wrong number of arguments for '{name}' command"),
            Error::UnknownCommand(words) => return write!(f, "ERR unknown command {}", words.escape_ascii()),
            Error::UnknownSubcommand(name, container) => {
                return write!(f, "ERR unknown subcommand '{}'. Try {container} HELP.", name.escape_ascii());
            }
            Error::NoAuth => "NOAUTH Authentication required.",
            Error::StringTooLong => "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
            Error::OffsetOutOfRange => "ERR offset is out of range",
            Error::DbOutOfRange => "ERR DB index is out of range",
            Error::InvalidDbIndex => "ERR invalid DB index",
            Error::InvalidCursor => "ERR invalid cursor",
            Error::Loading => "LOADING Redis is loading the dataset in memory",
            Error::FewReplicas => "NOREPLICAS Not enough good replicas to write.",
            Error::ReadOnly => "READONLY You can't write against a read only replica.",
            Error::MasterDown => "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            Error::SaveFailed => {
                "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. \
                 Commands that may modify the data set are disabled, because this instance is configured to report \
                 errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). \
                 Please check the Redis logs for details about the RDB error."
            }
            Error::LogFailed(reason) => return write!(f, "MISCONF Errors writing to the AOF file: {reason}"),
            Error::SameObject => "ERR source and destination objects are the same",
            Error::Busy(Kind::Script) => {
                "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
            }
            Error::Busy(Kind::Function) => {
                "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE."
            }
            Error::Line { line, .. } => return write!(f, "{}", line.escape_ascii()),
            Error::OutOfMemory => "OOM command not allowed when used memory > 'maxmemory'.",
            Error::Text(text) => text,
            Error::Bytes(text) => return write!(f, "{}", text.escape_ascii()),
        })
    }
}

impl std::error::Error for Error {}

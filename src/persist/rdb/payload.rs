//! Payloads: one value on its own, as DUMP replies it and RESTORE takes it.
//!
//! ```text
//! payload  form | value | version: u16 | CRC64 of all before it: u64
//! ```

use crate::keyspace::entry::Value;
use crate::persist::rdb::reader::Reader;
use crate::persist::rdb::value::{self, Decoded, Limits};
use crate::persist::rdb::writer::{Compression, Writer};
use crate::persist::rdb::{Dialect, Result};
use crate::stdx::crc::crc64;

const FOOTER: usize = 10;

/// The payload of a value.
pub fn write(value: Value<'_>, compression: Compression) -> Vec<u8> {
    let mut writer = Writer::new(compression);
    writer.byte(value::form_of(&writer, value));
    value::write(&mut writer, value);
    seal(writer)
}

/// A payload of what was written: its version and checksum behind it.
pub fn seal(mut writer: Writer) -> Vec<u8> {
    let version = writer.version as u16;
    writer.raw(&version.to_le_bytes());
    let sum = crc64(&writer.bytes);
    writer.u64_le(sum);
    writer.bytes
}

/// Whether payloads must have the checksum that they should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// They must.
    Required,
    /// It may be any: for tests of what comes behind it.
    Ignored,
}

/// The dialect of a payload whose version is known and whose checksum is right, and the value in it; `None` for any
/// other.
pub fn verify(payload: &[u8], checksum: Checksum) -> Option<(Dialect, &[u8])> {
    let (value, footer) = payload.split_at_checked(payload.len().checked_sub(FOOTER)?)?;
    let dialect = Dialect::of_version(u32::from(u16::from_le_bytes([footer[0], footer[1]])))?;
    let is_right = || crc64(&payload[..payload.len() - 8]).to_le_bytes() == footer[2..];
    (checksum == Checksum::Ignored || is_right()).then_some((dialect, value))
}

/// Reads the value of a payload that was verified.
///
/// # Errors
/// Whatever is wrong with it, bytes behind its end included.
pub fn read(value: &[u8], limits: Limits<'_>) -> Result<Decoded> {
    let mut reader = Reader::of_bytes(value);
    let form = reader.byte()?;
    let decoded = value::read(&mut reader, form, limits)?;
    if reader.rest().is_empty() { Ok(decoded) } else { Err(reader.corrupt("Bytes behind the end of the value")) }
}

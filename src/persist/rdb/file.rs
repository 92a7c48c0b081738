//! Files: a head, records, a checksum; also what is sent to replicas and stands before the commands of a log.
//!
//! ```text
//! file    "REDIS0010" | record ... | 0xff | CRC64 of all before it: u64, 0 where none was kept
//! record  auxiliary field | function library | selected database | its size | key
//! key     [deadline] [idle time or frequency] form | key | value
//! ```
//! The version in the head is that of Redis 7.0 whatever follows: readers go by the forms of values, and a stream
//! that only Redis 7.2 can hold is met long after the head was sent.

use std::io::Write;

use crate::keyspace::entry::Entry;
use crate::persist::rdb::reader::Reader;
use crate::persist::rdb::value::{self, Decoded, Limits};
use crate::persist::rdb::writer::Writer;
use crate::persist::rdb::{Dialect, Error, Reason, Result, VERSION, opcode};

/// The version from which on files end in a checksum.
const SUMMED_FROM: u32 = 5;

/// What is known of a key beside its value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct About {
    /// When it expires: Unix milliseconds.
    pub deadline: Option<u64>,
    /// Seconds since it was accessed.
    pub idle_seconds: Option<u64>,
    /// Its LFU counter.
    pub frequency: Option<u8>,
}

/// One record of a file.
#[derive(Debug)]
pub enum Record {
    /// Something about the file: a name and a text.
    Aux(Vec<u8>, Vec<u8>),
    /// The library of functions with this source.
    Function(Vec<u8>),
    /// The following keys are of this database.
    Select(u64),
    /// How many keys follow, and how many of them have deadlines.
    Size(u64, u64),
    /// A key.
    Key(Vec<u8>, About, Decoded),
    /// A key that is yet to be read: `form`, key and value begin `start` bytes into what [`Records::batch`] returns.
    Raw(RawKey),
    /// A key whose value has no elements: there is nothing to be stored.
    Empty(Vec<u8>),
    /// What a module wrote beside its values; its name.
    ModuleAux(String),
}

/// A key that was passed over.
#[derive(Debug, Clone, Copy)]
pub struct RawKey {
    /// Where it begins in the bytes that were kept.
    pub start: usize,
    /// Where it stands in the file.
    pub offset: u64,
    /// What is known beside its value.
    pub about: About,
    /// The form of the value.
    pub form: u8,
}

impl RawKey {
    /// Reads it from the bytes that were kept; the value is `None` where it has no elements.
    ///
    /// # Errors
    /// Whatever is wrong with it.
    pub fn read(&self, bytes: &[u8], limits: Limits<'_>) -> Result<(Vec<u8>, Option<Decoded>)> {
        let mut reader = Reader::of_bytes_at(bytes.get(self.start..).unwrap_or_default(), self.offset);
        let key = reader.string()?;
        match value::read(&mut reader, self.form, limits) {
            Ok(value) => Ok((key, Some(value))),
            Err(Error { reason: Reason::Empty, .. }) => Ok((key, None)),
            Err(error) => Err(error),
        }
    }
}

/// Reads a file record by record.
pub struct Records<'r, 's, 'c> {
    /// Where it is read from.
    pub reader: &'r mut Reader<'s>,
    limits: Limits<'c>,
    version: u32,
    check: bool,
    done: bool,
    /// Bytes of keys that were passed over, where they are to be.
    raw: Option<Vec<u8>>,
}

impl<'r, 's, 'c> Records<'r, 's, 'c> {
    /// Reads the head of a file. `check` says whether its checksum counts; the dialect in `limits` is the file's from
    /// here on.
    ///
    /// # Errors
    /// Where it is no such file, or of a version that is not known.
    pub fn new(reader: &'r mut Reader<'s>, limits: Limits<'c>, check: bool) -> Result<Records<'r, 's, 'c>> {
        let head: [u8; 9] = reader.array()?;
        let digits = match head.split_at(5) {
            (b"REDIS", digits) => digits,
            (b"VALKE", [b'Y', digits @ ..]) => digits,
            _ => return Err(reader.error(Reason::Signature)),
        };
        let version = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0);
        let dialect = Dialect::of_version(version).ok_or_else(|| reader.error(Reason::Version(version)))?;
        if !check || version < SUMMED_FROM {
            reader.forget_sum();
        }
        Ok(Records { reader, limits: Limits { dialect, ..limits }, version, check, done: false, raw: None })
    }

    /// Passes over small keys from here on: their bytes are collected, and somebody else reads them.
    pub fn pass_over_keys(&mut self) {
        self.raw = Some(Vec::new());
    }

    /// How many bytes were collected.
    pub fn collected(&self) -> usize {
        self.raw.as_ref().map_or(0, Vec::len)
    }

    /// What was collected since the last call.
    pub fn batch(&mut self) -> Vec<u8> {
        let next = self.raw.as_ref().map(|raw| Vec::with_capacity(raw.len()));
        std::mem::replace(&mut self.raw, next).unwrap_or_default()
    }

    /// The limits and the dialect.
    pub fn limits(&self) -> Limits<'c> {
        self.limits
    }

    /// The next record; `None` behind the last, when the checksum was found right.
    ///
    /// # Errors
    /// Whatever is wrong with the file.
    #[allow(clippy::should_implement_trait, reason = "it ends with its first error")]
    pub fn next(&mut self) -> Result<Option<Record>> {
        let reader = &mut *self.reader;
        let mut about = About::default();
        while !self.done {
            let record = match reader.byte()? {
                opcode::EXPIRETIME => {
                    let seconds = i64::from(i32::from_le_bytes(reader.array()?));
                    about.deadline = Some(seconds.max(0).cast_unsigned() * 1000);
                    continue;
                }
                opcode::EXPIRETIME_MS => {
                    about.deadline = Some(i64::from_le_bytes(reader.array()?).max(0).cast_unsigned());
                    continue;
                }
                opcode::IDLE => {
                    about.idle_seconds = Some(reader.length()?);
                    continue;
                }
                opcode::FREQ => {
                    about.frequency = Some(reader.byte()?);
                    continue;
                }
                opcode::SLOT_INFO => {
                    // The slot, and how many keys it has: a hint about sizes.
                    for _ in 0..3 {
                        reader.length()?;
                    }
                    continue;
                }
                opcode::AUX => Record::Aux(reader.string()?, reader.string()?),
                opcode::FUNCTION2 => Record::Function(reader.string()?),
                opcode::FUNCTION_PRE_GA => {
                    return Err(reader.corrupt("Pre-release function format not supported."));
                }
                opcode::MODULE_AUX => {
                    let (name, _) = value::module_name(reader.length()?);
                    // When it is to be loaded, in the form of one of its parts.
                    reader.length()?;
                    reader.length()?;
                    value::skip_module_aux(reader)?;
                    Record::ModuleAux(name)
                }
                opcode::SELECTDB => Record::Select(reader.length()?),
                opcode::RESIZEDB => Record::Size(reader.length()?, reader.length()?),
                opcode::EOF => {
                    self.done = true;
                    return self.end().map(|()| None);
                }
                form if value::is_form(form) => {
                    let key = if let Some(raw) = self.raw.take() {
                        let (start, offset) = (raw.len(), reader.offset());
                        reader.keep(raw);
                        reader.skip_string()?;
                        let passed = value::skip(reader, form)?;
                        let mut raw = reader.kept();
                        if passed {
                            self.raw = Some(raw);
                            return Ok(Some(Record::Raw(RawKey { start, offset, about, form })));
                        }
                        let key = Reader::of_bytes(&raw[start..]).string()?;
                        raw.truncate(start);
                        self.raw = Some(raw);
                        key
                    } else {
                        reader.string()?
                    };
                    match value::read(reader, form, self.limits) {
                        Ok(value) => Record::Key(key, about, value),
                        Err(Error { reason: Reason::Empty, .. }) => Record::Empty(key),
                        Err(error) => return Err(error),
                    }
                }
                other => return Err(reader.corrupt(format!("Unknown RDB encoding type {other}"))),
            };
            return Ok(Some(record));
        }
        Ok(None)
    }

    fn end(&mut self) -> Result<()> {
        if self.version < SUMMED_FROM {
            return Ok(());
        }
        let found = self.reader.sum();
        let expected = self.reader.u64_le()?;
        match found {
            // Whoever wrote it kept no sum.
            _ if expected == 0 => Ok(()),
            Some(found) if self.check && found != expected => Err(self.reader.error(Reason::Checksum(found, expected))),
            _ => Ok(()),
        }
    }
}

/// Writes the head of a file.
pub fn write_head(writer: &mut Writer<'_>) {
    // Writing to a vector cannot fail.
    let _ = write!(writer.bytes, "REDIS{VERSION:04}");
}

/// Writes an auxiliary field.
pub fn write_aux(writer: &mut Writer<'_>, name: &str, text: &[u8]) {
    writer.byte(opcode::AUX);
    writer.string(name.as_bytes());
    writer.string(text);
}

/// Writes a library of functions.
pub fn write_function(writer: &mut Writer<'_>, source: &[u8]) {
    writer.byte(opcode::FUNCTION2);
    writer.string(source);
}

/// Selects a database.
pub fn write_select(writer: &mut Writer<'_>, db: usize) {
    writer.byte(opcode::SELECTDB);
    writer.count(db);
}

/// Says how many keys the selected database has, and how many with a deadline.
pub fn write_size(writer: &mut Writer<'_>, keys: u64, volatile: u64) {
    writer.byte(opcode::RESIZEDB);
    writer.length(keys);
    writer.length(volatile);
}

/// Writes a key; the deadline is its own, and `about` says the rest.
pub fn write_key(writer: &mut Writer<'_>, entry: &Entry, about: About) {
    if let Some(deadline) = entry.deadline() {
        writer.byte(opcode::EXPIRETIME_MS);
        writer.u64_le(deadline);
    }
    if let Some(seconds) = about.idle_seconds {
        writer.byte(opcode::IDLE);
        writer.length(seconds);
    }
    if let Some(frequency) = about.frequency {
        writer.byte(opcode::FREQ);
        writer.byte(frequency);
    }
    let value = entry.value();
    writer.byte(value::form_of(writer, value));
    writer.string(entry.key());
    value::write(writer, value);
}

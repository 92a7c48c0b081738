//! Values: each type in every form that a version gave it, and the form that it is written in.

use std::sync::Arc;

use crate::config::table::Config;
use crate::keyspace::entry::{Entry, INLINE_MAX, Str, Value};
use crate::persist::rdb::packed::ziplist;
use crate::persist::rdb::reader::Reader;
use crate::persist::rdb::writer::Writer;
use crate::persist::rdb::{Dialect, Reason, Result};
use crate::stdx::number::parse_i64;
use crate::types::Object;
use crate::types::list::{End, Limit, List, OwnedPart, Part};
use crate::types::listpack::Listpack;

/// Numbers of types and of their forms.
#[allow(missing_docs, reason = "each is the form of its name")]
pub mod form {
    pub const STRING: u8 = 0;
    pub const LIST: u8 = 1;
    pub const SET: u8 = 2;
    pub const ZSET: u8 = 3;
    pub const HASH: u8 = 4;
    pub const ZSET_2: u8 = 5;
    pub const MODULE_PRE_GA: u8 = 6;
    pub const MODULE_2: u8 = 7;
    pub const HASH_ZIPMAP: u8 = 9;
    pub const LIST_ZIPLIST: u8 = 10;
    pub const SET_INTSET: u8 = 11;
    pub const ZSET_ZIPLIST: u8 = 12;
    pub const HASH_ZIPLIST: u8 = 13;
    pub const LIST_QUICKLIST: u8 = 14;
    pub const STREAM_LISTPACKS: u8 = 15;
    pub const HASH_LISTPACK: u8 = 16;
    pub const ZSET_LISTPACK: u8 = 17;
    pub const LIST_QUICKLIST_2: u8 = 18;
    pub const STREAM_LISTPACKS_2: u8 = 19;
    pub const SET_LISTPACK: u8 = 20;
    pub const STREAM_LISTPACKS_3: u8 = 21;
    pub const HASH_METADATA_PRE_GA: u8 = 22;
    /// Valkey's hash with deadlines of fields has the number of a form that Redis never released.
    pub const VALKEY_HASH_2: u8 = 22;
    pub const HASH_LISTPACK_EX_PRE_GA: u8 = 23;
    pub const HASH_METADATA: u8 = 24;
    pub const HASH_LISTPACK_EX: u8 = 25;
}

/// The containers of a list's nodes.
const NODE_PLAIN: u64 = 1;
const NODE_PACKED: u64 = 2;

/// Encodings and limits, so that what is read is stored as the commands would store it.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The dialect of what is read.
    pub dialect: Dialect,
    /// Fields of hashes whose deadline has passed are left out: Unix milliseconds. `None` keeps them.
    pub now_ms: Option<u64>,
}

impl Limits<'_> {
    fn list(&self) -> Limit {
        Limit(self.config.list_max_listpack_size)
    }
}

/// A value that was read.
#[derive(Debug)]
pub enum Decoded {
    /// A string that is an integer.
    Int(i64),
    /// Any other string.
    Bytes(Vec<u8>),
    /// A collection.
    Object(Box<Object>),
}

impl Decoded {
    fn string(bytes: Vec<u8>) -> Decoded {
        match parse_i64(&bytes) {
            Some(n) => Decoded::Int(n),
            None => Decoded::Bytes(bytes),
        }
    }

    /// An entry with this value.
    pub fn into_entry(self, bits: u32, key: &[u8], deadline: Option<u64>, clock: u32) -> Entry {
        match self {
            Decoded::Int(n) => Entry::new(bits, key, Str::Int(n), deadline, clock),
            Decoded::Bytes(bytes) if bytes.len() > INLINE_MAX => {
                Entry::new(bits, key, Str::Large(Arc::new(bytes)), deadline, clock)
            }
            Decoded::Bytes(bytes) => Entry::new(bits, key, Str::Bytes(&bytes), deadline, clock),
            Decoded::Object(object) => Entry::with_object(bits, key, object, deadline, clock),
        }
    }
}

/// Whether `byte` introduces a value.
pub fn is_form(byte: u8) -> bool {
    byte <= form::MODULE_2 || (form::HASH_ZIPMAP..=form::HASH_LISTPACK_EX).contains(&byte)
}

/// Reads a value of the given form.
///
/// # Errors
/// Whatever is wrong with it; [`Reason::Empty`] for a collection without elements.
pub fn read(reader: &mut Reader<'_>, form: u8, limits: Limits<'_>) -> Result<Decoded> {
    let object = match form {
        form::STRING => return Ok(Decoded::string(reader.string()?)),
        form::LIST => Object::List(plain_list(reader, limits)?),
        form::LIST_ZIPLIST => {
            let pack = listpack_of_ziplist(reader)?;
            Object::List(List::from_parts([OwnedPart::Packed(pack)], limits.list()))
        }
        form::LIST_QUICKLIST | form::LIST_QUICKLIST_2 => Object::List(quicklist(reader, form, limits)?),
        form::MODULE_PRE_GA => return Err(reader.corrupt("Pre-release module format not supported")),
        form::MODULE_2 => return module(reader),
        other => return Err(reader.corrupt(format!("Unknown RDB encoding type {other}"))),
    };
    if object.is_empty() {
        return Err(reader.error(Reason::Empty));
    }
    Ok(Decoded::Object(Box::new(object)))
}

/// How many elements follow, at least one.
fn count(reader: &mut Reader<'_>) -> Result<u64> {
    match reader.length()? {
        0 => Err(reader.error(Reason::Empty)),
        count => Ok(count),
    }
}

fn listpack(reader: &mut Reader<'_>) -> Result<Listpack> {
    let bytes = reader.string()?;
    Listpack::from_bytes(bytes).ok_or_else(|| reader.corrupt("Listpack integrity check failed."))
}

/// A listpack with the elements of a ziplist.
fn listpack_of_ziplist(reader: &mut Reader<'_>) -> Result<Listpack> {
    let bytes = reader.string()?;
    let items = ziplist(&bytes).ok_or_else(|| reader.corrupt("Ziplist integrity check failed."))?;
    let mut pack = Listpack::new();
    items.into_iter().for_each(|item| pack.push_back_item(item));
    pack.shrink();
    Ok(pack)
}

fn plain_list(reader: &mut Reader<'_>, limits: Limits<'_>) -> Result<List> {
    let mut list = List::default();
    let mut element = Vec::new();
    for _ in 0..count(reader)? {
        reader.string_into(&mut element)?;
        list.make_room(element.len(), 1, limits.list());
        list.push(End::Tail, &element, limits.list());
    }
    Ok(list)
}

fn quicklist(reader: &mut Reader<'_>, form: u8, limits: Limits<'_>) -> Result<List> {
    let mut parts = Vec::new();
    for _ in 0..count(reader)? {
        if form == form::LIST_QUICKLIST {
            parts.push(OwnedPart::Packed(listpack_of_ziplist(reader)?));
            continue;
        }
        parts.push(match reader.length()? {
            NODE_PLAIN => OwnedPart::Large(reader.string()?),
            NODE_PACKED => OwnedPart::Packed(listpack(reader)?),
            _ => return Err(reader.corrupt("Quicklist integrity check failed.")),
        });
    }
    Ok(List::from_parts(parts, limits.list()))
}

/// What is to be said of a module's value.
fn module(reader: &mut Reader<'_>) -> Result<Decoded> {
    let (name, version) = module_name(reader.length()?);
    Err(reader.error(Reason::Module(name, version)))
}

/// A module's type is a number: nine letters of six bits each, and ten bits of version.
pub fn module_name(id: u64) -> (String, u64) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let letter = |i: u32| char::from(LETTERS[(id >> (10 + 6 * (8 - i)) & 63) as usize]);
    ((0..9).map(letter).collect(), id & 1023)
}

/// The parts of a value that a module wrote, each with a number that says what it is.
mod part {
    pub const EOF: u64 = 0;
    pub const SIGNED: u64 = 1;
    pub const UNSIGNED: u64 = 2;
    pub const FLOAT: u64 = 3;
    pub const DOUBLE: u64 = 4;
    pub const STRING: u64 = 5;
}

/// Passes over what a module wrote beside its values.
///
/// # Errors
/// Where it is damaged.
pub fn skip_module_aux(reader: &mut Reader<'_>) -> Result<()> {
    loop {
        match reader.length()? {
            part::EOF => return Ok(()),
            part::SIGNED | part::UNSIGNED => drop(reader.length()?),
            part::FLOAT => reader.skip(4)?,
            part::DOUBLE => reader.skip(8)?,
            part::STRING => drop(reader.string()?),
            other => return Err(reader.corrupt(format!("Unknown module opcode {other}"))),
        }
    }
}

/// The number of the form in which a value is written.
pub fn form_of(value: Value<'_>) -> u8 {
    match value {
        Value::Int(_) | Value::Bytes(_) | Value::Large(_) => form::STRING,
        Value::Object(Object::List(_)) => form::LIST_QUICKLIST_2,
    }
}

/// Writes a value, without the number of its form.
pub fn write(writer: &mut Writer, value: Value<'_>) {
    match value {
        Value::Int(n) => writer.integer(n),
        Value::Bytes(bytes) => writer.string(bytes),
        Value::Large(large) => writer.string(large.bytes()),
        Value::Object(Object::List(list)) => {
            writer.count(list.nodes());
            for part in list.parts() {
                match part {
                    Part::Packed(pack) => {
                        writer.length(NODE_PACKED);
                        writer.string(pack.as_bytes());
                    }
                    Part::Large(bytes) => {
                        writer.length(NODE_PLAIN);
                        writer.string(bytes);
                    }
                }
            }
        }
    }
}

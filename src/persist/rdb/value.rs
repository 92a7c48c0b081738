//! Values: each type in every form that a version gave it, and the form that it is written in.

use std::sync::Arc;

use crate::config::table::Config;
use crate::keyspace::entry::{Entry, INLINE_MAX, Str, Value};
use crate::persist::rdb::packed::{ziplist, zipmap};
use crate::persist::rdb::reader::Reader;
use crate::persist::rdb::stream;
use crate::persist::rdb::writer::Writer;
use crate::persist::rdb::{Dialect, Reason, Result, VERSION_7_4};
use crate::stdx::number::parse_i64;
use crate::types::hash::view::HashRef;
use crate::types::hash::{self, Hash, Layout, Text};
use crate::types::intset::Intset;
use crate::types::list::{End, Limit, List, OwnedPart, Part};
use crate::types::listpack::{Item, Listpack};
use crate::types::set::{self, Probe, Set};
use crate::types::zset::{self, Direction, ZSet};
use crate::types::{Object, ObjectRef};

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
        Limit { size: self.config.list_max_listpack_size, depth: self.config.list_compress_depth }
    }

    fn set(&self) -> set::Limits {
        let limit = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        set::Limits {
            intset_entries: limit(self.config.set_max_intset_entries),
            listpack_entries: limit(self.config.set_max_listpack_entries),
            listpack_value: limit(self.config.set_max_listpack_value),
        }
    }

    fn zset(&self) -> zset::Limits {
        let limit = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        zset::Limits {
            entries: limit(self.config.zset_max_listpack_entries),
            bytes: limit(self.config.zset_max_listpack_value),
        }
    }

    fn hash(&self) -> hash::Limits {
        let limit = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        hash::Limits {
            fields: limit(self.config.hash_max_listpack_entries),
            bytes: limit(self.config.hash_max_listpack_value),
        }
    }

    /// Whether a field with this deadline is left out.
    fn is_over(&self, deadline: u64) -> bool {
        self.now_ms.is_some_and(|now| deadline < now)
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
            Decoded::Object(object) => Entry::with_object(bits, key, *object, deadline, clock),
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
            let pack = listpack_of_ziplist(reader, "List ziplist")?;
            Object::List(List::from_parts([OwnedPart::Packed(pack)], limits.list()))
        }
        form::LIST_QUICKLIST | form::LIST_QUICKLIST_2 => Object::List(quicklist(reader, form, limits)?),
        form::SET => Object::Set(plain_set(reader, limits)?),
        form::SET_INTSET => {
            let set = Intset::from_bytes(reader.string()?);
            let set = set.ok_or_else(|| reader.corrupt("Intset integrity check failed."))?;
            if set.len() <= limits.set().intset_entries {
                Object::Set(Set::from_intset(set))
            } else {
                let texts: Vec<String> = set.iter().map(|n| n.to_string()).collect();
                Object::Set(set_of(reader, texts.iter().map(String::as_bytes), limits)?)
            }
        }
        form::SET_LISTPACK => {
            let pack = listpack(reader)?;
            let texts: Vec<Vec<u8>> = pack.iter().map(Item::to_vec).collect();
            // Its members are looked at one by one in any case, for none may be there twice.
            Object::Set(set_of(reader, texts.iter().map(Vec::as_slice), limits)?)
        }
        form::ZSET | form::ZSET_2 => Object::SortedSet(plain_zset(reader, form, limits)?),
        form::ZSET_ZIPLIST => {
            let set = ZSet::from_listpack(listpack_of_ziplist(reader, "Zset ziplist")?, limits.zset());
            Object::SortedSet(set.ok_or_else(|| reader.corrupt("Zset ziplist integrity check failed."))?)
        }
        form::ZSET_LISTPACK => {
            let set = ZSet::from_listpack(listpack(reader)?, limits.zset());
            Object::SortedSet(set.ok_or_else(|| reader.corrupt("Zset listpack integrity check failed."))?)
        }
        form::HASH => Object::Hash(plain_hash(reader, limits)?),
        form::HASH_ZIPMAP => {
            let bytes = reader.string()?;
            let texts = zipmap(&bytes).ok_or_else(|| reader.corrupt("Zipmap integrity check failed."))?;
            let pairs = texts.chunks_exact(2).map(|pair| (pair[0], pair[1], None));
            Object::Hash(hash_of(reader, pairs, limits)?)
        }
        form::HASH_ZIPLIST => {
            let pack = listpack_of_ziplist(reader, "Hash ziplist")?;
            let hash = Hash::from_listpack(pack, Layout::Plain, limits.hash());
            Object::Hash(hash.ok_or_else(|| reader.corrupt("Hash ziplist integrity check failed."))?)
        }
        form::HASH_LISTPACK => {
            let hash = Hash::from_listpack(listpack(reader)?, Layout::Plain, limits.hash());
            Object::Hash(hash.ok_or_else(|| reader.corrupt("Hash listpack integrity check failed."))?)
        }
        form::VALKEY_HASH_2 if limits.dialect == Dialect::Valkey => Object::Hash(valkey_hash(reader, limits)?),
        form::HASH_METADATA_PRE_GA | form::HASH_METADATA => Object::Hash(timed_hash(reader, form, limits)?),
        form::HASH_LISTPACK_EX_PRE_GA | form::HASH_LISTPACK_EX => {
            if form == form::HASH_LISTPACK_EX {
                // The earliest deadline, which the listpack begins with.
                reader.u64_le()?;
            }
            let hash = Hash::from_listpack(listpack(reader)?, Layout::Timed, limits.hash());
            let mut hash = hash.ok_or_else(|| reader.corrupt("Hash listpack integrity check failed."))?;
            if let Some(now) = limits.now_ms {
                hash.take_due(now, usize::MAX, |_, _| {});
            }
            Object::Hash(hash)
        }
        form::STREAM_LISTPACKS | form::STREAM_LISTPACKS_2 | form::STREAM_LISTPACKS_3 => {
            Object::Stream(Box::new(stream::read(reader, form)?))
        }
        form::MODULE_PRE_GA => return Err(reader.corrupt("Pre-release module format not supported")),
        form::MODULE_2 => return module(reader),
        other => return Err(reader.corrupt(format!("Unknown RDB encoding type {other}"))),
    };
    if object.is_empty() {
        return Err(reader.error(Reason::Empty));
    }
    Ok(Decoded::Object(Box::new(object)))
}

/// A string that is longer, or a collection of more elements, is read where it stands.
const COPIED_LENGTH: u64 = 16 * 1024;

/// Passes over a value that somebody else is to read, if it is small and its end is cheap to find; returns whether it
/// did, and where not has read nothing.
///
/// # Errors
/// Where it ends too soon, or a length is none.
pub fn skip(reader: &mut Reader<'_>, form: u8) -> Result<bool> {
    let strings = match form {
        // A compressed string or an integer has no length to be seen, but then it is short, or so many times longer
        // than it looks that it is read where it stands.
        form::STRING
        | form::HASH_ZIPMAP
        | form::LIST_ZIPLIST
        | form::SET_INTSET
        | form::ZSET_ZIPLIST
        | form::HASH_ZIPLIST
        | form::HASH_LISTPACK
        | form::ZSET_LISTPACK
        | form::SET_LISTPACK => {
            let is_small = match reader.rest().first() {
                Some(0xc0..=0xc3) => true,
                _ => reader.peek_length().is_some_and(|len| len <= COPIED_LENGTH),
            };
            if is_small {
                reader.skip_string()?;
            }
            return Ok(is_small);
        }
        form::LIST | form::SET | form::LIST_QUICKLIST => 1,
        form::HASH => 2,
        _ => return Ok(false),
    };
    match reader.peek_length() {
        Some(count @ 1..=COPIED_LENGTH) => {
            reader.length()?;
            for _ in 0..count * strings {
                reader.skip_string()?;
            }
            Ok(true)
        }
        _ => Ok(false),
    }
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

/// A listpack with the elements of a ziplist, which errors call `what`.
fn listpack_of_ziplist(reader: &mut Reader<'_>, what: &str) -> Result<Listpack> {
    let bytes = reader.string()?;
    let items = ziplist(&bytes).ok_or_else(|| reader.corrupt(format!("{what} integrity check failed.")))?;
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
            parts.push(OwnedPart::Packed(listpack_of_ziplist(reader, "Ziplist")?));
            continue;
        }
        parts.push(match reader.length()? {
            NODE_PLAIN => {
                // Only what is large stands by itself.
                let element = reader.string()?;
                if element.is_empty() {
                    return Err(reader.corrupt("Quicklist integrity check failed."));
                }
                OwnedPart::Large(element)
            }
            NODE_PACKED => OwnedPart::Packed(listpack(reader)?),
            _ => return Err(reader.corrupt("Quicklist integrity check failed.")),
        });
    }
    Ok(List::from_parts(parts, limits.list()))
}

fn plain_set(reader: &mut Reader<'_>, limits: Limits<'_>) -> Result<Set> {
    let count = count(reader)?;
    let mut member = Vec::new();
    reader.string_into(&mut member)?;
    let mut set = Set::expecting(&Probe::new(&member), usize::try_from(count).unwrap_or(usize::MAX), &limits.set());
    let mut read = 1;
    loop {
        if !set.add(&Probe::new(&member), &limits.set()) {
            return Err(reader.corrupt("Duplicate set members detected"));
        }
        if read == count {
            return Ok(set);
        }
        read += 1;
        reader.string_into(&mut member)?;
    }
}

/// A set of these members, none of which may be there twice.
fn set_of<'m>(
    reader: &Reader<'_>,
    members: impl ExactSizeIterator<Item = &'m [u8]> + Clone,
    limits: Limits<'_>,
) -> Result<Set> {
    let Some(first) = members.clone().next() else { return Err(reader.error(Reason::Empty)) };
    let mut set = Set::expecting(&Probe::new(first), members.len(), &limits.set());
    for member in members {
        if !set.add(&Probe::new(member), &limits.set()) {
            return Err(reader.corrupt("Duplicate set members detected"));
        }
    }
    Ok(set)
}

fn plain_zset(reader: &mut Reader<'_>, form: u8, limits: Limits<'_>) -> Result<ZSet> {
    let count = count(reader)?;
    let mut set = ZSet::default();
    set.make_room(usize::try_from(count).unwrap_or(usize::MAX), 0, limits.zset());
    let mut member = Vec::new();
    for _ in 0..count {
        reader.string_into(&mut member)?;
        let score = if form == form::ZSET_2 { reader.double()? } else { reader.double_text()? };
        if score.is_nan() {
            return Err(reader.corrupt("Zset with NAN score detected"));
        }
        let mut twice = false;
        set.upsert(&member, limits.zset(), |old| {
            twice = old.is_some();
            Some(score)
        });
        if twice {
            return Err(reader.corrupt("Zset with dup elements"));
        }
    }
    Ok(set)
}

type Field<'f> = (&'f [u8], &'f [u8], Option<u64>);

/// A hash of these fields, none of which may be there twice; those whose deadline has passed are left out.
fn hash_of<'f>(
    reader: &Reader<'_>,
    fields: impl ExactSizeIterator<Item = Field<'f>>,
    limits: Limits<'_>,
) -> Result<Hash> {
    let mut hash = Hash::default();
    hash.make_room(fields.len(), 0, limits.hash());
    for field in fields {
        add_field(reader, &mut hash, field, limits)?;
    }
    Ok(hash)
}

fn add_field(reader: &Reader<'_>, hash: &mut Hash, field: Field<'_>, limits: Limits<'_>) -> Result<()> {
    let (name, value, deadline) = field;
    if deadline.is_some_and(|deadline| limits.is_over(deadline)) {
        return Ok(());
    }
    if hash.set(name, Text::Bytes(value), deadline, limits.hash()) {
        Ok(())
    } else {
        Err(reader.corrupt("Hash with dup elements"))
    }
}

/// Fields one by one, each read by `deadline`, `name` and `value` in the order of its form.
fn fields(
    reader: &mut Reader<'_>,
    limits: Limits<'_>,
    mut deadline: impl FnMut(&mut Reader<'_>, Moment) -> Result<Option<u64>>,
) -> Result<Hash> {
    let count = count(reader)?;
    let mut hash = Hash::default();
    // What a file says is believed as far as a decision goes, not as far as memory does.
    hash.make_room(usize::try_from(count).unwrap_or(usize::MAX), 0, limits.hash());
    let (mut name, mut value) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let before = deadline(reader, Moment::Before)?;
        reader.string_into(&mut name)?;
        reader.string_into(&mut value)?;
        let deadline = before.or(deadline(reader, Moment::After)?);
        add_field(reader, &mut hash, (&name, &value, deadline), limits)?;
    }
    Ok(hash)
}

/// Where the deadline of a field stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before,
    After,
}

fn plain_hash(reader: &mut Reader<'_>, limits: Limits<'_>) -> Result<Hash> {
    fields(reader, limits, |_, _| Ok(None))
}

/// Redis 7.4's hash with deadlines of fields: each before its field, counted from the earliest of all plus one.
fn timed_hash(reader: &mut Reader<'_>, form: u8, limits: Limits<'_>) -> Result<Hash> {
    let first = if form == form::HASH_METADATA { Some(reader.u64_le()?) } else { None };
    fields(reader, limits, |reader, moment| {
        if moment == Moment::After {
            return Ok(None);
        }
        match (reader.length()?, first) {
            (0, _) => Ok(None),
            (deadline, None) => Ok(Some(deadline)),
            (later, Some(first)) => {
                let deadline = first.checked_add(later - 1);
                deadline.map(Some).ok_or_else(|| reader.corrupt("invalid expireAt time"))
            }
        }
    })
    .and_then(|hash| within_time(reader, hash))
}

/// Valkey's: each behind its value, -1 for none.
fn valkey_hash(reader: &mut Reader<'_>, limits: Limits<'_>) -> Result<Hash> {
    fields(reader, limits, |reader, moment| {
        if moment == Moment::Before {
            return Ok(None);
        }
        Ok(u64::try_from(reader.u64_le()?.cast_signed()).ok())
    })
    .and_then(|hash| within_time(reader, hash))
}

/// Deadlines are milliseconds of this era, so that nothing that is computed from them overflows.
fn within_time(reader: &Reader<'_>, hash: Hash) -> Result<Hash> {
    const LAST_MS: u64 = 1 << 46;
    let mut over = false;
    hash.view().for_each(|_, found| over |= found.deadline.is_some_and(|deadline| deadline > LAST_MS));
    if over { Err(reader.corrupt("invalid expireAt time")) } else { Ok(hash) }
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

/// The number of the form in which `writer` writes a value.
pub fn form_of(writer: &Writer<'_>, value: Value<'_>) -> u8 {
    match value {
        Value::Int(_) | Value::Bytes(_) | Value::Large(_) => form::STRING,
        Value::Object(ObjectRef::List(_)) => form::LIST_QUICKLIST_2,
        // Only Redis 7.2 and on know sets that are listpacks.
        Value::Object(ObjectRef::Set(set)) if set.as_intset().is_some() => form::SET_INTSET,
        Value::Object(ObjectRef::Set(_)) => form::SET,
        Value::Object(ObjectRef::SortedSet(set)) if set.encoding() == "listpack" => form::ZSET_LISTPACK,
        Value::Object(ObjectRef::SortedSet(_)) => form::ZSET_2,
        Value::Object(ObjectRef::Hash(hash)) => match (hash.layout(), hash.first_deadline()) {
            (Some(Layout::Plain), _) => form::HASH_LISTPACK,
            (Some(_), Some(_)) => form::HASH_LISTPACK_EX,
            (None, Some(_)) => form::HASH_METADATA,
            (_, None) => form::HASH,
        },
        Value::Object(ObjectRef::Stream(stream)) => stream::form_of(writer, stream),
    }
}

/// Writes a value, without the number of its form.
pub fn write(writer: &mut Writer<'_>, value: Value<'_>) {
    match value {
        Value::Int(n) => writer.integer(n),
        Value::Bytes(bytes) => writer.string(bytes),
        Value::Large(large) => writer.string(large.bytes()),
        Value::Object(ObjectRef::List(list)) => {
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
                    Part::Squeezed(squeezed) => {
                        writer.length(if squeezed.is_large() { NODE_PLAIN } else { NODE_PACKED });
                        writer.compressed_string(squeezed.bytes(), squeezed.open_bytes());
                    }
                }
                writer.element_done();
            }
        }
        Value::Object(ObjectRef::Set(set)) => match set.as_intset() {
            Some(ints) => writer.string(ints.as_bytes()),
            None => {
                writer.count(set.len());
                for member in set.iter() {
                    item(writer, member);
                    writer.element_done();
                }
            }
        },
        Value::Object(ObjectRef::SortedSet(set)) => match set.listpack() {
            Some(pack) => writer.string(pack.as_bytes()),
            None => {
                writer.count(set.len());
                // From the highest: a skip list is fastest built that way.
                for (member, score) in set.iter(set.len().saturating_sub(1), Direction::Down) {
                    item(writer, member);
                    writer.double(score);
                    writer.element_done();
                }
            }
        },
        Value::Object(ObjectRef::Hash(hash)) => write_hash(writer, hash),
        Value::Object(ObjectRef::Stream(stream)) => stream::write(writer, stream),
    }
}

fn item(writer: &mut Writer<'_>, item: Item<'_>) {
    match item {
        Item::Int(n) => writer.integer(n),
        Item::Bytes(bytes) => writer.string(bytes),
    }
}

fn write_hash(writer: &mut Writer<'_>, hash: HashRef<'_>) {
    let first = hash.first_deadline();
    if let Some(first) = first {
        writer.needs(VERSION_7_4);
        writer.u64_le(first);
    }
    match (hash.listpack(), first) {
        (Some((pack, Layout::Plain)), _) | (Some((pack, Layout::Timed)), Some(_)) => writer.string(pack.as_bytes()),
        (_, first) => {
            writer.count(hash.len());
            hash.for_each(|name, found| {
                if let Some(first) = first {
                    writer.length(found.deadline.map_or(0, |deadline| deadline.saturating_sub(first) + 1));
                }
                name.with(|name| writer.string(name));
                found.value.with(|value| writer.string(value));
                writer.element_done();
            });
        }
    }
}

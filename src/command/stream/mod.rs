//! Streams: entries added at the end, read by id, and handed out to the consumers of groups.
//!
//! What must stay true: a stream stays when it has lost its last entry; what goes to the write log names
//! ids, lengths and times, so that it has the same effect whenever it is run again.

mod add;
mod claim;
mod group;
mod ids;
mod info;
mod range;
mod read;
#[cfg(test)]
mod tests;

use crate::command::args::Args;
use crate::command::context::Context;
use crate::command::error::Error;
use crate::command::table::Command;
use crate::keyspace::change::Effect;
use crate::keyspace::db::Key;
use crate::keyspace::entry::{self, Value};
use crate::resp::reply::Output;
use crate::spec::{Access, Arity, Flag, Group as Page, Keys};
use crate::types::listpack::Item;
use crate::types::stream::Stream;
use crate::types::stream::chunk::Entry;
use crate::types::stream::group::{Group, Pending};
use crate::types::stream::id::Id;
use crate::types::{Object, ObjectRef};

/// This family's commands.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    group::XACK, add::XADD, claim::XAUTOCLAIM, claim::XCLAIM, add::XDEL, group::XGROUP, info::XINFO, add::XLEN,
    claim::XPENDING, range::XRANGE, read::XREAD, read::XREADGROUP, range::XREVRANGE, add::XSETID, add::XTRIM,
];

/// What most declarations of this family have in common.
const STREAM: Command = Command {
    name: "",
    since: "5.0.0",
    group: Page::Stream,
    arity: Arity::AtLeast(3),
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    keys: &[Keys::At { first: 1, access: Access::UPDATE }],
    usage: "key",
    summary: "",
    complexity: "O(1)",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: add::xlen,
};

fn stream(entry: &entry::Entry) -> Result<&Stream, Error> {
    match entry.value() {
        Value::Object(ObjectRef::Stream(stream)) => Ok(stream),
        _ => Err(Error::WrongType),
    }
}

fn stream_mut(entry: &mut entry::Entry) -> Result<&mut Stream, Error> {
    match entry.object_mut() {
        Some(Object::Stream(stream)) => Ok(stream),
        _ => Err(Error::WrongType),
    }
}

/// Stores a stream for a key that does not exist.
fn insert(ctx: &mut Context<'_>, key: &Key<'_>, stream: Stream) {
    let clock = ctx.db.moment().initial_clock();
    let object = Object::Stream(Box::new(stream));
    ctx.db.insert(key, entry::Entry::with_object(key.hash.bits(), key.bytes, object, None, clock));
}

/// A client's own words in an error: up to the first NUL byte, as Redis prints them.
fn shown(words: &[u8]) -> &[u8] {
    words.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// There is no such key, or no such group of it.
fn no_key_or_group(key: &[u8], group: &[u8], behind: &str) -> Error {
    let parts = [b"NOGROUP No such key '", shown(key), b"' or consumer group '", shown(group), b"'", behind.as_bytes()];
    Error::Bytes(parts.concat())
}

/// There is no such group of a key that exists.
fn no_group(key: &[u8], group: &[u8]) -> Error {
    let parts = [b"NOGROUP No such consumer group '", shown(group), b"' for key name '", shown(key), b"'"];
    Error::Bytes(parts.concat())
}

fn write_id(out: &mut Output, id: Id) {
    out.bulk(id.text(&mut [0; Id::TEXT]));
}

fn write_item(out: &mut Output, item: Item<'_>) {
    match item {
        Item::Int(n) => out.bulk_integer(n),
        Item::Bytes(bytes) => out.bulk(bytes),
    }
}

/// An entry: its id, and its fields and values.
fn write_entry(out: &mut Output, entry: Entry<'_>) {
    out.array(2);
    write_id(out, entry.id);
    out.array(2 * entry.len());
    entry.elements().for_each(|item| write_item(out, item));
}

/// All words of a request.
fn words(args: &Args<'_>) -> Effect {
    args.to_vecs()
}

/// What makes an entry pending in just this way, whoever runs it: what the log gets of each delivery.
fn claim_effect(key: &[u8], name: &[u8], group: &Group, id: Id, pending: &Pending) -> Effect {
    let consumer = group.consumer(pending.consumer).name();
    let (at, count) = (pending.delivered_ms.to_string(), pending.deliveries.to_string());
    let (id, last) = (id.to_vec(), group.last.to_vec());
    let words: [&[u8]; 14] = [
        b"XCLAIM",
        key,
        name,
        consumer,
        b"0",
        &id,
        b"TIME",
        at.as_bytes(),
        b"RETRYCOUNT",
        count.as_bytes(),
        b"FORCE",
        b"JUSTID",
        b"LASTID",
        &last,
    ];
    words.map(<[u8]>::to_vec).to_vec()
}

/// What says how far a group has read.
fn group_effect(key: &[u8], name: &[u8], group: &Group) -> Effect {
    let (last, read) = (group.last.to_vec(), group.read.unwrap_or(-1).to_string());
    let words: [&[u8]; 7] = [b"XGROUP", b"SETID", key, name, &last, b"ENTRIESREAD", read.as_bytes()];
    words.map(<[u8]>::to_vec).to_vec()
}

/// What creates a consumer.
fn consumer_effect(key: &[u8], name: &[u8], consumer: &[u8]) -> Effect {
    [b"XGROUP", &b"CREATECONSUMER"[..], key, name, consumer].map(<[u8]>::to_vec).to_vec()
}

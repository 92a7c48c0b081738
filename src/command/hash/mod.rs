//! Hashes: fields set, read, removed, counted up, walked over. What concerns the deadlines of single fields is in
//! [`expire`].
//!
//! What must stay true: a field whose deadline has passed is never seen; a hash that has lost its last field is
//! removed.

pub mod expire;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use crate::command::args::Args;
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::hash::expire::{
    HEXPIRE, HEXPIREAT, HEXPIRETIME, HGETDEL, HGETEX, HPERSIST, HPEXPIRE, HPEXPIREAT, HPEXPIRETIME, HPTTL, HSETEX, HTTL,
};
use crate::command::scan::scan_value;
use crate::command::table::Command;
use crate::keyspace::change::Class;
use crate::keyspace::db::Key;
use crate::keyspace::entry::{Entry, Value};
use crate::resp::reply::{Output, Protocol};
use crate::spec::{Access, Arity, Flag, Group, Keys};
use crate::stdx::number::extended::Extended;
use crate::stdx::number::parse_i64;
use crate::types::hash::view::{HashRef, Living};
use crate::types::hash::{Found, Hash, Limits, Text};
use crate::types::{Object, ObjectRef};

/// This family's commands.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    HDEL, HEXISTS, HEXPIRE, HEXPIREAT, HEXPIRETIME, HGET, HGETALL, HGETDEL, HGETEX, HINCRBY, HINCRBYFLOAT, HKEYS, HLEN,
    HMGET, HMSET, HPERSIST, HPEXPIRE, HPEXPIREAT, HPEXPIRETIME, HPTTL, HRANDFIELD, HSCAN, HSET, HSETEX, HSETNX, HSTRLEN,
    HTTL, HVALS,
];

/// What most declarations of this file have in common.
const HASH: Command = Command {
    name: "",
    since: "2.0.0",
    group: Group::Hash,
    arity: Arity::Exactly(3),
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    keys: &[Keys::At { first: 1, access: Access::READ }],
    usage: "key field",
    summary: "",
    complexity: "O(1)",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: hget,
};

fn hash(entry: &Entry) -> Result<HashRef<'_>, Error> {
    match entry.value() {
        Value::Object(ObjectRef::Hash(hash)) => Ok(hash),
        _ => Err(Error::WrongType),
    }
}

/// Calls `change` with the hash in an entry.
fn edit<R>(entry: &mut Entry, change: impl FnOnce(&mut Hash) -> R) -> Result<R, Error> {
    let changed = entry.edit(|object| match object {
        Object::Hash(hash) => Some(change(hash)),
        _ => None,
    });
    changed.flatten().ok_or(Error::WrongType)
}

fn limits(ctx: &Context<'_>) -> Limits {
    let limit = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Limits { fields: limit(ctx.config.hash_max_listpack_entries), bytes: limit(ctx.config.hash_max_listpack_value) }
}

/// The hash at `key`, read by a command.
fn read<'c>(ctx: &'c mut Context<'_>, key: &Key<'_>) -> Result<Option<Living<'c>>, Error> {
    let now = ctx.db.fields_now_ms();
    Ok(ctx.db.read(key).map(hash).transpose()?.map(|hash| hash.at(now)))
}

/// Calls `change` with the hash at `key`, where there is one; removes it where it has lost its last field.
fn change<R>(ctx: &mut Context<'_>, key: &Key<'_>, change: impl FnOnce(&mut Hash) -> R) -> Result<Option<R>, Error> {
    ctx.db.update(key, |entry| edit(entry, change)).transpose()
}

/// Calls `change` with the hash at `key`, which is created where it is missing.
fn change_or_create<R>(ctx: &mut Context<'_>, key: &Key<'_>, change: impl FnOnce(&mut Hash) -> R) -> Result<R, Error> {
    // One lookup where it is there, as it mostly is.
    let mut change = Some(change);
    let mut run = |hash: &mut Hash| change.take().expect("run in one of two places, once")(hash);
    if let Some(result) = ctx.db.update(key, |entry| edit(entry, &mut run)) {
        return result;
    }
    let mut hash = Hash::default();
    let result = run(&mut hash);
    let clock = ctx.db.moment().initial_clock();
    ctx.db.insert(key, Entry::with_object(key.hash.bits(), key.bytes, Object::Hash(hash), None, clock));
    Ok(result)
}

/// Removes a hash that has no fields left.
fn remove_if_empty(ctx: &mut Context<'_>, key: &Key<'_>) {
    if ctx.db.look(key).is_some_and(|entry| hash(entry).is_ok_and(HashRef::is_empty)) {
        ctx.db.remove(key);
        ctx.db.notify(key, Class::Generic, "del");
    }
}

/// Writes a name or a value, a large one by reference.
pub fn write_text(out: &mut Output, text: Text<'_>) {
    match text {
        Text::Int(n) => out.bulk_integer(n),
        Text::Bytes(bytes) => out.bulk(bytes),
        Text::Outside(value) => out.bulk_shared(value.share()),
    }
}

fn write_found(out: &mut Output, found: Option<Found<'_>>) {
    match found {
        Some(found) => write_text(out, found.value),
        None => out.null(),
    }
}

/// Sets fields; replies how many are new.
pub const HSET: Command = Command {
    name: "HSET",
    arity: Arity::AtLeast(4),
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::UPDATE }],
    usage: "key data{field value}...",
    summary: "Creates or modifies the value of a field in a hash.",
    complexity: "O(1) for each field/value pair added, so O(N) to add N field/value pairs when the command is called with multiple field/value pairs.",
    history: &[("4.0.0", "Accepts multiple `field` and `value` arguments.")],
    run: |ctx, args| {
        let new = set_all(ctx, args, "hset")?;
        ctx.out.integer(new);
        DONE
    },
    ..HASH
};

/// HSET that replies OK.
pub const HMSET: Command = Command {
    name: "HMSET",
    summary: "Sets the values of multiple fields.",
    complexity: "O(N) where N is the number of fields being set.",
    history: &[],
    deprecated: Some(("4.0.0", "`HSET` with multiple field-value pairs")),
    run: |ctx, args| {
        set_all(ctx, args, "hmset")?;
        ctx.out.ok();
        DONE
    },
    ..HSET
};

/// Sets the pairs of field and value behind the key; returns how many fields are new.
fn set_all(ctx: &mut Context<'_>, args: &Args<'_>, name: &str) -> Result<i64, Error> {
    if !args.len().is_multiple_of(2) {
        return Err(Error::WrongArity(name.to_owned()));
    }
    let key = args.key(&ctx.db, 1);
    let (limits, now, pairs) = (limits(ctx), ctx.db.fields_now_ms(), (args.len() - 2) / 2);
    let longest = args.from(2).map(<[u8]>::len).max().unwrap_or(0);
    let new = change_or_create(ctx, &key, |hash| {
        hash.make_room(pairs, longest, limits);
        let mut new = 0;
        for i in (2..args.len()).step_by(2) {
            let dead = hash.first_deadline().is_some_and(|first| first < now) && hash.at(now).get(args.at(i)).is_none();
            new += i64::from(hash.set(args.at(i), Text::Bytes(args.at(i + 1)), None, limits) || dead);
        }
        new
    })?;
    ctx.db.note(&key, Class::Hash, "hset");
    ctx.db.effects.dirty += pairs as u64 - 1;
    Ok(new)
}

/// Sets a field unless it exists: 1 if it did not.
pub const HSETNX: Command = Command {
    name: "HSETNX",
    arity: Arity::Exactly(4),
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::INSERT }],
    usage: "key field value",
    summary: "Sets the value of a field in a hash only when the field doesn't exist.",
    run: hsetnx,
    ..HASH
};

fn hsetnx(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let (limits, now) = (limits(ctx), ctx.db.fields_now_ms());
    let there = ctx.db.look(&key).map(hash).transpose()?.is_some_and(|hash| hash.at(now).get(args.at(2)).is_some());
    if !there {
        change_or_create(ctx, &key, |hash| hash.set(args.at(2), Text::Bytes(args.at(3)), None, limits))?;
        ctx.db.note(&key, Class::Hash, "hset");
    }
    ctx.out.integer((!there).into());
    DONE
}

/// The value of a field.
pub const HGET: Command =
    Command { name: "HGET", summary: "Returns the value of a field in a hash.", run: hget, ..HASH };

fn hget(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let now = ctx.db.fields_now_ms();
    let found = ctx.db.read(&key).map(hash).transpose()?.and_then(|hash| hash.at(now).get(args.at(2)));
    write_found(ctx.out, found);
    DONE
}

/// The values of some fields.
pub const HMGET: Command = Command {
    name: "HMGET",
    arity: Arity::AtLeast(3),
    usage: "key field...",
    summary: "Returns the values of all fields in a hash.",
    complexity: "O(N) where N is the number of fields being requested.",
    run: hmget,
    ..HASH
};

fn hmget(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let now = ctx.db.fields_now_ms();
    let hash = ctx.db.read(&key).map(hash).transpose()?;
    ctx.out.array(args.len() - 2);
    for name in args.from(2) {
        write_found(ctx.out, hash.and_then(|hash| hash.at(now).get(name)));
    }
    DONE
}

/// Which parts of a field are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Names,
    Values,
    Both,
}

/// All fields and their values.
pub const HGETALL: Command = Command {
    name: "HGETALL",
    arity: Arity::Exactly(2),
    flags: &[Flag::ReadOnly],
    usage: "key",
    summary: "Returns all fields and values in a hash.",
    complexity: "O(N) where N is the size of the hash.",
    tips: &["nondeterministic_output_order"],
    run: |ctx, args| all(ctx, args, Part::Both),
    ..HASH
};

/// All fields' names.
pub const HKEYS: Command = Command {
    name: "HKEYS",
    summary: "Returns all fields in a hash.",
    run: |ctx, args| all(ctx, args, Part::Names),
    ..HGETALL
};

/// All fields' values.
pub const HVALS: Command = Command {
    name: "HVALS",
    summary: "Returns all values in a hash.",
    run: |ctx, args| all(ctx, args, Part::Values),
    ..HGETALL
};

fn all(ctx: &mut Context<'_>, args: &Args<'_>, part: Part) -> Reply {
    let key = args.key(&ctx.db, 1);
    let now = ctx.db.fields_now_ms();
    let hash = ctx.db.read(&key).map(hash).transpose()?.map(|hash| hash.at(now));
    let out = &mut *ctx.out;
    let len = hash.map_or(0, |hash| hash.len());
    if part == Part::Both {
        out.map(len);
    } else {
        out.array(len);
    }
    if let Some(hash) = hash {
        hash.for_each(|name, found| {
            if part != Part::Values {
                write_text(out, name);
            }
            if part != Part::Names {
                write_text(out, found.value);
            }
        });
    }
    DONE
}

/// The number of fields.
pub const HLEN: Command = Command {
    name: "HLEN",
    arity: Arity::Exactly(2),
    keys: &[Keys::At { first: 1, access: Access::META }],
    usage: "key",
    summary: "Returns the number of fields in a hash.",
    run: |ctx, args| {
        let key = args.key(&ctx.db, 1);
        let len = read(ctx, &key)?.map_or(0, |hash| hash.len());
        ctx.out.integer(len as i64);
        DONE
    },
    ..HASH
};

/// The length of a field's value.
pub const HSTRLEN: Command = Command {
    name: "HSTRLEN",
    since: "3.2.0",
    keys: &[Keys::At { first: 1, access: Access::META }],
    summary: "Returns the length of the value of a field.",
    run: |ctx, args| {
        let key = args.key(&ctx.db, 1);
        let len = read(ctx, &key)?.and_then(|hash| hash.get(args.at(2))).map_or(0, |found| found.value.len());
        ctx.out.integer(len as i64);
        DONE
    },
    ..HASH
};

/// Whether a field exists.
pub const HEXISTS: Command = Command {
    name: "HEXISTS",
    summary: "Determines whether a field exists in a hash.",
    keys: &[Keys::At { first: 1, access: Access::META }],
    run: |ctx, args| {
        let key = args.key(&ctx.db, 1);
        let exists = read(ctx, &key)?.is_some_and(|hash| hash.get(args.at(2)).is_some());
        ctx.out.integer(exists.into());
        DONE
    },
    ..HASH
};

/// Removes fields; replies how many there were.
pub const HDEL: Command = Command {
    name: "HDEL",
    arity: Arity::AtLeast(3),
    flags: &[Flag::Write, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::DELETE }],
    usage: "key field...",
    summary: "Deletes one or more fields and their values from a hash. Deletes the hash if no fields remain.",
    complexity: "O(N) where N is the number of fields to be removed.",
    history: &[("2.4.0", "Accepts multiple `field` arguments.")],
    run: hdel,
    ..HASH
};

fn hdel(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let now = ctx.db.fields_now_ms();
    let removed = change(ctx, &key, |hash| {
        // One that is dead already goes too, but does not count.
        let removed = args.from(2).filter(|name| hash.at(now).get(name).is_some() & hash.remove(name)).count();
        hash.shrink();
        removed
    })?;
    let removed = removed.unwrap_or(0);
    note_removed(ctx, &key, removed);
    ctx.out.integer(removed as i64);
    DONE
}

/// Notes that a command removed so many fields, and removes the hash where they were its last.
fn note_removed(ctx: &mut Context<'_>, key: &Key<'_>, removed: usize) {
    if removed > 0 {
        ctx.db.note(key, Class::Hash, "hdel");
        ctx.db.effects.dirty += removed as u64 - 1;
        remove_if_empty(ctx, key);
    }
}

/// Adds an integer to a field's value; replies with the sum.
pub const HINCRBY: Command = Command {
    name: "HINCRBY",
    arity: Arity::Exactly(4),
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::READ_UPDATE }],
    usage: "key field increment:integer",
    summary: "Increments the integer value of a field in a hash by a number. Uses 0 as initial value if the field doesn't exist.",
    run: hincrby,
    ..HASH
};

fn hincrby(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let by = args.integer(3)?;
    let key = args.key(&ctx.db, 1);
    let (old, deadline) = old_value(ctx, &key, args.at(2), |text| match text {
        None => Ok(0),
        Some(Text::Int(n)) => Ok(n),
        Some(text) => text.with(parse_i64).ok_or(Error::text("ERR hash value is not an integer")),
    })?;
    let sum = old.checked_add(by).ok_or(Error::Overflow)?;
    let limits = limits(ctx);
    change_or_create(ctx, &key, |hash| hash.set(args.at(2), Text::Int(sum), deadline, limits))?;
    ctx.db.note(&key, Class::Hash, "hincrby");
    ctx.out.integer(sum);
    DONE
}

/// What `read` makes of a field's present value, and the deadline that it has.
fn old_value<R>(
    ctx: &mut Context<'_>,
    key: &Key<'_>,
    name: &[u8],
    read: impl FnOnce(Option<Text<'_>>) -> Result<R, Error>,
) -> Result<(R, Option<u64>), Error> {
    let now = ctx.db.fields_now_ms();
    let found = ctx.db.look(key).map(hash).transpose()?.and_then(|hash| hash.at(now).get(name));
    Ok((read(found.map(|found| found.value))?, found.and_then(|found| found.deadline)))
}

/// Adds a decimal number to a field's value; replies with the sum.
pub const HINCRBYFLOAT: Command = Command {
    name: "HINCRBYFLOAT",
    since: "2.6.0",
    usage: "key field increment:double",
    summary: "Increments the floating point value of a field by a number. Uses 0 as initial value if the field doesn't exist.",
    run: hincrbyfloat,
    ..HINCRBY
};

fn hincrbyfloat(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let by = Extended::parse(args.at(3)).ok_or(Error::NotFloat)?;
    if !by.is_finite() {
        return Err(Error::text("ERR value is NaN or Infinity"));
    }
    let (key, name) = (args.key(&ctx.db, 1), args.at(2));
    let (old, deadline) = old_value(ctx, &key, name, |text| match text {
        None => Ok(Extended::ZERO),
        Some(text) => text.with(Extended::parse).ok_or(Error::text("ERR hash value is not a float")),
    })?;
    let sum = old.plus(by).filter(|sum| sum.is_finite()).ok_or(Error::NotFinite)?;
    let mut text = Vec::new();
    sum.append(&mut text);
    let limits = limits(ctx);
    change_or_create(ctx, &key, |hash| hash.set(name, Text::Bytes(&text), deadline, limits))?;
    ctx.db.note(&key, Class::Hash, "hincrbyfloat");
    // As a result, not as a sum: floating point arithmetic elsewhere might round otherwise.
    ctx.db.effects.log_as(|| {
        let set = vec![b"HSET".to_vec(), key.bytes.to_vec(), name.to_vec(), text.clone()];
        // Which takes the deadline away.
        let again = deadline.map(|deadline| expire::deadline_effect(key.bytes, deadline, &[name]));
        [set].into_iter().chain(again).collect()
    });
    ctx.out.bulk(&text);
    DONE
}

/// A random field, or some.
pub const HRANDFIELD: Command = Command {
    name: "HRANDFIELD",
    since: "6.2.0",
    arity: Arity::AtLeast(2),
    flags: &[Flag::ReadOnly],
    usage: "key [options{count [WITHVALUES]}]",
    summary: "Returns one or more random fields from a hash.",
    complexity: "O(N) where N is the number of fields returned",
    tips: &["nondeterministic_output"],
    run: hrandfield,
    ..HASH
};

fn hrandfield(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let mut rng = fastrand::Rng::new();
    if args.len() == 2 {
        let now = ctx.db.fields_now_ms();
        let hash = ctx.db.read(&key).map(hash).transpose()?;
        let out = &mut *ctx.out;
        if !hash.is_some_and(|hash| hash.at(now).random(&mut rng, |name, _| write_text(out, name))) {
            ctx.out.null();
        }
        return DONE;
    }
    let count = args.integer(2)?;
    if count == i64::MIN {
        return Err(Error::text(
            "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        ));
    }
    if args.len() > 4 || args.len() == 4 && !args.is(3, "WITHVALUES") {
        return Err(Error::Syntax);
    }
    let part = if args.len() == 4 { Part::Both } else { Part::Names };
    if part == Part::Both && count.unsigned_abs() > (i64::MAX / 2) as u64 {
        return Err(Error::OutOfRange);
    }
    let now = ctx.db.fields_now_ms();
    let hash = ctx.db.read(&key).map(hash).transpose()?.map(|hash| hash.at(now)).filter(|hash| !hash.is_empty());
    let Some(hash) = hash else {
        ctx.out.array(0);
        return DONE;
    };
    let len = hash.len();
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if count < 0 {
        begin_fields(ctx.out, wanted, part);
        for _ in 0..wanted {
            hash.random(&mut rng, |name, found| write_field(ctx.out, name, found.value, part));
        }
    } else {
        begin_fields(ctx.out, wanted.min(len), part);
        some_fields(hash, wanted.min(len), &mut rng, |name, found| write_field(ctx.out, name, found.value, part));
    }
    DONE
}

/// Calls `f` for `count` different fields, any set of them as likely as any other.
fn some_fields(hash: Living<'_>, count: usize, rng: &mut fastrand::Rng, mut f: impl FnMut(Text<'_>, Found<'_>)) {
    let len = hash.len();
    // Drawing is cheap while it seldom meets what was drawn before; walking over all of them is as soon as a good
    // part of them is wanted.
    if count > len / 3 {
        let (mut left, mut wanted) = (len, count);
        hash.for_each(|name, found| {
            if wanted > 0 && rng.usize(..left) < wanted {
                wanted -= 1;
                f(name, found);
            }
            left -= 1;
        });
        return;
    }
    let mut drawn = HashSet::with_capacity(count);
    while drawn.len() < count {
        hash.random(rng, |name, found| {
            if drawn.insert(name.to_vec()) {
                f(name, found);
            }
        });
    }
}

/// Begins a reply of `count` fields: with values, RESP3 has an array for each.
fn begin_fields(out: &mut Output, count: usize, part: Part) {
    let flat = part == Part::Both && out.protocol() == Protocol::Resp2;
    out.array(if flat { count.saturating_mul(2) } else { count });
}

fn write_field(out: &mut Output, name: Text<'_>, value: Text<'_>, part: Part) {
    if part == Part::Both && out.protocol() == Protocol::Resp3 {
        out.array(2);
    }
    write_text(out, name);
    if part == Part::Both {
        write_text(out, value);
    }
}

/// Some fields and their values, and a cursor from which to go on.
pub const HSCAN: Command = Command {
    name: "HSCAN",
    since: "2.8.0",
    arity: Arity::AtLeast(3),
    flags: &[Flag::ReadOnly],
    usage: "key cursor [MATCH pattern] [COUNT count] [NOVALUES]",
    summary: "Iterates over fields and values of a hash.",
    complexity: "O(1) for every call. O(N) for a complete iteration, including enough command calls for the cursor to return back to 0. N is the number of elements inside the collection.",
    tips: &["nondeterministic_output"],
    run: hscan,
    ..HASH
};

fn hscan(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let now = ctx.db.fields_now_ms();
    scan_value(ctx, args, hash, |hash, cursor, count, fields| {
        hash.at(now).scan(cursor, count, |name, found| {
            name.with(|name| {
                if fields.wants(name) {
                    fields.add(name);
                    if !fields.names_only {
                        found.value.with(|value| fields.add(value));
                    }
                }
            });
        })
    })
}

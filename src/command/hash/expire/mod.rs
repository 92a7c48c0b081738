//! Deadlines of single fields: HEXPIRE and its kin set them, HTTL and its kin tell them, HPERSIST takes them away;
//! HGETEX, HSETEX and HGETDEL do it on the way.
//!
//! They are what Redis 7.4 and 8.0 have. What must stay true: a deadline that has passed already removes the field;
//! the log gets deadlines, never times to live, and nothing but HSET, HDEL, HPEXPIREAT and HPERSIST.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};

use crate::command::args::{Args, word};
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::hash::{HASH, change, change_or_create, edit, hash, limits, note_removed, write_found};
use crate::command::table::Command;
use crate::command::time::{TimeUnit, absolute_ms};
use crate::keyspace::change::{Class, Effect};
use crate::keyspace::db::Key;
use crate::spec::{Access, Arity, Flag, Keys};
use crate::stdx::number::parse_i64;
use crate::types::hash::{Hash, Text};

/// Times further ahead are refused, in milliseconds: they take 46 bits in files.
const LATEST_MS: i64 = (1 << 46) - 1;

/// What is said of a field that does not exist.
const NO_FIELD: i64 = -2;
/// What is said of a field that has no deadline.
const NO_DEADLINE: i64 = -1;

/// Sets fields' time to live in seconds: for each 1, 0 where the condition does not hold, 2 where it is removed,
/// -2 where there is no such field.
pub const HEXPIRE: Command = Command {
    name: "HEXPIRE",
    since: "7.4.0",
    arity: Arity::AtLeast(6),
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::UPDATE }],
    usage: "key seconds [condition(NX | XX | GT | LT)] FIELDS fields{numfields:integer field...}",
    summary: "Sets the expiration time of hash fields in seconds.",
    complexity: "O(N) where N is the number of specified fields",
    run: |ctx, args| hexpire(ctx, args, TimeUnit::Seconds, Origin::Now, "hexpire"),
    ..HASH
};

/// HEXPIRE in milliseconds.
pub const HPEXPIRE: Command = Command {
    name: "HPEXPIRE",
    usage: "key milliseconds [condition(NX | XX | GT | LT)] FIELDS fields{numfields:integer field...}",
    summary: "Sets the expiration time of hash fields in milliseconds.",
    run: |ctx, args| hexpire(ctx, args, TimeUnit::Milliseconds, Origin::Now, "hpexpire"),
    ..HEXPIRE
};

/// Sets fields' deadline in Unix seconds.
pub const HEXPIREAT: Command = Command {
    name: "HEXPIREAT",
    usage: "key unix-time-seconds [condition(NX | XX | GT | LT)] FIELDS fields{numfields:integer field...}",
    summary: "Sets the expiration time of hash fields to a Unix timestamp.",
    run: |ctx, args| hexpire(ctx, args, TimeUnit::Seconds, Origin::Epoch, "hexpireat"),
    ..HEXPIRE
};

/// Sets fields' deadline in Unix milliseconds.
pub const HPEXPIREAT: Command = Command {
    name: "HPEXPIREAT",
    usage: "key unix-time-milliseconds [condition(NX | XX | GT | LT)] FIELDS fields{numfields:integer field...}",
    summary: "Sets the expiration time of hash fields to a Unix milliseconds timestamp.",
    run: |ctx, args| hexpire(ctx, args, TimeUnit::Milliseconds, Origin::Epoch, "hpexpireat"),
    ..HEXPIRE
};

/// What a time is counted from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Now,
    Epoch,
}

/// When a deadline is to be set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    Nx,
    Xx,
    Gt,
    Lt,
}

impl Condition {
    /// Whether `new` may replace the deadline `old`. A field without one lives for ever, longer than any other.
    fn allows(self, old: Option<u64>, new: u64) -> bool {
        match self {
            Condition::Always => true,
            Condition::Nx => old.is_none(),
            Condition::Xx => old.is_some(),
            Condition::Gt => old.is_some_and(|old| new > old),
            Condition::Lt => old.is_none_or(|old| new < old),
        }
    }
}

/// The deadline that an argument means, in Unix milliseconds.
fn deadline(arg: &[u8], unit: TimeUnit, origin: Origin, now: u64, name: &'static str) -> Result<u64, Error> {
    let n = parse_i64(arg).ok_or(Error::NotInteger)?;
    if n < 0 {
        return Err(Error::text("ERR invalid expire time, must be >= 0"));
    }
    let at = absolute_ms(n, unit, (origin == Origin::Now).then_some(now)).filter(|at| *at <= LATEST_MS);
    at.and_then(|at| u64::try_from(at).ok()).ok_or(Error::InvalidExpire(name))
}

/// Reads `FIELDS numfields field...` at argument `at`, the last of the request; returns where the fields begin.
/// `bad_count` is said of a number that is none or not above 0.
fn fields_at(args: &Args<'_>, at: usize, bad_count: &'static str) -> Result<usize, Error> {
    if !args.opt(at).is_some_and(|arg| arg.eq_ignore_ascii_case(b"FIELDS")) {
        return Err(Error::text("ERR Mandatory argument FIELDS is missing or not at the right position"));
    }
    let count = args.opt(at + 1).and_then(parse_i64).filter(|n| *n > 0).ok_or(Error::text(bad_count))?;
    if usize::try_from(count) != Ok(args.len() - at - 2) {
        return Err(Error::text("ERR The `numfields` parameter must match the number of arguments"));
    }
    Ok(at + 2)
}

const NOT_POSITIVE: &str = "ERR Number of fields must be a positive integer";

/// Checks that a key holds a hash, if anything: this is looked at before the arguments.
fn check_type(ctx: &mut Context<'_>, key: &Key<'_>) -> Result<(), Error> {
    ctx.db.look(key).map(hash).transpose().map(|_| ())
}

/// A command for the log: its name, the key, and what follows.
fn effect<'a>(name: &str, key: &[u8], rest: impl IntoIterator<Item = &'a [u8]>) -> Effect {
    let head = [name.as_bytes().to_vec(), key.to_vec()];
    head.into_iter().chain(rest.into_iter().map(<[u8]>::to_vec)).collect()
}

/// What tells the log that fields have this deadline.
pub fn deadline_effect(key: &[u8], deadline: u64, names: &[&[u8]]) -> Effect {
    let (deadline, count) = (deadline.to_string(), names.len().to_string());
    let head = [deadline.as_bytes(), b"FIELDS", count.as_bytes()];
    effect("HPEXPIREAT", key, head.into_iter().chain(names.iter().copied()))
}

/// Gives a field a deadline, or removes it where that has passed.
fn set_or_remove(hash: &mut Hash, name: &[u8], deadline: u64, now: u64) {
    if deadline > now {
        hash.set_deadline(name, Some(deadline));
    } else {
        hash.remove(name);
    }
}

/// Notes that `names`, which there were, have got this deadline, or are gone where it has passed.
fn note_deadline(ctx: &mut Context<'_>, key: &Key<'_>, deadline: u64, names: &[&[u8]]) {
    if names.is_empty() {
        return;
    }
    if !ctx.db.has_passed(deadline) {
        ctx.db.note(key, Class::Hash, "hexpire");
        ctx.db.effects.dirty += names.len() as u64 - 1;
        ctx.db.effects.log_as(|| vec![deadline_effect(key.bytes, deadline, names)]);
    } else {
        note_removed(ctx, key, names.len());
        ctx.db.effects.log_as(|| vec![effect("HDEL", key.bytes, names.iter().copied())]);
    }
}

fn hexpire(ctx: &mut Context<'_>, args: &Args<'_>, unit: TimeUnit, origin: Origin, name: &'static str) -> Reply {
    let key = args.key(&ctx.db, 1);
    check_type(ctx, &key)?;
    let now = ctx.db.now_ms();
    let deadline = deadline(args.at(2), unit, origin, now, name)?;
    let condition = match word(args.at(3), &["NX", "XX", "GT", "LT"]) {
        Some("NX") => Condition::Nx,
        Some("XX") => Condition::Xx,
        Some("GT") => Condition::Gt,
        Some(_) => Condition::Lt,
        None => Condition::Always,
    };
    let at = if condition == Condition::Always { 3 } else { 4 };
    let first = fields_at(args, at, "ERR Parameter `numFields` should be greater than 0")?;
    let out = &mut *ctx.out;
    out.array(args.len() - first);
    let mut changed = Vec::new();
    let found = ctx.db.update(&key, |entry| {
        edit(entry, |hash| {
            for name in args.from(first) {
                out.integer(match hash.at(now).get(name) {
                    None => NO_FIELD,
                    Some(found) if !condition.allows(found.deadline, deadline) => 0,
                    Some(_) => {
                        changed.push(name);
                        set_or_remove(hash, name, deadline, now);
                        if deadline > now { 1 } else { 2 }
                    }
                });
            }
        })
    });
    match found.transpose()? {
        Some(()) => {}
        None => args.from(first).for_each(|_| ctx.out.integer(NO_FIELD)),
    }
    note_deadline(ctx, &key, deadline, &changed);
    DONE
}

/// Fields' times to live in seconds: -1 where there is none, -2 where there is no such field.
pub const HTTL: Command = Command {
    name: "HTTL",
    since: "7.4.0",
    arity: Arity::AtLeast(5),
    usage: "key FIELDS fields{numfields:integer field...}",
    summary: "Returns the TTL in seconds of hash fields.",
    complexity: "O(N) where N is the number of specified fields",
    tips: &["nondeterministic_output"],
    run: |ctx, args| tell(ctx, args, TimeUnit::Seconds, Origin::Now),
    ..HASH
};

/// HTTL in milliseconds.
pub const HPTTL: Command = Command {
    name: "HPTTL",
    summary: "Returns the TTL in milliseconds of hash fields.",
    run: |ctx, args| tell(ctx, args, TimeUnit::Milliseconds, Origin::Now),
    ..HTTL
};

/// Fields' deadlines in Unix seconds.
pub const HEXPIRETIME: Command = Command {
    name: "HEXPIRETIME",
    summary: "Returns the expiration time of hash fields as a Unix timestamp, in seconds.",
    tips: &[],
    run: |ctx, args| tell(ctx, args, TimeUnit::Seconds, Origin::Epoch),
    ..HTTL
};

/// Fields' deadlines in Unix milliseconds.
pub const HPEXPIRETIME: Command = Command {
    name: "HPEXPIRETIME",
    summary: "Returns the expiration time of hash fields as a Unix timestamp, in milliseconds.",
    run: |ctx, args| tell(ctx, args, TimeUnit::Milliseconds, Origin::Epoch),
    ..HEXPIRETIME
};

fn tell(ctx: &mut Context<'_>, args: &Args<'_>, unit: TimeUnit, origin: Origin) -> Reply {
    let key = args.key(&ctx.db, 1);
    let now = ctx.db.now_ms();
    let hash = ctx.db.read(&key).map(hash).transpose()?;
    let first = fields_at(args, 2, NOT_POSITIVE)?;
    ctx.out.array(args.len() - first);
    for name in args.from(first) {
        ctx.out.integer(match hash.and_then(|hash| hash.at(now).get(name)).map(|found| found.deadline) {
            None => NO_FIELD,
            Some(None) => NO_DEADLINE,
            Some(Some(deadline)) => {
                let ms = if origin == Origin::Now { deadline.saturating_sub(now) } else { deadline };
                // Rounded up, so that a field is never said to have no time left.
                let n = if unit == TimeUnit::Seconds { ms.div_ceil(1000) } else { ms };
                i64::try_from(n).unwrap_or(i64::MAX)
            }
        });
    }
    DONE
}

/// Takes fields' deadlines away: for each 1, -1 where there is none, -2 where there is no such field.
pub const HPERSIST: Command = Command {
    name: "HPERSIST",
    since: "7.4.0",
    arity: Arity::AtLeast(5),
    flags: &[Flag::Write, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::UPDATE }],
    usage: "key FIELDS fields{numfields:integer field...}",
    summary: "Removes the expiration time of hash fields.",
    complexity: "O(N) where N is the number of specified fields",
    run: hpersist,
    ..HASH
};

fn hpersist(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    check_type(ctx, &key)?;
    let now = ctx.db.now_ms();
    let first = fields_at(args, 2, NOT_POSITIVE)?;
    let mut replies = Vec::with_capacity(args.len() - first);
    change(ctx, &key, |hash| {
        for name in args.from(first) {
            replies.push(match hash.at(now).get(name).map(|found| found.deadline) {
                None => NO_FIELD,
                Some(None) => NO_DEADLINE,
                Some(Some(_)) => {
                    hash.set_deadline(name, None);
                    1
                }
            });
        }
    })?;
    replies.resize(args.len() - first, NO_FIELD);
    note_persisted(ctx, &key, replies.iter().filter(|reply| **reply == 1).count());
    ctx.out.array(replies.len());
    replies.into_iter().for_each(|reply| ctx.out.integer(reply));
    DONE
}

/// Notes that so many fields have lost their deadline.
fn note_persisted(ctx: &mut Context<'_>, key: &Key<'_>, fields: usize) {
    if fields > 0 {
        ctx.db.note(key, Class::Hash, "hpersist");
        ctx.db.effects.dirty += fields as u64 - 1;
    }
}

/// What becomes of a field's deadline.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expiry {
    /// It stays; HSETEX's KEEPTTL.
    Keep,
    /// The field lives on without one; HGETEX's PERSIST.
    Clear,
    /// Unix time in milliseconds.
    At(u64),
}

/// Reads EX, PX, EXAT or PXAT at argument `at` and its time behind; `None` where another word stands there.
fn expiry(args: &Args<'_>, at: usize, now: u64, name: &'static str) -> Result<Option<Expiry>, Error> {
    let (unit, origin) = match word(args.at(at), &["EX", "PX", "EXAT", "PXAT"]) {
        Some("EX") => (TimeUnit::Seconds, Origin::Now),
        Some("PX") => (TimeUnit::Milliseconds, Origin::Now),
        Some("EXAT") => (TimeUnit::Seconds, Origin::Epoch),
        Some(_) => (TimeUnit::Milliseconds, Origin::Epoch),
        None => return Ok(None),
    };
    let time = args.opt(at + 1).ok_or(Error::text("ERR missing expire time"))?;
    deadline(time, unit, origin, now, name).map(|deadline| Some(Expiry::At(deadline)))
}

/// The values of fields, which get a deadline or lose it on the way.
pub const HGETEX: Command = Command {
    name: "HGETEX",
    since: "8.0.0",
    arity: Arity::AtLeast(5),
    flags: &[Flag::Write, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::READ_UPDATE }],
    usage: "key [expiration(EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST)] FIELDS fields{numfields:integer field...}",
    summary: "Returns the values of hash fields, and sets or removes their expiration time.",
    complexity: "O(N) where N is the number of specified fields",
    run: hgetex,
    ..HASH
};

fn hgetex(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    check_type(ctx, &key)?;
    let now = ctx.db.now_ms();
    let (expiry, at) = match expiry(args, 2, now, "hgetex")? {
        Some(expiry) => (expiry, 4),
        None if args.is(2, "PERSIST") => (Expiry::Clear, 3),
        None => (Expiry::Keep, 2),
    };
    let first = fields_at(args, at, NOT_POSITIVE)?;
    let hash = ctx.db.read(&key).map(hash).transpose()?;
    ctx.out.array(args.len() - first);
    let (mut seen, mut there, mut volatile) = (HashSet::new(), Vec::new(), 0);
    for name in args.from(first) {
        let found = hash.and_then(|hash| hash.at(now).get(name));
        let again = !seen.insert(name);
        // A field that is named twice and removed the first time is not there the second.
        let gone = again && matches!(expiry, Expiry::At(deadline) if deadline <= now);
        let found = found.filter(|_| !gone);
        write_found(ctx.out, found);
        if let Some(found) = found.filter(|_| !again) {
            volatile += usize::from(found.deadline.is_some());
            there.push(name);
        }
    }
    match expiry {
        Expiry::Keep => {}
        Expiry::At(deadline) => {
            change(ctx, &key, |hash| there.iter().for_each(|name| set_or_remove(hash, name, deadline, now)))?;
            note_deadline(ctx, &key, deadline, &there);
        }
        Expiry::Clear if volatile > 0 => {
            change(ctx, &key, |hash| {
                for name in &there {
                    hash.set_deadline(name, None);
                }
            })?;
            note_persisted(ctx, &key, volatile);
            let count = there.len().to_string();
            let head = [&b"FIELDS"[..], count.as_bytes()];
            ctx.db.effects.log_as(|| vec![effect("HPERSIST", key.bytes, head.into_iter().chain(there))]);
        }
        Expiry::Clear => {}
    }
    DONE
}

/// The values of fields, which are removed.
pub const HGETDEL: Command = Command {
    name: "HGETDEL",
    keys: &[Keys::At { first: 1, access: Access::TAKE }],
    usage: "key FIELDS fields{numfields:integer field...}",
    summary: "Returns the values of hash fields and removes them.",
    run: hgetdel,
    ..HGETEX
};

fn hgetdel(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    check_type(ctx, &key)?;
    let now = ctx.db.now_ms();
    let first = fields_at(args, 2, NOT_POSITIVE)?;
    let out = &mut *ctx.out;
    out.array(args.len() - first);
    let mut removed = Vec::new();
    let found = ctx.db.update(&key, |entry| {
        edit(entry, |hash| {
            for name in args.from(first) {
                let found = hash.at(now).get(name);
                write_found(out, found);
                if found.is_some() {
                    hash.remove(name);
                    removed.push(name);
                }
            }
            hash.shrink();
        })
    });
    match found.transpose()? {
        Some(()) => {}
        None => args.from(first).for_each(|_| ctx.out.null()),
    }
    if !removed.is_empty() {
        note_removed(ctx, &key, removed.len());
        ctx.db.effects.log_as(|| vec![effect("HDEL", key.bytes, removed)]);
    }
    DONE
}

/// Sets fields and their deadlines, all or none: 1 if it did.
pub const HSETEX: Command = Command {
    name: "HSETEX",
    since: "8.0.0",
    arity: Arity::AtLeast(6),
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::UPDATE }],
    usage: "key [key-condition(NX | XX)] [condition(FNX | FXX)] [expiration(EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL)] FIELDS fields{numfields:integer data{field value}...}",
    summary: "Sets the values of hash fields and their expiration time.",
    complexity: "O(N) where N is the number of fields being set.",
    run: hsetex,
    ..HASH
};

/// What HSETEX asks for.
struct SetOptions {
    /// Whether the hash must exist, or must not; Valkey 9 has this.
    hash_exists: Option<bool>,
    /// Whether all fields must exist, or none may.
    exist: Option<bool>,
    expiry: Expiry,
    /// Where fields and values begin.
    first: usize,
}

impl SetOptions {
    fn parse(args: &Args<'_>, now: u64) -> Result<SetOptions, Error> {
        let (mut hash_exists, mut exist, mut expires) = (None, None, None);
        let mut i = 2;
        while i < args.len() {
            if args.is(i, "FIELDS") {
                let wrong = || Error::WrongArity("hsetex".to_owned());
                let count = args.opt(i + 1).filter(|_| i + 3 < args.len()).ok_or_else(wrong)?;
                let count = parse_i64(count).filter(|n| (1..=i64::from(i32::MAX)).contains(n));
                let count = count.ok_or(Error::text("ERR invalid number of fields"))?;
                if usize::try_from(count * 2) != Ok(args.len() - i - 2) {
                    return Err(wrong());
                }
                return Ok(SetOptions { hash_exists, exist, expiry: expires.unwrap_or(Expiry::Clear), first: i + 2 });
            }
            match word(args.at(i), &["NX", "XX", "FNX", "FXX", "KEEPTTL", "EX", "PX", "EXAT", "PXAT"]) {
                Some("NX" | "XX") if hash_exists.is_some() => {
                    return Err(Error::text("ERR Only one of NX or XX arguments can be specified"));
                }
                Some("NX") => hash_exists = Some(false),
                Some("XX") => hash_exists = Some(true),
                Some("FNX" | "FXX") if exist.is_some() => {
                    return Err(Error::text("ERR Only one of FXX or FNX arguments can be specified"));
                }
                Some("FNX") => exist = Some(false),
                Some("FXX") => exist = Some(true),
                Some(_) if expires.is_some() => {
                    return Err(Error::text(
                        "ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified",
                    ));
                }
                Some("KEEPTTL") => expires = Some(Expiry::Keep),
                Some(_) => {
                    expires = expiry(args, i, now, "hsetex")?;
                    i += 1;
                }
                None => {
                    let words = String::from_utf8_lossy(args.at(i));
                    return Err(Error::text(format!("ERR unknown argument: {words}")));
                }
            }
            i += 1;
        }
        Err(Error::text("ERR Mandatory argument FIELDS is missing or not at the right position"))
    }
}

fn hsetex(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let now = ctx.db.now_ms();
    let SetOptions { hash_exists, exist, expiry, first } = SetOptions::parse(args, now)?;
    let names: Vec<&[u8]> = args.from(first).step_by(2).collect();
    let hash = ctx.db.look(&key).map(hash).transpose()?.map(|hash| hash.at(now));
    let there = |name: &&[u8]| hash.is_some_and(|hash| hash.get(name).is_some());
    if hash_exists.is_some_and(|wanted| hash.is_some() != wanted)
        || exist.is_some_and(|wanted| names.iter().any(|name| there(name) != wanted))
    {
        ctx.out.integer(0);
        return DONE;
    }
    ctx.out.integer(1);
    if let Expiry::At(deadline) = expiry
        && deadline <= now
    {
        // What would be set has expired already: only what was there is gone.
        let gone: Vec<&[u8]> = names.into_iter().filter(there).collect();
        change(ctx, &key, |hash| {
            for name in &gone {
                hash.remove(name);
            }
        })?;
        note_deadline(ctx, &key, deadline, &gone);
        return DONE;
    }
    let (limits, pairs) = (limits(ctx), names.len());
    let longest = args.from(first).map(<[u8]>::len).max().unwrap_or(0);
    // Fields by the deadline that they have now, for the log.
    let mut until: BTreeMap<u64, Vec<&[u8]>> = BTreeMap::new();
    change_or_create(ctx, &key, |hash| {
        hash.make_room(pairs, longest, limits);
        for i in (first..args.len()).step_by(2) {
            let (name, value) = (args.at(i), Text::Bytes(args.at(i + 1)));
            let deadline = match expiry {
                Expiry::At(deadline) => Some(deadline),
                Expiry::Clear => None,
                Expiry::Keep => hash.at(now).get(name).and_then(|found| found.deadline),
            };
            hash.set(name, value, deadline, limits);
            if let Some(deadline) = deadline {
                until.entry(deadline).or_default().push(name);
            }
        }
    })?;
    ctx.db.note(&key, Class::Hash, "hset");
    ctx.db.effects.dirty += pairs as u64 - 1;
    if matches!(expiry, Expiry::At(_)) {
        ctx.db.notify(&key, Class::Hash, "hexpire");
    }
    ctx.db.effects.log_as(|| {
        let set = effect("HSET", key.bytes, args.from(first));
        [set].into_iter().chain(until.iter().map(|(at, names)| deadline_effect(key.bytes, *at, names))).collect()
    });
    DONE
}

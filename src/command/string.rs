//! Strings: GET, SET and their kin, counters, ranges, LCS.

use std::sync::Arc;

use crate::command::args::{Args, word};
use crate::command::context::{Context, DONE, Reply, write_string};
use crate::command::error::Error;
use crate::command::lcs;
use crate::command::table::Command;
use crate::command::time::{TimeUnit, absolute_ms};
use crate::keyspace::change::{Class, Effect};
use crate::keyspace::db::Expiry;
use crate::keyspace::entry::{Entry, INLINE_MAX, Str, Value};
use crate::spec::{Access, Arity, Flag, Group, Keys};
use crate::stdx::number::extended::Extended;
use crate::stdx::number::parse_i64;

/// This family's commands.
pub const COMMANDS: &[Command] = &[
    APPEND,
    DECR,
    DECRBY,
    GET,
    GETDEL,
    GETEX,
    GETRANGE,
    GETSET,
    INCR,
    INCRBY,
    INCRBYFLOAT,
    LCS,
    MGET,
    MSET,
    MSETNX,
    PSETEX,
    SET,
    SETEX,
    SETNX,
    SETRANGE,
    STRLEN,
    SUBSTR,
];

/// What most declarations of this file have in common.
const STRING: Command = Command {
    name: "",
    since: "1.0.0",
    group: Group::String,
    arity: Arity::Exactly(2),
    flags: &[],
    categories: &[],
    keys: &[],
    usage: "",
    summary: "",
    complexity: "O(1)",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: get,
};

/// A value as SET stores it: an integer where its digits are just what the integer prints as.
#[inline]
fn stored(bytes: &[u8]) -> Str<'_> {
    // No integer has more digits than i64::MIN with its sign.
    if bytes.len() <= 20
        && let Some(n) = parse_i64(bytes)
    {
        return Str::Int(n);
    }
    Str::Bytes(bytes)
}

/// The bytes of a string value.
///
/// # Errors
/// [`Error::WrongType`].
pub fn bytes_of(value: Value<'_>) -> Result<std::borrow::Cow<'_, [u8]>, Error> {
    Ok(match value {
        Value::Int(n) => n.to_string().into_bytes().into(),
        Value::Bytes(bytes) => bytes.into(),
        Value::Large(large) => large.bytes().as_slice().into(),
        Value::Object(_) => return Err(Error::WrongType),
    })
}

fn check_length(ctx: &Context<'_>, len: usize) -> Result<(), Error> {
    if len as u64 > ctx.config.proto_max_bulk_len { Err(Error::StringTooLong) } else { Ok(()) }
}

/// The command that sets a key to a value and a deadline, for the log.
fn set_effect(key: &[u8], value: &[u8], deadline: Option<u64>) -> Effect {
    let mut effect = vec![b"SET".to_vec(), key.to_vec(), value.to_vec()];
    if let Some(deadline) = deadline {
        effect.extend([b"PXAT".to_vec(), deadline.to_string().into_bytes()]);
    }
    effect
}

/// Replies with the value, or null.
pub const GET: Command = Command {
    name: "GET",
    flags: &[Flag::ReadOnly, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::READ }],
    usage: "key",
    summary: "Returns the string value of a key.",
    run: get,
    ..STRING
};

fn get(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    match ctx.db.read(&key) {
        Some(entry) => write_string(ctx.out, entry.value())?,
        None => ctx.out.null(),
    }
    DONE
}

/// Options that SET, GETEX and their kin understand.
#[derive(Default)]
struct Options<'a> {
    /// Set only where the key is missing (NX), or exists (XX).
    when: Option<When<'a>>,
    /// Reply with the old value.
    get: bool,
    expiry: Option<Expires<'a>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum When<'a> {
    Missing,
    Exists,
    Equals(&'a [u8]),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expires<'a> {
    Keep,
    Persist,
    In(TimeUnit, &'a [u8]),
    At(TimeUnit, &'a [u8]),
}

impl Expires<'_> {
    /// Whether both are the same option.
    fn is_alike(self, other: Expires<'_>) -> bool {
        match (self, other) {
            (Expires::In(a, _), Expires::In(b, _)) | (Expires::At(a, _), Expires::At(b, _)) => a == b,
            (Expires::Keep, Expires::Keep) | (Expires::Persist, Expires::Persist) => true,
            _ => false,
        }
    }
}

/// Which words are options of which command.
#[derive(PartialEq, Eq)]
enum Grammar {
    Set,
    Getex,
}

impl<'a> Options<'a> {
    fn parse(args: &Args<'a>, from: usize, grammar: Grammar) -> Result<Options<'a>, Error> {
        const WORDS: &[&str] = &["NX", "XX", "IFEQ", "GET", "KEEPTTL", "PERSIST", "EX", "PX", "EXAT", "PXAT"];
        let mut options = Options::default();
        let set = grammar == Grammar::Set;
        let mut i = from;
        while i < args.len() {
            let value = args.opt(i + 1);
            let expires = match word(args.at(i), WORDS) {
                Some("NX") if set && options.when.is_none_or(|w| w == When::Missing) => {
                    options.when = Some(When::Missing);
                    None
                }
                Some("XX") if set && options.when.is_none_or(|w| w == When::Exists) => {
                    options.when = Some(When::Exists);
                    None
                }
                Some("IFEQ") if set && options.when.is_none() && value.is_some() => {
                    options.when = value.map(When::Equals);
                    i += 1;
                    None
                }
                Some("GET") if set => {
                    options.get = true;
                    None
                }
                Some("KEEPTTL") if set => Some(Expires::Keep),
                Some("PERSIST") if !set => Some(Expires::Persist),
                Some(unit @ ("EX" | "PX" | "EXAT" | "PXAT")) => {
                    let value = value.ok_or(Error::Syntax)?;
                    i += 1;
                    Some(match unit {
                        "EX" => Expires::In(TimeUnit::Seconds, value),
                        "PX" => Expires::In(TimeUnit::Milliseconds, value),
                        "EXAT" => Expires::At(TimeUnit::Seconds, value),
                        _ => Expires::At(TimeUnit::Milliseconds, value),
                    })
                }
                _ => return Err(Error::Syntax),
            };
            if let Some(expires) = expires {
                // The same word twice is accepted, and the last one counts; two different ones never are.
                let other = options.expiry.is_some_and(|before| !before.is_alike(expires));
                if other {
                    return Err(Error::Syntax);
                }
                options.expiry = Some(expires);
            }
            i += 1;
        }
        Ok(options)
    }

    /// The deadline that the options ask for; the inner `None` where they ask for none.
    fn deadline(&self, command: &'static str, now_ms: u64) -> Result<Option<u64>, Error> {
        match self.expiry {
            Some(Expires::In(unit, text)) => positive_deadline(text, unit, Some(now_ms), command).map(Some),
            Some(Expires::At(unit, text)) => positive_deadline(text, unit, None, command).map(Some),
            Some(Expires::Keep | Expires::Persist) | None => Ok(None),
        }
    }
}

/// A deadline from a time that must be positive; `base` for one that counts from now.
fn positive_deadline(text: &[u8], unit: TimeUnit, base: Option<u64>, command: &'static str) -> Result<u64, Error> {
    let n = parse_i64(text).ok_or(Error::NotInteger)?;
    if n <= 0 {
        return Err(Error::InvalidExpire(command));
    }
    let deadline = absolute_ms(n, unit, base).ok_or(Error::InvalidExpire(command))?;
    Ok(deadline.unsigned_abs())
}

/// Sets a key to a string value, whatever it held; NX, XX and IFEQ set conditions, GET replies the old value.
pub const SET: Command = Command {
    name: "SET",
    arity: Arity::AtLeast(3),
    flags: &[Flag::Write, Flag::DenyOom],
    keys: &[Keys::At {
        first: 1,
        access: Access::READ_UPDATE.varying().noted("RW and ACCESS due to the optional `GET` argument"),
    }],
    usage: "key value [condition(NX | XX | IFEQ comparison-value@8.1.0)]@2.6.12 [GET]@6.2.0 [expiration(EX seconds@2.6.12 | PX milliseconds@2.6.12 | EXAT unix-time-seconds@6.2.0 | PXAT unix-time-milliseconds@6.2.0 | KEEPTTL@6.0.0)]",
    summary: "Sets the string value of a key, ignoring its type. The key is created if it doesn't exist.",
    history: &[
        ("2.6.12", "Added the `EX`, `PX`, `NX` and `XX` options."),
        ("6.0.0", "Added the `KEEPTTL` option."),
        ("6.2.0", "Added the `GET`, `EXAT` and `PXAT` option."),
        ("7.0.0", "Allowed the `NX` and `GET` options to be used together."),
    ],
    run: set,
    ..STRING
};

fn set(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    if args.len() == 3 {
        ctx.db.set(&key, stored(args.at(2)), Expiry::Clear);
        ctx.db.note(&key, Class::String, "set");
        ctx.out.ok();
        return DONE;
    }
    let options = Options::parse(args, 3, Grammar::Set)?;
    let deadline = options.deadline("set", ctx.db.now_ms())?;
    let expiry = match (options.expiry, deadline) {
        (Some(Expires::Keep), _) => Expiry::Keep,
        (_, Some(deadline)) => Expiry::At(deadline),
        _ => Expiry::Clear,
    };
    // GET replies before the value changes, but what it replies counts only if nothing is wrong.
    let mut replied = false;
    if options.get {
        match ctx.db.read(&key) {
            Some(entry) => write_string(ctx.out, entry.value())?,
            None => ctx.out.null(),
        }
        replied = true;
    }
    let wanted = match options.when {
        None => true,
        Some(When::Missing) => !ctx.db.exists(&key),
        Some(When::Exists) => ctx.db.exists(&key),
        Some(When::Equals(expected)) => match ctx.db.look(&key) {
            Some(entry) => *bytes_of(entry.value())? == *expected,
            None => false,
        },
    };
    if !wanted {
        if !replied {
            ctx.out.null();
        }
        return DONE;
    }
    ctx.db.set(&key, stored(args.at(2)), expiry);
    ctx.db.note(&key, Class::String, "set");
    if let Expiry::At(deadline) = expiry {
        ctx.db.notify(&key, Class::Generic, "expire");
        ctx.db.effects.log_as(|| vec![set_effect(key.bytes, args.at(2), Some(deadline))]);
    }
    if !replied {
        ctx.out.ok();
    }
    DONE
}

/// Sets a key unless it exists: 1 if it was set.
pub const SETNX: Command = Command {
    name: "SETNX",
    arity: Arity::Exactly(3),
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::CREATE }],
    usage: "key value",
    summary: "Set the string value of a key only when the key doesn't exist.",
    deprecated: Some(("2.6.12", "`SET` with the `NX` argument")),
    run: setnx,
    ..STRING
};

fn setnx(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let missing = !ctx.db.exists(&key);
    if missing {
        ctx.db.set(&key, stored(args.at(2)), Expiry::Clear);
        ctx.db.note(&key, Class::String, "set");
    }
    ctx.out.integer(missing.into());
    DONE
}

/// Sets a key and its time to live in seconds.
pub const SETEX: Command = Command {
    name: "SETEX",
    since: "2.0.0",
    arity: Arity::Exactly(4),
    flags: &[Flag::Write, Flag::DenyOom],
    keys: &[Keys::At { first: 1, access: Access::OVERWRITE }],
    usage: "key seconds value",
    summary: "Sets the string value and expiration time of a key. Creates the key if it doesn't exist.",
    deprecated: Some(("2.6.12", "`SET` with the `EX` argument")),
    run: |ctx, args| set_with_ttl(ctx, args, TimeUnit::Seconds, "setex"),
    ..STRING
};

/// Sets a key and its time to live in milliseconds.
pub const PSETEX: Command = Command {
    name: "PSETEX",
    since: "2.6.0",
    usage: "key milliseconds value",
    summary: "Sets both string value and expiration time in milliseconds of a key. The key is created if it doesn't exist.",
    deprecated: Some(("2.6.12", "`SET` with the `PX` argument")),
    run: |ctx, args| set_with_ttl(ctx, args, TimeUnit::Milliseconds, "psetex"),
    ..SETEX
};

fn set_with_ttl(ctx: &mut Context<'_>, args: &Args<'_>, unit: TimeUnit, name: &'static str) -> Reply {
    let deadline = positive_deadline(args.at(2), unit, Some(ctx.db.now_ms()), name)?;
    let key = args.key(&ctx.db, 1);
    ctx.db.set(&key, stored(args.at(3)), Expiry::At(deadline));
    ctx.db.note(&key, Class::String, "set");
    ctx.db.notify(&key, Class::Generic, "expire");
    ctx.db.effects.log_as(|| vec![set_effect(key.bytes, args.at(3), Some(deadline))]);
    ctx.out.ok();
    DONE
}

/// Replies with the value and sets or removes the key's deadline.
pub const GETEX: Command = Command {
    name: "GETEX",
    since: "6.2.0",
    arity: Arity::AtLeast(2),
    flags: &[Flag::Write, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::READ_UPDATE.noted("RW and UPDATE because it changes the TTL") }],
    usage: "key [expiration(EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST)]",
    summary: "Returns the string value of a key after setting its expiration time.",
    run: getex,
    ..STRING
};

fn getex(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let options = Options::parse(args, 2, Grammar::Getex)?;
    let now = ctx.db.now_ms();
    let key = args.key(&ctx.db, 1);
    let deadline = match ctx.db.read(&key) {
        Some(entry) if matches!(entry.value(), Value::Object(_)) => return Err(Error::WrongType),
        Some(entry) => {
            let deadline = options.deadline("getex", now)?;
            write_string(ctx.out, entry.value())?;
            deadline
        }
        None => {
            ctx.out.null();
            return DONE;
        }
    };
    match deadline {
        // A deadline in the past removes the key.
        Some(deadline) if ctx.db.has_passed(deadline) => {
            ctx.db.remove(&key);
            ctx.db.note(&key, Class::Generic, "del");
            ctx.db.effects.log_removal(key.bytes, ctx.config.lazyfree_lazy_expire);
        }
        Some(deadline) => {
            ctx.db.set_deadline(&key, Some(deadline));
            ctx.db.note(&key, Class::Generic, "expire");
            ctx.db
                .effects
                .log_as(|| vec![vec![b"PEXPIREAT".to_vec(), key.bytes.to_vec(), deadline.to_string().into_bytes()]]);
        }
        None if options.expiry == Some(Expires::Persist)
            && ctx.db.look(&key).is_some_and(|entry| entry.deadline().is_some()) =>
        {
            ctx.db.set_deadline(&key, None);
            ctx.db.note(&key, Class::Generic, "persist");
            ctx.db.effects.log_as(|| vec![vec![b"PERSIST".to_vec(), key.bytes.to_vec()]]);
        }
        None => {}
    }
    DONE
}

/// Replies with the value and removes the key.
pub const GETDEL: Command = Command {
    name: "GETDEL",
    since: "6.2.0",
    flags: &[Flag::Write, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::TAKE }],
    usage: "key",
    summary: "Returns the string value of a key after deleting the key.",
    run: getdel,
    ..STRING
};

fn getdel(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    match ctx.db.read(&key) {
        Some(entry) => write_string(ctx.out, entry.value())?,
        None => {
            ctx.out.null();
            return DONE;
        }
    }
    ctx.db.remove(&key);
    ctx.db.note(&key, Class::Generic, "del");
    ctx.db.effects.log_removal(key.bytes, false);
    DONE
}

/// Sets a key and replies with its old value.
pub const GETSET: Command = Command {
    name: "GETSET",
    arity: Arity::Exactly(3),
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::READ_UPDATE }],
    usage: "key value",
    summary: "Returns the previous string value of a key after setting it to a new value.",
    deprecated: Some(("6.2.0", "`SET` with the `!GET` argument")),
    run: getset,
    ..STRING
};

fn getset(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    match ctx.db.read(&key) {
        Some(entry) => write_string(ctx.out, entry.value())?,
        None => ctx.out.null(),
    }
    ctx.db.set(&key, stored(args.at(2)), Expiry::Clear);
    ctx.db.note(&key, Class::String, "set");
    ctx.db.effects.log_as(|| vec![set_effect(key.bytes, args.at(2), None)]);
    DONE
}

/// Replies with the value of each key, null for those that are missing or no strings.
pub const MGET: Command = Command {
    name: "MGET",
    arity: Arity::AtLeast(2),
    flags: &[Flag::ReadOnly, Flag::Fast],
    keys: &[Keys::Range { first: 1, last: -1, step: 1, access: Access::READ }],
    usage: "key...",
    summary: "Atomically returns the string values of one or more keys.",
    complexity: "O(N) where N is the number of keys to retrieve.",
    tips: &["request_policy:multi_shard"],
    run: mget,
    ..STRING
};

fn mget(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    ctx.out.array(args.len() - 1);
    for i in 1..args.len() {
        let key = args.key(&ctx.db, i);
        let found = ctx.db.read(&key).is_some_and(|entry| write_string(ctx.out, entry.value()).is_ok());
        if !found {
            ctx.out.null();
        }
    }
    DONE
}

/// Sets several keys at once.
pub const MSET: Command = Command {
    name: "MSET",
    since: "1.0.1",
    arity: Arity::AtLeast(3),
    flags: &[Flag::Write, Flag::DenyOom],
    keys: &[Keys::Range { first: 1, last: -1, step: 2, access: Access::OVERWRITE }],
    usage: "data{key value}...",
    summary: "Atomically creates or modifies the string values of one or more keys.",
    complexity: "O(N) where N is the number of keys to set.",
    tips: &["request_policy:multi_shard", "response_policy:all_succeeded"],
    run: mset,
    ..STRING
};

/// Sets several keys at once if none of them exists: 1 if they were set.
pub const MSETNX: Command = Command {
    name: "MSETNX",
    keys: &[Keys::Range { first: 1, last: -1, step: 2, access: Access::CREATE }],
    summary: "Atomically modifies the string values of one or more keys only when all keys don't exist.",
    tips: &[],
    run: msetnx,
    ..MSET
};

fn check_pairs(args: &Args<'_>, name: &str) -> Result<(), Error> {
    if args.len().is_multiple_of(2) { Err(Error::WrongArity(name.into())) } else { Ok(()) }
}

fn set_pairs(ctx: &mut Context<'_>, args: &Args<'_>) {
    for i in (1..args.len()).step_by(2) {
        let key = args.key(&ctx.db, i);
        ctx.db.set(&key, stored(args.at(i + 1)), Expiry::Clear);
        ctx.db.note(&key, Class::String, "set");
    }
}

fn mset(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    check_pairs(args, "mset")?;
    set_pairs(ctx, args);
    ctx.out.ok();
    DONE
}

fn msetnx(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    check_pairs(args, "msetnx")?;
    let any = (1..args.len()).step_by(2).any(|i| {
        let key = args.key(&ctx.db, i);
        ctx.db.exists(&key)
    });
    if !any {
        set_pairs(ctx, args);
    }
    ctx.out.integer((!any).into());
    DONE
}

/// Replies with the length of the value in bytes, 0 where the key is missing.
pub const STRLEN: Command = Command {
    name: "STRLEN",
    since: "2.2.0",
    flags: &[Flag::ReadOnly, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::META }],
    usage: "key",
    summary: "Returns the length of a string value.",
    run: strlen,
    ..STRING
};

fn strlen(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let len = match ctx.db.read(&key) {
        Some(entry) => bytes_of(entry.value())?.len(),
        None => 0,
    };
    ctx.out.integer(len as i64);
    DONE
}

/// Adds bytes to the end; replies with the new length.
pub const APPEND: Command = Command {
    name: "APPEND",
    since: "2.0.0",
    arity: Arity::Exactly(3),
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::INSERT }],
    usage: "key value",
    summary: "Appends a string to the value of a key. Creates the key if it doesn't exist.",
    complexity: "O(1). The amortized time complexity is O(1) assuming the appended value is small and the already present value is of any size, since the dynamic string library used by Redis will double the free space available on every reallocation.",
    run: append,
    ..STRING
};

fn append(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let tail = args.at(2);
    let old = match ctx.db.look(&key) {
        Some(entry) => bytes_of(entry.value())?.len(),
        None => {
            ctx.db.set(&key, stored(tail), Expiry::Clear);
            ctx.db.note(&key, Class::String, "append");
            ctx.out.integer(tail.len() as i64);
            return DONE;
        }
    };
    check_length(ctx, old.saturating_add(tail.len()))?;
    ctx.db.update(&key, |entry| {
        edit(entry, old + tail.len(), |bytes| bytes[old..].copy_from_slice(tail));
    });
    ctx.db.note(&key, Class::String, "append");
    ctx.out.integer((old + tail.len()) as i64);
    DONE
}

/// Changes a string's bytes in place, which become `len` at least, zeros added; it is `raw` afterwards.
pub fn edit<R>(entry: &mut Entry, len: usize, change: impl FnOnce(&mut [u8]) -> R) -> Option<R> {
    if let Some(bytes) = entry.large_mut() {
        lengthen(bytes, len);
        return Some(change(bytes));
    }
    if let Some(bytes) = entry.raw_mut()
        && bytes.len() >= len
    {
        return Some(change(bytes));
    }
    let mut bytes = bytes_of(entry.value()).ok()?.into_owned();
    if len > INLINE_MAX {
        lengthen(&mut bytes, len);
    } else if bytes.len() < len {
        bytes.resize(len, 0);
    }
    let result = change(&mut bytes);
    entry.set_string(if bytes.len() > INLINE_MAX { Str::Large(Arc::new(bytes)) } else { Str::Raw(&bytes) });
    Some(result)
}

/// Makes bytes `len` long at least, zeros added.
fn lengthen(bytes: &mut Vec<u8>, len: usize) {
    if len <= bytes.len() {
        return;
    }
    if len > bytes.capacity() {
        // Room for as much again, up to a megabyte: a value that grows, grows on. A new one has not grown.
        let room = if bytes.is_empty() { len } else { len + len.min(1 << 20) };
        if len > 2 * bytes.len() {
            // Memory that the system has filled with zeros is not touched until somebody writes there: a bit
            // that is set far beyond the end costs no pause.
            let old = std::mem::replace(bytes, vec![0; room]);
            bytes[..old.len()].copy_from_slice(&old);
            bytes.truncate(len);
            return;
        }
        bytes.reserve_exact(room - bytes.len());
    }
    bytes.resize(len, 0);
}

/// Overwrites bytes from an offset on; replies with the new length.
pub const SETRANGE: Command = Command {
    name: "SETRANGE",
    since: "2.2.0",
    arity: Arity::Exactly(4),
    flags: &[Flag::Write, Flag::DenyOom],
    keys: &[Keys::At { first: 1, access: Access::UPDATE }],
    usage: "key offset value",
    summary: "Overwrites a part of a string value with another by an offset. Creates the key if it doesn't exist.",
    complexity: "O(1), not counting the time taken to copy the new string in place. Usually, this string is very small so the amortized complexity is O(1). Otherwise, complexity is O(M) with M being the length of the value argument.",
    run: setrange,
    ..STRING
};

fn setrange(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let offset = args.integer(2)?;
    let offset = usize::try_from(offset).map_err(|_| Error::OffsetOutOfRange)?;
    let key = args.key(&ctx.db, 1);
    let patch = args.at(3);
    let old = match ctx.db.look(&key) {
        Some(entry) => Some(bytes_of(entry.value())?.len()),
        None => None,
    };
    if patch.is_empty() {
        ctx.out.integer(old.unwrap_or(0) as i64);
        return DONE;
    }
    let end = offset.saturating_add(patch.len());
    check_length(ctx, end)?;
    if old.is_none() {
        ctx.db.set(&key, Str::Raw(b""), Expiry::Clear);
    }
    ctx.db.update(&key, |entry| edit(entry, end, |bytes| bytes[offset..end].copy_from_slice(patch)));
    ctx.db.note(&key, Class::String, "setrange");
    ctx.out.integer(end.max(old.unwrap_or(0)) as i64);
    DONE
}

/// Replies with the bytes from `start` to `end`, both included, negative ones counted from the end.
pub const GETRANGE: Command = Command {
    name: "GETRANGE",
    since: "2.4.0",
    arity: Arity::Exactly(4),
    flags: &[Flag::ReadOnly],
    keys: &[Keys::At { first: 1, access: Access::READ }],
    usage: "key start:integer end:integer",
    summary: "Returns a substring of the string stored at a key.",
    complexity: "O(N) where N is the length of the returned string. The complexity is ultimately determined by the returned length, but because creating a substring from an existing string is very cheap, it can be considered O(1) for small strings.",
    run: getrange,
    ..STRING
};

/// GETRANGE under its old name.
pub const SUBSTR: Command = Command {
    name: "SUBSTR",
    since: "1.0.0",
    summary: "Returns a substring from a string value.",
    deprecated: Some(("2.0.0", "`GETRANGE`")),
    ..GETRANGE
};

fn getrange(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let (start, end) = (args.integer(2)?, args.integer(3)?);
    let key = args.key(&ctx.db, 1);
    match ctx.db.read(&key) {
        Some(entry) => {
            let bytes = bytes_of(entry.value())?;
            ctx.out.bulk(&bytes[range_within(start, end, bytes.len())]);
        }
        None => ctx.out.bulk(b""),
    }
    DONE
}

/// The part of `0..len` from `start` to `end`, both included, negative ones counted from the end.
fn range_within(start: i64, end: i64, len: usize) -> std::ops::Range<usize> {
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let len = len as i64;
    let from_end = |i: i64| if i < 0 { i.saturating_add(len).max(0) } else { i };
    let (start, end) = (from_end(start), from_end(end).min(len - 1));
    if len == 0 || start > end { 0..0 } else { start as usize..end as usize + 1 }
}

/// Adds 1; replies with the new value.
pub const INCR: Command = Command {
    name: "INCR",
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::READ_UPDATE }],
    usage: "key",
    summary: "Increments the integer value of a key by one. Uses 0 as initial value if the key doesn't exist.",
    run: |ctx, args| add(ctx, args, 1),
    ..STRING
};

/// Subtracts 1; replies with the new value.
pub const DECR: Command = Command {
    name: "DECR",
    summary: "Decrements the integer value of a key by one. Uses 0 as initial value if the key doesn't exist.",
    run: |ctx, args| add(ctx, args, -1),
    ..INCR
};

/// Adds a number; replies with the new value.
pub const INCRBY: Command = Command {
    name: "INCRBY",
    arity: Arity::Exactly(3),
    usage: "key increment:integer",
    summary: "Increments the integer value of a key by a number. Uses 0 as initial value if the key doesn't exist.",
    run: |ctx, args| {
        let by = args.integer(2)?;
        add(ctx, args, by)
    },
    ..INCR
};

/// Subtracts a number; replies with the new value.
pub const DECRBY: Command = Command {
    name: "DECRBY",
    usage: "key decrement:integer",
    summary: "Decrements a number from the integer value of a key. Uses 0 as initial value if the key doesn't exist.",
    run: |ctx, args| {
        let by = args.integer(2)?;
        let by = by.checked_neg().ok_or(Error::text("ERR decrement would overflow"))?;
        add(ctx, args, by)
    },
    ..INCRBY
};

fn add(ctx: &mut Context<'_>, args: &Args<'_>, by: i64) -> Reply {
    let key = args.key(&ctx.db, 1);
    let changed = ctx.db.update(&key, |entry| {
        let old = match entry.value() {
            Value::Int(n) => n,
            Value::Object(_) => return Err(Error::WrongType),
            other => parse_i64(&bytes_of(other)?).ok_or(Error::NotInteger)?,
        };
        let sum = old.checked_add(by).ok_or(Error::Overflow)?;
        entry.set_string(Str::Int(sum));
        Ok(sum)
    });
    let sum = match changed {
        Some(sum) => sum?,
        None => {
            ctx.db.set(&key, Str::Int(by), Expiry::Clear);
            by
        }
    };
    ctx.db.note(&key, Class::String, "incrby");
    ctx.out.integer(sum);
    DONE
}

/// Adds a floating point number; replies with the new value as text.
pub const INCRBYFLOAT: Command = Command {
    name: "INCRBYFLOAT",
    since: "2.6.0",
    arity: Arity::Exactly(3),
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::READ_UPDATE }],
    usage: "key increment:double",
    summary: "Increment the floating point value of a key by a number. Uses 0 as initial value if the key doesn't exist.",
    run: incrbyfloat,
    ..STRING
};

fn incrbyfloat(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let old = match ctx.db.look(&key) {
        Some(entry) => Extended::parse(&bytes_of(entry.value())?).ok_or(Error::NotFloat)?,
        None => Extended::ZERO,
    };
    let by = Extended::parse(args.at(2)).ok_or(Error::NotFloat)?;
    let sum = old.plus(by).filter(|sum| sum.is_finite()).ok_or(Error::NotFinite)?;
    let mut text = Vec::new();
    sum.append(&mut text);
    ctx.db.set(&key, Str::Bytes(&text), Expiry::Keep);
    ctx.db.note(&key, Class::String, "incrbyfloat");
    // As a result, not as a sum: floating point arithmetic elsewhere might round otherwise.
    ctx.db.effects.log_as(|| vec![vec![b"SET".to_vec(), key.bytes.to_vec(), text.clone(), b"KEEPTTL".to_vec()]]);
    ctx.out.bulk(&text);
    DONE
}

/// The longest common subsequence of two values.
pub const LCS: Command = Command {
    name: "LCS",
    since: "7.0.0",
    arity: Arity::AtLeast(3),
    flags: &[Flag::ReadOnly],
    keys: &[Keys::Range { first: 1, last: 2, step: 1, access: Access::READ }],
    usage: "key1:key key2:key#0 [LEN] [IDX] [MINMATCHLEN min-match-len:integer] [WITHMATCHLEN]",
    summary: "Finds the longest common substring.",
    complexity: "O(N*M) where N and M are the lengths of s1 and s2, respectively",
    run: lcs_command,
    ..STRING
};

fn lcs_command(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let mut values = Vec::new();
    for i in 1..=2 {
        let key = args.key(&ctx.db, i);
        values.push(match ctx.db.read(&key) {
            Some(entry) => bytes_of(entry.value())
                .map_err(|_| Error::text("ERR The specified keys must contain string values"))?
                .into_owned(),
            None => Vec::new(),
        });
    }
    let (mut len, mut idx, mut with_len, mut least) = (false, false, false, 0);
    let mut i = 3;
    while i < args.len() {
        match word(args.at(i), &["LEN", "IDX", "WITHMATCHLEN", "MINMATCHLEN"]) {
            Some("LEN") => len = true,
            Some("IDX") => idx = true,
            Some("WITHMATCHLEN") => with_len = true,
            Some("MINMATCHLEN") if i + 1 < args.len() => {
                least = usize::try_from(args.integer(i + 1)?).unwrap_or(0);
                i += 1;
            }
            _ => return Err(Error::Syntax),
        }
        i += 1;
    }
    if len && idx {
        return Err(Error::text("ERR If you want both the length and indexes, please just use IDX."));
    }
    let table = lcs::Table::new(&values[0], &values[1])
        .ok_or(Error::text("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"))?;
    if len {
        ctx.out.integer(table.length() as i64);
    } else if idx {
        let matches: Vec<_> = table.matches().into_iter().filter(|m| m.len >= least).collect();
        ctx.out.map(2);
        ctx.out.bulk(b"matches");
        ctx.out.array(matches.len());
        for m in matches {
            ctx.out.array(2 + usize::from(with_len));
            for start in [m.a, m.b] {
                ctx.out.array(2);
                ctx.out.integer(start as i64);
                ctx.out.integer((start + m.len - 1) as i64);
            }
            if with_len {
                ctx.out.integer(m.len as i64);
            }
        }
        ctx.out.bulk(b"len");
        ctx.out.integer(table.length() as i64);
    } else {
        ctx.out.bulk(&table.text());
    }
    DONE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Bench;

    #[test]
    fn a_value_is_set_read_and_counted() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("SET a 10 EX 100"), "+OK|");
        assert_eq!(bench.run("INCRBY a 5"), ":15|");
        assert_eq!(bench.run("GET a"), "$2|15|");
        assert_eq!(bench.run("APPEND a x"), ":3|");
        assert_eq!(bench.run("INCR a"), "-ERR value is not an integer or out of range|");
        assert_eq!(bench.run("SET a b NX GET"), "$3|15x|");
        bench.clock.advance(100_000);
        assert_eq!(bench.run("GET a"), "$3|15x|");
        bench.clock.advance(1);
        assert_eq!(bench.run("GET a"), "$-1|");
    }

    #[test]
    fn large_values_grow_and_are_cut_in_place() {
        let mut bench = Bench::new();
        bench.run(&format!("SET a {}", "x".repeat(9000)));
        assert_eq!(bench.run("APPEND a yz"), ":9002|");
        assert_eq!(bench.run("GETRANGE a -3 -1"), "$3|xyz|");
        assert_eq!(bench.run("SETRANGE a 20000 q"), ":20001|");
        assert_eq!(bench.run("STRLEN a"), ":20001|");
    }

    #[test]
    fn ranges_are_cut_to_what_is_there() {
        let range = |start, end, len| range_within(start, end, len);
        assert_eq!(range(0, -1, 5), 0..5);
        assert_eq!(range(-3, -2, 5), 2..4);
        assert_eq!(range(-2, -3, 5), 0..0);
        assert_eq!(range(3, 100, 5), 3..5);
        assert_eq!(range(-100, 0, 5), 0..1);
        assert_eq!(range(5, 6, 5), 0..0);
        assert_eq!(range(0, 0, 0), 0..0);
        assert_eq!(range(i64::MIN, i64::MAX, 3), 0..3);
    }
}

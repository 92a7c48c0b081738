//! Sets: members added, removed, moved, drawn and asked for; sets intersected, united, subtracted.
//!
//! What must stay true: a set that has lost its last member is removed; chance never reaches the log, which gets
//! the members that were drawn.

use std::cmp::Reverse;

use fastrand::Rng;

use crate::command::args::Args;
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::scan::scan_value;
use crate::command::table::Command;
use crate::keyspace::change::{Class, Effect};
use crate::keyspace::db::{Db, Key};
use crate::keyspace::entry::{Entry, Value};
use crate::resp::reply::Output;
use crate::spec::{Access, Arity, Flag, Group, Keys};
use crate::stdx::number::parse_i64;
use crate::types::listpack::Item;
use crate::types::set::{Limits, Probe, Set};
use crate::types::{Object, ObjectRef};

/// This family's commands.
pub const COMMANDS: &[Command] = &[
    SADD,
    SCARD,
    SDIFF,
    SDIFFSTORE,
    SINTER,
    SINTERCARD,
    SINTERSTORE,
    SISMEMBER,
    SMEMBERS,
    SMISMEMBER,
    SMOVE,
    SPOP,
    SRANDMEMBER,
    SREM,
    SSCAN,
    SUNION,
    SUNIONSTORE,
];

/// The most members that SRANDMEMBER draws where one may come several times: nothing but memory would end the reply.
const DRAWS_MAX: u64 = 1 << 26;
/// SPOP removes so many members with one SREM in the log.
const LOGGED_TOGETHER: usize = 1024;
/// SPOP makes a new set of what remains, where that is so many times less than what goes.
const FEW_REMAIN: usize = 5;

/// What most declarations of this file have in common.
const SET: Command = Command {
    name: "",
    since: "1.0.0",
    group: Group::Set,
    arity: Arity::AtLeast(2),
    flags: &[Flag::ReadOnly],
    categories: &[],
    keys: &[Keys::Range { first: 1, last: -1, step: 1, access: Access::READ }],
    usage: "key...",
    summary: "",
    complexity: "O(N) where N is the total number of elements in all given sets.",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: scard,
};

fn set(entry: &Entry) -> Result<&Set, Error> {
    match entry.value() {
        Value::Object(ObjectRef::Set(set)) => Ok(set),
        _ => Err(Error::WrongType),
    }
}

fn set_mut(entry: &mut Entry) -> Result<&mut Set, Error> {
    match entry.object_mut() {
        Some(Object::Set(set)) => Ok(set),
        _ => Err(Error::WrongType),
    }
}

fn limits(ctx: &Context<'_>) -> Limits {
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Limits {
        intset_entries: size(ctx.config.set_max_intset_entries),
        listpack_entries: size(ctx.config.set_max_listpack_entries),
        listpack_value: size(ctx.config.set_max_listpack_value),
    }
}

fn write_item(out: &mut Output, item: Item<'_>) {
    match item {
        Item::Int(n) => out.bulk_integer(n),
        Item::Bytes(bytes) => out.bulk(bytes),
    }
}

fn write_set(out: &mut Output, set: &Set) {
    out.set(set.len());
    set.iter().for_each(|item| write_item(out, item));
}

/// Removes a set that has no members left.
fn remove_if_empty(ctx: &mut Context<'_>, key: &Key<'_>) {
    if ctx.db.look(key).is_some_and(|entry| set(entry).is_ok_and(Set::is_empty)) {
        ctx.db.remove(key);
        ctx.db.notify(key, Class::Generic, "del");
    }
}

/// Adds members; replies how many were missing.
pub const SADD: Command = Command {
    name: "SADD",
    arity: Arity::AtLeast(3),
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::INSERT }],
    usage: "key member...",
    summary: "Adds one or more members to a set. Creates the key if it doesn't exist.",
    complexity: "O(1) for each element added, so O(N) to add N elements when the command is called with multiple arguments.",
    history: &[("2.4.0", "Accepts multiple `member` arguments.")],
    run: sadd,
    ..SET
};

fn sadd(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let added = add_all(ctx, &key, args.from(2))?;
    if added > 0 {
        ctx.db.note(&key, Class::Set, "sadd");
        ctx.db.effects.dirty += added as u64 - 1;
    }
    ctx.out.integer(added as i64);
    DONE
}

/// Adds members to a set, which is created where it is missing; returns how many were missing.
fn add_all<'a>(
    ctx: &mut Context<'_>,
    key: &Key<'_>,
    members: impl ExactSizeIterator<Item = &'a [u8]>,
) -> Result<usize, Error> {
    let limits = limits(ctx);
    let count = members.len();
    let mut members = members.map(Probe::new).peekable();
    let add = |set: &mut Set, members: &mut dyn Iterator<Item = Probe<'a>>| {
        members.filter(|member| set.add(member, &limits)).count()
    };
    let found = ctx.db.update(key, |entry| {
        let set = set_mut(entry)?;
        set.make_room(count, &limits);
        Ok(add(set, &mut members))
    });
    if let Some(added) = found {
        return added;
    }
    let Some(first) = members.peek() else { return Ok(0) };
    let mut set = Set::expecting(first, count, &limits);
    let added = add(&mut set, &mut members);
    ctx.db.put(key, Object::Set(set));
    Ok(added)
}

/// Removes members; replies how many there were.
pub const SREM: Command = Command {
    name: "SREM",
    arity: Arity::AtLeast(3),
    flags: &[Flag::Write, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::DELETE }],
    usage: "key member...",
    summary: "Removes one or more members from a set. Deletes the set if the last member was removed.",
    complexity: "O(N) where N is the number of members to be removed.",
    history: &[("2.4.0", "Accepts multiple `member` arguments.")],
    run: srem,
    ..SET
};

fn srem(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let removed = ctx.db.update(&key, |entry| {
        let set = set_mut(entry)?;
        Ok::<_, Error>(args.from(2).filter(|member| set.remove(&Probe::new(member))).count())
    });
    let removed = removed.transpose()?.unwrap_or(0);
    if removed > 0 {
        ctx.db.note(&key, Class::Set, "srem");
        ctx.db.effects.dirty += removed as u64 - 1;
        remove_if_empty(ctx, &key);
    }
    ctx.out.integer(removed as i64);
    DONE
}

/// Whether a member is there.
pub const SISMEMBER: Command = Command {
    name: "SISMEMBER",
    arity: Arity::Exactly(3),
    flags: &[Flag::ReadOnly, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::META }],
    usage: "key member",
    summary: "Determines whether a member belongs to a set.",
    complexity: "O(1)",
    run: sismember,
    ..SET
};

fn sismember(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let set = ctx.db.read(&key).map(set).transpose()?;
    ctx.out.integer(set.is_some_and(|set| set.contains(&Probe::new(args.at(2)))).into());
    DONE
}

/// Whether each of some members is there.
pub const SMISMEMBER: Command = Command {
    name: "SMISMEMBER",
    since: "6.2.0",
    arity: Arity::AtLeast(3),
    keys: &[Keys::At { first: 1, access: Access::READ }],
    usage: "key member...",
    summary: "Determines whether multiple members belong to a set.",
    complexity: "O(N) where N is the number of elements being checked for membership",
    run: smismember,
    ..SISMEMBER
};

fn smismember(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let set = ctx.db.read(&key).map(set).transpose()?;
    ctx.out.array(args.len() - 2);
    for member in args.from(2) {
        ctx.out.integer(set.is_some_and(|set| set.contains(&Probe::new(member))).into());
    }
    DONE
}

/// The number of members.
pub const SCARD: Command = Command {
    name: "SCARD",
    arity: Arity::Exactly(2),
    usage: "key",
    summary: "Returns the number of members in a set.",
    run: scard,
    ..SISMEMBER
};

fn scard(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let len = ctx.db.read(&key).map(set).transpose()?.map_or(0, Set::len);
    ctx.out.integer(len as i64);
    DONE
}

/// All members.
pub const SMEMBERS: Command = Command {
    name: "SMEMBERS",
    arity: Arity::Exactly(2),
    keys: &[Keys::At { first: 1, access: Access::READ }],
    usage: "key",
    summary: "Returns all members of a set.",
    complexity: "O(N) where N is the set cardinality.",
    tips: &["nondeterministic_output_order"],
    run: smembers,
    ..SET
};

fn smembers(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    match ctx.db.read(&key).map(set).transpose()? {
        Some(set) => write_set(ctx.out, set),
        None => ctx.out.set(0),
    }
    DONE
}

/// Moves a member from one set to another; replies whether it was in the first.
pub const SMOVE: Command = Command {
    name: "SMOVE",
    arity: Arity::Exactly(4),
    flags: &[Flag::Write, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::TAKE }, Keys::At { first: 2, access: Access::INSERT }],
    usage: "source:key destination:key member",
    summary: "Moves a member from one set to another.",
    complexity: "O(1)",
    run: smove,
    ..SET
};

fn smove(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let (from, to) = (args.key(&ctx.db, 1), args.key(&ctx.db, 2));
    let member = Probe::new(args.at(3));
    // Whether the other key holds a set matters only where this one does.
    let Some(there) = ctx.db.look(&from).map(|entry| set(entry).map(|set| set.contains(&member))).transpose()? else {
        ctx.out.integer(0);
        return DONE;
    };
    ctx.db.look(&to).map(set).transpose()?;
    if there && from.bytes != to.bytes {
        ctx.db.update(&from, |entry| set_mut(entry).map(|set| set.remove(&member)));
        ctx.db.note(&from, Class::Set, "srem");
        remove_if_empty(ctx, &from);
        if add_all(ctx, &to, std::iter::once(args.at(3)))? > 0 {
            ctx.db.note(&to, Class::Set, "sadd");
        }
    }
    ctx.out.integer(there.into());
    DONE
}

/// Removes a random member, or some; replies with them.
pub const SPOP: Command = Command {
    name: "SPOP",
    flags: &[Flag::Write, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::TAKE }],
    usage: "key [count]@3.2.0",
    summary: "Returns one or more random members from a set after removing them. Deletes the set if the last member was popped.",
    complexity: "Without the count argument O(1), otherwise O(N) where N is the value of the passed count.",
    tips: &["nondeterministic_output"],
    history: &[("3.2.0", "Added the `count` argument.")],
    run: spop,
    ..SET
};

fn spop(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    match args.len() {
        2 => {}
        3 => {
            let count = parse_i64(args.at(2)).and_then(|n| usize::try_from(n).ok()).ok_or(Error::NotPositive)?;
            return pop_some(ctx, &key, count);
        }
        _ => return Err(Error::Syntax),
    }
    let popped = ctx.db.update(&key, |entry| Ok::<_, Error>(set_mut(entry)?.pop(&mut Rng::new()))).transpose()?;
    let Some(member) = popped.flatten() else {
        ctx.out.null();
        return DONE;
    };
    ctx.db.note(&key, Class::Set, "spop");
    ctx.out.bulk(&member);
    ctx.db.effects.log_as(|| removals(key.bytes, vec![member]));
    remove_if_empty(ctx, &key);
    DONE
}

/// Removes `count` random members and writes them.
fn pop_some(ctx: &mut Context<'_>, key: &Key<'_>, count: usize) -> Reply {
    let len = ctx.db.look(key).map(set).transpose()?.map_or(0, Set::len);
    let count = count.min(len);
    if count == 0 {
        ctx.out.set(0);
        return DONE;
    }
    let limits = limits(ctx);
    if count == len {
        if let Some(Ok(set)) = ctx.db.look(key).map(set) {
            write_set(ctx.out, set);
        }
        ctx.db.remove(key);
        ctx.db.note(key, Class::Set, "spop");
        ctx.db.notify(key, Class::Generic, "del");
        ctx.db.effects.log_removal(key.bytes, ctx.config.lazyfree_lazy_server_del);
    } else {
        let mut popped = Vec::new();
        let mut old = None;
        ctx.db.update(key, |entry| {
            let set = set_mut(entry)?;
            if len - count <= count / FEW_REMAIN {
                old = Some(keep_some(set, len - count, &limits, &mut popped));
            } else {
                let mut rng = Rng::new();
                popped.extend((0..count).map_while(|_| set.pop(&mut rng)));
            }
            Ok::<_, Error>(())
        });
        if let Some(old) = old {
            ctx.db.keyspace().free_object(Box::new(Object::Set(old)));
        }
        ctx.out.set(popped.len());
        popped.iter().for_each(|member| ctx.out.bulk(member));
        ctx.db.note(key, Class::Set, "spop");
        ctx.db.effects.log_as(|| removals(key.bytes, popped));
    }
    ctx.db.effects.dirty += count as u64 - 1;
    DONE
}

/// Replaces a set by `count` random members of it; the others are added to `gone`. Returns the old set.
fn keep_some(set: &mut Set, count: usize, limits: &Limits, gone: &mut Vec<Vec<u8>>) -> Set {
    let mut kept = if set.as_intset().is_some() { Set::default() } else { Set::listpack() };
    set.sample(count, &mut Rng::new(), |item| {
        kept.add(&Probe::of(item, &mut itoa::Buffer::new()), limits);
    });
    for item in set.iter() {
        if !kept.contains(&Probe::of(item, &mut itoa::Buffer::new())) {
            gone.push(item.to_vec());
        }
    }
    std::mem::replace(set, kept)
}

/// What the log gets of members that chance has removed.
fn removals(key: &[u8], members: Vec<Vec<u8>>) -> Vec<Effect> {
    let mut effects: Vec<Effect> = Vec::new();
    for member in members {
        match effects.last_mut() {
            Some(last) if last.len() < LOGGED_TOGETHER + 2 => last.push(member),
            _ => effects.push(vec![b"SREM".to_vec(), key.to_vec(), member]),
        }
    }
    effects
}

/// A random member, or some: different ones for a positive count, each drawn from all for a negative one.
pub const SRANDMEMBER: Command = Command {
    name: "SRANDMEMBER",
    keys: &[Keys::At { first: 1, access: Access::READ }],
    usage: "key [count]@2.6.0",
    summary: "Get one or multiple random members from a set",
    complexity: "Without the count argument O(1), otherwise O(N) where N is the absolute value of the passed count.",
    tips: &["nondeterministic_output"],
    history: &[("2.6.0", "Added the optional `count` argument.")],
    run: srandmember,
    ..SET
};

fn srandmember(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let count = match args.len() {
        2 => None,
        3 => Some(args.integer(2)?),
        _ => return Err(Error::Syntax),
    };
    if count == Some(i64::MIN) {
        return Err(Error::text(format!(
            "ERR value is out of range, value must between {} and {}",
            -i64::MAX,
            i64::MAX
        )));
    }
    let key = args.key(&ctx.db, 1);
    let found = ctx.db.read(&key).map(set).transpose()?;
    let mut rng = Rng::new();
    match (found, count) {
        (Some(set), None) => match set.random(&mut rng) {
            Some(item) => write_item(ctx.out, item),
            None => ctx.out.null(),
        },
        (None, None) => ctx.out.null(),
        (None, Some(_)) => ctx.out.array(0),
        (Some(set), Some(count)) if count < 0 => {
            let draws = count.unsigned_abs();
            if draws > DRAWS_MAX {
                return Err(Error::OutOfRange);
            }
            ctx.out.array(draws as usize);
            for _ in 0..draws {
                let item = set.random(&mut rng).expect("a set that a key holds is not empty");
                write_item(ctx.out, item);
            }
        }
        (Some(set), Some(count)) => {
            let count = usize::try_from(count).unwrap_or(usize::MAX).min(set.len());
            ctx.out.array(count);
            set.sample(count, &mut rng, |item| write_item(ctx.out, item));
        }
    }
    DONE
}

/// Replies with some members, and a cursor from which to go on.
pub const SSCAN: Command = Command {
    name: "SSCAN",
    since: "2.8.0",
    arity: Arity::AtLeast(3),
    keys: &[Keys::At { first: 1, access: Access::READ }],
    usage: "key cursor [MATCH pattern] [COUNT count]",
    summary: "Iterates over members of a set.",
    complexity: "O(1) for every call. O(N) for a complete iteration, including enough command calls for the cursor to return back to 0. N is the number of elements inside the collection.",
    tips: &["nondeterministic_output"],
    run: sscan,
    ..SET
};

fn sscan(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    scan_value(ctx, args, set, |set, cursor, count, found| {
        set.scan(cursor, count, |item| found.add_if_matching(item.text(&mut itoa::Buffer::new())))
    })
}

/// The members that all sets have.
pub const SINTER: Command = Command {
    name: "SINTER",
    summary: "Returns the intersect of multiple sets.",
    complexity: "O(N*M) worst case where N is the cardinality of the smallest set and M is the number of sets.",
    tips: &["nondeterministic_output_order"],
    run: |ctx, args| {
        let keys = keys(ctx, args, 1..args.len())?;
        let deferred = ctx.out.defer();
        let mut count = 0;
        intersect(sets(&ctx.db, &keys), |item| {
            write_item(ctx.out, item);
            count += 1;
            true
        });
        ctx.out.finish_set(deferred, count);
        DONE
    },
    ..SET
};

/// The members that any set has.
pub const SUNION: Command = Command {
    name: "SUNION",
    summary: "Returns the union of multiple sets.",
    tips: &["nondeterministic_output_order"],
    run: |ctx, args| {
        let limits = limits(ctx);
        let keys = keys(ctx, args, 1..args.len())?;
        let union = unite(&sets(&ctx.db, &keys), &limits);
        write_set(ctx.out, &union);
        DONE
    },
    ..SET
};

/// The members of the first set that no other has.
pub const SDIFF: Command = Command {
    name: "SDIFF",
    summary: "Returns the difference of multiple sets.",
    tips: &["nondeterministic_output_order"],
    run: |ctx, args| {
        let limits = limits(ctx);
        let keys = keys(ctx, args, 1..args.len())?;
        let rest = subtract(&sets(&ctx.db, &keys), &limits);
        write_set(ctx.out, &rest);
        DONE
    },
    ..SET
};

/// What most declarations of commands that store a set have in common.
const STORE: Command = Command {
    arity: Arity::AtLeast(3),
    flags: &[Flag::Write, Flag::DenyOom],
    keys: &[
        Keys::At { first: 1, access: Access::OVERWRITE },
        Keys::Range { first: 2, last: -1, step: 1, access: Access::READ },
    ],
    usage: "destination:key key...",
    ..SET
};

/// Stores the members that all sets have; replies how many.
pub const SINTERSTORE: Command = Command {
    name: "SINTERSTORE",
    keys: &[
        Keys::At { first: 1, access: Access::UPDATE },
        Keys::Range { first: 2, last: -1, step: 1, access: Access::READ },
    ],
    summary: "Stores the intersect of multiple sets in a key.",
    complexity: SINTER.complexity,
    run: |ctx, args| {
        let limits = limits(ctx);
        let keys = keys(ctx, args, 2..args.len())?;
        let common = intersection(sets(&ctx.db, &keys), &limits);
        store(ctx, &args.key(&ctx.db, 1), common, "sinterstore")
    },
    ..STORE
};

/// Stores the members that any set has; replies how many.
pub const SUNIONSTORE: Command = Command {
    name: "SUNIONSTORE",
    summary: "Stores the union of multiple sets in a key.",
    run: |ctx, args| {
        let limits = limits(ctx);
        let keys = keys(ctx, args, 2..args.len())?;
        let union = unite(&sets(&ctx.db, &keys), &limits);
        store(ctx, &args.key(&ctx.db, 1), union, "sunionstore")
    },
    ..STORE
};

/// Stores the members of the first set that no other has; replies how many.
pub const SDIFFSTORE: Command = Command {
    name: "SDIFFSTORE",
    summary: "Stores the difference of multiple sets in a key.",
    run: |ctx, args| {
        let limits = limits(ctx);
        let keys = keys(ctx, args, 2..args.len())?;
        let rest = subtract(&sets(&ctx.db, &keys), &limits);
        store(ctx, &args.key(&ctx.db, 1), rest, "sdiffstore")
    },
    ..STORE
};

/// How many members all sets have, counted up to a limit.
pub const SINTERCARD: Command = Command {
    name: "SINTERCARD",
    since: "7.0.0",
    arity: Arity::AtLeast(3),
    flags: &[Flag::ReadOnly, Flag::MovableKeys],
    keys: &[Keys::Counted { count: 1, first: 2, step: 1, access: Access::READ }],
    usage: "numkeys key... [LIMIT limit:integer]",
    summary: "Returns the number of members of the intersect of multiple sets.",
    complexity: SINTER.complexity,
    run: sintercard,
    ..SET
};

fn sintercard(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let count = parse_i64(args.at(1)).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let count = count.ok_or(Error::text("ERR numkeys should be greater than 0"))?;
    if count > args.len() - 2 {
        return Err(Error::text("ERR Number of keys can't be greater than number of args"));
    }
    let (mut i, mut limit) = (2 + count, 0);
    while i < args.len() {
        let value = args.opt(i + 1).filter(|_| args.is(i, "LIMIT")).ok_or(Error::Syntax)?;
        let value = parse_i64(value).and_then(|n| usize::try_from(n).ok());
        limit = value.ok_or(Error::text("ERR LIMIT can't be negative"))?;
        i += 2;
    }
    let keys = keys(ctx, args, 2..2 + count)?;
    let mut found = 0;
    intersect(sets(&ctx.db, &keys), |_| {
        found += 1;
        found != limit
    });
    ctx.out.integer(found as i64);
    DONE
}

/// The keys at these places, each looked up: those that exist hold sets.
fn keys<'a>(ctx: &mut Context<'_>, args: &Args<'a>, at: std::ops::Range<usize>) -> Result<Vec<Key<'a>>, Error> {
    let mut keys = Vec::with_capacity(at.len());
    for i in at {
        let key = args.key(&ctx.db, i);
        ctx.db.read(&key).map(set).transpose()?;
        keys.push(key);
    }
    Ok(keys)
}

/// The sets that the keys hold, side by side; `None` for a key that does not exist.
fn sets<'d>(db: &'d Db<'_>, keys: &[Key<'_>]) -> Vec<Option<&'d Set>> {
    keys.iter().map(|key| db.beside(key).and_then(|entry| set(entry).ok())).collect()
}

/// Calls `f` for every member that all sets have, until it returns false. A key that does not exist is an empty set.
fn intersect<'d>(sets: Vec<Option<&'d Set>>, mut f: impl FnMut(Item<'d>) -> bool) {
    let Some(mut sets) = sets.into_iter().collect::<Option<Vec<_>>>() else { return };
    sets.sort_by_key(|set| set.len());
    let Some((smallest, others)) = sets.split_first() else { return };
    for item in smallest.iter() {
        let mut buffer = itoa::Buffer::new();
        let member = Probe::of(item, &mut buffer);
        if others.iter().all(|set| std::ptr::eq(*set, *smallest) || set.contains(&member)) && !f(item) {
            return;
        }
    }
}

/// The members that all sets have, in the encoding that Redis would give them.
fn intersection(sets: Vec<Option<&Set>>, limits: &Limits) -> Set {
    let smallest = sets.iter().flatten().min_by_key(|set| set.len());
    let mut common =
        if smallest.is_some_and(|set| set.as_intset().is_some()) { Set::default() } else { Set::listpack() };
    intersect(sets, |item| {
        common.add(&Probe::of(item, &mut itoa::Buffer::new()), limits);
        true
    });
    common.make_intset(limits);
    common
}

/// The members that any set has.
fn unite(sets: &[Option<&Set>], limits: &Limits) -> Set {
    let mut union = Set::default();
    for item in sets.iter().flatten().flat_map(|set| set.iter()) {
        union.add(&Probe::of(item, &mut itoa::Buffer::new()), limits);
    }
    union
}

/// The members of the first set that no other has.
///
/// Either each member of the first is looked for in the others, or the members of the others are removed from a copy
/// of the first: as costs less.
fn subtract(sets: &[Option<&Set>], limits: &Limits) -> Set {
    let mut rest = Set::default();
    let Some((Some(first), others)) = sets.split_first() else { return rest };
    let mut others: Vec<&Set> = others.iter().flatten().copied().collect();
    // A set without itself is empty.
    if others.iter().any(|other| std::ptr::eq(*other, *first)) {
        return rest;
    }
    // Most is found in the largest, so it is asked first. Half of all lookups are taken to find something.
    let looking = first.len() * sets.iter().flatten().count() / 2;
    let removing = first.len() + others.iter().map(|set| set.len()).sum::<usize>();
    if looking <= removing {
        others.sort_by_key(|set| Reverse(set.len()));
        for item in first.iter() {
            let mut buffer = itoa::Buffer::new();
            let member = Probe::of(item, &mut buffer);
            if !others.iter().any(|set| set.contains(&member)) {
                rest.add(&member, limits);
            }
        }
        return rest;
    }
    for item in first.iter() {
        rest.add(&Probe::of(item, &mut itoa::Buffer::new()), limits);
    }
    for item in others.iter().flat_map(|set| set.iter()) {
        if rest.is_empty() {
            break;
        }
        rest.remove(&Probe::of(item, &mut itoa::Buffer::new()));
    }
    rest
}

/// Stores a result, whatever the key held, and replies how many members it has. An empty one removes the key.
fn store(ctx: &mut Context<'_>, key: &Key<'_>, result: Set, event: &'static str) -> Reply {
    let len = result.len();
    if len > 0 {
        ctx.db.put(key, Object::Set(result));
        ctx.db.note(key, Class::Set, event);
    } else if ctx.db.remove(key) {
        ctx.db.note(key, Class::Generic, "del");
    }
    ctx.out.integer(len as i64);
    DONE
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::command::testing::Bench;

    const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value|";

    /// The bulk strings of a reply that is an array of them.
    fn bulks(reply: &str) -> BTreeSet<String> {
        let found: Vec<String> = reply
            .split('|')
            .filter(|part| !part.is_empty() && !part.starts_with(['$', '*', '~']))
            .map(str::to_owned)
            .collect();
        let all: BTreeSet<String> = found.iter().cloned().collect();
        assert_eq!(found.len(), all.len(), "twice in {reply}");
        all
    }

    fn texts(words: &str) -> BTreeSet<String> {
        words.split_whitespace().map(str::to_owned).collect()
    }

    /// A bench whose set `key` has `count` members `m0`, `m1` and so on.
    fn with_members(count: usize) -> Bench {
        let mut bench = Bench::new();
        let all: Vec<String> = (0..count).map(|n| format!("m{n}")).collect();
        for some in all.chunks(500) {
            bench.run(&format!("SADD key {}", some.join(" ")));
        }
        bench
    }

    #[test]
    fn members_are_added_asked_for_and_removed_and_the_empty_set_is_gone() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("SADD s a b a 1"), ":3|");
        assert_eq!(bench.run("SADD s a c"), ":1|");
        assert_eq!(bench.run("SCARD s"), ":4|");
        assert_eq!(bench.run("SISMEMBER s 1"), ":1|");
        assert_eq!(bench.run("SISMEMBER s 2"), ":0|");
        assert_eq!(bench.run("SMISMEMBER s a x 1"), "*3|:1|:0|:1|");
        assert_eq!(bench.run("SMISMEMBER none a"), "*1|:0|");
        assert_eq!(bulks(&bench.run("SMEMBERS s")), texts("a b c 1"));
        assert_eq!(bench.run("SREM s x a b"), ":2|");
        assert_eq!(bench.run("SREM s x"), ":0|");
        assert_eq!(bench.run("SREM s c 1"), ":2|");
        assert_eq!((bench.run("EXISTS s"), bench.run("SREM s a")), (":0|".into(), ":0|".into()));
        assert_eq!((bench.run("SMEMBERS s"), bench.run("SCARD s")), ("*0|".into(), ":0|".into()));
    }

    #[test]
    fn every_set_command_refuses_a_string() {
        let mut bench = Bench::new();
        bench.run("SET str v");
        bench.run("SADD s a");
        for request in [
            "SADD str a",
            "SREM str a",
            "SISMEMBER str a",
            "SMISMEMBER str a",
            "SCARD str",
            "SMEMBERS str",
            "SMOVE str s a",
            "SMOVE s str a",
            "SMOVE s str none",
            "SPOP str",
            "SPOP str 0",
            "SRANDMEMBER str",
            "SRANDMEMBER str 1",
            "SSCAN str 0",
            "SINTER none str",
            "SINTERCARD 2 none str",
            "SINTERSTORE d none str",
            "SUNION s str",
            "SUNIONSTORE d s str",
            "SDIFF s str",
            "SDIFFSTORE d str",
        ] {
            assert_eq!(bench.run(request), WRONG_TYPE, "{request}");
        }
        assert_eq!((bench.run("GET s"), bench.run("SMEMBERS s")), (WRONG_TYPE.into(), "*1|$1|a|".into()));
        assert_eq!(bench.run("EXISTS d"), ":0|");
        assert_eq!(bench.run("SUNIONSTORE str s"), ":1|");
    }

    #[test]
    fn a_member_moves_from_one_set_to_another() {
        let mut bench = Bench::new();
        bench.run("SADD s a b");
        assert_eq!(bench.run("SMOVE s t a"), ":1|");
        assert_eq!(bench.run("SMOVE s t a"), ":0|");
        assert_eq!(bench.run("SMOVE s s b"), ":1|");
        assert_eq!(bench.run("SMOVE s s x"), ":0|");
        assert_eq!(bench.run("SMOVE none t a"), ":0|");
        assert_eq!(bench.run("SMOVE s t b"), ":1|");
        assert_eq!((bench.run("EXISTS s"), bulks(&bench.run("SMEMBERS t"))), (":0|".into(), texts("a b")));
    }

    #[test]
    fn sets_are_intersected_united_and_subtracted() {
        let mut bench = Bench::new();
        bench.run("SADD a 1 2 3 4 x");
        bench.run("SADD b 3 4 5 x y");
        bench.run("SADD c 4 x z");
        assert_eq!(bulks(&bench.run("SINTER a b c")), texts("4 x"));
        assert_eq!(bulks(&bench.run("SINTER a a")), texts("1 2 3 4 x"));
        assert_eq!(bench.run("SINTER a none"), "*0|");
        assert_eq!(bulks(&bench.run("SUNION a none c")), texts("1 2 3 4 x z"));
        assert_eq!(bulks(&bench.run("SDIFF a b c")), texts("1 2"));
        assert_eq!(bulks(&bench.run("SDIFF a none")), texts("1 2 3 4 x"));
        assert_eq!((bench.run("SDIFF none a"), bench.run("SDIFF a b a")), ("*0|".into(), "*0|".into()));
        assert_eq!(bench.run("SINTERSTORE d a b"), ":3|");
        assert_eq!(bulks(&bench.run("SMEMBERS d")), texts("3 4 x"));
        bench.run("EXPIRE d 100");
        assert_eq!(bench.run("SDIFFSTORE d d c"), ":1|");
        assert_eq!((bench.run("SMEMBERS d"), bench.run("TTL d")), ("*1|$1|3|".into(), ":-1|".into()));
        assert_eq!(bench.run("SUNIONSTORE d none"), ":0|");
        assert_eq!(bench.run("EXISTS d"), ":0|");
        assert_eq!(bench.run("SINTERCARD 3 a b c"), ":2|");
        assert_eq!(bench.run("SINTERCARD 3 a b c LIMIT 1"), ":1|");
        assert_eq!(bench.run("SINTERCARD 2 a none LIMIT 0"), ":0|");
        for (request, error) in [
            ("SINTERCARD 0 a", "numkeys should be greater than 0"),
            ("SINTERCARD x a", "numkeys should be greater than 0"),
            ("SINTERCARD 2 a", "Number of keys can't be greater than number of args"),
            ("SINTERCARD 1 a LIMIT", "syntax error"),
            ("SINTERCARD 1 a b 1", "syntax error"),
            ("SINTERCARD 1 a LIMIT -1", "LIMIT can't be negative"),
        ] {
            assert_eq!(bench.run(request), format!("-ERR {error}|"), "{request}");
        }
    }

    #[test]
    fn both_ways_to_subtract_have_one_result() {
        let mut bench = with_members(1000);
        bench.run("SADD small m1 m2");
        for n in 0..6 {
            bench.run(&format!("SADD other{n} m{n} x{n}"));
        }
        // Few large others are looked into; many small ones are removed from a copy.
        assert_eq!(bulks(&bench.run("SDIFF small key")), texts(""));
        assert_eq!(bench.run("SDIFFSTORE d key other0 other1 other2 other3 other4 other5"), ":994|");
        assert_eq!(bench.run("SMISMEMBER d m5 m6"), "*2|:0|:1|");
    }

    #[test]
    fn spop_removes_what_it_replies_with() {
        for (count, popped) in [(1, 1), (300, 300), (990, 990), (1000, 1000), (2000, 1000)] {
            let mut bench = with_members(1000);
            let gone = bulks(&bench.run(&format!("SPOP key {count}")));
            let left = bulks(&bench.run("SMEMBERS key"));
            assert_eq!((gone.len(), left.len()), (popped, 1000 - popped));
            assert!(gone.is_disjoint(&left));
            assert_eq!(bench.run("EXISTS key"), if popped == 1000 { ":0|" } else { ":1|" });
        }
        let mut bench = Bench::new();
        bench.run("SADD s a");
        assert_eq!((bench.run("SPOP s 0"), bench.run("SPOP s")), ("*0|".into(), "$1|a|".into()));
        assert_eq!((bench.run("EXISTS s"), bench.run("SPOP s")), (":0|".into(), "$-1|".into()));
        assert_eq!(bench.run("SPOP s 3"), "*0|");
        assert_eq!(bench.run("SPOP s -1"), "-ERR value is out of range, must be positive|");
        assert_eq!(bench.run("SPOP s 1 2"), "-ERR syntax error|");
    }

    #[test]
    fn srandmember_draws_some_or_some_again_and_again() {
        for size in [5, 1000] {
            let mut bench = with_members(size);
            assert_eq!(bulks(&bench.run("SRANDMEMBER key 3")).len(), 3);
            assert_eq!(bulks(&bench.run("SRANDMEMBER key 5000")).len(), size);
            assert!(bench.run("SRANDMEMBER key -5000").starts_with("*5000|"));
            assert!(bench.run("SRANDMEMBER key").contains("|m"));
            assert_eq!(bench.run("SCARD key"), format!(":{size}|"));
        }
        let mut bench = with_members(5);
        assert_eq!((bench.run("SRANDMEMBER none"), bench.run("SRANDMEMBER none 2")), ("$-1|".into(), "*0|".into()));
        assert_eq!(bench.run("SRANDMEMBER key x"), "-ERR value is not an integer or out of range|");
        assert_eq!(bench.run("SRANDMEMBER key -9223372036854775807"), "-ERR value is out of range|");
        assert!(
            bench.run("SRANDMEMBER key -9223372036854775808").starts_with("-ERR value is out of range, value must")
        );
    }

    #[test]
    fn a_scan_returns_all_members_and_those_that_match() {
        let mut bench = with_members(1000);
        let (mut seen, mut cursor) = (BTreeSet::new(), "0".to_owned());
        loop {
            let reply = bench.run(&format!("SSCAN key {cursor} COUNT 30"));
            let mut parts = reply.splitn(4, '|');
            cursor = parts.nth(2).unwrap().to_owned();
            let some = bulks(parts.next().unwrap());
            assert!(some.len() <= 40);
            for member in some {
                assert!(seen.insert(member), "no member twice");
            }
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(seen.len(), 1000);
        bench.run("SADD i 1 2 31");
        assert_eq!(bench.run("SSCAN i 0 MATCH 3* COUNT 1"), "*2|$1|0|*1|$2|31|");
        assert_eq!(bench.run("SSCAN none 0 NONSENSE"), "*2|$1|0|*0|");
        assert_eq!(bench.run("SSCAN i x"), "-ERR invalid cursor|");
        assert_eq!(bench.run("SSCAN i 0 COUNT 0"), "-ERR syntax error|");
        assert_eq!(bench.run("SSCAN i 0 TYPE set"), "-ERR syntax error|");
    }

    #[test]
    fn the_encoding_follows_content_and_limits() {
        let mut bench = Bench::with("set-max-intset-entries 3\nset-max-listpack-entries 4\nset-max-listpack-value 5\n");
        for (request, encoding) in [
            ("SADD s 1 2 3", "$6|intset|"),
            ("SADD s a", "$8|listpack|"),
            ("SADD s abcdef", "$9|hashtable|"),
            ("SREM s abcdef a", "$9|hashtable|"),
            ("SINTERSTORE s s s", "$6|intset|"),
            ("SADD s 4", "$9|hashtable|"),
            ("SUNIONSTORE s s", "$9|hashtable|"),
            ("SPOP s 4", "$-1|"),
            ("SADD s 1 2 3 4", "$8|listpack|"),
        ] {
            bench.run(request);
            assert_eq!(bench.run("OBJECT ENCODING s"), encoding, "{request}");
        }
        // More than a listpack may have on the way, and no more than an intset may have in the end.
        let mut wide = Bench::with("set-max-intset-entries 9\nset-max-listpack-entries 4\n");
        wide.run("SADD a 1 2 3 4 5 6 x");
        wide.run("SADD b 1 2 3 4 5 6 y");
        assert_eq!(wide.run("SINTERSTORE c a b"), ":6|");
        assert_eq!(
            (wide.run("OBJECT ENCODING a"), wide.run("OBJECT ENCODING c")),
            ("$9|hashtable|".into(), "$6|intset|".into())
        );
        assert_eq!((bench.run("TYPE s"), bench.run("COPY s t")), ("+set|".into(), ":1|".into()));
        bench.run("SREM t 1");
        assert_eq!((bench.run("SCARD s"), bench.run("SCARD t")), (":4|".into(), ":3|".into()));
    }

    #[test]
    fn the_log_gets_members_instead_of_chance() {
        let logged = |size: usize, request: &str| {
            let log = with_members(size).logged(request);
            log.iter().map(|command| format!("{} {}", command[0], command.len())).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(logged(3, "SPOP key"), "SREM 3");
        assert_eq!(logged(1, "SPOP key"), "SREM 3");
        assert_eq!(logged(3, "SPOP key 2"), "SREM 4");
        assert_eq!(logged(3, "SPOP key 3"), "DEL 2");
        assert_eq!(logged(3000, "SPOP key 1500"), "MULTI 1, SREM 1026, SREM 478, EXEC 1");
        assert_eq!(logged(3, "SPOP key 0"), "");
        assert_eq!(logged(3, "SADD key m1"), "");
        assert_eq!(with_members(2).logged("SADD key x m1"), [["SADD", "key", "x", "m1"]]);
        assert_eq!(with_members(2).logged("SDIFFSTORE key key key"), [["SDIFFSTORE", "key", "key", "key"]]);
    }
}

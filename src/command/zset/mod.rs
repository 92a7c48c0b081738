//! Sorted sets: members added, scored, removed and looked up by name; in folders of their own stories what
//! goes by [`range`], [`pop`]s, [`wait`]s to pop, [`combine`]s several, or [`walk`]s.
//!
//! What must stay true: a sorted set that has lost its last member is removed; no score is NaN.

pub mod combine;
pub mod pop;
pub mod range;
pub mod wait;
pub mod walk;

use smallvec::SmallVec;

use crate::command::args::{Args, word};
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::table::Command;
use crate::keyspace::change::Class;
use crate::keyspace::db::{Db, Key};
use crate::keyspace::entry::{Entry, Value};
use crate::resp::reply::{Output, Protocol};
use crate::spec::{Access, Arity, Flag, Group, Keys};
use crate::stdx::number::parse_f64;
use crate::types::listpack::Item;
use crate::types::zset::view::ZSetRef;
use crate::types::zset::{Limits, ZSet};
use crate::types::{Object, ObjectRef};

/// This file's commands.
pub const COMMANDS: &[Command] = &[ZADD, ZCARD, ZINCRBY, ZMSCORE, ZRANK, ZREM, ZREVRANK, ZSCORE];

/// What most declarations of this family have in common.
pub(crate) const SORTED_SET: Command = Command {
    name: "",
    since: "1.2.0",
    group: Group::SortedSet,
    arity: Arity::Exactly(3),
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    keys: &[Keys::At { first: 1, access: Access::READ }],
    usage: "key member",
    summary: "",
    complexity: "O(1)",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: zscore,
};

/// The sorted set in an entry.
pub(crate) fn zset(entry: &Entry) -> Result<ZSetRef<'_>, Error> {
    match entry.value() {
        Value::Object(ObjectRef::SortedSet(zset)) => Ok(zset),
        _ => Err(Error::WrongType),
    }
}

/// Calls `change` with the sorted set in an entry.
fn edit<R>(entry: &mut Entry, change: impl FnOnce(&mut ZSet) -> R) -> Result<R, Error> {
    let changed = entry.edit(|object| match object {
        Object::SortedSet(zset) => Some(change(zset)),
        _ => None,
    });
    changed.flatten().ok_or(Error::WrongType)
}

/// What a listpack may hold.
pub(crate) fn limits(ctx: &Context<'_>) -> Limits {
    let of = |setting: u64| usize::try_from(setting).unwrap_or(usize::MAX);
    Limits { entries: of(ctx.config.zset_max_listpack_entries), bytes: of(ctx.config.zset_max_listpack_value) }
}

/// Writes a member.
pub(crate) fn write_member(out: &mut Output, member: Item<'_>) {
    match member {
        Item::Int(n) => out.bulk_integer(n),
        Item::Bytes(bytes) => out.bulk(bytes),
    }
}

/// Whether a reply tells scores, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scores {
    /// Members alone.
    Without,
    /// Members and scores by turns.
    Flat,
    /// An array of two for each member.
    Pairs,
}

impl Scores {
    /// Where WITHSCORES was asked for or not: RESP3 has pairs.
    pub(crate) fn asked(with: bool, out: &Output) -> Scores {
        match with {
            true if out.protocol() == Protocol::Resp3 => Scores::Pairs,
            true => Scores::Flat,
            false => Scores::Without,
        }
    }

    /// Begins a reply of so many members.
    pub(crate) fn begin(self, out: &mut Output, members: usize) {
        out.array(if self == Scores::Flat { 2 * members } else { members });
    }

    /// Writes one of them.
    pub(crate) fn write(self, out: &mut Output, (member, score): (Item<'_>, f64)) {
        if self == Scores::Pairs {
            out.array(2);
        }
        write_member(out, member);
        if self != Scores::Without {
            out.double(score);
        }
    }
}

/// Stores a sorted set, in place of whatever was there; an empty one only removes that. Notes either.
pub(crate) fn store(ctx: &mut Context<'_>, key: &Key<'_>, zset: ZSet, event: &'static str) {
    if !zset.is_empty() {
        ctx.db.put(key, Object::SortedSet(zset));
        ctx.db.note(key, Class::SortedSet, event);
    } else if ctx.db.remove(key) {
        ctx.db.note(key, Class::Generic, "del");
    }
}

/// Adds a sorted set under a key that does not exist.
fn insert(ctx: &mut Context<'_>, key: &Key<'_>, zset: ZSet) {
    let clock = ctx.db.moment().initial_clock();
    ctx.db.insert(key, Entry::with_object(key.hash.bits(), key.bytes, Object::SortedSet(zset), None, clock));
}

/// Removes members with `remove`, which returns how many; then the key, where none are left.
pub(crate) fn remove_with(
    db: &mut Db<'_>,
    key: &Key<'_>,
    event: &'static str,
    remove: impl FnOnce(&mut ZSet) -> usize,
) -> Result<usize, Error> {
    let changed = db.update(key, |entry| edit(entry, |zset| (remove(zset), zset.is_empty())));
    let (removed, empty) = changed.transpose()?.unwrap_or_default();
    if removed > 0 {
        db.note(key, Class::SortedSet, event);
        db.effects.dirty += removed as u64 - 1;
        if empty {
            db.remove(key);
            db.notify(key, Class::Generic, "del");
        }
    }
    Ok(removed)
}

/// Adds members or changes their scores; replies how many were added (CH: or changed; INCR: the new score).
pub const ZADD: Command = Command {
    name: "ZADD",
    arity: Arity::AtLeast(4),
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::UPDATE }],
    usage: "key [condition(NX | XX)]@3.0.2 [comparison(GT | LT)]@6.2.0 [change=CH]@3.0.2 [increment=INCR]@3.0.2 data{score:double member}...",
    summary: "Adds one or more members to a sorted set, or updates their scores. Creates the key if it doesn't exist.",
    complexity: "O(log(N)) for each item added, where N is the number of elements in the sorted set.",
    history: &[
        ("2.4.0", "Accepts multiple elements."),
        ("3.0.2", "Added the `XX`, `NX`, `CH` and `INCR` options."),
        ("6.2.0", "Added the `GT` and `LT` options."),
    ],
    run: zadd,
    ..SORTED_SET
};

/// Adds to a member's score, which is 0 where there is none; replies with the sum.
pub const ZINCRBY: Command = Command {
    name: "ZINCRBY",
    arity: Arity::Exactly(4),
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::READ_UPDATE }],
    usage: "key increment:integer member",
    summary: "Increments the score of a member in a sorted set.",
    complexity: "O(log(N)) where N is the number of elements in the sorted set.",
    run: zincrby,
    ..SORTED_SET
};

/// Which members ZADD touches, and what their scores become.
#[derive(Clone, Copy, Default)]
struct Rule {
    /// NX: none that are there.
    only_new: bool,
    /// XX: none that are not there.
    only_old: bool,
    /// GT: no score becomes lower.
    only_higher: bool,
    /// LT: no score becomes higher.
    only_lower: bool,
    /// INCR: the number is added to the score.
    add: bool,
}

/// What became of a member.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Added,
    Changed,
    /// It has that score already.
    Same,
    /// The rule forbids it.
    Left,
    /// The sum is none.
    NotANumber,
}

impl Rule {
    /// What becomes of a member with score `old` that is given `number`, and its score then.
    fn apply(self, old: Option<f64>, number: f64) -> (Fate, f64) {
        let Some(old) = old else {
            return if self.only_old { (Fate::Left, number) } else { (Fate::Added, number) };
        };
        if self.only_new {
            return (Fate::Left, old);
        }
        let score = if self.add { old + number } else { number };
        if score.is_nan() {
            (Fate::NotANumber, old)
        } else if self.only_higher && score <= old || self.only_lower && score >= old {
            (Fate::Left, old)
        } else if score == old {
            (Fate::Same, score)
        } else {
            (Fate::Changed, score)
        }
    }

    /// The options of ZADD from argument 2 on; also whether CH is among them and where they end.
    fn parse(args: &Args<'_>) -> (Rule, bool, usize) {
        let (mut rule, mut count_changed, mut i) = (Rule::default(), false, 2);
        while let Some(option) = args.opt(i).and_then(|arg| word(arg, &["NX", "XX", "GT", "LT", "CH", "INCR"])) {
            match option {
                "NX" => rule.only_new = true,
                "XX" => rule.only_old = true,
                "GT" => rule.only_higher = true,
                "LT" => rule.only_lower = true,
                "CH" => count_changed = true,
                _ => rule.add = true,
            }
            i += 1;
        }
        (rule, count_changed, i)
    }
}

fn zadd(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let (rule, count_changed, first) = Rule::parse(args);
    let rest = args.len() - first;
    if rest == 0 || !rest.is_multiple_of(2) {
        return Err(Error::Syntax);
    }
    if rule.only_new && rule.only_old {
        return Err(Error::text("ERR XX and NX options at the same time are not compatible"));
    }
    if usize::from(rule.only_new) + usize::from(rule.only_higher) + usize::from(rule.only_lower) > 1 {
        return Err(Error::text("ERR GT, LT, and/or NX options at the same time are not compatible"));
    }
    if rule.add && rest > 2 {
        return Err(Error::text("ERR INCR option supports a single increment-element pair"));
    }
    let mut numbers: SmallVec<[f64; 8]> = SmallVec::new();
    for i in (first..args.len()).step_by(2) {
        numbers.push(parse_f64(args.at(i)).ok_or(Error::NotFloat)?);
    }
    let members = numbers.iter().enumerate().map(|(i, number)| (*number, args.at(first + 2 * i + 1)));
    let done = add(ctx, &args.key(&ctx.db, 1), rule, members)?;
    match done.last {
        Some(score) if rule.add => ctx.out.double(score),
        None if rule.add => ctx.out.null(),
        _ => ctx.out.integer((done.added + if count_changed { done.changed } else { 0 }) as i64),
    }
    DONE
}

fn zincrby(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let number = parse_f64(args.at(2)).ok_or(Error::NotFloat)?;
    let rule = Rule { add: true, ..Rule::default() };
    let done = add(ctx, &args.key(&ctx.db, 1), rule, std::iter::once((number, args.at(3))))?;
    ctx.out.double(done.last.unwrap_or(number));
    DONE
}

/// What adding members came to.
#[derive(Default)]
pub struct Done {
    /// How many were new.
    pub added: usize,
    /// How many had another score before.
    pub changed: usize,
    /// The score of the last member that the rule allowed.
    last: Option<f64>,
}

/// Gives members scores, whatever they had; GEOADD's rules are ZADD's NX and XX.
pub fn add_scored<'a>(
    ctx: &mut Context<'_>,
    key: &Key<'_>,
    (only_new, only_old): (bool, bool),
    members: impl Iterator<Item = (f64, &'a [u8])>,
) -> Result<Done, Error> {
    add(ctx, key, Rule { only_new, only_old, ..Rule::default() }, members)
}

fn add<'a>(
    ctx: &mut Context<'_>,
    key: &Key<'_>,
    rule: Rule,
    members: impl Iterator<Item = (f64, &'a [u8])>,
) -> Result<Done, Error> {
    let limits = limits(ctx);
    let mut done = Done::default();
    let mut failed = false;
    let mut members = Some(members);
    let mut put = |zset: &mut ZSet| {
        for (number, member) in members.take().into_iter().flatten() {
            let (mut fate, mut score) = (Fate::Left, number);
            zset.upsert(member, limits, |old| {
                (fate, score) = rule.apply(old, number);
                matches!(fate, Fate::Added | Fate::Changed).then_some(score)
            });
            match fate {
                Fate::Added => done.added += 1,
                Fate::Changed => done.changed += 1,
                Fate::Same | Fate::Left => {}
                Fate::NotANumber => failed = true,
            }
            done.last = (fate != Fate::Left).then_some(score);
        }
    };
    let found = ctx.db.update(key, |entry| edit(entry, &mut put));
    if found.transpose()?.is_none() && !rule.only_old {
        let mut zset = ZSet::default();
        put(&mut zset);
        if !zset.is_empty() {
            insert(ctx, key, zset);
        }
    }
    if failed {
        return Err(Error::text("ERR resulting score is not a number (NaN)"));
    }
    let changes = done.added + done.changed;
    if changes > 0 {
        ctx.db.note(key, Class::SortedSet, if rule.add { "zincr" } else { "zadd" });
        ctx.db.effects.dirty += changes as u64 - 1;
    }
    Ok(done)
}

/// Removes members; replies how many were there.
pub const ZREM: Command = Command {
    name: "ZREM",
    arity: Arity::AtLeast(3),
    flags: &[Flag::Write, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::DELETE }],
    usage: "key member...",
    summary: "Removes one or more members from a sorted set. Deletes the sorted set if all members were removed.",
    complexity: "O(M*log(N)) with N being the number of elements in the sorted set and M the number of elements to be removed.",
    history: &[("2.4.0", "Accepts multiple elements.")],
    run: zrem,
    ..SORTED_SET
};

fn zrem(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let removed =
        remove_with(&mut ctx.db, &key, "zrem", |zset| args.from(2).filter(|m| zset.remove(m).is_some()).count())?;
    ctx.out.integer(removed as i64);
    DONE
}

/// Replies with the number of members.
pub const ZCARD: Command = Command {
    name: "ZCARD",
    arity: Arity::Exactly(2),
    keys: &[Keys::At { first: 1, access: Access::META }],
    usage: "key",
    summary: "Returns the number of members in a sorted set.",
    run: zcard,
    ..SORTED_SET
};

fn zcard(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let len = ctx.db.read(&key).map(zset).transpose()?.map_or(0, ZSetRef::len);
    ctx.out.integer(len as i64);
    DONE
}

/// Replies with a member's score.
pub const ZSCORE: Command =
    Command { name: "ZSCORE", summary: "Returns the score of a member in a sorted set.", run: zscore, ..SORTED_SET };

fn zscore(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    match ctx.db.read(&key).map(zset).transpose()?.and_then(|zset| zset.score(args.at(2))) {
        Some(score) => ctx.out.double(score),
        None => ctx.out.null(),
    }
    DONE
}

/// Replies with the scores of several members, null for those that are not there.
pub const ZMSCORE: Command = Command {
    name: "ZMSCORE",
    since: "6.2.0",
    arity: Arity::AtLeast(3),
    usage: "key member...",
    summary: "Returns the score of one or more members in a sorted set.",
    complexity: "O(N) where N is the number of members being requested.",
    run: zmscore,
    ..SORTED_SET
};

fn zmscore(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let zset = ctx.db.read(&key).map(zset).transpose()?;
    ctx.out.array(args.len() - 2);
    for member in args.from(2) {
        match zset.and_then(|zset| zset.score(member)) {
            Some(score) => ctx.out.double(score),
            None => ctx.out.null(),
        }
    }
    DONE
}

/// Replies how many members come before one, from the lowest score on.
pub const ZRANK: Command = Command {
    name: "ZRANK",
    since: "2.0.0",
    arity: Arity::AtLeast(3),
    usage: "key member [WITHSCORE]",
    summary: "Returns the index of a member in a sorted set ordered by ascending scores.",
    complexity: "O(log(N))",
    history: &[("7.2.0", "Added the optional `WITHSCORE` argument.")],
    run: |ctx, args| rank(ctx, args, false),
    ..SORTED_SET
};

/// Replies how many members come before one, from the highest score on.
pub const ZREVRANK: Command = Command {
    name: "ZREVRANK",
    summary: "Returns the index of a member in a sorted set ordered by descending scores.",
    run: |ctx, args| rank(ctx, args, true),
    ..ZRANK
};

fn rank(ctx: &mut Context<'_>, args: &Args<'_>, reverse: bool) -> Reply {
    if args.len() > 4 {
        return Err(Error::WrongArity(if reverse { "zrevrank" } else { "zrank" }.into()));
    }
    let with_score = args.len() == 4;
    if with_score && !args.is(3, "WITHSCORE") {
        return Err(Error::Syntax);
    }
    let key = args.key(&ctx.db, 1);
    let zset = ctx.db.read(&key).map(zset).transpose()?;
    let found = zset.and_then(|zset| {
        let (rank, score) = zset.rank(args.at(2))?;
        Some((if reverse { zset.len() - 1 - rank } else { rank }, score))
    });
    match found {
        Some((rank, score)) => {
            if with_score {
                ctx.out.array(2);
            }
            ctx.out.integer(rank as i64);
            if with_score {
                ctx.out.double(score);
            }
        }
        None if with_score => ctx.out.null_array(),
        None => ctx.out.null(),
    }
    DONE
}

#[cfg(test)]
mod tests;

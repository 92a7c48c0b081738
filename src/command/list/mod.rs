//! Lists: pushed, popped, looked at, cut; waited for in [`wait`].
//!
//! What must stay true: a list that has lost its last element is removed, and a list that was
//! changed is kept as its length asks for ([`List::make_room`] before, [`List::shrink`] after).

use std::ops::{ControlFlow, Range};

use crate::command::args::{Args, word};
use crate::command::context::{Context, DONE, Reply, later};
use crate::command::error::Error;
use crate::command::keyspace::PIECE_US;
use crate::command::table::Command;
use crate::config::table::Config;
use crate::keyspace::change::Class;
use crate::keyspace::db::Key;
use crate::keyspace::entry::{Entry, Value};
use crate::resp::reply::Output;
use crate::spec::{Access, Arity, Flag, Group, Keys};
use crate::stdx::number::parse_i64;
use crate::stdx::ticks::Ticks;
use crate::types::list::{End, Limit, List};
use crate::types::listpack::{Item, Needle};
use crate::types::{Object, ObjectRef};

pub mod wait;

/// This family's commands.
pub const COMMANDS: &[Command] = &[
    LINDEX, LINSERT, LLEN, LMOVE, LMPOP, LPOP, LPOS, LPUSH, LPUSHX, LRANGE, LREM, LSET, LTRIM, RPOP, RPOPLPUSH, RPUSH,
    RPUSHX,
];

/// What most declarations of this file have in common.
pub(crate) const BASE: Command = Command {
    name: "",
    since: "1.0.0",
    group: Group::List,
    arity: Arity::AtLeast(3),
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[],
    keys: &[Keys::At { first: 1, access: Access::INSERT }],
    usage: "key element...",
    summary: "",
    complexity: "O(1) for each element added, so O(N) to add N elements when the command is called with multiple arguments.",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: llen,
};

fn list(entry: &Entry) -> Result<&List, Error> {
    match entry.value() {
        Value::Object(ObjectRef::List(list)) => Ok(list),
        _ => Err(Error::WrongType),
    }
}

fn list_mut(entry: &mut Entry) -> Result<&mut List, Error> {
    match entry.object_mut() {
        Some(Object::List(list)) => Ok(list),
        _ => Err(Error::WrongType),
    }
}

/// How a list is kept.
pub(crate) fn limit_of(config: &Config) -> Limit {
    Limit { size: config.list_max_listpack_size, depth: config.list_compress_depth }
}

fn limit(ctx: &Context<'_>) -> Limit {
    limit_of(ctx.config)
}

fn write_item(out: &mut Output, item: Item<'_>) {
    match item {
        Item::Int(n) => out.bulk_integer(n),
        Item::Bytes(bytes) => out.bulk(bytes),
    }
}

/// LEFT or RIGHT.
pub(crate) fn side_of(arg: &[u8]) -> Result<End, Error> {
    match word(arg, &["LEFT", "RIGHT"]) {
        Some("LEFT") => Ok(End::Head),
        Some(_) => Ok(End::Tail),
        None => Err(Error::Syntax),
    }
}

/// Adds elements in front; replies with the new length.
pub const LPUSH: Command = Command {
    name: "LPUSH",
    summary: "Prepends one or more elements to a list. Creates the key if it doesn't exist.",
    history: &[("2.4.0", "Accepts multiple `element` arguments.")],
    run: |ctx, args| push(ctx, args, End::Head, Missing::Create),
    ..BASE
};

/// Adds elements at the end; replies with the new length.
pub const RPUSH: Command = Command {
    name: "RPUSH",
    summary: "Appends one or more elements to a list. Creates the key if it doesn't exist.",
    run: |ctx, args| push(ctx, args, End::Tail, Missing::Create),
    ..LPUSH
};

/// Adds elements in front of a list that exists; replies with the new length, or 0.
pub const LPUSHX: Command = Command {
    name: "LPUSHX",
    since: "2.2.0",
    summary: "Prepends one or more elements to a list only when the list exists.",
    history: &[("4.0.0", "Accepts multiple `element` arguments.")],
    run: |ctx, args| push(ctx, args, End::Head, Missing::LeaveAlone),
    ..BASE
};

/// Adds elements at the end of a list that exists; replies with the new length, or 0.
pub const RPUSHX: Command = Command {
    name: "RPUSHX",
    summary: "Appends an element to a list only when the list exists.",
    run: |ctx, args| push(ctx, args, End::Tail, Missing::LeaveAlone),
    ..LPUSHX
};

/// What to do where there is no list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Create,
    LeaveAlone,
}

fn push(ctx: &mut Context<'_>, args: &Args<'_>, end: End, missing: Missing) -> Reply {
    let key = args.key(&ctx.db, 1);
    if missing == Missing::LeaveAlone && !ctx.db.exists(&key) {
        ctx.out.integer(0);
        return DONE;
    }
    let len = push_all(ctx, &key, end, args.from(2))?;
    ctx.out.integer(len as i64);
    DONE
}

/// Adds elements to a list, which is created where it is missing; returns its length.
fn push_all<'a>(
    ctx: &mut Context<'_>,
    key: &Key<'_>,
    end: End,
    elements: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
) -> Result<usize, Error> {
    let limit = limit(ctx);
    let (count, bytes) = (elements.len(), elements.clone().map(<[u8]>::len).sum());
    let add = |list: &mut List| {
        list.make_room(bytes, count, limit);
        elements.for_each(|element| list.push(end, element, limit));
        list.len()
    };
    let len = if ctx.db.exists(key) {
        ctx.db.update(key, |entry| list_mut(entry).map(add)).unwrap_or(Err(Error::NoSuchKey))?
    } else {
        let mut list = List::default();
        let len = add(&mut list);
        let clock = ctx.db.moment().initial_clock();
        ctx.db.insert(key, Entry::with_object(key.hash.bits(), key.bytes, Object::List(list), None, clock));
        len
    };
    ctx.db.note(key, Class::List, if end == End::Head { "lpush" } else { "rpush" });
    ctx.db.effects.dirty += count as u64 - 1;
    Ok(len)
}

/// Removes the first element, or some; replies with them.
pub const LPOP: Command = Command {
    name: "LPOP",
    arity: Arity::AtLeast(2),
    flags: &[Flag::Write, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::TAKE }],
    usage: "key [count]@6.2.0",
    summary: "Returns the first elements in a list after removing it. Deletes the list if the last element was popped.",
    complexity: "O(N) where N is the number of elements returned",
    history: &[("6.2.0", "Added the `count` argument.")],
    run: |ctx, args| pop(ctx, args, End::Head, "lpop"),
    ..BASE
};

/// Removes the last element, or some; replies with them.
pub const RPOP: Command = Command {
    name: "RPOP",
    summary: "Returns and removes the last elements of a list. Deletes the list if the last element was popped.",
    run: |ctx, args| pop(ctx, args, End::Tail, "rpop"),
    ..LPOP
};

fn pop(ctx: &mut Context<'_>, args: &Args<'_>, end: End, name: &str) -> Reply {
    if args.len() > 3 {
        return Err(Error::WrongArity(name.to_owned()));
    }
    let count = match args.opt(2) {
        Some(count) => Some(parse_i64(count).and_then(|n| usize::try_from(n).ok()).ok_or(Error::NotPositive)?),
        None => None,
    };
    let key = args.key(&ctx.db, 1);
    let Some(len) = ctx.db.look(&key).map(list).transpose()?.map(List::len) else {
        match count {
            Some(_) => ctx.out.null_array(),
            None => ctx.out.null(),
        }
        return DONE;
    };
    if let Some(count) = count {
        ctx.out.array(count.min(len));
    }
    pop_some(ctx, &key, end, count.unwrap_or(1).min(len))
}

/// Removes `count` elements of a list and writes them, nearest to the end first.
pub(crate) fn pop_some(ctx: &mut Context<'_>, key: &Key<'_>, end: End, count: usize) -> Reply {
    if count == 0 {
        return DONE;
    }
    let limit = limit(ctx);
    let out = &mut *ctx.out;
    ctx.db.update(key, |entry| {
        let list = list_mut(entry)?;
        let len = list.len();
        let from = if end == End::Head { 0 } else { len - 1 };
        list.take(from, end, count, |item| write_item(out, item));
        list.remove_range(if end == End::Head { 0 } else { len - count }, count);
        list.shrink(limit);
        Ok::<_, Error>(())
    });
    ctx.db.note(key, Class::List, if end == End::Head { "lpop" } else { "rpop" });
    ctx.db.effects.dirty += count as u64 - 1;
    remove_if_empty(ctx, key);
    DONE
}

/// Removes a list that has no elements left.
fn remove_if_empty(ctx: &mut Context<'_>, key: &Key<'_>) {
    if ctx.db.look(key).is_some_and(|entry| list(entry).is_ok_and(List::is_empty)) {
        ctx.db.remove(key);
        ctx.db.notify(key, Class::Generic, "del");
    }
}

/// The number of elements.
pub const LLEN: Command = Command {
    name: "LLEN",
    arity: Arity::Exactly(2),
    flags: &[Flag::ReadOnly, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::META }],
    usage: "key",
    summary: "Returns the length of a list.",
    complexity: "O(1)",
    run: llen,
    ..BASE
};

fn llen(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let len = ctx.db.read(&key).map(list).transpose()?.map_or(0, List::len);
    ctx.out.integer(len as i64);
    DONE
}

/// The place that `index` means, negative ones counted from the end; `None` outside of the list.
fn place(index: i64, len: usize) -> Option<usize> {
    let at = if index < 0 { index.checked_add(len as i64)? } else { index };
    usize::try_from(at).ok().filter(|at| *at < len)
}

/// The elements from `start` to `end`, both included, negative ones counted from the end.
fn range_within(start: i64, end: i64, len: usize) -> std::ops::Range<usize> {
    let len = len as i64;
    let from_end = |i: i64| if i < 0 { i.saturating_add(len).max(-1) } else { i };
    let (start, end) = (from_end(start).max(0), from_end(end).min(len - 1));
    if start > end { 0..0 } else { start as usize..end as usize + 1 }
}

/// One element by its place.
pub const LINDEX: Command = Command {
    name: "LINDEX",
    arity: Arity::Exactly(3),
    flags: &[Flag::ReadOnly],
    keys: &[Keys::At { first: 1, access: Access::READ }],
    usage: "key index:integer",
    summary: "Returns an element from a list by its index.",
    complexity: "O(N) where N is the number of elements to traverse to get to the element at index. This makes asking for the first or the last element of the list O(1).",
    run: lindex,
    ..BASE
};

fn lindex(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    // Only where there is a list does it matter whether the index is a number.
    let Some(list) = ctx.db.read(&key).map(list).transpose()? else {
        ctx.out.null();
        return DONE;
    };
    let found = place(args.integer(2)?, list.len()).and_then(|at| list.get(at, |item| write_item(ctx.out, item)));
    if found.is_none() {
        ctx.out.null();
    }
    DONE
}

/// Adds an element beside another; replies with the new length, -1 where there is no such element.
pub const LINSERT: Command = Command {
    name: "LINSERT",
    since: "2.2.0",
    arity: Arity::Exactly(5),
    flags: &[Flag::Write, Flag::DenyOom],
    usage: "key where(BEFORE | AFTER) pivot element",
    summary: "Inserts an element before or after another element in a list.",
    complexity: "O(N) where N is the number of elements to traverse before seeing the value pivot. This means that inserting somewhere on the left end on the list (head) can be considered O(1) and inserting somewhere on the right end (tail) is O(N).",
    run: linsert,
    ..BASE
};

fn linsert(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let behind = match word(args.at(2), &["BEFORE", "AFTER"]) {
        Some("BEFORE") => 0,
        Some(_) => 1,
        None => return Err(Error::Syntax),
    };
    let key = args.key(&ctx.db, 1);
    let (pivot, limit) = (Needle::new(args.at(3)), limit(ctx));
    if ctx.db.look(&key).map(list).transpose()?.is_none() {
        ctx.out.integer(0);
        return DONE;
    }
    make_room(ctx, &key, args.at(4));
    let Some(list) = ctx.db.look(&key).map(list).transpose()? else { return Err(Error::NoSuchKey) };
    let Some(at) = list.position(&pivot) else {
        ctx.out.integer(-1);
        return DONE;
    };
    let len = list.len() + 1;
    ctx.db.update(&key, |entry| list_mut(entry).map(|list| list.insert(at + behind, args.at(4), limit)));
    ctx.db.note(&key, Class::List, "linsert");
    ctx.out.integer(len as i64);
    DONE
}

/// Makes a list a chain where another element would be too much for a listpack: this can be seen even where the
/// element finds no place.
fn make_room(ctx: &mut Context<'_>, key: &Key<'_>, element: &[u8]) {
    let limit = limit(ctx);
    ctx.db.update(key, |entry| list_mut(entry).map(|list| list.make_room(element.len(), 1, limit)));
}

/// Replaces an element.
pub const LSET: Command = Command {
    name: "LSET",
    arity: Arity::Exactly(4),
    flags: &[Flag::Write, Flag::DenyOom],
    keys: &[Keys::At { first: 1, access: Access::UPDATE }],
    usage: "key index:integer element",
    summary: "Sets the value of an element in a list by its index.",
    complexity: "O(N) where N is the length of the list. Setting either the first or the last element of the list is O(1).",
    run: lset,
    ..BASE
};

fn lset(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let limit = limit(ctx);
    let len = ctx.db.look(&key).map(list).transpose()?.ok_or(Error::NoSuchKey)?.len();
    let index = args.integer(2)?;
    make_room(ctx, &key, args.at(3));
    let at = place(index, len).ok_or(Error::text("ERR index out of range"))?;
    ctx.db.update(&key, |entry| list_mut(entry).map(|list| list.set(at, args.at(3), limit)));
    ctx.db.note(&key, Class::List, "lset");
    ctx.out.ok();
    DONE
}

/// The elements from one place to another.
pub const LRANGE: Command = Command {
    name: "LRANGE",
    arity: Arity::Exactly(4),
    flags: &[Flag::ReadOnly],
    keys: &[Keys::At { first: 1, access: Access::READ }],
    usage: "key start:integer stop:integer",
    summary: "Returns a range of elements from a list.",
    complexity: "O(S+N) where S is the distance of start offset from HEAD for small lists, from nearest end (HEAD or TAIL) for large lists; and N is the number of elements in the specified range.",
    run: lrange,
    ..BASE
};

fn lrange(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let (start, end) = (args.integer(2)?, args.integer(3)?);
    let key = args.key(&ctx.db, 1);
    match ctx.db.read(&key).map(list).transpose()? {
        Some(list) => {
            let range = range_within(start, end, list.len());
            if range.len() > BRIEF_ELEMENTS && list.nodes() > BRIEF_NODES {
                let (list, at) = list.share(range.start, range.len());
                return later(LargeRange { list, at, left: range.len(), begun: false }, LargeRange::run);
            }
            ctx.out.array(range.len());
            list.each(range.start, range.len(), |item| write_item(ctx.out, item));
        }
        None => ctx.out.array(0),
    }
    DONE
}

/// A range of more elements than this, of a list of more nodes than that, is written in pieces that hold no key:
/// a million elements would keep others from the list's shard for tens of milliseconds.
const BRIEF_ELEMENTS: usize = 512;
const BRIEF_NODES: usize = 32;
/// How many elements are written before the time is looked at.
const STRIDE: usize = 64;

/// What is still to be written of a range, as it was when it was asked for.
struct LargeRange {
    list: List,
    at: usize,
    left: usize,
    begun: bool,
}

impl LargeRange {
    fn run(mut self, ctx: &mut Context<'_>) -> Reply {
        let started = Ticks::now();
        if !self.begun {
            self.begun = true;
            ctx.out.array(self.left);
        }
        let mut written = 0;
        self.list.walk(self.at, End::Head, |item| {
            write_item(ctx.out, item);
            written += 1;
            let enough = written == self.left || written % STRIDE == 0 && started.elapsed_us() >= PIECE_US;
            if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        self.at += written;
        self.left -= written;
        if self.left > 0 {
            return later(self, LargeRange::run);
        }
        // The list itself may be gone by now, so that these nodes are the last of it.
        ctx.db.keyspace().free_object(Box::new(Object::List(self.list)));
        DONE
    }
}

/// Removes elements that equal another; replies how many there were.
pub const LREM: Command = Command {
    name: "LREM",
    arity: Arity::Exactly(4),
    flags: &[Flag::Write],
    keys: &[Keys::At { first: 1, access: Access::DELETE }],
    usage: "key count element",
    summary: "Removes elements from a list. Deletes the list if the last element was removed.",
    complexity: "O(N+M) where N is the length of the list and M is the number of elements removed.",
    run: lrem,
    ..BASE
};

fn lrem(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let count = args.integer(2)?;
    let key = args.key(&ctx.db, 1);
    let (needle, limit) = (Needle::new(args.at(3)), limit(ctx));
    let from = if count < 0 { End::Tail } else { End::Head };
    let most = if count == 0 { usize::MAX } else { usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX) };
    let changed = ctx.db.update(&key, |entry| {
        let list = list_mut(entry)?;
        let removed = list.remove_equal(needle, from, most);
        if removed > 0 {
            list.shrink(limit);
        }
        Ok(removed)
    });
    let removed = changed.unwrap_or(Ok(0))?;
    if removed > 0 {
        ctx.db.note(&key, Class::List, "lrem");
        ctx.db.effects.dirty += removed as u64 - 1;
        remove_if_empty(ctx, &key);
    }
    ctx.out.integer(removed as i64);
    DONE
}

/// Removes all elements but those from one place to another.
pub const LTRIM: Command = Command {
    name: "LTRIM",
    usage: "key start:integer stop:integer",
    summary: "Removes elements from both ends a list. Deletes the list if all elements were trimmed.",
    complexity: "O(N) where N is the number of elements to be removed by the operation.",
    run: ltrim,
    ..LREM
};

fn ltrim(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let (start, end) = (args.integer(2)?, args.integer(3)?);
    let key = args.key(&ctx.db, 1);
    let limit = limit(ctx);
    let changed = ctx.db.update(&key, |entry| {
        let list = list_mut(entry)?;
        let len = list.len();
        let kept = range_within(start, end, len);
        list.remove_range(kept.end, len - kept.end);
        list.remove_range(0, kept.start);
        list.shrink(limit);
        Ok(len - kept.len())
    });
    if let Some(removed) = changed.transpose()? {
        // The event comes even where nothing was removed.
        ctx.db.notify(&key, Class::List, "ltrim");
        ctx.db.effects.dirty += removed as u64;
        remove_if_empty(ctx, &key);
    }
    ctx.out.ok();
    DONE
}

/// The places of elements that equal another.
pub const LPOS: Command = Command {
    name: "LPOS",
    since: "6.0.6",
    arity: Arity::AtLeast(3),
    flags: &[Flag::ReadOnly],
    keys: &[Keys::At { first: 1, access: Access::READ }],
    usage: "key element [RANK rank:integer] [COUNT num-matches:integer] [MAXLEN len:integer]",
    summary: "Returns the index of matching elements in a list.",
    complexity: "O(N) where N is the number of elements in the list, for the average case. When searching for elements near the head or the tail of the list, or when the MAXLEN option is provided, the command may run in constant time.",
    run: lpos,
    ..BASE
};

fn lpos(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let (mut rank, mut count, mut most) = (1i64, None, 0);
    let natural = |i: usize, error: &'static str| {
        parse_i64(args.at(i)).and_then(|n| usize::try_from(n).ok()).ok_or(Error::text(error))
    };
    let mut i = 3;
    while i < args.len() {
        match word(args.at(i), &["RANK", "COUNT", "MAXLEN"]) {
            _ if i + 1 == args.len() => return Err(Error::Syntax),
            Some("RANK") => rank = parse_rank(args.integer(i + 1)?)?,
            Some("COUNT") => count = Some(natural(i + 1, "ERR COUNT can't be negative")?),
            Some(_) => most = natural(i + 1, "ERR MAXLEN can't be negative")?,
            None => return Err(Error::Syntax),
        }
        i += 2;
    }
    let key = args.key(&ctx.db, 1);
    let needle = Needle::new(args.at(2));
    let Some(list) = ctx.db.read(&key).map(list).transpose()? else {
        match count {
            Some(_) => ctx.out.array(0),
            None => ctx.out.null(),
        }
        return DONE;
    };
    let len = list.len();
    let unlimited = |n: usize| if n == 0 { usize::MAX } else { n };
    let direction = if rank < 0 { End::Tail } else { End::Head };
    let wanted = count.map_or(1, unlimited);
    let mut others = rank.unsigned_abs() - 1;
    let (mut seen, mut places) = (0, Vec::new());
    list.walk(if rank < 0 { len - 1 } else { 0 }, direction, |item| {
        if needle.is(item) && others > 0 {
            others -= 1;
        } else if needle.is(item) {
            places.push(if rank < 0 { len - 1 - seen } else { seen } as i64);
        }
        seen += 1;
        let enough = places.len() == wanted || seen == unlimited(most);
        if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match count {
        None => match places.first() {
            Some(at) => ctx.out.integer(*at),
            None => ctx.out.null(),
        },
        Some(_) => {
            ctx.out.array(places.len());
            places.into_iter().for_each(|at| ctx.out.integer(at));
        }
    }
    DONE
}

fn parse_rank(rank: i64) -> Result<i64, Error> {
    match rank {
        0 => Err(Error::text(
            "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list",
        )),
        i64::MIN => Err(Error::text(
            "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        )),
        rank => Ok(rank),
    }
}

/// Moves an element from an end of one list to an end of another, or of the same.
pub const LMOVE: Command = Command {
    name: "LMOVE",
    since: "6.2.0",
    arity: Arity::Exactly(5),
    flags: &[Flag::Write, Flag::DenyOom],
    keys: &[Keys::At { first: 1, access: Access::TAKE }, Keys::At { first: 2, access: Access::INSERT }],
    usage: "source:key destination:key wherefrom(LEFT | RIGHT) whereto(LEFT | RIGHT)",
    summary: "Returns an element after popping it from one list and pushing it to another. Deletes the list if the last element was moved.",
    complexity: "O(1)",
    run: |ctx, args| {
        let (from, to) = (side_of(args.at(3))?, side_of(args.at(4))?);
        lmove(ctx, args, from, to)
    },
    ..BASE
};

/// LMOVE from the right to the left.
pub const RPOPLPUSH: Command = Command {
    name: "RPOPLPUSH",
    since: "1.2.0",
    arity: Arity::Exactly(3),
    usage: "source:key destination:key",
    summary: "Returns the last element of a list after removing and pushing it to another list. Deletes the list if the last element was popped.",
    deprecated: Some(("6.2.0", "`LMOVE` with the `RIGHT` and `LEFT` arguments")),
    run: |ctx, args| lmove(ctx, args, End::Tail, End::Head),
    ..LMOVE
};

fn lmove(ctx: &mut Context<'_>, args: &Args<'_>, from: End, to: End) -> Reply {
    let (source, target) = (args.key(&ctx.db, 1), args.key(&ctx.db, 2));
    if !move_element(ctx, &source, &target, from, to)? {
        ctx.out.null();
    }
    DONE
}

/// The length of a list about to be changed; `None` where there is none.
pub(crate) fn source_len(ctx: &mut Context<'_>, key: &Key<'_>) -> Result<Option<usize>, Error> {
    Ok(ctx.db.look(key).map(list).transpose()?.map(List::len))
}

/// Moves an element and writes it; returns whether there was one.
pub(crate) fn move_element(
    ctx: &mut Context<'_>,
    source: &Key<'_>,
    target: &Key<'_>,
    from: End,
    to: End,
) -> Result<bool, Error> {
    let limit = limit(ctx);
    let Some(len) = source_len(ctx, source)? else { return Ok(false) };
    source_len(ctx, target)?;
    let at = if from == End::Head { 0 } else { len - 1 };
    let taken = ctx.db.update(source, |entry| {
        let list = list_mut(entry).ok()?;
        let element = list.get(at, |item| item.to_vec())?;
        list.remove_range(at, 1);
        Some(element)
    });
    let element = taken.flatten().ok_or(Error::NoSuchKey)?;
    push_all(ctx, target, to, std::iter::once(element.as_slice()))?;
    // Only now: where both are one list, it has its length again.
    ctx.db.update(source, |entry| list_mut(entry).map(|list| list.shrink(limit)));
    let event = if from == End::Head { "lpop" } else { "rpop" };
    ctx.db.notify(source, Class::List, event);
    remove_if_empty(ctx, source);
    ctx.out.bulk(&element);
    Ok(true)
}

/// Removes elements of the first list that is there; replies with its key and them.
pub const LMPOP: Command = Command {
    name: "LMPOP",
    since: "7.0.0",
    arity: Arity::AtLeast(4),
    flags: &[Flag::Write, Flag::MovableKeys],
    keys: &[Keys::Counted { count: 1, first: 2, step: 1, access: Access::TAKE }],
    usage: "numkeys key... where(LEFT | RIGHT) [COUNT count]",
    summary: "Returns multiple elements from a list after removing them. Deletes the list if the last element was popped.",
    complexity: "O(N+M) where N is the number of provided keys and M is the number of elements returned.",
    run: lmpop,
    ..BASE
};

fn lmpop(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let (keys, end, count) = parse_lmpop(args, 1)?;
    if !pop_first(ctx, keys.map(|i| args.at(i)), end, count)? {
        ctx.out.null_array();
    }
    DONE
}

/// What LMPOP says from the number of keys on, which is at `at`: where the keys stand, the end, how many elements.
pub(crate) fn parse_lmpop(args: &Args<'_>, at: usize) -> Result<(Range<usize>, End, usize), Error> {
    let positive = |i: usize, error: &'static str| {
        parse_i64(args.at(i)).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0).ok_or(Error::text(error))
    };
    let first = at + 1;
    let keys = positive(at, "ERR numkeys should be greater than 0")?;
    let at = keys.checked_add(first).filter(|at| *at < args.len()).ok_or(Error::Syntax)?;
    let end = side_of(args.at(at))?;
    let count = match args.len() - at - 1 {
        0 => 1,
        2 if args.is(at + 1, "COUNT") => positive(at + 2, "ERR count should be greater than 0")?,
        // A count that is no good is found before the words behind it are.
        n if n > 2 && args.is(at + 1, "COUNT") => {
            positive(at + 2, "ERR count should be greater than 0")?;
            return Err(Error::Syntax);
        }
        _ => return Err(Error::Syntax),
    };
    Ok((first..at, end, count))
}

/// Removes elements of the first of these lists that is there, and writes its key and them; returns whether one was.
pub(crate) fn pop_first<'k>(
    ctx: &mut Context<'_>,
    keys: impl Iterator<Item = &'k [u8]>,
    end: End,
    count: usize,
) -> Result<bool, Error> {
    for key in keys {
        let key = ctx.db.key(key);
        let Some(len) = source_len(ctx, &key)? else { continue };
        let count = count.min(len);
        ctx.out.array(2);
        ctx.out.bulk(key.bytes);
        ctx.out.array(count);
        let name = if end == End::Head { "LPOP" } else { "RPOP" };
        ctx.db.effects.log_as(|| vec![vec![name.into(), key.bytes.to_vec(), count.to_string().into_bytes()]]);
        pop_some(ctx, &key, end, count)?;
        return Ok(true);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use crate::command::testing::Bench;

    const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value|";

    #[test]
    fn a_large_range_is_written_in_pieces_and_is_the_same() {
        let mut bench = Bench::with("list-max-listpack-size 8");
        let mut elements = Vec::new();
        for some in 0..200 {
            let words: Vec<String> = (0..20).map(|n| format!("e{}", some * 20 + n)).collect();
            bench.run(&format!("RPUSH l {}", words.join(" ")));
            elements.extend(words);
        }
        let reply = |words: &[String]| {
            let items: String = words.iter().map(|word| format!("${}|{word}|", word.len())).collect();
            format!("*{}|{items}", words.len())
        };
        assert_eq!(bench.run("LRANGE l 0 -1"), reply(&elements));
        assert_eq!(bench.run("LRANGE l 1005 -1001"), reply(&elements[1005..3000]));
        assert_eq!(bench.run("LRANGE l 3990 -1"), reply(&elements[3990..]));
        assert_eq!(bench.run("CLIENT REPLY SKIP") + &bench.run("LRANGE l 0 -1"), "", "no piece of it is heard");
        assert_eq!(bench.run("LRANGE l -600 -1"), reply(&elements[3400..]));
        assert!(bench.run("INFO commandstats").contains("cmdstat_lrange:calls=5,"));
    }

    #[test]
    fn elements_are_pushed_popped_and_the_empty_list_is_gone() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("LPUSHX l a"), ":0|");
        assert_eq!(bench.run("RPUSH l a b c"), ":3|");
        assert_eq!(bench.run("LPUSH l y x"), ":5|");
        assert_eq!(bench.run("RPUSHX l 12"), ":6|");
        assert_eq!(bench.run("LRANGE l 0 -1"), "*6|$1|x|$1|y|$1|a|$1|b|$1|c|$2|12|");
        assert_eq!(bench.run("RPOP l"), "$2|12|");
        assert_eq!(bench.run("LPOP l 2"), "*2|$1|x|$1|y|");
        assert_eq!(bench.run("LPOP l 0"), "*0|");
        assert_eq!(bench.run("RPOP l 10"), "*3|$1|c|$1|b|$1|a|");
        assert_eq!(bench.run("EXISTS l"), ":0|");
        assert_eq!((bench.run("LPOP l"), bench.run("LPOP l 0")), ("$-1|".into(), "*-1|".into()));
        assert_eq!(bench.run("LPOP l -1"), "-ERR value is out of range, must be positive|");
        assert_eq!(bench.run("LPOP l 1 1"), "-ERR wrong number of arguments for 'lpop' command|");
    }

    #[test]
    fn every_list_command_refuses_a_string() {
        let mut bench = Bench::new();
        bench.run("SET s v");
        bench.run("RPUSH l a");
        for request in [
            "LPUSH s a",
            "RPUSHX s a",
            "LPOP s",
            "RPOP s 0",
            "LLEN s",
            "LINDEX s x",
            "LINSERT s BEFORE a b",
            "LSET s 0 a",
            "LRANGE s 0 1",
            "LREM s 0 a",
            "LTRIM s 0 1",
            "LPOS s a",
            "LMOVE s l LEFT LEFT",
            "LMOVE l s LEFT LEFT",
            "RPOPLPUSH s l",
            "LMPOP 2 none s LEFT",
        ] {
            assert_eq!(bench.run(request), WRONG_TYPE, "{request}");
        }
        assert_eq!(bench.run("GET l"), WRONG_TYPE);
        assert_eq!(bench.run("LRANGE l 0 -1"), "*1|$1|a|");
    }

    #[test]
    fn elements_are_read_set_and_inserted_by_place() {
        let mut bench = Bench::new();
        bench.run("RPUSH l a b c");
        assert_eq!((bench.run("LINDEX l -1"), bench.run("LINDEX l 3")), ("$1|c|".into(), "$-1|".into()));
        assert_eq!(bench.run("LINDEX none x"), "$-1|");
        assert_eq!(bench.run("LSET l 1 B"), "+OK|");
        assert_eq!(bench.run("LSET l -4 B"), "-ERR index out of range|");
        assert_eq!(bench.run("LSET none x B"), "-ERR no such key|");
        assert_eq!(bench.run("LINSERT l AFTER c d"), ":4|");
        assert_eq!(bench.run("LINSERT l before a 0"), ":5|");
        assert_eq!(bench.run("LINSERT l BEFORE zz 0"), ":-1|");
        assert_eq!(bench.run("LINSERT none BEFORE a 0"), ":0|");
        assert_eq!(bench.run("LINSERT none BESIDE a 0"), "-ERR syntax error|");
        assert_eq!(bench.run("LRANGE l -100 100"), "*5|$1|0|$1|a|$1|B|$1|c|$1|d|");
        assert_eq!(bench.run("LRANGE l 3 1"), "*0|");
    }

    #[test]
    fn elements_are_removed_by_value_and_by_range() {
        let mut bench = Bench::new();
        bench.run("RPUSH l a 1 a 1 a 1");
        assert_eq!(bench.run("LREM l -2 1"), ":2|");
        assert_eq!(bench.run("LRANGE l 0 -1"), "*4|$1|a|$1|1|$1|a|$1|a|");
        assert_eq!(bench.run("LREM l 1 a"), ":1|");
        assert_eq!(bench.run("LTRIM l 1 -1"), "+OK|");
        assert_eq!(bench.run("LREM l 0 a"), ":2|");
        assert_eq!(bench.run("EXISTS l"), ":0|");
        bench.run("RPUSH l a b");
        bench.run("LTRIM l 5 10");
        assert_eq!(bench.run("EXISTS l"), ":0|");
        assert_eq!(bench.run("LTRIM l 5 10"), "+OK|");
    }

    #[test]
    fn places_are_found_from_either_end() {
        let mut bench = Bench::new();
        bench.run("RPUSH l a b c 1 2 3 c c");
        assert_eq!(bench.run("LPOS l c"), ":2|");
        assert_eq!(bench.run("LPOS l c RANK -1"), ":7|");
        assert_eq!(bench.run("LPOS l c RANK 2 COUNT 0"), "*2|:6|:7|");
        assert_eq!(bench.run("LPOS l c RANK -2 COUNT 0"), "*2|:6|:2|");
        assert_eq!(bench.run("LPOS l c COUNT 0 MAXLEN 3"), "*1|:2|");
        assert_eq!(bench.run("LPOS l c MAXLEN 2"), "$-1|");
        assert_eq!(bench.run("LPOS none c COUNT 0"), "*0|");
        assert_eq!(bench.run("LPOS l c RANK"), "-ERR syntax error|");
        assert!(bench.run("LPOS l c RANK 0").starts_with("-ERR RANK can't be zero"));
    }

    #[test]
    fn elements_move_between_lists_and_around_in_one() {
        let mut bench = Bench::new();
        bench.run("RPUSH l a b c");
        assert_eq!(bench.run("LMOVE l m RIGHT LEFT"), "$1|c|");
        assert_eq!(bench.run("RPOPLPUSH l m"), "$1|b|");
        assert_eq!(bench.run("LMOVE m m LEFT RIGHT"), "$1|b|");
        assert_eq!(bench.run("LRANGE m 0 -1"), "*2|$1|c|$1|b|");
        assert_eq!(bench.run("LMOVE l l LEFT LEFT"), "$1|a|");
        assert_eq!(bench.run("LMOVE l m LEFT LEFT"), "$1|a|");
        assert_eq!((bench.run("EXISTS l"), bench.run("LMOVE l m LEFT LEFT")), (":0|".into(), "$-1|".into()));
        assert_eq!(bench.run("LMPOP 2 l m RIGHT COUNT 2"), "*2|$1|m|*2|$1|b|$1|c|");
        assert_eq!(bench.run("LMPOP 2 l m RIGHT COUNT 2"), "*2|$1|m|*1|$1|a|");
        assert_eq!(bench.run("LMPOP 2 l m RIGHT"), "*-1|");
        assert_eq!(bench.run("LMPOP 0 l RIGHT"), "-ERR numkeys should be greater than 0|");
        assert_eq!(bench.run("LMPOP 1 l RIGHT COUNT 0"), "-ERR count should be greater than 0|");
        assert_eq!(bench.run("LMPOP 1 l RIGHT COUNT 1 COUNT 1"), "-ERR syntax error|");
        assert_eq!(bench.run("LMPOP 2 l RIGHT"), "-ERR syntax error|");
    }

    #[test]
    fn the_encoding_follows_the_size() {
        let mut bench = Bench::with("list-max-listpack-size 4");
        bench.run("RPUSH l 1 2 3 4");
        assert_eq!(bench.run("OBJECT ENCODING l"), "$8|listpack|");
        bench.run("RPUSH l 5");
        assert_eq!(bench.run("OBJECT ENCODING l"), "$9|quicklist|");
        bench.run("LTRIM l 0 1");
        assert_eq!(bench.run("OBJECT ENCODING l"), "$8|listpack|");
        assert_eq!(bench.run("TYPE l"), "+list|");
        assert_eq!(bench.run("COPY l m"), ":1|");
        bench.run("RPUSH m x");
        assert_eq!((bench.run("LLEN l"), bench.run("LLEN m")), (":2|".into(), ":3|".into()));
    }
}

//! Members removed from either end.

use crate::command::args::{Args, word};
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::table::Command;
use crate::command::zset::{SORTED_SET, Scores, remove_with, zset};
use crate::keyspace::db::Key;
use crate::resp::reply::Protocol;
use crate::spec::{Access, Arity, Flag, Keys};
use crate::stdx::number::parse_i64;
use crate::types::zset::Direction;
use crate::types::zset::view::ZSetRef;

/// This file's commands.
pub const COMMANDS: &[Command] = &[ZMPOP, ZPOPMAX, ZPOPMIN];

/// MIN or MAX: the end to begin at.
fn end_of(arg: &[u8]) -> Result<Direction, Error> {
    match word(arg, &["MIN", "MAX"]) {
        Some("MIN") => Ok(Direction::Up),
        Some(_) => Ok(Direction::Down),
        None => Err(Error::Syntax),
    }
}

/// The event of a removal that begins at an end; in upper case it is the command that says the same to the log.
pub(super) fn event(from: Direction) -> &'static str {
    match from {
        Direction::Up => "zpopmin",
        Direction::Down => "zpopmax",
    }
}

/// Removes the member with the lowest score, or some; replies with them.
pub const ZPOPMIN: Command = Command {
    name: "ZPOPMIN",
    since: "5.0.0",
    arity: Arity::AtLeast(2),
    flags: &[Flag::Write, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::TAKE }],
    usage: "key [count]",
    summary: "Returns the lowest-scoring members from a sorted set after removing them. Deletes the sorted set if the last member was popped.",
    complexity: "O(log(N)*M) with N being the number of elements in the sorted set, and M being the number of elements popped.",
    run: |ctx, args| zpop(ctx, args, Direction::Up),
    ..SORTED_SET
};

/// Removes the member with the highest score, or some; replies with them.
pub const ZPOPMAX: Command = Command {
    name: "ZPOPMAX",
    summary: "Returns the highest-scoring members from a sorted set after removing them. Deletes the sorted set if the last member was popped.",
    run: |ctx, args| zpop(ctx, args, Direction::Down),
    ..ZPOPMIN
};

fn zpop(ctx: &mut Context<'_>, args: &Args<'_>, from: Direction) -> Reply {
    if args.len() > 3 {
        return Err(Error::Syntax);
    }
    let count = match args.opt(2) {
        Some(count) => Some(parse_i64(count).and_then(|n| usize::try_from(n).ok()).ok_or(Error::NotPositive)?),
        None => None,
    };
    let key = args.key(&ctx.db, 1);
    // RESP3 has pairs only where several were asked for.
    let pairs = count.is_some() && ctx.out.protocol() == Protocol::Resp3;
    pop(ctx, &key, from, count.unwrap_or(1), if pairs { Scores::Pairs } else { Scores::Flat })
}

/// Removes up to `count` members and writes them, nearest to the end first; an empty array where there are none.
fn pop(ctx: &mut Context<'_>, key: &Key<'_>, from: Direction, count: usize, scores: Scores) -> Reply {
    let count = len_at(ctx, key)?.unwrap_or(0).min(count);
    scores.begin(ctx.out, count);
    if count > 0 {
        take(ctx, key, from, count, scores)?;
    }
    DONE
}

/// How many members there are at a key, if it exists.
pub(super) fn len_at(ctx: &mut Context<'_>, key: &Key<'_>) -> Result<Option<usize>, Error> {
    Ok(ctx.db.look(key).map(zset).transpose()?.map(ZSetRef::len))
}

/// Removes `count` members, of which there are so many, and writes each.
pub(super) fn take(
    ctx: &mut Context<'_>,
    key: &Key<'_>,
    from: Direction,
    count: usize,
    scores: Scores,
) -> Result<(), Error> {
    let out = &mut *ctx.out;
    remove_with(&mut ctx.db, key, event(from), |zset| {
        let len = zset.len();
        let (first, span) = match from {
            Direction::Up => (0, 0..count),
            Direction::Down => (len - 1, len - count..len),
        };
        zset.view().iter(first, from).take(count).for_each(|found| scores.write(out, found));
        zset.remove_range(span);
        count
    })?;
    Ok(())
}

/// Removes members of the first sorted set that is there; replies with its key and them.
pub const ZMPOP: Command = Command {
    name: "ZMPOP",
    since: "7.0.0",
    arity: Arity::AtLeast(4),
    flags: &[Flag::Write, Flag::MovableKeys],
    keys: &[Keys::Counted { count: 1, first: 2, step: 1, access: Access::TAKE }],
    usage: "numkeys key... where(MIN | MAX) [COUNT count]",
    summary: "Returns the highest- or lowest-scoring members from one or more sorted sets after removing them. Deletes the sorted set if the last member was popped.",
    complexity: "O(K) + O(M*log(N)) where K is the number of provided keys, N being the number of elements in the sorted set, and M being the number of elements popped.",
    run: zmpop,
    ..SORTED_SET
};

/// What ZMPOP and BZMPOP ask for: keys, an end, how many.
pub(super) struct Wish {
    /// The arguments that are keys.
    pub keys: std::ops::Range<usize>,
    from: Direction,
    count: usize,
}

impl Wish {
    /// Reads it from the number of keys at argument `at` on.
    pub fn parse(args: &Args<'_>, at: usize) -> Result<Wish, Error> {
        let positive = |i: usize, error: &'static str| {
            parse_i64(args.at(i)).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0).ok_or(Error::text(error))
        };
        let keys = positive(at, "ERR numkeys should be greater than 0")?;
        let end = keys.checked_add(at + 1).filter(|end| *end < args.len()).ok_or(Error::Syntax)?;
        let from = end_of(args.at(end))?;
        let count = match args.len() - end - 1 {
            0 => 1,
            n if n >= 2 && args.is(end + 1, "COUNT") => {
                // A count that is no good is found before the words behind it are.
                let count = positive(end + 2, "ERR count should be greater than 0")?;
                if n > 2 {
                    return Err(Error::Syntax);
                }
                count
            }
            _ => return Err(Error::Syntax),
        };
        Ok(Wish { keys: at + 1..end, from, count })
    }

    /// Serves it from a sorted set, if there is one; returns whether there is.
    pub fn serve(&self, ctx: &mut Context<'_>, key: &Key<'_>) -> Result<bool, Error> {
        let Some(len) = len_at(ctx, key)? else { return Ok(false) };
        let count = self.count.min(len);
        ctx.out.array(2);
        ctx.out.bulk(key.bytes);
        pop(ctx, key, self.from, count, Scores::Pairs)?;
        let name = event(self.from).to_uppercase().into_bytes();
        ctx.db.effects.log_as(|| vec![vec![name, key.bytes.to_vec(), count.to_string().into_bytes()]]);
        Ok(true)
    }

    /// Serves it from the first sorted set that is there; returns whether there is one.
    pub fn serve_first(&self, ctx: &mut Context<'_>, args: &Args<'_>) -> Result<bool, Error> {
        for i in self.keys.clone() {
            let key = args.key(&ctx.db, i);
            if self.serve(ctx, &key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn zmpop(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    if !Wish::parse(args, 1)?.serve_first(ctx, args)? {
        ctx.out.null_array();
    }
    DONE
}

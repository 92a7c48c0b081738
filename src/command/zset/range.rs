//! Members by range: of ranks, of scores, of bytes. Returned, counted, stored, removed.
//!
//! Every range is first a span of positions (`Range::span`); all commands of this file work on that.

use std::cmp::Ordering;
use std::ops;

use crate::command::args::{Args, word};
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::table::Command;
use crate::command::zset::{SORTED_SET, Scores, limits, remove_with, store, zset};
use crate::spec::{Access, Arity, Flag, Keys};
use crate::stdx::number::{parse_f64, parse_i64};
use crate::types::listpack::Item;
use crate::types::zset::view::ZSetRef;
use crate::types::zset::{Direction, ZSet};

/// This file's commands.
pub const COMMANDS: &[Command] = &[
    ZCOUNT,
    ZLEXCOUNT,
    ZRANGE,
    ZRANGEBYLEX,
    ZRANGEBYSCORE,
    ZRANGESTORE,
    ZREMRANGEBYLEX,
    ZREMRANGEBYRANK,
    ZREMRANGEBYSCORE,
    ZREVRANGE,
    ZREVRANGEBYLEX,
    ZREVRANGEBYSCORE,
];

/// What a range is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Bytes,
}

/// The end of a range of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LexEnd<'a> {
    /// `-`
    Lowest,
    /// `+`
    Highest,
    /// `[bytes`
    With(&'a [u8]),
    /// `(bytes`
    Without(&'a [u8]),
}

/// A range of members.
#[derive(Debug, Clone, Copy)]
enum Range<'a> {
    /// From one position to another, both included, negative ones counted from the end.
    Rank(i64, i64),
    /// From one score to another, and whether each is excluded.
    Score((f64, bool), (f64, bool)),
    Lex(LexEnd<'a>, LexEnd<'a>),
}

/// A number as C reads it at the end of a range: nothing is 0, blanks may come first, too large is infinite.
fn parse_end(text: &[u8]) -> Option<f64> {
    // C's strings end at a zero byte.
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Some(0.0);
    }
    let text = text.trim_ascii_start();
    parse_f64(text).or_else(|| {
        // What is beyond a double is infinite, or zero; anything else that is no number begins otherwise.
        let digits = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
        let number = matches!(digits.first()?, b'0'..=b'9' | b'.') && !digits.contains(&b'_');
        std::str::from_utf8(text).ok().filter(|_| number)?.parse().ok()
    })
}

/// The score that ends a range, and whether it is excluded.
fn score_end(text: &[u8]) -> Result<(f64, bool), Error> {
    let (text, excluded) = text.strip_prefix(b"(").map_or((text, false), |text| (text, true));
    let score = parse_end(text).ok_or(Error::text("ERR min or max is not a float"))?;
    Ok((score, excluded))
}

fn lex_end(text: &[u8]) -> Result<LexEnd<'_>, Error> {
    match text {
        b"-" => Ok(LexEnd::Lowest),
        b"+" => Ok(LexEnd::Highest),
        [b'[', bytes @ ..] => Ok(LexEnd::With(bytes)),
        [b'(', bytes @ ..] => Ok(LexEnd::Without(bytes)),
        _ => Err(Error::text("ERR min or max not valid string range item")),
    }
}

impl<'a> Range<'a> {
    fn parse(by: By, min: &'a [u8], max: &'a [u8]) -> Result<Range<'a>, Error> {
        let integer = |text| parse_i64(text).ok_or(Error::NotInteger);
        Ok(match by {
            By::Rank => Range::Rank(integer(min)?, integer(max)?),
            By::Score => Range::Score(score_end(min)?, score_end(max)?),
            By::Bytes => Range::Lex(lex_end(min)?, lex_end(max)?),
        })
    }

    /// The positions of its members, from the lowest score on; ranks count in `direction`.
    fn span(&self, zset: ZSetRef<'_>, direction: Direction) -> ops::Range<usize> {
        match *self {
            Range::Rank(start, end) => {
                let len = zset.len() as i64;
                let from_end = |i: i64| if i < 0 { i.saturating_add(len).max(-1) } else { i };
                let (start, end) = (from_end(start).max(0), from_end(end).min(len - 1));
                if start > end {
                    return 0..0;
                }
                let (start, end) = (start as usize, end as usize + 1);
                match direction {
                    Direction::Up => start..end,
                    Direction::Down => zset.len() - end..zset.len() - start,
                }
            }
            Range::Score((min, above), (max, below)) => zset.span(|_, score| {
                if score < min || above && score == min {
                    Ordering::Less
                } else if score > max || below && score == max {
                    Ordering::Greater
                } else {
                    Ordering::Equal
                }
            }),
            Range::Lex(min, max) if is_backwards(min, max) || is_beside(zset, min, max) => 0..0,
            Range::Lex(min, max) => zset.span(|member, _| lex_side(member, min, max)),
        }
    }
}

/// Whether nothing can be in a range of bytes. Told apart because scores that differ put members out of the order of
/// their bytes, and then what is found between two ends depends on how one searches.
fn is_backwards(min: LexEnd<'_>, max: LexEnd<'_>) -> bool {
    match (min, max) {
        (LexEnd::Highest, LexEnd::Highest) | (LexEnd::Lowest, LexEnd::Lowest) => false,
        (LexEnd::Highest, _) | (_, LexEnd::Lowest) => true,
        (LexEnd::Lowest, _) | (_, LexEnd::Highest) => false,
        (LexEnd::With(min), LexEnd::With(max)) => min > max,
        (LexEnd::With(min) | LexEnd::Without(min), LexEnd::With(max) | LexEnd::Without(max)) => min >= max,
    }
}

/// Whether the first member is above a range of bytes, or the last one below it: then nothing is found in it, whatever
/// is between these two, whose scores may differ.
fn is_beside(zset: ZSetRef<'_>, min: LexEnd<'_>, max: LexEnd<'_>) -> bool {
    let is_at = |position: usize, side: Ordering| {
        zset.at(position).is_none_or(|(member, _)| lex_side(member, min, max) == side)
    };
    is_at(0, Ordering::Greater) || is_at(zset.len().saturating_sub(1), Ordering::Less)
}

fn lex_side(member: Item<'_>, min: LexEnd<'_>, max: LexEnd<'_>) -> Ordering {
    let below = match min {
        LexEnd::Lowest => false,
        LexEnd::Highest => true,
        LexEnd::With(bytes) => ZSet::compare(member, bytes).is_lt(),
        LexEnd::Without(bytes) => ZSet::compare(member, bytes).is_le(),
    };
    let above = match max {
        LexEnd::Lowest => true,
        LexEnd::Highest => false,
        LexEnd::With(bytes) => ZSet::compare(member, bytes).is_gt(),
        LexEnd::Without(bytes) => ZSet::compare(member, bytes).is_ge(),
    };
    match (below, above) {
        (true, _) => Ordering::Less,
        (_, true) => Ordering::Greater,
        _ => Ordering::Equal,
    }
}

/// What one of the ZRANGE commands was asked for.
struct Query<'a> {
    range: Range<'a>,
    direction: Direction,
    /// How many to skip; negative: nothing is left.
    offset: i64,
    /// How many at most; negative: all.
    count: i64,
    with_scores: bool,
}

/// What a command's name says already; the rest are options.
#[derive(Clone, Copy)]
struct Form {
    by: Option<By>,
    direction: Option<Direction>,
    store: bool,
}

impl<'a> Query<'a> {
    /// Reads key, ends and options from argument `first` on.
    fn parse(args: &Args<'a>, first: usize, form: Form) -> Result<Query<'a>, Error> {
        let (mut by, mut direction, mut with_scores) = (form.by, form.direction, false);
        let (mut offset, mut count) = (0, -1);
        let mut i = first + 3;
        while i < args.len() {
            match word(args.at(i), &["WITHSCORES", "LIMIT", "REV", "BYLEX", "BYSCORE"]) {
                Some("WITHSCORES") if !form.store => with_scores = true,
                Some("LIMIT") if i + 2 < args.len() => {
                    (offset, count) = (args.integer(i + 1)?, args.integer(i + 2)?);
                    i += 2;
                }
                Some("REV") if direction.is_none() => direction = Some(Direction::Down),
                Some("BYLEX") if by.is_none() => by = Some(By::Bytes),
                Some("BYSCORE") if by.is_none() => by = Some(By::Score),
                _ => return Err(Error::Syntax),
            }
            i += 1;
        }
        let (by, direction) = (by.unwrap_or(By::Rank), direction.unwrap_or(Direction::Up));
        // A limit of -1 is none.
        if count != -1 && by == By::Rank {
            return Err(Error::text(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && by == By::Bytes {
            return Err(Error::text("ERR syntax error, WITHSCORES not supported in combination with BYLEX"));
        }
        let (min, max) = match direction {
            Direction::Down if by != By::Rank => (first + 2, first + 1),
            _ => (first + 1, first + 2),
        };
        let range = Range::parse(by, args.at(min), args.at(max))?;
        if by == By::Rank {
            offset = 0;
        }
        Ok(Query { range, direction, offset, count, with_scores })
    }

    /// The position of the first member that is asked for, seen in the query's direction, and how many there are.
    fn find(&self, zset: ZSetRef<'_>) -> (usize, usize) {
        let span = self.range.span(zset, self.direction);
        let skip = usize::try_from(self.offset).unwrap_or(usize::MAX);
        let left = span.len().saturating_sub(skip);
        let count = left.min(usize::try_from(self.count).unwrap_or(usize::MAX));
        if count == 0 {
            return (0, 0);
        }
        match self.direction {
            Direction::Up => (span.start + skip, count),
            Direction::Down => (span.end - 1 - skip, count),
        }
    }
}

/// Replies with members by range.
pub const ZRANGE: Command = Command {
    name: "ZRANGE",
    arity: Arity::AtLeast(4),
    flags: &[Flag::ReadOnly],
    usage: "key start stop [sortby(BYSCORE | BYLEX)]@6.2.0 [REV]@6.2.0 [LIMIT limit{offset count}]@6.2.0 [WITHSCORES]",
    summary: "Returns members in a sorted set within a range of indexes.",
    complexity: "O(log(N)+M) with N being the number of elements in the sorted set and M the number of elements returned.",
    history: &[("6.2.0", "Added the `REV`, `BYSCORE`, `BYLEX` and `LIMIT` options.")],
    run: |ctx, args| query(ctx, args, Form { by: None, direction: None, store: false }),
    ..SORTED_SET
};

/// ZRANGE by rank from the highest score on.
pub const ZREVRANGE: Command = Command {
    name: "ZREVRANGE",
    usage: "key start:integer stop:integer [WITHSCORES]",
    summary: "Returns members in a sorted set within a range of indexes in reverse order.",
    history: &[],
    deprecated: Some(("6.2.0", "`ZRANGE` with the `REV` argument")),
    run: |ctx, args| query(ctx, args, Form { by: Some(By::Rank), direction: Some(Direction::Down), store: false }),
    ..ZRANGE
};

/// ZRANGE by score.
pub const ZRANGEBYSCORE: Command = Command {
    name: "ZRANGEBYSCORE",
    since: "1.0.5",
    usage: "key min:double max:double [WITHSCORES]@2.0.0 [LIMIT limit{offset count}]",
    summary: "Returns members in a sorted set within a range of scores.",
    complexity: "O(log(N)+M) with N being the number of elements in the sorted set and M the number of elements being returned. If M is constant (e.g. always asking for the first 10 elements with LIMIT), you can consider it O(log(N)).",
    history: &[("2.0.0", "Added the `WITHSCORES` modifier.")],
    deprecated: Some(("6.2.0", "`ZRANGE` with the `BYSCORE` argument")),
    run: |ctx, args| query(ctx, args, Form { by: Some(By::Score), direction: Some(Direction::Up), store: false }),
    ..ZRANGE
};

/// ZRANGE by score from the highest score on; the higher end comes first.
pub const ZREVRANGEBYSCORE: Command = Command {
    name: "ZREVRANGEBYSCORE",
    since: "2.2.0",
    usage: "key max:double min:double [WITHSCORES] [LIMIT limit{offset count}]",
    summary: "Returns members in a sorted set within a range of scores in reverse order.",
    history: &[("2.1.6", "`min` and `max` can be exclusive.")],
    deprecated: Some(("6.2.0", "`ZRANGE` with the `REV` and `BYSCORE` arguments")),
    run: |ctx, args| query(ctx, args, Form { by: Some(By::Score), direction: Some(Direction::Down), store: false }),
    ..ZRANGEBYSCORE
};

/// ZRANGE by bytes.
pub const ZRANGEBYLEX: Command = Command {
    name: "ZRANGEBYLEX",
    since: "2.8.9",
    usage: "key min max [LIMIT limit{offset count}]",
    summary: "Returns members in a sorted set within a lexicographical range.",
    complexity: "O(log(N)+M) with N being the number of elements in the sorted set and M the number of elements being returned. If M is constant (e.g. always asking for the first 10 elements with LIMIT), you can consider it O(log(N)).",
    history: &[],
    deprecated: Some(("6.2.0", "`ZRANGE` with the `BYLEX` argument")),
    run: |ctx, args| query(ctx, args, Form { by: Some(By::Bytes), direction: Some(Direction::Up), store: false }),
    ..ZRANGE
};

/// ZRANGE by bytes from the highest on; the higher end comes first.
pub const ZREVRANGEBYLEX: Command = Command {
    name: "ZREVRANGEBYLEX",
    usage: "key max min [LIMIT limit{offset count}]",
    summary: "Returns members in a sorted set within a lexicographical range in reverse order.",
    deprecated: Some(("6.2.0", "`ZRANGE` with the `REV` and `BYLEX` arguments")),
    run: |ctx, args| query(ctx, args, Form { by: Some(By::Bytes), direction: Some(Direction::Down), store: false }),
    ..ZRANGEBYLEX
};

fn query(ctx: &mut Context<'_>, args: &Args<'_>, form: Form) -> Reply {
    let query = Query::parse(args, 1, form)?;
    let key = args.key(&ctx.db, 1);
    let Some(zset) = ctx.db.read(&key).map(zset).transpose()? else {
        ctx.out.array(0);
        return DONE;
    };
    let (first, count) = query.find(zset);
    let scores = Scores::asked(query.with_scores, ctx.out);
    scores.begin(ctx.out, count);
    zset.iter(first, query.direction).take(count).for_each(|found| scores.write(ctx.out, found));
    DONE
}

/// Stores members by range; replies how many.
pub const ZRANGESTORE: Command = Command {
    name: "ZRANGESTORE",
    since: "6.2.0",
    arity: Arity::AtLeast(5),
    flags: &[Flag::Write, Flag::DenyOom],
    keys: &[Keys::At { first: 1, access: Access::OVERWRITE }, Keys::At { first: 2, access: Access::READ }],
    usage: "dst:key src:key min max [sortby(BYSCORE | BYLEX)] [REV] [LIMIT limit{offset count}]",
    summary: "Stores a range of members from sorted set in a key.",
    complexity: "O(log(N)+M) with N being the number of elements in the sorted set and M the number of elements stored into the destination key.",
    history: &[],
    run: zrangestore,
    ..ZRANGE
};

fn zrangestore(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let query = Query::parse(args, 2, Form { by: None, direction: None, store: true })?;
    let (target, source) = (args.key(&ctx.db, 1), args.key(&ctx.db, 2));
    let limits = limits(ctx);
    let mut result = ZSet::default();
    if let Some(zset) = ctx.db.read(&source).map(zset).transpose()? {
        let (first, count) = query.find(zset);
        result.make_room(count, 0, limits);
        for (member, score) in zset.iter(first, query.direction).take(count) {
            result.insert(&member.to_vec(), score, limits);
        }
    }
    let len = result.len();
    store(ctx, &target, result, "zrangestore");
    ctx.out.integer(len as i64);
    DONE
}

/// Replies how many members have scores in a range.
pub const ZCOUNT: Command = Command {
    name: "ZCOUNT",
    since: "2.0.0",
    arity: Arity::Exactly(4),
    usage: "key min:double max:double",
    summary: "Returns the count of members in a sorted set that have scores within a range.",
    complexity: "O(log(N)) with N being the number of elements in the sorted set.",
    run: |ctx, args| count(ctx, args, By::Score),
    ..SORTED_SET
};

/// Replies how many members are in a range of bytes.
pub const ZLEXCOUNT: Command = Command {
    name: "ZLEXCOUNT",
    since: "2.8.9",
    usage: "key min max",
    summary: "Returns the number of members in a sorted set within a lexicographical range.",
    run: |ctx, args| count(ctx, args, By::Bytes),
    ..ZCOUNT
};

fn count(ctx: &mut Context<'_>, args: &Args<'_>, by: By) -> Reply {
    let range = Range::parse(by, args.at(2), args.at(3))?;
    let key = args.key(&ctx.db, 1);
    let zset = ctx.db.read(&key).map(zset).transpose()?;
    ctx.out.integer(zset.map_or(0, |zset| range.span(zset, Direction::Up).len()) as i64);
    DONE
}

/// Removes members by rank; replies how many.
pub const ZREMRANGEBYRANK: Command = Command {
    name: "ZREMRANGEBYRANK",
    since: "2.0.0",
    arity: Arity::Exactly(4),
    flags: &[Flag::Write],
    keys: &[Keys::At { first: 1, access: Access::DELETE }],
    usage: "key start:integer stop:integer",
    summary: "Removes members in a sorted set within a range of indexes. Deletes the sorted set if all members were removed.",
    complexity: "O(log(N)+M) with N being the number of elements in the sorted set and M the number of elements removed by the operation.",
    run: |ctx, args| remove(ctx, args, By::Rank, "zremrangebyrank"),
    ..SORTED_SET
};

/// Removes members by score; replies how many.
pub const ZREMRANGEBYSCORE: Command = Command {
    name: "ZREMRANGEBYSCORE",
    since: "1.2.0",
    usage: "key min:double max:double",
    summary: "Removes members in a sorted set within a range of scores. Deletes the sorted set if all members were removed.",
    run: |ctx, args| remove(ctx, args, By::Score, "zremrangebyscore"),
    ..ZREMRANGEBYRANK
};

/// Removes members by their bytes; replies how many.
pub const ZREMRANGEBYLEX: Command = Command {
    name: "ZREMRANGEBYLEX",
    since: "2.8.9",
    usage: "key min max",
    summary: "Removes members in a sorted set within a lexicographical range. Deletes the sorted set if all members were removed.",
    run: |ctx, args| remove(ctx, args, By::Bytes, "zremrangebylex"),
    ..ZREMRANGEBYRANK
};

fn remove(ctx: &mut Context<'_>, args: &Args<'_>, by: By, event: &'static str) -> Reply {
    let range = Range::parse(by, args.at(2), args.at(3))?;
    let key = args.key(&ctx.db, 1);
    let removed = remove_with(&mut ctx.db, &key, event, |zset| {
        let span = range.span(zset.view(), Direction::Up);
        zset.remove_range(span.clone());
        span.len()
    })?;
    ctx.out.integer(removed as i64);
    DONE
}

//! Several sorted sets, or sets, made one: unions, intersections, differences.
//!
//! Sums depend on the order in which they are added up, so inputs are taken in Redis' order: the smallest first.

use std::collections::HashMap;

use ahash::RandomState;

use crate::command::args::{Args, word};
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::table::Command;
use crate::command::zset::{SORTED_SET, Scores, limits, store};
use crate::keyspace::entry::Value;
use crate::spec::{Access, Arity, Flag, Keys};
use crate::stdx::number::{parse_f64, parse_i64};
use crate::types::ObjectRef;
use crate::types::listpack::Item;
use crate::types::set::Probe;
use crate::types::zset::{Direction, ZSet};

/// This file's commands.
pub const COMMANDS: &[Command] = &[ZDIFF, ZDIFFSTORE, ZINTER, ZINTERCARD, ZINTERSTORE, ZUNION, ZUNIONSTORE];

/// What is made of the inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

/// What becomes of several scores of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, one: f64, other: f64) -> f64 {
        match self {
            // Two infinities of opposite signs.
            Aggregate::Sum if (one + other).is_nan() => 0.0,
            Aggregate::Sum => one + other,
            Aggregate::Min => {
                if other < one {
                    other
                } else {
                    one
                }
            }
            Aggregate::Max => {
                if other > one {
                    other
                } else {
                    one
                }
            }
        }
    }
}

/// Where the result goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destination {
    Reply,
    Key,
    /// Only how many there are is told.
    Count,
}

/// An input: a value, which may be of either kind, and what its scores are multiplied with.
#[derive(Clone, Copy)]
struct Input<'a> {
    value: Option<ObjectRef<'a>>,
    weight: f64,
}

impl Input<'_> {
    fn len(&self) -> usize {
        self.value.map_or(0, ObjectRef::len)
    }

    fn weigh(&self, score: f64) -> f64 {
        let score = score * self.weight;
        // Infinity times zero.
        if score.is_nan() { 0.0 } else { score }
    }

    /// The weighed score of a member, as others are to be aggregated with it: infinity times zero is still NaN, which
    /// a sum ends as zero and a minimum or maximum passes over. A set's members have 1.
    fn score(&self, member: &[u8]) -> Option<f64> {
        let score = match self.value? {
            ObjectRef::SortedSet(zset) => zset.score(member)?,
            ObjectRef::Set(set) if set.contains(&Probe::new(member)) => 1.0,
            _ => return None,
        };
        Some(score * self.weight)
    }

    /// Calls `f` for all members with their weighed scores, until it returns false.
    fn each(&self, mut f: impl FnMut(&[u8], f64) -> bool) {
        let mut visit = |member: Item<'_>, score: f64| match member {
            Item::Bytes(bytes) => f(bytes, self.weigh(score)),
            Item::Int(_) => f(&member.to_vec(), self.weigh(score)),
        };
        match self.value {
            Some(ObjectRef::SortedSet(zset)) => {
                _ = zset.iter(0, Direction::Up).all(|(member, score)| visit(member, score))
            }
            Some(ObjectRef::Set(set)) => _ = set.iter().all(|member| visit(member, 1.0)),
            _ => {}
        }
    }
}

/// What was asked for, as far as it can be read without looking at keys.
struct Options {
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
    /// 0 for none.
    limit: usize,
}

impl Options {
    fn parse(
        args: &Args<'_>,
        first: usize,
        keys: usize,
        operation: Operation,
        into: Destination,
    ) -> Result<Options, Error> {
        let mut options = Options { weights: vec![1.0; keys], aggregate: Aggregate::Sum, with_scores: false, limit: 0 };
        let combines = operation != Operation::Difference && into != Destination::Count;
        let mut i = first;
        while i < args.len() {
            let behind = args.len() - i - 1;
            match word(args.at(i), &["WEIGHTS", "AGGREGATE", "WITHSCORES", "LIMIT"]) {
                Some("WEIGHTS") if combines && behind >= keys => {
                    for (weight, arg) in options.weights.iter_mut().zip(args.from(i + 1)) {
                        *weight = parse_f64(arg).ok_or(Error::text("ERR weight value is not a float"))?;
                    }
                    i += keys;
                }
                Some("AGGREGATE") if combines && behind >= 1 => {
                    i += 1;
                    options.aggregate = match word(args.at(i), &["SUM", "MIN", "MAX"]) {
                        Some("SUM") => Aggregate::Sum,
                        Some("MIN") => Aggregate::Min,
                        Some(_) => Aggregate::Max,
                        None => return Err(Error::Syntax),
                    };
                }
                Some("WITHSCORES") if into == Destination::Reply => options.with_scores = true,
                Some("LIMIT") if into == Destination::Count && behind >= 1 => {
                    i += 1;
                    let limit = parse_i64(args.at(i)).and_then(|n| usize::try_from(n).ok());
                    options.limit = limit.ok_or(Error::text("ERR LIMIT can't be negative"))?;
                }
                _ => return Err(Error::Syntax),
            }
            i += 1;
        }
        Ok(options)
    }
}

/// Members with their scores, in no order yet.
type Combined = HashMap<Vec<u8>, f64, RandomState>;

/// Makes one of the inputs.
fn combine(inputs: &mut [Input<'_>], operation: Operation, aggregate: Aggregate) -> Combined {
    let mut result = Combined::default();
    if operation != Operation::Difference {
        inputs.sort_by_key(Input::len);
    }
    let Some((first, others)) = inputs.split_first() else { return result };
    match operation {
        Operation::Union => inputs.iter().for_each(|input| {
            input.each(|member, score| {
                match result.get_mut(member) {
                    Some(sum) => *sum = aggregate.of(*sum, score),
                    None => drop(result.insert(member.to_vec(), score)),
                }
                true
            });
        }),
        Operation::Intersection => first.each(|member, mut score| {
            if others.iter().all(|other| {
                other.score(member).is_some_and(|s| {
                    score = aggregate.of(score, s);
                    true
                })
            }) {
                result.insert(member.to_vec(), score);
            }
            true
        }),
        Operation::Difference => first.each(|member, score| {
            if others.iter().all(|other| other.score(member).is_none()) {
                result.insert(member.to_vec(), score);
            }
            true
        }),
    }
    result
}

/// How many members all inputs have, as far as `limit`, if that is not 0.
fn count_common(inputs: &mut [Input<'_>], limit: usize) -> usize {
    inputs.sort_by_key(Input::len);
    let Some((first, others)) = inputs.split_first() else { return 0 };
    let mut count = 0;
    first.each(|member, _| {
        count += usize::from(others.iter().all(|other| other.score(member).is_some()));
        limit == 0 || count < limit
    });
    count
}

/// Replies with the members of any of several sorted sets.
pub const ZUNION: Command = Command {
    name: "ZUNION",
    since: "6.2.0",
    arity: Arity::AtLeast(3),
    flags: &[Flag::ReadOnly, Flag::MovableKeys],
    keys: &[Keys::Counted { count: 1, first: 2, step: 1, access: Access::READ }],
    usage: "numkeys key... [WEIGHTS weight:integer...] [AGGREGATE aggregate(SUM | MIN | MAX)] [WITHSCORES]",
    summary: "Returns the union of multiple sorted sets.",
    complexity: "O(N)+O(M*log(M)) with N being the sum of the sizes of the input sorted sets, and M being the number of elements in the resulting sorted set.",
    run: |ctx, args| run(ctx, args, "zunion", Operation::Union, Destination::Reply),
    ..SORTED_SET
};

/// Replies with the members that all of several sorted sets have.
pub const ZINTER: Command = Command {
    name: "ZINTER",
    summary: "Returns the intersect of multiple sorted sets.",
    complexity: "O(N*K)+O(M*log(M)) worst case with N being the smallest input sorted set, K being the number of input sorted sets and M being the number of elements in the resulting sorted set.",
    run: |ctx, args| run(ctx, args, "zinter", Operation::Intersection, Destination::Reply),
    ..ZUNION
};

/// Replies with the members of the first sorted set that the others have not.
pub const ZDIFF: Command = Command {
    name: "ZDIFF",
    usage: "numkeys key... [WITHSCORES]",
    summary: "Returns the difference between multiple sorted sets.",
    complexity: "O(L + (N-K)log(N)) worst case where L is the total number of elements in all the sets, N is the size of the first set, and K is the size of the result set.",
    run: |ctx, args| run(ctx, args, "zdiff", Operation::Difference, Destination::Reply),
    ..ZUNION
};

/// Replies how many members all of several sorted sets have.
pub const ZINTERCARD: Command = Command {
    name: "ZINTERCARD",
    since: "7.0.0",
    usage: "numkeys key... [LIMIT limit:integer]",
    summary: "Returns the number of members of the intersect of multiple sorted sets.",
    complexity: "O(N*K) worst case with N being the smallest input sorted set, K being the number of input sorted sets.",
    run: |ctx, args| run(ctx, args, "zintercard", Operation::Intersection, Destination::Count),
    ..ZUNION
};

/// Stores what ZUNION replies with; replies how many members that is.
pub const ZUNIONSTORE: Command = Command {
    name: "ZUNIONSTORE",
    since: "2.0.0",
    arity: Arity::AtLeast(4),
    flags: &[Flag::Write, Flag::DenyOom, Flag::MovableKeys],
    keys: &[
        Keys::At { first: 1, access: Access::OVERWRITE },
        Keys::Counted { count: 2, first: 3, step: 1, access: Access::READ },
    ],
    usage: "destination:key numkeys key... [WEIGHTS weight:integer...] [AGGREGATE aggregate(SUM | MIN | MAX)]",
    summary: "Stores the union of multiple sorted sets in a key.",
    complexity: "O(N)+O(M log(M)) with N being the sum of the sizes of the input sorted sets, and M being the number of elements in the resulting sorted set.",
    run: |ctx, args| run(ctx, args, "zunionstore", Operation::Union, Destination::Key),
    ..SORTED_SET
};

/// Stores what ZINTER replies with; replies how many members that is.
pub const ZINTERSTORE: Command = Command {
    name: "ZINTERSTORE",
    summary: "Stores the intersect of multiple sorted sets in a key.",
    complexity: "O(N*K)+O(M*log(M)) worst case with N being the smallest input sorted set, K being the number of input sorted sets and M being the number of elements in the resulting sorted set.",
    run: |ctx, args| run(ctx, args, "zinterstore", Operation::Intersection, Destination::Key),
    ..ZUNIONSTORE
};

/// Stores what ZDIFF replies with; replies how many members that is.
pub const ZDIFFSTORE: Command = Command {
    name: "ZDIFFSTORE",
    since: "6.2.0",
    usage: "destination:key numkeys key...",
    summary: "Stores the difference of multiple sorted sets in a key.",
    complexity: "O(L + (N-K)log(N)) worst case where L is the total number of elements in all the sets, N is the size of the first set, and K is the size of the result set.",
    run: |ctx, args| run(ctx, args, "zdiffstore", Operation::Difference, Destination::Key),
    ..ZUNIONSTORE
};

fn run(ctx: &mut Context<'_>, args: &Args<'_>, name: &'static str, operation: Operation, into: Destination) -> Reply {
    // The number of keys; where it is stored, the target comes before it.
    let at = if into == Destination::Key { 2 } else { 1 };
    let keys = args.integer(at)?;
    if keys < 1 {
        return Err(Error::text(format!("ERR at least 1 input key is needed for '{name}' command")));
    }
    let keys = usize::try_from(keys).ok().filter(|keys| *keys < args.len() - at).ok_or(Error::Syntax)?;
    // Keys of the wrong type are complained about before options are.
    for i in at + 1..=at + keys {
        let key = args.key(&ctx.db, i);
        if let Some(entry) = ctx.db.read(&key) {
            input(entry.value())?;
        }
    }
    let options = Options::parse(args, at + 1 + keys, keys, operation, into)?;
    let limits = limits(ctx);
    let mut inputs = Vec::with_capacity(keys);
    for (i, weight) in (at + 1..).zip(&options.weights) {
        let entry = ctx.db.beside(&args.key(&ctx.db, i));
        inputs.push(Input { value: entry.map(|entry| input(entry.value())).transpose()?, weight: *weight });
    }
    if into == Destination::Count {
        ctx.out.integer(count_common(&mut inputs, options.limit) as i64);
        return DONE;
    }
    let mut result: Vec<_> = combine(&mut inputs, operation, options.aggregate).into_iter().collect();
    let order =
        |(a, s): &(Vec<u8>, f64), (b, t): &(Vec<u8>, f64)| (s + 0.0).total_cmp(&(t + 0.0)).then_with(|| a.cmp(b));
    result.sort_unstable_by(order);
    if into == Destination::Reply {
        let scores = Scores::asked(options.with_scores, ctx.out);
        scores.begin(ctx.out, result.len());
        result.iter().for_each(|(member, score)| scores.write(ctx.out, (Item::Bytes(member), *score)));
        return DONE;
    }
    let mut zset = ZSet::default();
    zset.make_room(result.len(), result.iter().map(|(member, _)| member.len()).max().unwrap_or(0), limits);
    result.iter().for_each(|(member, score)| zset.insert(member, *score, limits));
    let target = args.key(&ctx.db, 1);
    store(ctx, &target, zset, name);
    ctx.out.integer(result.len() as i64);
    DONE
}

/// A value that can be an input.
fn input(value: Value<'_>) -> Result<ObjectRef<'_>, Error> {
    match value {
        Value::Object(object @ (ObjectRef::SortedSet(_) | ObjectRef::Set(_))) => Ok(object),
        _ => Err(Error::WrongType),
    }
}

//! Members at random, and all of them in pieces.

use crate::command::args::Args;
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::scan::scan_value;
use crate::command::table::Command;
use crate::command::zset::{SORTED_SET, Scores, write_member, zset};
use crate::spec::{Arity, Flag};
use crate::stdx::number::append_i64;
use crate::stdx::number::double::{append_double, append_double_17};
use crate::types::listpack::Item;
use crate::types::zset::Direction;
use crate::types::zset::view::ZSetRef;

/// This file's commands.
pub const COMMANDS: &[Command] = &[ZRANDMEMBER, ZSCAN];

/// Replies with a random member, or some; a negative count may bring one more than once.
pub const ZRANDMEMBER: Command = Command {
    name: "ZRANDMEMBER",
    since: "6.2.0",
    arity: Arity::AtLeast(2),
    flags: &[Flag::ReadOnly],
    usage: "key [options{count [WITHSCORES]}]",
    summary: "Returns one or more random members from a sorted set.",
    complexity: "O(N) where N is the number of members returned",
    tips: &["nondeterministic_output"],
    run: zrandmember,
    ..SORTED_SET
};

fn zrandmember(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let count = match args.opt(2) {
        Some(_) => match args.integer(2)? {
            i64::MIN => {
                return Err(Error::text(
                    "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
                ));
            }
            count => Some(count),
        },
        None => None,
    };
    if args.len() > 4 || args.len() == 4 && !args.is(3, "WITHSCORES") {
        return Err(Error::Syntax);
    }
    let with_scores = args.len() == 4;
    // Twice as many must be a number too.
    if with_scores && count.is_some_and(|n| !(-(i64::MAX / 2)..=i64::MAX / 2).contains(&n)) {
        return Err(Error::OutOfRange);
    }
    let key = args.key(&ctx.db, 1);
    let found = ctx.db.read(&key).map(zset).transpose()?.filter(|zset| !zset.is_empty());
    let Some(count) = count else {
        let mut random = fastrand::Rng::new();
        match found.and_then(|zset| zset.at(random.usize(..zset.len()))) {
            Some((member, _)) => write_member(ctx.out, member),
            None => ctx.out.null(),
        }
        return DONE;
    };
    let Some(zset) = found.filter(|_| count != 0) else {
        ctx.out.array(0);
        return DONE;
    };
    let scores = Scores::asked(with_scores, ctx.out);
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let mut random = fastrand::Rng::new();
    if count < 0 {
        scores.begin(ctx.out, wanted);
        (0..wanted).filter_map(|_| zset.at(random.usize(..zset.len()))).for_each(|found| scores.write(ctx.out, found));
    } else if wanted >= zset.len() {
        scores.begin(ctx.out, zset.len());
        zset.iter(0, Direction::Up).for_each(|found| scores.write(ctx.out, found));
    } else {
        scores.begin(ctx.out, wanted);
        draw(zset, wanted, &mut random)
            .into_iter()
            .filter_map(|at| zset.at(at))
            .for_each(|found| scores.write(ctx.out, found));
    }
    DONE
}

/// So many different positions, each set of them as likely as any other. Robert Floyd's way: as many draws as
/// positions, however many there are to choose from.
fn draw(zset: ZSetRef<'_>, wanted: usize, random: &mut fastrand::Rng) -> Vec<usize> {
    let len = zset.len();
    let mut drawn = std::collections::HashSet::with_capacity(wanted);
    for most in len - wanted..len {
        let at = random.usize(..=most);
        if !drawn.insert(at) {
            drawn.insert(most);
        }
    }
    drawn.into_iter().collect()
}

/// Replies with some members and their scores, and a cursor from which to go on.
pub const ZSCAN: Command = Command {
    name: "ZSCAN",
    since: "2.8.0",
    arity: Arity::AtLeast(3),
    flags: &[Flag::ReadOnly],
    usage: "key cursor [MATCH pattern] [COUNT count] [NOSCORES]",
    summary: "Iterates over members and scores of a sorted set.",
    complexity: "O(1) for every call. O(N) for a complete iteration, including enough command calls for the cursor to return back to 0. N is the number of elements inside the collection.",
    tips: &["nondeterministic_output"],
    run: zscan,
    ..SORTED_SET
};

fn zscan(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    scan_value(ctx, args, zset, |zset, cursor, count, found| {
        // Redis prints the scores of a small set as they stand in it, and those of a large one with all digits.
        let append = if zset.encoding() == "listpack" { append_double } else { append_double_17 };
        let (mut name, mut text) = (Vec::new(), Vec::new());
        let next = zset.scan(cursor, count, |member, score| {
            let member = match member {
                Item::Bytes(bytes) => bytes,
                Item::Int(n) => {
                    name.clear();
                    append_i64(&mut name, n);
                    &name
                }
            };
            if found.wants(member) {
                found.add(member);
                if !found.names_only {
                    text.clear();
                    append(&mut text, score);
                    found.add(&text);
                }
            }
        });
        next.unwrap_or(0)
    })
}

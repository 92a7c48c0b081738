//! Sorted set commands that wait until there is a member.

use crate::command::args::Args;
use crate::command::blocking::{Served, Wait, until_seconds};
use crate::command::context::{Context, DONE, Outcome, Reply};
use crate::command::error::Error;
use crate::command::table::Command;
use crate::command::zset::Scores;
use crate::command::zset::pop::{Wish, ZMPOP, ZPOPMIN, event, len_at, take};
use crate::keyspace::db::Key;
use crate::keyspace::hold::ShardSet;
use crate::resp::reply::Output;
use crate::spec::{Access, Arity, Flag, Keys};
use crate::types::object::Kind;
use crate::types::zset::Direction;

/// This file's commands.
pub const COMMANDS: &[Command] = &[BZMPOP, BZPOPMAX, BZPOPMIN];

/// Removes the member with the lowest score from the first sorted set that is there; replies with key, member and score.
pub const BZPOPMIN: Command = Command {
    name: "BZPOPMIN",
    arity: Arity::AtLeast(3),
    flags: &[Flag::Write, Flag::Fast, Flag::Blocking],
    keys: &[Keys::Range { first: 1, last: -2, step: 1, access: Access::TAKE }],
    usage: "key... timeout:double",
    summary: "Removes and returns the member with the lowest score from one or more sorted sets. Blocks until a member is available otherwise. Deletes the sorted set if the last element was popped.",
    complexity: "O(log(N)) with N being the number of elements in the sorted set.",
    history: &[("6.0.0", "`timeout` is interpreted as a double instead of an integer.")],
    run: |ctx, args| pop_or_wait(ctx, args, Direction::Up),
    ..ZPOPMIN
};

/// BZPOPMIN from the highest score.
pub const BZPOPMAX: Command = Command {
    name: "BZPOPMAX",
    summary: "Removes and returns the member with the highest score from one or more sorted sets. Blocks until a member available otherwise.  Deletes the sorted set if the last element was popped.",
    run: |ctx, args| pop_or_wait(ctx, args, Direction::Down),
    ..BZPOPMIN
};

/// ZMPOP that waits.
pub const BZMPOP: Command = Command {
    name: "BZMPOP",
    arity: Arity::AtLeast(5),
    flags: &[Flag::Write, Flag::Blocking, Flag::MovableKeys],
    keys: &[Keys::Counted { count: 2, first: 3, step: 1, access: Access::TAKE }],
    usage: "timeout:double numkeys key... where(MIN | MAX) [COUNT count]",
    summary: "Removes and returns a member by score from one or more sorted sets. Blocks until a member is available otherwise. Deletes the sorted set if the last element was popped.",
    run: bzmpop,
    ..ZMPOP
};

/// Waits for a sorted set under one of the keys, from which `serve` takes.
fn wait(
    keys: impl Iterator<Item = Vec<u8>>,
    until_ms: Option<u64>,
    mut serve: impl FnMut(&mut Context<'_>, &Key<'_>) -> Result<bool, Error> + Send + 'static,
) -> Reply {
    Ok(Outcome::Wait(Box::new(Wait {
        keys: keys.collect(),
        until_ms,
        also: ShardSet::default(),
        serve: Box::new(move |ctx, key| match len_at(ctx, key) {
            Ok(Some(_)) => serve(ctx, key).map(|_| Served::Yes),
            // Who waits for a sorted set leaves other types alone.
            Ok(None) | Err(_) => Ok(Served::No),
        }),
        timed_out: Output::null_array,
        answer: None,
        denied: Output::null_array,
        kind: Some(Kind::SortedSet),
        gone: None,
        aside: None,
    })))
}

fn pop_or_wait(ctx: &mut Context<'_>, args: &Args<'_>, from: Direction) -> Reply {
    let last = args.len() - 1;
    let until_ms = until_seconds(args.at(last), ctx.db.now_ms())?;
    for i in 1..last {
        let key = args.key(&ctx.db, i);
        if pop_one(ctx, &key, from)? {
            return DONE;
        }
    }
    wait((1..last).map(|i| args.at(i).to_vec()), until_ms, move |ctx, key| pop_one(ctx, key, from))
}

/// Removes one member and writes the key and it, if there is one; returns whether there is.
fn pop_one(ctx: &mut Context<'_>, key: &Key<'_>, from: Direction) -> Result<bool, Error> {
    if len_at(ctx, key)?.is_none() {
        return Ok(false);
    }
    ctx.out.array(3);
    ctx.out.bulk(key.bytes);
    ctx.db.effects.log_as(|| vec![vec![event(from).to_uppercase().into_bytes(), key.bytes.to_vec()]]);
    take(ctx, key, from, 1, Scores::Flat)?;
    Ok(true)
}

fn bzmpop(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let until_ms = until_seconds(args.at(1), ctx.db.now_ms())?;
    let wish = Wish::parse(args, 2)?;
    if wish.serve_first(ctx, args)? {
        return DONE;
    }
    let keys = wish.keys.clone().map(|i| args.at(i).to_vec());
    wait(keys, until_ms, move |ctx, key| wish.serve(ctx, key))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::Bench;
    use crate::resp::reply::Protocol;

    #[test]
    fn who_came_first_is_served_first_and_the_log_tells_what_was_popped() {
        let mut bench = Bench::new();
        let mut clients: Vec<Bench> = (0..3).map(|_| bench.another()).collect();
        let lines = ["BZPOPMIN a b 0", "BZPOPMAX b 0", "BZMPOP 0 2 c b MAX COUNT 5"];
        for (client, line) in clients.iter_mut().zip(lines) {
            assert_eq!(client.run(line), "");
            assert!(client.is_waiting());
        }
        let log = bench.log();
        assert_eq!(bench.run("ZADD b 1 one 2 two 3 three 4 four"), ":4|");
        assert_eq!(clients[0].woken().unwrap(), "*3|$1|b|$3|one|$1|1|");
        assert_eq!(clients[1].woken().unwrap(), "*3|$1|b|$4|four|$1|4|");
        assert_eq!(clients[2].woken().unwrap(), "*2|$1|b|*2|*2|$5|three|$1|3|*2|$3|two|$1|2|");
        assert_eq!(bench.run("EXISTS b"), ":0|");
        assert_eq!(log(), "SELECT 0|ZADD b 1 one 2 two 3 three 4 four|ZPOPMIN b|ZPOPMAX b|ZPOPMAX b 2");
        assert_eq!(bench.run("INFO clients").matches("blocked_clients:0").count(), 1);
    }

    #[test]
    fn whoever_finds_a_member_does_not_wait() {
        let mut bench = Bench::new();
        bench.run("ZADD b 1 one 2 two 3 three");
        let log = bench.log();
        assert_eq!(bench.run("BZPOPMIN a b 0"), "*3|$1|b|$3|one|$1|1|");
        assert_eq!(bench.run("BZMPOP 0 2 a b MIN"), "*2|$1|b|*1|*2|$3|two|$1|2|");
        bench.out_as(Protocol::Resp3);
        assert_eq!(bench.run("BZPOPMAX b a 0"), "*3|$1|b|$5|three|,3|");
        assert_eq!(log(), "SELECT 0|ZPOPMIN b|ZPOPMIN b 1|ZPOPMAX b");
    }

    #[test]
    fn what_is_no_sorted_set_wakes_nobody() {
        let mut bench = Bench::new();
        let [mut zset, mut list] = [bench.another(), bench.another()];
        zset.run("BZPOPMIN k 0");
        list.run("BLPOP k 0");
        bench.run("SET k v");
        bench.run("DEL k");
        assert_eq!((zset.woken(), list.woken()), (None, None));
        bench.run("RPUSH k x");
        assert_eq!(list.woken().unwrap(), "*2|$1|k|$1|x|");
        assert_eq!(zset.woken(), None);
        bench.run("ZADD s 5 m");
        bench.run("ZUNIONSTORE k 1 s");
        assert_eq!(zset.woken().unwrap(), "*3|$1|k|$1|m|$1|5|");
        bench.run("SET k v");
        let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value|";
        assert_eq!(bench.run("BZPOPMAX none k 0"), wrong);
        assert_eq!(bench.run("BZMPOP 0 1 k MIN"), wrong);
        for line in ["MULTI", "BZPOPMIN none 0", "BZMPOP 0 1 none MIN"] {
            bench.run(line);
        }
        assert_eq!(bench.run("EXEC"), "*2|*-1|*-1|");
    }
}

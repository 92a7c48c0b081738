//! List commands that wait until there is an element.

use crate::command::args::Args;
use crate::command::blocking::{Served, Wait, until_seconds};
use crate::command::context::{Context, DONE, Outcome, Reply};
use crate::command::error::Error;
use crate::command::list::{
    BASE, End, LMOVE, LMPOP, move_element, parse_lmpop, pop_first, pop_some, side_of, source_len,
};
use crate::command::table::Command;
use crate::keyspace::change::Effect;
use crate::keyspace::db::Key;
use crate::keyspace::hold::ShardSet;
use crate::resp::reply::Output;
use crate::spec::{Access, Arity, Flag, Keys};
use crate::types::object::Kind;

/// All commands of this file.
pub const COMMANDS: &[Command] = &[BLMOVE, BLMPOP, BLPOP, BRPOP, BRPOPLPUSH];

/// Since when timeouts may have a fraction.
const FRACTION: (&str, &str) = ("6.0.0", "`timeout` is interpreted as a double instead of an integer.");

/// Removes the first element of the first list that has one; replies with its key and it.
pub const BLPOP: Command = Command {
    name: "BLPOP",
    since: "2.0.0",
    arity: Arity::AtLeast(3),
    flags: &[Flag::Write, Flag::Blocking],
    keys: &[Keys::Range { first: 1, last: -2, step: 1, access: Access::TAKE }],
    usage: "key... timeout:double",
    summary: "Removes and returns the first element in a list. Blocks until an element is available otherwise. Deletes the list if the last element was popped.",
    complexity: "O(N) where N is the number of provided keys.",
    history: &[FRACTION],
    run: |ctx, args| pop_or_wait(ctx, args, End::Head),
    ..BASE
};

/// BLPOP from the end.
pub const BRPOP: Command = Command {
    name: "BRPOP",
    summary: "Removes and returns the last element in a list. Blocks until an element is available otherwise. Deletes the list if the last element was popped.",
    run: |ctx, args| pop_or_wait(ctx, args, End::Tail),
    ..BLPOP
};

fn pop_or_wait(ctx: &mut Context<'_>, args: &Args<'_>, end: End) -> Reply {
    let last = args.len() - 1;
    let until_ms = until_seconds(args.at(last), ctx.db.now_ms())?;
    for i in 1..last {
        let key = args.key(&ctx.db, i);
        if source_len(ctx, &key)?.is_some() {
            pop_with_key(ctx, &key, end)?;
            return DONE;
        }
    }
    Ok(Outcome::Wait(Box::new(Wait {
        keys: (1..last).map(|i| args.at(i).to_vec()).collect(),
        until_ms,
        also: ShardSet::default(),
        serve: Box::new(move |ctx, key| match source_len(ctx, key) {
            Ok(Some(_)) => pop_with_key(ctx, key, end).map(|_| Served::Yes),
            // Who waits for a list leaves other types alone.
            Ok(None) | Err(_) => Ok(Served::No),
        }),
        timed_out: Output::null_array,
        answer: None,
        denied: Output::null_array,
        kind: Some(Kind::List),
        gone: None,
        aside: None,
    })))
}

/// Removes one element of a list that has some, and writes the key and it.
fn pop_with_key(ctx: &mut Context<'_>, key: &Key<'_>, end: End) -> Reply {
    ctx.out.array(2);
    ctx.out.bulk(key.bytes);
    let name = if end == End::Head { "LPOP" } else { "RPOP" };
    ctx.db.effects.log_as(|| vec![vec![name.into(), key.bytes.to_vec()]]);
    pop_some(ctx, key, end, 1)
}

/// LMPOP that waits.
pub const BLMPOP: Command = Command {
    name: "BLMPOP",
    arity: Arity::AtLeast(5),
    flags: &[Flag::Write, Flag::Blocking, Flag::MovableKeys],
    keys: &[Keys::Counted { count: 2, first: 3, step: 1, access: Access::TAKE }],
    usage: "timeout:double numkeys key... where(LEFT | RIGHT) [COUNT count]",
    summary: "Pops the first element from one of multiple lists. Blocks until an element is available otherwise. Deletes the list if the last element was popped.",
    run: blmpop,
    ..LMPOP
};

fn blmpop(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let until_ms = until_seconds(args.at(1), ctx.db.now_ms())?;
    let (keys, end, count) = parse_lmpop(args, 2)?;
    if pop_first(ctx, keys.clone().map(|i| args.at(i)), end, count)? {
        return DONE;
    }
    Ok(Outcome::Wait(Box::new(Wait {
        keys: keys.map(|i| args.at(i).to_vec()).collect(),
        until_ms,
        also: ShardSet::default(),
        serve: Box::new(move |ctx, key| match source_len(ctx, key) {
            Ok(Some(_)) => pop_first(ctx, std::iter::once(key.bytes), end, count).map(|_| Served::Yes),
            Ok(None) | Err(_) => Ok(Served::No),
        }),
        timed_out: Output::null_array,
        answer: None,
        denied: Output::null_array,
        kind: Some(Kind::List),
        gone: None,
        aside: None,
    })))
}

/// LMOVE that waits.
pub const BLMOVE: Command = Command {
    name: "BLMOVE",
    arity: Arity::Exactly(6),
    flags: &[Flag::Write, Flag::DenyOom, Flag::Blocking],
    usage: "source:key destination:key wherefrom(LEFT | RIGHT) whereto(LEFT | RIGHT) timeout:double",
    summary: "Pops an element from a list, pushes it to another list and returns it. Blocks until an element is available otherwise. Deletes the list if the last element was moved.",
    run: |ctx, args| {
        let (from, to) = (side_of(args.at(3))?, side_of(args.at(4))?);
        move_or_wait(ctx, args, from, to, |source, target, words| {
            vec![b"LMOVE".to_vec(), source.to_vec(), target.to_vec(), words[0].to_vec(), words[1].to_vec()]
        })
    },
    ..LMOVE
};

/// BLMOVE from the right to the left.
pub const BRPOPLPUSH: Command = Command {
    name: "BRPOPLPUSH",
    since: "2.2.0",
    arity: Arity::Exactly(4),
    usage: "source:key destination:key timeout:double",
    summary: "Pops an element from a list, pushes it to another list and returns it. Block until an element is available otherwise. Deletes the list if the last element was popped.",
    history: &[FRACTION],
    deprecated: Some(("6.2.0", "`BLMOVE` with the `RIGHT` and `LEFT` arguments")),
    run: |ctx, args| {
        move_or_wait(ctx, args, End::Tail, End::Head, |source, target, _| {
            vec![b"RPOPLPUSH".to_vec(), source.to_vec(), target.to_vec()]
        })
    },
    ..BLMOVE
};

/// Makes what the log gets of both keys and both sides.
type Logged = fn(&[u8], &[u8], [&[u8]; 2]) -> Effect;

/// Moves an element, or waits for one; `logged` says what the log gets: of both keys and both sides.
fn move_or_wait(ctx: &mut Context<'_>, args: &Args<'_>, from: End, to: End, logged: Logged) -> Reply {
    let until_ms = until_seconds(args.at(args.len() - 1), ctx.db.now_ms())?;
    let (source, target) = (args.key(&ctx.db, 1), args.key(&ctx.db, 2));
    let attempt = move |ctx: &mut Context<'_>, source: &Key<'_>, target: &Key<'_>| -> Result<bool, Error> {
        let moved = move_element(ctx, source, target, from, to)?;
        if moved {
            let side = |end| if end == End::Head { &b"left"[..] } else { b"right" };
            ctx.db.effects.log_as(|| vec![logged(source.bytes, target.bytes, [side(from), side(to)])]);
        }
        Ok(moved)
    };
    if attempt(ctx, &source, &target)? {
        return DONE;
    }
    let mut also = ShardSet::default();
    also.add(target.hash.shard());
    let (name, hash) = (target.bytes.to_vec(), target.hash);
    Ok(Outcome::Wait(Box::new(Wait {
        keys: vec![source.bytes.to_vec()],
        until_ms,
        also,
        serve: Box::new(move |ctx, source| match source_len(ctx, source) {
            Ok(Some(_)) => attempt(ctx, source, &Key { bytes: &name, hash }).map(|_| Served::Yes),
            Ok(None) | Err(_) => Ok(Served::No),
        }),
        timed_out: Output::null_array,
        answer: None,
        denied: Output::null,
        kind: Some(Kind::List),
        gone: None,
        aside: None,
    })))
}

#[cfg(test)]
mod tests {
    use crate::command::testing::Bench;

    #[test]
    fn who_came_first_is_served_first_and_the_log_tells_what_was_popped() {
        let mut bench = Bench::new();
        let mut clients: Vec<Bench> = (0..3).map(|_| bench.another()).collect();
        for (client, line) in clients.iter_mut().zip(["BLPOP a b 0", "BRPOP b 0", "BLMPOP 0 2 c b RIGHT COUNT 5"]) {
            assert_eq!(client.run(line), "");
            assert!(client.is_waiting());
        }
        let log = bench.log();
        assert_eq!(bench.run("RPUSH b 1 2 3 4"), ":4|");
        assert_eq!(clients[0].woken().unwrap(), "*2|$1|b|$1|1|");
        assert_eq!(clients[1].woken().unwrap(), "*2|$1|b|$1|4|");
        assert_eq!(clients[2].woken().unwrap(), "*2|$1|b|*2|$1|3|$1|2|");
        assert_eq!(bench.run("EXISTS b"), ":0|");
        assert_eq!(log(), "SELECT 0|RPUSH b 1 2 3 4|LPOP b|RPOP b|RPOP b 2");
        assert_eq!(bench.run("INFO clients").matches("blocked_clients:0").count(), 1);
    }

    #[test]
    fn a_move_makes_the_next_key_ready_and_a_wrong_target_ends_the_wait() {
        let mut bench = Bench::new();
        let [mut first, mut second, mut third] = [bench.another(), bench.another(), bench.another()];
        first.run("BLMOVE a b LEFT RIGHT 0");
        second.run("BRPOPLPUSH b c 0");
        third.run("BLPOP c 0");
        bench.run("RPUSH a x");
        assert_eq!(first.woken().unwrap(), "$1|x|");
        assert_eq!(second.woken().unwrap(), "$1|x|");
        assert_eq!(third.woken().unwrap(), "*2|$1|c|$1|x|");
        bench.run("SET t string");
        first.run("BLMOVE a t LEFT RIGHT 0");
        bench.run("RPUSH a x");
        assert_eq!(first.woken().unwrap(), "-WRONGTYPE Operation against a key holding the wrong kind of value|");
        assert_eq!(bench.run("LRANGE a 0 -1"), "*1|$1|x|");
    }

    #[test]
    fn keys_become_ready_by_whatever_makes_them_lists() {
        let mut bench = Bench::new();
        for (before, line) in [
            ("RPUSH l{t} x", "RENAME l{t} k"),
            ("RPUSH l{t} x", "COPY l{t} k"),
            ("SELECT 1", "PING"),
            ("RPUSH k x", "MOVE k 0"),
            ("RPUSH k x", "SWAPDB 0 1"),
            ("SELECT 0", "PING"),
        ] {
            if before.starts_with("SELECT") {
                bench.run(before);
                continue;
            }
            let mut client = bench.another();
            client.run("BLPOP k 0");
            assert!(client.is_waiting(), "{line}");
            bench.run(before);
            assert_eq!(client.woken(), None);
            bench.run(line);
            assert_eq!(client.woken().unwrap(), "*2|$1|k|$1|x|", "{line}");
            bench.run("FLUSHALL");
        }
    }

    #[test]
    fn a_key_that_has_expired_serves_nobody_and_goes_when_it_is_looked_at() {
        let mut bench = Bench::new();
        let mut client = bench.another();
        client.run("SELECT 9");
        client.run("BRPOP k 0");
        bench.run("SELECT 1");
        bench.run("RPUSH k x");
        bench.run("PEXPIRE k 100");
        bench.clock.advance(101);
        let log = bench.log();
        bench.run("SWAPDB 1 9");
        assert!(client.woken().is_none() && client.is_waiting());
        bench.run("SELECT 9");
        assert_eq!(bench.run("EXISTS k"), ":0|");
        assert_eq!(log(), "SELECT 1|SWAPDB 1 9|SELECT 9|DEL k");
    }

    #[test]
    fn nothing_is_taken_that_is_gone_before_the_transaction_ends() {
        let mut bench = Bench::new();
        let mut client = bench.another();
        client.run("BLPOP k j 0");
        for line in ["MULTI", "RPUSH k x", "DEL k", "SET k y", "EXEC"] {
            bench.run(line);
        }
        assert_eq!(client.woken(), None);
        for line in ["DEL k", "MULTI", "RPUSH j 2", "RPUSH k 1", "EXEC"] {
            bench.run(line);
        }
        assert_eq!(client.woken().unwrap(), "*2|$1|k|$1|1|", "the first of its keys that has something");
        for line in ["MULTI", "BLPOP nosuch 0", "BLMOVE nosuch k LEFT LEFT 0", "BLMPOP 0 1 nosuch LEFT"] {
            bench.run(line);
        }
        assert_eq!(bench.run("EXEC"), "*3|*-1|$-1|*-1|");
    }

    #[test]
    fn a_wait_ends_with_its_time_by_others_or_with_its_client() {
        let mut bench = Bench::new();
        let mut client = bench.another();
        client.run("BLPOP k 0.0011");
        assert_eq!(client.woken(), None);
        bench.clock.advance(2);
        assert_eq!(client.woken().unwrap(), "*-1|");
        let id = client.session.shared.id;
        assert_eq!(bench.run(&format!("CLIENT UNBLOCK {id}")), ":0|");
        for (reason, reply) in
            [("", "*-1|"), ("TIMEOUT", "*-1|"), ("ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK|")]
        {
            client.run("BLPOP k k 10");
            assert!(bench.run("CLIENT LIST").contains(" flags=b "));
            assert_eq!(bench.run(&format!("CLIENT UNBLOCK {id} {reason}")), ":1|");
            assert_eq!(bench.run("RPUSH k x"), ":1|");
            assert_eq!(client.woken().unwrap(), reply);
            bench.run("DEL k");
        }
        assert_eq!(bench.run("RPUSH k x"), ":1|");
        assert_eq!(bench.run("LPOP k"), "$1|x|");
    }
}

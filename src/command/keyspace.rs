//! The keyspace as a whole: KEYS, SCAN, RANDOMKEY, DBSIZE; databases selected, swapped, flushed.
//!
//! What must stay true: whatever takes longer the more keys there are works in pieces of [`PIECE_US`],
//! so that no other client waits for it; its reply is built in blocks that are sent by reference, and
//! never moved as a whole.

use std::sync::atomic::Ordering;

use smallvec::smallvec;

use crate::command::args::{Args, word};
use crate::command::client::tracking;
use crate::command::cluster::migration;
use crate::command::context::{Context, DONE, Reply, later};
use crate::command::error::Error;
use crate::command::key::database;
use crate::command::save;
use crate::command::scan::{DEFAULT_COUNT, Strings, matches, parse_count, parse_cursor, pattern};
use crate::command::table::Command;
use crate::keyspace::entry::Entry;
use crate::keyspace::hidden::Walked;
use crate::keyspace::hold::ShardSet;
use crate::keyspace::shard::SHARDS;
use crate::keyspace::space::Flushed;
use crate::spec::{Arity, Category, Flag, Group};
use crate::stdx::number::parse_i64;
use crate::stdx::ticks::Ticks;
use crate::types::Kind;

/// This family's commands.
pub const COMMANDS: &[Command] = &[DBSIZE, FLUSHALL, FLUSHDB, KEYS, RANDOMKEY, SCAN, SELECT, SWAPDB];

/// How long a piece of a long command takes, in microseconds.
pub const PIECE_US: u64 = 500;
/// How many keys are looked at or freed before the time is looked at.
const STRIDE: usize = 256;

/// A walk over the keys of a database, in the order of their hashes.
struct Walk {
    cursor: u64,
    /// How many keys may still be looked at; `None` for all of them, and no cursor in the reply.
    left: Option<u64>,
    pattern: Option<Vec<u8>>,
    kind: Option<Kind>,
    found: Strings,
}

impl Walk {
    /// Goes on for a while; returns whether it is at its end.
    fn step(&mut self, ctx: &mut Context<'_>) -> bool {
        let started = Ticks::now();
        let (db, now, keyspace) = (ctx.db.index(), ctx.db.now_ms(), ctx.db.keyspace());
        let mut expired = Vec::new();
        loop {
            let budget = self.left.map_or(STRIDE, |left| left.min(STRIDE as u64) as usize);
            let (pattern, kind, found) = (&self.pattern, self.kind, &mut self.found);
            let mut visited = 0;
            let next = keyspace.scan(&mut ctx.db.hold, db, Walked::Visible, self.cursor, budget, |entry: &Entry| {
                visited += 1;
                let wanted = kind.is_none_or(|kind| entry.kind() == kind) && matches(pattern.as_deref(), entry.key());
                if !wanted {
                } else if entry.deadline().is_some_and(|deadline| now > deadline) {
                    expired.push(entry.key().to_vec());
                } else {
                    found.add(entry.key());
                }
            });
            self.cursor = next;
            if let Some(left) = &mut self.left {
                *left = left.saturating_sub(visited);
            }
            // SCAN removes what it finds expired. KEYS does not, as it would take long, and only looks away.
            let expired = expired.drain(..);
            if self.left.is_some() {
                expired.for_each(|key| remove_if_due(ctx, &key));
            }
            if next == 0 || self.left == Some(0) {
                return true;
            }
            if started.elapsed_us() >= PIECE_US {
                return false;
            }
        }
    }

    fn run(mut self, ctx: &mut Context<'_>) -> Reply {
        if !self.step(ctx) {
            return later(self, Walk::run);
        }
        if self.left.is_some() {
            ctx.out.array(2);
            ctx.out.bulk(self.cursor.to_string().as_bytes());
        }
        self.found.write(ctx.out);
        DONE
    }
}

/// Removes a key that a walk found expired, and passes that on; its shard is held for just that long.
fn remove_if_due(ctx: &mut Context<'_>, key: &[u8]) {
    let key = ctx.db.key(key);
    let keyspace = ctx.db.keyspace();
    let held = ctx.db.hold.held().has(key.hash.shard());
    if !held {
        let mut shard = ShardSet::default();
        shard.add(key.hash.shard());
        ctx.db.hold = keyspace.hold(shard);
    }
    // Meanwhile somebody may have set it again: looking it up removes it only if it is still due.
    ctx.db.exists(&key);
    ctx.engine.pass_on(ctx.db.index(), ctx.db.effects, &Vec::new());
    if !held {
        ctx.db.hold = keyspace.hold_none();
    }
}

/// What most declarations of this file have in common.
const KEYSPACE: Command = Command {
    name: "",
    since: "1.0.0",
    group: Group::Generic,
    arity: Arity::Exactly(1),
    flags: &[Flag::ReadOnly],
    categories: &[Category::Keyspace],
    keys: &[],
    usage: "",
    summary: "",
    complexity: "O(1)",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: dbsize,
};

/// Replies with all keys that match a pattern.
pub const KEYS: Command = Command {
    name: "KEYS",
    arity: Arity::Exactly(2),
    categories: &[Category::Keyspace, Category::Dangerous],
    usage: "pattern",
    summary: "Returns all key names that match a pattern.",
    complexity: "O(N) with N being the number of keys in the database, under the assumption that the key names in the database and the given pattern have limited length.",
    tips: &["request_policy:all_shards", "nondeterministic_output_order"],
    run: keys,
    ..KEYSPACE
};

fn keys(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    Walk {
        cursor: 0,
        left: None,
        pattern: pattern(args.at(1)).map(<[u8]>::to_vec),
        kind: None,
        found: Strings::default(),
    }
    .run(ctx)
}

/// Replies with some keys, and a cursor from which to go on.
pub const SCAN: Command = Command {
    name: "SCAN",
    since: "2.8.0",
    arity: Arity::AtLeast(2),
    usage: "cursor [MATCH pattern] [COUNT count] [TYPE type]@6.0.0",
    summary: "Iterates over the key names in the database.",
    complexity: "O(1) for every call. O(N) for a complete iteration, including enough command calls for the cursor to return back to 0. N is the number of elements inside the collection.",
    tips: &["nondeterministic_output", "request_policy:special", "response_policy:special"],
    history: &[("6.0.0", "Added the `TYPE` subcommand.")],
    run: scan,
    ..KEYSPACE
};

fn scan(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let cursor = parse_cursor(args.at(1)).ok_or(Error::InvalidCursor)?;
    let mut walk =
        Walk { cursor, left: Some(DEFAULT_COUNT as u64), pattern: None, kind: None, found: Strings::default() };
    let mut i = 2;
    while i < args.len() {
        let Some(value) = args.opt(i + 1) else { return Err(Error::Syntax) };
        match word(args.at(i), &["MATCH", "COUNT", "TYPE"]) {
            Some("MATCH") => walk.pattern = pattern(value).map(<[u8]>::to_vec),
            Some("COUNT") => walk.left = Some(parse_count(value)? as u64),
            Some(_) => walk.kind = Some(parse_kind(value)?),
            None => return Err(Error::Syntax),
        }
        i += 2;
    }
    walk.run(ctx)
}

fn parse_kind(name: &[u8]) -> Result<Kind, Error> {
    Kind::ALL
        .into_iter()
        .find(|kind| name.eq_ignore_ascii_case(kind.name().as_bytes()))
        .ok_or_else(|| Error::text(format!("ERR unknown type name '{}'", String::from_utf8_lossy(name))))
}

/// Replies with a random key, or null where there is none.
pub const RANDOMKEY: Command = Command {
    name: "RANDOMKEY",
    summary: "Returns a random key name from the database.",
    tips: &["request_policy:all_shards", "response_policy:special", "nondeterministic_output"],
    run: |ctx, _| randomkey(Draw { hidden: 0 }, ctx),
    ..KEYSPACE
};

/// A search for a random key that has not expired.
struct Draw {
    /// How many were found that have, and stay.
    hidden: usize,
}

/// After so many expired keys that are not this server's to remove (a replica's, or those of a pause), there may be no
/// other, and one of them is the answer.
const MOST_HIDDEN: usize = 100;

fn randomkey(mut draw: Draw, ctx: &mut Context<'_>) -> Reply {
    let started = Ticks::now();
    let (db, now, keyspace) = (ctx.db.index(), ctx.db.now_ms(), ctx.db.keyspace());
    let mut rng = fastrand::Rng::new();
    loop {
        match keyspace.random_key(&mut ctx.db.hold, db, &mut rng) {
            None => {
                ctx.out.null();
                return DONE;
            }
            Some((key, Some(deadline))) if now > deadline && draw.hidden < MOST_HIDDEN => {
                if ctx.db.has_passed(deadline) {
                    remove_if_due(ctx, &key);
                } else {
                    draw.hidden += 1;
                }
            }
            Some((key, _)) => {
                ctx.out.bulk(&key);
                return DONE;
            }
        }
        // Many keys may have expired that the timer has not got to yet.
        if started.elapsed_us() >= PIECE_US {
            return later(draw, randomkey);
        }
    }
}

/// Replies with the number of keys.
pub const DBSIZE: Command = Command {
    name: "DBSIZE",
    group: Group::Server,
    flags: &[Flag::ReadOnly, Flag::Fast],
    summary: "Returns the number of keys in the database.",
    tips: &["request_policy:all_shards", "response_policy:agg_sum"],
    run: dbsize,
    ..KEYSPACE
};

fn dbsize(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    let db = ctx.db.index();
    let keys = ctx.db.keyspace().visible_len(&mut ctx.db.hold, db);
    ctx.out.integer(i64::try_from(keys).unwrap_or(i64::MAX));
    DONE
}

/// Selects the connection's database.
pub const SELECT: Command = Command {
    name: "SELECT",
    group: Group::Connection,
    arity: Arity::Exactly(2),
    flags: &[Flag::Loading, Flag::Stale, Flag::Fast],
    categories: &[Category::Connection],
    usage: "index:integer",
    summary: "Changes the selected database.",
    run: select,
    ..KEYSPACE
};

fn select(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    if ctx.config.cluster_enabled && parse_i64(args.at(1)).is_some_and(|n| n != 0) {
        return Err(Error::text("ERR SELECT is not allowed in cluster mode"));
    }
    let db = database(ctx, args.at(1))?;
    ctx.session.db = db;
    ctx.session.shared.figures.db.store(db as u32, Ordering::Relaxed);
    // The requests behind it in the same batch see it too.
    ctx.db.select(db);
    ctx.out.ok();
    DONE
}

/// Exchanges two databases.
pub const SWAPDB: Command = Command {
    name: "SWAPDB",
    since: "4.0.0",
    group: Group::Server,
    arity: Arity::Exactly(3),
    flags: &[Flag::Write, Flag::Fast, Flag::Alone],
    categories: &[Category::Keyspace, Category::Dangerous],
    usage: "index1:integer index2:integer",
    summary: "Swaps two Redis databases.",
    complexity: "O(N) where N is the count of clients watching or blocking on keys from both databases.",
    run: swapdb,
    ..KEYSPACE
};

fn swapdb(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    if ctx.config.cluster_enabled {
        return Err(Error::text("ERR SWAPDB is not allowed in cluster mode"));
    }
    let index = |i: usize| parse_i64(args.at(i)).and_then(|n| i32::try_from(n).ok());
    index(1).ok_or(Error::text("ERR invalid first DB index"))?;
    index(2).ok_or(Error::text("ERR invalid second DB index"))?;
    let (a, b) = (database(ctx, args.at(1))?, database(ctx, args.at(2))?);
    ctx.db.expire_watched([a, b]);
    ctx.db.touch_all(|db| if a != b && (db == a || db == b) { smallvec![a, b] } else { smallvec![] });
    for shard in (0..SHARDS).filter(|_| a != b) {
        ctx.db.hold.visit(shard, |shard| {
            // Where neither has keys there is nothing to make room for.
            if shard.part(a).is_some() || shard.part(b).is_some() {
                shard.swap_parts(a, b);
            }
        });
    }
    ctx.db.effects.dirty += 1;
    ctx.out.ok();
    DONE
}

/// Removes all keys of the database.
pub const FLUSHDB: Command = Command {
    name: "FLUSHDB",
    group: Group::Server,
    arity: Arity::AtLeast(1),
    flags: &[Flag::Write, Flag::Alone],
    categories: &[Category::Keyspace, Category::Dangerous],
    usage: "[flush-type(ASYNC@4.0.0 | SYNC@6.2.0)]",
    summary: "Remove all keys from the current database.",
    complexity: "O(N) where N is the number of keys in the selected database",
    tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
    history: &[
        ("4.0.0", "Added the `ASYNC` flushing mode modifier."),
        ("6.2.0", "Added the `SYNC` flushing mode modifier."),
    ],
    run: |ctx, args| {
        let db = ctx.db.index();
        flush(ctx, args, Some(db))
    },
    ..KEYSPACE
};

/// Removes all keys of all databases.
pub const FLUSHALL: Command = Command {
    name: "FLUSHALL",
    summary: "Removes all keys from all databases.",
    complexity: "O(N) where N is the total number of keys in all databases",
    run: |ctx, args| flush(ctx, args, None),
    ..FLUSHDB
};

fn flush(ctx: &mut Context<'_>, args: &Args<'_>, db: Option<usize>) -> Reply {
    let in_background = match args.len() {
        1 => ctx.config.lazyfree_lazy_user_flush,
        2 if args.is(1, "ASYNC") => true,
        2 if args.is(1, "SYNC") => false,
        _ => return Err(Error::Syntax),
    };
    let keyspace = ctx.db.keyspace();
    ctx.db.touch_all(|index| if db.is_none_or(|db| db == index) { smallvec![index] } else { smallvec![] });
    let flushed = keyspace.take_all(&mut ctx.db.hold, db);
    ctx.db.effects.dirty += flushed.keys;
    tracking::flushed(ctx.engine, ctx.db.effects);
    migration::flushed(ctx.engine);
    if db.is_none() && save::flushed(ctx.engine, ctx.config, &mut ctx.db.hold) {
        // The file has all that changed.
        ctx.db.effects.dirty = 0;
    }
    // A replica may have keys that we had not, so it hears of a flush that removed nothing too.
    ctx.db.effects.log_as(|| vec![args.to_vecs()]);
    if in_background {
        keyspace.reclaimer().free(flushed.keys, flushed);
        ctx.out.ok();
        return DONE;
    }
    free(flushed, ctx)
}

/// Frees what was flushed. The keys are gone already: others go on meanwhile.
fn free(mut flushed: Flushed, ctx: &mut Context<'_>) -> Reply {
    let started = Ticks::now();
    while flushed.free_some(ctx.db.keyspace(), STRIDE) {
        if started.elapsed_us() >= PIECE_US {
            return later(flushed, free);
        }
    }
    ctx.out.ok();
    DONE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::scan::BLOCK_BYTES;
    use crate::command::testing::Bench;
    use std::collections::BTreeSet;

    fn bulks(reply: &str) -> Vec<String> {
        reply.split('|').filter(|part| !part.is_empty() && !part.starts_with(['$', '*'])).map(str::to_owned).collect()
    }

    fn fill(bench: &mut Bench, n: usize) {
        for chunk in (0..n).collect::<Vec<_>>().chunks(500) {
            let pairs: Vec<String> = chunk.iter().map(|i| format!("key:{i} {i}")).collect();
            bench.run(&format!("MSET {}", pairs.join(" ")));
        }
    }

    #[test]
    fn while_clients_are_paused_keys_are_out_of_sight_and_stay() {
        let mut bench = Bench::new();
        bench.run("MSET a 1 b 2");
        bench.run("PEXPIRE a 10");
        bench.run("PEXPIRE b 10");
        assert_eq!(bench.run("CLIENT PAUSE 100000 WRITE"), "+OK|");
        bench.clock.advance(11);
        assert_eq!(bench.run("MGET a b"), "*2|$-1|$-1|");
        let key = bench.run("RANDOMKEY");
        assert!(key == "$1|a|" || key == "$1|b|", "there is no other: {key}");
        assert_eq!(bench.run("DBSIZE"), ":2|");
        assert!(bench.run("INFO stats").contains("expired_keys:0|"));
        assert_eq!(bench.run("CLIENT UNPAUSE"), "+OK|");
        assert_eq!(bench.run("MGET a b"), "*2|$-1|$-1|");
        assert_eq!(bench.run("DBSIZE"), ":0|");
        assert!(bench.run("INFO stats").contains("expired_keys:2|"));
        assert_eq!(bench.run("RANDOMKEY"), "$-1|");
    }

    #[test]
    fn a_walk_over_keys_that_stay_meets_each_once() {
        let mut bench = Bench::new();
        for i in 0..3000 {
            bench.run(&format!("SET key:{i} x"));
        }
        assert!(bench.run("KEYS *").starts_with("*3000|"));
        for count in [1, 7, 100] {
            let (mut cursor, mut keys) = ("0".to_owned(), Vec::new());
            loop {
                let reply = bench.run(&format!("SCAN {cursor} COUNT {count}"));
                let words: Vec<&str> =
                    reply.split('|').filter(|w| !w.is_empty() && !w.starts_with(['*', '$'])).collect();
                cursor = words[0].to_owned();
                keys.extend(words[1..].iter().map(|key| (*key).to_owned()));
                if cursor == "0" {
                    break;
                }
            }
            let visits = keys.len();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!((visits, keys.len()), (3000, 3000), "COUNT {count}");
        }
    }

    #[test]
    fn keys_finds_what_matches_and_has_not_expired() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("KEYS *"), "*0|");
        bench.run("MSET one 1 two 2 three 3");
        bench.run("SET gone 1 PX 5");
        bench.clock.advance(6);
        let mut found = bulks(&bench.run("KEYS *"));
        found.sort();
        assert_eq!(found, ["one", "three", "two"]);
        assert_eq!(bench.run("KEYS t?o"), "*1|$3|two|");
        assert_eq!(bench.run("DBSIZE"), ":4|");
    }

    #[test]
    fn a_reply_of_many_blocks_holds_every_key_once() {
        let mut bench = Bench::new();
        fill(&mut bench, 50_000);
        let reply = bench.run("KEYS *");
        assert!(reply.len() > 2 * BLOCK_BYTES && reply.starts_with("*50000|"));
        let found = bulks(&reply);
        assert_eq!(found.len(), 50_000);
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>().len(), 50_000);
        assert_eq!(bench.run("DBSIZE"), ":50000|");
    }

    #[test]
    fn scan_returns_every_key_that_stays_once_and_ends() {
        let mut bench = Bench::new();
        fill(&mut bench, 3000);
        let (mut cursor, mut found, mut calls) = ("0".to_owned(), Vec::new(), 0);
        loop {
            let words = bulks(&bench.run(&format!("SCAN {cursor} COUNT 7")));
            cursor.clone_from(&words[0]);
            found.extend(words[1..].iter().cloned());
            calls += 1;
            bench.run(&format!("SET more:{calls} 1"));
            if cursor == "0" {
                break;
            }
        }
        found.retain(|key: &String| key.starts_with("key:"));
        assert_eq!(found.len(), 3000);
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>().len(), 3000);
        assert!(calls > 200, "{calls}");
    }

    #[test]
    fn scan_filters_and_removes_what_has_expired() {
        let mut bench = Bench::new();
        bench.run("MSET a 1 b 2");
        bench.run("SET gone 1 PX 5");
        bench.clock.advance(6);
        assert_eq!(bench.run("SCAN 0 MATCH b"), "*2|$1|0|*1|$1|b|");
        assert_eq!(bench.run("SCAN 0 TYPE LIST"), "*2|$1|0|*0|");
        assert_eq!(bench.run("DBSIZE"), ":3|");
        assert_eq!(bulks(&bench.run("SCAN 0 COUNT 1000 TYPE string")).len(), 3);
        assert_eq!(bench.run("DBSIZE"), ":2|");
    }

    #[test]
    fn scan_refuses_what_makes_no_sense() {
        let mut bench = Bench::new();
        for (request, error) in [
            ("SCAN abc NONSENSE", "invalid cursor"),
            ("SCAN 99999999999999999999999", "invalid cursor"),
            ("SCAN \" 0\"", "invalid cursor"),
            ("SCAN 0 COUNT 0", "syntax error"),
            ("SCAN 0 COUNT", "syntax error"),
            ("SCAN 0 NONSENSE x", "syntax error"),
            ("SCAN 0 COUNT x", "value is not an integer or out of range"),
            ("SCAN 0 TYPE string1", "unknown type name 'string1'"),
        ] {
            assert_eq!(bench.run(request), format!("-ERR {error}|"), "{request}");
        }
        assert_eq!(
            ["", "-1", "+7", "-", "1x"].map(|t| parse_cursor(t.as_bytes())),
            [Some(0), Some(u64::MAX), Some(7), None, None]
        );
        assert_eq!(bench.run("SCAN 18446744073709551615"), "*2|$1|0|*0|");
    }

    #[test]
    fn a_random_key_is_alive() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("RANDOMKEY"), "$-1|");
        for i in 0..50 {
            bench.run(&format!("SET gone:{i} 1 PX 5"));
        }
        bench.run("SET a 1");
        bench.clock.advance(6);
        for _ in 0..5 {
            assert_eq!(bench.run("RANDOMKEY"), "$1|a|");
        }
        bench.run("DEL a");
        assert_eq!(bench.run("RANDOMKEY"), "$-1|");
        assert_eq!(bench.run("DBSIZE"), ":0|");
    }

    #[test]
    fn databases_are_selected_swapped_and_flushed() {
        let mut bench = Bench::new();
        fill(&mut bench, 2000);
        assert_eq!(bench.run("SELECT 15"), "+OK|");
        bench.run("SET x 15");
        assert_eq!(bench.run("SWAPDB 0 15"), "+OK|");
        assert_eq!(bench.run("DBSIZE"), ":2000|");
        assert_eq!(bench.run("SELECT 0"), "+OK|");
        assert_eq!(bench.run("GET x"), "$2|15|");
        assert_eq!(bench.run("FLUSHDB"), "+OK|");
        assert_eq!(bench.run("DBSIZE"), ":0|");
        bench.run("SELECT 15");
        assert_eq!(bench.run("DBSIZE"), ":2000|");
        for mode in ["SYNC", "ASYNC", ""] {
            fill(&mut bench, 1000);
            assert_eq!(bench.run(&format!("FLUSHALL {mode}")), "+OK|");
            assert_eq!(bench.run("DBSIZE"), ":0|");
        }
        assert_eq!(bench.run("FLUSHALL NONSENSE"), "-ERR syntax error|");
        assert_eq!(bench.run("FLUSHDB SYNC ASYNC"), "-ERR syntax error|");
        for (request, error) in [
            ("SELECT 16", "DB index is out of range"),
            ("SELECT x", "value is not an integer or out of range"),
            ("SWAPDB x y", "invalid first DB index"),
            ("SWAPDB 0 y", "invalid second DB index"),
            ("SWAPDB 0 -1", "DB index is out of range"),
        ] {
            assert_eq!(bench.run(request), format!("-ERR {error}|"), "{request}");
        }
    }
}

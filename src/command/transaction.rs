//! Transactions: MULTI, EXEC, DISCARD, WATCH, UNWATCH.
//!
//! What must stay true: EXEC holds the shards of all keys of its commands and of all watched keys before the first
//! of them runs; where one of its commands needs more than its keys, it holds everything. What its commands changed
//! goes to the log as one.

use std::sync::atomic::Ordering;

use crate::client::session::Session;
use crate::client::transaction::{Transaction, Watched, Watching};
use crate::command::args::Args;
use crate::command::call::{call_inside, refuse_inside};
use crate::command::context::{Context, DONE, Hands, Reply};
use crate::command::error::Error;
use crate::command::permission;
use crate::command::table::{Command, Way};
use crate::keyspace::hold::Hold;
use crate::spec::{Access, Arity, Flag, Group, Keys};

/// All commands of this family.
pub const COMMANDS: &[Command] = &[DISCARD, EXEC, MULTI, UNWATCH, WATCH];

/// What most declarations of this file have in common.
const TRANSACTION: Command = Command {
    name: "",
    since: "2.2.0",
    group: Group::Transactions,
    arity: Arity::Exactly(1),
    flags: &[Flag::NoScript, Flag::Loading, Flag::Stale, Flag::Fast, Flag::AllowBusy],
    categories: &[],
    keys: &[],
    usage: "",
    summary: "",
    complexity: "O(1)",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: multi,
};

/// Queues what follows.
pub const MULTI: Command =
    Command { name: "MULTI", since: "1.2.0", summary: "Starts a transaction.", run: multi, ..TRANSACTION };

fn multi(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    if ctx.session.transaction.is_some() {
        return Err(Error::text("ERR MULTI calls can not be nested"));
    }
    ctx.session.transaction = Some(Box::default());
    ctx.session.shared.figures.queued.store(0, Ordering::Relaxed);
    ctx.out.ok();
    DONE
}

/// Forgets what is queued, and what is watched.
pub const DISCARD: Command = Command {
    name: "DISCARD",
    since: "2.0.0",
    summary: "Discards a transaction.",
    complexity: "O(N), when N is the number of queued commands",
    run: discard,
    ..TRANSACTION
};

fn discard(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    if take_transaction(ctx.session).is_none() {
        return Err(Error::text("ERR DISCARD without MULTI"));
    }
    forget_watched(&mut ctx.db.hold, ctx.session);
    ctx.out.ok();
    DONE
}

/// Runs what is queued, unless a watched key has changed.
pub const EXEC: Command = Command {
    name: "EXEC",
    since: "1.2.0",
    flags: &[Flag::NoScript, Flag::Loading, Flag::Stale, Flag::SkipSlowlog],
    summary: "Executes all commands in a transaction.",
    complexity: "Depends on commands in the transaction",
    run: exec,
    ..TRANSACTION
};

fn exec(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    let transaction = take_transaction(ctx.session).ok_or(Error::text("ERR EXEC without MULTI"))?;
    let changed = watched_changed(ctx);
    forget_watched(&mut ctx.db.hold, ctx.session);
    if transaction.aborted {
        return Err(Error::text("EXECABORT Transaction discarded because of previous errors."));
    }
    if changed {
        ctx.out.null_array();
        return DONE;
    }
    let engine = ctx.engine;
    ctx.db.effects.group = Some(Vec::new());
    ctx.stand_still();
    ctx.out.array(transaction.len());
    for (buf, spans) in transaction.requests() {
        let args = Args::new(buf, spans);
        // Each was found when it was queued, and the table of commands does not change.
        let Ok(entry) = engine.commands.resolve(args.at(0), args.opt(1)) else { continue };
        match permission::check_queued(engine, ctx.session, entry, &args) {
            Ok(()) => {
                call_inside(ctx, entry, &args);
                if entry.way == Way::Single {
                    ctx.renew_config();
                }
            }
            Err(error) => refuse_inside(ctx, entry, &error),
        }
    }
    engine.end_group(ctx.db.effects);
    ctx.hands = Hands::Move;
    DONE
}

/// Whether a watched key changed since it is watched; one that has expired did.
fn watched_changed(ctx: &mut Context<'_>) -> bool {
    let Some(watching) = &ctx.session.watching else { return false };
    let selected = ctx.db.index();
    for watched in &watching.keys {
        ctx.db.select(watched.db);
        let key = crate::keyspace::db::Key { bytes: &watched.key, hash: watched.hash };
        // Looking at it removes it where its time is up, which its watchers hear of.
        ctx.db.exists(&key);
    }
    ctx.db.select(selected);
    watching.watch.is_dirty()
}

/// Has EXEC run nothing if one of these keys changes before it.
pub const WATCH: Command = Command {
    name: "WATCH",
    arity: Arity::AtLeast(2),
    keys: &[Keys::Range { first: 1, last: -1, step: 1, access: Access::META }],
    usage: "key...",
    summary: "Monitors changes to keys to determine the execution of a transaction.",
    complexity: "O(1) for every key.",
    run: watch,
    ..TRANSACTION
};

fn watch(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    if ctx.session.transaction.is_some() {
        return Err(Error::text("ERR WATCH inside MULTI is not allowed"));
    }
    let db = ctx.db.index();
    let watching = ctx.session.watching.get_or_insert_default();
    for i in 1..args.len() {
        let key = args.key(&ctx.db, i);
        if watching.has(db, key.bytes) {
            continue;
        }
        // One whose time is up is gone already: that it is gone is no change.
        ctx.db.exists(&key);
        let shard = ctx.db.hold.shard(key.hash.shard());
        shard.with_listeners(|listeners| listeners.watch(db, key.bytes, key.hash, watching.watch.clone()));
        watching.keys.push(Watched { db, key: key.bytes.to_vec(), hash: key.hash });
    }
    note_watched(ctx.session);
    ctx.out.ok();
    DONE
}

/// Forgets what is watched.
pub const UNWATCH: Command =
    Command { name: "UNWATCH", summary: "Forgets about watched keys of a transaction.", run: unwatch, ..TRANSACTION };

fn unwatch(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    forget_watched(&mut ctx.db.hold, ctx.session);
    ctx.out.ok();
    DONE
}

/// Takes what is queued; the client is in no transaction from here on.
pub fn take_transaction(session: &mut Session) -> Option<Box<Transaction>> {
    session.shared.figures.queued.store(-1, Ordering::Relaxed);
    session.shared.figures.queued_bytes.store(0, Ordering::Relaxed);
    session.transaction.take()
}

fn note_watched(session: &Session) {
    let watched = session.watching.as_ref().map_or(0, |watching| watching.keys.len());
    let bytes = session.watching.as_ref().map_or(0, |watching| watching.bytes());
    session.shared.figures.watched.store(u32::try_from(watched).unwrap_or(u32::MAX), Ordering::Relaxed);
    session.shared.figures.watched_bytes.store(bytes, Ordering::Relaxed);
    *session.shared.watch.lock() = session.watching.as_ref().map(|watching| watching.watch.clone());
}

/// Watches nothing any more. Either nothing is held, or all that is watched.
pub fn forget_watched(hold: &mut Hold<'_>, session: &mut Session) {
    let Some(watching) = session.watching.take() else { return };
    let Watching { watch, keys } = &*watching;
    for watched in keys {
        hold.visit(watched.hash.shard(), |shard| {
            shard.with_listeners(|listeners| listeners.unwatch(watched.db, &watched.key, watch));
        });
    }
    note_watched(session);
}

#[cfg(test)]
mod tests {
    use crate::command::testing::Bench;

    #[test]
    fn what_is_configured_holds_for_the_commands_behind_it() {
        let mut bench = Bench::new();
        bench.run("MULTI");
        for line in ["CONFIG SET list-max-listpack-size 2", "RPUSH a 1 2 3", "CONFIG SET list-max-listpack-size 100"] {
            bench.run(line);
        }
        bench.run("RPUSH b 1 2 3");
        bench.run("OBJECT ENCODING a");
        bench.run("OBJECT ENCODING b");
        assert_eq!(bench.run("EXEC"), "*6|+OK|:3|+OK|:3|$9|quicklist|$8|listpack|");
    }

    #[test]
    fn queued_commands_run_with_exec_and_their_errors_do_not_stop_it() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("EXEC"), "-ERR EXEC without MULTI|");
        assert_eq!(bench.run("DISCARD"), "-ERR DISCARD without MULTI|");
        assert_eq!(bench.run("MULTI"), "+OK|");
        assert_eq!(bench.run("MULTI"), "-ERR MULTI calls can not be nested|");
        assert_eq!(bench.run("WATCH a"), "-ERR WATCH inside MULTI is not allowed|");
        assert_eq!(bench.run("SET a x"), "+QUEUED|");
        assert_eq!(bench.run("INCR a"), "+QUEUED|");
        assert_eq!(bench.run("DBSIZE"), "+QUEUED|");
        assert!(bench.run("CLIENT INFO").starts_with("+QUEUED"));
        let reply = bench.run("EXEC");
        assert!(reply.starts_with("*4|+OK|-ERR value is not an integer or out of range|:1|$"), "{reply}");
        assert!(reply.contains(" flags=N ") && reply.contains(" multi=-1 "), "{reply}");
    }

    #[test]
    fn a_refused_command_aborts_the_transaction() {
        let mut bench = Bench::new();
        for refused in ["NOSUCH", "GET", "EXEC now"] {
            bench.run("MULTI");
            bench.run("SET a 1");
            let reply = bench.run(refused);
            if refused.starts_with("EXEC") {
                let text = "Transaction discarded because of: wrong number of arguments for 'exec' command";
                assert_eq!(reply, format!("-EXECABORT {text}|"));
                assert_eq!(bench.run("EXEC"), "-ERR EXEC without MULTI|");
            } else {
                assert_eq!(bench.run("EXEC"), "-EXECABORT Transaction discarded because of previous errors.|");
            }
        }
        assert_eq!(bench.run("EXISTS a"), ":0|");
    }

    #[test]
    fn a_watched_key_that_changed_or_expired_makes_exec_do_nothing() {
        let mut bench = Bench::new();
        let mut other = bench.another();
        for (before, change, expected) in [
            ("PING", "SET w 1", "*-1|"),
            ("PING", "SET v 1", "*1|+PONG|"),
            ("SET w 1 PX 10", "LATER", "*-1|"),
            ("SET w 1", "FLUSHALL", "*-1|"),
            ("PING", "FLUSHALL", "*1|+PONG|"),
            ("SET w 1", "SWAPDB 0 1", "*-1|"),
            ("PING", "SWAPDB 0 1", "*-1|"),
            ("PING", "SWAPDB 2 3", "*1|+PONG|"),
            ("SET w 1", "DEL w", "*-1|"),
            ("SET v 1", "RENAME v w", "*-1|"),
            ("PING", "EXPIRE nosuch 10", "*1|+PONG|"),
        ] {
            other.run(before);
            bench.run("WATCH w");
            match change {
                "LATER" => bench.clock.advance(11),
                change => _ = other.run(change),
            }
            bench.run("MULTI");
            bench.run("PING");
            assert_eq!(bench.run("EXEC"), expected, "{before} / {change}");
        }
        let listening = (0..256)
            .filter(|shard| bench.engine.keyspace.hold_none().visit(*shard, |shard| shard.listeners().is_some()));
        assert_eq!(listening.count(), 0, "nothing is left of those that watched");
    }

    #[test]
    fn what_was_expired_when_it_was_watched_is_no_change() {
        let mut bench = Bench::new();
        bench.run("SET w 1 PX 5");
        bench.clock.advance(6);
        bench.run("WATCH w");
        bench.run("MULTI");
        bench.run("PING");
        assert_eq!(bench.run("EXEC"), "*1|+PONG|");
    }

    #[test]
    fn what_is_due_is_gone_for_those_that_watch_when_databases_are_swapped() {
        let mut bench = Bench::new();
        let mut other = bench.another();
        other.run("SELECT 1");
        for (here, there, expected) in [
            (None, Some("SET w 1 PX 5"), "*1|+PONG|"),
            (Some("SET w 1"), Some("SET w 1 PX 5"), "*-1|"),
            (None, Some("SET w 1"), "*-1|"),
        ] {
            bench.run("FLUSHALL");
            here.map(|line| bench.run(line));
            there.map(|line| other.run(line));
            bench.clock.advance(6);
            bench.run("WATCH w");
            bench.run("SWAPDB 0 1");
            bench.run("MULTI");
            bench.run("PING");
            assert_eq!(bench.run("EXEC"), expected, "{here:?} {there:?}");
        }
    }

    #[test]
    fn unwatch_discard_and_reset_forget() {
        let mut bench = Bench::new();
        for forget in [&["UNWATCH"][..], &["MULTI", "DISCARD"], &["RESET"]] {
            bench.run("WATCH w");
            forget.iter().for_each(|line| _ = bench.run(line));
            bench.run("SET w 1");
            bench.run("MULTI");
            bench.run("PING");
            assert_eq!(bench.run("EXEC"), "*1|+PONG|", "{forget:?}");
        }
        bench.run("MULTI");
        assert_eq!(bench.run("RESET"), "+RESET|");
        assert_eq!(bench.run("EXEC"), "-ERR EXEC without MULTI|");
    }

    #[test]
    fn what_exec_changed_is_logged_as_one() {
        let mut bench = Bench::new();
        let log = bench.log();
        for line in ["MULTI", "SET a 1", "GET a", "SELECT 2", "SET b 2 EX 10", "EXEC"] {
            bench.run(line);
        }
        for line in ["SELECT 0", "MULTI", "INCR a", "EXEC", "MULTI", "GET a", "EXEC"] {
            bench.run(line);
        }
        let at = bench.engine.clock.now_ms() + 10_000;
        assert_eq!(log(), format!("MULTI|SELECT 0|SET a 1|SELECT 2|SET b 2 PXAT {at}|EXEC|SELECT 0|INCR a"));
    }
}

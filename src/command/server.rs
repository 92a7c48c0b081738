//! The server as a whole: its time, its role, its end, and a picture.

use crate::client::session::Fate;
use crate::command::args::{Args, word};
use crate::command::context::{Context, DONE, Reply};
use crate::command::engine::ShutdownRequest;
use crate::command::error::Error;
use crate::command::gem;
use crate::command::replication::farewell;
use crate::command::save;
use crate::command::table::Command;
use crate::spec::{Arity, Flag, Group, REDIS_VERSION};
use crate::stdx::number::parse_i64;

/// This family's commands.
pub const COMMANDS: &[Command] = &[LOLWUT, SHUTDOWN, TIME];

/// What most declarations of this file have in common.
const SERVER: Command = Command {
    name: "",
    since: "1.0.0",
    group: Group::Server,
    arity: Arity::Exactly(1),
    flags: &[],
    categories: &[],
    keys: &[],
    usage: "",
    summary: "",
    complexity: "O(1)",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: time,
};

/// Replies the Unix time: seconds, and the microseconds of the current one.
pub const TIME: Command = Command {
    name: "TIME",
    since: "2.6.0",
    flags: &[Flag::Loading, Flag::Stale, Flag::Fast],
    summary: "Returns the server time.",
    tips: &["nondeterministic_output"],
    run: time,
    ..SERVER
};

fn time(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    let now_us = ctx.time_us().cast_signed();
    ctx.out.array(2);
    ctx.out.bulk_integer(now_us / 1_000_000);
    ctx.out.bulk_integer(now_us % 1_000_000);
    DONE
}

/// Draws a cut stone and tells the version. The same arguments draw the same stone.
///
/// Numbers among the arguments are its width and height; anything else only changes how it is lit.
pub const LOLWUT: Command = Command {
    name: "LOLWUT",
    since: "5.0.0",
    arity: Arity::AtLeast(1),
    flags: &[Flag::ReadOnly, Flag::Fast],
    usage: "[VERSION version:integer]",
    summary: "Displays computer art and the Redis version",
    complexity: "",
    run: lolwut,
    ..SERVER
};

fn lolwut(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let mut size_from = 1;
    if args.len() >= 3 && args.is(1, "VERSION") {
        args.integer(2)?;
        size_from = 3;
    }
    let mut sizes = args.from(size_from).filter_map(parse_i64).map(|n| usize::try_from(n).unwrap_or(0));
    let (width, height) = (sizes.next().unwrap_or(gem::WIDTH), sizes.next().unwrap_or(gem::HEIGHT));
    let mut text = gem::draw(width, height, args.from(1));
    text.push_str(&format!("\nSpinel. Redis ver. {REDIS_VERSION}\n"));
    ctx.out.verbatim("txt", text.as_bytes());
    DONE
}

/// Saves what is to be saved and ends the server, without a reply: the connection just closes.
pub const SHUTDOWN: Command = Command {
    name: "SHUTDOWN",
    arity: Arity::AtLeast(1),
    flags: &[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale, Flag::NoMulti, Flag::AllowBusy, Flag::Alone],
    usage: "[save-selector(NOSAVE | SAVE)] [NOW]@7.0.0 [FORCE]@7.0.0 [ABORT]@7.0.0",
    summary: "Synchronously saves the database(s) to disk and shuts down the Redis server.",
    complexity: "O(N) when saving, where N is the total number of keys in all databases when saving data, otherwise O(1)",
    history: &[("7.0.0", "Added the `NOW`, `FORCE` and `ABORT` modifiers.")],
    run: shutdown,
    ..SERVER
};

fn shutdown(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let (mut request, mut abort) = (ShutdownRequest::default(), false);
    for arg in args.from(1) {
        match word(arg, &["SAVE", "NOSAVE", "NOW", "FORCE", "FAILOVER", "ABORT"]) {
            Some("SAVE") => request.save = true,
            Some("NOSAVE") => request.nosave = true,
            Some("NOW") => request.now = true,
            Some("FORCE") => request.force = true,
            Some("FAILOVER") => request.failover = true,
            Some(_) => abort = true,
            None => return Err(Error::Syntax),
        }
    }
    if abort && request != ShutdownRequest::default() || request.save && request.nosave {
        return Err(Error::Syntax);
    }
    if request.failover && ctx.engine.cluster.is_none() {
        return Err(Error::text("ERR SHUTDOWN FAILOVER is only supported in cluster mode."));
    }
    if let Some(kind) = ctx.engine.scripts.running.busy()
        && !request.nosave
        && !abort
    {
        return Err(Error::Busy(kind));
    }
    if abort {
        return farewell::abort(ctx);
    } else if farewell::waits(ctx.engine, request) {
        return farewell::wait(ctx);
    } else {
        save::end(ctx.engine, &mut ctx.db.hold, request).map_err(Error::text)?;
        if request.nosave {
            // What a script has changed is lost with everything else.
            ctx.engine.scripts.running.end_all();
        }
        ctx.session.fate = Fate::Close;
    }
    DONE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Bench;

    #[test]
    fn time_is_told_in_seconds_and_microseconds() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("TIME"), "*2|$7|1000000|$1|0|");
        bench.clock.advance(1234);
        assert_eq!(bench.run("TIME"), "*2|$7|1000001|$6|234000|");
        assert_eq!(bench.run("TIME x"), "-ERR wrong number of arguments for 'time' command|");
    }

    #[test]
    fn a_server_alone_is_a_primary_without_replicas() {
        assert_eq!(Bench::new().run("ROLE"), "*3|$6|master|:0|*0|");
    }

    #[test]
    fn the_picture_ends_with_the_version_and_follows_from_the_arguments() {
        let mut bench = Bench::new();
        let plain = bench.run("LOLWUT");
        assert!(plain.ends_with("Redis ver. 7.2.4\n|"), "{plain}");
        assert_eq!(bench.run("LOLWUT"), plain);
        assert_ne!(bench.run("LOLWUT VERSION 5 60 20"), plain);
        assert_eq!(bench.run("LOLWUT VERSION abc"), "-ERR value is not an integer or out of range|");
        assert!(bench.run("LOLWUT -5 99999999999").ends_with("Redis ver. 7.2.4\n|"));
        bench.run("HELLO 3");
        assert!(bench.run("LOLWUT nonsense").contains("|txt:"));
    }

    #[test]
    fn shutdown_takes_only_words_that_go_together() {
        let mut bench = Bench::new();
        for wrong in ["NONSENSE", "SAVE NOSAVE", "ABORT NOW", "a b c d e"] {
            assert_eq!(bench.run(&format!("SHUTDOWN {wrong}")), "-ERR syntax error|");
        }
        assert_eq!(bench.run("SHUTDOWN ABORT"), "-ERR No shutdown in progress.|");
        assert_eq!(bench.session.fate, Fate::Stay);
        assert_eq!(bench.run("SHUTDOWN nosave force now"), "");
        assert_eq!(bench.session.fate, Fate::Close);
    }
}

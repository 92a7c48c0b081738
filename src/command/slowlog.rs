//! SLOWLOG: the commands that took longest.

use crate::command::args::Args;
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::help;
use crate::command::table::Command;
use crate::spec::{Arity, Flag, Group};

/// This family's commands.
pub const COMMANDS: &[Command] = &[SLOWLOG];

/// The container.
pub const SLOWLOG: Command = Command {
    name: "SLOWLOG",
    arity: Arity::AtLeast(2),
    flags: &[],
    summary: "A container for slow log commands.",
    complexity: "Depends on subcommand.",
    tips: &[],
    subcommands: &[GET, HELP, LEN, RESET],
    ..SUB
};

/// What most subcommands have in common.
const SUB: Command = Command {
    name: "",
    since: "2.2.12",
    group: Group::Server,
    arity: Arity::AtLeast(2),
    flags: &[Flag::Admin, Flag::Loading, Flag::Stale],
    categories: &[],
    keys: &[],
    usage: "",
    summary: "",
    complexity: "O(1)",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: help::container,
};

/// How many entries SLOWLOG GET shows unasked.
const DEFAULT_COUNT: usize = 10;

const GET: Command = Command {
    name: "GET",
    usage: "[count]",
    summary: "Returns the slow log's entries.",
    complexity: "O(N) where N is the number of entries returned",
    tips: &["request_policy:all_nodes", "nondeterministic_output"],
    history: &[("4.0.0", "Added client IP address, port and name to the reply.")],
    run: get,
    ..SUB
};

fn get(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let too_small = || Error::text("ERR count should be greater than or equal to -1");
    let count = match args.len() {
        2 => Some(DEFAULT_COUNT),
        3 => match args.integer(2).map_err(|_| too_small())? {
            -1 => None,
            count => Some(usize::try_from(count).map_err(|_| too_small())?),
        },
        _ => return Err(help::wrong_form("SLOWLOG", args.at(1))),
    };
    let entries = ctx.engine.slowlog.newest(count);
    ctx.out.array(entries.len());
    for entry in entries {
        ctx.out.array(6);
        ctx.out.integer(entry.id as i64);
        ctx.out.integer(entry.time_s as i64);
        ctx.out.integer(entry.duration_us as i64);
        ctx.out.array(entry.args.len());
        entry.args.iter().for_each(|arg| ctx.out.bulk(arg));
        ctx.out.bulk(entry.addr.as_bytes());
        ctx.out.bulk(&entry.name);
    }
    DONE
}

const LEN: Command = Command {
    name: "LEN",
    arity: Arity::Exactly(2),
    summary: "Returns the number of entries in the slow log.",
    tips: &["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"],
    run: |ctx, _| {
        ctx.out.integer(ctx.engine.slowlog.len() as i64);
        DONE
    },
    ..SUB
};

const RESET: Command = Command {
    name: "RESET",
    arity: Arity::Exactly(2),
    summary: "Clears all entries from the slow log.",
    complexity: "O(N) where N is the number of entries in the slowlog",
    tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
    run: |ctx, _| {
        ctx.engine.slowlog.reset();
        ctx.out.ok();
        DONE
    },
    ..SUB
};

const HELP: Command = Command {
    name: "HELP",
    since: "6.2.0",
    arity: Arity::Exactly(2),
    flags: &[Flag::Loading, Flag::Stale],
    summary: "Show helpful text about the different subcommands",
    run: |ctx, _| {
        help::write(
            ctx.out,
            "SLOWLOG",
            &[
                (
                    "GET [<count>]",
                    &[
                        "Return top <count> entries from the slowlog (default: 10, -1 mean all).",
                        "Entries are made of:",
                        "id, timestamp, time in microseconds, arguments array, client IP and port,",
                        "client name",
                    ],
                ),
                ("LEN", &["Return the length of the slowlog."]),
                ("RESET", &["Reset the slowlog."]),
            ],
        )
    },
    ..SUB
};

#[cfg(test)]
mod tests {
    use crate::command::testing::Bench;

    #[test]
    fn entries_say_when_how_long_what_and_who() {
        let mut bench = Bench::with("slowlog-log-slower-than 0\n");
        bench.run("SET k v");
        let shown = bench.run("SLOWLOG GET 1");
        assert!(shown.starts_with("*1|*6|:0|:1000000|:"), "{shown}");
        assert!(shown.ends_with("|*3|$3|SET|$1|k|$1|v|$9|1.2.3.4:5|$0||"), "{shown}");
        bench.run("CONFIG SET slowlog-log-slower-than -1");
        assert_eq!(bench.run("SLOWLOG LEN"), ":2|");
        assert_eq!(bench.run("SLOWLOG GET 0"), "*0|");
        assert!(bench.run("SLOWLOG GET -1").starts_with("*2|"));
        assert_eq!(bench.run("SLOWLOG RESET"), "+OK|");
        assert_eq!(bench.run("SLOWLOG GET"), "*0|");
    }

    #[test]
    fn ten_entries_are_shown_unasked() {
        let mut bench = Bench::with("slowlog-log-slower-than 0\n");
        (0..20).for_each(|_| drop(bench.run("GET a")));
        assert!(bench.run("SLOWLOG GET").starts_with("*10|*6|"));
    }

    #[test]
    fn counts_are_checked() {
        let mut bench = Bench::new();
        for bad in ["-2", "abc", "9223372036854775808"] {
            let reply = bench.run(&format!("SLOWLOG GET {bad}"));
            assert_eq!(reply, "-ERR count should be greater than or equal to -1|");
        }
        let reply = bench.run("SLOWLOG GET 1 2");
        assert_eq!(reply, "-ERR unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP.|");
        assert!(bench.run("SLOWLOG HELP").starts_with("*12|+SLOWLOG <subcommand> [<arg> [value] [opt] ...]. "));
    }
}

//! LATENCY: what took long, and how long commands take.

use std::fs;

use crate::command::args::Args;
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::help;
use crate::command::table::{Command, CommandTable};
use crate::config::choice::AppendFsync;
use crate::observe::latency::Patient;
use crate::spec::{Arity, Flag, Group};

/// This family's commands.
pub const COMMANDS: &[Command] = &[LATENCY];

/// The container.
pub const LATENCY: Command = Command {
    name: "LATENCY",
    arity: Arity::AtLeast(2),
    flags: &[],
    summary: "A container for latency diagnostics commands.",
    complexity: "Depends on subcommand.",
    tips: &[],
    subcommands: &[DOCTOR, GRAPH, HELP, HISTOGRAM, HISTORY, LATEST, RESET],
    ..SUB
};

/// What most subcommands have in common.
const SUB: Command = Command {
    name: "",
    since: "2.8.13",
    group: Group::Server,
    arity: Arity::Exactly(2),
    flags: &[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale],
    categories: &[],
    keys: &[],
    usage: "",
    summary: "",
    complexity: "O(1)",
    tips: &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: help::container,
};

const DOCTOR: Command =
    Command { name: "DOCTOR", summary: "Returns a human-readable latency analysis report.", run: doctor, ..SUB };

fn doctor(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    let config = ctx.config;
    let patient = Patient {
        threshold_ms: config.latency_monitor_threshold,
        slowlog_slower_than_us: config.slowlog_log_slower_than,
        slowlog_max_len: config.slowlog_max_len,
        fsync_always: config.appendonly && config.appendfsync == AppendFsync::Always,
        transparent_huge_pages: fs::read("/sys/kernel/mm/transparent_hugepage/enabled")
            .is_ok_and(|text| text.starts_with(b"[always]")),
    };
    let said = ctx.engine.latency.doctor(now_s(ctx), &patient);
    ctx.out.verbatim("txt", said.as_bytes());
    DONE
}

fn now_s(ctx: &Context<'_>) -> u64 {
    ctx.db.now_ms() / 1000
}

const GRAPH: Command = Command {
    name: "GRAPH",
    arity: Arity::Exactly(3),
    usage: "event",
    summary: "Returns a latency graph for an event.",
    run: |ctx, args| {
        let event = args.at(2);
        let graph = ctx.engine.latency.graph(event, now_s(ctx)).ok_or_else(|| {
            let event = String::from_utf8_lossy(event).replace(['\r', '\n'], " ");
            Error::text(format!("ERR No samples available for event '{event}'"))
        })?;
        ctx.out.verbatim("txt", graph.as_bytes());
        DONE
    },
    ..SUB
};

const HISTORY: Command = Command {
    name: "HISTORY",
    arity: Arity::Exactly(3),
    usage: "event",
    summary: "Returns timestamp-latency samples for an event.",
    run: |ctx, args| {
        let samples = ctx.engine.latency.history(args.at(2));
        ctx.out.array(samples.len());
        for sample in samples {
            ctx.out.array(2);
            ctx.out.integer(sample.time_s as i64);
            ctx.out.integer(sample.latency_ms as i64);
        }
        DONE
    },
    ..SUB
};

const LATEST: Command = Command {
    name: "LATEST",
    summary: "Returns the latest latency samples for all events.",
    run: |ctx, _| {
        let latest = ctx.engine.latency.latest();
        ctx.out.array(latest.len());
        for line in latest {
            ctx.out.array(4);
            ctx.out.bulk(line.event.as_bytes());
            ctx.out.integer(line.last.time_s as i64);
            ctx.out.integer(line.last.latency_ms as i64);
            ctx.out.integer(line.worst_ms as i64);
        }
        DONE
    },
    ..SUB
};

const RESET: Command = Command {
    name: "RESET",
    arity: Arity::AtLeast(2),
    usage: "[event...]",
    summary: "Resets the latency data for one or more events.",
    tips: &["request_policy:all_nodes", "response_policy:agg_sum"],
    run: |ctx, args| {
        let events: Vec<&[u8]> = args.from(2).collect();
        ctx.out.integer(ctx.engine.latency.reset(&events) as i64);
        DONE
    },
    ..SUB
};

const HISTOGRAM: Command = Command {
    name: "HISTOGRAM",
    since: "7.0.0",
    arity: Arity::AtLeast(2),
    usage: "[command...]",
    summary: "Returns the cumulative distribution of latencies of a subset or all commands.",
    complexity: "O(N) where N is the number of commands with latency information being retrieved.",
    run: histogram,
    ..SUB
};

fn histogram(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let commands = &ctx.engine.commands;
    let wanted: Vec<u16> = if args.len() == 2 {
        (0..u16::try_from(commands.count()).unwrap_or(u16::MAX)).collect()
    } else {
        args.from(2).flat_map(|name| numbers(commands, name)).collect()
    };
    let names = commands.names();
    let map = ctx.out.defer();
    let mut rows = 0;
    for command in wanted {
        let durations = ctx.engine.stats.command(command).histogram;
        if durations.total() == 0 {
            continue;
        }
        rows += 1;
        ctx.out.bulk(names[usize::from(command)].as_bytes());
        ctx.out.map(2);
        ctx.out.bulk(b"calls");
        ctx.out.integer(durations.total() as i64);
        ctx.out.bulk(b"histogram_usec");
        let steps = durations.powers_of_two_us();
        ctx.out.map(steps.len());
        for (us, calls) in steps {
            ctx.out.integer(us as i64);
            ctx.out.integer(calls as i64);
        }
    }
    ctx.out.finish_map(map, rows);
    DONE
}

/// The numbers of the commands that `name` selects: a command with all its subcommands, or one
/// subcommand (`config|set`); none where there is no such command.
fn numbers(commands: &CommandTable, name: &[u8]) -> Vec<u16> {
    let mut parts = name.splitn(2, |byte| *byte == b'|');
    let Some(entry) = commands.find(parts.next().unwrap_or_default()) else { return Vec::new() };
    match parts.next() {
        Some(sub) => entry.subcommand(sub).map(|sub| sub.index).into_iter().collect(),
        None => [entry.index].into_iter().chain(entry.subcommands.iter().map(|sub| sub.index)).collect(),
    }
}

const HELP: Command = Command {
    name: "HELP",
    flags: &[Flag::Loading, Flag::Stale],
    summary: "Returns helpful text about the different subcommands.",
    tips: &[],
    run: |ctx, _| {
        help::write(
            ctx.out,
            "LATENCY",
            &[
                ("DOCTOR", &["Return a human readable latency analysis report."]),
                ("GRAPH <event>", &["Return an ASCII latency graph for the <event> class."]),
                ("HISTORY <event>", &["Return time-latency samples for the <event> class."]),
                ("LATEST", &["Return the latest latency samples for all events."]),
                (
                    "RESET [<event> ...]",
                    &[
                        "Reset latency data of one or more <event> classes.",
                        "(default: reset all data for all event classes)",
                    ],
                ),
                (
                    "HISTOGRAM [COMMAND ...]",
                    &[
                        "Return a cumulative distribution of latencies in the format of a histogram for the \
                         specified command names.",
                        "If no commands are specified then all histograms are replied.",
                    ],
                ),
            ],
        )
    },
    ..SUB
};

#[cfg(test)]
mod tests {
    use crate::command::testing::Bench;

    #[test]
    fn events_are_listed_with_their_samples_until_they_are_reset() {
        let mut bench = Bench::new();
        bench.engine.latency.record("command", 500, 30);
        bench.engine.latency.record("command", 501, 20);
        assert_eq!(bench.run("LATENCY LATEST"), "*1|*4|$7|command|:501|:20|:30|");
        assert_eq!(bench.run("LATENCY HISTORY command"), "*2|*2|:500|:30|*2|:501|:20|");
        assert!(bench.run("LATENCY GRAPH command").contains("command - high 30 ms, low 20 ms"));
        assert_eq!(bench.run("LATENCY RESET fork"), ":0|");
        assert_eq!(bench.run("LATENCY RESET fork command"), ":1|");
        assert_eq!(bench.run("LATENCY HISTORY command"), "*0|");
        assert_eq!(bench.run("LATENCY GRAPH command"), "-ERR No samples available for event 'command'|");
        assert!(bench.run("LATENCY DOCTOR").contains("monitor is off"));
    }

    #[test]
    fn a_histogram_counts_calls_of_commands_and_of_all_subcommands_of_a_container() {
        let mut bench = Bench::new();
        bench.run("SET a 1");
        bench.run("CONFIG GET port");
        bench.run("CONFIG RESETSTAT x");
        let reply = bench.run("LATENCY HISTOGRAM set config nonsense");
        assert!(reply.starts_with("*4|$3|set|*4|$5|calls|:1|$14|histogram_usec|*2|:"), "{reply}");
        assert!(reply.contains("|$10|config|get|*4|$5|calls|:1|"), "{reply}");
        assert!(bench.run("LATENCY HISTOGRAM CONFIG|GET").starts_with("*2|$10|config|get|"));
        assert_eq!(bench.run("LATENCY HISTOGRAM config|rewrite nonsense nonsense|x"), "*0|");
    }
}

//! CONFIG: reading and changing the configuration of a running server.
//!
//! What must stay true: CONFIG SET changes all of its directives or none. The new configuration is made
//! beside the old one, applied by the host to what runs, and only then put in the old one's place; one
//! change at a time.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::command::aof;
use crate::command::args::Args;
use crate::command::client::tracking;
use crate::command::context::{Context, DONE, Reply};
use crate::command::engine::Refusal;
use crate::command::error::Error;
use crate::command::help;
use crate::command::replication;
use crate::command::table::Command;
use crate::config::change::{Changer, SetError};
use crate::config::table::{Config, find};
use crate::persist::disk;
use crate::spec::{Arity, Flag, Group};

/// This family's commands.
pub const COMMANDS: &[Command] = &[CONFIG];

const FLAGS: &[Flag] = &[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale];

/// The container.
pub const CONFIG: Command = Command {
    name: "CONFIG",
    arity: Arity::AtLeast(2),
    flags: &[],
    summary: "A container for server configuration commands.",
    complexity: "Depends on subcommand.",
    tips: &[],
    subcommands: &[GET, HELP, RESETSTAT, REWRITE, SET],
    ..SUB
};

/// What most subcommands have in common.
const SUB: Command = Command {
    name: "",
    since: "2.0.0",
    group: Group::Server,
    arity: Arity::AtLeast(2),
    flags: FLAGS,
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

const GET: Command = Command {
    name: "GET",
    arity: Arity::AtLeast(3),
    usage: "parameter...",
    summary: "Returns the effective values of configuration parameters.",
    complexity: "O(N) when N is the number of configuration parameters provided",
    history: &[("7.0.0", "Added the ability to pass multiple pattern parameters in one call")],
    run: get,
    ..SUB
};

fn get(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let patterns: Vec<&[u8]> = args.from(2).collect();
    let found = ctx.engine.config.load().matching(&patterns);
    ctx.out.map(found.len());
    for (name, value) in found {
        ctx.out.bulk(&name);
        ctx.out.bulk(&value);
    }
    DONE
}

const SET: Command = Command {
    name: "SET",
    arity: Arity::AtLeast(4),
    usage: "data{parameter value}...",
    summary: "Sets configuration parameters in-flight.",
    complexity: "O(N) when N is the number of configuration parameters provided",
    tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
    history: &[("7.0.0", "Added the ability to set multiple parameters in one call.")],
    run: set,
    ..SUB
};

fn set(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    // Before anything can go wrong: what failed is logged too.
    for i in (2..args.len().saturating_sub(1)).step_by(2) {
        if find(args.at(i)).is_some_and(|(directive, _)| directive.flags.sensitive) {
            ctx.hidden.push(i + 1);
        }
    }
    if !args.len().is_multiple_of(2) {
        return Err(Error::Syntax);
    }
    let words: Vec<&[u8]> = args.from(2).collect();
    let changes: Vec<(&[u8], &[u8])> = words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let engine = ctx.engine;
    let loading = engine.saves.loading.active.load(Ordering::Relaxed) || engine.is_refusing(Refusal::LoadingAside);
    let changer = Changer { local: ctx.session.shared.is_local(), loading };
    let _one_at_a_time = engine.config_change.lock();
    let old = engine.config.load_full();
    let (mut new, changed) = old.with(&changes, changer).map_err(refusal)?;
    if !changed.is_empty() {
        let names: Vec<&str> = changed.iter().map(|directive| directive.name).collect();
        if let Err((directive, reason)) = engine.host.apply(&new, &old, &names) {
            return Err(refusal(SetError::Failed { argument: directive.into(), reason }));
        }
        follow(ctx, &new, &old);
        // As a path that is right wherever the process goes; it exists, or it would have been refused.
        if changed.iter().any(|directive| directive.name == "dir")
            && let Ok(path) = disk::absolute(Path::new(OsStr::from_bytes(&new.dir.0)))
        {
            new.dir.0 = path.into_os_string().into_vec();
        }
        engine.follow(&new);
        let new = Arc::new(new);
        engine.config.store(new.clone());
        aof::follow(engine, &new, &old);
        if new.repl_backlog_size != old.repl_backlog_size {
            engine.replication.set_keep(new.repl_backlog_size);
        }
        if new.rdb_key_save_delay < old.rdb_key_save_delay {
            engine.saves.hurry();
            engine.aof.hurry_rewrite();
        }
        replication::look_at_acks(engine);
        tracking::make_room(engine, ctx.db.effects);
    }
    ctx.out.ok();
    DONE
}

/// What of the engine itself follows a changed configuration. Whatever reads the configuration as it
/// goes needs nothing here.
fn follow(ctx: &Context<'_>, new: &Config, old: &Config) {
    if new.requirepass != old.requirepass {
        ctx.engine.users.set_default_password(new.requirepass.as_deref());
    }
    ctx.engine.slowlog.truncate(usize::try_from(new.slowlog_max_len).unwrap_or(usize::MAX));
}

fn refusal(error: SetError) -> Error {
    match error {
        SetError::Loading => Error::Loading,
        error => Error::text(format!("ERR {error}")),
    }
}

const REWRITE: Command = Command {
    name: "REWRITE",
    since: "2.8.0",
    arity: Arity::Exactly(2),
    summary: "Persists the effective configuration to file.",
    tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
    run: |ctx, _| {
        rewrite(ctx, ctx.engine.debug.rewrite_all.load(Ordering::Relaxed))?;
        ctx.out.ok();
        DONE
    },
    ..SUB
};

/// Writes the configuration back to its file; with `all`, directives that have their default value too.
///
/// # Errors
/// There is no file, or it cannot be written.
pub fn rewrite(ctx: &Context<'_>, all: bool) -> Result<(), Error> {
    let _one_at_a_time = ctx.engine.config_change.lock();
    let users = ctx.engine.users.lines();
    ctx.engine.host.rewrite_config(&ctx.engine.config.load(), &users, all).map_err(Error::text)
}

const RESETSTAT: Command = Command {
    name: "RESETSTAT",
    arity: Arity::Exactly(2),
    summary: "Resets the server's statistics.",
    tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
    run: |ctx, _| {
        ctx.engine.stats.reset();
        if let Some(cluster) = &ctx.engine.cluster {
            cluster.stats.reset_all();
        }
        ctx.engine.keyspace.reclaimer().reset();
        ctx.engine.saves.count.store(0, Ordering::Relaxed);
        ctx.engine.aof.rewrites.store(0, Ordering::Relaxed);
        ctx.out.ok();
        DONE
    },
    ..SUB
};

const HELP: Command = Command {
    name: "HELP",
    since: "5.0.0",
    arity: Arity::Exactly(2),
    flags: &[Flag::Loading, Flag::Stale],
    summary: "Returns helpful text about the different subcommands.",
    run: |ctx, _| {
        help::write(
            ctx.out,
            "CONFIG",
            &[
                ("GET <pattern>", &["Return parameters matching the glob-like <pattern> and their values."]),
                ("SET <directive> <value>", &["Set the configuration <directive> to <value>."]),
                ("RESETSTAT", &["Reset statistics reported by the INFO command."]),
                ("REWRITE", &["Rewrite the configuration file."]),
            ],
        )
    },
    ..SUB
};

#[cfg(test)]
mod tests {
    use crate::command::testing::Bench;

    #[test]
    fn each_name_is_answered_once_with_its_value() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("CONFIG GET maxmemory"), "*2|$9|maxmemory|$1|0|");
        assert_eq!(bench.run("CONFIG GET maxmemory maxmemory"), "*2|$9|maxmemory|$1|0|");
        assert_eq!(bench.run("CONFIG GET nonsense"), "*0|");
        assert_eq!(bench.run("CONFIG GET"), "-ERR wrong number of arguments for 'config|get' command|");
        assert_eq!(bench.run("CONFIG NONSENSE"), "-ERR unknown subcommand 'NONSENSE'. Try CONFIG HELP.|");
        assert_eq!(bench.run("CONFIG"), "-ERR wrong number of arguments for 'config' command|");
    }

    #[test]
    fn set_changes_all_or_nothing() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("CONFIG SET timeout 10 maxmemory 1gb"), "+OK|");
        assert_eq!(bench.run("CONFIG GET timeout"), "*2|$7|timeout|$2|10|");
        assert_eq!(
            bench.run("CONFIG SET timeout 20 maxmemory abc"),
            "-ERR CONFIG SET failed (possibly related to argument 'maxmemory') - argument must be a memory value|"
        );
        assert_eq!(bench.run("CONFIG GET timeout"), "*2|$7|timeout|$2|10|");
        assert_eq!(bench.run("CONFIG SET timeout 10 maxmemory"), "-ERR syntax error|");
        assert_eq!(bench.run("CONFIG SET a"), "-ERR wrong number of arguments for 'config|set' command|");
        assert!(bench.run("CONFIG SET databases 3").ends_with("can't set immutable config|"));
    }

    #[test]
    fn what_the_host_cannot_apply_is_not_changed() {
        let mut bench = Bench::refusing(("port", "Unable to listen on this port. Check server logs."));
        assert_eq!(
            bench.run("CONFIG SET timeout 7 port 1"),
            "-ERR CONFIG SET failed (possibly related to argument 'port') - \
             Unable to listen on this port. Check server logs.|"
        );
        assert_eq!(bench.run("CONFIG GET timeout"), "*2|$7|timeout|$1|0|");
        // What stays as it was need not be applied.
        assert_eq!(bench.run("CONFIG SET timeout 0"), "+OK|");
    }

    #[test]
    fn a_shorter_slow_log_forgets_at_once_and_passwords_are_not_shown() {
        let mut bench = Bench::with("slowlog-log-slower-than 0\n");
        bench.run("GET a");
        bench.run("CONFIG SET requirepass secret timeout 3");
        bench.run("CONFIG SET masterauth secret nosuch 3");
        let shown = bench.run("SLOWLOG GET");
        assert!(!shown.contains("secret"), "{shown}");
        assert!(shown.contains("requirepass|$10|(redacted)|$7|timeout|$1|3|"), "{shown}");
        assert!(shown.contains("masterauth|$10|(redacted)|$6|nosuch|"), "{shown}");
        bench.run("CONFIG SET slowlog-log-slower-than -1");
        bench.run("CONFIG SET slowlog-max-len 1");
        assert_eq!(bench.run("SLOWLOG LEN"), ":1|");
    }

    #[test]
    fn statistics_begin_anew() {
        let mut bench = Bench::new();
        bench.run("GET");
        assert!(bench.run("INFO errorstats").contains("errorstat_ERR:count=1"));
        assert_eq!(bench.run("CONFIG RESETSTAT"), "+OK|");
        assert!(!bench.run("INFO errorstats").contains("errorstat_ERR"));
    }

    #[test]
    fn without_a_file_there_is_nothing_to_rewrite() {
        assert_eq!(Bench::new().run("CONFIG REWRITE"), "-ERR The server is running without a config file|");
    }
}

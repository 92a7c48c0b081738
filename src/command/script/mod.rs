//! EVAL and its kin, and SCRIPT: scripts that clients send.

mod debug;
pub mod prepare;
pub mod run;
#[cfg(test)]
mod tests;

use crate::command::args::{Args, word};
use crate::command::call::show_script;
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::help;
use crate::command::script::prepare::{NO_SCRIPT, key_count, sha_of, unkilled};
use crate::command::script::run::{Access as DataAccess, Subject};
use crate::command::table::Command;
use crate::script::running::Kind;
use crate::spec::{Access, Arity, Category, Flag, Group, Keys};

/// This family's commands.
pub const COMMANDS: &[Command] = &[EVAL, EVAL_RO, EVALSHA, EVALSHA_RO, SCRIPT];

/// What commands that run scripts have in common.
pub const RUNS_SCRIPTS: Command = Command {
    name: "",
    since: "2.6.0",
    group: Group::Scripting,
    arity: Arity::AtLeast(3),
    flags: &[Flag::NoScript, Flag::Stale, Flag::SkipMonitor, Flag::NoMandatoryKeys, Flag::MovableKeys],
    categories: &[],
    keys: &[Keys::Counted { count: 2, first: 3, step: 1, access: Access::READ_UPDATE }],
    usage: "",
    summary: "",
    complexity: "Depends on the script that is executed.",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: eval,
};

/// The flags of those that only read.
pub const ONLY_READS: &[Flag] =
    &[Flag::ReadOnly, Flag::NoScript, Flag::Stale, Flag::SkipMonitor, Flag::NoMandatoryKeys, Flag::MovableKeys];

/// A remark on keys that a script reads and writes.
pub const WORST: &str = "We cannot tell how the keys will be used so we assume the worst, RW and UPDATE";
/// A remark on keys that a script reads.
pub const WORST_READ: &str = "We cannot tell how the keys will be used so we assume the worst, RO and ACCESS";

/// Runs a script and replies with what it returns.
pub const EVAL: Command = Command {
    name: "EVAL",
    keys: &[Keys::Counted { count: 2, first: 3, step: 1, access: Access::READ_UPDATE.noted(WORST) }],
    usage: "script numkeys [key...] [arg...]",
    summary: "Executes a server-side Lua script.",
    run: eval,
    ..RUNS_SCRIPTS
};

/// The same for a script that may not write.
pub const EVAL_RO: Command = Command {
    name: "EVAL_RO",
    since: "7.0.0",
    flags: ONLY_READS,
    keys: &[Keys::Counted { count: 2, first: 3, step: 1, access: Access::READ.noted(WORST_READ) }],
    usage: "script numkeys [key...] [arg...]",
    summary: "Executes a read-only server-side Lua script.",
    run: eval_ro,
    ..RUNS_SCRIPTS
};

/// Runs a script that is known by the SHA-1 of its text.
pub const EVALSHA: Command = Command {
    name: "EVALSHA",
    usage: "sha1 numkeys [key...] [arg...]",
    summary: "Executes a server-side Lua script by SHA1 digest.",
    run: evalsha,
    ..RUNS_SCRIPTS
};

/// The same for a script that may not write.
pub const EVALSHA_RO: Command = Command {
    name: "EVALSHA_RO",
    since: "7.0.0",
    flags: ONLY_READS,
    keys: &[Keys::Counted { count: 2, first: 3, step: 1, access: Access::READ }],
    usage: "sha1 numkeys [key...] [arg...]",
    summary: "Executes a read-only server-side Lua script by SHA1 digest.",
    run: evalsha_ro,
    ..RUNS_SCRIPTS
};

fn eval(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    evaluate(ctx, args, DataAccess::ReadWrite)
}

fn eval_ro(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    evaluate(ctx, args, DataAccess::ReadOnly)
}

fn evaluate(ctx: &mut Context<'_>, args: &Args<'_>, access: DataAccess) -> Reply {
    if ctx.session.debugging.is_some() && !ctx.scripted {
        return debug::evaluate(ctx, args, access);
    }
    evaluate_plainly(ctx, args, access)
}

fn evaluate_plainly(ctx: &mut Context<'_>, args: &Args<'_>, access: DataAccess) -> Reply {
    show_script(ctx, args);
    let keys = key_count(args)?;
    let script = prepare::script_of(ctx.engine, args.at(1), false)?;
    run::run(ctx, args, keys, Subject::Script(&script), access)
}

fn evalsha(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    evaluate_sha(ctx, args, DataAccess::ReadWrite)
}

fn evalsha_ro(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    evaluate_sha(ctx, args, DataAccess::ReadOnly)
}

fn evaluate_sha(ctx: &mut Context<'_>, args: &Args<'_>, access: DataAccess) -> Reply {
    show_script(ctx, args);
    let sha = sha_of(args.at(1)).ok_or(Error::text(NO_SCRIPT))?;
    if ctx.session.debugging.is_some() {
        return Err(Error::text("ERR Please use EVAL instead of EVALSHA for debugging"));
    }
    let keys = key_count(args)?;
    let script = ctx.engine.scripts.cache.use_script(&sha).ok_or(Error::text(NO_SCRIPT))?;
    run::run(ctx, args, keys, Subject::Script(&script), access)
}

/// The container.
pub const SCRIPT: Command = Command {
    name: "SCRIPT",
    arity: Arity::AtLeast(2),
    flags: &[],
    categories: &[],
    summary: "A container for Lua scripts management commands.",
    complexity: "Depends on subcommand.",
    subcommands: &[DEBUG, EXISTS, FLUSH, HELP, KILL, LOAD, SHOW],
    ..SUB
};

/// Replies with the text of a script, as later servers do.
const SHOW: Command = Command {
    name: "SHOW",
    since: "8.0.0",
    arity: Arity::Exactly(3),
    usage: "sha1",
    summary: "Shows the text of a server-side Lua script in the script cache.",
    run: show,
    ..SUB
};

fn show(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let script = sha_of(args.at(2)).and_then(|sha| ctx.engine.scripts.cache.find(&sha));
    ctx.out.bulk(&script.ok_or(Error::text(NO_SCRIPT))?.text);
    DONE
}

/// What subcommands have in common.
const SUB: Command = Command {
    name: "",
    since: "2.6.0",
    group: Group::Scripting,
    arity: Arity::Exactly(2),
    flags: &[Flag::NoScript],
    categories: &[Category::Scripting],
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

const DEBUG: Command = Command {
    name: "DEBUG",
    since: "3.2.0",
    arity: Arity::Exactly(3),
    usage: "mode(YES | SYNC | NO)",
    summary: "Sets the debug mode of server-side Lua scripts.",
    run: debug::debug,
    ..SUB
};

const EXISTS: Command = Command {
    name: "EXISTS",
    arity: Arity::AtLeast(3),
    usage: "sha1...",
    summary: "Determines whether server-side Lua scripts exist in the script cache.",
    complexity: "O(N) with N being the number of scripts to check (so checking a single script is an O(1) operation).",
    tips: &["request_policy:all_shards", "response_policy:agg_logical_and"],
    run: exists,
    ..SUB
};

fn exists(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    ctx.out.array(args.len() - 2);
    for arg in args.from(2) {
        let known = sha_of(arg).is_some_and(|sha| ctx.engine.scripts.cache.find(&sha).is_some());
        ctx.out.integer(i64::from(known));
    }
    DONE
}

const FLUSH: Command = Command {
    name: "FLUSH",
    arity: Arity::AtLeast(2),
    usage: "[flush-type(ASYNC | SYNC)]@6.2.0",
    summary: "Removes all server-side Lua scripts from the script cache.",
    complexity: "O(N) with N being the number of scripts in cache",
    tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
    history: &[("6.2.0", "Added the `ASYNC` and `SYNC` flushing mode modifiers.")],
    run: flush,
    ..SUB
};

/// What is freed elsewhere is more than this: less costs no more here.
const FREED_HERE: usize = 64;

/// Frees what was forgotten: elsewhere, where there is much of it and the client, or the configuration, says so.
pub fn free_later(ctx: &Context<'_>, way: Option<&[u8]>, count: usize, forgotten: impl Send + 'static) {
    let is_lazy = match way {
        Some(way) => way.eq_ignore_ascii_case(b"ASYNC"),
        None => ctx.config.lazyfree_lazy_user_flush,
    };
    if is_lazy && count > FREED_HERE {
        ctx.engine.keyspace.reclaimer().free(count as u64, forgotten);
    }
}

fn flush(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let fits = args.len() == 2 || args.len() == 3 && word(args.at(2), &["ASYNC", "SYNC"]).is_some();
    if !fits {
        return Err(Error::text("ERR SCRIPT FLUSH only support SYNC|ASYNC option"));
    }
    let scripts = &ctx.engine.scripts;
    let (count, forgotten) = scripts.cache.flush();
    free_later(ctx, args.opt(2), count, forgotten);
    // Machines that run at the moment forget them before they run again.
    scripts.machines.clear();
    ctx.out.ok();
    DONE
}

const HELP: Command = Command {
    name: "HELP",
    since: "5.0.0",
    flags: &[Flag::Loading, Flag::Stale],
    summary: "Returns helpful text about the different subcommands.",
    run: |ctx, _| help::write(ctx.out, "SCRIPT", TOPICS),
    ..SUB
};

const TOPICS: &[help::Topic] = &[
    ("DEBUG (YES|SYNC|NO)", &["Set the debug mode for subsequent scripts executed."]),
    ("EXISTS <sha1> [<sha1> ...]", &["Return information about the existence of the scripts in the script cache."]),
    (
        "FLUSH [ASYNC|SYNC]",
        &[
            "Flush the Lua scripts cache. Very dangerous on replicas.",
            "When called without the optional mode argument, the behavior is determined by the",
            "lazyfree-lazy-user-flush configuration directive. Valid modes are:",
            "* ASYNC: Asynchronously flush the scripts cache.",
            "* SYNC: Synchronously flush the scripts cache.",
        ],
    ),
    ("KILL", &["Kill the currently executing Lua script."]),
    ("LOAD <script>", &["Load a script into the scripts cache without executing it."]),
];

const KILL: Command = Command {
    name: "KILL",
    flags: &[Flag::NoScript, Flag::AllowBusy],
    summary: "Terminates a server-side Lua script during execution.",
    tips: &["request_policy:all_shards", "response_policy:one_succeeded"],
    run: kill,
    ..SUB
};

fn kill(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    ctx.engine.scripts.running.kill(Kind::Script).map_err(unkilled)?;
    ctx.out.ok();
    DONE
}

const LOAD: Command = Command {
    name: "LOAD",
    arity: Arity::Exactly(3),
    flags: &[Flag::NoScript, Flag::Stale],
    usage: "script",
    summary: "Loads a server-side Lua script to the script cache.",
    complexity: "O(N) with N being the length in bytes of the script body.",
    tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
    run: load,
    ..SUB
};

fn load(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let script = prepare::script_of(ctx.engine, args.at(2), true)?;
    ctx.out.bulk(&script.sha);
    DONE
}

//! CLIENT: what a connection is called and how it is treated, and what others are there.

pub mod eviction;
mod filter;
mod line;
pub mod tracking;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::client::session::ReplyMode;
use crate::client::shared::{Mark, Names, Shared};
use crate::command::args::{Args, word};
use crate::command::client::filter::Filter;
use crate::command::client::line::Scene;
use crate::command::connection::close_after_reply;
use crate::command::context::{Context, DONE, Reply, later};
use crate::command::engine::Engine;
use crate::command::engine::PauseMode;
use crate::command::error::Error;
use crate::command::table::Command;
use crate::config::table::Original;
use crate::resp::reply::Protocol;
use crate::spec::{Arity, Flag, Group};
use crate::stdx::number::parse_i64;

/// What the container and its subcommands have in common.
/// For so long CLIENT UNBLOCK waits at most for the worker of the client that it unblocks.
const UNBLOCK_PATIENCE: Duration = Duration::from_millis(10);

const SUB: Command = Command {
    name: "",
    since: "2.4.0",
    group: Group::Connection,
    arity: Arity::Exactly(2),
    flags: &[Flag::NoScript, Flag::Loading, Flag::Stale],
    categories: &[],
    keys: &[],
    usage: "",
    summary: "",
    complexity: "O(1)",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: help,
};

/// The flags of subcommands that concern other clients.
const ADMIN: &[Flag] = &[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale];
/// The same of those that nothing else runs beside.
const ALONE: &[Flag] = &[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale, Flag::Alone];

/// The container; by itself it is called with too few arguments.
pub const CLIENT: Command = Command {
    name: "CLIENT",
    arity: Arity::AtLeast(2),
    flags: &[],
    summary: "A container for client connection commands.",
    complexity: "Depends on subcommand.",
    subcommands: &[
        tracking::CACHING,
        CAPA,
        GETNAME,
        tracking::GETREDIR,
        HELP,
        ID,
        INFO,
        KILL,
        LIST,
        NO_EVICT,
        NO_TOUCH,
        PAUSE,
        REPLY,
        SETINFO,
        SETNAME,
        tracking::TRACKING,
        tracking::TRACKINGINFO,
        UNBLOCK,
        UNPAUSE,
    ],
    ..SUB
};

/// Takes note of what the client can do. REDIRECT is the only capability: on a replica such a client is sent to the primary
/// with what reads or writes data. What is not known is no concern of ours.
const CAPA: Command = Command {
    name: "CAPA",
    since: "8.0.0",
    arity: Arity::AtLeast(3),
    usage: "capability...",
    summary: "A client claims its capability.",
    run: |ctx, args| {
        if args.from(2).any(|capability| capability.eq_ignore_ascii_case(b"REDIRECT")) {
            ctx.session.shared.mark(Mark::Redirect, true);
        }
        ok(ctx, args)
    },
    ..SUB
};

fn ok(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    ctx.out.ok();
    DONE
}

const GETNAME: Command = Command {
    name: "GETNAME",
    since: "2.6.9",
    summary: "Returns the name of the connection.",
    run: |ctx, _| {
        match &*ctx.session.shared.names.lock().name {
            [] => ctx.out.null(),
            name => ctx.out.bulk(name),
        }
        DONE
    },
    ..SUB
};

const SETNAME: Command = Command {
    name: "SETNAME",
    since: "2.6.9",
    arity: Arity::Exactly(3),
    usage: "connection-name",
    summary: "Sets the connection name.",
    tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
    run: |ctx, args| {
        ctx.session.shared.names.lock().name = checked_name(args.at(2))?.to_vec();
        ok(ctx, args)
    },
    ..SUB
};

/// A name that a client may have: printable, without blanks; nothing takes the name away.
///
/// # Errors
/// Redis' text for any other.
pub fn checked_name(name: &[u8]) -> Result<&[u8], Error> {
    if Names::allow(name) {
        return Ok(name);
    }
    Err(Error::text("ERR Client names cannot contain spaces, newlines or special characters."))
}

const SETINFO: Command = Command {
    name: "SETINFO",
    since: "7.2.0",
    arity: Arity::Exactly(4),
    usage: "attr(LIB-NAME libname | LIB-VER libver)",
    summary: "Sets information specific to the client or connection.",
    tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
    run: setinfo,
    ..SUB
};

fn setinfo(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let (attribute, value) = (args.at(2), args.at(3));
    let quoted = String::from_utf8_lossy(attribute);
    let name = match word(attribute, &["LIB-NAME", "LIB-VER"]) {
        Some(name) if Names::allow(value) => name,
        Some(_) => {
            let text = format!("ERR {quoted} cannot contain spaces, newlines or special characters.");
            return Err(Error::text(text));
        }
        None => return Err(Error::text(format!("ERR Unrecognized option '{quoted}'"))),
    };
    {
        let mut names = ctx.session.shared.names.lock();
        let field = if name == "LIB-NAME" { &mut names.library } else { &mut names.version };
        *field = value.to_vec();
    }
    ok(ctx, args)
}

const ID: Command = Command {
    name: "ID",
    since: "5.0.0",
    summary: "Returns the unique client ID of the connection.",
    run: |ctx, _| {
        ctx.out.integer(ctx.session.shared.id.cast_signed());
        DONE
    },
    ..SUB
};

const INFO: Command = Command {
    name: "INFO",
    since: "6.2.0",
    summary: "Returns information about the connection.",
    tips: &["nondeterministic_output"],
    run: |ctx, args| {
        let shared = ctx.session.shared.clone();
        describe(ctx, args, &[shared]);
        DONE
    },
    ..SUB
};

const LIST: Command = Command {
    name: "LIST",
    arity: Arity::AtLeast(2),
    flags: ADMIN,
    usage: "[TYPE client-type(NORMAL | MASTER | REPLICA | PUBSUB)]@5.0.0 [ID client-id:integer...]@6.2.0 [USER username]@8.1.0 [ADDR addr/ip:port]@8.1.0 [LADDR laddr/ip:port]@8.1.0 [SKIPME skipme(YES | NO)]@8.1.0 [MAXAGE maxage:integer]@8.1.0",
    summary: "Lists open connections.",
    complexity: "O(N) where N is the number of client connections",
    tips: &["nondeterministic_output"],
    history: &[
        ("2.8.12", "Added unique client `id` field."),
        ("5.0.0", "Added optional `TYPE` filter."),
        ("6.0.0", "Added `user` field."),
        ("6.2.0", "Added `argv-mem`, `tot-mem`, `laddr` and `redir` fields and the optional `ID` filter."),
        ("7.0.0", "Added `resp`, `multi-mem`, `rbs` and `rbp` fields."),
        ("7.0.3", "Added `ssub` field."),
    ],
    run: list,
    ..SUB
};

fn list(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let filter = Filter::for_list(args, &ctx.engine.users)?;
    let (me, now_ms) = (ctx.session.shared.id, ctx.db.now_ms());
    eviction::note_all(ctx.engine);
    let mut clients = match &filter.ids {
        Some(ids) => ids.iter().filter_map(|id| ctx.engine.clients.find(u64::try_from(*id).ok()?)).collect(),
        None => ctx.engine.clients.all(),
    };
    clients.retain(|client| filter.passes(client, now_ms) && (client.id != me || filter.skip_me != Some(true)));
    describe(ctx, args, &clients);
    DONE
}

/// Writes the lines of `clients`, which `args` ask for.
fn describe(ctx: &mut Context<'_>, args: &Args<'_>, clients: &[Arc<Shared>]) {
    // The connection tells its figures after each batch; what this batch did so far is told here.
    let figures = &ctx.session.shared.figures;
    figures.db.store(u32::try_from(ctx.session.db).unwrap_or(u32::MAX), Ordering::Relaxed);
    let protocol = if ctx.out.protocol() == Protocol::Resp3 { 3 } else { 2 };
    figures.protocol.store(protocol, Ordering::Relaxed);
    // With Redis a request stands in the client's buffer while it runs, with Valkey in that of the thread.
    if ctx.config.original == Original::Redis {
        figures.query_bytes.store(usize::try_from(args.wire_bytes()).unwrap_or(usize::MAX), Ordering::Relaxed);
    }
    figures.argument_bytes.store(args.from(0).map(<[u8]>::len).sum(), Ordering::Relaxed);
    let (engine, now_ms) = (ctx.engine, ctx.db.now_ms());
    let waits = |id| engine.pause.holds(id, now_ms);
    let scene = Scene { now_ms, commands: &engine.commands.names(), waits: &waits };
    let mut text = Vec::with_capacity(clients.len() * 400);
    clients.iter().for_each(|client| line::append(&mut text, client, &scene));
    ctx.out.verbatim("txt", &text);
}

/// How CLIENT LIST describes a connection, without the line's end.
pub fn described(engine: &Engine, client: &Shared) -> Vec<u8> {
    let now_ms = engine.clock.now_ms();
    let waits = |id| engine.pause.holds(id, now_ms);
    let mut text = Vec::with_capacity(400);
    line::append(&mut text, client, &Scene { now_ms, commands: &engine.commands.names(), waits: &waits });
    text.pop();
    text
}

const KILL: Command = Command {
    name: "KILL",
    arity: Arity::AtLeast(3),
    flags: ADMIN,
    usage: "filter(old-format/ip:port | new-format([ID client-id:integer]@2.8.12 | [TYPE client-type(NORMAL | MASTER@3.2.0 | SLAVE | REPLICA@5.0.0 | PUBSUB)]@2.8.12 | [USER username] | [ADDR addr/ip:port] | [LADDR laddr/ip:port]@6.2.0 | [SKIPME skipme(YES | NO)] | [MAXAGE maxage:integer]@7.4.0)...)",
    summary: "Terminates open connections.",
    complexity: "O(N) where N is the number of client connections",
    history: &[
        ("2.8.12", "Added new filter format."),
        ("2.8.12", "`ID` option."),
        ("3.2.0", "Added `master` type in for `TYPE` option."),
        ("5.0.0", "Replaced `slave` `TYPE` with `replica`. `slave` still supported for backward compatibility."),
        ("6.2.0", "`LADDR` option."),
    ],
    run: kill,
    ..SUB
};

fn kill(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let old_form = args.len() == 3;
    let filter = if old_form { Filter::from_addr(args.at(2)) } else { Filter::for_kill(args, &ctx.engine.users)? };
    let (me, now_ms) = (ctx.session.shared.id, ctx.db.now_ms());
    // By its address a client may end itself; by filters only if it says so.
    let skip_me = filter.skip_me.unwrap_or(!old_form);
    let mut killed = 0;
    for client in ctx.engine.clients.all() {
        if !filter.passes(&client, now_ms) || client.id == me && skip_me {
            continue;
        }
        killed += 1;
        end(ctx, &client);
    }
    match (old_form, killed) {
        (true, 0) => return Err(Error::text("ERR No such client")),
        (true, _) => ctx.out.ok(),
        (false, killed) => ctx.out.integer(killed),
    }
    DONE
}

/// Ends a connection: the own one when its reply is sent, any other at once.
pub fn end(ctx: &mut Context<'_>, client: &Shared) {
    if client.id == ctx.session.shared.id {
        close_after_reply(ctx);
        return;
    }
    // Its own task will find out; for everybody else it is gone from here on.
    client.close();
    ctx.engine.monitors.remove(client.id);
    ctx.engine.clients.remove(client.id);
}

/// `ON` or `OFF`.
fn switch(arg: &[u8]) -> Result<bool, Error> {
    match word(arg, &["ON", "OFF"]) {
        Some(on) => Ok(on == "ON"),
        None => Err(Error::Syntax),
    }
}

const NO_EVICT: Command = Command {
    name: "NO-EVICT",
    since: "7.0.0",
    arity: Arity::Exactly(3),
    flags: ADMIN,
    usage: "enabled(ON | OFF)",
    summary: "Sets the client eviction mode of the connection.",
    run: |ctx, args| {
        ctx.session.shared.mark(Mark::NoEvict, switch(args.at(2))?);
        eviction::note(ctx.engine, &ctx.session.shared);
        ok(ctx, args)
    },
    ..SUB
};

const NO_TOUCH: Command = Command {
    name: "NO-TOUCH",
    since: "7.2.0",
    arity: Arity::Exactly(3),
    usage: "enabled(ON | OFF)",
    summary: "Controls whether commands sent by the client affect the LRU/LFU of accessed keys.",
    run: |ctx, args| {
        let on = switch(args.at(2))?;
        ctx.session.no_touch = on;
        ctx.session.shared.mark(Mark::NoTouch, on);
        ok(ctx, args)
    },
    ..SUB
};

const PAUSE: Command = Command {
    name: "PAUSE",
    since: "3.0.0",
    arity: Arity::AtLeast(3),
    // What is on its way has ended when this is answered.
    flags: ALONE,
    usage: "timeout:integer [mode(WRITE | ALL)]@6.2.0",
    summary: "Suspends commands processing.",
    history: &[("6.2.0", "`CLIENT PAUSE WRITE` mode added along with the `mode` option.")],
    run: pause,
    ..SUB
};

fn pause(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let mode = match args.opt(3).map(|arg| word(arg, &["WRITE", "ALL"])) {
        _ if args.len() > 4 => return Err(misused(args)),
        None | Some(Some("ALL")) => PauseMode::All,
        Some(Some(_)) => PauseMode::Write,
        Some(None) => return Err(Error::text("ERR CLIENT PAUSE mode must be WRITE or ALL")),
    };
    let timeout = parse_i64(args.at(2)).ok_or(Error::text("ERR timeout is not an integer or out of range"))?;
    let timeout = u64::try_from(timeout).map_err(|_| Error::text("ERR timeout is negative"))?;
    let now_ms = ctx.db.now_ms();
    let until_ms = now_ms.checked_add(timeout).filter(|until| i64::try_from(*until).is_ok());
    let until_ms = until_ms.ok_or(Error::text("ERR timeout is out of range"))?;
    ctx.engine.pause.start(until_ms, mode, now_ms);
    ok(ctx, args)
}

/// A subcommand with more arguments than it knows.
fn misused(args: &Args<'_>) -> Error {
    let name = String::from_utf8_lossy(args.at(1));
    Error::text(format!("ERR unknown subcommand or wrong number of arguments for '{name}'. Try CLIENT HELP."))
}

const UNPAUSE: Command = Command {
    name: "UNPAUSE",
    since: "6.2.0",
    flags: ADMIN,
    summary: "Resumes processing commands from paused clients.",
    complexity: "O(N) Where N is the number of paused clients",
    run: |ctx, args| {
        ctx.engine.pause.end();
        ok(ctx, args)
    },
    ..SUB
};

const REPLY: Command = Command {
    name: "REPLY",
    since: "3.2.0",
    arity: Arity::Exactly(3),
    usage: "action(ON | OFF | SKIP)",
    summary: "Instructs the server whether to reply to commands.",
    run: reply,
    ..SUB
};

fn reply(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let mode = &mut ctx.session.reply;
    match word(args.at(2), &["ON", "OFF", "SKIP"]) {
        Some("ON") => {
            *mode = ReplyMode::On;
            ctx.out.ok();
        }
        Some("OFF") => *mode = ReplyMode::Off,
        Some(_) if *mode == ReplyMode::Off => {}
        Some(_) => *mode = ReplyMode::SkipNext,
        None => return Err(Error::Syntax),
    }
    DONE
}

const UNBLOCK: Command = Command {
    name: "UNBLOCK",
    since: "5.0.0",
    arity: Arity::AtLeast(3),
    flags: ADMIN,
    usage: "client-id:integer [unblock-type(TIMEOUT | ERROR)]",
    summary: "Unblocks a client blocked by a blocking command from a different connection.",
    complexity: "O(log N) where N is the number of client connections",
    run: unblock,
    ..SUB
};

fn unblock(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    if args.len() > 4 {
        return Err(misused(args));
    }
    if args.opt(3).is_some_and(|reason| word(reason, &["TIMEOUT", "ERROR"]).is_none()) {
        return Err(Error::text("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"));
    }
    let id = args.integer(2)?;
    // A client that waits for the end of a pause does not count.
    let client = u64::try_from(id).ok().and_then(|id| ctx.engine.clients.find(id));
    let wait = client.as_ref().and_then(|client| client.wait.lock().clone());
    let ended = wait.is_some_and(|wait| match args.opt(3) {
        Some(reason) if reason.eq_ignore_ascii_case(b"ERROR") => {
            wait.fail("UNBLOCKED client unblocked via CLIENT UNBLOCK")
        }
        _ => wait.time_out(),
    });
    match client.filter(|_| ended && !ctx.is_inside()) {
        Some(client) => answer_unblock((client, Instant::now()), ctx),
        None => {
            ctx.out.integer(i64::from(ended));
            DONE
        }
    }
}

/// Answers CLIENT UNBLOCK once that client's worker has seen to it, so that who has the reply finds the client free and its
/// command counted; a worker that is busy is not waited for long.
fn answer_unblock((client, began): (Arc<Shared>, Instant), ctx: &mut Context<'_>) -> Reply {
    if client.has(Mark::Blocked) && !client.is_closing() && began.elapsed() < UNBLOCK_PATIENCE {
        std::thread::yield_now();
        return later((client, began), answer_unblock);
    }
    ctx.out.integer(1);
    DONE
}

const HELP: Command = Command {
    name: "HELP",
    since: "5.0.0",
    flags: &[Flag::Loading, Flag::Stale],
    summary: "Returns helpful text about the different subcommands.",
    run: help,
    ..SUB
};

/// What CLIENT HELP says, line by line.
const HELP_LINES: &[&str] = &[
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CACHING (YES|NO)",
    "    Track the keys of the next request, or do not, where tracking is OPTIN or OPTOUT.",
    "CAPA <capability> [<capability> ...]",
    "    Tell what this client can do: REDIRECT, to follow a redirection to the primary.",
    "GETNAME",
    "    The name of this connection.",
    "GETREDIR",
    "    The ID of the client that invalidations are sent to, -1 without tracking.",
    "ID",
    "    The ID of this connection.",
    "INFO",
    "    The line of CLIENT LIST that describes this connection.",
    "KILL <ip:port>",
    "    Close the connection from <ip:port>.",
    "KILL <filter> <value> [<filter> <value> ...]",
    "    Close the connections that pass every filter:",
    "    * ADDR (<ip:port>|<unixsocket>:0): made from this address",
    "    * ID <client-id>: with this ID",
    "    * LADDR (<ip:port>|<unixsocket>:0): made to this address",
    "    * MAXAGE <seconds>: at least that old",
    "    * SKIPME (YES|NO): not this one (default: YES)",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB): of this type",
    "    * USER <username>: logged in as this user",
    "LIST [<filter> <value> ...]",
    "    Describe connections, one line each. Filters are those of KILL, with SKIPME NO by default and",
    "    any number of IDs after ID.",
    "NO-EVICT (ON|OFF)",
    "    Keep this connection when memory for clients runs out.",
    "NO-TOUCH (ON|OFF)",
    "    Leave the access times and frequencies of keys alone.",
    "PAUSE <timeout> [WRITE|ALL]",
    "    Hold back all commands, or those that may write, for <timeout> milliseconds.",
    "REPLY (ON|OFF|SKIP)",
    "    Send replies, send none, or leave out that of the next command.",
    "SETINFO (LIB-NAME|LIB-VER) <value>",
    "    Tell the name or version of the library that this connection is made with.",
    "SETNAME <name>",
    "    Name this connection.",
    "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]] [OPTIN] [OPTOUT] [NOLOOP]",
    "    Be told when keys change that this connection has read, or that begin with a prefix.",
    "TRACKINGINFO",
    "    How keys are tracked for this connection.",
    "UNBLOCK <client-id> [TIMEOUT|ERROR]",
    "    End the wait of a blocked client, as if its time were over or with an error.",
    "UNPAUSE",
    "    End CLIENT PAUSE.",
    "HELP",
    "    Print this help.",
];

fn help(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    ctx.out.array(HELP_LINES.len());
    HELP_LINES.iter().for_each(|line| ctx.out.simple(line));
    DONE
}

#[cfg(test)]
mod tests;

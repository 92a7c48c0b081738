//! A connection about itself: PING, ECHO, logging in, greeting, starting over, leaving.

use std::sync::atomic::Ordering;

use crate::acl::log::{Place, Reason};
use crate::acl::users::DEFAULT;
use crate::client::session::{Asking, Fate, ReplyMode};
use crate::client::shared::{Mark, Names};
use crate::command::args::Args;
use crate::command::client;
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::table::Command;
use crate::command::transaction::{forget_watched, take_transaction};
use crate::command::{permission, pubsub};
use crate::resp::reply::{Output, Protocol};
use crate::spec::{Arity, Flag, Group, REDIS_VERSION};
use crate::stdx::number::parse_i64;

/// This family's commands.
pub const COMMANDS: &[Command] = &[AUTH, client::CLIENT, ECHO, HELLO, PING, QUIT, RESET];

/// What most declarations of this file have in common.
const CONNECTION: Command = Command {
    name: "",
    since: "1.0.0",
    group: Group::Connection,
    arity: Arity::Exactly(2),
    flags: BEFORE_LOGIN,
    categories: &[],
    keys: &[],
    usage: "",
    summary: "",
    complexity: "O(1)",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: ping,
};

/// The flags of a command that a client may send whatever its state and the server's.
const BEFORE_LOGIN: &[Flag] = &[Flag::NoScript, Flag::Loading, Flag::Stale, Flag::Fast, Flag::NoAuth, Flag::AllowBusy];

/// Replies `PONG`, or its argument.
pub const PING: Command = Command {
    name: "PING",
    arity: Arity::AtLeast(1),
    flags: &[Flag::Fast],
    usage: "[message]",
    summary: "Returns the server's liveliness response.",
    tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
    run: ping,
    ..CONNECTION
};

fn ping(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    if ctx.session.subscriptions.is_some() && ctx.out.protocol() == Protocol::Resp2 && args.len() <= 2 {
        // Among messages a plain PONG could not be told from one.
        ctx.out.array(2);
        ctx.out.bulk(b"pong");
        ctx.out.bulk(args.opt(1).unwrap_or_default());
        return DONE;
    }
    match args.len() {
        1 => ctx.out.simple("PONG"),
        2 => ctx.out.bulk(args.at(1)),
        _ => return Err(Error::WrongArity("ping".into())),
    }
    DONE
}

/// Replies its argument.
pub const ECHO: Command = Command {
    name: "ECHO",
    flags: &[Flag::Loading, Flag::Stale, Flag::Fast],
    usage: "message",
    summary: "Returns the given string.",
    run: |ctx, args| {
        ctx.out.bulk(args.at(1));
        DONE
    },
    ..CONNECTION
};

/// Logs the connection in; where that fails it stays who it was. The failure is logged with the command that
/// asked, `command`.
fn log_in(ctx: &mut Context<'_>, user: &[u8], password: &[u8], command: &[u8]) -> Result<(), Error> {
    let wrong = || Error::text("WRONGPASS invalid username-password pair or user is disabled.");
    let Some(account) = ctx.engine.users.log_in(user, password) else {
        let place = if ctx.session.is_queueing() { Place::Multi } else { Place::Toplevel };
        permission::note(ctx.engine, &ctx.session.shared, Reason::Auth, place, command, user);
        return Err(wrong());
    };
    ctx.session.shared.names.lock().user = account.name().to_vec();
    // Who removes a user ends its clients, and may have looked for them before this one was named.
    if account.is_deleted() {
        ctx.session.fate = Fate::Close;
        return Err(wrong());
    }
    ctx.session.authenticated = true;
    ctx.session.account = account;
    Ok(())
}

/// Logs in with the password of the default user, or as a user with a password.
pub const AUTH: Command = Command {
    name: "AUTH",
    arity: Arity::AtLeast(2),
    usage: "[username]@6.0.0 password",
    summary: "Authenticates the connection.",
    complexity: "O(N) where N is the number of passwords defined for the user",
    history: &[("6.0.0", "Added ACL style (username and password).")],
    run: auth,
    ..CONNECTION
};

fn auth(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    ctx.hidden.extend(1..args.len());
    match args.len() {
        2 if ctx.engine.users.default_account().rules().nopass => {
            return Err(Error::text(
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
            ));
        }
        2 => log_in(ctx, DEFAULT, args.at(1), args.at(0))?,
        3 => log_in(ctx, args.at(1), args.at(2), args.at(0))?,
        _ => return Err(Error::Syntax),
    }
    ctx.out.ok();
    DONE
}

/// Agrees on a version of the protocol, may log in and set a name on the way, and tells who the server is.
pub const HELLO: Command = Command {
    name: "HELLO",
    since: "6.0.0",
    arity: Arity::AtLeast(1),
    usage: "[arguments{protover:integer [AUTH auth{username password}] [SETNAME clientname]}]",
    summary: "Handshakes with the server.",
    history: &[(
        "6.2.0",
        "`protover` made optional; when called without arguments the command reports the current connection's context.",
    )],
    run: hello,
    ..CONNECTION
};

fn hello(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let protocol = match args.opt(1) {
        None => None,
        Some(version) => match parse_i64(version) {
            None => return Err(Error::text("ERR Protocol version is not an integer or out of range")),
            Some(2) => Some(Protocol::Resp2),
            Some(3) => Some(Protocol::Resp3),
            Some(_) => return Err(Error::text("NOPROTO unsupported protocol version")),
        },
    };
    let (mut login, mut name) = (None, None);
    let mut i = 2;
    while i < args.len() {
        let left = args.len() - 1 - i;
        if args.is(i, "AUTH") && left >= 2 {
            ctx.hidden.extend([i + 1, i + 2]);
            login = Some((args.at(i + 1), args.at(i + 2)));
            i += 3;
        } else if args.is(i, "SETNAME") && left >= 1 {
            name = Some(client::checked_name(args.at(i + 1))?);
            i += 2;
        } else {
            let option = String::from_utf8_lossy(args.at(i));
            return Err(Error::text(format!("ERR Syntax error in HELLO option '{option}'")));
        }
    }
    if let Some((user, password)) = login {
        log_in(ctx, user, password, args.at(0))?;
    }
    if !ctx.session.authenticated && !ctx.engine.users.default_account().is_open() {
        return Err(Error::text(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = name {
        ctx.session.shared.names.lock().name = name.to_vec();
    }
    if let Some(protocol) = protocol {
        speak(ctx, protocol);
    }
    let cluster = ctx.config.cluster_enabled;
    let out = &mut *ctx.out;
    out.map(7);
    out.bulk(b"server");
    out.bulk(b"redis");
    out.bulk(b"version");
    out.bulk(REDIS_VERSION.as_bytes());
    out.bulk(b"proto");
    out.integer(if out.protocol() == Protocol::Resp3 { 3 } else { 2 });
    out.bulk(b"id");
    out.integer(ctx.session.shared.id.cast_signed());
    out.bulk(b"mode");
    out.bulk(if cluster { b"cluster" } else { b"standalone" });
    out.bulk(b"role");
    out.bulk(b"master");
    out.bulk(b"modules");
    out.array(0);
    DONE
}

/// Replies in this version of the protocol from here on.
fn speak(ctx: &mut Context<'_>, protocol: Protocol) {
    // What was pushed before goes out before, unless this very reply is not wanted.
    let mut kept = Output::new(protocol);
    let before = if ctx.session.reply == ReplyMode::On { &mut *ctx.out } else { &mut kept };
    ctx.session.shared.outbox.speak(protocol, before);
    if !kept.is_empty() {
        ctx.session.shared.push(kept.into_vec().into());
    }
    ctx.out.set_protocol(protocol);
    let number = if protocol == Protocol::Resp3 { 3 } else { 2 };
    ctx.session.shared.figures.protocol.store(number, Ordering::Relaxed);
}

/// Closes the connection, after its reply.
pub const QUIT: Command = Command {
    name: "QUIT",
    arity: Arity::AtLeast(1),
    summary: "Closes the connection.",
    deprecated: Some(("7.2.0", "just closing the connection")),
    run: |ctx, _| {
        ctx.out.ok();
        close_after_reply(ctx);
        DONE
    },
    ..CONNECTION
};

/// Has the connection closed when the reply of the current command is sent.
pub fn close_after_reply(ctx: &mut Context<'_>) {
    ctx.session.fate = Fate::CloseAfterReply;
    ctx.session.shared.mark(Mark::Closing, true);
}

/// Makes the connection what it was when it was accepted; only the names of its library stay.
pub const RESET: Command = Command {
    name: "RESET",
    since: "6.2.0",
    arity: Arity::Exactly(1),
    summary: "Resets the connection.",
    run: reset,
    ..CONNECTION
};

fn reset(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    take_transaction(ctx.session);
    forget_watched(&mut ctx.db.hold, ctx.session);
    let session = &mut *ctx.session;
    let shared = &session.shared;
    ctx.engine.monitors.remove(shared.id);
    pubsub::leave(ctx.engine, session);
    client::tracking::stop(ctx.engine, session);
    let shared = &session.shared;
    for mark in [Mark::Monitor, Mark::NoEvict, Mark::NoTouch, Mark::ReadOnly, Mark::Redirect] {
        shared.mark(mark, false);
    }
    {
        let mut names = shared.names.lock();
        let Names { name, user, .. } = &mut *names;
        name.clear();
        *user = DEFAULT.to_vec();
    }
    shared.figures.db.store(0, Ordering::Relaxed);
    session.db = 0;
    let users = &ctx.engine.users;
    session.account = if session.in_process { users.owner() } else { users.default_account() }.clone();
    session.authenticated = session.account.is_open();
    session.monitor = false;
    session.asking = Asking::No;
    session.no_touch = false;
    // What CLIENT REPLY SKIP said of this very command still holds.
    if session.reply == ReplyMode::Off {
        session.reply = ReplyMode::On;
    }
    ctx.db.select(0);
    speak(ctx, Protocol::Resp2);
    ctx.out.simple("RESET");
    DONE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Bench;

    #[test]
    fn ping_and_echo_reply_what_they_are_given() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("PING"), "+PONG|");
        assert_eq!(bench.run("ping \"a b\""), "$3|a b|");
        assert_eq!(bench.run("PING a b"), "-ERR wrong number of arguments for 'ping' command|");
        assert_eq!(bench.run("ECHO \"\""), "$0||");
    }

    #[test]
    fn without_a_password_the_default_user_may_log_in_with_any() {
        let mut bench = Bench::new();
        assert_eq!(
            bench.run("AUTH x"),
            "-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?|"
        );
        assert_eq!(bench.run("AUTH default x"), "+OK|");
        assert_eq!(bench.run("AUTH nobody x"), "-WRONGPASS invalid username-password pair or user is disabled.|");
        assert_eq!(bench.run("AUTH a b c"), "-ERR syntax error|");
    }

    #[test]
    fn with_a_password_nothing_runs_before_it_is_given() {
        let mut bench = Bench::with("requirepass sesame\n");
        bench.session.authenticated = false;
        let wrong = "-WRONGPASS invalid username-password pair or user is disabled.|";
        assert_eq!(bench.run("PING"), "-NOAUTH Authentication required.|");
        assert!(bench.run("HELLO 3").starts_with("-NOAUTH HELLO must be called with the client already authenticated"));
        assert_eq!(bench.run("AUTH Sesame"), wrong);
        assert_eq!(bench.run("AUTH sesame2"), wrong);
        assert_eq!(bench.run("AUTH nobody sesame"), wrong);
        assert_eq!(bench.run("PING"), "-NOAUTH Authentication required.|");
        assert_eq!(bench.run("AUTH sesame"), "+OK|");
        assert_eq!(bench.run("PING"), "+PONG|");
        assert_eq!(bench.run("AUTH wrong"), wrong);
        assert_eq!(bench.run("PING"), "+PONG|");
        assert_eq!(bench.run("RESET"), "+RESET|");
        assert_eq!(bench.run("PING"), "-NOAUTH Authentication required.|");
        assert!(bench.run("HELLO 3 AUTH default sesame SETNAME bob").starts_with("%7|$6|server|$5|redis|"));
        assert_eq!(bench.run("CLIENT GETNAME"), "$3|bob|");
    }

    #[test]
    fn a_connection_that_never_logged_in_may_go_on_once_the_password_is_gone() {
        let mut bench = Bench::with("requirepass sesame\n");
        bench.session.authenticated = false;
        assert_eq!(bench.run("PING"), "-NOAUTH Authentication required.|");
        bench.engine.users.set_default_password(None);
        assert_eq!(bench.run("PING"), "+PONG|");
        assert!(bench.run("HELLO").starts_with("*14|"));
    }

    #[test]
    fn hello_changes_nothing_unless_all_of_it_is_right() {
        let mut bench = Bench::new();
        bench.run("CLIENT SETNAME alice");
        assert_eq!(bench.run("HELLO abc"), "-ERR Protocol version is not an integer or out of range|");
        assert_eq!(bench.run("HELLO 4"), "-NOPROTO unsupported protocol version|");
        assert_eq!(bench.run("HELLO 3 NONSENSE"), "-ERR Syntax error in HELLO option 'NONSENSE'|");
        assert_eq!(bench.run("HELLO 3 AUTH default"), "-ERR Syntax error in HELLO option 'AUTH'|");
        assert_eq!(
            bench.run("HELLO 3 SETNAME \"a b\""),
            "-ERR Client names cannot contain spaces, newlines or special characters.|"
        );
        assert!(bench.run("HELLO 3 AUTH nobody x SETNAME eve").starts_with("-WRONGPASS "));
        assert_eq!(bench.run("CLIENT GETNAME"), "$5|alice|");
        assert_eq!(
            bench.run("HELLO"),
            "*14|$6|server|$5|redis|$7|version|$5|7.2.4|$5|proto|:2|$2|id|:1|$4|mode|$10|standalone|$4|role|$6|master|$7|modules|*0|"
        );
        assert!(bench.run("HELLO 3").contains("$5|proto|:3|"));
        assert_eq!(bench.run("CLIENT GETREDIR"), ":-1|");
        assert_eq!(bench.run("GET none"), "_|");
    }

    #[test]
    fn reset_goes_back_to_the_beginning() {
        let mut bench = Bench::new();
        bench.run("HELLO 3 SETNAME x");
        bench.run("CLIENT NO-TOUCH ON");
        bench.run("CLIENT SETINFO LIB-NAME lib");
        bench.session.db = 3;
        assert_eq!(bench.run("RESET"), "+RESET|");
        assert_eq!((bench.session.db, bench.session.no_touch), (0, false));
        assert_eq!(bench.run("CLIENT GETNAME"), "$-1|");
        assert!(bench.run("CLIENT INFO").contains(" flags=N db=0 "));
        assert!(bench.run("CLIENT INFO").contains(" resp=2 lib-name=lib "));
    }

    #[test]
    fn quit_closes_after_its_reply() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("QUIT now"), "+OK|");
        assert_eq!(bench.session.fate, Fate::CloseAfterReply);
    }
}

//! ACL: who may do what, what was refused, and the file that users are kept in.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::acl::selector::{Selector, has_spaces};
use crate::acl::user::{Denied, NewChannels, User};
use crate::acl::users::{ConfigError, DEFAULT, Loss, Users};
use crate::command::args::Args;
use crate::command::client;
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::table::{Command, CommandTable};
use crate::command::{help, permission, pubsub};
use crate::config::choice::AclPubsubDefault;
use crate::config::load::LoadError;
use crate::config::table::{Config, FileLine};
use crate::observe::log::{notice, warning};
use crate::persist::disk::{self, plain};
use crate::resp::reply::Output;
use crate::spec::{Arity, Category, Flag, Group};
use crate::stdx::random;

/// This family's commands.
pub const COMMANDS: &[Command] = &[ACL];

/// The container.
pub const ACL: Command = Command {
    name: "ACL",
    arity: Arity::AtLeast(2),
    flags: &[],
    summary: "A container for Access List Control commands.",
    complexity: "Depends on subcommand.",
    subcommands: &[CAT, DELUSER, DRYRUN, GENPASS, GETUSER, HELP, LIST, LOAD, LOG, SAVE, SETUSER, USERS, WHOAMI],
    ..SUB
};

/// What most subcommands have in common.
const SUB: Command = Command {
    name: "",
    since: "6.0.0",
    group: Group::Server,
    arity: Arity::Exactly(2),
    flags: ADMIN,
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

/// The flags of subcommands that concern other users.
const ADMIN: &[Flag] = &[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale];
/// The same of those that end clients: these see nothing of it before.
const ALONE: &[Flag] = &[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale, Flag::Alone];
/// The flags of the others.
const OPEN: &[Flag] = &[Flag::NoScript, Flag::Loading, Flag::Stale];

const PER_USER: &str = "O(N). Where N is the number of configured users.";
const EVERYWHERE: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];

/// Which channels the configuration gives to new users.
pub fn new_channels(config: &Config) -> NewChannels {
    match config.acl_pubsub_default {
        AclPubsubDefault::AllChannels => NewChannels::All,
        AclPubsubDefault::ResetChannels => NewChannels::None,
    }
}

/// The lines of a configuration that declare users.
fn declarations(config: &Config) -> impl Iterator<Item = &FileLine> {
    config.lines.iter().filter(|line| line.directive == "user")
}

/// Looks through the users that a configuration declares, before a server is made of it. Commands that it
/// does not know are found out when it starts.
///
/// # Errors
/// The line that cannot be used.
pub fn check_declarations(config: &Config) -> Result<(), LoadError> {
    if declarations(config).next().is_none() {
        return Ok(());
    }
    let Ok(commands) = CommandTable::new(&[]) else { return Ok(()) };
    let users = Users::new(commands.catalog());
    for line in declarations(config) {
        if let Err(ConfigError::Line(reason)) = users.declare(&[&line.words], new_channels(config)) {
            return Err(LoadError::at(&line.place, reason));
        }
    }
    Ok(())
}

/// The users that a configuration asks for: the default one with its password, those that it declares, or
/// those of its ACL file.
///
/// # Errors
/// What is wrong with them.
pub fn configured_users(commands: &CommandTable, config: &Config) -> Result<Users, String> {
    let users = Users::new(commands.catalog());
    if let Some(password) = &config.requirepass {
        users.set_default_password(Some(password));
    }
    let declared: Vec<&[Vec<u8>]> = declarations(config).map(|line| line.words.as_slice()).collect();
    if !config.aclfile.is_empty() && !declared.is_empty() {
        return Err(
            "Configuring Spinel with users defined in redis.conf and at the same time setting an ACL file path \
                    is invalid: please define either an ACL file or declare users directly in redis.conf, but not both."
                .into(),
        );
    }
    users.declare(&declared, new_channels(config)).map_err(|error| match error {
        ConfigError::Line(reason) => reason,
        ConfigError::Rule { user, rule, error } => {
            let (rule, user) = (String::from_utf8_lossy(&rule), String::from_utf8_lossy(&user));
            format!("Error loading ACL rule '{rule}' for the user named '{user}': {error}")
        }
    })?;
    for line in declarations(config) {
        let name = line.words.first().map_or(DEFAULT, Vec::as_slice);
        if users.account(name).is_some_and(|account| !account.rules().enabled) {
            notice!(
                "The user '{}' is disabled (there is no 'on' modifier in the user description). Make sure this is not a configuration error.",
                String::from_utf8_lossy(name)
            );
        }
    }
    if !config.aclfile.is_empty() {
        load_file(&users, config).map_err(|error| format!("Aborting Spinel startup because of ACL errors: {error}"))?;
    }
    Ok(users)
}

fn acl_file(config: &Config) -> (&Path, Cow<'_, str>) {
    (Path::new(OsStr::from_bytes(&config.aclfile)), String::from_utf8_lossy(&config.aclfile))
}

fn load_file(users: &Users, config: &Config) -> Result<Vec<Loss>, String> {
    let (path, shown) = acl_file(config);
    let text =
        disk::read(path).map_err(|error| format!("Error loading ACLs, opening file '{shown}': {}", plain(&error)))?;
    users.load(&text, &shown, new_channels(config))
}

/// Ends the connections that a change of users leaves without the right to be there.
fn follow(ctx: &mut Context<'_>, losses: &[Loss]) {
    for loss in losses {
        match loss {
            Loss::Deleted(account) => {
                for client in ctx.engine.clients.all() {
                    if client.names.lock().user == account.name() {
                        client::end(ctx, &client);
                    }
                }
            }
            Loss::Channels(account) => pubsub::end_unpermitted(ctx, account),
        }
    }
}

const WHOAMI: Command = Command {
    name: "WHOAMI",
    flags: OPEN,
    summary: "Returns the authenticated username of the current connection.",
    run: |ctx, _| {
        ctx.out.bulk(ctx.session.account.name());
        DONE
    },
    ..SUB
};

const USERS: Command = Command {
    name: "USERS",
    summary: "Lists all ACL users.",
    complexity: PER_USER,
    run: |ctx, _| {
        let all = ctx.engine.users.all();
        ctx.out.array(all.len());
        all.iter().for_each(|account| ctx.out.bulk(account.name()));
        DONE
    },
    ..SUB
};

const LIST: Command = Command {
    name: "LIST",
    summary: "Dumps the effective rules in ACL file format.",
    complexity: PER_USER,
    run: |ctx, _| {
        let lines = ctx.engine.users.lines();
        ctx.out.array(lines.len());
        lines.iter().for_each(|line| ctx.out.bulk(&[b"user ", line.as_slice()].concat()));
        DONE
    },
    ..SUB
};

const SETUSER: Command = Command {
    name: "SETUSER",
    arity: Arity::AtLeast(3),
    usage: "username [rule...]",
    summary: "Creates and modifies an ACL user and its rules.",
    complexity: "O(N). Where N is the number of rules provided.",
    tips: EVERYWHERE,
    history: &[("6.2.0", "Added Pub/Sub channel patterns."), ("7.0.0", "Added selectors and key based permissions.")],
    run: setuser,
    ..SUB
};

fn setuser(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    // Names, patterns, passwords: nothing of it is for logs.
    ctx.hidden.extend(2..args.len());
    let name = args.at(2);
    if has_spaces(name) {
        return Err(Error::text("ERR Usernames can't contain spaces or null characters"));
    }
    let rules: Vec<Vec<u8>> = args.from(3).map(<[u8]>::to_vec).collect();
    let loss = ctx
        .engine
        .users
        .set(name, &rules, new_channels(ctx.config))
        .map_err(|error| Error::text(format!("ERR {}", one_line(&error))))?;
    follow(ctx, loss.as_slice());
    ctx.out.ok();
    DONE
}

/// A client's words, fit to stand in an error.
fn one_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).replace(['\r', '\n'], " ")
}

const DELUSER: Command = Command {
    name: "DELUSER",
    arity: Arity::AtLeast(3),
    flags: ALONE,
    usage: "username...",
    summary: "Deletes ACL users, and terminates their connections.",
    complexity: "O(1) amortized time considering the typical user.",
    tips: EVERYWHERE,
    run: deluser,
    ..SUB
};

fn deluser(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    ctx.hidden.extend(2..args.len());
    if args.from(2).any(|name| name == DEFAULT) {
        return Err(Error::text("ERR The 'default' user cannot be removed"));
    }
    let losses: Vec<Loss> = args.from(2).filter_map(|name| ctx.engine.users.delete(name)).collect();
    follow(ctx, &losses);
    ctx.out.integer(losses.len() as i64);
    DONE
}

const GETUSER: Command = Command {
    name: "GETUSER",
    arity: Arity::Exactly(3),
    usage: "username",
    summary: "Lists the ACL rules of a user.",
    complexity: "O(N). Where N is the number of password, command and pattern rules that the user has.",
    history: &[
        ("6.2.0", "Added Pub/Sub channel patterns."),
        (
            "7.0.0",
            "Added selectors and changed the format of key and channel patterns from a list to their rule representation.",
        ),
    ],
    run: getuser,
    ..SUB
};

fn getuser(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    // Logs tell nothing of who there is.
    ctx.hidden.push(2);
    let Some(account) = ctx.engine.users.account(args.at(2)) else {
        ctx.out.null();
        return DONE;
    };
    let user = account.rules();
    let out = &mut *ctx.out;
    out.map(6);
    out.bulk(b"flags");
    out.set(user.flags().count());
    user.flags().for_each(|flag| out.bulk(flag.as_bytes()));
    out.bulk(b"passwords");
    out.array(user.passwords.len());
    user.passwords.iter().for_each(|password| out.bulk(password.to_string().as_bytes()));
    let Some((own, others)) = user.selectors().split_first() else { return DONE };
    write_selector(out, own);
    out.bulk(b"selectors");
    out.array(others.len());
    for selector in others {
        out.map(3);
        write_selector(out, selector);
    }
    DONE
}

/// Three fields of a map.
fn write_selector(out: &mut Output, selector: &Selector) {
    out.bulk(b"commands");
    out.bulk(&selector.describe_commands());
    out.bulk(b"keys");
    out.bulk(&selector.describe_keys());
    out.bulk(b"channels");
    out.bulk(&selector.describe_channels());
}

const CAT: Command = Command {
    name: "CAT",
    arity: Arity::AtLeast(2),
    flags: OPEN,
    usage: "[category]",
    summary: "Lists the ACL categories, or the commands inside a category.",
    complexity: "O(1) since the categories and commands are a fixed set.",
    run: cat,
    ..SUB
};

fn cat(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    match args.len() {
        2 => {
            ctx.out.array(Category::ALL.len());
            Category::ALL.iter().for_each(|category| ctx.out.bulk(category.wire().as_bytes()));
        }
        3 => {
            let name = args.at(2);
            let category = Category::named(name).ok_or_else(|| {
                Error::text(format!("ERR Unknown category '{}'", one_line(&name[..name.len().min(128)])))
            })?;
            let catalog = ctx.engine.users.catalog();
            ctx.out.array(catalog.of(category).count());
            catalog.of(category).for_each(|number| ctx.out.bulk(catalog.name(number).as_bytes()));
        }
        _ => return Err(help::wrong_form("ACL", args.at(1))),
    }
    DONE
}

const GENPASS: Command = Command {
    name: "GENPASS",
    arity: Arity::AtLeast(2),
    flags: OPEN,
    usage: "[bits:integer]",
    summary: "Generates a pseudorandom, secure password that can be used to identify ACL users.",
    run: genpass,
    ..SUB
};

/// The longest password that GENPASS makes, in bits.
const MOST_BITS: usize = 4096;

fn genpass(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let bits = match args.len() {
        2 => 256,
        3 => args.integer(2)?,
        _ => return Err(help::wrong_form("ACL", args.at(1))),
    };
    let bits = usize::try_from(bits).ok().filter(|bits| (1..=MOST_BITS).contains(bits)).ok_or_else(|| {
        Error::text(format!(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to {MOST_BITS}"
        ))
    })?;
    let digits = bits.div_ceil(4);
    let mut bytes = vec![0; digits.div_ceil(2)];
    random::fill(&mut bytes);
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    ctx.out.bulk(&text.as_bytes()[..digits]);
    DONE
}

const LOG: Command = Command {
    name: "LOG",
    arity: Arity::AtLeast(2),
    usage: "[operation(count | RESET)]",
    summary: "Lists recent security events generated due to ACL rules.",
    complexity: "O(N) with N being the number of entries shown.",
    history: &[("7.2.0", "Added entry ID, timestamp created, and timestamp last updated.")],
    run: log,
    ..SUB
};

/// How many entries ACL LOG shows unasked.
const DEFAULT_COUNT: usize = 10;

fn log(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let count = match args.len() {
        2 => DEFAULT_COUNT,
        3 if args.is(2, "RESET") => {
            ctx.engine.acl_log.reset();
            ctx.out.ok();
            return DONE;
        }
        3 => usize::try_from(args.integer(2)?).unwrap_or(0),
        _ => return Err(help::wrong_form("ACL", args.at(1))),
    };
    let now_ms = ctx.db.now_ms();
    let entries = ctx.engine.acl_log.newest(count);
    let out = &mut *ctx.out;
    out.array(entries.len());
    for entry in entries {
        let refusal = entry.refusal;
        out.map(10);
        out.bulk(b"count");
        out.integer(entry.count.cast_signed());
        let texts: [(&str, &[u8]); 5] = [
            ("reason", refusal.reason.name().as_bytes()),
            ("context", refusal.place.name().as_bytes()),
            ("object", &refusal.object),
            ("username", &refusal.user),
            ("age-seconds", b""),
        ];
        for (name, text) in texts {
            out.bulk(name.as_bytes());
            if name == "age-seconds" {
                out.double(now_ms.saturating_sub(entry.updated_ms) as f64 / 1000.0);
            } else {
                out.bulk(text);
            }
        }
        out.bulk(b"client-info");
        out.bulk(&refusal.client);
        for (name, number) in [
            ("entry-id", entry.id),
            ("timestamp-created", entry.created_ms),
            ("timestamp-last-updated", entry.updated_ms),
        ] {
            out.bulk(name.as_bytes());
            out.integer(number.cast_signed());
        }
    }
    DONE
}

const DRYRUN: Command = Command {
    name: "DRYRUN",
    since: "7.0.0",
    arity: Arity::AtLeast(4),
    usage: "username command [arg...]",
    summary: "Simulates the execution of a command by a user, without executing the command.",
    run: dryrun,
    ..SUB
};

fn dryrun(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let (name, words) = (args.at(2), args.from(3).collect::<Vec<_>>());
    let account = ctx.engine.users.account(name);
    let account = account.ok_or_else(|| Error::text(format!("ERR User '{}' not found", one_line(name))))?;
    let entry = ctx.engine.commands.resolve(words[0], words.get(1).copied());
    let entry = entry.map_err(|_| Error::text(format!("ERR Command '{}' not found", one_line(words[0]))))?;
    if !entry.command.arity.accepts(words.len()) {
        return Err(Error::WrongArity(entry.full_name.clone()));
    }
    let user: &User = &account.rules();
    let (what, of): (&[u8], _) = match permission::ask(user, entry, &words) {
        Ok(()) => {
            ctx.out.ok();
            return DONE;
        }
        Err(Denied::Command) => {
            let end = format!(" has no permissions to run the '{}' command", entry.full_name);
            ctx.out.bulk(&[b"User ", name, end.as_bytes()].concat());
            return DONE;
        }
        Err(Denied::Key(at)) => (words[at], "key"),
        Err(Denied::Channel(at)) => (words[at], "channel"),
    };
    let end = format!("' {of}");
    ctx.out.bulk(&[b"User ", name, b" has no permissions to access the '", what, end.as_bytes()].concat());
    DONE
}

const NO_FILE: &str = "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via \
the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order \
to store users in the Redis configuration.";

const LOAD: Command = Command {
    name: "LOAD",
    flags: ALONE,
    summary: "Reloads the rules from the configured ACL file.",
    complexity: PER_USER,
    run: load,
    ..SUB
};

fn load(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    if ctx.config.aclfile.is_empty() {
        return Err(Error::text(NO_FILE));
    }
    let losses = load_file(&ctx.engine.users, ctx.config)
        .map_err(|error| Error::text(format!("ERR {}", one_line(error.as_bytes()))))?;
    follow(ctx, &losses);
    ctx.out.ok();
    DONE
}

const SAVE: Command = Command {
    name: "SAVE",
    summary: "Saves the effective ACL rules in the configured ACL file.",
    complexity: PER_USER,
    tips: EVERYWHERE,
    run: save,
    ..SUB
};

fn save(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    if ctx.config.aclfile.is_empty() {
        return Err(Error::text(NO_FILE));
    }
    let (path, shown) = acl_file(ctx.config);
    if let Err(error) = disk::replace(path, &ctx.engine.users.text()) {
        warning!("Writing ACL file '{shown}' for ACL SAVE: {}", plain(&error));
        return Err(Error::text(
            "ERR There was an error trying to save the ACLs. Please check the server logs for more information",
        ));
    }
    ctx.out.ok();
    DONE
}

const HELP: Command = Command {
    name: "HELP",
    flags: &[Flag::Loading, Flag::Stale],
    summary: "Returns helpful text about the different subcommands.",
    run: |ctx, _| {
        help::write(
            ctx.out,
            "ACL",
            &[
                ("CAT [<category>]", &["List the categories of commands, or the commands of <category>."]),
                ("DELUSER <username> [<username> ...]", &["Remove users, and close their connections."]),
                (
                    "DRYRUN <username> <command> [<arg> ...]",
                    &["Tell whether the user may run the command, without running it."],
                ),
                ("GETUSER <username>", &["Describe a user."]),
                ("GENPASS [<bits>]", &["Make a password of <bits> random bits (default: 256)."]),
                ("LIST", &["Describe all users, in the format of the configuration file."]),
                ("LOAD", &["Load the users of the ACL file again."]),
                ("LOG [<count> | RESET]", &["Show what was refused of late, newest first, or forget it."]),
                ("SAVE", &["Write the users to the ACL file."]),
                (
                    "SETUSER <username> <attribute> [<attribute> ...]",
                    &["Create a user with these attributes, or change them."],
                ),
                ("USERS", &["List the names of all users."]),
                ("WHOAMI", &["Tell the name of this connection's user."]),
            ],
        )
    },
    ..SUB
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Bench;

    const WRONG: &str = "-WRONGPASS invalid username-password pair or user is disabled.|";

    #[test]
    fn a_change_holds_from_the_next_request_on() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("ACL SETUSER bob on >p +get +acl|whoami ~a*"), "+OK|");
        assert_eq!(bench.run("AUTH bob x"), WRONG);
        assert_eq!(bench.run("AUTH bob p"), "+OK|");
        assert_eq!(bench.run("ACL WHOAMI"), "$3|bob|");
        assert_eq!(bench.run("GET abc"), "$-1|");
        assert_eq!(bench.run("GET b"), "-NOPERM No permissions to access a key|");
        assert_eq!(bench.run("SET a 1"), "-NOPERM User bob has no permissions to run the 'set' command|");
        bench.engine.users.set(b"bob", &[b"+set".to_vec()], NewChannels::None).unwrap();
        assert_eq!(bench.run("SET a 1"), "+OK|");
        bench.engine.users.delete(b"bob").unwrap();
        assert_eq!(bench.run("GET a"), "-NOPERM User bob has no permissions to run the 'get' command|");
        assert_eq!(bench.run("RESET"), "+RESET|");
        assert_eq!(bench.run("ACL WHOAMI"), "$7|default|");
    }

    #[test]
    fn requests_sent_together_are_judged_one_by_one() {
        let mut bench = Bench::new();
        let lines = ["SET a 1", "ACL SETUSER default -get", "GET a", "SET a 2", "ACL SETUSER default +get", "GET a"];
        let replies = String::from_utf8(bench.pipeline(&lines)).unwrap().replace("\r\n", "|");
        let refused = "-NOPERM User default has no permissions to run the 'get' command|";
        assert_eq!(replies, format!("+OK|+OK|{refused}+OK|+OK|$1|2|"));
    }

    #[test]
    fn the_default_user_decides_who_must_log_in() {
        let mut bench = Bench::with("requirepass sesame\n");
        assert_eq!(bench.run("PING"), "-NOAUTH Authentication required.|");
        assert_eq!(bench.run("AUTH sesame"), "+OK|");
        assert_eq!(bench.run("ACL SETUSER default nopass"), "+OK|");
        assert_eq!(bench.run("RESET"), "+RESET|");
        assert_eq!(bench.run("PING"), "+PONG|");
        assert_eq!(bench.run("CONFIG SET requirepass other"), "+OK|");
        assert_eq!(bench.run("RESET"), "+RESET|");
        assert_eq!(bench.run("PING"), "-NOAUTH Authentication required.|");
        assert_eq!(bench.run("AUTH sesame"), WRONG);
        assert_eq!(bench.run("AUTH other"), "+OK|");
        assert_eq!(bench.run("CONFIG SET requirepass \"\""), "+OK|");
        assert_eq!(bench.run("ACL SETUSER default off"), "+OK|");
        assert_eq!(bench.run("RESET"), "+RESET|");
        assert_eq!(bench.run("PING"), "-NOAUTH Authentication required.|");
        assert_eq!(bench.run("AUTH default x"), WRONG);
    }

    #[test]
    fn what_is_refused_is_logged_and_counted() {
        let mut bench = Bench::new();
        bench.run("ACL SETUSER bob on nopass +get +acl +info ~a &c +@all -set");
        bench.run("AUTH nobody x");
        bench.run("AUTH bob x");
        for line in ["SET a 1", "GET b", "GET c", "GET b", "SET a 2"] {
            assert!(bench.run(line).starts_with("-NOPERM "));
            bench.clock.advance(1000);
        }
        let log = bench.run("ACL LOG");
        let told = |reason: &str, object: &str, user: &str, count: usize| {
            let bulk = |text: &str| format!("${}|{text}|", text.len());
            let fields = [("reason", reason), ("context", "toplevel"), ("object", object), ("username", user)];
            let fields: String = fields.iter().map(|(name, value)| bulk(name) + &bulk(value)).collect();
            assert!(log.contains(&format!("*20|$5|count|:{count}|{fields}")), "{reason} {object}: {log}");
        };
        assert!(log.starts_with("*4|"), "{log}");
        told("command", "set", "bob", 2);
        told("key", "b", "bob", 2);
        told("key", "c", "bob", 1);
        told("auth", "AUTH", "nobody", 1);
        // The newest comes first, and is the last that was repeated.
        assert!(log.starts_with("*4|*20|$5|count|:2|$6|reason|$7|command|"), "{log}");
        assert!(log.contains("|$11|age-seconds|$1|1|$11|client-info|"), "{log}");
        assert!(log.contains(" cmd=get user=bob ") && !log.contains("tot-cmds=0||"), "{log}");
        assert!(
            log.ends_with("|$8|entry-id|:0|$17|timestamp-created|:1000000000|$22|timestamp-last-updated|:1000000000|"),
            "{log}"
        );
        let info = bench.run("INFO stats");
        for field in ["auth:1", "cmd:2", "key:3", "channel:0"] {
            assert!(info.contains(&format!("|acl_access_denied_{field}|")), "{field}: {info}");
        }
        assert_eq!(bench.run("ACL LOG RESET"), "+OK|");
        assert_eq!(bench.run("ACL LOG"), "*0|");
    }

    #[test]
    fn the_log_is_as_long_as_configured() {
        let mut bench = Bench::with("acllog-max-len 2\n");
        ["a", "b", "c"].iter().for_each(|user| drop(bench.run(&format!("AUTH {user} x"))));
        assert!(bench.run("ACL LOG").starts_with("*2|"));
    }

    #[test]
    fn a_configuration_declares_users() {
        let mut bench = Bench::with("user bob on >p ~a (+get ~b)\nuser default on nopass +@all -debug\n");
        assert_eq!(
            bench.run("ACL LIST"),
            "*2|$147|user bob on sanitize-payload #148de9c5a7a44d19e56cd9ae1a554bf67847afb0c58f6e12fa29ac7ddfca9940 ~a resetchannels -@all (~b resetchannels -@all +get)|\
             $66|user default on nopass sanitize-payload resetchannels +@all -debug|"
        );
        assert_eq!(bench.run("DEBUG SLEEP 0"), "-NOPERM User default has no permissions to run the 'debug' command|");
    }

    #[test]
    fn secrets_are_not_shown_in_logs() {
        let mut bench = Bench::with("slowlog-log-slower-than 0\n");
        ["ACL SETUSER bob on >secret +slowlog", "ACL GETUSER bob", "ACL DELUSER nobody bobby", "AUTH bob secret"]
            .iter()
            .for_each(|line| drop(bench.run(line)));
        let shown = bench.run("SLOWLOG GET");
        assert!(shown.contains("SETUSER|$10|(redacted)|$10|(redacted)|$10|(redacted)|"), "{shown}");
        assert!(shown.contains("GETUSER|$10|(redacted)|"), "{shown}");
        assert!(shown.contains("DELUSER|$10|(redacted)|$10|(redacted)|"), "{shown}");
        assert!(!shown.contains("secret") && !shown.contains("|bob|"), "{shown}");
    }

    #[test]
    fn a_password_of_chance_has_the_bits_asked_for() {
        let mut bench = Bench::new();
        let mut digits = |line: &str| {
            let reply = bench.run(line);
            let text = reply.split('|').nth(1).unwrap().to_owned();
            assert!(text.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
            text
        };
        assert_eq!(
            [digits("ACL GENPASS"), digits("ACL GENPASS 1"), digits("ACL GENPASS 5")].map(|t| t.len()),
            [64, 1, 2]
        );
        assert_ne!(digits("ACL GENPASS"), digits("ACL GENPASS"));
    }

    #[test]
    fn categories_tell_their_commands() {
        let mut bench = Bench::new();
        assert!(bench.run("ACL CAT").starts_with("*21|$8|keyspace|$4|read|$5|write|$3|set|"));
        let admin = bench.run("ACL CAT ADMIN");
        assert!(admin.contains("|config|set|") && admin.contains("|acl|setuser|") && !admin.contains("$3|get|"));
        assert_eq!(bench.run("ACL CAT nosuch"), "-ERR Unknown category 'nosuch'|");
    }

    #[test]
    fn a_trial_names_what_is_refused() {
        let mut bench = Bench::new();
        bench.run("ACL SETUSER bob +get ~a");
        assert_eq!(bench.run("ACL DRYRUN bob GET a"), "+OK|");
        assert_eq!(bench.run("ACL DRYRUN bob GET b"), "$49|User bob has no permissions to access the 'b' key|");
        assert_eq!(bench.run("ACL DRYRUN bob SET b c"), "$52|User bob has no permissions to run the 'set' command|");
        assert_eq!(bench.run("ACL LOG"), "*0|");
    }
}

//! COMMAND: what commands there are, told from the table of commands.
//!
//! What stays true: everything here is read from the declarations, so that what clients and proxies are
//! told is what the server goes by.

use std::slice;

use crate::command::args::Args;
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::table::{Command, CommandTable, Entry};
use crate::resp::reply::Output;
use crate::spec::keys::{self, for_each};
use crate::spec::usage::{Argument, Kind, parse};
use crate::spec::{Access, Arity, Category, Flag, Group, Keys};
use crate::stdx::glob::{Case, matches};

/// This family's commands.
pub const COMMANDS: &[Command] = &[COMMAND];

/// What the declarations of this file have in common.
const BASE: Command = Command {
    name: "",
    since: "2.8.13",
    group: Group::Server,
    arity: Arity::AtLeast(2),
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Connection],
    keys: &[],
    usage: "",
    summary: "",
    complexity: "O(N) where N is the number of commands to look up",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: command,
};

/// Describes all commands; a container of other questions about them.
pub const COMMAND: Command = Command {
    name: "COMMAND",
    arity: Arity::AtLeast(1),
    summary: "Returns detailed information about all commands.",
    complexity: "O(N) where N is the total number of Redis commands",
    tips: &["nondeterministic_output_order"],
    subcommands: &[
        Command {
            name: "COUNT",
            arity: Arity::Exactly(2),
            summary: "Returns a count of commands.",
            complexity: "O(1)",
            run: count,
            ..BASE
        },
        Command {
            name: "DOCS",
            since: "7.0.0",
            usage: "[command-name...]",
            summary: "Returns documentary information about one, multiple or all commands.",
            tips: &["nondeterministic_output_order"],
            run: docs,
            ..BASE
        },
        Command {
            name: "GETKEYS",
            arity: Arity::AtLeast(3),
            usage: "command [arg...]",
            summary: "Extracts the key names from an arbitrary command.",
            complexity: "O(N) where N is the number of arguments to the command",
            run: |ctx, args| getkeys(ctx, args, false),
            ..BASE
        },
        Command {
            name: "GETKEYSANDFLAGS",
            since: "7.0.0",
            arity: Arity::AtLeast(3),
            usage: "command [arg...]",
            summary: "Extracts the key names and access flags for an arbitrary command.",
            complexity: "O(N) where N is the number of arguments to the command",
            run: |ctx, args| getkeys(ctx, args, true),
            ..BASE
        },
        Command {
            name: "HELP",
            since: "5.0.0",
            arity: Arity::Exactly(2),
            summary: "Returns helpful text about the different subcommands.",
            complexity: "O(1)",
            run: help,
            ..BASE
        },
        Command {
            name: "INFO",
            usage: "[command-name...]",
            summary: "Returns information about one, multiple or all commands.",
            tips: &["nondeterministic_output_order"],
            history: &[("7.0.0", "Allowed to be called with no argument to get info on all commands.")],
            run: info,
            ..BASE
        },
        Command {
            name: "LIST",
            since: "7.0.0",
            usage: "[FILTERBY filterby(MODULE module-name | ACLCAT category | PATTERN pattern)]",
            summary: "Returns a list of command names.",
            complexity: "O(N) where N is the total number of Redis commands",
            tips: &["nondeterministic_output_order"],
            run: list,
            ..BASE
        },
    ],
    ..BASE
};

/// The command of a full name: `get`, or `config|get` for a subcommand.
fn lookup<'t>(table: &'t CommandTable, name: &[u8]) -> Option<&'t Entry> {
    let mut words = name.split(|byte| *byte == b'|');
    let entry = table.find(words.next()?)?;
    match (words.next(), words.next()) {
        (None, _) => Some(entry),
        (Some(sub), None) => entry.subcommand(sub),
        (Some(_), Some(_)) => None,
    }
}

fn command(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    let table = &ctx.engine.commands;
    ctx.out.array(table.entries().count());
    table.entries().for_each(|entry| write_info(ctx.out, entry));
    DONE
}

fn count(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    ctx.out.integer(ctx.engine.commands.entries().count() as i64);
    DONE
}

fn info(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    if args.len() == 2 {
        return command(ctx, args);
    }
    ctx.out.array(args.len() - 2);
    for name in args.from(2) {
        match lookup(&ctx.engine.commands, name) {
            Some(entry) => write_info(ctx.out, entry),
            None => ctx.out.null(),
        }
    }
    DONE
}

fn docs(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let table = &ctx.engine.commands;
    let entries: Vec<&Entry> = if args.len() == 2 {
        table.entries().collect()
    } else {
        args.from(2).filter_map(|name| lookup(table, name)).collect()
    };
    ctx.out.map(entries.len());
    for entry in entries {
        write_docs(ctx.out, entry)?;
    }
    DONE
}

/// What COMMAND LIST is narrowed down to.
enum Filter<'a> {
    /// Nothing is left out.
    All,
    /// Commands of a module, of which there is none.
    Module,
    /// Commands with a category; `None` for one that does not exist.
    Category(Option<Category>),
    /// Commands whose full name fits.
    Pattern(&'a [u8]),
}

impl Filter<'_> {
    fn admits(&self, entry: &Entry) -> bool {
        match self {
            Filter::All => true,
            Filter::Module => false,
            Filter::Category(wanted) => entry.command.all_categories().any(|category| Some(category) == *wanted),
            Filter::Pattern(pattern) => matches(pattern, entry.full_name.as_bytes(), Case::Insensitive),
        }
    }
}

fn list(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let filter = match args.len() {
        2 => Filter::All,
        5 if args.is(2, "FILTERBY") && args.is(3, "MODULE") => Filter::Module,
        5 if args.is(2, "FILTERBY") && args.is(3, "ACLCAT") => Filter::Category(Category::named(args.at(4))),
        5 if args.is(2, "FILTERBY") && args.is(3, "PATTERN") => Filter::Pattern(args.at(4)),
        _ => return Err(Error::Syntax),
    };
    let header = ctx.out.defer();
    let mut n = 0;
    for entry in ctx.engine.commands.entries() {
        entry.visit(&mut |entry| {
            if filter.admits(entry) {
                ctx.out.bulk(entry.full_name.as_bytes());
                n += 1;
            }
        });
    }
    ctx.out.finish_array(header, n);
    DONE
}

fn getkeys(ctx: &mut Context<'_>, args: &Args<'_>, with_flags: bool) -> Reply {
    let words: Vec<&[u8]> = args.from(2).collect();
    let entry = ctx.engine.commands.resolve(words[0], words.get(1).copied());
    let entry = entry.map_err(|_| Error::text("ERR Invalid command specified"))?;
    let command = entry.command;
    if !command.keys.iter().any(|spec| !matches!(spec, Keys::NotKey { .. })) {
        return Err(Error::text("ERR The command has no key arguments"));
    }
    if !command.arity.accepts(words.len()) {
        return Err(Error::text("ERR Invalid number of arguments specified for command"));
    }
    let mut found = Vec::new();
    let all = for_each(command.keys, words.len(), |i| words[i], |i, access| found.push((i, access)));
    // A count of none is wrong for most, although there may be a destination.
    let none = |spec: &Keys| {
        let mut any = false;
        _ = for_each(slice::from_ref(spec), words.len(), |i| words[i], |_, _| any = true);
        matches!(spec, Keys::Counted { .. }) && !any
    };
    if all.is_err() || found.is_empty() || command.keys.iter().any(none) {
        if !command.has(Flag::NoMandatoryKeys) {
            return Err(Error::text("ERR Invalid arguments specified for command"));
        }
        found.clear();
    }
    ctx.out.array(found.len());
    for (i, access) in found {
        if !with_flags {
            ctx.out.bulk(words[i]);
            continue;
        }
        ctx.out.array(2);
        ctx.out.bulk(words[i]);
        write_access(ctx.out, &keys::settled(command.name, access, &words));
    }
    DONE
}

fn help(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    const LINES: &[&str] = &[
        "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "(no subcommand)",
        "    Return details about all Redis commands.",
        "COUNT",
        "    Return the total number of commands in this Redis server.",
        "LIST",
        "    Return a list of all commands in this Redis server.",
        "INFO [<command-name> ...]",
        "    Return details about multiple Redis commands.",
        "    If no command names are given, documentation details for all",
        "    commands are returned.",
        "DOCS [<command-name> ...]",
        "    Return documentation details about multiple Redis commands.",
        "    If no command names are given, documentation details for all",
        "    commands are returned.",
        "GETKEYS <full-command>",
        "    Return the keys from a full Redis command.",
        "GETKEYSANDFLAGS <full-command>",
        "    Return the keys and the access flags from a full Redis command.",
        "HELP",
        "    Print this help.",
    ];
    ctx.out.array(LINES.len());
    LINES.iter().for_each(|line| ctx.out.simple(line));
    DONE
}

/// A set of statuses: flags, categories.
fn write_names(out: &mut Output, names: impl Iterator<Item = impl AsRef<str>>) {
    let header = out.defer();
    let n = names.map(|name| out.simple(name.as_ref())).count();
    out.finish_set(header, n);
}

fn write_access(out: &mut Output, access: &Access) {
    write_names(out, access.wire());
}

/// The ten elements that COMMAND INFO tells of a command.
fn write_info(out: &mut Output, entry: &Entry) {
    let command = entry.command;
    out.array(10);
    out.bulk(entry.full_name.as_bytes());
    out.integer(command.arity.wire());
    let has = |flag: &Flag| command.has(*flag) || *flag == Flag::MovableKeys && keys::are_movable(command.keys);
    write_names(out, Flag::PRINTED.into_iter().filter(has).filter_map(Flag::wire));
    let (first, last, step) = keys::legacy_range(command.keys);
    out.integer(first.into());
    out.integer(last.into());
    out.integer(step.into());
    write_names(out, command.all_categories().map(|category| format!("@{}", category.wire())));
    out.set(command.tips.len());
    command.tips.iter().for_each(|tip| out.bulk(tip.as_bytes()));
    out.set(command.keys.len());
    command.keys.iter().for_each(|spec| write_keys(out, spec));
    out.set(entry.subcommands.len());
    entry.subcommands.iter().for_each(|sub| write_info(out, sub));
}

fn write_field(out: &mut Output, name: &str, value: &str) {
    out.bulk(name.as_bytes());
    out.bulk(value.as_bytes());
}

/// `begin_search` or `find_keys`: a type and its numbers.
fn write_step(out: &mut Output, name: &str, kind: &str, fields: &[(&str, i64)]) {
    out.bulk(name.as_bytes());
    out.map(2);
    write_field(out, "type", kind);
    out.bulk(b"spec");
    out.map(fields.len());
    for (name, value) in fields {
        out.bulk(name.as_bytes());
        out.integer(*value);
    }
}

/// One key specification.
fn write_keys(out: &mut Output, spec: &Keys) {
    let access = match spec {
        Keys::At { access, .. }
        | Keys::AtOrAfter { access, .. }
        | Keys::Range { access, .. }
        | Keys::Counted { access, .. }
        | Keys::After { access, .. }
        | Keys::Option { access, .. }
        | Keys::Unknown { access, .. } => Some(access),
        Keys::NotKey { .. } => None,
    };
    let notes = access.map_or("", |access| access.notes);
    out.map(if notes.is_empty() { 3 } else { 4 });
    if !notes.is_empty() {
        write_field(out, "notes", notes);
    }
    out.bulk(b"flags");
    match access {
        Some(access) => write_access(out, access),
        None => write_names(out, ["not_key"].into_iter()),
    }
    let range = |out: &mut Output, last: i64, step: u8, limit: i64| {
        write_step(out, "find_keys", "range", &[("lastkey", last), ("keystep", step.into()), ("limit", limit)]);
    };
    let index = |out: &mut Output, first: u8| write_step(out, "begin_search", "index", &[("index", first.into())]);
    match *spec {
        Keys::At { first, .. } | Keys::AtOrAfter { first, .. } => {
            index(out, first);
            range(out, 0, 1, 0);
        }
        Keys::Range { first, last, step, .. } | Keys::NotKey { first, last, step } => {
            index(out, first);
            range(out, i64::from(last) - if last < 0 { 0 } else { i64::from(first) }, step, 0);
        }
        Keys::Counted { count, first, step, .. } => {
            index(out, count);
            let fields =
                [("keynumidx", 0), ("firstkey", i64::from(first) - i64::from(count)), ("keystep", step.into())];
            write_step(out, "find_keys", "keynum", &fields);
        }
        Keys::After { word, from, last, step, .. } => {
            out.bulk(b"begin_search");
            out.map(2);
            write_field(out, "type", "keyword");
            out.bulk(b"spec");
            out.map(2);
            write_field(out, "keyword", word);
            out.bulk(b"startfrom");
            out.integer(from.into());
            match last {
                -2 => range(out, -1, step, 2),
                last => range(out, last.into(), step, 0),
            }
        }
        Keys::Option { .. } | Keys::Unknown { .. } => {
            write_step(out, "begin_search", "unknown", &[]);
            write_step(out, "find_keys", "unknown", &[]);
        }
    }
}

/// Name and description of a command, its subcommands in it.
fn write_docs(out: &mut Output, entry: &Entry) -> Result<(), Error> {
    let command = entry.command;
    let arguments = parse(command.usage);
    // A test walks the table: no line of it is malformed.
    let arguments = arguments.map_err(|_| Error::text("ERR the command's usage cannot be read"))?;
    out.bulk(entry.full_name.as_bytes());
    let header = out.defer();
    let mut n = 0;
    let mut field = |out: &mut Output, name: &str, value: &str| {
        write_field(out, name, value);
        n += 1;
    };
    field(out, "summary", command.summary);
    field(out, "since", command.since);
    field(out, "group", command.group.wire());
    if !command.complexity.is_empty() {
        field(out, "complexity", command.complexity);
    }
    let doc_flags = [(command.deprecated.is_some(), "deprecated"), (command.has(Flag::System), "syscmd")];
    if doc_flags.iter().any(|(is, _)| *is) {
        out.bulk(b"doc_flags");
        write_names(out, doc_flags.iter().filter(|(is, _)| *is).map(|(_, name)| name));
        n += 1;
    }
    if let Some((since, instead)) = command.deprecated {
        write_field(out, "deprecated_since", since);
        write_field(out, "replaced_by", instead);
        n += 2;
    }
    if !command.history.is_empty() {
        out.bulk(b"history");
        out.set(command.history.len());
        for (since, change) in command.history {
            out.array(2);
            out.bulk(since.as_bytes());
            out.bulk(change.as_bytes());
        }
        n += 1;
    }
    if !arguments.is_empty() {
        out.bulk(b"arguments");
        write_arguments(out, &arguments);
        n += 1;
    }
    if !entry.subcommands.is_empty() {
        out.bulk(b"subcommands");
        out.map(entry.subcommands.len());
        for sub in &entry.subcommands {
            write_docs(out, sub)?;
        }
        n += 1;
    }
    out.finish_map(header, n);
    Ok(())
}

fn write_arguments(out: &mut Output, arguments: &[Argument<'_>]) {
    out.array(arguments.len());
    for argument in arguments {
        let header = out.defer();
        let mut n = 2;
        write_field(out, "name", &argument.name);
        write_field(out, "type", argument.kind.wire());
        if !matches!(argument.kind, Kind::OneOf | Kind::Block) {
            write_field(out, "display_text", argument.display.unwrap_or(&argument.name));
            n += 1;
        }
        if let Some(spec) = argument.key_spec {
            out.bulk(b"key_spec_index");
            out.integer(spec.into());
            n += 1;
        }
        for (name, value) in [("token", argument.token), ("since", argument.since)] {
            if let Some(value) = value {
                write_field(out, name, value);
                n += 1;
            }
        }
        let flags = [
            (argument.optional, "optional"),
            (argument.multiple, "multiple"),
            (argument.multiple_token, "multiple_token"),
        ];
        if flags.iter().any(|(is, _)| *is) {
            out.bulk(b"flags");
            write_names(out, flags.iter().filter(|(is, _)| *is).map(|(_, name)| name));
            n += 1;
        }
        if !argument.arguments.is_empty() {
            out.bulk(b"arguments");
            write_arguments(out, &argument.arguments);
            n += 1;
        }
        out.finish_map(header, n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Bench;

    #[test]
    fn info_of_get_is_told_as_redis_tells_it() {
        let expected = "*1|*10|$3|get|:2|*2|+readonly|+fast|:1|:1|:1|*3|+@read|+@string|+@fast|*0|*1|*6|$5|flags|*2|+RO|\
            +access|$12|begin_search|*4|$4|type|$5|index|$4|spec|*2|$5|index|:1|$9|find_keys|*4|$4|type|$5|range|$4|spec|\
            *6|$7|lastkey|:0|$7|keystep|:1|$5|limit|:0|*0|";
        assert_eq!(Bench::new().run("COMMAND INFO GET"), expected);
    }

    #[test]
    fn unknown_commands_are_null_to_info_and_left_out_by_docs() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("COMMAND INFO nosuch get|x command|nosuch command|count|x"), "*4|$-1|$-1|$-1|$-1|");
        assert_eq!(bench.run("COMMAND DOCS nosuch"), "*0|");
        assert!(bench.run("COMMAND INFO command|count").starts_with("*1|*10|$13|command|count|:2|"));
    }

    #[test]
    fn counts_of_commands_agree() {
        let mut bench = Bench::new();
        let n = bench.engine.commands.entries().count();
        assert_eq!(bench.run("COMMAND COUNT"), format!(":{n}|"));
        assert!(bench.run("COMMAND").starts_with(&format!("*{n}|*10|")));
        assert_eq!(bench.run("COMMAND INFO"), bench.run("COMMAND"));
        assert!(bench.run("COMMAND DOCS").starts_with(&format!("*{}|", 2 * n)));
        let all: usize = bench.engine.commands.entries().map(|entry| 1 + entry.subcommands.len()).sum();
        assert!(bench.run("COMMAND LIST").starts_with(&format!("*{all}|")));
    }

    #[test]
    fn lists_are_narrowed_by_pattern_and_category() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("COMMAND LIST FILTERBY PATTERN GetR*"), "*1|$8|getrange|");
        assert_eq!(bench.run("COMMAND LIST FILTERBY PATTERN command|c*"), "*1|$13|command|count|");
        assert_eq!(bench.run("COMMAND LIST FILTERBY ACLCAT nosuch"), "*0|");
        assert_eq!(bench.run("COMMAND LIST FILTERBY ACLCAT @string"), "*0|");
        assert_eq!(bench.run("COMMAND LIST FILTERBY MODULE x"), "*0|");
        assert!(bench.run("COMMAND LIST FILTERBY ACLCAT String").contains("|$6|append|"));
        for wrong in ["COMMAND LIST FILTERBY", "COMMAND LIST FILTERBY x y", "COMMAND LIST x PATTERN y"] {
            assert_eq!(bench.run(wrong), "-ERR syntax error|");
        }
    }

    #[test]
    fn keys_are_found_in_a_whole_command() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("COMMAND GETKEYS mset a b c d"), "*2|$1|a|$1|c|");
        assert_eq!(bench.run("COMMAND GETKEYSANDFLAGS set a b"), "*1|*2|$1|a|*2|+OW|+update|");
        assert_eq!(bench.run("COMMAND GETKEYSANDFLAGS set a b get"), "*1|*2|$1|a|*3|+RW|+access|+update|");
        assert_eq!(bench.run("COMMAND GETKEYS nosuch a"), "-ERR Invalid command specified|");
        assert_eq!(bench.run("COMMAND GETKEYS command nosuch"), "-ERR Invalid command specified|");
        assert_eq!(bench.run("COMMAND GETKEYS command count"), "-ERR The command has no key arguments|");
        assert_eq!(bench.run("COMMAND GETKEYS get"), "-ERR Invalid number of arguments specified for command|");
    }

    #[test]
    fn docs_are_maps_and_sets_where_the_protocol_has_them() {
        let mut bench = Bench::new();
        bench.out_as(crate::resp::reply::Protocol::Resp3);
        let docs = bench.run("COMMAND DOCS substr");
        assert!(docs.starts_with("%1|$6|substr|%8|$7|summary|"), "{docs}");
        assert!(docs.contains("|$9|doc_flags|~1|+deprecated|$16|deprecated_since|$5|2.0.0|$11|replaced_by|"), "{docs}");
        assert!(docs.contains("|$9|arguments|*3|%4|$4|name|$3|key|$4|type|$3|key|$12|display_text|$3|key|"), "{docs}");
        assert!(bench.run("COMMAND INFO get nosuch").ends_with("|~0|_|"));
    }

    #[test]
    fn help_names_every_subcommand() {
        let help = Bench::new().run("COMMAND HELP");
        for sub in COMMAND.subcommands {
            assert!(help.contains(&format!("|+{}", sub.name)), "{}", sub.name);
        }
        assert_eq!(Bench::new().run("COMMAND nosuch"), "-ERR unknown subcommand 'nosuch'. Try COMMAND HELP.|");
    }
}

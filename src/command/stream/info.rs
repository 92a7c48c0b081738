//! What streams, groups and consumers are like: XINFO.

use crate::command::args::Args;
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::help::{self, Topic};
use crate::command::stream::range::write_entries;
use crate::command::stream::{STREAM, no_group, stream, write_entry, write_id};
use crate::command::table::Command;
use crate::resp::reply::Output;
use crate::spec::{Access, Arity, Flag, Keys};
use crate::types::stream::group::{Consumer, Group};
use crate::types::stream::id::Id;
use crate::types::stream::{Log, Stream};

/// What streams, groups and consumers are like.
pub const XINFO: Command = Command {
    name: "XINFO",
    arity: Arity::AtLeast(2),
    flags: &[],
    keys: &[],
    usage: "",
    summary: "A container for stream introspection commands.",
    complexity: "Depends on subcommand.",
    subcommands: &[CONSUMERS, GROUPS, HELP, STREAM_INFO],
    run: help::container,
    ..STREAM
};

const STREAM_INFO: Command = Command {
    name: "STREAM",
    flags: &[Flag::ReadOnly],
    keys: &[Keys::At { first: 2, access: Access::READ }],
    usage: "key [full-block{FULL [COUNT count]}]",
    summary: "Returns information about a stream.",
    history: &[
        ("6.0.0", "Added the `FULL` modifier."),
        (
            "7.0.0",
            "Added the `max-deleted-entry-id`, `entries-added`, `recorded-first-entry-id`, `entries-read` and `lag` fields",
        ),
        ("7.2.0", "Added the `active-time` field, and changed the meaning of `seen-time`."),
    ],
    run: info_stream,
    ..STREAM
};

const GROUPS: Command = Command {
    name: "GROUPS",
    arity: Arity::Exactly(3),
    usage: "key",
    summary: "Returns a list of the consumer groups of a stream.",
    history: &[("7.0.0", "Added the `entries-read` and `lag` fields")],
    run: groups,
    ..STREAM_INFO
};

const CONSUMERS: Command = Command {
    name: "CONSUMERS",
    arity: Arity::Exactly(4),
    usage: "key group",
    summary: "Returns a list of the consumers in a consumer group.",
    tips: &["nondeterministic_output"],
    history: &[("7.2.0", "Added the `inactive` field.")],
    run: consumers,
    ..STREAM_INFO
};

const HELP: Command = Command {
    name: "HELP",
    arity: Arity::Exactly(2),
    flags: &[Flag::Loading, Flag::Stale],
    keys: &[],
    usage: "",
    summary: "Returns helpful text about the different subcommands.",
    run: |ctx, _| help::write(ctx.out, "XINFO", TOPICS),
    ..STREAM
};

const TOPICS: &[Topic] = &[
    ("CONSUMERS <key> <groupname>", &["Show consumers of <groupname>."]),
    ("GROUPS <key>", &["Show the stream consumer groups."]),
    ("STREAM <key> [FULL [COUNT <count>]", &["Show information about the stream."]),
];

/// How many entries, and pending ones of each group and consumer, FULL shows where it is not told.
const FULL_COUNT: usize = 10;

/// How many entries FULL shows at most; `None` where FULL is not asked for.
fn full(args: &Args<'_>) -> Result<Option<usize>, Error> {
    let wrong = || Err(help::wrong_form("XINFO", args.at(1)));
    match args.len() {
        3 => Ok(None),
        4 if args.is(3, "FULL") => Ok(Some(FULL_COUNT)),
        6 if args.is(3, "FULL") && args.is(4, "COUNT") => Ok(Some(match args.integer(5)? {
            0 => usize::MAX,
            n => usize::try_from(n).unwrap_or(FULL_COUNT),
        })),
        _ => wrong(),
    }
}

fn info_stream(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 2);
    let found = ctx.db.read(&key).map(stream).transpose()?.ok_or(Error::NoSuchKey)?;
    let full = full(args)?;
    let (out, log) = (&mut *ctx.out, &found.log);
    let counters = log.counters();
    out.map(if full.is_some() { 9 } else { 10 });
    number(out, "length", log.len() as i64);
    number(out, "radix-tree-keys", log.chunks().len() as i64);
    number(out, "radix-tree-nodes", log.radix_nodes() as i64);
    for (name, id) in [("last-generated-id", counters.last), ("max-deleted-entry-id", counters.max_deleted)] {
        out.bulk(name.as_bytes());
        write_id(out, id);
    }
    number(out, "entries-added", counters.added as i64);
    out.bulk(b"recorded-first-entry-id");
    write_id(out, log.first_id());
    match full {
        Some(most) => write_full(out, found, most),
        None => {
            number(out, "groups", found.groups.len() as i64);
            for (name, entry) in [
                ("first-entry", log.entries(Id::MIN, Id::MAX).next()),
                ("last-entry", log.entries_down(Id::MAX, Id::MIN).next()),
            ] {
                out.bulk(name.as_bytes());
                match entry {
                    Some(entry) => write_entry(out, entry),
                    None => out.null(),
                }
            }
        }
    }
    DONE
}

fn number(out: &mut Output, name: &str, n: i64) {
    out.bulk(name.as_bytes());
    out.integer(n);
}

/// A number that may not be known.
fn maybe(out: &mut Output, name: &str, n: Option<i64>) {
    out.bulk(name.as_bytes());
    match n {
        Some(n) => out.integer(n),
        None => out.null(),
    }
}

fn write_full(out: &mut Output, stream: &Stream, most: usize) {
    out.bulk(b"entries");
    write_entries(out, stream.log.entries(Id::MIN, Id::MAX), most);
    out.bulk(b"groups");
    out.array(stream.groups.len());
    for (name, group) in stream.groups.iter() {
        out.map(7);
        out.bulk(b"name");
        out.bulk(name);
        write_progress(out, &stream.log, group);
        number(out, "pel-count", group.pending().len() as i64);
        out.bulk(b"pending");
        out.array(group.pending().len().min(most));
        for (id, pending) in group.pending().iter().take(most) {
            out.array(4);
            write_id(out, id);
            out.bulk(group.consumer(pending.consumer).name());
            out.integer(pending.delivered_ms as i64);
            out.integer(pending.deliveries as i64);
        }
        out.bulk(b"consumers");
        out.array(group.consumers().len());
        group.consumers().for_each(|consumer| write_consumer(out, group, consumer, most));
    }
}

/// How far a group has read.
fn write_progress(out: &mut Output, log: &Log, group: &Group) {
    out.bulk(b"last-delivered-id");
    write_id(out, group.last);
    maybe(out, "entries-read", group.read);
    maybe(out, "lag", log.lag(group));
}

fn write_consumer(out: &mut Output, group: &Group, consumer: &Consumer, most: usize) {
    out.map(5);
    out.bulk(b"name");
    out.bulk(consumer.name());
    number(out, "seen-time", consumer.seen_ms as i64);
    number(out, "active-time", consumer.active_ms.map_or(-1, |ms| ms as i64));
    number(out, "pel-count", consumer.pending().len() as i64);
    out.bulk(b"pending");
    out.array(consumer.pending().len().min(most));
    for (id, ()) in consumer.pending().iter().take(most) {
        let pending = group.pending().at(id);
        out.array(3);
        write_id(out, id);
        out.integer(pending.map_or(0, |pending| pending.delivered_ms as i64));
        out.integer(pending.map_or(0, |pending| pending.deliveries as i64));
    }
}

fn groups(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 2);
    let found = ctx.db.read(&key).map(stream).transpose()?.ok_or(Error::NoSuchKey)?;
    let out = &mut *ctx.out;
    out.array(found.groups.len());
    for (name, group) in found.groups.iter() {
        out.map(6);
        out.bulk(b"name");
        out.bulk(name);
        number(out, "consumers", group.consumers().len() as i64);
        number(out, "pending", group.pending().len() as i64);
        write_progress(out, &found.log, group);
    }
    DONE
}

fn consumers(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 2);
    let now_ms = ctx.db.now_ms() as i64;
    let found = ctx.db.read(&key).map(stream).transpose()?.ok_or(Error::NoSuchKey)?;
    let group = found.groups.find(args.at(3)).ok_or_else(|| no_group(key.bytes, args.at(3)))?;
    let out = &mut *ctx.out;
    out.array(group.consumers().len());
    for consumer in group.consumers() {
        out.map(4);
        out.bulk(b"name");
        out.bulk(consumer.name());
        number(out, "pending", consumer.pending().len() as i64);
        number(out, "idle", now_ms.wrapping_sub(consumer.seen_ms as i64).max(0));
        number(out, "inactive", consumer.active_ms.map_or(-1, |ms| now_ms.wrapping_sub(ms as i64)));
    }
    DONE
}

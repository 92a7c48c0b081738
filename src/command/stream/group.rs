//! Groups and their consumers: XGROUP, and XACK.

use smallvec::SmallVec;

use crate::command::args::{Args, word};
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::help::{self, Topic};
use crate::command::stream::{STREAM, ids, insert, no_group, stream, stream_mut};
use crate::command::table::Command;
use crate::keyspace::change::Class;
use crate::keyspace::db::Key;
use crate::spec::{Access, Arity, Flag, Keys};
use crate::types::stream::Stream;
use crate::types::stream::group::Group;
use crate::types::stream::id::Id;

/// What is done to groups.
pub const XGROUP: Command = Command {
    name: "XGROUP",
    arity: Arity::AtLeast(2),
    flags: &[],
    keys: &[],
    usage: "",
    summary: "A container for consumer groups commands.",
    complexity: "Depends on subcommand.",
    subcommands: &[CREATE, CREATECONSUMER, DELCONSUMER, DESTROY, HELP, SETID],
    run: help::container,
    ..STREAM
};

const CREATE: Command = Command {
    name: "CREATE",
    arity: Arity::AtLeast(5),
    flags: &[Flag::Write, Flag::DenyOom],
    keys: &[Keys::At { first: 2, access: Access::INSERT }],
    usage: "key group id-selector(id | new-id=$) [MKSTREAM] [ENTRIESREAD entriesread/entries-read:integer]",
    summary: "Creates a consumer group.",
    complexity: "O(1)",
    history: &[("7.0.0", "Added the `entries_read` named argument.")],
    run: create,
    ..STREAM
};

const SETID: Command = Command {
    name: "SETID",
    flags: &[Flag::Write],
    keys: &[Keys::At { first: 2, access: Access::UPDATE }],
    usage: "key group id-selector(id | new-id=$) [ENTRIESREAD entriesread/entries-read:integer]",
    summary: "Sets the last-delivered ID of a consumer group.",
    history: &[("7.0.0", "Added the optional `entries_read` argument.")],
    run: setid,
    ..CREATE
};

const DESTROY: Command = Command {
    name: "DESTROY",
    arity: Arity::Exactly(4),
    flags: &[Flag::Write],
    keys: &[Keys::At { first: 2, access: Access::DELETE }],
    usage: "key group",
    summary: "Destroys a consumer group.",
    complexity: "O(N) where N is the number of entries in the group's pending entries list (PEL).",
    run: destroy,
    ..STREAM
};

const CREATECONSUMER: Command = Command {
    name: "CREATECONSUMER",
    since: "6.2.0",
    arity: Arity::Exactly(5),
    usage: "key group consumer",
    summary: "Creates a consumer in a consumer group.",
    history: &[],
    run: createconsumer,
    ..CREATE
};

const DELCONSUMER: Command = Command {
    name: "DELCONSUMER",
    arity: Arity::Exactly(5),
    usage: "key group consumer",
    summary: "Deletes a consumer from a consumer group.",
    complexity: "O(1)",
    run: delconsumer,
    ..DESTROY
};

const HELP: Command = Command {
    name: "HELP",
    arity: Arity::Exactly(2),
    flags: &[Flag::Loading, Flag::Stale],
    keys: &[],
    usage: "",
    summary: "Returns helpful text about the different subcommands.",
    run: |ctx, _| help::write(ctx.out, "XGROUP", TOPICS),
    ..STREAM
};

const TOPICS: &[Topic] = &[
    (
        "CREATE <key> <groupname> <id|$> [option]",
        &[
            "Create a new consumer group. Options are:",
            "* MKSTREAM",
            "  Create the empty stream if it does not exist.",
            "* ENTRIESREAD entries_read",
            "  Set the group's entries_read counter (internal use).",
        ],
    ),
    ("CREATECONSUMER <key> <groupname> <consumer>", &["Create a new consumer in the specified group."]),
    ("DELCONSUMER <key> <groupname> <consumer>", &["Remove the specified consumer."]),
    ("DESTROY <key> <groupname>", &["Remove the specified group."]),
    (
        "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
        &["Set the current group ID and entries_read counter."],
    ),
];

/// Acknowledges entries; replies how many were pending.
pub const XACK: Command = Command {
    name: "XACK",
    arity: Arity::AtLeast(4),
    usage: "key group ID:string...",
    summary: "Returns the number of messages that were successfully acknowledged by the consumer group member of a stream.",
    complexity: "O(1) for each message ID processed.",
    run: xack,
    ..STREAM
};

/// What CREATE and SETID are told beside the id.
struct Options {
    make_stream: bool,
    read: Option<i64>,
}

fn options(args: &Args<'_>, words: &[&str]) -> Result<Options, Error> {
    let mut options = Options { make_stream: false, read: None };
    let mut i = 5;
    while i < args.len() {
        match word(args.at(i), words) {
            Some("MKSTREAM") => options.make_stream = true,
            Some("ENTRIESREAD") if i + 1 < args.len() => {
                i += 1;
                options.read = match args.integer(i)? {
                    -1 => None,
                    read if read < 0 => {
                        return Err(Error::text("ERR value for ENTRIESREAD must be positive or -1"));
                    }
                    read => Some(read),
                };
            }
            _ => return Err(help::wrong_form("XGROUP", args.at(1))),
        }
        i += 1;
    }
    Ok(options)
}

fn missing_key() -> Error {
    Error::text(
        "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to create an empty stream automatically.",
    )
}

/// The stream, to be asked whether it has the group that a subcommand needs.
fn existing<'c>(ctx: &'c mut Context<'_>, key: &Key<'_>, group: &[u8]) -> Result<&'c Stream, Error> {
    let stream = ctx.db.look(key).map(stream).transpose()?.ok_or_else(missing_key)?;
    if stream.groups.find(group).is_none() { Err(no_group(key.bytes, group)) } else { Ok(stream) }
}

fn create(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let options = options(args, &["MKSTREAM", "ENTRIESREAD"])?;
    let (key, name) = (args.key(&ctx.db, 2), args.at(3));
    let found = ctx.db.look(&key).map(stream).transpose()?;
    if found.is_none() && !options.make_stream {
        return Err(missing_key());
    }
    if args.len() > 8 {
        return Err(help::wrong_form("XGROUP", args.at(1)));
    }
    let last = match args.at(4) {
        b"$" => found.map_or(Id::MIN, |stream| stream.log.counters().last),
        id => ids::strict(id)?,
    };
    let exists = found.is_some();
    if !exists {
        insert(ctx, &key, Stream::default());
    }
    let group = Group::new(last, options.read);
    let added = ctx.db.update(&key, |entry| stream_mut(entry).map(|stream| stream.groups.add(name, group)));
    if !added.unwrap_or(Ok(false))? {
        return Err(Error::text("BUSYGROUP Consumer Group name already exists"));
    }
    ctx.db.note(&key, Class::Stream, "xgroup-create");
    ctx.out.ok();
    DONE
}

fn setid(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let options = options(args, &["ENTRIESREAD"])?;
    let (key, name) = (args.key(&ctx.db, 2), args.at(3));
    let last = existing(ctx, &key, name)?.log.counters().last;
    if args.len() > 7 {
        return Err(help::wrong_form("XGROUP", args.at(1)));
    }
    let last = if args.at(4) == b"$" { last } else { ids::loose(args.at(4), 0)? };
    change(ctx, &key, name, |group| (group.last, group.read) = (last, options.read))?;
    ctx.db.note(&key, Class::Stream, "xgroup-setid");
    ctx.out.ok();
    DONE
}

/// Changes a group that is known to be there.
fn change<R>(ctx: &mut Context<'_>, key: &Key<'_>, name: &[u8], f: impl FnOnce(&mut Group) -> R) -> Result<R, Error> {
    let changed = ctx.db.update(key, |entry| Ok(stream_mut(entry)?.groups.find_mut(name).map(f)));
    changed.ok_or_else(missing_key)??.ok_or_else(|| no_group(key.bytes, name))
}

fn destroy(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let (key, name) = (args.key(&ctx.db, 2), args.at(3));
    let removed = ctx.db.update(&key, |entry| stream_mut(entry).map(|stream| stream.groups.remove(name)));
    let removed = removed.ok_or_else(missing_key)??;
    if removed {
        ctx.db.note(&key, Class::Stream, "xgroup-destroy");
    }
    ctx.out.integer(i64::from(removed));
    DONE
}

fn createconsumer(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let (key, name) = (args.key(&ctx.db, 2), args.at(3));
    existing(ctx, &key, name)?;
    let now_ms = ctx.db.now_ms();
    let created = change(ctx, &key, name, |group| group.create(args.at(4), now_ms).is_some())?;
    if created {
        ctx.db.note(&key, Class::Stream, "xgroup-createconsumer");
    }
    ctx.out.integer(i64::from(created));
    DONE
}

fn delconsumer(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let (key, name) = (args.key(&ctx.db, 2), args.at(3));
    existing(ctx, &key, name)?;
    let pending = change(ctx, &key, name, |group| group.delete(args.at(4)))?;
    if pending.is_some() {
        ctx.db.note(&key, Class::Stream, "xgroup-delconsumer");
    }
    ctx.out.integer(pending.unwrap_or(0) as i64);
    DONE
}

fn xack(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let (key, name) = (args.key(&ctx.db, 1), args.at(2));
    let found = ctx.db.read(&key).map(stream).transpose()?;
    // Only where there is a group does it matter whether the ids are any.
    if found.is_none_or(|stream| stream.groups.find(name).is_none()) {
        ctx.out.integer(0);
        return DONE;
    }
    let ids = args.from(3).map(ids::strict).collect::<Result<SmallVec<[Id; 8]>, _>>()?;
    let known = change(ctx, &key, name, |group| ids.iter().filter(|id| group.acknowledge(**id).is_some()).count())?;
    ctx.db.effects.dirty += known as u64;
    ctx.out.integer(known as i64);
    DONE
}

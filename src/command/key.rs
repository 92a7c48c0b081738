//! Keys whatever they hold: deleted, renamed, copied, moved, looked at from outside.

use crate::command::args::{Args, word};
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::eviction::needs_clocks;
use crate::command::table::Command;
use crate::keyspace::change::Class;
use crate::keyspace::db::{Key, Touch};
use crate::keyspace::entry::Value;
use crate::keyspace::moment::AccessPolicy;
use crate::spec::{Access, Arity, Category, Flag, Group, Keys};
use crate::stdx::number::parse_i64;

/// This family's commands.
pub const COMMANDS: &[Command] = &[COPY, DEL, EXISTS, MOVE, OBJECT, RENAME, RENAMENX, TOUCH, TYPE, UNLINK];

/// Removes keys; replies how many there were.
pub const DEL: Command = Command {
    name: "DEL",
    since: "1.0.0",
    group: Group::Generic,
    arity: Arity::AtLeast(2),
    flags: &[Flag::Write],
    categories: &[Category::Keyspace],
    keys: &[Keys::Range { first: 1, last: -1, step: 1, access: Access::REMOVE }],
    usage: "key...",
    summary: "Deletes one or more keys.",
    complexity: "O(N) where N is the number of keys that will be removed. When a key to remove holds a value other than a string, the individual complexity for this key is O(M) where M is the number of elements in the list, set, sorted set or hash. Removing a single key that holds a string value is O(1).",
    tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: del,
};

/// DEL, which frees large values off the data path as well: both do.
pub const UNLINK: Command = Command {
    name: "UNLINK",
    since: "4.0.0",
    flags: &[Flag::Write, Flag::Fast],
    summary: "Asynchronously deletes one or more keys.",
    complexity: "O(1) for each key removed regardless of its size. Then the command does O(N) work in a different thread in order to reclaim memory, where N is the number of allocations the deleted objects where composed of.",
    ..DEL
};

fn del(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let mut removed = 0;
    for i in 1..args.len() {
        let key = args.key(&ctx.db, i);
        if ctx.db.remove(&key) {
            ctx.db.note(&key, Class::Generic, "del");
            removed += 1;
        }
    }
    ctx.out.integer(removed);
    DONE
}

/// Replies how many of the keys exist; one that is named twice counts twice.
pub const EXISTS: Command = Command {
    name: "EXISTS",
    flags: &[Flag::ReadOnly, Flag::Fast],
    keys: &[Keys::Range { first: 1, last: -1, step: 1, access: Access::META }],
    summary: "Determines whether one or more keys exist.",
    complexity: "O(N) where N is the number of keys to check.",
    history: &[("3.0.3", "Accepts multiple `key` arguments.")],
    run: exists,
    ..DEL
};

fn exists(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let mut found = 0;
    for i in 1..args.len() {
        let key = args.key(&ctx.db, i);
        found += i64::from(ctx.db.peek(&key).is_some());
    }
    ctx.out.integer(found);
    DONE
}

/// Moves the access clocks of keys; replies how many exist.
pub const TOUCH: Command = Command {
    name: "TOUCH",
    since: "3.2.1",
    summary: "Returns the number of existing keys out of those specified after updating the time they were last accessed.",
    complexity: "O(N) where N is the number of keys that will be touched.",
    history: &[],
    run: touch,
    ..EXISTS
};

fn touch(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    // Even where CLIENT NO-TOUCH keeps other commands from it.
    ctx.db.set_touch(Touch::Yes);
    let mut found = 0;
    for i in 1..args.len() {
        let key = args.key(&ctx.db, i);
        found += i64::from(ctx.db.read(&key).is_some());
    }
    ctx.db.set_touch(if ctx.session.no_touch { Touch::No } else { Touch::Yes });
    ctx.out.integer(found);
    DONE
}

/// The name of the value's type, `none` where the key is missing.
pub const TYPE: Command = Command {
    name: "TYPE",
    arity: Arity::Exactly(2),
    flags: &[Flag::ReadOnly, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::META }],
    usage: "key",
    summary: "Determines the type of value stored at a key.",
    complexity: "O(1)",
    tips: &[],
    run: type_of,
    ..DEL
};

fn type_of(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    ctx.out.simple(ctx.db.peek(&key).map_or("none", |entry| entry.kind().name()));
    DONE
}

/// Gives a value another key, whatever that held.
pub const RENAME: Command = Command {
    name: "RENAME",
    arity: Arity::Exactly(3),
    flags: &[Flag::Write],
    keys: &[Keys::At { first: 1, access: Access::TAKE }, Keys::At { first: 2, access: Access::OVERWRITE }],
    usage: "key newkey:key",
    summary: "Renames a key and overwrites the destination.",
    run: rename,
    ..TYPE
};

fn rename(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let (from, to) = (args.key(&ctx.db, 1), args.key(&ctx.db, 2));
    if !ctx.db.exists(&from) {
        return Err(Error::NoSuchKey);
    }
    if from.bytes != to.bytes {
        ctx.db.remove(&to);
        give_name(ctx, &from, &to);
    }
    ctx.out.ok();
    DONE
}

/// Gives a value another key unless that exists: 1 if it did.
pub const RENAMENX: Command = Command {
    name: "RENAMENX",
    flags: &[Flag::Write, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::TAKE }, Keys::At { first: 2, access: Access::CREATE }],
    summary: "Renames a key only when the target key name doesn't exist.",
    history: &[("3.2.0", "The command no longer returns an error when source and destination names are the same.")],
    run: renamenx,
    ..RENAME
};

fn renamenx(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let (from, to) = (args.key(&ctx.db, 1), args.key(&ctx.db, 2));
    if !ctx.db.exists(&from) {
        return Err(Error::NoSuchKey);
    }
    let free = !ctx.db.exists(&to);
    if free {
        give_name(ctx, &from, &to);
    }
    ctx.out.integer(free.into());
    DONE
}

/// Moves the value of `from`, which exists, to `to`, which does not. The deadline goes with it.
fn give_name(ctx: &mut Context<'_>, from: &Key<'_>, to: &Key<'_>) {
    let Some(entry) = ctx.db.take(from) else { return };
    let deadline = entry.deadline();
    ctx.db.insert(to, entry.renamed(to.hash.bits(), to.bytes, deadline));
    ctx.db.note(from, Class::Generic, "rename_from");
    // One change, but two keys that have events.
    ctx.db.notify(to, Class::Generic, "rename_to");
}

/// The number of a database that exists.
///
/// # Errors
/// Where it is no number, or there is no such database.
pub fn database(ctx: &Context<'_>, arg: &[u8]) -> Result<usize, Error> {
    let n = parse_i64(arg).ok_or(Error::NotInteger)?;
    if i32::try_from(n).is_err() {
        return Err(Error::text("ERR value is out of range, value must between -2147483648 and 2147483647"));
    }
    usize::try_from(n).ok().filter(|n| *n < ctx.config.databases as usize).ok_or(Error::DbOutOfRange)
}

/// Runs `f` with another database selected, over the same shards: a key lives in the same one of each database.
fn within<R>(ctx: &mut Context<'_>, db: usize, f: impl FnOnce(&mut Context<'_>) -> R) -> R {
    let selected = ctx.db.index();
    ctx.db.select(db);
    let result = f(ctx);
    ctx.db.select(selected);
    result
}

/// Copies a value and its deadline to another key, in the same database or another: 1 if it did.
pub const COPY: Command = Command {
    name: "COPY",
    since: "6.2.0",
    arity: Arity::AtLeast(3),
    flags: &[Flag::Write, Flag::DenyOom],
    keys: &[Keys::At { first: 1, access: Access::READ }, Keys::At { first: 2, access: Access::OVERWRITE }],
    usage: "source:key destination:key [DB destination-db:integer] [REPLACE]",
    summary: "Copies the value of a key to a new key.",
    complexity: "O(N) worst case for collections, where N is the number of nested items. O(1) for string values.",
    run: copy,
    ..TYPE
};

fn copy(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let (source, target) = (args.key(&ctx.db, 1), args.key(&ctx.db, 2));
    let (mut db, mut replace) = (ctx.db.index(), false);
    let mut i = 3;
    while i < args.len() {
        match word(args.at(i), &["REPLACE", "DB"]) {
            Some("REPLACE") => replace = true,
            Some("DB") if i + 1 < args.len() => {
                i += 1;
                db = database(ctx, args.at(i))?;
            }
            _ => return Err(Error::Syntax),
        }
        i += 1;
    }
    if ctx.config.cluster_enabled && db != 0 {
        return Err(Error::text("ERR Copying to another database is not allowed in cluster mode"));
    }
    if db == ctx.db.index() && source.bytes == target.bytes {
        return Err(Error::SameObject);
    }
    let clock = ctx.db.moment().initial_clock();
    let found = ctx.db.read(&source).is_some();
    if !found || !replace && within(ctx, db, |ctx| ctx.db.exists(&target)) {
        ctx.out.integer(0);
        return DONE;
    }
    // Only now: a copy may be large, and the source is still the one that was found.
    let copied = ctx.db.look(&source).map(|entry| entry.copy_as(target.hash.bits(), target.bytes, entry.deadline()));
    if let Some(mut entry) = copied {
        entry.set_clock(clock);
        within(ctx, db, |ctx| {
            ctx.db.remove(&target);
            ctx.db.insert(&target, entry);
            ctx.db.note(&target, Class::Generic, "copy_to");
        });
    }
    ctx.out.integer(1);
    DONE
}

/// Moves a key to another database unless it exists there: 1 if it did.
pub const MOVE: Command = Command {
    name: "MOVE",
    arity: Arity::Exactly(3),
    flags: &[Flag::Write, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::READ_UPDATE }],
    usage: "key db",
    summary: "Moves a key to another database.",
    run: move_key,
    ..TYPE
};

fn move_key(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    if ctx.config.cluster_enabled {
        return Err(Error::text("ERR MOVE is not allowed in cluster mode"));
    }
    let key = args.key(&ctx.db, 1);
    let db = database(ctx, args.at(2))?;
    if db == ctx.db.index() {
        return Err(Error::SameObject);
    }
    if !ctx.db.exists(&key) || within(ctx, db, |ctx| ctx.db.exists(&key)) {
        ctx.out.integer(0);
        return DONE;
    }
    if let Some(entry) = ctx.db.take(&key) {
        within(ctx, db, |ctx| ctx.db.insert(&key, entry));
    }
    ctx.db.note(&key, Class::Generic, "move_from");
    within(ctx, db, |ctx| ctx.db.notify(&key, Class::Generic, "move_to"));
    ctx.out.integer(1);
    DONE
}

/// What is known of a value besides its content.
pub const OBJECT: Command = Command {
    name: "OBJECT",
    since: "2.2.3",
    arity: Arity::AtLeast(2),
    flags: &[],
    categories: &[],
    keys: &[],
    usage: "",
    summary: "A container for object introspection commands.",
    complexity: "Depends on subcommand.",
    subcommands: &[OBJECT_ENCODING, OBJECT_FREQ, OBJECT_HELP, OBJECT_IDLETIME, OBJECT_REFCOUNT],
    run: |_, _| Err(Error::Syntax),
    ..TYPE
};

/// How the value is kept.
pub const OBJECT_ENCODING: Command = Command {
    name: "ENCODING",
    since: "2.2.3",
    arity: Arity::Exactly(3),
    flags: &[Flag::ReadOnly],
    keys: &[Keys::At { first: 2, access: Access::META }],
    summary: "Returns the internal encoding of a Redis object.",
    tips: &["nondeterministic_output"],
    run: object_encoding,
    ..TYPE
};

/// The logarithmic counter of accesses.
pub const OBJECT_FREQ: Command = Command {
    name: "FREQ",
    since: "4.0.0",
    summary: "Returns the logarithmic access frequency counter of a Redis object.",
    run: object_freq,
    ..OBJECT_ENCODING
};

/// Seconds since the last access.
pub const OBJECT_IDLETIME: Command = Command {
    name: "IDLETIME",
    summary: "Returns the time since the last access to a Redis object.",
    run: object_idletime,
    ..OBJECT_ENCODING
};

/// The number of references to the value.
pub const OBJECT_REFCOUNT: Command = Command {
    name: "REFCOUNT",
    summary: "Returns the reference count of a value of a key.",
    run: object_refcount,
    ..OBJECT_ENCODING
};

/// Says what OBJECT understands.
pub const OBJECT_HELP: Command = Command {
    name: "HELP",
    since: "6.2.0",
    arity: Arity::Exactly(2),
    flags: &[Flag::Loading, Flag::Stale],
    keys: &[],
    usage: "",
    summary: "Returns helpful text about the different subcommands.",
    run: object_help,
    ..TYPE
};

/// What `f` finds in the entry that OBJECT was asked about: that is a hit or a miss, but no access.
fn look_at<R>(
    ctx: &mut Context<'_>,
    args: &Args<'_>,
    f: impl FnOnce(&crate::keyspace::entry::Entry) -> R,
) -> Option<R> {
    let key = args.key(&ctx.db, 2);
    // Looked up without an event for a miss.
    let found = ctx.db.look(&key).map(f);
    match found {
        Some(_) => ctx.db.hits += 1,
        None => ctx.db.misses += 1,
    }
    found
}

fn object_encoding(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    match look_at(ctx, args, |entry| entry.encoding()) {
        Some(encoding) => ctx.out.bulk(encoding.as_bytes()),
        None => ctx.out.null(),
    }
    DONE
}

/// Redis shares integers below this among all keys, and says so in OBJECT REFCOUNT.
const SHARED_INTEGERS: i64 = 10_000;

fn object_refcount(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    // Eviction by access needs a clock for each value, and then nothing is shared.
    let sharing = ctx.engine.memory_limit(ctx.config) == 0 || !needs_clocks(ctx.config);
    let shared = look_at(ctx, args, |entry| {
        sharing && matches!(entry.value(), Value::Int(n) if (0..SHARED_INTEGERS).contains(&n))
    });
    match shared {
        Some(shared) => ctx.out.integer(if shared { i64::from(i32::MAX) } else { 1 }),
        None => ctx.out.null(),
    }
    DONE
}

fn object_idletime(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let moment = *ctx.db.moment();
    match look_at(ctx, args, |entry| moment.idle_seconds(entry.clock())) {
        None => ctx.out.null(),
        Some(_) if matches!(moment.policy, AccessPolicy::Lfu { .. }) => {
            return Err(Error::text(
                "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
            ));
        }
        Some(seconds) => ctx.out.integer(i64::try_from(seconds).unwrap_or(i64::MAX)),
    }
    DONE
}

fn object_freq(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let moment = *ctx.db.moment();
    match look_at(ctx, args, |entry| moment.frequency(entry.clock())) {
        None => ctx.out.null(),
        Some(_) if !matches!(moment.policy, AccessPolicy::Lfu { .. }) => {
            return Err(Error::text(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
            ));
        }
        Some(frequency) => ctx.out.integer(frequency.into()),
    }
    DONE
}

const OBJECT_HELP_TEXT: &[&str] = &[
    "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "ENCODING <key>",
    "    Return the kind of internal representation used in order to store the value",
    "    associated with a <key>.",
    "FREQ <key>",
    "    Return the access frequency index of the <key>. The returned integer is",
    "    proportional to the logarithm of the recent access frequency of the key.",
    "IDLETIME <key>",
    "    Return the idle time of the <key>, that is the approximated number of",
    "    seconds elapsed since the last access to the key.",
    "REFCOUNT <key>",
    "    Return the number of references of the value associated with the specified",
    "    <key>.",
    "HELP",
    "    Print this help.",
];

fn object_help(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    ctx.out.array(OBJECT_HELP_TEXT.len());
    OBJECT_HELP_TEXT.iter().for_each(|line| ctx.out.simple(line));
    DONE
}

#[cfg(test)]
mod tests {
    use crate::command::testing::Bench;

    #[test]
    fn deleting_counts_each_key_once_and_existing_each_time_it_is_named() {
        let mut bench = Bench::new();
        bench.run("MSET a 1 b 2 c 3");
        assert_eq!(bench.run("EXISTS a b none a"), ":3|");
        assert_eq!(bench.run("DEL a a none"), ":1|");
        assert_eq!(bench.run("UNLINK b c"), ":2|");
        assert_eq!(bench.run("EXISTS a b c"), ":0|");
    }

    #[test]
    fn a_renamed_value_keeps_its_deadline_and_loses_the_old_ones() {
        let mut bench = Bench::new();
        bench.run("SET a 1 EX 100");
        bench.run("SET b 2 EX 500");
        assert_eq!(bench.run("RENAME a b"), "+OK|");
        assert_eq!((bench.run("GET b"), bench.run("TTL b")), ("$1|1|".into(), ":100|".into()));
        assert_eq!(bench.run("EXISTS a"), ":0|");
        assert_eq!(bench.run("RENAME a b"), "-ERR no such key|");
        assert_eq!(bench.run("RENAME b b"), "+OK|");
        assert_eq!(bench.run("RENAMENX b b"), ":0|");
        bench.run("SET c 3");
        assert_eq!(bench.run("RENAMENX c b"), ":0|");
        assert_eq!(bench.run("RENAMENX c d"), ":1|");
        assert_eq!(bench.run("GET d"), "$1|3|");
    }

    #[test]
    fn a_key_is_copied_and_moved_between_databases() {
        let mut bench = Bench::new();
        bench.run("SET a 1 EX 100");
        assert_eq!(bench.run("COPY a a"), "-ERR source and destination objects are the same|");
        assert_eq!(bench.run("COPY a a DB 1"), ":1|");
        assert_eq!(bench.run("COPY a a DB 1"), ":0|");
        assert_eq!(bench.run("COPY a a REPLACE DB 1"), ":1|");
        assert_eq!(bench.run("COPY a b DB 16"), "-ERR DB index is out of range|");
        assert_eq!(bench.run("COPY a b DB"), "-ERR syntax error|");
        assert_eq!(bench.run("COPY none b"), ":0|");
        assert_eq!(bench.run("MOVE a 1"), ":0|");
        assert_eq!(bench.run("MOVE a 2"), ":1|");
        assert_eq!(bench.run("MOVE a 0"), "-ERR source and destination objects are the same|");
        assert_eq!(bench.run("EXISTS a"), ":0|");
        for db in ["1", "2"] {
            bench.run(&format!("SELECT {db}"));
            assert_eq!((bench.run("GET a"), bench.run("TTL a")), ("$1|1|".into(), ":100|".into()));
        }
    }

    #[test]
    fn looking_at_a_key_is_no_access_but_touching_it_is() {
        let mut bench = Bench::new();
        bench.run("SET a 1");
        bench.clock.advance(10_000);
        for request in ["TYPE a", "EXISTS a", "TTL a", "OBJECT ENCODING a"] {
            bench.run(request);
        }
        assert_eq!(bench.run("OBJECT IDLETIME a"), ":10|");
        bench.session.no_touch = true;
        bench.run("GET a");
        assert_eq!(bench.run("OBJECT IDLETIME a"), ":10|");
        assert_eq!(bench.run("TOUCH a a none"), ":2|");
        assert_eq!(bench.run("OBJECT IDLETIME a"), ":0|");
    }

    #[test]
    fn object_answers_by_policy() {
        let mut bench = Bench::with("maxmemory-policy allkeys-lfu\nmaxmemory 1gb");
        bench.run("SET a 1");
        assert_eq!(bench.run("OBJECT FREQ a"), ":5|");
        assert_eq!(bench.run("OBJECT FREQ none"), "$-1|");
        assert!(bench.run("OBJECT IDLETIME a").starts_with("-ERR An LFU maxmemory policy is selected"));
        assert_eq!(bench.run("OBJECT REFCOUNT a"), ":1|");
        let mut bench = Bench::new();
        bench.run("MSET a 9999 b 10000 c x");
        assert!(bench.run("OBJECT FREQ a").starts_with("-ERR An LFU maxmemory policy is not selected"));
        assert_eq!(bench.run("OBJECT REFCOUNT a"), ":2147483647|");
        assert_eq!(bench.run("OBJECT REFCOUNT b"), ":1|");
        assert_eq!(bench.run("OBJECT ENCODING b"), "$3|int|");
        assert_eq!(bench.run("OBJECT ENCODING c"), "$6|embstr|");
        assert_eq!(bench.run("OBJECT NONSENSE"), "-ERR unknown subcommand 'NONSENSE'. Try OBJECT HELP.|");
    }
}

//! DEBUG: switches, crashes and inside views, for tests and for those who look for a mistake.
//!
//! All of it runs alone, with every shard held: a digest is of one moment, and SLEEP stops everybody,
//! as it does in Redis. Nothing here is fast, and `enable-debug-command` decides who may use it at all.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sha1::{Digest, Sha1};

use crate::cluster::machine::Machine;
use crate::cluster::message;
use crate::command::args::{Args, word};
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::eviction::needs_clocks;
use crate::command::save::{self, Reload};
use crate::command::table::Command;
use crate::command::{aof, config, help};
use crate::config::memory::parse_bytes;
use crate::config::table::Config;
use crate::keyspace::change::Due;
use crate::keyspace::entry::{Entry, Str, Value};
use crate::keyspace::shard::{SHARDS, SLOTS_PER_SHARD};
use crate::observe::allocator;
use crate::observe::log::{notice, warning};
use crate::persist::rdb::payload;
use crate::persist::rdb::value;
use crate::persist::rdb::writer::{Compression, Writer};
use crate::replication::history::History;
use crate::resp::reply::Protocol;
use crate::spec::{Arity, Flag, Group};
use crate::stdx::number::double::append_double_digits;
use crate::stdx::number::{parse_f64, parse_i64};
use crate::types::list::{List, Part};
use crate::types::stream::id::Id;
use crate::types::zset::Direction;
use crate::types::{Kind, ObjectRef};

/// This family's commands.
pub const COMMANDS: &[Command] = &[DEBUG];

/// The container; its subcommands are not commands of their own, as in Redis.
pub const DEBUG: Command = Command {
    name: "DEBUG",
    since: "1.0.0",
    group: Group::Server,
    arity: Arity::AtLeast(2),
    flags: &[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale, Flag::Alone, Flag::System],
    categories: &[],
    keys: &[],
    usage: "",
    summary: "A container for debugging commands.",
    complexity: "Depends on subcommand.",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: debug,
};

/// A subcommand: its name, how many words it takes in all (DEBUG included), what runs it.
type Sub = (&'static str, std::ops::RangeInclusive<usize>, fn(&mut Context<'_>, &Args<'_>) -> Reply);

const ANY: usize = usize::MAX;

const SUBCOMMANDS: &[Sub] = &[
    ("AOF-FLUSH-SLEEP", 3..=3, |ctx, args| {
        let us = u64::try_from(leading_number(args.at(2))).unwrap_or(0);
        ctx.engine.aof.appender.delay_us.store(us, Ordering::Relaxed);
        ok(ctx)
    }),
    ("ASSERT", 2..=2, |_, _| crash_by_assertion()),
    ("CHANGE-REPL-ID", 2..=2, |ctx, _| {
        warning!("Changing the replication ID as DEBUG CHANGE-REPL-ID asks");
        ctx.engine.replication.state().history = History::begin();
        ok(ctx)
    }),
    ("CLOSE-CLUSTER-LINK-ON-PACKET-DROP", 3..=3, |ctx, args| {
        let on = leading_number(args.at(2)) != 0;
        with_cluster(ctx, |machine| {
            machine.close_on_ignored(on);
            Ok(())
        })
    }),
    ("CLUSTERLINK", 5..=5, |ctx, args| {
        if !args.is(2, "KILL") {
            return Err(help::wrong_form("DEBUG", args.at(1)));
        }
        let (to, from) = match word(args.at(3), &["TO", "FROM", "ALL"]) {
            Some("TO") => (true, false),
            Some("FROM") => (false, true),
            Some(_) => (true, true),
            None => return Err(Error::text(one_line(&[b"ERR Unknown direction ", args.at(3)].concat()))),
        };
        with_cluster(ctx, |machine| machine.kill_links(args.at(4), to, from))
    }),
    ("CONFIG-REWRITE-FORCE-ALL", 2..=2, |ctx, _| {
        config::rewrite(ctx, true)?;
        ok(ctx)
    }),
    ("DELAY-RDB-CLIENT-FREE-SECONDS", 3..=3, |ctx, args| {
        let seconds = u64::try_from(leading_number(args.at(2))).unwrap_or(0);
        ctx.engine.replication.late_ms.0.store(seconds.saturating_mul(1000), Ordering::Relaxed);
        ok(ctx)
    }),
    ("DICT-RESIZING", 3..=3, |ctx, _| ok(ctx)),
    ("DIGEST", 2..=2, digest),
    ("DIGEST-VALUE", 2..=ANY, digest_value),
    ("DROP-CLUSTER-PACKET-FILTER", 3..=3, |ctx, args| {
        if ctx.engine.cluster.is_none() {
            // There are no packets.
            return ok(ctx);
        }
        // Any number that no message has, such as -1, ends it.
        let kind =
            usize::try_from(leading_number(args.at(2))).ok().and_then(|number| message::Kind::ALL.get(number).copied());
        with_cluster(ctx, |machine| {
            machine.ignore(kind);
            Ok(())
        })
    }),
    ("ERROR", 3..=3, |_, args| Err(Error::text(one_line(args.at(2))))),
    ("HELP", 2..=2, help_text),
    ("HTSTATS", 3..=3, htstats),
    ("HTSTATS-KEY", 3..=4, htstats_key),
    ("LISTPACK", 3..=3, |ctx, args| tell_structure(ctx, args, &["listpack", "listpackex"], "Listpack")),
    ("LOADAOF", 2..=2, |ctx, _| {
        aof::load::reload(ctx.engine, &mut ctx.db.hold).map_err(Error::text)?;
        ok(ctx)
    }),
    ("LOG", 3..=3, |ctx, args| {
        warning!("DEBUG LOG: {}", String::from_utf8_lossy(args.at(2)));
        ok(ctx)
    }),
    ("MALLCTL", 3..=4, mallctl),
    ("MALLCTL-STR", 3..=3, mallctl_str),
    ("OBJECT", 3..=3, object),
    ("PANIC", 2..=2, |_, _| panic!("called by a client with DEBUG PANIC")),
    ("PAUSE-AFTER-FORK", 3..=3, |ctx, args| throw(ctx, &ctx.engine.debug.stops, leading_number(args.at(2)) != 0)),
    ("PAUSE-CRON", 3..=3, |ctx, args| throw(ctx, &ctx.engine.debug.cron, leading_number(args.at(2)) == 0)),
    ("POPULATE", 3..=5, populate),
    ("PROTOCOL", 3..=3, protocol),
    ("QUICKLIST", 3..=4, |ctx, args| tell_structure(ctx, args, &["quicklist"], "Quicklist")),
    ("QUICKLIST-PACKED-THRESHOLD", 3..=3, packed_threshold),
    ("RELOAD", 2..=ANY, reload),
    ("REPLICATE", 3..=ANY, |ctx, args| {
        ctx.engine.log.pass(&args.from(2).map(<[u8]>::to_vec).collect::<Vec<_>>());
        ctx.engine.replication.wake_replicas();
        ok(ctx)
    }),
    ("REPLYBUFFER", 4..=4, reply_buffer),
    ("SEGFAULT", 2..=2, |ctx, _| {
        ctx.engine.host.crash();
        ok(ctx)
    }),
    ("SET-ACTIVE-EXPIRE", 3..=3, |ctx, args| {
        throw(ctx, &ctx.engine.debug.active_expire, leading_number(args.at(2)) != 0)
    }),
    ("SET-DISABLE-DENY-SCRIPTS", 3..=3, |ctx, args| {
        throw(ctx, &ctx.engine.debug.scripts_may_all, leading_number(args.at(2)) != 0)
    }),
    ("SET-SKIP-CHECKSUM-VALIDATION", 3..=3, |ctx, args| {
        throw(ctx, &ctx.engine.debug.ignore_checksums, leading_number(args.at(2)) != 0)
    }),
    ("SLOTMIGRATION", 4..=4, |ctx, args| {
        let debug = &ctx.engine.debug;
        let switch = match args.at(2) {
            word if word.eq_ignore_ascii_case(b"PREVENT-PAUSE") => &debug.keep_slots,
            word if word.eq_ignore_ascii_case(b"PREVENT-FAILOVER") => &debug.leave_slots,
            _ => return Err(Error::Syntax),
        };
        throw(ctx, switch, leading_number(args.at(3)) != 0)
    }),
    ("SLEEP", 3..=3, |ctx, args| {
        let seconds = parse_f64(args.at(2)).filter(|s| *s > 0.0).unwrap_or(0.0);
        std::thread::sleep(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
        ok(ctx)
    }),
];

const NOT_ALLOWED: &str = "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", \
    you can run it from a local connection, otherwise you need to set this option in the configuration file, \
    and then restart the server.";

fn debug(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    if !ctx.config.enable_debug_command.allows(ctx.session.shared.is_local()) {
        return Err(Error::text(NOT_ALLOWED));
    }
    let sub = SUBCOMMANDS.iter().find(|(name, words, _)| args.is(1, name) && words.contains(&args.len()));
    let (_, _, run) = sub.ok_or_else(|| help::wrong_form("DEBUG", args.at(1)))?;
    run(ctx, args)
}

fn with_cluster(ctx: &mut Context<'_>, f: impl FnOnce(&mut Machine) -> Result<(), String>) -> Reply {
    let Some(cluster) = &ctx.engine.cluster else {
        return Err(Error::text("ERR Debug option only available for cluster mode enabled setup!"));
    };
    let done = cluster.with(ctx.engine.clock.now_ms(), f);
    done.map_err(|text| Error::text(one_line(format!("ERR {text}").as_bytes())))?;
    ok(ctx)
}

fn ok(ctx: &mut Context<'_>) -> Reply {
    ctx.out.ok();
    DONE
}

fn throw(ctx: &mut Context<'_>, switch: &AtomicBool, on: bool) -> Reply {
    switch.store(on, Ordering::Relaxed);
    ok(ctx)
}

/// The number that a text begins with; 0 where it begins with none.
fn leading_number(text: &[u8]) -> i64 {
    let end = text.iter().skip(1).position(|b| !b.is_ascii_digit()).map_or(text.len(), |at| at + 1);
    parse_i64(&text[..end]).unwrap_or(0)
}

fn one_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).replace(['\r', '\n'], " ")
}

fn crash_by_assertion() -> Reply {
    let asked_for = true;
    assert!(!asked_for, "called by a client with DEBUG ASSERT");
    DONE
}

fn packed_threshold(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    // How long an element may be before it has a node to itself is no setting of ours.
    if parse_bytes(args.at(2)).is_none_or(|bytes| bytes > 4 << 30) {
        return Err(Error::text("ERR argument must be a memory value bigger than 1 and smaller than 4gb"));
    }
    ok(ctx)
}

fn reload(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let mut reload = Reload { save: true, flush: true, merge: false };
    for arg in args.from(2) {
        match word(arg, &["MERGE", "NOFLUSH", "NOSAVE"]) {
            Some("MERGE") => reload.merge = true,
            Some("NOFLUSH") => reload.flush = false,
            Some(_) => reload.save = false,
            None => {
                return Err(Error::text("ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options."));
            }
        }
    }
    save::reload(ctx.engine, &mut ctx.db.hold, reload).map_err(Error::text)?;
    ok(ctx)
}

fn reply_buffer(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    // Output buffers are given back when they are empty: there is neither a peak nor a timer to set.
    match word(args.at(2), &["PEAK-RESET-TIME", "RESIZING"]) {
        Some("PEAK-RESET-TIME") if !args.is(3, "NEVER") && !args.is(3, "RESET") => drop(args.integer(3)?),
        Some(_) => {}
        None => return Err(help::wrong_form("DEBUG", args.at(1))),
    }
    ok(ctx)
}

fn mallctl(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let new = if args.len() == 4 { Some(args.integer(3)?) } else { None };
    let was = allocator::number(args.at(2), new).map_err(|words| Error::text(format!("ERR {words}")))?;
    ctx.out.integer(was);
    DONE
}

fn mallctl_str(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let text = allocator::text(args.at(2)).map_err(|words| Error::text(format!("ERR {words}")))?;
    ctx.out.bulk(&text);
    DONE
}

/// Adds keys `prefix:N`, leaving alone those that exist. They are not passed on to the log.
fn populate(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let positive = |i: usize| u64::try_from(args.integer(i).unwrap_or(-1)).map_err(|_| Error::NotPositive);
    let count = positive(2)?;
    let prefix = args.opt(3).unwrap_or(b"key");
    let size = if args.len() == 5 { positive(4)? } else { 0 };
    if size > ctx.config.proto_max_bulk_len {
        return Err(Error::StringTooLong);
    }
    let clock = ctx.db.moment().initial_clock();
    for n in 0..count {
        let name = [prefix, format!(":{n}").as_bytes()].concat();
        let key = ctx.db.key(&name);
        if ctx.db.exists(&key) {
            continue;
        }
        let mut value = format!("value:{n}").into_bytes();
        if size > 0 {
            value.resize(size as usize, 0);
        }
        let entry = Entry::new(key.hash.bits(), &name, Str::Bytes(&value), None, clock);
        ctx.db.insert(&key, entry);
    }
    ok(ctx)
}

fn protocol(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    const TYPES: &[&str] = &[
        "STRING", "INTEGER", "DOUBLE", "BIGNUM", "NULL", "ARRAY", "SET", "MAP", "ATTRIB", "PUSH", "VERBATIM", "TRUE",
        "FALSE",
    ];
    let out = &mut *ctx.out;
    match word(args.at(2), TYPES) {
        Some("STRING") => out.bulk(b"Hello World"),
        Some("INTEGER") => out.integer(12345),
        Some("DOUBLE") => out.double(3141.0 / 1000.0),
        Some("BIGNUM") => out.bignum("1234567999999999999999999999999999999"),
        Some("NULL") => out.null(),
        Some("ARRAY") => {
            out.array(3);
            (0..3).for_each(|n| out.integer(n));
        }
        Some("SET") => {
            out.set(3);
            (0..3).for_each(|n| out.integer(n));
        }
        Some("MAP") => {
            out.map(3);
            for n in 0..3 {
                out.integer(n);
                out.boolean(n == 1);
            }
        }
        Some("ATTRIB") => {
            if out.protocol() == Protocol::Resp3 {
                out.attribute(1);
                out.bulk(b"key-popularity");
                out.array(2);
                out.bulk(b"key:123");
                out.integer(90);
            }
            out.bulk(b"Some real reply following the attribute");
        }
        Some("PUSH") => {
            if out.protocol() != Protocol::Resp3 {
                return Err(Error::text("ERR RESP2 is not supported by this command"));
            }
            out.push(2);
            out.bulk(b"server-cpu-usage");
            out.integer(42);
            out.bulk(b"Some real reply following the push reply");
        }
        Some("VERBATIM") => out.verbatim("txt", b"This is a verbatim\nstring"),
        Some("TRUE") => out.boolean(true),
        Some("FALSE") => out.boolean(false),
        _ => {
            return Err(Error::text(
                "ERR Wrong protocol type name. Please use one of the following: \
                 string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    DONE
}

/// Integers below this are one shared object each in Redis, and OBJECT REFCOUNT says so.
const SHARED_INTEGERS: i64 = 10_000;

fn object(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    // What is there is shown, whether its time has passed or not.
    let due = std::mem::replace(&mut ctx.db.effects.due, Due::Keep);
    let text = described(ctx, args);
    ctx.db.effects.due = due;
    ctx.out.simple(&text?);
    DONE
}

/// Logs how a value of this encoding is written to files, whose parts are those of the encoding.
fn tell_structure(ctx: &mut Context<'_>, args: &Args<'_>, encodings: &[&str], name: &str) -> Reply {
    let key = args.key(&ctx.db, 2);
    let entry = ctx.db.look(&key).ok_or(Error::NoSuchKey)?;
    if !encodings.contains(&entry.encoding()) {
        return Err(Error::text(format!("ERR Not a {} encoded object.", encodings[0])));
    }
    let payload = payload::write(entry.value(), Compression::None);
    notice!("{name} structure of '{}': {}", args.at(2).escape_ascii(), payload.escape_ascii());
    ctx.out.simple(&format!("{name} structure printed on stdout"));
    DONE
}

fn described(ctx: &mut Context<'_>, args: &Args<'_>) -> Result<String, Error> {
    let key = args.key(&ctx.db, 2);
    let moment = *ctx.db.moment();
    let entry = ctx.db.look(&key).ok_or(Error::NoSuchKey)?;
    let clocked = ctx.engine.memory_limit(ctx.config) > 0 && needs_clocks(ctx.config);
    let shared = matches!(entry.value(), Value::Int(n) if (0..SHARED_INTEGERS).contains(&n)) && !clocked;
    let text = format!(
        "Value at:{:#x} refcount:{} encoding:{} serializedlength:{} lru:{} lru_seconds_idle:{}",
        entry.id(),
        if shared { i32::MAX } else { 1 },
        entry.encoding(),
        serialized_bytes(entry.value(), ctx.config.rdbcompression.into()),
        entry.clock(),
        moment.idle_seconds(entry.clock()),
    );
    Ok(match entry.value() {
        Value::Object(ObjectRef::List(list)) if list.encoding() == "quicklist" => text + &chain(list, ctx.config),
        _ => text,
    })
}

/// What is told of a list of several nodes.
fn chain(list: &List, config: &Config) -> String {
    let bytes: usize = list
        .parts()
        .map(|part| match part {
            Part::Packed(pack) => pack.byte_len(),
            Part::Large(bytes) => bytes.len(),
            Part::Squeezed(squeezed) => squeezed.open_bytes(),
        })
        .sum();
    format!(
        " ql_nodes:{} ql_avg_node:{:.2} ql_listpack_max:{} ql_compressed:{} ql_uncompressed_size:{bytes}",
        list.nodes(),
        list.len() as f64 / list.nodes() as f64,
        config.list_max_listpack_size,
        u8::from(list.depth() > 0),
    )
}

/// What a value takes in a snapshot.
fn serialized_bytes(value: Value<'_>, compression: Compression) -> usize {
    let mut writer = Writer::new(compression);
    value::write(&mut writer, value);
    writer.bytes.len()
}

/// A digest of data in which the order of additions counts for `mix` and does not for `add`: SHA-1 sums,
/// combined by exclusive or.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Fingerprint([u8; 20]);

impl Fingerprint {
    fn add(&mut self, bytes: &[u8]) {
        for (mine, other) in self.0.iter_mut().zip(Sha1::digest(bytes)) {
            *mine ^= other;
        }
    }

    fn mix(&mut self, bytes: &[u8]) {
        self.add(bytes);
        self.0 = Sha1::digest(self.0).into();
    }

    /// Adds a value with its deadline, if it has one; what the deadline is does not count.
    fn add_value(&mut self, entry: &Entry) {
        // Redis counts modules before streams.
        let kind = match entry.kind() {
            Kind::Stream => 6,
            kind => u32::from(kind as u8),
        };
        self.mix(&kind.to_be_bytes());
        match entry.value() {
            Value::Int(n) => self.mix(n.to_string().as_bytes()),
            Value::Bytes(bytes) => self.mix(bytes),
            Value::Large(large) => self.mix(large.bytes()),
            Value::Object(object) => self.add_object(object),
        }
        if entry.deadline().is_some() {
            self.add(b"!!expire!!");
        }
    }

    /// Adds a collection: the order of elements counts where they have one.
    fn add_object(&mut self, object: ObjectRef<'_>) {
        match object {
            ObjectRef::List(list) => list.each(0, usize::MAX, |item| self.mix(&item.to_vec())),
            ObjectRef::Set(set) => set.iter().for_each(|item| self.add(item.text(&mut itoa::Buffer::new()))),
            ObjectRef::SortedSet(zset) => {
                for (member, score) in zset.iter(0, Direction::Up) {
                    let (mut one, mut text) = (Fingerprint::default(), Vec::new());
                    append_double_digits(&mut text, score);
                    one.mix(&member.to_vec());
                    one.mix(&text);
                    self.add(&one.0);
                }
            }
            ObjectRef::Hash(hash) => hash.for_each(|name, found| {
                let mut field = Fingerprint::default();
                name.with(|name| field.mix(name));
                found.value.with(|value| field.mix(value));
                if found.deadline.is_some() {
                    field.add(b"!!hexpire!!");
                }
                self.add(&field.0);
            }),
            ObjectRef::Stream(stream) => {
                for entry in stream.log.entries(Id::MIN, Id::MAX) {
                    self.mix(format!("{}.{}", entry.id.ms, entry.id.seq).as_bytes());
                    entry.elements().for_each(|element| self.mix(&element.to_vec()));
                }
            }
        }
    }

    fn text(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn digest(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    let mut all = Fingerprint::default();
    let now_ms = ctx.db.now_ms();
    let keyspace = ctx.db.keyspace();
    for (db, _) in keyspace.counts(&mut ctx.db.hold, now_ms) {
        all.mix(&u32::try_from(db).unwrap_or(u32::MAX).to_be_bytes());
        for slot in 0..SHARDS * SLOTS_PER_SHARD {
            keyspace.walk_slots(&mut ctx.db.hold, db, slot, |entry| {
                let mut one = Fingerprint::default();
                one.mix(entry.key());
                one.add_value(entry);
                all.add(&one.0);
            });
        }
    }
    ctx.out.simple(&all.text());
    DONE
}

fn digest_value(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    ctx.out.array(args.len() - 2);
    for i in 2..args.len() {
        let key = args.key(&ctx.db, i);
        let mut one = Fingerprint::default();
        if let Some(entry) = ctx.db.look(&key) {
            one.add_value(entry);
        }
        ctx.out.simple(&one.text());
    }
    DONE
}

/// A table in the words for a chained one: no bucket of ours holds more than one entry.
fn describe_table(text: &mut String, buckets: u64, entries: u64) {
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(text, "Hash table 0 stats (main hash table):");
    if entries == 0 {
        let _ = writeln!(text, "No stats available for empty dictionaries");
        return;
    }
    let (buckets, free) = (buckets.max(entries), buckets.saturating_sub(entries));
    let percent = |n: u64| n as f64 * 100.0 / buckets as f64;
    let _ = write!(
        text,
        " table size: {buckets}\n number of elements: {entries}\n different slots: {entries}\n \
         max chain length: 1\n avg chain length (counted): 1.00\n avg chain length (computed): 1.00\n \
         Chain length distribution:\n   0: {free} ({:.2}%)\n   1: {entries} ({:.2}%)\n",
        percent(free),
        percent(entries),
    );
}

/// What a bucket takes: a pointer, and a byte that tells what is in it.
const BUCKET_BYTES: u64 = size_of::<Entry>() as u64 + 1;

fn htstats(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let db = args.integer(2)?;
    let db = usize::try_from(db).ok().filter(|db| *db < ctx.config.databases as usize);
    let db = db.ok_or(Error::text("ERR Out of range database"))?;
    let (mut table_bytes, mut entries, mut volatile) = (0, 0, 0);
    for shard in 0..SHARDS {
        ctx.db.hold.visit(shard, |shard| {
            if let Some(part) = shard.part(db) {
                let tables = (0..SLOTS_PER_SHARD).map(|slot| part.slot(slot).allocated_bytes());
                table_bytes += tables.sum::<usize>() as u64;
                entries += part.len() as u64;
                volatile += part.volatile().len() as u64;
            }
        });
    }
    let mut text = String::from("[Dictionary HT]\n");
    describe_table(&mut text, table_bytes / BUCKET_BYTES, entries);
    text.push_str("[Expires HT]\n");
    // The index of deadlines is no table: it has a place for each key and none besides.
    describe_table(&mut text, volatile, volatile);
    ctx.out.verbatim("txt", text.as_bytes());
    DONE
}

fn htstats_key(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    if args.len() == 4 && !args.is(3, "full") {
        return Err(help::wrong_form("DEBUG", args.at(1)));
    }
    let key = args.key(&ctx.db, 2);
    ctx.db.look(&key).ok_or(Error::NoSuchKey)?;
    // No value is a table yet.
    Err(Error::text("ERR The value stored at the specified key is not represented using an hash table"))
}

fn help_text(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    help::write(
        ctx.out,
        "DEBUG",
        &[
            ("AOF-FLUSH-SLEEP <microseconds>", &["Wait before each write of the append only file."]),
            ("ASSERT", &["Crash by a failed assertion."]),
            ("CHANGE-REPL-ID", &["Begin another history of writes: no replica can go on where it stopped."]),
            (
                "CLOSE-CLUSTER-LINK-ON-PACKET-DROP <0|1>",
                &["Close the connection that brings a message which is dropped."],
            ),
            ("CLUSTERLINK KILL <to|from|all> <node-id>", &["Close the connections between this node and another."]),
            ("CONFIG-REWRITE-FORCE-ALL", &["CONFIG REWRITE that writes every directive."]),
            (
                "DELAY-RDB-CLIENT-FREE-SECONDS <seconds>",
                &["Hold the stream for so long for a replica that was sent its data set by another connection."],
            ),
            ("DICT-RESIZING <0|1>", &["Accepted without effect: tables grow in small steps."]),
            ("DIGEST", &["Tell a digest of all data."]),
            ("DIGEST-VALUE <key> [<key> ...]", &["Tell a digest of the value of each key."]),
            ("DROP-CLUSTER-PACKET-FILTER <type>", &["Drop messages of other nodes of this type; -1 ends that."]),
            ("ERROR <string>", &["Reply with an error of this text."]),
            ("HTSTATS <dbid>", &["Tell about the tables of a database."]),
            ("HTSTATS-KEY <key> [full]", &["The same for the table in a value."]),
            ("LISTPACK <key>", &["Log what a listpack holds, as it is written to files."]),
            ("LOADAOF", &["Write the append only file out, forget the data set, and read it again from there."]),
            ("LOG <message>", &["Write a message to the log."]),
            ("MALLCTL <key> [<val>]", &["Read or set a number of the allocator."]),
            ("MALLCTL-STR <key>", &["Read a text of the allocator."]),
            ("OBJECT <key>", &["Tell how a value is stored."]),
            ("PANIC", &["Crash by a panic."]),
            (
                "PAUSE-AFTER-FORK <0|1>",
                &[
                    "Stop the process once a data set has gone to replicas, or before the stream beside one is asked for.",
                ],
            ),
            ("PAUSE-CRON <0|1>", &["Stop periodic work."]),
            ("POPULATE <count> [<prefix>] [<size>]", &["Add <count> strings named key:<num>."]),
            ("PROTOCOL <type>", &["Reply with a value of this type."]),
            ("QUICKLIST <key> [<0|1>]", &["The same of a quicklist."]),
            ("QUICKLIST-PACKED-THRESHOLD <size>", &["Accepted without effect."]),
            (
                "RELOAD [MERGE] [NOFLUSH] [NOSAVE]",
                &["Save the data set to its file, forget it, and read it again, but for what is told not to be done."],
            ),
            (
                "REPLICATE <command> [<arg> ...]",
                &["Send a command to replicas that is not run here: their data may differ then."],
            ),
            ("REPLYBUFFER <PEAK-RESET-TIME|RESIZING> <value>", &["Accepted without effect."]),
            ("SEGFAULT", &["Crash by a signal."]),
            ("SET-ACTIVE-EXPIRE <0|1>", &["Stop removing keys that nobody accesses when they expire."]),
            ("SET-DISABLE-DENY-SCRIPTS <0|1>", &["Let scripts call what is denied to them."]),
            ("SET-SKIP-CHECKSUM-VALIDATION <0|1>", &["Restore payloads whose checksum is wrong."]),
            (
                "SLOTMIGRATION PREVENT-PAUSE|PREVENT-FAILOVER <0|1>",
                &["Do not hand over slots that move; do not take over those that are handed over."],
            ),
            ("SLEEP <seconds>", &["Stop the server for so long. Decimals allowed."]),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Bench;

    fn bench() -> Bench {
        Bench::with("enable-debug-command yes\n")
    }

    #[test]
    fn who_may_use_it_is_configured() {
        assert_eq!(Bench::new().run("DEBUG SLEEP 0"), format!("-{NOT_ALLOWED}|"));
        // The bench's client has an address elsewhere.
        assert_eq!(Bench::with("enable-debug-command local\n").run("DEBUG SLEEP 0"), format!("-{NOT_ALLOWED}|"));
        assert_eq!(bench().run("DEBUG SLEEP 0"), "+OK|");
    }

    #[test]
    fn hashes_in_one_piece_are_told_with_deadlines_of_fields_or_without() {
        let mut bench = bench();
        bench.run("HSET h f 1");
        assert_eq!(bench.run("DEBUG LISTPACK h"), "+Listpack structure printed on stdout|");
        bench.run("HEXPIRE h 60 FIELDS 1 f");
        assert_eq!(bench.run("DEBUG LISTPACK h"), "+Listpack structure printed on stdout|");
        bench.run("SADD s 1");
        assert_eq!(bench.run("DEBUG LISTPACK s"), "-ERR Not a listpack encoded object.|");
    }

    #[test]
    fn digests_are_those_of_redis() {
        // Each was asked of a running Redis.
        let mut bench = bench();
        let zeros = "0".repeat(40);
        assert_eq!(bench.run("DEBUG DIGEST"), format!("+{zeros}|"));
        bench.run("SET a 1");
        assert_eq!(bench.run("DEBUG DIGEST"), "+943d800368fb9c0e951138f1bc0e313ac769d91f|");
        assert_eq!(bench.run("DEBUG DIGEST-VALUE a"), "*1|+b4fc66738120fba0b5aa500ab5c2bf89cea1c5da|");
        bench.run("SET a 1 PXAT 4102444800000");
        assert_eq!(bench.run("DEBUG DIGEST"), "+0c68bbcf4ad5c984f8ca839729889d52ec025271|");
        let reply = bench.run("DEBUG DIGEST-VALUE a b");
        assert_eq!(reply, format!("*2|+5279988c5d1911f474bcbbf2f0a87012d40f8459|+{zeros}|"));
        bench.run("SET b hello");
        assert_eq!(bench.run("DEBUG DIGEST"), "+bd6c42b827c67d2717e11feac6ed92c703682f4f|");
        bench.session.db = 3;
        bench.run("SET c 3");
        assert_eq!(bench.run("DEBUG DIGEST"), "+1de4619fbb3cf94f79cd030aeef630a1c7ef4afb|");
    }

    #[test]
    fn the_digest_of_a_collection_is_that_of_its_elements() {
        // Each was asked of a running Redis.
        let mut bench = bench();
        for request in ["RPUSH l a 12 b", "SADD s a 12 b", "SADD i 3 -5 70000"] {
            bench.run(request);
        }
        let list = "a321242d509160fd2e1651d5d59af1b8d48e6580";
        let set = "a6cb320b073705356139f26fb4e18858a07e0492";
        let integers = "45777d6456504124bc7971cc7ee49e2daea62d31";
        assert_eq!(bench.run("DEBUG DIGEST-VALUE l s i"), format!("*3|+{list}|+{set}|+{integers}|"));
        assert_eq!(bench.run("DEBUG DIGEST"), "+34739f3e9679a8f9d63e66e060abc220e88251f8|");
    }

    #[test]
    fn populate_adds_what_is_missing_and_nothing_else() {
        let mut bench = bench();
        bench.run("SET key:1 mine");
        assert_eq!(bench.run("DEBUG POPULATE 3"), "+OK|");
        assert_eq!(bench.run("MGET key:0 key:1 key:2 key:3"), "*4|$7|value:0|$4|mine|$7|value:2|$-1|");
        bench.run("DEBUG POPULATE 2 sized 10");
        assert_eq!(bench.run("GET sized:1"), "$10|value:1\0\0\0|");
        bench.run("DEBUG POPULATE 2 short 3");
        assert_eq!(bench.run("GET short:1"), "$3|val|");
        for bad in ["abc", "-1", "2 sized abc", "2 sized -1"] {
            let reply = bench.run(&format!("DEBUG POPULATE {bad}"));
            assert_eq!(reply, "-ERR value is out of range, must be positive|");
        }
    }

    #[test]
    fn an_object_is_described_as_redis_does() {
        let mut bench = bench();
        for (value, told) in [
            ("127", "refcount:2147483647 encoding:int serializedlength:2"),
            ("9999", "refcount:2147483647 encoding:int serializedlength:3"),
            ("32768", "refcount:1 encoding:int serializedlength:5"),
            ("99999999999", "refcount:1 encoding:int serializedlength:12"),
            ("hello", "refcount:1 encoding:embstr serializedlength:6"),
        ] {
            bench.run(&format!("SET a {value}"));
            let reply = bench.run("DEBUG OBJECT a");
            assert!(reply.starts_with("+Value at:0x") && reply.contains(&format!(" {told} lru:")), "{reply}");
            assert!(reply.ends_with(" lru_seconds_idle:0|"), "{reply}");
        }
        assert_eq!(bench.run("DEBUG OBJECT none"), "-ERR no such key|");
        bench.run("CONFIG SET list-max-listpack-size 2");
        bench.run("RPUSH l a b c");
        let told = " ql_nodes:2 ql_avg_node:1.50 ql_listpack_max:2 ql_compressed:0 ql_uncompressed_size:23|";
        assert!(bench.run("DEBUG OBJECT l").ends_with(told), "{}", bench.run("DEBUG OBJECT l"));
    }

    #[test]
    fn every_type_of_reply_is_there_in_both_protocols() {
        let mut bench = bench();
        for (kind, reply) in [
            ("double", "$5|3.141|"),
            ("null", "$-1|"),
            ("map", "*6|:0|:0|:1|:1|:2|:0|"),
            ("attrib", "$39|Some real reply following the attribute|"),
            ("push", "-ERR RESP2 is not supported by this command|"),
            ("verbatim", "$25|This is a verbatim\nstring|"),
            ("true", ":1|"),
        ] {
            assert_eq!(bench.run(&format!("DEBUG PROTOCOL {kind}")), reply, "{kind}");
        }
        assert!(bench.run("DEBUG PROTOCOL nonsense").starts_with("-ERR Wrong protocol type name."));
    }

    #[test]
    fn switches_are_thrown() {
        let mut bench = bench();
        assert_eq!(bench.run("DEBUG SET-ACTIVE-EXPIRE 0"), "+OK|");
        assert_eq!(bench.run("DEBUG PAUSE-CRON 1"), "+OK|");
        let on = |switch: &AtomicBool| switch.load(Ordering::Relaxed);
        assert!(!on(&bench.engine.debug.active_expire) && !on(&bench.engine.debug.cron));
        bench.run("DEBUG SET-ACTIVE-EXPIRE 1");
        bench.run("DEBUG PAUSE-CRON 0");
        assert!(on(&bench.engine.debug.active_expire) && on(&bench.engine.debug.cron));
    }

    #[test]
    fn tables_are_described_in_redis_words() {
        let mut bench = bench();
        let empty = "Hash table 0 stats (main hash table):\nNo stats available for empty dictionaries\n";
        let reply = bench.run("DEBUG HTSTATS 5");
        assert!(reply.contains(&format!("[Dictionary HT]\n{empty}[Expires HT]\n{empty}")), "{reply}");
        bench.run("DEBUG POPULATE 100");
        let reply = bench.run("DEBUG HTSTATS 0");
        assert!(reply.contains("\n number of elements: 100\n different slots: 100\n max chain length: 1\n"), "{reply}");
        assert_eq!(bench.run("DEBUG HTSTATS 99"), "-ERR Out of range database|");
        assert_eq!(bench.run("DEBUG HTSTATS abc"), "-ERR value is not an integer or out of range|");
        assert!(bench.run("DEBUG HTSTATS-KEY key:1").ends_with("is not represented using an hash table|"));
    }

    #[test]
    fn change_repl_id_begins_another_history() {
        let mut bench = bench();
        let id = |bench: &Bench| bench.engine.replication.state().history.id.clone();
        let before = id(&bench);
        assert_eq!(bench.run("DEBUG CHANGE-REPL-ID"), "+OK|");
        let after = id(&bench);
        assert!(before != after && after.len() == 40 && after.bytes().all(|b| b.is_ascii_hexdigit()));
    }

    #[test]
    fn wrong_forms_are_told_as_such() {
        let mut bench = bench();
        for line in ["NONSENSE", "SLEEP", "DIGEST x", "LOG a b", "REPLYBUFFER FOO 0", "HELP x"] {
            let name = line.split(' ').next().unwrap();
            let error = format!("-ERR unknown subcommand or wrong number of arguments for '{name}'. Try DEBUG HELP.|");
            assert_eq!(bench.run(&format!("DEBUG {line}")), error);
        }
        assert_eq!(bench.run("DEBUG"), "-ERR wrong number of arguments for 'debug' command|");
        assert_eq!(bench.run("DEBUG ERROR \"MY error\ntext\""), "-MY error text|");
        assert!(bench.run("DEBUG QUICKLIST-PACKED-THRESHOLD 5gb").starts_with("-ERR argument must be a memory"));
        assert_eq!(bench.run("DEBUG QUICKLIST-PACKED-THRESHOLD 100b"), "+OK|");
        assert_eq!(bench.run("DEBUG REPLYBUFFER PEAK-RESET-TIME NEVER"), "+OK|");
        let help = bench.run("DEBUG HELP");
        assert!(help.starts_with('*') && help.contains("|+DEBUG <subcommand>"));
        let missing: Vec<_> = SUBCOMMANDS.iter().filter(|(name, ..)| !help.contains(&format!("|+{name}"))).collect();
        assert!(missing.is_empty(), "without help: {:?}", missing.iter().map(|(name, ..)| name).collect::<Vec<_>>());
    }

    #[test]
    #[should_panic(expected = "DEBUG PANIC")]
    fn a_panic_is_one() {
        bench().run("DEBUG PANIC");
    }

    #[cfg(feature = "jemalloc")]
    #[test]
    fn options_of_the_allocator_are_read() {
        let mut bench = bench();
        assert_eq!(bench.run("DEBUG MALLCTL arenas.page"), ":4096|");
        assert_eq!(bench.run("DEBUG MALLCTL nonsense"), "-ERR No such file or directory|");
        assert_eq!(bench.run("DEBUG MALLCTL arenas.page 5"), "-ERR Operation not permitted|");
        assert!(bench.run("DEBUG MALLCTL-STR version").starts_with('$'));
    }
}

//! Reading what is new: XREAD, and XREADGROUP, which hands entries out to the consumers of a group.

use smallvec::SmallVec;

use crate::command::args::{Args, word};
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::stream::range::write_entries;
use crate::command::stream::{
    STREAM, add, claim_effect, consumer_effect, group_effect, ids, no_key_or_group, stream, stream_mut, write_entry,
    write_id,
};
use crate::command::table::Command;
use crate::keyspace::change::{Class, Effect};
use crate::keyspace::db::Key;
use crate::resp::reply::{Deferred, Output, Protocol};
use crate::spec::{Access, Arity, Flag, Keys};
use crate::stdx::number::parse_i64;
use crate::types::stream::group::{Group, Number, Pending};
use crate::types::stream::id::Id;
use crate::types::stream::{Log, Stream};

/// The entries of some streams behind an id each.
pub const XREAD: Command = Command {
    name: "XREAD",
    arity: Arity::AtLeast(4),
    flags: &[Flag::ReadOnly, Flag::Blocking, Flag::MovableKeys],
    keys: &[Keys::After { word: "STREAMS", from: 1, last: -2, step: 1, access: Access::READ }],
    usage: "[COUNT count] [BLOCK milliseconds] STREAMS streams{key... ID:string...}",
    summary: "Returns messages from multiple streams with IDs greater than the ones requested. Blocks until a message is available otherwise.",
    complexity: "",
    run: |ctx, args| xread(ctx, args, Way::Plain),
    ..STREAM
};

/// The same for a consumer of a group: what no consumer was given yet, or what this one was given before.
pub const XREADGROUP: Command = Command {
    name: "XREADGROUP",
    arity: Arity::AtLeast(7),
    flags: &[Flag::Write, Flag::Blocking, Flag::MovableKeys],
    keys: &[Keys::After { word: "STREAMS", from: 4, last: -2, step: 1, access: Access::READ }],
    usage: "GROUP group-block{group consumer} [COUNT count] [BLOCK milliseconds] [NOACK] STREAMS streams{key... ID:string...}",
    summary: "Returns new or historical messages from a stream for a consumer in a group. Blocks until a message is available otherwise.",
    complexity: "For each stream mentioned: O(M) with M being the number of elements returned. If M is constant (e.g. always asking for the first 10 elements with COUNT), you can consider it O(1). On the other side when XREADGROUP blocks, XADD will pay the O(N) time in order to serve the N clients blocked on the stream getting new data.",
    run: |ctx, args| xread(ctx, args, Way::Group),
    ..STREAM
};

/// Which of the two commands it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    Group,
}

/// What is asked for.
struct Options<'a> {
    /// The most entries of each stream.
    most: usize,
    /// Where the first key is.
    first: usize,
    /// How many keys there are; their ids follow.
    keys: usize,
    /// Group and consumer.
    reader: Option<(&'a [u8], &'a [u8])>,
    /// What is delivered is not to be acknowledged.
    noack: bool,
}

fn options<'a>(args: &Args<'a>, way: Way) -> Result<Options<'a>, Error> {
    let mut options = Options { most: usize::MAX, first: 0, keys: 0, reader: None, noack: false };
    let only_group = |option: &str| {
        Err(Error::text(format!("ERR The {option} option is only supported by XREADGROUP. You called XREAD instead.")))
    };
    let mut i = 1;
    while i < args.len() {
        let more = args.len() - i - 1;
        match word(args.at(i), &["BLOCK", "COUNT", "STREAMS", "GROUP", "NOACK"]) {
            Some("BLOCK") if more > 0 => {
                i += 1;
                timeout_ms(args.at(i))?;
            }
            Some("COUNT") if more > 0 => {
                i += 1;
                options.most = match add::count(args.at(i))? {
                    0 => usize::MAX,
                    most => most,
                };
            }
            Some("STREAMS") if more > 0 => {
                if !more.is_multiple_of(2) {
                    let (name, id) = if way == Way::Group { ("xreadgroup", '>') } else { ("xread", '$') };
                    return Err(Error::text(format!(
                        "ERR Unbalanced '{name}' list of streams: for each stream key an ID or '{id}' must be specified."
                    )));
                }
                (options.first, options.keys) = (i + 1, more / 2);
                break;
            }
            Some("GROUP") if more >= 2 => {
                if way == Way::Plain {
                    return only_group("GROUP");
                }
                options.reader = Some((args.at(i + 1), args.at(i + 2)));
                i += 2;
            }
            Some("NOACK") if way == Way::Plain => return only_group("NOACK"),
            Some("NOACK") => options.noack = true,
            _ => return Err(Error::Syntax),
        }
        i += 1;
    }
    if options.keys == 0 {
        return Err(Error::Syntax);
    }
    if way == Way::Group && options.reader.is_none() {
        return Err(Error::text("ERR Missing GROUP option for XREADGROUP"));
    }
    Ok(options)
}

/// Where to read on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// Behind this id; of a group's reader, what it was given before and has not acknowledged.
    Id(Id),
    /// What no consumer of the group was given yet.
    New,
}

/// Where to read on in one stream, which may not be there.
fn after(arg: &[u8], stream: Option<&Stream>, way: Way) -> Result<After, Error> {
    let log = stream.map(|stream| &stream.log);
    match (arg, way) {
        (b"$", Way::Group) => Err(Error::text(
            "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set.",
        )),
        (b"$", Way::Plain) => Ok(After::Id(log.map_or(Id::MIN, |log| log.counters().last))),
        // The last entry, and what comes behind it.
        (b"+", Way::Plain) => Ok(After::Id(log.and_then(|log| log.top_id()?.prev()).unwrap_or(Id::MIN))),
        (b">", Way::Plain) => Err(Error::text(
            "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
        )),
        (b">", Way::Group) => Ok(After::New),
        (id, _) => match ids::strict(id)? {
            Id::MAX if way == Way::Group => Ok(After::New),
            id => Ok(After::Id(id)),
        },
    }
}

/// The head of a reply, written when the first stream has something to show.
#[derive(Default)]
struct Head {
    deferred: Option<Deferred>,
    streams: usize,
}

impl Head {
    /// Begins with another stream.
    fn next(&mut self, out: &mut Output, key: &[u8]) {
        self.deferred.get_or_insert_with(|| out.defer());
        self.streams += 1;
        if out.protocol() == Protocol::Resp2 {
            out.array(2);
        }
        out.bulk(key);
    }

    fn finish(self, out: &mut Output) {
        match (self.deferred, out.protocol()) {
            (None, _) => out.null_array(),
            (Some(deferred), Protocol::Resp2) => out.finish_array(deferred, self.streams),
            (Some(deferred), Protocol::Resp3) => out.finish_map(deferred, self.streams),
        }
    }
}

fn xread(ctx: &mut Context<'_>, args: &Args<'_>, way: Way) -> Reply {
    let options = options(args, way)?;
    // All keys are looked at before anything is read: an error must leave everything as it was.
    let mut wanted = SmallVec::<[(Key<'_>, After); 8]>::new();
    for i in options.first..options.first + options.keys {
        let key = args.key(&ctx.db, i);
        let stream = ctx.db.read(&key).map(stream).transpose()?;
        if let Some((group, _)) = options.reader
            && stream.is_none_or(|stream| stream.groups.find(group).is_none())
        {
            return Err(no_key_or_group(key.bytes, group, " in XREADGROUP with GROUP option"));
        }
        wanted.push((key, after(args.at(i + options.keys), stream, way)?));
    }
    let mut head = Head::default();
    match options.reader {
        None => read_streams(ctx, &wanted, options.most, &mut head)?,
        Some((group, consumer)) => {
            let mut effects = Vec::new();
            for (key, after) in &wanted {
                let reader = Reader { key: *key, group, consumer, after: *after };
                read_group(ctx, reader, &options, &mut head, &mut effects)?;
            }
            // What it did to groups is told, and never the request: who runs it again may find other entries.
            ctx.db.effects.log_as(|| effects);
        }
    }
    head.finish(ctx.out);
    DONE
}

fn read_streams(ctx: &mut Context<'_>, wanted: &[(Key<'_>, After)], most: usize, head: &mut Head) -> Result<(), Error> {
    for (key, after) in wanted {
        let Some(stream) = ctx.db.look(key).map(stream).transpose()? else { continue };
        let After::Id(after) = *after else { continue };
        if let Some(from) = after.next()
            && stream.log.top_id().is_some_and(|top| top > after)
        {
            head.next(ctx.out, key.bytes);
            write_entries(ctx.out, stream.log.entries(from, Id::MAX), most);
        }
    }
    Ok(())
}

/// A consumer that reads one stream.
#[derive(Clone, Copy)]
struct Reader<'a> {
    key: Key<'a>,
    group: &'a [u8],
    consumer: &'a [u8],
    after: After,
}

/// Reads one stream for a consumer, which is created where it is missing; adds what the log is to be told.
fn read_group(
    ctx: &mut Context<'_>,
    reader: Reader<'_>,
    options: &Options<'_>,
    head: &mut Head,
    effects: &mut Vec<Effect>,
) -> Result<(), Error> {
    let Reader { key, group: name, consumer, after } = reader;
    let (now_ms, logged) = (ctx.db.now_ms(), ctx.db.effects.is_logged());
    let out = &mut *ctx.out;
    let read = ctx.db.update(&key, |entry| {
        let Stream { log, groups } = stream_mut(entry)?;
        let missing = || no_key_or_group(key.bytes, name, " in XREADGROUP with GROUP option");
        let group = groups.find_mut(name).ok_or_else(missing)?;
        let (number, created) = group.find_or_create(consumer, now_ms);
        group.consumer_mut(number).seen_ms = now_ms;
        let delivery = Delivery { number, noack: options.noack, now_ms };
        let told = effects.len();
        let mut served = true;
        match after {
            After::Id(after) => {
                head.next(out, key.bytes);
                write_history(out, log, group, delivery, after, options.most);
            }
            After::New => {
                served = log.top_id().is_some_and(|top| top > group.last);
                if served {
                    head.next(out, key.bytes);
                    let effects = logged.then_some(&mut *effects);
                    deliver(out, log, group, &reader, delivery, options.most, effects);
                }
            }
        }
        // A claim creates its consumer.
        if created && logged && (options.noack || effects.len() == told) {
            effects.insert(told, consumer_effect(key.bytes, name, consumer));
        }
        Ok((created, served))
    });
    let (created, served) = read.unwrap_or(Ok((false, false)))?;
    if created {
        ctx.db.effects.notify(ctx.db.index(), key.bytes, Class::Stream, "xgroup-createconsumer");
    }
    ctx.db.effects.dirty += u64::from(created) + u64::from(served);
    Ok(())
}

/// To whom entries are delivered, and how.
#[derive(Clone, Copy)]
struct Delivery {
    number: Number,
    noack: bool,
    now_ms: u64,
}

/// Writes entries that no consumer was given yet, and notes that this one was.
fn deliver(
    out: &mut Output,
    log: &Log,
    group: &mut Group,
    reader: &Reader<'_>,
    delivery: Delivery,
    most: usize,
    mut effects: Option<&mut Vec<Effect>>,
) {
    let Delivery { number, noack, now_ms } = delivery;
    let deferred = out.defer();
    let mut count = 0;
    let from = group.last.next().unwrap_or(Id::MAX);
    for entry in log.entries(from, Id::MAX).take(most) {
        log.advance(group, entry.id);
        write_entry(out, entry);
        count += 1;
        if noack {
            continue;
        }
        let pending = Pending { delivered_ms: now_ms, deliveries: 1, consumer: number };
        group.assign(entry.id, pending);
        group.consumer_mut(number).active_ms = Some(now_ms);
        if let Some(effects) = effects.as_deref_mut() {
            effects.push(claim_effect(reader.key.bytes, reader.group, group, entry.id, &pending));
        }
    }
    out.finish_array(deferred, count);
    if let Some(effects) = effects.filter(|_| noack) {
        effects.push(group_effect(reader.key.bytes, reader.group, group));
    }
}

/// Writes what a consumer was given before and has not acknowledged, and counts it as another delivery.
fn write_history(out: &mut Output, log: &Log, group: &mut Group, delivery: Delivery, after: Id, most: usize) {
    let Delivery { number, now_ms, .. } = delivery;
    let from = after.next().unwrap_or(Id::MAX);
    let ids: Vec<Id> = group.consumer(number).pending().from(from).take(most).map(|(id, ())| id).collect();
    out.array(ids.len());
    for id in ids {
        match log.entry(id) {
            Some(entry) => {
                write_entry(out, entry);
                group.redelivered(id, now_ms);
            }
            None => write_deleted(out, id),
        }
    }
}

/// A pending entry that was deleted from the stream.
fn write_deleted(out: &mut Output, id: Id) {
    out.array(2);
    write_id(out, id);
    out.null_array();
}

/// How long to wait, in milliseconds; 0 is for ever.
fn timeout_ms(arg: &[u8]) -> Result<u64, Error> {
    let ms = parse_i64(arg).ok_or(Error::text("ERR timeout is not an integer or out of range"))?;
    u64::try_from(ms).map_err(|_| Error::text("ERR timeout is negative"))
}

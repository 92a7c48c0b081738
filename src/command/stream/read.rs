//! Reading what is new: XREAD, and XREADGROUP, which hands entries out to the consumers of a group.

use smallvec::SmallVec;

use crate::command::args::{Args, word};
use crate::command::blocking::{Gone, Served, Wait, until_milliseconds};
use crate::command::context::{Context, DONE, Outcome, Reply};
use crate::command::error::Error;
use crate::command::stream::range::write_entries;
use crate::command::stream::{
    STREAM, add, claim_effect, consumer_effect, group_effect, ids, no_key_or_group, stream, stream_mut, write_entry,
    write_id,
};
use crate::command::table::Command;
use crate::keyspace::change::{Class, Effect};
use crate::keyspace::db::Key;
use crate::keyspace::hold::ShardSet;
use crate::resp::reply::{Deferred, Output, Protocol};
use crate::spec::{Access, Arity, Flag, Keys};
use crate::types::object::Kind;
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
    /// How long to wait where there is nothing.
    patience: Patience,
}

/// How long a client waits for entries.
#[derive(Clone, Copy)]
enum Patience {
    None,
    /// Until this time, Unix milliseconds; `None` for ever.
    Until(Option<u64>),
}

fn options<'a>(args: &Args<'a>, way: Way, now_ms: u64) -> Result<Options<'a>, Error> {
    let patience = Patience::None;
    let mut options = Options { most: usize::MAX, first: 0, keys: 0, reader: None, noack: false, patience };
    let only_group = |option: &str| {
        Err(Error::text(format!("ERR The {option} option is only supported by XREADGROUP. You called XREAD instead.")))
    };
    let mut i = 1;
    while i < args.len() {
        let more = args.len() - i - 1;
        match word(args.at(i), &["BLOCK", "COUNT", "STREAMS", "GROUP", "NOACK"]) {
            Some("BLOCK") if more > 0 => {
                i += 1;
                options.patience = Patience::Until(until_milliseconds(args.at(i), now_ms)?);
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
    let options = options(args, way, ctx.db.now_ms())?;
    // All keys are looked at before anything is read: an error must leave everything as it was.
    let mut wanted = Wanted::new();
    for i in options.first..options.first + options.keys {
        let key = args.key(&ctx.db, i);
        let stream = stream_to_read(ctx, &key, options.reader)?;
        wanted.push((key, after(args.at(i + options.keys), stream, way)?));
    }
    let what = What { most: options.most, reader: options.reader, noack: options.noack };
    let head = read(ctx, &wanted, what)?;
    match options.patience {
        Patience::Until(until_ms) if head.streams == 0 => Ok(Outcome::Wait(Box::new(wait(&wanted, what, until_ms)))),
        _ => {
            head.finish(ctx.out);
            DONE
        }
    }
}

/// The keys of a request, and where to read on in each.
type Wanted<'a> = SmallVec<[(Key<'a>, After); 8]>;

/// What is read of each stream, and for whom.
#[derive(Clone, Copy)]
struct What<'a> {
    /// The most entries of each.
    most: usize,
    /// Group and consumer.
    reader: Option<(&'a [u8], &'a [u8])>,
    noack: bool,
}

/// The stream of a key, which has the group that is read for.
fn stream_to_read<'c>(
    ctx: &'c mut Context<'_>,
    key: &Key<'_>,
    reader: Option<(&[u8], &[u8])>,
) -> Result<Option<&'c Stream>, Error> {
    let found = ctx.db.read(key).map(stream).transpose()?;
    match reader {
        Some((group, _)) if found.is_none_or(|stream| stream.groups.find(group).is_none()) => {
            Err(no_group_to_read(key.bytes, group))
        }
        _ => Ok(found),
    }
}

fn no_group_to_read(key: &[u8], group: &[u8]) -> Error {
    no_key_or_group(key, group, " in XREADGROUP with GROUP option")
}

/// Reads all streams that have something to show, and says to the log what that did.
fn read(ctx: &mut Context<'_>, wanted: &[(Key<'_>, After)], what: What<'_>) -> Result<Head, Error> {
    let mut head = Head::default();
    match what.reader {
        None => read_streams(ctx, wanted, what.most, &mut head)?,
        Some((group, consumer)) => {
            let mut effects = Vec::new();
            for (key, after) in wanted {
                let reader = Reader { key: *key, group, consumer, after: *after };
                read_group(ctx, reader, what, &mut head, &mut effects)?;
            }
            // What it did to groups is told, and never the request: who runs it again may find other entries.
            ctx.db.effects.log_as(|| effects);
        }
    }
    Ok(head)
}

/// Waits for entries of any of these streams.
fn wait(wanted: &[(Key<'_>, After)], what: What<'_>, until_ms: Option<u64>) -> Wait {
    let keys: Vec<Vec<u8>> = wanted.iter().map(|(key, _)| key.bytes.to_vec()).collect();
    let gone = what.reader.map(|(group, _)| {
        let group = group.to_vec();
        Box::new(move |key: &[u8]| no_group_to_read(key, &group)) as Box<Gone>
    });
    let all: Vec<(Vec<u8>, After)> = keys.iter().cloned().zip(wanted.iter().map(|(_, after)| *after)).collect();
    let (most, noack) = (what.most, what.noack);
    let reader = what.reader.map(|(group, consumer)| (group.to_vec(), consumer.to_vec()));
    let serve = move |ctx: &mut Context<'_>, _: &Key<'_>| {
        let reader = reader.as_ref().map(|(group, consumer)| (&group[..], &consumer[..]));
        // What became ready together is read together. A key that is held by somebody else has nothing that it
        // had not when the client began to wait.
        let mut ready = Wanted::new();
        for (name, after) in &all {
            let key = ctx.db.key(name);
            if !ctx.db.hold.held().has(key.hash.shard()) {
                continue;
            }
            match stream_to_read(ctx, &key, reader) {
                Ok(_) => ready.push((key, *after)),
                // Without a group it can wait for a stream of that name.
                Err(_) if reader.is_none() => {}
                Err(error) => return Err(error),
            }
        }
        let head = read(ctx, &ready, What { most, reader, noack })?;
        if head.streams == 0 {
            return Ok(Served::No);
        }
        head.finish(ctx.out);
        Ok(Served::Yes)
    };
    Wait {
        keys,
        until_ms,
        also: ShardSet::default(),
        serve: Box::new(serve),
        timed_out: Output::null_array,
        answer: None,
        denied: Output::null_array,
        kind: Some(Kind::Stream),
        gone,
        aside: None,
    }
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
    what: What<'_>,
    head: &mut Head,
    effects: &mut Vec<Effect>,
) -> Result<(), Error> {
    let Reader { key, group: name, consumer, after } = reader;
    let (now_ms, logged) = (ctx.db.now_ms(), ctx.db.effects.is_logged());
    let out = &mut *ctx.out;
    let read = ctx.db.update(&key, |entry| {
        let Stream { log, groups } = stream_mut(entry)?;
        let group = groups.find_mut(name).ok_or_else(|| no_group_to_read(key.bytes, name))?;
        let (number, created) = group.find_or_create(consumer, now_ms);
        group.consumer_mut(number).seen_ms = now_ms;
        let delivery = Delivery { number, noack: what.noack, now_ms };
        let told = effects.len();
        let mut served = true;
        match after {
            After::Id(after) => {
                head.next(out, key.bytes);
                write_history(out, log, group, delivery, after, what.most);
            }
            After::New => {
                served = log.top_id().is_some_and(|top| top > group.last);
                if served {
                    head.next(out, key.bytes);
                    let effects = logged.then_some(&mut *effects);
                    deliver(out, log, group, &reader, delivery, what.most, effects);
                }
            }
        }
        // A claim creates its consumer.
        if created && logged && (what.noack || effects.len() == told) {
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
    // A claim tells how far the group is, but not how many entries that are.
    if let Some(effects) = effects {
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

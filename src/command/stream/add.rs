//! Adding and removing entries: XADD, XTRIM, XDEL, XSETID, and XLEN.

use smallvec::SmallVec;

use crate::command::args::{Args, word};
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::stream::ids::{self, NewId};
use crate::command::stream::{STREAM, insert, stream, stream_mut, words, write_id};
use crate::command::table::Command;
use crate::keyspace::change::{Class, Effect};
use crate::spec::{Access, Arity, Flag, Keys};
use crate::stdx::number::parse_i64;
use crate::types::stream::chunk::{LISTPACK_MAX, Limits};
use crate::types::stream::id::Id;
use crate::types::stream::{Log, Precision, Stream, Trim};

/// Adds an entry; replies with its id.
pub const XADD: Command = Command {
    name: "XADD",
    arity: Arity::AtLeast(5),
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    keys: &[Keys::At {
        first: 1,
        access: Access::UPDATE.noted("UPDATE instead of INSERT because of the optional trimming feature"),
    }],
    usage: "key [NOMKSTREAM]@6.2.0 [trim{strategy(MAXLEN | MINID@6.2.0) [operator(equal== | approximately=~)] threshold [LIMIT count]@6.2.0}] id-selector(auto-id=* | id) data{field value}...",
    summary: "Appends a new message to a stream. Creates the key if it doesn't exist.",
    complexity: "O(1) when adding a new entry, O(N) when trimming where N being the number of entries evicted.",
    tips: &["nondeterministic_output"],
    history: &[
        ("6.2.0", "Added the `NOMKSTREAM` option, `MINID` trimming strategy and the `LIMIT` option."),
        ("7.0.0", "Added support for the `<ms>-*` explicit ID form."),
    ],
    run: xadd,
    ..STREAM
};

/// Removes the oldest entries; replies how many there were.
pub const XTRIM: Command = Command {
    name: "XTRIM",
    arity: Arity::AtLeast(4),
    flags: &[Flag::Write],
    keys: &[Keys::At { first: 1, access: Access::DELETE }],
    usage: "key trim{strategy(MAXLEN | MINID@6.2.0) [operator(equal== | approximately=~)] threshold [LIMIT count]@6.2.0}",
    summary: "Deletes messages from the beginning of a stream.",
    complexity: "O(N), with N being the number of evicted entries. Constant times are very small however, since entries are organized in macro nodes containing multiple entries that can be released with a single deallocation.",
    tips: &["nondeterministic_output"],
    history: &[("6.2.0", "Added the `MINID` trimming strategy and the `LIMIT` option.")],
    run: xtrim,
    ..STREAM
};

/// Removes entries by their ids; replies how many there were.
pub const XDEL: Command = Command {
    name: "XDEL",
    keys: &[Keys::At { first: 1, access: Access::DELETE }],
    usage: "key ID:string...",
    summary: "Returns the number of messages after removing them from a stream.",
    complexity: "O(1) for each single item to delete in the stream, regardless of the stream size.",
    run: xdel,
    ..STREAM
};

/// Sets what a stream keeps beside its entries.
pub const XSETID: Command = Command {
    name: "XSETID",
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    usage: "key last-id [ENTRIESADDED entries-added:integer]@7.0.0 [MAXDELETEDID max-deleted-id]@7.0.0",
    summary: "An internal command for replicating stream values.",
    history: &[("7.0.0", "Added the `entries_added` and `max_deleted_entry_id` arguments.")],
    run: xsetid,
    ..STREAM
};

/// The number of entries.
pub const XLEN: Command = Command {
    name: "XLEN",
    arity: Arity::Exactly(2),
    flags: &[Flag::ReadOnly, Flag::Fast],
    keys: &[Keys::At { first: 1, access: Access::META }],
    summary: "Return the number of messages in a stream.",
    run: xlen,
    ..STREAM
};

/// Which of the two commands options are read for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Add,
    Trim,
}

/// How to trim, and where that is said.
#[derive(Clone, Copy)]
struct Trimming {
    trim: Trim,
    precision: Precision,
    /// Where the length or id is.
    at: usize,
}

struct Options {
    id: NewId,
    /// Where the id is; behind the last argument where there is none.
    id_at: usize,
    create: bool,
    trimming: Option<Trimming>,
    limit_at: Option<usize>,
}

/// The most entries that approximate trimming removes at once, without a limit by the client: a hundred chunks.
fn default_limit(ctx: &Context<'_>) -> u64 {
    match ctx.config.stream_node_max_entries.saturating_mul(100) {
        0 => 10_000,
        limit => limit.min(1_000_000),
    }
}

fn options(ctx: &Context<'_>, args: &Args<'_>, form: Form) -> Result<Options, Error> {
    let obeyed = ctx.session.follows.is_some() || ctx.session.replaying;
    let mut options = Options { id: NewId::Auto, id_at: args.len(), create: true, trimming: None, limit_at: None };
    let mut limit = 0;
    let mut i = 2;
    while i < args.len() {
        let more = args.len() - 1 - i;
        if form == Form::Add && args.at(i) == b"*" {
            options.id_at = i;
            break;
        }
        match word(args.at(i), &["MAXLEN", "MINID", "LIMIT", "NOMKSTREAM"]) {
            Some(strategy @ ("MAXLEN" | "MINID")) if more > 0 => {
                if options.trimming.is_some() {
                    return Err(Error::text(
                        "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
                    ));
                }
                let mut precision = Precision::Exact;
                i += 1;
                if more >= 2 && matches!(args.at(i), b"~" | b"=") {
                    if args.at(i) == b"~" {
                        precision = Precision::Chunks(0);
                    }
                    i += 1;
                }
                let trim = if strategy == "MAXLEN" {
                    let most = u64::try_from(args.integer(i)?);
                    Trim::MaxLen(most.map_err(|_| Error::text("ERR The MAXLEN argument must be >= 0."))?)
                } else {
                    Trim::MinId(ids::strict(args.at(i))?)
                };
                options.trimming = Some(Trimming { trim, precision, at: i });
            }
            Some("LIMIT") if more > 0 => {
                i += 1;
                let given = u64::try_from(args.integer(i)?);
                limit = given.map_err(|_| Error::text("ERR The LIMIT argument must be >= 0."))?;
                options.limit_at = Some(i - 1);
            }
            Some("NOMKSTREAM") if form == Form::Add => options.create = false,
            _ if form == Form::Add => {
                (options.id, options.id_at) = (ids::new(args.at(i))?, i);
                break;
            }
            _ => return Err(Error::Syntax),
        }
        i += 1;
    }
    let needs_approximation = "ERR syntax error, LIMIT cannot be used without the special ~ option";
    match &mut options.trimming {
        None if limit > 0 => {
            Err(Error::text("ERR syntax error, LIMIT cannot be used without specifying a trimming strategy"))
        }
        None if form == Form::Trim => {
            Err(Error::text("ERR syntax error, XTRIM must be called with a trimming strategy"))
        }
        // Redis makes trimming exact for its log and leaves the limit in it, where it means nothing.
        None | Some(Trimming { precision: Precision::Exact, .. }) if options.limit_at.is_some() && !obeyed => {
            Err(Error::text(needs_approximation))
        }
        Some(Trimming { precision: Precision::Chunks(most), .. }) => {
            *most = if options.limit_at.is_some() { limit } else { default_limit(ctx) };
            Ok(options)
        }
        _ => Ok(options),
    }
}

impl Options {
    /// The request with approximate trimming made exact, and its limit left out: what has the same effect on
    /// whoever cuts entries into chunks in another way.
    fn exactly(&self, args: &Args<'_>, log: &Log) -> Effect {
        let mut request = words(args);
        if let Some(Trimming { trim, precision: Precision::Chunks(_), at }) = self.trimming {
            request[at - 1] = b"=".to_vec();
            request[at] = match trim {
                Trim::MaxLen(_) => log.len().to_string().into_bytes(),
                // Where nothing is left, nothing is to be left.
                Trim::MinId(_) if log.is_empty() => Id::MAX.to_vec(),
                Trim::MinId(_) => log.first_id().to_vec(),
            };
            if let Some(limit) = self.limit_at {
                request.drain(limit..limit + 2);
            }
        }
        request
    }
}

fn xadd(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let options = options(ctx, args, Form::Add)?;
    let elements = args.from(options.id_at + 1);
    if elements.len() < 2 || elements.len() % 2 == 1 {
        return Err(Error::WrongArity("xadd".into()));
    }
    if options.id == NewId::Given(Id::MIN) {
        return Err(Error::text("ERR The ID specified in XADD must be greater than 0-0"));
    }
    let key = args.key(&ctx.db, 1);
    let limits = Limits { bytes: ctx.config.stream_node_max_bytes, entries: ctx.config.stream_node_max_entries };
    let (now_ms, logged) = (ctx.db.now_ms(), ctx.db.effects.is_logged());
    let add = |stream: &mut Stream| {
        let log = &mut stream.log;
        let id = new_id(log, options.id, now_ms)?;
        if elements.clone().map(<[u8]>::len).sum::<usize>() > LISTPACK_MAX {
            return Err(Error::text("ERR Elements are too large to be stored"));
        }
        log.append(id, elements.clone(), limits);
        let trimmed = options.trimming.map_or(0, |trimming| log.trim(trimming.trim, trimming.precision));
        let changed = matches!(options.id, NewId::Auto | NewId::AutoSeq(_)) || options.trimming.is_some();
        let effect = (logged && changed).then(|| {
            let mut request = options.exactly(args, log);
            // A limit that was left out stood before it.
            let moved = args.len() - request.len();
            request[options.id_at - moved] = id.to_vec();
            request
        });
        Ok((id, trimmed, effect))
    };
    let added = match ctx.db.update(&key, |entry| add(stream_mut(entry)?)) {
        Some(added) => added?,
        None if !options.create => {
            ctx.out.null();
            return DONE;
        }
        None => {
            let mut stream = Stream::default();
            let added = add(&mut stream)?;
            insert(ctx, &key, stream);
            added
        }
    };
    let (id, trimmed, effect) = added;
    ctx.db.note(&key, Class::Stream, "xadd");
    if trimmed > 0 {
        ctx.db.effects.notify(ctx.db.index(), key.bytes, Class::Stream, "xtrim");
    }
    if let Some(effect) = effect {
        ctx.db.effects.log_as(|| vec![effect]);
    }
    write_id(ctx.out, id);
    DONE
}

/// The id of the entry to be added.
fn new_id(log: &Log, wanted: NewId, now_ms: u64) -> Result<Id, Error> {
    let last = log.counters().last;
    if last == Id::MAX {
        return Err(Error::text("ERR The stream has exhausted the last possible ID, unable to add more items"));
    }
    let id = match wanted {
        NewId::Auto => log.next_id(now_ms),
        NewId::AutoSeq(ms) if ms == last.ms => last.seq.checked_add(1).map(|seq| Id::new(ms, seq)),
        NewId::AutoSeq(ms) => Some(Id::new(ms, 0)),
        NewId::Given(id) => Some(id),
    };
    id.filter(|id| *id > last)
        .ok_or(Error::text("ERR The ID specified in XADD is equal or smaller than the target stream top item"))
}

fn xtrim(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let options = options(ctx, args, Form::Trim)?;
    let trimming = options.trimming.ok_or(Error::Syntax)?;
    let key = args.key(&ctx.db, 1);
    let logged = ctx.db.effects.is_logged();
    let trimmed = ctx.db.update(&key, |entry| {
        let log = &mut stream_mut(entry)?.log;
        let removed = log.trim(trimming.trim, trimming.precision);
        Ok((removed, logged.then(|| options.exactly(args, log))))
    });
    let (removed, effect) = trimmed.transpose()?.unwrap_or_default();
    if removed > 0 {
        ctx.db.note(&key, Class::Stream, "xtrim");
        ctx.db.effects.dirty += removed - 1;
        if let Some(effect) = effect {
            ctx.db.effects.log_as(|| vec![effect]);
        }
    }
    ctx.out.integer(removed as i64);
    DONE
}

fn xdel(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    // Only where there is a stream does it matter whether the ids are any.
    if ctx.db.look(&key).map(stream).transpose()?.is_none() {
        ctx.out.integer(0);
        return DONE;
    }
    let ids = args.from(2).map(ids::strict).collect::<Result<SmallVec<[Id; 8]>, _>>()?;
    let deleted = ctx.db.update(&key, |entry| {
        let log = &mut stream_mut(entry)?.log;
        Ok(ids.iter().filter(|id| log.delete(**id)).count())
    });
    let deleted = deleted.unwrap_or(Ok(0))?;
    if deleted > 0 {
        ctx.db.note(&key, Class::Stream, "xdel");
        ctx.db.effects.dirty += deleted as u64 - 1;
    }
    ctx.out.integer(deleted as i64);
    DONE
}

fn xsetid(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let last = ids::strict(args.at(2))?;
    let (mut added, mut max_deleted) = (None, Id::MIN);
    let mut i = 3;
    while i < args.len() {
        match word(args.at(i), &["ENTRIESADDED", "MAXDELETEDID"]) {
            _ if i + 1 == args.len() => return Err(Error::Syntax),
            Some("ENTRIESADDED") => {
                let given = u64::try_from(args.integer(i + 1)?);
                added = Some(given.map_err(|_| Error::text("ERR entries_added must be positive"))?);
            }
            Some(_) => {
                max_deleted = ids::strict(args.at(i + 1))?;
                if last < max_deleted {
                    return Err(Error::text(
                        "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                    ));
                }
            }
            None => return Err(Error::Syntax),
        }
        i += 2;
    }
    let key = args.key(&ctx.db, 1);
    let set = ctx.db.update(&key, |entry| {
        let log = &mut stream_mut(entry)?.log;
        let mut counters = log.counters();
        if last < counters.max_deleted {
            return Err(Error::text("ERR The ID specified in XSETID is smaller than current max_deleted_entry_id"));
        }
        if let Some(top) = log.top_id() {
            if last < top {
                return Err(Error::text("ERR The ID specified in XSETID is smaller than the target stream top item"));
            }
            if added.is_some_and(|added| added < log.len() as u64) {
                return Err(Error::text(
                    "ERR The entries_added specified in XSETID is smaller than the target stream length",
                ));
            }
        }
        counters.last = last;
        counters.added = added.unwrap_or(counters.added);
        if max_deleted != Id::MIN {
            counters.max_deleted = max_deleted;
        }
        log.set_counters(counters);
        Ok(())
    });
    set.ok_or(Error::NoSuchKey)??;
    ctx.db.note(&key, Class::Stream, "xsetid");
    ctx.out.ok();
    DONE
}

/// Replies with the number of entries.
pub fn xlen(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let key = args.key(&ctx.db, 1);
    let len = ctx.db.read(&key).map(stream).transpose()?.map_or(0, |stream| stream.log.len());
    ctx.out.integer(len as i64);
    DONE
}

/// A count that is negative stands for none.
pub fn count(arg: &[u8]) -> Result<usize, Error> {
    let n = parse_i64(arg).ok_or(Error::NotInteger)?;
    Ok(usize::try_from(n).unwrap_or(0))
}

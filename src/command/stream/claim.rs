//! What is pending: XPENDING shows it, XCLAIM and XAUTOCLAIM give it to another consumer.

use smallvec::SmallVec;

use crate::command::args::{Args, word};
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::stream::{
    STREAM, add, claim_effect, group_effect, ids, no_key_or_group, stream, stream_mut, write_entry, write_id,
};
use crate::command::table::Command;
use crate::keyspace::change::{Class, Effect};
use crate::keyspace::db::Key;
use crate::resp::reply::Output;
use crate::spec::{Access, Arity, Flag, Keys};
use crate::stdx::number::parse_i64;
use crate::types::stream::group::{Group, Number, Pending};
use crate::types::stream::id::Id;
use crate::types::stream::{Log, Stream};

/// What is pending in a group, in short or entry by entry.
pub const XPENDING: Command = Command {
    name: "XPENDING",
    flags: &[Flag::ReadOnly],
    keys: &[Keys::At { first: 1, access: Access::READ }],
    usage: "key group [filters{[IDLE min-idle-time:integer]@6.2.0 start end count [consumer]}]",
    summary: "Returns the information and entries from a stream consumer group's pending entries list.",
    complexity: "O(N) with N being the number of elements returned, so asking for a small fixed number of entries per call is O(1). O(M), where M is the total number of entries scanned when used with the IDLE filter. When the command returns just the summary and the list of consumers is small, it runs in O(1) time; otherwise, an additional O(N) time for iterating every consumer.",
    tips: &["nondeterministic_output"],
    history: &[("6.2.0", "Added the `IDLE` option and exclusive range intervals.")],
    run: xpending,
    ..STREAM
};

/// Gives pending entries to a consumer; replies with those that it got.
pub const XCLAIM: Command = Command {
    name: "XCLAIM",
    arity: Arity::AtLeast(6),
    usage: "key group consumer min-idle-time ID:string... [IDLE ms:integer] [TIME unix-time-milliseconds] [RETRYCOUNT count] [FORCE] [JUSTID] [LASTID lastid]",
    summary: "Changes, or acquires, ownership of a message in a consumer group, as if the message was delivered a consumer group member.",
    complexity: "O(log N) with N being the number of messages in the PEL of the consumer group.",
    tips: &["nondeterministic_output"],
    run: xclaim,
    ..STREAM
};

/// Gives pending entries from an id on to a consumer; replies where to go on, with those that it got, and with
/// those that are no longer in the stream.
pub const XAUTOCLAIM: Command = Command {
    name: "XAUTOCLAIM",
    since: "6.2.0",
    arity: Arity::AtLeast(6),
    keys: &[Keys::At { first: 1, access: Access::DELETE }],
    usage: "key group consumer min-idle-time start [COUNT count] [JUSTID]",
    summary: "Changes, or acquires, ownership of messages in a consumer group, as if the messages were delivered to as consumer group member.",
    complexity: "O(1) if COUNT is small.",
    tips: &["nondeterministic_output"],
    history: &[(
        "7.0.0",
        "Added an element to the reply array, containing deleted entries the command cleared from the PEL",
    )],
    run: xautoclaim,
    ..STREAM
};

/// How long ago something was delivered, in milliseconds; negative where the clock went back.
fn idle_ms(pending: &Pending, now_ms: u64) -> i64 {
    now_ms.wrapping_sub(pending.delivered_ms) as i64
}

/// Which pending entries XPENDING shows.
struct Filter<'a> {
    idle_ms: i64,
    from: Id,
    to: Id,
    most: usize,
    consumer: Option<&'a [u8]>,
}

fn filter<'a>(args: &Args<'a>) -> Result<Option<Filter<'a>>, Error> {
    let len = args.len();
    if len == 3 {
        return Ok(None);
    }
    if !(6..=9).contains(&len) {
        return Err(Error::Syntax);
    }
    let (mut at, mut idle_ms) = (3, 0);
    if args.is(3, "IDLE") {
        idle_ms = args.integer(4)?;
        if len < 8 {
            return Err(Error::Syntax);
        }
        at = 5;
    }
    let most = add::count(args.at(at + 2))?;
    let (from, to) = (ids::from(args.at(at))?, ids::to(args.at(at + 1))?);
    Ok(Some(Filter { idle_ms, from, to, most, consumer: args.opt(at + 3) }))
}

fn xpending(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let filter = filter(args)?;
    let (key, name) = (args.key(&ctx.db, 1), args.at(2));
    let now_ms = ctx.db.now_ms();
    let found = ctx.db.read(&key).map(stream).transpose()?;
    let group =
        found.and_then(|stream| stream.groups.find(name)).ok_or_else(|| no_key_or_group(key.bytes, name, ""))?;
    match filter {
        None => write_summary(ctx.out, group),
        Some(filter) => write_pending(ctx.out, group, &filter, now_ms),
    }
    DONE
}

fn write_summary(out: &mut Output, group: &Group) {
    let pending = group.pending();
    out.array(4);
    out.integer(pending.len() as i64);
    let (Some((first, _)), Some((last, _))) = (pending.first(), pending.last()) else {
        out.null();
        out.null();
        out.null_array();
        return;
    };
    write_id(out, first);
    write_id(out, last);
    let busy = || group.consumers().filter(|consumer| !consumer.pending().is_empty());
    out.array(busy().count());
    for consumer in busy() {
        out.array(2);
        out.bulk(consumer.name());
        out.bulk_integer(consumer.pending().len() as i64);
    }
}

fn write_pending(out: &mut Output, group: &Group, filter: &Filter<'_>, now_ms: u64) {
    let owner = match filter.consumer.map(|name| group.find(name)) {
        Some(None) => return out.array(0),
        Some(Some(number)) => Some(number),
        None => None,
    };
    let deferred = out.defer();
    let mut write = |id: Id, pending: &Pending| {
        out.array(4);
        write_id(out, id);
        out.bulk(group.consumer(pending.consumer).name());
        out.integer(idle_ms(pending, now_ms).max(0));
        out.integer(pending.deliveries as i64);
    };
    let wanted = |(id, pending): &(Id, &Pending)| {
        *id <= filter.to && (filter.idle_ms == 0 || idle_ms(pending, now_ms) >= filter.idle_ms)
    };
    let within = |id: Id| id <= filter.to;
    let count = match owner {
        None => {
            let all = group.pending().from(filter.from).take_while(|(id, _)| within(*id));
            all.filter(wanted).take(filter.most).map(|(id, pending)| write(id, pending)).count()
        }
        Some(number) => {
            let own = group.consumer(number).pending().from(filter.from).take_while(|(id, ())| within(*id));
            let own = own.filter_map(|(id, ())| Some((id, group.pending().at(id)?)));
            own.filter(wanted).take(filter.most).map(|(id, pending)| write(id, pending)).count()
        }
    };
    out.finish_array(deferred, count);
}

/// How XCLAIM is to claim.
struct Claim {
    min_idle_ms: i64,
    ids: SmallVec<[Id; 8]>,
    /// When it is taken to have been delivered.
    delivered_ms: Option<i64>,
    deliveries: Option<u64>,
    /// Entries that are not pending become so.
    force: bool,
    just_id: bool,
    last: Id,
}

fn claim(args: &Args<'_>, now_ms: u64) -> Result<Claim, Error> {
    let number = |i: usize, what: &str| {
        parse_i64(args.at(i)).ok_or_else(|| Error::text(format!("ERR Invalid {what} argument for XCLAIM")))
    };
    let mut claim = Claim {
        min_idle_ms: number(4, "min-idle-time")?.max(0),
        ids: args.from(5).map_while(|arg| ids::strict(arg).ok()).collect(),
        delivered_ms: None,
        deliveries: None,
        force: false,
        just_id: false,
        last: Id::MIN,
    };
    let mut i = 5 + claim.ids.len();
    while i < args.len() {
        let more = i + 1 < args.len();
        match word(args.at(i), &["FORCE", "JUSTID", "IDLE", "TIME", "RETRYCOUNT", "LASTID"]) {
            Some("FORCE") => claim.force = true,
            Some("JUSTID") => claim.just_id = true,
            Some(option) if more => {
                i += 1;
                match option {
                    "IDLE" => claim.delivered_ms = Some((now_ms as i64).wrapping_sub(number(i, "IDLE option")?)),
                    "TIME" => claim.delivered_ms = Some(number(i, "TIME option")?),
                    "RETRYCOUNT" => claim.deliveries = u64::try_from(number(i, "RETRYCOUNT option")?).ok(),
                    _ => claim.last = ids::strict(args.at(i))?,
                }
            }
            _ => {
                let option = [b"ERR Unrecognized XCLAIM option '", super::shown(args.at(i)), b"'"];
                return Err(Error::Bytes(option.concat()));
            }
        }
        i += 1;
    }
    Ok(claim)
}

/// A consumer that claims, and what is known of the place.
struct Claimer<'a> {
    key: Key<'a>,
    name: &'a [u8],
    number: Number,
    now_ms: u64,
    /// What the log is to be told, where somebody reads it.
    effects: Option<Vec<Effect>>,
    /// How many changes there were.
    changes: u64,
}

impl Claimer<'_> {
    fn tell(&mut self, group: &Group, id: Id, pending: &Pending) {
        self.changes += 1;
        if let Some(effects) = &mut self.effects {
            effects.push(claim_effect(self.key.bytes, self.name, group, id, pending));
        }
    }

    /// Forgets a pending entry that is no longer in the stream. The claim that is told does the same there.
    fn drop(&mut self, group: &mut Group, id: Id) {
        if let Some(pending) = group.pending().at(id).copied() {
            self.tell(group, id, &pending);
            group.acknowledge(id);
        }
    }

    /// Takes an entry over, and writes it.
    fn take(&mut self, out: &mut Output, log: &Log, group: &mut Group, id: Id, pending: Pending, just_id: bool) {
        group.assign(id, pending);
        group.consumer_mut(self.number).active_ms = Some(self.now_ms);
        match log.entry(id).filter(|_| !just_id) {
            Some(entry) => write_entry(out, entry),
            None => write_id(out, id),
        }
        self.tell(group, id, &pending);
    }
}

/// Lets `run` claim for the consumer that is named by the third argument, which is created where it is missing;
/// passes on what was changed.
fn claim_with(
    ctx: &mut Context<'_>,
    args: &Args<'_>,
    run: impl FnOnce(&mut Output, &Log, &mut Group, &mut Claimer<'_>),
) -> Reply {
    let (key, name, consumer) = (args.key(&ctx.db, 1), args.at(2), args.at(3));
    let (now_ms, logged) = (ctx.db.now_ms(), ctx.db.effects.is_logged());
    let out = &mut *ctx.out;
    let claimed = ctx.db.update(&key, |entry| {
        let Stream { log, groups } = stream_mut(entry)?;
        let group = groups.find_mut(name).ok_or_else(|| no_key_or_group(key.bytes, name, ""))?;
        let (number, created) = group.find_or_create(consumer, now_ms);
        group.consumer_mut(number).seen_ms = now_ms;
        let effects = logged.then(Vec::new);
        let mut claimer = Claimer { key, name, number, now_ms, effects, changes: u64::from(created) };
        run(out, log, group, &mut claimer);
        if let Some(effects) = claimer.effects.as_mut().filter(|effects| created && effects.is_empty()) {
            effects.push(super::consumer_effect(key.bytes, name, consumer));
        }
        Ok((created, claimer.changes, claimer.effects))
    });
    let (created, changes, effects) = claimed.ok_or_else(|| no_key_or_group(key.bytes, name, ""))??;
    if created {
        ctx.db.effects.notify(ctx.db.index(), key.bytes, Class::Stream, "xgroup-createconsumer");
    }
    ctx.db.effects.dirty += changes;
    ctx.db.effects.log_as(|| effects.unwrap_or_default());
    DONE
}

fn xclaim(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let (key, name) = (args.key(&ctx.db, 1), args.at(2));
    let now_ms = ctx.db.now_ms();
    let found = ctx.db.read(&key).map(stream).transpose()?;
    // Only where there is a group does it matter whether the rest makes sense.
    if found.is_none_or(|stream| stream.groups.find(name).is_none()) {
        return Err(no_key_or_group(key.bytes, name, ""));
    }
    let claim = claim(args, now_ms)?;
    // A time that cannot be is taken for now: the client's clock may be ahead of ours.
    let delivered_ms =
        claim.delivered_ms.and_then(|ms| u64::try_from(ms).ok()).filter(|ms| *ms <= now_ms).unwrap_or(now_ms);
    claim_with(ctx, args, |out, log, group, claimer| {
        let moved = claim.last > group.last;
        group.last = group.last.max(claim.last);
        let before = claimer.changes;
        let deferred = out.defer();
        let mut count = 0;
        for id in claim.ids {
            let pending = group.pending().at(id).copied();
            if log.entry(id).is_none() {
                claimer.drop(group, id);
                continue;
            }
            let known = match pending {
                Some(pending) if claim.min_idle_ms > 0 && idle_ms(&pending, now_ms) < claim.min_idle_ms => continue,
                Some(pending) => pending.deliveries,
                // Redis counts the forced delivery on top of the first one.
                None if claim.force => 1,
                None => continue,
            };
            let deliveries = claim.deliveries.unwrap_or(known.saturating_add(u64::from(!claim.just_id)));
            let pending = Pending { delivered_ms, deliveries, consumer: claimer.number };
            claimer.take(out, log, group, id, pending, claim.just_id);
            count += 1;
        }
        out.finish_array(deferred, count);
        // Each claim that is told says how far the group is.
        if moved && claimer.changes == before {
            claimer.changes += 1;
            let (key, name) = (claimer.key.bytes, claimer.name);
            if let Some(effects) = &mut claimer.effects {
                effects.push(group_effect(key, name, group));
            }
        }
    })
}

/// How many pending entries XAUTOCLAIM looks at for each that it may claim.
const ATTEMPTS: usize = 10;
/// The greatest COUNT of XAUTOCLAIM.
const MOST_CLAIMED: i64 = i64::MAX / 16;

fn xautoclaim(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let min_idle_ms =
        parse_i64(args.at(4)).ok_or(Error::text("ERR Invalid min-idle-time argument for XAUTOCLAIM"))?.max(0);
    let from = ids::from(args.at(5))?;
    let (mut most, mut just_id) = (100, false);
    let mut i = 6;
    while i < args.len() {
        match word(args.at(i), &["COUNT", "JUSTID"]) {
            Some("COUNT") if i + 1 < args.len() => {
                i += 1;
                let given = parse_i64(args.at(i)).filter(|n| (1..=MOST_CLAIMED).contains(n));
                most = given.ok_or(Error::text("ERR COUNT must be > 0"))? as usize;
            }
            Some("JUSTID") => just_id = true,
            _ => return Err(Error::Syntax),
        }
        i += 1;
    }
    let (key, name) = (args.key(&ctx.db, 1), args.at(2));
    let found = ctx.db.read(&key).map(stream).transpose()?;
    if found.is_none_or(|stream| stream.groups.find(name).is_none()) {
        return Err(no_key_or_group(key.bytes, name, ""));
    }
    claim_with(ctx, args, |out, log, group, claimer| {
        let (mut next, mut left, mut deleted) = (Some(from), most, Vec::new());
        let (mut claimed, mut count) = (Output::new(out.protocol()), 0);
        for _ in 0..most.saturating_mul(ATTEMPTS) {
            let Some((id, pending)) = next.and_then(|next| group.pending().from(next).next()).filter(|_| left > 0)
            else {
                break;
            };
            let pending = *pending;
            next = id.next();
            if log.entry(id).is_none() {
                claimer.drop(group, id);
                deleted.push(id);
                left -= 1;
                continue;
            }
            if min_idle_ms > 0 && idle_ms(&pending, claimer.now_ms) < min_idle_ms {
                continue;
            }
            let deliveries = pending.deliveries.saturating_add(u64::from(!just_id));
            let pending = Pending { delivered_ms: claimer.now_ms, deliveries, consumer: claimer.number };
            claimer.take(&mut claimed, log, group, id, pending, just_id);
            count += 1;
            left -= 1;
        }
        let next = next.and_then(|next| group.pending().from(next).next()).map_or(Id::MIN, |(id, _)| id);
        out.array(3);
        write_id(out, next);
        out.array(count);
        out.raw(&claimed.to_vec());
        out.array(deleted.len());
        deleted.into_iter().for_each(|id| write_id(out, id));
    })
}

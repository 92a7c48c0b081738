//! Requests that stand next to each other, run together: their keys are hashed first, their shards taken at once, and the
//! memory that they will touch asked for ahead of time, so that cache misses overlap.

use std::hint::cold_path;
use std::time::Duration;

use smallvec::SmallVec;

use crate::client::session::{Asking, ReplyMode, Session};
use crate::cluster::stats::Cost;
use crate::command::args::Args;
use crate::command::blocking::enqueue;
use crate::command::call::{Rest, call};
use crate::command::cluster::route;
use crate::command::context::Context;
use crate::command::dispatch::check::{Standing, Verdict, check, elsewhere, is_content, is_outdated, may_write};
use crate::command::dispatch::{
    Executor, Flow, Pending, Stop, Turn, context, count_slot, echo, note_followed, redirect,
};
use crate::command::engine::Engine;
use crate::command::error::Error;
use crate::command::eviction::unseen_bytes;
use crate::command::table::{Entry, Way};
use crate::keyspace::db::Db;
use crate::keyspace::entry::Value;
use crate::keyspace::hash::KeyHash;
use crate::keyspace::hold::{Hold, ShardSet};
use crate::keyspace::shard::Part;
use crate::resp::reply::Output;
use crate::resp::request::Span;
use crate::spec::keys;
use crate::stdx::memory;
use crate::stdx::ticks::Ticks;
use crate::types::ahead::Ahead;

/// How many requests hold their shards together, for one worker; fewer where there are more workers,
/// so that one's batch seldom waits for another's.
pub(super) const TOGETHER: usize = 64;

/// Where a request's arguments are among the batch's spans.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The first.
    pub first: usize,
    /// How many.
    pub args: usize,
    /// Where the request begins in the bytes that were read.
    pub start: usize,
}

/// Requests as they were read.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'b> {
    /// The bytes.
    pub buf: &'b [u8],
    /// Where arguments are among them.
    pub spans: &'b [Span],
    /// The requests, in the order in which they came.
    pub requests: &'b [Request],
}

impl<'b> Batch<'b> {
    /// The arguments of a request.
    #[inline]
    pub fn args(&self, request: Request) -> Args<'b> {
        Args::new(self.buf, &self.spans[request.first..request.first + request.args])
    }

    /// The bytes of the request at `index` of a stream, which ends with the last of them.
    pub(super) fn bytes(&self, index: usize) -> &'b [u8] {
        let end = self.requests.get(index + 1).map_or(self.buf.len(), |next| next.start);
        &self.buf[self.requests[index].start..end]
    }
}

/// A request that may run with its neighbours.
pub(super) struct Ready<'e> {
    pub(super) entry: &'e Entry,
    pub(super) request: Request,
    pub(super) first_key: Option<(usize, KeyHash)>,
}

/// Those that run together.
#[derive(Default)]
pub(super) struct Gathered<'e> {
    pub(super) ready: SmallVec<[Ready<'e>; 16]>,
    /// The shards of their keys.
    shards: ShardSet,
}

impl Executor {
    /// Gathers those that can run together, up to the first that cannot; returns what becomes of that one.
    #[inline]
    pub(super) fn gather<'e>(
        &self,
        engine: &'e Engine,
        session: &Session,
        batch: &Batch<'_>,
        turn: &Turn<'e>,
        standing: &Standing<'_>,
        gathered: &mut Gathered<'e>,
    ) -> Option<Verdict<'e>> {
        let Gathered { ready, shards } = gathered;
        ready.clear();
        *shards = ShardSet::default();
        // What holds for one request alone, or has to be looked at again, has no company.
        let alone = standing.view.is_some_and(|view| session.asking != Asking::No || view.is_in_motion());
        let most = if alone { 1 } else { self.together };
        let rest = &batch.requests[turn.at..];
        for request in &rest[..rest.len().min(most)] {
            let args = batch.args(*request);
            let verdict = check(engine, session, &args, standing);
            let Verdict::Run(entry) = verdict else {
                cold_path();
                return Some(verdict);
            };
            // While a script keeps everybody waiting there is no gate to run behind.
            if turn.gate.is_none() && !session.replaying {
                cold_path();
                return Some(verdict);
            }
            let batched = entry.way == Way::Batched;
            if !batched && !is_content(engine, session, entry, &args) {
                return Some(verdict);
            }
            // What may take long holds only its own shards.
            let brief = batched && entry.brief;
            if !brief && !ready.is_empty() {
                break;
            }
            match add_keys(engine, entry, &args, shards) {
                Ok(first_key) => ready.push(Ready { entry, request: *request, first_key }),
                Err(error) => {
                    cold_path();
                    return Some(Verdict::Refuse(Some(entry), error));
                }
            }
            if !brief {
                break;
            }
        }
        None
    }

    /// Runs those that were gathered, over their shards. Returns what is to be done next, if not all of them have run, or the
    /// rest has to wait.
    #[inline]
    #[allow(clippy::too_many_arguments, reason = "what a batch has in hand")]
    pub(super) fn run_together<'e>(
        &mut self,
        engine: &'e Engine,
        session: &mut Session,
        out: &mut Output,
        batch: &Batch<'_>,
        turn: &mut Turn<'e>,
        standing: &Standing<'_>,
        gathered: &mut Gathered<'e>,
    ) -> Option<Flow> {
        let Gathered { ready, shards } = gathered;
        let patient = || !engine.scripts.running.is_in_need();
        let hold = match ready.as_slice() {
            [Ready { entry, first_key: Some((_, hash)), .. }] if entry.only_key.is_some() => {
                engine.keyspace.hold_one_while(hash.shard(), patient)
            }
            _ => engine.keyspace.hold_while(*shards, patient),
        };
        let Some(mut hold) = hold else {
            cold_path();
            // A script holds them and has become too slow meanwhile, which is told, or reaches for others.
            turn.gate = None;
            return Some(Flow::Again);
        };
        if let [only] = ready.as_slice() {
            // While all that follows is looked at, its place in the table comes.
            ask(&mut hold, session.db, only, Part::prefetch);
        }
        if let Some(view) = standing.view {
            cold_path();
            if is_outdated(engine, view) {
                return Some(Flow::Again);
            }
            // Whether its keys are still here is certain only now.
            if view.is_in_motion()
                && let Some(error) =
                    elsewhere(engine, view, session, ready[0].entry, &batch.args(ready[0].request), Some(&mut hold))
            {
                drop(hold);
                redirect(engine, session, out, ready[0].entry, &error, self.worker);
                turn.at += 1;
                return Some(Flow::Again);
            }
        }
        if engine.transit.any() && !session.replaying {
            cold_path();
            match ready.iter().position(|ready| changes_what_leaves(engine, ready, batch)) {
                Some(0) => {
                    let stop = self.wait_for_transit(engine, session, standing.now_ms);
                    drop((hold, turn.gate.take()));
                    return Some(stop.map_or_else(
                        || {
                            std::thread::sleep(Duration::from_millis(1));
                            Flow::Again
                        },
                        Flow::Stop,
                    ));
                }
                Some(first) => ready.truncate(first),
                None => {}
            }
        }
        let (ran, rest, counts) = {
            let Executor { effects, config, notable_ns, renewal, worker, has_room, .. } = &mut *self;
            let under = (&**config, *notable_ns, &*renewal);
            let mut context = context(engine, session, out, effects, *worker, under, hold, turn.moment);
            context.has_room = *has_room;
            match ready.as_slice() {
                [only] => ask(&mut context.db.hold, context.session.db, only, Part::prefetch_entry),
                several => prefetch(&mut context.db, several, batch),
            }
            let (ran, rest) = run_each(&mut context, batch, turn.at, ready);
            (ran, rest, [context.db.hits, context.db.misses, context.db.expired, context.db.expired_fields])
        };
        self.count_lookups(engine, counts);
        if !self.effects.postponed.is_empty() {
            cold_path();
            let config = self.config.clone();
            self.serve_postponed(engine, session, out, &config, turn.moment);
        }
        turn.at += ran;
        if session.asking != Asking::No && (ran > 0 || rest.is_some()) {
            session.next_asking();
        }
        match rest {
            Some(stop) => Some(Flow::Stop(stop)),
            None => (ran < ready.len()).then_some(Flow::Again),
        }
    }
}

/// Runs requests one after the other over what is held for them, the first of them being the one at `at` of the batch.
/// Returns how many have run, and what is left to do of the last.
#[inline]
fn run_each(context: &mut Context<'_>, batch: &Batch<'_>, at: usize, ready: &[Ready<'_>]) -> (usize, Option<Stop>) {
    let engine = context.engine;
    let follows = context.session.follows.is_some();
    // How much may be taken before memory is looked at again, where it is limited.
    let limited = engine.memory_limit(context.config) > 0;
    let unseen = limited.then(|| unseen_bytes(engine, context.config).cast_signed());
    let taken = memory::used_by_this_thread();
    let counts_slots = engine.cluster.is_some() && context.config.cluster_slot_stats_enabled;
    let mut before = Ticks::now();
    let mut ran = 0;
    for ready in ready {
        let mut args = batch.args(ready.request);
        if let Some((index, hash)) = ready.first_key {
            args = args.with_first_key(index, hash);
        }
        let written = context.out.len();
        match call(context, ready.entry, &args, before) {
            Ok(after) => {
                if counts_slots && let Some(slot) = slot_of(context.session, ready, &args) {
                    // A primary is not answered.
                    let bytes_out = if follows { 0 } else { context.out.len().saturating_sub(written) };
                    let bytes_out = bytes_out as u64;
                    let bytes_in = sent_bytes(batch.buf, ready.request, &args);
                    count_slot(engine, slot, Cost { ns: after.since_ns(before), bytes_in, bytes_out });
                }
                before = after;
            }
            Err(rest) => return unfinished(context, batch, (at, ran), ready, &args, rest, before),
        }
        if follows {
            note_followed(engine, context.session, batch.bytes(at + ran));
        }
        if context.db.effects.echo {
            echo(context.db.effects, context.session, context.out);
        }
        ran += 1;
        // Others have taken memory too, and what is behind may need much of it.
        if let Some(unseen) = unseen
            && memory::used_by_this_thread().wrapping_sub(taken).cast_signed() > unseen
        {
            break;
        }
    }
    (ran, None)
}

/// What becomes of a request that has more to do, behind `ran` that have run.
#[cold]
fn unfinished(
    context: &mut Context<'_>,
    batch: &Batch<'_>,
    (at, ran): (usize, usize),
    ready: &Ready<'_>,
    args: &Args<'_>,
    rest: Rest,
    before: Ticks,
) -> (usize, Option<Stop>) {
    // It is the last of these: nothing that has more to do is brief.
    assert!(!ready.entry.brief, "{} is brief and has more to do", ready.entry.full_name);
    let stop = match rest {
        Rest::Wait(wait) => {
            let spent_ns = before.elapsed_ns();
            Stop::Waiting(enqueue(context, ready.entry, args, *wait, spent_ns))
        }
        // It is known by now that it needs more, so it runs alone next.
        Rest::Alone => return (ran, None),
        Rest::Job(job) => Stop::Pending(Box::new(Pending {
            job,
            index: ready.entry.index,
            spent_ns: before.elapsed_ns(),
            request: args.to_vecs(),
            mark: context.session.reply,
            unwanted: (context.session.reply != ReplyMode::On).then(|| Output::new(context.out.protocol())),
        })),
    };
    if context.session.follows.is_some() {
        note_followed(context.engine, context.session, batch.bytes(at + ran));
    }
    if context.db.effects.echo {
        echo(context.db.effects, context.session, context.out);
    }
    (ran + 1, Some(stop))
}

/// The slot that a request was about which has run.
#[cold]
fn slot_of(session: &mut Session, ready: &Ready<'_>, args: &Args<'_>) -> Option<usize> {
    let told = session.slot.take().map(usize::from);
    told.or(ready.first_key.map(|(_, hash)| hash.slot())).or_else(|| route::channel_slot(ready.entry, args))
}

/// How many bytes a request had when it was sent: in the protocol, or as a line.
fn sent_bytes(buf: &[u8], request: Request, args: &Args<'_>) -> u64 {
    let sent = &buf[request.start.min(buf.len())..];
    match sent.first() {
        Some(b'*') | None => args.wire_bytes(),
        Some(_) => sent.iter().position(|byte| *byte == b'\n').map_or(args.wire_bytes(), |end| end as u64 + 1),
    }
}

/// Whether a request may change a key that is on its way to another server. Its shards are held.
#[cold]
fn changes_what_leaves(engine: &Engine, ready: &Ready<'_>, batch: &Batch<'_>) -> bool {
    let args = batch.args(ready.request);
    let mut leaves = false;
    // Where the keys cannot be found none is touched.
    let _ = keys::for_each(
        ready.entry.command.keys,
        args.len(),
        |i| args.at(i),
        |i, _| leaves |= engine.transit.has(args.at(i)),
    );
    leaves && may_write(engine, ready.entry, &args)
}

/// Adds the shards of a request's keys; returns the first key's hash and position.
#[inline]
pub fn add_keys(
    engine: &Engine,
    entry: &Entry,
    args: &Args<'_>,
    shards: &mut ShardSet,
) -> Result<Option<(usize, KeyHash)>, Error> {
    let hasher = engine.keyspace.hasher();
    if let Some(only) = entry.only_key {
        let index = usize::from(only);
        let hash = hasher.hash(args.opt(index).ok_or_else(|| Error::WrongArity(entry.full_name.clone()))?);
        shards.add(hash.shard());
        return Ok(Some((index, hash)));
    }
    let mut first = None;
    // Where a count is wrong there are no keys to hold, and the command itself says what is wrong.
    let _ = keys::for_each(
        entry.command.keys,
        args.len(),
        |i| args.at(i),
        |i, _| {
            let hash = hasher.hash(args.at(i));
            shards.add(hash.shard());
            first.get_or_insert((i, hash));
        },
    );
    if entry.reaches_further && keys::reach_further(entry.command.keys, args.len(), |i| args.at(i)) {
        *shards = ShardSet::ALL;
    }
    Ok(first)
}

/// Asks for the next of what the first key of a request will touch; its shard is held.
#[inline]
fn ask(hold: &mut Hold<'_>, db: usize, ready: &Ready<'_>, next: fn(&Part, KeyHash)) {
    if let Some((_, hash)) = ready.first_key
        && let Some(part) = hold.shard(hash.shard()).part(db)
    {
        next(part, hash);
    }
}

/// Asks for the memory that the batch will touch, one dependent load after the other for all of its
/// keys together: the heads of the tables, the places in them, the entries; then the same for the elements of
/// large values that are named next to their keys.
#[inline]
fn prefetch(db: &mut Db<'_>, ready: &[Ready<'_>], batch: &Batch<'_>) {
    let index = db.index();
    for next in [Part::prefetch_table, Part::prefetch, Part::prefetch_entry] {
        for ready in ready {
            ask(&mut db.hold, index, ready, next);
        }
    }
    if ready.iter().any(|ready| ready.entry.element.is_some()) {
        prefetch_elements(db, ready, batch);
    }
}

fn prefetch_elements(db: &Db<'_>, ready: &[Ready<'_>], batch: &Batch<'_>) {
    let ahead = |ready: &Ready<'_>| {
        let (args, (at, hash), element) = (batch.args(ready.request), ready.first_key?, ready.entry.element?);
        let (key, name) = (args.at(at), args.opt(at + usize::from(element.behind))?);
        match db.hold.shard_ref(hash.shard()).part(db.index())?.find(hash, key)?.value() {
            Value::Object(object) => object.elements()?.ahead(name, element.ordered),
            _ => None,
        }
    };
    let mut elements: SmallVec<[Ahead<'_>; TOGETHER]> = ready.iter().filter_map(ahead).collect();
    for step in Ahead::STEPS {
        elements.iter_mut().for_each(step);
    }
}

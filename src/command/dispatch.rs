//! The way of a request: found, checked, run over the shards of its keys, its changes passed on.
//!
//! What must stay true: the checks come in one fixed order (arity, login, permission, memory, pause); requests of one
//! connection run in the order they were sent; a handler runs while the shards of its keys, and no
//! others, are held, taken in ascending order; what it changed is passed on before they are released.
//!
//! Requests that stand next to each other are run together: their keys are hashed first, their shards
//! taken at once, and the memory that they will touch asked for ahead of time, so that cache misses
//! overlap.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use smallvec::SmallVec;

use crate::client::session::{Asking, Fate, ReplyMode, Session};
use crate::client::shared::Mark;
use crate::cluster::stats::Cost;
use crate::cluster::view::View;
use crate::command::args::Args;
use crate::command::blocking::{Waiting, enqueue, serve_ready, shards_to_serve};
use crate::command::call::{Rest, call, count_call, count_error, notable_ns, note_slow, write_error};
use crate::command::cluster::route;
use crate::command::cluster::{self, migration::import};
use crate::command::context::{Context, Job, Outcome, Renewal};
use crate::command::engine::{Engine, PauseMode, Refusal, access_policy};
use crate::command::error::Error;
use crate::command::eviction::{Eviction, Room, unseen_bytes};
use crate::command::replication::wait::end_those_done;
use crate::command::script::prepare;
use crate::command::table::{Entry, Way};
use crate::command::transaction::{forget_watched, take_transaction};
use crate::command::{permission, pubsub};
use crate::config::table::Config;
use crate::keyspace::change::{Due, Effects};
use crate::keyspace::db::{Db, Key, Touch};
use crate::keyspace::entry::Value;
use crate::keyspace::gate::Entered;
use crate::keyspace::hash::KeyHash;
use crate::keyspace::hold::{Hold, ShardSet};
use crate::keyspace::moment::Moment;
use crate::keyspace::shard::Part;
use crate::observe::crash;
use crate::observe::log::warning;
use crate::observe::stats::{Counter, Outcome as Ended};
use crate::replication::Failover;
use crate::resp::reply::{Output, Protocol};
use crate::resp::request::Span;
use crate::script::cache::Reach;
use crate::script::source::{self, Flags};
use crate::spec::{Flag, keys};
use crate::stdx::clock::Recent;
use crate::stdx::memory;
use crate::stdx::ticks::Ticks;
use crate::types::ahead::Ahead;

/// How many requests hold their shards together, for one worker; fewer where there are more workers,
/// so that one's batch seldom waits for another's.
const TOGETHER: usize = 64;

/// Who waits for keys on their way to another server looks after so many milliseconds at the latest.
const LOOK_AGAIN_MS: u64 = 1000;

/// Who waits until a slot has been handed over looks after so many milliseconds: he may have begun to wait just as it was.
const HAND_OVER_MS: u64 = 20;

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

/// Why a batch ended.
pub enum Stop {
    /// All of it ran.
    Done,
    /// The next request must wait: for the end of CLIENT PAUSE, or for memory.
    Paused {
        /// Unix milliseconds of the wait's end.
        until_ms: u64,
    },
    /// A command works in pieces; the rest comes after it.
    Pending(Box<Pending>),
    /// A command waits for a key; the rest comes after it.
    Waiting(Box<Waiting>),
    /// The connection is to be closed; [`Session::fate`] says when.
    Close,
    /// The client wants to debug a script: its connection is to give the session a line, and to go on.
    Attach,
}

/// A command that works in pieces.
pub struct Pending {
    job: Job,
    index: u16,
    spent_ns: u64,
    request: Vec<Vec<u8>>,
    mark: ReplyMode,
    /// Where its reply goes that the client did not want.
    unwanted: Option<Output>,
}

/// Runs requests for one thread at a time: a worker, or a caller in this process.
pub struct Executor {
    worker: Option<usize>,
    gate: usize,
    together: usize,
    effects: Effects,
    /// Looks whether the configuration is still the same at the price of a load.
    newest: Cache<Arc<ArcSwap<Config>>, Arc<Config>>,
    config: Arc<Config>,
    notable_ns: u64,
    /// What EXEC made of it.
    renewal: Renewal,
    /// Looks whether the picture of the cluster is still the same, where the server is a node of one.
    newest_view: Option<Cache<Arc<ArcSwap<View>>, Arc<View>>>,
    time: Recent,
    eviction: Eviction,
    /// Whether memory was below its limit when it was looked at last.
    has_room: bool,
    /// Whether CLIENT PAUSE held others back when the requests that run were looked at: no key expires then.
    paused: bool,
}

/// A request that may run with its neighbours.
struct Ready<'e> {
    entry: &'e Entry,
    request: Request,
    first_key: Option<(usize, KeyHash)>,
}

/// What becomes of a request after the checks.
enum Verdict<'e> {
    Run(&'e Entry),
    Queue(&'e Entry),
    Refuse(Option<&'e Entry>, Error),
    /// It is another server's to serve.
    Redirect(&'e Entry, Error),
    Hold(u64),
}

/// Why a request has not run that was to run by itself; the gate may be left.
enum Unready {
    /// A script keeps the server busy, or reaches for what it needs.
    Impatient,
    /// It changes keys that are on their way to another server; a caller in this process waits where it is.
    Waits(Option<Stop>),
}

impl Executor {
    /// For worker `worker`, or for a caller that is no worker.
    pub fn new(engine: &Engine, worker: Option<usize>) -> Executor {
        let config = engine.config.load_full();
        let workers = usize::try_from(config.io_threads).unwrap_or(1).max(1);
        Executor {
            worker,
            gate: worker.unwrap_or_else(|| engine.keyspace.gates().shared_index()),
            together: (TOGETHER / workers).max(4),
            effects: Effects::default(),
            newest: Cache::new(engine.config.clone()),
            notable_ns: notable_ns(&config),
            config,
            renewal: Renewal::default(),
            newest_view: engine.cluster.as_ref().map(|cluster| Cache::new(cluster.view().clone())),
            time: Recent::default(),
            eviction: Eviction::default(),
            has_room: true,
            paused: false,
        }
    }

    /// The configuration that the last batch ran with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Runs `requests`, whose arguments are at `spans` of `buf`; returns how many were run and why it
    /// stopped there.
    pub fn run(
        &mut self,
        engine: &Engine,
        session: &mut Session,
        out: &mut Output,
        buf: &[u8],
        spans: &[Span],
        requests: &[Request],
    ) -> (usize, Stop) {
        let ran = self.run_all(engine, session, out, buf, spans, requests);
        self.commit(engine, session);
        ran
    }

    /// Sees to what was appended to the log, once nothing is held any more.
    #[inline]
    fn commit(&mut self, engine: &Engine, session: &mut Session) {
        let logged = std::mem::take(&mut self.effects.logged);
        if logged > 0 {
            session.logged = logged;
            session.streamed = engine.replication.offset();
            engine.commit(logged);
        }
        if engine.replication.has_news() {
            engine.replication.wake_replicas();
        }
    }

    fn run_all(
        &mut self,
        engine: &Engine,
        session: &mut Session,
        out: &mut Output,
        buf: &[u8],
        spans: &[Span],
        requests: &[Request],
    ) -> (usize, Stop) {
        self.refresh_config();
        let worker = self.worker;
        // Who replays runs alone.
        let replaying = session.replaying;
        let mut gate = if replaying { None } else { self.enter(engine) };
        let mut moment = self.moment(engine);
        let limited = engine.memory_limit(&self.config) > 0;
        let unseen = unseen_bytes(engine, &self.config).cast_signed();
        let follows = session.follows.is_some();
        self.effects.replaying = replaying;
        let mut ready: SmallVec<[Ready<'_>; 16]> = SmallVec::new();
        let mut at = 0;
        session.shared.figures.active_ms.store(moment.now_ms, Ordering::Relaxed);
        while at < requests.len() {
            if gate.is_none() && !replaying {
                gate = self.enter(engine);
                moment = self.moment(engine);
            }
            if engine.is_refusing(Refusal::Ending) {
                // What is not answered was not done: the data set is on disk and nothing is added to it.
                session.fate = Fate::Close;
                return (at, Stop::Close);
            }
            if let Some(follow) = &session.follows
                && follow.turn != engine.replication.turn()
            {
                // Another role began: what this link has to say is of the past.
                session.fate = Fate::Close;
                return (at, Stop::Close);
            }
            ready.clear();
            // Asked once for those that run together: what is held back and what becomes of keys that are due go together.
            let pause = engine.pause.active(moment.now_ms).filter(|_| !ignores_pause(session));
            self.paused = pause.is_some();
            self.effects.due = due(engine, session, &self.config, self.paused);
            // A replica has as much as its primary has: what is to go there, goes here too.
            let roomy = follows || self.config.replica_ignore_maxmemory && engine.replication.is_following();
            let mut room = match &gate {
                Some(_) if roomy => Room::Enough,
                Some(_) => self.eviction.make_room(engine, &self.config, &moment),
                // What was evicted is removed by the log that is replayed; and whoever is only told that the server
                // is busy needs no room.
                None => Room::Enough,
            };
            while room == Room::Soon && session.in_process {
                // Whose thread this is has nothing else to do.
                std::thread::yield_now();
                room = self.eviction.make_room(engine, &self.config, &moment);
            }
            self.has_room = room == Room::Enough;
            if limited && session.tracks_reads && !session.in_process {
                // That keys which it has read had to make room is told before what they made room for is answered.
                session.shared.outbox.drain(out);
            }
            let mut shards = ShardSet::default();
            let mut single = None;
            let view = self.view(session);
            // What holds for one request alone, or has to be looked at again, has no company.
            let alone = view.as_ref().is_some_and(|view| session.asking != Asking::No || view.is_in_motion());
            let together = if alone { 1 } else { self.together };
            // Those that can run together, up to the first that cannot.
            for request in &requests[at..requests.len().min(at + together)] {
                let args = args_of(buf, spans, *request);
                match check(engine, session, &args, moment.now_ms, room, pause, view.as_deref()) {
                    // While a script keeps everybody waiting there is no gate to run behind.
                    verdict if gate.is_none() && !replaying => {
                        single = Some(verdict);
                        break;
                    }
                    // What may take long holds only its own shards.
                    Verdict::Run(entry) if entry.way == Way::Batched && !entry.brief && !ready.is_empty() => break,
                    Verdict::Run(entry) if entry.way == Way::Batched => {
                        match add_keys(engine, entry, &args, &mut shards) {
                            Ok(first_key) => ready.push(Ready { entry, request: *request, first_key }),
                            Err(error) => {
                                single = Some(Verdict::Refuse(Some(entry), error));
                                break;
                            }
                        }
                        if !entry.brief {
                            break;
                        }
                    }
                    Verdict::Run(entry) if is_content(engine, session, entry, &args) => {
                        if ready.is_empty() {
                            match add_keys(engine, entry, &args, &mut shards) {
                                Ok(first_key) => ready.push(Ready { entry, request: *request, first_key }),
                                Err(error) => single = Some(Verdict::Refuse(Some(entry), error)),
                            }
                        }
                        break;
                    }
                    verdict => {
                        single = Some(verdict);
                        break;
                    }
                }
            }
            if !ready.is_empty() {
                let Some(hold) = engine.keyspace.hold_while(shards, || !engine.scripts.running.is_in_need()) else {
                    // A script holds them and has become too slow meanwhile, which is told, or reaches for others.
                    gate = None;
                    continue;
                };
                let mut hold = hold;
                if let Some(view) = &view {
                    if is_outdated(engine, view) {
                        continue;
                    }
                    // Whether its keys are still here is certain only now.
                    if view.is_in_motion()
                        && let Some(error) = elsewhere(
                            engine,
                            view,
                            session,
                            ready[0].entry,
                            &args_of(buf, spans, ready[0].request),
                            Some(&mut hold),
                        )
                    {
                        drop(hold);
                        redirect(engine, session, out, ready[0].entry, &error, worker);
                        at += 1;
                        continue;
                    }
                }
                if engine.transit.any() && !replaying {
                    let first = ready.iter().position(|ready| changes_what_leaves(engine, ready, buf, spans));
                    match first {
                        Some(0) => {
                            let stop = self.wait_for_transit(engine, session, moment.now_ms);
                            drop((hold, gate.take()));
                            match stop {
                                Some(stop) => return (at, stop),
                                None => {
                                    std::thread::sleep(Duration::from_millis(1));
                                    continue;
                                }
                            }
                        }
                        Some(first) => ready.truncate(first),
                        None => {}
                    }
                }
                let Executor { effects, config, notable_ns, renewal, worker, has_room, .. } = &mut *self;
                let mut context =
                    context(engine, session, out, effects, *worker, (config, *notable_ns, &*renewal), hold, moment);
                context.has_room = *has_room;
                if ready.len() > 1 {
                    prefetch(&mut context.db, &ready, buf, spans);
                }
                let mut before = Ticks::now();
                let mut rest = None;
                let mut ran = 0;
                let taken = memory::used_by_this_thread();
                let counts_slots = engine.cluster.is_some() && context.config.cluster_slot_stats_enabled;
                for ready in &ready {
                    let mut args = args_of(buf, spans, ready.request);
                    if let Some((index, hash)) = ready.first_key {
                        args = args.with_first_key(index, hash);
                    }
                    let written = context.out.len();
                    match call(&mut context, ready.entry, &args, before) {
                        Ok(after) => {
                            if counts_slots && let Some(slot) = slot_of(context.session, ready, &args) {
                                // A primary is not answered.
                                let bytes_out = if follows { 0 } else { context.out.len().saturating_sub(written) };
                                let bytes_out = bytes_out as u64;
                                let bytes_in = sent_bytes(buf, ready.request, &args);
                                let cost = Cost { ns: after.since_ns(before), bytes_in, bytes_out };
                                count_slot(engine, slot, cost);
                            }
                            before = after;
                        }
                        Err(more) => {
                            // It is the last of these: nothing that has more to do is brief.
                            assert!(!ready.entry.brief, "{} is brief and has more to do", ready.entry.full_name);
                            rest = Some(match more {
                                Rest::Wait(wait) => {
                                    let spent_ns = before.elapsed_ns();
                                    Stop::Waiting(enqueue(&mut context, ready.entry, &args, *wait, spent_ns))
                                }
                                // It is known by now that it needs more, so it runs alone next.
                                Rest::Alone => break,
                                Rest::Job(job) => Stop::Pending(Box::new(Pending {
                                    job,
                                    index: ready.entry.index,
                                    spent_ns: before.elapsed_ns(),
                                    request: args.to_vecs(),
                                    mark: context.session.reply,
                                    unwanted: (context.session.reply != ReplyMode::On)
                                        .then(|| Output::new(context.out.protocol())),
                                })),
                            });
                        }
                    }
                    if follows {
                        note_followed(engine, context.session, bytes_of(buf, requests, at + ran));
                    }
                    if context.db.effects.echo {
                        echo(context.db.effects, context.session, context.out);
                    }
                    ran += 1;
                    // Others have taken memory too, and what is behind may need much of it.
                    if limited && memory::used_by_this_thread().wrapping_sub(taken).cast_signed() > unseen {
                        break;
                    }
                }
                let counts = [context.db.hits, context.db.misses, context.db.expired, context.db.expired_fields];
                drop(context);
                self.count_lookups(engine, counts);
                if !self.effects.postponed.is_empty() {
                    let config = self.config.clone();
                    self.serve_postponed(engine, session, out, &config, moment);
                }
                at += ran;
                if session.asking != Asking::No && (ran > 0 || rest.is_some()) {
                    session.next_asking();
                }
                if let Some(stop) = rest {
                    return (at, stop);
                }
                if ran < ready.len() {
                    continue;
                }
            }
            let Some(verdict) = single else { continue };
            let args = args_of(buf, spans, requests[at]);
            match verdict {
                Verdict::Hold(until_ms) => return (at, Stop::Paused { until_ms }),
                Verdict::Refuse(None, _) if is_web_request(&args) && !session.in_process => {
                    warning!(
                        "Possible SECURITY ATTACK detected. It looks like somebody is sending POST or Host: commands to Spinel. This is likely due to an attacker attempting to use Cross Protocol Scripting to compromise your instance. Connection from {} aborted.",
                        session.shared.addr
                    );
                    session.fate = Fate::Close;
                    return (at + 1, Stop::Close);
                }
                Verdict::Queue(entry) => {
                    if follows {
                        note_followed(engine, session, bytes_of(buf, requests, at));
                    }
                    // What has gone already is not waited for until EXEC finds out.
                    if let Some(view) = view.as_deref().filter(|view| view.is_in_motion() && gate.is_some())
                        && let Some(error) =
                            elsewhere(engine, view, session, entry, &args, Some(&mut engine.keyspace.hold_none()))
                    {
                        redirect(engine, session, out, entry, &error, worker);
                        at += 1;
                        continue;
                    }
                    match queue(engine, session, entry, &args) {
                        Ok(()) if matches!(session.reply, ReplyMode::Off | ReplyMode::Skip) => session.next_command(),
                        Ok(()) => {
                            out.queued();
                            session.next_command();
                        }
                        Err(error) => refuse(engine, session, out, Some(entry), &error, worker),
                    }
                    session.next_asking();
                    at += 1;
                }
                Verdict::Refuse(entry, error) => {
                    refuse(engine, session, out, entry, &error, worker);
                    if follows {
                        note_followed(engine, session, bytes_of(buf, requests, at));
                    }
                    session.next_asking();
                    at += 1;
                }
                Verdict::Redirect(entry, error) => {
                    redirect(engine, session, out, entry, &error, worker);
                    at += 1;
                }
                // The script has ended just now.
                Verdict::Run(entry) if gate.is_none() && !replaying && !may_run_while_busy(session, entry) => {}
                Verdict::Run(entry) => {
                    let config = self.config.clone();
                    let bytes = bytes_of(buf, requests, at);
                    let ran = self.run_single(
                        engine,
                        session,
                        out,
                        &config,
                        moment,
                        entry,
                        &args,
                        bytes,
                        &mut gate,
                        view.as_deref(),
                    );
                    let stop = match ran {
                        Ok(stop) => stop,
                        Err(Unready::Impatient) => continue,
                        Err(Unready::Waits(Some(stop))) => return (at, stop),
                        Err(Unready::Waits(None)) => {
                            gate = None;
                            std::thread::sleep(Duration::from_millis(1));
                            continue;
                        }
                    };
                    session.next_asking();
                    at += 1;
                    if let Some(stop) = stop {
                        return (at, stop);
                    }
                    if session.debugging.as_ref().is_some_and(|debugging| debugging.line.is_none()) {
                        return (at, Stop::Attach);
                    }
                    if session.fate != Fate::Stay {
                        return (at, Stop::Close);
                    }
                    // It may have changed the configuration that the next ones run under.
                    if self.refresh_config() {
                        moment = engine.moment(&self.config);
                    }
                }
            }
        }
        (at, Stop::Done)
    }

    /// Enters this thread's gate; `None` while a script keeps everybody waiting for too long.
    fn enter<'e>(&self, engine: &'e Engine) -> Option<Entered<'e>> {
        let running = &engine.scripts.running;
        // A script that reaches for more has it before anybody else takes anything.
        while running.is_reaching() && !running.is_busy() {
            std::thread::yield_now();
        }
        let patient = || !running.is_busy();
        if patient() { engine.keyspace.gates().enter_while(self.gate, patient) } else { None }
    }

    /// Runs one request by itself; returns why the batch stops there, if it does.
    ///
    /// # Errors
    /// It has not run.
    #[allow(clippy::too_many_arguments, reason = "what a batch has in hand")]
    fn run_single<'e>(
        &mut self,
        engine: &'e Engine,
        session: &mut Session,
        out: &mut Output,
        config: &Config,
        moment: Moment,
        entry: &Entry,
        args: &Args<'_>,
        bytes: &[u8],
        gate: &mut Option<Entered<'e>>,
        view: Option<&View>,
    ) -> Result<Option<Stop>, Unready> {
        let started = Ticks::now();
        let mode = session.reply;
        let mut alone = None;
        let patient = || !engine.scripts.running.is_in_need();
        let in_gate = gate.is_some();
        let takes_all = matches!(entry.way, Way::Alone | Way::Script)
            || entry.way == Way::Transaction && session.transaction.as_ref().is_some_and(|queued| queued.alone);
        let hold = if entry.is_shutdown() && engine.scripts.running.is_busy() {
            // It does not wait for the script: without saving there is nothing that it must hold.
            engine.keyspace.hold_none()
        } else if takes_all {
            *gate = None;
            alone = match session.replaying {
                true => None,
                false => Some(engine.keyspace.gates().alone_while(patient).ok_or(Unready::Impatient)?),
            };
            engine.keyspace.hold_while(ShardSet::ALL, patient).ok_or(Unready::Impatient)?
        } else if entry.way == Way::Transaction {
            let mut shards = session.watching.as_ref().map_or(ShardSet::default(), |watching| watching.shards());
            shards.add_all(&session.transaction.as_ref().map_or(ShardSet::default(), |queued| queued.shards));
            let hold = engine.keyspace.hold_while(shards, patient).ok_or(Unready::Impatient)?;
            let writes = session.transaction.as_ref().is_some_and(|queued| queued.writes);
            if writes && engine.transit.any() && !session.replaying && engine.transit.touches(&shards) {
                return Err(Unready::Waits(self.wait_for_transit(engine, session, moment.now_ms)));
            }
            hold
        } else {
            engine.keyspace.hold_none()
        };
        let mut hold = hold;
        if let Some(view) = view.filter(|_| route::concerns(entry) || takes_all) {
            if is_outdated(engine, view) {
                return Err(Unready::Impatient);
            }
            if view.is_in_motion()
                && let Some(error) = elsewhere(engine, view, session, entry, args, Some(&mut hold))
            {
                drop(hold);
                redirect(engine, session, out, entry, &error, self.worker);
                return Ok(None);
            }
        }
        // What a client does not want must not reach its output: a reply that is written in pieces could
        // not be taken back, for its first pieces are on their way before the last is written.
        let mut unwanted = (mode != ReplyMode::On).then(|| Output::new(out.protocol()));
        let into = unwanted.as_mut().unwrap_or(out);
        let counts = engine.cluster.is_some() && config.cluster_slot_stats_enabled;
        let counted = view.filter(|_| counts && route::concerns(entry));
        let queued_bytes = session.transaction.as_ref().map_or(0, |queued| queued.sent_bytes);
        session.slot = None;
        // Of a transaction nothing is left when it has ended.
        let slot =
            counted.and_then(|view| route::judge(engine, view, session, entry, args, Some(&mut hold)).ok().flatten());
        let mut context = self.context(engine, session, into, config, hold, moment);
        let written = context.out.len();
        let mut ended = call(&mut context, entry, args, started);
        if let Some(slot) = slot.or(context.session.slot.take()).filter(|_| counts) {
            let bytes_out = context.out.len().saturating_sub(written) as u64;
            let ns = ended.as_ref().map_or_else(|_| started.elapsed_ns(), |after| after.since_ns(started));
            let bytes_in = args.wire_bytes() + if entry.way == Way::Transaction { queued_bytes } else { 0 };
            count_slot(engine, slot.into(), Cost { ns, bytes_in, bytes_out });
        }
        if counts
            && queued_bytes == 0
            && let Some(queued) = &mut context.session.transaction
        {
            // It began just now.
            queued.sent_bytes = args.wire_bytes();
        }
        if context.session.follows.is_some() {
            note_followed(engine, context.session, bytes);
        }
        let mut waiting = None;
        if let Err(Rest::Wait(wait)) = ended {
            // It waits for something else than keys.
            let spent_ns = started.elapsed_ns();
            waiting = Some(enqueue(&mut context, entry, args, *wait, spent_ns));
            ended = Ok(started);
            // What it waits for may have come before it stood where it is looked for.
            end_those_done(engine);
        }
        let counts = [context.db.hits, context.db.misses, context.db.expired, context.db.expired_fields];
        drop(context);
        drop(alone);
        self.count_lookups(engine, counts);
        if gate.is_none() && in_gate {
            *gate = self.enter(engine);
        }
        self.serve_postponed(engine, session, out, config, moment);
        if let Some(waiting) = waiting {
            return Ok(Some(Stop::Waiting(waiting)));
        }
        let job = match ended {
            Ok(_) => {
                if let Some(written) = unwanted {
                    // It may have ended the silence, and then it is the first that is heard.
                    out.set_protocol(written.protocol());
                    out.raw(&written.to_vec());
                }
                if self.effects.echo {
                    echo(&mut self.effects, session, out);
                }
                return Ok(None);
            }
            Err(Rest::Job(job)) => job,
            Err(Rest::Wait(_)) => unreachable!("it was queued above"),
            Err(Rest::Alone) => panic!("{} wants more than everything", entry.full_name),
        };
        let spent_ns = started.elapsed_ns();
        let request = args.to_vecs();
        let pending = Pending { job, index: entry.index, spent_ns, request, mark: mode, unwanted };
        Ok(Some(Stop::Pending(Box::new(pending))))
    }

    /// Has the client wait until a key is gone that it wants to change and holds; `None` for a caller in this process,
    /// which waits by itself.
    #[cold]
    fn wait_for_transit(&self, engine: &Engine, session: &Session, now_ms: u64) -> Option<Stop> {
        (!session.in_process).then(|| {
            engine.transit.wait(session.shared.clone());
            Stop::Paused { until_ms: now_ms + LOOK_AGAIN_MS }
        })
    }

    /// Goes on with a command that works in pieces; returns it again while there is more to do.
    pub fn resume(
        &mut self,
        engine: &Engine,
        session: &mut Session,
        out: &mut Output,
        pending: Box<Pending>,
    ) -> Option<Box<Pending>> {
        // What works in pieces only reads.
        self.paused = engine.pause.active(engine.clock.now_ms()).is_some() && !ignores_pause(session);
        let rest = self.run_piece(engine, session, out, pending);
        self.commit(engine, session);
        rest
    }

    fn run_piece(
        &mut self,
        engine: &Engine,
        session: &mut Session,
        out: &mut Output,
        mut pending: Box<Pending>,
    ) -> Option<Box<Pending>> {
        let config = self.current_config();
        let moment = self.moment(engine);
        let gate = if session.replaying { None } else { self.enter(engine) };
        if gate.is_none() && !session.replaying {
            // A script keeps everybody waiting.
            return Some(pending);
        }
        let piece = Ticks::now();
        let hold = engine.keyspace.hold_none();
        let Pending { job, request, unwanted, spent_ns, .. } = &mut *pending;
        let into = unwanted.as_mut().unwrap_or(out);
        let mut context = self.context(engine, session, into, &config, hold, moment);
        context.db.effects.begin(engine.interest());
        let name = request.first().map_or(&b""[..], Vec::as_slice);
        let tell = |to: &mut dyn Write| _ = write!(to, "command: {}, a later piece of it", name.escape_ascii());
        let reply = crash::running(&tell, || job(&mut context));
        let counts = [context.db.hits, context.db.misses, context.db.expired, context.db.expired_fields];
        *spent_ns += piece.elapsed_ns();
        let db = context.db.index();
        if context.db.effects.any() {
            engine.pass_on(db, context.db.effects, request);
            serve_ready(&mut context);
        }
        if let Ok(Outcome::Continue(rest)) = reply {
            *job = rest;
            drop(context);
            self.count_lookups(engine, counts);
            self.serve_postponed(engine, session, out, &config, moment);
            return Some(pending);
        }
        let failed = reply.is_err();
        if let Err(error) = reply {
            write_error(&mut context, &error);
        }
        drop(context);
        self.count_lookups(engine, counts);
        self.serve_postponed(engine, session, out, &config, moment);
        session.reply = pending.mark;
        session.next_command();
        if self.effects.echo {
            echo(&mut self.effects, session, out);
        }
        let ended = if failed { Ended::Failed } else { Ended::Done };
        count_call(engine, self.worker, pending.index, pending.spent_ns, ended, &config);
        note_slow(engine, &config, session, pending.spent_ns, "command", Some(|| pending.request.clone()));
        None
    }

    /// Ends a command that waited and waits no more; its reply is written.
    pub fn resume_wait(&mut self, engine: &Engine, session: &mut Session, out: &mut Output, waiting: &Waiting) {
        let config = self.current_config();
        self.paused = false;
        waiting.leave(&engine.keyspace);
        engine.replication.end_wait(session.shared.id);
        // What was done for it may have to be on disk before it hears of it.
        if waiting.logged() > 0 {
            session.logged = session.logged.max(waiting.logged());
            session.streamed = engine.replication.offset();
        }
        let mark = out.mark();
        let mut ended = Ended::Done;
        let written = out.len();
        if let Err(error) = waiting.write_end(out) {
            count_error(engine, &error, self.worker);
            out.error_bytes(&error.line());
            ended = Ended::Failed;
        }
        if matches!(waiting.mode(), ReplyMode::Off | ReplyMode::Skip) {
            out.truncate(mark);
        }
        session.next_command();
        if waiting.is_refused() {
            if let Some(worker) = self.worker {
                engine.stats.worker(worker).rejected(waiting.index);
            }
            return;
        }
        if config.cluster_slot_stats_enabled
            && let Some(slot) = waiting.slot()
        {
            let bytes_out = out.len().saturating_sub(written) as u64;
            let cost = Cost { ns: waiting.spent_ns, bytes_in: waiting.sent_bytes(), bytes_out };
            count_slot(engine, slot, cost);
        }
        count_call(engine, self.worker, waiting.index, waiting.spent_ns, ended, &config);
        note_slow(engine, &config, session, waiting.spent_ns, "command", Some(|| waiting.request()));
    }

    /// Runs `work` over `shards` as a command of its own, for a client whose command does something elsewhere; returns
    /// false where the server ends, and nothing is done any more. The calling thread is no worker.
    pub fn run_aside(
        &mut self,
        engine: &Engine,
        session: &mut Session,
        shards: ShardSet,
        work: impl FnOnce(&mut Context<'_>),
    ) -> bool {
        let config = self.current_config();
        let gate = loop {
            match self.enter(engine) {
                Some(gate) => break gate,
                // A script keeps everybody waiting.
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        if engine.is_refusing(Refusal::Ending) {
            return false;
        }
        let moment = self.moment(engine);
        let mut out = Output::new(Protocol::Resp2);
        let mut context = self.context(engine, session, &mut out, &config, hold_patiently(engine, shards), moment);
        context.db.effects.begin(engine.interest());
        work(&mut context);
        let counts = [context.db.hits, context.db.misses, context.db.expired, context.db.expired_fields];
        if context.db.effects.any() {
            engine.pass_on(context.db.index(), context.db.effects, &Vec::new());
            serve_ready(&mut context);
        }
        drop(context);
        self.count_lookups(engine, counts);
        self.serve_postponed(engine, session, &mut out, &config, moment);
        drop(gate);
        self.commit(engine, session);
        true
    }

    /// Serves clients that needed a shard which was somebody else's when their key was made ready. Nothing is held.
    #[inline]
    fn serve_postponed(
        &mut self,
        engine: &Engine,
        session: &mut Session,
        out: &mut Output,
        config: &Config,
        moment: Moment,
    ) {
        while let Some((db, name)) = self.effects.postponed.pop() {
            let hash = engine.keyspace.hasher().hash(&name);
            let mut shards = ShardSet::default();
            shards.add(hash.shard());
            let key = Key { bytes: &name, hash };
            let mut context = self.context(engine, session, out, config, hold_patiently(engine, shards), moment);
            let shards = shards_to_serve(&mut context, db, &key);
            drop(context);
            let mut context = self.context(engine, session, out, config, hold_patiently(engine, shards), moment);
            context.db.effects.ready.push_back((db, name.clone()));
            serve_ready(&mut context);
        }
    }

    fn context<'a>(
        &'a mut self,
        engine: &'a Engine,
        session: &'a mut Session,
        out: &'a mut Output,
        config: &'a Config,
        hold: Hold<'a>,
        moment: Moment,
    ) -> Context<'a> {
        let effects = &mut self.effects;
        effects.due = due(engine, session, config, self.paused);
        let under = (config, self.notable_ns, &self.renewal);
        let mut context = context(engine, session, out, effects, self.worker, under, hold, moment);
        context.has_room = self.has_room;
        context
    }

    /// The moment that a batch runs at.
    #[inline]
    fn moment(&mut self, engine: &Engine) -> Moment {
        Moment { now_ms: engine.clock.recent_ms(&mut self.time), policy: access_policy(&self.config) }
    }

    /// The cluster as it is now, for a client whose requests may be another node's.
    #[inline]
    fn view(&mut self, session: &Session) -> Option<Arc<View>> {
        let newest = self
            .newest_view
            .as_mut()
            .filter(|_| !session.replaying && session.follows.is_none() && session.imports.is_none())?;
        Some(newest.load().clone())
    }

    /// The configuration that is in force.
    fn current_config(&mut self) -> Arc<Config> {
        self.refresh_config();
        self.config.clone()
    }

    /// Follows the configuration; returns whether it is another one.
    #[inline]
    fn refresh_config(&mut self) -> bool {
        let newest = self.newest.load();
        let other = !Arc::ptr_eq(newest, &self.config);
        if other {
            self.config = Arc::clone(newest);
            self.renewal = Renewal::default();
            self.notable_ns = notable_ns(&self.config);
        }
        other
    }

    fn count_lookups(&self, engine: &Engine, counts: [u64; 4]) {
        use Counter::{ExpiredKeys, ExpiredSubkeys, KeyspaceHits, KeyspaceMisses};
        let counters = [KeyspaceHits, KeyspaceMisses, ExpiredKeys, ExpiredSubkeys];
        for (counter, by) in counters.into_iter().zip(counts).filter(|(_, by)| *by > 0) {
            match self.worker {
                Some(worker) => engine.stats.worker(worker).add(counter, by),
                None => engine.stats.add(counter, by),
            }
        }
    }
}

/// What the handlers of a batch may touch; `config` comes with what [`notable_ns`] says of it, and what comes after it.
#[inline]
#[allow(clippy::too_many_arguments, reason = "what a batch has in hand")]
fn context<'a>(
    engine: &'a Engine,
    session: &'a mut Session,
    out: &'a mut Output,
    effects: &'a mut Effects,
    worker: Option<usize>,
    (config, notable_ns, renewal): (&'a Config, u64, &'a Renewal),
    hold: Hold<'a>,
    moment: Moment,
) -> Context<'a> {
    let touch = if session.no_touch { Touch::No } else { Touch::Yes };
    effects.origin = session.shared.id;
    let db = Db::new(&engine.keyspace, hold, effects, session.db, moment, touch);
    Context {
        db,
        out,
        session,
        engine,
        config,
        renewal,
        still_us: None,
        worker,
        has_room: true,
        scripted: false,
        hidden: SmallVec::new(),
        notable_ns,
    }
}

#[inline]
fn args_of<'a>(buf: &'a [u8], spans: &'a [Span], request: Request) -> Args<'a> {
    Args::new(buf, &spans[request.first..request.first + request.args])
}

/// The bytes of the request at `index` of a stream, which ends with the last of them.
fn bytes_of<'b>(buf: &'b [u8], requests: &[Request], index: usize) -> &'b [u8] {
    let end = requests.get(index + 1).map_or(buf.len(), |next| next.start);
    &buf[requests[index].start..end]
}

/// What becomes of keys whose deadline has passed, for who runs this session's requests.
#[inline]
fn due(engine: &Engine, session: &Session, config: &Config, paused: bool) -> Due {
    if session.replaying || session.follows.is_some() || session.imports.is_some() {
        Due::Keep
    } else if paused || engine.replication.is_following() && config.replica_read_only {
        // Neither is there anybody who could write meanwhile.
        Due::Hide
    } else {
        Due::Remove
    }
}

/// Whether a pause of this kind holds a request back.
#[cold]
fn is_held_back(mode: PauseMode, engine: &Engine, session: &Session, entry: &Entry, args: &Args<'_>) -> bool {
    mode == PauseMode::All
        || may_write(engine, entry, args)
        || entry.way == Way::Transaction && session.transaction.as_ref().is_some_and(|queued| queued.writes)
}

/// Whether CLIENT PAUSE does not concern this session.
#[inline]
fn ignores_pause(session: &Session) -> bool {
    session.in_process || session.monitor || session.feed.is_some()
}

/// Notes that a request of a primary has taken effect: it becomes part of the stream here, too. Called before anybody
/// can begin a snapshot that has its effects. What a transaction holds becomes part of it as one, at its end.
fn note_followed(engine: &Engine, session: &mut Session, bytes: &[u8]) {
    let Some(follow) = &mut session.follows else { return };
    let queueing = session.transaction.is_some();
    engine.replication.db.store(session.db, Ordering::Relaxed);
    if !queueing && follow.pending.is_empty() {
        return engine.replication.append(bytes);
    }
    follow.pending.extend_from_slice(bytes);
    if !queueing {
        engine.replication.append(&follow.pending);
        follow.pending = Vec::new();
    }
}

/// Everything that is checked before a command runs, in this order.
#[inline]
fn check<'e>(
    engine: &'e Engine,
    session: &Session,
    args: &Args<'_>,
    now_ms: u64,
    room: Room,
    pause: Option<(PauseMode, u64)>,
    view: Option<&View>,
) -> Verdict<'e> {
    let entry = match engine.commands.resolve(args.at(0), args.opt(1)) {
        Ok(entry) => entry,
        Err(container) => return Verdict::Refuse(None, unknown(container, args)),
    };
    if !entry.command.arity.accepts(args.len()) {
        return Verdict::Refuse(Some(entry), Error::WrongArity(entry.full_name.clone()));
    }
    if session.replaying {
        return Verdict::Run(entry);
    }
    if session.follows.is_some() {
        if let Some((_, until_ms)) = pause.filter(|pause| is_held_back(pause.0, engine, session, entry, args)) {
            return Verdict::Hold(until_ms);
        }
        let queued = session.transaction.is_some() && !entry.is_never_queued();
        return if queued { Verdict::Queue(entry) } else { Verdict::Run(entry) };
    }
    if !session.authenticated && !entry.has(Flag::NoAuth) && !engine.users.default_account().is_open() {
        return Verdict::Refuse(Some(entry), Error::NoAuth);
    }
    if let Err(error) = permission::check(engine, session, entry, args) {
        return Verdict::Refuse(Some(entry), error);
    }
    if session.imports.is_some()
        && let Err(error) = import::check(engine, session, entry, args)
    {
        return Verdict::Refuse(Some(entry), error);
    }
    if let Some(view) = view
        && let Some(error) = elsewhere(engine, view, session, entry, args, None)
    {
        return Verdict::Redirect(entry, error);
    }
    if engine.is_refusing(Refusal::Following)
        && session.shared.has(Mark::Redirect)
        && let Some(verdict) = lead_on(engine, session, entry, now_ms)
    {
        return verdict;
    }
    if session.subscriptions.is_some() && !pubsub::may_run(session, entry) {
        return Verdict::Refuse(Some(entry), Error::text(pubsub::refused(&entry.full_name)));
    }
    if (session.monitor || session.feed.is_some())
        && [Flag::Write, Flag::ReadOnly, Flag::MayReplicate].iter().any(|flag| entry.has(*flag))
    {
        // Redis counts those that monitor among its replicas, and this is what it tells them.
        return Verdict::Refuse(Some(entry), Error::text("ERR Replica can't interact with the keyspace"));
    }
    if let Some(kind) = engine.scripts.running.busy()
        && !may_run_while_busy(session, entry)
    {
        let loading = engine.is_refusing(Refusal::Loading) && !entry.has(Flag::Loading);
        return Verdict::Refuse(Some(entry), if loading { Error::Loading } else { Error::Busy(kind) });
    }
    if room != Room::Enough && needs_room(engine, session, entry, args, room) {
        return match room {
            Room::Soon => Verdict::Hold(now_ms + 1),
            _ => Verdict::Refuse(Some(entry), Error::OutOfMemory),
        };
    }
    if engine.is_refusing_any()
        && let Some(error) = refusal(engine, session, entry, args)
    {
        return Verdict::Refuse(Some(entry), error);
    }
    if let Some(view) = view
        && view.holds_any()
        && route::holds_back(engine, view, session, entry, args, may_write(engine, entry, args))
    {
        return Verdict::Hold(now_ms + HAND_OVER_MS);
    }
    if let Some((_, until_ms)) = pause.filter(|pause| is_held_back(pause.0, engine, session, entry, args)) {
        return Verdict::Hold(until_ms);
    }
    if session.transaction.is_some() && !entry.is_never_queued() {
        if entry.has(Flag::NoMulti) {
            return Verdict::Refuse(Some(entry), Error::text("ERR Command not allowed inside a transaction"));
        }
        return Verdict::Queue(entry);
    }
    Verdict::Run(entry)
}

/// How long a client waits at most before it is looked at again who leads.
const LOOK_MS: u64 = 100;

/// What becomes on a replica of a request that reads or writes data, of a client that can be sent elsewhere: it is sent to the
/// primary, as soon as it is certain who that is.
#[cold]
fn lead_on<'e>(engine: &'e Engine, session: &Session, entry: &'e Entry, now_ms: u64) -> Option<Verdict<'e>> {
    if engine.config.load().cluster_enabled {
        return None;
    }
    let queued = session.transaction.as_ref().filter(|_| entry.way == Way::Transaction);
    let writes = entry.has(Flag::Write) || queued.is_some_and(|queued| queued.changes);
    let reads = entry.has(Flag::ReadOnly) || queued.is_some_and(|queued| queued.reads);
    if !writes && (!reads || session.shared.has(Mark::ReadOnly)) {
        return None;
    }
    let state = engine.replication.state();
    if state.takeover.stage != Failover::None {
        return Some(Verdict::Hold(now_ms + LOOK_MS));
    }
    let primary = &state.primary;
    Some(Verdict::Redirect(entry, Error::text(format!("REDIRECT {}:{}", primary.host, primary.port))))
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

/// Adds to what a slot costs.
#[cold]
fn count_slot(engine: &Engine, slot: usize, cost: Cost) {
    if let Some(cluster) = &engine.cluster {
        cluster.stats.add(slot, cost);
    }
}

/// Whether the cluster has changed since this picture of it was made.
fn is_outdated(engine: &Engine, view: &View) -> bool {
    engine.cluster.as_ref().is_some_and(|cluster| cluster.version() != view.version)
}

/// What a client is told whose request is another node's to serve.
fn elsewhere(
    engine: &Engine,
    view: &View,
    session: &Session,
    entry: &Entry,
    args: &Args<'_>,
    hold: Option<&mut Hold<'_>>,
) -> Option<Error> {
    if !route::concerns(entry) {
        return None;
    }
    let refused = route::judge(engine, view, session, entry, args, hold).err()?;
    Some(refused.error(view, &engine.config.load()))
}

/// Sends a client to another node. A transaction is over then, and nothing of it has run.
#[cold]
fn redirect(
    engine: &Engine,
    session: &mut Session,
    out: &mut Output,
    entry: &Entry,
    error: &Error,
    worker: Option<usize>,
) {
    count_error(engine, error, worker);
    if let Some(worker) = worker {
        engine.stats.worker(worker).rejected(entry.index);
    }
    if entry.way == Way::Transaction {
        take_transaction(session);
        forget_watched(&mut engine.keyspace.hold_none(), session);
    } else if let Some(queued) = &mut session.transaction {
        queued.aborted = true;
    }
    if !matches!(session.reply, ReplyMode::Off | ReplyMode::Skip) {
        out.error_bytes(&error.line());
    }
    session.next_asking();
    session.next_command();
}

/// Whether a request may change a key that is on its way to another server. Its shards are held.
#[cold]
fn changes_what_leaves(engine: &Engine, ready: &Ready<'_>, buf: &[u8], spans: &[Span]) -> bool {
    let args = args_of(buf, spans, ready.request);
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

/// Waits for shards, and lets go of those that it has while a script reaches for more of them.
fn hold_patiently(engine: &Engine, shards: ShardSet) -> Hold<'_> {
    loop {
        if let Some(hold) = engine.keyspace.hold_while(shards, || !engine.scripts.running.is_reaching()) {
            return hold;
        }
        std::thread::yield_now();
    }
}

/// Whether a command may run while a script keeps everybody waiting, and maybe this very thread: it may need no lock
/// of a shard, which the watching of keys does.
fn may_run_while_busy(session: &Session, entry: &Entry) -> bool {
    let needs_no_lock = entry.way == Way::Single && (session.watching.is_none() || !entry.touches_watched());
    entry.has(Flag::AllowBusy) && (needs_no_lock || entry.is_shutdown())
}

/// Whether a request runs a script that touches no more than the keys that it declares, as far as is known. One that is
/// debugged may be told to touch any.
fn is_content(engine: &Engine, session: &Session, entry: &Entry, args: &Args<'_>) -> bool {
    entry.way == Way::Script && session.debugging.is_none() && prepare::reach(engine, entry, args) == Reach::Declared
}

/// Why nothing may be written at the moment, if it may not.
pub fn write_refusal(engine: &Engine) -> Option<Error> {
    let config = engine.config.load();
    if engine.is_refusing(Refusal::Following) {
        return config.replica_read_only.then_some(Error::ReadOnly);
    }
    if engine.is_refusing(Refusal::SaveFailed) && config.stop_writes_on_bgsave_error && !config.save.0.is_empty() {
        return Some(Error::SaveFailed);
    }
    if engine.is_refusing(Refusal::LogFailed)
        && let Some(trouble) = engine.aof.appender.trouble()
    {
        return Some(Error::LogFailed(trouble.reason));
    }
    engine.is_refusing(Refusal::FewReplicas).then_some(Error::FewReplicas)
}

/// Why a command is not run that is right in itself, if it is not.
#[cold]
fn refusal(engine: &Engine, session: &Session, entry: &Entry, args: &Args<'_>) -> Option<Error> {
    let queued = session.transaction.as_ref().filter(|_| entry.way == Way::Transaction);
    let script = script_flags(engine, entry, args);
    let writes = changes(entry, script) || queued.is_some_and(|queued| queued.changes);
    if let Some(error) = (writes || entry.full_name == "ping").then(|| write_refusal(engine)).flatten() {
        // PING tells that nothing can be saved, and of nothing else.
        if writes || matches!(error, Error::SaveFailed | Error::LogFailed(_)) {
            return Some(error);
        }
    }
    let may_be_stale = may_be_stale(entry, script) && queued.is_none_or(|queued| queued.stale);
    if engine.is_refusing(Refusal::CutOff) && !may_be_stale && !engine.config.load().replica_serve_stale_data {
        return Some(Error::MasterDown);
    }
    if engine.is_refusing(Refusal::LoadingAside) && entry.has(Flag::NoAsyncLoading) {
        return Some(Error::Loading);
    }
    let may_load = entry.has(Flag::Loading) || cluster::tells_while_loading(entry);
    (engine.is_refusing(Refusal::Loading) && !may_load).then_some(Error::Loading)
}

/// Whether a command may have something to tell replicas.
fn may_write(engine: &Engine, entry: &Entry, args: &Args<'_>) -> bool {
    entry.has(Flag::Write)
        || entry.has(Flag::MayReplicate)
        || entry.way == Way::Script && prepare::may_write(engine, entry, args)
}

/// What a script says of itself, if it says anything.
fn script_flags(engine: &Engine, entry: &Entry, args: &Args<'_>) -> Option<Flags> {
    if entry.way == Way::Script { prepare::flags(engine, entry, args) } else { None }
}

/// Whether a command changes data, or a script by what it says of itself; of one that says nothing it is not known.
fn changes(entry: &Entry, script: Option<Flags>) -> bool {
    entry.has(Flag::Write) || script.is_some_and(|flags| !flags.has(source::Flag::NoWrites))
}

/// Whether a command, or a script by what it says of itself, may be run where data may be old.
fn may_be_stale(entry: &Entry, script: Option<Flags>) -> bool {
    entry.has(Flag::Stale) && script.is_none_or(|flags| flags.has(source::Flag::AllowStale))
}

/// Whether a command, or a script by what it says of itself, may need more memory.
fn grows(entry: &Entry, script: Option<Flags>) -> bool {
    let allows = [source::Flag::AllowOom, source::Flag::NoWrites];
    entry.has(Flag::DenyOom) || script.is_some_and(|flags| !allows.iter().any(|flag| flags.has(*flag)))
}

/// Whether a request may need more memory: what is queued for EXEC takes some itself.
#[cold]
fn needs_room(engine: &Engine, session: &Session, entry: &Entry, args: &Args<'_>, room: Room) -> bool {
    match &session.transaction {
        Some(queued) if entry.way == Way::Transaction => queued.grows,
        Some(_) => !entry.is_never_queued(),
        // Of scripts that say nothing only those need it that write, and they find out themselves; but none runs where
        // room is being made.
        None => grows(entry, script_flags(engine, entry, args)) || entry.way == Way::Script && room == Room::Soon,
    }
}

/// Keeps a request for EXEC.
#[cold]
fn queue(engine: &Engine, session: &mut Session, entry: &Entry, args: &Args<'_>) -> Result<(), Error> {
    let Some(queued) = &mut session.transaction else { return Ok(()) };
    add_keys(engine, entry, args, &mut queued.shards)?;
    queued.push(args.from(0));
    queued.sent_bytes += args.wire_bytes();
    queued.alone |= entry.way != Way::Batched;
    queued.writes |= may_write(engine, entry, args);
    let script = script_flags(engine, entry, args);
    queued.changes |= changes(entry, script);
    queued.reads |= entry.has(Flag::ReadOnly);
    queued.stale &= may_be_stale(entry, script);
    queued.grows |= grows(entry, script);
    let figures = &session.shared.figures;
    figures.queued.store(i32::try_from(queued.len()).unwrap_or(i32::MAX), Ordering::Relaxed);
    figures.queued_bytes.store(queued.bytes(), Ordering::Relaxed);
    Ok(())
}

/// Whether a browser was made to talk to us: no client sends these words.
fn is_web_request(args: &Args<'_>) -> bool {
    args.is(0, "POST") || args.is(0, "HOST:")
}

/// How much of an unknown command's words is repeated to the client.
const QUOTED_BYTES: usize = 128;

fn unknown(container: Option<&Entry>, args: &Args<'_>) -> Error {
    // Redis prints these words as C strings: up to the first NUL byte.
    let cut = |bytes: &[u8], most: usize| -> Vec<u8> {
        bytes.iter().copied().take(most).take_while(|byte| *byte != 0).collect()
    };
    if let Some(container) = container {
        return Error::UnknownSubcommand(cut(args.at(1), QUOTED_BYTES), container.command.name.to_owned());
    }
    let mut words = [b"'", &cut(args.at(0), QUOTED_BYTES)[..], b"', with args beginning with: "].concat();
    let mut room = QUOTED_BYTES;
    for arg in args.from(1) {
        if room == 0 {
            break;
        }
        let part = cut(arg, room);
        words.extend([b"'", &part[..], b"' "].concat());
        room = room.saturating_sub(part.len() + 3);
    }
    Error::UnknownCommand(words)
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

/// Asks for the memory that the batch will touch, one dependent load after the other for all of its
/// keys together: the heads of the tables, the places in them, the entries; then the same for the elements of
/// large values that are named next to their keys.
#[inline]
fn prefetch(db: &mut Db<'_>, ready: &[Ready<'_>], buf: &[u8], spans: &[Span]) {
    let index = db.index();
    let hashes = || ready.iter().filter_map(|r| r.first_key.map(|(_, hash)| hash));
    for ask in [Part::prefetch_table, Part::prefetch, Part::prefetch_entry] {
        for hash in hashes() {
            if let Some(part) = db.hold.shard(hash.shard()).part(index) {
                ask(part, hash);
            }
        }
    }
    if ready.iter().any(|ready| ready.entry.element.is_some()) {
        prefetch_elements(db, ready, buf, spans);
    }
}

fn prefetch_elements(db: &Db<'_>, ready: &[Ready<'_>], buf: &[u8], spans: &[Span]) {
    let ahead = |ready: &Ready<'_>| {
        let (args, (at, hash)) = (args_of(buf, spans, ready.request), ready.first_key?);
        let (key, name) = (args.at(at), args.opt(at + usize::from(ready.entry.element?))?);
        match db.hold.shard_ref(hash.shard()).part(db.index())?.find(hash, key)?.value() {
            Value::Object(object) => object.elements()?.ahead(name),
            _ => None,
        }
    };
    let elements: SmallVec<[Ahead<'_>; TOGETHER]> = ready.iter().filter_map(ahead).collect();
    for ask in [Ahead::prefetch_segment, Ahead::prefetch_places, Ahead::prefetch_element] {
        elements.iter().for_each(ask);
    }
}

/// Has what a command pushed to its own client follow its reply.
#[cold]
fn echo(effects: &mut Effects, session: &Session, out: &mut Output) {
    effects.echo = false;
    // In process nobody looks for messages among replies.
    if !session.in_process {
        session.shared.outbox.drain(out);
    }
}

/// Answers a request that did not pass the checks.
#[cold]
fn refuse(
    engine: &Engine,
    session: &mut Session,
    out: &mut Output,
    entry: Option<&Entry>,
    error: &Error,
    worker: Option<usize>,
) {
    count_error(engine, error, worker);
    if let (Some(entry), Some(worker)) = (entry, worker) {
        engine.stats.worker(worker).rejected(entry.index);
    }
    let mut line = error.line();
    if entry.is_some_and(|entry| entry.way == Way::Transaction) {
        let why = line.strip_prefix(b"ERR ").unwrap_or(&line);
        line = [b"EXECABORT Transaction discarded because of: ", why].concat();
        take_transaction(session);
        // Where a script has this thread the shards may be locked for as long as it runs: what is watched stays so.
        if !matches!(error, Error::Busy(_)) {
            forget_watched(&mut engine.keyspace.hold_none(), session);
        }
    } else if let Some(queued) = &mut session.transaction {
        queued.aborted = true;
    }
    if session.imports.is_some() {
        import::failed(engine, session, &line);
    }
    if !matches!(session.reply, ReplyMode::Off | ReplyMode::Skip) {
        out.error_bytes(&line);
    }
    session.next_command();
}

#[cfg(test)]
mod tests {
    use crate::command::testing::Bench;

    #[test]
    fn requests_sent_together_run_in_order_whatever_their_way() {
        let mut bench = Bench::new();
        let lines = ["SET a 1", "INCR a", "DBSIZE", "GET a", "FLUSHALL", "GET a", "NOSUCH", "PING", "GET"];
        let replies = String::from_utf8(bench.pipeline(&lines)).unwrap().replace("\r\n", "|");
        assert_eq!(
            replies,
            "+OK|:2|:1|$1|2|+OK|$-1|-ERR unknown command 'NOSUCH', with args beginning with: |+PONG|\
             -ERR wrong number of arguments for 'get' command|"
        );
    }

    #[test]
    fn each_change_of_the_configuration_holds_for_what_follows_however_many_there_are() {
        let mut bench = Bench::new();
        let mut lines = Vec::new();
        for i in 0..3000 {
            lines.push(if i % 2 == 0 { "CONFIG SET slowlog-max-len 5" } else { "CONFIG SET slowlog-max-len 6" });
            lines.push("GET a");
        }
        let replies = bench.pipeline(&lines);
        assert_eq!(replies, b"+OK\r\n$-1\r\n".repeat(3000));
    }
}

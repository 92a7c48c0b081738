//! A request that runs by itself: it needs everything, or no shard, or those of a transaction; or it does not run at all.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::client::session::{Fate, ReplyMode, Session};
use crate::cluster::stats::Cost;
use crate::cluster::view::View;
use crate::command::args::Args;
use crate::command::blocking::enqueue;
use crate::command::call::{Rest, call, count_error};
use crate::command::cluster::migration::import;
use crate::command::cluster::route;
use crate::command::dispatch::batch::{Batch, add_keys};
use crate::command::dispatch::check::{
    Standing, Verdict, changes, elsewhere, grows, is_outdated, is_web_request, may_be_stale, may_run_while_busy,
    may_write, script_flags,
};
use crate::command::dispatch::{Executor, Flow, Pending, Stop, Turn, count_slot, echo, note_followed, redirect};
use crate::command::engine::Engine;
use crate::command::error::Error;
use crate::command::replication::wait::end_those_done;
use crate::command::table::{Entry, Way};
use crate::command::transaction::{forget_watched, take_transaction};
use crate::config::table::Config;
use crate::keyspace::gate::Alone;
use crate::keyspace::hold::{Hold, ShardSet};
use crate::observe::log::warning;
use crate::observe::stats::ErrorOrigin;
use crate::resp::reply::Output;
use crate::spec::Flag;
use crate::stdx::ticks::Ticks;

/// Who waits for keys on their way to another server looks after so many milliseconds at the latest.
const LOOK_AGAIN_MS: u64 = 1000;

/// Why a request has not run that was to run by itself; the gate may be left.
enum Unready {
    /// A script keeps the server busy, or reaches for what it needs.
    Impatient,
    /// It changes keys that are on their way to another server; a caller in this process waits where it is.
    Waits(Option<Stop>),
}

impl Executor {
    /// Does with the next request, which stands by itself, what was found. Returns what is to be done next, if that is not to
    /// go on.
    #[allow(clippy::too_many_arguments, reason = "what a batch has in hand")]
    pub(super) fn run_verdict<'e>(
        &mut self,
        engine: &'e Engine,
        session: &mut Session,
        out: &mut Output,
        batch: &Batch<'_>,
        turn: &mut Turn<'e>,
        standing: &Standing<'_>,
        verdict: Verdict<'e>,
    ) -> Option<Flow> {
        let args = batch.args(batch.requests[turn.at]);
        let (worker, follows) = (self.worker, session.follows.is_some());
        match verdict {
            Verdict::Hold(until_ms) => return Some(Flow::Stop(Stop::Paused { until_ms })),
            Verdict::Refuse(None, _) if is_web_request(&args) && !session.in_process => {
                warning!(
                    "Possible SECURITY ATTACK detected. It looks like somebody is sending POST or Host: commands to Spinel. This is likely due to an attacker attempting to use Cross Protocol Scripting to compromise your instance. Connection from {} aborted.",
                    session.shared.addr
                );
                session.fate = Fate::Close;
                turn.at += 1;
                return Some(Flow::Stop(Stop::Close));
            }
            Verdict::Queue(entry) => {
                if follows {
                    note_followed(engine, session, batch.bytes(turn.at));
                }
                // What has gone already is not waited for until EXEC finds out.
                let in_motion = standing.view.filter(|view| view.is_in_motion() && turn.gate.is_some());
                if let Some(view) = in_motion
                    && let Some(error) =
                        elsewhere(engine, view, session, entry, &args, Some(&mut engine.keyspace.hold_none()))
                {
                    redirect(engine, session, out, entry, &error, worker);
                    turn.at += 1;
                    return Some(Flow::Again);
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
                turn.at += 1;
            }
            Verdict::Refuse(entry, error) => {
                refuse(engine, session, out, entry, &error, worker);
                if follows {
                    note_followed(engine, session, batch.bytes(turn.at));
                }
                session.next_asking();
                turn.at += 1;
            }
            Verdict::Redirect(entry, error) => {
                redirect(engine, session, out, entry, &error, worker);
                turn.at += 1;
            }
            // The script has ended just now.
            Verdict::Run(entry) if turn.gate.is_none() && !session.replaying && !may_run_while_busy(session, entry) => {
            }
            Verdict::Run(entry) => {
                let config = self.config.clone();
                let bytes = batch.bytes(turn.at);
                let ran = self.run_single(engine, session, out, &config, entry, &args, bytes, turn, standing.view);
                let stop = match ran {
                    Ok(stop) => stop,
                    Err(Unready::Impatient) => return Some(Flow::Again),
                    Err(Unready::Waits(Some(stop))) => return Some(Flow::Stop(stop)),
                    Err(Unready::Waits(None)) => {
                        turn.gate = None;
                        std::thread::sleep(Duration::from_millis(1));
                        return Some(Flow::Again);
                    }
                };
                session.next_asking();
                turn.at += 1;
                if let Some(stop) = stop {
                    return Some(Flow::Stop(stop));
                }
                if session.debugging.as_ref().is_some_and(|debugging| debugging.line.is_none()) {
                    return Some(Flow::Stop(Stop::Attach));
                }
                if session.fate != Fate::Stay {
                    return Some(Flow::Stop(Stop::Close));
                }
                // It may have changed the configuration that the next ones run under.
                if self.refresh_config() {
                    turn.moment = engine.moment(&self.config);
                }
            }
        }
        None
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
        entry: &Entry,
        args: &Args<'_>,
        bytes: &[u8],
        turn: &mut Turn<'e>,
        view: Option<&View>,
    ) -> Result<Option<Stop>, Unready> {
        let started = Ticks::now();
        let mode = session.reply;
        let (in_gate, moment) = (turn.gate.is_some(), turn.moment);
        let Held { alone, mut hold } = self.take(engine, session, entry, turn)?;
        if let Some(view) = view.filter(|_| route::concerns(entry) || takes_all(session, entry)) {
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
        if turn.gate.is_none() && in_gate {
            turn.gate = self.enter(engine);
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

    /// Takes what a request needs that runs by itself.
    ///
    /// # Errors
    /// It may not run now; nothing is held.
    fn take<'e>(
        &self,
        engine: &'e Engine,
        session: &Session,
        entry: &Entry,
        turn: &mut Turn<'e>,
    ) -> Result<Held<'e>, Unready> {
        let patient = || !engine.scripts.running.is_in_need();
        if entry.is_shutdown() && engine.scripts.running.is_busy() {
            // It does not wait for the script: without saving there is nothing that it must hold.
            return Ok(Held { alone: None, hold: engine.keyspace.hold_none() });
        }
        if takes_all(session, entry) {
            turn.gate = None;
            let alone = match session.replaying {
                true => None,
                false => Some(engine.keyspace.gates().alone_while(patient).ok_or(Unready::Impatient)?),
            };
            let hold = engine.keyspace.hold_while(ShardSet::ALL, patient).ok_or(Unready::Impatient)?;
            return Ok(Held { alone, hold });
        }
        if entry.way != Way::Transaction {
            return Ok(Held { alone: None, hold: engine.keyspace.hold_none() });
        }
        let mut shards = session.watching.as_ref().map_or(ShardSet::default(), |watching| watching.shards());
        shards.add_all(&session.transaction.as_ref().map_or(ShardSet::default(), |queued| queued.shards));
        let hold = engine.keyspace.hold_while(shards, patient).ok_or(Unready::Impatient)?;
        let writes = session.transaction.as_ref().is_some_and(|queued| queued.writes);
        if writes && engine.transit.any() && !session.replaying && engine.transit.touches(&shards) {
            return Err(Unready::Waits(self.wait_for_transit(engine, session, turn.moment.now_ms)));
        }
        Ok(Held { alone: None, hold })
    }

    /// Has the client wait until a key is gone that it wants to change and holds; `None` for a caller in this process,
    /// which waits by itself.
    #[cold]
    pub(super) fn wait_for_transit(&self, engine: &Engine, session: &Session, now_ms: u64) -> Option<Stop> {
        (!session.in_process).then(|| {
            engine.transit.wait(session.shared.clone());
            Stop::Paused { until_ms: now_ms + LOOK_AGAIN_MS }
        })
    }
}

/// What a request that runs by itself holds meanwhile.
struct Held<'e> {
    /// All gates, where nothing may run beside it.
    alone: Option<Alone<'e>>,
    /// The shards that it may touch.
    hold: Hold<'e>,
}

/// Whether a request, or what is queued for it, needs everything.
fn takes_all(session: &Session, entry: &Entry) -> bool {
    match entry.way {
        Way::Alone | Way::Script => true,
        Way::Transaction => session.transaction.as_ref().is_some_and(|queued| queued.alone),
        _ => false,
    }
}

/// Keeps a request for EXEC.
#[cold]
fn queue(engine: &Engine, session: &mut Session, entry: &Entry, args: &Args<'_>) -> Result<(), Error> {
    session.shared.figures.note_command(Some(entry.index));
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
    session.shared.figures.note_command(entry.map(|entry| entry.index));
    if let (Some(entry), Some(worker)) = (entry, worker) {
        engine.stats.worker(worker).rejected(entry.index);
    }
    let mut line = error.line();
    if entry.is_some_and(|entry| entry.way == Way::Transaction) {
        engine.stats.error(worker, b"EXECABORT", ErrorOrigin::Server);
        let why = line.strip_prefix(b"ERR ").unwrap_or(&line);
        line = [b"EXECABORT Transaction discarded because of: ", why].concat();
        take_transaction(session);
        // Where a script has this thread the shards may be locked for as long as it runs: what is watched stays so.
        if !matches!(error, Error::Busy(_)) {
            forget_watched(&mut engine.keyspace.hold_none(), session);
        }
    } else {
        count_error(engine, error, worker);
        if let Some(queued) = &mut session.transaction {
            queued.aborted = true;
        }
    }
    if session.imports.is_some() {
        import::failed(engine, session, &line);
    }
    if !matches!(session.reply, ReplyMode::Off | ReplyMode::Skip) {
        out.error_bytes(&line);
    }
    session.next_command();
}

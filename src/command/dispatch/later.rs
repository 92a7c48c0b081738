//! What goes on after its batch: commands that work in pieces, those that waited, and work that a command left to another
//! thread.

use std::fmt::Write;
use std::time::Duration;

use crate::client::session::{ReplyMode, Session};
use crate::client::shared::Mark;
use crate::cluster::stats::Cost;
use crate::command::blocking::{Waiting, serve_ready, shards_to_serve};
use crate::command::call::{count_call, count_error, note_slow, write_error};
use crate::command::context::{Context, Job, Outcome};
use crate::command::dispatch::check::ignores_pause;
use crate::command::dispatch::{Executor, count_slot, echo};
use crate::command::engine::{Engine, Refusal};
use crate::config::table::Config;
use crate::keyspace::db::Key;
use crate::keyspace::hold::{Hold, ShardSet};
use crate::keyspace::moment::Moment;
use crate::observe::crash;
use crate::observe::stats::Outcome as Ended;
use crate::resp::reply::{Output, Protocol};
use crate::stdx::ticks::Ticks;

/// A command that works in pieces.
pub struct Pending {
    pub(super) job: Job,
    pub(super) index: u16,
    pub(super) spent_ns: u64,
    pub(super) request: Vec<Vec<u8>>,
    pub(super) mark: ReplyMode,
    /// Where its reply goes that the client did not want.
    pub(super) unwanted: Option<Output>,
}

impl Executor {
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
        self.end_wait(engine, session, out, waiting);
        // Last: who sees that it does not wait any more finds it counted.
        session.shared.mark(Mark::Blocked, false);
    }

    fn end_wait(&mut self, engine: &Engine, session: &mut Session, out: &mut Output, waiting: &Waiting) {
        let config = self.current_config();
        self.paused = false;
        waiting.leave(&engine.keyspace);
        engine.replication.end_wait(session.shared.id);
        // What was done for it may have to be on disk before it hears of it.
        if waiting.logged() > 0 {
            session.logged = session.logged.max(waiting.logged());
            self.uncommitted = self.uncommitted.max(session.logged);
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
    pub(super) fn serve_postponed(
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

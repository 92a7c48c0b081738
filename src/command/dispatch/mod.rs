//! The way of a request: found, checked, run over the shards of its keys, its changes passed on.
//!
//! What must stay true: the checks come in one fixed order (arity, login, permission, memory, pause); requests of one
//! connection run in the order they were sent; a handler runs while the shards of its keys, and no
//! others, are held, taken in ascending order; what it changed is passed on before they are released.
//!
//! `check` says what becomes of a request; `batch` runs those together that can be, `single` the others; `later` goes on
//! with what takes longer.

mod batch;
mod check;
mod later;
mod single;

use std::hint::cold_path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::{ArcSwap, Cache};
use smallvec::SmallVec;

pub use self::batch::{Batch, Request, add_keys};
pub use self::check::{NO_DATA, is_data_command, write_refusal};
pub use self::later::Pending;

use self::batch::{Gathered, TOGETHER};
use self::check::{Standing, ignores_pause};
use crate::client::session::{Fate, ReplyMode, Session};
use crate::cluster::stats::Cost;
use crate::cluster::view::View;
use crate::command::blocking::Waiting;
use crate::command::call::{count_error, notable_ns};
use crate::command::context::{Context, Hands, Renewal};
use crate::command::engine::{Engine, Refusal, access_policy};
use crate::command::error::Error;
use crate::command::eviction::{Eviction, Room};
use crate::command::table::{Entry, Way};
use crate::command::transaction::{forget_watched, take_transaction};
use crate::config::table::Config;
use crate::keyspace::change::{Due, Effects};
use crate::keyspace::db::{Db, Touch};
use crate::keyspace::gate::Entered;
use crate::keyspace::hold::Hold;
use crate::keyspace::moment::Moment;
use crate::observe::stats::Counter;
use crate::resp::reply::Output;
use crate::stdx::clock::Recent;

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

/// Runs requests for one thread at a time: a worker, or a caller in this process.
pub struct Executor {
    worker: Option<usize>,
    gate: usize,
    together: usize,
    effects: Effects,
    /// The offset in the log up to which a worker's connections have changed something that may not be in the file yet.
    uncommitted: u64,
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
    /// Whether there is time to send replicas each change before it is answered.
    pub is_calm: bool,
    /// Whether CLIENT PAUSE held others back when the requests that run were looked at: no key expires then.
    paused: bool,
}

/// How far a thread has come with a batch, and what it has meanwhile.
struct Turn<'e> {
    /// The requests that are done with.
    at: usize,
    /// Its way through the gate; none while a script keeps everybody waiting, or while a log is replayed.
    gate: Option<Entered<'e>>,
    moment: Moment,
}

/// What is done next where requests do not simply go on.
enum Flow {
    /// The next one is looked at anew.
    Again,
    /// The batch ends here.
    Stop(Stop),
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
            uncommitted: 0,
            newest: Cache::new(engine.config.clone()),
            notable_ns: notable_ns(&config),
            config,
            renewal: Renewal::default(),
            newest_view: engine.cluster.as_ref().map(|cluster| Cache::new(cluster.view().clone())),
            time: Recent::default(),
            eviction: Eviction::default(),
            has_room: true,
            is_calm: true,
            paused: false,
        }
    }

    /// The configuration as it is now.
    #[inline]
    pub fn newest_config(&mut self) -> &Config {
        self.newest.load()
    }

    /// Runs the requests of a batch; returns how many were run and why it stopped there.
    pub fn run(&mut self, engine: &Engine, session: &mut Session, out: &mut Output, batch: Batch<'_>) -> (usize, Stop) {
        let ran = self.run_all(engine, session, out, &batch);
        self.commit(engine, session);
        ran
    }

    /// Sees to what was appended to the log, once nothing is held any more. A worker does so for several connections at
    /// once: before their replies leave, [`Executor::commit_all`] must be called.
    #[inline]
    fn commit(&mut self, engine: &Engine, session: &mut Session) {
        let logged = std::mem::take(&mut self.effects.logged);
        if logged > 0 {
            session.logged = logged;
            session.streamed = engine.replication.offset();
            match self.worker {
                Some(_) => self.uncommitted = logged,
                None => engine.commit(logged),
            }
        }
        if engine.replication.has_news() {
            engine.replication.tell_replicas(self.is_calm);
        }
    }

    /// Sees to all that connections have changed since it was called last, as [`Engine::commit`] does.
    #[inline]
    pub fn commit_all(&mut self, engine: &Engine) {
        if self.uncommitted > 0 {
            engine.commit(std::mem::take(&mut self.uncommitted));
        }
    }

    /// Whether [`Executor::commit_all`] would write to a file now, which costs as much for one change as for many.
    #[inline]
    pub fn would_write(&self, engine: &Engine) -> bool {
        self.uncommitted > 0 && engine.aof.is_on() && engine.aof.appender.would_write(self.uncommitted)
    }

    fn run_all(
        &mut self,
        engine: &Engine,
        session: &mut Session,
        out: &mut Output,
        batch: &Batch<'_>,
    ) -> (usize, Stop) {
        // Who replays runs alone.
        let replaying = session.replaying;
        let gate = if replaying { None } else { self.enter(engine) };
        // Behind the gate: what a transaction changes for a moment is seen by nobody.
        self.refresh_config();
        let mut turn = Turn { at: 0, gate, moment: self.moment(engine) };
        self.effects.replaying = replaying;
        session.shared.figures.active_ms.store(turn.moment.now_ms, Ordering::Relaxed);
        let mut gathered = Gathered::default();
        while turn.at < batch.requests.len() {
            if turn.gate.is_none() && !replaying {
                cold_path();
                turn.gate = self.enter(engine);
                self.refresh_config();
                turn.moment = self.moment(engine);
            }
            if is_over(engine, session) {
                cold_path();
                session.fate = Fate::Close;
                return (turn.at, Stop::Close);
            }
            // Asked once for those that run together: what is held back and what becomes of keys that are due go together.
            let pause = engine.pause.active(turn.moment.now_ms).filter(|_| !ignores_pause(session));
            self.paused = pause.is_some();
            self.effects.due = due(engine, session, &self.config, self.paused);
            let room = self.room(engine, session, out, &turn);
            let view = self.view(session);
            let now_ms = turn.moment.now_ms;
            let paced = engine.replication.is_paced(now_ms) && !ignores_pause(session);
            let standing = Standing { now_ms, room, pause, paced, view: view.as_deref() };
            let single = self.gather(engine, session, batch, &turn, &standing, &mut gathered);
            let mut flow = None;
            if !gathered.ready.is_empty() {
                flow = self.run_together(engine, session, out, batch, &mut turn, &standing, &mut gathered);
            }
            if flow.is_none()
                && let Some(verdict) = single
            {
                flow = self.run_verdict(engine, session, out, batch, &mut turn, &standing, verdict);
            }
            if let Some(Flow::Stop(stop)) = flow {
                return (turn.at, stop);
            }
        }
        (turn.at, Stop::Done)
    }

    /// Makes room for what is to run, where memory is at its limit.
    #[inline]
    fn room(&mut self, engine: &Engine, session: &Session, out: &mut Output, turn: &Turn<'_>) -> Room {
        // A replica has as much as its primary has: what is to go there, goes here too. What was evicted is removed by the log
        // that is replayed; and whoever is only told that the server is busy needs no room.
        let follows = session.follows.is_some();
        let roomy = follows || self.config.replica_ignore_maxmemory && engine.replication.is_following();
        let mut room = Room::Enough;
        if turn.gate.is_some() && !roomy {
            room = self.eviction.make_room(engine, &self.config, &turn.moment);
            while room == Room::Soon && session.in_process {
                // Whose thread this is has nothing else to do.
                std::thread::yield_now();
                room = self.eviction.make_room(engine, &self.config, &turn.moment);
            }
        }
        self.has_room = room == Room::Enough;
        if session.tracks_reads && !session.in_process && engine.memory_limit(&self.config) > 0 {
            // That keys which it has read had to make room is told before what they made room for is answered.
            session.shared.outbox.drain(out);
        }
        room
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

    #[inline]
    fn count_lookups(&self, engine: &Engine, [hits, misses, keys, fields]: [u64; 4]) {
        let count = |counter, by| match self.worker {
            _ if by == 0 => {}
            Some(worker) => engine.stats.worker(worker).add(counter, by),
            None => engine.stats.add(counter, by),
        };
        count(Counter::KeyspaceHits, hits);
        count(Counter::KeyspaceMisses, misses);
        count(Counter::ExpiredKeys, keys);
        count(Counter::ExpiredSubkeys, fields);
    }
}

/// Whether nothing is run any more for this session: what is not answered was not done.
#[inline]
fn is_over(engine: &Engine, session: &Session) -> bool {
    // The data set is on disk and nothing is added to it; or another role began, and what this link has to say is of the past.
    let past = session.follows.as_ref().is_some_and(|follow| follow.turn != engine.replication.turn());
    // Who was ended by a transaction sees nothing of what it did.
    past || engine.is_refusing(Refusal::Ending) || session.shared.is_closing()
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
        hands: Hands::Move,
        worker,
        has_room: true,
        scripted: false,
        hidden: SmallVec::new(),
        notable_ns,
    }
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

/// Adds to what a slot costs.
#[cold]
fn count_slot(engine: &Engine, slot: usize, cost: Cost) {
    if let Some(cluster) = &engine.cluster {
        cluster.stats.add(slot, cost);
    }
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

/// Has what a command pushed to its own client follow its reply.
#[cold]
fn echo(effects: &mut Effects, session: &Session, out: &mut Output) {
    effects.echo = false;
    // In process nobody looks for messages among replies.
    if !session.in_process {
        session.shared.outbox.drain(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Bench;
    use crate::resp::reply::Protocol;
    use crate::resp::request::Span;

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
    fn who_asks_while_data_is_loaded_is_told_so_unless_that_has_only_begun() {
        let mut bench = Bench::new();
        let engine = bench.engine.clone();
        engine.refuse(Refusal::Loading, true);
        engine.saves.loading.begin(engine.clock.now_ms(), 0);
        let (spans, requests) = ([Span { start: 0, len: 6 }], [Request { first: 0, args: 1, start: 0 }]);
        let batch = Batch { buf: b"DBSIZE", spans: &spans, requests: &requests };
        let mut out = Output::new(Protocol::Resp2);
        let (ran, stop) = Executor::new(&engine, None).run(&engine, &mut bench.session, &mut out, batch);
        assert!(ran == 0 && out.is_empty() && matches!(stop, Stop::Paused { .. }));
        assert_eq!(bench.run("CONFIG GET port"), "*2|$4|port|$4|6379|", "it is not concerned");
        bench.clock.advance(1000);
        assert_eq!(bench.run("DBSIZE"), "-LOADING Redis is loading the dataset in memory|");
        engine.refuse(Refusal::Loading, false);
        assert_eq!(bench.run("DBSIZE"), ":0|");
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

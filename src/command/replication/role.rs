//! Roles: a primary that becomes a replica, a replica that becomes a primary, and the data set that a replica is given.
//!
//! What must stay true: whoever changes the role runs alone, so that every command ran under one role or the other; a
//! link that was told to end does nothing more after that, which its turn says. As long as a data set is on its way
//! nobody sees half of it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::command::client::tracking;
use crate::command::context::{Context, Job, Outcome};
use crate::command::engine::{Engine, Refusal};
use crate::command::error::Error;
use crate::command::function;
use crate::command::replication::sync::OPEN_SLOTS;
use crate::command::replication::{answer_psync, feed_stream, look_at_acks};
use crate::command::save;
use crate::config::special::PrimaryAddress;
use crate::config::table::Config;
use crate::keyspace::change::{Effects, removal};
use crate::keyspace::hold::{Hold, ShardSet};
use crate::keyspace::shard::SHARDS;
use crate::keyspace::space::Keyspace;
use crate::observe::crash;
use crate::observe::log::{notice, warning};
use crate::persist::rdb;
use crate::persist::rdb::load::{self, Late, Loaded, Overdue, Progress, Twice};
use crate::persist::rdb::reader::Reader;
use crate::replication::history::History;
use crate::replication::{Primary, Stage};
use crate::stdx::number::parse_i64;

/// Why a client's command ends that waited for a key.
const ROLE_CHANGED: &str =
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";

fn configure(engine: &Engine, primary: Option<PrimaryAddress>) {
    // Whoever runs alone changes the configuration beside nobody.
    let old = engine.config.load_full();
    let mut new = Config::clone(&old);
    new.replicaof = primary;
    // What tells the role, the log among them, has no reason to refuse one.
    let _ = engine.host.apply(&new, &old, &[]);
    engine.config.store(Arc::new(new));
}

/// Ends the link of the present turn, whatever it is about.
fn end_turn(engine: &Engine) {
    engine.replication.next_turn();
    // A data set that is on its way is nobody's any more.
    engine.saves.loading.progress.stopped.store(true, Ordering::Relaxed);
}

/// Makes this server a replica of the one at `host` and `port`. The caller runs alone.
pub fn follow(engine: &Engine, host: &str, port: u16) {
    let replication = &engine.replication;
    configure(engine, Some(PrimaryAddress { host: host.to_owned(), port }));
    let led = !replication.is_following();
    replication.set_following(true);
    end_turn(engine);
    let selected = engine.log.selected().unwrap_or(0);
    let mut state = replication.state();
    if led {
        notice!(
            "Before turning into a replica, using my own master parameters to synthesize a cached master: I may be able to synchronize with the new master with just a partial transfer."
        );
        // The stream goes on where our own ends.
        replication.db.store(selected, Ordering::Relaxed);
    }
    let old = std::mem::take(&mut state.primary);
    state.primary = Primary {
        host: host.to_owned(),
        port,
        stage: Stage::Connect,
        resumes: led || old.resumes,
        down_since_ms: if old.stage == Stage::Connected { engine.clock.now_ms() } else { old.down_since_ms },
        ..Primary::default()
    };
    drop(state);
    engine.refuse(Refusal::Following, true);
    engine.refuse(Refusal::CutOff, true);
    feed_stream(engine);
    look_at_acks(engine);
    if led {
        for client in replication.waiting_for_primary() {
            let waits = client.wait.lock().clone();
            waits.into_iter().for_each(|wait| _ = wait.time_out());
        }
        // Who waits for the end of this server has its wish.
        for client in engine.clients.all().into_iter().filter(|client| !engine.farewell.is_awaited_by(client.id)) {
            let waits = client.wait.lock().clone();
            waits.into_iter().for_each(|wait| _ = wait.fail(ROLE_CHANGED));
        }
    }
}

/// Makes this server a primary. The caller runs alone.
pub fn lead(engine: &Engine) {
    let replication = &engine.replication;
    if !replication.is_following() {
        return;
    }
    configure(engine, None);
    replication.set_following(false);
    end_turn(engine);
    let mut state = replication.state();
    let offset = replication.offset();
    state.history.part(offset);
    notice!(
        "Setting secondary replication ID to {}, valid up to offset: {}. New replication ID is {}",
        state.history.second,
        offset + 1,
        state.history.id
    );
    state.primary = Primary::default();
    state.alone_since_ms = Some(engine.clock.now_ms());
    // They learn the new name when they come back, and go on where they are.
    state.replicas.iter().for_each(|replica| replica.client.close());
    drop(state);
    replication.logged.lock().clear();
    engine.refuse(Refusal::Following, false);
    engine.refuse(Refusal::CutOff, false);
    feed_stream(engine);
    look_at_acks(engine);
}

/// Has a replica whose primary asks it to take over do so, and answer that one's PSYNC afterwards.
pub fn take_over(ctx: &Context<'_>, id: String, offset: Vec<u8>) -> Job {
    // Who runs alone waits for us: so that is somebody else.
    let done = Arc::new(AtomicBool::new(false));
    let (theirs, engine) = (done.clone(), ctx.engine.arc());
    let work = move || {
        crash::prepare_thread();
        {
            let _alone = engine.keyspace.gates().alone();
            let _hold = engine.keyspace.hold(ShardSet::ALL);
            lead(&engine);
        }
        notice!("MASTER MODE enabled (failover request)");
        theirs.store(true, Ordering::Release);
    };
    let started = std::thread::Builder::new().name("role".into()).spawn(work).is_ok();
    let work = (done, started, id, offset);
    fn step(work: (Arc<AtomicBool>, bool, String, Vec<u8>), ctx: &mut Context<'_>) -> Result<Outcome, Error> {
        let (done, started, id, offset) = &work;
        if !started {
            return Err(Error::text("ERR The system refuses a thread"));
        }
        if !done.load(Ordering::Acquire) {
            std::thread::yield_now();
            return crate::command::context::later(work, step);
        }
        answer_psync(ctx, id, offset)
    }
    let mut work = Some(work);
    Box::new(move |ctx| match work.take() {
        Some(work) => step(work, ctx),
        None => crate::command::context::DONE,
    })
}

/// Whether this server follows another, or will as soon as it has its data set: expired keys are then for the other to
/// remove.
pub fn is_replica(engine: &Engine) -> bool {
    let cluster = || engine.cluster.as_ref().is_some_and(|cluster| cluster.view().load().is_replica);
    engine.config.load().replicaof.is_some() || cluster()
}

/// Goes by what the configuration says when the server starts, once its data set is loaded; `loaded` is what the file
/// says of the stream that it is a result of.
pub fn begin(engine: &Engine, loaded: Option<&Loaded>) {
    let config = engine.config.load_full();
    let replication = &engine.replication;
    replication.set_keep(config.repl_backlog_size);
    let found = loaded.and_then(stream_of);
    if let Some((id, offset, db)) = &found {
        let mut state = replication.state();
        replication.set_offset(&mut state, *offset);
        replication.keep_stream(&mut state);
        // A replica may go on where it stopped.
        state.history = History::of(id);
        if !is_replica(engine) {
            // Those who followed it may: what it writes from here on is another stream, but they have it up to here.
            state.history.part(*offset);
            state.alone_since_ms = Some(engine.clock.now_ms());
        }
        replication.select(*db, config.databases);
    }
    let named = config.replicaof.as_ref().map(|primary| (primary.host.clone(), primary.port));
    // Before anything expires here, which would make our stream another.
    let in_cluster = || engine.cluster.as_ref()?.with(engine.clock.now_ms(), |machine| machine.primary_address());
    if let Some((host, port)) = named.or_else(in_cluster) {
        follow(engine, &host, port);
        let mut state = replication.state();
        // What was not a replica's has nothing in common with a primary.
        state.primary.resumes = found.is_some();
        if let Some((_, _, db)) = found {
            // What was our own stream until now is not what it goes on with.
            replication.select(db, config.databases);
        }
    } else {
        feed_stream(engine);
        if found.is_some() {
            loaded.iter().for_each(|loaded| tell_late(engine, &loaded.late, &config));
        }
    }
}

/// Tells those who go on where they stopped of keys that they have and we have left out. Where these are more than the
/// stream that is kept, nobody can go on.
fn tell_late(engine: &Engine, late: &Late, config: &Config) {
    if late.bytes > config.repl_backlog_size {
        let replication = &engine.replication;
        return replication.set_offset(&mut replication.state(), replication.offset() + late.bytes);
    }
    let mut keys: Vec<&(usize, Vec<u8>)> = late.keys.iter().collect();
    keys.sort_by_key(|(db, _)| *db);
    for (db, key) in keys {
        engine.log.append_one(*db, &removal(key.clone(), config.lazyfree_lazy_expire));
    }
}

/// What a file says of the stream that it is a result of: its name, how many bytes of it, the selected database.
pub fn stream_of(loaded: &Loaded) -> Option<(String, u64, usize)> {
    let number = |name| loaded.aux(name).and_then(parse_i64).and_then(|n| u64::try_from(n).ok());
    let id = std::str::from_utf8(loaded.aux("repl-id")?).ok().filter(|id| crate::replication::history::is_id(id))?;
    Some((id.to_owned(), number("repl-offset")?, number("repl-stream-db").unwrap_or(0) as usize))
}

/// How a data set takes the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking {
    /// The old one is gone first; meanwhile nobody is answered.
    Emptied,
    /// The new one is made aside: until it is complete the old one is read.
    Aside,
    /// The same, but nobody is answered meanwhile: the old one has nothing to do with the new.
    AsideInSilence,
}

/// A data set as it comes from a primary.
pub struct Arrival<'r> {
    /// Where it is read from.
    pub source: &'r mut (dyn io::Read + Send),
    /// How it takes the place of the old one.
    pub taking: Taking,
    /// The stream and how many bytes of it the data set is a result of.
    pub stream: Option<(String, u64)>,
    /// The link's time: where another began meanwhile, nothing is done any more.
    pub turn: u64,
    /// How many bytes there are, where that is known.
    pub total_bytes: u64,
}

/// Holds everything, alone, as long as a link is to go on.
fn alone<R>(engine: &Engine, turn: u64, f: impl FnOnce(&mut Hold<'_>) -> R) -> Result<R, String> {
    let _alone = engine.keyspace.gates().alone();
    let mut hold = engine.keyspace.hold(ShardSet::ALL);
    if engine.replication.turn() != turn {
        return Err("The link was ended".into());
    }
    Ok(f(&mut hold))
}

/// Takes over a data set; the stream follows it.
///
/// # Errors
/// What is to be logged. What was there is gone then, unless the new data set was made aside, or the link ended before.
pub fn take(engine: &Engine, arrival: Arrival<'_>) -> Result<(), String> {
    let Arrival { source, taking, stream, turn, total_bytes } = arrival;
    let config = engine.config.load_full();
    let aside = match taking {
        Taking::Emptied => None,
        Taking::Aside | Taking::AsideInSilence => Some(engine.keyspace.aside().map_err(|error| error.to_string())?),
    };
    let loading = &engine.saves.loading;
    loading.begin(engine.clock.now_ms(), total_bytes);
    if taking == Taking::Emptied {
        notice!("MASTER <-> REPLICA sync: Flushing old data");
        alone(engine, turn, |hold| {
            leave_behind(engine);
            empty(engine, hold);
            // From here on there is nothing that could go on, here or at replicas of ours.
            let mut state = engine.replication.state();
            state.primary.resumes = false;
            state.history = History::begin();
            drop(state);
            loading.active.store(true, Ordering::Release);
            engine.refuse(Refusal::Loading, true);
        })?;
    } else if taking == Taking::Aside {
        loading.aside.store(true, Ordering::Release);
        engine.refuse(Refusal::LoadingAside, true);
    } else {
        loading.active.store(true, Ordering::Release);
        engine.refuse(Refusal::Loading, true);
    }
    notice!("MASTER <-> REPLICA sync: Loading DB in memory");
    let into: &Keyspace = aside.as_ref().unwrap_or(&engine.keyspace);
    let loaded = load::load(into, &mut Reader::new(source), manner(engine, &config), threads(), &loading.progress);
    let result = match loaded {
        Ok(loaded) => settle(engine, turn, aside, &loaded, stream),
        Err(error) => {
            tell_broken(&error);
            if taking == Taking::Emptied {
                // Nobody is to see half of it, nor is it to be kept: also where the link was ended, for nobody else changes
                // anything before this returns.
                let _alone = engine.keyspace.gates().alone();
                empty(engine, &mut engine.keyspace.hold(ShardSet::ALL));
            } else {
                notice!("MASTER <-> REPLICA sync: Discarding temporary DB in background");
            }
            Err(error.to_string())
        }
    };
    loading.active.store(false, Ordering::Release);
    loading.aside.store(false, Ordering::Release);
    engine.refuse(Refusal::Loading, false);
    engine.refuse(Refusal::LoadingAside, false);
    result
}

fn tell_broken(error: &rdb::Error) {
    warning!("Internal error in RDB reading offset {}: {error}", error.offset);
    warning!("Failed trying to load the MASTER synchronization DB, check server logs");
}

fn manner<'c>(engine: &Engine, config: &'c Config) -> load::Manner<'c> {
    // Whether what has passed is to go is for the primary to say.
    load::Manner { config, moment: engine.moment(config), overdue: Overdue::Keep, twice: Twice::Refuse, behind: true }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Reads a data set that came from a primary, and changes nothing.
///
/// # Errors
/// What is to be logged of one that cannot be read.
pub fn check(engine: &Engine, source: &mut (dyn io::Read + Send)) -> Result<(), String> {
    let config = engine.config.load_full();
    let read = load::check(&mut Reader::new(source), manner(engine, &config), threads(), &Progress::default());
    read.map(|_| ()).map_err(|error| {
        tell_broken(&error);
        notice!("MASTER <-> REPLICA sync: Keeping the old data set");
        error.to_string()
    })
}

/// Ends the connections of our replicas: what they followed goes on no more.
fn leave_behind(engine: &Engine) {
    let state = engine.replication.state();
    state.replicas.iter().for_each(|replica| replica.client.close());
}

/// Removes everything, and tells those who listen.
fn empty(engine: &Engine, hold: &mut Hold<'_>) {
    forget_keys(engine, hold);
    engine.replication.own.lock().clear();
    let flushed = engine.keyspace.take_all(hold, None);
    engine.keyspace.reclaimer().free(flushed.keys, flushed);
    function::replace(&engine.scripts, &[]);
}

/// Tells those who listen to keys that all of them change.
fn forget_keys(engine: &Engine, hold: &mut Hold<'_>) {
    for shard in 0..SHARDS {
        hold.visit(shard, |shard| {
            let Some(listeners) = shard.listeners() else { return };
            for (db, key, hash) in listeners.keys() {
                if shard.part(db).is_some_and(|part| part.find(hash, &key).is_some()) {
                    listeners.touch(db, &key);
                }
            }
        });
    }
    tracking::flushed(engine, &mut Effects::default());
}

/// Notes which slots the primary has on their way. One that says nothing has none, or none that it tells replicas of.
fn follow_open_slots(engine: &Engine, loaded: &Loaded) {
    let Some(cluster) = &engine.cluster else { return };
    let open = loaded.aux(OPEN_SLOTS).unwrap_or_default();
    if !cluster.with(engine.clock.now_ms(), |machine| machine.follow_open_slots(open)) {
        warning!("The data set of the primary has slot states that cannot be understood.");
    }
}

/// Puts a data set that was made aside in its place, and notes which stream it is a result of.
fn settle(
    engine: &Engine,
    turn: u64,
    aside: Option<Keyspace>,
    loaded: &Loaded,
    stream: Option<(String, u64)>,
) -> Result<(), String> {
    let functions: &[Vec<u8>] = &loaded.functions;
    // Nothing but this is done while everybody waits.
    let aside = Mutex::new(aside);
    alone(engine, turn, |hold| {
        let aside = aside.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(aside) = aside {
            leave_behind(engine);
            empty(engine, hold);
            engine.keyspace.move_in(hold, aside);
        }
        let replication = &engine.replication;
        let mut state = replication.state();
        match stream {
            Some((id, offset)) => {
                state.history = History::of(&id);
                replication.set_offset(&mut state, offset);
                state.primary.resumes = true;
            }
            None => {
                state.history = History::begin();
                state.primary.resumes = false;
            }
        }
        replication.keep_stream(&mut state);
        state.primary.read_offset = replication.offset();
        let db = loaded.aux("repl-stream-db").and_then(parse_i64).map_or(0, |db| db.max(0) as usize);
        replication.select(db, engine.config.load().databases);
        drop(state);
        replication.logged.lock().clear();
        engine.dirty.store(0, Ordering::Relaxed);
        follow_open_slots(engine, loaded);
    })?;
    save::tell_loaded(engine, loaded, functions);
    notice!("MASTER <-> REPLICA sync: Finished with success");
    Ok(())
}

//! The append only file made as short as it can be.
//!
//! A rewrite makes a new base beside the log: first the next increment is made and named in the manifest, then, at one
//! point in time, a snapshot begins and the log goes on in the new increment, then the base is written, and at last the
//! manifest names the new base and what came after it. Wherever that ends early, the manifest names files that make up
//! the data set.

use crate::command::aof::join;
use crate::command::aof::paths::{directory, file, persist, temporary_path, waiting_path};
use crate::command::engine::{Engine, Refusal};
use crate::command::save;
use crate::config::table::Config;
use crate::keyspace::hidden::Walked;
use crate::keyspace::hold::{Hold, ShardSet};
use crate::keyspace::snapshot::{Encode, Piece, Progress, Snapshot};
use crate::observe::crash;
use crate::observe::log::{notice, warning};
use crate::persist::aof::commands::{self, Commands};
use crate::persist::aof::manifest::{Manifest, Part};
use crate::persist::aof::{Rewrite, State};
use crate::persist::disk::{self, Append, Temporary, plain};
use crate::persist::rdb::save::{Audience, Failure, Head, Manner};
use crate::resp::reply::{Output, Protocol};
use crate::stdx::affinity;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// A base is synced every few megabytes while it is written.
const SYNC_EVERY_BYTES: u64 = 4 << 20;
/// After so many failures in a row the next automatic rewrite waits.
const PATIENT_FAILURES: u64 = 3;
/// No longer than this, in milliseconds.
const LONGEST_WAIT_MS: u64 = 3_600_000;

/// Has a rewrite begin, which nothing is in the way of; it is told by `aof_rewrite_in_progress` from now on, and goes by
/// `config` whatever changes meanwhile.
///
/// # Errors
/// There is one already, or the system refuses a thread.
pub fn begin_rewrite(engine: &Engine, config: Arc<Config>) -> Result<(), String> {
    let aof = &engine.aof;
    let mut rewrite = aof.rewrite.lock();
    if rewrite.is_some() {
        return Err("there is one already".into());
    }
    let shared = engine.arc();
    let work = move || {
        crash::prepare_thread();
        affinity::keep_to(config.aof_rewrite_cpulist.as_deref());
        run_rewrite(&shared, &config);
    };
    std::thread::Builder::new().name("rewrite".into()).spawn(work).map_err(|error| plain(&error))?;
    *rewrite = Some(Rewrite { started_ms: engine.clock.now_ms(), progress: Progress::default(), stopped: false });
    aof.scheduled.store(false, Ordering::Relaxed);
    aof.rewrites.fetch_add(1, Ordering::Relaxed);
    notice!("Background append only file rewriting started by pid {}", std::process::id());
    Ok(())
}

/// The thread of a rewrite.
fn run_rewrite(engine: &Engine, config: &Config) {
    let (aof, started) = (&engine.aof, Instant::now());
    let result = rewrite(engine, config);
    disk::remove(&temporary_path(config));
    let took = i64::try_from(started.elapsed().as_secs()).unwrap_or(i64::MAX);
    aof.took_s.store(took, Ordering::Relaxed);
    aof.tried_ms.store(engine.clock.now_ms(), Ordering::Relaxed);
    let mut rewrite = aof.rewrite.lock();
    let stopped = rewrite.as_ref().is_some_and(|rewrite| rewrite.stopped);
    if let Some(rewrite) = &*rewrite {
        aof.peak_bytes.store(rewrite.progress.peak_bytes(), Ordering::Relaxed);
    }
    match result {
        Ok(()) => {
            notice!("Background AOF rewrite terminated with success");
            aof.failed.store(false, Ordering::Relaxed);
            aof.failures.store(0, Ordering::Relaxed);
        }
        Err(_) if stopped => warning!("Background AOF rewrite terminated by signal {}", libc::SIGUSR1),
        Err(reason) => {
            warning!("Background AOF rewrite terminated with error: {reason}");
            aof.failed.store(true, Ordering::Relaxed);
            aof.failures.fetch_add(1, Ordering::Relaxed);
        }
    }
    if aof.state() == State::Waiting {
        // Without a base there is no log: it is tried again.
        aof.scheduled.store(true, Ordering::Relaxed);
    }
    *rewrite = None;
}

fn rewrite(engine: &Engine, config: &Config) -> Result<(), String> {
    disk::make_directory(&directory(config)).map_err(say("the directory"))?;
    let state = engine.aof.state();
    let next = make_next(engine, config, state)?;
    let encoder: Arc<dyn Encode> = match config.aof_use_rdb_preamble {
        true => crate::persist::rdb::save::encoder(config, engine.moment(config), Audience::File),
        false => Arc::new(Commands),
    };
    let begun = begin(engine, config, state, next, encoder)?;
    let part = begun.part.clone();
    let base = write_base(engine, config, begun)?;
    adopt(engine, config, state, base, part)
}

/// Says what it was that an error is about.
fn say(what: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("{what}: {}", plain(&error))
}

/// Makes the file that takes what comes after the base, and returns its name; `None` where there is no log.
fn make_next(engine: &Engine, config: &Config, state: State) -> Result<Option<(Part, Append)>, String> {
    let aof = &engine.aof;
    match state {
        State::Off => Ok(None),
        State::On => {
            // It is named before anything is in it.
            let mut manifest = aof.manifest.lock();
            let mut with = manifest.clone();
            let part = with.next_increment(&config.appendfilename);
            let path = file(config, &part);
            disk::remove(&path);
            let (append, _) = Append::open(&path).map_err(say("the next file"))?;
            with.increments.push(part.clone());
            persist(config, &with).map_err(say("the manifest"))?;
            *manifest = with;
            Ok(Some((part, append)))
        }
        State::Waiting => {
            let path = waiting_path(config);
            disk::remove(&path);
            let (append, _) = Append::open(&path).map_err(say("the next file"))?;
            Ok(Some((aof.manifest.lock().next_increment(&config.appendfilename), append)))
        }
    }
}

/// A base that is yet to be written.
struct Begun {
    snapshot: Snapshot,
    /// Where what comes after it goes.
    part: Option<Part>,
    /// What a file says of itself.
    head: Head,
}

/// Takes the moment that the base shows; from there on the log goes to the next file.
fn begin(
    engine: &Engine,
    config: &Config,
    state: State,
    next: Option<(Part, Append)>,
    encoder: Arc<dyn Encode>,
) -> Result<Begun, String> {
    let aof = &engine.aof;
    let _alone = engine.keyspace.gates().alone();
    let mut hold = engine.keyspace.hold(ShardSet::ALL);
    if is_stopped(engine, state) {
        return Err("stopped".into());
    }
    let Some(snapshot) = Snapshot::begin(engine.keyspace.snapshot(), &mut hold, encoder) else {
        aof.scheduled.store(true, Ordering::Relaxed);
        return Err("a snapshot began meanwhile".into());
    };
    if let Some(rewrite) = &mut *aof.rewrite.lock() {
        rewrite.progress = snapshot.progress.clone();
    }
    let before = aof.appender.size.load(Ordering::Relaxed);
    let part = next.map(|(part, append)| {
        join(engine, config, append, 0);
        part
    });
    if state == State::On {
        aof.others_bytes.fetch_add(before, Ordering::Relaxed);
    }
    Ok(Begun { snapshot, part, head: save::head(engine, save::Purpose::Base) })
}

/// Whether the rewrite has lost its purpose: it was stopped, or the log was turned on or off meanwhile.
fn is_stopped(engine: &Engine, state: State) -> bool {
    let stopped = engine.aof.rewrite.lock().as_ref().is_none_or(|rewrite| rewrite.stopped);
    stopped || engine.aof.state() != state
}

/// Writes the base to a file that has no name yet.
fn write_base(engine: &Engine, config: &Config, begun: Begun) -> Result<Temporary, String> {
    let Begun { snapshot, head, .. } = begun;
    let mut hold = engine.keyspace.hold_none();
    let sync_every = config.aof_rewrite_incremental_fsync.then_some(SYNC_EVERY_BYTES);
    let mut sink = Temporary::create(&temporary_path(config), sync_every);
    let mut nowhere = io::sink();
    let to: &mut (dyn Write + Send) = match &mut sink {
        Ok(file) => file,
        Err(_) => {
            // It must be walked in any case.
            snapshot.progress.stop();
            &mut nowhere
        }
    };
    let written = match config.aof_use_rdb_preamble {
        true => {
            let running = engine.keyspace.snapshot();
            crate::persist::rdb::save::write(snapshot, running, &mut hold, &head, Manner::of(config), to)
        }
        false => write_commands(snapshot, engine, &mut hold, &head, to),
    };
    let base = sink.map_err(say("the temporary file"))?;
    written.map_err(|error| error.to_string())?;
    Ok(base)
}

/// Gives the base its name, and makes it and what came after it the log; what was before is of no use any more.
fn adopt(engine: &Engine, config: &Config, state: State, written: Temporary, part: Option<Part>) -> Result<(), String> {
    let aof = &engine.aof;
    let mut manifest = aof.manifest.lock();
    let base = manifest.next_base(&config.appendfilename, config.aof_use_rdb_preamble);
    written.commit(&file(config, &base)).map_err(say("the base"))?;
    let mut with = Manifest { base: Some(base), ..Manifest::default() };
    with.history = manifest.history.clone();
    with.history.extend(manifest.base.clone());
    with.history.extend(manifest.increments.iter().filter(|old| Some(*old) != part.as_ref()).cloned());
    if is_stopped(engine, state) {
        // Nobody knows this base.
        with.base.iter().for_each(|base| disk::remove(&file(config, base)));
        return Err("stopped".into());
    }
    if let Some(part) = &part {
        if state == State::Waiting {
            disk::rename(&waiting_path(config), &file(config, part)).map_err(say("the next file"))?;
        }
        with.increments.push(part.clone());
    }
    persist(config, &with).map_err(say("the manifest"))?;
    let base_bytes = with.base.as_ref().map_or(0, |base| disk::length(&file(config, base)));
    *manifest = with;
    if state == State::Waiting {
        aof.set_state(State::On);
    }
    aof.others_bytes.store(base_bytes, Ordering::Relaxed);
    aof.base_bytes.store(aof.bytes(), Ordering::Relaxed);
    if !config.aof_disable_auto_gc {
        remove_history(config, &mut manifest).map_err(say("old files"))?;
    }
    Ok(())
}

/// Removes what is of no use any more.
fn remove_history(config: &Config, manifest: &mut Manifest) -> io::Result<()> {
    if manifest.history.is_empty() {
        return Ok(());
    }
    let without = Manifest { history: Vec::new(), ..manifest.clone() };
    manifest.history.iter().for_each(|part| disk::remove(&file(config, part)));
    persist(config, &without)?;
    *manifest = without;
    Ok(())
}

/// Writes a base of commands.
fn write_commands(
    snapshot: Snapshot,
    engine: &Engine,
    hold: &mut Hold<'_>,
    head: &Head,
    to: &mut (dyn Write + Send),
) -> Result<(), Failure> {
    let mut selected = None;
    let mut front = functions(head);
    if engine.config.load().aof_timestamp_enabled {
        let stamp = format!("#TS:{}\r\n", engine.clock.now_ms() / 1000);
        front.splice(..0, stamp.into_bytes());
    }
    let mut begun = Some(to.write_all(&front));
    let walked = snapshot.walk(engine.keyspace.snapshot(), hold, |piece: Piece<'_>| {
        if let Some(Err(error)) = begun.take() {
            return Err(error);
        }
        if selected != Some(piece.db) {
            selected = Some(piece.db);
            to.write_all(&commands::select(piece.db))?;
        }
        to.write_all(piece.bytes)
    });
    match (begun, walked) {
        (Some(Err(error)), _) | (_, Err(Some(error))) => Err(error.into()),
        (_, Err(None)) => Err(Failure::Stopped),
        (_, Ok(())) => Ok(()),
    }
}

/// Commands that load the libraries of functions.
fn functions(head: &Head) -> Vec<u8> {
    let mut out = Output::new(Protocol::Resp2);
    for source in &head.functions {
        out.array(3);
        out.bulk(b"FUNCTION");
        out.bulk(b"LOAD");
        out.bulk(source);
    }
    out.to_vec()
}

/// Writes a base of what `hold`, which holds everything, has.
///
/// # Errors
/// It cannot be written.
pub fn write_held(engine: &Engine, config: &Config, hold: &mut Hold<'_>, base: &Part) -> io::Result<()> {
    let mut to = Temporary::create(&temporary_path(config), None)?;
    let head = save::head(engine, save::Purpose::Base);
    if config.aof_use_rdb_preamble {
        let encoder = crate::persist::rdb::save::encoder(config, engine.moment(config), Audience::File);
        let manner = Manner::of(config);
        crate::persist::rdb::save::write_held(&engine.keyspace, hold, &*encoder, &head, manner, &mut to)?;
    } else {
        to.write_all(&functions(&head))?;
        let mut bytes = Vec::new();
        for (db, _) in engine.keyspace.counts(hold, 0) {
            bytes.extend(commands::select(db));
            let mut cursor = 0;
            loop {
                cursor = engine
                    .keyspace
                    .scan(hold, db, Walked::All, cursor, 1024, |entry| Commands.encode(entry, &mut bytes, None));
                to.write_all(&bytes)?;
                bytes.clear();
                if cursor == 0 {
                    break;
                }
            }
        }
    }
    to.commit(&file(config, base))
}

/// Begins a rewrite that was scheduled, or is due because the log has grown. Called by the timers, which hold nothing.
pub fn look_at_growth(engine: &Engine) {
    let aof = &engine.aof;
    let busy = engine.saves.loading.active.load(Ordering::Relaxed)
        || engine.saves.is_running()
        || engine.keyspace.snapshot().is_active()
        || aof.is_rewriting();
    if busy || engine.is_refusing(Refusal::Ending) {
        return;
    }
    let failures = aof.failures.load(Ordering::Relaxed);
    if failures >= PATIENT_FAILURES {
        let minutes = 1u64 << (failures - PATIENT_FAILURES).min(10);
        let wait_ms = (minutes * 60_000).min(LONGEST_WAIT_MS);
        if engine.clock.now_ms().saturating_sub(aof.tried_ms.load(Ordering::Relaxed)) < wait_ms {
            return;
        }
    }
    let scheduled = aof.scheduled.load(Ordering::Relaxed);
    let config = engine.config.load();
    let (now, base) = (aof.bytes(), aof.base_bytes.load(Ordering::Relaxed).max(1));
    let percentage = u64::from(config.auto_aof_rewrite_percentage);
    let growth = now.saturating_mul(100) / base;
    let due = aof.state() == State::On
        && percentage > 0
        && now > config.auto_aof_rewrite_min_size
        && growth >= percentage.saturating_add(100);
    if !scheduled && !due {
        return;
    }
    if due && !scheduled {
        notice!("Starting automatic rewriting of AOF on {}% growth", growth - 100);
    }
    if let Err(error) = begin_rewrite(engine, engine.config.load_full()) {
        warning!("Can't rewrite append only file in background: {error}");
    }
}

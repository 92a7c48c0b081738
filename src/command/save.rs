//! SAVE, BGSAVE, LASTSAVE, and what saves by itself: save points, and the end of the server.
//!
//! What must stay true: a file takes its name only when it is complete and synced. Whoever begins a save runs alone,
//! so that it is of one point in time; one goes on in the background at a time.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::command::aof;
use crate::command::args::Args;
use crate::command::context::{Context, DONE, Reply};
use crate::command::engine::{Engine, Refusal, ShutdownRequest};
use crate::command::error::Error;
use crate::command::function;
use crate::command::replication::role;
use crate::command::table::Command;
use crate::config::table::Config;
use crate::keyspace::hold::{Hold, ShardSet};
use crate::keyspace::snapshot::Snapshot;
use crate::observe::log::{notice, warning};
use crate::persist::disk::{self, Temporary, plain};
use crate::persist::rdb::load::{self, Loaded, Overdue, Twice};
use crate::persist::rdb::reader::Reader;
use crate::persist::rdb::save::{self, Audience, Failure, Head, Manner};
use crate::persist::rdb::{self, Reason};
use crate::persist::saves::Running;
use crate::spec::{Arity, Flag, Group, REDIS_VERSION};
use crate::stdx::{affinity, memory};

/// This family's commands.
pub const COMMANDS: &[Command] = &[BGSAVE, LASTSAVE, SAVE];

/// A file is synced every few megabytes while it is written.
const SYNC_EVERY_BYTES: u64 = 4 << 20;
/// After a failure the save points wait for so long.
const RETRY_MS: u64 = 5000;

/// Saves the data set before it replies; nothing else runs meanwhile.
pub const SAVE: Command = Command {
    name: "SAVE",
    since: "1.0.0",
    group: Group::Server,
    arity: Arity::Exactly(1),
    flags: &[Flag::Admin, Flag::NoScript, Flag::NoAsyncLoading, Flag::NoMulti, Flag::Alone],
    categories: &[],
    keys: &[],
    usage: "",
    summary: "Synchronously saves the database(s) to disk.",
    complexity: "O(N) where N is the total number of keys in all databases",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: |ctx, _| {
        if ctx.engine.saves.is_running() {
            return Err(Error::text("ERR Background save already in progress"));
        }
        save_now(ctx.engine, ctx.config, &mut ctx.db.hold).map_err(|_| Error::text("ERR"))?;
        ctx.out.ok();
        DONE
    },
};

/// Begins to save the data set as it is now, and replies at once. SCHEDULE waits for what is in the way.
pub const BGSAVE: Command = Command {
    name: "BGSAVE",
    arity: Arity::AtLeast(1),
    flags: &[Flag::Admin, Flag::NoScript, Flag::NoAsyncLoading, Flag::Alone],
    usage: "[operation(| SCHEDULE@3.2.2)]",
    summary: "Asynchronously saves the database(s) to disk.",
    complexity: "O(1)",
    history: &[("3.2.2", "Added the `SCHEDULE` option.")],
    run: bgsave,
    ..SAVE
};

/// Replies the Unix time of the last save that succeeded.
pub const LASTSAVE: Command = Command {
    name: "LASTSAVE",
    flags: &[Flag::Loading, Flag::Stale, Flag::Fast],
    categories: &[crate::spec::Category::Admin, crate::spec::Category::Dangerous],
    summary: "Returns the Unix timestamp of the last successful save to disk.",
    complexity: "O(1)",
    tips: &["nondeterministic_output"],
    run: |ctx, _| {
        ctx.out.integer(ctx.engine.saves.last_s.load(Ordering::Relaxed).cast_signed());
        DONE
    },
    ..SAVE
};

/// The data set was not saved; why was logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotSaved;

fn in_the_way() -> Error {
    Error::text(
        "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in order to schedule a BGSAVE whenever possible.",
    )
}

fn bgsave(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let schedule = match args.len() {
        1 => false,
        2 if args.is(1, "SCHEDULE") => true,
        _ => return Err(Error::Syntax),
    };
    let saves = &ctx.engine.saves;
    saves.scheduled.store(false, Ordering::Relaxed);
    if saves.is_running() {
        return Err(Error::text("ERR Background save already in progress"));
    }
    let is_hindered = ctx.engine.keyspace.snapshot().is_active() || ctx.engine.aof.is_rewriting();
    if is_hindered || ctx.is_in_group() {
        if !schedule && !ctx.is_in_group() {
            return Err(in_the_way());
        }
        saves.scheduled.store(true, Ordering::Relaxed);
        ctx.out.simple("Background saving scheduled");
        return DONE;
    }
    begin(ctx.engine, &mut ctx.db.hold).map_err(|_| Error::text("ERR"))?;
    ctx.out.simple("Background saving started");
    DONE
}

/// Where the snapshot is kept.
pub fn path(config: &Config) -> PathBuf {
    name_in_dir(config, &config.dbfilename)
}

fn name_in_dir(config: &Config, name: &[u8]) -> PathBuf {
    let as_path = |bytes: &[u8]| PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
    as_path(&config.dir.0).join(as_path(name))
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It is a snapshot.
    Snapshot,
    /// It is the base of an append only file.
    Base,
}

/// What a file says about itself.
pub fn head(engine: &Engine, purpose: Purpose) -> Head {
    let text = |n: u64| n.to_string().into_bytes();
    Head {
        aux: vec![
            ("redis-ver", REDIS_VERSION.into()),
            ("redis-bits", text(usize::BITS.into())),
            ("ctime", text(engine.clock.now_ms() / 1000)),
            ("used-mem", text(memory::used() as u64)),
        ]
        .into_iter()
        .chain(stream(engine, purpose))
        .chain([("aof-base", text(u64::from(purpose == Purpose::Base)))])
        .collect(),
        functions: engine.scripts.libraries.load().iter().map(|library| library.code.clone()).collect(),
    }
}

/// What a file says of the stream that it is a result of, so that who reads it can go on with it. Called while nobody
/// changes anything.
fn stream(engine: &Engine, purpose: Purpose) -> Vec<(&'static str, Vec<u8>)> {
    let replication = &engine.replication;
    let selected = engine.log.selected();
    let state = replication.state();
    let db = match replication.is_following() {
        true if !state.primary.resumes && state.primary.client.is_none() => return Vec::new(),
        true => replication.db.load(Ordering::Relaxed),
        false => selected.unwrap_or(0),
    };
    if purpose == Purpose::Base || state.backlog.is_none() {
        return Vec::new();
    }
    vec![
        ("repl-stream-db", db.to_string().into_bytes()),
        ("repl-id", state.history.id.clone().into_bytes()),
        ("repl-offset", replication.offset().to_string().into_bytes()),
    ]
}

/// Who writes a file. Each has a temporary one of its own: the one may end while the other goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Foreground,
    Background,
}

/// What a file is called until it is complete.
fn temporary(config: &Config, place: Place) -> PathBuf {
    let kind = if place == Place::Background { "bgsave-" } else { "" };
    name_in_dir(config, format!("temp-{kind}{}.rdb", std::process::id()).as_bytes())
}

/// Removes what is not complete, for a process that ends at once.
pub fn abandon(config: &Config) {
    for place in [Place::Foreground, Place::Background] {
        disk::remove(&temporary(config, place));
    }
    disk::remove(&aof::paths::temporary_path(config));
}

/// Opens the temporary file; what goes wrong is logged.
fn create(config: &Config, place: Place) -> io::Result<Temporary> {
    let path = temporary(config, place);
    let sync_every = config.rdb_save_incremental_fsync.then_some(SYNC_EVERY_BYTES);
    Temporary::create(&path, sync_every).inspect_err(|error| {
        warning!(
            "Failed opening the temp RDB file {} (in server root dir {}) for saving: {}",
            path.display(),
            String::from_utf8_lossy(&config.dir.0),
            plain(error)
        );
    })
}

fn tell_failure(config: &Config, error: &io::Error) {
    warning!("Write error while saving DB to the disk({}): {}", path(config).display(), plain(error));
}

/// Saves the data set, all of which is held. A save in the background goes on beside it. What went wrong is logged.
///
/// # Errors
/// It was not saved.
pub fn save_now(engine: &Engine, config: &Config, hold: &mut Hold<'_>) -> Result<(), NotSaved> {
    let encoder = save::encoder(config, engine.moment(config), Audience::File);
    let (head, manner) = (head(engine, Purpose::Snapshot), Manner::of(config));
    let mut file = create(config, Place::Foreground).map_err(|_| NotSaved)?;
    let written = save::write_held(&engine.keyspace, hold, &*encoder, &head, manner, &mut file);
    written.and_then(|()| file.commit(&path(config))).map_err(|error| {
        tell_failure(config, &error);
        NotSaved
    })?;
    notice!("DB saved on disk");
    engine.dirty.store(0, Ordering::Relaxed);
    engine.saves.succeeded(engine.clock.now_ms());
    engine.refuse(Refusal::SaveFailed, false);
    Ok(())
}

/// What FLUSHALL does beside removing keys: a save in the background would bring back what is gone, and where save
/// points are set the file is to be as empty as the keyspace. Returns whether it is. `hold` holds everything.
pub fn flushed(engine: &Engine, config: &Config, hold: &mut Hold<'_>) -> bool {
    engine.saves.stop();
    // What went wrong was logged, and FLUSHALL succeeds in any case.
    !config.save.0.is_empty() && save_now(engine, config, hold).is_ok()
}

/// Begins to save in the background what `hold`, which holds everything, has now. Nothing else may be in the way.
///
/// # Errors
/// It could not begin; why is logged.
pub fn begin(engine: &Engine, hold: &mut Hold<'_>) -> Result<(), NotSaved> {
    let config = engine.config.load_full();
    let saves = &engine.saves;
    saves.tried_ms.store(engine.clock.now_ms(), Ordering::Relaxed);
    let encoder = save::encoder(&config, engine.moment(&config), Audience::File);
    let snapshot = Snapshot::begin(engine.keyspace.snapshot(), hold, encoder).ok_or(NotSaved)?;
    *saves.running.lock() = Some(Running {
        started_ms: engine.clock.now_ms(),
        keys: snapshot.keys(),
        dirty: engine.dirty.load(Ordering::Relaxed),
        progress: snapshot.progress.clone(),
    });
    let (head, shared) = (head(engine, Purpose::Snapshot), engine.arc());
    let mut snapshot = Some(snapshot);
    let thread = std::thread::Builder::new().name("save".into());
    let mut taken = snapshot.take();
    let spawned = thread.spawn(move || {
        crate::observe::crash::prepare_thread();
        affinity::keep_to(config.bgsave_cpulist.as_deref());
        if let Some(snapshot) = taken.take() {
            run(&shared, &config, &head, snapshot);
        }
    });
    match spawned {
        Ok(_) => {
            notice!("Background saving started by pid {}", std::process::id());
            Ok(())
        }
        Err(error) => {
            warning!("Can't save in background: {}", plain(&error));
            engine.keyspace.snapshot().forget(hold);
            *saves.running.lock() = None;
            failed(engine);
            Err(NotSaved)
        }
    }
}

fn failed(engine: &Engine) {
    engine.saves.failed.store(true, Ordering::Relaxed);
    engine.refuse(Refusal::SaveFailed, true);
}

/// The thread of a save in the background.
fn run(engine: &Engine, config: &Config, head: &Head, snapshot: Snapshot) {
    save_snapshot(engine, config, head, snapshot, |_| ());
}

/// Saves in the background what a snapshot has; [`Saves::running`] tells of it until it is over. What became of it is logged.
/// `ended` is told before another save may begin, and before the file's name can be another's.
///
/// [`Saves::running`]: crate::persist::saves::Saves::running
pub fn save_snapshot(
    engine: &Engine,
    config: &Config,
    head: &Head,
    snapshot: Snapshot,
    ended: impl FnOnce(&Result<(), Failure>),
) {
    let started = Instant::now();
    let progress = snapshot.progress.clone();
    let written = write_in_background(engine, config, head, snapshot);
    let naming = engine.saves.naming.lock();
    let dirty = engine.saves.running.lock().as_ref().map_or(0, |running| running.dirty);
    let written = written.and_then(|file| match progress.is_stopped() {
        true => Err(Failure::Stopped),
        false => file.commit(&path(config)).map_err(Failure::Io),
    });
    let took = i64::try_from(started.elapsed().as_secs()).unwrap_or(i64::MAX);
    engine.saves.took_s.store(took, Ordering::Relaxed);
    engine.saves.peak_bytes.store(progress.peak_bytes(), Ordering::Relaxed);
    match &written {
        Ok(()) => {
            notice!("DB saved on disk");
            // A SAVE or a load may have set the count to nothing meanwhile.
            let rest = |now: u64| Some(now.saturating_sub(dirty));
            let _ = engine.dirty.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
            engine.saves.succeeded(engine.clock.now_ms());
            engine.refuse(Refusal::SaveFailed, false);
            notice!("Background saving terminated with success");
        }
        // Whoever stopped it knows why.
        Err(Failure::Stopped) => warning!("Background saving terminated by signal {}", libc::SIGUSR1),
        Err(Failure::Io(error)) => {
            tell_failure(config, error);
            warning!("Background saving error");
            failed(engine);
        }
    }
    ended(&written);
    *engine.saves.running.lock() = None;
    drop(naming);
}

/// Writes a snapshot to a file that has yet to take its name. The snapshot is over when this returns.
fn write_in_background(
    engine: &Engine,
    config: &Config,
    head: &Head,
    snapshot: Snapshot,
) -> Result<Temporary, Failure> {
    let (running, mut hold) = (engine.keyspace.snapshot(), engine.keyspace.hold_none());
    match create(config, Place::Background) {
        Ok(mut file) => {
            save::write(snapshot, running, &mut hold, head, Manner::of(config), &mut file)?;
            file.sync()?;
            Ok(file)
        }
        Err(error) => {
            // It must be walked in any case.
            snapshot.progress.stop();
            let _ = save::write(snapshot, running, &mut hold, head, Manner::of(config), &mut io::sink());
            Err(error.into())
        }
    }
}

/// Begins a save if a save point is reached, or one was scheduled. Called by the timers, which hold nothing.
pub fn look_at_save_points(engine: &Engine) {
    let saves = &engine.saves;
    if saves.loading.active.load(Ordering::Relaxed)
        || engine.keyspace.snapshot().is_active()
        || saves.is_running()
        || engine.aof.is_rewriting()
    {
        return;
    }
    let config = engine.config.load();
    let (now_ms, dirty) = (engine.clock.now_ms(), engine.dirty.load(Ordering::Relaxed));
    let since_s = (now_ms / 1000).saturating_sub(saves.last_s.load(Ordering::Relaxed));
    let scheduled = saves.scheduled.load(Ordering::Relaxed);
    let rested = !saves.failed.load(Ordering::Relaxed)
        || now_ms.saturating_sub(saves.tried_ms.load(Ordering::Relaxed)) > RETRY_MS;
    let point = config.save.0.iter().find(|point| dirty >= point.changes && since_s > point.seconds && rested);
    if point.is_none() && !scheduled {
        return;
    }
    let _alone = engine.keyspace.gates().alone();
    let mut hold = engine.keyspace.hold(ShardSet::ALL);
    if engine.keyspace.snapshot().is_active() {
        return;
    }
    if let Some(point) = point {
        notice!("{} changes in {} seconds. Saving...", point.changes, point.seconds);
    }
    if begin(engine, &mut hold).is_ok() {
        saves.scheduled.store(false, Ordering::Relaxed);
    }
}

/// Ends the server: saves what is to be saved, and asks the host to stop. The caller runs alone and `hold` holds
/// everything, so nothing is answered any more that would be lost.
///
/// # Errors
/// The error reply's text, where the server stays.
pub fn end<'k>(engine: &'k Engine, hold: &mut Hold<'k>, request: ShutdownRequest) -> Result<(), String> {
    if engine.is_refusing(Refusal::Ending) {
        return Ok(());
    }
    notice!("User requested shutdown...");
    let config = engine.config.load_full();
    let saves = &engine.saves;
    if saves.stop() {
        warning!("There is a background save in progress. Stopping it!");
    }
    let loading = saves.loading.active.load(Ordering::Relaxed);
    if aof::end(engine).is_err() {
        if !request.force {
            warning!("Writing initial AOF, can't exit.");
            return Err(not_ended());
        }
        warning!("Writing initial AOF. Exit anyway.");
    }
    let wanted = (request.save || !config.save.0.is_empty() && !request.nosave) && !loading;
    if wanted {
        notice!("Saving the final RDB snapshot before exiting.");
        if save_now(engine, &config, hold).is_err() {
            if !request.force {
                warning!("Error trying to save the DB, can't exit.");
                return Err(not_ended());
            }
            warning!("Error trying to save the DB, but the shutdown is forced.");
        }
    }
    engine.host.shutdown(request)?;
    engine.refuse(Refusal::Ending, true);
    // Who writes these may not come to removing them any more.
    abandon(&config);
    saves.loading.progress.stopped.store(true, Ordering::Relaxed);
    Ok(())
}

/// What is told where the server stays.
fn not_ended() -> String {
    warning!("Errors trying to shut down the server. Check the logs for more information.");
    "ERR Errors trying to SHUTDOWN. Check logs.".into()
}

/// DEBUG RELOAD: saves the data set, forgets it and reads it again. The caller runs alone, `hold` holds everything.
///
/// # Errors
/// The error reply's text.
pub fn reload<'k>(engine: &'k Engine, hold: &mut Hold<'k>, reload: Reload) -> Result<(), &'static str> {
    let config = engine.config.load_full();
    if reload.save {
        save_now(engine, &config, hold).map_err(|_| "ERR")?;
    }
    if reload.flush {
        let flushed = engine.keyspace.take_all(hold, None);
        engine.keyspace.reclaimer().free(flushed.keys, flushed);
        function::forget_all(&engine.scripts);
    }
    // The gates stay closed: nobody but those who load, and a save in the background, touches a shard.
    *hold = engine.keyspace.hold_none();
    let loaded = load_file(engine, if reload.merge { Twice::Replace } else { Twice::Refuse });
    *hold = engine.keyspace.hold(ShardSet::ALL);
    match loaded {
        Ok(Some(_)) => {
            warning!("DB reloaded by DEBUG RELOAD");
            Ok(())
        }
        Ok(None) => Err("ERR Error trying to load the RDB dump, check server logs"),
        Err(error) => {
            warning!("Error trying to load the RDB dump: {error}");
            Err("ERR Error trying to load the RDB dump, check server logs")
        }
    }
}

/// What DEBUG RELOAD does.
#[derive(Debug, Clone, Copy)]
pub struct Reload {
    /// Save first.
    pub save: bool,
    /// Forget what is there.
    pub flush: bool,
    /// Let the file's values take the place of what is there.
    pub merge: bool,
}

/// Reads the snapshot's file, if there is one, into the keyspace, none of which the caller holds.
///
/// # Errors
/// The file cannot be read, or not to its end.
pub fn load_file(engine: &Engine, twice: Twice) -> Result<Option<Loaded>, rdb::Error> {
    let config = engine.config.load_full();
    let io_error = |error| rdb::Error { offset: 0, reason: Reason::Io(error) };
    let Some((mut file, len)) = disk::open(&path(&config)).map_err(io_error)? else { return Ok(None) };
    let loading = &engine.saves.loading;
    let started = Instant::now();
    loading.begin(engine.clock.now_ms(), len);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let overdue = if role::is_replica(engine) { Overdue::Keep } else { Overdue::Drop };
    let manner = load::Manner { config: &config, moment: engine.moment(&config), overdue, twice, behind: false };
    let loaded = load::load(&engine.keyspace, &mut Reader::new(&mut file), manner, threads, &loading.progress)?;
    tell(engine, &loaded, twice)?;
    notice!("DB loaded from disk: {:.3} seconds", started.elapsed().as_secs_f64());
    Ok(Some(loaded))
}

/// Takes over the libraries of functions of a file, and logs what became of the rest.
///
/// # Errors
/// A library cannot be loaded, or is there already.
pub fn tell(engine: &Engine, loaded: &Loaded, twice: Twice) -> Result<(), rdb::Error> {
    function::adopt(&engine.scripts, &loaded.functions, twice == Twice::Replace).map_err(|error| {
        let line = String::from_utf8_lossy(&error.line()).into_owned();
        rdb::Error { offset: 0, reason: Reason::Corrupt(format!("Failed creating the library: {line}").into()) }
    })?;
    tell_rest(engine, loaded);
    Ok(())
}

/// The same where what the file has takes the place of all libraries.
pub fn tell_loaded(engine: &Engine, loaded: &Loaded, functions: &[Vec<u8>]) {
    function::replace(&engine.scripts, functions);
    tell_rest(engine, loaded);
}

fn tell_rest(engine: &Engine, loaded: &Loaded) {
    for key in &loaded.empty {
        notice!("rdbLoadObject skipping empty key: {}", key.escape_ascii());
    }
    for module in &loaded.modules {
        warning!("The data of module '{module}' was passed over: there are no modules here");
    }
    notice!("Done loading RDB, keys loaded: {}, keys expired: {}.", loaded.keys, loaded.expired);
    engine.saves.loaded_keys.store(loaded.keys, Ordering::Relaxed);
    engine.saves.loaded_expired.store(loaded.expired, Ordering::Relaxed);
    if !loaded.empty.is_empty() {
        notice!("empty keys skipped: {}.", loaded.empty.len());
    }
}

/// Reads the data set when the server starts; meanwhile only some commands are answered.
///
/// # Errors
/// What is to be said of a file that cannot be read, or not to its end.
pub fn load_at_start(engine: &Engine) -> Result<(), String> {
    let loading = &engine.saves.loading;
    loading.active.store(true, Ordering::Release);
    engine.refuse(Refusal::Loading, true);
    let mut file = None;
    let loaded = if engine.config.load().appendonly {
        aof::load::start(engine)
    } else {
        let loaded = load_file(engine, Twice::Refuse).map(|loaded| file = loaded);
        loaded.map_err(|error| {
            if matches!(error.reason, Reason::Corrupt(_)) {
                warning!("Terminating server after rdb file reading failure.");
            }
            format!("Fatal error loading the DB: {error}. Exiting.")
        })
    };
    engine.dirty.store(0, Ordering::Relaxed);
    if loaded.is_err() && engine.is_refusing(Refusal::Ending) {
        // Whoever ended the server wanted no more of it.
        return Ok(());
    }
    // After an error nobody is to see half of the data.
    if loaded.is_ok() {
        role::begin(engine, file.as_ref());
        loading.active.store(false, Ordering::Release);
        engine.refuse(Refusal::Loading, false);
    }
    loaded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Bench;
    use std::fs;
    use std::sync::atomic::AtomicU32;

    /// A directory that is gone with its test.
    struct Dir(PathBuf);

    impl Dir {
        fn new() -> Dir {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("spinel-save-{}-{n}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Dir(path)
        }

        /// A server that keeps its files here.
        fn bench(&self, rest: &str) -> Bench {
            Bench::with(&format!("dir {}\nenable-debug-command yes\n{rest}", self.0.display()))
        }

        fn file(&self) -> PathBuf {
            self.0.join("dump.rdb")
        }

        fn names(&self) -> Vec<String> {
            let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
            fs::read_dir(&self.0).unwrap().map(name).collect()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Some of everything.
    fn fill(bench: &mut Bench) {
        bench.run("SET int -5");
        bench.run(&format!("SET text {}", "ab".repeat(300)));
        bench.run(&format!("SET large {}", "xyz".repeat(9000)));
        bench.run("SET soon x PX 50000");
        bench.run("RPUSH list a 1 70000 b");
        bench.run(&format!("RPUSH chain {} 1 {}", "z".repeat(9000), "y".repeat(60)));
        bench.run("ZADD zset 1.5 a -inf b 7 c");
        bench.run("HSET hash a 1 b 2 c text");
        bench.run("SADD set a b 1");
        bench.run("SADD intset 1 2 70000");
        bench.run("HSET timed a 1 b 2");
        bench.run("HPEXPIRE timed 50000 FIELDS 1 a");
        bench.run("XADD stream 1-1 a 1 b 2");
        bench.run("XADD stream 1-2 a 1 b 3");
        bench.run("XGROUP CREATE stream group 0");
        bench.run("XGROUP CREATECONSUMER stream group nobody");
        bench.run("XREADGROUP GROUP group alice COUNT 1 STREAMS stream >");
        bench.run("SELECT 7");
        bench.run("SET elsewhere x");
        for i in 0..300 {
            bench.run(&format!("ZADD tree {i}.25 member:{i}"));
            bench.run(&format!("HSET table field:{i} {i}"));
        }
        bench.run("SELECT 0");
    }

    /// Waits for the save in the background.
    fn finish(bench: &Bench) {
        while bench.engine.saves.is_running() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_load_that_nobody_wanted_any_more_does_not_stop_the_next() {
        let dir = Dir::new();
        let mut bench = dir.bench("");
        fill(&mut bench);
        let digest = bench.run("DEBUG DIGEST");
        // Whatever was being loaded from that primary stops.
        assert_eq!(bench.run("REPLICAOF 127.0.0.1 1"), "+OK|");
        assert_eq!(bench.run("REPLICAOF NO ONE"), "+OK|");
        assert_eq!(bench.run("DEBUG RELOAD"), "+OK|");
        assert_eq!(bench.run("CONFIG SET appendonly yes"), "+OK|");
        while bench.engine.aof.is_rewriting() {
            std::thread::yield_now();
        }
        assert_eq!(bench.run("REPLICAOF 127.0.0.1 1"), "+OK|");
        assert_eq!(bench.run("REPLICAOF NO ONE"), "+OK|");
        assert_eq!(bench.run("DEBUG LOADAOF"), "+OK|");
        assert_eq!(bench.run("DEBUG DIGEST"), digest);
    }

    #[test]
    fn what_was_saved_is_loaded_whatever_the_number_of_threads() {
        let dir = Dir::new();
        let mut bench = dir.bench("");
        fill(&mut bench);
        let digest = bench.run("DEBUG DIGEST");
        assert_eq!(bench.run("SAVE"), "+OK|");
        assert_eq!(bench.run("DEBUG RELOAD"), "+OK|");
        assert_eq!(bench.run("DEBUG DIGEST"), digest);
        assert_eq!(bench.run("PTTL soon"), ":50000|");
        assert_eq!(bench.run("DEBUG RELOAD NOSAVE NOFLUSH MERGE"), "+OK|");
        assert_eq!(bench.run("DEBUG DIGEST"), digest);
        assert_eq!(dir.names(), ["dump.rdb"]);
        for threads in [1, 4] {
            let mut other = dir.bench("");
            let config = other.engine.config.load_full();
            let bytes = fs::read(dir.file()).unwrap();
            let manner = load::Manner {
                config: &config,
                moment: other.engine.moment(&config),
                overdue: Overdue::Drop,
                twice: Twice::Refuse,
                behind: false,
            };
            let mut source = &bytes[..];
            let progress = load::Progress::default();
            let loaded =
                load::load(&other.engine.keyspace, &mut Reader::new(&mut source), manner, threads, &progress).unwrap();
            assert_eq!((loaded.keys, loaded.expired), (15, 0));
            assert_eq!(progress.bytes.load(Ordering::Relaxed), bytes.len() as u64);
            assert_eq!(other.run("DEBUG DIGEST"), digest);
        }
    }

    #[test]
    fn keys_whose_time_has_come_are_left_out_and_others_expire_on_time() {
        let dir = Dir::new();
        let mut bench = dir.bench("");
        bench.run("SET a 1 PX 100");
        bench.run("SET b 1 PX 5000");
        bench.run("SET c 1");
        bench.run("SAVE");
        bench.clock.advance(101);
        assert_eq!(bench.run("DEBUG RELOAD NOSAVE"), "+OK|");
        assert_eq!(bench.run("DBSIZE"), ":2|");
        assert_eq!(bench.run("PTTL b"), ":4899|");
        let info = bench.run("INFO persistence");
        assert!(info.contains("rdb_last_load_keys_expired:1|rdb_last_load_keys_loaded:2|"), "{info}");
    }

    #[test]
    fn a_save_in_the_background_has_what_was_there_when_it_began() {
        let dir = Dir::new();
        let mut bench = dir.bench("rdb-key-save-delay 2000");
        fill(&mut bench);
        let digest = bench.run("DEBUG DIGEST");
        assert_eq!(bench.run("BGSAVE"), "+Background saving started|");
        assert_eq!(bench.run("BGSAVE"), "-ERR Background save already in progress|");
        assert_eq!(bench.run("SAVE"), "-ERR Background save already in progress|");
        bench.run("DEL text list");
        bench.run("SET int 6");
        bench.run("HSET hash a 2");
        bench.run("ZADD zset 3 a");
        bench.run("APPEND large +");
        bench.run("SWAPDB 0 7");
        bench.run("SET new 1");
        assert!(bench.run("INFO persistence").contains("rdb_bgsave_in_progress:1"));
        finish(&bench);
        let info = bench.run("INFO persistence");
        assert!(info.contains("rdb_bgsave_in_progress:0") && info.contains("rdb_last_bgsave_status:ok"), "{info}");
        assert_eq!(bench.run("DEBUG RELOAD NOSAVE"), "+OK|");
        assert_eq!(bench.run("DEBUG DIGEST"), digest);
        assert_eq!(dir.names(), ["dump.rdb"]);
    }

    #[test]
    fn a_flush_stops_a_save_in_the_background_and_empties_the_file_of_save_points() {
        let dir = Dir::new();
        let mut bench = dir.bench("rdb-key-save-delay 10000000\nsave 10 1");
        fill(&mut bench);
        bench.run("BGSAVE");
        bench.run("CONFIG SET rdb-key-save-delay 0");
        assert_eq!(bench.run("FLUSHALL"), "+OK|");
        finish(&bench);
        assert_eq!(dir.names(), ["dump.rdb"]);
        bench.run("SET a 1");
        assert_eq!(bench.run("DEBUG RELOAD NOSAVE"), "+OK|");
        assert_eq!(bench.run("DBSIZE"), ":0|");
    }

    #[test]
    fn a_reload_does_not_disturb_a_save_in_the_background() {
        let dir = Dir::new();
        let mut bench = dir.bench("rdb-key-save-delay 1000");
        fill(&mut bench);
        let digest = bench.run("DEBUG DIGEST");
        bench.run("BGSAVE");
        bench.run("CONFIG SET rdb-key-save-delay 0");
        assert_eq!(bench.run("DEBUG RELOAD"), "+OK|");
        assert_eq!(bench.run("DEBUG DIGEST"), digest);
        finish(&bench);
        assert_eq!(bench.run("DEBUG RELOAD NOSAVE"), "+OK|");
        assert_eq!(bench.run("DEBUG DIGEST"), digest);
    }

    #[test]
    fn a_save_that_fails_leaves_the_old_file_and_refuses_writes_until_one_succeeds() {
        let dir = Dir::new();
        let mut bench = dir.bench("save 900 1");
        bench.run("SET a 1");
        bench.run("SAVE");
        let before = fs::read(dir.file()).unwrap();
        // A directory cannot be replaced by a file.
        fs::create_dir_all(dir.0.join("taken.rdb/x")).unwrap();
        assert_eq!(
            bench.run("CONFIG SET dbfilename taken.rdb"),
            "-ERR CONFIG SET failed (possibly related to argument 'dbfilename') - can't set protected config|"
        );
        let broken = Config { dbfilename: b"taken.rdb".to_vec(), ..(*bench.engine.config.load_full()).clone() };
        let whole = bench.engine.config.swap(broken.into());
        assert_eq!(bench.run("SAVE"), "-ERR|");
        assert_eq!(bench.run("SET a 2"), "+OK|");
        bench.run("BGSAVE");
        finish(&bench);
        assert!(bench.run("SET a 3").starts_with("-MISCONF Redis is configured to save RDB snapshots, but"));
        assert!(bench.run("PING").starts_with("-MISCONF"));
        assert_eq!(bench.run("GET a"), "$1|2|");
        assert!(bench.run("INFO persistence").contains("rdb_last_bgsave_status:err"));
        bench.run("CONFIG SET stop-writes-on-bgsave-error no");
        assert_eq!(bench.run("SET a 4"), "+OK|");
        bench.engine.config.store(whole);
        assert!(bench.run("SET a 5").starts_with("-MISCONF"));
        assert_eq!(fs::read(dir.file()).unwrap(), before);
        assert_eq!(bench.run("SAVE"), "+OK|");
        assert_eq!(bench.run("SET a 6"), "+OK|");
        let mut names = dir.names();
        names.sort();
        assert_eq!(names, ["dump.rdb", "taken.rdb"]);
    }

    #[test]
    fn save_points_count_changes_and_seconds() {
        let dir = Dir::new();
        let mut bench = dir.bench("save 10 2");
        bench.run("SET a 1");
        bench.clock.advance(11_000);
        look_at_save_points(&bench.engine);
        assert!(dir.names().is_empty(), "one change is too few");
        bench.run("SET a 2");
        assert!(bench.run("INFO persistence").contains("rdb_changes_since_last_save:2|"));
        look_at_save_points(&bench.engine);
        finish(&bench);
        assert_eq!(dir.names(), ["dump.rdb"]);
        assert!(bench.run("INFO persistence").contains("rdb_changes_since_last_save:0|"));
        assert_eq!(bench.run("LASTSAVE"), ":1000011|");
        bench.run("SET a 3");
        bench.run("SET a 4");
        look_at_save_points(&bench.engine);
        assert!(!bench.engine.saves.is_running(), "it is too soon");
    }

    /// Reads a file into a server that has nothing, and looks at all of it.
    fn read(dir: &Dir, bytes: &[u8], rest: &str) -> Result<(), rdb::Error> {
        fs::write(dir.file(), bytes).unwrap();
        let mut bench = dir.bench(rest);
        load_file(&bench.engine, Twice::Refuse).map(drop)?;
        assert!(bench.run("DEBUG DIGEST").starts_with('+'));
        for key in ["int", "text", "list", "zset", "hash", "stream", "set", "intset"] {
            assert!(bench.run(&format!("DUMP {key}")).starts_with('$'));
        }
        Ok(())
    }

    #[test]
    fn damage_of_any_byte_and_any_cut_is_found_by_the_sum_and_harmless_without() {
        let dir = Dir::new();
        let mut bench = dir.bench("");
        bench.run("SET int -5");
        bench.run(&format!("SET text {} PX 50000", "ab".repeat(30)));
        bench.run("RPUSH list a 1 70000 b");
        bench.run("ZADD zset 1.5 a -inf b 7 c");
        bench.run("HSET hash a 1 b 2");
        bench.run("SADD set a b 1");
        bench.run("SADD intset 1 2 70000");
        bench.run("XADD stream 1-1 a 1 b 2");
        bench.run("XGROUP CREATE stream group 0");
        bench.run("XREADGROUP GROUP group alice COUNT 1 STREAMS stream >");
        bench.run("SAVE");
        let bytes = fs::read(dir.file()).unwrap();
        read(&dir, &bytes, "").unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(read(&dir, &damaged, "").is_err(), "byte {at}");
            let _ = read(&dir, &damaged, "rdbchecksum no");
            assert!(read(&dir, &bytes[..at], "").is_err(), "cut at {at}");
        }
    }

    #[test]
    fn files_that_cannot_be_read_say_why() {
        let dir = Dir::new();
        let say = |bytes: &[u8]| read(&dir, bytes, "").unwrap_err().to_string();
        assert_eq!(say(b"NOTREDIS0"), "Wrong signature trying to load DB from file (offset 9)");
        assert_eq!(say(b"REDIS0099"), "Can't handle RDB format version 99 (offset 9)");
        assert_eq!(say(b"REDIS0010"), "Unexpected EOF reading RDB file (offset 9)");
        assert_eq!(say(b"REDIS0010\xf3"), "Unknown RDB encoding type 243 (offset 10)");
        let twice = b"REDIS0003\xfe\x00\x00\x01a\x01b\x00\x01a\x01b\xff";
        assert_eq!(say(twice), "RDB has duplicated key 'a' in DB 0 (offset 17)");
        assert!(say(b"REDIS0003\xfe\x10\x00\x01a\x01b\xff").contains("more than 16 databases"));
        assert_eq!(say(b"REDIS0010\xff\x01\x02\x03\x04\x05\x06\x07\x08").split(' ').next(), Some("Wrong"));
    }
}

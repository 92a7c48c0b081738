//! SAVE, BGSAVE, LASTSAVE, and what saves by itself: save points, and the end of the server.
//!
//! What must stay true: a file takes its name only when it is complete and synced. Whoever begins a save runs alone,
//! so that it is of one point in time; one goes on in the background at a time.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::command::args::Args;
use crate::command::context::{Context, DONE, Reply};
use crate::command::engine::{Engine, Refusal, ShutdownRequest};
use crate::command::error::Error;
use crate::command::table::Command;
use crate::config::table::Config;
use crate::keyspace::hold::{Hold, ShardSet};
use crate::keyspace::snapshot::Snapshot;
use crate::observe::log::{notice, warning};
use crate::persist::disk::{self, Temporary};
use crate::persist::rdb::load::{self, Loaded, Overdue, Twice};
use crate::persist::rdb::reader::Reader;
use crate::persist::rdb::save::{self, Failure, Head, Manner};
use crate::persist::rdb::{self, Reason};
use crate::persist::saves::Running;
use crate::spec::{Arity, Flag, Group, REDIS_VERSION};
use crate::stdx::memory;
use crate::stdx::number::parse_i64;

/// This family's commands.
pub const COMMANDS: &[Command] = &[BGSAVE, LASTSAVE, SAVE];

/// A file is synced every few megabytes while it is written.
const SYNC_EVERY_BYTES: u64 = 4 << 20;
/// After a failure the save points wait for so long.
const RETRY_MS: u64 = 5000;
/// How long whoever ends the server looks away before it looks again for the save in the background.
const LOOK: Duration = Duration::from_millis(2);

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
        if ctx.engine.keyspace.snapshot().is_active() {
            return Err(in_the_way());
        }
        save_now(ctx.engine, ctx.config, &mut ctx.db.hold).map_err(|()| Error::text("ERR"))?;
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
    if ctx.engine.keyspace.snapshot().is_active() {
        if !schedule {
            return Err(in_the_way());
        }
        saves.scheduled.store(true, Ordering::Relaxed);
        ctx.out.simple("Background saving scheduled");
        return DONE;
    }
    begin(ctx.engine, &mut ctx.db.hold).map_err(|()| Error::text("ERR"))?;
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

/// What a file says about itself.
fn head(engine: &Engine) -> Head {
    let text = |n: u64| n.to_string().into_bytes();
    Head {
        aux: vec![
            ("redis-ver", REDIS_VERSION.into()),
            ("redis-bits", text(usize::BITS.into())),
            ("ctime", text(engine.clock.now_ms() / 1000)),
            ("used-mem", text(memory::used() as u64)),
            ("aof-base", text(0)),
        ],
        functions: Vec::new(),
    }
}

/// Writes a snapshot to its file.
fn write_file(
    engine: &Engine,
    config: &Config,
    head: &Head,
    snapshot: Snapshot,
    hold: &mut Hold<'_>,
) -> Result<(), Failure> {
    let running = engine.keyspace.snapshot();
    let temporary = name_in_dir(config, format!("temp-{}.rdb", std::process::id()).as_bytes());
    let sync_every = config.rdb_save_incremental_fsync.then_some(SYNC_EVERY_BYTES);
    let mut file = match Temporary::create(&temporary, sync_every) {
        Ok(file) => file,
        Err(error) => {
            warning!(
                "Failed opening the temp RDB file {} (in server root dir {}) for saving: {}",
                temporary.display(),
                String::from_utf8_lossy(&config.dir.0),
                plain(&error)
            );
            // It must be walked in any case.
            snapshot.progress.stop();
            let _ = save::write(snapshot, running, hold, head, Manner::of(config), &mut io::sink());
            return Err(error.into());
        }
    };
    let target = path(config);
    let written = save::write(snapshot, running, hold, head, Manner::of(config), &mut file);
    let written = written.and_then(|()| Ok(file.commit(&target)?));
    if let Err(Failure::Io(error)) = &written {
        warning!("Write error while saving DB to the disk({}): {}", target.display(), plain(error));
    }
    written
}

fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// Saves the data set, all of which is held. What went wrong is logged.
///
/// # Errors
/// It was not saved.
pub fn save_now(engine: &Engine, config: &Config, hold: &mut Hold<'_>) -> Result<(), ()> {
    let encoder = save::encoder(config, engine.moment(config));
    let snapshot = Snapshot::begin(engine.keyspace.snapshot(), hold, encoder).ok_or(())?;
    write_file(engine, config, &head(engine), snapshot, hold).map_err(drop)?;
    notice!("DB saved on disk");
    engine.dirty.store(0, Ordering::Relaxed);
    engine.saves.succeeded(engine.clock.now_ms());
    engine.refuse(Refusal::SaveFailed, false);
    Ok(())
}

/// Begins to save in the background what `hold`, which holds everything, has now. Nothing else may be in the way.
///
/// # Errors
/// It could not begin; why is logged.
pub fn begin(engine: &Engine, hold: &mut Hold<'_>) -> Result<(), ()> {
    let config = engine.config.load_full();
    let saves = &engine.saves;
    saves.tried_ms.store(engine.clock.now_ms(), Ordering::Relaxed);
    let encoder = save::encoder(&config, engine.moment(&config));
    let snapshot = Snapshot::begin(engine.keyspace.snapshot(), hold, encoder).ok_or(())?;
    *saves.running.lock() = Some(Running {
        started_ms: engine.clock.now_ms(),
        keys: snapshot.keys(),
        dirty: engine.dirty.load(Ordering::Relaxed),
        progress: snapshot.progress.clone(),
    });
    let (head, shared) = (head(engine), engine.arc());
    let mut snapshot = Some(snapshot);
    let thread = std::thread::Builder::new().name("save".into());
    let mut taken = snapshot.take();
    let spawned = thread.spawn(move || {
        crate::observe::crash::prepare_thread();
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
            Err(())
        }
    }
}

fn failed(engine: &Engine) {
    engine.saves.failed.store(true, Ordering::Relaxed);
    engine.refuse(Refusal::SaveFailed, true);
}

/// The thread of a save in the background.
fn run(engine: &Engine, config: &Config, head: &Head, snapshot: Snapshot) {
    let started = Instant::now();
    let written = write_file(engine, config, head, snapshot, &mut engine.keyspace.hold_none());
    let mut running = engine.saves.running.lock();
    let dirty = running.as_ref().map_or(0, |running| running.dirty);
    let took = i64::try_from(started.elapsed().as_secs()).unwrap_or(i64::MAX);
    engine.saves.took_s.store(took, Ordering::Relaxed);
    match written {
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
        Err(Failure::Stopped) => notice!("Background saving was stopped"),
        Err(Failure::Io(_)) => {
            warning!("Background saving error");
            failed(engine);
        }
    }
    *running = None;
}

/// Begins a save if a save point is reached, or one was scheduled. Called by the timers, which hold nothing.
pub fn look_at_save_points(engine: &Engine) {
    let saves = &engine.saves;
    if saves.loading.active.load(Ordering::Relaxed) || engine.keyspace.snapshot().is_active() || saves.is_running() {
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
    let wanted = (request.save || !config.save.0.is_empty() && !request.nosave) && !loading;
    if wanted {
        // The one in the background needs shards to come to its end.
        while engine.keyspace.snapshot().is_active() {
            release_for_a_moment(engine, hold);
        }
        notice!("Saving the final RDB snapshot before exiting.");
        if save_now(engine, &config, hold).is_err() {
            if !request.force {
                warning!("Error trying to save the DB, can't exit.");
                return Err("ERR Errors trying to SHUTDOWN. Check logs.".into());
            }
            warning!("Error trying to save the DB, but the shutdown is forced.");
        }
    }
    engine.host.shutdown(request)?;
    engine.refuse(Refusal::Ending, true);
    saves.loading.progress.stopped.store(true, Ordering::Relaxed);
    Ok(())
}

/// Lets others have the shards. The gates stay closed: nobody but the save in the background runs.
fn release_for_a_moment<'k>(engine: &'k Engine, hold: &mut Hold<'k>) {
    *hold = engine.keyspace.hold_none();
    std::thread::sleep(LOOK);
    *hold = engine.keyspace.hold(ShardSet::ALL);
}

/// Reads the snapshot's file, if there is one, into the keyspace; `hold` holds nothing or everything.
///
/// # Errors
/// The file cannot be read, or not to its end.
pub fn load_file(engine: &Engine, hold: &mut Hold<'_>, twice: Twice) -> Result<Option<Loaded>, rdb::Error> {
    let config = engine.config.load_full();
    let io_error = |error| rdb::Error { offset: 0, reason: Reason::Io(error) };
    let Some((mut file, len)) = disk::open(&path(&config)).map_err(io_error)? else { return Ok(None) };
    let loading = &engine.saves.loading;
    let started = Instant::now();
    loading.started_ms.store(engine.clock.now_ms(), Ordering::Relaxed);
    loading.total_bytes.store(len, Ordering::Relaxed);
    loading.progress.bytes.store(0, Ordering::Relaxed);
    let manner = load::Manner { config: &config, moment: engine.moment(&config), overdue: Overdue::Drop, twice };
    let loaded = load::load(&engine.keyspace, hold, Reader::new(&mut file), manner, &loading.progress)?;
    tell(engine, &loaded);
    notice!("DB loaded from disk: {:.3} seconds", started.elapsed().as_secs_f64());
    Ok(Some(loaded))
}

/// Logs what a file said about itself, and what became of it.
fn tell(engine: &Engine, loaded: &Loaded) {
    let number = |name: &str| loaded.aux(name).and_then(parse_i64);
    if let Some(version) = loaded.aux("redis-ver") {
        notice!("Loading RDB produced by version {}", String::from_utf8_lossy(version));
    }
    if let Some(written) = number("ctime") {
        let now = i64::try_from(engine.clock.now_ms() / 1000).unwrap_or(i64::MAX);
        notice!("RDB age {} seconds", now.saturating_sub(written).max(0));
    }
    if let Some(used) = number("used-mem") {
        notice!("RDB memory usage when created {:.2} Mb", used as f64 / (1024.0 * 1024.0));
    }
    if number("aof-base") == Some(1) {
        notice!("RDB is base AOF");
    }
    for key in &loaded.empty {
        notice!("rdbLoadObject skipping empty key: {}", key.escape_ascii());
    }
    for module in &loaded.modules {
        warning!("The data of module '{module}' was passed over: there are no modules here");
    }
    notice!("Done loading RDB, keys loaded: {}, keys expired: {}.", loaded.keys, loaded.expired);
    engine.saves.loaded_keys.store(loaded.keys, Ordering::Relaxed);
    engine.saves.loaded_expired.store(loaded.expired, Ordering::Relaxed);
}

/// Reads the data set when the server starts; meanwhile only some commands are answered.
///
/// # Errors
/// The file cannot be read, or not to its end.
pub fn load_at_start(engine: &Engine) -> Result<(), rdb::Error> {
    let loading = &engine.saves.loading;
    loading.active.store(true, Ordering::Release);
    engine.refuse(Refusal::Loading, true);
    let loaded = load_file(engine, &mut engine.keyspace.hold_none(), Twice::Refuse);
    engine.dirty.store(0, Ordering::Relaxed);
    // After an error nobody is to see half of the data.
    if loaded.is_ok() {
        loading.active.store(false, Ordering::Release);
        engine.refuse(Refusal::Loading, false);
    }
    loaded.map(drop)
}

/// Removes what a save in the background that was cut off may have left.
pub fn remove_leftovers(config: &Config) {
    disk::remove(Path::new(&name_in_dir(config, format!("temp-{}.rdb", std::process::id()).as_bytes())));
}

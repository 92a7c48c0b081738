//! The append only file as a whole: read when the server starts, turned on and off, rewritten.
//!
//! A rewrite makes a new base beside the log: first the next increment is made and named in the manifest, then, at one
//! point in time, a snapshot begins and the log goes on in the new increment, then the base is written, and at last the
//! manifest names the new base and what came after it. Wherever that ends early, the manifest names files that make up
//! the data set.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::client::session::Session;
use crate::client::shared::{Link, Shared};
use crate::command::args::Args;
use crate::command::context::DONE;
use crate::command::dispatch::{Executor, Request, Stop};
use crate::command::engine::{Engine, Refusal};
use crate::command::error::Error;
use crate::command::replication::wait::{end_local, end_those_done};
use crate::command::save::{self, NotSaved};
use crate::command::table::Command;
use crate::config::choice::AppendFsync;
use crate::config::table::Config;
use crate::keyspace::hold::{Hold, ShardSet};
use crate::keyspace::snapshot::{Encode, Piece, Progress, Snapshot};
use crate::observe::crash;
use crate::observe::log::{notice, warning};
use crate::persist::aof::appender::Policy;
use crate::persist::aof::commands::{self, Commands};
use crate::persist::aof::manifest::{Manifest, Part};
use crate::persist::aof::records::{Fault, Reason, Record, Records};
use crate::persist::aof::{Rewrite, State};
use crate::persist::disk::{self, Append, Temporary};
use crate::persist::log::Wants;
use crate::persist::rdb::load::{self, Overdue, Twice};
use crate::persist::rdb::reader::Reader;
use crate::persist::rdb::save::{Failure, Head, Manner};
use crate::resp::reply::{Output, Protocol};
use crate::resp::request::Span;
use crate::spec::{Arity, Flag, Group};

/// This family's commands.
pub const COMMANDS: &[Command] = &[BGREWRITEAOF];

/// A base is synced every few megabytes while it is written.
const SYNC_EVERY_BYTES: u64 = 4 << 20;
/// So many requests of a log are run together.
const BATCH_REQUESTS: usize = 512;
/// So many bytes of a log are run together, and a request more.
const BATCH_BYTES: usize = 64 * 1024;
/// After so many failures in a row the next automatic rewrite waits.
const PATIENT_FAILURES: u64 = 3;
/// No longer than this, in milliseconds.
const LONGEST_WAIT_MS: u64 = 3_600_000;

/// Begins to make the log as short as it can be, and replies at once; where something is in the way, it begins after
/// that.
pub const BGREWRITEAOF: Command = Command {
    name: "BGREWRITEAOF",
    since: "1.0.0",
    group: Group::Server,
    arity: Arity::Exactly(1),
    flags: &[Flag::Admin, Flag::NoScript, Flag::NoAsyncLoading],
    categories: &[],
    keys: &[],
    usage: "",
    summary: "Asynchronously rewrites the append-only file to disk.",
    complexity: "O(1)",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: |ctx, _| {
        let aof = &ctx.engine.aof;
        if aof.is_rewriting() {
            return Err(Error::text("ERR Background append only file rewriting already in progress"));
        }
        // Who asks does not wait for the end of a row of failures.
        aof.failures.store(0, Ordering::Relaxed);
        if ctx.engine.saves.is_running() || ctx.engine.keyspace.snapshot().is_active() {
            aof.scheduled.store(true, Ordering::Relaxed);
            ctx.out.simple("Background append only file rewriting scheduled");
            return DONE;
        }
        begin_rewrite(ctx.engine).map_err(|error| Error::text(format!("ERR Can't execute an AOF background rewriting. Please check the server logs for more information. ({error})")))?;
        ctx.out.simple("Background append only file rewriting started");
        DONE
    },
};

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// The directory of the log.
fn directory(config: &Config) -> PathBuf {
    as_path(&config.dir.0).join(as_path(&config.appenddirname))
}

fn file(config: &Config, part: &Part) -> PathBuf {
    directory(config).join(as_path(&part.name))
}

fn manifest_path(config: &Config) -> PathBuf {
    directory(config).join(as_path(&[&config.appendfilename[..], b".manifest"].concat()))
}

/// Where changes go until the log has its first base.
fn waiting_path(config: &Config) -> PathBuf {
    directory(config).join(as_path(&[b"temp-", &config.appendfilename[..], b".incr"].concat()))
}

fn temporary_path(config: &Config) -> PathBuf {
    as_path(&config.dir.0).join(format!("temp-rewriteaof-bg-{}.aof", std::process::id()))
}

fn persist(config: &Config, manifest: &Manifest) -> io::Result<()> {
    disk::replace(&manifest_path(config), &manifest.text())
}

fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// Reads the manifest; `None` where there is none. A log of Redis 6, which is one file, becomes the base of a new one.
fn read_manifest(config: &Config) -> Result<Option<Manifest>, String> {
    let path = manifest_path(config);
    let old = as_path(&config.dir.0).join(as_path(&config.appendfilename));
    let wrong = |what: String| format!("\n*** FATAL AOF MANIFEST FILE ERROR ***\n{what}");
    let manifest = match disk::exists(&path) {
        true => {
            let text = disk::read_or_empty(&path).map_err(|error| wrong(plain(&error)))?;
            Some(Manifest::parse(&text).map_err(|error| wrong(error.to_string()))?)
        }
        false => None,
    };
    let upgraded = Manifest { base: Some(Part { name: config.appendfilename.clone(), seq: 1 }), ..Manifest::default() };
    // The manifest is written first, so that an upgrade that was cut off goes on here.
    let begun = manifest.as_ref().is_some_and(|manifest| *manifest == upgraded);
    if (manifest.is_none() || begun)
        && disk::exists(&old)
        && !disk::exists(&directory(config).join(as_path(&config.appendfilename)))
    {
        let name = String::from_utf8_lossy(&config.appendfilename).into_owned();
        let upgrade = || {
            disk::make_directory(&directory(config))?;
            persist(config, &upgraded)?;
            disk::rename(&old, &directory(config).join(as_path(&config.appendfilename)))
        };
        upgrade()
            .map_err(|error| format!("Error trying to move the old AOF file {name} into dir: {}", plain(&error)))?;
        notice!(
            "Successfully migrated an old-style AOF configuration ({name}) into the AOF directory ({}).",
            String::from_utf8_lossy(&config.appenddirname)
        );
        return Ok(Some(upgraded));
    }
    Ok(manifest)
}

/// Reads the log when the server starts, and opens it to be written.
///
/// # Errors
/// What is to be said before the server gives up.
pub fn start(engine: &Engine) -> Result<(), String> {
    let config = engine.config.load_full();
    let manifest = read_manifest(&config)?.unwrap_or_default();
    load(engine, &config, &manifest)?;
    open(engine, &config, manifest)
}

/// Reads all files of the log into the keyspace, of which the caller holds nothing; nobody else changes anything
/// meanwhile.
///
/// # Errors
/// What is to be said of a file that is missing or damaged.
fn load(engine: &Engine, config: &Config, manifest: &Manifest) -> Result<(), String> {
    let started = Instant::now();
    let parts: Vec<&Part> = manifest.parts().collect();
    for part in &parts {
        if !disk::exists(&file(config, part)) {
            let name = String::from_utf8_lossy(&part.name);
            return Err(format!("Can't open the append only file {name} for reading: No such file or directory"));
        }
    }
    let total: u64 = parts.iter().map(|part| disk::length(&file(config, part))).sum();
    let loading = &engine.saves.loading;
    loading.started_ms.store(engine.clock.now_ms(), Ordering::Relaxed);
    loading.total_bytes.store(total, Ordering::Relaxed);
    loading.progress.bytes.store(0, Ordering::Relaxed);
    let mut replay = Replay::new(engine);
    let mut before = 0;
    for (i, part) in parts.iter().enumerate() {
        let (path, name) = (file(config, part), String::from_utf8_lossy(&part.name).into_owned());
        let begun = Instant::now();
        let kind = if manifest.base.as_ref() == Some(*part) { "base" } else { "incr" };
        match replay.read_file(config, &path, before) {
            Ok(()) => {
                notice!("DB loaded from {kind} file {name}: {:.3} seconds", begun.elapsed().as_secs_f64());
            }
            Err(Wrong::Fault(Fault { whole, reason: Reason::Truncated }))
                if i + 1 == parts.len() && config.aof_load_truncated =>
            {
                warning!("!!! Warning: short read while loading the AOF file {name}!!!");
                warning!("AOF loaded anyway because aof-load-truncated is enabled");
                warning!("Truncating the AOF {name} at offset {whole}");
                disk::truncate(&path, whole)
                    .map_err(|error| format!("Error truncating the AOF file {name}: {}", plain(&error)))?;
            }
            Err(wrong) => return Err(wrong.say(&name)),
        }
        before += disk::length(&path);
    }
    engine.dirty.store(0, Ordering::Relaxed);
    if !parts.is_empty() {
        notice!("DB loaded from append only file: {:.3} seconds", started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Why a file of the log cannot be read.
enum Wrong {
    Fault(Fault),
    /// The snapshot at its beginning is damaged.
    Preamble(String),
    /// There is no command of this name.
    Unknown(String),
    Stopped,
}

impl Wrong {
    fn say(self, name: &str) -> String {
        match self {
            Wrong::Fault(Fault { reason: Reason::Truncated, .. }) => format!(
                "Unexpected end of file reading the append only file {name}. You can: 1) Make a backup of your AOF file, then use ./redis-check-aof --fix <filename.manifest>. 2) Alternatively you can set the 'aof-load-truncated' configuration option to yes and restart the server."
            ),
            Wrong::Fault(Fault { reason: Reason::Format, whole }) => format!(
                "Bad file format reading the append only file {name}: make a backup of your AOF file, then use ./redis-check-aof --fix <filename.manifest> (offset {whole})"
            ),
            Wrong::Fault(Fault { reason: Reason::Io(error), .. }) => {
                format!("Unrecoverable error reading the append only file {name}: {}", plain(&error))
            }
            Wrong::Preamble(error) => {
                format!("Error reading the RDB preamble of the AOF file {name}, AOF loading aborted: {error}")
            }
            Wrong::Unknown(command) => format!("Unknown command '{command}' reading the append only file {name}"),
            Wrong::Stopped => format!("Loading of {name} was stopped"),
        }
    }
}

/// Runs what a log holds.
struct Replay<'e> {
    engine: &'e Engine,
    executor: Executor,
    session: Session,
    out: Output,
    text: Vec<u8>,
    spans: Vec<Span>,
    requests: Vec<Request>,
}

impl<'e> Replay<'e> {
    fn new(engine: &'e Engine) -> Replay<'e> {
        let shared = Shared::new(0, Link::InProcess, String::new(), String::new(), -1, engine.clock.now_ms());
        let mut session = Session::new(Arc::new(shared), engine.users.owner().clone());
        (session.replaying, session.in_process) = (true, true);
        Replay {
            engine,
            executor: Executor::new(engine, None),
            session,
            out: Output::new(Protocol::Resp2),
            text: Vec::new(),
            spans: Vec::new(),
            requests: Vec::new(),
        }
    }

    /// Runs a file; `before` bytes were read of others. What came before what is wrong has been run, but for a
    /// transaction without its end.
    fn read_file(&mut self, config: &Config, path: &Path, before: u64) -> Result<(), Wrong> {
        let io_error = |error| Wrong::Fault(Fault { whole: 0, reason: Reason::Io(error) });
        let Some((mut file, _)) = disk::open(path).map_err(io_error)? else { return Ok(()) };
        self.session.db = 0;
        let mut head = Vec::new();
        Read::by_ref(&mut file).take(5).read_to_end(&mut head).map_err(io_error)?;
        let is_snapshot = [&b"REDIS"[..], b"VALKE"].contains(&&head[..]);
        if !is_snapshot {
            let offset = head.len() as u64;
            return self.read_commands(&mut Records::new(&mut file, head, offset), before);
        }
        let mut source = head.as_slice().chain(&mut file);
        let (rest, offset) = {
            let mut reader = Reader::new(&mut source);
            let manner = load::Manner {
                config,
                moment: self.engine.moment(config),
                // Whether they are to go is for the log to say.
                overdue: Overdue::Keep,
                twice: Twice::Refuse,
            };
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let progress = &self.engine.saves.loading.progress;
            let loaded = load::load(&self.engine.keyspace, &mut reader, manner, threads, progress);
            let loaded = loaded.map_err(|error| Wrong::Preamble(error.to_string()))?;
            save::tell(self.engine, &loaded);
            (reader.rest().to_vec(), reader.offset() + reader.rest().len() as u64)
        };
        if !rest.is_empty() {
            notice!("Reading the remaining AOF tail...");
        }
        self.read_commands(&mut Records::new(&mut source, rest, offset), before)
    }

    fn read_commands(&mut self, records: &mut Records<'_>, before: u64) -> Result<(), Wrong> {
        // Where the transaction begins that is being read, and the first of its requests.
        let mut transaction: Option<(u64, usize)> = None;
        loop {
            let (start, first) = (records.whole(), self.spans.len());
            let read = records.next(&mut self.text, &mut self.spans);
            match read {
                Ok(Some(Record::Command(args))) => {
                    let request = Request { first, args, start: 0 };
                    let words = Args::new(&self.text, &self.spans[first..]);
                    if words.is(0, "MULTI") {
                        transaction.get_or_insert((start, self.requests.len()));
                    } else if words.is(0, "EXEC") {
                        transaction = None;
                    } else if self.engine.commands.resolve(words.at(0), words.opt(1)).is_err() {
                        return Err(Wrong::Unknown(String::from_utf8_lossy(words.at(0)).into_owned()));
                    } else {
                        self.requests.push(request);
                    }
                }
                Ok(Some(Record::Time(_))) => {}
                Ok(None) | Err(_) => {
                    let whole = transaction.map_or(records.whole(), |(start, kept)| {
                        self.requests.truncate(kept);
                        start
                    });
                    self.run()?;
                    let fault = match read {
                        Err(fault) => Some(fault.reason),
                        Ok(_) if transaction.is_some() => {
                            warning!("Revert incomplete MULTI/EXEC transaction from AOF file");
                            Some(Reason::Truncated)
                        }
                        Ok(_) => None,
                    };
                    return fault.map_or(Ok(()), |reason| Err(Wrong::Fault(Fault { whole, reason })));
                }
            }
            let full = self.requests.len() >= BATCH_REQUESTS || self.text.len() >= BATCH_BYTES;
            if full && transaction.is_none() {
                self.run()?;
                let progress = &self.engine.saves.loading.progress;
                progress.bytes.store(before + records.whole(), Ordering::Relaxed);
                if progress.stopped.load(Ordering::Relaxed) {
                    return Err(Wrong::Stopped);
                }
            }
        }
    }

    /// Runs what was collected. Replies are of no interest: what failed then fails now.
    fn run(&mut self) -> Result<(), Wrong> {
        let Replay { engine, executor, session, out, text, spans, requests } = self;
        let mut done = 0;
        while done < requests.len() {
            let (ran, mut stop) = executor.run(engine, session, out, text, spans, &requests[done..]);
            done += ran;
            while let Stop::Pending(pending) = stop {
                stop = executor.resume(engine, session, out, pending).map_or(Stop::Done, Stop::Pending);
            }
            if ran == 0 {
                return Err(Wrong::Stopped);
            }
        }
        let written = out.len();
        out.advance(written);
        text.clear();
        spans.clear();
        requests.clear();
        Ok(())
    }
}

/// Opens the log to be written; where it has no files yet, it gets a base of what is there. Nobody changes anything
/// meanwhile.
fn open(engine: &Engine, config: &Config, mut manifest: Manifest) -> Result<(), String> {
    let failed = |what: &str, error: &io::Error| format!("{what}: {}", plain(error));
    disk::make_directory(&directory(config))
        .map_err(|error| failed("Can't create or open the append-only directory", &error))?;
    if manifest == Manifest::default() {
        let base = manifest.next_base(&config.appendfilename, config.aof_use_rdb_preamble);
        let mut hold = engine.keyspace.hold(ShardSet::ALL);
        write_held(engine, config, &mut hold, &base)
            .map_err(|error| failed("Error creating the AOF base file", &error))?;
        notice!("Creating AOF base file {} on server start", String::from_utf8_lossy(&base.name));
        manifest.base = Some(base);
    }
    let part = match manifest.increments.last() {
        Some(part) => {
            notice!("Opening AOF incr file {} on server start", String::from_utf8_lossy(&part.name));
            part.clone()
        }
        None => {
            let part = manifest.next_increment(&config.appendfilename);
            notice!("Creating AOF incr file {} on server start", String::from_utf8_lossy(&part.name));
            manifest.increments.push(part.clone());
            part
        }
    };
    let (file_of_part, size) =
        Append::open(&file(config, &part)).map_err(|error| failed("Can't open the append-only file", &error))?;
    persist(config, &manifest).map_err(|error| failed("Can't write the AOF manifest", &error))?;
    let total: u64 = manifest.parts().map(|part| disk::length(&file(config, part))).sum();
    engine.aof.others_bytes.store(total - size, Ordering::Relaxed);
    engine.aof.base_bytes.store(total, Ordering::Relaxed);
    *engine.aof.manifest.lock() = manifest;
    engine.aof.set_state(State::On);
    join(engine, config, file_of_part, size);
    Ok(())
}

/// Has the log go to `file`, which has `size` bytes, and starts the thread that serves it.
fn join(engine: &Engine, config: &Config, file: Append, size: u64) {
    let aof = &engine.aof;
    let mut reader = aof.reader.lock();
    if reader.is_some() {
        engine.log.cut(|| aof.appender.switch(file, size, 0));
        return;
    }
    aof.appender.set_always(config.appendfsync == AppendFsync::Always);
    let weak = Arc::downgrade(&engine.arc());
    let theirs = weak.clone();
    *reader = Some(engine.log.join(Wants::Changes, |offset| {
        aof.appender.switch(file, size, offset);
        Box::new(move |bytes: &[u8]| {
            if let Some(engine) = theirs.upgrade() {
                let stamp = engine.config.load().aof_timestamp_enabled.then(|| engine.clock.now_ms() / 1000);
                engine.aof.appender.push(bytes, stamp);
            }
        })
    }));
    drop(reader);
    let turn = aof.next_turn();
    let serve = move || {
        crash::prepare_thread();
        while let Some(engine) = weak.upgrade() {
            if !engine.aof.is_turn(turn) {
                return;
            }
            engine.aof.appender.round(|| policy(&engine));
            end_those_done(&engine);
            engine.refuse(Refusal::LogFailed, engine.aof.appender.trouble().is_some());
        }
    };
    if let Err(error) = std::thread::Builder::new().name("aof".into()).spawn(serve) {
        // Replies must not wait for a thread that is not there.
        aof.appender.set_always(false);
        warning!("Can't start the thread that syncs the append only file: {}", plain(&error));
    }
}

fn policy(engine: &Engine) -> Policy {
    let config = engine.config.load();
    let busy = engine.saves.is_running() || engine.aof.is_rewriting();
    Policy { sync: config.appendfsync, hold: config.no_appendfsync_on_rewrite && busy }
}

/// Follows a changed configuration.
pub fn follow(engine: &Engine, new: &Config, old: &Config) {
    let aof = &engine.aof;
    if new.appendfsync != old.appendfsync {
        aof.appender.set_always(aof.is_on() && new.appendfsync == AppendFsync::Always);
        aof.appender.ring();
    }
    match (old.appendonly, new.appendonly) {
        (false, true) => turn_on(engine),
        (true, false) => turn_off(engine),
        _ => {}
    }
}

fn turn_on(engine: &Engine) {
    let aof = &engine.aof;
    if aof.is_on() {
        return;
    }
    aof.set_state(State::Waiting);
    aof.failures.store(0, Ordering::Relaxed);
    let busy = engine.saves.is_running() || engine.keyspace.snapshot().is_active() || aof.is_rewriting();
    if busy {
        // One that began without the log would not have what comes after it.
        aof.stop_rewrite();
        aof.scheduled.store(true, Ordering::Relaxed);
        notice!(
            "AOF was enabled but there is already another background operation. An AOF background was scheduled to start when possible."
        );
    } else if begin_rewrite(engine).is_err() {
        aof.scheduled.store(true, Ordering::Relaxed);
    }
}

/// Turns the log off: what it has is synced.
pub fn turn_off(engine: &Engine) {
    let aof = &engine.aof;
    if aof.is_rewriting() {
        notice!("Killing AOF child: the append only file was turned off");
        aof.stop_rewrite();
    }
    aof.scheduled.store(false, Ordering::Relaxed);
    aof.set_state(State::Off);
    aof.next_turn();
    let reader = aof.reader.lock().take();
    reader.into_iter().for_each(|number| engine.log.leave(number));
    if let Err(error) = aof.appender.close() {
        warning!("Fail to fsync the AOF file: {}.", plain(&error));
    }
    aof.appender.set_always(false);
    engine.refuse(Refusal::LogFailed, false);
    end_local(engine);
}

/// Has the log begin anew with what is there, if there is one: the data set was replaced by another.
pub fn begin_anew(engine: &Engine) {
    if engine.aof.is_on() {
        turn_off(engine);
        turn_on(engine);
    }
}

/// What the end of the server does with the log.
///
/// # Errors
/// It has no base yet: what it has could not be read again.
pub fn end(engine: &Engine) -> Result<(), NotSaved> {
    let aof = &engine.aof;
    match aof.state() {
        State::Off => return Ok(()),
        State::Waiting => return Err(NotSaved),
        State::On => {}
    }
    if aof.is_rewriting() {
        warning!("There is a child rewriting the AOF. Killing it!");
        aof.stop_rewrite();
    }
    notice!("Calling fsync() on the AOF file.");
    if let Err(error) = aof.appender.flush() {
        warning!("Fail to fsync the AOF file: {}.", plain(&error));
    }
    Ok(())
}

/// Has a rewrite begin, which nothing is in the way of; it is told by `aof_rewrite_in_progress` from now on.
///
/// # Errors
/// There is one already, or the system refuses a thread.
fn begin_rewrite(engine: &Engine) -> Result<(), String> {
    let aof = &engine.aof;
    let mut rewrite = aof.rewrite.lock();
    if rewrite.is_some() {
        return Err("there is one already".into());
    }
    let shared = engine.arc();
    let work = move || {
        crash::prepare_thread();
        run_rewrite(&shared);
    };
    std::thread::Builder::new().name("rewrite".into()).spawn(work).map_err(|error| plain(&error))?;
    *rewrite = Some(Rewrite { started_ms: engine.clock.now_ms(), progress: Progress::default(), stopped: false });
    aof.scheduled.store(false, Ordering::Relaxed);
    aof.rewrites.fetch_add(1, Ordering::Relaxed);
    notice!("Background append only file rewriting started by pid {}", std::process::id());
    Ok(())
}

/// The thread of a rewrite.
fn run_rewrite(engine: &Engine) {
    let (aof, started) = (&engine.aof, Instant::now());
    let result = rewrite(engine);
    disk::remove(&temporary_path(&engine.config.load()));
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

fn rewrite(engine: &Engine) -> Result<(), String> {
    let config = engine.config.load_full();
    let (aof, running) = (&engine.aof, engine.keyspace.snapshot());
    let say = |what: &'static str| move |error: io::Error| format!("{what}: {}", plain(&error));
    disk::make_directory(&directory(&config)).map_err(say("the directory"))?;
    let state = aof.state();
    // What comes after the base goes here. It is named before anything is in it.
    let next = match state {
        State::Off => None,
        State::On => {
            let mut manifest = aof.manifest.lock();
            let mut with = manifest.clone();
            let part = with.next_increment(&config.appendfilename);
            let path = file(&config, &part);
            disk::remove(&path);
            let (append, _) = Append::open(&path).map_err(say("the next file"))?;
            with.increments.push(part.clone());
            persist(&config, &with).map_err(say("the manifest"))?;
            *manifest = with;
            Some((part, append))
        }
        State::Waiting => {
            let path = waiting_path(&config);
            disk::remove(&path);
            let (append, _) = Append::open(&path).map_err(say("the next file"))?;
            Some((aof.manifest.lock().next_increment(&config.appendfilename), append))
        }
    };
    let manner = Manner::of(&config);
    let encoder: Arc<dyn Encode> = match config.aof_use_rdb_preamble {
        true => crate::persist::rdb::save::encoder(&config, engine.moment(&config)),
        false => Arc::new(Commands),
    };
    let (snapshot, part, head) = {
        let _alone = engine.keyspace.gates().alone();
        let mut hold = engine.keyspace.hold(ShardSet::ALL);
        let stopped = aof.rewrite.lock().as_ref().is_none_or(|rewrite| rewrite.stopped);
        if stopped || aof.state() != state {
            return Err("stopped".into());
        }
        let Some(snapshot) = Snapshot::begin(running, &mut hold, encoder) else {
            aof.scheduled.store(true, Ordering::Relaxed);
            return Err("a snapshot began meanwhile".into());
        };
        if let Some(rewrite) = &mut *aof.rewrite.lock() {
            rewrite.progress = snapshot.progress.clone();
        }
        let before = aof.appender.size.load(Ordering::Relaxed);
        let part = next.map(|(part, append)| {
            join(engine, &config, append, 0);
            part
        });
        if state == State::On {
            aof.others_bytes.fetch_add(before, Ordering::Relaxed);
        }
        (snapshot, part, save::head(engine, save::Purpose::Base))
    };
    let mut hold = engine.keyspace.hold_none();
    let temporary = temporary_path(&config);
    let sync_every = config.aof_rewrite_incremental_fsync.then_some(SYNC_EVERY_BYTES);
    let created = Temporary::create(&temporary, sync_every);
    let (mut sink, created): (Option<Temporary>, io::Result<()>) = match created {
        Ok(file) => (Some(file), Ok(())),
        Err(error) => {
            // It must be walked in any case.
            snapshot.progress.stop();
            (None, Err(error))
        }
    };
    let mut nowhere = io::sink();
    let to: &mut dyn Write = match &mut sink {
        Some(file) => file,
        None => &mut nowhere,
    };
    let written = match config.aof_use_rdb_preamble {
        true => crate::persist::rdb::save::write(snapshot, running, &mut hold, &head, manner, to),
        false => write_commands(snapshot, engine, &mut hold, &head, to),
    };
    created.map_err(say("the temporary file"))?;
    written.map_err(|error| error.to_string())?;
    let file_of_base = sink.take().ok_or("no file")?;
    let mut manifest = aof.manifest.lock();
    let base = manifest.next_base(&config.appendfilename, config.aof_use_rdb_preamble);
    file_of_base.commit(&file(&config, &base)).map_err(say("the base"))?;
    let mut with = Manifest { base: Some(base), ..Manifest::default() };
    with.history = manifest.history.clone();
    with.history.extend(manifest.base.clone());
    with.history.extend(manifest.increments.iter().filter(|old| Some(*old) != part.as_ref()).cloned());
    let stopped = aof.rewrite.lock().as_ref().is_none_or(|rewrite| rewrite.stopped);
    if stopped || aof.state() != state {
        // The log was turned on or off meanwhile: nobody knows this base.
        with.base.iter().for_each(|base| disk::remove(&file(&config, base)));
        return Err("stopped".into());
    }
    if let Some(part) = &part {
        if state == State::Waiting {
            disk::rename(&waiting_path(&config), &file(&config, part)).map_err(say("the next file"))?;
        }
        with.increments.push(part.clone());
    }
    persist(&config, &with).map_err(say("the manifest"))?;
    let base_bytes = with.base.as_ref().map_or(0, |base| disk::length(&file(&config, base)));
    *manifest = with;
    if state == State::Waiting {
        aof.set_state(State::On);
    }
    aof.others_bytes.store(base_bytes, Ordering::Relaxed);
    aof.base_bytes.store(aof.bytes(), Ordering::Relaxed);
    if !config.aof_disable_auto_gc {
        remove_history(&config, &mut manifest).map_err(say("old files"))?;
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
    to: &mut dyn Write,
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
fn write_held(engine: &Engine, config: &Config, hold: &mut Hold<'_>, base: &Part) -> io::Result<()> {
    let mut to = Temporary::create(&temporary_path(config), None)?;
    let head = save::head(engine, save::Purpose::Base);
    if config.aof_use_rdb_preamble {
        let encoder = crate::persist::rdb::save::encoder(config, engine.moment(config));
        let manner = Manner::of(config);
        crate::persist::rdb::save::write_held(&engine.keyspace, hold, &*encoder, &head, manner, &mut to)?;
    } else {
        to.write_all(&functions(&head))?;
        let mut bytes = Vec::new();
        for (db, _) in engine.keyspace.counts(hold, 0) {
            bytes.extend(commands::select(db));
            let mut cursor = 0;
            loop {
                cursor = engine.keyspace.scan(hold, db, cursor, 1024, |entry| Commands.encode(entry, &mut bytes));
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
    if let Err(error) = begin_rewrite(engine) {
        warning!("Can't rewrite append only file in background: {error}");
    }
}

/// DEBUG LOADAOF: forgets the data set and reads the log again. The caller runs alone, `hold` holds everything.
///
/// # Errors
/// The error reply's text.
pub fn reload<'k>(engine: &'k Engine, hold: &mut Hold<'k>) -> Result<(), &'static str> {
    const FAILED: &str = "ERR Error trying to load the AOF files, check server logs";
    let config = engine.config.load_full();
    if engine.aof.is_on() && engine.aof.appender.flush().is_err() {
        return Err(FAILED);
    }
    let flushed = engine.keyspace.take_all(hold, None);
    engine.keyspace.reclaimer().free(flushed.keys, flushed);
    // The gates stay closed: nobody but who replays touches a shard.
    *hold = engine.keyspace.hold_none();
    let manifest = match engine.aof.is_on() {
        true => Ok(engine.aof.manifest.lock().clone()),
        false => read_manifest(&config).map(Option::unwrap_or_default),
    };
    let loaded = manifest.and_then(|manifest| load(engine, &config, &manifest));
    *hold = engine.keyspace.hold(ShardSet::ALL);
    loaded.map_err(|error| {
        warning!("{error}");
        FAILED
    })?;
    warning!("Append Only File loaded by DEBUG LOADAOF");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Bench;
    use crate::persist::disk::faults::{self, Plan};
    use std::fs;
    use std::sync::atomic::AtomicU32;

    /// A directory that is gone with its test.
    struct Dir(PathBuf);

    impl Dir {
        fn new() -> Dir {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("spinel-aof-{}-{n}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Dir(path)
        }

        /// A server that keeps its files here, and does not read them yet.
        fn bench(&self, rest: &str) -> Bench {
            let dir = self.0.display();
            Bench::with(&format!("dir {dir}\nappendonly yes\nenable-debug-command yes\n{rest}"))
        }

        /// A server that has read them.
        fn start(&self, rest: &str) -> Bench {
            let bench = self.bench(rest);
            save::load_at_start(&bench.engine).unwrap();
            bench
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join("appendonlydir").join(name)
        }

        fn manifest(&self) -> String {
            fs::read_to_string(self.path("appendonly.aof.manifest")).unwrap()
        }

        fn names(&self) -> Vec<String> {
            let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
            let mut names: Vec<String> = fs::read_dir(self.0.join("appendonlydir")).unwrap().map(name).collect();
            names.sort();
            names
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            faults::set(&self.0, None);
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Waits for the rewrite that goes on.
    fn finish(bench: &Bench) {
        while bench.engine.aof.is_rewriting() {
            std::thread::yield_now();
        }
    }

    /// Changes of every kind.
    const CHANGES: &[&str] = &[
        "SET a 1 EX 1000",
        "INCR a",
        "SELECT 3",
        "RPUSH list a b c 1 70000",
        "LPOP list",
        "HSET hash a 1 b 2",
        "HINCRBYFLOAT hash a 1.5",
        "ZADD zset 1.5 a -inf b 7 c",
        "ZPOPMIN zset",
        "SELECT 0",
        "SET b x PX 5",
        "APPEND b y",
        "SETRANGE c 5 hello",
        "EXPIRE c 100",
        "PERSIST c",
        "RENAME c d",
        "COPY d e DB 3",
        "MOVE d 5",
        "MSET x 1 y 2 z 3",
        "GETEX x EX 100",
        "GETDEL y",
        "SADD set a b c 1 2",
        "SPOP set 2",
        "SADD intset 1 2 3",
        "SPOP intset",
        "XADD stream 1-1 a 1",
        "XADD stream * b 2",
        "XGROUP CREATE stream group 0",
        "XREADGROUP GROUP group alice COUNT 1 STREAMS stream >",
        "XACK stream group 1-1",
        "SWAPDB 0 3",
        "SET int 5",
        "INCRBYFLOAT int 0.25",
        "LMOVE list list LEFT RIGHT",
        "DEL z",
    ];

    #[test]
    fn what_was_changed_is_there_again() {
        for preamble in ["aof-use-rdb-preamble yes", "aof-use-rdb-preamble no\naof-timestamp-enabled yes"] {
            let dir = Dir::new();
            let mut bench = dir.start(preamble);
            for change in CHANGES {
                let reply = bench.run(change);
                assert!(!reply.starts_with('-'), "{change}: {reply}");
            }
            let digest = bench.run("DEBUG DIGEST");
            assert_eq!(bench.run("DEBUG LOADAOF"), "+OK|");
            assert_eq!(bench.run("DEBUG DIGEST"), digest, "{preamble}");
            assert_eq!(bench.run("BGREWRITEAOF"), "+Background append only file rewriting started|");
            bench.run("SET behind 1");
            finish(&bench);
            let digest = bench.run("DEBUG DIGEST");
            drop(bench);
            let mut bench = dir.start(preamble);
            assert_eq!(bench.run("DEBUG DIGEST"), digest, "{preamble}");
            let base = if preamble.ends_with("mble yes") { "rdb" } else { "aof" };
            assert_eq!(
                dir.manifest(),
                format!(
                    "file appendonly.aof.2.base.{base} seq 2 type b\nfile appendonly.aof.2.incr.aof seq 2 type i\n"
                )
            );
            assert_eq!(dir.names().len(), 3, "{:?}", dir.names());
        }
    }

    #[test]
    fn a_cut_at_any_byte_leaves_a_state_that_was_there() {
        let dir = Dir::new();
        let mut bench = dir.start("");
        let path = dir.path("appendonly.aof.1.incr.aof");
        let mut states = vec![(0, bench.run("DEBUG DIGEST"))];
        for change in CHANGES {
            bench.run(change);
            states.push((fs::metadata(&path).unwrap().len() as usize, bench.run("DEBUG DIGEST")));
        }
        drop(bench);
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), states.last().unwrap().0);
        for cut in (0..=bytes.len()).step_by(if cfg!(miri) { 97 } else { 1 }) {
            fs::write(&path, &bytes[..cut]).unwrap();
            let mut bench = dir.start("");
            let digest = bench.run("DEBUG DIGEST");
            let (whole, expected) = states.iter().rev().find(|(len, _)| *len <= cut).unwrap();
            // A SELECT alone is whole, and changes nothing.
            assert_eq!(&digest, expected, "cut at {cut}, behind {whole}");
            assert!(fs::metadata(&path).unwrap().len() as usize <= cut);
        }
    }

    #[test]
    fn a_log_that_is_turned_on_begins_with_what_is_there() {
        let dir = Dir::new();
        let mut bench = Bench::with(&format!("dir {}\nenable-debug-command yes", dir.0.display()));
        bench.run("SET a 1");
        assert!(bench.run("INFO persistence").contains("aof_enabled:0|"));
        assert_eq!(bench.run("CONFIG SET appendonly yes"), "+OK|");
        bench.run("SET b 2");
        finish(&bench);
        bench.run("SET c 3");
        let info = bench.run("INFO persistence");
        assert!(info.contains("aof_enabled:1|") && info.contains("aof_last_bgrewrite_status:ok|"), "{info}");
        assert!(info.contains("aof_current_size:"), "{info}");
        let digest = bench.run("DEBUG DIGEST");
        assert_eq!(dir.start("").run("DEBUG DIGEST"), digest);
        assert_eq!(bench.run("CONFIG SET appendonly no"), "+OK|");
        bench.run("SET d 4");
        assert_eq!(dir.start("").run("DEBUG DIGEST"), digest);
        // On again: what the log had is of no use any more.
        bench.run("CONFIG SET appendonly yes");
        finish(&bench);
        bench.run("SET e 5");
        let digest = bench.run("DEBUG DIGEST");
        assert_eq!(dir.start("").run("DEBUG DIGEST"), digest);
        assert_eq!(dir.names().len(), 3, "{:?}", dir.names());
    }

    #[test]
    fn a_log_of_one_file_becomes_the_base_of_a_new_one() {
        let dir = Dir::new();
        fs::write(dir.0.join("appendonly.aof"), "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n").unwrap();
        let mut bench = dir.start("");
        assert_eq!(bench.run("GET a"), "$1|1|");
        assert_eq!(dir.manifest(), "file appendonly.aof seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n");
        assert!(!dir.0.join("appendonly.aof").exists());
        bench.run("BGREWRITEAOF");
        finish(&bench);
        assert_eq!(dir.start("").run("GET a"), "$1|1|");
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let say = |manifest: Option<&str>, log: &str, rest: &str| {
            let dir = Dir::new();
            fs::create_dir_all(dir.0.join("appendonlydir")).unwrap();
            fs::write(dir.path("appendonly.aof.1.incr.aof"), log).unwrap();
            let manifest = manifest.unwrap_or("file appendonly.aof.1.incr.aof seq 1 type i\n");
            fs::write(dir.path("appendonly.aof.manifest"), manifest).unwrap();
            save::load_at_start(&dir.bench(rest).engine).err().unwrap_or_default()
        };
        assert!(say(Some(""), "", "").contains("Found an empty AOF manifest"));
        assert!(
            say(Some("file x seq 1 type i\n"), "", "").contains("the append only file x for reading: No such file")
        );
        assert!(say(None, "nonsense\r\n", "").starts_with("Bad file format reading the append only file"));
        assert!(say(None, "*1\r\n$3\r\nFOO\r\n", "").starts_with("Unknown command 'FOO' reading"));
        assert!(say(None, "*1\r\n$4\r\nPI", "aof-load-truncated no").starts_with("Unexpected end of file"));
        assert_eq!(say(None, "*1\r\n$4\r\nPI", ""), "");
    }

    #[test]
    fn a_transaction_without_its_end_is_left_out() {
        let dir = Dir::new();
        fs::create_dir_all(dir.0.join("appendonlydir")).unwrap();
        let set = |key: &str| format!("*3\r\n$3\r\nSET\r\n$1\r\n{key}\r\n$1\r\n1\r\n");
        let (multi, exec) = ("*1\r\n$5\r\nMULTI\r\n", "*1\r\n$4\r\nEXEC\r\n");
        let whole = [&set("a"), multi, &set("b"), &set("c"), exec].concat();
        let log = [&whole, multi, &set("d")].concat();
        fs::write(dir.path("appendonly.aof.1.incr.aof"), log).unwrap();
        fs::write(dir.path("appendonly.aof.manifest"), "file appendonly.aof.1.incr.aof seq 1 type i\n").unwrap();
        let mut bench = dir.start("");
        assert_eq!(bench.run("EXISTS a b c d"), ":3|");
        assert_eq!(fs::read(dir.path("appendonly.aof.1.incr.aof")).unwrap(), whole.as_bytes());
    }

    #[test]
    fn keys_live_as_long_as_the_log_needs_them() {
        let dir = Dir::new();
        let mut bench = dir.start("");
        bench.run("SET a 1 PX 100");
        bench.run("INCR a");
        bench.run("PERSIST a");
        bench.run("SET b 1 PX 100");
        drop(bench);
        let bench = dir.bench("");
        bench.clock.advance(60_000);
        save::load_at_start(&bench.engine).unwrap();
        let mut bench = bench;
        assert_eq!(bench.run("GET a"), "$1|2|");
        assert_eq!(bench.run("GET b"), "$-1|");
    }

    #[test]
    fn a_full_disk_refuses_writes_and_is_recovered_from() {
        for policy in ["appendfsync everysec", "appendfsync always"] {
            let dir = Dir::new();
            let mut bench = dir.start(policy);
            bench.run("SET a 1");
            bench.engine.aof.appender.flush().unwrap();
            faults::set(&dir.0, Some(Plan { room: Some(10), ..Plan::default() }));
            bench.run("SET a 2");
            let _ = bench.engine.aof.appender.flush();
            bench.engine.refuse(Refusal::LogFailed, true);
            assert_eq!(
                bench.run("SET a 3"),
                "-MISCONF Errors writing to the AOF file: No space left on device|",
                "{policy}"
            );
            assert_eq!(bench.run("GET a"), "$1|2|");
            assert!(bench.run("INFO persistence").contains("aof_last_write_status:err|"));
            faults::set(&dir.0, None);
            bench.engine.aof.appender.flush().unwrap();
            assert_eq!(bench.run("SET a 4"), "+OK|");
            bench.engine.aof.appender.flush().unwrap();
            assert_eq!(dir.start("").run("GET a"), "$1|4|");
        }
    }

    #[test]
    fn a_log_that_has_doubled_is_rewritten_by_itself() {
        let dir = Dir::new();
        let mut bench = dir.start("auto-aof-rewrite-min-size 1000");
        for _ in 0..100 {
            bench.run("INCR a");
        }
        look_at_growth(&bench.engine);
        finish(&bench);
        assert!(dir.manifest().contains("appendonly.aof.2.base.rdb"));
        assert!(bench.run("INFO persistence").contains("aof_rewrites:1|"));
        look_at_growth(&bench.engine);
        assert!(!bench.engine.aof.is_rewriting());
    }

    #[test]
    fn a_rewrite_that_fails_leaves_what_can_be_read() {
        let dir = Dir::new();
        let mut bench = dir.start("");
        bench.run("SET a 1");
        // Something is in the way of the new base.
        fs::create_dir_all(dir.path("appendonly.aof.2.base.rdb/x")).unwrap();
        for _ in 0..2 {
            bench.run("BGREWRITEAOF");
            bench.run("INCR a");
            finish(&bench);
        }
        assert!(bench.run("INFO persistence").contains("aof_last_bgrewrite_status:err|"));
        assert_eq!(dir.manifest().lines().count(), 4);
        let mut other = dir.start("");
        assert_eq!(other.run("GET a"), "$1|3|");
        drop(other);
        fs::remove_dir_all(dir.path("appendonly.aof.2.base.rdb")).unwrap();
        bench.run("BGREWRITEAOF");
        finish(&bench);
        assert_eq!(dir.manifest().lines().count(), 2);
        assert_eq!(dir.start("").run("GET a"), "$1|3|");
    }
}
